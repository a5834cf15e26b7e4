"""``spoolctl batch``: many programs with one command, which loses nothing and runs nothing twice."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import exits, records, stable
from spoold.cli.record import Record
from spoold.cli.sweep import Result
from spoold.client.response import Phase, Response
from tests.actors.bench import Bench
from tests.turning import TurningBench


def environment(bench: Bench) -> dict[str, str]:
    return os.environ | {"SPOOLD_SPOOL": str(bench.root), "SPOOLD_CONFIG": os.devnull}


def line_of(*words: object) -> list[str]:
    return [sys.executable, "-m", "spoold.cli.ctl", "batch", *map(str, words)]


def batch(bench: Bench, *words: object, code: int = exits.OK, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        line_of(*words), env=environment(bench), input=data, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    return done


def program(tmp_path: Path, name: str, script: str) -> Path:
    path = tmp_path / "programs" / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.sh").write_text(script)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def ran(bench: Bench) -> list[str]:
    return [job.submission_id for job in bench.sandbox.jobs]


def test_a_table_and_a_summary(bench: Bench, tmp_path: Path) -> None:
    for number in range(3):
        program(tmp_path, f"p{number}", f"echo {number}; echo oh >&2; exit {number}")
    table, page = tmp_path / "r.csv", tmp_path / "r.html"
    done = batch(bench, tmp_path / "programs", "--table", table, "--html", page, code=exits.NOT_COMPLETED)
    shown = done.stdout.decode()
    assert "3 programs: 2 RUN_FAILED, 1 COMPLETED" in shown
    assert re.search(r"p2 +RUN_FAILED +2 ", shown)
    found = rows(table)
    assert list(found[0]) == list(records.COLUMNS)
    assert [(row["name"], row["status"], row["exit_code"], row["stdout"], row["stderr"]) for row in found] == [
        ("p0", "COMPLETED", "0", "0", "oh"),
        ("p1", "RUN_FAILED", "1", "1", "oh"),
        ("p2", "RUN_FAILED", "2", "2", "oh"),
    ]
    assert os.listdir(tmp_path / "programs" / "..") == os.listdir(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    assert all(f"p{number}" in page.read_text() for number in range(3))


def test_an_edited_program_is_new_and_the_others_are_not_run_again(bench: Bench, tmp_path: Path) -> None:
    for number in range(4):
        program(tmp_path, f"p{number}", f"echo {number}")
    batch(bench, tmp_path / "programs")
    program(tmp_path, "p2", "echo other")
    done = batch(bench, tmp_path / "programs", "--json")
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["name"]: each["response"]["run"]["stdout"] for each in printed} == {
        "p0": "0\n",
        "p1": "1\n",
        "p2": "other\n",
        "p3": "3\n",
    }
    assert b"3 had been run before" in done.stderr
    assert len(ran(bench)) == len(set(ran(bench))) == 5
    assert all(each["Submission_id"] == each["response"]["Submission_id"] for each in printed)


def test_200_programs_that_are_killed_and_resumed_twice(bench: Bench, tmp_path: Path) -> None:
    """The command is killed once and interrupted once by ^C. The table is right, and no program is run twice."""
    listed = tmp_path / "list.jsonl"
    listed.write_text(
        "".join(
            json.dumps({"name": f"n{n}", "request": {"files": [{"name": "run.sh", "content": f"echo $(({n} * {n}))"}]}})
            + "\n"
            for n in range(200)
        )
    )
    for word in (signal.SIGKILL, signal.SIGINT):
        pipe, begun = subprocess.PIPE, len(ran(bench))
        command = ["env", "--default-signal=INT", *line_of(listed, "--jobs", "20")]
        with subprocess.Popen(command, env=environment(bench), stdout=pipe, stderr=pipe) as running:
            bench.until(lambda n=begun: len(ran(bench)) > n + 30, lambda: None)  # type: ignore[misc]  # its own, too
            bench.sandbox.gate.clear()
            running.send_signal(word)
            _, said = running.communicate()
            bench.sandbox.gate.set()
        assert b"Traceback" not in said
        if word == signal.SIGINT:
            assert running.returncode == exits.INTERRUPTED
            assert b"The same command waits for them" in said
    table = tmp_path / "r.csv"
    batch(bench, listed, "--jobs", "20", "--table", table)
    assert [(row["name"], row["stdout"]) for row in rows(table)] == [(f"n{n}", str(n * n)) for n in range(200)]
    assert len(ran(bench)) == len(set(ran(bench))) == 200
    left = {name for each in ("incoming", "new", "building", "running") for name in bench.names(each)}
    assert not [name for name in left if not name.startswith(".")], "only a half-written private file may be left"


def on_their_way(bench: TurningBench) -> set[str]:
    """Return the ids that are on their way. A file may be in two directories for a moment."""
    with bench.turning:
        states = ("incoming", "new", "building", "running")
        found = {name for each in states for name in bench.names(each) if name[0] != "."}
        return {name.removesuffix(".json").partition("@")[0] for name in found}


def test_no_more_than_so_many_are_on_their_way(bench: TurningBench, tmp_path: Path) -> None:
    bench.sandbox.gate.clear()
    for number in range(9):
        program(tmp_path, f"p{number}", f"echo {number}")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line_of(tmp_path / "programs", "--jobs", 3), env=environment(bench), stdout=pipe, stderr=pipe
    ) as running:
        bench.until(lambda: len(on_their_way(bench)) == 3 and len(bench.names("running")) == 2, lambda: None)
        assert len(on_their_way(bench)) == 3
        bench.sandbox.gate.set()
        running.communicate()
    assert running.returncode == exits.OK


def test_one_that_is_refused_keeps_no_other_from_being_run(bench: Bench, tmp_path: Path) -> None:
    """The refused program is a row like the others, and is never sent."""
    said = [
        {"name": "good", "request": {"files": [{"name": "run.sh", "content": "echo hi"}]}},
        {"name": "bad", "request": {"files": []}},
        {"name": "unheard", "source": "x", "file": "x.unheard"},
    ]
    data = "".join(f"{json.dumps(each)}\n" for each in said).encode()
    table = tmp_path / "r.csv"
    done = batch(bench, "-", "--table", table, data=data, code=exits.REFUSED)
    found = rows(table)
    assert [(row["status"], bool(row["id"])) for row in found] == [
        ("COMPLETED", True),
        ("REJECTED", False),
        ("REJECTED", False),
    ]
    assert "there is no run.sh" in found[1]["reason"]
    assert "no known language has the ending .unheard" in done.stdout.decode()
    assert len(ran(bench)) == 1
    printed = [
        json.loads(line) for line in batch(bench, "-", "--json", data=data, code=exits.REFUSED).stdout.splitlines()
    ]
    assert {each["name"]: each["response"]["status"] for each in printed}["bad"] == "REJECTED"


def test_what_was_submitted_is_listed(bench: Bench, tmp_path: Path) -> None:
    batch(bench, program(tmp_path, "p", "echo hi"))
    (entry,) = Record(str(bench.root)).entries()
    assert (entry.id, entry.name) == (ran(bench)[0], str(tmp_path / "programs" / "p"))


def test_what_was_cancelled_is_tried_again_where_asked(bench: TurningBench, tmp_path: Path) -> None:
    """From then on the new attempt is the answer, even without the option."""
    path = program(tmp_path, "p", "echo hi")
    bench.sandbox.gate.clear()
    pipe = subprocess.PIPE
    with subprocess.Popen(line_of(path), env=environment(bench), stdout=pipe, stderr=pipe) as running:
        bench.until(lambda: len(ran(bench)) == 1, lambda: None)
        (id_,) = ran(bench)
        with bench.turning:  # intake removes an empty cancel
            (bench.root / "incoming" / f"{id_}.cancel").write_text(id_)
        _, said = running.communicate()
    assert running.returncode == exits.CANCELLED, said
    bench.sandbox.gate.set()
    assert b"--again tries them once more" in batch(bench, path, code=exits.CANCELLED).stderr
    batch(bench, path, "--again")
    batch(bench, path)
    assert ran(bench) == [id_, f"{id_}.2"]


def test_an_id_that_another_user_has_taken_is_said(bench: Bench, tmp_path: Path) -> None:
    """Nobody can guess the id without the secret. With it they can only cause a refusal, not a wrong answer."""
    path = program(tmp_path, "p", "echo hi")
    data = json.dumps({"files": [{"name": "run.sh", "content": "echo hi"}]}, separators=(",", ":")).encode()
    (tmp_path / "r.json").write_bytes(data)
    id_ = stable.id_of(str(tmp_path / "r.json"), data, stable.secret())
    bench.drop(id_, "echo forged")
    bench.wait_for(id_)
    done = batch(bench, tmp_path / "r.json", code=exits.REFUSED)
    assert b"forged" not in done.stdout
    assert b"REJECTED" in done.stdout
    del path


def test_options_are_laid_over_each(bench: Bench, tmp_path: Path) -> None:
    for number in range(2):
        program(tmp_path, f"p{number}", 'cat; echo "$1 $WHO"')
    words = ["--stdin", "-", "--arg", "a", "--env", "WHO=me", "--json"]
    done = batch(bench, tmp_path / "programs", *words, data=b"typed ")
    assert [json.loads(line)["response"]["run"]["stdout"] for line in done.stdout.splitlines()] == ["typed a me\n"] * 2


def test_a_table_that_cannot_be_written_is_said_before_anything_is_run(bench: Bench, tmp_path: Path) -> None:
    path = program(tmp_path, "p", "echo hi")
    for place in (tmp_path, tmp_path / "missing" / "r.csv"):
        assert b"cannot be written" in batch(bench, path, "--table", place, code=exits.FAILED).stderr
    assert ran(bench) == []


def test_a_table_on_standard_output(bench: Bench, tmp_path: Path) -> None:
    done = batch(bench, program(tmp_path, "p", "echo hi"), "--table", "-")
    assert done.stdout.startswith(b"name,id,status,")
    assert b"1 program: 1 COMPLETED" in done.stderr


def test_time_that_is_not_enough_is_said(bench: Bench, tmp_path: Path) -> None:
    bench.sandbox.gate.clear()
    done = batch(bench, program(tmp_path, "p", "echo hi"), "--timeout", "0.2", "--json", code=exits.TIMED_OUT)
    assert b"0 of 1 are done" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == exits.TIMED_OUT


def test_a_bar_on_a_terminal_alone(bench: Bench, tmp_path: Path) -> None:
    path = program(tmp_path, "p", "echo hi")
    ours, theirs = pty.openpty()
    done = subprocess.run(line_of(path), env=environment(bench), stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.returncode == exits.OK
    assert b"[####" in said
    assert said.endswith(b"\r\x1b[K"), "the bar is removed"
    assert b"\x1b" not in batch(bench, path).stderr


# -- rows


def result(**keys: Any) -> Result:
    run = Phase(outcome="ok", exit_code=0, time=0.5, **keys)
    return Result("x", "x-1", Response(status="COMPLETED", run=run), b"")


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "=", "-", "1e5x"])
def test_no_cell_is_a_formula(cell: str) -> None:
    text, harmless = records.values(["a"], [[cell]])
    (_, (read,)) = csv.reader(io.StringIO(text, newline=""))
    assert read == (f"'{cell}" if cell[0] in "=+-@\t" else cell.replace("\r", "\\r"))
    assert harmless == (cell[0] in "=+-@\t")


@pytest.mark.parametrize("cell", ["-1", "+2.5", "-1.5e-7", "-.5", "- ", "x=1"])
def test_numbers_stay_numbers(cell: str) -> None:
    text, harmless = records.values(["a"], [[cell]])
    assert (text == f"a\n{cell}\n") is (harmless == 0)
    assert harmless == (cell == "- ")


def test_outputs_that_are_no_text_or_are_hostile(capfd: pytest.CaptureFixture[str]) -> None:
    row = dict(zip(records.COLUMNS, records.row(result(stdout="YQD/", stdout_encoding="base64")), strict=True))
    assert row["stdout"].startswith("(3 bytes that are not text")
    assert "\\x1b[31m" in records.row(result(stdout="\x1b[31m\n"))
    long = records.row(result(stdout="x" * 100_000))[records.COLUMNS.index("stdout")]
    assert len(long) < 32_767
    assert records.why(result(stdout="\n\x07hello\nmore")) == "\\x07hello"
