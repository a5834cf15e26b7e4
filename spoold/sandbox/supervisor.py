"""The supervisor: process 1 of a sandbox, and the only one in it that is not the job's.

Theory of operation. It runs inside the container as the container's root, with a Python from the Nix store, and is
sent one job over its stdin. It writes the job's files, then runs each phase as an unprivileged user, watches it,
ends it, and reports on its stdout. It outlives the job whatever the job does:

* The job has another uid and no capability, so it can neither signal, trace nor read this process; as process 1 of
  its namespace the supervisor inherits every orphan, so "no child left" means "nothing of the job left".
* Descriptors of the supervisor are close-on-exec: what the job prints goes into pipes that only the supervisor
  reads, never into the report.
* Changing the effective uid (see ``as_job``) makes the kernel mark this process undumpable: ``/proc/1`` is closed.
* Under memory pressure the kernel kills the job first (``oom_score_adj``), and the supervisor holds some memory in
  reserve that it frees to be able to report.

Wire format, both ways: a message is a 4-byte length and that many bytes of bencode (integers, byte strings, lists,
dictionaries: a codec of a few lines that carries any bytes; importing json would double the time to start). Raw
bytes that a message announces follow it. The host sends one message with the job's files and input, then one per
phase. The supervisor sends ``ready``, then ``done`` per phase, or ``refused`` where the files cannot be written. End of
the supervisor's stdin at any time means: stop everything and exit.

This file is all that enters the container, so it imports nothing of spoold and little else; the host imports it
for the codec only.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps in enums; importing enum takes too long
import fcntl
import os
import resource
import select
import time

TYPE_CHECKING = False  # typing itself is too slow to import here
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

VERSION = 1
JOB_UID = 65533  # below 65536 so that it exists under userns-remap; not nobody, whom other programs run as
WORK = "/work"
CHUNK = 65536
MAX_HEADER = 64 * 1024**2
IO_PATIENCE = 60.0  # seconds without progress on the host's side of stdin or stdout
KILL_PATIENCE = 10.0  # seconds for killed processes to go; one that is stuck in the kernel goes with the container
TICK = 0.05  # seconds between looks at CPU and memory, at most
RESERVE = 4 * 1024**2
PAGE = 4096


class GoneError(Exception):
    """The host's side of stdin or stdout is closed or stuck: nobody is left to report to."""


# --- bencode ---------------------------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Return ``value`` (int, str, bytes, list, dict with str keys) in bencode."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, list):
        return b"l%be" % b"".join(map(encode, value))
    if isinstance(value, dict):
        return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))
    raise TypeError(type(value))


