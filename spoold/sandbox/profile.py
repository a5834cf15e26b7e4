"""The seccomp profile of all containers: ``seccomp.json``, and with cells ``seccomp-recycled.json`` too."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any


@functools.cache
def profile(*, cells: bool) -> dict[str, Any]:
    """Return the profile in Docker's form. OCI's form has no ``archMap``."""
    found = _read("seccomp.json")
    if cells:
        found["syscalls"] += _read("seccomp-recycled.json")["syscalls"]
    return found


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((resources.files(__package__) / name).read_text())
    return found
