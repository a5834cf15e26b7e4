"""Files of a job that come back after a phase: received from the supervisor, checked, and kept for the response.

Spec: spool-layout.md, "Returned files". The words that come may be the job's own (``inside/outputs.c``). So nothing is
taken that was not asked for, and a name is taken only if a request could have it. Contents come in pieces and are kept
in a ``Spill``.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Callable, Iterator

from spoold.host.spill import Spill
from spoold.model import outputs
from spoold.model.asked_paths import checked_path
from spoold.model.errors import ClientError, TemporaryError
from spoold.model.ids import Private
from spoold.model.outputs import Found, Returned, Wanted
from spoold.sandbox import messages
from spoold.sandbox.messages import Output, Outputs
from spoold.sandbox.stream import ClosedError, Stream

PATIENCE = 60.0  # seconds for all of it; see WAITING of ``inside/outputs.c``
LEAST_PACE = 1 << 20  # bytes a second; the transfer may be this slow
PIECE = 1 << 16
NOTHING = messages.Wanted(patterns=[], files=0, file_size=0, total=0)
FAILED = {
    b"memory": "no memory was left to read them",
    b"time": "reading them took too long",
}
ENDED = "reading them ended too early, perhaps since memory is short"


def order_of(wanted: Wanted | None) -> messages.Wanted:
    """Return what a supervisor is told of the files that come back."""
    if wanted is None:
        return NOTHING
    return messages.Wanted(
        patterns=[outputs.matched_as(output.path).encode() for output in wanted.outputs],
        files=wanted.files,
        file_size=wanted.file_size,
        total=wanted.total,
    )


def room(scratch: str) -> Spill:
    """Return the place for the contents of a job's files. Bytes that have no room in memory lie in ``scratch``."""
    return Spill(scratch, Private.SCRATCH)


def after(stream: Stream, wanted: Wanted, where: str, contents: Spill, lacked_memory: Callable[[], bool]) -> Returned:
    """Return what comes back after the phase ``where``; raises TemporaryError where the sandbox is lost.

    Where it ``lacked_memory``, that was the job's doing. Then nothing comes back, and nothing is raised.
    """
    try:
        return collect(stream, wanted, where, contents)
    except ClosedError as error:
        if not lacked_memory():
            raise TemporaryError(f"the sandbox was lost: {error}") from error
    return lost(wanted, where, contents)


def lost(wanted: Wanted, where: str, contents: Spill) -> Returned:
    """Return the result where the kernel ended the sandbox during or after a phase: no files, and a note."""
    why = f"{where}.outputs: they are lost, since memory ran out and the kernel ended the sandbox"
    return Returned([], contents, outputs.missing(wanted.outputs, 0), [why])


def collect(stream: Stream, wanted: Wanted, where: str, contents: Spill) -> Returned:
    """Take what comes back after the phase ``where``, and add it to ``contents``, which several phases may share.

    Raises what :meth:`Stream.message` raises, and OSError where the host has no room. In both cases nothing was added.
    """
    before = contents.size
    try:
        return _Collection(stream, wanted, where, contents).all()
    except BaseException:
        contents.cut(before)  # files that are not told count nowhere, so these bytes would have no bound
        raise


class _Collection:
    def __init__(self, stream: Stream, wanted: Wanted, where: str, contents: Spill) -> None:
        self._stream, self._wanted, self._where = stream, wanted, where
        self._contents = contents
        self._deadline = time.monotonic() + PATIENCE + wanted.total / LEAST_PACE
        self._found: dict[str, tuple[Found, int]] = {}  # by normalized name; each with the patterns that it matched
        self._directories: set[str] = set()  # those in which the files lie, normalized
        self._latest = ""
        self._taken = self._total = self._unfit = 0

    def all(self) -> Returned:
        """Take all files, and the message that ends them."""
        while isinstance(said := self._next(), Output):
            self._take(said)
        assert isinstance(said, Outputs)  # noqa: S101 - for mypy: nothing else was expected
        if not said.whole and (last := self._found.pop(self._latest, None)):
            self._contents.cut(last[0].at)
        found = sorted(self._found.values())
        matched = 0
        for _, patterns in found:
            matched |= patterns
        missing = outputs.missing(self._wanted.outputs, matched)
        return Returned([file for file, _ in found], self._contents, missing, self._notes(said))

    def _next(self) -> messages.Message:
        return self._stream.message(max(0.0, self._deadline - time.monotonic()), Output, Outputs)

    def _take(self, said: Output) -> None:
        wanted = self._wanted
        self._taken += 1
        self._total += max(0, said.size)
        if not 0 <= said.size <= wanted.file_size or self._total > wanted.total or self._taken > wanted.files:
            raise ClosedError("the supervisor sent garbage")
        name = _name(said.name)
        key = unicodedata.normalize("NFC", name).casefold()
        above = set(_above(key))
        is_fit = (
            bool(name) and key not in self._found and key not in self._directories and above.isdisjoint(self._found)
        )
        self._latest = key if is_fit else ""
        at, digest, left = self._contents.size, hashlib.sha256(), said.size
        while left:
            piece = self._stream.take(min(left, PIECE), self._deadline)
            left -= len(piece)
            if is_fit:
                digest.update(piece)
                self._contents.add(piece)
        if is_fit:
            self._found[key] = Found(name, said.size, digest.hexdigest(), said.mode & 0o777, at), said.matched
            self._directories |= above
        else:
            self._unfit += 1

    def _notes(self, said: Outputs) -> list[str]:
        most = self._wanted.together or self._wanted
        of_all = " of all cases" if self._wanted.together else ""
        counts = (
            (said.large, f"left out, larger than {most.file_size} bytes"),
            (said.many, f"left out, beyond {most.files} files{of_all}"),
            (said.total, f"left out, beyond {most.total} bytes {of_all.strip() or 'in all'}"),
            (said.odd, "left out, no regular file"),
            (said.names + self._unfit, "left out, a name that no request can have"),
            (said.closed, "left out, cannot be opened"),
            (said.deep, "directories that lie too deep were not looked into"),
        )
        notes = [f"{self._where}.outputs: {count} {what}" for count, what in counts if count > 0]
        if said.slow:
            notes.append(f"{self._where}.outputs: there was no time to look through all of the work directory")
        if said.failed:
            notes.append(f"{self._where}.outputs: {FAILED.get(said.failed, ENDED)}")
        return notes


def _above(name: str) -> Iterator[str]:
    """Yield the directories in which a file lies, from the highest on."""
    return (name[:at] for at, character in enumerate(name) if character == "/")


def _name(said: bytes) -> str:
    """Return a name, "" where no request could have it."""
    try:
        name = checked_path(said.decode(), "")
    except (UnicodeDecodeError, ClientError):
        return ""
    return "" if name.endswith("/") else name
