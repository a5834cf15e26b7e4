"""Intake, the request handler: from the drop box into the spool.

Spec: spool-layout.md, "Acceptance", "Refusals" and "Cancelling". Intake owns ``incoming/``, the names in ``new/`` that
were never claimed, and submissions that are cancelled. ``dropbox`` tells which file is next. ``acceptance`` decides
about submissions, ``cancels`` about cancels, and ``misnamed`` about all other files.

However much is dropped at once, one step takes one short batch, in which owners take turns by time. All other files
wait where they are, also files for which their owner has no room in the spool. An entry of a newer version of spoold is
left alone. A client's file with the id of such an entry waits, and so does a cancel for it.

No event needs to be trusted. An upload that is still arriving does not parse, since a strict prefix of a JSON object
never does. So it is looked at again.

What fails: on a full disk, or with too little room left on it, the client's file stays where it is, for the next scan.
"""

from __future__ import annotations

from collections.abc import Iterable

from spoold.actors import Threadless
from spoold.actors.intake.acceptance import Acceptance
from spoold.actors.intake.arriving import Arriving
from spoold.actors.intake.cancels import Cancels
from spoold.actors.intake.dropbox import OF_THE_HOST, DropBox
from spoold.actors.intake.misnamed import Misnamed
from spoold.actors.intake.pins import KnownPins
from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.persons import Persons
from spoold.host.seldom import Seldom
from spoold.model import ids
from spoold.model.errors import LeaseLostError, NewerFormatError, TemporaryError
from spoold.model.ids import Hint, Private
from spoold.model.states import Role
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import mend
from spoold.spool.store import Spool
from spoold.upkeep.cancel import end_interrupted
from spoold.upkeep.depth import Measure
from spoold.upkeep.floor import Floor
from spoold.upkeep.shares import Shares

log = Log(Role.INTAKE)
BUSY = 0.2  # seconds until the next look at files that are still arriving
BATCH = 64  # files that one step looks at. Those taken in are made durable together, and then removed
LONG = 0.1  # seconds after which a step looks at no more files, so that newer ones get their turn
CROWDED = 1.0  # seconds until the next look at what owners have, while files wait for that
FULL = 1.0  # seconds between two looks while the disk is full


class Intake(Threadless):
    """The intake of one drop box. One thread at a time calls ``step``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spool = Spool(settings, Role.INTAKE)
        self._floor = Floor(settings, 1.0, "no file is taken in")
        self._persons = Persons()
        self._shares = Shares(settings, self._spool, self._persons.of)
        incoming, limit = self._spool.queue.path("incoming"), settings.spool.max_file
        clock = self._spool.clock
        self._arriving = Arriving(clock, self._persons.of, settings.spool.settle, settings.spool.upload)
        self._box = DropBox(incoming, clock, self._shares, limit, self._arriving)
        self._newer = LeftAlone(log)
        self._seldom = Seldom(log, clock)
        self._pins = KnownPins(settings, self._newer)
        self._acceptance = Acceptance(
            settings,
            self._spool,
            self._box,
            arriving=self._arriving,
            pins=self._pins,
            shares=self._shares,
            seldom=self._seldom,
        )
        self._misnamed = Misnamed(
            self._spool, self._box, limit, arriving=self._arriving, shares=self._shares, seldom=self._seldom
        )
        self._cancels = Cancels(settings, self._spool, self._box, self._arriving, self._seldom)
        self._measure_depth = Measure(self._spool.root, self._spool.clock, ["incoming"])

    def stop(self) -> None:
        """Do nothing: nothing is held between two steps."""

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings
        self._floor.apply_settings(settings)
        self._shares.apply_settings(settings)
        self._box.limit = self._misnamed.limit = settings.spool.max_file
        self._arriving.settle, self._arriving.upload = settings.spool.settle, settings.spool.upload
        self._acceptance.apply_settings(settings)
        self._pins.apply_settings(settings)

    def measure(self) -> None:
        """Measure the drop box, which only its owner may list. Another thread may call this."""
        self._measure_depth()

    def start(self) -> None:
        """Clear what an earlier intake left half done. The clients' files are all still there."""
        for name in fsops.names(self._spool.queue.path("tmp")):
            if name.endswith(Private.ENTRY):
                fsops.remove(self._spool.queue.path("tmp", name))
        mend(self._spool.queue, log)
        self._spool.queue.note_ids()
        end_interrupted(self._spool, self._newer)
        self._newer.tell()

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return ["incoming"]

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Take in a batch of the files that were seen.

        Return the seconds until the next scan, or 0 where more files wait.
        """
        self._pins.follow()
        self._shares.look()
        if hints is None:
            self._persons.look()
            end_interrupted(self._spool, self._newer)
            self._box.scan()
        else:
            self._box.see((hint.name for hint in hints), new=True)
        self._box.go_on()
        if self._floor.reached():
            self._cancel_some()
            return min(FULL, self._box.until_look)
        if not self._take_batch():
            return FULL
        return self._pause()

    def _pause(self) -> float:
        usual = BUSY if self._arriving else self._settings.spool.scan
        return min(CROWDED if self._box.crowded else usual, self._box.until_turn, self._box.until_look)

    def _take_batch(self) -> bool:
        """Take in files whose turn it is. Return False after an error of the host: all then wait for a scan."""
        try:
            self._take_some()
            self._acceptance.accept_checked()
        except OSError as error:
            log.error("no file can be taken in; all stay in incoming/ and are tried again", error=error)
            self._box.forget()
            return False
        finally:
            self._acceptance.remove_accepted()
            self._newer.tell()
        return True

    def _cancel_some(self) -> None:
        """Take only cancels, which make room, while there is no room to take anything in. Others are found again."""
        try:
            self._take_some(cancels=True)
        except OSError as error:
            log.error("no cancel can be carried out yet; cancels stay in incoming/ and are tried again", error=error)
        self._newer.tell()

    def _take_some(self, *, cancels: bool = False) -> None:
        began = last = self._spool.clock.monotonic()
        for _ in range(BATCH):
            name = self._box.take(cancels=cancels)
            if name is None:
                return
            worked = self._spool.clock.worked()
            if not self._try_to_take(name):
                self._box.charge_in_vain(self._spool.clock.worked() - worked)
            last, before = self._spool.clock.monotonic(), last
            self._box.charge(last - before)
            if last - began >= LONG:
                return

    def _try_to_take(self, name: str) -> bool:
        """Deal with a file. Return False where it stays where it is."""
        try:
            return self._take(name)
        except NewerFormatError as error:
            self._newer.meet(error)  # nobody here can read the entry, so files about it wait in incoming/
        except (TemporaryError, LeaseLostError) as error:
            log.debug("a file cannot be taken in yet; it stays in incoming/", file=name, error=error)
        except OSError as error:
            if error.errno in OF_THE_HOST:
                raise
            message = "a file could not be taken in; it stays in incoming/ and is tried again"
            self._seldom.error(message, error.errno, file=name, error=error)
        return False

    def _take(self, name: str) -> bool:
        if id_ := ids.cancelled_id(name):
            self._acceptance.accept_checked(id_)
            done = self._cancels.take(id_, name)
        elif id_ := ids.submission_id(name):
            done = self._acceptance.take(id_, name)
        else:
            done = self._misnamed.take(name)
        if done:
            self._arriving.forget(name)
        return done
