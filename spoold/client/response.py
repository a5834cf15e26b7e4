"""The response, as a client reads it: spool-layout.md, section 4.

It is read leniently: keys that are not known are ignored, and words such as statuses are plain strings, so that a later
version of spoold can be asked as well. What is not there is None, an empty text or an empty list.
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

    ``time`` and ``cpu_time`` are seconds, ``memory`` is bytes, ``signal`` a name such as ``SIGSEGV`` or empty.
    ``outcome`` is empty until the phase has ended. Outputs that are not UTF-8 stand in base64: ``stdout_data`` and
    ``stderr_data`` are the bytes.
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
        """Return the bytes that were kept of standard output; raises :class:`AnswerError`."""
        return decoded(self.stdout, self.stdout_encoding)

    @property
    def stderr_data(self) -> bytes:
        """Return the bytes that were kept of standard error; raises :class:`AnswerError`."""
        return decoded(self.stderr, self.stderr_encoding)


class Difference(_Part, frozen=True):
    """The first place where an output is not right: its line, the byte of that line, and excerpts."""

    line: int = 0
    column: int = 0
    expected: str | None = None
    printed: str | None = None


class ReturnedFile(_Part, frozen=True):
    """A file that came back. ``size`` is in bytes, ``mode`` nine bits in octal digits.

    ``content`` is None where only the tar beside the response has it. ``Spool.outputs`` has the bytes of all.
    """

    name: str
    size: int
    sha256: str
    mode: str = "0644"
    content: str | None = None
    encoding: str = "utf8"


class Tar(_Part, frozen=True):
    """The file beside the response that has all files that came back."""

    name: str
    size: int
    sha256: str


class Case(_Part, frozen=True):
    """What came of one case, and which files of it came back."""

    name: str
    verdict: str
    points: float = 0.0
    run: Phase = Phase()
    difference: Difference | None = None
    message: str | None = None
    outputs: list[ReturnedFile] | None = None
    outputs_missing: list[str] = []


class Score(_Part, frozen=True):
    """What came of several cases."""

    verdict: str
    accepted: int
    of: int
    points: float
    of_points: float


class Summary(Score, frozen=True):
    """What came of all cases, and of each group, by its name."""

    groups: dict[str, Score] = {}


class Fetching(_Part, frozen=True):
    """How many store paths have come from binary caches, of how many, and their bytes, unpacked."""

    paths: int
    all_paths: int
    bytes: int
    all_bytes: int


class WaitingFor(_Part, frozen=True):
    """The build that a submission waits for, which is ``queued`` or ``building``, and what is fetched for it."""

    build_id: str
    state: str
    fetching: Fetching | None = None


class Package(_Part, frozen=True):
    """A package in the dependency cache. ``closure_size`` is bytes, ``last_used`` seconds since the epoch."""

    name: str
    version: str
    path: str
    closure_size: int
    builds: list[str] = []
    last_used: float = 0.0


class Response(_Part, frozen=True):
    """What came of a submission, or has come so far. Moments are as in RFC 3339, waits are seconds."""

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
        """Tell whether it is the final one, and no response so far."""
        return self.status not in ON_ITS_WAY


DECODER = msgspec.json.Decoder(Response)


class _Digest(msgspec.Struct):
    request_sha256: str | None = None
    uid: int | None = None


def read(data: bytes) -> Response:
    """Return a response from its bytes; raises :class:`AnswerError`."""
    try:
        return DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"it is no response that this version can read: {error}") from error


def what_it_answers(data: bytes) -> _Digest:
    """Return which request an answer says that it answers, and whose; raises :class:`AnswerError`."""
    try:
        return msgspec.json.decode(data, type=_Digest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"it is no response that this version can read: {error}") from error


def decoded(text: str, encoding: str) -> bytes:
    """Return the bytes of a text of a response; raises :class:`AnswerError`."""
    if encoding != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise AnswerError("a text of the response is not the base64 that it says") from error
