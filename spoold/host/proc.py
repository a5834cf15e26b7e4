"""Run a program with a bound on everything.

Theory of operation: the program gets a session and process group of its own. Unless they are given, its environment and
its stdin are empty. Its output is read as long as it runs. The first bytes are kept and the rest is only counted, so a
program can neither fill our memory nor block on a full pipe. One loop in the calling thread waits for output, for the
end of the process (a pidfd), for the clock and for the caller to cancel. At a limit the whole group gets SIGTERM, and
after a short grace SIGKILL. The group is also killed when the program ended by itself. That happens before the program
is reaped: as long as the group's leader is a zombie, the number of the group belongs to nobody else.

The program also dies when we do, even when SIGKILL ends us; see :mod:`spoold.host.launch`. A process that leaves the
group (setsid) escapes both, unless the program has a pid namespace of its own. There the end of the first process is
the end of all. Any number of threads may call :func:`run` at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from threading import Event
from typing import NamedTuple

import msgspec

from spoold.host import launch
from spoold.host.launch import Rlimits, find
from spoold.host.pipe import Capture
from spoold.model.response import Stream

__all__ = ["Alarm", "Bounds", "Finished", "Limit", "Rlimits", "Watch", "find", "run", "signal_name"]

TICK = 0.05  # seconds between two looks at the cancel event
ALERT = 0.005  # seconds between two looks at alarms


class Limit(StrEnum):
    """Which bound ended the program."""

    WALL = "wall"
    SILENCE = "silence"
    OUTPUT = "output"
    WATCH = "watch"
    MEMORY = "memory"  # this and the next are for callers that bound these from outside
    PROCESSES = "processes"
    HOST = "host"  # the host ran out of something, and no program that runs there is at fault
    CANCELLED = "cancelled"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may take.

    ``wall`` and ``silence`` (time without output) are seconds. ``stdout`` and ``stderr`` say how many bytes of each
    stream are kept. If a stream is longer, its last ``tail`` bytes are kept too, behind a line that says how many are
    missing. With ``output`` set, the program is stopped when it wrote more bytes than that. Else all output is read.
    ``grace`` is the seconds between SIGTERM and SIGKILL.
    """

    wall: float
    silence: float | None = None
    stdout: int = 1024 * 1024
    stderr: int = 1024 * 1024
    tail: int = 0
    output: int | None = None
    grace: float = 2.0
    rlimits: Rlimits = Rlimits()


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended: an exit code, or the name of a signal. ``limit`` tells which bound made us stop it.

    ``wall`` and ``cpu`` are seconds. ``cpu`` counts the program and the children that it waited for, and ``memory`` is
    the largest resident size of one of them, in bytes. ``reason`` is the text with which ``watch`` or an alarm asked
    for the end.
    """

    exit_code: int | None
    signal: str
    limit: Limit | None
    reason: str
    wall: float
    cpu: float
    memory: int
    stdout: Stream
    stderr: Stream

    @property
    def ok(self) -> bool:
        """Tell whether the program ended by itself with exit code 0."""
        return self.exit_code == 0 and self.limit is None


Watch = Callable[[], str]


class Alarm(NamedTuple):
    """A question that is asked while the program runs: has something happened that ends it, and how does it end then?

    ``look`` is called every few milliseconds, and with a descriptor also as soon as that can be read.
    """

    look: Callable[[], tuple[Limit, str] | None]
    fd: int = -1


def run(
    argv: Sequence[str],
    bounds: Bounds,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    stdin: bytes = b"",
    cancel: Event | None = None,
    watch: Watch | None = None,
    alarms: Sequence[Alarm] = (),
    descriptors: Sequence[int] = (),
    pid_namespace: bool = False,
    entering: launch.Entering | None = None,
) -> Finished:
    """Run ``argv`` and return how it ended; never wait longer than the bounds say.

    With ``pid_namespace`` it is the first process of a pid namespace, and its end is the end of all that it started.
    ``watch`` is called every few moments. A text that it returns ends the program, and so does an error that it raises.
    An alarm ends the program at once, without grace. The program gets ``descriptors`` beside the usual three.
    ``entering`` leads into a user namespace in which the program runs as root. Raises :class:`OperatorError` when the
    program is not there, :class:`TemporaryError` when the machine has no process to spare.
    """
    started = time.monotonic()
    with launch.holding(stdin) as source:
        command = launch.command(argv, bounds.rlimits, env=env or {}, pid_namespace=pid_namespace, entering=entering)
        process = launch.start(command, env=env or {}, cwd=cwd, stdin=source, descriptors=descriptors)
    supervision = _Supervision(process, bounds, started)
    supervision.cancel, supervision.watch, supervision.alarms = cancel, watch, alarms
    try:
        supervision.until_the_end()
    finally:
        status, usage = _sweep_and_reap(process)
        supervision.drain()
    return _finished(supervision, status, usage, time.monotonic() - started)


class _Supervision:
    """The loop around one running program."""

    def __init__(self, process: subprocess.Popen[bytes], bounds: Bounds, started: float) -> None:
        self.process, self.bounds, self.started = process, bounds, started
        self.cancel: Event | None = None
        self.watch: Watch | None = None
        self.alarms: Sequence[Alarm] = ()
        self.stdout = Capture(process.stdout, bounds.stdout, bounds.tail)
        self.stderr = Capture(process.stderr, bounds.stderr, bounds.tail)
        self.heard = started
        self.looked = started
        self.look_every = TICK
        self.limit: Limit | None = None
        self.reason = ""
        self.ended = False

    def until_the_end(self) -> None:
        pidfd = os.pidfd_open(self.process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(pidfd, selectors.EVENT_READ)
                for capture in (self.stdout, self.stderr):
                    selector.register(capture.fd, selectors.EVENT_READ, capture)
                for alarm in self.alarms:
                    if alarm.fd >= 0:
                        selector.register(alarm.fd, selectors.EVENT_READ, alarm)
                self._loop(selector)
        finally:
            os.close(pidfd)

    def _loop(self, selector: selectors.BaseSelector) -> None:
        kill_at: float | None = None
        while not self.ended:
            self._take(selector, ALERT if self.alarms else TICK)
            for alarm in self.alarms:
                self._alarmed(alarm)
            if self.ended:
                return
            now = time.monotonic()
            if kill_at is None and self.limit is not None:  # an alarm has killed it
                kill_at = now
            if kill_at is None:
                self.limit = self._exceeded(now)
                if self.limit is not None:
                    _signal_group(self.process.pid, signal.SIGTERM)
                    kill_at = now + self.bounds.grace
            elif now >= kill_at:
                _signal_group(self.process.pid, signal.SIGKILL)

    def _take(self, selector: selectors.BaseSelector, timeout: float) -> None:
        for key, _ in selector.select(timeout):
            if key.data is None:
                self.ended = True
            elif isinstance(key.data, Alarm):
                continue  # all alarms are asked after this
            elif key.data.read():
                self.heard = time.monotonic()
            else:
                selector.unregister(key.fd)

    def _alarmed(self, alarm: Alarm) -> None:
        """Kill the program before it does anything more, where ``alarm`` says that something has happened."""
        found = alarm.look()
        if found is not None and self.limit is None:
            self.limit, self.reason = found
            _signal_group(self.process.pid, signal.SIGKILL)

    def _exceeded(self, now: float) -> Limit | None:
        bounds = self.bounds
        if self.cancel is not None and self.cancel.is_set():
            return Limit.CANCELLED
        if now - self.started >= bounds.wall:
            return Limit.WALL
        if bounds.silence is not None and now - self.heard >= bounds.silence:
            return Limit.SILENCE
        if bounds.output is not None and self.stdout.total + self.stderr.total > bounds.output:
            return Limit.OUTPUT
        return Limit.WATCH if self._watch_says(now) else None

    def _watch_says(self, now: float) -> str:
        if self.watch is None or now - self.looked < self.look_every:
            return ""
        self.reason = self.watch()
        self.looked = time.monotonic()
        # A look may take any time, as long as all looks together are a small part of the time.
        self.look_every = max(TICK, 10 * (self.looked - now))
        return self.reason

    def drain(self) -> None:
        """Read what is left in the pipes, but no more than they hold, since others may go on writing to them."""
        for capture in (self.stdout, self.stderr):
            before, most = -1, capture.total + fcntl.fcntl(capture.fd, fcntl.F_GETPIPE_SZ)
            while before < capture.total < most:
                before = capture.total
                capture.read()
            capture.pipe.close()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _sweep_and_reap(process: subprocess.Popen[bytes]) -> tuple[int, tuple[float, int]]:
    _signal_group(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would look for the process again
    return status, (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _finished(seen: _Supervision, status: int, usage: tuple[float, int], wall: float) -> Finished:
    return Finished(
        exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=signal_name(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "",
        limit=seen.limit,
        reason=seen.reason,
        wall=wall,
        cpu=usage[0],
        memory=usage[1],
        stdout=seen.stdout.stream(),
        stderr=seen.stderr.stream(),
    )


def signal_name(number: int) -> str:
    """Return the name of a signal: ``SIGSEGV``, ``SIGRTMIN+3``, ``SIG32`` for one that the C library keeps."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"SIG{number}"
