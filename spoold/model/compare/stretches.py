"""Stretches of bytes: how far two are alike, and where one ends. No more than ``PIECE`` bytes are copied at once."""

from __future__ import annotations

PIECE = 64 * 1024


def agreement(text: bytes, at: int, other: bytes, here: int, most: int, *, fold: bool = False) -> int:
    """Return how many bytes from ``at`` and from ``here`` are the same, ``most`` at most.

    With ``fold`` it does not matter whether a letter from A to Z is a capital.
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
    """Return where ``text`` up to ``stop`` ends if it is to end with none of the bytes of ``trailing``."""
    while stop:
        start = max(0, stop - PIECE)
        kept = len(text[start:stop].rstrip(trailing))
        if kept:
            return start + kept
        stop = start
    return 0
