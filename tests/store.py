"""A Nix store with the runtime that every test of Nix needs, made once for all processes of a test run.

contrib/test names a directory in $SPOOLD_TEST_STORE. The first process that needs a store prepares one there, and the
others wait for it. Each then goes on with a copy of its own, so no process sees what another builds. A store holds no
path of the place where it lies. Without the variable each process prepares its own.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import filelock
from msgspec.structs import replace

from spoold.config import Settings
from spoold.nix.build import NixBuilder


def seed(settings: Settings) -> None:
    """Fill the Nix state directory of these settings, which is empty, with a copy of what was prepared."""
    if not (place := os.environ.get("SPOOLD_TEST_STORE")):
        return
    _prepare(Path(place), settings)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{place}/state/.", settings.nix.state], check=True)


def prepare(place: str, nixpkgs: str) -> None:
    """Prepare such a directory for tests that run elsewhere, with this nixpkgs."""
    Path(place).mkdir()
    _prepare(Path(place), Settings(nixpkgs={"default": nixpkgs}))


def _prepare(place: Path, settings: Settings) -> None:
    made, complete = place / "state", place / "complete"
    with filelock.FileLock(place / "lock"):
        if not complete.exists():
            made.mkdir(0o700, exist_ok=True)  # another process may have failed to prepare it
            NixBuilder(replace(settings, nix=replace(settings.nix, state=str(made)))).prepare()
            complete.touch()
