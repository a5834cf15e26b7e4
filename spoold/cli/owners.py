"""What ``spoolctl top`` shows of owners: whose jobs had how much time in slots lately."""

from __future__ import annotations

import msgspec
from rich.table import Table

from spoold.cli.text import printable
from spoold.host import accounts
from spoold.spool import usage

MOST = 10  # owners that a person is shown
LEAST = 0.05  # slot-seconds: who used less lately is not shown


class Owner(msgspec.Struct, frozen=True):
    """Whose jobs had how many slot-seconds lately, on all executors, and which ``share`` of all that is (0 to 1).

    What was used an hour ago counts half. ``uid`` is null for all those together who are not named.
    """

    uid: int | None
    name: str
    slot_seconds: float
    share: float


def owners(root: str, now: float) -> list[Owner]:
    """Return who used slots of the spool ``root`` lately, those first who used most, and last the others."""
    try:
        used = {uid: seconds for uid, seconds in usage.noted(root, now).items() if seconds >= LEAST}
    except PermissionError:
        return []
    total = sum(used.values())
    ordered = sorted(used.items(), key=lambda each: (each[0] is usage.OTHERS, -each[1]))
    return [Owner(uid, _name(uid), seconds, seconds / total) for uid, seconds in ordered]


def _name(uid: int | None) -> str:
    return "others" if uid is usage.OTHERS else accounts.user_name(uid)


def table(owners: list[Owner]) -> Table:
    """Return them for a person."""
    made = Table("owner", box=None, pad_edge=False)
    made.add_column("slot-seconds lately", justify="right")
    made.add_column("share", justify="right")
    for owner in owners[:MOST]:
        made.add_row(printable(owner.name), f"{owner.slot_seconds:.1f}", f"{owner.share:.0%}")
    if rest := owners[MOST:]:
        seconds, share = sum(owner.slot_seconds for owner in rest), sum(owner.share for owner in rest)
        made.add_row("all others", f"{seconds:.1f}", f"{share:.0%}", style="dim")
    return made
