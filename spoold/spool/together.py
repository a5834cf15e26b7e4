"""Doing at once what several threads want at the same time.

Spec: spool-layout.md, "Durability". A disk makes many names in a directory durable in the time and with the work of
one. The first thread that wants something does it at once. Others that want something meanwhile wait, and one of them
then does it for all of them. So nobody waits for a timer, and a thread that is alone is not delayed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Wish = TypeVar("Wish")


class _Waiting(Generic[Wish]):
    """A thread's wish. Its ``turn`` is released once the wish is ``done``, or once the thread has to do all of them."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.turn = threading.Lock()
        self.turn.acquire()
        self.done = False
        self.error: BaseException | None = None


class Together(Generic[Wish]):
    """Does what threads want by ``do_all``, with ``most`` wishes at a time. One thread at a time does."""

    def __init__(self, do_all: Callable[[list[Wish]], None], most: int) -> None:
        self._do_all = do_all
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[Wish]] = []
        self._busy = False

    def do(self, wish: Wish) -> None:
        """Do this, together with what others want. Raise what ``do_all`` raises, in each thread that it did it for."""
        mine = _Waiting(wish)
        with self._lock:
            self._waiting.append(mine)
            is_first, self._busy = not self._busy, True
        if not is_first:
            mine.turn.acquire()
        if not mine.done:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error

    def _lead(self, mine: _Waiting[Wish]) -> None:
        """Do what is wanted by now. The thread that leads has waited longest, so its own wish is among these."""
        with self._lock:
            some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        error: BaseException | None = None
        try:
            self._do_all([each.wish for each in some])
        except BaseException as raised:  # noqa: BLE001 - all threads that it was done for raise it
            error = raised
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._busy = following is not None
        if following:
            following.turn.release()
        for each in some:
            each.done, each.error = True, error
            if each is not mine:
                each.turn.release()
