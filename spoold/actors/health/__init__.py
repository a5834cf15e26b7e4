"""Health: the submission checker and the build checker.

Spec: spool-layout.md, "The mtime rule" and "Crash points". Every few seconds health looks at all entries that are held.
An entry whose holder stopped renewing goes back to the start with the next attempt number. After the last attempt it
ends with ``INTERNAL_ERROR``. A submission in ``building/`` holds no lease. It is judged by its build (``unbuilt``), and
is put back only if that build does not exist at all. Failed builds are forgotten after a short while, so that they can
be tried again (``failures``). If the settings ask for it, health keeps a page of counts and times (``status``).

Where executors only commit, health publishes their results as soon as it learns of a commit. Whenever it looks for
commits by the clock, it shows the side files that they left.

An entry of a newer version of spoold is put back like any other, since that is a rename. Nothing else is done to it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

from spoold.actors import Threadless
from spoold.actors.health.failures import Failures
from spoold.actors.health.status import StatusPage
from spoold.actors.health.unbuilt import Unbuilt
from spoold.config import Settings
from spoold.host import fsops, machine
from spoold.host.log import Log
from spoold.host.metrics import QUARANTINE, SPOOL_FREE, SPOOL_INODES, STATES
from spoold.host.persons import Persons
from spoold.host.seldom import Seldom
from spoold.model import ids
from spoold.model.collection import Order, Report
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry, Hint
from spoold.model.job import BuildResult
from spoold.model.response import Outcome, Phase
from spoold.model.states import Kind, Role, State
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import Watchman, clear_private, mend, publish_committed, recover
from spoold.spool.sidefiles import show_left
from spoold.spool.store import Spool
from spoold.upkeep.check import Check
from spoold.upkeep.counting import Counter
from spoold.upkeep.depth import Measure
from spoold.upkeep.holdings import Pause, passing_over, walk
from spoold.upkeep.leavings import Leavings
from spoold.upkeep.retention import Retention
from spoold.upkeep.unexplained import Unexplained

log = Log(Role.HEALTH)
SCHEDULED = "scheduled"  # the name of the order that is filed regularly
CLEARED = 1000  # side files that one step looks at: each waiting submission has one
STEP_BUDGET = 0.5  # seconds of a step for each part whose work grows with what clients put into the spool


class Health(Threadless):
    """Both checkers over one spool."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spool = Spool(settings, Role.HEALTH)
        self._builds = BuildStore(settings)
        self._side_files: Iterator[str | Pause] | None = None  # side files that were not looked at yet
        self._check = Check(settings, Role.HEALTH)
        self._survey: Iterator[Unexplained | None] = iter(())
        self._unexplained: list[Unexplained] = []
        self._newer = LeftAlone(log)
        self._unbuilt = Unbuilt(self._spool, self._builds, self._newer)
        self._failures = Failures(self._spool, self._builds, self._newer)
        self._seldom = Seldom(log, self._spool.clock)
        self._persons = Persons()
        self._retention = Retention(settings, self._spool, self._builds, self._persons.of)
        self._leavings = Leavings(self._spool.root, settings.lease, self._spool.clock)
        self._counter = Counter(settings, self._spool, self._persons.of)
        self._measure_depth = Measure(self._spool.root, self._spool.clock, STATES[1:])
        self._status_page = StatusPage(settings, self._measure_depth)
        self._next_check = -math.inf  # on the monotonic clock
        self._watchmen = {
            (kind, state): Watchman(self._spool.clock, settings.lease) for kind in Kind for state in kind.held
        }

    @property
    def watched(self) -> list[str]:
        """Return the directory where commits appear, if others leave their results to health. Otherwise return none."""
        return [State.DONE] if self._settings.spool.published_by == "health" and not self._polls else []

    def wants(self, hint: Hint) -> bool:
        """Tell whether a change is a commit. Another thread calls this."""
        entry = ids.parse_entry(hint.name)
        return entry is not None and ids.done_name(entry.id) == hint.name

    def start(self) -> None:
        """End what a loss of power left half done, and begin to look for files that no state explains."""
        mend(self._spool.queue, log)
        mend(self._builds.queue, log)
        self._survey = self._check.survey(without={"incoming"})  # only intake may list incoming/, and it reports itself

    def stop(self) -> None:
        """End the archive command, and say on the status page that it is no longer written."""
        self._retention.stop()
        self._status_page.end()

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings
        self._retention.apply_settings(settings)
        self._counter.apply_settings(settings)

    def measure(self) -> None:
        """Measure the spool. Another thread may call this."""
        room = machine.room(self._spool.root)
        SPOOL_FREE.set(room.bytes)
        if room.inodes is not None:
            SPOOL_INODES.set(room.inodes)
        QUARANTINE.set(len(fsops.names(self._spool.queue.path("quarantine"))))
        self._measure_depth()
        self._status_page()

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Publish what was committed, and check everything that is held where a check is due.

        Return the seconds until the next step.
        """
        for id_ in publish_committed(self._spool.queue, log):
            self._spool.end_progress(id_)
        if hints is None and self._settings.spool.published_by == "health":
            show_left(self._spool.queue, self._spool.answers)
        if hints is None and (not self._polls or self._spool.clock.monotonic() >= self._next_check):
            self._check_all()
        return self._settings.spool.remote_scan if self._polls else self._settings.lease.check

    @property
    def _polls(self) -> bool:
        """Tell whether commits have to be looked for: others leave results to health, and no event tells of them."""
        return self._settings.spool.published_by == "health" and self._settings.spool.remote

    def _check_all(self) -> None:
        self._next_check = self._spool.clock.monotonic() + self._settings.lease.check
        publish_committed(self._builds.queue, log)
        self._check_submissions()
        self._check_builds()
        self._failures.step(self._settings.builder.failure_memory, STEP_BUDGET)
        self._clear_progress()
        clear_private(self._spool.queue, self._spool.clock)
        clear_private(self._builds.queue, self._spool.clock)
        for process in self._leavings.step():
            log.info("removed the files that a dead executor left in tmp/", executor=process)
        self._order_collection()
        self._report_unexplained()
        self._persons.look()
        self._retention.step(STEP_BUDGET)
        self._counter.step(STEP_BUDGET)
        self._newer.tell()

    def _report_unexplained(self) -> None:
        """Go on with the check that began at the start. A file that is suspected is logged at a second look, later."""
        for found in self._unexplained:
            if found.format:
                self._newer.note(os.path.join(self._spool.root, found.path), found.format)
            elif self._check.judge(found.path) == found:
                log.warning(
                    "no state explains this file; see `spoolctl check`", file=found.path, why=found.why, so=found.action
                )
        self._unexplained = []
        began = self._spool.clock.monotonic()
        for seen in self._survey:
            if seen is not None:
                self._unexplained.append(seen)
            if len(self._unexplained) >= CLEARED or self._spool.clock.monotonic() - began > STEP_BUDGET:
                return

    def _check_submissions(self) -> None:
        for state in Kind.SUBMISSION.held:
            dead = self._watchmen[Kind.SUBMISSION, state].dead(self._spool.queue, state)
            for entry in self._unbuilt.among(dead, STEP_BUDGET) if state is State.BUILDING else dead:
                self._recover(state, entry)

    def _recover(self, state: State, entry: Entry) -> None:
        """Put a dead entry back, or end it. An entry of a newer version stays, for that version to end."""
        if newer := self._spool.newer_past_last(state, entry):
            self._newer.meet(newer)
            return
        recover(self._spool.queue, state, entry, abandon=partial(self._abandon, state=state), log=log)

    def _abandon(self, entry: Entry, state: State) -> None:
        tries = self._settings.lease.attempts
        reason = f"given up after {tries} attempts: in each of them the worker stopped renewing its lease"
        try:
            self._spool.give_up(entry, state, reason)
        except LeaseLostError:
            return
        except NewerFormatError as error:
            self._newer.meet(error)

    def _check_builds(self) -> None:
        queue = self._builds.queue
        for state in Kind.BUILD.held:
            for entry in self._watchmen[Kind.BUILD, state].dead(queue, state):
                recover(queue, state, entry, abandon=self._abandon_build, log=log)

    def _abandon_build(self, entry: Entry) -> None:
        tries = self._settings.lease.attempts
        text = f"spoold: this build was given up after {tries} attempts: the builder died in each of them\n"
        result = BuildResult(phase=Phase(stderr=text, outcome=Outcome.INTERNAL_ERROR))
        try:
            self._builds.finish(entry, result, self._spool.clock.file_system())
        except LeaseLostError:
            return

    def _order_collection(self) -> None:
        """File the order to collect when it is due. The time of the last one outlives this process."""
        rules, now = self._settings.gc, self._spool.clock.file_system()
        if self._builds.orders.is_filed(SCHEDULED):
            return
        last = self._builds.orders.answered_at(SCHEDULED)
        if last is None:
            self._builds.orders.answer(SCHEDULED, Report(dry_run=True))  # the first one is due after an interval
        elif rules.interval and now - last >= rules.interval:
            self._builds.orders.file(SCHEDULED, Order())

    def _clear_progress(self) -> None:
        """Remove side files of submissions whose response is out. A crash can leave such a file."""
        if self._side_files is None:
            self._side_files = walk(self._spool.queue.path("progress"))
        part = list(islice(self._side_files, CLEARED))
        if len(part) < CLEARED:
            self._side_files = None
        for name in part:
            if not isinstance(name, str):
                continue
            answer = self._spool.queue.path(State.DONE, ids.response_name(name.removesuffix(".json")))
            with passing_over(self._spool.queue.path("progress", name), self._seldom) as path:
                if fsops.exists(answer):
                    fsops.remove(path)
