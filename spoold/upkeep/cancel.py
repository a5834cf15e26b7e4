"""Cancelling: whoever wants a submission ended takes it, whatever state it is in, and answers it.

Spec: spool-layout.md, "Cancelling". One rename, under an attempt of its own that no worker ever has: so a holder loses
its lease as it would to any other attempt, and ``running/`` says by itself what was begun, should this process die.
"""

from __future__ import annotations

import os
from enum import Enum, auto

import msgspec

from spoold.host import fsops
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry
from spoold.model.response import Status
from spoold.model.states import State
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool

log = Log("spool")


class Cancelled(Enum):
    """What came of the wish to cancel: it was done, or it came after the commit, or there is nothing of that user's."""

    DONE = auto()
    LATE = auto()
    UNKNOWN = auto()


def cancel(spool: Spool, id_: str, uid: int) -> Cancelled:
    """End the submission ``id_`` for ``uid``, who must be its owner or the operator.

    To anyone else it is as unknown as an id that nobody used. Raises :class:`NewerFormatError` where a newer version
    wrote the entry, so that nobody here can tell whose it is.
    """
    while place := spool.queue.locate(id_):
        state, entry = place
        try:
            is_known = entry.owner is not None and uid not in (entry.owner, *operators())
            # Without a look into what is another's, which may be as large as that user likes.
            owner = entry.owner if is_known else spool.read(state, entry).Spool.uid
        except LeaseLostError:
            continue  # it moved on while we looked, which it can do only so often
        except NewerFormatError:
            if state is State.DONE:
                return Cancelled.UNKNOWN  # there is nothing to end, whoever's it is
            raise
        except msgspec.DecodeError:
            return Cancelled.UNKNOWN  # nobody can tell whose it is; whoever works on it sets it aside
        if uid not in (owner, *operators()):
            return Cancelled.UNKNOWN
        if state is State.DONE:
            return Cancelled.LATE
        if entry.attempt == ids.CANCEL or _take(spool, state, entry):
            end(spool, entry._replace(attempt=ids.CANCEL))
            return Cancelled.DONE
    return Cancelled.UNKNOWN


def operators() -> tuple[int, int]:
    """Return the uids that may do what only the operator may: root, and the account that this daemon runs as."""
    return 0, os.geteuid()


def _take(spool: Spool, state: State, entry: Entry) -> bool:
    mine = spool.queue.entry_path(State.RUNNING, entry._replace(attempt=ids.CANCEL))
    return fsops.move(spool.queue.entry_path(state, entry), mine) and fsops.touch(mine)


def end(spool: Spool, entry: Entry) -> None:
    """Answer a submission that was taken to be cancelled. Only intake does, of which there is one."""
    try:
        submission = spool.read(State.RUNNING, entry)
    except msgspec.DecodeError as error:
        spool.give_up(entry, State.RUNNING, f"the entry cannot be read: {error}")
        return
    spool.finish(entry, msgspec.structs.replace(submission.Response, status=Status.CANCELLED), submission.Spool)
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
