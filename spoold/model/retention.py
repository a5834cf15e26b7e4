"""Decides how long finished submissions are kept: by age, number, size and free space, and by what each owner has.

Spec: spool-layout.md, "Retention". Pure: a sweep counts, this module decides what goes, the sweep removes. If there is
no room, answers go from the owner who has the most. So nobody's answers push out another owner's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec

from spoold.model.setting import setting

GRAIN = 60.0  # seconds that count as one age, for the first FINE ages
FINE = 180
STEPS = 64  # ages told apart in each doubling beyond FINE: memory is for owners, not for answers
NEARLY = 0.95  # of a share: an owner with more than this gets room again
AGAIN = 0.75  # of a share: an owner is brought down to this


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long finished submissions are kept. The oldest go first from ``done/``. 0 switches a rule off.

    Where something has to go before its ``max_age``, it goes from the owner who has the most.
    """

    max_age: Annotated[float, setting("remove submissions that ended longer ago than this", "seconds", ge=0)] = (
        30 * 86400.0
    )
    max_count: Annotated[int, setting("how many answers are kept at most", ge=0)] = 1_000_000
    max_size: Annotated[int, setting("how much disk the answers may take together", "bytes", ge=0)] = 16 * 1024**3
    min_age: Annotated[
        float,
        setting(
            "an answer is kept for this long whatever the other rules say, so that it can be fetched. It can go "
            "earlier only if the disk is full and its owner has a quarter of it",
            "seconds",
            ge=0,
        ),
    ] = 3600.0
    min_free: Annotated[
        int, setting("how much of the spool's disk should be free; on a small disk, a fifth of it", "bytes", ge=0)
    ] = 512 * 1024**2
    quarantine_age: Annotated[
        float, setting("the max_age of quarantine/; the other rules apply there as well", "seconds", ge=0)
    ] = 90 * 86400.0
    interval: Annotated[float, setting("how often these rules are applied; 0 means never", "seconds", ge=0)] = 600.0
    archive: Annotated[
        list[str],
        setting(
            "a command to run before files are removed. It gets their names on standard input, one a line, and the "
            "files are in its working directory. If it fails, the files stay"
        ),
    ] = []
    archive_timeout: Annotated[
        float, setting("how long the archive command may take; after that it has failed", "seconds", gt=0)
    ] = 300.0


class Amount(NamedTuple):
    """A number of entries, and the bytes of the disk that they take."""

    entries: float = 0
    bytes: float = 0


ENTRIES, BYTES = 0, 1  # places in an amount
NOTHING = Amount()
WITHOUT_END = Amount(math.inf, math.inf)


class Holding:
    """The amounts that one owner has, by age."""

    def __init__(self) -> None:
        self.ages: dict[int, Amount] = {}
        self.total = NOTHING

    def add(self, age: int, size: int) -> None:
        """Count one entry of this age (see :func:`age_of`)."""
        before = self.ages.get(age, NOTHING)
        self.ages[age] = Amount(before.entries + 1, before.bytes + size)
        self.total = Amount(self.total.entries + 1, self.total.bytes + size)

    @property
    def oldest(self) -> int:
        """Return the highest age. There has to be an entry."""
        return max(self.ages)

    def drop(self, age: int) -> Amount:
        """Count the entries of this age no more. Return their amount."""
        gone = self.ages.pop(age)
        self.total = Amount(self.total.entries - gone.entries, self.total.bytes - gone.bytes)
        return gone


