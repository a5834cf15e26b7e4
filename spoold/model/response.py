"""The response that a client gets.

Spec: spool-layout.md, "The Response". A phase that never ran keeps the four empty strings. Others have numbers.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

from spoold.model.compare.excerpts import Difference
from spoold.model.paths import StorePath


class Status(StrEnum):
    """The state of a submission. The states of the second group are final."""

    PENDING = "pending"
    INSTALLING_DEPENDENCIES = "INSTALLING_DEPENDENCIES"
    DEPENDENCIES_INSTALLED = "DEPENDENCIES_INSTALLED"
    COMPILING = "COMPILING"
    RUNNING = "RUNNING"

    COMPLETED = "COMPLETED"
    DEPENDENCIES_FAILED = "DEPENDENCIES_FAILED"
    COMPILE_FAILED = "COMPILE_FAILED"
    RUN_FAILED = "RUN_FAILED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


FINAL = frozenset(
    {
        Status.COMPLETED,
        Status.DEPENDENCIES_FAILED,
        Status.COMPILE_FAILED,
        Status.RUN_FAILED,
        Status.REJECTED,
        Status.CANCELLED,
        Status.INTERNAL_ERROR,
    }
)


class Outcome(StrEnum):
    """How a phase ended. Everything but ``ok`` and ``skipped`` fails the phase."""

    OK = "ok"
    NONZERO_EXIT = "nonzero_exit"
    SIGNALLED = "signalled"
    TIME_LIMIT = "time_limit"
    CPU_LIMIT = "cpu_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    FILE_LIMIT = "file_limit"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    INTERNAL_ERROR = "internal_error"


class Phase(msgspec.Struct, kw_only=True, frozen=True):
    """One phase of a submission.

    ``time`` and ``cpu_time`` are seconds, ``memory`` is the peak in bytes, ``signal`` a name such as ``SIGSEGV`` or
    empty. ``exit_code`` is null when a signal ended the phase. ``stdout_bytes`` counts all bytes written, also those
    cut off. ``stdout_encoding`` is ``base64`` when the kept bytes are not UTF-8. Only dependencies have ``cached``, see
    :func:`of_dependencies`.
    """

    stdout: str = ""
    stderr: str = ""
    time: float | str = ""
    signal: str = ""
    outcome: Outcome | UnsetType = UNSET
    exit_code: int | UnsetType | None = UNSET
    cpu_time: float | UnsetType = UNSET
    memory: int | UnsetType = UNSET
    stdout_bytes: int | UnsetType = UNSET
    stdout_truncated: bool | UnsetType = UNSET
    stdout_encoding: str | UnsetType = UNSET
    stderr_bytes: int | UnsetType = UNSET
    stderr_truncated: bool | UnsetType = UNSET
    stderr_encoding: str | UnsetType = UNSET
    cached: bool | UnsetType = UNSET


PENDING_PHASE = Phase()
SKIPPED_PHASE = Phase(outcome=Outcome.SKIPPED)


class Stream(msgspec.Struct, frozen=True):
    """The kept part of an output stream: ``data`` (bytes) out of ``total`` bytes that were written."""

    data: bytes
    total: int


def encode_stream(data: bytes) -> tuple[str, str]:
    """Return ``(text, encoding)``: the bytes as text where they are UTF-8, otherwise in base64."""
    try:
        return data.decode("utf-8"), "utf8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"


def decode_stream(text: str, encoding: str | UnsetType) -> bytes:
    """Return the bytes that ``encode_stream`` was given."""
    return base64.b64decode(text) if encoding == "base64" else text.encode()


def cut_at_character(data: bytes) -> bytes:
    """Drop the incomplete UTF-8 character that a cut may have left at the end (at most three bytes)."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if needed > back else data
        if byte < 0x80:
            return data
    return data


