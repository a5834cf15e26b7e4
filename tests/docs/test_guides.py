"""The commands of the pages as printed, on spools that plain processes serve and on spools with real engines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.config import DockerSettings, LeaseSettings, NixSettings, SandboxSettings, Settings, SpoolSettings
from spoold.spool import layout
from tests.docs.shell import Reader, blocks
from tests.engines import REPOSITORY
from tests.served import Served
from tests.waiting import until

DOCS = REPOSITORY / "contrib/docs"
# These need a spool, and no more.
DESK = tuple(f"how-to/{name}.md" for name in ("autograder", "interactive", "picture", "sweep", "warm"))
ON_ENGINES = ("how-to/picture.md", "how-to/warm.md")  # the plain run tries these with real packages too
REAL = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(900)]
LEASE = LeaseSettings(renewal=0.5, limit=60.0, check=0.5, pause=0.5)  # long, because a machine may stand still


def programs(place: Path) -> Path:
    """Write spoolctl and spoold of this checkout, and a Python with the client library. Return their directory."""
    place.mkdir()
    run = f"#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable}"
    for name, words in {"spoolctl": "-P -m tests.patient", "spoold": "-P -m spoold.cli.daemon", "python3": ""}.items():
        (place / name).write_text(f'{run} {words} "$@"\n')
        (place / name).chmod(0o755)
    return place


def variables(*places: Path, **more: str) -> dict[str, str]:
    """Return the variables of a shell in which programs in ``places`` come first."""
    path = ":".join([*map(str, places), os.environ["PATH"]])
    return {"PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": "100", "NO_COLOR": "1", **more}


def write_settings(directory: Path, **spool: object) -> Path:
    """Make a spool and its settings file. Return the file."""
    settings = Settings(
        spool=SpoolSettings(path=str(directory / "spool"), settle=60.0, scan=0.5, **spool),  # type: ignore[arg-type] # any
        lease=LEASE,
        nix=NixSettings(state=str(directory / "state")),
        nixpkgs={"default": "/srv/nixpkgs"},
    )
    layout.create(settings.spool.path)
    config = directory / "spoold.toml"
    config.write_bytes(msgspec.toml.encode(settings))
    return config


@contextmanager
def plainly(directory: Path, *roles: str, **spool: object) -> Iterator[Path]:
    """Serve a spool whose jobs are plain processes. Yield its settings file."""
    config = write_settings(directory, **spool)
    command = [
        sys.executable,
        "-m",
        "tests.docs.plain",
        str(config),
        ",".join(roles or ("intake", "executor", "builder")),
    ]
    with (directory / "log").open("wb") as log:
        served = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)
    try:
        until(lambda: "msg=ready" in (directory / "log").read_text(), (directory / "log").read_text)
        yield config
    finally:
        served.terminate()
        served.wait()


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the variables of a shell at a desk with a running spool."""
    with ExitStack() as held:
        if request.param == "plain":
            config = held.enter_context(plainly(tmp_path))
        else:
            config = held.enter_context(really(request, tmp_path))
        spool = str(config.parent / "spool")
        yield variables(programs(tmp_path / "bin"), SPOOLD_SPOOL=spool, SPOOLD_CONFIG=str(config))


@contextmanager
def really(request: pytest.FixtureRequest, directory: Path) -> Iterator[Path]:
    """Serve a spool with Docker and Nix. Yield its settings file."""
    settings = request.getfixturevalue("nix_settings")
    request.getfixturevalue("runtime")  # so that the store is prepared by now
    docker = DockerSettings(host=request.getfixturevalue("docker_host"))
    served = Served(directory, msgspec.structs.replace(settings, docker=docker, sandbox=SandboxSettings(waiting=2)))
    try:
        yield served.config
    finally:
        served.stop()
        shutil.rmtree(served.spool)


def desks() -> Iterator[Any]:
    """Yield each kind of desk with each page."""
    for page in DESK:
        marks = REAL if page in ON_ENGINES else [*REAL, pytest.mark.long]
        yield pytest.param("plain", page, id=f"plain-{page}")
        yield pytest.param("real", page, id=f"real-{page}", marks=marks)


@pytest.mark.parametrize(("desk", "page"), [*desks()], indirect=["desk"])
def test_a_recipe_for_a_desk(desk: dict[str, str], tmp_path: Path, page: str) -> None:
    with Reader(tmp_path / "hosts", {"here": desk}, {}) as reader:
        reader.follow(DOCS / page)


# -- the tutorial

SERVED_AT = re.compile(r"^export PATH=(\S+)/bin:\$PATH SPOOLD_SPOOL=\S+$", re.MULTILINE)


def test_the_tutorial_on_a_spool_that_is_served_plainly(tmp_path: Path) -> None:
    places = {"/tmp/spoold-serve.Kx3d9Q": str(tmp_path / "served"), "/tmp/spool": str(tmp_path / "spool")}
    (tmp_path / "served").mkdir()
    programs(tmp_path / "served" / "bin")
    with plainly(tmp_path), Reader(tmp_path / "hosts", {"here": variables()}, places) as reader:
        reader.follow(DOCS / "tutorial.md")


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(900)
def test_the_tutorial_from_its_first_command_on(tmp_path: Path, docker_host: str, nixpkgs_debian: Path) -> None:
    places = {"/tmp/spool": str(tmp_path / "spool")}
    cache = os.environ.get("SPOOLD_CACHE", str(Path.home() / ".cache/spoold"))
    environment = variables(DOCKER_HOST=docker_host, SPOOLD_NIXPKGS=str(nixpkgs_debian), SPOOLD_CACHE=cache)

    def serving(printed: str) -> None:
        found = SERVED_AT.search(printed)
        assert found, printed
        places["/tmp/spoold-serve.Kx3d9Q"] = found[1]

    with Reader(tmp_path / "hosts", {"here": environment}, places, serving) as reader:
        reader.follow(DOCS / "tutorial.md")


