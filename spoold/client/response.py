"""The response as a client reads it. Spec: spool-layout.md, section 4.

Reading is lenient, so that later versions of spoold can be read as well: unknown keys are ignored, and words such as
statuses are plain strings. A key that is missing reads as None, an empty text or an empty list.
"""

from __future__ import annotations

import base64

import msgspec

from spoold.client.errors import AnswerError

COMPLETED, REJECTED, CANCELLED, INTERNAL_ERROR = "COMPLETED", "REJECTED", "CANCELLED", "INTERNAL_ERROR"
ON_ITS_WAY = ("pending", "INSTALLING_DEPENDENCIES", "DEPENDENCIES_INSTALLED", "COMPILING", "RUNNING")


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Phase(_Part, frozen=True):
    """One phase: what it printed, and how it ended.

    ``time`` and ``cpu_time`` are seconds, ``memory`` is bytes, and ``signal`` is a name such as ``SIGSEGV``, or empty.
    ``outcome`` is empty until the phase has ended. Output that is not UTF-8 is in base64. ``stdout_data`` and
    ``stderr_data`` return the bytes in both cases.
    """

    stdout: str = ""
    stderr: str = ""
    time: float | str = ""
    signal: str = ""
    outcome: str = ""
    exit_code: int | None = None
    cpu_time: float | None = None
    memory: int | None = None
    stdout_bytes: int | None = None
    stdout_truncated: bool = False
    stdout_encoding: str = "utf8"
    stderr_bytes: int | None = None
    stderr_truncated: bool = False
    stderr_encoding: str = "utf8"
    cached: bool | None = None

    @property
    def stdout_data(self) -> bytes:
        """Return the bytes of standard output that were kept. Raises :class:`AnswerError`."""
        return decoded(self.stdout, self.stdout_encoding)

    @property
    def stderr_data(self) -> bytes:
        """Return the bytes of standard error that were kept. Raises :class:`AnswerError`."""
        return decoded(self.stderr, self.stderr_encoding)


class Difference(_Part, frozen=True):
    """The first place where an output is wrong: its line, the byte in that line, and excerpts."""

    line: int = 0
    column: int = 0
    expected: str | None = None
    printed: str | None = None


class ReturnedFile(_Part, frozen=True):
    """A file that came back. ``size`` is in bytes. ``mode`` is nine permission bits in octal digits.

    ``content`` is None where only the tar beside the response has it. ``Spool.outputs`` returns the bytes of all files.
    """

    name: str
    size: int
    sha256: str
    mode: str = "0644"
    content: str | None = None
    encoding: str = "utf8"


class Tar(_Part, frozen=True):
    """The file beside the response that holds all files that came back."""

    name: str
    size: int
    sha256: str


class Case(_Part, frozen=True):
    """The result of one case, and the files that it returned."""

    name: str
    verdict: str
    points: float = 0.0
    run: Phase = Phase()
    difference: Difference | None = None
    message: str | None = None
    interaction: str | None = None
    outputs: list[ReturnedFile] | None = None
    outputs_missing: list[str] = []


class Score(_Part, frozen=True):
    """The result of several cases."""

    verdict: str
    accepted: int
    of: int
    points: float
    of_points: float


class Summary(Score, frozen=True):
    """The result of all cases, and of each group by its name."""

    groups: dict[str, Score] = {}


class Fetching(_Part, frozen=True):
    """How many store paths have come from binary caches, out of how many, and their sizes in bytes, unpacked."""

    paths: int
    all_paths: int
    bytes: int
    all_bytes: int


class WaitingFor(_Part, frozen=True):
    """The build that a submission waits for: its state (``queued`` or ``building``), and how far its downloads are."""

    build_id: str
    state: str
    fetching: Fetching | None = None


class Package(_Part, frozen=True):
    """A package in the dependency cache. ``closure_size`` is in bytes, ``last_used`` in seconds since the epoch."""

    name: str
    version: str
    path: str
    closure_size: int
    builds: list[str] = []
    last_used: float = 0.0


class Response(_Part, frozen=True):
    """The result of a submission, or its result so far. Moments are texts as in RFC 3339, waits are seconds."""

    id: str = msgspec.field(name="Submission_id", default="")
    request_sha256: str | None = None
    status: str = "pending"
    reason: str | None = None
    notes: list[str] = []
    waiting_for: WaitingFor | None = None
    build_id: str | None = None
    dependencies: Phase = Phase()
    compile: Phase = Phase()
    run: Phase = Phase()
    cases: list[Case] | None = None
    summary: Summary | None = None
    outputs: list[ReturnedFile] | None = None
    outputs_missing: list[str] = []
    outputs_tar: Tar | None = None
    packages: list[Package] | None = None
    uid: int | None = None
    submitted: str | None = None
    started: str | None = None
    finished: str | None = None
    build_wait: float | None = None
    queue_wait: float | None = None
    attempt: int | None = None
    host: str | None = None

    @property
    def ok(self) -> bool:
        """Tell whether the program was run and ended well; with cases, whether they were run."""
        return self.status == COMPLETED

    @property
    def ended(self) -> bool:
        """Tell whether this response is final, and not a response so far."""
        return self.status not in ON_ITS_WAY


DECODER = msgspec.json.Decoder(Response)


class _Digest(msgspec.Struct):
    request_sha256: str | None = None
    uid: int | None = None


def read(data: bytes) -> Response:
    """Return a response from its bytes. Raises :class:`AnswerError`."""
    try:
        return DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"it is no response that this version can read: {error}") from error


def what_it_answers(data: bytes) -> _Digest:
    """Return the digest of the request that an answer is for, and the owner's uid. Raises :class:`AnswerError`."""
    try:
        return msgspec.json.decode(data, type=_Digest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"it is no response that this version can read: {error}") from error


def decoded(text: str, encoding: str) -> bytes:
    """Return the bytes of a text of a response. Raises :class:`AnswerError`."""
    if encoding != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise AnswerError("a text of the response is marked as base64, and is not") from error
