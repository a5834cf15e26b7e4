"""The rules that decide whether a case's output is right, as a client chooses them.

Spec: spool-layout.md, "When output is right". The rule sets of other judges are such rules, each under its judge's
name.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from spoold.model.errors import ClientError

By = Literal["lines", "tokens", "exact"]
Like = Literal["kattis", "judge0", "cms", "dmoj"]
MAX_TOLERANCE = 1e9
Tolerance = Annotated[float, msgspec.Meta(ge=0, le=MAX_TOLERANCE)]


class Compare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rules of a comparison. Those that are left out are the rules of ``like``, or else the defaults."""

    by: By | None = None
    case_sensitive: bool | None = None
    space_change_sensitive: bool | None = None
    float_absolute: Tolerance | None = None
    float_relative: Tolerance | None = None
    like: Like | None = None


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that apply. A tolerance of None means that there is none. Where both are None, numbers are text."""

    by: By
    case_sensitive: bool
    space_change_sensitive: bool
    float_absolute: float | None = None
    float_relative: float | None = None
    nul_is_blank: bool = False
    blank_lines_count: bool = True
    line_ends: tuple[bytes, ...] = (b"\n",)


DEFAULT = {
    "lines": Rules(by="lines", case_sensitive=True, space_change_sensitive=True),
    "tokens": Rules(by="tokens", case_sensitive=True, space_change_sensitive=False),
    "exact": Rules(by="exact", case_sensitive=True, space_change_sensitive=True),
}
LIKE = {
    "kattis": Rules(by="tokens", case_sensitive=False, space_change_sensitive=False),
    "judge0": Rules(by="lines", case_sensitive=True, space_change_sensitive=True, nul_is_blank=True),
    "cms": Rules(by="lines", case_sensitive=True, space_change_sensitive=False),
    "dmoj": Rules(
        by="lines", case_sensitive=True, space_change_sensitive=False, blank_lines_count=False, line_ends=(b"\n", b"\r")
    ),
}


def rules_for(asked: Compare, where: str = "compare") -> Rules:
    """Return the rules that a client asks for in the place ``where`` of the request.

    Raises :class:`ClientError` where one key contradicts another.
    """
    named = LIKE[asked.like] if asked.like else DEFAULT[asked.by or "lines"]
    by = asked.by or named.by
    if by == "exact" and asked.space_change_sensitive is False:
        raise ClientError(f"{where}.space_change_sensitive: is true where output has to be exact; leave it out")
    said = {
        name: getattr(asked, name)
        for name in asked.__struct_fields__
        if name != "like" and getattr(asked, name) is not None
    }
    chosen = msgspec.structs.replace(named, **said)
    return msgspec.structs.replace(chosen, space_change_sensitive=True) if by == "exact" else chosen
