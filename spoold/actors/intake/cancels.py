"""Cancels: files in the drop box that want a submission ended.

Spec: spool-layout.md, "Cancelling". A cancel is its owner's to give, and an operator's. One that asks for what is
nowhere waits for a while, since its submission may lie in the drop box still. One that asks for what runs waits for
what its executor has to tell.
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
    """The cancels in one drop box; those that do nothing yet are remembered among what is ``arriving``."""

    def __init__(self, settings: Settings, spool: Spool, box: DropBox, arriving: Arriving, seldom: Seldom) -> None:
        self._box, self._arriving, self._seldom = box, arriving, seldom
        self._canceller = Canceller(settings, spool)

    def take(self, id_: str, name: str) -> bool:
        """Cancel what is its owner's to cancel. Everything else goes after a while, so that it tells nobody anything.

        What is no regular file, or one that may lie elsewhere too, does nothing. False where the file stays.
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
            reason = "no such submission of this user's" if says_so else "a cancel's content has to be the id"
            self._seldom.info("nothing is cancelled", dropped.uid, reason=reason, submission=id_, uid=dropped.uid)
        self._box.remove(name, dropped)
        CANCELS.add(came.name.lower())
        return True
