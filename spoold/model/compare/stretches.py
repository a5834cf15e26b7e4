"""Stretches of bytes: how far two agree, and where one ends. At most ``PIECE`` bytes are copied at once."""

from __future__ import annotations

PIECE = 64 * 1024


def agreement(text: bytes, at: int, other: bytes, here: int, most: int, *, fold: bool = False) -> int:
    """Return how many bytes from ``at`` and from ``here`` on are the same, ``most`` at most.

    With ``fold``, capital and small letters from A to Z are the same.
    """
    done, step = 0, PIECE
    while step and done < most:
        size = min(step, most - done)
        piece, its = text[at + done : at + done + size], other[here + done : here + done + size]
        if piece == its or (fold and piece.lower() == its.lower()):
            done += size
        else:
            step = size // 2
    return done


def end_without(trailing: bytes, text: bytes, stop: int) -> int:
    """Return where ``text`` up to ``stop`` ends without the bytes of ``trailing`` at its end."""
    while stop:
        start = max(0, stop - PIECE)
        kept = len(text[start:stop].rstrip(trailing))
        if kept:
            return start + kept
        stop = start
    return 0
