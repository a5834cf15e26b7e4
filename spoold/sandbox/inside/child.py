"""The forked child, until it is the job: what it puts on and what it gives up, and whose fault it is where that fails.

All that the kernel enforces by itself, on a program and on its children, is put on here: the uid, the Landlock rules,
the limits of a process, and last the filter of calls. Each step still allows the next. The child is a copy of the
supervisor, so nothing here is undone and nothing returns: it becomes the job, or ends.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps in enums; importing enum takes too long
import errno
import fcntl
import os
import resource

from . import files, landlock, wire
from .files import WORDS, WORK, as_job
from .kernel import PR_SET_DUMPABLE, libc
from .messages import Bounds, Order, story

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import NoReturn

    from . import seccomp

NO_CORE = 1  # bytes: with so many the kernel starts no handler of core dumps, which with none it does, see core(5)
APART = 64  # a descriptor above all that have to have certain numbers
LACKING = (errno.ENOMEM, errno.ENOSPC, errno.E2BIG)  # what the job's own limits leave too little of


class Child:
    """A program of a job that is to be started: what can be made ready before the fork is."""

    def __init__(self, order: Order) -> None:
        self.limits = order.limits
        self.argv, self.env = order.argv, dict(_pair(pair) for pair in order.env)
        self.words = b"".join(word + b"\0" for word in order.words)

    def become_job(self, streams: tuple[int, ...], told: int, rules: int, calls: seccomp.Filter) -> NoReturn:
        """Become the job, which has ``streams`` as its first descriptors, behind these Landlock rules and filter.

        What goes wrong and is not the job's fault is ``told``.
        """
        try:
            told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, APART)  # out of the way of what gets a certain number
            os.setsid()
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            words = self._hold_words()
            for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD, _signal.SIGINT):
                _signal.signal(number, _signal.SIG_DFL)  # Python ignores some of these, which exec would hand on
            _make_own()
            with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
                file.write(b"1000")
            os.umask(0o022)
            os.setgroups([])
            os.setresgid(files.job_uid, files.job_uid, files.job_uid)
            os.setresuid(files.job_uid, files.job_uid, files.job_uid)
            landlock.confine(rules)
            os.dup2(words, WORDS)  # not before: the rules may have that number
            told = os.dup2(told, WORDS + 1, inheritable=False)
            os.closerange(WORDS + 2, 256)
            _set_limits(self.limits)
            calls.put_on()
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


def _pair(pair: bytes) -> tuple[bytes, bytes]:
    name, _, value = pair.partition(b"=")
    return name, value


def _enter_work() -> None:
    """Go to the work directory. An earlier phase may have closed it, which is the job's own doing.

    It is a mount, so the job can neither remove it nor put something else there.
    """
    try:
        os.chdir(WORK)
    except PermissionError as error:
        os.write(2, f"spoold: the work directory cannot be entered: {error.strerror}\n".encode())
        os._exit(126)


def last_words(trouble: int) -> bytes:
    """Return what the child said that is not the job's fault; it is dead, or has become the job."""
    try:
        return os.read(trouble, wire.CHUNK)
    except BlockingIOError:  # it is stuck in the kernel
        return b""
    finally:
        os.close(trouble)


def _make_own() -> None:
    """Let this process write its own files in /proc until its uid changes: in a cell these are somebody else's."""
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def _set_limits(limits: Bounds) -> None:
    """Limit this process and its children; not the number of processes, which the kernel would count per user."""
    cpu = limits.cpu_time // 10**9 + 2  # the backstop; the looks at the cgroup are what decides
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, limits.file_size + 1, limits.file_size + 1),  # the byte that shows it, see phase
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_STACK, limits.stack, limits.stack),
        (resource.RLIMIT_CORE, NO_CORE, NO_CORE),
    ):
        top = resource.getrlimit(which)[1]
        if top != resource.RLIM_INFINITY:
            soft, hard = min(soft, top), min(hard, top)  # noqa: PLW2901 - bounded in place
        resource.setrlimit(which, (soft, hard))
