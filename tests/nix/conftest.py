"""A store that a test may spoil, and builders that may download."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from spoold.config import NixSettings
from spoold.nix.build import NixBuilder
from tests import web
from tests.nix.downloads import LOOPBACK, Allow, allowing
from tests.nix.room import Copy
from tests.web import Web


def copy_store(builder: NixBuilder, state: Path) -> None:
    """Make ``state`` a copy of a builder's Nix state, whose files are shared with the original."""
    builder.prepare()
    subprocess.run(["cp", "-al", builder.settings.nix.state, state], check=True)
    database = state / "nix/nix/var/nix/db"
    subprocess.run(["rm", "-r", database], check=True)
    subprocess.run(["cp", "-a", builder.store.root / "nix/var/nix/db", database], check=True)


@pytest.fixture
def copy(nix_builder: NixBuilder, tmp_path: Path) -> Copy:
    """Return a function that makes a builder on a copy of the session's store.

    The copy roots only the pins and the runtime. It shares files with the original, since nothing changes files in a
    store.
    """
    state = tmp_path / "state"
    copy_store(nix_builder, state)
    settings = msgspec.structs.replace(
        nix_builder.settings, nix=NixSettings(state=str(state), system=nix_builder.settings.nix.system)
    )

    def make() -> NixBuilder:
        builder = NixBuilder(settings)
        builder.prepare()
        return builder

    make().store.roots.keep_only("builds", [])
    return make


@pytest.fixture
def allow(nix_builder: NixBuilder) -> Allow:
    """Return a function that makes a builder on the session's store that may download from hosts."""

    def make(*hosts: str, inside: Sequence[str] = LOOPBACK, **limits: float) -> NixBuilder:
        builder = NixBuilder(allowing(nix_builder.settings, *hosts, inside=inside, **limits))
        builder.prepare()
        return builder

    return make


@pytest.fixture
def server() -> Iterator[Web]:
    """Yield a web server on loopback that has one file."""
    with web.serving() as made:
        made.has("/x", b"content")
        yield made
