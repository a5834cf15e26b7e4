"""Several pins at once, from an expression to the program that runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event

import msgspec
import pytest

from spoold.config import NixSettings, Settings
from spoold.model.errors import ClientError
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.nix.room import Copy

pytestmark = pytest.mark.nix


@pytest.fixture
def other(nixpkgs_debian: Path, tmp_path: Path) -> Path:
    """Return a nixpkgs that differs from the default one in one word, and has its own source."""
    path = tmp_path / "other"
    shutil.copytree(nixpkgs_debian, path, symlinks=True)
    revise(path, "first")
    (path / "sources").mkdir(exist_ok=True)
    (path / "sources" / "own-1.tar").write_text("own")
    return path


def revise(pin: Path, word: str) -> None:
    """Give the nixpkgs at ``pin`` an attribute that tells it from others."""
    whole = pin / "whole.nix"
    if not whole.exists():
        (pin / "default.nix").rename(whole)
    (pin / "default.nix").write_text(f'arguments: import ./whole.nix arguments // {{ revision = "{word}"; }}\n')


def with_pins(builder: NixBuilder, **more: str) -> NixBuilder:
    """Return a builder on the same store with the default pin and these pins."""
    fresh = NixBuilder(
        msgspec.structs.replace(builder.settings, nixpkgs={"default": builder.settings.nixpkgs["default"]} | more)
    )
    fresh.prepare()
    return fresh


def revision(builder: NixBuilder, pin: str) -> bytes:
    """Build with a pin. Return the revision that the shell tells."""
    expression = room.SHELL % 'packages = [ pkgs.jq ]; R = pkgs.revision or "none";'
    result = builder.build(f"with-{pin}", expression, pin, Event())
    assert result.shell, result.phase.stderr
    return room.enter(builder, result.shell, "echo $R")


def test_two_pins(copy: Copy, other: Path) -> None:
    builder = with_pins(copy(), **{"24.11": str(other)})
    runtime = builder.prepare()
    assert set(runtime.nixpkgs) == {"default", "24.11"}
    assert revision(builder, "default") == b"none\n"
    assert revision(builder, "24.11") == b"first\n"
    assert runtime.bash == copy().prepare().bash, "the runtime comes from the default pin"


def test_a_pin_that_changes_is_another_path(copy: Copy, other: Path) -> None:
    builder = with_pins(copy(), other=str(other))
    before = builder.prepare().nixpkgs["other"]
    assert builder.prepare().nixpkgs["other"] == before
    revise(other, "second")
    after = builder.prepare().nixpkgs["other"]
    assert after != before
    assert revision(builder, "other") == b"second\n"
    builder.collect({"with-other"}, dry_run=False)
    assert not builder.store.valid([before])
    assert builder.store.valid([after])


def test_a_pin_that_is_removed_is_collected_and_its_builds_stay(copy: Copy, other: Path) -> None:
    builder = with_pins(copy(), other=str(other))
    pin = builder.prepare().nixpkgs["other"]
    revision(builder, "other")
    shell = builder.store.roots.targets("builds")["with-other"]
    [own] = [path for path in builder.store.roots.targets("sources").values() if path.endswith("-own-1.tar")]
    builder.collect({"with-other"}, dry_run=False)
    assert builder.store.valid([pin, own])

    without = with_pins(builder)
    without.collect({"with-other"}, dry_run=False)
    assert not without.store.valid([pin])
    assert not without.store.valid([own])
    assert without.store.valid(without.store.closure([shell]))
    assert room.enter(without, shell, "echo $R; jq --version > /dev/null") == b"first\n"
    with pytest.raises(ClientError, match="there is no 'other'"):
        without.build("x", "1", "other", Event())
    assert with_pins(without, other=str(other)).prepare().nixpkgs["other"] == pin, "it can come back"


def test_a_pin_by_its_store_path_stays_in_the_store(copy: Copy, other: Path) -> None:
    """The location of a pin is the store path of another configuration's pin.

    Only that path is rooted, not its sources.
    """
    pin = with_pins(copy(), other=str(other)).prepare().nixpkgs["other"]
    builder = with_pins(copy(), named=pin)
    builder.collect(set(), dry_run=False)
    assert builder.store.valid([pin])
    assert revision(builder, "named") == b"first\n"


def test_settings_with_several_pins() -> None:
    text = b'[nixpkgs]\ndefault = "/a"\n"24.11" = "https://example.org/x.tar.gz"\n'
    settings = msgspec.toml.decode(text, type=Settings)
    assert settings == Settings(nix=NixSettings(), nixpkgs={"default": "/a", "24.11": "https://example.org/x.tar.gz"})
