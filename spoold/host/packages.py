"""The version of a program by the system's package manager: distributions mend holes without a new upstream number."""

from __future__ import annotations

import os
import shutil

from spoold.host import proc

BOUNDS = proc.Bounds(wall=20)


def version_of(program: str) -> str:
    """Return the version of the package that ``program`` comes from; "" where it comes from none."""
    path = os.path.realpath(shutil.which(program) or program)
    if shutil.which("dpkg-query"):
        # On a merged /usr the package may know the file by its other name.
        for name in (path, path.removeprefix("/usr")):
            owner = _ask("dpkg-query", "--search", name).partition(": ")[0].split(",")[0]
            if owner and (version := _ask("dpkg-query", "--show", "--showformat=${Version}", owner)):
                return version
    if shutil.which("rpm"):
        return _ask("rpm", "-qf", "--queryformat", "%{VERSION}-%{RELEASE}", path)
    return ""


def _ask(*command: str) -> str:
    finished = proc.run(list(command), BOUNDS)
    return finished.stdout.data.decode(errors="replace").strip() if finished.ok else ""
