"""Cases: a program is run once on each, and each says what is expected of the program.

Spec: spool-layout.md, "Cases". A key that a case leaves out is as the request has it. ``verdicts`` judges cases.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from spoold.model.compare.rules import Compare
from spoold.model.encodings import Encoding, decode
from spoold.model.limits import RequestedLimits
from spoold.model.outputs import Output

MOST_POINTS = 1e9
HIGHEST_EXIT = 255
ENDS = (True, False, "group")
Protocol = Literal["kattis", "testlib", "cms"]  # between a judge and a checker
TalkProtocol = Literal["kattis", "testlib"]  # between a judge and an interactor
StopOnFailure = bool | Literal["group"]


class Expected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The right result of a case: its ``stdout``, where that is given, and its ``exit_code``, 0 by default."""

    stdout: str | None = None
    encoding: Encoding = "utf8"
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_EXIT)] | None = None

    def printed(self, where: str) -> bytes | None:
        """Return the bytes that are expected on standard output. None where they do not matter.

        Raises :class:`ClientError` that names ``where``.
        """
        return None if self.stdout is None else decode(self.stdout, self.encoding, where)


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case. ``env`` and ``limits`` are laid over those of the request. Other keys replace the request's.

    Without ``expected`` a case is right if its program ends well. A response tells little of a ``hidden`` case, and
    none of its files come back.
    """

    name: str
    inputs: str | None = None
    inputs_encoding: Encoding = "utf8"
    args: list[str] | None = None
    env: dict[str, str] = {}
    limits: RequestedLimits | None = None
    expected: Expected | None = None
    compare: Compare | None = None
    points: Annotated[float, msgspec.Meta(ge=0, le=MOST_POINTS)] = 1.0
    group: str = ""
    hidden: bool = False
    outputs: list[Output] | None = None
