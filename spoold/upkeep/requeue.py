"""Requeueing: runs a finished submission once more, because the operator asks for it.

Spec: spool-layout.md, "Requeueing". The old answer is removed first. The entry then goes back to ``new/``, as a new
file. So a process that held the old file, however long ago, finds that this is another one.
"""

from __future__ import annotations

import msgspec

from spoold.host import fsops
from spoold.host.locks import locked
from spoold.model import ids
from spoold.model.errors import LeaseLostError, OperatorError
from spoold.model.ids import Entry, Kept, Private
from spoold.model.response import Response
from spoold.model.states import State
from spoold.spool import answers
from spoold.spool.store import Spool


def requeue(spool: Spool, id_: str) -> None:
    """Begin a finished submission anew. Raises :class:`OperatorError` where that is not possible."""
    with locked(spool.queue.path("tmp", f"requeue{Kept.LOCK}"), exclusive=True):
        try:
            _requeue(spool, id_)
        except msgspec.DecodeError as error:
            raise OperatorError(f"{id_}: its entry cannot be read; see `spoolctl check`: {error}") from error
        except LeaseLostError:
            raise OperatorError(f"{id_}: it was removed meanwhile: its owner can submit it again") from None


def _requeue(spool: Spool, id_: str) -> None:
    queue = spool.queue
    place = queue.locate(id_)
    if place is None:
        raise OperatorError(f"{id_}: there is no such submission, or it is not kept any more")
    state, entry = place
    if state is not State.DONE:
        raise OperatorError(f"{id_}: it has not ended yet (in {state}/, attempt {entry.attempt}): nothing to do")
    submission = spool.read(state, entry)
    if submission.Request is None:
        raise OperatorError(f"{id_}: it was refused, so there is nothing to run")
    copy, finished = queue.private(Private.REQUEUED, id_), queue.path(State.DONE, ids.done_name(id_))
    response = queue.path(State.DONE, ids.response_name(id_))
    fsops.write_private(copy, queue.read(state, entry))
    for result in queue.results.waiting().get(id_, []):
        queue.results.drop(result)
    again = Entry(id_, 1, submission.Spool.uid)
    for answer in (response, queue.path(State.DONE, ids.tar_name(id_))):
        answers.forget(answer)
        fsops.remove(answer)
        fsops.sync_directory(queue.path(State.DONE))
    spool.write_progress(id_, Response(), submission.Spool, attempt=0)
    fsops.replace(copy, finished)
    queue.take_over_id(again)  # before it leaves done/, where only the id finds it
    fsops.move(finished, queue.entry_path(State.NEW, again))
    queue.take_over_id(again)  # once more: the holder of the old entry may have taken that note for its own
    for directory in (State.NEW, State.DONE):
        fsops.sync_directory(queue.path(directory))
