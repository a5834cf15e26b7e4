"""Intake, the request handler: from the drop box into the spool.

Spec: spool-layout.md, "Acceptance", "Refusals" and "Cancelling". It owns ``incoming/``, the names in ``new/`` that
were never claimed, and what is cancelled. It reads a dropped file once, into its own copy; what is checked is what is
stored, whatever the client does to its file afterwards; and only when the copy is durable is the client's file removed.

An upload that is still arriving does not parse (a strict prefix of a JSON object never does), so no event needs to be
trusted: a file that does not parse is looked at again, and given up only when it has not changed for the settle time.

However much is dropped at once, one step takes a batch, which is short, and in which owners take turns by time. More
waits where it is (see ``dropbox``), and so does what its owner has no room for in the spool. It leaves alone an entry
of a newer version of spoold. A client's file with the id of such an entry waits, and so does one that wants it
cancelled.

What fails: a full disk, or too little left of it, leaves the client's file where it is, for the next scan.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable

import msgspec

from spoold.actors import Threadless
from spoold.actors.intake.arriving import Arriving
from spoold.actors.intake.dropbox import OF_THE_HOST, DropBox
from spoold.config import Settings
from spoold.host import fsops
from spoold.host.fsops import Dropped, Identity
from spoold.host.log import Log
from spoold.host.metrics import CANCELS, DROPPED
from spoold.host.persons import Persons
from spoold.host.seldom import Seldom
from spoold.model import ids
from spoold.model.dropped import read_request
from spoold.model.errors import (
    ClientError,
    IncompleteError,
    LeaseLostError,
    NewerFormatError,
    OperatorError,
    TemporaryError,
)
from spoold.model.ids import Hint, Private
from spoold.model.states import Role, State
from spoold.model.submission import Origin, Request
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import mend
from spoold.spool.store import Spool, origin_of
from spoold.upkeep.cancel import Cancelled, cancel, end_interrupted, operators
from spoold.upkeep.depth import Measure
from spoold.upkeep.floor import Floor
from spoold.upkeep.shares import Shares

log = Log(Role.INTAKE)
NOBODY = Origin(uid=-1, gid=-1, sha256="", arrival=0)
BUSY = 0.2  # seconds until the next look at files that are still arriving
BATCH = 64  # files that one step looks at; those taken in are made durable together, and removed
LONG = 0.1  # seconds after which no more of them are looked at: what came meanwhile may have its turn
CROWDED = 1.0  # seconds until the next look at what owners have, while files wait for it
FULL = 1.0  # seconds between two looks while the disk is full


class Intake(Threadless):
    """One drop box's intake; ``step`` is called by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spool = Spool(settings, Role.INTAKE)
        self._builds = BuildStore(settings)
        self._pins = frozenset(settings.nixpkgs) | {"default"}
        self._pins_seen: Identity | None = None
        self._floor = Floor(settings, 1.0, "nothing is taken in")
        self._persons = Persons()
        self._shares = Shares(settings, self._spool, self._persons.of)
        incoming, limit = self._spool.queue.path("incoming"), settings.spool.max_file
        clock = self._spool.clock
        self._arriving = Arriving(clock, self._persons.of, settings.spool.settle, settings.spool.upload)
        self._box = DropBox(incoming, clock, self._shares, limit, self._arriving)
        self._taken: list[tuple[str, Dropped]] = []  # their entries are written, their names not durable yet
        self._newer = LeftAlone(log)
        self._seldom = Seldom(log, self._spool.clock)
        self._measure_depth = Measure(self._spool.root, self._spool.clock, ["incoming"])

    def stop(self) -> None:
        """Nothing is held between two steps."""

    def apply_settings(self, settings: Settings) -> None:
        """Go by other settings."""
        self._settings = settings
        self._floor.apply_settings(settings)
        self._shares.apply_settings(settings)
        self._box.limit = settings.spool.max_file
        self._arriving.settle, self._arriving.upload = settings.spool.settle, settings.spool.upload
        self._read_pins()

    def measure(self) -> None:
        """Measure the drop box, which only its owner may list; may be called by another thread."""
        self._measure_depth()

    def start(self) -> None:
        """Clear what an earlier intake left half done; the client's files are all still there."""
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
        """Take in a batch of the files that were seen; return seconds until the next scan, 0 where more is waiting."""
        self._follow_pins()
        self._shares.look()
        if hints is None:
            self._persons.look()
            end_interrupted(self._spool, self._newer)
            self._box.scan()
        else:
            self._box.see((hint.name for hint in hints), new=True)
        self._box.go_on()
        self._box.tell()
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
        """Take in files whose turn it is; False where the host is in the way, and all wait for the next scan."""
        try:
            self._take_some()
        except OSError as error:
            log.error("nothing can be taken in; what is in incoming/ stays there", error=error)
            self._box.forget()
            return False
        finally:
            self._let_go()
            self._newer.tell()
        return True

    def _cancel_some(self) -> None:
        """Do what makes room while there is none to take anything in. What can not be done yet is found again."""
        try:
            self._take_some(cancels=True)
        except OSError as error:
            log.error("nothing can be cancelled yet; it stays in incoming/", error=error)
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
        """Deal with a file; False where it stays where it is."""
        try:
            return self._take(name)
        except NewerFormatError as error:
            self._newer.meet(error)  # nobody here can tell whose that is; what asks about it waits in incoming/
        except (TemporaryError, LeaseLostError) as error:
            log.debug("a file has to wait; it stays in incoming/", file=name, error=error)
        except OSError as error:
            if error.errno in OF_THE_HOST:
                raise
            message = "could not take a file in; it stays in incoming/"
            self._seldom.error(message, error.errno, file=name, error=error)
        return False

    def _follow_pins(self) -> None:
        seen = fsops.identity(self._builds.runtime.path)
        if seen != self._pins_seen:
            self._read_pins()
            self._pins_seen = seen

    def _read_pins(self) -> None:
        self._pins = frozenset(self._settings.nixpkgs) | {"default"} | self._provided_pins()

    def _provided_pins(self) -> frozenset[str]:
        try:
            runtime = self._builds.runtime.read()
        except NewerFormatError as error:  # no request is refused for a pin that there may be
            self._newer.meet(error)
            with contextlib.suppress(OperatorError):
                return self._pins | self._builds.pins.added().keys()
            return self._pins
        return frozenset(runtime.nixpkgs if runtime else ())

    def _take(self, name: str) -> bool:
        if id_ := ids.cancelled_id(name):
            done = self._cancel(id_, name)
        else:
            done = self._take_submission(name, str(ids.submission_id(name)))
        if done:
            self._arriving.forget(name)
        return done

    def _cancel(self, id_: str, name: str) -> bool:
        """Cancel what is its owner's to cancel. Everything else goes after a while, so that it tells nobody anything.

        What is no regular file, or one that may lie elsewhere too, does nothing. False where the file stays.
        """
        path = self._spool.queue.path("incoming", name)
        dropped = fsops.look_at_dropped(path, len(id_) + len("\r\n") + 1)
        if dropped is None:
            return True
        if ids.owner_of(id_) not in (None, dropped.uid) and dropped.uid not in operators():
            self._remove(name, dropped)
            return True
        sound = dropped.kind == "file" and dropped.links == 1
        says_so = dropped.data.rstrip(b"\r\n") == id_.encode()
        came = cancel(self._spool, id_, dropped.uid) if sound and says_so else Cancelled.UNKNOWN
        if came is Cancelled.UNKNOWN:
            waits = sound and says_so and self._box.sought.may_lie(id_, dropped.uid)
            if not self._arriving.has_lain(name, dropped) or waits:
                return False
            reason = "no such submission of this user's" if says_so else "a cancel's content has to be the id"
            self._seldom.info("nothing is cancelled", dropped.uid, reason=reason, submission=id_, uid=dropped.uid)
        self._remove(name, dropped)
        CANCELS.add(came.name.lower())
        return True

    def _take_submission(self, name: str, id_: str) -> bool:
        """Accept or refuse a file; False where it still arrives."""
        path = self._spool.queue.path("incoming", name)
        if self._arriving.is_unchanged(name, path):
            return False
        dropped = fsops.look_at_dropped(path, self._settings.spool.max_file + 1)
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
                reason = f"{self._arriving.upload:g} s after it came it is still {error}"
            else:
                return False
            self._refuse(id_, name, dropped, reason)
        except ClientError as error:
            self._refuse(id_, name, dropped, str(error))
        else:
            self._accept(id_, name, dropped, request)
        return True

    def _read(self, dropped: Dropped) -> Request:
        if dropped.kind == fsops.UNREADABLE:  # whoever writes it may be about to change its mode
            raise IncompleteError("a file that spoold may not read here: make it readable for all (mode 0644)")
        if dropped.kind == fsops.LEASED:
            raise IncompleteError("a file on which someone holds a lease, so that it cannot be opened")
        if dropped.kind != "file":
            raise ClientError(f"this is a {dropped.kind}: a submission is a regular file")
        if dropped.links > 1:
            raise IncompleteError("a file with a second name (a hard link): copy it instead")
        limit = self._settings.spool.max_file
        if len(dropped.data) > limit:
            raise ClientError(f"the file is larger than the {limit} bytes that are allowed")
        if len(dropped.data) > (most := self._shares.most.bytes):
            raise ClientError(f"the file is larger than the {most:.0f} bytes that one user may have in the spool")
        return read_request(dropped.data, max_files=self._settings.spool.max_files, pins=self._pins)

    def _accept(self, id_: str, name: str, dropped: Dropped, request: Request) -> None:
        origin = origin_of(dropped, self._spool.clock.file_system())
        if not self._is_repeated(id_, origin):
            if self._spool.accept(id_, request, origin):
                self._shares.add(origin.uid, len(dropped.data), kept=False)
                DROPPED.add("accepted")
            elif not self._is_repeated(id_, origin):
                raise TemporaryError("another submission of this id was just here")
        self._taken.append((name, dropped))

    def _let_go(self) -> None:
        """Remove the clients' files that were taken in, once the names of their entries are durable."""
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        self._spool.sync_accepted()
        for name, dropped in taken:
            self._remove(name, dropped)

    def _refuse(self, id_: str, name: str, dropped: Dropped, reason: str) -> None:
        origin = origin_of(dropped, self._spool.clock.file_system())
        if not self._is_repeated(id_, origin):
            if dropped.data and self._shares.has_room(origin.uid, len(dropped.data)):
                self._shares.add(origin.uid, len(dropped.data), len(reason))
                self._spool.set_aside(id_, dropped.data, reason, suffix=f"@{origin.uid}-{origin.sha256[:8]}")
            self._spool.refuse(id_, reason, origin)
            self._shares.add(origin.uid, 0)
            log.info("refused", submission=id_, uid=origin.uid, reason=reason)
            DROPPED.add("refused")
        self._remove(name, dropped)

    def _refuse_name(self, id_: str, name: str, dropped: Dropped) -> None:
        """Remove a file whose id is not for its owner to use, be it there whole or not, and leave the id free.

        It is answered where its owner has room for that: who has none may not keep the name for it.
        """
        if self._shares.has_room(dropped.uid):
            owner = ids.owner_of(id_)
            reason = f"an id that begins with {owner}. is user {owner}'s: choose another file name"
            self._spool.refuse_reuse(id_, reason, origin_of(dropped, self._spool.clock.file_system()))
            self._shares.add(dropped.uid, 0)
        self._seldom.info("refused: the id is another user's", dropped.uid, submission=id_, uid=dropped.uid)
        DROPPED.add("refused")
        self._remove(name, dropped)

    def _is_repeated(self, id_: str, origin: Origin) -> bool:
        """Tell whether the id is used; answer whatever is not the same submission again, in words that tell no more.

        Raises :class:`TemporaryError` while the last file of an earlier submission is being removed.
        """
        earlier = self._find(id_)
        if earlier is None:
            if fsops.exists(self._spool.queue.path(State.DONE, ids.response_name(id_))):
                raise TemporaryError("an earlier response of this id is being removed")
            return False
        if (earlier.uid, earlier.sha256) == (origin.uid, origin.sha256):
            self._seldom.info("dropped again; it is the same submission", origin.uid, submission=id_)
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
                continue  # it moved on while we looked, which it can do only so often
            except msgspec.DecodeError:
                return NOBODY  # nobody can tell whose it is, so it is another's
        return None

    def _remove(self, name: str, dropped: Dropped) -> None:
        path = self._spool.queue.path("incoming", name)
        if dropped.kind == "directory":
            aside = f".{name}@{secrets.token_hex(4)}.directory"
            fsops.clear_directory(path, self._spool.queue.path("incoming", aside))
        else:
            fsops.remove_dropped(path, dropped)
