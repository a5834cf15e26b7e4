"""The stored objects of submissions and builds: the request, the Submission and the Dependencies object.

Spec: spool-layout.md, "The request", "The Submission object" and "Formats". A stored request is read leniently, like
all stored objects. ``dropped`` reads strictly what a client dropped.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from spoold.model.cases import Case, Protocol, StopOnFailure, TalkProtocol
from spoold.model.compare.rules import Compare
from spoold.model.encodings import Encoding, decode
from spoold.model.formats import Stored
from spoold.model.job import JobFile
from spoold.model.limits import RequestedLimits
from spoold.model.outputs import Output
from spoold.model.response import Response
from spoold.model.words import shown

DEFAULT_EXPRESSION = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { }\n"
EXPRESSION_FILE = "cutor.nix"
COMPILE_FILE = "compile.sh"
RUN_FILE = "run.sh"
PROGRAMS = (b"#!", b"\x7fELF")  # how files begin that execve(2) starts


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class File(_Part, frozen=True):
    """A file of the request, or a directory if its name ends in ``/``. ``content`` is text in ``encoding``."""

    name: str
    content: str | None = None
    encoding: Encoding = "utf8"
    executable: bool = False

    @property
    def is_directory(self) -> bool:
        """Tell whether this is a directory."""
        return self.name.endswith("/")

    def data(self, where: str) -> bytes:
        """Return the bytes of the file. Raises :class:`ClientError` that names its place ``where`` in the request."""
        return decode(self.content or "", self.encoding, where)


class LimitRequests(_Part, frozen=True):
    """The limits that a client asks for, by phase. ``dependencies`` has a limit of ``time`` alone."""

    dependencies: RequestedLimits | None = None
    compile: RequestedLimits | None = None
    run: RequestedLimits | None = None


class Program(_Part, frozen=True):
    """Files to install, compile and run from. Three of their names have a meaning."""

    files: list[File] = []

    def text_of(self, name: str) -> str | None:
        """Return the text of the file called ``name``. None where there is no such file."""
        for file in self.files:
            if file.name == name:
                return file.data("content").decode()
        return None

    def expression(self) -> str:
        """Return the shell expression: the submission's cutor.nix, or the default shell."""
        text = self.text_of(EXPRESSION_FILE)
        return DEFAULT_EXPRESSION if text is None else text

    def job_files(self) -> list[JobFile]:
        """Return the files as bytes with modes, and the directories, whose names end in ``/``."""
        made = []
        for file in self.files:
            content = file.data(file.name)
            made.append(JobFile(file.name, content, 0o755 if _is_executable(file, content) else 0o644))
        return made

    def has(self, name: str) -> bool:
        """Tell whether a file called ``name`` is among the files."""
        return any(file.name == name for file in self.files)


class Checker(Program, frozen=True):
    """The grader's own program. It tells whether an output is right, by a ``protocol`` that other judges use too."""

    KIND: ClassVar[str] = "checker"

    protocol: Protocol = "kattis"
    args: list[str] = []
    limits: LimitRequests = LimitRequests()


class Interactor(Program, frozen=True):
    """The grader's own program that talks with the program of a case while both run, and tells what came of it."""

    KIND: ClassVar[str] = "interactor"

    protocol: TalkProtocol = "kattis"
    args: list[str] = []
    limits: LimitRequests = LimitRequests()


class Request(Program, frozen=True):
    """The request that a client drops into ``incoming/``."""

    inputs: str = ""
    inputs_encoding: Encoding = "utf8"
    args: list[str] = []
    env: dict[str, str] = {}
    limits: LimitRequests = LimitRequests()
    nixpkgs: str = "default"
    progress: bool = False
    outputs: list[Output] = []
    kind: Literal["run", "build", "list-dependencies"] = "run"
    cases: list[Case] = []
    compare: Compare | None = None
    stop_on_failure: StopOnFailure = False
    checker: Checker | None = None
    interactor: Interactor | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0

    @property
    def grader(self) -> Checker | Interactor | None:
        """Return the grader's own program: a checker or an interactor. A request has one of them at most."""
        return self.checker or self.interactor

    def stdin(self) -> bytes:
        """Return the exact bytes that the program reads on standard input."""
        return decode(self.inputs, self.inputs_encoding, "inputs")

    def stdin_of(self, case: Case) -> bytes:
        """Return the exact bytes that the program reads on standard input in a case."""
        if case.inputs is None:
            return self.stdin()
        return decode(case.inputs, case.inputs_encoding, f"inputs ({shown(case.name)})")


class Origin(_Part, frozen=True):
    """The ``Spool`` part of a Submission object: who dropped the file, and when.

    ``uid`` and ``gid`` own the dropped file. ``sha256`` is of its bytes, or, where ``whole`` is not set, of the bytes
    that were read. ``arrival`` is in seconds since the epoch on the file system's clock.
    """

    uid: int
    gid: int
    sha256: str
    arrival: float
    whole: bool = True


class Submission(Stored, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of the spool. It is written once, at acceptance. ``Request`` is null for a refused file."""

    NEWEST: ClassVar[int] = 6

    Submission_id: str
    Request: Request | None
    Response: Response
    Spool: Origin


class Dependencies(Stored, frozen=True, kw_only=True):
    """An entry of the Build store: the expression to build, and the pin to build it with."""

    build_id: str
    expression: str = msgspec.field(name="content of cutor.nix")
    nixpkgs: str


def _is_executable(file: File, content: bytes) -> bool:
    """Tell whether a file can be run: it says so, or its name or content is that of a script or program."""
    return file.executable or file.is_directory or file.name.endswith(".sh") or content.startswith(PROGRAMS)
