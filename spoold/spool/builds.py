"""The Build store: one entry per environment, with the same life as a submission, and the runtime beside them.

Spec: spool-layout.md, "The Dependencies object" and "The Build store". A build is in progress while its entry is in
``new/`` or ``building/``, or in ``done/`` without a result yet. A process that wants a build looks in the order of the
flow, and at the result again at the end. If the build is nowhere, it files the build. If many file one at once, the
link into ``new/`` decides between them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Literal

import msgspec

from spoold.config import Settings
from spoold.host import attributes, fsops
from spoold.host.attributes import Identity
from spoold.host.locks import KeptLock, locked
from spoold.model import formats, ids
from spoold.model.errors import NewerFormatError
from spoold.model.formats import Stored
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.response import Package
from spoold.model.states import Kind, State
from spoold.model.submission import Dependencies
from spoold.spool.fetching import FetchingFile
from spoold.spool.newer import OnNewer, ignore
from spoold.spool.orders import Orders
from spoold.spool.pins import Pins
from spoold.spool.queue import Queue
from spoold.spool.runtime import RuntimeFile
from spoold.spool.uses import Uses

MOST = 64 << 20  # bytes of a file that the builder writes, without the two logs of a build
KEPT = 64  # records that are kept in memory, each of SMALL bytes at most
SMALL = 64 << 10
ESCAPED = 6  # bytes of JSON for one byte of a log, at most


class BuildRecord(Stored, frozen=True, kw_only=True):
    """The record of a finished build in ``builds/done``. ``finished`` is in seconds on the file system's clock."""

    build_id: str
    finished: float
    result: BuildResult


class BuildStore:
    """The builds below ``settings.spool.path``. Small records are kept in memory while their files are the same."""

    def __init__(self, settings: Settings) -> None:
        self.root = os.path.join(settings.spool.path, "builds")
        self.most = MOST + 2 * ESCAPED * settings.builder.limits.log
        self.queue = Queue(self.root, Kind.BUILD, settings.lease.attempts, settings.lease.pause)
        self.uses = Uses(self.queue.path("used"))
        self.orders = Orders(self.queue, self.most)
        self.pins = Pins(self.queue, self.most)
        self.runtime = RuntimeFile(self.queue, self.most)
        self.fetching = FetchingFile(self.queue, self.most)
        self._lock_path = os.path.join(self.root, "collect.lock")
        self._lock = KeptLock(self._lock_path)
        self._kept: dict[str, tuple[Identity, BuildRecord]] = {}
        self._keeping = threading.Lock()

    def result(self, build_id: str) -> BuildRecord | None:
        """Return a finished build's record. None where there is none that can be read: health sets a damaged one aside.

        Raises :class:`NewerFormatError` where a newer version wrote it. Then the build is done, but not for this
        version.
        """
        path = self.result_path(build_id)
        seen = attributes.identity(path)
        if seen is None:
            return None
        kept = self._kept.get(build_id)
        if kept and kept[0] == seen:
            return kept[1]
        try:
            data = fsops.read(path, self.most)
            record = None if data is None else formats.decode(data, BuildRecord, path)
        except (msgspec.DecodeError, fsops.OddFileError):
            return None
        if record is None or record.build_id != build_id:
            return None
        if seen.size <= SMALL:  # the record may be of a later file than ``seen``: then it is read again
            self._keep(build_id, seen, record)
        return record

    def _keep(self, build_id: str, seen: Identity, record: BuildRecord) -> None:
        with self._keeping:
            self._kept.pop(build_id, None)
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[build_id] = seen, record

    def result_path(self, build_id: str) -> str:
        """Return the path of a finished build's record."""
        return self.queue.path(State.DONE, ids.response_name(build_id))

    def look(self, build_id: str) -> BuildRecord | Literal["queued", "building", "missing"]:
        """Return a build's record, or what there is instead. Raises what :meth:`result` raises."""
        if record := self.result(build_id):
            return record
        if place := self.queue.locate(build_id):
            return "queued" if place[0] is State.NEW else "building"
        return self.result(build_id) or "missing"

    def request(self, dependencies: Dependencies) -> bool:
        """File a build. Return False where it is filed already. A build lost to a power failure is filed anew."""
        return self.queue.add(Entry(dependencies.build_id, 1), formats.encode(dependencies), sync=False)

    def read(self, state: State, entry: Entry) -> Dependencies:
        """Return the Dependencies object of an entry. Raises what :meth:`Spool.read` raises."""
        return formats.decode(self.queue.read(state, entry), Dependencies, self.queue.entry_path(state, entry))

    def newer(self, state: State, entry: Entry) -> NewerFormatError | None:
        """Return the error of reading an entry that a newer version wrote. None for any other entry."""
        return formats.newer(lambda: self.read(state, entry))

    def finish(self, entry: Entry, result: BuildResult, now: float) -> None:
        """End a build. Raises :class:`LeaseLostError` when another attempt has it."""
        record = BuildRecord(build_id=entry.id, finished=now, result=result)
        self.queue.results.commit(entry, State.BUILDING, formats.encode(record))

    def forget(self, build_ids: Collection[str]) -> None:
        """Remove finished builds, and the notes of who asked for them. A client that wants one then asks anew."""
        for build_id in build_ids:
            fsops.remove(self.queue.path(State.DONE, ids.done_name(build_id)))
        if build_ids:  # the entries go first, durably: one without a result would look like one in progress, for ever
            fsops.sync_directory(self.queue.path(State.DONE))
        for build_id in build_ids:
            fsops.remove(self.queue.path(State.DONE, ids.response_name(build_id)))
        self.uses.forget(build_ids)

    def finished(self) -> list[str]:
        """Return the ids of the builds that have a result."""
        suffix = ids.response_name("")
        return [name.removesuffix(suffix) for name in fsops.names(self.queue.path(State.DONE)) if name.endswith(suffix)]

    def packages(self, uid: int | None, newer: OnNewer = ignore) -> list[Package]:
        """Return the packages of the good builds that ``uid`` used (None: of all builds), each once, sorted by name.

        ``newer`` gets the error for each build whose result a newer version wrote.
        """
        uses = self.uses.last(uid)
        found: dict[str, Package] = {}
        for build_id in self.finished() if uid is None else sorted(uses.keys() & self.finished()):
            try:
                record = self.result(build_id)
            except NewerFormatError as error:
                newer(error)
                continue
            if record is None or not record.result.shell:
                continue
            used = uses.get(build_id, record.finished)
            for package in record.result.packages:
                other = found.get(package.path, package)
                found[package.path] = msgspec.structs.replace(
                    package, builds=[*other.builds, build_id], last_used=max(used, other.last_used)
                )
        return sorted(found.values(), key=lambda package: (package.name, package.version, package.path))

    def looking(self, *, exclusive: bool = False) -> AbstractContextManager[None]:
        """Keep builds from being forgotten while a block looks at them. A block that forgets some is ``exclusive``."""
        return locked(self._lock_path, exclusive=True) if exclusive else self._lock.held()
