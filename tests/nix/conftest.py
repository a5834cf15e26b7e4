"""A store that a test may spoil."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from spoold.config import NixSettings
from spoold.nix.build import NixBuilder
from tests.nix.room import Copy


@pytest.fixture
def copy(nix_builder: NixBuilder, tmp_path: Path) -> Copy:
    """Return what makes a builder on a copy of the session's store, of which nothing but the pins and runtime is
    rooted. Files are shared with the original: nothing changes a file of a store.
    """
    nix_builder.prepare()
    state = tmp_path / "state"
    subprocess.run(["cp", "-al", nix_builder.settings.nix.state, state], check=True)
    database = state / "nix/nix/var/nix/db"
    subprocess.run(["rm", "-r", database], check=True)
    subprocess.run(["cp", "-a", nix_builder.store.root / "nix/var/nix/db", database], check=True)
    settings = msgspec.structs.replace(
        nix_builder.settings, nix=NixSettings(state=str(state), system=nix_builder.settings.nix.system)
    )

    def make() -> NixBuilder:
        builder = NixBuilder(settings)
        builder.prepare()
        return builder

    make().store.roots.keep_only("builds", [])
    return make
