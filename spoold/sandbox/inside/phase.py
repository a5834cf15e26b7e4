"""One phase: a program of the job from its fork to the death of everything that it started, and the account of it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps in enums; importing enum takes too long
import errno
import fcntl
import os
import resource
import select
import time

from . import counters, files, landlock, seccomp, sockets, wire
from .files import WORDS, WORK, as_job
from .kernel import PR_SET_DUMPABLE, libc
from .messages import Bounds, Broken, Done, Order, story

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import NoReturn

KILL_PATIENCE = 10.0  # seconds for killed processes to go; one that is stuck in the kernel goes with the container
PAGE = 4096
NO_CORE = 1  # bytes: with so many the kernel starts no handler of core dumps, which with none it does, see core(5)
APART = 64  # a descriptor above all that have to have certain numbers
LACKING = (errno.ENOMEM, errno.ENOSPC, errno.E2BIG)  # what the job's own limits leave too little of
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
        self.tools, self.counters = tools, tools.counters
        self.limits = order.limits
        self.argv, self.env = order.argv, dict(_pair(pair) for pair in order.env)
        self.words = b"".join(word + b"\0" for word in order.words)
        self.hit = ""
        self.pid = 0
        self.status: int | None = None
        self.reaped_cpu = self.looking_cpu = self.draining_cpu = 0
        self.outputs = [Output(self.limits.stdout), Output(self.limits.stderr)]

    def run(self, stdin: int) -> None:
        """Run the phase and send what came of it."""
        self.cpu_before = self.counters.cpu()
        self.oom_before = self.counters.oom_kills()
        self.peak_before = self.counters.peak()
        self.heap_before, self.files_before, self.cache_before = self.counters.memory()
        self.memory_before = self.heap_before + self.files_before
        self.memory_peak = 0
        self.sockets = sockets.Sockets()
        trouble, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.started = time.monotonic_ns()
        self.pid = os.fork()
        if self.pid == 0:
            self._become_job((stdin, *(output.writer for output in self.outputs)), told)
        os.close(told)
        for output in self.outputs:
            os.close(output.writer)
        try:
            self._watch()
        finally:
            clean = self._end()
            self.sockets.close()
        if self.counters.oom_kills() > self.oom_before:
            self.tools.reserve.clear()  # files in tmpfs may still fill the memory, and the report needs some
        self._drain_rest()
        self._report(clean, _last_words(trouble))

    def _become_job(self, streams: tuple[int, ...], told: int) -> NoReturn:
        """In the forked child, become the job. What goes wrong and is not the job's fault is ``told``."""
        try:
            told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, APART)  # out of the way of what gets a certain number
            os.setsid()
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            words = self._hold_words()
            for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD, _signal.SIGINT):
                _signal.signal(number, _signal.SIG_DFL)  # Python ignores some of these, which exec would hand on
            make_own()
            with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
                file.write(b"1000")
            os.umask(0o022)
            os.setgroups([])
            os.setresgid(files.job_uid, files.job_uid, files.job_uid)
            os.setresuid(files.job_uid, files.job_uid, files.job_uid)
            landlock.confine(self.tools.rules)
            os.dup2(words, WORDS)  # not before: the rules may have that number
            told = os.dup2(told, WORDS + 1, inheritable=False)
            os.closerange(WORDS + 2, 256)
            set_limits(self.limits)
            self.tools.filter.put_on()
            _enter_work()
            os.execve(self.argv[0], self.argv, self.env)  # noqa: S606 - a program of the store, no shell between
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not look like the job's doing
            if isinstance(error, OSError) and error.errno in LACKING:
                os.write(2, f"spoold: the program cannot be started: {error.strerror}\n".encode())
            else:
                os.write(told, story(error))
        finally:
            os._exit(126)

    def _hold_words(self) -> int:
        """Return a descriptor to read the words from: a command line is there for every user of the host to read."""
        with as_job():
            memory = os.memfd_create("words", 0)  # it may have the right number already, and is to stay open
            with open(memory, "wb", closefd=False) as file:
                file.write(self.words)
        os.lseek(memory, 0, os.SEEK_SET)
        return memory

    def _watch(self) -> None:
        """Wait until the program ends or hits a limit; what others still hold open does not matter."""
        poll = select.poll()
        poll.register(self.tools.wakeup, select.POLLIN)
        poll.register(0, select.POLLIN)
        readers = {output.reader: output for output in self.outputs}
        for reader in readers:
            poll.register(reader, select.POLLIN)
        end, next_look, pause = self.started + self.limits.time, self.started, 0.002
        self.watching_since = time.process_time_ns()
        while self.status is None and not self.hit:
            now = time.monotonic_ns()
            if now >= min(next_look, end):
                self._look(now)
                next_look, pause = now + int(pause * 1e9), min(TICK, pause * 2)
            left = min(next_look, end) - now
            for descriptor, _ in poll.poll(max(0, left) / 1e6):
                if descriptor == 0:
                    raise wire.GoneError  # nothing is due from the host during a phase: it has closed its side
                if descriptor == self.tools.wakeup:
                    os.read(self.tools.wakeup, 4096)
                    self._reap()
                elif not readers[descriptor].drain():
                    poll.unregister(descriptor)
        self._count_draining()

    def _count_draining(self) -> int:
        """Count our own CPU time since the watch began, but for the looks: it is the job's, whose output takes it."""
        now = time.process_time_ns()
        self.draining_cpu = now - self.watching_since - self.looking_cpu
        return now

    def _look(self, now: int) -> None:
        began = self._count_draining()
        used = self._used(*self.counters.memory())
        seen = self.sockets.held()
        used += self.sockets.held(again=True) if used + seen > self.limits.memory >= used else seen
        self.memory_peak = max(self.memory_peak, used)
        self.elapsed = now - self.started
        if used > self.limits.memory or self.counters.oom_kills() > self.oom_before:
            self.hit = "memory"
        elif self.elapsed >= self.limits.time:
            self.hit = "time"
        elif self._cpu() > self.limits.cpu_time:
            self.hit = "cpu"
        self.looking_cpu += time.process_time_ns() - began

    def _cpu(self) -> int:
        now = self.counters.cpu()
        used = self.reaped_cpu if now is None or self.cpu_before is None else max(0, now - self.cpu_before)
        return used + self.draining_cpu

    def _reap(self) -> bool:
        """Collect who has ended; return False when no child is left, which for process 1 means: nobody at all."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.reaped_cpu += int((usage.ru_utime + usage.ru_stime) * 1e9)
            if pid == self.pid:
                self.status = status
                self.elapsed = time.monotonic_ns() - self.started

    def _end(self) -> bool:
        """Kill all that is left; return whether it is gone."""
        deadline = time.monotonic() + KILL_PATIENCE
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
            deadline = time.monotonic() + KILL_PATIENCE
            while output.drain() and time.monotonic() < deadline and select.select([output.reader], [], [], 0)[0]:
                pass
            os.close(output.reader)

    def _report(self, clean: bool, trouble: bytes) -> None:
        if trouble:
            self.tools.host.send(Broken(story=trouble))
            return
        stdout, stderr = self.outputs
        left, peak = self._memory()
        cpu = self._cpu()
        self._look_back(peak, cpu)
        done = Done(
            status=-1 if self.status is None else self.status,
            time=self.elapsed,
            cpu=cpu,
            memory=peak,
            left=left,
            oom=int(self.counters.oom_kills() > self.oom_before),
            hit=self.hit.encode(),
            clean=int(clean),
            stdout=len(stdout.kept),
            stdout_total=stdout.total,
            stderr=len(stderr.kept),
            stderr_total=stderr.total,
        )
        self.tools.host.send(done, stdout.kept, stderr.kept)

    def _look_back(self, peak: int, cpu: int) -> None:
        """Find a limit that was passed since the last look."""
        if peak > self.limits.memory:
            self.hit = "memory"
        elif not self.hit and self.elapsed > self.limits.time:
            self.hit = "time"
        elif not self.hit and cpu > self.limits.cpu_time:
            self.hit = "cpu"

    def _memory(self) -> tuple[int, int]:
        """Return the bytes of files in memory that the phase leaves, and its peak.

        The peak is what was seen at the looks, or the kernel's own where that rose in this phase. The kernel's counts
        cached files too, which say more about who read them first than about the job: what the cache has grown by is
        taken off. As that is not exact it never decides about the limit.
        """
        heap, files, cache = self.counters.memory()
        peak, exact = self.counters.peak(), 0
        if peak > self.peak_before:
            exact = peak - self._kept() - self.memory_before - self.cache_before - max(0, cache - self.cache_before)
        left = max(0, self._used(heap, files, cache))
        return left, max(self.memory_peak, left, min(exact, self.limits.memory))

    def _used(self, heap: int, files: int, _: int) -> int:
        """Return the bytes that this phase holds; files of an earlier one that it deletes make no room for more."""
        self.files_before = min(self.files_before, files)
        return heap - self.heap_before - self._kept() + files - self.files_before

    def _kept(self) -> int:
        return sum(len(output.kept) for output in self.outputs)


def _pair(pair: bytes) -> tuple[bytes, bytes]:
    name, _, value = pair.partition(b"=")
    return name, value


def _enter_work() -> None:
    """Go to the work directory. An earlier phase may have closed it, which is the job's own doing."""
    try:
        os.chdir(WORK)
    except OSError as error:
        os.write(2, f"spoold: the work directory cannot be entered: {error.strerror}\n".encode())
        os._exit(126)


def _last_words(trouble: int) -> bytes:
    """Return what the child said that is not the job's fault; it is dead, or has become the job."""
    try:
        return os.read(trouble, wire.CHUNK)
    except BlockingIOError:  # it is stuck in the kernel
        return b""
    finally:
        os.close(trouble)


def make_own() -> None:
    """Let this process write its own files in /proc until its uid changes: in a cell these are somebody else's."""
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def set_limits(limits: Bounds) -> None:
    """Limit this process and its children; not the number of processes, which the kernel would count per user."""
    cpu = limits.cpu_time // 10**9 + 2  # the backstop; the looks at the cgroup are what decides
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, limits.file_size, limits.file_size),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_STACK, limits.stack, limits.stack),
        (resource.RLIMIT_CORE, NO_CORE, NO_CORE),
    ):
        top = resource.getrlimit(which)[1]
        if top != resource.RLIM_INFINITY:
            soft, hard = min(soft, top), min(hard, top)  # noqa: PLW2901 - bounded in place
        resource.setrlimit(which, (soft, hard))
