"""The watch over a running build: how much it writes, and how much room is left on the disk.

Theory of operation: the daemon may not read the files of a builder. So a program beside the build looks at them, as
root of the namespace that builders are in (see :mod:`spoold.nix.look`). A look at many files takes long, and the
program rests after each look. The free room on the disk is asked for at every turn, which costs nothing. Where it has
shrunk by as much as the build may still write, the program is asked to look at once. Builders can take room on a disk
only by writing it byte by byte (:mod:`spoold.host.seccomp`), so little happens between two turns.

A build can hide files from looks, but it cannot hide its writing from the kernel, which counts the bytes. So all looks
together keep an account of the disk. The account is wrong when the disk has lost more room than one build may write,
and a new look at every build does not explain that. Then a build has to end whose processes wrote much more than was
found of it. If there is no such build, other programs of the host used the room.

A build that meets a full disk may make another output than usual, and still succeed. So builds are ended when less room
is left than a floor, whoever filled the disk. First the build that has written most has to end. Below half of the floor
all builds have to.
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

FLOOR = 256 * 1024**2  # bytes that have to be free while builds run, or a twentieth of the disk where that is less
FLOOR_INODES = 2000  # inodes that have to be free, likewise
SHARE = 20
LEAVING_TIME = 10.0  # seconds for the program to end, and for the room of an ended build to become free
EVIDENCE = 1 / 4  # of the room that the disk lost: a suspect wrote at least this share beyond what was found of it
SILENCE, HURRY = 300.0, 30.0  # seconds within which a look has to end: any look, and one that was asked for
_START = "import sys; sys.path.append(sys.argv[1]); from spoold.nix.look import main; main()"


class Disk(NamedTuple):
    """The free bytes and inodes of a disk. ``left`` is the scarcer of both, as a multiple of its floor."""

    free: int
    inodes: int
    left: float

    @classmethod
    def of(cls, directory: Path) -> Disk:
        """Return the free room of the disk that ``directory`` is on."""
        there = os.statvfs(directory)
        free = there.f_bavail * there.f_frsize
        shares = [free / max(1, min(FLOOR, there.f_blocks * there.f_frsize // SHARE))]
        if there.f_files:  # 0 where a file system has no bound on inodes
            shares.append(there.f_favail / max(1, min(FLOOR_INODES, there.f_files // SHARE)))
        return cls(free, there.f_favail, min(shares))


class Looker:
    """The program beside one build, and what it has found so far."""

    running: ClassVar[set[Looker]] = set()
    lock: ClassVar[threading.Lock] = threading.Lock()  # of ``running``, and of the account
    made_room_at: ClassVar[float] = -LEAVING_TIME  # on the monotonic clock: when a build was last ended to make room

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, size: int) -> None:
        self._process = process
        self._directory = directory
        self._size = size
        self._heard = b""
        self._asked_at = 0.0  # on the monotonic clock, as all times here. 0: the program was not asked to hurry
        self._doubts_since = 0.0  # 0: the account is right
        self._doubted = 0  # bytes that were free when the doubts began
        self._heard_at = self.answered_at = time.monotonic()
        self._free_then = Disk.of(directory).free
        self._most = 0  # the most bytes that were ever free or found by looks, together
        self.used = 0  # bytes, at the last look
        self.wrote = self.at_most = 0  # bytes, see hidden.Ledger

    def __call__(self) -> str:
        """Return why the build has to end, or "" where it may go on.

        Raises :class:`TemporaryError` where it has to end for a reason that may not be its own fault.
        """
        if said := self._listen():
            return said
        if self._process.poll() is not None:
            raise TemporaryError("a build cannot be measured: the program that measures it has ended")
        now = Disk.of(self._directory)
        if self.used + max(0, self._free_then - now.free) > self._size:
            self.ask()
        with self.lock:
            self._account(now)
            self._keep_room(now)
        # Other programs may have filled the disk meanwhile, so the build is not blamed.
        since = time.monotonic()
        if since - self._heard_at > SILENCE or (self._asked_at and since - self._asked_at > HURRY):
            raise TemporaryError("a build cannot be measured in time: it has too many files, or writes too much")
        return ""

    def ask(self) -> None:
        """Ask the program to look at once."""
        if not self._asked_at:
            self._asked_at = time.monotonic()
            with contextlib.suppress(OSError):  # it has ended
                os.write(self._descriptor(self._process.stdin), b"\n")

    def _listen(self) -> str:
        """Read what the program has found since. Return its words about a limit that is passed, or ""."""
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
        """End the build where the disk has lost room that no look explains, and this build most likely has it."""
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
            # Judged by the free room before these looks: bytes that were written since they began are no evidence.
            self._judge(self._most - max(now.free, self._doubted) - found, now.free + found)

    def _judge(self, lost: int, known: int) -> None:
        if lost <= self._size:
            return
        suspects = [each for each in self.running if each.at_most - each.used > lost * EVIDENCE]
        if not suspects:
            self._most = known
        elif self is max(suspects, key=lambda each: each.wrote):
            self._end(
                f"a build cannot be measured: the disk has lost {lost} bytes that were found in no build, and "
                "this build has written most of what was not found"
            )

    def _keep_room(self, now: Disk) -> None:
        """End the build where too little room is free on the disk for it to go on."""
        largest = max(self.running, key=lambda each: max(each.used, each.at_most), default=self)
        waits = time.monotonic() - Looker.made_room_at < LEAVING_TIME  # for the room of a build that was ended
        if now.left < 1 / 2 or (now.left < 1 and self is largest and not waits):
            self._end(
                f"{self._directory}: the disk is nearly full ({now.free} bytes and {now.inodes} inodes are left), so "
                "builds are ended before it is full: make room, or run spoolctl gc"
            )

    def _end(self, reason: str) -> NoReturn:
        Looker.made_room_at = time.monotonic()
        for each in self.running:
            each._most = 0  # a new account begins, however much room comes back
        raise TemporaryError(reason)

    def begin(self) -> None:
        """Take part in the account."""
        with self.lock:
            self.running.add(self)

    def end(self) -> None:
        """Leave the account. The files of this build may stay, as its output, so no account expects their room back."""
        with self.lock:
            self.running.discard(self)
            for each in self.running:
                each._most -= self.used

    def _descriptor(self, pipe: object) -> int:
        return pipe.fileno()  # type: ignore[attr-defined, no-any-return] # Popen was asked to make it


@contextlib.contextmanager
def looking(
    places: Sequence[Path], *, size: int, files: int, uid: int, namespace: UserNamespace | None
) -> Iterator[Looker]:
    """Watch a build that writes to ``places``. The first of these is on the disk that the build fills.

    The build may take ``size`` bytes and ``files`` files there. Nameless files that processes of ``uid`` have open
    count too. ``uid`` is -1 for a build whose processes cannot be told from others.
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
        assert process.stdin is not None  # noqa: S101 - for mypy: Popen was asked to make both pipes
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
    """End the program. It would end at the end of its input by itself, but only after its current look."""
    assert process.stdin is not None  # noqa: S101 - for mypy
    process.stdin.close()
    process.kill()
    process.wait()
