"""Fixtures with a real Nix and a real, if small, nixpkgs: one store for the whole session."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from spoold.config import Nix, Settings
from spoold.nix.build import NixBuilder

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nixpkgs_debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nixpkgs made from Debian packages: the one that $SPOOLD_TEST_NIXPKGS names, else a fresh one."""
    if given := os.environ.get("SPOOLD_TEST_NIXPKGS"):
        return Path(given)
    made = tmp_path_factory.mktemp("nixpkgs") / "debian"
    subprocess.run([REPOSITORY / "contrib/nixpkgs-debian/make", made], check=True)
    return made


@pytest.fixture(scope="session")
def nix_settings(tmp_path_factory: pytest.TempPathFactory, nixpkgs_debian: Path) -> Settings:
    """Settings with a store of this session."""
    state = tmp_path_factory.mktemp("state")
    return Settings(nix=Nix(state=str(state)), nixpkgs={"default": str(nixpkgs_debian)})


@pytest.fixture(scope="session")
def nix_builder(nix_settings: Settings) -> NixBuilder:
    """A builder that is ready."""
    builder = NixBuilder(nix_settings)
    builder.prepare()
    return builder
