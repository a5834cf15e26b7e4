"""``spoolctl list``, ``logs`` and ``outputs``: a user's submissions, their output, and their files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import exits, listing
from spoold.cli.record import Record
from spoold.client import response
from spoold.model.response import FINAL, Status
from tests.actors.bench import Bench
from tests.patient import PATIENT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Return a spool in which nobody works."""
    for name in ("incoming", "done", "progress"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    return tmp_path / "spool"


def environment(spool: Path) -> dict[str, str]:
    return os.environ | {"SPOOLD_SPOOL": str(spool), "SPOOLD_CONFIG": os.devnull}


def ctl(spool: Path, *words: object, code: int = exits.OK, **options: Any) -> tuple[str, str]:
    line = [*PATIENT, *map(str, words)]
    done = subprocess.run(
        line, env=environment(spool), stdin=subprocess.DEVNULL, capture_output=True, check=False, **options
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="surrogateescape")


def publish(spool: Path, id_: str, where: str = "done", **keys: Any) -> None:
    name = f"{id_}.response.json" if where == "done" else f"{id_}.json"
    (spool / where / name).write_text(json.dumps({"Submission_id": id_, **keys}))


# -- list


def rows(spool: Path, *words: object) -> list[tuple[str, str]]:
    found = json.loads(ctl(spool, "list", "--json", *words)[0])["submissions"]
    return [(row["Submission_id"], row["state"]) for row in found]


STATES: dict[str, dict[str, Any]] = {
    "done": {"status": "COMPLETED"},
    "failed": {"status": "COMPILE_FAILED"},
    "odd": {"status": "OF_A_LATER_VERSION"},
    "new": {"status": "pending"},
    "built": {"status": "pending", "waiting_for": {"build_id": "a" * 64, "state": "building"}},
    "runs": {"status": "RUNNING"},
}


@pytest.fixture
def several(empty: Path) -> Path:
    """Return a spool with a submission in each state, submitted in this order."""
    ours = Record(str(empty))
    for id_, keys in STATES.items():
        publish(empty, id_, "done" if keys["status"].isupper() and id_ != "runs" else "progress", **keys)
        ours.add(id_, f"of {id_}")
    (empty / "incoming" / "arrives.json").touch()
    ours.add("arrives", "")
    ours.add("lost", "\x1b")
    return empty


ALL = [
    *(("lost", "gone"), ("arrives", "arriving"), ("runs", "running"), ("built", "building"), ("new", "queued")),
    *(("odd", "OF_A_LATER_VERSION"), ("failed", "COMPILE_FAILED"), ("done", "COMPLETED")),
]


def test_what_was_submitted_is_listed_with_its_state(several: Path) -> None:
    assert rows(several) == ALL
    out, _ = ctl(several, "list")
    assert out.splitlines()[0].split() == ["id", "state", "submitted", "of"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == [id_ for id_, _ in ALL]
    assert "just now  of done" in out
    assert "\\x1b" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--state", "going"], ["arrives", "runs", "built", "new"]),
        (["--state", "ENDED"], ["failed", "done"]),
        (["--state", "failed", "--state", "gone"], ["lost", "failed"]),
        (["--state", "compile_failed"], ["failed"]),
        (["--state", "ended", "--last", "1"], ["failed"]),
        (["-n", "2"], ["lost", "arrives"]),
        (["ru"], ["runs"]),
        (["--newer", "1h", "d"], ["done"]),
        (["--older", "1h"], []),
    ],
)
def test_it_is_filtered(several: Path, words: list[str], ids: list[str]) -> None:
    assert [id_ for id_, _ in rows(several, *words)] == ids


