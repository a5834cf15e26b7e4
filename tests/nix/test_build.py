"""From an expression to a result: what works, what fails, and the client's messages."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from spoold.config import NixSettings, Settings
from spoold.host import proc
from spoold.model.errors import CacheError, ClientError, OperatorError, TemporaryError
from spoold.model.job import BuildResult
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from spoold.nix.packages import split
from spoold.nix.store import Store
from tests.nix import room
from tests.nix.room import Copy

pytestmark = pytest.mark.nix


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of Nix programs that run on a store. Programs that may build are recorded as "builders"."""
    run, run_builders = Store.run, Store.run_builders
    found: list[str] = []

    def counted(self: Store, argv: Sequence[str], *arguments: Any, **more: Any) -> proc.Finished:
        found.append(argv[0])
        return run(self, argv, *arguments, **more)

    def counted_builders(self: Store, *arguments: Any, **more: Any) -> proc.Finished:
        found.append("builders")
        return run_builders(self, *arguments, **more)

    monkeypatch.setattr(Store, "run", counted)
    monkeypatch.setattr(Store, "run_builders", counted_builders)
    return found


def test_prepare_again_runs_little_and_says_the_same(nix_builder: NixBuilder, ran: list[str]) -> None:
    runtime = nix_builder.prepare()
    ran.clear()
    assert NixBuilder(nix_builder.settings).prepare() == runtime
    assert ran == ["nix-instantiate", "nix-store", "nix-store"], "the runtime's derivations and their references"
    assert {runtime.bash, runtime.coreutils} < set(runtime.closure)
    for path in (runtime.bash, runtime.coreutils):
        assert nix_builder.store.on_disk(path).joinpath("bin").is_dir()
    assert nix_builder.store.roots.directory.joinpath("runtime/bash").readlink() == Path(runtime.bash)


def test_without_a_pin_the_operator_is_told_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"\[nixpkgs\] default"):
        NixBuilder(Settings(nix=NixSettings(state=str(tmp_path)))).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's builders run as that user")
def test_a_group_of_builders_that_is_not_there(nix_builder: NixBuilder) -> None:
    nix = msgspec.structs.replace(nix_builder.settings.nix, build_users="nosuch")
    builder = NixBuilder(msgspec.structs.replace(nix_builder.settings, nix=nix))
    with pytest.raises(OperatorError, match="no group nosuch") as raised:
        builder.prepare()
    commands = "\n".join(line for line in str(raised.value).splitlines() if line.startswith("  "))
    assert "groupadd --system nosuch" in commands
    assert subprocess.run(["sh", "-n"], input=commands, text=True, check=True).returncode == 0


def test_without_a_group_builders_run_as_we_do(copy: Copy) -> None:
    settings = copy().settings
    nix = msgspec.structs.replace(settings.nix, build_users="")
    builder = NixBuilder(msgspec.structs.replace(settings, nix=nix))
    builder.prepare()
    own = 'own = pkgs.runCommand "own" { } "echo built > $out";'
    captured = room.shell(builder, own + f"AT = {time.time_ns()};")
    assert room.enter(builder, captured, "cat $own") == b"built\n"


def test_a_shell_with_python(nix_builder: NixBuilder) -> None:
    result = nix_builder.build("with-python", room.SHELL % "packages = [ pkgs.python3 ];", "default", Event())
    assert result.phase.outcome is Outcome.OK
    assert isinstance(result.phase.time, float)
    assert result.phase.exit_code == 0
    assert nix_builder.store.roots.directory.joinpath("builds/with-python").readlink() == Path(result.shell)
    [package] = result.packages
    assert package.name == "python3"
    assert package.version.startswith("3.")
    assert package.closure_size > 10_000_000
    assert result.closure == sorted(nix_builder.store.ask(["nix-store", "-qR", result.shell]).split())
    assert {result.shell, package.path} <= set(result.closure)
    assert not any(path.endswith(".drv") for path in result.closure)
    assert room.enter(nix_builder, result.shell, "python3 -c 'print(6 * 7)'") == b"42\n"


