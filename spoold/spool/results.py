"""Results: how an entry ends, and how its result is shown.

Spec: spool-layout.md, "Commit and publication" and "Durability". A result is made durable under the attempt's name in
``tmp/``. Then one rename of the entry is the commit. Only the attempt that has the entry can make it. Then the result
is linked into ``done/``. A process that finds a commit without a shown result can show it, so a crash in between loses
nothing. The private name is removed last, once the public one is durable. Many private names may wait for one sync.

Returned files that have no room in a response lie beside it at each step. They are there before the private result, and
durably before the public one. So no response names a file that is not there.

A process that may not let owners read its files only commits. Then another process puts a copy, which the owner may
read, in the place of the private result before it shows that.

Results that several threads commit at the same time take each of these steps together, with one sync for all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spoold.host import attributes, fsops
from spoold.model import ids
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry, Private
from spoold.model.states import State
from spoold.spool.answers import Answers, forget, publish, take_along
from spoold.spool.entries import Entries
from spoold.spool.tar import Tar
from spoold.spool.together import Together

SLOW = 0.00005  # seconds of a sync; an answer needs three, which then take as long as to wake another thread
MOST = 64  # results that are committed together


@dataclass(eq=False)
class _Ending:
    """An entry that ends: its ``path`` before that, and what went wrong with it alone."""

    entry: Entry
    path: str
    has_tar: bool
    error: Exception | None = None

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note what goes wrong in the block. The work for others goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the thread that ends this entry raises it
            self.error = error


class Results:
    """The results of ``entries``. ``answers`` writes those for clients. All others are for all daemons.

    A process that ``commits_only`` shows no results. ``owner_of`` returns the owner (uid, gid) of an entry in
    ``done/``, or None where nobody can tell. Where it is set, the results of such processes are handed over to their
    owners before they are shown.
    """

    commits_only = False
    owner_of: Callable[[Entry], tuple[int, int] | None] | None = None

    def __init__(self, entries: Entries, answers: Answers) -> None:
        self._entries = entries
        self._answers = answers
        self._together = Together(self._commit_all, MOST)
        self._took = (0.0,) * 8  # seconds of the last syncs
        self.is_slow = False  # all but one of these were slow, as on a disk, and not as in memory
        self._shown: dict[Entry, bool] = {}  # published, with a private name still: whether each has a tar beside it

    def _private(self, entry: Entry) -> str:
        return self._entries.path("tmp", ids.result_name(entry))

    def _public(self, entry: Entry) -> str:
        return self._entries.path(State.DONE, ids.response_name(entry.id))

    def _private_tar(self, entry: Entry) -> str:
        return self._entries.path("tmp", ids.private_tar_name(entry))

    def _public_tar(self, entry: Entry) -> str:
        return self._entries.path(State.DONE, ids.tar_name(entry.id))

    def _ended(self, entry: Entry) -> str:
        return self._entries.path(State.DONE, ids.done_name(entry.id))

    def commit(
        self,
        entry: Entry,
        state: State,
        result: bytes,
        owner: tuple[int, int] | None = None,
        *,
        tidy: bool = True,
        tar: Tar | None = None,
    ) -> None:
        """End an entry: make its result durable, commit with one rename, publish.

        A ``tar`` is shown before the result. Without ``tidy`` the result keeps its private name until the next commit,
        or until :meth:`tidy` is called. Until then a restart would publish it again. A process that ``commits_only``
        leaves publishing to another. Raises :class:`LeaseLostError` when the entry is no longer this attempt's. Then
        nothing was published.
        """
        if self.commits_only:
            self._refuse_later(entry)
            owner = None
        self._write_all(entry, result, owner, tar)
        ending = _Ending(entry, self._entries.entry_path(state, entry), has_tar=tar is not None)
        self._together.do(ending)
        if ending.error:
            raise ending.error
        if tidy:
            self.tidy()

    def _commit_all(self, endings: list[_Ending]) -> None:
        """Commit and publish results whose files are synced. An error of one of them is noted with that one.

        Raises :class:`OSError` where a sync fails, which concerns all of them.
        """
        fsops.sync_directory(self._entries.path("tmp"))
        for each in endings:
            with each.noting():
                self._commit(each)
        committed = [each for each in endings if not each.error]
        if not committed:
            return
        shown, began = self._shown.copy(), time.monotonic()
        fsops.sync_directory(self._entries.path(State.DONE))
        self._took = (*self._took[1:], time.monotonic() - began)
        self.is_slow = sorted(self._took)[1] >= SLOW
        for each in committed:
            with each.noting():
                self._show(each)
        with contextlib.suppress(OSError):  # the next sync is another chance
            self._drop_shown(shown)

    def _commit(self, ending: _Ending) -> None:
        fsops.touch(ending.path)  # the time that its result is kept begins now; the entry's mtime may be old
        if not self._move_to_done(ending.entry, ending.path):
            self.drop(ending.entry)
            raise LeaseLostError(ending.path)

    def _show(self, ending: _Ending) -> None:
        self._entries.release_id(ending.entry.id)
        if self.commits_only:
            return
        if ending.has_tar:
            self._link_tar(ending.entry)
        self._link(ending.entry)
        self._shown[ending.entry] = ending.has_tar

    def _refuse_later(self, entry: Entry) -> None:
        """Raise :class:`FileExistsError` where a later attempt has a result, which would be shown in place of this one.

        Either this attempt is lost, or a loss of power took the later one back. In the second case, the process that
        shows results removes what is left of the later one.
        """
        for attempt in self._entries.attempts_in(State.RUNNING):
            path = self._private(entry._replace(attempt=attempt))
            if attempt > entry.attempt and fsops.exists(path):
                raise FileExistsError(
                    errno.EEXIST, "a later attempt has a result; health removes it if that attempt is lost", path
                )

    def _write_all(self, entry: Entry, result: bytes, owner: tuple[int, int] | None, tar: Tar | None) -> None:
        """Write a private result and the tar beside it. An earlier try may have left another tar there."""
        beside = self._private_tar(entry)
        if tar:
            self._write(beside, tar, owner)
        else:
            fsops.remove(beside)
        try:
            self._write(self._private(entry), result, owner)
        except OSError:
            with contextlib.suppress(OSError):
                fsops.remove(beside)
            raise

    def _write(self, path: str, data: bytes | Tar, owner: tuple[int, int] | None) -> None:
        """Write a private file for ``owner`` (uid, gid) to read. Without an owner it is for all daemons."""
        if owner is None:
            fsops.write_private(path, data)
        else:
            self._answers.write(path, data, owner)

    def _move_to_done(self, entry: Entry, path: str) -> bool:
        """Make the rename that is the commit. Return False where the entry is another attempt's."""
        try:
            moved = fsops.move(path, self._ended(entry))
        except OSError:
            if not self._has_committed(entry):
                raise
            return True
        return moved or self._has_committed(entry)

    def _has_committed(self, entry: Entry) -> bool:
        """Tell whether a commit was made although it reported an error or found no entry: only its answer was lost.

        If a later attempt had committed, its result or the response would be there. The result comes first, so it is
        looked for first.
        """
        if not fsops.exists(self._ended(entry)):
            return False
        results = self.waiting().get(entry.id, [])
        return results[-1:] == [entry] and not fsops.exists(self._public(entry))

    def tidy(self) -> None:
        """Remove the private names of results that were shown, once their public ones are durable."""
        if shown := self._shown.copy():
            fsops.sync_directory(self._entries.path(State.DONE))
            self._drop_shown(shown)

    def _drop_shown(self, shown: dict[Entry, bool]) -> None:
        """Remove the private names of results that were ``shown`` before the last sync of ``done/`` began."""
        for entry, has_tar in shown.items():
            if has_tar and fsops.same_file(self._private_tar(entry), self._public_tar(entry)):
                fsops.remove(self._private_tar(entry))
            private = self._private(entry)
            if fsops.same_file(private, self._public(entry)):  # else one of them is of the id's next use
                fsops.remove(private)
            self._shown.pop(entry, None)

    def publish(self, *entries: Entry) -> list[Entry]:
        """Show the results of committed entries, and return those entries. Any process may do so, any number of times.

        That may be long after the commit. An entry's mtime tells since when its answer could be fetched.
        """
        there = [entry for entry in entries if self._hand_over(entry)]
        for entry in there:
            fsops.touch(self._ended(entry))
            self._entries.release_id(entry.id)  # first: while there is a private name, the next process tries again
            if fsops.exists(self._private_tar(entry)) or fsops.exists(self._public_tar(entry)):
                self._link_tar(entry)  # the process that renamed it may have died before that was durable
            self._link(entry)
        fsops.sync_directory(self._entries.path(State.DONE))
        for entry in there:
            self.drop(entry)
        return there

    def _hand_over(self, entry: Entry) -> bool:
        """Let the owner read a result that was only committed. False where it is gone: its entry was requeued."""
        owner = self.owner_of(entry) if self.owner_of else None
        return owner is None or all(
            self._replace(path, owner) for path in (self._private_tar(entry), self._private(entry))
        )

    def _replace(self, path: str, owner: tuple[int, int]) -> bool:
        """Put a copy that is an answer in place of a private file that is none. False where the file is gone."""
        found, directory = attributes.rights(path), attributes.rights(os.path.dirname(path))
        if found is None or directory is None or not self._answers.what_is_wrong(found, owner[0], directory):
            return True
        seen, data = attributes.identity(path), fsops.read(path)
        if data is None:
            return False
        copy = self._entries.private(Private.ANSWER, f"{os.path.basename(path)}.{secrets.token_hex(4)}")
        self._answers.write(copy, data, owner)
        if attributes.identity(path) != seen:
            fsops.remove(copy)
            forget(copy)
            return False
        take_along(copy, path, over=True)
        if not self._answers.by_list:
            fsops.sync_directory(os.path.dirname(path))  # or a loss of power could leave it without a digest
        fsops.replace(copy, path)
        return True

    def drop(self, entry: Entry) -> None:
        """Remove the private name of a result, after the tar beside it: a tar without a result belongs to nobody."""
        fsops.remove(self._private_tar(entry))
        fsops.remove(self._private(entry))

    def _link_tar(self, entry: Entry) -> None:
        """Show the tar beside a response, durably, before the response can be seen."""
        _show(self._private_tar(entry), self._public_tar(entry))
        fsops.sync_directory(self._entries.path(State.DONE))

    def _link(self, entry: Entry) -> None:
        _show(self._private(entry), self._public(entry))

    def waiting(self) -> dict[str, list[Entry]]:
        """Return the results in ``tmp/`` by id, the latest attempt last."""
        found: dict[str, list[Entry]] = {}
        for name in fsops.names(self._entries.path("tmp")):
            if entry := ids.parse_result(name):
                found.setdefault(entry.id, []).append(entry)
        return {id_: sorted(entries, key=lambda entry: entry.attempt) for id_, entries in found.items()}


def _show(private: str, public: str) -> None:
    try:
        publish(private, public)
    except FileNotFoundError:
        if not fsops.exists(public):  # if it exists, recovery published it for us
            raise
