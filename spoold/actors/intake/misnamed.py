"""Refusals of names: files in the drop box with a name that is neither a submission's nor a cancel's.

Spec: spool-layout.md, "Refusals". A client may be about to rename such a file, as some clients do when an upload is
whole. So the file is refused once it has not changed for the settle time, and is not opened before. Nobody else needs
such a name. So the file may wait for room in its owner's share for as long as it takes.
"""

from __future__ import annotations

from spoold.actors.intake.arriving import Arriving
from spoold.actors.intake.dropbox import DropBox
from spoold.actors.intake.origin import origin_of
from spoold.host import strangers
from spoold.host.metrics import DROPPED
from spoold.host.seldom import Seldom
from spoold.host.strangers import Dropped
from spoold.model import misnamed
from spoold.spool.store import Spool
from spoold.upkeep.shares import Shares


class Misnamed:
    """Refuses such files in one drop box. Files that have not been there for long enough are ``arriving``."""

    def __init__(
        self, spool: Spool, box: DropBox, limit: int, *, arriving: Arriving, shares: Shares, seldom: Seldom
    ) -> None:
        self._spool, self._box, self._arriving = spool, box, arriving
        self.limit = limit  # bytes of one file that are ever read
        self._shares, self._seldom = shares, seldom

    def take(self, name: str) -> bool:
        """Refuse a file. Return False where it may still change, or get another name."""
        path = self._box.path(name)
        if self._arriving.is_unchanged(name, path):
            return False
        seen = strangers.look_at_name(path)
        if seen is None:
            return True
        if not self._arriving.is_settled(name, seen) and not self._arriving.is_overdue(name):
            return False
        dropped = strangers.look_at_dropped(path, self.limit + 1)
        if dropped is not None:
            self._refuse(name, dropped)
        return True

    def _refuse(self, name: str, dropped: Dropped) -> None:
        origin = origin_of(dropped, self._spool.clock.file_system(), self.limit)
        reason = self._other_faults(dropped) + misnamed.reason(name, dropped.uid)
        if dropped.data and self._shares.has_room(origin.uid, len(dropped.data)):
            self._shares.add(origin.uid, len(dropped.data), len(reason))
            suffix = f"@{origin.uid}-{origin.sha256[:8]}"
            self._spool.set_aside(misnamed.stem(name), dropped.data, reason, suffix=suffix)
        self._spool.refuse_name(name, reason, origin)
        self._shares.add(origin.uid, 0)
        self._seldom.info("refused: this is not the name of a submission", origin.uid, file=name, uid=origin.uid)
        DROPPED.add("refused")
        self._box.remove(name, dropped)

    def _other_faults(self, dropped: Dropped) -> str:
        if dropped.kind != "file":
            return f"this is a {dropped.kind}: a submission has to be a regular file that spoold may read. Also, "
        if dropped.links > 1:
            return "this is a file with a second name (a hard link): copy it instead. Also, "
        if len(dropped.data) > self.limit:
            return f"the file is larger than the {self.limit} bytes that are allowed. Also, "
        return ""
