"""Expressions and builders that mean harm: each fails within its limits, and the canaries stay as they were."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.host import proc
from spoold.model.errors import TemporaryError
from spoold.model.job import BuildLimits
from spoold.model.response import Outcome
from spoold.nix import cage, evaluate, measure, policy
from spoold.nix.build import NixBuilder
from tests.engines import SLOWNESS
from tests.nix import room

pytestmark = pytest.mark.nix

MIB = 1024**2
CONFIDENTIAL = "what-the-host-keeps-to-itself"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Yield a file that no attack may read or touch. It is a Nix file, so that an import would work."""
    path = tmp_path / "canary.nix"
    path.write_text(f'"{CONFIDENTIAL}"')
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_text() == f'"{CONFIDENTIAL}"'
    assert (after.st_mtime_ns, after.st_mode, after.st_uid) == (before.st_mtime_ns, before.st_mode, before.st_uid)


@pytest.fixture(scope="module")
def tight(nix_builder: NixBuilder) -> NixBuilder:
    """Return a builder with low limits but much time, so that a busy machine doesn't run into a limit of time."""
    return room.limited(nix_builder, evaluation_memory=512 * MIB, memory=128 * MIB, log=100_000, files=2000)


@pytest.fixture(scope="module")
def hasty(tight: NixBuilder) -> NixBuilder:
    """Return a builder that allows builds little time as well."""
    return room.limited(tight, time=3 * SLOWNESS, silence=2 * SLOWNESS)


@pytest.fixture(scope="module")
def hasty_reader(tight: NixBuilder) -> NixBuilder:
    """Return a builder that allows evaluations little time."""
    return room.limited(tight, evaluation_time=2 * SLOWNESS)


@pytest.fixture
def second_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an evaluation's limit of CPU time, which would strike first if this process stood still for a second."""
    bounds = evaluate._bounds

    def with_time(limits: BuildLimits) -> proc.Bounds:
        made = bounds(limits)
        assert made.rlimits.cpu
        return msgspec.structs.replace(made, rlimits=msgspec.structs.replace(made.rlimits, cpu=3600))

    monkeypatch.setattr(evaluate, "_bounds", with_time)


@pytest.mark.parametrize(
    "expression",
    [
        'builtins.readFile "CANARY"',
        "import CANARY",
        "{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { FILE = CANARY; }",
        '{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { FILE = "${CANARY}"; }',
        'builtins.readDir "/etc"',
        'builtins.readFile "/etc/passwd"',
        'builtins.readFile "/proc/self/environ"',
        'builtins.readFile "/proc/1/cmdline"',
        'builtins.readFile "/proc/self/status"',  # this file is in the jail
        'builtins.readDir "/"',
        'builtins.toString (builtins.pathExists "/proc/self") + builtins.readFile "/proc/version"',
        'builtins.path { path = "CANARY"; }',
        'builtins.storePath "/nix/store"',
        'builtins.fetchurl "file://CANARY"',
        'builtins.fetchTarball "file://CANARY"',
        'builtins.fetchGit "DIRECTORY"',
        'import (builtins.toFile "x" "builtins.readFile \\"CANARY\\"")',
        'builtins.findFile [ { prefix = "x"; path = "DIRECTORY"; } ] "x/canary.nix"',
        'builtins.exec [ "cat" "CANARY" ]',
        'builtins.importNative "CANARY" "x"',
        'import (<nixpkgs> + "/../../..CANARY")',
    ],
)
def test_the_evaluation_reads_no_file_of_the_host(nix_builder: NixBuilder, canary: Path, expression: str) -> None:
    expression = expression.replace("CANARY", str(canary)).replace("DIRECTORY", str(canary.parent))
    result = room.build(nix_builder, expression)
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    assert result.shell == ""
    assert CONFIDENTIAL not in result.phase.stderr
    assert "root:" not in result.phase.stderr
    assert "syntax error" not in result.phase.stderr


