"""Shortens responses, for owners who look while a submission is on its way.

Spec: spool-layout.md, "The Response".
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from spoold.model.response import Phase, Response, cut_at_character

SHOWN = 4096  # bytes of an output that its owner sees on the way: a multiple of 4, for base64
PHASES = ("dependencies", "compile", "run")


def in_short(response: Response) -> Response:
    """Return ``response`` with at most the first ``SHOWN`` bytes of each output, and no output and talk of cases.

    An output that was cut is marked as truncated.
    """
    short: dict[str, object] = {name: phase_in_short(getattr(response, name)) for name in PHASES}
    if isinstance(response.cases, list):
        short["cases"] = [
            msgspec.structs.replace(case, run=phase_in_short(case.run, 0), interaction=msgspec.UNSET)
            for case in response.cases
        ]
    return msgspec.structs.replace(response, **short)


def phase_in_short(phase: Phase, most: int = SHOWN) -> Phase:
    """Return ``phase`` with the first ``most`` bytes of each output, a multiple of 4. A cut output is marked so."""
    if phase.outcome is UNSET:  # it has not ended, and has only the end of its outputs, see ``tails``
        return phase
    changes: dict[str, object] = {}
    for stream in ("stdout", "stderr"):
        text: str = getattr(phase, stream)
        start = text[:most].encode()
        if len(text) > most or len(start) > most:
            changes[stream] = cut_at_character(start[:most]).decode()
            changes[f"{stream}_truncated"] = True
    return msgspec.structs.replace(phase, **changes) if changes else phase
