"""What watches a build while it runs: how much it writes, and what is left of the disk.

Theory of operation: what a builder makes is closed to us, so a program beside the build looks at it, as root of the
namespace that builders are in (see :mod:`spoold.nix.measure`). A look at many files takes long, and the program rests
after each. So what is free on the disk is asked for at every turn, which costs nothing: where as much is gone as the
build may still write, the program is asked to look at once. Builders cannot take room on a disk without writing to it
byte by byte (:mod:`spoold.host.seccomp`), so what happens between two turns is little.

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
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from spoold.host import launch
from spoold.host.userns import UserNamespace
from spoold.model.errors import TemporaryError
from spoold.nix import measure

FLOOR = 256 * 1024**2  # bytes that have to be free while builds run, or a twentieth of what a small disk has
FLOOR_INODES = 2000  # inodes, likewise
SHARE = 20
PATIENCE = 10.0  # seconds for the program to end
SILENCE, HURRY = 300.0, 30.0  # seconds within which a look has to end: of its own, and when it is asked to hurry


class Looker:
    """The program beside one build, and what it said so far."""

    running: ClassVar[WeakSet[Looker]] = WeakSet()

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, size: int) -> None:
        self._process = process
        self._directory = directory
        self._size = size
        self._heard = b""
        self._asked_at = 0.0  # on the monotonic clock; 0: it was not asked to hurry
        self._heard_at = time.monotonic()
        self.used = 0  # bytes, at the last look
        self._free_then = self._free_at_first = self._free()

    def __call__(self) -> str:
        """Say why the build has to end, "" where it may go on.

        Raises :class:`TemporaryError` where it has to for a reason that is not its own.
        """
        said = self._listen()
        free = self._free()
        if said:
            return said
        if self._process.poll() is not None:
            raise TemporaryError("what a build writes cannot be measured: the program that does it has ended")
        now = time.monotonic()
        if not self._asked_at and self.used + max(0, self._free_then - free) > self._size:
            self._asked_at = now
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor(self._process.stdin), b"\n")
        # Others may have filled the disk meanwhile: so it is not said to be this build's fault.
        if now - self._heard_at > SILENCE or (self._asked_at and now - self._asked_at > HURRY):
            raise TemporaryError("what a build writes cannot be measured in time: it is too much, or too many files")
        return ""

    def _listen(self) -> str:
        """Take notice of what the program found since; return what it said of a limit."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._descriptor(self._process.stdout), 65536):
                self._heard += piece
        lines, _, self._heard = self._heard.rpartition(b"\n")
        if not lines:
            return ""
        self.used, said, missed = json.loads(lines.rpartition(b"\n")[2])
        if missed and self._free_at_first - self._free() - self.used > self._size:
            raise TemporaryError(
                "what a build writes cannot be measured: it renames its directories all the time, or removes them, and "
                f"the disk has lost more than {self._size} bytes meanwhile"
            )
        self._heard_at = time.monotonic()
        self._free_then, self._asked_at = self._free(), 0.0
        return str(said)

    def _free(self) -> int:
        """Return the bytes that are free on the disk; raises where that is too little for this build to go on."""
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        shares = [free / max(1, min(FLOOR, disk.f_blocks * disk.f_frsize // SHARE))]
        if disk.f_files:  # some file systems have no bound
            shares.append(disk.f_favail / max(1, min(FLOOR_INODES, disk.f_files // SHARE)))
        left = min(shares)
        if left < 1 / 2 or (left < 1 and self.used >= max(each.used for each in [self, *self.running])):
            raise TemporaryError(
                f"{self._directory}: the disk is nearly full ({free} bytes and {disk.f_favail} inodes are left), and "
                "no build goes on where it could meet its end: make room, or run spoolctl gc"
            )
        return free

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
            looker = Looker(process, places[0], size)
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
