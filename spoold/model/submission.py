"""What is stored of a submission and of a build: the request, the Submission and the Dependencies object.

Spec: spool-layout.md, "The request", "The Submission object" and "Formats". A stored request is read leniently, like
all that is stored. ``dropped`` reads what a client dropped, and strictly.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import msgspec

from spoold.model.errors import ClientError
from spoold.model.formats import Stored
from spoold.model.job import JobFile
from spoold.model.limits import RequestedLimits
from spoold.model.response import Response

DEFAULT_EXPRESSION = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { }\n"
EXPRESSION_FILE = "cutor.nix"
COMPILE_FILE = "compile.sh"
RUN_FILE = "run.sh"

Encoding = Literal["utf8", "base64", "hex"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class File(_Part, frozen=True):
    """A file of the request; ``content`` is text in ``encoding``."""

    name: str
    content: str
    encoding: Encoding = "utf8"


class LimitRequests(_Part, frozen=True):
    """The limits that a client asks for, by phase; of ``dependencies`` only ``time`` means something."""

    dependencies: RequestedLimits | None = None
    compile: RequestedLimits | None = None
    run: RequestedLimits | None = None


class Request(_Part, frozen=True):
    """What a client drops into ``incoming/``."""

    files: list[File] = []
    inputs: str = ""
    inputs_encoding: Encoding = "utf8"
    args: list[str] = []
    env: dict[str, str] = {}
    limits: LimitRequests = LimitRequests()
    nixpkgs: str = "default"
    kind: Literal["run", "list-dependencies"] = "run"
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0

    def text_of(self, name: str) -> str | None:
        """Return the text of the file called ``name``, None where there is none."""
        for file in self.files:
            if file.name == name:
                return decode(file.content, file.encoding, "content").decode()
        return None

    def expression(self) -> str:
        """Return the shell expression: the submission's cutor.nix, or the default shell."""
        text = self.text_of(EXPRESSION_FILE)
        return DEFAULT_EXPRESSION if text is None else text

    def job_files(self) -> list[JobFile]:
        """Return the files as bytes with modes. Scripts are executable: by their name's ending, or by ``#!``."""
        made = []
        for file in self.files:
            content = decode(file.content, file.encoding, file.name)
            script = file.name.endswith(".sh") or content.startswith(b"#!")
            made.append(JobFile(file.name, content, 0o755 if script else 0o644))
        return made

    def stdin(self) -> bytes:
        """Return the exact bytes that the program reads on standard input."""
        return decode(self.inputs, self.inputs_encoding, "inputs")

    def has(self, name: str) -> bool:
        """Tell whether a file called ``name`` is among the files."""
        return any(file.name == name for file in self.files)


class Origin(_Part, frozen=True):
    """The ``Spool`` part of a Submission object: who dropped what, when.

    ``uid`` and ``gid`` own the dropped file, ``sha256`` is over its bytes, or where ``whole`` is not set over what was
    read of it. ``arrival`` is seconds since the epoch on the file system's clock.
    """

    uid: int
    gid: int
    sha256: str
    arrival: float
    whole: bool = True


class Submission(Stored, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of the spool: written once, at acceptance, and never again. ``Request`` is null for a refused file."""

    Submission_id: str
    Request: Request | None
    Response: Response
    Spool: Origin


class Dependencies(Stored, frozen=True, kw_only=True):
    """An entry of the Build store: what is to be built, and with which pin."""

    build_id: str
    expression: str = msgspec.field(name="content of cutor.nix")
    nixpkgs: str


def decode(text: str, encoding: Encoding, where: str) -> bytes:
    """Return the bytes that ``text`` stands for; raises :class:`ClientError` that names ``where``."""
    try:
        if encoding == "utf8":
            return text.encode()
        if encoding == "hex":
            return binascii.unhexlify(text)
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ClientError(f"{where}: not valid {encoding}: {error}") from error
