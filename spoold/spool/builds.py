"""The Build store: one entry per environment, the same life as a submission's, and the runtime beside it.

Spec: spool-layout.md, "The Dependencies object" and "The Build store". A build is in progress while its entry is in
``new/`` or ``building/``, or in ``done/`` without a result yet. Whoever wants a build looks in the order of the flow
and at the result again at the end; what is found nowhere is filed, and the link into ``new/`` decides between many who
file at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Literal

import msgspec

from spoold.config import Settings
from spoold.host import fsops
from spoold.model import formats, ids
from spoold.model.collection import Order, Report
from spoold.model.errors import NewerFormatError, OperatorError
from spoold.model.formats import Stored
from spoold.model.ids import Entry, Kept, Private
from spoold.model.job import BuildResult, Runtime
from spoold.model.response import Package
from spoold.model.states import Kind, State
from spoold.model.submission import Dependencies
from spoold.spool.queue import Queue

ENCODER = msgspec.json.Encoder()
RESULT = ".result.json"
OnNewer = Callable[[NewerFormatError], object]
MOST = 64 << 20  # bytes of a file that the builder writes, beside the two logs of a build
ESCAPED = 6  # bytes of JSON for one of a log, at most


def ignore(_: NewerFormatError) -> None:
    """Say nothing of what a newer version wrote."""


class BuildRecord(Stored, frozen=True, kw_only=True):
    """The result of a build as ``builds/done`` keeps it; ``finished`` is seconds on the file system's clock."""

    build_id: str
    finished: float
    result: BuildResult


class PinsAnswer(Stored, frozen=True, kw_only=True):
    """What the builder says of a set of added pins: ``error`` is "" when all of them are provided."""

    pins: dict[str, str]
    error: str


