"""Output during a run, from the whole supervisor with sanitizers, and at a host whose supervisor may send anything."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spoold.model.limits import RUN_DEFAULT
from spoold.model.response import Outcome, Phase
from spoold.sandbox import RunCancelledError, live, runner, wire
from spoold.sandbox.facts import PACE, TAIL
from spoold.sandbox.live import Hearing
from spoold.sandbox.messages import Bounds, Cancel, Done, Live, Message
from spoold.sandbox.pipes import READ, BothWays
from spoold.sandbox.stream import ClosedError, Received, Stream
from tests.sandbox import inside
from tests.sandbox.test_supervisor import LIMITS, Host, finished, order, parcel, started
from tests.waiting import PATIENCE, until

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

SCRIPT = {"run.sh": b"#!/bin/sh\n"}
LONG = "seq 1 40000; echo oops >&2; exec sleep 1000"  # 228,894 bytes
SEQ = b"".join(b"%d\n" % number for number in range(1, 40001))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the supervisor's program."""
    return inside.supervisor(tmp_path_factory.mktemp("supervisor"))


def bounds(**changes: object) -> Bounds:
    """Return limits with some changes."""
    fields: dict[str, Any] = LIMITS.fields() | changes
    return Bounds(**fields)


# -- the supervisor's side


@root
@pytest.mark.parametrize("cap", [0, 1000, 200_000, 1 << 20])
def test_the_ends_of_both_outputs_are_told(program: Path, tmp_path: Path, cap: int) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel(SCRIPT), order(LONG, bounds(stdout=cap), live=True))
        while (told := host.hear()) and isinstance(told, Live) and told.stdout_total + told.stderr_total < len(SEQ) + 5:
            assert told.stdout == SEQ[: told.stdout_total][-TAIL:], "a message before the end of the output"
        assert isinstance(told, Live)
        assert (told.stdout, told.stdout_total) == (SEQ[-TAIL:], len(SEQ))
        assert (told.stderr, told.stderr_total) == (b"oops\n", 5)
        assert told.time >= PACE * 10**9
        host.say(Cancel())
        done, stdout, stderr = end_of(host)
        assert (done.hit, stdout, stderr) == (b"cancel", SEQ[:cap], b"oops\n")


@root
def test_the_ends_are_right_whatever_is_kept_and_read_at_once(units: Path, tmp_path: Path) -> None:
    random_ = random.Random(5)  # noqa: S311 - no secret
    near = [0, 1, 1000, TAIL - 1, TAIL, TAIL + 1, 2 * TAIL, 3 * TAIL + 7]
    with inside.parts(inside.in_a_root(units, tmp_path)) as parts:
        for cap in near:
            for more in near:
                for piece in (TAIL, 4096, random_.randint(100, TAIL)):
                    assert parts(f"tail {cap} {cap + more} {piece}") == "right", (cap, more, piece)
                    assert parts(f"tail {cap} {max(0, cap - more)} {piece}") == "right", (cap, more, piece)


@root
def test_its_memory_is_there_before_a_phase_that_asks_and_not_at_all_before_others(units: Path, tmp_path: Path) -> None:
    with inside.parts(inside.in_a_root(units, tmp_path)) as parts:
        before, after, pages = parts.numbers("touched")
        assert before == 0
        assert after == pages >= 4 * TAIL // 4096 - 1


@root
def test_nothing_is_told_where_nobody_asked(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel(SCRIPT), order("echo begun; sleep 2"))
        done, stdout, _ = finished(host)
        assert (done.hit, stdout) == (b"", b"begun\n")


# The change since the last message, in seconds, bytes and nanoseconds of CPU time; and whether a message is sent now.
NEWS = [
    ("0.9 3 0", False),  # not in the first second
    ("0.1 0 0", True),  # the first message, even without news
    ("0.9 3 0", False),  # not twice in a second
    ("0.2 0 0", True),
    ("1.1 0 0", False),  # nothing is new
    ("1.1 0 9999999", False),
    ("1.1 0 1", True),
    ("5.0 0 0", False),
    ("1.1 3 0", True),
    ("1.1 3 0 under way", False),
    ("0.1 3 0", True),
]


@root
def test_it_is_told_each_second_in_which_there_is_something_new(units: Path, tmp_path: Path) -> None:
    with inside.parts(inside.in_a_root(units, tmp_path)) as parts:
        assert [(since, parts(f"news {since}") == "told") for since, _ in NEWS] == NEWS


