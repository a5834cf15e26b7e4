"""Showing: the side files of jobs that run, for those that run for a while.

Spec: spool-layout.md, "The Response". Most jobs are over before anybody could look, and a file that is made and removed
costs as much as their answer. So a job is shown once it has run for ``SOON``. What it prints on the way, for those who
ask for it, is shown a second after anything else of it at the earliest. A thread does it that the slots start. It wakes
up ten times a second while anything is to be shown, and not at all otherwise. Thread-safe.
"""

from __future__ import annotations

import threading
import time

from spoold.model.response import Phase
from spoold.spool.progress import Progress

SOON = 0.1  # seconds
PAUSE = 1.0  # seconds between two times that output is shown, at least


class Showing:
    """Shows what is given to ``soon`` unless ``over`` comes before."""

    def __init__(self) -> None:
        self._due: dict[Progress, float] = {}  # on the monotonic clock
        self._lock = threading.Lock()
        self._something, self._ending = threading.Event(), threading.Event()

    def stop(self) -> None:
        """End ``serve``; nothing is shown any more."""
        with self._lock:
            self._ending.set()
            self._something.set()

    def soon(self, progress: Progress, after: float | None = None) -> None:
        """Have it shown in so many seconds, ``SOON`` where none are given, as it is then."""
        self._show_at(progress, time.monotonic() + (SOON if after is None else after))

    def output(self, progress: Progress, name: str, phase: Phase) -> None:
        """Have the phase ``name``, which runs, shown as it is so far, unless later news of it come before that."""
        progress.change(**{name: phase})
        self._show_at(progress, max(time.monotonic() + SOON, progress.shown + PAUSE))

    def _show_at(self, progress: Progress, moment: float) -> None:
        with self._lock:
            self._due[progress] = min(moment, self._due.get(progress, moment))
            self._something.set()

    def over(self, progress: Progress) -> None:
        """Show it no more, since its job is over. Nothing more is written of it."""
        with self._lock:
            self._due.pop(progress, None)
        progress.end()

    def serve(self) -> None:
        """Show what is due, until ``stop``."""
        while self._something.wait() and not self._ending.wait(SOON):
            for progress in self._take_due():
                progress.show()

    def _take_due(self) -> list[Progress]:
        now = time.monotonic()
        with self._lock:
            if not (self._due or self._ending.is_set()):
                self._something.clear()
            due = [progress for progress, at in self._due.items() if at <= now]
            for progress in due:
                del self._due[progress]
        return due