class BuildStore:
    """The builds below ``settings.spool.path``."""

    def __init__(self, settings: Settings) -> None:
        self.root = os.path.join(settings.spool.path, "builds")
        self.most = MOST + 2 * ESCAPED * settings.builder.limits.log
        self.queue = Queue(self.root, Kind.BUILD, settings.lease.attempts, settings.lease.pause)

    def result(self, build_id: str) -> BuildRecord | None:
        """Return a finished build's record, None where there is none that can be read: health sets such a one aside.

        Raises :class:`NewerFormatError` where a newer version wrote it: then the build is done, but not for this one.
        """
        path = self.result_path(build_id)
        try:
            data = fsops.read(path, self.most)
            record = None if data is None else formats.decode(data, BuildRecord, path)
        except (msgspec.DecodeError, fsops.OddFileError):
            return None
        return record if record and record.build_id == build_id else None

    def result_path(self, build_id: str) -> str:
        """Return the path of a finished build's record."""
        return self.queue.path(State.DONE, ids.response_name(build_id))

    def look(self, build_id: str) -> BuildRecord | Literal["queued", "building", "missing"]:
        """Return a build's record, or what there is instead; raises what :meth:`result` does."""
        if record := self.result(build_id):
            return record
        if place := self.queue.locate(build_id):
            return "queued" if place[0] is State.NEW else "building"
        return self.result(build_id) or "missing"

    def request(self, dependencies: Dependencies) -> bool:
        """File a build; False where it has been filed already. One that a loss of power takes is filed anew."""
        return self.queue.add(Entry(dependencies.build_id, 1), formats.encode(dependencies), sync=False)

    def read(self, state: State, entry: Entry) -> Dependencies:
        """Return the Dependencies object of an entry; raises what :meth:`Spool.read` does."""
        return formats.decode(self.queue.read(state, entry), Dependencies, self.queue.entry_path(state, entry))

    def newer(self, state: State, entry: Entry) -> NewerFormatError | None:
        """Return what is said of an entry that a newer version wrote, None of any other."""
        return formats.newer(lambda: self.read(state, entry))

    def finish(self, entry: Entry, result: BuildResult, now: float) -> None:
        """End a build; raises :class:`LeaseLostError` when another attempt has it."""
        record = BuildRecord(build_id=entry.id, finished=now, result=result)
        self.queue.commit(entry, State.BUILDING, formats.encode(record))

    def forget(self, build_ids: Collection[str]) -> None:
        """Remove finished builds, and who asked for them: whoever wants one then asks anew."""
        for build_id in build_ids:
            fsops.remove(self.queue.path(State.DONE, ids.done_name(build_id)))
        if build_ids:  # the entries first, durably: one without a result would look like one in progress, for ever
            fsops.sync_directory(self.queue.path(State.DONE))
        for build_id in build_ids:
            fsops.remove(self.queue.path(State.DONE, ids.response_name(build_id)))
        for name in fsops.names(self.queue.path("used")) if build_ids else ():
            if name.partition("@")[0] in build_ids:
                fsops.remove(self.queue.path("used", name))

    def finished(self) -> list[str]:
        """Return the ids of the builds that have a result."""
        suffix = ids.response_name("")
        return [name.removesuffix(suffix) for name in fsops.names(self.queue.path(State.DONE)) if name.endswith(suffix)]

    def note_use(self, build_id: str, uid: int) -> None:
        """Remember that ``uid`` asked for a build just now, or used it.

        This is what `spoolctl deps` shows, what collection goes by, and in whose turn a build is made.
        """
        path = self.queue.path("used", f"{build_id}@{uid}")
        if not fsops.touch(path):
            fsops.write_private(path, b"")

    def askers(self) -> dict[str, set[int]]:
        """Return who asked for each build."""
        found: dict[str, set[int]] = {}
        for name in fsops.names(self.queue.path("used")):
            build_id, _, user = name.partition("@")
            if user.isdecimal():
                found.setdefault(build_id, set()).add(int(user))
        return found

    def last_uses(self, uid: int | None = None) -> dict[str, float]:
        """Return when each build was last used, by ``uid`` or (None) by anyone; seconds on the file system's clock."""
        found: dict[str, float] = {}
        for name in fsops.names(self.queue.path("used")):
            build_id, _, user = name.partition("@")
            if uid is None or user == str(uid):
                used = fsops.mtime(self.queue.path("used", name)) or 0.0
                found[build_id] = max(used, found.get(build_id, 0.0))
        return found

    def packages(self, uid: int | None, newer: OnNewer = ignore) -> list[Package]:
        """Return the packages of the good builds that ``uid`` used (None: of all), each once, sorted by name.

        ``newer`` is told of each build whose result this version cannot read, since a newer one wrote it.
        """
        uses = self.last_uses(uid)
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
        """Keep builds from being forgotten while one looks at them; ``exclusive`` is for whoever forgets."""
        return fsops.locked(os.path.join(self.root, "collect.lock"), exclusive=exclusive)

    def order_collection(self, name: str, order: Order) -> None:
        """File an order to collect; one of that name that lies there already is replaced."""
        private = self.queue.private(Private.ORDER, name)
        fsops.write_private(private, formats.encode(order))
        fsops.remove(self.queue.path("collect", f"{name}{RESULT}"))
        fsops.replace(private, self.queue.path("collect", f"{name}.json"))

    def orders(self, newer: OnNewer = ignore) -> dict[str, Order]:
        """Return the orders that lie there, by name, but for those of a newer version. What is no order is removed."""
        found = {}
        for file in fsops.names(self.queue.path("collect")):
            if file.endswith(RESULT):
                continue
            name, path = file.removesuffix(".json"), self.queue.path("collect", file)
            try:
                found[name] = formats.decode(fsops.read(path) or b"", Order, path)
            except NewerFormatError as error:
                newer(error)
            except msgspec.DecodeError:
                fsops.remove(path)
        return found

    def is_ordered(self, name: str) -> bool:
        """Tell whether an order of that name lies there, whoever wrote it."""
        return fsops.exists(self.queue.path("collect", f"{name}.json"))

    def answer_order(self, name: str, report: Report) -> None:
        """Say what came of an order, and remove it."""
        private = self.queue.private(Private.REPORT, name)
        fsops.write_private(private, formats.encode(report))
        fsops.replace(private, self.queue.path("collect", f"{name}{RESULT}"))
        fsops.remove(self.queue.path("collect", f"{name}.json"))

    def report(self, name: str) -> Report | None:
        """Return what came of an order, None before it is done."""
        path = self.queue.path("collect", f"{name}{RESULT}")
        data = fsops.read(path, self.most)
        return None if data is None else formats.decode(data, Report, path)

    def forget_order(self, name: str) -> None:
        """Remove what came of an order, once it is read."""
        fsops.remove(self.queue.path("collect", f"{name}{RESULT}"))

    def collected_at(self, name: str) -> float | None:
        """Return when an order was answered last, in seconds on the file system's clock."""
        return fsops.mtime(self.queue.path("collect", f"{name}{RESULT}"))

    def pins(self) -> dict[str, str]:
        """Return the pins that the operator added to those of the settings: names and locations.

        Raises :class:`OperatorError` where the file cannot be read.
        """
        data = fsops.read(self.pins_path)
        try:
            return {} if data is None else msgspec.json.decode(data, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise OperatorError(f"{self.pins_path} cannot be read: {error}; mend it, or remove it") from error

    def changing_pins(self) -> AbstractContextManager[None]:
        """Keep others from changing the pins while one does: from the look at those before to the builder's answer."""
        return fsops.locked(self.queue.path("tmp", f"pins{Kept.LOCK}"), exclusive=True)

    def set_pins(self, pins: dict[str, str]) -> None:
        """Change the added pins; the builder takes notice."""
        private = self.queue.private(Private.NOTE, "pins")
        fsops.write_private(private, ENCODER.encode(pins))
        fsops.replace(private, self.pins_path)

    def answer_pins(self, pins: dict[str, str], error: str) -> None:
        """Say that these pins are provided, or why they cannot be."""
        private = self.queue.private(Private.NOTE, "pins.result")
        fsops.write_private(private, formats.encode(PinsAnswer(pins=pins, error=error)))
        fsops.replace(private, f"{self.pins_path}{RESULT}")

    def pins_answer(self) -> PinsAnswer | None:
        """Return what the builder said of the pins last."""
        path = f"{self.pins_path}{RESULT}"
        data = fsops.read(path, self.most)
        return None if data is None else formats.decode(data, PinsAnswer, path)

    @property
    def pins_path(self) -> str:
        """Return the path of the file of added pins."""
        return os.path.join(self.root, "pins.json")

    def set_runtime(self, runtime: Runtime) -> None:
        """Tell the executors where the sandbox's own programs are in the store, unless that is what they know."""
        data = formats.encode(runtime)
        if data == fsops.read(self.runtime_path):
            return
        private = self.queue.private(Private.NOTE, "runtime")
        fsops.write_private(private, data)
        fsops.replace(private, self.runtime_path)

    @property
    def runtime_path(self) -> str:
        """Return the path of the file that the builder keeps for the executors."""
        return os.path.join(self.root, "runtime.json")

    def runtime(self) -> Runtime | None:
        """Return the runtime, None where no builder has provided one that can be used.

        Raises :class:`NewerFormatError` where a newer builder provides it.
        """
        try:
            return self.usable_runtime()
        except OperatorError:
            return None

    def usable_runtime(self) -> Runtime | None:
        """Return the runtime, None where no builder has provided one.

        Raises :class:`OperatorError` for one that cannot be used: the next builder to start provides another. And
        :class:`NewerFormatError` where a newer builder provides it.
        """
        try:
            data = fsops.read(self.runtime_path, self.most)
            return None if data is None else formats.decode(data, Runtime, self.runtime_path)
        except (msgspec.DecodeError, fsops.OddFileError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OperatorError(f"{self.runtime_path} cannot be used: {reason}; restart the builder") from error
