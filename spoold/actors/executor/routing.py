"""Routing: where a submission goes after an executor looks at it for the first time, or after its build has ended.

Spec: spool-layout.md, "Transitions". A submission needs a build for its program, and another for its checker if it has
one. Both are filed at once. The submission waits for one after the other. A failed build of the program is the answer.
A failed build of the checker is not, since that is no failure of the program. Where the submission only asks for a
build, that build is the answer in any case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from spoold.actors.executor.answering import Answering
from spoold.actors.executor.backlog import Backlog
from spoold.actors.executor.building import Building, Found
from spoold.actors.executor.line import Line
from spoold.actors.executor.provided import Provided
from spoold.actors.executor.ready import Place, Ready
from spoold.model.checkers import why_lost
from spoold.model.errors import NewerFormatError
from spoold.model.limits import Limits
from spoold.model.plan import plan_job
from spoold.model.response import Status, of_dependencies
from spoold.model.states import State
from spoold.model.submission import Request, Submission
from spoold.sandbox.sizes import asked
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.progress import Progress
from spoold.spool.store import Spool
from spoold.upkeep.floor import Floor


class Routing:
    """Routes the submissions of one executor."""

    def __init__(
        self,
        spool: Spool,
        builds: BuildStore,
        provided: Provided,
        *,
        answering: Answering,
        building: Building,
        line: Line,
        backlog: Backlog,
        floor: Floor,
        newer: LeftAlone,
        leave: Callable[[Place], None] | None = None,
    ) -> None:
        """Only a router has ``leave``, which leaves an entry that is ready for a slot to executors that have slots."""
        self._spool, self._builds, self._provided = spool, builds, provided
        self._answering, self._building, self._line, self._backlog = answering, building, line, backlog
        self._floor, self._newer = floor, newer
        self._leave = leave

    def route(self, place: Place, submission: Submission, limits: Limits) -> None:
        """Send a submission on, under the present ``limits``: to its answer, to wait for its builds, or into the line.

        Raises :class:`LeaseLostError` where another executor has it, and :class:`OSError`.
        """
        request = submission.Request
        builds = self._provided.builds(request)
        if request is None or not builds:
            self._answering.answer(place, submission, None)
            return
        with self._builds.looking():
            found = [self._look_and_note(each.build_id, submission.Spool.uid) for each in builds]
        if isinstance(found[0], BuildRecord) and (request.kind == "build" or not found[0].result.shell):
            self._answering.answer(place, submission, found[0])
            return
        due = [(build, state) for build, state in zip(builds, found, strict=True) if not isinstance(state, BuildRecord)]
        if not due and self._leave:
            self._leave(place)
            return
        if not due:
            self._line_up(place, submission, request, [each for each in found if isinstance(each, BuildRecord)], limits)
            return
        self._building.wait(place, submission, request, *due[0])
        for build, state in due[1:]:
            if state == "missing":
                self._builds.request(build)

    def _look_and_note(self, build_id: str, uid: int) -> BuildRecord | Found:
        found = self._look_for_build(build_id)
        note = self._builds.uses.note_again if isinstance(found, BuildRecord) else self._builds.uses.note
        note(build_id, uid)
        return found

    def _look_for_build(self, build_id: str) -> BuildRecord | Found:
        try:
            return self._builds.look(build_id)
        except NewerFormatError as error:
            self._newer.meet(error)
            return "newer"

    def _line_up(
        self, place: Place, submission: Submission, request: Request, builds: list[BuildRecord], limits: Limits
    ) -> None:
        """Let a submission wait in line for a slot."""
        build, checker = builds[0], builds[-1]
        if place.state is State.BUILDING:  # one from new/ may not have to wait, so nothing is shown
            progress = Progress(self._spool, place.entry, submission.Response, submission.Spool, self._floor.reached)
            progress.change(
                status=Status.DEPENDENCIES_INSTALLED, dependencies=of_dependencies(build.result.phase, cached=False)
            )
            progress.show()
        owner = submission.Spool.uid
        job, _ = plan_job(
            place.entry, request, limits, build=build.result, checker=checker.result, nixpkgs="", owner=owner
        )
        lost = why_lost(checker.result, request.grader.KIND if request.grader else "")
        ready = Ready(place, sys.intern(build.build_id), asked(limits, job), job.longest, lost)
        for arrival, other in self._line.ready(ready, owner, request.priority, submission.Spool.arrival):
            self._backlog.add(other.state, other.entry, arrival)
