"""The words of a program and an interactor to each other, for people to read.

Spec: spool-layout.md, "Interactors". The form is that of the ``.interaction`` files of the Kattis problem package
format: a line that begins with ``>`` is the program's, one that begins with ``<`` is the interactor's.
"""

from __future__ import annotations

MOST = 4096  # bytes that are kept
CUT = "..."  # the last line where more was said


class Transcript:
    """The first bytes that both sides said, in their order. Lines of both are never mixed in one."""

    def __init__(self) -> None:
        self._parts: list[tuple[bool, bytearray]] = []
        self._room = MOST
        self._is_cut = False

    def add(self, data: bytes, *, of_program: bool) -> None:
        """Note that a side said ``data``."""
        kept = data[: self._room]
        self._is_cut |= len(kept) < len(data)
        self._room -= len(kept)
        if not kept:
            return
        if not self._parts or self._parts[-1][0] != of_program:
            self._parts.append((of_program, bytearray()))
        self._parts[-1][1].extend(kept)

    def text(self) -> str:
        """Return all of it, each line with a sign of who said it. "" where nothing was said."""
        lines = [
            (">" if of_program else "<") + line
            for of_program, said in self._parts
            for line in said.decode(errors="replace").removesuffix("\n").split("\n")
        ]
        return "".join(f"{line}\n" for line in [*lines, *([CUT] if self._is_cut else [])])
