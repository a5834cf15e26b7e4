"""Sees responses the moment they become visible, with inotify: polling would take the CPU from the jobs."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time

IN_CREATE, IN_MOVED_TO = 0x100, 0x80
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
SUFFIX = ".response.json"


class Arrivals:
    """Notes when (on the monotonic clock) each id's response became visible in a directory. Thread-safe."""

    def __init__(self, directory: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC)
        if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), IN_CREATE | IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify", directory)
        self._seen: dict[str, float] = {}
        self._change = threading.Condition()
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._read, name="arrivals", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while self._end not in select.select([self._descriptor, self._end], [], [])[0]:
            data, now, offset = os.read(self._descriptor, 1 << 18), time.monotonic(), 0
            names = []
            while offset < len(data):
                length = EVENT.unpack_from(data, offset)[3]
                offset += EVENT.size
                names.append(data[offset : offset + length].rstrip(b"\0").decode())
                offset += length
            with self._change:
                self._seen.update((name.removesuffix(SUFFIX), now) for name in names if name.endswith(SUFFIX))
                self._change.notify_all()

    def wait(self, id_: str, patience: float) -> float | None:
        """Wait for the response of ``id_`` and return when it became visible; None after ``patience`` seconds."""
        with self._change:
            self._change.wait_for(lambda: id_ in self._seen, patience)
            return self._seen.get(id_)

    def take(self, patience: float) -> dict[str, float]:
        """Return the responses seen since the last call; wait up to ``patience`` seconds for the first one."""
        with self._change:
            self._change.wait_for(lambda: bool(self._seen), patience)
            seen, self._seen = self._seen, {}
            return seen

    def close(self) -> None:
        """Stop watching."""
        os.close(self._ended)
        self._thread.join()
        os.close(self._descriptor)
        os.close(self._end)
