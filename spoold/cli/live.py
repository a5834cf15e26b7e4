"""What a program prints, to the byte and as soon as it is told: spool-layout.md, "Output on the way".

A side file shows the end of each output, and how many bytes there were before it. So where a program prints faster than
its side file is read, some of it is missed. Whoever wants each byte once (``run``) gets the rest from the response at
the end. Whoever wants to see what is new (``logs -f``) is told how much was missed.
"""

from __future__ import annotations

import sys
from typing import BinaryIO

from spoold.cli.text import printable
from spoold.client.response import Phase, Response

SKIPPED = ("", "skipped")  # outcomes of a phase that runs, or was not run


class Streams:
    """Writes what is new of a submission's outputs: those of the run to the same of ours, of what is before to stderr.

    With ``whole`` each byte is written once, in its place, and what is missed comes at the end. Without it a note is.
    A terminal gets what is ``readable`` only, where that is set: then no bytes of a stranger's reach it.
    """

    def __init__(self, *, whole: bool, readable: bool = False) -> None:
        self._whole = whole
        self._readable = readable
        self._seen: dict[tuple[str, str], int] = {}  # bytes of each output

    def take(self, response: Response, *, ended: bool) -> None:
        """Write what is new in a response, or in a response so far."""
        if ended and response.dependencies.outcome not in ("ok", *SKIPPED):
            self._phase("dependencies", response.dependencies, ended=True)
        self._phase("compile", response.compile, ended=ended)
        if response.cases is None:
            self._phase("run", response.run, ended=ended)
        for case in response.cases or ():
            if ended:
                self._phase(f"case {case.name}", case.run, ended=True)
        sys.stdout.flush()
        sys.stderr.flush()

    def _phase(self, name: str, phase: Phase, *, ended: bool) -> None:
        if name == "compile" and self._whole and (not ended or phase.outcome in ("ok", *SKIPPED)):
            return  # as with a compiler here, there is nothing to see of it where it went well
        of_run = name not in ("dependencies", "compile")
        for stream, data, total in (
            ("stdout", phase.stdout_data, phase.stdout_bytes),
            ("stderr", phase.stderr_data, phase.stderr_bytes),
        ):
            to = sys.stdout if of_run and stream == "stdout" else sys.stderr
            end = len(data) if total is None else total
            if phase.outcome:
                self._ended(to.buffer, (name, stream), data, end)
            else:
                self._so_far(to.buffer, (name, stream), data, end)

    def _so_far(self, to: BinaryIO, key: tuple[str, str], data: bytes, end: int) -> None:
        """Write what is new of ``data``, the last bytes of an output that has come to ``end`` bytes."""
        seen, start = self._seen.get(key, 0), end - len(data)
        if end <= seen or (start > seen and self._whole):
            return
        if start > seen:
            self._say(f"... {start - seen} bytes of {key[0]} {key[1]} before this were not shown")
        self._seen[key] = end
        self._write(to, data[max(0, seen - start) :])

    def _ended(self, to: BinaryIO, key: tuple[str, str], data: bytes, end: int) -> None:
        """Write the rest of an output, of which ``data`` is the beginning, as far as it was kept."""
        seen = self._seen.get(key, 0)
        self._seen[key] = end
        self._write(to, data[seen:])
        if end > max(seen, len(data)):
            lost = end - max(seen, len(data))
            self._say(
                f"... {lost} bytes of {key[0]} {key[1]} after this were not kept: --limit {key[1]}=SIZE keeps more"
            )

    def _write(self, to: BinaryIO, data: bytes) -> None:
        if self._readable and to.isatty():
            data = printable(data.decode(errors="backslashreplace"), lines=True).encode()
        to.write(data)
        to.flush()

    def _say(self, text: str) -> None:
        sys.stdout.flush()
        sys.stderr.write(f"{printable(text)}\n")
