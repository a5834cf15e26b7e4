"""Versions of other programs with holes that let a job or a build out.

Distributions mend holes without changing the number in front. So if a version carries a distribution's mark, its number
says little. The changelog of its package tells which holes it mends, by their names. The doctor
warns of each hole that the changelog does not name, since only the distribution's security tracker knows more.

The table has what may let a job or a build out, or let other users of the host in. It leaves out what needs a part of
these programs that no host of spoold has to use: swarm, image builds, authorization plugins, and containerd's interface
for Kubernetes. ``TAKEN`` is the day on which it was last compared with the advisories.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

from spoold.model.findings import Finding, Level

TAKEN = "2026-11-30"
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
# 1.1.5+ds1-1+deb12u1, 1.1.12-0ubuntu3, 20.10.24+dfsg1, 1.1.12-4.el9, 1.2.4-1.fc41, 1:1.1.15~deb12; not 1.4.0-rc.3
_MARK = re.compile(r"[+~]|ubuntu|deb\d|\.(?:el|fc)\d|-\d")


class Hole(NamedTuple):
    """A known hole.

    ``published`` is the day of its advisory, and ``source`` is where the advisory stands. ``fixed`` has the first
    versions without the hole, one per series, ascending. ``since`` is the first version with it, "" where all earlier
    versions have it. ``only`` says where it matters, "" where any job or build may use it.
    """

    name: str
    published: str
    source: str
    fixed: tuple[str, ...]
    since: str = ""
    only: str = ""


DOCKER_CP = "only where somebody runs docker cp on a container of a job, which spoold never does"
STRANGERS = "only where the engine unpacks a stranger's archive or image, while spoold loads its own alone"
USERS = "only through people who can log in to this host"
# of Nix and of Lix
OCTOBER = "CVE-2026-110449, CVE-2026-110450", "2026-10-14", "https://www.cve.org/CVERecord?id=CVE-2026-110449"


def _of_runc(name: str, published: str, advisory: str, *fixed: str) -> Hole:
    return Hole(name, published, f"https://github.com/opencontainers/runc/security/advisories/{advisory}", fixed)


def _of_nix(name: str, published: str, advisory: str, *fixed: str, since: str = "") -> Hole:
    return Hole(name, published, f"https://github.com/NixOS/nix/security/advisories/{advisory}", fixed, since)


def _of_moby(name: str, published: str, advisory: str, fixed: str, only: str) -> Hole:
    return Hole(name, published, f"https://github.com/moby/{advisory}", (fixed,), only=only)


HOLES = {
    "Docker Engine": (
        _of_moby(
            "CVE-2026-41567", "2026-06-05", "moby/security/advisories/GHSA-x86f-5xw2-fm2r", "29.5.1", only=DOCKER_CP
        ),
        _of_moby(
            "CVE-2026-41568", "2026-06-12", "moby/security/advisories/GHSA-vp62-88p7-qqf5", "29.5.1", only=DOCKER_CP
        ),
        _of_moby(
            "CVE-2026-42306", "2026-06-12", "moby/security/advisories/GHSA-rg2x-37c3-w2rh", "29.5.1", only=DOCKER_CP
        ),
        _of_moby(
            "CVE-2026-17106",
            "2026-08-18",
            "go-archive/security/advisories/GHSA-hfg8-hc9c-6c3h",
            "29.7.0",
            only=STRANGERS,
        ),
    ),
    "containerd": (
        Hole(
            "CVE-2024-25621",
            "2025-11-06",
            "https://github.com/containerd/containerd/security/advisories/GHSA-pwhc-rpq9-4c8w",
            ("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
            only=USERS,
        ),
    ),
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
        Hole(*OCTOBER, ("2.28.8", "2.30.6", "2.31.6", "2.34.9", "2.35.3")),
    ),
    "Lix": (Hole(*OCTOBER, ("2.95.4",)),),
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


def finding(program: str, version: str, packaged: str = "", changelog: str = "") -> Finding:
    """Return the finding about ``program`` in ``version``.

    ``packaged`` is the distribution's version of it, if any, and ``changelog`` that package's.
    """
    ours = bool(packaged) and numbers(packaged)[:2] == numbers(version)[:2]
    shown = packaged if ours else version
    found = of(program, version)
    mended = [hole for hole in found if ours and of_distribution(shown) and _named(hole, changelog)]
    left = [hole for hole in found if hole not in mended]
    subject = f"{program} {shown}"
    if not left:
        also = f"; its changelog says that it mends {', '.join(hole.name for hole in mended)}" if mended else ""
        return Finding(Level.FINE, subject, f"no known holes, as of {TAKEN}{also}")
    names = "; ".join(_described(only, list(same)) for only, same in groupby(left, lambda hole: hole.only))
    newest = max((hole.fixed for hole in left), key=lambda fixed: numbers(fixed[-1]))
    fixed = " or ".join(newest[-2:])
    if of_distribution(shown):
        silent = (
            "the package's changelog does not name them"
            if ours and changelog
            else "a distribution may have mended them"
        )
        return Finding(
            Level.WARNING,
            subject,
            f"its version number says that it has {names}, as of {TAKEN}; {silent}",
            f"look the names up in your distribution's security tracker, and upgrade; else use {fixed} or later",
        )
    level = Level.WARNING if all(hole.only for hole in left) else Level.REFUSED
    return Finding(level, subject, f"known holes, as of {TAKEN}: {names}", f"upgrade to {fixed} or later")


def _described(only: str, found: list[Hole]) -> str:
    names = ", ".join(f"{hole.name} ({hole.published}, {hole.source})" for hole in found)
    return f"{names}, {only}" if only else names


def _named(hole: Hole, changelog: str) -> bool:
    """Tell whether a changelog has all names of a hole, or its advisory's."""
    advisory = hole.source.rpartition("/")[2]
    names = hole.name.split(", ")
    return all(_has(changelog, name) for name in names) or (advisory.startswith("GHSA-") and _has(changelog, advisory))


def _has(text: str, name: str) -> bool:
    return bool(re.search(rf"\b{re.escape(name)}\b", text))
