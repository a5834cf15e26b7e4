"""The package of a program by the system's package manager: distributions mend holes without a new upstream number.

Its changelog names the holes that it mends. Debian and Ubuntu keep it beside the package's other documents, which
images of containers often leave out. Fedora and its kin keep it in the package manager.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from typing import NamedTuple

from spoold.host import proc

BOUNDS = proc.Bounds(wall=20)
DOCUMENTS = "/usr/share/doc"
LONGEST = 8 << 20  # bytes of a changelog; that of the oldest packages has half of one MiB


class Package(NamedTuple):
    """The version and the changelog of a package, "" where there is none."""

    version: str
    changelog: str


NONE = Package("", "")


def of(program: str) -> Package:
    """Return the package that ``program`` comes from, or ``NONE``."""
    path = os.path.realpath(shutil.which(program) or program)
    if shutil.which("dpkg-query"):
        # On a merged /usr the package may know the file by its other name.
        for name in (path, path.removeprefix("/usr")):
            owner = _ask("dpkg-query", "--search", name).partition(": ")[0].split(",")[0]
            if owner and (version := _ask("dpkg-query", "--show", "--showformat=${Version}", owner)):
                return Package(version, _changelog(owner.partition(":")[0]))
    if shutil.which("rpm") and (version := _ask("rpm", "-qf", "--queryformat", "%{VERSION}-%{RELEASE}", path)):
        return Package(version, _ask("rpm", "-qf", "--changelog", path))
    return NONE


def _changelog(package: str) -> str:
    for name in ("changelog.Debian.gz", "changelog.gz"):  # the latter in packages that are Debian's own
        try:
            with gzip.open(f"{DOCUMENTS}/{package}/{name}") as file:
                return file.read(LONGEST).decode(errors="replace")
        except (OSError, EOFError, zlib.error):
            continue
    return ""


def _ask(*command: str) -> str:
    finished = proc.run(list(command), BOUNDS)
    return finished.stdout.data.decode(errors="replace").strip() if finished.ok else ""
