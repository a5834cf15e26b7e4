"""Names of one person in the drop box beyond what anybody needs. Intake, who owns the drop box, removes them.

Spec: spool-layout.md, "Overload". Nobody can be kept from making files there, and each costs time whenever all names
are looked through. So of the names that are not remembered only a number of each person's stay, the oldest ones.
Uploads in progress are counted apart from files that are to be answered. A young upload, which changed a short while
ago, stays even then, up to ``FAR`` times as many. Owners are only asked for where there are many names at all. Not
thread-safe.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from spoold.host import attributes, strangers
from spoold.host.clock import Clock
from spoold.host.seldom import Seldom
from spoold.model import ids

MOST_FILES = 50_000  # files of one person that are to be answered, and cancels, beside those that are remembered
MOST_OTHERS = 10_000  # uploads in progress of one person
MOST_NOTED = 10_000  # names noted for removal. The next look through all finds those that are forgotten
FAR = 2  # beyond this many times as many, uploads go even if they are young
YOUNG = 60.0  # seconds since the last change of an upload that still goes on, at most


class _Name(NamedTuple):
    """A name that lies there. The newest sorts first."""

    age: int  # the time of its last change in ns, negative
    name: str
    place: attributes.Owned


class _Kept(NamedTuple):
    """The names of one person that stay. On top of each heap is the name to remove first."""

    files: list[_Name]
    others: list[_Name]


class Surplus:
    """The names that are too many, found in one look through all names.

    ``owned`` returns the owner of a name, ``path`` its path.
    """

    def __init__(
        self,
        clock: Clock,
        person: Callable[[int], int],
        owned: Callable[[str], attributes.Owned | None],
        path: Callable[[str], str],
        seldom: Seldom,
    ) -> None:
        self._clock, self._person, self._owned, self._path, self._seldom = clock, person, owned, path, seldom
        self.noted: deque[_Name] = deque(maxlen=MOST_NOTED)
        self._have_most: set[int] = set()  # persons
        self._removed: Counter[int] = Counter()  # by person
        self.begin()

    def begin(self) -> None:
        """Begin a look through all names."""
        self._few: list[str] | None = []  # the first names. None once there are so many that owners are asked for
        self._kept: dict[int, _Kept] = {}

    def meet(self, name: str) -> None:
        """Note a name that is not remembered elsewhere. Remove what is too much."""
        if self._few is None:
            self._weigh(name)
            return
        self._few.append(name)
        if len(self._few) > MOST_OTHERS:
            few, self._few = self._few, None
            for each in few:
                self._weigh(each)

    def _weigh(self, name: str) -> None:
        place = self._owned(name)
        if place is None:
            return
        kept = self._kept.setdefault(self._person(place.uid), _Kept([], []))
        is_upload = ids.is_upload_in_progress(name)
        heap, most = (kept.others, FAR * MOST_OTHERS) if is_upload else (kept.files, MOST_FILES)
        heapq.heappush(heap, _Name(-place.changed_ns, name, place))
        if len(heap) > most:
            self._remove(heapq.heappop(heap))

    def end(self) -> int:
        """Remove the uploads that are too many and not young, and log all removals.

        Return how many names were removed in this look.
        """
        old = (self._clock.nearly() - YOUNG) * 1e9
        for kept in self._kept.values():
            for _ in range(len(kept.others) - MOST_OTHERS):
                newest = heapq.heappop(kept.others)
                if newest.place.changed_ns < old:
                    self._remove(newest)
        for person, count in self._removed.items():
            message = (
                "removed files of a user from incoming/, beyond what one user may have there (see Overload in "
                "spool-layout.md)"
            )
            self._seldom.info(message, person, uid=person, files=count)
        self._have_most = {person for person, kept in self._kept.items() if len(kept.files) == MOST_FILES}
        removed = self._removed.total()
        self._removed.clear()
        self.begin()
        return removed

    def has_most(self, person: int) -> bool:
        """Tell whether a person had the most files allowed at the last look through all names."""
        return person in self._have_most

    def note(self, name: str, place: attributes.Owned) -> None:
        """Note a name to remove after other persons' names were looked at."""
        self.noted.append(_Name(-place.changed_ns, name, place))

    def remove_noted(self, seconds: float) -> None:
        """Remove names that were noted, for ``seconds``."""
        until = self._clock.monotonic() + seconds
        while self.noted and self._clock.monotonic() < until:
            self._remove(self.noted.popleft())

    def _remove(self, found: _Name) -> None:
        try:
            if strangers.remove_of(self._path(found.name), found.place.uid):
                self._removed[self._person(found.place.uid)] += 1
        except OSError as error:  # a directory that is not empty is for its owner to remove
            message = "a file in incoming/ beyond what one user may have there could not be removed"
            self._seldom.error(message, error.errno, file=found.name, error=error)