def finished_phase(
    *,
    stdout: Stream,
    stderr: Stream,
    time: float,
    outcome: Outcome,
    signal: str = "",
    exit_code: int | None = None,
    cpu_time: float | UnsetType = UNSET,
    memory: int | UnsetType = UNSET,
) -> Phase:
    """Make the record of a phase that ran. Text that was truncated is never cut in the middle of a character."""
    out, out_encoding = encode_stream(_kept(stdout))
    err, err_encoding = encode_stream(_kept(stderr))
    return Phase(
        stdout=out,
        stderr=err,
        time=round(time, 6),
        signal=signal,
        outcome=outcome,
        exit_code=exit_code,
        cpu_time=cpu_time if cpu_time is UNSET else round(cpu_time, 6),
        memory=memory,
        stdout_bytes=stdout.total,
        stdout_truncated=stdout.total > len(stdout.data),
        stdout_encoding=out_encoding,
        stderr_bytes=stderr.total,
        stderr_truncated=stderr.total > len(stderr.data),
        stderr_encoding=err_encoding,
    )


def cancelled_phase(seconds: float, signal: str = "") -> Phase:
    """Make the record of a phase that was cancelled after ``seconds``. Nothing else is known of it."""
    return unmeasured_phase(Outcome.CANCELLED, seconds, signal=signal)


def unmeasured_phase(outcome: Outcome, seconds: float = 0.0, said: str = "", *, signal: str = "") -> Phase:
    """Make the record of a phase in which no program is known to have ended. ``said`` is our text for its client."""
    text = said.encode()
    return finished_phase(
        stdout=Stream(b"", 0), stderr=Stream(text, len(text)), time=seconds, outcome=outcome, signal=signal
    )


def _kept(stream: Stream) -> bytes:
    return cut_at_character(stream.data) if stream.total > len(stream.data) else stream.data


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package in the dependency cache.

    ``closure_size`` is the bytes of the package and all that it refers to, ``builds`` the ids of the builds that use
    it. ``last_used`` is in seconds since the epoch on the file system's clock.
    """

    name: str
    version: str
    path: StorePath
    closure_size: int
    builds: list[str] = []
    last_used: float = 0.0


class Verdict(StrEnum):
    """The verdict on a case. ``partial`` comes from a grader's program. ``judge_error`` is not the program's fault."""

    ACCEPTED = "accepted"
    WRONG_ANSWER = "wrong_answer"
    PARTIAL = "partial"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    RUNTIME_ERROR = "runtime_error"
    JUDGE_ERROR = "judge_error"
    SKIPPED = "skipped"


class ReturnedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that came back: its size in bytes, and its mode, in octal digits.

    ``content`` is text in ``encoding``, ``utf8`` or ``base64``. Both are unset if the response has no room for it.
    """

    name: str
    size: int
    sha256: str
    mode: str
    content: str | UnsetType = UNSET
    encoding: str | UnsetType = UNSET


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one case. ``difference`` tells where its output is wrong, and ``message`` explains the verdict.

    ``interaction`` is what its program and the interactor said to each other. ``outputs`` are its files that came back,
    and ``outputs_missing`` the required patterns that matched none.
    """

    name: str
    verdict: Verdict
    points: float
    run: Phase
    difference: Difference | UnsetType = UNSET
    message: str | UnsetType = UNSET
    interaction: str | UnsetType = UNSET
    outputs: list[ReturnedFile] | UnsetType = UNSET
    outputs_missing: list[str] | UnsetType = UNSET


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The score of several cases: the first verdict that is a failure, the number accepted, and the points."""

    verdict: Verdict
    accepted: int
    of: int
    points: float
    of_points: float


class Summary(Score, frozen=True, kw_only=True):
    """The score of all cases, and that of each group by its name."""

    groups: dict[str, Score] | UnsetType = UNSET


class OutputsTar(msgspec.Struct, frozen=True, kw_only=True):
    """The tar beside the response that holds all files that came back. ``size`` is in bytes."""

    name: str
    size: int
    sha256: str


