"""From what the supervisor measured to what the client is told.

Where several things happen at once, the first of these names the outcome: memory, time, CPU, a cancel, output, file
size, a signal, a nonzero exit. The supervisor measures which limit was met. No exit code and no signal tells that,
since a program can choose either. Output over its cap is cut and counted. It makes a phase fail only where the request
asks for that.

run.sh and compile.sh are usually shell scripts. A shell whose last command was ended by signal *n* exits with 128 +
*n*. Where *n* is one that ends programs against their will, it is told like a signal of the script itself, and the exit
code stays. "It crashed" is what a client wants to know, and a program that picks such a code by itself has failed
either way.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, assert_never, cast

from spoold.host.proc import signal_name
from spoold.model.limits import PhaseLimits
from spoold.model.response import Outcome, Phase, Stream, finished_phase
from spoold.sandbox.messages import Done
from spoold.sandbox.obstacles import WORDS

if TYPE_CHECKING:
    from spoold.sandbox.messages import Hit

HIGHEST_STATUS = 0xFFFF  # see wait(2)
CRASHES = frozenset(
    {
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGXCPU,
        signal.SIGXFSZ,
        signal.SIGSYS,
    }
)


def is_possible(done: Done, limits: PhaseLimits) -> bool:
    """Tell whether an account can be true: no count is negative, and no more output was kept than the limits allow."""
    counts = [value for name, value in done.fields().items() if name != "status" and isinstance(value, int)]
    return (
        min(counts) >= 0
        and -1 <= done.status <= HIGHEST_STATUS
        and done.stdout <= min(limits.stdout, done.stdout_total)
        and done.stderr <= min(limits.stderr, done.stderr_total)
        and all(each.kind.decode(errors="replace") in WORDS for each in done.obstacles)
    )


def judge(done: Done, stdout: bytes, stderr: bytes, limits: PhaseLimits) -> Phase:
    """Return the record of a phase."""
    code, number = _exit(done.status)
    if code is not None and code - 128 in CRASHES:
        number = code - 128
    outcome = _outcome(done, code, number)
    memory = max(done.memory, limits.memory) if outcome is Outcome.MEMORY_LIMIT else done.memory
    return finished_phase(
        stdout=Stream(stdout, done.stdout_total),
        stderr=Stream(stderr, done.stderr_total),
        time=done.time / 1e9,
        outcome=outcome,
        signal=signal_name(number) if number else "",
        exit_code=code,
        cpu_time=done.cpu / 1e9,
        memory=memory,
    )


def killed_whole(limits: PhaseLimits, seconds: float) -> Phase:
    """Return the record of a phase whose container the kernel killed for want of memory, the supervisor included."""
    nothing = Stream(b"", 0)
    return finished_phase(
        stdout=nothing,
        stderr=nothing,
        time=seconds,
        outcome=Outcome.MEMORY_LIMIT,
        signal="SIGKILL",
        memory=limits.memory,
    )


def _outcome(done: Done, code: int | None, number: int) -> Outcome:
    if done.oom:
        return Outcome.MEMORY_LIMIT
    if limit := _limit(cast("Hit", done.hit.decode())):
        return limit
    if number:
        return Outcome.SIGNALLED
    return Outcome.OK if code == 0 else Outcome.NONZERO_EXIT


def _limit(hit: Hit) -> Outcome | None:  # noqa: PLR0911 - each limit has its own outcome
    match hit:
        case "memory":
            return Outcome.MEMORY_LIMIT
        case "time":
            return Outcome.TIME_LIMIT
        case "cpu":
            return Outcome.CPU_LIMIT
        case "cancel":
            return Outcome.CANCELLED
        case "output":
            return Outcome.OUTPUT_LIMIT
        case "file":
            return Outcome.FILE_LIMIT
        case "":
            return None
        case _:
            assert_never(hit)


def _exit(status: int) -> tuple[int | None, int]:
    if status < 0:  # the program could not be killed in time, but its container could be
        return None, signal.SIGKILL
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), 0
