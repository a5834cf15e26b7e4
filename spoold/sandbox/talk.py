"""A talk: a program and an interactor run at the same time, and each reads what the other prints.

Theory of operation. The two are in containers of their own, and nothing joins these. The executor passes on what they
say, in both directions, from one supervisor to the other (see ``inside/talk.c``). Each side has a thread, which hears
its own supervisor and sends to both. Neither side may be further ahead than ``WINDOW`` bytes of what the other has
taken, so the executor keeps no more than that. Only the rest of what a program that has ended printed may be more: what
its limits keep of its output.

The two begin together: both take a container and get their files, then the interactor begins, then the program. So no
clock of either runs while a container is made, or while the files of the other are written, however many these are. All
that a side says after the other has ended is dropped. So an interactor neither waits for a program that has ended, nor
is stopped by its end, and its exit code says what it found.

Once the interactor has ended, the program reads the end of its input. Where the interactor found it wrong, the program
is ended a moment later, since nothing that it does matters any more. A program that closed its output before may go on:
how it ends still matters, because the interactor may have found no more than that the output ended.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection

from spoold.model.errors import SpooldError
from spoold.model.interaction import Transcript
from spoold.sandbox import RunCancelledError, wire
from spoold.sandbox.facts import WINDOW
from spoold.sandbox.messages import Begun, Cancel, Done, Failed, Hear, Message, Over, Passed, Refused, Said, Took
from spoold.sandbox.stream import ClosedError, Stream

ATTENTION = 0.2  # seconds between looks at what the other side's thread has set
GRACE = 0.5  # seconds that a program may run on after an interactor has found it wrong
PATIENCE = 60.0  # seconds for a supervisor to take what is passed on; while its phase runs it takes it at once


class LonelyError(SpooldError):
    """The other side of the talk cannot take part. Its own thread says why."""


class Talk:
    """The talk of one case. ``well`` are the exit codes by which the interactor says that the program may be right."""

    def __init__(self, well: Collection[int]) -> None:
        self.lock = threading.Lock()
        self.transcript = Transcript()
        self.well = well
        self.first: Side | None = None  # the side that was the first to say nothing more
        self.given_up = False
        self.program, self.interactor = Side(self), Side(self)
        self.program.peer, self.interactor.peer = self.interactor, self.program

    def give_up(self) -> None:
        """End the talk, since one side cannot take part."""
        self.given_up = True


class Side:
    """One side of a talk. All but ``hear_end`` may be called by the other side's thread, under the talk's lock."""

    peer: Side

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._stream: Stream | None = None  # to its supervisor, while its program runs
        self._said = self._passed = 0  # bytes that it said, and of these, that its peer has taken
        self._given = self._taken = 0  # bytes that it was given of what its peer said, and that it has taken
        self._rest = bytearray()  # what it said and its peer was not given yet
        self._silent = self._told = False  # it says nothing more; and its peer was told so
        self._is_wrong = False  # the interactor has found so, and has ended
        self._stop_at = float("inf")
        self.here = threading.Event()  # it has a container with its files
        self.begun = threading.Event()  # its program runs, or has run
        self.over = False  # its program has ended
        self.stopped = False  # its program was ended, since nothing that it does matters any more

    # -- the beginning

    def meet(self, cancelled: threading.Event) -> None:
        """Wait until both sides have their files. The program's side waits until the interactor runs."""
        self.here.set()
        awaited = self.peer.here if self is self._talk.interactor else self.peer.begun
        while not awaited.wait(ATTENTION):
            if cancelled.is_set():
                raise RunCancelledError("cancelled")
            self._require_peer()

    def _require_peer(self) -> None:
        if self._talk.given_up:
            raise LonelyError("the other side of the talk cannot take part")

    # -- what its own supervisor tells

    def hear_end(self, of: Stream, patience: float) -> Message:
        """Pass on what is said until the program has ended; return the account, as ``Hearing.hear_end`` does."""
        deadline = time.monotonic() + patience
        while True:
            left = deadline - time.monotonic()
            if of.is_due(max(0.0, min(left, ATTENTION))) or left <= 0:
                said = of.message(left, Done, Failed, Refused, Begun, Said, Took)
                if isinstance(said, (Done, Failed, Refused)):
                    self._end(of, said)
                    return said
                self._take(of, said)
            self._require_peer()
            self._stop_where_due(of)

    def _stop_where_due(self, of: Stream) -> None:
        """End the program some time after the interactor found it wrong, counted from when it began at the earliest."""
        if not self._is_wrong or self.stopped or not self.begun.is_set() or self._talk.first is self:
            return
        self._stop_at = min(self._stop_at, time.monotonic() + GRACE)
        if time.monotonic() >= self._stop_at:
            self.stopped = True
            of.send([wire.frame(Cancel())], PATIENCE, regardless=True)

    def _take(self, of: Stream, said: Message) -> None:
        with self._talk.lock:
            if isinstance(said, Begun) and not self.begun.is_set():
                self._stream = of
                self.begun.set()
                self.peer._pass_on()
            elif isinstance(said, Said) and self.begun.is_set() and not self._silent:
                if self._said + len(said.data) - self._passed > WINDOW:
                    raise ClosedError("the supervisor is further ahead than it may be")
                self._say(said.data)
            elif isinstance(said, Took) and 0 <= said.size <= self._given - self._taken:
                self._taken += said.size
                self.peer._note_passed(said.size)
                self.peer._pass_on()
            else:
                raise ClosedError("the supervisor sent garbage")

    def _end(self, of: Stream, said: Message) -> None:
        with self._talk.lock:
            if isinstance(said, Done):
                self._stream = of
                self._send(Over())
            self._stream = None
            if self is self._talk.interactor and not (isinstance(said, Done) and _code(said) in self._talk.well):
                self.peer._is_wrong = True
            self._talk.first = self._talk.first or self

    def ended(self, stdout: bytes) -> None:
        """Note that the program has ended, and printed ``stdout`` in all. May be called again."""
        with self._talk.lock:
            if self.over:
                return
            self.over = True
            self.begun.set()
            self._stream = None
            self._say(stdout[self._said :])
            if not self._silent:
                self._say(b"")
            self.peer._note_passed(self._given - self._taken)
            self._taken = self._given
            self.peer._pass_on()

    # -- from one side to the other

    def _say(self, data: bytes) -> None:
        self._said += len(data)
        self._rest += data
        self._talk.transcript.add(data, of_program=self is self._talk.program)
        if not data:
            self._silent = True
            self._talk.first = self._talk.first or self
        self._pass_on()

    def _pass_on(self) -> None:
        """Give the other side what it may be given. Bytes that it will never read are dropped."""
        peer = self.peer
        if peer.over:
            dropped = len(self._rest)
            self._rest.clear()
            self._note_passed(dropped)
            return
        if peer._stream is None:
            return
        piece = bytes(self._rest[: WINDOW - (peer._given - peer._taken)])
        if piece:
            del self._rest[: len(piece)]
            peer._given += len(piece)
            peer._send(Hear(data=piece))
        if self._silent and not self._rest and not self._told:
            self._told = True
            peer._send(Hear(data=b""))

    def _note_passed(self, size: int) -> None:
        self._passed += size
        if size:
            self._send(Passed(size=size))

    def _send(self, message: Message) -> None:
        if self._stream is None:
            return
        try:
            self._stream.pass_on(wire.frame(message), PATIENCE)
        except ClosedError:  # its own thread finds that out
            self._stream = None


def _code(done: Done) -> int:
    """Return the exit code of a program, -1 where it has none."""
    return os.WEXITSTATUS(done.status) if done.status >= 0 and os.WIFEXITED(done.status) else -1
