"""Programs in twenty languages through the whole of spoold, with Debian's packages alone.

tests/languages has a program for each. All do the same, so all have the same standard input, arguments and output, but
where a directory has files of these names of its own. What a language needs is fetched from Debian's mirror when the
first test runs: five languages by default, those that $SPOOLD_TEST_LANGUAGES names (separated by commas) or all of them
(``all``); see contrib/development/languages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, Settings
from tests.engines import REPOSITORY, unavailable
from tests.served import Served

PROGRAMS = REPOSITORY / "tests" / "languages"
MAKE = REPOSITORY / "contrib" / "nixpkgs-debian" / "make"
QUICK = ("java", "javascript", "php", "python", "ruby")
ATTRIBUTES = re.compile(r"(?:pkgs|ps)\.(\w[\w-]*)|with pkgs; \[([^]]*)\]")
# Memory is what a job has by default; time is not what this is about, and the machine may be busy.
LIMITS = {"compile": {"time": 120}, "run": {"time": 120, "cpu_time": 60}}

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(1200)]


def chosen() -> list[str]:
    """Return the languages to test."""
    there = sorted(path.name for path in PROGRAMS.iterdir() if path.is_dir())
    names = os.environ.get("SPOOLD_TEST_LANGUAGES", ",".join(QUICK)).split(",")
    return there if names == ["all"] else [name for name in there if name in names]


def attributes(language: str) -> set[str]:
    """Return what --with has to fetch for a program: what its expression names and the lock calls so."""
    text = (PROGRAMS / language / "cutor.nix").read_text()
    found = {name for match in ATTRIBUTES.findall(text) for name in f"{match[0]} {match[1]}".split()}
    return found | {f"python3Packages.{name}" for name in re.findall(r"\bps\.(\w+)", text)}


@pytest.fixture(scope="module")
def fetched(nixpkgs_debian: Path) -> None:
    """Fetch what the chosen languages need."""
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
    """Return a served spool; ``runtime`` is asked for so that one process at a time prepares the store."""
    directory = tmp_path_factory.mktemp("languages")
    made = Served(directory, msgspec.structs.replace(nix_settings, docker=DockerSettings(host=docker_host)))
    yield made
    made.stop()
    shutil.rmtree(directory)


def text_of(language: str, name: str) -> str:
    """Return a file of the language's own, or the one of all."""
    own = PROGRAMS / language / name
    return (own if own.exists() else PROGRAMS / name).read_text()


@pytest.mark.parametrize("language", chosen())
def test_a_program_prints_what_it_should(served: Served, language: str) -> None:
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
    response = served.response(f"language-{language}")
    assert response["status"] == "COMPLETED", {phase: response[phase] for phase in ("dependencies", "compile", "run")}
    assert response["run"]["stdout"] == text_of(language, "expected")
    assert response["run"]["stderr"] == ""
