"""Cancelling: takes a submission away from its holder, whatever state it is in, and answers it.

Spec: spool-layout.md, "Cancelling". One rename does it, under an attempt that no worker ever has. So a holder loses its
lease as it would to any other attempt. If this process dies, ``running/`` shows which cancels it had begun. An executor
that runs a submission is asked first (``wishes``), since only the executor can tell how far it came.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

import msgspec

from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry
from spoold.model.plan import builds_of
from spoold.model.response import Phase, Response, Status, cancelled_phase, of_dependencies
from spoold.model.short import in_short
from spoold.model.states import State
from spoold.model.submission import Request, Submission
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool
from spoold.upkeep.wishes import Wishes

log = Log("spool")


class Cancelled(Enum):
    """The outcome of a wish to cancel.

    DONE: the submission is answered. WAITS: its executor was asked, and has some time for it. LATE: it was committed
    before. UNKNOWN: this user has no such submission.
    """

    DONE = auto()
    WAITS = auto()
    LATE = auto()
    UNKNOWN = auto()


class Canceller:
    """Cancels submissions of one ``spool``. Only intake does so, and there is one intake."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._spool, self._builds = spool, BuildStore(settings)
        self._wishes = Wishes(spool.queue, spool.clock, 2 * settings.lease.renewal)

    def cancel(self, id_: str, uid: int) -> Cancelled:
        """End the submission ``id_`` for ``uid``, who must be its owner or the operator.

        To anybody else it is as unknown as an id that nobody used. After ``WAITS`` the caller asks again later. Raises
        :class:`NewerFormatError` where a newer version wrote the entry, since nobody here can tell whose it is.
        """
        while place := self._spool.queue.locate(id_):
            state, entry = place
            try:
                if not self._may_end(state, entry, uid):
                    break
            except LeaseLostError:
                continue  # it moved on while we looked, which can happen only a few times
            if state is State.DONE:
                return Cancelled.DONE if self._wishes.withdraw(id_) else Cancelled.LATE
            if state is State.RUNNING and entry.attempt != ids.CANCEL and self._wishes.wait(entry):
                return Cancelled.WAITS
            if self._end(state, entry):
                self._wishes.withdraw(id_)
                return Cancelled.DONE
        return Cancelled.UNKNOWN

    def _may_end(self, state: State, entry: Entry, uid: int) -> bool:
        """Tell whether ``uid`` may end an entry. Raises what :meth:`Spool.read` raises."""
        try:
            is_known = entry.owner is not None and uid not in (entry.owner, *operators())
            # Another user's entry is not read: it may be as large as that user likes.
            owner = entry.owner if is_known else self._spool.read(state, entry).Spool.uid
        except NewerFormatError:
            if state is State.DONE:
                return False  # there is nothing to end
            raise
        except msgspec.DecodeError:
            return False  # nobody can tell whose it is. The executor that works on it sets it aside
        return uid in (owner, *operators())

    def _end(self, state: State, entry: Entry) -> bool:
        """Take an entry out of ``state`` and answer it. Return False where it is no longer there."""
        mine = entry._replace(attempt=ids.CANCEL)
        if entry.attempt == ids.CANCEL:
            end(self._spool, entry)
            return True
        theirs, taken = self._spool.queue.entry_path(state, entry), self._spool.queue.entry_path(State.RUNNING, mine)
        since = fsops.mtime(theirs)
        if since is None or not (fsops.move(theirs, taken) and fsops.touch(taken)):
            return False
        end(self._spool, mine, partial(self._so_far, state, since))
        return True

    def _so_far(self, state: State, since: float, submission: Submission) -> Response:
        """Return what is known of a submission that was in ``state``.

        ``since`` is its mtime, which tells when it began to wait. The response is short, since its owner's share may
        have no room left.
        """
        response = submission.Response
        if state is State.NEW:
            return response
        built = self._build_of(submission.Request)
        if built is None and state is State.BUILDING:
            built = cancelled_phase(max(0.0, self._spool.clock.file_system() - since))
        if built is not None and state is State.BUILDING:
            built = of_dependencies(built, cached=False)
        if built is not None:
            response = in_short(msgspec.structs.replace(response, dependencies=built))
        if state is State.RUNNING:
            note = (
                f"it is unknown what ran: the executor did not answer within {self._wishes.patience:g} s of the cancel"
            )
            response = msgspec.structs.replace(response, notes=[note])
        return response

    def _build_of(self, request: Request | None) -> Phase | None:
        """Return the phase of a build that has ended. None where it has not, or where that cannot be told."""
        try:
            runtime = self._builds.runtime.read()
            builds = builds_of(request, runtime) if request and runtime else {}
            record = self._builds.result(next(iter(builds))) if builds else None
        except (NewerFormatError, OSError):
            return None
        return record.result.phase if record else None


def operators() -> tuple[int, int]:
    """Return the uids with the operator's rights: root, and the account that this daemon runs as."""
    return 0, os.geteuid()


def end(
    spool: Spool, entry: Entry, so_far: Callable[[Submission], Response] = lambda submission: submission.Response
) -> None:
    """Answer a submission that was taken to be cancelled. ``so_far`` returns what is known of it.

    Only intake does so, and there is one intake.
    """
    try:
        submission = spool.read(State.RUNNING, entry)
    except msgspec.DecodeError as error:
        spool.give_up(entry, State.RUNNING, f"the entry cannot be read: {error}")
        return
    spool.finish(entry, msgspec.structs.replace(so_far(submission), status=Status.CANCELLED), submission.Spool)
    fsops.remove(spool.queue.wish(entry))  # its client may have taken back the cancel that asked for it
    log.info("cancelled", submission=entry.id)


def end_interrupted(spool: Spool, newer: LeftAlone) -> None:
    """Answer submissions that were taken to be cancelled but not answered: the process died, or the disk was full."""
    for entry in spool.queue.entries(State.RUNNING):
        if entry.attempt == ids.CANCEL:
            try:
                end(spool, entry)
            except LeaseLostError:
                continue  # another process has answered it, such as `spoolctl check --repair`
            except NewerFormatError as error:
                newer.meet(error)  # an intake of a newer version took it
            except OSError as error:
                log.error("a cancel cannot be answered yet; trying again", submission=entry.id, error=error)
