"""A job is shown to its owner once it has run for a while. A job that ends earlier leaves no side file."""

from __future__ import annotations

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spoold.actors.executor import showing
from spoold.actors.executor.showing import Showing
from spoold.model.ids import Entry
from spoold.model.response import Phase, Response, Status, Stream
from spoold.model.submission import Origin
from spoold.model.tails import phase_so_far
from spoold.spool.progress import Progress
from tests.actors.bench import Bench
from tests.actors.test_cancel import PATIENT, be_patient
from tests.schemas import validator

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
    shower._take_due()  # like a thread that has not seen the end yet
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
    assert bench.names("progress") == set(), "its side file is removed by now, and a new one would stay"


@pytest.mark.parametrize("fails", ["replace", "os.fchmod"])
def test_a_look_that_cannot_be_written_leaves_no_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A job that ends before the next look would leave the file for an hour."""
    before = bench.names("tmp")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(f"spoold.host.fsops.{fails}", fail)
    of(bench, "a").show()
    assert bench.names("tmp") == before
    assert bench.names("progress") == set()


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


# -- output of running jobs


def side_file(bench: Bench, id_: str) -> dict[str, Any]:
    """Return the content of a side file, or an empty run where there is none."""
    try:
        loaded: dict[str, Any] = json.loads((bench.root / "progress" / f"{id_}.json").read_bytes())
    except FileNotFoundError:
        return {"run": {}}
    validator("response").validate(loaded)
    return loaded


def printed(text: str) -> Phase:
    return phase_so_far(stdout=Stream(text.encode(), len(text)), stderr=Stream(b"", 0), time=1.0)


def talks_until(path: Path) -> str:
    """Return a script that prints much and goes on until the file exists."""
    return f"head -c 100000 /dev/zero | tr '\\0' x; echo end >&2; while [ ! -e {path} ]; do sleep 0.02; done"


def test_whoever_asks_sees_the_end_of_what_is_printed(bench: Bench, tmp_path: Path) -> None:
    bench.drop("a", talks_until(tmp_path / "go"), progress=True, limits=PATIENT)
    bench.until(lambda: side_file(bench, "a")["run"].get("stderr"))
    shown = side_file(bench, "a")
    assert shown["status"] == "RUNNING"
    assert shown["run"].items() >= {"stdout": "x" * 65536, "stdout_bytes": 100_000, "stdout_truncated": True}.items()
    assert (shown["run"]["stderr"], shown["run"]["stderr_truncated"]) == ("end\n", False)
    assert "outcome" not in shown["run"]
    (tmp_path / "go").touch()
    bench.wait_for("a")
    assert bench.response("a")["run"].items() >= {"stdout": "x" * 100_000, "outcome": "ok"}.items()
    bench.assert_nothing_is_left()


def test_a_compilation_that_has_ended_is_shown_by_its_beginning(bench: Bench, tmp_path: Path) -> None:
    bench.drop(
        "a",
        talks_until(tmp_path / "go"),
        files=[{"name": "compile.sh", "content": "echo made; head -c 10000 /dev/zero | tr '\\0' y"}],
        progress=True,
        limits=PATIENT,
    )
    bench.until(lambda: side_file(bench, "a")["run"].get("stderr"))
    shown = side_file(bench, "a")["compile"]
    assert (shown["stdout"], shown["outcome"]) == ("made\n" + "y" * 4091, "ok")
    (tmp_path / "go").touch()
    bench.wait_for("a")


def test_whoever_does_not_ask_sees_nothing_of_it(bench: Bench, tmp_path: Path) -> None:
    bench.drop("a", talks_until(tmp_path / "go"), limits=PATIENT)
    bench.until(lambda: side_file(bench, "a").get("status") == "RUNNING")
    assert not bench.sandbox.jobs[0].live
    (tmp_path / "go").touch()
    bench.wait_for("a")


def test_what_is_cancelled_meanwhile_has_its_answer_and_nothing_else(bench: Bench) -> None:
    be_patient(bench)
    bench.drop("a", "echo some; sleep 600", progress=True, limits=PATIENT)
    bench.until(lambda: side_file(bench, "a")["run"].get("stdout"))
    (bench.root / "incoming" / "a.cancel").write_bytes(b"a")
    bench.until(lambda: not bench.names("incoming") | bench.names("tmp"), bench.intake.step)
    response = bench.response("a")
    assert (response["status"], response["run"]["outcome"]) == ("CANCELLED", "cancelled")
    bench.assert_nothing_is_left()


def test_output_is_shown_once_a_second_at_most(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SOON", 0.0)
    monkeypatch.setattr(showing, "PAUSE", 1000.0)
    shower, progress = Showing(), of(bench, "a")
    shower.output(progress, "run", printed("one"))
    (due,) = shower._take_due()
    due.show()
    assert side_file(bench, "a")["run"]["stdout"] == "one"
    shower.output(progress, "run", printed("one two"))
    assert shower._take_due() == []
    assert shower._due[progress] > time.monotonic() + 500
    shower.soon(progress)  # other news of the job doesn't wait, and includes the newest output
    shower.output(progress, "run", printed("one two three"))
    (due,) = shower._take_due()
    due.show()
    assert side_file(bench, "a")["run"]["stdout"] == "one two three"


def test_no_output_is_shown_where_room_is_short(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SOON", 0.0)
    short = Progress(bench.spool, Entry("a", 1, 0), Response(status=Status.RUNNING), ORIGIN, lambda: True)
    shower = Showing()
    shower.output(short, "run", printed("one"))
    (due,) = shower._take_due()
    due.show()
    assert bench.names("progress") == set()


def test_where_another_shows_it_a_job_is_shown_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SOON", 0.0)
    monkeypatch.setattr(showing, "SOON_ELSEWHERE", 1000.0)
    here, elsewhere, progress = Showing(), Showing(elsewhere=True), of(bench, "a")
    here.soon(progress)
    elsewhere.soon(progress)
    assert here._take_due() == [progress]
    assert elsewhere._due[progress] > time.monotonic() + 500
