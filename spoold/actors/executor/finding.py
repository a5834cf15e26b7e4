"""Finding: the entries that there are for an executor, by a scan of its directories or by the names of events.

Spec: spool-layout.md, "Transitions" and "Overload". A hint is only a name. The entry is looked at like any other. A
scan finds what no event told, and what an earlier executor had, since nothing of that is written down anywhere else.

A million entries may wait. So a scan goes on in parts, and rests after each part while there is work. Jobs that it has
found so far already begin. Only the oldest entries of each owner are remembered (``backlog``). Not thread-safe.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable

from spoold.actors.executor.answering import Answering
from spoold.actors.executor.backlog import Backlog
from spoold.actors.executor.building import Building
from spoold.actors.executor.line import Line
from spoold.actors.executor.peers import Peers
from spoold.actors.executor.ready import WAITING, Place
from spoold.actors.executor.seen import FOUND, TOLD, AllSeen
from spoold.config import Settings
from spoold.host import attributes, fsops
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.ids import Entry, Hint
from spoold.model.states import Kind, Role, State
from spoold.spool.recovery import drop_double
from spoold.spool.store import Spool

log = Log(Role.EXECUTOR)
BEGUN, BUILT = (Kind.BUILD.directory(state) for state in (State.BUILDING, State.DONE))
PART = 0.01  # seconds of one part of a scan while there is work
FIRST = 0.2  # seconds of one part while there is none: the oldest entries found by then begin
REST = 18.0  # while there is work, the scan rests this many times as long as a part took
QUICK = 0.05  # seconds of CPU time: a whole scan that took no more needs no rest
LONG_REST = 100.0  # after a whole scan no other begins for this many times the CPU time of all its parts
LONGEST_REST = 60.0  # seconds
LOOK = 256  # names between two looks at the clock
AHEAD = 256  # entries of one owner that wait to be read at a time
GRACE = 0.05  # seconds that an entry is left to each executor that comes before this one
LONGEST_GRACE = 1.0  # seconds that it is left to all of them
OLD_GRACE = 0.005  # in place of ``GRACE`` for an entry older than that, which those before this one had time for
QUICKLY = 0.001  # seconds that hints wait after some that were wanted, so that each reading has several
PATIENCE = 0.0025  # seconds, for each executor, that hints wait after some for others, or while there is work
LONGEST_PATIENCE = 0.025  # seconds: less than ``GRACE``, or others would look at this executor's entries meanwhile
FEW = 4  # of other executors' entries, how many are noted of one owner, for each slot
AGAIN = 0.1  # seconds at least until an executor without work looks for more entries of others
SELDOM = 1.0  # seconds, for each executor, until one with work looks whether it still has any
FED = 0.5  # seconds between two looks whether there is more room in line


class Finder:
    """Finds the entries in ``spool`` and the news of builds that none of the objects given knows yet."""

    watched = (State.NEW, BEGUN, BUILT)  # directories below the spool's root in which a change is worth a step

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        *,
        seen: AllSeen,
        line: Line,
        building: Building,
        answering: Answering,
    ) -> None:
        self._queue, self._clock = spool.queue, spool.clock
        self._peers = Peers(spool.queue.path("tmp"), settings.executor.process, settings.lease, spool.clock)
        self._few = FEW * settings.executor.slots
        self._seen = seen
        self._line = line
        self._building = building
        self._answering = answering
        self.backlog = Backlog(lambda entry: seen.person_of(entry, FOUND))
        self._scan: Generator[None, None, None] | None = None
        self._persons: dict[str, int] = {}  # by how names of entries tell their owners, as far as this scan met them
        self._spent = 0.0  # seconds of CPU time that the present scan took so far
        self._rests_until = 0.0
        self._more_elsewhere = False  # others have more entries than the few that are noted
        self._again = 0.0  # when to look for these
        self._passed: dict[int, int] = {}  # by person: hints for others that were let through and are not noted yet
        self._enough: set[str] = set()  # how names tell the owners of whom no more of these are let through

    # -- by a scan

    def begin(self) -> None:
        """Begin a scan, unless one goes on, or rests."""
        if self._scan is None and self._clock.monotonic() >= self._rests_until:
            self._begin()

    def _begin(self) -> None:
        self._scan, self._spent, self._rests_until, self._more_elsewhere = self._parts(), 0.0, 0.0, False
        self._persons.clear()
        self.backlog.begin()

    def go_on(self) -> None:
        """Go on with a scan, where one is due. Pass on what was found, the oldest of each owner first."""
        if self._peers.look():  # entries that were others' may be this executor's now
            self._rests_until = 0.0
            self.begin()
        if self._scan is None and (self.backlog.is_low or self._wants_others()):
            self._begin()
        if self._scan is not None and (self._hurries or self._clock.monotonic() >= self._rests_until):
            try:
                self._do_a_part(self._scan)
            except OSError:
                self.close()
                raise
        if self.backlog:
            self.backlog.feed(self._has_room, lambda place: self._see(place, FOUND))

    def _wants_others(self) -> bool:
        """Tell whether there is nothing to do while others may have entries that they have not come to."""
        return self._more_elsewhere and self._hurries and self._clock.monotonic() >= self._again

    def _do_a_part(self, scan: Generator[None, None, None]) -> None:
        hurries = self._hurries
        began, worked = self._clock.monotonic(), self._clock.worked()
        until = began + (FIRST if hurries else PART)
        for _ in scan:
            if self._clock.monotonic() >= until:
                break
        else:
            self._end()
        now = self._clock.monotonic()
        self._spent += self._clock.worked() - worked
        self._again = now + max(AGAIN, REST * self._spent * self._peers.count)
        if self._scan:
            self._rests_until = 0.0 if hurries else now + REST * (now - began)
        elif self._spent > QUICK:
            self._rests_until = now + min(LONGEST_REST, LONG_REST * self._spent)

    def _end(self) -> None:
        self._scan = None
        self.backlog.end(whole=True)
        self._building.take_results()

    def close(self) -> None:
        """Give up the present scan, if there is one."""
        if self._scan is not None:
            self._scan.close()
            self._scan = None
            self.backlog.end(whole=False)

    @property
    def _hurries(self) -> bool:
        """Tell whether finding something is all that there is to do."""
        return self._line.idle and not self._seen

    @property
    def pause(self) -> float:
        """Return the seconds after which ``go_on`` may have something to do, 0 where it has now."""
        if self._scan is not None:
            return 0.0 if self._hurries else max(0.0, self._rests_until - self._clock.monotonic())
        if self._more_elsewhere:
            return max(AGAIN, self._again - self._clock.monotonic()) if self._hurries else SELDOM * self._peers.count
        return FED if self.backlog else LONGEST_REST

    def _parts(self) -> Generator[None, None, None]:
        """Scan all states. Yield after each part, and close what is open when no more is wanted."""
        for state in WAITING:
            yield from self._parts_of(state)

    def _parts_of(self, state: State) -> Generator[None, None, None]:
        seen, line, backlog = self._seen.names(state), self._line.names(state), self.backlog.names(state)
        in_line_before = set(line) if self._line.keeps_room else frozenset[str]()
        left_before = set(self._seen.left(state))
        before = left_before | in_line_before
        met, news = set(), list[os.DirEntry[str]]()
        for number, found in enumerate(fsops.scan(self._queue.path(state)), 1):
            name = found.name
            if name in before:
                met.add(name)
            if not (name in seen or name in line or name in backlog):
                news.append(found)
            if number % LOOK == 0:
                self._find(state, news)
                yield
        self._find(state, news)
        self._seen.forget(state, left_before - met)
        if in_line_before:
            self._line.keep_present(state, self._line.names(state) - (in_line_before - met))

    def _find(self, state: State, news: list[os.DirEntry[str]]) -> None:
        """Let entries wait in the backlog, or leave them to others, and clear the list."""
        aged = []
        for found in news:
            person = self._person_behind(found.name)
            if person is None or not self.backlog.needs(person):
                continue
            if state is State.BUILDING and not self._is_news(found.name):  # a million may be in new/, where few are not
                continue
            rank = self._peers.rank(ids.first_part(found.name))
            if rank and not self._seen.has_room_later(person, self._few):
                self._more_elsewhere = True
            elif (
                (mtime := self._mtime(state, found)) is not None
                and (rank or self.backlog.has_room(person, mtime))
                and (entry := self._is_news(found.name))
            ):
                aged.append((mtime, entry, rank))
        news.clear()
        aged.sort(key=lambda each: (each[0], each[1][:2]))  # by name where mtimes are equal
        for mtime, entry, rank in aged:
            if rank:
                is_old = mtime < self._clock.nearly() - LONGEST_GRACE
                self._leave(Place(state, entry), (OLD_GRACE if is_old else GRACE) * rank)
            else:
                self.backlog.add(state, entry, mtime)

    def _is_news(self, name: str) -> Entry | None:
        """Return the entry with this name, None where it waits here already or the name is no entry's."""
        entry = ids.parse_entry(name)
        return None if entry is None or entry in self._building or entry in self._answering else entry

    def _person_behind(self, name: str) -> int | None:
        """Return the person who owns an entry, None where a name is no entry's. A million names may be of one owner."""
        told = ids.owner_part(name)
        person = self._persons.get(told)
        if person is None and (entry := ids.parse_entry(name)):
            person = self._persons[told] = self._seen.person_of(entry, FOUND)
        return person

    def _mtime(self, state: State, found: os.DirEntry[str]) -> float | None:
        """Return an entry's mtime, None where it is gone. Leave it one name if a loss of power left it two."""
        facts = attributes.mtime_and_links(found)
        if facts and facts[1] > 1 and (entry := ids.parse_entry(found.name)):
            drop_double(self._queue, state, entry, log)
            facts = attributes.mtime_and_links(found.path)
        return facts[0] if facts else None

    def _leave(self, place: Place, grace: float) -> None:
        """Note an entry that is left to others for so many seconds, unless enough of its owner's are noted."""
        if not self._seen.see_later(place, self._clock.monotonic() + min(LONGEST_GRACE, grace), self._few):
            self._more_elsewhere = True

    def _has_room(self, person: int, entry: Entry, since: float) -> bool:
        coming = self._seen.count(person)
        return coming < AHEAD and self._line.has_room(person, entry, since, coming)

    # -- by the name of an event

    def wants(self, hint: Hint) -> bool:
        """Tell whether a hint is worth a step. Most hints for other executors are not. Any thread may call this."""
        if self._peers.count == 1 or hint.directory != State.NEW:
            return True
        if not self._peers.rank(ids.first_part(hint.name)):
            return True
        told = ids.owner_part(hint.name)
        if told in self._enough:
            return False
        entry = ids.parse_entry(hint.name)
        if entry is None:
            return True
        person = self._seen.person_of(entry, FOUND)
        passed = self._passed.get(person, 0)
        if passed < self._few and self._seen.has_room_later(person, self._few):
            self._passed[person] = passed + 1
            return True
        known, self._more_elsewhere = self._more_elsewhere, True
        self._enough.add(told)
        return not known

    def patience(self, wanted: bool) -> float:
        """Return how many seconds hints may wait after some, told whether any was wanted. Any thread may call this.

        The more executors there are, the more hints come for others. Few wake-ups with many hints cost less than many
        with few. There is no hurry while something is in line.
        """
        if wanted and self._line.idle:
            return QUICKLY
        return min(LONGEST_PATIENCE, PATIENCE * self._peers.count)

    def heed(self, hints: Iterable[Hint]) -> int:
        """Note the entries that hints name, and what they tell of builds. Return how many hints there were."""
        count = 0
        self._passed.clear()
        self._enough.clear()
        for hint in hints:
            count += 1
            entry = ids.parse_entry(hint.name)
            if hint.directory == BUILT:
                self._building.take_results([hint.name.removesuffix(ids.response_name(""))])
            elif entry and hint.directory == BEGUN:
                self._building.begun(entry.id)
            elif entry and entry not in self._answering:
                self._heed(Place(State.NEW, entry))
        return count

    def _heed(self, place: Place) -> None:
        if not (rank := self._peers.rank(place.entry.id)):
            self._see(place, TOLD)
        elif not self._line.has(place):
            self._leave(place, GRACE * rank)

    def _see(self, place: Place, unnamed: int) -> None:
        known = self._line.has(place) or (place.state is State.BUILDING and place.entry in self._building)
        if not known and not self._seen.see(place, unnamed):
            self.backlog.miss(place.entry)
