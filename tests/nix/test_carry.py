"""Environments move from one store to another in a signed file, and no store takes unsigned content."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.actors.intake import Intake
from spoold.cli import ctl, exits
from spoold.config import NixSettings, Settings, SpoolSettings
from spoold.nix import imports, places
from spoold.nix.build import NixBuilder
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from tests.nix import room
from tests.nix.room import Copy
from tests.nix.test_substitute import EXPRESSION, make_keys
from tests.standins import PlainSandbox

pytestmark = pytest.mark.nix


def spoolctl(settings: Settings, *words: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spoold.config.file.load", lambda _: settings)
        return CliRunner().invoke(ctl.command, ["deps", *words], standalone_mode=False)


def said(result: Result) -> str:
    return f"{result.output}{result.exception}"


@contextmanager
def daemons(settings: Settings) -> Iterator[NixBuilder]:
    """Run intake, an executor and a builder with a real store. A thread turns them."""
    backend, over = NixBuilder(settings), threading.Event()
    builder = Builder(settings, backend)
    builder.start()
    intake, executor = Intake(settings), Executor(settings, lambda _: PlainSandbox())
    executor.start()

    def turn() -> None:
        while not over.wait(0.02):
            for actor in (intake, executor, builder):
                actor.step()

    turning = threading.Thread(target=turn)
    turning.start()
    try:
        yield backend
    finally:
        over.set()
        turning.join()
        executor.stop()
        builder.stop()


def host(root: Path, like: Settings, **nix: Any) -> Settings:
    """Return the settings of a host with its own spool and store. ``nix`` changes its settings of Nix."""
    settings = msgspec.structs.replace(
        like,
        spool=SpoolSettings(path=str(root / "spool"), settle=0.1),
        nix=NixSettings(**({"state": str(root / "state"), "system": like.nix.system} | nix)),
    )
    layout.create(settings.spool.path)
    places.create(settings.nix.state)
    return settings


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a directory with a key pair: ``secret`` and ``public``."""
    directory = tmp_path / "keys"
    directory.mkdir()
    return make_keys(directory)


class Exported:
    """An environment that a host exported. No other build has the same content."""

    def __init__(self, copy: Copy, keys: Path, directory: Path) -> None:
        self.builder = copy()
        nix = self.builder.settings.nix
        self.settings = host(directory, self.builder.settings, state=nix.state, signing_key=str(keys / "secret"))
        builds = BuildStore(self.settings)
        self.build_id = room.file(builds, self.builder, EXPRESSION)
        record = builds.result(self.build_id)
        assert record is not None
        self.once = room.enter(self.builder, record.result.shell, "cat $once")
        self.public = (keys / "public").read_text().strip()
        self.file = directory / "exam.spoold"

    def export(self, *words: str) -> Result:
        return spoolctl(self.settings, "export", *words, "-o", str(self.file))


@pytest.fixture
def exported(copy: Copy, keys: Path, tmp_path: Path) -> Exported:
    made = Exported(copy, keys, tmp_path / "from")
    result = made.export(made.build_id[:12])
    assert result.return_value == exits.OK, said(result)
    return made


def brought(settings: Settings) -> list[Path]:
    """Return the imports on a host, complete or not."""
    return [each for each in (Path(settings.nix.state) / imports.DIRECTORY).iterdir() if each.name != ".lock"]


def test_an_environment_goes_from_one_store_to_another(exported: Exported, tmp_path: Path) -> None:
    there = host(tmp_path / "to", exported.settings, trusted_public_keys=[exported.public])
    early = spoolctl(there, "import", str(exported.file))
    assert "no builder has provided a runtime yet" in said(early)
    (place,) = brought(there)
    assert list(place.glob("*.narinfo"))
    with daemons(there) as builder:
        with builder.store.database() as database:
            query = "SELECT ultimate FROM ValidPaths WHERE path = ?"
            assert database.execute(query, [builder.prepare().bash]).fetchone() == (None,), "it was not built here"
        result = spoolctl(there, "import", str(exported.file), "--json")
        assert result.return_value == exits.OK, said(result)
        (told,) = json.loads(result.stdout)["builds"]
        assert told["build_id"] == exported.build_id
        record = BuildStore(there).result(exported.build_id)
        assert record is not None
        assert room.enter(builder, record.result.shell, "cat $once") == exported.once, "it was imported, not built here"
    assert not brought(there)
    assert (exported.file.stat().st_mode & 0o777) == 0o600


