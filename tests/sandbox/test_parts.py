"""The supervisor's parts, one at a time, compiled with sanitizers: counters of the kernel, and remains of a job."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.sandbox.facts import AHEAD, JOB_UID, SOCKET
from tests.sandbox import inside
from tests.sandbox.inside import Parts
from tests.sandbox.test_supervisor import child_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

MIB = 1024 * 1024
V1 = {
    "cpuacct/cpuacct.usage": "99000000000000\n",
    "memory/memory.stat": "cache 5000\nrss 700\nrss_huge 0\nshmem 2000\ntotal_rss 1\n",
    "memory/memory.usage_in_bytes": "6000\n",
    "memory/memory.max_usage_in_bytes": "9000\n",
    "memory/memory.kmem.usage_in_bytes": "300\n",
    "memory/memory.kmem.max_usage_in_bytes": "400\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids\n",
    "cpu.stat": "usage_usec 99000000000\nuser_usec 1\n",
    "memory.stat": "anon 700\nfile 5000\nkernel 200\nsock 100\nshmem 2000\nanon_thp 5\n",
    "memory.current": "6000\n",
    "memory.peak": "9000\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n",
}
APART = f"uid {JOB_UID}, killed first 1000, filter 2, Permission denied elsewhere"
OLD_V2 = V2 | {"memory.stat": "anon 700\nfile 5000\nkernel_stack 100\npagetables 50\nslab 50\nsock 100\nshmem 2000\n"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return the directory that is /job for the parts."""
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    return work


@pytest.fixture
def parts(units: Path, work: Path, tmp_path: Path) -> Iterator[Parts]:
    """Yield the parts. They see ``tmp_path`` under the same path."""
    binds = ("--dir", "/dev/mqueue", "--dir", str(tmp_path), "--bind", str(tmp_path), str(tmp_path))
    with inside.parts(inside.in_a_root(units, work, binds=binds)) as parts:
        yield parts


def lay(root: Path, files: dict[str, str]) -> Path:
    """Write ``files``."""
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(("files", "of_kernel"), [(V1, 400), (V2, 0), (OLD_V2, 0)], ids=["v1", "v2", "older v2"])
def test_all_versions_count_the_same(parts: Parts, tmp_path: Path, files: dict[str, str], of_kernel: int) -> None:
    parts(f"counters {lay(tmp_path / 'group', files)}")
    assert parts("memory") == "700 2000 3000 300 6000"
    assert parts("peaks") == f"9000 {of_kernel}"
    assert parts("oom") == "3"
    assert 0 < 99 * 10**12 - int(parts("cpu")) <= 60 * 10**9


def test_what_is_missing_is_zero(parts: Parts, tmp_path: Path) -> None:
    parts(f"counters {tmp_path}")
    assert [parts(each) for each in ("memory", "peaks", "oom", "cpu")] == ["0 0 0 0 0", "0 0", "0", "-1"]


class Group:
    """A control group of version 2 whose files a test writes. Sizes are bytes."""

    def __init__(self, parts: Parts, root: Path, *, resets: bool = False) -> None:
        self.root, self.parts = root, parts
        self.own, self.top = 10 * MIB, 0
        self.say(0)
        parts(f"counters {root}")
        if resets:
            assert parts(f"resets {root}/memory.peak") == "1"

    def say(self, job: int, *, top: int = 0, cache: int = 0, kernel: int = 0) -> None:
        """Set what the job holds now, and the highest usage of the whole group so far (``top``)."""
        usage = self.own + job + cache + kernel
        self.top = max(self.top, top, usage)
        changed = {
            "memory.stat": f"anon {self.own + job}\nfile {cache}\nkernel {kernel}\n",
            "memory.current": f"{usage}\n",
            "memory.peak": f"{self.top:<32}\n",
        }
        lay(self.root, V2 | changed)

    def look(self) -> list[int]:
        """Return what the phase holds, its most since the last look, and how much a later phase may hold unseen."""
        return self.parts.numbers("look 0")


