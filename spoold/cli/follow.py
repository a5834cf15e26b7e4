"""Following what a submission prints while it runs, by its side file: spool-layout.md, "Output on the way"."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

from spoold.cli.reading import read_own
from spoold.cli.text import printable
from spoold.model import ids
from spoold.model.errors import ClientError
from spoold.model.response import Outcome, Phase


class Follower:
    """Says what is new of one submission's output, each time that ``look`` is called."""

    def __init__(self, spool: str, id_: str, say: Callable[[str], object]) -> None:
        self._path = os.path.join(spool, "progress", ids.done_name(id_))
        self._say = say
        self._seen: dict[tuple[str, str], int] = {}  # bytes of each phase and stream

    def look(self) -> None:
        """Say what was printed since the last look; what was missed in between is counted."""
        try:
            response = read_own(self._path)
        except ClientError:  # the response tells all; another version may write what we cannot read
            return
        if response is None:
            return
        for name, phase in (("compile", response.compile), ("run", response.run)):
            if not isinstance(phase.outcome, Outcome):
                for stream in ("stdout", "stderr"):
                    self._follow(name, stream, phase)

    def _follow(self, name: str, stream: str, phase: Phase) -> None:
        text, end = getattr(phase, stream), getattr(phase, f"{stream}_bytes")
        seen = self._seen.get((name, stream), 0)
        if not isinstance(end, int) or end <= seen:
            return
        self._seen[name, stream] = end
        is_base64 = getattr(phase, f"{stream}_encoding") == "base64"
        data = base64.b64decode(text) if is_base64 else text.encode()
        start = max(0, end - len(data))
        if start > seen:
            self._say(f"\n... {start - seen} bytes of {name} {stream} ...\n")
        self._say(printable(data[max(0, seen - start) :].decode(errors="backslashreplace"), lines=True))
