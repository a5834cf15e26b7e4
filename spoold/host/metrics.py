"""What the daemons count and measure, all of it in one table, and how it becomes text for Prometheus.

Theory of operation. Code that has something to count calls ``add``, ``set`` or ``observe`` of a metric below. While
nothing is measured, such a call is a test of one attribute, and no library is loaded. ``Exposition`` turns the metrics
of some roles on for the rest of the process and makes their text. ``host.textfile`` writes that text. Where a label has
few values, each of them has a series from the start, at 0, since Prometheus does not see the first increment of a new
series. Each series also names its spool and its daemon, since the collector reads the files of all daemons of a host as
one.

contrib/docs/operator.md, "Watching it", describes the table. A test compares the two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from spoold.model.response import FINAL, Outcome
from spoold.model.states import Kind, Role

ALL = tuple(Role)
PUBLISHERS = (Role.INTAKE, Role.EXECUTOR, Role.HEALTH)
HELD = tuple(kind.directory(state) for kind in Kind for state in kind.held)
ON_ITS_WAY = tuple(kind.directory(state) for kind in Kind for state in kind.on_its_way)
STATES = ("incoming", *ON_ITS_WAY)
OUTCOMES = tuple(outcome for outcome in Outcome if outcome is not Outcome.SKIPPED)
SHORT = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)  # seconds that a phase may take
LONG = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 14400)  # seconds that a submission may wait
TABLE: list[Metric] = []


class Metric:
    """One line of the table. ``roles`` export it. ``labels`` are by name, with the values that exist from the start."""

    kind = ""

    def __init__(self, name: str, about: str, roles: tuple[Role, ...], **labels: Iterable[str]) -> None:
        self.name, self.about, self.roles = name, about, roles
        self.labels = {label: tuple(values) for label, values in labels.items()}
        self._real: Any = None
        self._awaited = False
        TABLE.append(self)

    @property
    def on(self) -> bool:
        """Tell whether it is measured. Callers ask this before work that only the metric needs."""
        return self._real is not None

    def turn_on(self, make: Any, registry: Any) -> None:
        """Begin to measure; ``make`` is the library's class for this kind."""
        self._real = make(self.name, self.about, tuple(self.labels), registry=registry, **self._more())
        if len(self.labels) == 1 and self.kind != "gauge":
            for value in next(iter(self.labels.values())):
                self._real.labels(value)

    def _more(self) -> dict[str, Any]:
        return {}

    def _of(self, labels: tuple[str, ...]) -> Any:
        return self._real.labels(*labels) if labels else self._real


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def add(self, *labels: str, by: float = 1) -> None:
        """Add ``by`` to the number."""
        if self._real is not None:
            self._of(labels).inc(by)


class Gauge(Metric):
    """A number that goes up and down. It is not exported before it is known."""

    kind = "gauge"

    def turn_on(self, make: Any, registry: Any) -> None:
        """Begin when it is set for the first time."""
        self._begin = partial(super().turn_on, make, registry)
        self._awaited = True

    def set(self, value: float, *labels: str) -> None:
        """Note the present value; only one thread at a time may do so."""
        if self._awaited:
            self._awaited = False
            self._begin()
        if self._real is not None:
            self._of(labels).set(value)


class Histogram(Metric):
    """Durations in seconds, counted in buckets; ``buckets`` has their upper bounds."""

    kind = "histogram"

    def __init__(
        self, name: str, about: str, roles: tuple[Role, ...], buckets: tuple[float, ...], **labels: Iterable[str]
    ) -> None:
        super().__init__(name, about, roles, **labels)
        self._buckets = buckets

    def observe(self, value: float, *labels: str) -> None:
        """Count a duration."""
        if self._real is not None:
            self._of(labels).observe(value)

    def _more(self) -> dict[str, Any]:
        return {"buckets": self._buckets}