class Fetching(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a build's downloads from binary caches, in store paths and in their unpacked bytes."""

    paths: int
    all_paths: int
    bytes: int
    all_bytes: int


class WaitingFor(msgspec.Struct, frozen=True, kw_only=True):
    """The build that a submission waits for: it is ``queued`` or ``building``, and may be ``fetching`` paths."""

    build_id: str
    state: str
    fetching: Fetching | UnsetType = UNSET


class Response(msgspec.Struct, kw_only=True):
    """The response object. Its first two keys are set in a published response, and unset in a Submission object.

    ``request_sha256`` is also unset where not all bytes of the dropped file were read. ``uid`` is set where neither an
    entry nor the name of the answer tells the owner. Moments are of the file system's clock, see :func:`moment`, and
    waits are in seconds. Each is unset where nobody knows it.
    """

    Submission_id: str | UnsetType = UNSET
    request_sha256: str | UnsetType = UNSET
    status: Status = Status.PENDING
    reason: str | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET
    waiting_for: WaitingFor | UnsetType = UNSET
    build_id: str | UnsetType = UNSET
    dependencies: Phase = PENDING_PHASE
    compile: Phase = PENDING_PHASE
    run: Phase = PENDING_PHASE
    cases: list[CaseResult] | UnsetType = UNSET
    summary: Summary | UnsetType = UNSET
    outputs: list[ReturnedFile] | UnsetType = UNSET
    outputs_missing: list[str] | UnsetType = UNSET
    outputs_tar: OutputsTar | UnsetType = UNSET
    packages: list[Package] | UnsetType = UNSET
    uid: int | UnsetType = UNSET
    submitted: str | UnsetType = UNSET
    started: str | UnsetType = UNSET
    finished: str | UnsetType = UNSET
    build_wait: float | UnsetType = UNSET
    queue_wait: float | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    host: str | UnsetType = UNSET


def moment(seconds: float) -> str:
    """Return a moment, given in seconds since the epoch, as in RFC 3339: in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def begun(response: Response, *, submitted: float, built: float | None, started: float) -> Response:
    """Return ``response`` with its job's start and its waits. ``built`` is None if the build was there already."""
    build_wait = 0.0 if built is None else max(0.0, built - submitted)
    queue_wait = max(0.0, started - submitted - build_wait)
    return msgspec.structs.replace(
        response, started=moment(started), build_wait=round(build_wait, 3), queue_wait=round(queue_wait, 3)
    )


def of_dependencies(build: Phase, *, cached: bool) -> Phase:
    """Return the phase of a submission whose ``build`` has ended. It is ``cached`` if the build was there already.

    A cached build used nothing for this submission. Its output is told all the same. A build that was not done through
    a fault of ours took no time that is known.
    """
    if isinstance(build.time, str):
        outcome = Outcome.INTERNAL_ERROR if build.outcome is UNSET else build.outcome
        build = unmeasured_phase(outcome, said=build.stderr)
    if not cached:
        return msgspec.structs.replace(build, cached=False)
    return msgspec.structs.replace(build, time=0.0, cpu_time=0.0, memory=0, cached=True)


def verdict(compile_: Phase, run: Phase, *, cases: bool = False) -> Status:
    """Return the final status that the phases of a finished job amount to. It never depends on the output.

    With ``cases``, the run is that of cases, which have verdicts of their own.
    """
    if Outcome.INTERNAL_ERROR in (compile_.outcome, run.outcome):
        return Status.INTERNAL_ERROR
    if compile_.outcome not in (Outcome.OK, Outcome.SKIPPED):
        return Status.COMPILE_FAILED
    return Status.COMPLETED if cases or run.outcome is Outcome.OK else Status.RUN_FAILED


def skip_pending(response: Response) -> Response:
    """Return ``response`` with each phase that never ran marked ``skipped``."""
    changes = {
        name: SKIPPED_PHASE for name in ("dependencies", "compile", "run") if getattr(response, name).outcome is UNSET
    }
    return msgspec.structs.replace(response, **changes)
