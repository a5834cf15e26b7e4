"""Watching: what changed in the directories of an actor.

Spec: spool-layout.md, "Watching". A change is a hint: it names a file, and the actor verifies that file like any other.
Hints can be lost, in a queue that overflows or on a file system that another host writes to. So everything rests on the
scan that a daemon makes on a timer.

Users can make as many events as they like in the drop box. So events of names that nobody looks at are dropped before
anything else is done with them, and the number of other hints has a bound. After a loss a scan is asked for, and the
hints that were kept stay. This module reads the kernel's events itself (``host/inotify``). watchdog takes more than ten
times as long for an event, keeps any number of them, and does not tell that some were lost. It only polls, where the
spool is remote (``polling``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from spoold.host.inotify import Inotify, events
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.ids import Hint

log = Log("watch")
MOST_HINTS = 50_000  # with more than this at once, a scan is cheaper
PAUSE = 0.001  # seconds after each reading, so that each reads much and the actor gets on with its work


class Observer(Protocol):
    """A thread that notes hints until it is stopped."""

    def stop(self) -> None:
        """Stop, and return when the thread has ended."""


class Watch:
    """Collects hints from ``directories`` below ``root``. Polls where ``remote``, since inotify sees nothing there.

    ``wants`` tells whether a hint is wanted. A hint that is not wanted wakes nobody. ``patience`` returns how
    many seconds hints may wait after a reading, told whether that had any that was wanted. The observer's thread calls
    both.
    """

    def __init__(
        self,
        root: str,
        directories: Iterable[str],
        *,
        remote: bool,
        poll: float,
        wants: Callable[[Hint], bool] = lambda _: True,
        patience: Callable[[bool], float] = lambda _: PAUSE,
    ) -> None:
        self._root = os.path.abspath(root)
        self._directories = list(directories)
        self._remote, self._poll, self._wants = remote, poll, wants
        self.patience = patience
        self._hints: dict[Hint, None] = {}
        self._lost = False  # some change is not among the hints
        self._woken = False
        self._something = threading.Condition()
        self._observer: Observer | None = None
        self._blind = False

    def start(self) -> None:
        """Arm the watches, unless they are armed. A scan must follow, since earlier changes are not reported.

        Where the kernel grants no watch, this may be called again before each scan.
        """
        if self._observer is not None or not self._directories:
            return
        try:
            self._observer = self._observe()
        except OSError as error:
            if not self._blind:
                log.error("cannot watch directories (see sysctl fs.inotify); scans alone find files", error=error)
            self._blind = True
            return
        if self._blind:
            log.info("watching again")
        self._blind = False

    def _observe(self) -> Observer:
        if self._remote:
            from spoold.polling import Polling  # noqa: PLC0415 - it takes memory, and few spools are remote

            return Polling(self.note, self._root, self._directories, self._poll)
        return _Kernel(self, self._root, self._directories)

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()

    def wake(self) -> None:
        """End the wait of the thread that is in :meth:`wait`."""
        with self._something:
            self._woken = True
            self._something.notify_all()

    def wait(self, timeout: float) -> list[Hint] | None:
        """Return the hints that have come, or None after ``timeout`` seconds without any: time for a scan."""
        with self._something:
            self._something.wait_for(lambda: self._hints or self._lost or self._woken, timeout)
        return self.pending() or None

    def pending(self) -> list[Hint] | None:
        """Return the hints that have come, without waiting, or None where it is time for a scan.

        That is where some hints were lost, or ``wake`` was called. The next call returns the hints that are here.
        """
        with self._something:
            if self._lost or self._woken:
                self._lost = self._woken = False
                return None
            hints = list(self._hints)
            self._hints.clear()
        return hints

    def note(self, hints: Iterable[Hint], *, lost: bool = False) -> bool:
        """Note what changed, or that some changes were lost. Called by the observer's thread.

        Return whether any of them is wanted.
        """
        wanted = [hint for hint in hints if self._wants(hint)]
        with self._something:
            for hint in wanted:
                if len(self._hints) < MOST_HINTS:
                    self._hints[hint] = None
                elif hint not in self._hints:
                    lost = True
            if self._hints or lost:
                self._lost |= lost
                self._something.notify_all()
        return bool(wanted) or lost


class _Kernel(threading.Thread):
    """Reads inotify's events. Raises :class:`OSError` where the kernel grants no watch."""

    def __init__(self, watch: Watch, root: str, directories: list[str]) -> None:
        super().__init__(name="watch", daemon=True)
        self._watch = watch
        self._inotify = Inotify()
        try:
            self._names = {self._inotify.watch(os.path.join(root, each)): each for each in directories}
        except OSError:
            self._inotify.close()
            raise
        self.start()

    def run(self) -> None:
        """Note the events, until ``stop``."""
        while (data := self._inotify.read()) is not None:
            time.sleep(self._watch.patience(self._note(data)))  # the next read then takes more events at once

    def _note(self, data: bytes) -> bool:
        found: dict[Hint, None] = {}
        lost = False
        for event in events(data):
            lost |= event.lost
            name = os.fsdecode(event.name)
            if event.watch in self._names and not ids.is_upload_in_progress(name):
                found[Hint(self._names[event.watch], name)] = None
        return self._watch.note(found, lost=lost)

    def stop(self) -> None:
        """Stop, and return when the thread has ended."""
        self._inotify.end()
        self.join()
        self._inotify.close()