# -- of every daemon. The library's ProcessCollector would do nothing where /proc/stat is hidden.
START = Gauge("spoold_start_time_seconds", "When the daemon started, in seconds since the epoch", ALL)
CPU = Counter("spoold_cpu_seconds_total", "CPU time of the daemon, without the programs that it runs", ALL)
MEMORY = Gauge("spoold_resident_memory_bytes", "Memory of the daemon, with the pages that it shares with others", ALL)
OPEN_FILES = Gauge("spoold_open_files", "File descriptors that the daemon has open", ALL)
LOG_MESSAGES = Counter(
    "spoold_log_messages_total", "Lines that the daemon logged", ALL, level=("info", "warning", "error")
)
STEP_FAILURES = Counter("spoold_step_failures_total", "Steps of a daemon that failed and are tried again", ALL)
RESPONSES = Counter(
    "spoold_responses_total", "Submissions that ended, by the status of the response", PUBLISHERS, status=sorted(FINAL)
)
PUT_BACK = Counter(
    "spoold_put_back_total",
    "Entries that were put back, since their worker stopped renewing its lease",
    (Role.EXECUTOR, Role.BUILDER, Role.HEALTH),
    state=HELD,
)
LOST_LEASES = Counter(
    "spoold_lost_leases_total",
    "Leases that their holder lost, to another worker or to a cancel",
    (Role.EXECUTOR, Role.BUILDER),
)
GIVEN_UP = Counter(
    "spoold_given_up_total", "Submissions that ended by a fault of spoold or of the host", (Role.EXECUTOR, Role.HEALTH)
)
QUARANTINED = Counter(
    "spoold_quarantined_total", "Files that could not be used and were moved to quarantine/", PUBLISHERS
)
SHORT_OF_DISK = Gauge(
    "spoold_short_of_disk", "1 while work waits since too little is free on the disk", (Role.INTAKE, Role.EXECUTOR)
)

# -- intake
DROPPED = Counter(
    "spoold_dropped_total",
    "Submissions that intake has dealt with",
    (Role.INTAKE,),
    outcome=("accepted", "repeated", "refused", "reused"),
)
CANCELS = Counter(
    "spoold_cancels_total", "Cancels that intake has dealt with", (Role.INTAKE,), outcome=("done", "late", "unknown")
)

# -- executor
SLOTS = Gauge("spoold_slots", "Submissions that may run at once", (Role.EXECUTOR,))
SLOTS_BUSY = Gauge("spoold_slots_busy", "Slots that have a submission", (Role.EXECUTOR,))
READY = Gauge("spoold_submissions_ready", "Submissions that wait for a slot or for memory", (Role.EXECUTOR,))
ENGINE_READY = Gauge("spoold_engine_ready", "1 while the sandbox engine can be used", (Role.EXECUTOR,))
WAIT = Histogram("spoold_wait_seconds", "Time from the arrival of a submission to its run", (Role.EXECUTOR,), LONG)
TURNAROUND = Histogram(
    "spoold_turnaround_seconds", "Time from the arrival of a submission to its response", (Role.EXECUTOR,), LONG
)
PHASE = Histogram(
    "spoold_phase_seconds",
    "Wall-clock time of a phase of a job",
    (Role.EXECUTOR,),
    SHORT,
    phase=("compile", "run"),
    outcome=OUTCOMES,
)
SANDBOXES = Gauge("spoold_sandboxes", "Containers for jobs", (Role.EXECUTOR,), state=("waiting", "busy", "used"))
SANDBOX_EVENTS = Counter(
    "spoold_sandbox_events_total",
    "What became of containers for jobs",
    (Role.EXECUTOR,),
    event=("made", "failed", "died", "reused", "removed"),
)
SANDBOX_REQUESTS = Counter(
    "spoold_sandbox_requests_total",
    "Jobs, by whether a container was ready for them",
    (Role.EXECUTOR,),
    found=("yes", "no"),
)

# -- scale
SCALE_DEMAND = Gauge("spoold_scale_demand", "Submissions that pilots could work on", (Role.SCALE,))
PILOTS_WANTED = Gauge("spoold_pilots_wanted", "Executors that each pool should have", (Role.SCALE,), pool=())
PILOTS = Gauge(
    "spoold_pilots",
    "Executors that Slurm starts, by pool",
    (Role.SCALE,),
    pool=(),
    state=("pending", "starting", "running", "lost"),
)
PILOTS_SUBMITTED = Counter("spoold_pilots_submitted_total", "Executors that Slurm was asked to start", (Role.SCALE,))
PILOTS_CANCELLED = Counter(
    "spoold_pilots_cancelled_total", "Executors that were asked for and then cancelled", (Role.SCALE,)
)
PILOTS_LOST = Counter(
    "spoold_pilots_lost_total", "Jobs that run according to Slurm, but have no executor", (Role.SCALE,)
)
SLURM_READY = Gauge("spoold_slurm_ready", "1 while Slurm answers", (Role.SCALE,))