@root
@pytest.mark.parametrize("script", ["yes", "seq 1 40000; while :; do :; done"])
def test_a_host_that_reads_nothing_stops_no_limit(program: Path, tmp_path: Path, script: str) -> None:
    """The pipe to the host is full of the first message.

    The phase ends in time, and then everything is told as usual.
    """
    with started(program, tmp_path / "work") as host:
        host.say(*parcel(SCRIPT), order(f"echo $$; {script}", bounds(time=8 * 10**9), live=True))
        supervisor = supervisor_of(host)
        until(lambda: waits_to_write(host))
        until(lambda: not children(supervisor))
        told = host.hear()
        assert isinstance(told, Live)
        done, stdout, _ = end_of(host)
        assert (done.hit, os.WTERMSIG(done.status), len(stdout)) == (b"time", signal.SIGKILL, 1000)


@root
def test_a_cancel_is_heard_while_a_message_is_under_way(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel(SCRIPT), order("exec yes", live=True))
        until(lambda: waits_to_write(host))
        host.say(Cancel())
        supervisor = supervisor_of(host)
        until(lambda: not children(supervisor))
        assert isinstance(host.hear(), Live)
        assert end_of(host)[0].hit == b"cancel"


@root
def test_a_second_phase_begins_anew(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel(SCRIPT), order("echo first; while [ ! -e go ]; do sleep 0.1; done", live=True))
        assert isinstance(host.hear(), Live)
        (tmp_path / "work" / "go").touch()
        assert end_of(host)[1] == b"first\n"
        host.say(order("echo second; exec sleep 1000", live=True))
        while isinstance(told := host.hear(), Live) and not told.stdout_total:
            pass
        assert isinstance(told, Live)
        assert (told.stdout, told.stdout_total) == (b"second\n", 7)


def end_of(host: Host) -> tuple[Done, bytes, bytes]:
    """Return the account of a phase. Messages during the run may come before it."""
    while isinstance(said := host.hear(), Live):
        pass
    assert isinstance(said, Done), said
    return said, host.take(said.stdout), host.take(said.stderr)


def supervisor_of(host: Host) -> int:
    """Return the process that is the supervisor."""
    found: list[int] = []

    def look() -> bool:
        pid = host.process.pid
        while below := children(pid):
            pid = below[0]
            if Path(f"/proc/{pid}/comm").read_text() == "tried\n":
                found.append(pid)
                return True
        return False

    until(look)
    return found[0]


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def waits_to_write(host: Host) -> bool:
    """Tell whether the pipe from the supervisor is full, so that nothing can be written to it."""
    assert host.process.stdout
    pipe = host.process.stdout.fileno()
    there = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")
    return there == fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


# -- the host's side


def told(**changes: object) -> Live:
    """Return a message about a running phase."""
    fields: dict[str, Any] = {"time": 10**9, "cpu": 5 * 10**8, "memory": 1 << 20, "stdout": b"out", "stdout_total": 3}
    return Live(**fields | {"stderr": b"", "stderr_total": 0} | changes)


def done(stdout: bytes = b"", **changes: object) -> Done:
    """Return the account of a phase that went well."""
    fields: dict[str, Any] = {name: 0 if kind == "int" else [] for name, kind in Done.FIELDS.items()}
    made = fields | {"hit": b"", "clean": 1, "stdout": len(stdout), "stdout_total": len(stdout)}
    return Done(**made | changes)


class Plain(BothWays):
    """A pipe without stderr."""

    def receive(self) -> Received | None:
        data = self._socket.recv(READ)
        return Received(data, b"") if data else None

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    """Yield a stream and its other end."""
    ours, theirs = socket.socketpair()
    stream = Stream(Plain(ours), threading.Event())
    yield stream, theirs
    stream.close()
    theirs.close()


@pytest.fixture
def heard() -> list[tuple[str, Phase]]:
    """Return the list of what was told, in order."""
    return []


def hearing(heard: list[tuple[str, Phase]], *, live: bool = True) -> Hearing:
    return Hearing("run", lambda *told: heard.append(told), live=live)


def test_what_is_told_is_handed_on(ends: tuple[Stream, socket.socket], heard: list[tuple[str, Phase]]) -> None:
    stream, theirs = ends
    theirs.sendall(wire.frame(told()) + wire.frame(done()))
    assert hearing(heard).hear_end(stream, PATIENCE) == done()
    ((name, phase),) = heard
    assert (name, phase.stdout, phase.stdout_bytes, phase.time, phase.cpu_time) == ("run", "out", 3, 1.0, 0.5)
    assert not isinstance(phase.outcome, Outcome)


