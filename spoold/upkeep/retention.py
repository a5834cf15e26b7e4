"""Retention: answers are removed after a while, and so are files that nobody comes back to.

Spec: spool-layout.md, "Retention". A sweep goes through a directory twice, first to count and then to remove. It takes
a few names at a time, so it delays nothing and needs no memory for what lies there. The entry of a submission goes
first, durably, and its response last. While there is a response without an entry, intake waits with that id, and the
next sweep ends what a crash interrupted. A process that has a response open can read on, since only the name goes.

Where an archive is asked for, only what is in the archive is removed (``archive``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial

from spoold.config import Settings
from spoold.host import fsops, machine, strangers
from spoold.host.log import Log
from spoold.host.metrics import DONE, DONE_BYTES, REMOVED
from spoold.host.seldom import Seldom
from spoold.model import ids
from spoold.model.errors import NewerFormatError
from spoold.model.retention import NOTHING, Amount, Census, Going, decide
from spoold.model.states import State
from spoold.spool import answers
from spoold.spool.builds import BuildStore
from spoold.spool.orders import BY_HAND, RESULT
from spoold.spool.queue import Queue
from spoold.spool.recovery import ABANDONED
from spoold.spool.store import Spool
from spoold.upkeep.archive import Archive
from spoold.upkeep.holdings import REFUSAL, Item, Pause, finished, passing_over, set_aside, walk
from spoold.upkeep.shares import part_of, share_of

log = Log("retention")
BATCH = 1000  # submissions that are archived and removed together
FILES = 2  # files that are removed with an answer, at least
SMALL = 0.2  # of a file system, where that is less than the free space asked for
HASTE = 10.0  # seconds between two sweeps while the disk is short


class Retention:
    """The sweeps over one spool. ``step`` does a part and returns. The caller comes again."""

    def __init__(
        self, settings: Settings, spool: Spool, builds: BuildStore, person: Callable[[int], int] = lambda uid: uid
    ) -> None:
        self._settings = settings
        self._rules = settings.retention
        self._person = person
        self._spool = spool
        self._builds = builds
        self._seldom = Seldom(log, spool.clock)
        self._done = spool.queue.path(State.DONE)
        self._quarantine = spool.queue.path("quarantine")
        self._archive = Archive(spool, self._seldom)
        self._sweep: Iterator[Pause] | None = None
        self._due = 0.0  # on the monotonic clock
        self._ended = 0.0

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings, from the next sweep on."""
        self._settings = settings
        self._rules = settings.retention

    def stop(self) -> None:
        """End the archive command, where it runs."""
        self._archive.stop()

    def step(self, patience: float) -> None:
        """Go on for ``patience`` seconds at most, where a sweep is due."""
        clock = self._spool.clock
        began = clock.monotonic()
        if self._sweep is None and self._rules.interval and (began >= self._due or self._is_urgent(began)):
            self._sweep = self.sweep()
        while self._sweep is not None and clock.monotonic() - began < patience:
            try:
                if next(self._sweep) is Pause.WAITS:
                    return
            except StopIteration:
                self._sweep, self._ended = None, clock.monotonic()
                self._due = self._ended + self._rules.interval
            except OSError as error:
                log.error("a sweep of done/ and quarantine/ failed; trying again", error=error)
                self._sweep, self._ended = None, clock.monotonic()
                self._due = self._ended + min(60.0, self._rules.interval)

    def _is_urgent(self, now: float) -> bool:
        """Tell whether the disk is short, and the last sweep ended more than a moment ago."""
        return now >= self._ended + HASTE and self._short() != NOTHING

    def _short(self) -> Amount:
        """Return what the disk lacks: bytes, and as many entries as give back the inodes that it lacks."""
        spool = self._settings.spool
        bytes_, inodes = machine.lacking(spool.path, self._rules.min_free, FILES * spool.min_free_inodes, SMALL)
        return Amount(inodes / FILES, bytes_)

    def sweep(self) -> Iterator[Pause]:
        """Remove everything beyond the bounds, once."""
        now = self._spool.clock.file_system()
        yield from self._clear_orphans(now - ABANDONED)
        yield from self._sweep_done(now)
        yield from self._sweep_quarantine(now)

    # -- done/

    def _sweep_done(self, now: float) -> Iterator[Pause]:
        census = Census(now)
        yield from self._count(census, finished(self._spool, now, self._seldom))
        DONE.set(census.total.entries)
        DONE_BYTES.set(census.total.bytes)
        going = self._decide(census, self._rules.max_age)
        old: list[Item] = []
        for found in finished(self._spool, now, self._seldom):
            if not isinstance(found, Item):
                yield found
            elif found.hidden:
                continue  # both files stay, and count, until the answer can be looked at
            elif going.includes(self._person(found.owner), found.time) or not (
                found.entry or found.file.endswith(REFUSAL)
            ):
                old.append(found)
                if len(old) >= BATCH:
                    yield from self._remove(old)
                    old = []
        yield from self._remove(old)

    def _count(self, census: Census, walk: Iterator[Item | Pause]) -> Iterator[Pause]:
        for found in walk:
            if isinstance(found, Item):
                census.add(self._person(found.owner), found.time, found.size)
            else:
                yield found

    def _decide(self, census: Census, max_age: float) -> Going:
        share = share_of(self._settings)
        return decide(census, self._rules, max_age, share=share, short=self._short(), much=part_of(self._settings))

    def _remove(self, old: list[Item]) -> Iterator[Pause]:
        if not old or not (old := (yield from self._archive.archived(old, self._rules))):
            return
        old = [item for item in old if not item.entry or fsops.mtime(os.path.join(self._done, item.entry)) == item.time]
        for item in old:
            if item.entry:
                fsops.remove(os.path.join(self._done, item.entry))
        fsops.sync_directory(self._done)
        gone = {item.entry.removesuffix(".json") for item in old}
        # A new submission of the same id would take a result of a later attempt for its own.
        for id_, results in self._spool.queue.results.waiting().items():
            for result in results if id_ in gone else ():
                self._spool.queue.results.drop(result)
        yield Pause.WORKED
        removed = []
        for item in old:
            with passing_over(os.path.join(self._done, item.file), self._seldom) as path:
                answers.forget(path)
                fsops.remove(path)
                removed.append(item)
        self._remove_tars([item.tar for item in removed if item.tar])
        REMOVED.add(by=len(removed))
        if removed:
            log.info("removed old answers from done/", answers=len(removed), bytes=sum(item.size for item in removed))
        yield Pause.WORKED

    def _remove_tars(self, tars: list[str]) -> None:
        """Remove the tars beside responses that are gone for good: no response may name a tar that is gone."""
        if tars:
            fsops.sync_directory(self._done)
        for tar in tars:
            with passing_over(os.path.join(self._done, tar), self._seldom) as path:
                answers.forget(path)
                fsops.remove(path)

    # -- the rest

    def _sweep_quarantine(self, now: float) -> Iterator[Pause]:
        census = Census(now)
        yield from self._count(census, set_aside(self._quarantine, self._seldom))
        going = self._decide(census, self._rules.quarantine_age)
        for found in set_aside(self._quarantine, self._seldom):
            if not isinstance(found, Item):
                yield found
            elif going.includes(self._person(found.owner), found.time):
                _remove_tree(os.path.join(self._quarantine, found.file))
                log.info("removed an old file from quarantine/", file=found.file)

    def _clear_orphans(self, old: float) -> Iterator[Pause]:
        """Remove what is left of submissions and builds that are gone."""
        queue, builds = self._spool.queue, self._builds.queue

        def is_forgotten(each: Queue, name: str) -> bool:
            result = ids.parse_result(name)
            return result is not None and each.locate(result.id, result) is None

        def is_answer(name: str) -> bool:
            return name.startswith(BY_HAND) and name.endswith(RESULT)

        clear = partial(_clear, old=old, seldom=self._seldom)
        yield from clear(queue.path("progress"), lambda name: queue.locate(name.removesuffix(".json")) is None)
        for each in (queue, builds):
            yield from clear(each.path("tmp"), partial(is_forgotten, each))
        yield from clear(builds.path("used"), lambda name: self._is_gone(name.partition("@")[0]))
        yield from clear(builds.path("collect"), is_answer)

    def _is_gone(self, build_id: str) -> bool:
        try:
            return self._builds.look(build_id) == "missing"
        except NewerFormatError:
            return False


def _clear(directory: str, is_left: Callable[[str], bool], old: float, seldom: Seldom) -> Iterator[Pause]:
    """Remove files that are older than ``old``, on the file system's clock, and that ``is_left`` calls leftovers."""
    for name in walk(directory):
        if isinstance(name, Pause):
            yield name
            continue
        with passing_over(os.path.join(directory, name), seldom) as path:
            if (fsops.mtime(path) or old) < old and is_left(name):
                fsops.remove(path)
    yield Pause.WORKED


def _remove_tree(path: str) -> None:
    """Remove a file, or a directory that a client had dropped. Log it and leave it where it is not ours to remove."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            strangers.remove_tree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except OSError as error:
        log.error("cannot remove", path=path, error=error)
