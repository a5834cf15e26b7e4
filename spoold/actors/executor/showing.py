"""Showing: writes the side files of jobs that run for a while.

Spec: spool-layout.md, "The Response". Most jobs are over before anybody could look, and making and removing a file
costs as much as the job's answer. So a job is shown once it has run for ``SOON``, or for ``SOON_ELSEWHERE`` where
another daemon shows it. Output on the way, for owners who ask for it, is shown at the earliest a second after the job
was last shown. The slots start a thread that does all this. It wakes up ten times a second while there is something to
show, and not at all otherwise. Thread-safe.
"""

from __future__ import annotations

import threading
import time

from spoold.model.response import Phase
from spoold.spool.progress import Progress

SOON = 0.1  # seconds; also the time between two looks at what is due
SOON_ELSEWHERE = 1.0  # seconds, where another daemon shows it: each file costs both of them something
PAUSE = 1.0  # seconds at least between two times that output is shown


class Showing:
    """Shows what is given to ``soon``, unless ``over`` comes first."""

    def __init__(self, *, elsewhere: bool = False) -> None:
        self._elsewhere = elsewhere
        self._due: dict[Progress, float] = {}  # when each is due, on the monotonic clock
        self._lock = threading.Lock()
        self._something, self._ending = threading.Event(), threading.Event()

    def stop(self) -> None:
        """End ``serve``. Nothing is shown any more."""
        with self._lock:
            self._ending.set()
            self._something.set()

    def soon(self, progress: Progress, after: float | None = None) -> None:
        """Show the progress in ``after`` seconds (None: soon), in the state that it is in by then."""
        soon = SOON_ELSEWHERE if self._elsewhere else SOON
        self._show_at(progress, time.monotonic() + (soon if after is None else after))

    def output(self, progress: Progress, name: str, phase: Phase) -> None:
        """Show what the running phase ``name`` has printed so far, soon, unless later news of it come first."""
        progress.change(**{name: phase})
        self._show_at(progress, max(time.monotonic() + SOON, progress.shown + PAUSE))

    def _show_at(self, progress: Progress, moment: float) -> None:
        with self._lock:
            self._due[progress] = min(moment, self._due.get(progress, moment))
            self._something.set()

    def over(self, progress: Progress) -> None:
        """Show a progress no more, since its job is over. Nothing more is written of it."""
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
