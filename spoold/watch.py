"""Watching: what changed in the directories of an actor.

Spec: spool-layout.md, "Watching". A change is a hint: it names a file, and the actor verifies it like anything else.
Hints may be lost (a queue that overflows, a file system that another host writes to); the scan that a daemon makes on
a timer is what everything rests on. The only module that uses watchdog.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterable

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.polling import PollingObserver

from spoold.host.log import Log
from spoold.model import ids
from spoold.model.ids import Hint

log = Log("watch")
MOST_HINTS = 4096  # more at once than this, and a scan is cheaper
EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileModifiedEvent, FileMovedEvent]


def _hold_nothing_back() -> bool:
    """Have watchdog pass on every event at once; tell whether this version could be told so.

    It holds back a file that leaves a directory, and all that comes after it, for half a second, to see whether it
    turns up under another name. Here entries leave directories all the time, and names are all that counts.
    """
    found = False
    for module, name in (
        ("inotify_move_event_grouper", "InotifyMoveEventGrouper"),
        ("inotify_buffer", "InotifyBuffer"),
    ):
        with contextlib.suppress(ImportError):
            grouper = getattr(importlib.import_module(f"watchdog.observers.{module}"), name, None)
            if hasattr(grouper, "delay"):
                setattr(grouper, "delay", 0.0)  # noqa: B010 - there is no such name in the other versions' types
                found = True
    return found


HOLDS_NOTHING_BACK = _hold_nothing_back()


class Watch(FileSystemEventHandler):
    """Collects hints from ``directories`` below ``root``; ``remote`` polls, since inotify sees nothing there."""

    def __init__(self, root: str, directories: Iterable[str], *, remote: bool, poll: float) -> None:
        self._root = os.path.abspath(root)
        self._directories = list(directories)
        self._hints: dict[Hint, None] = {}
        self._flooded = False
        self._something = threading.Condition()
        self._make: Callable[[], BaseObserver] = (lambda: PollingObserver(timeout=poll)) if remote else InotifyObserver
        self._observer: BaseObserver | None = None
        self._blind = False

    def start(self) -> None:
        """Arm the watches, if they are not. A scan must follow: what came before is not told.

        Where the kernel grants none, one may call this again before each scan.
        """
        if self._observer is not None or not self._directories:
            return
        observer = None
        try:
            observer = self._make()
            observer.start()
            for directory in self._directories:
                observer.schedule(self, os.path.join(self._root, directory), event_filter=EVENTS)
        except OSError as error:
            if observer is not None:
                _end(observer)
            if not self._blind:
                log.error("cannot watch (see fs.inotify in sysctl); going by the scans alone", error=error)
            self._blind = True
            return
        if self._blind:
            log.info("watching again")
        self._observer, self._blind = observer, False

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            _end(self._observer)

    def wake(self) -> None:
        """End a wait."""
        with self._something:
            self._flooded = True
            self._something.notify_all()

    def wait(self, timeout: float) -> list[Hint] | None:
        """Return the hints that have come, or None after ``timeout`` seconds without one: time for a scan."""
        with self._something:
            self._something.wait_for(lambda: self._hints or self._flooded, timeout)
        return self.pending() or None

    def pending(self) -> list[Hint] | None:
        """Return the hints that have come, without waiting; None where there were too many: time for a scan."""
        with self._something:
            hints, flooded = list(self._hints), self._flooded
            self._hints.clear()
            self._flooded = False
        return None if flooded else hints

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note an event (called by watchdog's thread)."""
        changed = os.fsdecode(event.dest_path or event.src_path)
        directory, name = os.path.split(os.path.relpath(changed, self._root))
        if directory not in self._directories or ids.is_upload_in_progress(name):
            return
        with self._something:
            if len(self._hints) < MOST_HINTS:
                self._hints[Hint(directory, name)] = None
            else:
                self._flooded = True
            self._something.notify_all()


def _end(observer: BaseObserver) -> None:
    if observer.is_alive():
        observer.stop()
        observer.join()