@pytest.mark.parametrize(
    "said",
    [
        told(stdout=bytes(TAIL + 1), stdout_total=TAIL + 1),
        told(stderr=bytes(TAIL + 1), stderr_total=TAIL + 1),
        told(stdout_total=4),
        told(stdout_total=2),
        told(stdout_total=TAIL * 2),
        told(time=-1),
        told(cpu=-1),
        told(memory=-1),
    ],
)
def test_what_cannot_be_is_garbage(
    ends: tuple[Stream, socket.socket], heard: list[tuple[str, Phase]], said: Message
) -> None:
    stream, theirs = ends
    theirs.sendall(wire.frame(said))
    with pytest.raises(ClosedError, match="garbage"):
        hearing(heard).hear_end(stream, PATIENCE)
    assert heard == []


def test_what_is_told_unasked_is_garbage(ends: tuple[Stream, socket.socket], heard: list[tuple[str, Phase]]) -> None:
    stream, theirs = ends
    theirs.sendall(wire.frame(told()) + wire.frame(done()))
    with pytest.raises(ClosedError, match="garbage"):
        hearing(heard, live=False).hear_end(stream, PATIENCE)


class Passing:
    """A clock, and a stream that gets a message every ``pace`` seconds."""

    def __init__(self, pace: float) -> None:
        self.now, self.pace = 1000.0, pace
        self.patience: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def message(self, patience: float, *_: type[Message]) -> Message:
        self.patience.append(patience)
        if patience < self.pace or len(self.patience) > 1000:
            raise ClosedError("the sandbox does not answer")
        self.now += self.pace
        return told()


def test_a_supervisor_that_tells_too_often_is_garbage(
    monkeypatch: pytest.MonkeyPatch, heard: list[tuple[str, Phase]]
) -> None:
    passing: Any = Passing(0.5)
    monkeypatch.setattr(live, "time", passing)
    with pytest.raises(ClosedError, match="garbage"):
        hearing(heard).hear_end(passing, 600.0)
    assert len(heard) < 5


def test_a_host_that_was_late_takes_what_waits_for_it(
    ends: tuple[Stream, socket.socket], monkeypatch: pytest.MonkeyPatch, heard: list[tuple[str, Phase]]
) -> None:
    stream, theirs = ends
    passing: Any = Passing(1.0)
    monkeypatch.setattr(live, "time", passing)
    late = hearing(heard)
    passing.now += 10.0
    theirs.sendall(wire.frame(told()) * 10 + wire.frame(done()))
    assert late.hear_end(stream, PATIENCE) == done()
    assert len(heard) == 10


def test_what_is_told_renews_no_patience(monkeypatch: pytest.MonkeyPatch, heard: list[tuple[str, Phase]]) -> None:
    passing: Any = Passing(1.0)
    monkeypatch.setattr(live, "time", passing)
    with pytest.raises(ClosedError, match="does not answer"):
        hearing(heard).hear_end(passing, 20.0)
    assert passing.now == 1020.0
    assert passing.patience == [float(left) for left in range(20, -1, -1)]


@pytest.mark.parametrize("first", [1, 4, 1000])
def test_a_cancel_is_sent_though_a_message_has_begun_to_come(
    ends: tuple[Stream, socket.socket], heard: list[tuple[str, Phase]], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ENDING_TIMEOUT", PATIENCE)
    stream, theirs = ends
    whole = wire.frame(told(stdout=bytes(2000), stdout_total=2000))
    theirs.sendall(whole[:first])
    ear = hearing(heard)
    threading.Timer(0.1, stream.cancelled.set).start()
    with pytest.raises(RunCancelledError):
        ear.hear_end(stream, PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(runner._end_early, stream, "run", RUN_DEFAULT, time.monotonic(), ear)
        theirs.settimeout(PATIENCE)
        assert theirs.recv(1000) == wire.frame(Cancel())
        theirs.sendall(whole[first:] + wire.frame(done(b"some", hit=b"cancel", status=9)) + b"some")
        phase = ending.result(PATIENCE).phase
    assert (phase.outcome, phase.stdout) == (Outcome.CANCELLED, "some")


def test_a_cancel_that_comes_too_late_to_be_sent_loses_no_account(
    ends: tuple[Stream, socket.socket], heard: list[tuple[str, Phase]]
) -> None:
    """The supervisor has told the end and closed its side."""
    stream, theirs = ends
    theirs.sendall(wire.frame(done(b"all")) + b"all")
    theirs.close()
    ran = runner._end_early(stream, "run", RUN_DEFAULT, time.monotonic(), hearing(heard))
    assert (ran.phase.outcome, ran.phase.stdout) == (Outcome.OK, "all")
