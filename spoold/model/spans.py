"""How long something lasts, as people read it."""

from __future__ import annotations


def span(seconds: float | None) -> str:
    """Return how long something has lasted, in the two largest units that fit. "" for None."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole} s"
