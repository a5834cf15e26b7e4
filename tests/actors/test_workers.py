"""A worker may leave its slot to another one before its work is over."""

from __future__ import annotations

import threading

import pytest

from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import Place, Ready, Taken
from spoold.actors.executor.workers import Workers
from spoold.model.ids import Entry
from spoold.model.states import State
from tests.waiting import until


@pytest.mark.parametrize("leaves", [True, False])
def test_the_next_one_begins_when_the_slot_is_left(leaves: bool) -> None:
    line, begun, go_on = Line(), list[str](), threading.Event()

    def work(taken: Taken) -> None:
        begun.append(taken.place.entry.id)
        if leaves:
            workers.leave_slot(taken)
            go_on.wait()

    workers = Workers(1, line, work)
    workers.start()
    for id_ in "abc":
        line.ready(Ready(Place(State.NEW, Entry(id_, 1)), "build", 0, 0.0), 1000, 0)
    until(lambda: begun == ["a", "b", "c"])
    assert workers.lost() == ""
    line.close()
    go_on.set()
    workers.join()
    assert "has ended" in workers.lost()


def test_a_slot_that_is_not_left_is_nobody_elses() -> None:
    line, running, go_on = Line(), list[str](), threading.Semaphore(0)

    def work(taken: Taken) -> None:
        running.append(taken.place.entry.id)
        go_on.acquire()
        assert len(running) == 1
        running.clear()

    workers = Workers(1, line, work)
    workers.start()
    for id_ in "abc":
        line.ready(Ready(Place(State.NEW, Entry(id_, 1)), "build", 0, 0.0), 1000, 0)
    for id_ in "abc":
        until(lambda id_=id_: running == [id_])  # type: ignore[misc] # mypy cannot infer it
        go_on.release()
    line.close()
    workers.join()
