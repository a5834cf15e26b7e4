"""When an executor of a pool ends by itself: it had nothing to do for a while, or its time is over.

Spec: spool-layout.md, "Several hosts". Somebody else starts these executors, for example as jobs of Slurm. An executor
that is not used gives its host back. It also ends before the system that started it would end it. Work is an entry in a
slot, or an answer that was given. An executor whose engine is away has no work, whatever waits, since another executor
may do better. Idle time begins when the executor is ready for work, so a slow start does not use it up. A start that
takes very long counts as idle after all, since the engine may never come.
"""

from __future__ import annotations

from spoold.config import ExecutorSettings

LONGEST_START = 60.0  # seconds after which an executor that is not ready counts as idle


class Life:
    """The life of one executor since ``born``. Times are the monotonic clock's, in seconds."""

    def __init__(self, settings: ExecutorSettings, born: float) -> None:
        self._idle = 0.0 if settings.route_only else settings.idle
        self._lifetime = settings.lifetime
        self._born = born
        self._worked = born + LONGEST_START
        self._was_ready = False

    def ready(self, now: float) -> None:
        """Note that the executor can work ``now``. Idle time counts from the first time on."""
        if not self._was_ready:
            self._was_ready = True
            self._worked = now

    def over(self, now: float, worked: float) -> str:
        """Say why the executor ends ``now``, "" while it goes on. ``worked`` is when it last had work."""
        self._worked = max(self._worked, worked)
        if self._lifetime and now >= self._born + self._lifetime:
            return f"its lifetime of {self._lifetime:g} s is over"
        if self._idle and now >= self._worked + self._idle:
            return f"it had no work for {self._idle:g} s"
        return ""

    @property
    def ends(self) -> float | None:
        """Return when the executor ends if no more work comes, None where it does not end by itself."""
        ends = [begin + span for begin, span in ((self._worked, self._idle), (self._born, self._lifetime)) if span > 0]
        return min(ends, default=None)
