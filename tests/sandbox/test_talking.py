"""The host's part in a talk, without a supervisor: what it passes on, and what it does not believe."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from spoold.model.errors import ClientError
from spoold.model.job import JobCase, JobResult
from spoold.model.limits import COMPILE_DEFAULT, MIB, RUN_DEFAULT, Limits
from spoold.model.response import Outcome, Phase, cancelled_phase
from spoold.sandbox import Check, RunCancelledError, interactors, wire
from spoold.sandbox.facts import WINDOW
from spoold.sandbox.messages import (
    Begun,
    Cancel,
    Hear,
    Message,
    Order,
    Over,
    Parcel,
    Passed,
    Refused,
    Said,
    Took,
    parse,
    parse_any,
)
from spoold.sandbox.parts import Part
from spoold.sandbox.pipes import Direct
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import asked
from spoold.sandbox.stream import ClosedError, Stream
from spoold.sandbox.talk import LonelyError, Side, Talk
from tests.sandbox.conftest import make_job
from tests.sandbox.test_cases import with_cases

PATIENCE = 60.0


class End(NamedTuple):
    """One side of a talk, its stream, and the end of it at which the test is the supervisor."""

    side: Side
    stream: Stream
    theirs: socket.socket

    def say(self, *messages: Message) -> None:
        self.theirs.sendall(b"".join(map(wire.frame, messages)))

    def take(self) -> None:
        """Have the host hear all that was said by now."""
        self.say(Refused(reason=b"no more"))
        assert isinstance(self.side.hear_end(self.stream, PATIENCE), Refused)

    def heard(self) -> list[Message]:
        """Return what the host has said by now."""
        found = []
        self.theirs.settimeout(0.0)
        try:
            while head := self.theirs.recv(4):
                self.theirs.settimeout(PATIENCE)
                data = self.theirs.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                found.append(parse_any(wire.decode(data), Hear, Passed, Over, Cancel))
                self.theirs.settimeout(0.0)
        except BlockingIOError:
            pass
        return found


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    """Yield the program's end and the interactor's."""
    talk = Talk(frozenset({42}))
    pairs = [socket.socketpair(), socket.socketpair()]
    made = [
        End(side, Stream(Direct(ours, -1), threading.Event()), theirs)
        for side, (ours, theirs) in zip((talk.program, talk.interactor), pairs, strict=True)
    ]
    yield made[0], made[1]
    for one, other in pairs:
        one.close()
        other.close()


FULL = Said(data=bytes(WINDOW))


@pytest.mark.parametrize(
    "words",
    [
        [Said(data=b"x")],
        [Begun(), Begun()],
        [Begun(), FULL, Said(data=b"x")],
        [Begun(), Took(size=1)],
        [Begun(), Took(size=-1)],
        [Begun(), Said(data=b""), Said(data=b"x")],
    ],
)
def test_a_supervisor_that_says_what_cannot_be_is_treated_as_gone(ends: tuple[End, End], words: list[Message]) -> None:
    program, _ = ends
    program.say(*words)
    with pytest.raises(ClosedError, match=r"garbage|further ahead"):
        program.side.hear_end(program.stream, PATIENCE)


def test_what_one_says_waits_for_the_other_to_begin_and_to_take(ends: tuple[End, End]) -> None:
    program, interactor = ends
    interactor.say(Begun(), FULL)
    interactor.take()
    assert program.heard() == []
    program.say(Begun())
    program.take()
    assert program.heard() == [Hear(data=bytes(WINDOW))]
    interactor.side.ended(bytes(WINDOW) + b"rest")  # the account of its end has more than what was said
    assert program.heard() == []
    program.side._stream = program.stream  # it has not ended
    program.say(Took(size=WINDOW))
    program.take()
    assert program.heard() == [Hear(data=b"rest"), Hear(data=b"")]


def test_what_nobody_hears_any_more_is_dropped_and_counts_as_taken(ends: tuple[End, End]) -> None:
    program, interactor = ends
    program.say(Begun())
    program.take()
    program.side._stream = program.stream
    interactor.side.ended(b"")
    assert program.heard() == [Hear(data=b"")]
    for _ in range(3):
        program.say(FULL)
    program.take()
    assert program.heard() == [Passed(size=WINDOW)] * 3


def test_no_side_waits_for_one_that_cannot_take_part(ends: tuple[End, End]) -> None:
    program, interactor = ends
    program.side._talk.give_up()
    with pytest.raises(LonelyError):
        program.side.meet(threading.Event())
    with pytest.raises(LonelyError):
        interactor.side.hear_end(interactor.stream, PATIENCE)


def test_a_cancel_that_the_interactor_sees_first_hides_nothing_of_the_program() -> None:
    def check(_: Check, side: Side, __: float) -> JobResult:
        side.begun.set()
        raise RunCancelledError("cancelled")

    def run(side: Side, ended: interactors.Ended) -> None:
        for thread in threading.enumerate():
            if thread.name == "interactor":
                thread.join(PATIENCE)
        with contextlib.suppress(LonelyError):
            side._require_peer()  # as it does while it waits for the account
            ended(cancelled_phase(1.0, "SIGKILL"), [])
        raise RunCancelledError("cancelled")

    checker: Any = SimpleNamespace(is_compiled=lambda: True, check=check)
    case, told = JobCase(name="", stdin=b"", args=[], env={}, limits=RUN_DEFAULT), list[Phase]()
    with pytest.raises(RunCancelledError):
        interactors.talk(checker, case, Check([], b"", []), run, lambda phase, _: told.append(phase))
    assert [phase.outcome for phase in told] == [Outcome.CANCELLED]


def test_the_files_of_a_side_have_come_before_the_other_begins(ends: tuple[End, End]) -> None:
    """Else a program with many files could use up the time of its interactor before it begins."""
    program, interactor = ends
    runtime = SimpleNamespace(bash="", coreutils="", tzdata="")
    plan: Any = SimpleNamespace(cells=False, recycled=False, resizable=False, runtime=runtime, most=lambda *_: 0)
    transport: Any = SimpleNamespace(stream=program.stream)
    large, cancelled = 4 * MIB, threading.Event()
    job = make_job("", shell="", files={"large": bytes(large)})

    def run() -> None:
        with contextlib.suppress(ClientError, RunCancelledError):
            Runner(transport, plan).run(job, lambda *_: None, cancelled, part=Part(side=program.side))

    def take(size: int) -> bytes:
        found = b""
        while len(found) < size and (piece := program.theirs.recv(size - len(found))):
            found += piece
        return found

    def heard(kind: type[Message]) -> Message:
        return parse(wire.decode(take(int.from_bytes(take(4), "big"))), kind)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        program.theirs.settimeout(PATIENCE)
        assert isinstance(heard(Parcel), Parcel)
        assert not program.side.here.is_set()  # since the rest has no room in the socket
        assert take(large) == bytes(large)
        assert program.side.here.wait(PATIENCE)
        interactor.side.begun.set()
        assert isinstance(heard(Order), Order)
        program.say(Refused(reason=b"no more"))
    finally:
        cancelled.set()
        thread.join()


def test_a_job_that_talks_counts_with_both_containers() -> None:
    job = with_cases(make_job("", shell="", compile_sh="", limits=RUN_DEFAULT, compile_limits=COMPILE_DEFAULT), "a")
    job = replace(job, checker=job)
    assert asked(Limits(), replace(job, talks=True)) > 1.5 * asked(Limits(), job)