def decode(data: bytes, depth: int = 8) -> object:
    """Return the one value in ``data``, with str keys and bytes for strings; raise ValueError for anything else."""
    value, end = _decode(data, 0, depth)
    if end != len(data):
        raise ValueError("more than one value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[object, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at, at + 24)
        return int(data[at + 1 : end]), end + 1
    if kind.isdigit():
        colon = data.index(b":", at, at + 12)
        end = colon + 1 + int(data[at:colon])
        if end > len(data):
            raise ValueError("a string is cut off")
        return data[colon + 1 : end], end
    if kind not in (b"l", b"d") or depth == 0:
        raise ValueError("not bencode")
    items: list[object] = []
    at += 1
    while data[at : at + 1] != b"e":
        item, at = _decode(data, at, depth - 1)
        items.append(item)
    if kind == b"l":
        return items, at + 1
    return {key.decode(): value for key, value in zip(items[::2], items[1::2], strict=True)}, at + 1  # type: ignore[attr-defined]


def frame(message: dict[str, object]) -> bytes:
    """Return ``message`` as it goes over the wire."""
    body = encode(message)
    return len(body).to_bytes(4, "big") + body


# --- the host's side -------------------------------------------------------------------------------------------------


class Host:
    """The two pipes to the host; every wait on them is bounded but the one for the first byte of a message."""

    def __init__(self) -> None:
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        self.poll_in = select.poll()
        self.poll_in.register(0, select.POLLIN)
        self.poll_out = select.poll()
        self.poll_out.register(1, select.POLLOUT)

    def send(self, message: dict[str, object], *raw: bytearray) -> None:
        """Send ``message`` and the raw bytes that it announces."""
        parts: tuple[bytes | bytearray, ...] = (frame(message), *raw)
        for part in parts:
            view = memoryview(part)
            while view:
                try:
                    view = view[os.write(1, view[:CHUNK]) :]
                except BlockingIOError:
                    if not self.poll_out.poll(IO_PATIENCE * 1000):
                        raise GoneError from None
                except OSError:
                    raise GoneError from None

    def message(self) -> dict[str, object]:
        """Wait for the next message."""
        self.poll_in.poll()
        size = int.from_bytes(b"".join(self.raw(4)), "big")
        if size > MAX_HEADER:
            raise ValueError("message too long")
        value = decode(b"".join(self.raw(size)))
        if not isinstance(value, dict):
            raise ValueError("not a message")
        return value

    def raw(self, size: int) -> Iterator[bytes]:
        """Yield the next ``size`` bytes in pieces, so that no copy of a whole file is ever held."""
        while size:
            try:
                piece = os.read(0, min(size, CHUNK))
            except BlockingIOError:
                if not self.poll_in.poll(IO_PATIENCE * 1000):
                    raise GoneError from None
                continue
            if not piece:
                raise GoneError
            size -= len(piece)
            yield piece


# --- the container's counters ----------------------------------------------------------------------------------------


class Counters:
    """CPU, memory and out-of-memory kills of the whole container, from cgroup v1 or v2; zeros where there is none."""

    V1 = (
        "cpuacct/cpuacct.usage",
        "memory/memory.stat",
        "memory/memory.max_usage_in_bytes",
        "memory/memory.oom_control",
    )
    V2 = ("cpu.stat", "memory.stat", "memory.peak", "memory.events")

    def __init__(self) -> None:
        self.v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        self.files = [self._open("/sys/fs/cgroup/" + name) for name in (self.V2 if self.v2 else self.V1)]

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _read(self, number: int) -> bytes:
        try:
            return os.pread(self.files[number], 8192, 0)
        except OSError:
            return b""

    def _field(self, number: int, name: bytes) -> int:
        text = b"\n" + self._read(number)
        at = text.find(b"\n" + name + b" ")
        return int(text[at + len(name) + 2 :].split(b"\n", 1)[0]) if at >= 0 else 0

    def cpu(self) -> int | None:
        """Return the job's CPU time in ns (the supervisor's own is taken off), or None where nothing counts it."""
        total = self._field(0, b"usage_usec") * 1000 if self.v2 else int(self._read(0) or 0)
        return total - time.process_time_ns() if total else None

    def memory(self) -> tuple[int, int]:
        """Return the bytes that nothing but a kill can free (heap and files in tmpfs), and those of cached files."""
        shared = self._field(1, b"shmem")
        if self.v2:
            return self._field(1, b"anon") + shared, self._field(1, b"file") - shared
        return self._field(1, b"rss") + shared, self._field(1, b"cache") - shared

    def peak(self) -> int:
        """Return the highest use of memory so far, caches included."""
        return int(self._read(2) or 0)

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for want of memory."""
        return self._field(3, b"oom_kill")


# --- the job's files -------------------------------------------------------------------------------------------------


class as_job:  # noqa: N801
    """While it lasts, what is created belongs to the job: files, and pipes, so that /dev/stdout can be reopened."""

    def __enter__(self) -> None:
        os.setegid(JOB_UID)
        os.seteuid(JOB_UID)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)
        os.setegid(0)


def receive(host: Host, job: dict[str, Any]) -> int:
    """Write the files that follow ``job`` on the wire; return a descriptor to read the job's input from."""
    with as_job():
        for name, mode, size in job["files"]:
            _make_parents(name)
            path = os.path.join(WORK, os.fsdecode(name))
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            _fill(host, descriptor, size)
            os.fchmod(descriptor, mode)
            os.close(descriptor)
        memory = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        _fill(host, memory, job["stdin"])
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        stdin = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(memory)
    return stdin


def _make_parents(name: bytes) -> None:
    parts = os.fsdecode(name).split("/")
    if not name or b"\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError("bad file name")
    for depth in range(1, len(parts)):
        path = os.path.join(WORK, *parts[:depth])
        if not os.path.isdir(path):  # no race: nothing of the job has run yet
            os.mkdir(path, 0o755)


def _fill(host: Host, descriptor: int, size: int) -> None:
    for piece in host.raw(size):
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


# --- one phase -------------------------------------------------------------------------------------------------------


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
                data = os.read(self.reader, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.kept += data[: max(0, self.cap - self.total)]
            self.total += len(data)
        return True


class Phase:
    """One program of the job from its fork to the death of everything it started."""

    def __init__(self, host: Host, counters: Counters, order: dict[str, Any], wakeup: int, reserve: bytearray) -> None:
        self.host, self.counters, self.wakeup, self.reserve = host, counters, wakeup, reserve
        self.limits = order["limits"]
        self.argv, self.env = order["argv"], dict(pair.split(b"=", 1) for pair in order["env"])
        self.hit = ""
        self.pid = 0
        self.status: int | None = None
        self.reaped_cpu = 0
        self.outputs = [Output(self.limits["stdout"]), Output(self.limits["stderr"])]

    def run(self, stdin: int) -> None:
        """Run the phase and send what came of it."""
        self.cpu_before = self.counters.cpu()
        self.oom_before = self.counters.oom_kills()
        self.peak_before = self.counters.peak()
        self.memory_before, self.cache_before = self.counters.memory()
        self.memory_peak = 0
        self.started = time.monotonic_ns()
        self.pid = os.fork()
        if self.pid == 0:
            start_job(self.argv, self.env, self.limits, (stdin, *(output.writer for output in self.outputs)))
        for output in self.outputs:
            os.close(output.writer)
        try:
            self._watch()
        finally:
            clean = self._end()
        if self.counters.oom_kills() > self.oom_before:
            self.reserve.clear()  # files in tmpfs may still fill the memory, and the report needs some
        self._drain_rest()
        self._report(clean)

    def _watch(self) -> None:
        """Wait until the program ends or hits a limit; what others still hold open does not matter."""
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        poll.register(0, select.POLLIN)
        readers = {output.reader: output for output in self.outputs}
        for reader in readers:
            poll.register(reader, select.POLLIN)
        end, next_look, pause = self.started + self.limits["time"], self.started, 0.002
        while self.status is None and not self.hit:
            now = time.monotonic_ns()
            if now >= min(next_look, end):
                self._look(now)
                next_look, pause = now + int(pause * 1e9), min(TICK, pause * 2)
            left = min(next_look, end) - now
            for descriptor, _ in poll.poll(max(0, left) / 1e6):
                if descriptor == 0:
                    raise GoneError  # nothing is due from the host during a phase: it has closed its side
                if descriptor == self.wakeup:
                    os.read(self.wakeup, 4096)
                    self._reap()
                elif not readers[descriptor].drain():
                    poll.unregister(descriptor)

    def _look(self, now: int) -> None:
        used = self.counters.memory()[0] - self.memory_before - self._kept()
        self.memory_peak = max(self.memory_peak, used)
        self.elapsed = now - self.started
        if used > self.limits["memory"] or self.counters.oom_kills() > self.oom_before:
            self.hit = "memory"
        elif self.elapsed >= self.limits["time"]:
            self.hit = "time"
        elif self._cpu() > self.limits["cpu"]:
            self.hit = "cpu"

    def _cpu(self) -> int:
        now = self.counters.cpu()
        return self.reaped_cpu if now is None or self.cpu_before is None else now - self.cpu_before

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

    def _report(self, clean: bool) -> None:
        stdout, stderr = self.outputs
        self.host.send(
            {
                "event": "done",
                "status": -1 if self.status is None else self.status,
                "time": self.elapsed,
                "cpu": max(0, self._cpu()),
                "memory": self._peak(),
                "oom": int(self.counters.oom_kills() > self.oom_before),
                "hit": self.hit,
                "clean": int(clean),
                "stdout": len(stdout.kept),
                "stdout_total": stdout.total,
                "stderr": len(stderr.kept),
                "stderr_total": stderr.total,
            },
            stdout.kept,
            stderr.kept,
        )

    def _peak(self) -> int:
        """Return the phase's peak: what was seen at the looks, or the kernel's own peak where it rose in this phase.

        The kernel's counts cached files too, which say more about who read them first than about the job: what the
        cache has grown by is taken off.
        """
        memory, cache = self.counters.memory()
        peak, exact = self.counters.peak(), 0
        own = self._kept()
        if peak > self.peak_before:
            exact = peak - own - self.memory_before - self.cache_before - max(0, cache - self.cache_before)
        limit: int = self.limits["memory"]
        return max(self.memory_peak, memory - own - self.memory_before, min(exact, limit), 0)

    def _kept(self) -> int:
        return sum(len(output.kept) for output in self.outputs)


def start_job(argv: list[bytes], env: dict[bytes, bytes], limits: dict[str, int], streams: tuple[int, ...]) -> NoReturn:
    """Become the job, in the forked child: never returns."""
    try:
        os.setsid()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD, _signal.SIGINT):
            _signal.signal(number, _signal.SIG_DFL)  # Python ignores some of these, which exec would hand on
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"1000")
        cpu = limits["cpu"] // 10**9 + 2  # the backstop; the looks at the cgroup are what decides
        _limit(resource.RLIMIT_CPU, cpu, cpu + 1)
        _limit(resource.RLIMIT_FSIZE, limits["file_size"], limits["file_size"])
        _limit(resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"])
        _limit(resource.RLIMIT_CORE, 0, 0)
        os.umask(0o022)
        os.setgroups([])
        os.setresgid(JOB_UID, JOB_UID, JOB_UID)
        os.setresuid(JOB_UID, JOB_UID, JOB_UID)
        os.chdir(WORK)
        os.execve(argv[0], argv, env)  # noqa: S606
    except OSError as error:
        os.write(2, f"spoold: the program cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(126)


def _limit(which: int, soft: int, hard: int) -> None:
    top = resource.getrlimit(which)[1]
    if top != resource.RLIM_INFINITY:
        soft, hard = min(soft, top), min(hard, top)
    resource.setrlimit(which, (soft, hard))


# --- the whole -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve one job."""
    host, counters = Host(), Counters()
    reserve = bytearray(RESERVE)
    reserve[::PAGE] = b"\1" * (RESERVE // PAGE)  # touched, so that it is really ours
    wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.set_wakeup_fd(wakeup_writer)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    host.send({"event": "ready", "version": VERSION, **_walls()})
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    job = host.message()
    try:
        stdin = receive(host, job)
    except OSError as error:
        host.send({"event": "refused", "reason": error.strerror or ""})
        return
    while True:
        order = host.message()
        phase = Phase(host, counters, order, wakeup, reserve)
        phase.run(stdin if order["input"] else nothing)


def _walls() -> dict[str, object]:
    """Return what the kernel says of this process, for the host to check that the container is what it asked for."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file if b":" in line)
    return {
        "no_new_privileges": int(lines[b"NoNewPrivs"]),
        "seccomp": int(lines[b"Seccomp"]),
        "capabilities": int(lines[b"CapBnd"], 16),
    }


if __name__ == "__main__":
    try:
        main()
    except GoneError:
        os._exit(0)
