"""What watches a build while it runs: how much it writes, and what is left of the disk.

Theory of operation: what a builder makes is closed to us, so a program beside the build looks at it, as root of the
namespace that builders are in (see :mod:`spoold.nix.measure`). A look at many files takes long, and the program rests
after each. So what is free on the disk is asked for at every turn, which costs nothing: where as much is gone as the
build may still write, the program is asked to look at once. Where more is gone than all looks explain, be it others'
doing, it is asked for an exact look. Builders cannot take room on a disk without writing to it byte by byte
(:mod:`spoold.host.seccomp`), so what happens between two turns is little.

A build that meets a full disk may come to another output than one that does not, and succeed. So no build goes on where
less is left than a floor, whoever filled the disk: first the one that has written most has to end, and below half of
the floor all have to. The nearer the floor, the less has to be gone for an exact look: so the one that has written most
is known by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple
from weakref import WeakSet

from spoold.host import launch
from spoold.host.userns import UserNamespace
from spoold.model.errors import TemporaryError
from spoold.nix import measure

FLOOR = 256 * 1024**2  # bytes that have to be free while builds run, or a twentieth of what a small disk has
FLOOR_INODES = 2000  # inodes, likewise
SHARE = 20
PATIENCE = 10.0  # seconds for the program to end
SILENCE, HURRY = 300.0, 30.0  # seconds within which a look has to end: of its own, and one that was asked for


class Disk(NamedTuple):
    """What is free on a disk, and what has to be: pairs of bytes and inodes."""

    free: tuple[int, int]
    floor: tuple[int, int]

    @classmethod
    def of(cls, directory: Path) -> Disk:
        """Ask for that of ``directory``."""
        there = os.statvfs(directory)
        size = there.f_blocks * there.f_frsize
        inodes = there.f_favail if there.f_files else sys.maxsize  # some file systems have no bound
        floor = (max(1, min(FLOOR, size // SHARE)), max(1, min(FLOOR_INODES, there.f_files // SHARE)))
        return cls((there.f_bavail * there.f_frsize, inodes), floor)

    @property
    def left(self) -> float:
        """Return what is free as a multiple of the floor."""
        return min(free / floor for free, floor in zip(self.free, self.floor, strict=True))

    def has_lost(self, now: Disk, known: int, most: tuple[int, int]) -> bool:
        """Tell whether more than ``most`` is gone since, beside ``known`` bytes, or half of what is above the floor."""
        gone = (self.free[0] - now.free[0] - known, self.free[1] - now.free[1])
        return any(
            lost > min(bound, max(floor, free - floor) // 2)
            for lost, bound, free, floor in zip(gone, most, now.free, now.floor, strict=True)
        )


class Looker:
    """The program beside one build, and what it said so far."""

    running: ClassVar[WeakSet[Looker]] = WeakSet()

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, size: int, files: int) -> None:
        self._process = process
        self._directory = directory
        self._size = size
        self._files = files
        self._heard = b""
        self._asked: dict[bytes, float] = {}  # what the program was asked for, and when on the monotonic clock
        self._heard_at = time.monotonic()
        self._at_first = self._then = Disk.of(directory)
        self._exact = self._at_first  # at the last exact look
        self.used = self._used_then = 0  # bytes, at the last look, and at the last exact one
        self.hidden = 0  # bytes that it may have beside them

    def __call__(self) -> str:
        """Say why the build has to end, "" where it may go on.

        Raises :class:`TemporaryError` where it has to for a reason that is not its own.
        """
        if said := self._listen():
            return said
        if self._process.poll() is not None:
            raise TemporaryError("what a build writes cannot be measured: the program that does it has ended")
        now = Disk.of(self._directory)
        if self.used + max(0, self._then.free[0] - now.free[0]) > self._size:
            self._ask(measure.HURRY)
        if self._exact.has_lost(now, self.used - self._used_then, (self._size, self._files)):
            self._ask(measure.EXACT)
        self._check(now)
        # Others may have filled the disk meanwhile: so it is not said to be this build's fault.
        if time.monotonic() - self._heard_at > SILENCE or self._waits_for_long():
            raise TemporaryError("what a build writes cannot be measured in time: it is too much, or too many files")
        return ""

    @property
    def searches(self) -> bool:
        """Tell whether an exact look goes on."""
        return measure.EXACT in self._asked

    def _ask(self, what: bytes) -> None:
        if what not in self._asked:
            self._asked[what] = time.monotonic()
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor(self._process.stdin), what)

    def _waits_for_long(self) -> bool:
        return any(time.monotonic() - since > HURRY for since in self._asked.values())

    def _listen(self) -> str:
        """Take notice of what the program found since; return what it said of a limit."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._descriptor(self._process.stdout), 65536):
                self._heard += piece
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            if said := self._heed(*json.loads(line)):
                return said
        return ""

    def _heed(self, used: int, said: str, missed: int, exact: bool) -> str:
        now = Disk.of(self._directory)
        unseen = self._at_first.free[0] - now.free[0] - used if missed else 0
        if unseen > self._size:
            raise TemporaryError(
                "what a build writes cannot be measured: it moves its directories or removes them all the time, or has "
                f"files on their way through sockets, and the disk has lost more than {self._size} bytes meanwhile"
            )
        self.used, self._then = used, now
        self._heard_at = time.monotonic()
        self._asked.pop(measure.HURRY, None)
        if exact:
            self._asked.pop(measure.EXACT, None)
            self._exact, self._used_then, self.hidden = now, used, max(0, unseen)
        return said

    def _check(self, now: Disk) -> None:
        """Raise where too little is free on the disk for this build to go on."""
        if now.left < 1 / 2 or (now.left < 1 and self._is_largest()):
            raise TemporaryError(
                f"{self._directory}: the disk is nearly full ({now.free[0]} bytes and {now.free[1]} inodes are left), "
                "and no build goes on where it could meet its end: make room, or run spoolctl gc"
            )

    def _is_largest(self) -> bool:
        """Tell whether this is the build that has written most; not while it is still being found out."""
        every = [self, *self.running]
        largest = max(each.used + each.hidden for each in every)
        return not any(each.searches for each in every) and self.used + self.hidden >= largest

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
    program = [sys.executable, "-I", "-S", measure.__file__]
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
            looker = Looker(process, places[0], size, files)
            Looker.running.add(looker)
            try:
                yield looker
            finally:
                Looker.running.discard(looker)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program: at the end of its input it does so itself, once it has looked to the end."""
    assert process.stdin is not None  # noqa: S101 - for mypy
    process.stdin.close()
    process.kill()
    process.wait(PATIENCE)