def test_a_peak_between_two_looks_is_seen(parts: Parts, tmp_path: Path) -> None:
    group = Group(parts, tmp_path)
    parts("pages")
    group.say(MIB, top=30 * MIB, cache=4 * MIB, kernel=MIB)
    held, most, _ = group.look()
    assert held == MIB - AHEAD // 2
    assert most == 30 * MIB - 4 * MIB - MIB - group.own - AHEAD // 2
    assert group.look()[:2] == [held, held]  # it has not risen since


def test_a_peak_that_cannot_begin_anew_hides_what_is_below_it(parts: Parts, tmp_path: Path) -> None:
    group = Group(parts, tmp_path)
    parts("pages")
    group.say(0, top=30 * MIB)
    assert group.look()[2] > 19 * MIB
    parts("pages")
    _, most, unseen = group.look()
    assert most == 0
    assert unseen > 19 * MIB


def test_a_peak_that_can_begin_anew_hides_nothing(parts: Parts, tmp_path: Path) -> None:
    group = Group(parts, tmp_path, resets=True)
    parts("pages")
    assert (tmp_path / "memory.peak").read_text()[0] == "0"  # the kernel would have put the usage there
    group.say(0, top=30 * MIB)
    _, most, unseen = group.look()
    assert most > 19 * MIB
    assert unseen == 0


def test_files_of_an_earlier_phase_make_no_room_for_more(parts: Parts, tmp_path: Path) -> None:
    group = Group(parts, tmp_path)
    lay(tmp_path, {"memory.stat": f"anon {10 * MIB}\nfile {40 * MIB}\nshmem {40 * MIB}\n"})
    lay(tmp_path, {"memory.current": str(50 * MIB)})
    parts("pages")
    group.say(8 * MIB)
    assert abs(group.look()[0] - 8 * MIB) <= AHEAD


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("well", f"{APART}, descriptors 0 1 2"),
        ("kept", f"{APART}, descriptors 0 1 2 3"),
        ("long", "Connection timed out"),
        ("killed", "Cannot allocate memory"),
        *((how, "Protocol error") for how in ("much", "bad")),
    ],
)
def test_what_a_job_left_is_worked_on_apart(parts: Parts, how: str, answer: str) -> None:
    """A process with the job's rights reads it. An answer that is late, too long or forged counts as none."""
    parts("walls")
    assert parts(f"apart {how}") == answer


def test_large_files_are_told_from_those_before(parts: Parts, work: Path) -> None:
    deep = work.joinpath(*["d"] * 65)  # one level more than the look goes
    deep.mkdir(parents=True)
    parts("large 1")
    (deep / "not seen").write_bytes(b"xx")
    (work / "small").write_bytes(b"x")
    (work / "link").symlink_to("/usr/bin/bash")
    assert parts("more") == "0"
    for number, place in enumerate((work, deep.parent, deep.parent.parent)):
        (place / str(number)).write_bytes(b"xx")
        assert parts("more") == "1"
        parts("large 1")
        assert parts("more") == "0"


def test_large_files_that_are_too_many_to_be_kept_in_mind_tell_nothing(parts: Parts, work: Path) -> None:
    for number in range(16385):
        (work / str(number)).write_bytes(b"xx")
    parts("large 1")
    (work / "one more").write_bytes(b"xx")
    assert parts("more") == "0"


def test_what_is_no_regular_file_is_not_read(parts: Parts, work: Path) -> None:
    """Data in a pipe stays there, such as the host's messages to the supervisor."""
    os.mkfifo(work / "pipe")
    held = os.open(work / "pipe", os.O_RDWR)
    os.write(held, b"words")
    (work / "link").symlink_to("/job/pipe")
    (work / "own").symlink_to("/proc/self/fd/0")
    (work / "text").write_bytes(b"some text")
    assert [parts(f"begins {name}") for name in ("pipe", "link", "own", ".", "text")] == ["<>"] * 4 + ["<some text>"]
    assert os.read(held, 9) == b"words"
    os.close(held)


