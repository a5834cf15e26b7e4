"""Words of strangers, as they may be shown in one line of a log or a terminal."""

from __future__ import annotations


def shown(text: str) -> str:
    """Return ``text`` shortened and quoted."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
