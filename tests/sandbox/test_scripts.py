"""The scripts beside this file do the same in a sandbox as under ``nix-shell --pure --run ./run.sh``.

Every byte of their output is compared, except for differences that the spec lists ("Entering an environment"). A script
that differs names its rows of the spec's table. ``ROWS`` tells what each row lets differ, and everything else is
compared. A row that makes no difference any more fails the test.
"""

from __future__ import annotations

import base64
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from spoold.model.job import JobFile, Runtime
from spoold.model.limits import MIB
from spoold.nix.build import NixBuilder
from tests.conftest import build_shell
from tests.engines import REPOSITORY
from tests.sandbox.conftest import RUN, AnySandbox, make_job

pytestmark = [pytest.mark.docker, pytest.mark.nix]

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.sh"))
PACKAGES = "packages = with pkgs; [ python3 perl gcc gawk gnugrep gnused findutils diffutils which ];"
EXPRESSION = f"{{ pkgs ? import <nixpkgs> {{}} }}: pkgs.mkShell {{ {PACKAGES} }}\n"
BESIDE = {"lib.sh": (b"echo lib\nexport FROM_LIB=1\n", 0o755), "lib.sh.txt": (b"no program\n", 0o644)}
STDIN = b"first line\nsecond line\nthird\n"
ARGS = ("one", "two words", "", "$x")
LIMITS = replace(RUN, memory=256 * MIB, open_files=1024, processes=64)


class Seen(NamedTuple):
    """A script's result: an exit code as a shell reports it, and both streams without process ids."""

    code: int
    stdout: str
    stderr: str


def without_lines(pattern: str) -> Callable[[Seen], Seen]:
    """Return a function that drops lines of stdout."""
    regex = re.compile(rf"^(?:{pattern}).*\n", re.MULTILINE)
    return lambda seen: seen._replace(stdout=regex.sub("", seen.stdout))


def without_words(pattern: str) -> Callable[[Seen], Seen]:
    """Return a function that drops words of stderr."""
    regex = re.compile(pattern, re.MULTILINE)
    return lambda seen: seen._replace(stderr=regex.sub("", seen.stderr))


def variables(row: str) -> Callable[[Seen], Seen]:
    """Return a function that drops the variables that a row names."""
    names = "|".join(re.findall(r"`(\w+)`", row))
    return without_lines(rf"(?:declare -\S+ )?(?:{names})[= ]")


HOME = "`HOME`, `NIX_PATH`"
ZONES = "`TZDIR`"
PLACES = "`TMPDIR`, `TMP`, `TEMP`, `TEMPDIR`, `NIX_BUILD_TOP`, `NIX_BUILD_SHELL`, `USER`, `__ETC_PROFILE_SOURCED`"
PROCESS = "`UID`, `EUID`, `PPID`, `_` where a script begins"
TRACED = "a script without `#!`: `/proc/PID/cmdline`, and how lines of `set -x` begin"
LIMITED = "`ulimit`"
ENDED = "a script that a signal ends"
UNSTARTED = "a script that cannot be started"
ROWS = {
    HOME: variables(HOME),
    ZONES: variables(ZONES),
    PLACES: variables(PLACES),
    PROCESS: variables(PROCESS),
    TRACED: without_words(r"^\++ "),
    LIMITED: without_lines(r"[a-z -]+\("),
    ENDED: without_words(r"^(?:Terminated|/tmp/nix-shell-\S+/rc: line \d+: .*)\n"),
    UNSTARTED: without_words(
        r"^(?:/tmp/nix-shell-\S+/rc|/spoold/enter\.sh|\./run\.sh): (?:line \d+: )?|: Exec format error$"
    ),
}
DIFFER = {
    "killed-by-term": (ENDED,),
    "killed-by-segv": (ENDED,),
    "environment": (HOME, ZONES, PLACES),
    "variables-of-the-shell": (HOME, ZONES, PLACES, PROCESS),
    "exported-to-a-program": (HOME, ZONES, PLACES, PROCESS),
    "trace": (TRACED,),
    "limits": (LIMITED,),
    "no-such-interpreter": (UNSTARTED,),
    "an-interpreter-that-is-no-program": (UNSTARTED,),
    "line-ends-of-windows": (UNSTARTED,),
    "a-zero-byte": (UNSTARTED,),
    "a-foreign-binary": (UNSTARTED,),
}


@pytest.fixture(scope="module")
def shell(prepared: tuple[NixBuilder, Runtime]) -> str:
    """Return the store path of the shell in which all scripts run."""
    return build_shell(prepared, PACKAGES)


