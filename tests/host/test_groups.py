"""Control groups of jobs, on files in place of the kernel's. tests/sandbox/test_oci.py uses the kernel's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from spoold.host import cgroups, groups
from spoold.host.groups import Group, Groups
from spoold.model.errors import OperatorError, TemporaryError

MIB = 1 << 20


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory in place of /sys/fs/cgroup."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    return tmp_path


def written(place: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in place.iterdir()}


def v2(mount: Path) -> Groups:
    base = mount / "unit"
    base.mkdir()
    return Groups(True, dict.fromkeys(("memory", "pids"), base))


def test_limits_on_version_2(mount: Path) -> None:
    made = v2(mount)
    group = made.group("one")
    group.make(64 * MIB, 7)
    assert written(mount / "unit/one") == {"memory.max": str(64 * MIB), "pids.max": "7"}
    (mount / "unit/one/memory.swap.max").write_text("max\n")
    group.limit(32 * MIB, 8)
    assert written(mount / "unit/one") == {"memory.max": str(32 * MIB), "memory.swap.max": "0", "pids.max": "8"}
    assert group.memory() == 32 * MIB
    (mount / "unit/one/memory.max").write_text("max\n")
    assert group.memory() == 1 << 63
    assert (made.same, made.path(group), made.has("cpuset")) == (True, "/unit/one", False)


def test_a_limit_that_is_refused_is_temporary(mount: Path) -> None:
    group = v2(mount).group("one")
    with pytest.raises(TemporaryError, match=r"a limit cannot be set: .*memory\.max"):
        group.limit(MIB, 1)
    group.places["memory"].mkdir()
    with pytest.raises(TemporaryError, match=r"no control group can be made .*Delegate=yes"):
        group.make(MIB, 1)


def test_on_version_1_the_limit_with_swap_is_never_below_the_other(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mount / "memory/one"
    place.mkdir(parents=True)
    (mount / "pids/one").mkdir(parents=True)
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    for name in names:
        (place / name).write_text("9223372036854771712\n")
    order: list[str] = []
    keep = Path.write_text

    def write(file: Path, text: str) -> int:
        order.append(file.name)
        return keep(file, text)

    monkeypatch.setattr(Path, "write_text", write)
    group = Group(False, {"memory": place, "pids": mount / "pids/one"})
    for memory, expected in ((64 * MIB, names), (128 * MIB, names[::-1]), (32 * MIB, names)):
        order.clear()
        group.limit(memory, 5)
        assert tuple(order[:2]) == expected
        assert {(place / name).read_text() for name in names} == {str(memory)}


def test_kills_for_want_of_memory_are_counted_on_either_version(tmp_path: Path) -> None:
    for unified, name in ((True, "memory.events"), (False, "memory.oom_control")):
        group = Group(unified, {"memory": tmp_path})
        assert group.oom_kills() == 0
        (tmp_path / name).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
        assert group.oom_kills() == 3


def test_a_process_is_held_where_all_limits_are(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "pids").mkdir()
    group = Group(False, {"memory": tmp_path / "memory", "pids": tmp_path / "pids"})
    (tmp_path / "memory/cgroup.procs").write_text("12\n123\n")
    assert not group.holds(12)
    (tmp_path / "pids/cgroup.procs").write_text("123\n")
    assert (group.holds(12), group.holds(123)) == (False, True)


def test_what_is_in_a_group_is_ended_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "group"
    place.mkdir()
    sleeps = subprocess.Popen(["sleep", "600"])
    (place / "cgroup.procs").write_text(f"{sleeps.pid}\n")
    monkeypatch.setattr(Group, "_removed", lambda _: sleeps.poll() is not None)
    Group(True, dict.fromkeys(("memory", "pids"), place)).end()
    assert sleeps.returncode == -9


def test_one_who_stood_still_looks_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "REMOVAL_TIMEOUT", 0.0)
    looks = iter([False, True])
    monkeypatch.setattr(Group, "_removed", lambda _: next(looks))
    (tmp_path / "cgroup.procs").write_text("")
    Group(True, dict.fromkeys(("memory", "pids"), tmp_path)).end()


def test_what_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "REMOVAL_TIMEOUT", 0.0)
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    place = tmp_path / "group"
    place.mkdir()
    (place / "cgroup.procs").write_text("")
    with pytest.raises(TemporaryError, match="does not end: /group"):
        Group(True, dict.fromkeys(("memory", "pids"), place)).end()


def test_where_the_trees_differ_the_path_is_below_our_own(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"memory": mount / "memory/job/step", "pids": mount / "pids/job"}
    for place in own.values():
        (place / cgroups.OF_JOBS).mkdir(parents=True)
        for each in (place, place / cgroups.OF_JOBS):
            (each / "cgroup.procs").write_text("")
    lines = "2:memory:/job/step\n1:pids:/job\n0::/\n"
    keep = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda file, *words: lines if str(file) == "/proc/self/cgroup" else keep(file, *words)
    )
    made = groups.settle()
    group = made.group("one")
    assert group.places == {name: place / "jobs/one" for name, place in own.items()}
    assert (made.same, made.path(group)) == (False, "jobs/one")


def test_without_one_of_the_controllers_nothing_is_made(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "trees", lambda _: {"memory": mount})
    with pytest.raises(OperatorError, match=r"limits pids: .*With cgroup v1 only root gets one"):
        groups.settle()
    (mount / "cgroup.controllers").write_text("memory\n")
    (mount / "cgroup.subtree_control").write_text("memory\n")
    monkeypatch.setattr(cgroups, "own_group", lambda: mount)
    monkeypatch.setattr(cgroups, "unified", lambda *_: {"memory": mount})
    with pytest.raises(OperatorError, match=r"limits pids: "):
        groups.settle()
    (mount / "cgroup.subtree_control").write_text("memory pids cpu\n")
    assert set(groups.settle().bases) == {"memory", "pids", "cpu"}


@pytest.mark.parametrize("made", [("memory", "pids"), ("memory", "pids", "unified"), ("unified",), ("memory",), ()])
def test_on_version_1_jobs_are_at_the_same_place_in_each_tree(
    mount: Path, monkeypatch: pytest.MonkeyPatch, made: tuple[str, ...]
) -> None:
    """A runtime makes groups by one path. A group that is left in some of the trees must not lead to another path."""
    own = {name: mount / name / "unit" for name in ("memory", "pids", "cpu", "unified")}
    for name, place in own.items():
        (place / "jobs" if name in made else place).mkdir(parents=True)
    trees = {name.replace("unified", ""): place for name, place in own.items()}

    def with_what_is_there(below: str) -> dict[str, Path]:
        return {name: place / below if (place / below).is_dir() else place for name, place in trees.items()}

    monkeypatch.setattr(cgroups, "trees", with_what_is_there)
    monkeypatch.setattr(cgroups, "delegable", lambda: False)
    monkeypatch.setattr("spoold.host.groups.os.access", lambda *_: True)
    below = "jobs" if {"memory", "pids"} <= set(made) else ""
    found = groups.settle()
    assert found.bases == {name: place / below for name, place in trees.items()}
    assert found.same
    assert found.path(found.group("x")) == str(Path("/unit", below, "x"))