def test_the_same_again_is_the_same_path_and_builds_nothing(nix_builder: NixBuilder, ran: list[str]) -> None:
    first = room.build(nix_builder, room.SHELL % "X = 1;")
    ran.clear()
    second = room.build(nix_builder, room.SHELL % "X = 1;")
    assert second.shell == first.shell
    assert second.packages == first.packages
    assert ran == [], "only the jail runs, for the evaluation"


def test_two_at_once(nix_builder: NixBuilder) -> None:
    results: dict[int, BuildResult] = {}
    same, other = "Y = 1;", "Y = 2;"

    def work(number: int) -> None:
        results[number] = room.build(nix_builder, room.SHELL % (other if number == 3 else same))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number].phase.outcome for number in range(4)] == [Outcome.OK] * 4
    assert results[0].shell == results[1].shell == results[2].shell != results[3].shell


@pytest.mark.parametrize(
    "expression",
    [
        "with import <nixpkgs> { }; mkShell { }",
        "{ pkgs ? import <nixpkgs> { }, ... }: pkgs.mkShell { }",
        "{ inNixShell, pkgs ? import <nixpkgs> { } }: pkgs.mkShell { IN = inNixShell; }",
        "{ __functor = self: { pkgs ? import <nixpkgs> { } }: pkgs.mkShell { }; }",
        "[ ((import <nixpkgs> { }).mkShell { }) ]",
        "(import <nixpkgs> { }).hello",
        'with import <nixpkgs> { }; mkShell { file = builtins.toFile "x" "y"; text = writeText "n" "m"; }',
        'with import <nixpkgs> { }; mkShell { N = import (builtins.toFile "n.nix" "1 + 1"); }',
        'derivation { name = "bare"; system = builtins.currentSystem; builder = "/bin/sh"; }',
    ],
)
def test_what_nix_shell_takes(nix_builder: NixBuilder, expression: str) -> None:
    result = room.build(nix_builder, expression)
    assert result.phase.outcome is Outcome.OK, result.phase.stderr
    assert room.enter(nix_builder, result.shell, "echo in") == b"in\n"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("nosuch", "undefined variable 'nosuch'"),
        (room.SHELL % "packages = [ pkgs.nosuch ];", "attribute 'nosuch' missing"),
        ("{ x = ", "cutor.nix:1:"),
        ("", "syntax error"),
        ("{ a, pkgs ? 1 }: pkgs", "its argument 'a' has no default, and nobody passes it one; give it one, such as"),
        ("pkgs: pkgs.mkShell { }", "a function of 'pkgs'"),
        ("[ ]", "a list of 0"),
        (
            "[ (import <nixpkgs> { }).hello (import <nixpkgs> { }).jq ]",
            "a list of 2; put packages into one shell, such as {",
        ),
        ("{ a = 1; b = 2; }", "a set of 2 attributes (a, b); it has to be a derivation, such as {"),
        ("{ a = b: b; b = 1; c = 1; d = 1; e = 1; f = 1; }", "a set of 6 attributes (a, b, c, d, e, ...)"),
        ("{ inputs.nixpkgs.url = ''x''; outputs = { self, nixpkgs }: { }; }", "it is a flake"),
        ("1", "it is of the type int; it has to be a derivation, such as {"),
        ('throw "so not"', "so not"),
        ('{ type = "derivation"; }', "it has to be a derivation"),
        ("import ./other.nix", "cannot import other files"),
        ("import ./nix/sources.nix", "cannot import other files"),
        ("builtins.fromJSON (builtins.readFile ./flake.lock)", "cannot import other files"),
        ("throw (''f (/job/src) is a path that does not exist'')", "cannot import other files"),
        ("import /home/ada/shell.nix", "can read cutor.nix and <nixpkgs>, and no other file"),
        ('builtins.getFlake "nixpkgs"', "cannot use flakes"),
        ('builtins.fetchTree { type = "github"; owner = "a"; repo = "b"; }', "cannot use flakes"),
        ("throw ''attribute 'fetchTree' missing''", "cannot use flakes"),  # as Nix 2.34 says it
        ("import <nixpkgs-unstable> { }", "Write it for <nixpkgs-unstable>; the request's nixpkgs chooses the pin"),
        ("throw ''has an unfree license, refusing to evaluate''", "Write import <nixpkgs> { config = { ... }; }"),
        ('throw "$ export NIXPKGS_ALLOW_UNFREE=1"', "Write import <nixpkgs> { config = { ... }; }"),
        ("builtins.readFile ./other.txt", "'/job/other.txt'"),
        ("throw (toString ./other.txt)", "/job/other.txt"),
        ("{", "at cutor.nix:"),
        ("import <nosuch>", "file 'nosuch' was not found"),
        ("import <nixpkgs/nosuch> { }", "this nixpkgs has no nosuch; write it without that file"),
        ("throw ''at /s/nix/store/x''", "at /nix/store/x"),
        (room.SHELL % 'N = import (pkgs.writeText "n" "1");', "For a nixpkgs write <nixpkgs>"),
        (
            'derivation { name = "x"; system = "m68k-linux"; builder = "/bin/sh"; }',
            "builds for its own kind of machine",
        ),
        ("throw ''creating directory '/nowhere': Permission denied''", "Use a fetcher that is built, with a hash"),
        (room.SHELL % 'X = (import <nixpkgs> { }).runCommand "fails" { } "echo why; exit 3";', "why"),
    ],
)
def test_a_mistake_is_explained(nix_builder: NixBuilder, expression: str, said: str) -> None:
    result = room.build(nix_builder, expression)
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    assert result.shell == ""
    assert said in result.phase.stderr
    assert "/job/cutor.nix" not in result.phase.stderr
    assert nix_builder.settings.nix.state not in result.phase.stderr


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("toString ./.", "/job"),
        ("toString ./data/x.txt", "/job/data/x.txt"),
        ("toString ../job/x", "/job/x"),
        ("__curPos.file", "/job/cutor.nix"),
        ("builtins.attrNames (builtins.readDir ./.)", "cutor.nix"),
        ("builtins.stringLength (builtins.readFile ./cutor.nix) > 9", "1"),
        ("builtins.pathExists ./x.txt", ""),
        ('builtins.match ".*-job" "${./.}" != null', "1"),
        ('builtins.match ".*-n" (builtins.path { path = ./.; name = "n"; }) != null', "1"),
        ('builtins.match ".*-job" (builtins.filterSource (path: type: true) ./.) != null', "1"),
    ],
)
def test_an_expression_lies_where_the_job_runs(nix_builder: NixBuilder, value: str, seen: str) -> None:
    """The expression lies there alone. Its paths are paths of the sandbox, and it can read only itself."""
    captured = room.shell(nix_builder, f"A = {value};")
    assert room.enter(nix_builder, captured, 'printf %s "$A"') == seen.encode()


