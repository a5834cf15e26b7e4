"""A sandbox that runs jobs: made and started before its job is known, used for one job, or for many in turn.

``alive`` tells whether its supervisor waits. ``run`` sends the job and reads a report for each phase. ``reusable`` then
tells whether it can serve another job. ``stop`` ends all that runs in it, and ``close`` removes it. Its ``transport``
hides which engine carries it. ``pool`` keeps some ready.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

import msgspec

from spoold.host.log import Log
from spoold.model.errors import ClientError, TemporaryError
from spoold.model.job import Job, JobResult
from spoold.model.limits import MIB, PhaseLimits
from spoold.model.outputs import Returned
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase, cancelled_phase
from spoold.model.verdicts import printed
from spoold.sandbox import RunCancelledError, obstacles, returned, wire
from spoold.sandbox.archive import Archive
from spoold.sandbox.facts import EXACT
from spoold.sandbox.live import Hearing, OnOutput
from spoold.sandbox.messages import Again, Cancel, Done, End, Failed, Keep, Kept, Message, Refused, Show
from spoold.sandbox.notes import of_kept, of_phase, of_whole
from spoold.sandbox.orders import order, parcel
from spoold.sandbox.parts import WHOLE, OnPhase, Part
from spoold.sandbox.sizes import Plan, held
from spoold.sandbox.stream import BrokenError, ClosedError, Stream, text, unlimited
from spoold.sandbox.talk import Side
from spoold.sandbox.transport import Transport, UnusableError
from spoold.sandbox.verdict import is_possible, judge, killed_whole

log = Log("sandbox")

LOSS_TIMEOUT = 5.0  # seconds to hear or find out why a sandbox was lost
ENDING_TIMEOUT = 3.0  # seconds to end and report a cancelled phase; a cancel is answered within two renewals
KEEPING = 60.0  # seconds to keep the work directory, see AT_LONGEST of ``inside/snapshot.c``
MARGIN = 60.0  # seconds beyond a phase's own time for killing, draining and reporting
CLEANUP_TIMEOUT = 5.0  # seconds for all of a job to be gone; a container that takes longer is replaced
LIGHT = 8 * MIB  # bytes of files in memory that a job may leave there until there is time to remove them
HEAVY, MANY = 512 * MIB, 32768  # with more such bytes or files, no other job waits for their removal
PIECE = 1 * MIB  # bytes of a kept work directory that are taken at once
LOOKS = 10  # milliseconds between two looks at memory, see TICK of ``inside/phase.c``
Carrier = TypeVar("Carrier", bound=Transport)


class Ran(NamedTuple):
    """A phase that ran: its record, the bytes of files that it leaves in memory, how many there were, and notes.

    A later phase may hold ``unseen`` bytes for a moment without being seen, since its container held as much before.
    Where ``lost`` is set, the sandbox is lost, and nothing else comes of the phase.
    """

    phase: Phase
    left: int
    entries: int
    notes: list[str]
    unseen: int = 0
    lost: bool = False


class Runner(Generic[Carrier]):
    """One sandbox whose supervisor waits for a job. Its ``transport`` was made by ``plan``."""

    def __init__(self, transport: Carrier, plan: Plan) -> None:
        self.transport = transport
        self.plan = plan
        self.reusable = False
        self.light = True  # whether it holds little memory of a job's
        self._slow = False  # whether emptying it takes long
        self.due = False  # whether its supervisor, after a job, has yet to say that it is ready
        self._left = False  # whether its supervisor leaves the job unasked
        self._unseen = 0  # bytes that a phase may hold for a moment unseen, since an earlier phase held as much
        self._jobs, self._owner = 0, -1
        self.closure: Sequence[str] = ()  # the entries of the store that its last job saw

    def serves(self, owner: int) -> bool:
        """Tell whether a job of ``owner`` may run here, after the jobs that ran here before."""
        return not self._jobs or self._owner == owner or not self.plan.settings.sandbox.replace_on_owner_change

    def fits(self, job: Job, part: Part) -> bool:
        """Tell whether it has, or can be given, the size that a part needs, and would see the job pass its limits."""
        if any(self._unseen > limits.memory + EXACT for limits in (job.compile, job.run) if limits is not None):
            return False
        if self.plan.resizable:
            return True
        return self.transport.size == self.plan.size_for_all(job, part.beside, halved=part.talks)

    def alive(self) -> bool:
        """Tell whether its supervisor waits for a job, or soon will."""
        stream = self.transport.stream
        if not self.due:
            return stream.silent()
        try:
            if stream.arrived(Again) is not None:
                self.due = False
        except (ClosedError, RunCancelledError):
            return False
        except BrokenError as error:  # it belongs to no job, so nobody else would tell of it
            log.bug("a supervisor failed between two jobs", error=error)
            return False
        return True

    def stop(self) -> None:
        """End all that runs in it."""
        self.transport.stop()

    def close(self) -> None:
        """Stop and remove it."""
        self.transport.close()

    def run(
        self,
        job: Job,
        on_phase: OnPhase,
        cancelled: threading.Event,
        names: list[str] | None = None,
        *,
        part: Part = WHOLE,
        on_output: OnOutput | None = None,
    ) -> JobResult:
        """Run ``part`` of ``job``. With cells the job sees only the entries ``names`` of the store; None: all of it.

        Afterwards the container is good for nothing but ``close``, unless it is ``reusable``. Raises
        :class:`RunCancelledError` as :meth:`Sandbox.run` does.
        """
        stream = self.transport.stream
        stream.cancelled = cancelled
        self.reusable = self.light = self._slow = False
        self._await_supervisor(stream)
        self._jobs, self._owner, self.closure = self._jobs + 1, job.owner, job.closure
        show = Show(limited=int(names is not None), store=[os.fsencode(name) for name in names or ()])
        shown = [wire.frame(show)] if self.plan.cells else []
        parts = chain(shown, parcel(job, part.before))
        result = self._phases(stream, job, on_phase, parts, part=part, on_output=on_output)
        worn = self._slow or self._jobs >= self.plan.settings.sandbox.replace_after
        if self.plan.recycled and not worn and _usual(result):
            self._release(stream)
        return result

    def _await_supervisor(self, stream: Stream) -> None:
        if self.due:
            try:
                stream.message(CLEANUP_TIMEOUT, Again)
            except ClosedError as error:
                raise UnusableError(f"the container did not get ready for another job: {error}") from error
            self.due = False

    def _release(self, stream: Stream) -> None:
        """Tell the supervisor to make room for another job. After the last phase it does that unasked.

        Do nothing after a cancel: it may be on its way to the supervisor, and would reach it in the next job.
        """
        if stream.cancelled.is_set():
            return
        try:
            stream.send([] if self._left else [wire.frame(End())], LOSS_TIMEOUT)
        except (ClosedError, RunCancelledError):
            return
        self.reusable = self.due = True

    def _phases(
        self,
        stream: Stream,
        job: Job,
        on_phase: OnPhase,
        parts: Iterable[bytes],
        *,
        part: Part = WHOLE,
        on_output: OnOutput | None = None,
    ) -> JobResult:
        beside, most = held(job) + part.beside, self.plan.most(job, part.beside)
        phases = {"compile": SKIPPED_PHASE, "run": SKIPPED_PHASE}
        notes: list[str] = []
        outputs: Returned | None = None
        for name, limits in (("compile", job.compile), ("run", None if part.after else job.run)):
            if limits is None:
                continue
            if self.plan.resizable:
                size = self.plan.size(limits, beside)
                self.transport.resize(replace(size, memory=min(size.memory, most), halved=part.talks))
            self._left = self.plan.recycled and name == "run"
            side = part.side if name == "run" else None
            said = order(self.plan.runtime, job, name, limits, last=self._left, talks=side is not None)
            if side:
                _meet(stream, parts, side)
                parts = []
            parts = chain(parts, [wire.frame(said)])
            unseen = self._unseen
            ran = self._phase(stream, parts, name, limits, side or Hearing(name, on_output, live=job.live))
            if side:
                side.ended(printed(ran.phase))
            self._unseen = ran.unseen
            if part.after and ran.phase.outcome is Outcome.OK:
                try:
                    ran = self._keep(stream, ran, part.after)
                except RunCancelledError:
                    on_phase(name, ran.phase)  # the phase ran all the same
                    raise
            phases[name] = ran.phase
            beside += ran.left
            notes += [*ran.notes, *_of_unseen(name, ran.phase, unseen)]
            self._slow = beside > HEAVY or ran.entries > MANY
            self.light = beside <= LIGHT
            on_phase(name, phases[name])
            if phases[name].outcome is Outcome.CANCELLED and not (side and side.stopped):
                raise RunCancelledError("cancelled")
            if name == "run" and job.outputs:
                contents = returned.room(job.scratch) if part.contents is None else part.contents
                if ran.lost:
                    outputs = returned.lost(job.outputs, name, contents)
                else:
                    outputs = returned.after(stream, job.outputs, name, contents, self.transport.lacked_memory)
                notes += outputs.notes
            if phases[name].outcome is not Outcome.OK:
                break
            parts = []
        return JobResult(compile=phases["compile"], run=phases["run"], notes=notes, outputs=outputs)

    def _keep(self, stream: Stream, ran: Ran, archive: Archive) -> Ran:
        """Take the work directory that a phase left. A phase whose directory cannot be kept has met a limit."""
        most = self.plan.settings.limits.kept
        deadline = time.monotonic() + MARGIN + KEEPING
        try:
            stream.send([wire.frame(Keep(most=most))], MARGIN)
            said = stream.message(deadline - time.monotonic(), Kept, Refused)
            if isinstance(said, Refused):
                phase = msgspec.structs.replace(ran.phase, outcome=Outcome.FILE_LIMIT)
                note = f"compile: the files that it left cannot be kept for the cases: {text(said.reason)}"
                return ran._replace(phase=phase, notes=[*ran.notes, note])
            assert isinstance(said, Kept)  # noqa: S101 - for mypy: nothing else was expected
            counts = (said.bytes, said.entries, said.pipes, said.sockets, said.devices, said.room)
            if min(counts) < 0 or max(said.bytes, said.room) > most:
                raise ClosedError("the supervisor sent garbage")
            for at in range(0, said.bytes, PIECE):
                archive.add(stream.take(min(PIECE, said.bytes - at), deadline))
            archive.room = said.room
        except ClosedError as error:
            raise TemporaryError(f"the sandbox was lost: {error}") from error
        return ran._replace(notes=[*ran.notes, *of_kept(said)])

    def _phase(
        self, stream: Stream, parts: Iterable[bytes], name: str, limits: PhaseLimits, hearing: Hearing | Side
    ) -> Ran:
        started = time.monotonic()
        try:
            try:
                stream.send(parts, MARGIN)
            except ClosedError:
                return _report(stream, name, limits, LOSS_TIMEOUT)  # it may have said why before it closed its end
            try:
                said = hearing.hear_end(stream, limits.time + MARGIN)
            except RunCancelledError:
                return _end_early(stream, name, limits, started, hearing)
            return _account(stream, name, said, limits, time.monotonic() + MARGIN)
        except ClosedError as error:
            if self.transport.lacked_memory():
                return Ran(killed_whole(limits, time.monotonic() - started), 0, 0, of_whole(name), lost=True)
            raise TemporaryError(f"the sandbox was lost: {error}") from error


def _meet(stream: Stream, parts: Iterable[bytes], side: Side) -> None:
    """Send the files of a side, then wait for the other one. A clock that runs there is not to count this."""
    with contextlib.suppress(ClosedError):  # whoever sends the order next finds out why
        stream.send(parts, MARGIN)
    side.meet(stream.cancelled)


def _of_unseen(name: str, phase: Phase, unseen: int) -> list[str]:
    """Return a note where a phase may have held more than was seen: its container held ``unseen`` bytes before."""
    if not isinstance(phase.memory, int) or unseen <= phase.memory + EXACT:
        return []
    note = (
        f"{name}.memory: peaks shorter than {LOOKS} ms may be missing, up to {unseen} bytes. An earlier job of "
        "its container took as much, and this kernel never resets the peak"
    )
    return [note]


def _usual(result: JobResult) -> bool:
    """Tell whether the container may serve another job. After a kill for want of memory it may not."""
    return Outcome.MEMORY_LIMIT not in (result.compile.outcome, result.run.outcome)


def _end_early(stream: Stream, name: str, limits: PhaseLimits, started: float, hearing: Hearing | Side) -> Ran:
    """End a phase as a limit would. Where the supervisor does not report it soon, its output is left out."""
    deadline = time.monotonic() + ENDING_TIMEOUT
    with stream.heedless():
        try:
            with contextlib.suppress(ClosedError):  # it may have reported the end before it closed its own
                stream.send([wire.frame(Cancel())], ENDING_TIMEOUT, regardless=True)
            said = hearing.hear_end(stream, deadline - time.monotonic())
            return _account(stream, name, said, limits, deadline)
        except ClosedError:  # the caller ends the container
            return Ran(cancelled_phase(time.monotonic() - started, "SIGKILL"), 0, 0, [])


def _report(stream: Stream, name: str, limits: PhaseLimits, patience: float) -> Ran:
    said = stream.message(patience, Done, Failed, Refused)
    return _account(stream, name, said, limits, time.monotonic() + MARGIN)


def _account(stream: Stream, name: str, said: Message, limits: PhaseLimits, deadline: float) -> Ran:
    """Return the record of a phase from the message ``said``; its output has to be there by the ``deadline``.

    The phase has ended, so a cancel comes too late for it.
    """
    if isinstance(said, Failed):
        raise unlimited(said)
    if isinstance(said, Refused):
        raise ClientError(f"files: they cannot be written to the work directory: {text(said.reason)}")
    assert isinstance(said, Done)  # noqa: S101 - for mypy: nothing else was expected
    if not is_possible(said, limits):
        raise ClosedError("the supervisor sent garbage")
    if not said.clean:
        raise ClosedError("a process of the job cannot be killed")
    with stream.heedless():
        stdout, stderr = stream.take(said.stdout, deadline), stream.take(said.stderr, deadline)
    phase = judge(said, stdout, stderr, limits)
    assert isinstance(phase.outcome, Outcome)  # noqa: S101 - for mypy: the phase ran
    notes = [*of_phase(name, said, phase.outcome, limits), *obstacles.told(said.obstacles)]
    return Ran(phase, said.left, said.entries, notes, said.unseen)
