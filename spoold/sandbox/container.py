"""One container: made and started before its job is known, used for one job, or for many in turn, and removed.

Making one creates it, attaches before it starts, and returns once the supervisor waits. ``alive`` tells whether it
still does. ``run`` sends the job and reads a report per phase; ``reusable`` then tells whether it can serve another.
``stop`` ends whatever runs in it, ``close`` removes it. What it is allowed is in ``walls``; ``pool`` keeps some ready.

All that wait have one size, which is enough for either phase with the default limits. A phase whose request asks for
another limit gets it by an update of the container's own limits just before: then the kernel's word is what counts. One
with the smaller of the defaults is held to it by the supervisor's looks, a few milliseconds apart, and has no update to
wait for; what a peak between two looks can take is bounded by the larger.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import docker

from spoold.model.errors import ClientError, TemporaryError
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.limits import MIB, PhaseLimits
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import RunCancelledError
from spoold.sandbox.attached import Attached, UnusableError
from spoold.sandbox.channel import BrokenError, Channel, ClosedError, text, unlimited
from spoold.sandbox.engine import PATIENCE, Engine
from spoold.sandbox.image import ENTER
from spoold.sandbox.inside import wire
from spoold.sandbox.inside.files import HOLDERS, WORDS
from spoold.sandbox.inside.messages import Again, Bounds, Done, End, Failed, File, Order, Parcel, Refused
from spoold.sandbox.verdict import is_possible, judge, killed_whole
from spoold.sandbox.walls import Plan, Size, configuration, held

LAST_PATIENCE = 5.0  # seconds for what was said, or becomes known, about a sandbox that is lost
MARGIN = 60.0  # seconds beyond a phase's own time for killing, draining and reporting
AGAIN_PATIENCE = 5.0  # seconds for all of a job to be gone; whose leftovers take longer is replaced
LIGHT = 8 * MIB  # of files that a job left in memory: so much may lie there until there is time to remove it
TIMES = ("time", "cpu_time")
SCRIPTS = ("compile.sh", "run.sh")


class Container(Attached):
    """A container whose supervisor waits for a job."""

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        cancelled: threading.Event,
        holder: int = HOLDERS.start,
        size: Size | None = None,
    ) -> None:
        self.plan, self._holder = plan, holder
        self._size = size or plan.size(plan.settings.limits.run.default)
        self.pid = 0  # of the supervisor, as the engine's host counts
        self.reusable = False
        self.light = True  # whether it holds little of a job's
        self._jobs, self._owner = 0, -1
        self.due = False  # whether its supervisor, after a job, has yet to say that it is ready
        super().__init__(engine, cancelled)

    def _configuration(self) -> dict[str, Any]:
        return configuration(self._api, self.plan, self._size, self._holder)

    def _start(self, cancelled: threading.Event) -> None:
        super()._start(cancelled)
        self.pid = self._api.inspect_container(self.id)["State"]["Pid"]

    def serves(self, owner: int) -> bool:
        """Tell whether a job of ``owner``'s may run here, whoever's ran before."""
        return not self._jobs or self._owner == owner or not self.plan.settings.docker.replace_on_owner_change

    def fits(self, job: Job) -> bool:
        """Tell whether it has, or can be given, the size that ``job`` needs."""
        return self.plan.resizable or self._size == self.plan.size_for_all(job)

    def alive(self) -> bool:
        """Tell whether its supervisor waits, or is about to."""
        if not self.due:
            return super().alive()
        assert self._channel is not None  # noqa: S101 - for mypy: what is due was started
        try:
            if self._channel.arrived(Again) is not None:
                self.due = False
        except (ClosedError, BrokenError, RunCancelledError):
            return False
        return True

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        names: list[str] | None = None,
    ) -> JobResult:
        """Run ``job``, which in a recycled container sees the entries ``names`` of the store only, unless None.

        The container is good for nothing but ``close`` afterwards, unless it is ``reusable``.
        """
        channel = self._channel
        assert channel is not None  # noqa: S101 - the constructor attached, or raised
        channel.cancelled = cancelled
        self.reusable = self.light = False
        self._await_supervisor(channel)
        self._jobs, self._owner = self._jobs + 1, job.owner
        result = self._phases(channel, job, on_phase, _parcel(job, names))
        if self.plan.recycled and self._jobs < self.plan.settings.docker.replace_after and _usual(result):
            self._release(channel)
        return result

    def _await_supervisor(self, channel: Channel) -> None:
        if self.due:
            try:
                channel.message(AGAIN_PATIENCE, Again)
            except ClosedError as error:
                raise UnusableError(f"the container did not get ready for another job: {error}") from error
            self.due = False

    def _release(self, channel: Channel) -> None:
        """Have the supervisor make room for another job."""
        try:
            channel.send([wire.frame(End())], LAST_PATIENCE)
        except (ClosedError, RunCancelledError):
            return
        self.reusable = self.due = True

    def _phases(
        self, channel: Channel, job: Job, on_phase: Callable[[str, Phase], None], parts: list[bytes]
    ) -> JobResult:
        beside, most = held(job), self.plan.most(job)
        phases = {"compile": SKIPPED_PHASE, "run": SKIPPED_PHASE}
        for name, limits in (("compile", job.compile), ("run", job.run)):
            if limits is None:
                continue
            if self.plan.resizable:
                size = self.plan.size(limits, beside)
                self.resize(replace(size, memory=min(size.memory, most)))
            parts.append(wire.frame(_order(self.plan.runtime, job, name, limits)))
            phases[name], left = self._phase(channel, parts, limits)
            beside += left
            self.light = beside <= LIGHT
            on_phase(name, phases[name])
            if phases[name].outcome is not Outcome.OK:
                break
            parts = []
        return JobResult(compile=phases["compile"], run=phases["run"])

    def resize(self, size: Size) -> None:
        """Give the container the size of the coming phase, where it has another; the engine knows both cgroups."""
        if size == self._size:
            return
        url = f"{self._api.base_url}/v{self._api.api_version}/containers/{self.id}/update"
        change = {"Memory": size.memory, "MemorySwap": size.memory, "PidsLimit": size.processes}
        with self._engine.errors():
            answer = self._api.post(url, json=change, timeout=PATIENCE)
        if answer.status_code >= 400:
            raise TemporaryError(f"Docker at {self._engine.where} cannot change a limit: {answer.text[:500]}")
        self._size = size

    def _phase(self, channel: Channel, parts: list[bytes], limits: PhaseLimits) -> tuple[Phase, int]:
        """Return the record of the phase, and the bytes of files in memory that it leaves for the next."""
        started = time.monotonic()
        try:
            try:
                channel.send(parts, MARGIN)
            except ClosedError:
                return _report(channel, limits, LAST_PATIENCE)  # it may have said why before it closed its end
            return _report(channel, limits, limits.time + MARGIN)
        except ClosedError as error:
            if self._out_of_memory():
                return killed_whole(limits, time.monotonic() - started), 0
            raise TemporaryError(f"the sandbox was lost: {error}") from error

    def _out_of_memory(self) -> bool:
        """Return whether the container ended for want of memory; the engine may learn of that a little late."""
        deadline = time.monotonic() + LAST_PATIENCE
        with self._engine.errors():
            while True:
                try:
                    state = self._api.inspect_container(self.id)["State"]
                except docker.errors.NotFound:
                    return False
                if not state.get("Running"):
                    return bool(state.get("OOMKilled"))
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)


def _usual(result: JobResult) -> bool:
    """Tell whether a container that came out of this may serve another job; a kill for want of memory spares little."""
    return Outcome.MEMORY_LIMIT not in (result.compile.outcome, result.run.outcome)


def _parcel(job: Job, names: list[str] | None) -> list[bytes]:
    """Return the job's files and input as the supervisor takes them."""
    files = [(f.name, 0o755 if f.name in SCRIPTS else f.mode, f.content) for f in job.files]
    head = Parcel(
        files=[File(name=name.encode(), mode=mode, size=len(content)) for name, mode, content in files],
        stdin=len(job.stdin),
        viewed=int(names is not None),
        store=[os.fsencode(name) for name in names or ()],
    )
    return [wire.frame(head), *(content for _, _, content in files), job.stdin]


