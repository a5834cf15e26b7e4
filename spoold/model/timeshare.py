"""Time shares: the owner who has used the fewest slot-seconds lately is next.

Spec: spool-layout.md, "Overload" and "Turns". This is start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair
Queuing: A Scheduling Algorithm for Integrated Services Packet Switching Networks", SIGCOMM 1996) for several places at
once (SFQ(D): Jin, Chase, Kaur, "Interposed Proportional Sharing for a Storage Service Utility", SIGMETRICS 2004). Each
owner has an account of what they used, divided by their weight. The owner with the lowest account is next. An owner who
comes when none of their things wait is a newcomer. The account of a newcomer is lifted to at least ``CREDIT`` less than
the account that was served last. So idleness earns no more than that, once, and no newcomer waits for more than one
place to become free.

Two things differ from the papers. Nobody knows beforehand how long a job takes, so an account grows while the job runs.
And accounts fade by half in ``HALF_LIFE``, so that nobody pays today for yesterday.

Two owners who both wait all the time differ by at most what their jobs can take in all places: their longest job, or
``LEAST``, in each of the places. A place can count as several, if its owner leaves less for other places. Nothing here
survives the process. Times are of the monotonic clock. Not thread-safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HALF_LIFE = 3600.0  # seconds. It is longer than any job: otherwise half of a job would be forgotten unpaid
LEAST = 0.1  # seconds that a new use counts at least: places that free up at once do not all go to one owner
EPOCH = 64 * HALF_LIFE  # seconds after which the accounts are written down anew, so that no number grows too large
CREDIT = 10.0  # slot-seconds that a newcomer may be behind: a handful of short jobs runs without alternating
SAVED = 10.0  # slot-seconds that an owner may be behind who waits for their own jobs to end
NOTHING = 0.01  # slot-seconds: an owner who used so little lately is forgotten
Rank = tuple[float, int]


@dataclass(eq=False)
class Use:
    """A place that an owner has had since ``began``. Each second counts as ``cost`` slot-seconds."""

    owner: int
    began: float
    cost: float = 1.0


@dataclass
class _Account:
    """``level`` is the owner's use, divided by their weight. ``used`` is undivided. Neither has uses that go on."""

    level: float
    used: float = 0.0
    turn: int = 0
    waits: bool = False
    uses: list[Use] = field(default_factory=list)


class TimeShares:
    """The accounts of all owners. ``weights`` has the weights that are not 1."""

    def __init__(self, weights: Mapping[int, float] | None = None) -> None:
        self._weights = weights or {}
        self._accounts: dict[int, _Account] = {}
        self._served = 0.0  # the level of the account that was served last, in weighted slot-seconds
        self._turns = 0
        self._epoch = 0.0
        self._most = 1000  # number of accounts at which those that differ in nothing from new ones are forgotten

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Use other weights from now on."""
        self._weights = weights

    def come(self, owner: int, now: float) -> None:
        """Note that a thing of an owner waits. If none waited until now, the owner keeps no claim but ``CREDIT``."""
        account = self._account(owner, now)
        if not account.waits:
            account.waits = True
            account.level = max(account.level, self._newcomer(owner, now) - self._going_on(owner, account, now))

    def _newcomer(self, owner: int, now: float) -> float:
        """Return the account of a newcomer."""
        return self._served - CREDIT * self._growth(now) / self._weight(owner)

    def bound(self, owner: int, now: float) -> None:
        """Note that an owner waits for their own jobs to end. By that they save up no more than ``SAVED``."""
        account = self._account(owner, now)
        least = self._served - SAVED * self._growth(now) / self._weight(owner)
        account.level = max(account.level, least - self._going_on(owner, account, now))

    def leave(self, owner: int) -> None:
        """Note that nothing of an owner waits any more."""
        if account := self._accounts.get(owner):
            account.waits = False

    def begin(self, owner: int, now: float, *, cost: float = 1.0, in_turn: bool = True) -> Use:
        """Give an owner a place. Each second of it counts as ``cost`` slot-seconds.

        An owner who is not ``in_turn`` passes others, whose accounts are lower. Newcomers are measured by those
        accounts.
        """
        account = self._account(owner, now)
        if in_turn:
            self._served = max(self._served, account.level + self._going_on(owner, account, now))
        self._turns += 1
        use = Use(owner, now, cost)
        account.turn = self._turns
        account.uses.append(use)
        return use

    def end(self, use: Use, now: float) -> None:
        """Take a place back, and charge its owner."""
        account = self._account(use.owner, now)
        account.uses.remove(use)
        self._add(use.owner, account, self._spent(use, now))

    def charge(self, owner: int, spent: float, now: float) -> None:
        """Charge an owner the slot-seconds that others could not use because of this owner."""
        if spent:
            self._add(owner, self._account(owner, now), spent * self._growth(now))

    def _add(self, owner: int, account: _Account, spent: float) -> None:
        account.used += spent
        account.level += spent / self._weight(owner)

    def ranks(self, now: float) -> Callable[[int], Rank]:
        """Return a function that ranks owners, the next one lowest: by account, then by who was served longest ago."""
        self._write_down(now)
        least = LEAST * self._growth(now)

        def rank(owner: int) -> Rank:
            account = self._accounts.get(owner)
            if account is None:
                return self._newcomer(owner, now), 0
            if not account.uses:
                return account.level, account.turn
            return account.level + self._going_on(owner, account, now, least), account.turn

        return rank

    def used(self, now: float) -> dict[int, float]:
        """Return the slot-seconds that each owner used lately. Those of ``HALF_LIFE`` ago count half."""
        self._write_down(now)
        growth = self._growth(now)
        return {
            owner: (account.used + sum(self._spent(use, now) for use in account.uses)) / growth
            for owner, account in self._accounts.items()
        }

    def _weight(self, owner: int) -> float:
        return self._weights.get(owner, 1.0)

    def _going_on(self, owner: int, account: _Account, now: float, least: float = 0.0) -> float:
        """Return what an owner's places add to their level."""
        return sum(max(least * use.cost, self._spent(use, now)) for use in account.uses) / self._weight(owner)

    # -- Fading. All accounts fade alike. So instead, charges grow with time: the order is the same, and no account has
    # to be touched.

    def _growth(self, now: float) -> float:
        """Return how much a slot-second counts that is used at ``now``."""
        return math.exp2((now - self._epoch) / HALF_LIFE)

    def _spent(self, use: Use, now: float) -> float:
        """Return what a use has cost until ``now``: the integral of the growth."""
        return use.cost * (self._growth(now) - self._growth(use.began)) * HALF_LIFE / math.log(2)

    def _account(self, owner: int, now: float) -> _Account:
        """Return an owner's account, a new one where there is none."""
        self._write_down(now)
        if owner not in self._accounts:
            if len(self._accounts) >= self._most:
                self._forget(now)
            self._accounts[owner] = _Account(self._newcomer(owner, now))
        return self._accounts[owner]

    def _write_down(self, now: float) -> None:
        """After a long epoch, divide all accounts by the growth in it, and begin a new one."""
        if now - self._epoch < EPOCH:
            return
        faded = 1 / self._growth(min(now, self._epoch + 4 * EPOCH))
        self._served *= faded
        for account in self._accounts.values():
            account.level *= faded
            account.used *= faded
        self._epoch = now

    def _forget(self, now: float) -> None:
        """Forget accounts that differ in nothing from new ones."""
        least = NOTHING * self._growth(now)
        self._accounts = {
            owner: account
            for owner, account in self._accounts.items()
            if account.waits or account.uses or account.used > least or account.level > self._served + least
        }
        self._most = max(1000, 2 * len(self._accounts))