@pytest.fixture(scope="module")
def theirs(
    shell: str, prepared_for_nix_shell: tuple[NixBuilder, Runtime], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Seen]:
    """Return each script's result in nix-shell, in a root like the sandbox's, after one evaluation for all."""
    assert shell  # so its whole closure is in the store
    builder, runtime = prepared_for_nix_shell
    pin = builder.store.on_disk(runtime.nixpkgs["default"])
    evaluate = ["nix-instantiate", "--option", "restrict-eval", "false", "-I", f"nixpkgs={pin}", "-E", EXPRESSION]
    derivation = builder.store.ask(evaluate).strip().partition("!")[0]
    place = tmp_path_factory.mktemp("scripts")
    given = place / "stdin"
    given.write_bytes(STDIN)

    def run(script: Path) -> Seen:
        job = place / script.stem
        job.mkdir()
        for name, (content, mode) in ({"run.sh": (script.read_bytes(), 0o755)} | BESIDE).items():
            (job / name).write_bytes(content)
            (job / name).chmod(mode)
        job.chmod(0o755)
        program = [f"{runtime.nix}/bin/nix-shell", "--pure", "--option", "substituters", ""]
        program += ["--option", "build-users-group", "", derivation, "--run", shlex.join(["./run.sh", *ARGS])]
        command = ["sh", "-c", 'ulimit -c 0; exec "$@"', "sh", *_root(builder, runtime, job), "--", *program]
        with given.open() as stdin:  # a file, like the sandbox's
            done = subprocess.run(command, stdin=stdin, capture_output=True, umask=0o022, timeout=120, check=False)
        return _seen(done.returncode, done.stdout, done.stderr)

    return {script.stem: seen for script, seen in zip(SCRIPTS, _by_two(run, SCRIPTS), strict=True)}


def _root(builder: NixBuilder, runtime: Runtime, job: Path) -> list[str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    command += ["--unshare-user", "--uid", "65533", "--gid", "65533", "--proc", "/proc", "--dev", "/dev"]
    command += ["--bind", str(builder.store.physical.parent), "/nix", "--tmpfs", "/tmp"]
    for name in ("/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"):
        command += ["--symlink", f"{runtime.bash}/bin/bash", name]
    command += ["--symlink", f"{runtime.coreutils}/bin/env", "/usr/bin/env"]
    environment = {"NIX_BUILD_SHELL": f"{runtime.bash}/bin/bash", "NIX_USER_CONF_FILES": "", "NIX_CONF_DIR": "/nowhere"}
    environment |= {"HOME": "/job", "USER": "job", "PATH": f"{runtime.coreutils}/bin:{runtime.bash}/bin"}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return [*command, "--bind", str(job), "/job", "--chdir", "/job"]


@pytest.fixture(scope="module")
def ours(sandbox: AnySandbox, runtime: Runtime, shell: str) -> dict[str, Seen]:
    """Return each script's result in a sandbox."""

    def run(script: Path) -> Seen:
        job = make_job("", shell=shell, stdin=STDIN, args=ARGS, limits=LIMITS)
        files = [JobFile(name, content, mode) for name, (content, mode) in BESIDE.items()]
        job = replace(
            job,
            files=[JobFile("run.sh", script.read_bytes(), 0o755), *files],
            nixpkgs=runtime.nixpkgs["default"],
        )
        phase = sandbox.run(job, lambda *_: None, threading.Event()).run
        streams = (
            base64.b64decode(text) if encoding == "base64" else text.encode()
            for text, encoding in ((phase.stdout, phase.stdout_encoding), (phase.stderr, phase.stderr_encoding))
        )
        code = phase.exit_code if isinstance(phase.exit_code, int) else 128 + signal.Signals[phase.signal]
        return _seen(code, *streams)

    return {script.stem: seen for script, seen in zip(SCRIPTS, _by_two(run, SCRIPTS), strict=True)}


def _by_two(run: Callable[[Path], Seen], scripts: list[Path]) -> list[Seen]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, scripts))


def _seen(code: int, stdout: bytes, stderr: bytes) -> Seen:
    said = re.sub(r"(: line \d+:) +\d+ ", r"\1 PID ", stderr.decode(errors="surrogateescape"))
    return Seen(code, stdout.decode(errors="surrogateescape"), said)


@cache
def rows_of_the_spec() -> set[str]:
    """Return the first column of the table of differences."""
    text = (REPOSITORY / "spool-layout.md").read_text()
    table = text.partition("| | `nix-shell --pure` | `captured` | `nix-shell` |\n")[2].partition("\n\n")[0]
    return {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[1:]}


def test_every_difference_is_one_that_the_spec_lists() -> None:
    assert set(ROWS) <= rows_of_the_spec()
    assert set(DIFFER) <= {name.partition("-")[2] for name in (script.stem for script in SCRIPTS)}
    assert len(SCRIPTS) >= 50


@pytest.mark.parametrize("script", [script.stem for script in SCRIPTS])
def test_a_script_is_the_same_as_in_nix_shell(script: str, ours: dict[str, Seen], theirs: dict[str, Seen]) -> None:
    here, there = ours[script], theirs[script]
    for row in DIFFER.get(script.partition("-")[2], ()):
        assert (ROWS[row](here), ROWS[row](there)) != (here, there), f"{row} makes no difference here"
        here, there = ROWS[row](here), ROWS[row](there)
    assert here == there
