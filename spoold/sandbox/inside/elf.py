"""What a program in the Executable and Linkable Format asks for: a machine and a loader; see elf(5).

The file is the job's, so every number in it may be any.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import Literal

MAGIC, PT_INTERP = b"\x7fELF", 3
LEAST = 20  # bytes at the beginning that tell the machine
LONGEST = 4096  # bytes of a path, and of a table of headers


def kind(head: bytes) -> tuple[bytes, bytes]:
    """Return what two programs of one machine have in common: the width and order of numbers, and the machine."""
    return head[4:6], head[18:20]


def machine(head: bytes) -> int:
    """Return the number of the machine."""
    return int.from_bytes(head[18:20], _order(head))


def loader(path: bytes, head: bytes) -> bytes:
    """Return the path of the loader that the regular file at ``path`` names, b"" where it names none.

    ``head`` is how it begins.
    """
    wide, order = head[4] == 2, _order(head)

    def number(data: bytes, at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    word = 8 if wide else 4
    headers = number(head, 32 if wide else 28, word)
    size, count = number(head, 54 if wide else 42, 2), number(head, 56 if wide else 44, 2)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        table = os.pread(descriptor, min(size * count, LONGEST), headers)
        for at in range(0, len(table), max(size, 1)):
            if number(table, at, 4) == PT_INTERP:
                offset = number(table, at + word, word)
                return os.pread(descriptor, LONGEST, offset).partition(b"\0")[0]
    except OverflowError:  # an offset that no file has
        pass
    finally:
        os.close(descriptor)
    return b""


def _order(head: bytes) -> Literal["big", "little"]:
    return "big" if head[5] == 2 else "little"
