"""Cancelling: whoever wants a submission ended takes it, whatever state it is in, and answers it.

Spec: spool-layout.md, "Cancelling". One rename, under an attempt of its own that no worker ever has: so a holder loses
its lease as it would to any other attempt, and ``running/`` says by itself what was begun, should this process die.
An executor that runs a submission is asked first (``wishes``), since only it can tell what it came to.
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
from spoold.model.response import Phase, Response, Status, cancelled_phase
from spoold.model.short import in_short
from spoold.model.states import State
from spoold.model.submission import Request, Submission
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool
from spoold.upkeep.wishes import Wishes

log = Log("spool")


class Cancelled(Enum):
    """What came of the wish to cancel.

    It was done, or its executor was asked and has some time for it, or it came after the commit, or there is nothing of
    that user's.
    """

    DONE = auto()
    WAITS = auto()
    LATE = auto()
    UNKNOWN = auto()


class Canceller:
    """Whoever cancels submissions of one ``spool``: intake, of which there is one."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._spool, self._builds = spool, BuildStore(settings)
        self._wishes = Wishes(spool.queue, spool.clock, 2 * settings.lease.renewal)

    def cancel(self, id_: str, uid: int) -> Cancelled:
        """End the submission ``id_`` for ``uid``, who must be its owner or the operator.

        To anyone else it is as unknown as an id that nobody used. What waits is to be asked for again. Raises
        :class:`NewerFormatError` where a newer version wrote the entry, so that nobody here can tell whose it is.
        """
        while place := self._spool.queue.locate(id_):
            state, entry = place
            try:
                if not self._may_end(state, entry, uid):
                    break
            except LeaseLostError:
                continue  # it moved on while we looked, which it can do only so often
            if state is State.DONE:
                return Cancelled.DONE if self._wishes.withdraw(id_) else Cancelled.LATE
            if state is State.RUNNING and entry.attempt != ids.CANCEL and self._wishes.wait(entry):
                return Cancelled.WAITS
            if self._end(state, entry):
                self._wishes.withdraw(id_)
                return Cancelled.DONE
        return Cancelled.UNKNOWN

    def _may_end(self, state: State, entry: Entry, uid: int) -> bool:
        """Tell whether an entry is for ``uid`` to end; raises what :meth:`Spool.read` does."""
        try:
            is_known = entry.owner is not None and uid not in (entry.owner, *operators())
            # Without a look into what is another's, which may be as large as that user likes.
            owner = entry.owner if is_known else self._spool.read(state, entry).Spool.uid
        except NewerFormatError:
            if state is State.DONE:
                return False  # there is nothing to end, whoever's it is
            raise
        except msgspec.DecodeError:
            return False  # nobody can tell whose it is; whoever works on it sets it aside
        return uid in (owner, *operators())

    def _end(self, state: State, entry: Entry) -> bool:
        """Take an entry out of ``state`` and answer it; False where it is not there any more."""
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
        """Return what is known of a submission that was in ``state``; ``since`` is its mtime: when it began to wait.

        Nothing of it takes much room, since there need not be any left in its owner's share.
        """
        response = submission.Response
        if state is State.NEW:
            return response
        built = self._build_of(submission.Request)
        if built is None and state is State.BUILDING:
            built = cancelled_phase(max(0.0, self._spool.clock.file_system() - since))
        if built is not None:
            response = in_short(msgspec.structs.replace(response, dependencies=built))
        if state is State.RUNNING:
            note = f"what ran is not known: its executor did not tell within {self._wishes.patience:g} s of the cancel"
            response = msgspec.structs.replace(response, notes=[note])
        return response

    def _build_of(self, request: Request | None) -> Phase | None:
        """Return the phase of a build that has ended, None of any other, or where that cannot be told."""
        try:
            runtime = self._builds.runtime.read()
            builds = builds_of(request, runtime) if request and runtime else {}
            record = self._builds.result(next(iter(builds))) if builds else None
        except (NewerFormatError, OSError):
            return None
        return record.result.phase if record else None


def operators() -> tuple[int, int]:
    """Return the uids that may do what only the operator may: root, and the account that this daemon runs as."""
    return 0, os.geteuid()


def end(
    spool: Spool, entry: Entry, so_far: Callable[[Submission], Response] = lambda submission: submission.Response
) -> None:
    """Answer a submission that was taken to be cancelled with what it came to ``so_far``.

    Only intake does, of which there is one.
    """
    try:
        submission = spool.read(State.RUNNING, entry)
    except msgspec.DecodeError as error:
        spool.give_up(entry, State.RUNNING, f"the entry cannot be read: {error}")
        return
    spool.finish(entry, msgspec.structs.replace(so_far(submission), status=Status.CANCELLED), submission.Spool)
    fsops.remove(spool.queue.wish(entry))  # its client may have taken the cancel back that asked for it
    log.info("cancelled", submission=entry.id)


def end_interrupted(spool: Spool, newer: LeftAlone) -> None:
    """Answer what an earlier process took to cancel and did not live to answer, or had no disk for."""
    for entry in spool.queue.entries(State.RUNNING):
        if entry.attempt == ids.CANCEL:
            try:
                end(spool, entry)
            except LeaseLostError:
                continue  # somebody else has answered it, such as `spoolctl check --repair`
            except NewerFormatError as error:
                newer.meet(error)  # the intake that took it was of a newer version
            except OSError as error:
                log.error("cannot answer a cancelled submission yet", submission=entry.id, error=error)
