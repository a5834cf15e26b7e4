"""Output on the way: what a supervisor reports of a phase before it reports the end.

Where an order asks for it, the supervisor reports what a phase has come to so far, see ``inside/live.c``. The processes
beside the supervisor are the job's, not ours. So a supervisor that reports more than was agreed on is treated as gone,
and no report makes the host wait for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from spoold.model.response import Phase, Stream
from spoold.model.tails import phase_so_far
from spoold.sandbox import stream
from spoold.sandbox.facts import PACE, TAIL
from spoold.sandbox.messages import Done, Failed, Live, Message, Refused
from spoold.sandbox.stream import ClosedError

OnOutput = Callable[[str, Phase], None]


class Hearing:
    """Hears the reports on the phase ``name``, which is about to be ordered, and passes them to ``on_output``.

    Where the phase is not ``live``, nothing may be reported before its end.
    """

    def __init__(self, name: str, on_output: OnOutput | None, *, live: bool) -> None:
        self._name, self._on_output = name, on_output
        self._expected = (Done, Failed, Refused, *((Live,) if live else ()))
        self._began, self._count = time.monotonic(), 0

    def hear_end(self, of: stream.Stream, patience: float) -> Message:
        """Return the message that tells of the end, within ``patience`` seconds.

        Raises what :meth:`Stream.message` raises.
        """
        deadline = time.monotonic() + patience
        while True:
            said = of.message(deadline - time.monotonic(), *self._expected)
            if not isinstance(said, Live):
                return said
            self._take(said)

    def _take(self, said: Live) -> None:
        self._count += 1
        # The first report comes a while after the order. One more is allowed, since the two clocks may differ.
        if not _is_possible(said) or self._count > (time.monotonic() - self._began) / PACE + 1:
            raise ClosedError("the supervisor sent garbage")
        if self._on_output:
            phase = phase_so_far(
                stdout=Stream(said.stdout, said.stdout_total),
                stderr=Stream(said.stderr, said.stderr_total),
                time=said.time / 1e9,
                cpu_time=said.cpu / 1e9,
                memory=said.memory,
            )
            self._on_output(self._name, phase)


def _is_possible(said: Live) -> bool:
    """Tell whether a report can be true."""
    return (
        min(said.time, said.cpu, said.memory) >= 0
        and len(said.stdout) == min(TAIL, said.stdout_total)
        and len(said.stderr) == min(TAIL, said.stderr_total)
    )
