"""A job is shown to its owner once it has run for a while; one that is over before leaves nothing."""

from __future__ import annotations

import threading

import pytest

from spoold.actors.executor import showing
from spoold.actors.executor.showing import Showing
from spoold.model.ids import Entry
from spoold.model.response import Response, Status
from spoold.model.submission import Origin
from spoold.spool.progress import Progress
from tests.actors.bench import Bench

ORIGIN = Origin(uid=0, gid=0, sha256="", arrival=0)


def of(bench: Bench, id_: str) -> Progress:
    return Progress(bench.spool, Entry(id_, 1, 0), Response(status=Status.RUNNING), ORIGIN, lambda: False)


def test_what_runs_for_a_while_is_shown(bench: Bench) -> None:
    shower = Showing()
    thread = threading.Thread(target=shower.serve)
    thread.start()
    shower.soon(of(bench, "a"))
    bench.until(lambda: bench.names("progress") == {"a.json"})
    shower.soon(of(bench, "b"))
    bench.until(lambda: bench.names("progress") == {"a.json", "b.json"})
    shower.stop()
    thread.join()


def test_an_end_that_comes_while_nothing_is_due_is_one() -> None:
    shower = Showing()
    shower.stop()
    shower._take_due()  # as of a thread that saw no end yet
    thread = threading.Thread(target=shower.serve, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_what_is_over_is_not_shown_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SOON", 0.0)
    late = of(bench, "late")
    shower = Showing()
    shower.soon(late)
    (due,) = shower._take_due()
    shower.over(late)
    due.show()
    assert bench.names("progress") == set(), "its side file is removed by now, and would stay"


def test_the_end_waits_for_what_is_being_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def write(*_: object) -> None:
        writing.set()
        go_on.wait()

    monkeypatch.setattr(bench.spool, "write_progress", write)
    progress = of(bench, "a")
    writer = threading.Thread(target=progress.show)
    writer.start()
    writing.wait()

    def end() -> None:
        progress.end()
        ended.set()

    ender = threading.Thread(target=end)
    ender.start()
    assert not ended.wait(0.05)
    go_on.set()
    for thread in (writer, ender):
        thread.join()
    assert ended.is_set()


def test_a_job_that_is_over_at_once_is_not_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SOON", 1000.0)
    shown: list[int] = []
    spool = bench.executor._spool
    write = spool.write_progress

    def noting(id_: str, response: Response, origin: Origin, attempt: int) -> None:
        shown.append(attempt)
        write(id_, response, origin, attempt)

    bench.drop("warm")
    bench.wait_for("warm")
    monkeypatch.setattr(spool, "write_progress", noting)
    bench.drop("a")
    bench.wait_for("a")
    bench.until(lambda: bench.names("progress") == set())
    assert shown == []