ON_DEMAND = """
    own = derivation {
        name = "own"; system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash"; fetchedAs = "%s";
        args = [ "-c" "echo $(< $source) > $out" ];
        source = derivation {
            name = "later-1.deb"; system = "builtin"; builder = "builtin:fetchurl"; url = "http://mirror.invalid/later-1";
            outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "later";
        };
    };
"""


def test_what_is_on_demand_names_the_command_and_is_used_once_it_is_fetched(copy: Copy, tmp_path: Path) -> None:
    builder = copy()
    sources = tmp_path / "own" / "sources"
    sources.mkdir(parents=True)
    (sources.parent / "default.nix").write_text("{ }")
    builder.prepare({**builder.settings.nixpkgs, "own": str(sources.parent)})
    refused = room.build(builder, room.SHELL % ON_DEMAND % "jdk").phase
    assert refused.outcome is Outcome.NONZERO_EXIT
    assert "later-1.deb is in no binary cache of this host" in refused.stderr
    assert "from mirror.invalid, which `[nix] fetch` does not allow: ask the operator of this host" in refused.stderr
    assert "The operator fetches it with `spoold-nixpkgs-debian --with jdk DIRECTORY`" in refused.stderr
    (sources / "later-1.deb").write_text("later")
    captured = room.shell(builder, ON_DEMAND % "jdk")
    assert room.enter(builder, captured, "cat $own") == b"later\n"


