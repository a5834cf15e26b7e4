"""What starts as root in containers: a Python that nobody but root can change, taken whole, and nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from spoold.engines.docker import image
from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.sandbox import interpreter
from tests.standins import store_path

STRANGER = 64_101
LINKS = {"bin/sh", "bin/bash", "usr/bin/sh", "usr/bin/bash", "usr/bin/env"}
BASE: str = sys._base_executable  # type: ignore[attr-defined]
RUNTIME = Runtime(system="x86_64-linux", bash=store_path("bash"), coreutils=store_path("coreutils"), nixpkgs={})
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the prefix of a copy of the Python that runs this, which now counts as the one that does."""
    source, prefix = Path(sys.base_prefix), tmp_path / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(os.__file__).parent
    kept = {"__pycache__", "test", "site-packages", "dist-packages", "idlelib", "ensurepip", "tkinter", "lib2to3"}
    shutil.copytree(
        library,
        prefix / sys.platlibdir / version,
        ignore=lambda _, names: [name for name in names if name in kept or name.startswith("config-")],
    )
    for shared in (source / sys.platlibdir).glob("libpython*.so*"):
        shutil.copy2(shared, prefix / sys.platlibdir / shared.name)
    (prefix / "bin").mkdir()
    shutil.copy2(os.path.realpath(BASE), prefix / "bin" / version)
    (prefix / "bin" / "python3").symlink_to(version)
    monkeypatch.setattr(sys, "_base_executable", str(prefix / "bin" / "python3"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(prefix / sys.platlibdir))
    return prefix


def paths(files: list[interpreter.File]) -> set[str]:
    return {file.path.removeprefix(f"{interpreter.ROOT}/") for file in files}


def test_it_is_whole_and_all_of_it_is_below_one_directory() -> None:
    made = interpreter.files()
    assert all(file.path.startswith("/spoold/python/") for file in made)
    assert {"bin/python3", "ld.so", "lib/libc.so.6"} <= paths(made)
    modules = {path.rpartition("/")[2] for path in paths(made) if "/inside/" in path}
    assert {"supervisor.pyc", "porter.pyc", "cell.pyc", "phase.pyc"} <= modules
    assert not [path for path in paths(made) if path.endswith(".py")]


@as_root
def test_it_starts_from_a_root_that_holds_nothing_else_and_looks_nowhere_else(tmp_path: Path) -> None:
    subprocess.run(["tar", "-x", "-C", tmp_path], input=image.root(RUNTIME), check=True)
    chroot = ["chroot", str(tmp_path)]
    script = (
        "import inside.supervisor, inside.porter, sys, os; os._exit(not all(p.startswith('/spoold/python/') for p in "
        "[*sys.path, sys.executable, *(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', ''))]))"
    )
    env = {"PYTHONPATH": "/x", "PYTHONHOME": "/x"}
    subprocess.run([*chroot, *interpreter.COMMAND, script], check=True, env=os.environ | env)
    command = [*chroot, *interpreter.COMMAND[:3], "--list", interpreter.PROGRAM]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [line.split(" => ")[1].split()[0] for line in listed.splitlines() if " => " in line]
    assert found
    assert all(path.startswith("/spoold/python/") for path in found)


def test_the_image_is_the_same_bytes_each_time_also_to_another_process() -> None:
    here = hashlib.sha256(image.root(RUNTIME)).hexdigest()
    assert hashlib.sha256(image.root(RUNTIME)).hexdigest() == here
    program = (
        "import hashlib, msgspec, sys; from spoold.model.job import Runtime; from spoold.engines.docker import image; "
        "print(hashlib.sha256(image.root(msgspec.json.decode(sys.argv[1], type=Runtime))).hexdigest())"
    )
    command = [sys.executable, "-X", "frozen_modules=off", "-c", program, msgspec.json.encode(RUNTIME).decode()]
    env = os.environ | {"PYTHONHASHSEED": "7", "LANG": "C.UTF-8"}
    assert subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip() == here


def test_what_is_in_the_image_is_roots_and_closed_to_jobs() -> None:
    with tarfile.open(fileobj=io.BytesIO(image.root(RUNTIME))) as tar:
        entries = tar.getmembers()
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        assert (entry.uid, entry.gid) == (0, 0)
        assert entry.isdir() or entry.isreg() or entry.name in LINKS
        assert not entry.mode & 0o6000
        assert not entry.mode & 0o022 or entry.issym() or (entry.name, entry.mode) == ("tmp", 0o1777)
        if entry.name.startswith("spoold/python") and entry.isdir():
            assert entry.mode == 0o700


def test_of_a_virtual_environment_the_installation_is_taken(tmp_path: Path) -> None:
    for name, symlinks in (("linked", True), ("copied", False)):
        venv.create(tmp_path / name, symlinks=symlinks)
        program = (
            "import sys; sys.path[:0] = eval(sys.argv[1]); from spoold.sandbox import interpreter; import hashlib; "
            "print(hashlib.sha256(b''.join(file.content for file in interpreter.files())).hexdigest())"
        )
        (tmp_path / name / "bin").chmod(0o777)  # nothing in there counts
        command = [str(tmp_path / name / "bin" / "python"), "-c", program, repr(sys.path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        plain = hashlib.sha256(b"".join(file.content for file in interpreter.files())).hexdigest()
        assert said.stdout.strip() == plain, name


@as_root
def test_a_copy_of_ones_own_will_do(copied: Path) -> None:
    assert "bin/python3" in paths(interpreter.files())


def everybodys(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def anothers(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def a_members(path: Path) -> None:
    os.chown(path, 0, 65534)  # nogroup, nobody's
    path.chmod(path.stat().st_mode | 0o020)


WHAT: dict[str, Callable[[Path], Path]] = {
    "the program": lambda prefix: Path(os.path.realpath(prefix / "bin" / "python3")),
    "the directory of the program": lambda prefix: prefix / "bin",
    "a module": lambda prefix: next(prefix.glob("lib*/python3*/struct.py")),
    "the directory of a package": lambda prefix: next(prefix.glob("lib*/python3*/encodings")),
    "an extension": lambda prefix: next(prefix.glob("lib*/python3*/lib-dynload/_ctypes.*")),
    "the directory of it all": lambda prefix: prefix,
}


@as_root
@pytest.mark.parametrize("change", [everybodys, anothers, a_members])
@pytest.mark.parametrize("what", WHAT)
def test_what_a_stranger_can_change_is_refused(copied: Path, what: str, change: Callable[[Path], None]) -> None:
    path = WHAT[what](copied)
    change(path)
    with pytest.raises(OperatorError, match=r"What starts as root in containers must be changeable by root alone") as e:
        interpreter.files()
    assert str(e.value).startswith(f"{path} ")


@as_root
def test_a_library_in_a_strangers_directory_is_refused(copied: Path, tmp_path: Path) -> None:
    library = next(Path(path) for path in _loaded() if "libm.so" in path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy2(os.path.realpath(library), theirs / library.name)
    os.chown(theirs, STRANGER, STRANGER)
    os.environ["LD_LIBRARY_PATH"] += f":{theirs}"  # the fixture puts it back
    with pytest.raises(OperatorError, match=rf"^{theirs} belongs to"):
        interpreter.files()


def _loaded() -> list[str]:
    with open("/proc/self/maps", encoding="utf-8") as file:
        return [line.split()[-1] for line in file if "/" in line]


@as_root
def test_a_link_from_a_strangers_directory_is_refused(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "struct.py").symlink_to(next(copied.glob("lib*/python3*/struct.py")).rename(tmp_path / "struct.py"))
    os.chown(theirs, STRANGER, STRANGER)
    (next(copied.glob("lib*/python3*")) / "struct.py").symlink_to(theirs / "struct.py")
    with pytest.raises(OperatorError, match=rf"^{theirs} belongs to"):
        interpreter.files()


def test_a_python_in_a_nix_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "STORE", os.path.dirname(os.path.realpath(BASE)) + "/")
    with pytest.raises(OperatorError, match="is in a Nix store"):
        interpreter.files()


def test_a_python_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/python3.0")
    with pytest.raises(OperatorError, match=r"python3\.0.*Start spoold again"):
        interpreter.files()


def test_our_own_package_may_be_whoevers_all_of_spoold_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(Path(interpreter.__file__).parent, tmp_path / "sandbox")
    for path in (tmp_path, *tmp_path.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, STRANGER, STRANGER)
    monkeypatch.setattr(interpreter, "__file__", str(tmp_path / "sandbox" / "interpreter.py"))
    assert interpreter.files()
    (tmp_path / "sandbox" / "inside" / "wire.py").chmod(0o666)
    with pytest.raises(OperatorError, match=r"wire\.py can be changed by everybody"):
        interpreter.files()
