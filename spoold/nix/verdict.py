"""The verdict on a build that failed: whose fault it was, and the phase that the client gets.

Theory of operation: the verdict rests on evidence: exit codes, signals, limits that were reached, the control group's
counts, and free space. It does not rest on words of a log, since a client can write such words too. The few exceptions
are words that only Nix can write at that place. They decide only which limit is named. When a program reaches a limit,
spoold stops it with a signal. That signal is not reported, since it is not the program's own.
"""

from __future__ import annotations

import os

from spoold.host import proc
from spoold.host.proc import Limit
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import BuildLimits
from spoold.model.response import Outcome, Phase, Stream, finished_phase
from spoold.nix import messages
from spoold.nix.realise import Realisation
from spoold.nix.store import Store

CHUNK = 4096  # bytes that Nix reads of a log at once. Nix does not pass on the chunk that exceeds the limit
LOG_ENDED = b" killed after writing more than "  # Nix's words. A builder that fakes them has to write as long a log
FREE = 64 * 1024**2  # bytes. With less free room, a full disk counts as the cause of a failure
NOTHING = Stream(b"", 0)
OURS = ("bwrap: ", "setpriv: ", "prlimit: ", "sh: ", "mount: ", "nsenter: ")
CRASHES = ("SIGABRT", "SIGSEGV", "SIGBUS")  # how the evaluator ends when its garbage collector gets no more memory


def raise_ours(finished: proc.Finished, store: Store) -> None:
    """Raise where a program failed for reasons that are not the client's fault.

    Raises :class:`TemporaryError` after a cancel and on a full disk, and :class:`OperatorError` where Nix cannot start.
    """
    if finished.ok:
        return
    if finished.limit is Limit.CANCELLED:
        raise TemporaryError("the build was cancelled")
    first = finished.stderr.data.partition(b"\n")[0].decode(errors="replace")
    if finished.exit_code in (126, 127) or first.startswith(OURS):
        raise OperatorError(
            f"cannot start Nix in its jail: {first}. Check that bubblewrap is installed and may make namespaces"
        )
    status = os.statvfs(store.state)
    if status.f_bavail * status.f_frsize < FREE or (status.f_files and not status.f_favail):
        raise TemporaryError(f"the disk of {store.state} is full: make room, or run spoolctl gc")


def of_evaluation(store: Store, finished: proc.Finished, limits: BuildLimits) -> Phase:
    """Return the phase of an evaluation that failed.

    Raises :class:`TemporaryError` where somebody killed it, and not the kernel for a limit.
    """
    name = _signal(finished)
    if name == "SIGKILL" and finished.limit is None and finished.cpu < limits.evaluation_time:
        raise TemporaryError(f"the evaluation was killed after {finished.wall:.1f} s, not for one of its limits")
    outcome, note = _evaluation_outcome(finished, name, limits)
    stderr = messages.for_client(finished.stderr, store)
    return finished_phase(
        stdout=NOTHING,
        stderr=messages.noted(stderr, note) if note else stderr,
        time=finished.wall,
        outcome=outcome,
        signal="" if finished.limit else name,
        exit_code=None if name else finished.exit_code,
        cpu_time=finished.cpu,
        memory=finished.memory,
    )


def _evaluation_outcome(finished: proc.Finished, name: str, limits: BuildLimits) -> tuple[Outcome, str]:
    if finished.limit is Limit.WALL or (name == "SIGKILL" and finished.cpu >= limits.evaluation_time):
        return Outcome.TIME_LIMIT, f"the evaluation of cutor.nix took more than {limits.evaluation_time:g} s"
    if finished.limit in (Limit.OUTPUT, Limit.WATCH) or name == "SIGXFSZ":
        return Outcome.OUTPUT_LIMIT, finished.reason or "the evaluation of cutor.nix printed or wrote too much"
    if finished.limit is Limit.PROCESSES:
        return Outcome.NONZERO_EXIT, f"the evaluation of cutor.nix took {finished.reason}"
    if finished.limit is Limit.MEMORY or name in CRASHES or b"\nerror: out of memory" in b"\n" + finished.stderr.data:
        return Outcome.MEMORY_LIMIT, f"the evaluation of cutor.nix took more than {limits.evaluation_memory} bytes"
    return Outcome.NONZERO_EXIT, ""


def _signal(finished: proc.Finished) -> str:
    """Return the signal that ended the program, also when bubblewrap reports it as an exit code."""
    code = finished.exit_code
    return finished.signal or (proc.signal_name(code - 128) if code is not None and code > 128 else "")


def of_refusal(store: Store, evaluation: proc.Finished, reason: str) -> Phase:
    """Return the phase of a build that the policy refuses."""
    line = f"error: {reason}\n".encode()
    return finished_phase(
        stdout=NOTHING,
        stderr=messages.joined(messages.for_client(evaluation.stderr, store), Stream(line, len(line))),
        time=evaluation.wall,
        outcome=Outcome.NONZERO_EXIT,
        exit_code=1,
        cpu_time=evaluation.cpu,
        memory=evaluation.memory,
    )


def of_build(store: Store, evaluation: proc.Finished, realised: Realisation, limits: BuildLimits) -> Phase:
    """Return the phase of a build that ran, or whose output existed already."""
    build = realised.finished
    parts = [part for part in (evaluation, realised.fetching, *realised.before, build) if part is not None]
    outcome, note = (Outcome.OK, "") if build is None else _build_outcome(build, limits)
    if realised.outcome is not None:
        outcome, note = realised.outcome, realised.note
    stderr = messages.joined(*(messages.for_client(part.stderr, store) for part in parts))
    return finished_phase(
        stdout=NOTHING,
        stderr=messages.noted(stderr, note) if note else stderr,
        time=sum(part.wall for part in parts),
        outcome=outcome,
        signal="" if parts[-1].limit else parts[-1].signal,
        exit_code=parts[-1].exit_code,
        cpu_time=sum(part.cpu for part in parts),
        memory=max(part.memory for part in parts),
    )


def _build_outcome(build: proc.Finished, limits: BuildLimits) -> tuple[Outcome, str]:
    if build.ok:
        return Outcome.OK, ""
    if build.limit in (Limit.MEMORY, Limit.PROCESSES):  # with any exit code, since the output may be wrong
        outcome = Outcome.MEMORY_LIMIT if build.limit is Limit.MEMORY else Outcome.NONZERO_EXIT
        return outcome, f"the build took {build.reason}"
    # nix-store exits with 100 when a build failed, and with 101 when one took too long or was silent too long.
    if build.limit is Limit.WALL or build.exit_code == 101:
        return Outcome.TIME_LIMIT, f"the build took more than {limits.time:g} s, or was silent for {limits.silence:g} s"
    note = build.reason if build.limit is Limit.WATCH else ""
    if build.stderr.total > limits.log - CHUNK and LOG_ENDED in build.stderr.data:
        note = f"the build printed more than {limits.log} bytes of log"
    return (Outcome.OUTPUT_LIMIT if note else Outcome.NONZERO_EXIT), note