# -- builder
BUILD = Histogram(
    "spoold_build_seconds", "Time that a build of dependencies took", (Role.BUILDER,), SHORT, outcome=OUTCOMES
)
BUILDS_RUNNING = Gauge("spoold_builds_running", "Builds that run", (Role.BUILDER,))
BUILDS_WAITING = Gauge("spoold_builds_waiting", "Builds that wait for others to end", (Role.BUILDER,))
CACHED = Gauge("spoold_cached_builds", "Builds that are remembered, good or failed", (Role.BUILDER,))
STORE_BYTES = Gauge("spoold_store_bytes", "Size of the Nix store when it was last collected", (Role.BUILDER,))
STORE_FREE = Gauge("spoold_store_free_bytes", "Free bytes on the disk of the Nix store", (Role.BUILDER,))
COLLECTIONS = Counter(
    "spoold_collections_total", "Collections of the Nix store", (Role.BUILDER,), outcome=("ok", "failed")
)
COLLECTED_BUILDS = Counter("spoold_collected_builds_total", "Builds that were deleted as unused", (Role.BUILDER,))
COLLECTED_BYTES = Counter("spoold_collected_bytes_total", "Bytes that collections freed", (Role.BUILDER,))

# -- health; for incoming/ it is intake, since nobody else may list that
ENTRIES = Gauge(
    "spoold_entries", "Entries in a state, by its directory in the spool", (Role.INTAKE, Role.HEALTH), state=STATES
)
OLDEST = Gauge(
    "spoold_oldest_seconds",
    "For how long the oldest entry has been in a state; 0: there is none",
    (Role.INTAKE, Role.HEALTH),
    state=STATES,
)
QUARANTINE = Gauge("spoold_quarantine_files", "Files in quarantine/", (Role.HEALTH,))
DONE = Gauge("spoold_done_answers", "Answers in done/ when they were last counted", (Role.HEALTH,))
DONE_BYTES = Gauge("spoold_done_bytes", "Size of done/ when it was last counted", (Role.HEALTH,))
REMOVED = Counter("spoold_retention_removed_total", "Answers that retention has removed", (Role.HEALTH,))
SPOOL_FREE = Gauge("spoold_spool_free_bytes", "Free bytes on the disk of the spool", (Role.HEALTH,))
SPOOL_INODES = Gauge("spoold_spool_free_inodes", "Free inodes on the disk of the spool", (Role.HEALTH,))
LOOK = Gauge("spoold_look_seconds", "How long it took to count the entries", (Role.INTAKE, Role.HEALTH))


class Exposition:
    """The text of the metrics of ``roles``. All series get the labels ``constant``. A process has one of these."""

    def __init__(self, roles: Iterable[str], constant: Mapping[str, str]) -> None:
        import prometheus_client as library  # noqa: PLC0415 - 3 MB, for daemons that measure alone

        self._registry = library.CollectorRegistry()
        self._constant = constant
        self._make_text: Any = library.generate_latest
        kinds = {"counter": library.Counter, "gauge": library.Gauge, "histogram": library.Histogram}
        for metric in TABLE:
            if set(metric.roles) & set(roles):
                metric.turn_on(kinds[metric.kind], self._registry)

    def text(self) -> bytes:
        """Return everything as it is now, in Prometheus' text format."""
        text: bytes = self._make_text(self)
        return text

    def collect(self) -> Iterable[Any]:
        """Yield the families to the library, with our labels, and without the times when each series began."""
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**self._constant, **sample.labels})
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family


class Process:
    """The measures of this process. Its start is the moment when this object is made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.time(), 0.0

    def measure(self) -> None:
        """Set the metrics of this process."""
        START.set(self._began)
        used = time.process_time()
        CPU.add(by=used - self._cpu)
        self._cpu = used
        pages = Path("/proc/self/statm").read_text().split()[1]
        MEMORY.set(int(pages) * os.sysconf("SC_PAGE_SIZE"))
        OPEN_FILES.set(len(os.listdir("/proc/self/fd")) - 1)  # without the one that lists the directory


def turn_off() -> None:
    """Stop measuring, for tests, which have many daemons in one process."""
    for metric in TABLE:
        metric._real, metric._awaited = None, False