def test_ages_are_those_of_the_record(empty: Path) -> None:
    ours, now = Record(str(empty)), time.time()
    ours.add("x", "")
    old = [{"id": f"old-{days}", "name": "", "at": now - days * 86400} for days in (9, 3, 1)]
    Path(ours.path).write_text("".join(json.dumps(entry) + "\n" for entry in old))
    assert [id_ for id_, _ in rows(empty, "--newer", "4d")] == ["old-1", "old-3"]
    assert [id_ for id_, _ in rows(empty, "--older", "36h", "--newer", "1w")] == ["old-3"]
    assert "3 d ago" in ctl(empty, "list")[0]
    assert "write a number and s, min, h, d or w" in ctl(empty, "list", "--newer", "soon", code=exits.USAGE)[1]


def test_nothing_to_list_says_where_it_is_looked_for(empty: Path) -> None:
    out, err = ctl(empty, "list")
    assert (out, Record(str(empty)).path in err) == ("", True)
    assert json.loads(ctl(empty, "list", "--json")[0]) == {"submissions": []}


def test_submit_and_run_write_down_what_they_submit(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "run.sh").write_text("true")
    id_ = ctl(bench.root, "submit", tmp_path / "program")[0].strip()
    ctl(bench.root, "run", "-c", "exit 1", code=1)
    ctl(bench.root, "wait", id_)
    (first, second) = json.loads(ctl(bench.root, "list", "--json")[0])["submissions"]
    assert (first["state"], first["name"]) == ("RUN_FAILED", "-c")
    assert (second["Submission_id"], second["state"], second["name"]) == (id_, "COMPLETED", str(tmp_path / "program"))


def test_every_state_is_one_that_can_be_asked_for() -> None:
    assert set(listing.ENDED) == set(FINAL)
    assert set(response.ON_ITS_WAY) == set(Status) - FINAL
    assert {listing.WORDS.get(status, status.lower()) for status in response.ON_ITS_WAY} <= set(listing.GOING)


# -- logs


def ran(out: str, err: str = "", **keys: Any) -> dict[str, Any]:
    return {"stdout": out, "stderr": err, "time": 0.1, "outcome": "ok", "exit_code": 0, **keys}


def test_logs_of_what_has_ended(empty: Path) -> None:
    publish(empty, "x", status="COMPLETED", compile=ran("compiled\n", "warned\n"), run=ran("out\x1b[2J\n", "err\n"))
    assert ctl(empty, "logs", "x") == ("out\x1b[2J\n", "compiled\nwarned\nerr\n")
    assert ctl(empty, "logs", "-f", "x") == ctl(empty, "logs", "x")
    lines = [json.loads(line) for line in ctl(empty, "logs", "x", "--json")[0].splitlines()]
    assert lines[2] == {"phase": "run", "stream": "stdout", "text": "out\x1b[2J\n", "encoding": "utf8"}
    failed = {"stdout": "", "stderr": "error: no such package\n", "time": 1, "outcome": "nonzero_exit"}
    publish(empty, "y", status="DEPENDENCIES_FAILED", dependencies=failed)
    assert ctl(empty, "logs", "y") == ("", "error: no such package\n")


def test_logs_of_what_was_refused_say_why(empty: Path) -> None:
    publish(empty, "x", status="REJECTED", reason="files: \x1b")
    assert ctl(empty, "logs", "x") == ctl(empty, "logs", "-f", "x") == ("", "x: REJECTED: files: \\x1b\n")


def test_logs_of_cases_are_those_of_each(empty: Path) -> None:
    cases = [{"name": name, "verdict": "accepted", "run": ran(f"{name}\n")} for name in ("a", "b")]
    publish(empty, "x", status="COMPLETED", cases=cases, run={"outcome": "skipped"})
    assert ctl(empty, "logs", "x") == ("a\nb\n", "case a: accepted\ncase b: accepted\n")


def test_logs_of_what_runs_are_its_end_so_far(empty: Path) -> None:
    run = {"stdout": "the end\n", "time": 2, "stdout_bytes": 1008, "stdout_truncated": True, "stderr_bytes": 0}
    publish(empty, "x", "progress", status="RUNNING", run=run)
    out, err = ctl(empty, "logs", "x")
    assert out == "the end\n"
    assert err == "... 1000 bytes of run stdout before this are not shown\nx: running\n"
    publish(empty, "x", "progress", status="RUNNING")
    assert "submitted with --progress" in ctl(empty, "logs", "x")[1]
    assert ctl(empty, "logs", "x", "--json")[0] == ""