class Census:
    """The holdings of all owners at ``now`` (seconds on the file system's clock)."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.holdings: dict[int, Holding] = {}

    def add(self, owner: int, time: float, size: int) -> None:
        """Count one entry of that owner (a uid). It ended at ``time``, and takes ``size`` bytes of the disk."""
        self.holdings.setdefault(owner, Holding()).add(age_of(self.now - time), size)

    @property
    def total(self) -> Amount:
        """Return what all owners have together."""
        totals = [holding.total for holding in self.holdings.values()]
        return Amount(sum(each.entries for each in totals), sum(each.bytes for each in totals))


class Going(NamedTuple):
    """The entries that go: all that are older than ``older``, and of each owner all from the step in ``ages`` on."""

    now: float
    older: float  # seconds
    ages: dict[int, int]

    def includes(self, owner: int, time: float) -> bool:
        """Tell whether an entry of that owner that ended at ``time`` goes."""
        age = self.now - time
        return age > self.older or age_of(age) >= self.ages.get(owner, math.inf)


def age_of(seconds: float) -> int:
    """Return the step that an age is in."""
    grains = max(0.0, seconds / GRAIN)
    return int(grains) if grains < FINE else FINE + int(STEPS * math.log2(grains / FINE))


def _least(age: int) -> float:
    """Return the least age in seconds that is in this step."""
    return GRAIN * (age if age < FINE else FINE * 2.0 ** ((age - FINE) / STEPS))


def decide(
    census: Census,
    rules: Rules,
    max_age: float,
    *,
    share: Amount = WITHOUT_END,
    short: Amount = NOTHING,
    much: Amount = WITHOUT_END,
) -> Going:
    """Say which entries go. Afterwards the ``census`` has those that stay.

    ``share`` is what one owner may have, and ``short`` what the disk lacks. An owner with more than ``much`` counts as
    the one who fills the disk.
    """
    older = max(max_age, rules.min_age) if max_age else math.inf
    going = Going(census.now, older, {})
    for holding in census.holdings.values():
        for age in [age for age in holding.ages if _least(age) >= older]:
            holding.drop(age)
    _keep_to_shares(census, going, rules.min_age, share)
    total = census.total
    excess = Amount(total.entries - rules.max_count, total.bytes - rules.max_size)
    if rules.max_count:
        _relieve(census, going, ENTRIES, excess.entries, lambda _: rules.min_age)
    if rules.max_size:
        _relieve(census, going, BYTES, excess.bytes, lambda _: rules.min_age)
    _make_room(census, going, ENTRIES, short.entries, min_age=rules.min_age, much=much.entries)
    _make_room(census, going, BYTES, short.bytes, min_age=rules.min_age, much=much.bytes)
    return going


def _keep_to_shares(census: Census, going: Going, min_age: float, share: Amount) -> None:
    """Make room for owners whose share is nearly used up. Their own oldest entries go."""
    for owner, holding in census.holdings.items():
        if any(had > NEARLY * may for had, may in zip(holding.total, share, strict=True)):
            while holding.ages and any(had > AGAIN * may for had, may in zip(holding.total, share, strict=True)):
                if _least(holding.oldest) < min_age:
                    break
                going.ages[owner] = holding.oldest
                holding.drop(holding.oldest)


def _make_room(census: Census, going: Going, kind: int, lacking: float, *, min_age: float, much: float) -> None:
    """Take what the disk lacks from owners who have more than the average, and only if that is enough.

    If it is not, something else fills the disk, such as files of users in the drop box. No answers go for that.
    """
    average = census.total[kind] / max(2, len(census.holdings))
    if lacking > sum(max(0.0, holding.total[kind] - average) for holding in census.holdings.values()):
        return

    def youngest(holding: Holding) -> float:
        if holding.total[kind] <= average:
            return math.inf
        return 0.0 if holding.total[kind] > much else min_age

    _relieve(census, going, kind, lacking, youngest)


def _relieve(census: Census, going: Going, kind: int, lacking: float, youngest: Callable[[Holding], float]) -> None:
    """Take the oldest of the owner who has the most, until the amount that is ``lacking`` (of that ``kind``) goes.

    ``youngest`` returns the least age in seconds at which entries of an owner may go.
    """
    left = lacking
    most = [(-holding.total[kind], owner) for owner, holding in census.holdings.items()]
    heapq.heapify(most)
    while left > 0 and most:
        _, owner = heapq.heappop(most)
        holding = census.holdings[owner]
        if not holding.ages or _least(holding.oldest) < youngest(holding):
            continue
        going.ages[owner] = holding.oldest
        left -= holding.drop(holding.oldest)[kind]
        heapq.heappush(most, (-holding.total[kind], owner))
