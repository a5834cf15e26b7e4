"""Many files made durable at once.

Spec: spool-layout.md, "Durability". A disk or a journal makes many changes durable in the time of one, if they are
asked for at the same time. So where a sync is slow, several threads ask. On a file system in memory it is not slow, and
no thread is made.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable

from spoold.host.fsops import READING
from spoold.host.pulse import beat

AT_ONCE = 4  # threads, the calling one among them
SLOW = 0.0005  # seconds that a slow sync takes at least


def sync_files(paths: Iterable[str]) -> None:
    """Make the bytes of files of ours durable; raise the first error, once all threads have ended."""
    todo = deque(paths)
    while todo:
        beat()
        began = time.monotonic()
        _sync(todo.popleft())
        if time.monotonic() - began >= SLOW:
            _sync_at_once(todo)


def _sync_at_once(todo: deque[str]) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while todo and not failures:
                _sync(todo.popleft())
        except IndexError:
            return  # another thread took the last path
        except BaseException as error:  # noqa: BLE001 - the calling thread raises it
            failures.append(error)

    threads = [threading.Thread(target=work, name="sync", daemon=True) for _ in range(min(AT_ONCE, len(todo)) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _sync(path: str) -> None:
    descriptor = os.open(path, READING)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
