"""Show what a submission prints while it runs, from its side file. Spec: spool-layout.md, "Output on the way"."""

from __future__ import annotations

from collections.abc import Callable

from spoold.cli.text import printable
from spoold.client.errors import AnswerError
from spoold.client.response import Phase, read
from spoold.client.transport import Transport


class Follower:
    """Says the new output of one submission each time that ``look`` is called."""

    def __init__(self, transport: Transport, id_: str, say: Callable[[str], object]) -> None:
        self._transport = transport
        self._id = id_
        self._say = say
        self._seen: dict[tuple[str, str], int] = {}  # bytes of each phase and stream that were said or missed

    def look(self) -> None:
        """Say the output since the last look. Output that was missed in between is counted."""
        try:
            data, _ = self._transport.look(self._id)
            response = None if data is None else read(data)
        except AnswerError:  # the final response has everything; another version may write what we cannot read
            return
        if response is None:
            return
        for name, phase in (("compile", response.compile), ("run", response.run)):
            if not phase.outcome:
                for stream in ("stdout", "stderr"):
                    self._follow(name, stream, phase)

    def _follow(self, name: str, stream: str, phase: Phase) -> None:
        end = phase.stdout_bytes if stream == "stdout" else phase.stderr_bytes
        seen = self._seen.get((name, stream), 0)
        if end is None or end <= seen:
            return
        self._seen[name, stream] = end
        data = phase.stdout_data if stream == "stdout" else phase.stderr_data
        start = max(0, end - len(data))
        if start > seen:
            self._say(f"\n... {start - seen} bytes of {name} {stream} ...\n")
        self._say(printable(data[max(0, seen - start) :].decode(errors="backslashreplace"), lines=True))