def test_it_is_used_where_a_cache_is_away_too(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoold.nix.caches.ATTEMPTS", 1)
    settings = copy().settings
    nix = msgspec.structs.replace(settings.nix, substituters=["http://127.0.0.1:9"])
    builder = NixBuilder(msgspec.structs.replace(settings, nix=nix))
    sources = tmp_path / "own" / "sources"
    sources.mkdir(parents=True)
    (sources.parent / "default.nix").write_text("{ }")
    builder.prepare({**builder.settings.nixpkgs, "own": str(sources.parent)})
    with pytest.raises(CacheError, match=r"later-1.deb is in no binary cache .* The operator fetches it with"):
        room.build(builder, room.SHELL % ON_DEMAND % "jdk")
    (sources / "later-1.deb").write_text("later")
    assert room.build(builder, room.SHELL % ON_DEMAND % "jdk").shell


def test_a_command_is_not_put_together_from_what_a_client_wrote(nix_builder: NixBuilder) -> None:
    refused = room.build(nix_builder, room.SHELL % ON_DEMAND % "jdk; rm -rf").phase
    assert "later-1.deb is in no binary cache of this host" in refused.stderr
    assert "rm -rf" not in refused.stderr
    assert "spoold-nixpkgs-debian" not in refused.stderr


def test_an_unknown_pin(nix_builder: NixBuilder) -> None:
    with pytest.raises(ClientError, match=r"no 'nosuch'; this host has default"):
        nix_builder.build("x", "1", "nosuch", Event())


def test_a_cancelled_build(nix_builder: NixBuilder) -> None:
    cancelled = Event()
    mark = f"sleep 1000.{time.time_ns()}"
    expression = room.SHELL % f'X = pkgs.runCommand "waits" {{ }} "{mark}";'

    def cancel() -> None:
        room.until_runs(mark)
        cancelled.set()

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    with pytest.raises(TemporaryError, match="cancelled"):
        nix_builder.build("cancelled", expression, "default", cancelled)
    cancelling.join()


def test_a_missing_program_is_not_the_clients_fault(
    nix_builder: NixBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match="not installed"):
        room.build(nix_builder, "1")


def test_the_store_cannot_be_listed(nix_builder: NixBuilder) -> None:
    room.build(nix_builder, room.SHELL % f"AT = {time.time_ns()};")
    assert nix_builder.store.physical.stat().st_mode & 0o006 == 0


def test_nothing_is_left_in_the_temporary_directory(nix_builder: NixBuilder) -> None:
    room.build(nix_builder, "nosuch")
    assert list(nix_builder.store.temporary.iterdir()) == []


def test_what_a_killed_daemon_left_is_removed(nix_builder: NixBuilder) -> None:
    left = nix_builder.store.temporary / "left"
    left.mkdir()
    with nix_builder.store.workspace() as alive:
        NixBuilder(nix_builder.settings).prepare()
        assert alive.exists()
    assert not left.exists()


def test_the_result_can_be_written_as_json(nix_builder: NixBuilder) -> None:
    result = room.build(nix_builder, 'throw "\\t☃"')
    assert msgspec.json.decode(msgspec.json.encode(result), type=BuildResult) == result


@pytest.mark.parametrize(
    ("full", "parts"),
    [("python3-3.11.2", ("python3", "3.11.2")), ("hello", ("hello", "")), ("a-b-1.0-dev", ("a-b", "1.0-dev"))],
)
def test_names_and_versions(full: str, parts: tuple[str, str]) -> None:
    assert split(full) == parts