def test_logs_follow_what_runs_to_its_end(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = tmp_path / "x.sh"
    script.write_text(f"echo first; until [ -e {gate} ]; do sleep 0.1; done; echo last; echo err >&2; exit 3")
    runs = subprocess.Popen([*PATIENT, "run", str(script), "--json"], env=environment(bench.root), stdin=-3, stdout=-3)
    with runs:
        bench.until(lambda: Record(str(bench.root)).entries(), lambda: None)
        id_ = Record(str(bench.root)).entries()[0].id
        with subprocess.Popen([*PATIENT, "logs", "-f", id_], env=environment(bench.root), stdout=-1, stderr=-1) as logs:
            assert logs.stdout
            assert logs.stdout.readline() == b"first\n"
            gate.touch()
            assert logs.communicate() == (b"last\n", b"err\n")
    assert (logs.returncode, runs.returncode) == (exits.OK, 3)


def test_an_interrupt_of_logs_says_that_it_goes_on(empty: Path) -> None:
    publish(empty, "x", "progress", status="RUNNING", run={"stdout": "begun\n", "time": 2, "stdout_bytes": 6})
    with subprocess.Popen([*PATIENT, "logs", "-f", "x"], env=environment(empty), stdout=-1, stderr=-1) as logs:
        assert logs.stdout
        assert logs.stdout.readline() == b"begun\n"
        logs.send_signal(signal.SIGINT)
        assert b"x: it continues." in logs.communicate()[1]
    assert logs.returncode == exits.INTERRUPTED
    assert "no response within 0.1 s" in ctl(empty, "logs", "-f", "x", "--timeout", "0.1", code=exits.TIMED_OUT)[1]


@pytest.mark.parametrize(("words", "shown"), [([], b"a\\x1b[2Jb\\xff\n"), (["--raw"], b"a\x1b[2Jb\xff\n")])
def test_a_terminal_gets_no_control_characters_unless_it_is_asked_for(
    empty: Path, words: list[str], shown: bytes
) -> None:
    publish(empty, "x", status="COMPLETED", run=ran("YRtbMkpi/wo=", stdout_encoding="base64"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run([*PATIENT, "logs", "x", *words], env=environment(empty), stdout=theirs, check=True)
    os.close(theirs)
    assert done.returncode == 0
    assert os.read(ours, 1000).replace(b"\r\n", b"\n") == shown
    os.close(ours)


def test_logs_of_what_is_not_known(empty: Path) -> None:
    assert "nothing is known of it (yet)" in ctl(empty, "logs", "x", code=exits.FAILED)[1]
    assert "cannot be an id" in ctl(empty, "logs", "../x", code=exits.FAILED)[1]
    (empty / "incoming" / "x.json").touch()
    assert "x: queued" in ctl(empty, "logs", "x")[1]


# -- outputs


def file(name: str, text: str, mode: str = "0644") -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"name": name, "size": len(text), "sha256": digest, "mode": mode, "content": text, "encoding": "utf8"}


def test_outputs_are_written_below_the_directory(empty: Path, tmp_path: Path) -> None:
    publish(empty, "x", status="COMPLETED", outputs=[file("a/b.txt", "text"), file("go", "#!/bin/sh", "0755")])
    to = tmp_path / "to"
    assert ctl(empty, "outputs", "x", "-C", to)[0] == f"{to}/a/b.txt\n{to}/go\n"
    assert (to / "a" / "b.txt").read_text() == "text"
    assert os.access(to / "go", os.X_OK)
    _, err = ctl(empty, "outputs", "x", "-C", to, code=exits.FAILED)
    assert "a/b.txt is already in" in err
    assert "--over" in err
    (to / "a" / "b.txt").write_text("old")
    out, _ = ctl(empty, "outputs", "x", "-C", to, "--over", "--json")
    assert json.loads(out) == {"files": ["a/b.txt", "go"], "missing": []}
    assert (to / "a" / "b.txt").read_text() == "text"
    assert "a/b.txt is already in ." in ctl(empty, "outputs", "x", cwd=to, code=exits.FAILED)[1]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a//b", "", "."])
@pytest.mark.parametrize("over", [[], ["--over"]])
def test_no_name_leads_out_of_it(empty: Path, tmp_path: Path, name: str, over: list[str]) -> None:
    publish(empty, "x", status="COMPLETED", outputs=[file(name, "evil")])
    assert (
        "is not a name that a returned file can have"
        in ctl(empty, "outputs", "x", "-C", tmp_path / "to", *over, code=1)[1]
    )
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("over", [[], ["--over"]])
def test_no_link_in_it_is_followed(empty: Path, tmp_path: Path, over: list[str]) -> None:
    to, elsewhere = tmp_path / "to", tmp_path / "elsewhere"
    to.mkdir()
    elsewhere.mkdir()
    (to / "d").symlink_to(elsewhere)
    publish(empty, "x", status="COMPLETED", outputs=[file("d/f", "evil")])
    ctl(empty, "outputs", "x", "-C", to, *over, code=exits.FAILED)
    (to / "d").unlink()
    cases = [{"name": "c", "verdict": "accepted", "outputs": [file("f", "evil")]}]
    publish(empty, "x", status="COMPLETED", cases=cases)
    (to / "c").symlink_to(elsewhere)
    ctl(empty, "outputs", "x", "-C", to, *over, code=exits.FAILED)
    assert not list(elsewhere.iterdir())


def test_outputs_of_cases_are_apart(empty: Path, tmp_path: Path) -> None:
    cases = [
        {"name": name, "verdict": "accepted", "outputs": [file("f", name)], "outputs_missing": ["g"]}
        for name in ("a/b", "..", "A%2Fb")
    ]
    publish(empty, "x", status="COMPLETED", cases=cases)
    out, err = ctl(empty, "outputs", "x", "-C", tmp_path / "to", code=exits.FAILED)
    assert {Path(line).relative_to(tmp_path / "to").parts[1] for line in out.splitlines()} == {"f"}
    texts = sorted(path.read_text() for path in (tmp_path / "to").rglob("f"))
    assert texts == ["..", "A%2Fb", "a/b"]
    assert err == "x: required, but not returned: g\n" * 3
    assert ctl(empty, "outputs", "x", "-C", tmp_path / "one", "--case", "..", code=exits.FAILED)[0].endswith("one/f\n")
    assert "no case called 'z'" in ctl(empty, "outputs", "x", "--case", "z", code=exits.FAILED)[1]


def test_outputs_of_what_has_not_ended_or_has_none(empty: Path) -> None:
    assert "nothing is known of it" in ctl(empty, "outputs", "x", code=exits.FAILED)[1]
    publish(empty, "x", "progress", status="RUNNING")
    assert "`spoolctl wait x` waits for it" in ctl(empty, "outputs", "x", code=exits.FAILED)[1]
    publish(empty, "x", status="COMPLETED")
    assert ctl(empty, "outputs", "x") == (
        "",
        "x: no files came back. A request asks for files with `outputs`, or --output\n",
    )


def test_outputs_that_lie_beside_the_response_come_too(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "run.sh").write_text("head -c 3000000 /dev/zero >large; echo small >small")
    id_ = ctl(bench.root, "submit", tmp_path / "program", "--output", "*")[0].strip()
    ctl(bench.root, "wait", id_)
    ctl(bench.root, "outputs", id_, "-C", tmp_path / "to")
    assert (tmp_path / "to" / "large").read_bytes() == bytes(3000000)
    assert (tmp_path / "to" / "small").read_text() == "small\n"
