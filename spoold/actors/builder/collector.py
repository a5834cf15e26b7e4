"""Collection of the dependency cache: the builder's other work.

Spec: spool-layout.md, "Collection". The spool tells which builds are needed, and the store tells which are large.
``model.collection`` decides. A build is forgotten before its paths are deleted. That happens under a lock that every
executor takes while it looks at a build, so no job starts on a build that is deleted. Running jobs and builds go on
meanwhile.

While a submission of a newer version is on its way nothing is deleted, since nobody here can tell what it needs.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from spoold.config import Settings
from spoold.host.log import Log
from spoold.host.metrics import COLLECTED_BUILDS, COLLECTED_BYTES, COLLECTIONS, STORE_BYTES
from spoold.model.collection import Collected, Held, Order, Report, StoreSizes, Verdict, unused
from spoold.model.errors import LeaseLostError, NewerFormatError, SpooldError
from spoold.model.plan import builds_of
from spoold.model.states import Kind, Role
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool

log = Log(Role.BUILDER)


class Cache(Protocol):
    """What a store must offer to be collected."""

    def sizes(self) -> StoreSizes:
        """Measure the store."""

    def collect(self, keep: set[str], *, dry_run: bool) -> Collected:
        """Delete what no build in ``keep``, no pin and no runtime refers to, or only count it (``dry_run``)."""


class Collector:
    """Answers the orders that lie in ``builds/collect``."""

    def __init__(self, settings: Settings, cache: Cache, newer: LeftAlone) -> None:
        self._newer = newer
        self._settings = settings
        self._cache = cache
        self._spool = Spool(settings, Role.BUILDER)
        self._builds = BuildStore(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings

    def answer_orders(self) -> None:
        """Carry out the orders, one after the other."""
        for name, order in self._builds.orders.waiting(self._newer.meet).items():
            try:
                report = self._collect(order)
            except (SpooldError, OSError) as error:
                log.error("the store could not be collected", order=name, error=error)
                report = Report(dry_run=order.dry_run, error=str(error))
            except Exception as error:  # noqa: BLE001 - otherwise the order gets no answer and begins again and again
                log.bug("the store could not be collected", order=name, error=error)
                report = Report(dry_run=order.dry_run, error=f"a bug in spoold: {error}; see the builder's log")
            self._builds.orders.answer(name, report)
            _measure(report)
            log.info("collected", order=name, dry_run=order.dry_run, builds=len(report.deleted), bytes=report.freed)

    def _collect(self, order: Order) -> Report:
        sizes = self._cache.sizes()
        held = self._held(sizes)
        now = self._spool.clock.file_system()
        chosen = unused(held, self._settings.gc, now=now, store_size=sizes.store, free=sizes.free)
        if not order.dry_run:
            chosen = self._forget(chosen)
        keep = self._in_progress() | set(self._builds.finished())
        if order.dry_run:
            keep -= {verdict.build_id for verdict in chosen}
        collected = self._cache.collect(keep, dry_run=order.dry_run)
        after = sizes if order.dry_run else self._cache.sizes()
        return Report(
            dry_run=order.dry_run,
            deleted=chosen,
            freed=collected.freed,
            paths=collected.paths,
            store_size=after.store,
            free=after.free,
            complete=collected.complete,
        )

    def _held(self, sizes: StoreSizes) -> list[Held]:
        needed, uses = self._needed(), self._builds.uses.last()
        found = []
        for build_id in self._builds.finished():
            try:
                record = self._builds.result(build_id)
            except NewerFormatError as error:
                self._newer.meet(error)
                continue  # the build stays
            if record and record.result.shell:
                last_used = uses.get(build_id, record.finished)
                own = sizes.own.get(build_id, 0)
                found.append(Held(build_id=build_id, last_used=last_used, own_size=own, needed=build_id in needed))
        return found

    def _needed(self) -> set[str]:
        """Return the builds of all submissions on their way, state by state, in the order in which entries move.

        Raises :class:`NewerFormatError` for an entry that this version cannot read, since what it needs must not be
        deleted.
        """
        runtime = self._builds.runtime.read()
        found: set[str] = set()
        for state in Kind.SUBMISSION.on_its_way:
            for entry in self._spool.queue.entries(state):
                try:
                    request = self._spool.read(state, entry).Request
                except (LeaseLostError, msgspec.DecodeError):
                    continue  # it moved on: it is met in its next state, or its use was noted just now
                if runtime and request:
                    found.update(builds_of(request, runtime))
        return found

    def _in_progress(self) -> set[str]:
        queue = self._builds.queue
        return {entry.id for state in queue.kind.on_its_way for entry in queue.entries(state)}

    def _forget(self, chosen: list[Verdict]) -> list[Verdict]:
        """Forget the chosen builds, except those that were used since. Return the builds that were forgotten."""
        with self._builds.looking(exclusive=True):
            uses = self._builds.uses.last()
            gone = [each for each in chosen if uses.get(each.build_id, each.last_used) <= each.last_used]
            self._builds.forget({each.build_id for each in gone})
        return gone


def _measure(report: Report) -> None:
    COLLECTIONS.add("failed" if report.error else "ok")
    if not report.error:
        STORE_BYTES.set(report.store_size)
    if not report.dry_run:
        COLLECTED_BUILDS.add(by=len(report.deleted))
        COLLECTED_BYTES.add(by=report.freed)
