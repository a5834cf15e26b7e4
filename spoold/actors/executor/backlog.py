"""The backlog: names of entries that wait to be read. A scan found them, or the line had no room for them.

Spec: spool-layout.md, "Overload". A million may wait, so only the oldest of each owner are kept here. For an owner who
has more, only the fact that there are more is kept. A scan finds the next ones when few are left here. An owner is a
person.

Nothing here survives the process: all of it is found again in the spool. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from spoold.actors.executor.ready import WAITING, Place
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.turns import BestTurns

MOST = 32_768  # names of all owners together
Found = tuple[State, str]


class Backlog:
    """The names that wait to be read. ``person`` returns the person behind an entry."""

    def __init__(self, person: Callable[[Entry], int]) -> None:
        self._person = person
        self._names: dict[State, set[str]] = {state: set() for state in WAITING}
        self._turns: BestTurns[Found] = BestTurns(MOST)
        self._more: set[int] = set()  # persons who have more in the spool than is known
        self._more_before: set[int] = set()  # persons who were known to have more before the present scan
        self._enough: set[int] = set()  # persons who have more, but for whom the present scan need not look

    def __bool__(self) -> bool:
        """Tell whether any name waits here."""
        return bool(self._turns)

    def names(self, state: State) -> AbstractSet[str]:
        """Return the names of the entries from ``state`` that wait here."""
        return self._names[state]

    def add(self, state: State, entry: Entry, since: float) -> None:
        """Let an entry in ``state`` wait, unless its owner has enough older ones. ``since`` tells how old it is."""
        name, person = ids.entry_name(state, entry), self._person(entry)
        self._names[state].add(name)
        for _, (of, gone) in self._turns.admit(person, (state, name), since=since):
            self._names[of].discard(gone)
            self._more.add(person)

    def miss(self, entry: Entry) -> None:
        """Note that an entry is nowhere here, so that a scan has to find it."""
        self._more.add(self._person(entry))

    def needs(self, person: int) -> bool:
        """Tell whether the present scan has to find entries of this person, since there may be too few here."""
        return person not in self._enough

    def has_room(self, person: int, since: float) -> bool:
        """Tell whether there is room for an entry as old as ``since``. If not, note that there is more."""
        if self._turns.has_room(person, since):
            return True
        self._more.add(person)
        return False

    @property
    def is_low(self) -> bool:
        """Tell whether a scan has to find more of somebody's entries."""
        return any(self._has_few(person) for person in self._more)

    def _has_few(self, person: int) -> bool:
        return self._turns.count(person) < self._turns.most // 2

    def begin(self) -> None:
        """Note that a scan begins."""
        self._more_before = self._more
        self._enough = {person for person in self._more if not self._has_few(person)}
        self._more = set(self._enough)

    def end(self, *, whole: bool) -> None:
        """Note that the scan has ended. A ``whole`` one met all entries that there are."""
        if not whole:
            self._more |= self._more_before

    def feed(self, has_room: Callable[[int, Entry, float], bool], see: Callable[[Place], None]) -> None:
        """Pass the oldest entries of each owner to ``see``, as long as ``has_room`` has room for more of theirs."""
        for person in list(self._turns.owners()):
            while self._turns.has(person):
                state, name = self._turns.next_of(person)
                entry = ids.parse_entry(name)
                if entry and not has_room(person, entry, self._turns.next_since(person)):
                    break
                self._turns.take_from(person)
                self._names[state].discard(name)
                if entry:
                    see(Place(state, entry))
