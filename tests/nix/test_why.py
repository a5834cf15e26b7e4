"""spoolctl deps why shows what needs a path of a real store, by which references, to any user."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import msgspec
import pytest
from click.testing import CliRunner

from spoold.cli.ctl import command
from spoold.config import SpoolSettings
from spoold.nix.build import NixBuilder
from spoold.nix.why import why
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from tests.nix import room
from tests.nix.room import Copy

pytestmark = pytest.mark.nix

# The path "middle" is not an input of the shell, and "deep" is an input of neither.
DEEP = """packages = [ pkgs.hello ];
own = pkgs.writeText "outer" "${pkgs.writeText "middle" "${pkgs.writeText "deep-%s" "d"}"}";"""


def build(builder: NixBuilder, build_id: str, word: str) -> None:
    assert builder.build(build_id, room.SHELL % (DEEP % word), "default", Event()).shell


def path_of(builder: NixBuilder, name: str) -> str:
    with builder.store.database() as database:
        ((path,),) = database.execute("SELECT path FROM ValidPaths WHERE path LIKE ?", [f"%-{name}"])
    return str(path)


def test_a_chain_leads_from_each_build_to_the_path(copy: Copy) -> None:
    builder = copy()
    build(builder, "one", "a")
    build(builder, "two", "b")
    deep = path_of(builder, "deep-a")
    found = why(builder.settings.nix, deep)
    (chain,) = found.chains
    assert chain.root == "builds/one"
    assert [path.partition("-")[2] for path in chain.paths[-3:]] == ["outer", "middle", "deep-a"]
    assert chain.paths[0] == builder.store.roots.targets("builds")["one"]
    assert found.size
    bash = builder.prepare().bash
    roots = {each.root for each in why(builder.settings.nix, bash).chains}
    assert roots >= {"builds/one", "builds/two", "runtime/bash"}
    builder.store.roots.remove("builds/one")
    assert why(builder.settings.nix, deep).chains == [], "a derivation that is only a build input keeps nothing"


def test_a_path_that_is_not_there(nix_builder: NixBuilder) -> None:
    nix_builder.prepare()
    assert why(nix_builder.settings.nix, f"/nix/store/{32 * 'a'}-a").size is None


def test_the_command_names_builds_and_packages(copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder = copy()
    settings = msgspec.structs.replace(builder.settings, spool=SpoolSettings(path=f"{tmp_path}/spool"))
    layout.create(settings.spool.path)
    builds = BuildStore(settings)
    id_ = room.file(builds, builder, room.SHELL % 'packages = [ pkgs.hello ]; own = "a";')
    monkeypatch.setattr("spoold.config.file.load", lambda _: settings)
    (package,) = [each for each in builds.packages(None) if each.name == "hello"]

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(command, ["deps", "why", *words], standalone_mode=False)
        assert (done.return_value, done.exception) == (code, None), done.output
        return done.output

    shown = run(package.path + "/bin/hello")
    assert f"build {id_}" in shown
    assert f"(package hello {package.version})" in shown
    told = json.loads(run(package.path.removeprefix("/nix/store/"), "--json"))
    assert told["path"] == package.path
    assert [each["root"] for each in told["kept_by"]] == [f"builds/{id_}"]
    assert run(str(builder.store.on_disk(package.path))) == shown
    builder.store.roots.remove(f"builds/{id_}")
    assert "nothing keeps it" in run(package.path)
    missing = CliRunner().invoke(command, ["deps", "why", f"/nix/store/{32 * 'a'}-a"], standalone_mode=False)
    assert "is not in the store" in str(missing.exception)
    wrong = CliRunner().invoke(command, ["deps", "why", "hello"], standalone_mode=False)
    assert "is no store path" in str(wrong.exception)