def _order(runtime: Runtime, job: Job, name: str, limits: PhaseLimits) -> Order:
    words = [
        job.shell,
        *(f"{key}={value}" for key, value in job.env.items()),
        f"./{name}.sh",
        *(job.args if name == "run" else ()),
    ]
    env = [f"PATH={runtime.coreutils}/bin:{runtime.bash}/bin", "HOME=/job", f"NIX_PATH=nixpkgs={job.nixpkgs}"]
    return Order(
        argv=[word.encode() for word in (f"{runtime.bash}/bin/bash", "--norc", "--noprofile", ENTER, str(WORDS))],
        words=[word.encode() for word in words],
        env=[pair.encode() for pair in env],
        input=int(name == "run"),
        limits=_bounds(limits),
    )


def _bounds(limits: PhaseLimits) -> Bounds:
    """Return what the supervisor enforces of ``limits``: all that it knows by name, times in nanoseconds."""
    scales = dict.fromkeys(TIMES, 10**9)
    return Bounds(**{name: int(getattr(limits, name) * scales.get(name, 1)) for name in Bounds.FIELDS})


def _report(channel: Channel, limits: PhaseLimits, patience: float) -> tuple[Phase, int]:
    said = channel.message(patience, Done, Failed, Refused)
    if isinstance(said, Failed):
        raise unlimited(said.reason)
    if isinstance(said, Refused):
        raise ClientError(f"files: they cannot be written to the work directory: {text(said.reason)}")
    assert isinstance(said, Done)  # noqa: S101 - for mypy: nothing else was expected
    if not is_possible(said, limits):
        raise ClosedError("the supervisor sent garbage")
    if not said.clean:
        raise ClosedError("a process of the job cannot be killed")
    deadline = time.monotonic() + MARGIN
    stdout, stderr = channel.take(said.stdout, deadline), channel.take(said.stderr, deadline)
    return judge(said, stdout, stderr, limits), said.left
