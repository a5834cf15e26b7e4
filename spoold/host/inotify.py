"""inotify(7): the kernel tells which names came into directories, and which files were written and closed.

We ask only for events that say that a name is there to be looked at. We do not ask for each write to a file or each
change of its mode, since one process could make more of these events than anybody can read. A process that writes a
file closes it, renames it or links it. A file for which none of this happens is found by a scan of the directory.

The kernel keeps a bounded number of events (``fs.inotify.max_queued_events``). It says so when there were more.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterator
from typing import NamedTuple

CLOSE_WRITE, MOVED_TO, CREATE = 0x8, 0x80, 0x100
ONLYDIR, EXCL_UNLINK = 0x0100_0000, 0x0400_0000  # the second: no events of files that are gone already
OVERFLOW = 0x4000
HEAD = struct.Struct("iIII")  # watch, mask, cookie, length of the name with the zeros behind it
ROOM = 1 << 20  # bytes: 64 for each of the 16384 events that the kernel keeps by default
PRIVATE = ord(".")
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """A name, as bytes, in the directory of a watch. ``lost`` says that the kernel dropped events before this one."""

    watch: int
    name: bytes
    lost: bool = False


class Inotify:
    """One queue of the kernel's. One thread may read it while another ends that. Calls raise :class:`OSError`."""

    def __init__(self) -> None:
        self._queue = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")
        self._end, self._ending = os.pipe2(os.O_CLOEXEC)

    def watch(self, directory: str) -> int:
        """Ask for events of ``directory``; return the number that they will carry as their ``watch``."""
        mask = CLOSE_WRITE | MOVED_TO | CREATE | ONLYDIR | EXCL_UNLINK
        return _checked(_libc.inotify_add_watch(self._queue, os.fsencode(directory), ctypes.c_uint32(mask)), directory)

    def read(self) -> bytes | None:
        """Wait for events and return them as the kernel writes them; None after :meth:`end`."""
        poll = select.poll()
        poll.register(self._queue, select.POLLIN)
        poll.register(self._end, select.POLLIN | select.POLLHUP)
        ready = {descriptor for descriptor, _ in poll.poll()}
        return None if self._end in ready else os.read(self._queue, ROOM)

    def end(self) -> None:
        """Make the thread that reads return."""
        os.write(self._ending, b"x")

    def close(self) -> None:
        """Close all descriptors; nobody may read any more."""
        for descriptor in (self._queue, self._end, self._ending):
            os.close(descriptor)


def events(data: bytes) -> Iterator[Event]:
    """Yield the events in ``data`` without those of hidden names: nobody waits for these, and there may be many."""
    at, end, size, unpack = 0, len(data), HEAD.size, HEAD.unpack_from
    while at < end:
        watch, mask, _, length = unpack(data, at)
        at += size
        if length and data[at] != PRIVATE:
            yield Event(watch, data[at : at + length].rstrip(b"\0"))
        elif mask & OVERFLOW:
            yield Event(watch, b"", lost=True)
        at += length


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
