"""What watches a build while it runs: how much it writes, and what is left of the disk.

Theory of operation: what a builder makes is closed to us, so a program beside the build looks at it, as root of the
namespace that builders are in (see :mod:`spoold.nix.look`). A look at many files takes long, and the program rests
after each. So what is free on the disk is asked for at every turn, which costs nothing: where as much is gone as the
build may still write, the program is asked to look at once. Builders cannot take room on a disk without writing to it
byte by byte (:mod:`spoold.host.seccomp`), so what happens between two turns is little.

A build can hide from looks, not what it writes from the kernel's count of that. So all looks together are an account of
the disk. Where it has lost more than a build may write, and a look at each of them does not explain it, the build has
to end whose processes have written so much more than was found of it. Where there is none, it was others.

A build that meets a full disk may come to another output than one that does not, and succeed. So no build goes on where
less is left than a floor, whoever filled the disk: first the one that has written most has to end, and below half of
the floor all have to.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn

from spoold.host import launch
from spoold.host.userns import UserNamespace
from spoold.model.errors import TemporaryError

FLOOR = 256 * 1024**2  # bytes that have to be free while builds run, or a twentieth of what a small disk has
FLOOR_INODES = 2000  # inodes, likewise
SHARE = 20
LEAVING_TIME = 10.0  # seconds for the room that a build leaves to be free
EVIDENCE = 1 / 4  # the share of what the disk has lost that a build has to have written beside what was found
SILENCE, HURRY = 300.0, 30.0  # seconds within which a look has to end: of its own, and one that was asked for
_START = "import sys; sys.path.append(sys.argv[1]); from spoold.nix.look import main; main()"


class Disk(NamedTuple):
    """What is free on a disk: bytes, inodes, and both as a multiple of the floor."""

    free: int
    inodes: int
    left: float

    @classmethod
    def of(cls, directory: Path) -> Disk:
        """Ask for that of ``directory``."""
        there = os.statvfs(directory)
        free = there.f_bavail * there.f_frsize
        shares = [free / max(1, min(FLOOR, there.f_blocks * there.f_frsize // SHARE))]
        if there.f_files:  # some file systems have no bound
            shares.append(there.f_favail / max(1, min(FLOOR_INODES, there.f_files // SHARE)))
        return cls(free, there.f_favail, min(shares))


class Looker:
    """The program beside one build, and what it said so far."""

    running: ClassVar[set[Looker]] = set()
    lock: ClassVar[threading.Lock] = threading.Lock()  # of that, and of the account
    made_room_at: ClassVar[float] = -LEAVING_TIME  # on the monotonic clock: when a build was last ended for the others

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, size: int) -> None:
        self._process = process
        self._directory = directory
        self._size = size
        self._heard = b""
        self._asked_at = 0.0  # on the monotonic clock, as all of these; 0: it was not asked to hurry
        self._doubts_since = 0.0  # 0: the account is right
        self._doubted = 0  # bytes that were free then
        self._heard_at = self.answered_at = time.monotonic()
        self._free_then = Disk.of(directory).free
        self._most = 0  # bytes that were free and that looks knew of, together, at the best time
        self.used = 0  # bytes, at the last look
        self.wrote = self.at_most = 0  # bytes, see hidden.Ledger

    def __call__(self) -> str:
        """Say why the build has to end, "" where it may go on.

        Raises :class:`TemporaryError` where it has to for a reason that may not be its own.
        """
        if said := self._listen():
            return said
        if self._process.poll() is not None:
            raise TemporaryError("what a build writes cannot be measured: the program that does it has ended")
        now = Disk.of(self._directory)
        if self.used + max(0, self._free_then - now.free) > self._size:
            self.ask()
        with self.lock:
            self._account(now)
            self._keep_room(now)
        # Others may have filled the disk meanwhile: so it is not said to be this build's fault.
        since = time.monotonic()
        if since - self._heard_at > SILENCE or (self._asked_at and since - self._asked_at > HURRY):
            raise TemporaryError("what a build writes cannot be measured in time: it is too much, or too many files")
        return ""

    def ask(self) -> None:
        """Have the program look at once."""
        if not self._asked_at:
            self._asked_at = time.monotonic()
            with contextlib.suppress(OSError):  # it has ended
                os.write(self._descriptor(self._process.stdin), b"\n")

    def _listen(self) -> str:
        """Take notice of what the program found since; return what it said of a limit."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._descriptor(self._process.stdout), 65536):
                self._heard += piece
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self.used, said, self.wrote, self.at_most, was_asked = json.loads(line)
            self._heard_at = time.monotonic()
            self._free_then = Disk.of(self._directory).free
            if was_asked:
                self._asked_at, self.answered_at = 0.0, self._heard_at
            if said:
                return str(said)
        return ""

    def _account(self, now: Disk) -> None:
        """End the build where the disk has lost what no look explains, and this one is most likely to have it."""
        found = sum(each.used for each in self.running)
        self._most = max(self._most, now.free + found)
        if self._most - now.free - found <= self._size:
            self._doubts_since = 0.0
        elif not self._doubts_since:
            self._doubts_since, self._doubted = time.monotonic(), now.free
            for each in self.running:
                each.ask()
        elif all(each.answered_at >= self._doubts_since for each in self.running):
            self._doubts_since = 0.0
            # By what was free before these looks: what was written since they began is no evidence.
            self._judge(self._most - max(now.free, self._doubted) - found, now.free + found)

    def _judge(self, lost: int, known: int) -> None:
        if lost <= self._size:
            return
        suspects = [each for each in self.running if each.at_most - each.used > lost * EVIDENCE]
        if not suspects:
            self._most = known
        elif self is max(suspects, key=lambda each: each.wrote):
            self._end(
                f"what a build writes cannot be measured: the disk has lost {lost} bytes that no look at any build "
                "explains, and this one has written most beside what was found of it"
            )

    def _keep_room(self, now: Disk) -> None:
        """End the build where too little is free on the disk for it to go on."""
        largest = max(self.running, key=lambda each: max(each.used, each.at_most), default=self)
        waits = time.monotonic() - Looker.made_room_at < LEAVING_TIME  # for the room that one has left
        if now.left < 1 / 2 or (now.left < 1 and self is largest and not waits):
            self._end(
                f"{self._directory}: the disk is nearly full ({now.free} bytes and {now.inodes} inodes are left), and "
                "no build goes on where it could meet its end: make room, or run spoolctl gc"
            )

    def _end(self, reason: str) -> NoReturn:
        Looker.made_room_at = time.monotonic()
        for each in self.running:
            each._most = 0  # a new account, whatever room comes back
        raise TemporaryError(reason)

    def begin(self) -> None:
        """Take part in the account."""
        with self.lock:
            self.running.add(self)

    def end(self) -> None:
        """Leave it: what was found of the build may stay, as its output, and nobody is to look for it."""
        with self.lock:
            self.running.discard(self)
            for each in self.running:
                each._most -= self.used

    def _descriptor(self, pipe: object) -> int:
        return pipe.fileno()  # type: ignore[attr-defined, no-any-return] # of Popen, which was asked for it


