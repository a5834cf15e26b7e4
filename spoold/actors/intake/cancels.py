"""Cancels: files in the drop box that ask for the end of a submission.

Spec: spool-layout.md, "Cancelling". Only the owner of a submission and an operator can cancel it. A cancel of an
unknown submission waits for a while, since the submission may still lie in the drop box. A cancel of a running
submission waits for the answer of its executor.
"""

from __future__ import annotations

from spoold.actors.intake.arriving import Arriving
from spoold.actors.intake.dropbox import DropBox
from spoold.config import Settings
from spoold.host import strangers
from spoold.host.metrics import CANCELS
from spoold.host.seldom import Seldom
from spoold.model import ids
from spoold.spool.store import Spool
from spoold.upkeep.cancel import Cancelled, Canceller, operators


class Cancels:
    """The cancels in one drop box. Those that do nothing yet are remembered in ``arriving``."""

    def __init__(self, settings: Settings, spool: Spool, box: DropBox, arriving: Arriving, seldom: Seldom) -> None:
        self._box, self._arriving, self._seldom = box, arriving, seldom
        self._canceller = Canceller(settings, spool)

    def take(self, id_: str, name: str) -> bool:
        """Cancel a submission that is this owner's to cancel. Return False where the file stays.

        Every other cancel is removed after a while, so that it tells nobody which ids there are. A cancel does nothing
        if it is not a regular file, or has a second name.
        """
        dropped = strangers.look_at_dropped(self._box.path(name), len(id_) + len("\r\n") + 1)
        if dropped is None:
            return True
        if ids.owner_of(id_) not in (None, dropped.uid) and dropped.uid not in operators():
            self._box.remove(name, dropped)
            return True
        sound = dropped.kind == "file" and dropped.links == 1
        says_so = dropped.data.rstrip(b"\r\n") == id_.encode()
        came = self._canceller.cancel(id_, dropped.uid) if sound and says_so else Cancelled.UNKNOWN
        if came is Cancelled.WAITS:
            self._arriving.has_lain(name, dropped)  # so that it is looked at again soon
            return False
        if came is Cancelled.UNKNOWN:
            waits = sound and says_so and self._box.sought.may_lie(id_, dropped.uid)
            if not self._arriving.has_lain(name, dropped) or waits:
                return False
            reason = "this user has no such submission" if says_so else "the content of a cancel has to be the id"
            self._seldom.info("nothing is cancelled", dropped.uid, reason=reason, submission=id_, uid=dropped.uid)
        self._box.remove(name, dropped)
        CANCELS.add(came.name.lower())
        return True
