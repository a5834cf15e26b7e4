"""Polling: what changed in directories that another host serves, since the kernel reports no such changes.

Spec: spool-layout.md, "Watching". ``watch`` takes what is found here. Only this module uses watchdog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.polling import PollingObserver

from spoold.model import ids
from spoold.model.ids import Hint

EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileModifiedEvent, FileMovedEvent]


class Polling(FileSystemEventHandler):
    """Lists the directories every ``poll`` seconds. Its thread calls ``note`` with what changed."""

    def __init__(
        self, note: Callable[[Iterable[Hint]], object], root: str, directories: list[str], poll: float
    ) -> None:
        self._note, self._root, self._directories = note, root, directories
        self._observer = PollingObserver(timeout=poll)
        try:
            self._observer.start()
            for directory in directories:
                self._observer.schedule(self, os.path.join(root, directory), event_filter=EVENTS)
        except OSError:
            self.stop()
            raise

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note an event. Called by watchdog's thread."""
        changed = os.fsdecode(event.dest_path or event.src_path)
        directory, name = os.path.split(os.path.relpath(changed, self._root))
        if directory in self._directories and not ids.is_upload_in_progress(name):
            self._note([Hint(directory, name)])

    def stop(self) -> None:
        """Stop, and return when the thread has ended."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
