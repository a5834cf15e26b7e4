"""Running: a job goes through a sandbox, its owner sees it on the way, and its result becomes the response."""

from __future__ import annotations

from functools import partial

import msgspec

from spoold.actors.executor.judging import Judging
from spoold.actors.executor.showing import Showing
from spoold.model.errors import ClientError
from spoold.model.job import Job, JobResult
from spoold.model.response import CaseResult, Outcome, Phase, Response, Status, verdict
from spoold.model.submission import Request
from spoold.sandbox import RunCancelledError, Sandbox
from spoold.spool.lease import Lease
from spoold.spool.progress import Progress

SELDOM = 1.0  # seconds between two times that an owner is shown the cases that ended


class Running:
    """The run of one submission. Its lease may end it."""

    def __init__(self, sandbox: Sandbox, progress: Progress, showing: Showing, lease: Lease) -> None:
        self._sandbox, self._progress, self._showing, self._lease = sandbox, progress, showing, lease
        self._ran: dict[str, Phase] = {}

    def outcome_of(
        self, job: Job, request: Request, response: Response, lost: str = ""
    ) -> tuple[Response, JobResult | None]:
        """Run a job. Return the final response, and the job's result. Raises what :meth:`Sandbox.run` raises.

        A cancel gives a response with the phases and cases that ran, and no result. ``lost`` says why the checker
        cannot be run, where the request has a checker and the job has none.
        """
        on_output = partial(self._showing.output, self._progress)
        judging = None
        if job.cases:
            judging = Judging(request, self._show_cases, job.checker, lost, seconds=job.cases_time)
        try:
            result = self._sandbox.run(job, self._show_phase, self._lease.stop, judging, on_output)
        except ClientError as error:
            return msgspec.structs.replace(response, status=Status.REJECTED, reason=str(error)), None
        except RunCancelledError:
            if not self._lease.cancelled:
                raise
            return msgspec.structs.replace(response, status=Status.CANCELLED, **self._ran, **_of_cases(judging)), None
        notes = [*(response.notes or ()), *result.notes, *(judging.notes if judging else ())]
        final = msgspec.structs.replace(
            response,
            status=verdict(result.compile, result.run, cases=judging is not None),
            compile=result.compile,
            run=result.run,
            notes=notes or msgspec.UNSET,
            **_of_cases(judging),
        )
        return final, result

    def _show_phase(self, name: str, phase: Phase) -> None:
        self._ran[name] = phase
        if name == "compile" and phase.outcome is Outcome.OK:  # after any other end the response follows at once
            self._progress.change(compile=phase, status=Status.RUNNING)
            self._showing.soon(self._progress)

    def _show_cases(self, results: list[CaseResult]) -> None:
        self._progress.change(cases=results)
        self._showing.soon(self._progress, SELDOM)


def _of_cases(judging: Judging | None) -> dict[str, object]:
    """Return the keys of a response that tell of cases."""
    return {} if judging is None else {"cases": judging.all(), "summary": judging.summary()}
