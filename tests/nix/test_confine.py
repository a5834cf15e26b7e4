"""The view of a program in the jail, and of our own programs in their room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spoold.host import proc
from spoold.nix import cage, confine
from tests.waiting import PATIENCE

pytestmark = pytest.mark.nix

NOBODY = 65534
BOUNDS = proc.Bounds(wall=PATIENCE)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a directory that belongs to the jail's user."""
    path = tmp_path / "own"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def in_jail(own: Path, program: str, *arguments: str) -> str:
    command = confine.jail(
        [proc.find(program), *arguments], readable=[], writable=(str(own), "/s"), directory="/s", uid=NOBODY
    )
    finished = proc.run(command, BOUNDS, pid_namespace=True)
    assert finished.ok, finished.stderr.data
    return finished.stdout.data.decode()


def test_the_jail_holds_the_program_and_its_libraries(own: Path) -> None:
    files = in_jail(
        own, "find", "/", "-path", "/proc", "-prune", "-o", "-path", "/dev", "-prune", "-o", "-type", "f", "-print"
    )
    seen = [line for line in files.split() if line not in ("/proc", "/dev")]
    program = ("/find", "/setpriv")
    assert all(".so" in line or line.endswith(program) for line in seen), seen


def test_the_jail_is_nobody_and_can_become_nobody_else(own: Path) -> None:
    status = dict(line.split(":", 1) for line in in_jail(own, "cat", "/proc/self/status").splitlines())
    if os.geteuid() == 0:
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(NOBODY)}
        assert status["Groups"].strip() == ""
    assert status["NoNewPrivs"].strip() == "1"
    kinds = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + (["CapBnd"] if os.geteuid() == 0 else [])
    assert {kind: status[kind].strip("\t0") for kind in kinds} == dict.fromkeys(kinds, "")


def test_the_jail_sees_no_process_of_the_host(own: Path) -> None:
    processes = [name for name in in_jail(own, "ls", "/proc").split() if name.isdigit()]
    assert len(processes) <= 3
    assert str(os.getpid()) not in "".join(in_jail(own, "cat", "/proc/self/stat").split()[3:4])


def test_the_jail_has_no_network(own: Path) -> None:
    lines = in_jail(own, "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] in ([], ["lo"])


def test_the_jail_writes_to_its_own_directory_only(own: Path) -> None:
    in_jail(own, "touch", "/s/here")
    assert (own / "here").exists()
    command = confine.jail(
        [proc.find("touch"), "/there"], readable=[], writable=(str(own), "/s"), directory="/s", uid=NOBODY
    )
    finished = proc.run(command, BOUNDS, pid_namespace=True)
    assert not finished.ok or os.geteuid() != 0  # an ordinary user's root is a file system of its own


def test_a_trusted_program_sees_no_home_and_no_socket(tmp_path: Path) -> None:
    command = confine.trusted([proc.find("ls"), "/", "/etc"], is_root=os.geteuid() == 0, writable=[str(tmp_path)])
    finished = proc.run(command, BOUNDS, pid_namespace=True)
    assert finished.ok, finished.stderr.data
    names = set(finished.stdout.data.decode().split())
    assert {"passwd", "group"} <= names
    assert not names & {"root", "home", "run", "var", "shadow", "sys"}


@pytest.mark.skipif(not cage.available(), reason="no control group can be made here")
def test_a_cage_bounds_and_accounts() -> None:
    with cage.cage(64 * 1024**2) as group, group.alarms() as alarms:
        command = group.joining([proc.find("sh"), "-c", "x=0123456789; while :; do x=$x$x; done"])
        finished = group.accounted(proc.run(command, BOUNDS, alarms=alarms))
        directories = set(group.groups.values())
    assert finished.limit is proc.Limit.MEMORY
    assert 32 * 1024**2 < finished.memory <= 64 * 1024**2
    assert finished.cpu > 0
    assert not any(directory.exists() for directory in directories)


@pytest.mark.skipif(not cage.available(), reason="no control group can be made here")
def test_a_cage_bounds_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage, "PROCESSES", 10)
    with cage.cage(64 * 1024**2) as group:
        command = group.joining([proc.find("sh"), "-c", "for i in $(seq 30); do sleep 600 & done"])
        finished = group.accounted(proc.run(command, BOUNDS))
    assert b"fork" in finished.stderr.data
    assert finished.limit is proc.Limit.PROCESSES
    assert finished.reason == "more than 10 processes"


@pytest.mark.skipif(not cage.available(), reason="no control group can be made here")
def test_the_cage_of_a_dead_daemon_is_swept() -> None:
    with cage.cage(64 * 1024**2) as group:
        left = group.groups["memory"].with_name(f"{cage.PREFIX}1-0-dead")
        left.mkdir()
        cage.sweep()
        assert not left.exists()
        assert group.groups["memory"].exists()
