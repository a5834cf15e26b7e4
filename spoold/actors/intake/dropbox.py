"""The drop box as intake sees it: the files that lie there, and which of them is next.

Spec: spool-layout.md, "Overload" and "Shares". Files are remembered by name, up to a number for each owner. Owners take
turns by the time that their files take. An owner is a person, with all uids that are theirs. Anybody can put a million
names there. So the names are looked through a part at a time, and other owners' files are taken in between. A file for
which its owner has no room stays where it is. So does a name that cannot be looked at: its owner may have mounted
something over it (FUSE), and that must not delay anybody else.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
from collections.abc import Iterable, Iterator

from spoold.actors.intake.arriving import Arriving
from spoold.actors.intake.rests import Rests
from spoold.actors.intake.sought import Sought
from spoold.actors.intake.surplus import Surplus
from spoold.host import attributes, strangers
from spoold.host.attributes import Owned
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.host.seldom import Seldom
from spoold.host.strangers import Dropped
from spoold.model import ids
from spoold.model.levels import Levels
from spoold.model.states import Role
from spoold.model.turns import Turns
from spoold.upkeep.shares import Shares

log = Log(Role.INTAKE)
MOST = 50_000  # files of one owner whose names are remembered. A look through all names finds the others later
PART = 1_000  # names that are looked at between two looks at the clock
LOOKING = 0.1  # seconds of one step that go into looking
REST = 4.0  # after a look that took longer than ``LONG``, the next one waits this many times as long
LONG = 0.1  # seconds
LONG_NAME = 200  # bytes of a directory's name that are kept in its new name
OF_THE_HOST = {errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # no other file fares better


class DropBox:
    """The names in the directory ``path``. Files that are ``arriving`` and are gone are forgotten here."""

    def __init__(self, path: str, clock: Clock, shares: Shares, limit: int, arriving: Arriving) -> None:
        self.limit = limit  # bytes of one file that are ever kept
        self._path = os.path.join(path, "")
        self._clock = clock
        self._shares = shares
        self._person = arriving.person
        self._waiting: Turns[tuple[str, Owned]] = Turns(MOST)
        self._levels = Levels()
        self._rests = Rests(clock)
        self._arriving = arriving
        self._seen: set[str] = set()  # the names that wait
        self._last: int | None = None  # the person whose turn it was last
        self.sought = Sought(self._uid_of)
        self._seldom = Seldom(log, clock)
        self._surplus = Surplus(clock, arriving.person, self.owned, self.path, self._seldom)
        self._survey: Iterator[None] | None = None
        self._wanted = False  # another survey is wanted: the present one may have passed the name
        self._rests_until = 0.0  # on the monotonic clock
        self._took = 0.0  # seconds that the survey took
        self._names = 0  # names that it met
        self.crowded = False  # something stays there for want of room in its owner's share

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return self._path + name

    def remove(self, name: str, dropped: Dropped) -> None:
        """Remove a file that was dealt with, unless another file has its name by now.

        A directory that is not empty is renamed instead.
        """
        if dropped.kind == "directory":
            start = os.fsdecode(os.fsencode(name)[:LONG_NAME])
            aside = f".{start}@{secrets.token_hex(4)}.directory"
            strangers.clear_directory(self.path(name), self.path(aside))
        else:
            strangers.remove_dropped(self.path(name), dropped)

    def owned(self, name: str) -> Owned | None:
        """Return who owns the thing called ``name``. None where it is gone, or cannot be looked at.

        Raises :class:`OSError` after an error of the host that concerns all files.
        """
        try:
            return attributes.owner(self.path(name))
        except OSError as error:
            if error.errno in OF_THE_HOST:
                raise
            self._seldom.error("ignored: a file in incoming/ cannot be looked at", error.errno, file=name, error=error)
            return None

    def _uid_of(self, name: str) -> int | None:
        place = self.owned(name)
        return place.uid if place else None

    def scan(self) -> None:
        """Ask for a look through all names. It begins after the one that goes on, and after a pause."""
        self._wanted = True

    def go_on(self) -> bool:
        """Look at the next parts of the names, for ``LOOKING`` seconds. Return True when the look through all is over.

        Where more events come than the kernel keeps, only this finds a file. So no owner's names may take long.
        """
        self._surplus.remove_noted(LOOKING)
        began, took, is_last = self._clock.monotonic(), 0.0, False
        if self._survey is None:
            if not self._wanted or began < self._rests_until:
                return False
            self._survey, self._took, self._wanted = self._look_through(), 0.0, False
            self._names = 0
            self.sought.begin()
        while not is_last and took < LOOKING:
            is_last = next(self._survey, self) is self
            took = self._clock.monotonic() - began
        self._took += took
        if is_last:
            self._survey = None
            self.sought.end()
            removed = self._surplus.end()
            self._wanted |= removed > 0
            self._took *= 1 - removed / max(1, self._names)  # no rest for removed names, or more would come than go
            self._rests_until = self._clock.monotonic() + (REST * self._took if self._took > LONG else 0.0)
        return is_last

    @property
    def until_turn(self) -> float:
        """Return the seconds until the next turn of something that waits, infinity where nothing waits."""
        return min(map(self._rests.left, self._waiting.owners()), default=math.inf)

    @property
    def until_look(self) -> float:
        """Return the seconds until there are more names to look at, infinity where no look is wanted."""
        if self._survey is not None or self._surplus.noted:
            return 0.0
        return max(0.0, self._rests_until - self._clock.monotonic()) if self._wanted else math.inf

    def _look_through(self) -> Iterator[None]:
        crowded = False
        with os.scandir(self._path) as entries:
            part = []
            for entry in entries:
                part.append(entry.name)
                if len(part) >= PART:
                    crowded |= self._look_at(part)
                    part = []
                    yield
        self.crowded = self._look_at(part) or crowded
        for at, name in enumerate(self._arriving.names()):
            if self.owned(name) is None:
                self._arriving.forget(name)
            if at % PART == PART - 1:
                yield

    def _look_at(self, part: list[str]) -> bool:
        crowded = self.see(part)
        self._names += len(part)
        for name in part:
            if name not in self._seen:
                self._surplus.meet(name)
        return crowded

    def see(self, names: Iterable[str], *, new: bool = False) -> bool:
        """Let files wait for their turn, each owner's oldest first. Return whether some have no room.

        Files that are ``new``, and of an owner who has too many here, may be removed soon.
        """
        found, crowded = [], False
        for name in names:
            if ids.is_upload_in_progress(name):
                continue
            self.sought.meet(name)
            if name in self._seen:
                continue
            if place := self.owned(name):
                found.append((place.changed_ns, name, place))
        for _, name, place in sorted(found, key=lambda each: each[:2]):
            urgent = ids.cancelled_id(name) is not None  # an owner with many files here may want them ended
            if not self._fits(name, place):
                crowded = True
                continue
            person = self._person(place.uid)
            if not self._waiting.has(person):
                self._levels.come(person)
            if self._waiting.add(person, (name, place), priority=int(urgent)):
                self._seen.add(name)
            elif new and self._surplus.has_most(person):
                self._surplus.note(name, place)
        self.crowded |= crowded
        return crowded

    def _fits(self, name: str, place: Owned) -> bool:
        """Tell whether a file may be taken in now.

        That is also true for a file that can never have room, since it is refused, and for a file that holds another
        user's id.
        """
        length = min(place.length, self.limit + 1)
        never = length > self._shares.most.bytes
        id_ = ids.submission_id(name)
        holds = id_ is not None and not ids.may_use(id_, place.uid)
        if ids.cancelled_id(name) is not None or holds or never or self._shares.has_room(place.uid, length):
            return True
        self._shares.tell(place.uid, "files wait in incoming/")
        return False

    def take(self, *, cancels: bool = False) -> str | None:
        """Take the name whose turn it is: of all names, or of ``cancels`` alone. None where no such name waits."""

        def may(person: int) -> bool:  # an owner's cancels stand first
            name, _ = self._waiting.next_of(person)
            return not self._rests.left(person) and (not cancels or ids.cancelled_id(name) is not None)

        while (person := self._waiting.first(self._levels.level, may)) is not None:
            name, place = self._waiting.take_from(person)
            self._seen.discard(name)
            if self._fits(name, place):
                self._levels.serve(person)
                self._last = person
                return name
            self.crowded = True
        return None

    def charge(self, seconds: float) -> None:
        """Charge the owner of the name that was taken last with the time that it took."""
        if self._last is not None:
            self._levels.charge(self._last, seconds)

    def charge_in_vain(self, worked: float) -> None:
        """Let the owner of the name that was taken last wait, since it stays. ``worked`` is in seconds of CPU time."""
        if self._last is not None:
            self._rests.charge(self._last, worked)

    def forget(self) -> None:
        """Forget all names that wait. They are found again."""
        self._waiting.clear()
        self._seen.clear()
