"""Two wheels share the name ``spoold``. Each can come and go without the other, by real pip in a real environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.engines import REPOSITORY, unavailable

SOURCES = {"spoold": REPOSITORY, "spoold-client": REPOSITORY / "contrib/packaging/client"}
MOST = 5 << 20  # bytes of the client and its dependencies
LIBRARIES = sysconfig.get_path("purelib")  # the dependencies of both, without spoold and its client


class Place:
    """An environment and both wheels."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wheels = {name: self._build(name) for name in SOURCES}
        self.python = directory / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True)

    def _build(self, name: str) -> Path:
        target = self.directory / f"wheel-of-{name}"
        self.pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(target), str(SOURCES[name]))
        (wheel,) = target.iterdir()
        return wheel

    def pip(self, *words: str, python: Path | None = None) -> None:
        own = ["--python", str(python)] if python else []
        command = [sys.executable, "-I", "-m", "pip", *own, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment())
        assert done.returncode == 0, done.stderr

    @staticmethod
    def _environment() -> dict[str, str]:
        """Return the environment without variables about other packages.

        A package of our name would count as installed.
        """
        return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}

    def install(self, name: str) -> None:
        self.pip("install", "--no-deps", "--no-index", str(self.wheels[name]), python=self.python)

    def remove(self, name: str) -> None:
        self.pip("uninstall", "--yes", name, python=self.python)

    def run(self, code: str) -> str:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": LIBRARIES}
        command = [str(self.python), "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.directory, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def assert_works(self, name: str) -> None:
        self.run("from spoold.client import AsyncSpool, Spool, program; Spool('/srv/spool')")
        if name == "spoold":
            script = self.python.parent / "spoolctl"
            done = subprocess.run([script, "--help"], capture_output=True, env={"PYTHONPATH": LIBRARIES}, check=False)
            assert b"submit" in done.stdout, done.stderr

    def has(self, module: str) -> bool:
        code = f"import importlib.util as util; print(util.find_spec('spoold') and util.find_spec({module!r}))"
        return self.run(code).strip() != "None"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    for module in ("pip", "hatchling"):
        if importlib.util.find_spec(module) is None:
            unavailable(f"not installed: {module}")
    return Place(tmp_path_factory.mktemp("wheels"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


def test_no_file_is_in_both(place: Place) -> None:
    ours, client = (names(place.wheels[name]) for name in SOURCES)
    assert not ours & client
    assert all(name.startswith("spoold/client/") for name in client)
    assert ours >= {"spoold/__init__.py", "spoold/py.typed"}
    source = {path.name for path in (REPOSITORY / "spoold/client").iterdir() if path.suffix in (".py", ".typed")}
    assert client == {f"spoold/client/{name}" for name in source}
    assert ours >= {f"spoold/bundled/client/{name}" for name in source}


def test_the_client_is_small_with_all_that_it_needs(place: Place) -> None:
    (metadata,) = importlib.metadata.distributions(path=[str(place.wheels["spoold-client"])])
    assert metadata.requires == ["msgspec>=0.19"]
    needed = sum(file.size or 0 for file in importlib.metadata.files("msgspec") or [])
    with zipfile.ZipFile(place.wheels["spoold-client"]) as file:
        assert sum(info.file_size for info in file.infolist()) + needed < MOST


def share(directory: Path) -> set[str]:
    """Return the files in ``share`` of an environment that are for people. Those of daemons are left out."""
    found = (path.relative_to(directory / "share") for path in (directory / "share").rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] != "spoold"}


SHARED = {
    *("man/man1/spoolctl.1", "man/man8/spoold.8", "man/man5/spoold.toml.5", "man/man5/spool-layout.5"),
    *(f"bash-completion/completions/{name}" for name in ("spoolctl", "spoold")),
    *(f"zsh/site-functions/_{name}" for name in ("spoolctl", "spoold")),
    *(f"fish/vendor_completions.d/{name}.fish" for name in ("spoolctl", "spoold")),
}


@pytest.mark.timeout(600)
def test_pages_and_completions_come_with_the_programs_and_go_with_them(place: Place) -> None:
    environment = place.directory / "venv"
    place.install("spoold")
    assert share(environment) == SHARED
    page = (environment / "share/man/man1/spoolctl.1").read_text()
    assert all(f"spoolctl {name}" in page.replace("\\-", "-") for name in ("run", "list", "logs", "outputs"))
    script = environment / "share/bash-completion/completions/spoolctl"
    line = "COMP_WORDS=(spoolctl out) COMP_LINE='spoolctl out' COMP_CWORD=1"
    ask = f"PATH={environment}/bin:$PATH; source {script}; {line}; _spoolctl_completion"
    command = ["bash", "-c", f'{ask} spoolctl; echo "${{COMPREPLY[@]}}"']
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": LIBRARIES}
    done = subprocess.run(command, env=given, capture_output=True, check=False)
    assert done.stdout == b"outputs\n", done.stderr
    place.remove("spoold")
    assert share(environment) == set()


STEPS = ("+spoold-client", "+spoold", "-spoold-client", "+spoold-client", "-spoold")


@pytest.mark.timeout(600)
def test_each_comes_and_goes_without_the_other(place: Place) -> None:
    """After each step, installed programs work, and the other ones are gone."""
    there: set[str] = set()
    for step in STEPS:
        name = step[1:]
        if step[0] == "+":
            place.install(name)
            there.add(name)
        else:
            place.remove(name)
            there.remove(name)
        for each in there:
            place.assert_works(each)
        assert place.has("spoold.cli") == ("spoold" in there), step


def repacked(names: Iterable[str], directory: Path) -> None:
    """Write a wheel of each installed distribution, and of everything that it needs, so that no test needs an index."""
    wanted, found = list(names), set[str]()
    while wanted:
        distribution = importlib.metadata.distribution(wanted.pop())
        name = distribution.metadata["Name"].replace("-", "_")
        if name in found:
            continue
        found.add(name)
        needs = (Requirement(text) for text in distribution.requires or ())
        wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        tag = re.search(r"^Tag: (.*)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
        assert tag is not None
        with zipfile.ZipFile(directory / f"{name}-{distribution.version}-{tag[1]}.whl", "w") as wheel:
            for file in distribution.files or ():
                if ".." not in file.parts and file.suffix != ".pyc" and file.name != "RECORD":
                    wheel.write(str(file.locate()), str(file))
            (information,) = {file.parts[0] for file in distribution.files or () if file.name == "WHEEL"}
            wheel.writestr(f"{information}/RECORD", "".join(f"{file},,\n" for file in wheel.namelist()))


@pytest.mark.timeout(600)
def test_pipx_installs_the_programs_and_removes_them(place: Place, tmp_path: Path) -> None:
    """As the operator's page says: links to the programs, and an environment with all other files."""
    if shutil.which("pipx") is None:
        unavailable("not installed: pipx")
    home, programs, wheels = tmp_path / "pipx", tmp_path / "bin", tmp_path / "wheels"
    wheels.mkdir()
    (metadata,) = importlib.metadata.distributions(path=[str(place.wheels["spoold"])])
    repacked((Requirement(text).name for text in metadata.requires or ()), wheels)
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP", "VIRTUAL"))}
    # No network: pipx asks for newer versions of its own tools first, and goes on without them.
    given |= {"PIPX_HOME": str(home), "PIPX_BIN_DIR": str(programs), "HOME": str(tmp_path)}
    given |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}

    def pipx(*words: str) -> None:
        done = subprocess.run(["pipx", *words], env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    pipx("install", str(place.wheels["spoold"]))
    assert {path.name for path in programs.iterdir()} == {"spoolctl", "spoold"}
    environment = home / "venvs" / "spoold"
    assert share(environment) == SHARED
    assert (environment / "share/spoold/systemd/spoold-executor@.service").exists()
    for name in ("spoolctl", "spoold"):
        done = subprocess.run([programs / name, "--version"], env={}, capture_output=True, text=True, check=False)
        assert done.stdout.endswith(f"{metadata.version}\n"), done.stderr
    pipx("uninstall", "spoold")
    assert not list(programs.iterdir())
    assert not environment.exists()
