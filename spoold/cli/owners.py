"""The owners in ``spoolctl top``: their recent time in slots, and what they have in the spool."""

from __future__ import annotations

import heapq
import os

import msgspec
from rich.table import Table

from spoold.cli import render
from spoold.cli.text import printable
from spoold.host import accounts, fsops
from spoold.model import formats
from spoold.model.errors import NewerFormatError
from spoold.upkeep import usage
from spoold.upkeep.shares import COUNT, Count, Holding

SHOWN = 10  # owners that a person is shown
NAMED = 20  # owners that are named for what they have in the spool: those with the most bytes
LEAST = 0.05  # slot-seconds; an owner who used less lately counts as having used none
LARGEST = 1 << 28  # bytes of the file with the counts


class Owner(msgspec.Struct, frozen=True):
    """An owner's recent slot-seconds on all executors, and their ``share`` of the slot-seconds of all (0 to 1).

    Memory counts: a job that takes the memory of several slots counts as that many. Time that was used an hour ago
    counts half.
     ``entries`` and ``bytes`` are what the owner has in the spool by the last count of the health daemon, null where
    nothing was counted. ``uid`` is null for the sum of all owners who are not named.
    """

    uid: int | None
    name: str
    slot_seconds: float
    share: float
    entries: int | None
    bytes: int | None


def owners(root: str, now: float) -> list[Owner]:
    """Return the owners of the spool ``root``: those who used slots most come first, the sum of the others last."""
    try:
        used = {uid: seconds for uid, seconds in usage.noted(root, now).items() if seconds >= LEAST}
        counted = _counted(root)
    except PermissionError:
        return []
    had = counted or {}
    named = {uid for uid in used if uid is not None} | set(heapq.nlargest(NAMED, had, key=lambda uid: had[uid].bytes))
    total = sum(used.values()) or 1.0

    def owner(uid: int | None, name: str, holdings: list[Holding]) -> Owner:
        seconds = used.get(uid, 0.0)
        entries, size = (int(sum(each)) for each in zip(*((own.entries, own.bytes) for own in holdings), strict=True))
        known = counted is not None
        return Owner(uid, name, seconds, seconds / total, entries if known else None, size if known else None)

    found = [owner(uid, accounts.user_name(uid), [had.get(uid, Holding())]) for uid in named]
    found.sort(key=lambda each: (-each.slot_seconds, -(each.bytes or 0), each.name))
    others = [holding for uid, holding in had.items() if uid not in named]
    if others or usage.OTHERS in used:
        found.append(owner(usage.OTHERS, "others", [*others, Holding()]))
    return found


def _counted(root: str) -> dict[int, Holding] | None:
    """Return what each owner has in the spool, by the count of the health daemon; None without a readable count."""
    path = os.path.join(root, "tmp", COUNT)
    try:
        data = fsops.read(path, LARGEST)
        return None if data is None else formats.decode(data, Count, path).owners
    except (msgspec.DecodeError, NewerFormatError, fsops.OddFileError):
        return None


def table(owners: list[Owner]) -> Table:
    """Return the owners as a table for a person."""
    made = Table("owner", box=None, pad_edge=False)
    for name in ("slot-seconds lately", "share", "entries", "on disk"):
        made.add_column(name, justify="right")
    for owner in owners[:SHOWN]:
        made.add_row(printable(owner.name), *_cells([owner]))
    if rest := owners[SHOWN:]:
        made.add_row("all others", *_cells(rest), style="dim")
    return made


def _cells(owners: list[Owner]) -> list[str]:
    seconds, share = sum(owner.slot_seconds for owner in owners), sum(owner.share for owner in owners)
    cells = [f"{seconds:.1f}", f"{share:.0%}"]
    if owners[0].entries is None:
        return cells
    return [
        *cells,
        str(sum(owner.entries or 0 for owner in owners)),
        render.size(sum(owner.bytes or 0 for owner in owners)),
    ]
