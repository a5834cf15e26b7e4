"""Grading solutions: send all their requests through a spool, and put the results of each solution together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spoold import client
from spoold.cli import asked, sweep
from spoold.cli.grading.graded import Graded, together
from spoold.cli.grading.solutions import Solution
from spoold.cli.grading.suite import Chunk, Requests
from spoold.cli.progress import Progress
from spoold.client.response import COMPLETED
from spoold.model.errors import ClientError


class Runner:
    """Runs solutions over one spool, and shows the person who waits how many are done."""

    def __init__(
        self, spool: client.Spool, *, jobs: int, again: bool, timeout: float | None, progress: Progress
    ) -> None:
        self._spool = spool
        self._jobs = jobs
        self._again = again
        self._timeout = timeout
        self._progress = progress

    def grade(self, requests: Requests, solutions: Sequence[Solution], over: Mapping[str, Any]) -> list[Graded]:
        """Return the results of solutions, in their order. ``over`` are further keys for each request."""
        pairs = [(chunk, solution) for chunk in requests.chunks for solution in solutions]
        programs = [
            sweep.Program(solution.name, _request(requests, solution, chunk, over)) for chunk, solution in pairs
        ]
        self._progress.expect(len(programs))
        results = sweep.run(
            self._spool,
            programs,
            jobs=self._jobs,
            again=self._again,
            timeout=self._timeout,
            kept=lambda result: result._replace(raw=b""),
            told=lambda result: self._progress.count(failed=result.response.status != COMPLETED),
            meanwhile=self._progress.look,
        )
        by_solution: dict[str, dict[Chunk, sweep.Result]] = {}
        for (chunk, solution), result in zip(pairs, results, strict=True):
            by_solution.setdefault(solution.name, {})[chunk] = result
        return [together(name, requests.suite.tests, found) for name, found in by_solution.items()]


def _request(requests: Requests, solution: Solution, chunk: Chunk, over: Mapping[str, Any]) -> Callable[[], bytes]:
    def made() -> bytes:
        data = requests.request(solution.files(), chunk, over)
        if reason := asked.why_refused(data):
            raise ClientError(reason)
        return data

    return made