# -- pages at the top, and of examples

README = REPOSITORY / "README.md"
ADDRESS = "ssh://judge/var/spool/spoold"  # of a spool, for programs
OF_THE_README = {  # what its commands take for granted
    "sum.py": "import sys\nprint(sum(map(int, sys.argv[1:])), input())\n",
    "input.txt": "read\n",
    "homework/run.sh": "echo done\n",
    "sweep/one.py": "print(1)\n",
    "sweep/two.py": "print(2)\n",
    "solutions/ann.py": "print(int(input()) + 1)\n",
    "exercise-3/1.in": "1\n",
    "exercise-3/1.out": "2\n",
}


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """But for those that need no spool: contrib/demo is the tutorial's beginning, and contrib/test runs this test."""
    desk = tmp_path / "desk"
    for name, text in OF_THE_README.items():
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text(text)
    with plainly(tmp_path) as config:
        spool = str(config.parent / "spool")
        shell = variables(programs(tmp_path / "bin"), SPOOLD_SPOOL=spool, SPOOLD_CONFIG=str(config))
        with Reader(tmp_path / "hosts", {"here": shell}, {"/tmp/spool": spool}, checkout=desk) as reader:
            reader.follow(README, "Submit something")
    assert (desk / "results.csv").read_text().count("COMPLETED") == 2
    assert "ann.py" in (desk / "grades.html").read_text()


def printed_by_the_program_of(page: Path, config: Path) -> list[str]:
    """Return the lines that a page's program for Python prints, in order of the alphabet."""
    (program,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert ADDRESS in program
    program = program.replace(ADDRESS, str(config.parent / "spool"))
    command = [programs(config.parent / "bin") / "python3", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=variables())
    assert ran.returncode == 0, ran.stderr
    return sorted(line for line in ran.stdout.splitlines() if line)


def test_the_program_of_the_readme(tmp_path: Path) -> None:
    with plainly(tmp_path) as config:
        assert printed_by_the_program_of(README, config) == sorted(f"COMPLETED {n * n}" for n in range(100))


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(900)
def test_the_program_of_the_library_s_readme(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with really(request, tmp_path) as config:
        page = REPOSITORY / "contrib/packaging/client/README.md"
        assert printed_by_the_program_of(page, config) == ["COMPLETED 42"]


def test_the_commands_that_submit_examples(tmp_path: Path) -> None:
    with plainly(tmp_path) as config:
        spool = str(config.parent / "spool")
        shell = variables(programs(tmp_path / "bin"), SPOOLD_SPOOL=spool, SPOOLD_CONFIG=str(config))
        with Reader(tmp_path / "hosts", {"here": shell}, {"/tmp/spool": spool}, checkout=REPOSITORY) as reader:
            reader.follow(DOCS / "examples/README.md")


# -- no command is left out

ELSEWHERE = {f"how-to/{name}.md" for name in ("air-gapped", "nfs", "slurm", "ssh")} | {"upgrading.md"}
BOOT = "tests/boot/test_boot.py"
OPERATORS = {  # a heading, the test that runs the commands below it, and how many blocks these are
    "Install": ("tests/boot/conftest.py", 4),
    "Upgrade": (BOOT, 2),
    "Remove": (BOOT, 2),
    "Without the package": (BOOT, 1),
    "Jobs without a Docker daemon": (BOOT, 1),
    "Users of the drop box": (BOOT, 1),
    "Logs": (BOOT, 1),
    "Prometheus": (BOOT, 2),
    "Where there are no access control lists": (BOOT, 1),
    "Daemons on a mounted spool": (BOOT, 1),
    "Several executors and hosts": (BOOT, 1),
    "Executors that Slurm starts": ("tests/test_slurm_page.py", 4),
}


def test_every_page_with_commands_is_followed() -> None:
    found = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if any(blocks(page))}
    assert found == {*DESK, "tutorial.md", "examples/README.md", "operator.md"} | ELSEWHERE


def test_every_command_for_operators_is_run() -> None:
    page = DOCS / "operator.md"
    headings = re.findall(r"^##+ (.*)$", page.read_text(), re.MULTILINE)
    found = {heading: len([*blocks(page, heading)]) for heading in headings}
    assert {heading: count for heading, count in found.items() if count} == {
        heading: count for heading, (_, count) in OPERATORS.items()
    }
    for heading, (test, _) in OPERATORS.items():
        assert re.search(rf'"(## )?{heading}(\\n)?"', (REPOSITORY / test).read_text()), (heading, test)


# -- contributors


def test_the_commands_for_contributors(tmp_path: Path) -> None:
    """They run in a copy of the checkout. The packages of this Python count as installed in the new environment."""
    copy = tmp_path / "checkout"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "dist"), symlinks=True)
    own = Path(sys.executable).parent
    environment = variables(
        own, PYTHONPATH=sysconfig.get_path("purelib"), PIP_NO_INDEX="1", PYTEST_ADDOPTS="-p no:cacheprovider"
    )
    with Reader(tmp_path / "hosts", {"here": environment}, {}, checkout=copy) as reader:
        reader.follow(REPOSITORY / "CONTRIBUTING.md")