@contextlib.contextmanager
def looking(
    places: Sequence[Path], *, size: int, files: int, uid: int, namespace: UserNamespace | None
) -> Iterator[Looker]:
    """Watch a build that writes to ``places``, the first of which is on its disk.

    It may take ``size`` bytes and ``files`` files there, and in files without a name that processes of ``uid`` have; -1
    is for one whose processes cannot be told from others.
    """
    program = [sys.executable, "-I", "-S", "-B", "-c", _START, str(Path(__file__).parents[2])]
    command = launch.command(
        program,
        launch.Rlimits(),
        env={},
        pid_namespace=False,
        entering=namespace.entering if namespace else None,
    )
    disk = os.stat(places[0]).st_dev
    order = {"places": [str(place) for place in places], "size": size, "files": files, "uid": uid, "disk": disk}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env={}, cwd="/") as process:
        assert process.stdin is not None  # noqa: S101 - for mypy: it was asked for, as was the other
        assert process.stdout is not None  # noqa: S101
        os.set_blocking(process.stdout.fileno(), False)
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(process.stdin.fileno(), json.dumps(order).encode() + b"\n")
            looker = Looker(process, places[0], size)
            looker.begin()
            try:
                yield looker
            finally:
                looker.end()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program: at the end of its input it does so itself, once it has looked to the end."""
    assert process.stdin is not None  # noqa: S101 - for mypy
    process.stdin.close()
    process.kill()
    process.wait()
