"""Several threads have done at once all that they want at the same time. One thread alone does not wait."""

from __future__ import annotations

import threading

import pytest

from spoold.spool.together import Together
from tests.waiting import until


class Held:
    """Does what is wanted, and notes it. The first time it waits until ``go_on`` is set."""

    def __init__(self) -> None:
        self.done: list[list[str]] = []
        self.go_on = threading.Event()

    def __call__(self, wishes: list[str]) -> None:
        self.done.append(wishes)
        self.go_on.wait()
        if "bad" in wishes:
            raise OSError(5, "the disk")


class Wanting(threading.Thread):
    """A thread that wants something, and the error that it gets."""

    def __init__(self, together: Together[str], wish: str) -> None:
        super().__init__()
        self._together, self._wish = together, wish
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._together.do(self._wish)
        except OSError as error:
            self.error = error


def test_one_alone_does_it_at_once() -> None:
    held = Held()
    held.go_on.set()
    together = Together(held, 64)
    together.do("a")
    together.do("b")
    assert held.done == [["a"], ["b"]]
    with pytest.raises(OSError, match="the disk"):
        together.do("bad")
    together.do("c")
    assert held.done[-1] == ["c"]


def all_of(wishes: str, most: int) -> tuple[list[list[str]], list[bool]]:
    """Let a thread want "first", and meanwhile others each of the ``wishes``.

    Return what was done at a time, and for each of the others whether it failed.
    """
    held = Held()
    together = Together(held, most)
    first = Wanting(together, "first")
    until(lambda: held.done)
    others = list[Wanting]()
    for wish in wishes.split():
        others.append(Wanting(together, wish))
        until(lambda: len(together._waiting) == len(others))
    held.go_on.set()
    for each in (first, *others):
        each.join()
    assert first.error is None
    return held.done, [each.error is not None for each in others]


def test_what_others_want_meanwhile_is_done_at_once() -> None:
    assert all_of("a b c", 64) == ([["first"], ["a", "b", "c"]], [False] * 3)
    assert all_of("a b c d e", 2) == ([["first"], ["a", "b"], ["c", "d"], ["e"]], [False] * 5)


def test_an_error_is_of_those_for_whom_it_was_done() -> None:
    assert all_of("a bad c", 2) == ([["first"], ["a", "bad"], ["c"]], [True, True, False])
