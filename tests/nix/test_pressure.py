"""A build fails if the kernel killed one of its processes or refused it something, whatever its exit code says.

A configure script takes a killed compiler for one that cannot compile, and goes on. Its output would have the right
name for everybody who asks for the same.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from spoold.host import cgroups, proc
from spoold.model.errors import TemporaryError
from spoold.model.job import BuildResult
from spoold.model.response import Outcome
from spoold.nix import cage, looker, shortage
from spoold.nix.build import NixBuilder
from spoold.nix.looker import Looker
from tests.nix import room
from tests.nix.room import Copy
from tests.waiting import PATIENCE, until

pytestmark = [
    pytest.mark.nix,
    pytest.mark.skipif(not cage.available(), reason="no control group can be made here"),
]

MIB = 1024**2
# The build goes on after the loss, and succeeds.
TOLERANT = "(%s) || lost=yes; echo lost=$lost > $out"
HOG = "x=0123456789; while :; do x=$x$x; done"
NEIGHBOUR = "head -c 200000000 /dev/zero > /dev/shm/x; sleep 1; echo > $out"


@pytest.fixture(scope="module")
def tight(nix_builder: NixBuilder) -> NixBuilder:
    return room.limited(nix_builder, memory=128 * MIB)


@pytest.fixture
def few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage, "PROCESSES", 40)


def derivation(name: str, script: str) -> str:
    return f"{name} = pkgs.runCommand \"{name}-{time.time_ns()}\" {{ }} ''{script}'';"


def built(builder: NixBuilder, attributes: str) -> BuildResult:
    return room.build(builder, room.SHELL % attributes)


def registered(builder: NixBuilder, name: str) -> int:
    with builder.store.database() as database:
        (count,) = database.execute(
            "SELECT count(*) FROM ValidPaths WHERE path LIKE ? AND path NOT LIKE '%.drv'", [f"%-{name}-%"]
        ).fetchone()
    return int(count)


@pytest.mark.parametrize(
    "loss",
    [
        HOG,
        f"({HOG})& wait $!",
        "head -c 200000000 /dev/zero > /dev/shm/x",  # memory that belongs to no process
        f"head -c 100000000 /dev/zero > /dev/shm/x; {HOG}",
    ],
)
def test_a_build_that_lost_a_process_for_want_of_memory_has_failed(tight: NixBuilder, loss: str) -> None:
    before = registered(tight, "loser")
    result = built(tight, derivation("loser", TOLERANT % loss))
    if result.shell:  # the kernel killed nothing; it refused the write, which a program can see
        assert "/dev/shm" in loss
        return
    assert result.phase.outcome is Outcome.MEMORY_LIMIT, result.phase.stderr
    assert f"more than {128 * MIB} bytes of memory" in result.phase.stderr
    assert registered(tight, "loser") == before


@pytest.mark.usefixtures("few_processes")
def test_a_build_that_was_refused_a_process_has_failed(nix_builder: NixBuilder) -> None:
    before = registered(nix_builder, "crowd")
    crowd = "for n in $(seq 200); do sleep 600 & done 2>/dev/null; false"  # more than the kernel allows
    result = built(nix_builder, derivation("crowd", TOLERANT % crowd))
    assert result.phase.outcome is Outcome.NONZERO_EXIT, result.phase.stderr
    assert "more than 40 processes" in result.phase.stderr
    assert registered(nix_builder, "crowd") == before


def test_a_neighbour_in_the_same_request_does_not_press_a_build(tight: NixBuilder) -> None:
    """One derivation is built at a time, so the memory of another is free before or taken later."""
    checks = "for n in $(seq 20); do x=$(printf %02000000d 0) || no=no; sleep 0.05; done; echo checks=$no > $out"
    victim = derivation("victim", checks)
    result = built(tight, victim + derivation("neighbour", NEIGHBOUR))
    alone = built(tight, victim)
    assert alone.shell, alone.phase.stderr
    seen = room.enter(tight, alone.shell, 'cat "$victim"').decode()
    assert seen == "checks=\n", (seen, result.phase.outcome)


@pytest.mark.parametrize("users", ["auto", ""])
def test_derivations_of_one_request_are_built_one_after_the_other(copy: Copy, users: str) -> None:
    """This holds with one user for them, and with none of their own."""
    settings = copy().settings
    builder = NixBuilder(
        msgspec.structs.replace(settings, nix=msgspec.structs.replace(settings.nix, build_users=users))
    )
    builder.prepare()
    times = "date +%s.%N > $out; sleep 0.2; date +%s.%N >> $out"
    result = built(builder, "".join(derivation(f"d{number}", times) for number in range(4)))
    text = room.enter(builder, result.shell, "cat $d0 $d1 $d2 $d3").decode().split()
    spans = sorted((float(begin), float(end)) for begin, end in zip(text[::2], text[1::2], strict=True))
    assert all(ended <= begins for (_, ended), (begins, _) in itertools.pairwise(spans)), spans


def test_builds_of_two_requests_go_on_side_by_side(nix_builder: NixBuilder, tmp_path: Path) -> None:
    waits = "for n in $(seq 6000); do [ -e /proc/1 ] && sleep 0.1; done; exit 1"
    marks = [f"side{number}x{time.time_ns()}" for number in range(2)]
    cancels = [threading.Event() for _ in marks]

    def build(mark: str, cancel: threading.Event) -> None:
        with pytest.raises(TemporaryError, match="cancelled"):
            nix_builder.build(mark, room.SHELL % f'X = pkgs.runCommand "{mark}" {{ }} "{waits}";', "default", cancel)

    threads = [threading.Thread(target=build, args=pair) for pair in zip(marks, cancels, strict=True)]
    for thread in threads:
        thread.start()
    until(lambda: all(room.processes_with(mark) for mark in marks))
    for cancel in cancels:
        cancel.set()
    for thread in threads:
        thread.join()


def test_the_kernel_kills_all_of_a_group_or_nothing() -> None:
    with cage.cage(64 * MIB) as made:
        group = made.groups["memory"]
        whole = group / "memory.oom.group"
        if whole.exists():
            assert whole.read_text() == "1\n"
        else:
            assert "oom_kill_disable 1" in (group / "memory.oom_control").read_text()


@pytest.mark.parametrize(
    ("controller", "name", "text", "limit"),
    [
        ("memory", "memory.events", "oom 1\noom_kill 1\n", proc.Limit.MEMORY),
        ("memory", "memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 1\n", proc.Limit.MEMORY),
        ("pids", "pids.events", "max 1\n", proc.Limit.PROCESSES),
        ("pids", "pids.current", "101\n", proc.Limit.PROCESSES),
    ],
)
def test_what_the_kernel_tells_counts_whatever_the_exit_code(
    tmp_path: Path, controller: str, name: str, text: str, limit: proc.Limit
) -> None:
    finished = proc.run(["true"], proc.Bounds(wall=60))
    made = cage.Cage({"memory": tmp_path, "pids": tmp_path})
    made.limit(64 * MIB, 100)
    (tmp_path / "memory.max_usage_in_bytes").write_text(f"{64 * MIB}\n")
    assert made.accounted(finished).ok
    (tmp_path / name).write_text(text)
    assert finished.exit_code == 0
    assert made.accounted(finished).limit is limit


@pytest.mark.skipif(cgroups.delegable(), reason="only v1, because the kernel of v2 kills the group itself")
def test_memory_that_ran_out_above_is_every_builds(tmp_path: Path) -> None:
    """A group above the builds ran out of memory, such as the unit's.

    Whichever build took it, all of them have failed.
    """
    with cage.cage(1 << 30) as above:
        groups = {name: group / "one" for name, group in above.groups.items()}
        for group in set(groups.values()):
            group.mkdir()
        try:
            (above.groups["memory"] / "memory.limit_in_bytes").write_text(str(64 * MIB))
            made = cage.Cage(groups)
            made.limit(1 << 30, 100)
            made.memory = 1 << 30
            with made.alarms() as alarms:
                finished = proc.run(
                    made.joining([proc.find("sh"), "-c", HOG]), proc.Bounds(wall=PATIENCE), alarms=alarms
                )
            assert finished.limit is proc.Limit.HOST
            with pytest.raises(TemporaryError, match="all builds together"):
                made.accounted(finished)
        finally:
            for group in set(groups.values()):
                cage._remove(group)


def test_without_a_group_whatever_the_kernel_kills_is_every_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [3]
    monkeypatch.setattr(cage, "_kills", lambda: kills[0])
    made = cage.Cage({})
    assert made.pressed() is None
    kills[0] = 4
    with made.alarms() as alarms:
        finished = proc.run(["sleep", "600"], proc.Bounds(wall=600), alarms=alarms)
    assert finished.limit is proc.Limit.HOST
    with pytest.raises(TemporaryError, match="nobody knows whose"):
        made.accounted(finished)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"kernel/pty/nr": "2400", "kernel/pty/max": "4096", "kernel/pty/reserve": "1024"}, "pseudo-terminals"),
        ({"fs/file-nr": "7600\t0\t10000", "fs/file-max": "10000"}, "open files"),
        ({"../net/sockstat": "TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 760", "net/ipv4/tcp_mem": "1\t2\t1000"}, "TCP"),
        ({"../net/sockstat": "UDP: inuse 2 mem 760\nUDPLITE: inuse 0", "net/ipv4/udp_mem": "1\t2\t1000"}, "UDP"),
        ({"../loadavg": "1.0 1.0 1.0 1/760 9", "kernel/pid_max": "1000", "kernel/threads-max": "9999"}, "processes of"),
        ({"../loadavg": "1.0 1.0 1.0 1/760 9", "kernel/pid_max": "9999", "kernel/threads-max": "1000"}, "processes of"),
    ],
)
def test_what_runs_out_for_all_is_every_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    system = tmp_path / "sys"
    system.mkdir()
    for name, text in files.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(f"{text}\n")
    with cage.cage(1 << 30) as made, made.alarms() as alarms:
        assert made.pressed() is None
        monkeypatch.setattr(shortage, "SYSCTL", system)
        finished = proc.run(["sleep", "600"], proc.Bounds(wall=600), alarms=alarms)
        with pytest.raises(TemporaryError, match=words):
            made.accounted(finished)


# --- the disk


def python_build(name: str, code: str) -> str:
    """Return the attribute of a shell whose build runs ``code`` and fails."""
    inputs = f"{{ p = pkgs.python3; passAsFile = [ ''code'' ]; code = ''{code}''; }}"
    return f'X = pkgs.runCommand "{name}-{time.time_ns()}" {inputs} "$p/bin/python3 $codePath; exit 1";'


AT_ONCE = """
import ctypes, fcntl, os, struct
file = os.open("x", os.O_CREAT | os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
print("fallocate", libc.fallocate(file, 0, ctypes.c_long(0), ctypes.c_long(10000000)), ctypes.get_errno())
for request in (0x40305828, 0x4030582A, 0x40305839, 0x4030580A, 0x40305824, 0x401C5820):
    try:
        fcntl.ioctl(file, request, struct.pack("hhqqiiiiii", 0, 0, 0, 10000000, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        print("ioctl", error.errno)
os.posix_fallocate(file, 0, 5000)
print("size", os.fstat(file).st_size, "blocks", os.fstat(file).st_blocks)
"""


def test_room_on_the_disk_is_not_to_be_had_at_once(nix_builder: NixBuilder) -> None:
    """A file that grows by writes can be measured as it grows. Space that is allocated at once and freed cannot."""
    said = built(nix_builder, python_build("at-once", AT_ONCE)).phase.stderr
    assert "fallocate -1 95\n" in said, said
    assert said.count("ioctl 95\n") == 6, said
    assert "size 5000 " in said, said


def test_no_build_goes_on_where_the_disk_is_nearly_full(
    nix_builder: NixBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'X = pkgs.runCommand "patient-{time.time_ns()}" {{ }} "sleep 300; echo > $out";'
    disk = os.statvfs(nix_builder.store.temporary)
    monkeypatch.setattr(looker, "FLOOR", disk.f_blocks * disk.f_frsize)
    monkeypatch.setattr(looker, "SHARE", 1)
    with pytest.raises(TemporaryError, match="nearly full"):
        built(nix_builder, script)


class Disk(NamedTuple):
    """A disk's numbers as statvfs(2) gives them."""

    f_bavail: int
    f_frsize: int = 1
    f_blocks: int = 100 * looker.FLOOR
    f_files: int = 0
    f_favail: int = 0


@contextlib.contextmanager
def lookers(directory: Path, sizes: Sequence[int]) -> Iterator[list[Looker]]:
    """Yield lookers for builds with these limits in bytes. Their programs tell nothing."""
    with contextlib.ExitStack() as held:
        made = [
            held.enter_context(looker.looking([directory], size=size, files=1000, uid=-1, namespace=None))
            for size in sizes
        ]
        patch = held.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(Looker, "_listen", lambda _: "")
        patch.setattr(Looker, "made_room_at", 0.0)
        yield made


def test_of_several_builds_the_largest_makes_room_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free, now = [2 * looker.FLOOR], [1000.0]
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(free[0]))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with lookers(tmp_path, [1 << 40] * 3) as (small, large, hiding):
        small.used, large.used, hiding.at_most = 1000, 2000, 3000
        assert (small(), large(), hiding()) == ("", "", "")
        free[0] = looker.FLOOR - 1
        assert (small(), large()) == ("", "")
        with pytest.raises(TemporaryError, match="nearly full"):
            hiding()
        hiding.end()
        assert (small(), large()) == ("", ""), "the room is free only after a while"
        now[0] += looker.LEAVING_TIME
        assert small() == ""
        with pytest.raises(TemporaryError, match="nearly full"):
            large()
        free[0] = looker.FLOOR // 2 - 1
        with pytest.raises(TemporaryError, match="nearly full"):
            small()


def test_what_no_look_explains_ends_the_build_that_has_written_most(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free, now = [1000 * looker.FLOOR], [1000.0]
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(free[0], f_blocks=2000 * looker.FLOOR))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    size = 4 * looker.FLOOR
    with lookers(tmp_path, [size] * 3) as (honest, hiding, idle):
        every = [honest, hiding, idle]

        def look() -> list[str]:
            """Let all lookers look, as their programs would if asked."""
            found = [each() for each in every]
            now[0] += 1.0
            for each in every:
                each._asked_at, each.answered_at = 0.0, now[0]
            return found + [each() for each in every]

        assert not any(look())
        free[0] -= 3 * size
        honest.used = honest.wrote = honest.at_most = 3 * size
        assert not any(look()), "all bytes are accounted for"
        free[0] -= 2 * size
        assert not any(look()), "so little may have been written by others"
        free[0] -= 2 * size
        found = [each() for each in every]
        honest.used, honest.wrote, honest.at_most = 5 * size, 7 * size, 7 * size
        free[0] -= 2 * size
        honest.answered_at = hiding.answered_at = idle.answered_at = now[0] = now[0] + 1.0
        assert not any([*found, *(each() for each in every)]), "it was written during the look"
        honest.used = 7 * size
        assert not any(look())
        free[0] -= 2 * size
        hiding.wrote = hiding.at_most = 2 * size
        with pytest.raises(TemporaryError, match="that were found in no build"):
            look()
        assert not honest()
        assert not idle()


def test_a_look_that_was_resting_has_its_time_when_others_fill_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free, now = [100 * looker.FLOOR], [1000.0]
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(free[0]))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with lookers(tmp_path, [looker.FLOOR]) as (look,):
        now[0] += 2 * looker.HURRY  # the looker rests
        free[0] -= 10 * looker.FLOOR
        assert look() == ""
        now[0] += looker.HURRY / 2
        assert look() == ""
        now[0] += looker.HURRY
        with pytest.raises(TemporaryError, match="cannot be measured in time"):
            look()


MAPPED = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
for number in range(8):
    file = os.open("x", os.O_CREAT | os.O_RDWR)
    os.write(file, bytes(5000000))
    libc.mmap(None, ctypes.c_size_t(5000000), 1, 1, file, ctypes.c_long(0))
    os.close(file)
    os.unlink("x")
time.sleep(600)
"""


def test_files_that_have_no_name_but_are_mapped_count(nix_builder: NixBuilder) -> None:
    result = built(room.limited(nix_builder, output=20 * MIB, silence=60), python_build("mapped", MAPPED))
    # Only one of them has a name at a time, and it has a quarter of the limit.
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr


def test_the_program_that_measures_is_missed(nix_builder: NixBuilder) -> None:
    """No build goes on unmeasured."""
    mark = f"sleep 600.{time.time_ns()}"
    failures: list[BaseException] = []

    def build() -> None:
        try:
            built(nix_builder, f'X = pkgs.runCommand "unmeasured" {{ }} "{mark}";')
        except TemporaryError as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    room.until_runs(mark)
    (ours,) = room.children_with("spoold.nix.look import")
    os.kill(ours, signal.SIGKILL)
    thread.join()
    assert "cannot be measured" in str(failures[0])
