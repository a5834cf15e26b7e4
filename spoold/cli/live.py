"""Outputs of a program, exactly and as soon as they appear. Spec: spool-layout.md, "Output on the way".

A side file shows the end of each output, and the number of bytes before that end. So if a program prints faster than
its side file is read, some output is missed. ``run`` shows each byte once, and takes what it missed from the response
at the end. ``logs -f`` shows the newest output, and says how much it missed.
"""

from __future__ import annotations

import sys
from typing import BinaryIO, Protocol

import msgspec

from spoold.cli.text import printable
from spoold.client.request import encoded
from spoold.client.response import Phase, Response

# outcomes of a phase whose output is not shown, as it did not keep the program from running
NOTHING = ("", "ok", "skipped")


class Sink(Protocol):
    """A destination for outputs."""

    def write(self, phase: str, stream: str, data: bytes) -> None:
        """Write the new part of one output."""

    def note(self, text: str) -> None:
        """Report output that is missing."""


class Ours:
    """Our own standard output, for the standard output of runs, and our standard error, for all other output.

    With ``readable``, control characters appear as text on a terminal. Nothing from a stranger reaches it raw.
    """

    def __init__(self, *, readable: bool = False) -> None:
        self._readable = readable

    def write(self, phase: str, stream: str, data: bytes) -> None:
        """Write the data at once."""
        of_run = phase not in ("dependencies", "compile")
        to = sys.stdout if of_run and stream == "stdout" else sys.stderr
        self._write(to.buffer, data)

    def _write(self, to: BinaryIO, data: bytes) -> None:
        if self._readable and to.isatty():
            data = printable(data.decode(errors="backslashreplace"), lines=True).encode()
        to.write(data)
        to.flush()

    def note(self, text: str) -> None:
        """Write the text on a line of its own."""
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


class Lines:
    """JSON for programs: a line for each part of an output."""

    def write(self, phase: str, stream: str, data: bytes) -> None:
        """Write a line."""
        text, encoding = encoded(data)
        self._line({"phase": phase, "stream": stream, "text": text, "encoding": encoding})

    def note(self, text: str) -> None:
        """Write a line."""
        self._line({"note": text})

    @staticmethod
    def _line(what: dict[str, str]) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
        sys.stdout.buffer.flush()


class Streams:
    """Writes the new parts of the outputs of a submission.

    With ``whole``, each byte of a run is written once and in order. If some bytes are missed, everything from the first
    missed byte on is written at the end. The output of a phase before the run is written only if that phase failed.
    Without ``whole``, everything is written as soon as it is seen, and a note says how much was missed.
    """

    def __init__(self, sink: Sink, *, whole: bool) -> None:
        self._sink = sink
        self._whole = whole
        self._seen: dict[tuple[str, str], int] = {}  # bytes of each output that were written or skipped

    def take(self, response: Response, *, ended: bool) -> None:
        """Write the new output in a response, or in a response so far."""
        if ended and response.dependencies.outcome not in NOTHING:
            self._phase("dependencies", response.dependencies)
        if not self._whole or response.compile.outcome not in NOTHING:
            self._phase("compile", response.compile)
        if response.cases is None:
            self._phase("run", response.run)
        for case in (response.cases or ()) if ended else ():
            self._sink.note(f"case {case.name}: {case.verdict}")
            self._phase(f"case {case.name}", case.run)

    def _phase(self, name: str, phase: Phase) -> None:
        take = self._ended if phase.outcome else self._so_far
        take((name, "stdout"), phase.stdout_data, phase.stdout_bytes)
        take((name, "stderr"), phase.stderr_data, phase.stderr_bytes)

    def _so_far(self, key: tuple[str, str], data: bytes, total: int | None) -> None:
        """Write the new part of ``data``. It is the end of an output that has ``total`` bytes so far."""
        seen, end = self._seen.get(key, 0), len(data) if total is None else total
        start = end - len(data)
        if end <= seen or (start > seen and self._whole):
            return
        if start > seen:
            self._sink.note(f"... {start - seen} bytes of {' '.join(key)} before this are not shown")
        self._seen[key] = end
        self._sink.write(*key, data[max(0, seen - start) :])

    def _ended(self, key: tuple[str, str], data: bytes, total: int | None) -> None:
        """Write the rest of an output that has ended. ``data`` is its beginning, as far as that was kept."""
        seen, end = self._seen.get(key, 0), len(data) if total is None else total
        self._seen[key] = max(seen, end)
        if data[seen:]:
            self._sink.write(*key, data[seen:])
        if lost := max(0, end - max(seen, len(data))):
            self._sink.note(
                f"... {lost} bytes of {' '.join(key)} after this were not kept: --limit {key[1]}=SIZE keeps more"
            )