def test_what_no_trusted_key_signed_is_not_taken(exported: Exported, tmp_path: Path) -> None:
    other = f"test-1:{'A' * 43}="
    for trusted in ([], [other]):
        there = host(tmp_path / f"to-{len(trusted)}", exported.settings, trusted_public_keys=trusted)
        result = spoolctl(there, "import", str(exported.file))
        assert "nothing was imported" in said(result)
        assert "its signers: test-1" in said(result)
        assert not brought(there)


@pytest.mark.parametrize("what", ["nar/", ".narinfo"])
def test_what_was_changed_on_the_way_is_not_taken(exported: Exported, tmp_path: Path, what: str) -> None:
    there = host(tmp_path / "to", exported.settings, trusted_public_keys=[exported.public])
    changed = tmp_path / "changed"
    with tarfile.open(exported.file) as source, tarfile.open(changed, "w") as target:
        for member in source:
            file = source.extractfile(member)
            assert file is not None
            data = file.read()
            if what in member.name:
                data = spoilt(member.name, data)
                what, member.size = "nothing more", len(data)
            target.addfile(member, io.BytesIO(data))
    assert what == "nothing more"
    assert "nothing was imported" in said(spoolctl(there, "import", str(changed)))
    assert not brought(there)


def spoilt(name: str, data: bytes) -> bytes:
    """Flip a bit of a content, or falsify a path's references and size."""
    if name.startswith("nar/"):
        return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
    lines = [b"References: " if line.startswith(b"References: ") else line for line in data.splitlines()]
    return b"\n".join(line.replace(b"NarSize: ", b"NarSize: 1") for line in lines) + b"\n"


def test_a_pin_that_is_not_here_is_in_the_file(exported: Exported, tmp_path: Path) -> None:
    there = host(tmp_path / "to", exported.settings, trusted_public_keys=[exported.public])
    pin = exported.builder.prepare().nixpkgs["default"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "default.nix").write_text(f"args: import {exported.settings.nixpkgs['default']} args\n")
    spoolctl(there, "import", str(exported.file))
    builder = NixBuilder(there)
    runtime = builder.prepare()
    wrong = msgspec.structs.replace(runtime, nixpkgs={"default": f"/nix/store/{32 * 'a'}-nixpkgs"})
    BuildStore(there).runtime.provide(wrong)
    result = spoolctl(there, "import", str(exported.file))
    assert f"`spoolctl nixpkgs add NAME {pin}` adds it from" in said(result)
    assert "called 'default'" in said(result)
    assert brought(there)
    fresh = host(tmp_path / "bare", exported.settings, trusted_public_keys=[exported.public])
    (Path(fresh.nix.state) / imports.DIRECTORY).rmdir()
    (Path(there.nix.state) / imports.DIRECTORY).rename(Path(fresh.nix.state) / imports.DIRECTORY)
    taken = NixBuilder(msgspec.structs.replace(fresh, nixpkgs={"default": pin})).prepare()
    assert taken.nixpkgs == {"default": pin}
    assert taken.bash == runtime.bash


def test_what_cannot_be_exported(copy: Copy, keys: Path, tmp_path: Path) -> None:
    made = Exported(copy, keys, tmp_path / "from")
    shell = tmp_path / "new.nix"
    shell.write_text("# not built")
    assert "not built; `spoolctl deps build`" in said(made.export(str(shell)))
    assert "0 builds begin with 00000000" in said(made.export("00000000"))
    assert "is no file and no id" in said(made.export("nothing"))
    made.settings = msgspec.structs.replace(
        made.settings, nix=msgspec.structs.replace(made.settings.nix, signing_key=str(shell))
    )
    assert "cannot sign with" in said(made.export(made.build_id))
    assert not made.file.exists()
    made.settings = msgspec.structs.replace(
        made.settings, nix=msgspec.structs.replace(made.settings.nix, signing_key="")
    )
    assert "signing_key names no file" in said(made.export(made.build_id))
    assert not list((made.builder.store.room / "exports").iterdir()), "nothing is left"
