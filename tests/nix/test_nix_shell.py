"""Shells that nix-shell itself enters, in a root that holds only the store. They equal nix-shell on the host."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from spoold.model.ids import build_id
from spoold.model.job import Runtime
from spoold.model.response import Outcome
from spoold.nix import program
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.nix.test_capture import EXPRESSION, EXPRESSIONS

pytestmark = pytest.mark.nix

# Variables of the caller. The name of nix-shell's temporary directory is compared without its number.
NOT_COMPARED = {"HOME", "PWD", "SHLVL", "USER", "_", "rawPath"}
# Nothing is there by which nix-shell could remove its temporary directory, as on the host. Nix 2.8 says so at once.
# Newer versions would say so at the end, which does not come where another program takes the shell's place.
WITHOUT_RM = "derivation"

PIN_WITH_NIX = """{ ... }@arguments:
let pkgs = import ./debian arguments; in
pkgs // { nix = pkgs.runCommand "nix-of-the-pin" { } "cp -r ${./nix} $out"; }
"""


@pytest.fixture
def builder(prepared_for_nix_shell: tuple[NixBuilder, Runtime]) -> NixBuilder:
    return prepared_for_nix_shell[0]


@pytest.fixture
def runtime(prepared_for_nix_shell: tuple[NixBuilder, Runtime]) -> Runtime:
    return prepared_for_nix_shell[1]


def _environment(printed: bytes) -> dict[str, str]:
    text = re.sub(r"/nix-shell-\d+-\d+", "/nix-shell", printed.decode())
    pairs = (entry.partition("=")[::2] for entry in text.split("\0") if entry)
    return {name: value for name, value in pairs if name not in NOT_COMPARED}


@pytest.mark.parametrize("name", [*EXPRESSIONS, "all"])
def test_the_environment_is_that_of_nix_shell_on_the_host(
    builder: NixBuilder, runtime: Runtime, tmp_path: Path, name: str
) -> None:
    expression = EXPRESSION if name == "all" else EXPRESSIONS[name]
    file = tmp_path / "cutor.nix"
    file.write_text(expression)
    result = room.build(builder, expression)
    assert result.shell, result.phase.stderr
    env = f"{runtime.coreutils}/bin/env"
    said = (b"rm: command not found\n", b"") if name == WITHOUT_RM else b""
    ours = room.execute(builder, result.shell, env, "-0", said=said)
    assert _environment(ours) == _environment(room.nix_shell(builder, file, f"{env} -0"))


def test_structured_attributes(builder: NixBuilder) -> None:
    result = room.build(builder, room.STRUCTURED)
    assert result.shell, result.phase.stderr
    assert room.execute(builder, result.shell, "/bin/sh", "-c", "echo $SEEN") == b"b c/v w\n"


def test_the_words_of_a_request_are_no_shells_to_read(builder: NixBuilder) -> None:
    shell = room.shell(builder, "shellHook = ''set -- x; IFS=/; set -f; alias exec=false builtin=false'';")
    words = ["$(id)", "`id`", "a b", "*", "new\nline", "", "'", '"', "\\", "--", "ä", ";id"]
    printed = room.execute(builder, shell, "a-b=$(id)", "PATH=/p", "/bin/sh", "-c", 'printf "<%s>" "$@"', "sh", *words)
    assert printed == "".join(f"<{word}>" for word in words).encode()


def test_nothing_is_left_for_the_program(builder: NixBuilder, runtime: Runtime) -> None:
    ls, shell = f"{runtime.coreutils}/bin/ls", room.shell(builder, "")
    left = room.execute(builder, shell, ls, "-AR", "/tmp")
    # Newer versions than 2.8 make a directory for $TMPDIR, which has nix-shell's own script until nix-shell ends.
    assert re.fullmatch(rb"/tmp:\n(?:(nix-shell-\d+-\d+)\n\n/tmp/\1:\nrc\n)?", left)
    assert room.execute(builder, shell, ls, "/proc/self/fd") == b"0\n1\n2\n3\n"  # 3 is what ls reads


def test_a_job_sees_nix_and_no_derivation(builder: NixBuilder, runtime: Runtime) -> None:
    result = room.build(builder, room.SHELL % 'packages = [ pkgs.jq ]; hidden = "${pkgs.which}";')
    assert runtime.nix in result.closure
    assert runtime.nix not in runtime.closure
    assert any(path.endswith("-jq-1.6") for path in result.closure)
    assert any("-which-" in path for path in result.closure)
    assert not [path for path in result.closure if path.endswith(".drv")]
    assert result.closure == builder.store.closure([result.shell])
    assert [package.name for package in result.packages] == ["jq"]


@pytest.mark.parametrize("attributes", ["", 'name = "what?is+this=a";', 'passAsFile = [ "A" ];'])
def test_what_looks_like_the_lists_of_a_derivation(builder: NixBuilder, attributes: str) -> None:
    value = """'],[("],[],["x"],"],\\"'"""
    attributes += f"""A = ''{value} ''; outputs = [ "out" "dev" ]; buildInputs = [ pkgs.jq.out ];"""
    shell = room.shell(builder, attributes + "C = builtins.toFile \"c\" ''],[''; D = [ ./cutor.nix ];")
    script = 'if [ "$APath" ]; then cat "$APath"; else printf %s "$A"; fi; cat "$C" "$D" | wc -l; jq -n 1'
    assert room.execute(builder, shell, "/bin/sh", "-c", script).decode() == f"{value} 1\n1\n"


def test_a_large_attribute(builder: NixBuilder) -> None:
    large = 'builtins.concatStringsSep "],[" (builtins.genList toString 100000)'
    shell = room.shell(builder, f'a = {large}; passAsFile = [ "a" ];')
    assert int(room.execute(builder, shell, "/bin/sh", "-c", 'wc -c < "$aPath"')) > 700_000


def test_the_hook_runs_at_neither_the_build_nor_on_the_host(builder: NixBuilder, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    result = room.build(builder, room.SHELL % f"shellHook = ''echo touched > {canary}; echo ran'';")
    assert "\nran\n" not in result.phase.stderr
    assert "nix-shell.sh: line" not in result.phase.stderr
    printed = room.execute(builder, result.shell, "/bin/sh", "-c", ":", said=b"No such file or directory\n")
    assert printed == b"ran\n"
    assert canary.read_text() == "untouched"


def test_what_may_not_be_built_is_refused(builder: NixBuilder) -> None:
    fetch = """builtins.derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh";
        outputHash = "0000000000000000000000000000000000000000000000000000"; outputHashAlgo = "sha256"; }"""
    result = room.build(builder, room.SHELL % f"packages = [ ({fetch}) ];")
    assert result.shell == ""
    assert result.phase.outcome is not Outcome.OK
    assert "`[nix] fetch` allows no host" in result.phase.stderr


def test_builds_of_the_two_ways_have_two_ids(runtime: Runtime, nix_builder: NixBuilder) -> None:
    captured = room.runtime_of(nix_builder)
    assert captured.nix == ""
    assert captured.closure == runtime.closure
    parts = ("expression", runtime.nixpkgs["default"], runtime.system)
    assert build_id(*parts, captured.nix) == build_id(*parts)
    assert build_id(*parts, runtime.nix) != build_id(*parts)


def test_the_hosts_nix_is_copied_once(builder: NixBuilder, runtime: Runtime) -> None:
    assert program.of_host(builder.store, runtime.bash) == runtime.nix
    memory = builder.store.room / "host-nix.json"
    before = memory.stat().st_mtime_ns, memory.read_bytes()
    assert program.of_host(builder.store, runtime.bash) == runtime.nix
    assert (memory.stat().st_mtime_ns, memory.read_bytes()) == before
    memory.write_bytes(msgspec.json.encode(json.loads(before[1]) | {"fingerprint": "another host's"}))
    assert program.of_host(builder.store, runtime.bash) == runtime.nix
    assert memory.read_bytes() == before[1]


def test_nix_is_kept_as_long_as_jobs_start_it(copy: room.Copy) -> None:
    captured = copy()
    nix = msgspec.structs.replace(captured.settings.nix, enter="nix-shell")
    made = NixBuilder(msgspec.structs.replace(captured.settings, nix=nix)).prepare()
    assert captured.store.roots.targets("runtime")["nix"] == made.nix
    captured.collect(set(), dry_run=False)
    assert captured.holds(made.nix)
    captured.prepare()
    captured.collect(set(), dry_run=False)
    assert not captured.holds(made.nix)


def test_the_pins_own_nix_goes_first(
    builder: NixBuilder, runtime: Runtime, copy: room.Copy, nixpkgs_debian: Path, tmp_path: Path
) -> None:
    pin, settings = tmp_path / "pin", copy().settings
    shutil.copytree(nixpkgs_debian, pin / "debian", ignore=shutil.ignore_patterns("sources"))
    (pin / "sources").symlink_to(nixpkgs_debian / "sources")
    subprocess.run(["cp", "-r", builder.store.on_disk(runtime.nix), pin / "nix"], check=True)
    (pin / "default.nix").write_text(PIN_WITH_NIX)
    nix = msgspec.structs.replace(settings.nix, enter="nix-shell")
    own = NixBuilder(msgspec.structs.replace(settings, nix=nix, nixpkgs={"default": str(pin)}))
    made = own.prepare()
    assert made.nix.endswith("-nix-of-the-pin")
    result = room.build(own, room.SHELL % "A = 1;")
    assert made.nix in result.closure
    assert room.execute(own, result.shell, "/bin/sh", "-c", "echo $A $IN_NIX_SHELL") == b"1 pure\n"
