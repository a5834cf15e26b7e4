"""Programs in twenty languages through all of spoold, with Debian's packages alone.

tests/languages has a program for each language. All programs do the same, so they share standard input, arguments and
output, unless a language's directory has its own files of these names. The first test fetches packages from Debian's
mirror. $SPOOLD_TEST_LANGUAGES names the languages, separated by commas, or all of them (``all``). The default is five
languages. See contrib/development/languages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.cli import exits, languages, tongues
from spoold.config import DockerSettings, SandboxSettings, Settings
from tests.engines import REPOSITORY, SLOWNESS, unavailable
from tests.served import Served

PROGRAMS = REPOSITORY / "tests" / "languages"
GREETINGS = REPOSITORY / "tests" / "greetings"  # each reads a word and greets it
MAKE = REPOSITORY / "contrib" / "nixpkgs-debian" / "make"
QUICK = ("java", "javascript", "php", "python", "ruby")
ATTRIBUTES = re.compile(r"(?:pkgs|ps)\.(\w[\w-]*)|with pkgs; \[([^]]*)\]")
# Memory is a job's default. The limits of time are long, because time is not the subject and the machine may be busy.
AT_ONCE = ("awk", "bash", "c", "cpp", "jq", "lua", "perl")  # languages whose packages are fetched in any case
BUILDING = 1100.0 * SLOWNESS  # seconds: the first programs wait until compilers are unpacked, also on a busy machine
LIMITS = {"compile": {"time": 300}, "run": {"time": 300, "cpu_time": 60}}

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(1200 * SLOWNESS)]


def chosen() -> list[str]:
    """Return the languages to test."""
    there = sorted(path.name for path in PROGRAMS.iterdir() if path.is_dir())
    names = os.environ.get("SPOOLD_TEST_LANGUAGES", ",".join(QUICK)).split(",")
    return there if names == ["all"] else [name for name in there if name in names]


def attributes(language: str) -> set[str]:
    """Return the words for --with that fetch a program's packages, from the names in its expression."""
    text = (PROGRAMS / language / "cutor.nix").read_text()
    found = {name for match in ATTRIBUTES.findall(text) for name in f"{match[0]} {match[1]}".split()}
    return found | {f"python3Packages.{name}" for name in re.findall(r"\bps\.(\w+)", text)}


@pytest.fixture(scope="module")
def fetched(nixpkgs_debian: Path) -> None:
    """Fetch the packages of the chosen languages."""
    lock = json.loads((nixpkgs_debian / "lock.json").read_bytes())
    if lock.get("format") != 2:
        unavailable(f"{nixpkgs_debian} was made by another version of contrib/nixpkgs-debian")
    known = {unit["asked"] for unit in lock["units"].values()}
    wanted = {name for language in chosen() for name in attributes(language)} & known
    cache = ["--cache", str(nixpkgs_debian.parent / "debian-packages")]
    done = subprocess.run(
        [MAKE, *cache, "--with", ",".join(sorted(wanted)), nixpkgs_debian], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    nix_settings: Settings,
    docker_host: str,
    runtime: object,
    fetched: None,
) -> Iterator[Served]:
    """Yield a served spool that has all programs, so that their packages are unpacked beside each other.

    No build makes room for another: it would begin anew. ``runtime`` is requested so that one process at a time
    prepares the store.
    """
    directory = tmp_path_factory.mktemp("languages")
    limits = msgspec.structs.replace(nix_settings.builder.limits, time=BUILDING, silence=BUILDING)
    parallel = os.cpu_count() or 1
    builder = msgspec.structs.replace(nix_settings.builder, limits=limits, parallel=parallel, patience=BUILDING)
    docker, sandbox = DockerSettings(host=docker_host), SandboxSettings(waiting=2)  # no reserve for bursts
    made = Served(directory, msgspec.structs.replace(nix_settings, builder=builder, docker=docker, sandbox=sandbox))
    for language in chosen():
        drop(made, language)
    yield made
    made.stop()
    shutil.rmtree(directory)


def text_of(language: str, name: str) -> str:
    """Return the language's own file, or the file that all languages share."""
    own = PROGRAMS / language / name
    return (own if own.exists() else PROGRAMS / name).read_text()


def drop(served: Served, language: str) -> None:
    """Drop the program in a language."""
    directory = PROGRAMS / language
    own = ("run.sh", "cutor.nix", "expected")
    files = [
        {"name": str(path.relative_to(directory)), "content": path.read_text()}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in own
    ]
    served.drop(
        f"language-{language}",
        text_of(language, "run.sh"),
        text_of(language, "cutor.nix"),
        files=files,
        inputs=text_of(language, "stdin"),
        args=text_of(language, "args").splitlines(),
        limits=LIMITS,
    )


@pytest.mark.parametrize("language", chosen())
def test_a_program_prints_what_it_should(served: Served, language: str) -> None:
    response = served.response(f"language-{language}", BUILDING)
    assert response["status"] == "COMPLETED", {phase: response[phase] for phase in ("dependencies", "compile", "run")}
    assert response["run"]["stdout"] == text_of(language, "expected")
    assert response["run"]["stderr"] == ""


def greetings() -> list[Path]:
    """Return the programs in tests/greetings whose languages are chosen or need no further packages."""
    names = {*chosen(), *AT_ONCE}
    known = tongues.table([tongues.BUILT_IN])
    return [path for path in sorted(GREETINGS.iterdir()) if languages.program([path], known=known).language in names]


def is_compiled(program: Path) -> bool:
    """Tell whether a program's language has a compiler."""
    return languages.program([program], known=tongues.table([tongues.BUILT_IN])).compile is not None


def run(served: Served, program: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a file by the command, which adds everything else by itself."""
    limits = [word for limit in ("compile.time=300", "time=300", "cpu_time=60") for word in ("--limit", limit)]
    command = [sys.executable, "-m", "spoold.cli.ctl", "--spool", str(served.spool), "run", *limits, str(program)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SPOOLD_CONFIG": os.devnull}
    return subprocess.run(command, input=b'"world"\n', env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("program", greetings(), ids=lambda path: path.name)
def test_a_file_runs_as_its_ending_says(served: Served, program: Path) -> None:
    done = run(served, program)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert done.stdout.decode().replace('"', "").split() == ["hello", "world"]


@pytest.mark.parametrize("program", [each for each in greetings() if is_compiled(each)], ids=lambda path: path.name)
def test_a_mistake_is_told_by_its_compiler(served: Served, program: Path, tmp_path: Path) -> None:
    wrong = tmp_path / program.name
    wrong.write_text(f"}}{{ this is wrong\n{program.read_text()}")
    done = run(served, wrong)
    assert (done.returncode, done.stdout) == (exits.NOT_COMPLETED, b"")
    *told, last = done.stderr.splitlines()
    assert told
    assert last.endswith(b": it was not compiled: see above")