def test_the_environment_of_the_daemon_is_not_seen(nix_builder: NixBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOLD_X", CONFIDENTIAL)
    captured = room.shell(nix_builder, 'A = "<${builtins.getEnv "SPOOLD_X"}${builtins.getEnv "HOME"}>";')
    assert room.enter(nix_builder, captured, 'echo "$A"') == b"<>\n"


def test_the_evaluation_has_no_network(nix_builder: NixBuilder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        result = room.build(nix_builder, f'import (builtins.fetchurl "http://127.0.0.1:{port}/x")')
        assert result.phase.outcome is Outcome.NONZERO_EXIT
        assert "forbidden in restricted mode" in result.phase.stderr
        with pytest.raises(TimeoutError):
            server.accept()


def test_nothing_is_built_to_evaluate(nix_builder: NixBuilder) -> None:
    expression = 'import (derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; })'
    result = room.build(nix_builder, expression)
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    assert "during evaluation" in result.phase.stderr


TEXT = 'builtins.concatStringsSep "" (builtins.genList (x: "0123456789") %d)'
COUNT = "builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: %s) 100000)"
DOUBLED = 'let f = s: n: if n == 0 then s else f (s + s) (n - 1); in f "0123456789abcdef"'
ENDLESS = {
    "recursion": ("let f = x: 1 + f (x + 1); in f 0", Outcome.NONZERO_EXIT),
    "itself": ("let x = x; in x", Outcome.NONZERO_EXIT),
    "memory": ("builtins.length (builtins.genList (x: x) 9000000000)", Outcome.MEMORY_LIMIT),
    "loop": (COUNT % f"({COUNT % 'x'})", Outcome.TIME_LIMIT),
    "regex": (
        'builtins.match "(x+x+)+y" (builtins.concatStringsSep "" (builtins.genList (x: "x") 40))',
        Outcome.TIME_LIMIT,
    ),
    "message": (f"throw ({DOUBLED} 15)", Outcome.OUTPUT_LIMIT),  # half a MB, five times the limit
    "large message": (f"throw ({DOUBLED} 26)", Outcome.MEMORY_LIMIT),  # 1 GB
    "trace": (
        f"let f = n: builtins.trace ({TEXT % 1000}) (if n == 0 then 1 else f (n - 1)); in f 5000",
        Outcome.OUTPUT_LIMIT,
    ),
}


@pytest.mark.usefixtures("second_wall")
@pytest.mark.parametrize("name", ENDLESS)
def test_an_evaluation_without_end(tight: NixBuilder, hasty_reader: NixBuilder, name: str) -> None:
    expression, outcome = ENDLESS[name]
    result = room.build(hasty_reader if outcome is Outcome.TIME_LIMIT else tight, expression)
    assert result.phase.outcome is outcome, result.phase.stderr[:2000]
    assert len(result.phase.stderr) < 150_000
    if outcome is Outcome.TIME_LIMIT:
        assert result.phase.signal == "", "stopped only by the limit of CPU time, the second wall"
    if outcome is Outcome.MEMORY_LIMIT:
        assert isinstance(result.phase.memory, int)
        assert result.phase.memory < 700 * MIB, "stopped only by the control group, the second wall"


def test_an_evaluation_that_fills_its_store(nix_builder: NixBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "THROW_AWAY", 20 * MIB)
    expression = f'builtins.deepSeq (builtins.genList (n: builtins.toFile "x" (({DOUBLED} 16) + toString n)) 500) 1'
    result = room.build(nix_builder, expression)
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr


def test_one_file_that_fills_its_store(nix_builder: NixBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "THROW_AWAY", 4 * MIB)
    monkeypatch.setattr(measure, "outgrown", lambda *_, **__: "")  # the look may come too late
    result = room.build(nix_builder, f'builtins.toFile "x" ({DOUBLED} 19)')
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr


# Where no control group can be made, time is the only bound.
OUT_OF_MEMORY = Outcome.MEMORY_LIMIT if cage.available() else Outcome.TIME_LIMIT
BUILDS = {
    "talks": ("while :; do echo 0123456789012345678901234567890123456789; done", Outcome.OUTPUT_LIMIT),
    "silent": ("sleep 1000", Outcome.TIME_LIMIT),
    "slow": ("while :; do echo x; sleep 1; done", Outcome.TIME_LIMIT),
    "deaf": ("trap : TERM INT HUP; while :; do echo x; sleep 1; done", Outcome.TIME_LIMIT),
    "forks": ("bomb() { bomb | bomb & }; bomb; sleep 1000", OUT_OF_MEMORY),
    "memory": ("x=0123456789; while :; do x=$x$x; done", OUT_OF_MEMORY),
    "size": ("mkdir $out; while :; do head -c 1000000 /dev/zero >> $out/x; done", Outcome.OUTPUT_LIMIT),
    "files": ("mkdir $out; i=0; while :; do : > $out/$((i++)); done", Outcome.OUTPUT_LIMIT),
    "temporary": ("while :; do head -c 1000000 /dev/zero >> x; done", Outcome.OUTPUT_LIMIT),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_build_without_end(tight: NixBuilder, hasty: NixBuilder, name: str) -> None:
    script, outcome = BUILDS[name]
    builder = hasty if outcome is Outcome.TIME_LIMIT else tight
    if outcome is Outcome.OUTPUT_LIMIT:
        # The disk is measured too, and others write to it. So only these builds get a small limit.
        builder = room.limited(tight, output=20 * MIB)
    if name == "silent":
        builder = room.limited(hasty, time=600)
    result = room.build(builder, room.SHELL % f"X = pkgs.runCommand \"bad-{name}\" {{ }} ''{script}'';")
    assert result.shell == ""
    assert result.phase.outcome is outcome, result.phase.stderr[-2000:]
    assert len(result.phase.stderr) < 300_000


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("__noChroot = true;", "outside the sandbox"),
        ("__impure = true;", "impure"),
        ("__contentAddressed = true;", "experimental"),
        ('impureEnvVars = [ "PATH" ];', "host's environment"),
        ('outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="; outputHashMode = "flat";', "network"),
        ('builder = "builtin:fetchurl"; url = "http://localhost/";', "builtin:fetchurl"),
    ],
)
def test_what_the_policy_refuses(nix_builder: NixBuilder, attributes: str, said: str) -> None:
    bad = (
        f'derivation ({{ name = "bad"; system = builtins.currentSystem; builder = "/bin/sh"; }} // {{ {attributes} }})'
    )
    result = room.build(nix_builder, room.SHELL % f"X = {bad};")
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    assert said in result.phase.stderr


@pytest.mark.parametrize("attribute", ["__noChroot = true", "__impure = false", 'impureEnvVars = [ "HOME" ]'])
def test_dangerous_words_of_the_shell_itself_do_nothing(nix_builder: NixBuilder, attribute: str) -> None:
    result = room.build(nix_builder, room.SHELL % f"{attribute};")
    assert result.shell, result.phase.stderr


def with_setup(script: str) -> str:
    """Return a bare derivation whose stdenv is a script."""
    return """with import <nixpkgs> { };
derivation {
  name = "evil"; system = builtins.currentSystem; builder = "/bin/sh"; at = "NOW";
  stdenv = runCommand "stdenv" { passAsFile = [ "script" ]; script = \'\'SCRIPT\'\'; } \'\'
    mkdir $out
    cp $scriptPath $out/setup
  \'\';
}""".replace("NOW", str(time.time_ns())).replace("SCRIPT", script)


def test_setup_runs_in_the_build_sandbox(nix_builder: NixBuilder, canary: Path) -> None:
    state = nix_builder.settings.nix.state
    script = f'echo touched > {canary}; $__spoold_coreutils/bin/cat {canary}; export EVIL=1 SEEN="$(echo {state}/*)"'
    result = room.build(nix_builder, with_setup(script))
    assert CONFIDENTIAL not in result.phase.stderr
    assert room.enter(nix_builder, result.shell, "echo $EVIL") == b"1\n"
    assert room.enter(nix_builder, result.shell, 'echo "$SEEN"').decode() == f"{state}/*\n"


@pytest.mark.parametrize(
    "script",
    [
        "ln -s CANARY $out",
        "mkdir $out; ln -s CANARY $out/enter.sh",
        "mkdir $out; ln CANARY $out/x || true",
        "mkfifo $out",
        "mkdir $out; mkfifo $out/enter.sh",
        "mknod $out c 1 3 || true",
        "mkdir $out; cp $__spoold_coreutils/bin/cat $out/cat; chmod 4755 $out/cat || true",
    ],
)
def test_a_shell_whose_output_is_not_what_it_seems(nix_builder: NixBuilder, canary: Path, script: str) -> None:
    """The client's setup replaces the capture. Nothing on the host may follow its replacement."""
    words = script.replace("CANARY", str(canary))
    setup = f"out=$__spoold_out; PATH=$__spoold_coreutils/bin; rm -rf $out; {words}; exit 0"
    result = room.build(nix_builder, with_setup(setup))
    assert CONFIDENTIAL not in result.phase.stderr
    assert nix_builder.settings.nix.state not in result.phase.stderr
    if result.shell:
        path = nix_builder.store.on_disk(result.shell)
        inside = [path, *path.rglob("*")] if not path.is_symlink() else [path]
        assert not any(os.lstat(entry).st_mode & 0o6000 for entry in inside)


def test_builders_have_no_network(nix_builder: NixBuilder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        script = f"(echo > /dev/tcp/127.0.0.1/{port}) && echo reached; exit 1"
        result = room.build(nix_builder, room.SHELL % f'X = pkgs.runCommand "net" {{ }} "{script}";')
        assert "reached" not in result.phase.stderr
        with pytest.raises(TimeoutError):
            server.accept()


FIXED = """
  X = derivation {
    name = "fixed"; system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash"; args = [ "-c" ''SCRIPT'' ];
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "never";
    impureEnvVars = [ "SPOOLD_X" "http_proxy" ]; at = "NOW";
  };
"""


@pytest.fixture
def no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the first wall, so that the second one is tested."""
    monkeypatch.setattr(policy, "check", lambda *_: None)


def test_fixed_outputs_have_no_network_either(nix_builder: NixBuilder, no_policy: None) -> None:
    """Nix gives these builders the network of its own caller."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        script = f"echo ran; (echo > /dev/tcp/127.0.0.1/{port}) && echo reached; exit 1"
        result = room.build(nix_builder, room.SHELL % FIXED.replace("SCRIPT", script).replace("NOW", str(port)))
        assert "ran" in result.phase.stderr
        assert "reached" not in result.phase.stderr
        with pytest.raises(TimeoutError):
            server.accept()


def test_fixed_outputs_see_no_variable_of_the_daemon(
    nix_builder: NixBuilder, no_policy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPOOLD_X", "http_proxy"):
        monkeypatch.setenv(name, CONFIDENTIAL)
    expression = FIXED.replace("SCRIPT", "echo ran; set; exit 1").replace("NOW", str(time.time_ns()))
    result = room.build(nix_builder, room.SHELL % expression)
    assert "ran" in result.phase.stderr
    assert CONFIDENTIAL not in result.phase.stderr


def test_no_build_leaves_nixs_sandbox(nix_builder: NixBuilder, no_policy: None, canary: Path) -> None:
    script = f"echo touched > {canary}; read -r x < {canary}; echo $x; echo ran; exit 1"
    bad = FIXED.replace("SCRIPT", script).replace("NOW", str(time.time_ns()))
    bad = bad.replace("impureEnvVars", "__noChroot = true; words")
    result = room.build(nix_builder, room.SHELL % bad)
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    assert "__noChroot" in result.phase.stderr
    assert "ran" not in result.phase.stderr
    assert CONFIDENTIAL not in result.phase.stderr


def test_one_bad_build_does_not_hold_up_another(nix_builder: NixBuilder) -> None:
    mark, cancelled = f"sleep 1000.{time.time_ns()}", threading.Event()

    def hold_up() -> None:
        script = f'X = pkgs.runCommand "holds-up" {{ }} "{mark}";'
        with pytest.raises(TemporaryError, match="cancelled"):
            room.limited(nix_builder, silence=1000).build("holds-up", room.SHELL % script, "default", cancelled)

    bad = threading.Thread(target=hold_up)
    bad.start()
    try:
        room.until_runs(mark)
        assert room.build(nix_builder, room.SHELL % f"N = {time.time_ns()};").shell
        assert bad.is_alive(), "no build waited for the bad one's end"
    finally:
        cancelled.set()
        bad.join()
