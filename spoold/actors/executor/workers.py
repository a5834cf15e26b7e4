"""Workers: the threads of the slots.

Theory of operation. There are more workers than slots. On a disk a worker leaves its slot to another one when its
job has ended, and then makes the answer durable. So no slot waits for the disk, and answers that become durable at the
same time share the syncs. The number of workers bounds how many answers wait for the disk. In memory a worker keeps its
slot, since to wake another one for each job takes longer than a sync.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import Taken

ANSWERING = 6  # workers more than slots


class Workers:
    """The workers of so many ``slots``. Each takes from ``line``, and does ``work`` with what it took."""

    def __init__(self, slots: int, line: Line, work: Callable[[Taken], None]) -> None:
        self.slots = slots
        self._line, self._work = line, work
        self._free = threading.Semaphore(slots)
        count = slots + ANSWERING if slots else 0
        self._threads = [threading.Thread(target=self._serve, name=f"slot-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Begin to take entries."""
        for thread in self._threads:
            thread.start()

    def lost(self) -> str:
        """Name a thread that has ended, "" where all go on."""
        return next((f"the thread {each.name} has ended" for each in self._threads if not each.is_alive()), "")

    def join(self) -> None:
        """Wait until all workers have ended, once the line is closed."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _serve(self) -> None:
        """Take the next entry again and again, until the line is closed."""
        has_slot = False
        while True:
            if not has_slot:
                self._free.acquire()
            taken = self._line.take()
            if taken is None:
                self._free.release()
                return
            try:
                self._work(taken)
            finally:
                has_slot = self._line.ended(taken)

    def leave_slot(self, taken: Taken) -> None:
        """Leave the slot to another worker."""
        if self._line.ended(taken):
            self._free.release()
