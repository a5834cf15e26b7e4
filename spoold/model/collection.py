"""Decides which builds a collection of the dependency cache deletes: the least recently used first.

Spec: spool-layout.md, "Collection". The rules go by age, number, size and free disk. Pure: the builder measures, this
module decides, the builder deletes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from spoold.model.formats import Stored
from spoold.model.setting import setting


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A build in the cache. ``last_used`` is seconds since the epoch, ``own_size`` the bytes that only it needs.

    ``needed`` is set while a submission in any state needs the build. Then it stays, whatever the rules say.
    """

    build_id: str
    last_used: float
    own_size: int
    needed: bool


class StoreSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: the whole store, what is free on its disk, and what each build would free if it alone were deleted."""

    store: int
    free: int
    own: dict[str, int]


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes and store paths that a collection deleted, or would delete.

    ``complete`` is false where something unused is left.
    """

    freed: int
    paths: int
    complete: bool = True


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When unused dependencies are deleted, the least recently used first. 0 switches a rule off."""

    max_age: Annotated[float, setting("delete builds that nobody used for this long", "seconds", ge=0)] = 30 * 86400.0
    # The spool keeps a record of each build, with up to twice [builder.limits] log bytes of its output.
    max_count: Annotated[int, setting("delete unused builds while there are more builds than this", ge=0)] = 10_000
    max_size: Annotated[int, setting("delete unused builds while the store is larger than this", "bytes", ge=0)] = 0
    min_free: Annotated[
        int, setting("delete unused builds while less than this is free on the store's disk", "bytes", ge=0)
    ] = 2 * 1024**3
    interval: Annotated[float, setting("how often these rules are applied; 0 means never", "seconds", ge=0)] = 3600.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A build to delete, the rule that says so (age, number, size, free disk), and the bytes that it alone takes."""

    build_id: str
    why: str
    last_used: float
    own_size: int


class Order(Stored, frozen=True, kw_only=True):
    """An order for a collection, as it lies in ``builds/collect/``."""

    dry_run: bool = False


class Report(Stored, frozen=True, kw_only=True):
    """The outcome of a collection. Sizes are in bytes. ``error`` is "" where it went well."""

    dry_run: bool
    deleted: list[Verdict] = msgspec.field(default_factory=list)
    freed: int = 0
    paths: int = 0
    store_size: int = 0
    free: int = 0
    complete: bool = True
    error: str = ""


RECENT = 2.0  # seconds. No build is deleted so soon after its last use: uses are noted once a second (spool.uses)


def unused(builds: list[Held], rules: Rules, *, now: float, store_size: int, free: int) -> list[Verdict]:
    """Return the builds to delete, least recently used first.

    ``store_size`` and ``free`` are the bytes now. A build is taken to free its ``own_size``. Bytes that two builds
    share are freed only with the second one. So a collection may free more than this reckons with, and never less.
    """
    chosen: list[Verdict] = []
    count = len(builds)
    for build in sorted(builds, key=lambda build: (build.last_used, build.build_id)):
        why = _reason(build, rules, now=now, count=count, store_size=store_size, free=free)
        if why:
            chosen.append(Verdict(build_id=build.build_id, why=why, last_used=build.last_used, own_size=build.own_size))
            count -= 1
            store_size -= build.own_size
            free += build.own_size
    return chosen


def _reason(build: Held, rules: Rules, *, now: float, count: int, store_size: int, free: int) -> str:
    if build.needed or 0 <= now - build.last_used <= RECENT:
        return ""
    if rules.max_age and now - build.last_used > rules.max_age:
        return "age"
    if rules.max_count and count > rules.max_count:
        return "number"
    if rules.max_size and store_size > rules.max_size:
        return "size"
    if rules.min_free and free < rules.min_free:
        return "free disk"
    return ""
