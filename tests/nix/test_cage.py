"""Where a cage is made on cgroup v2: in a group that we may divide, after its processes have moved into a leaf.

On a host with cgroup v2 and systemd, the tests ask the real ones (see contrib/development/vm). On all hosts, others use
files in place of the kernel's.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spoold.host import cgroups, proc
from spoold.model.errors import TemporaryError
from spoold.model.response import Stream
from spoold.nix import cage
from spoold.nix.build import NixBuilder

DELEGATED = "Delegate=yes"
CGROUPS = Path("/sys/fs/cgroup")
REAL = (
    os.geteuid() == 0
    and (CGROUPS / "cgroup.controllers").exists()
    and cgroups.SYSTEMD.is_dir()
    and shutil.which("systemd-run") is not None
)
real = pytest.mark.skipif(not REAL, reason="needs root, systemd and cgroup v2")
PROGRAM = """
import sys
from pathlib import Path
from spoold.nix import cage
with cage.cage(64 << 20) as made:
    print(Path("/proc/self/cgroup").read_text().strip().rpartition("/")[2], sorted(made.groups))
    for name in ("memory.max", "pids.max"):
        print(*{(group / name).read_text().strip() for group in made.groups.values()})
"""


def under_systemd(*options: str, command: str = 'exec "$@"') -> list[str]:
    """Run the program in a unit of its own. Return the lines that it printed."""
    run = ["systemd-run", "--quiet", "--collect", f"--setenv=PYTHONPATH={':'.join(sys.path)}", *options]
    done = subprocess.run(
        [*run, "sh", "-c", command, "sh", sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@real
@pytest.mark.parametrize("kind", ["--scope", "--pipe"], ids=["scope", "service"])
@pytest.mark.parametrize("command", ['exec "$@"', '"$@"; exit'], ids=["alone", "with a parent"])
def test_a_delegated_group_is_divided(kind: str, command: str) -> None:
    place, memory, processes = under_systemd(kind, "--property", DELEGATED, command=command)
    assert place == f"{cgroups.LEAF} ['cpuacct', 'memory', 'pids']"
    assert (memory, processes) == (str(64 << 20), str(cage.most_processes() * cage.SPARE))


@real
@pytest.mark.parametrize("kind", ["--scope", "--pipe"], ids=["scope", "service"])
def test_what_systemd_did_not_delegate_is_left_alone(kind: str) -> None:
    place = under_systemd(kind)[0]
    assert cgroups.LEAF not in place
    assert place.endswith(" []")


class Tree:
    """Files in place of a group of cgroup v2 with processes 1 and 2."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top, self.own = top, top / "unit"
        self.own.mkdir(parents=True)
        for file, content in (("cgroup.procs", "1\n2\n"), ("cgroup.subtree_control", "")):
            (self.own / file).write_text(content)
        self.moved: list[str] = []
        keep = Path.write_text

        def write(file: Path, text: str) -> int:
            """Act like the kernel where it does more than store the text."""
            if file.name == "cgroup.procs":
                self.moved.append(text)
                return keep(self.own / file.name, (self.own / file.name).read_text().replace(f"{text}\n", ""))
            if file.name == "cgroup.subtree_control":
                if (self.own / "cgroup.procs").read_text():
                    raise OSError(errno.EBUSY, "Device or resource busy")
                if text != "+memory":
                    raise OSError(errno.ENOENT, "No such file or directory")  # the host lacks this controller
                return keep(file, "memory\n")
            return keep(file, text)

        monkeypatch.setattr(Path, "write_text", write)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path / "cgroup", monkeypatch)


def test_processes_make_way_and_a_controller_may_be_missing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "SYSTEMD", tree.top / "none")
    assert set(cgroups.unified(tree.own).values()) == {tree.own}
    assert tree.moved == ["1", "2"]
    assert cgroups.unified(tree.own / cgroups.LEAF) == cgroups.unified(tree.own), "the leaf leads to the same groups"
    assert tree.moved == ["1", "2"]


def test_where_systemd_is_only_what_it_delegated_is_ours(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "SYSTEMD", tree.top)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cgroups.unified(tree.own) == {}
    assert tree.moved == []
    for name in cgroups.DELEGATED:
        marks = {(str(tree.own), name): b"1"}
        monkeypatch.setattr(os, "getxattr", lambda path, key, marks=marks: marks.get((str(path), key), b"0"))
        assert set(cgroups.unified(tree.own).values()) == {tree.own}


def test_a_users_own_group_is_his(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "SYSTEMD", tree.top)
    owner = tree.own.stat().st_uid or 1000
    os.chown(tree.own, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert cgroups.unified(tree.own) == {}
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert set(cgroups.unified(tree.own).values()) == {tree.own}


@pytest.mark.nix
def test_the_operator_is_told_once_where_nothing_bounds_builds(
    nix_builder: NixBuilder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cgroups, "parents", dict)
    builder = NixBuilder(nix_builder.settings)
    for _ in range(2):
        builder.prepare()
    assert len([record for record in caplog.records if "not bounded in memory" in record.getMessage()]) == 1


FAILED = proc.Finished(
    exit_code=100,
    signal="",
    limit=None,
    reason="",
    wall=1,
    cpu=1,
    memory=1,
    stdout=Stream(b"", 0),
    stderr=Stream(b"", 0),
)


def group_in(unit: Path, bound: str) -> cage.Cage:
    """Return a build's group in a unit with this MemoryMax=."""
    group = unit / "build"
    group.mkdir()
    (unit / "memory.max").write_text(f"{bound}\n")
    (group / "memory.max").touch()
    return cage.Cage({"memory": group})


@pytest.mark.parametrize(("bound", "left"), [("max", 4 << 30), (str(16 << 30), 4 << 30), (str(3200), 3000)])
def test_no_build_gets_more_than_all_builds_may_take(tmp_path: Path, bound: str, left: int) -> None:
    made = group_in(tmp_path, bound)
    made.limit(4 << 30, 10)
    assert (tmp_path / "build/memory.max").read_text() == str(left)


def test_memory_that_ran_out_is_the_builds_only_where_its_own_limit_struck(tmp_path: Path) -> None:
    made = group_in(tmp_path, "3200")
    made.limit(4 << 30, 10)
    events = tmp_path / "build/memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n")
    seen = made.accounted(FAILED)
    assert (seen.limit, seen.reason) == (proc.Limit.MEMORY, "more than 3000 bytes of memory")
    events.write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n")
    with pytest.raises(TemporaryError, match="all builds together"):
        made.accounted(FAILED)
