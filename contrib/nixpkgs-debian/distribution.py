"""What apt knows of Debian's packages, and what it downloads.

apt has verified its index against the distribution's signature; every sum that is used here comes from there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = re.compile(r"^Package: (\S+)$", re.MULTILINE)
_PROVIDES = re.compile(r"^Provides: (.+)$", re.MULTILINE)
LINES = 4  # of what a command complains of; apt-get says the same of each package where there is no network


class MakeError(Exception):
    """A failure that the person can mend: the text says what happened, then what to do."""


def say(message: str) -> None:
    """Tell the person on stderr."""
    print(f"nixpkgs-debian: {message}", file=sys.stderr, flush=True)


def run(*command: str, cwd: Path | None = None) -> str:
    """Return what a command prints; raises MakeError where it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MakeError(
            f"{command[0]} is not installed; this needs a Debian or Ubuntu machine with the packages apt and dpkg"
        ) from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        detail = "\n".join([*lines[:LINES], *([f"... and {len(lines) - LINES} lines more"] if lines[LINES:] else [])])
        raise MakeError(
            f"{' '.join(command[:2])} failed: {detail}\n  if the package index is old or empty, "
            f"run `apt-get update` as root and try again"
        )
    return done.stdout


def fields_of(paragraph: str) -> dict[str, str]:
    """Return a paragraph of a control file; continuation lines are not needed and dropped."""
    pairs = (line.split(":", 1) for line in paragraph.splitlines() if ":" in line and not line.startswith(" "))
    return {key: value.strip() for key, value in pairs}


class Index:
    """apt's view of the packages: of each the candidate, which respects the machine's pins.

    All are asked for at once, 50 MB of text, since each call of apt-cache reads as much.
    """

    def __init__(self) -> None:
        self._paragraphs: dict[str, str] = {}
        self._providers: dict[str, list[str]] = {}
        for paragraph in run("apt-cache", "dumpavail").split("\n\n"):
            if match := _PACKAGE.search(paragraph):
                self._paragraphs.setdefault(match[1], paragraph)
                if provides := _PROVIDES.search(paragraph):
                    for name in provides[1].split(","):
                        self._providers.setdefault(name.split()[0], []).append(match[1])
        self._known: dict[str, dict[str, str]] = {}

    def get(self, name: str) -> dict[str, str] | None:
        """Return the fields of a package, None where there is none that can be downloaded."""
        if name not in self._known:
            fields = fields_of(self._paragraphs.get(name, ""))
            if fields and not self._is_whole(fields):
                fields = self._any_version(name)
            self._known[name] = fields
        return self._known[name] or None

    def providers(self, name: str) -> list[str]:
        """Return the packages that are another name's: ``name`` may be virtual."""
        return sorted(self._providers.get(name, ()))

    def names(self) -> Iterable[str]:
        """Return the names of all packages."""
        return self._paragraphs

    @staticmethod
    def _is_whole(fields: dict[str, str]) -> bool:
        return "Filename" in fields and "SHA256" in fields

    def _any_version(self, name: str) -> dict[str, str]:
        """Return a version that mirrors have, where the candidate is installed and they have it no longer."""
        found = map(fields_of, run("apt-cache", "show", "--all-versions", name).split("\n\n"))
        return next(filter(self._is_whole, found), {})

    def field(self, name: str, key: str) -> str:
        """Return a field of a package, "" where there is none."""
        return (self.get(name) or {}).get(key, "")

    def source(self, name: str) -> str:
        """Return the name of the source package that a package was built from."""
        return self.field(name, "Source").partition(" ")[0] or name


def addresses(wanted: dict[str, str]) -> dict[str, str]:
    """Return where apt would download packages from, by name; ``wanted`` are names and versions.

    An address with a user and a password in it is left out: whoever may build reads the lock.
    """
    found = {}
    for line in run("apt-get", "download", "--print-uris", *map("=".join, sorted(wanted.items()))).splitlines():
        url, file = line.split()[:2]
        url = url.strip("'")
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and "@" not in parts.netloc:
            found[urllib.parse.unquote(file).partition("_")[0]] = url
    return found


def dependencies(fields: dict[str, str]) -> list[list[str]]:
    """Return Pre-Depends and Depends, each a list of alternatives, without versions and architectures."""
    text = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
    return [
        [re.split(r"[\s(:\[]", choice.strip(), maxsplit=1)[0] for choice in group.split("|")]
        for group in text.split(",")
        if group.strip()
    ]


def sha256_file(path: Path) -> str:
    """Return the sum of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Wanted:
    """A .deb to download: its package, version, sum and size in bytes."""

    def __init__(self, name: str, version: str, sha256: str, size: int) -> None:
        self.name = name
        self.version = version
        self.sha256 = sha256
        self.size = size


def download(wanted: list[Wanted], cache: Path) -> dict[str, Path]:
    """Return every package's .deb, verified, in the cache under its sha256."""
    where = {deb.name: cache / f"{deb.sha256}.deb" for deb in wanted}
    missing = [deb for deb in wanted if not where[deb.name].exists()]
    if not missing:
        return where
    say(f"downloading {len(missing)} packages ({sum(deb.size for deb in missing) / 1e6:.0f} MB) with apt-get")
    arriving = cache / "arriving"
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir()
    # The sandbox user exists for root only, and could not write into a private cache.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    run("apt-get", "download", "-q", *sandbox, *(f"{deb.name}={deb.version}" for deb in missing), cwd=arriving)
    by_sum = {sha256_file(path): path for path in arriving.iterdir()}
    for deb in missing:
        path = by_sum.get(deb.sha256)
        if path is None:
            raise MakeError(
                f"apt-get downloaded a {deb.name} whose sha256 is not the one in apt's index\n"
                f"  run `apt-get update` as root and try again"
            )
        path.chmod(0o444)
        path.rename(where[deb.name])
    shutil.rmtree(arriving)
    return where
