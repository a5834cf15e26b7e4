"""Watching: what changed in the directories of an actor.

Spec: spool-layout.md, "Watching". A change is a hint: it names a file, and the actor verifies it like anything else.
Hints may be lost (a queue that overflows, a file system that another host writes to); the scan that a daemon makes on
a timer is what everything rests on.

In the drop box users make as many events as they like. So those of names that nobody looks at go before anything else
is done with them, and of the others so many are kept. What is lost asks for a scan, and the hints that there are stay.
The kernel's events are read here (``host/inotify``): watchdog takes more than ten times as long for one, keeps as many
as come, and does not tell that some were lost. It polls where the spool is remote (``polling``).
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
MOST_HINTS = 50_000  # more at once than this, and a scan is cheaper
PAUSE = 0.001  # seconds after each reading: then much is read at once, and the actor is not kept from its work
LONG_PAUSE = 0.005  # seconds after a reading of which nothing is wanted: many may watch what one of them wants


class Observer(Protocol):
    """A thread that notes hints until it is stopped."""

    def stop(self) -> None:
        """End, and come back when it is over."""


class Watch:
    """Collects hints from ``directories`` below ``root``; ``remote`` polls, since inotify sees nothing there.

    Those that ``wants`` does not want wake nobody. It is called by the observer's thread.
    """

    def __init__(
        self,
        root: str,
        directories: Iterable[str],
        *,
        remote: bool,
        poll: float,
        wants: Callable[[Hint], bool] = lambda _: True,
    ) -> None:
        self._root = os.path.abspath(root)
        self._directories = list(directories)
        self._remote, self._poll, self._wants = remote, poll, wants
        self._hints: dict[Hint, None] = {}
        self._lost = False  # not all that changed is among the hints
        self._woken = False
        self._something = threading.Condition()
        self._observer: Observer | None = None
        self._blind = False

    def start(self) -> None:
        """Arm the watches, if they are not. A scan must follow: what came before is not told.

        Where the kernel grants none, one may call this again before each scan.
        """
        if self._observer is not None or not self._directories:
            return
        try:
            self._observer = self._observe()
        except OSError as error:
            if not self._blind:
                log.error("cannot watch (see fs.inotify in sysctl); going by the scans alone", error=error)
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
        """End a wait."""
        with self._something:
            self._woken = True
            self._something.notify_all()

    def wait(self, timeout: float) -> list[Hint] | None:
        """Return the hints that have come, or None after ``timeout`` seconds without one: time for a scan."""
        with self._something:
            self._something.wait_for(lambda: self._hints or self._lost or self._woken, timeout)
        return self.pending() or None

    def pending(self) -> list[Hint] | None:
        """Return the hints that have come, without waiting; None where some were lost: time for a scan.

        The hints that there are come afterwards all the same.
        """
        with self._something:
            if self._lost or self._woken:
                self._lost = self._woken = False
                return None
            hints = list(self._hints)
            self._hints.clear()
        return hints

    def note(self, hints: Iterable[Hint], *, lost: bool = False) -> bool:
        """Note what changed, or that some of that was lost (called by the observer's thread).

        Tell whether any of it is wanted.
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
    """Reads what inotify tells; raises :class:`OSError` where the kernel grants no watch."""

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
        """Note what is told, until it is over."""
        while (data := self._inotify.read()) is not None:
            time.sleep(PAUSE if self._note(data) else LONG_PAUSE)

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
        """End, and come back when it is over."""
        self._inotify.end()
        self.join()
        self._inotify.close()