def test_a_file_system_without_times_of_access_has_nothing_noted(units: Path, work: Path) -> None:
    """The time stays as it was set there, whoever reads the file."""
    told = {}
    for options in ("noatime", "relatime"):
        command = inside.in_a_root(units, work)
        own = f"cd {work} && printf true >run.sh && chmod 755 run.sh && chown {JOB_UID} run.sh"
        mounted = f"mount -t tmpfs -o {options} none {work} && {own}"
        with inside.parts(["unshare", "-m", "sh", "-c", f'{mounted} && exec "$@"', "sh", *command]) as parts:
            parts("forget run.sh")
            told[options] = parts("obstacles run.sh 0")
    assert told == {"noatime": "0", "relatime": "1 unread:"}


# Hostile files for the code that reads programs. Each is a run.sh that the shell could not start.
HEAD = b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\0"  # 64 bits, for x86-64
HEADERS = 1024  # bytes of a program that hold its headers
STRANGE = {
    "nothing": b"",
    "half of a head": HEAD[:6],
    "a head alone": HEAD + b"\xff" * 44,
    "an offset that no file has": HEAD + bytes(12) + b"\xff" * 8 + bytes(14) + b"8\0\1\0" + bytes(4),
    "headers without size": HEAD + bytes(12) + b"@" + bytes(21) + b"\0\0\xff\xff" + bytes(64),
    "all ones": b"\x7fELF" + b"\xff" * 5000,
    "a long line": b"#!" + b"/" * 40000,
    "words": b"#!/usr/bin/env -S" + b" =" * 2000 + b"\n",
    "blanks": b"#!/usr/bin/env -S" + b" \t" * 20000,
    "a NUL": b"#!/usr/bin/env a\0b\n",
    "an own NUL": b"#!/a\0b\n",
    "returns alone": b"\r" * 40000,
    "lines": b"x\n" * 16383 + b"\r\n",
    "marks": b"\xef\xbb\xbf\xff\xfe",
    "itself": b"#!/job/run.sh\n",
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_a_job_left_is_looked_at_in_time_and_bounds(parts: Parts, work: Path, name: str) -> None:
    (work / "run.sh").write_bytes(STRANGE[name])
    (work / "run.sh").chmod(0o755)
    for code in (126, 127, 1, 0, -1):
        count, *told = parts(f"obstacles run.sh {code}").split(" ")
        assert int(count) <= 4
        assert bool(told) == (count != "0")


def test_a_look_that_the_machine_holds_up_tells_all_the_same(parts: Parts, work: Path) -> None:
    """The look may use half a second of CPU time, however long that takes."""
    for name in ("run.sh", *map(str, range(199))):
        (work / name).write_text("#!/none\n")
        (work / name).chmod(0o755)
    told = parts("obstacles run.sh 127")
    assert told != "0"
    supervisor = child_of(parts.process.pid)
    while (looker := stopped_below(parts, supervisor, "obstacles run.sh 127")) is None:
        assert parts.answer() == told  # it had ended before this test saw it
    time.sleep(3.5)  # the stall; a look with a limit of 3 s by the clock would lose its note
    with contextlib.suppress(ProcessLookupError):
        os.kill(looker, signal.SIGCONT)
    assert parts.answer() == told


def stopped_below(parts: Parts, supervisor: int, order: str) -> int | None:
    """Give an order, and stop the process that the supervisor starts for it.

    Return its pid, or None where it was too late.
    """
    parts.say(order)
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    while not (found := children.read_text().split()):
        if parts.has_answered():
            return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(found[0]), signal.SIGSTOP)
    return None if parts.has_answered(0.3) else int(found[0])


PIECES = [b"\r", b"\0", b"\n", b" ", b"/", b"=", b"-S", b"#!", b"\x7f" + b"\xff" * 7, b"\xff" * 8, b"A" * 5000]


