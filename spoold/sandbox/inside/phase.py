"""One phase: a program of the job from its fork to the death of everything that it started, and the account of it.

``child`` is what the fork makes of itself, ``usage`` what is counted and which limit that passes. Here is who waits for
whom: for output, for the end, for all that is left to be gone.

Which limit was met is measured, and never told by a signal or an exit code, which a program can choose. A program may
write one byte more into a file than it is allowed: a file that is so long when the phase has ended shows that it tried.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps in enums; importing enum takes too long
import os
import select
import time

from . import child, counters, landlock, obstacles, seccomp, wire
from .files import Large, as_job
from .messages import Broken, Cancel, Done, Obstacle, Order
from .usage import Usage

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from .messages import Hit

KILL_TIMEOUT = 10.0  # seconds for killed processes to go; one that is stuck in the kernel goes with the container
PAGE = 4096
TICK = 0.01  # seconds between looks at CPU and memory, at most: memory grows by some 10 MB in that time


class Output:
    """One output stream of the job: keeps the first ``cap`` bytes, counts all, and never stops reading."""

    def __init__(self, cap: int) -> None:
        self.cap, self.kept, self.total = cap, bytearray(), 0
        with as_job():
            self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)

    def drain(self) -> bool:
        """Take what is there, 1 MiB at most; return False at end of file."""
        for _ in range(16):
            try:
                data = os.read(self.reader, wire.CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.kept += data[: max(0, self.cap - self.total)]
            self.total += len(data)
        return True


class Tools:
    """What all phases share."""

    def __init__(self, host: wire.Host) -> None:
        self.host, self.counters, self.filter = host, counters.Counters(), seccomp.Filter()
        self.reserve = bytearray()
        self.rules = -1
        self.wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(wakeup_writer)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)

    def get_ready(self) -> None:
        """Prepare for the jobs of this mount namespace."""
        self.rules = landlock.rules()

    def keep_in_reserve(self, size: int) -> None:
        """Hold so many bytes, to be freed where memory is short at the report; a multiple of the page size."""
        self.reserve = bytearray(size)
        self.reserve[::PAGE] = b"\1" * (size // PAGE)  # touched, so that it is really ours


class Phase:
    """One program of the job from its fork to the death of everything it started."""

    def __init__(self, tools: Tools, order: Order) -> None:
        self.tools = tools
        self.limits = order.limits
        self.script, self.words = os.fsdecode(order.script), order.words
        self.child = child.Child(order)
        self.pid = 0
        self.status: int | None = None
        self.outputs = [Output(self.limits.stdout), Output(self.limits.stderr)]

    def run(self, stdin: int) -> None:
        """Run the phase and send what came of it."""
        trouble, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.large = Large(self.limits.file_size)
        self.usage = Usage(self.tools.counters, self.limits, [output.kept for output in self.outputs])
        obstacles.forget(self.script)
        self.pid = os.fork()
        if self.pid == 0:
            streams = (stdin, *(output.writer for output in self.outputs))
            self.child.become_job(streams, told, self.tools.rules, self.tools.filter)
        os.close(told)
        for output in self.outputs:
            os.close(output.writer)
        try:
            self._watch()
        finally:
            clean = self._end()
            self.usage.close()
        if self.usage.oom():
            self.tools.reserve.clear()  # files in tmpfs may still fill the memory, and the report needs some
        self._drain_rest()
        self._report(clean, child.last_words(trouble))

    def _watch(self) -> None:
        """Wait until the program ends, hits a limit or is cancelled; what others still hold open does not matter."""
        poll = select.poll()
        poll.register(self.tools.wakeup, select.POLLIN)
        poll.register(0, select.POLLIN)
        readers = {output.reader: output for output in self.outputs}
        for reader in readers:
            poll.register(reader, select.POLLIN)
        started = self.usage.started
        end, next_look, pause = started + self.limits.time, started, 0.002
        self.usage.watch()
        while self.status is None and not self.usage.hit:
            now = time.monotonic_ns()
            if now >= min(next_look, end):
                self.usage.look(now)
                next_look, pause = now + int(pause * 1e9), min(TICK, pause * 2)
            left = min(next_look, end) - now
            for descriptor, _ in poll.poll(max(0, left) / 1e6):
                if descriptor == 0:
                    self.tools.host.message(Cancel)  # nothing else is due from the host during a phase, but its end
                    if self.status is None:
                        self.usage.hit = "cancel"
                elif descriptor == self.tools.wakeup:
                    os.read(self.tools.wakeup, 4096)
                    self._reap()
                elif not readers[descriptor].drain():
                    poll.unregister(descriptor)
            if self._ends_for_its_output() and not self.usage.hit:
                self.usage.hit = "output"
                self.usage.ended()
        self.usage.count_draining()

    def _ends_for_its_output(self) -> bool:
        return self.limits.on_output_limit == b"end" and any(output.total > output.cap for output in self.outputs)

    def _reap(self) -> bool:
        """Collect who has ended; return False when no child is left, which for process 1 means: nobody at all."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.usage.reaped(usage)
            if pid == self.pid:
                self.status = status
                self.usage.ended()

    def _end(self) -> bool:
        """Kill all that is left; return whether it is gone."""
        deadline = time.monotonic() + KILL_TIMEOUT
        while self._reap():
            try:  # noqa: SIM105 (contextlib takes too long to import)
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                pass
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        return True

    def _drain_rest(self) -> None:
        """Read what the dead left in the pipes: at most a pipe's capacity each, since no writer lives."""
        for output in self.outputs:
            deadline = time.monotonic() + KILL_TIMEOUT
            while output.drain() and time.monotonic() < deadline and select.select([output.reader], [], [], 0)[0]:
                pass
            os.close(output.reader)

    def _obstacles(self, status: int) -> list[Obstacle]:
        if self.usage.oom() or self.usage.hit == "memory":
            return []  # looking takes some memory too
        return obstacles.look(self.script, os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1, self.words)

    def _report(self, clean: bool, trouble: bytes) -> None:
        if trouble:
            self.tools.host.send(Broken(story=trouble))
            return
        stdout, stderr = self.outputs
        cpu, peak, left = self.usage.account()
        if not self.usage.hit:
            self.usage.hit = self._other_limit()
        status = -1 if self.status is None else self.status
        done = Done(
            status=status,
            time=self.usage.elapsed,
            cpu=cpu,
            memory=peak,
            files=self.usage.files_at_most,
            entries=self.usage.room.entries,
            full=self.usage.room.full,
            left=left,
            unseen=self.usage.pages.unseen,
            oom=int(self.usage.oom()),
            hit=self.usage.hit.encode(),
            clean=int(clean),
            stdout=len(stdout.kept),
            stdout_total=stdout.total,
            stderr=len(stderr.kept),
            stderr_total=stderr.total,
            obstacles=self._obstacles(status) if clean else [],
        )
        self.tools.host.send(done, stdout.kept, stderr.kept)

    def _other_limit(self) -> Hit:
        """Return which limit a phase met that none has ended; what its dead left in the pipes is read by now."""
        if self._ends_for_its_output():
            return "output"
        return "file" if self.large.more() else ""
