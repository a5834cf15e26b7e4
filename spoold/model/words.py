"""Shows words of strangers in one line of a log or a terminal."""

from __future__ import annotations

MOST = 120  # characters: two such words fit into a reason, with the text about them


def shown(text: str) -> str:
    """Return ``text`` shortened and quoted. A character outside ASCII takes up to ten."""
    quoted = ascii(text if len(text) <= 80 else text[:77] + "...")
    kept = len(text)
    while len(quoted) > MOST:
        kept = min(kept, 77) - 1
        quoted = ascii(text[:kept] + "...")
    return quoted
