"""Acceptance: from a dropped file to an entry in ``new/``, or to a refusal.

Spec: spool-layout.md, "Acceptance" and "Refusals". A file is read once, into a copy of our own. That copy is checked
and stored, whatever the client does to its file afterwards. A file that does not parse may still be arriving. It is
given up only when it has not changed for the settle time. An id belongs to the first user who uses it and may do so.
The client's file is removed after the entry is durable, not before. Many entries are made durable together.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from spoold.actors.intake.arriving import Arriving
from spoold.actors.intake.dropbox import OF_THE_HOST, DropBox
from spoold.actors.intake.origin import origin_of
from spoold.actors.intake.pins import KnownPins
from spoold.config import Settings
from spoold.host import fsops, strangers
from spoold.host.log import Log
from spoold.host.metrics import DROPPED
from spoold.host.seldom import Seldom
from spoold.host.strangers import Dropped
from spoold.model import ids
from spoold.model.dropped import read_request, why_incomplete
from spoold.model.errors import ClientError, IncompleteError, LeaseLostError, NewerFormatError, TemporaryError
from spoold.model.states import Role, State
from spoold.model.submission import Origin, Request
from spoold.spool.store import Spool
from spoold.upkeep.shares import Shares

log = Log(Role.INTAKE)
SMALL = 64 << 10  # bytes up to which a file may wait to be stored with others
NOBODY = Origin(uid=-1, gid=-1, sha256="", arrival=0)


class Checked(NamedTuple):
    """A file that is a submission with an unused id, and what is to be stored of it."""

    id: str
    name: str
    dropped: Dropped
    request: Request
    origin: Origin


class Acceptance:
    """Takes submissions out of one drop box. Files that are no submission yet are remembered in ``arriving``."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        box: DropBox,
        *,
        arriving: Arriving,
        pins: KnownPins,
        shares: Shares,
        seldom: Seldom,
    ) -> None:
        self._settings = settings.spool
        self._spool, self._box, self._arriving = spool, box, arriving
        self._pins, self._shares, self._seldom = pins, shares, seldom
        self._checked: dict[str, Checked] = {}  # by id: nothing of them is written yet
        self._taken: list[tuple[str, Dropped]] = []  # their entries are written, but the names are not durable yet

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings.spool

    def take(self, id_: str, name: str) -> bool:
        """Accept or refuse a file. Return False where it is still arriving."""
        path = self._box.path(name)
        if self._arriving.is_unchanged(name, path):
            return False
        self.accept_checked(id_)
        dropped = strangers.look_at_dropped(path, self._settings.max_file + 1)
        if dropped is None:
            return True
        if not ids.may_use(id_, dropped.uid):
            self._refuse_name(id_, name, dropped)
            return True
        try:
            request = self._read(dropped)
        except IncompleteError as error:
            if self._arriving.is_settled(name, dropped):
                reason = f"after {self._arriving.settle:g} s without a change it is still {error}"
            elif self._arriving.is_overdue(name):
                reason = f"{self._arriving.upload:g} s after it arrived it is still {error}"
            else:
                return False
            self._refuse(id_, name, dropped, reason + self._detail(dropped))
        except ClientError as error:
            self._refuse(id_, name, dropped, str(error))
        else:
            self._accept(id_, name, dropped, request)
        return True

    def accept_checked(self, id_: str = "") -> None:
        """Store all submissions that were checked, together. With an ``id_``, do so only if that id is among them.

        Raises :class:`OSError` after an error of the host that concerns all files.
        """
        if id_ and id_ not in self._checked:
            return
        checked, self._checked = [*self._checked.values()], {}
        if len(checked) > 1:
            try:
                stored = self._spool.accept_all([(each.id, each.request, each.origin) for each in checked])
            except OSError as error:
                if error.errno in OF_THE_HOST:
                    raise  # files of entries that were stored all the same are found again
            else:
                for each, is_stored in zip(checked, stored, strict=True):
                    self._settle(each, is_stored=is_stored)
                return
        for each in checked:  # one by one, so that an error of one does not stop the others
            try:
                self._settle(each, is_stored=self._spool.accept(each.id, each.request, each.origin))
            except OSError as error:
                if error.errno in OF_THE_HOST:
                    raise
                message = "a file could not be taken in; it stays in incoming/ and is tried again"
                self._seldom.error(message, error.errno, file=each.name, error=error)

    def _settle(self, checked: Checked, *, is_stored: bool) -> None:
        if is_stored:
            DROPPED.add("accepted")
        elif not self._is_repeated_by_now(checked):
            log.debug("an earlier submission had this id until now; the file waits", file=checked.name)
            return
        self._taken.append((checked.name, checked.dropped))

    def _is_repeated_by_now(self, checked: Checked) -> bool:
        try:
            return self._is_repeated(checked.id, checked.origin)
        except (TemporaryError, NewerFormatError):  # the next look at the file tells
            return False

    def remove_accepted(self) -> None:
        """Remove the clients' files that were taken in, once the names of their entries are durable."""
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        self._spool.sync_accepted()
        for name, dropped in taken:
            self._box.remove(name, dropped)

    def _read(self, dropped: Dropped) -> Request:
        if dropped.kind == strangers.UNREADABLE:  # its writer may be about to change the mode
            raise IncompleteError("a file that spoold may not read here: make it readable for all (mode 0644)")
        if dropped.kind == strangers.LEASED:
            raise IncompleteError("a file that cannot be opened, since a process holds a lease on it: end that process")
        if dropped.kind != "file":
            raise ClientError(f"this is a {dropped.kind}: a submission has to be a regular file")
        if dropped.links > 1:
            raise IncompleteError("a file with a second name (a hard link): copy it instead")
        limit = self._settings.max_file
        if len(dropped.data) > limit:
            raise ClientError(f"the file is larger than the {limit} bytes that are allowed")
        if len(dropped.data) > (most := self._shares.most.bytes):
            raise ClientError(f"the file is larger than the {most:.0f} bytes that one user may have in the spool")
        return read_request(dropped.data, max_files=self._settings.max_files, pins=self._pins.names)

    def _detail(self, dropped: Dropped) -> str:
        """Return where a file that never became a request stops being JSON, "" where something else is wrong."""
        if dropped.kind != "file" or dropped.links > 1:
            return ""
        why = why_incomplete(dropped.data, max_files=self._settings.max_files)
        return f": {why}" if why else ""

    def _accept(self, id_: str, name: str, dropped: Dropped, request: Request) -> None:
        origin = self._origin_of(dropped)
        if self._is_repeated(id_, origin):
            self._taken.append((name, dropped))
            return
        self._checked[id_] = Checked(id_, name, dropped, request, origin)
        self._shares.add(origin.uid, len(dropped.data), kept=False)  # now, for the files that are looked at next
        if len(dropped.data) > SMALL:  # so that its owner is charged for the time
            self.accept_checked()

    def _refuse(self, id_: str, name: str, dropped: Dropped, reason: str) -> None:
        origin = self._origin_of(dropped)
        if not self._is_repeated(id_, origin):
            if dropped.data and self._shares.has_room(origin.uid, len(dropped.data)):
                self._shares.add(origin.uid, len(dropped.data), len(reason))
                self._spool.set_aside(id_, dropped.data, reason, suffix=f"@{origin.uid}-{origin.sha256[:8]}")
            self._spool.refuse(id_, reason, origin)
            self._shares.add(origin.uid, 0)
            log.info("refused", submission=id_, uid=origin.uid, reason=reason)
            DROPPED.add("refused")
        self._box.remove(name, dropped)

    def _refuse_name(self, id_: str, name: str, dropped: Dropped) -> None:
        """Remove a file whose id its owner may not use, whether the file is whole or not. Leave the id free.

        The owner gets an answer if their share has room for one. Without room the file is removed unanswered, so that
        its owner cannot keep the name.
        """
        if self._shares.has_room(dropped.uid):
            owner = ids.owner_of(id_)
            reason = f"an id that begins with {owner}. is user {owner}'s: choose another file name"
            self._spool.refuse_reuse(id_, reason, self._origin_of(dropped))
            self._shares.add(dropped.uid, 0)
        self._seldom.info("refused: the id is another user's", dropped.uid, submission=id_, uid=dropped.uid)
        DROPPED.add("refused")
        self._box.remove(name, dropped)

    def _origin_of(self, dropped: Dropped) -> Origin:
        return origin_of(dropped, self._spool.clock.arrival(), self._settings.max_file)

    def _is_repeated(self, id_: str, origin: Origin) -> bool:
        """Tell whether the id is used. If so, answer a file that is not the same submission.

        The words of the answer tell no more than that.

        Raises :class:`TemporaryError` while the last file of an earlier submission is being removed.
        """
        earlier = self._find(id_)
        if earlier is None:
            names = (ids.response_name(id_), ids.tar_name(id_))  # the order in which they are removed
            if any(fsops.exists(self._spool.queue.path(State.DONE, name)) for name in names):
                raise TemporaryError("an earlier response of this id is being removed")
            return False
        if (earlier.uid, earlier.sha256) == (origin.uid, origin.sha256):
            self._seldom.info("the same submission was dropped again; it runs only once", origin.uid, submission=id_)
            DROPPED.add("repeated")
        else:
            self._spool.refuse_reuse(id_, "this id is used already: choose another file name", origin)
            self._shares.add(origin.uid, 0)
            self._seldom.info("refused: the id is used already", origin.uid, submission=id_, uid=origin.uid)
            DROPPED.add("reused")
        return True

    def _find(self, id_: str) -> Origin | None:
        while place := self._spool.queue.locate(id_):
            try:
                return self._spool.read(*place).Spool
            except LeaseLostError:
                continue  # it moved on while we looked, which can happen only a few times
            except msgspec.DecodeError:
                return NOBODY  # nobody can tell whose it is, so it counts as another user's
        return None
