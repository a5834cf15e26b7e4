"""Versions of other programs with holes that let a job or a build out.

Distributions mend holes without changing the number in front. So if a version carries a distribution's mark, only the
distribution can say whether the hole is mended: see ``of_distribution``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from spoold.model.findings import Finding, Level

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
# 1.1.5+ds1-1+deb12u1, 1.1.12-0ubuntu3, 20.10.24+dfsg1, 1.1.12-4.el9, 1.2.4-1.fc41, 1:1.1.15~deb12; not 1.4.0-rc.3
_MARK = re.compile(r"[+~]|ubuntu|deb\d|\.(?:el|fc)\d|-\d")


class Hole(NamedTuple):
    """A known hole.

    ``published`` is the day of its advisory, and ``source`` is where the advisory stands. ``fixed`` has the first
    versions without the hole, one per series, ascending. ``since`` is the first version with it, "" where all earlier
    versions have it.
    """

    name: str
    published: str
    source: str
    fixed: tuple[str, ...]
    since: str = ""


def _of_runc(name: str, published: str, advisory: str, *fixed: str) -> Hole:
    return Hole(name, published, f"https://github.com/opencontainers/runc/security/advisories/{advisory}", fixed)


def _of_nix(name: str, published: str, advisory: str, *fixed: str, since: str = "") -> Hole:
    return Hole(name, published, f"https://github.com/NixOS/nix/security/advisories/{advisory}", fixed, since)


HOLES = {
    "runc": (
        _of_runc("CVE-2024-21626", "2024-01-31", "GHSA-xr7r-f8xq-vfvv", "1.1.12"),
        _of_runc("CVE-2025-31133", "2025-11-05", "GHSA-9493-h29p-rfm2", "1.2.8", "1.3.3"),
        _of_runc("CVE-2025-52565", "2025-11-05", "GHSA-qw9x-cqr3-wc7r", "1.2.8", "1.3.3"),
        _of_runc("CVE-2025-52881", "2025-11-05", "GHSA-cgrx-mc8f-2prm", "1.2.8", "1.3.3"),
    ),
    "Nix": (
        _of_nix("CVE-2024-27297", "2024-03-07", "GHSA-2ffj-w4mj-pg37", "2.3.18", "2.18.2", "2.19.4", "2.20.5"),
        Hole(
            "CVE-2025-46415, CVE-2025-46416",
            "2025-06-24",
            "https://discourse.nixos.org/t/security-advisory-privilege-escalations-in-nix-lix-and-guix/66017",
            ("2.24.15", "2.26.4", "2.28.4", "2.29.1"),
        ),
        _of_nix(
            "CVE-2026-39860",
            "2026-04-07",
            "GHSA-g3g9-5vj6-r3gj",
            *("2.28.6", "2.29.3", "2.30.4", "2.31.4", "2.32.7", "2.33.4", "2.34.5"),
            since="2.18.2",  # the fix of CVE-2024-27297 brought it
        ),
        _of_nix(
            "CVE-2026-44028",
            "2026-05-04",
            "GHSA-vh5x-56v6-4368",
            *("2.28.7", "2.29.4", "2.30.5", "2.31.5", "2.32.8", "2.33.6", "2.34.7"),
            since="2.24.4",
        ),
    ),
    "crun": (Hole("CVE-2022-27650", "2022-04-04", "https://nvd.nist.gov/vuln/detail/CVE-2022-27650", ("1.4.4",)),),
}


def of(program: str, version: str) -> list[Hole]:
    """Return the holes that ``program`` has in ``version``, judged by the number alone."""
    number = numbers(version)
    return [
        hole
        for hole in HOLES.get(program, ())
        if not (number and number < numbers(hole.since)) and not _mended(number, hole.fixed)
    ]


def _mended(version: tuple[int, ...], fixed: tuple[str, ...]) -> bool:
    """Tell whether a version is at least the fix of its series. If its series has none, it has to be past all fixes."""
    bounds = [numbers(text) for text in fixed]
    same = [bound for bound in bounds if bound[:2] == version[:2]]
    return version >= (same[0] if same else max(bounds))


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version without its epoch: (1, 1, 5) of 1:1.1.5+ds1-1."""
    found = _NUMBERS.search(version.rpartition(":")[2])
    return tuple(int(number) for number in found.group().split(".")) if found else ()


def of_distribution(version: str) -> bool:
    """Tell whether a version carries a distribution's mark: its holes may be mended although its number is old."""
    return bool(_MARK.search(version))


def finding(program: str, version: str, packaged: str = "") -> Finding:
    """Return the finding about ``program`` in ``version``. ``packaged`` is the distribution's version of it, if any."""
    shown = packaged if packaged and numbers(packaged)[:2] == numbers(version)[:2] else version
    found = of(program, version)
    if not found:
        return Finding(Level.FINE, f"{program} {shown}", "no known holes")
    names = ", ".join(f"{hole.name} ({hole.published}, {hole.source})" for hole in found)
    fixed = " or ".join(found[-1].fixed[-2:])
    if of_distribution(shown):
        return Finding(
            Level.WARNING,
            f"{program} {shown}",
            f"its version number says that it has {names}; a distribution may have mended its package",
            f"look the names up in your distribution's security tracker, and upgrade; else use {fixed} or later",
        )
    return Finding(Level.REFUSED, f"{program} {shown}", f"known holes: {names}", f"upgrade to {fixed} or later")