def test_what_is_wrong_in_any_place_of_a_file_harms_nobody(units: Path, work: Path) -> None:
    random_ = random.Random(7)  # noqa: S311 - no secret
    seeds = [
        *STRANGE.values(),
        Path("/bin/true").read_bytes()[:HEADERS],
        b"#!/usr/bin/env -S -i A=b x\r\n",
        b"#! /job/b c\n",
    ]
    command = inside.in_a_root(units, work)
    # it answers with any bytes
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for number in range(500):
            for name in ("run.sh", "b"):
                content = bytearray(random_.choice(seeds))
                for _ in range(random_.randint(0, 6)):
                    at = random_.randrange(min(len(content), HEADERS) + 1)
                    content[at : at + random_.choice((0, 1, 8, 40))] = random_.choice(PIECES)
                (work / name).unlink(missing_ok=True)
                (work / name).write_bytes(content)
                (work / name).chmod(random_.choice((0o755, 0o755, 0o644)))
            process.stdin.write(b"obstacles run.sh %d\n" % random_.choice((126, 127, 1, 0, -1)))
            process.stdin.flush()
            assert process.stdout.readline(), number


def test_programs_that_call_one_another_in_a_circle_end(parts: Parts, work: Path) -> None:
    for one, other in (("run.sh", "b"), ("b", "c"), ("c", "b")):
        (work / one).write_text(f"#!/job/{other}\n")
        (work / one).chmod(0o755)
    assert parts("obstacles run.sh 126") == "0"


def test_who_looked_is_believed_only_what_can_be(parts: Parts) -> None:
    """A job that exploits a flaw in the reading of files could control that process."""
    sayings = ("missing 256 4096", "missing 257 0", "missing 0 4097", "missing 65535 65535", "made-up 1 1")
    assert [parts(f"told {each}") for each in sayings] == ["1", "0", "0", "0", "0"]


def test_no_call_waits_where_the_kernel_cannot_let_it_go_on(parts: Parts) -> None:
    """Linux can make a call wait since 5.0, but can let it go on only since 5.5."""
    releases = ("4.19.0", "5.4.0-216-generic", "5.5.0", "5.10.0-30-amd64", "6.1.0", "10.2", "strange", "")
    assert [parts(f"kernel {each}") for each in releases] == ["0", "0", "1", "1", "1", "1", "0", "0"]


NAMES = 4 * MIB  # bytes of names, at most


def test_a_cell_is_believed_only_what_can_be(units: Path, work: Path) -> None:
    with inside.parts(inside.in_a_root(units, work)) as parts:
        assert [parts(f"names {each}") for each in ("0 0", "1 0", f"{NAMES} 0")] == ["0", "1", "1"]
    for lie in ("9 x", f"{NAMES} x", f"{NAMES + 1} 0", f"{2**64 - 1} 0"):
        done = subprocess.run(
            inside.in_a_root(units, work), input=f"names {lie}\n", capture_output=True, text=True, check=False
        )
        assert "a cell told what are no names" in done.stderr


def test_sockets_are_counted_by_what_they_hold(units: Path, work: Path) -> None:
    """The parts count the sockets of their own network, which is this test's as well."""
    command = inside.in_a_root(units, work)
    command.remove("--unshare-net")
    with inside.parts(command) as parts, socket.create_server(("127.0.0.1", 0)) as listening:
        parts("sockets")
        before = int(parts("held"))
        with socket.create_connection(listening.getsockname()) as out, listening.accept()[0]:
            out.setblocking(False)
            while select.select([], [out], [], 0)[1]:
                out.send(bytes(65536))
            assert before + 100_000 < int(parts("held"))


def test_a_kernel_that_does_not_tell_what_sockets_hold(units: Path, work: Path) -> None:
    """Each socket counts with all that it may hold. The kernel's answer is left out here."""
    command = inside.in_a_root(units, work)
    command.remove("--unshare-net")
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
        inside.parts(command) as parts,
    ):
        parts("sockets")
        parts("deaf")
        assert int(parts("held")) >= 3 * SOCKET


def test_the_sanitizers_see_what_is_wrong(units: Path, work: Path) -> None:
    """Otherwise the tests with sanitizers would prove little."""
    with subprocess.Popen(inside.in_a_root(units, work), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(b"nonsense\n", timeout=60)
    assert b"what is that?" in said
    assert process.returncode != 0
    assert b"__asan_init" in units.read_bytes()
