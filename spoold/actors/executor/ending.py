"""Ending: a submission leaves this executor with its answer, or is set aside because nobody can work on it.

Spec: spool-layout.md, "Commit and publication". Every entry is ended here: by the slot that holds it, or by the
executor itself where no sandbox is needed. An answer counts in its owner's share at once. An entry of a newer version
stays where it is, for that version to end. Thread-safe.
"""

from __future__ import annotations

import contextlib

from spoold.actors.executor.ready import Place
from spoold.actors.executor.returning import with_files
from spoold.host.log import Log
from spoold.host.metrics import TURNAROUND, Histogram
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry
from spoold.model.job import JobResult
from spoold.model.response import Response
from spoold.model.states import Role
from spoold.model.submission import Submission
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool
from spoold.spool.tar import Tar
from spoold.upkeep.shares import Shares

log = Log(Role.EXECUTOR)


class Ending:
    """Ends the submissions of one spool."""

    def __init__(self, spool: Spool, shares: Shares, newer: LeftAlone) -> None:
        self._spool = spool
        self._shares = shares
        self._newer = newer

    def finish(
        self,
        entry: Entry,
        submission: Submission,
        response: Response,
        *,
        tidy: bool = True,
        tar: Tar | None = None,
    ) -> None:
        """End an entry in ``running/`` with its response. Raises what :meth:`Spool.finish` raises."""
        size = self._spool.finish(entry, response, submission.Spool, tidy=tidy, tar=tar)
        self._shares.add(submission.Spool.uid, size)
        self.observe(TURNAROUND, submission)
        log.info("done", submission=entry.id, attempt=entry.attempt, status=response.status)

    def finish_job(
        self, entry: Entry, submission: Submission, response: Response, result: JobResult | None, room: int
    ) -> None:
        """End an entry whose job has ended, see :meth:`finish`. Its private names go later, see :meth:`Results.tidy`.

        The response tells of the files of ``result``, with ``room`` bytes of their contents at most. Where that is too
        little, the files also lie beside it.
        """
        if result is None:
            self.finish(entry, submission, response, tidy=False)
            return
        with contextlib.closing(result):
            final, tar = with_files(response, result, room)
            self.finish(entry, submission, final, tidy=False, tar=tar)

    def observe(self, since_arrival: Histogram, submission: Submission) -> None:
        """Measure how long a submission has been here."""
        if since_arrival.on:
            since_arrival.observe(max(0.0, self._spool.clock.file_system() - submission.Spool.arrival))

    def set_aside(self, place: Place, reason: str) -> None:
        """End an entry that cannot be worked on, unless another executor has it by now."""
        log.error("set aside", submission=place.entry.id, reason=reason)
        try:
            self._spool.give_up(place.entry, place.state, reason)
        except LeaseLostError:
            return
        except NewerFormatError as error:
            self._newer.meet(error)
