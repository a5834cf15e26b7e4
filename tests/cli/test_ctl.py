"""spoolctl as people and programs use it. The test steps the daemons."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import click.testing
import msgspec
import pytest

from spoold.actors.builder import Builder
from spoold.cli import exits, misnaming, reading, waiting
from spoold.cli.ctl import command as ctl_command
from spoold.cli.follow import Follower
from spoold.cli.render import package_table, parts, size
from spoold.cli.roles import command as daemon_command
from spoold.cli.tables import Table
from spoold.cli.text import printable
from spoold.client import names
from spoold.client.directory import Directory
from spoold.model import ids
from spoold.model.errors import OperatorError
from spoold.model.response import (
    CaseResult,
    Outcome,
    OutputsTar,
    Package,
    Phase,
    Response,
    ReturnedFile,
    Status,
    Stream,
    Verdict,
    of_dependencies,
)
from spoold.model.tails import phase_so_far
from tests.actors.bench import Bench
from tests.actors.test_formats import NEWER
from tests.standins import store_path
from tests.turning import TurningBench, ctl
from tests.waiting import until


@pytest.fixture
def program(tmp_path: Path) -> Path:
    directory = tmp_path / "my program"
    (directory / "sub").mkdir(parents=True)
    (directory / "run.sh").write_text('cat; cat sub/data; echo "$1$WHO"')
    (directory / "sub" / "data").write_bytes(b"\x00\xff\n")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("secret")
    (tmp_path / "in").write_bytes(b"\xfe\n")
    return directory


@pytest.mark.parametrize("words", [("--arg", "\udcff"), ("--env", "A=\udcff")], ids=["argument", "variable"])
def test_what_is_no_text_is_no_bug(bench: Bench, program: Path, words: tuple[str, ...]) -> None:
    assert "UTF-8" in ctl(bench, "submit", str(program), *words, code=exits.FAILED)


def test_a_file_whose_name_is_no_text_is_no_bug(bench: Bench, program: Path) -> None:
    (program / "\udcff").touch()
    assert "UTF-8" in ctl(bench, "submit", str(program), code=exits.FAILED)


def test_a_response_of_another_version_is_no_bug(bench: Bench) -> None:
    response = bench.root / "done" / "new.response.json"
    response.write_text('{"status": "COMPLETED", "novelty": 1}')
    assert "new: COMPLETED" in ctl(bench, "status", "new")
    response.write_text('{"status": "PAUSED"}')
    assert "upgrade" in ctl(bench, "status", "new", code=exits.FAILED)


def test_a_directory_becomes_a_submission(bench: Bench, program: Path, tmp_path: Path) -> None:
    words = ["--stdin", str(tmp_path / "in"), "--arg", "a", "--env", "WHO=me", "--wait", "--json"]
    response = json.loads(ctl(bench, "submit", str(program), *words))
    assert response["status"] == "COMPLETED"
    assert response["Submission_id"].startswith("my-program-")
    assert base64.b64decode(response["run"]["stdout"]) == b"\xfe\n\x00\xff\name\n"
    assert {file.name for file in bench.sandbox.jobs[0].files} == {"run.sh", "sub/data"}


def test_a_file_is_submitted_as_it_is_and_shown_to_a_person(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b'{"files": [{"name": "run.sh", "content": "echo hello; exit 3"}]}')
    shown = ctl(bench, "submit", str(tmp_path / "r.json"), "--id", "mine", "--wait", code=exits.NOT_COMPLETED)
    assert "mine: RUN_FAILED" in shown
    assert "nonzero_exit" in shown
    assert "hello" in shown
    assert "RUN_FAILED" in ctl(bench, "status", "mine")
    assert json.loads(ctl(bench, "status", "mine", "--json"))["run"]["exit_code"] == 3


def test_without_waiting_the_id_is_printed(bench: Bench, program: Path) -> None:
    id_ = ctl(bench, "submit", str(program)).split()[0]
    assert ids.submission_id(f"{id_}.json") == id_
    bench.until(lambda: bench.has("done", f"{id_}.response.json"), lambda: None)


def test_progress_is_status_too(bench: Bench, program: Path) -> None:
    bench.sandbox.gate.clear()
    id_ = ctl(bench, "submit", str(program)).split()[0]
    bench.until(lambda: bench.progress(id_) == "RUNNING", lambda: None)
    assert "RUNNING" in ctl(bench, "status", id_)


def test_a_submission_is_found_by_the_name_of_its_file(bench: Bench) -> None:
    request = json.dumps({"files": [{"name": "run.sh", "content": "true"}]})
    for name, id_ in (("hw.json", "hw"), ("ex3@abcdefgh.json", "ex3")):
        (bench.root / "incoming" / name).write_text(request)
        bench.until(lambda id_=id_: bench.has("done", f"{id_}.response.json"), lambda: None)  # type: ignore[misc] # mypy cannot infer it
        for asked in (name, name.removesuffix(".json"), id_):
            assert ctl(bench, "status", asked).startswith(f"{id_}: COMPLETED"), asked
    assert "nothing is known" in ctl(bench, "status", "ex4@abcdefgh", code=exits.FAILED)


def test_what_it_prints_is_followed(bench: Bench, program: Path, tmp_path: Path) -> None:
    """The program prints a second word after the first was shown, and ends after the second was."""
    script = "echo one; while [ ! -e {0}/1 ]; do sleep 0.02; done; echo two; while [ ! -e {0}/2 ]; do sleep 0.02; done"
    (program / "run.sh").write_text(script.format(tmp_path))
    command = [sys.executable, "-m", "spoold.cli.ctl", "submit", str(program), "--follow", "--json"]
    environment = os.environ | {"SPOOLD_SPOOL": str(bench.root), "SPOOLD_CONFIG": os.devnull}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as following:
        assert following.stderr
        assert following.stdout
        said = [following.stderr.readline() for _ in range(3)]
        assert (said[0], said[2]) == ("left out, because no program needs them: .git\n", "one\n")
        assert said[1].endswith(": submitted\n"), "the id is told before the wait"
        (tmp_path / "1").touch()
        assert following.stderr.readline() == "two\n"
        (tmp_path / "2").touch()
        assert json.loads(following.stdout.read())["run"]["stdout"] == "one\ntwo\n"
    assert following.returncode == exits.OK


def test_what_is_followed_is_said_once_and_what_is_missed_is_counted(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "incoming").mkdir()
    follower = Follower(Directory(str(tmp_path)), "a", said.append)
    side_file = tmp_path / "progress" / "a.json"
    side_file.parent.mkdir()

    def printed(data: bytes, total: int) -> str:
        phase = phase_so_far(stdout=Stream(data, total), stderr=Stream(b"", 0), time=1.0)
        side_file.write_bytes(msgspec.json.encode(Response(run=phase)))
        said.clear()
        follower.look()
        return "".join(said)

    follower.look()
    assert printed(b"ab\n", 3) == "ab\n"
    assert printed(b"ab\n", 3) == ""
    assert printed("ab\n€".encode()[:-1], 5) == ""
    assert printed("b\n€\x1b".encode(), 7) == "€\\x1b"
    assert printed(b"z", 100) == "\n... 92 bytes of run stdout ...\nz"
    assert printed(b"\xffz", 102) == "\\xffz"
    side_file.write_bytes(b"{")
    follower.look()


def test_a_wait_is_bounded_and_says_that_nothing_is_lost(bench: Bench, program: Path) -> None:
    bench.sandbox.gate.clear()
    said = ctl(bench, "submit", str(program), "--wait", "--timeout", "0.3", code=exits.TIMED_OUT)
    assert "Nothing is lost: `spoolctl wait my-program-" in said


def test_no_answer_is_taken_for_that_to_another_request(bench: Bench, program: Path) -> None:
    """The id was used before. This is tried with --wait and without, while the first one runs and after its end."""
    bench.sandbox.gate.clear()
    ctl(bench, "submit", str(program), "--id", "x")
    other = program.parent / "other.json"
    other.write_bytes(b'{"files": [{"name": "run.sh", "content": "echo other"}]}')
    for _ in range(2):
        refused = json.loads(ctl(bench, "submit", str(other), "--id", "x", "--wait", "--json", code=exits.REFUSED))
        assert (refused["status"], refused["request_sha256"]) == ("REJECTED", sha256(other.read_bytes()))
        assert "used already" in ctl(bench, "submit", str(other), "--id", "x", code=exits.REFUSED)
        bench.sandbox.gate.set()
        until(lambda: bench.has("done", "x.response.json"))
    again = ctl(bench, "submit", str(program), "--id", "x", "--wait")
    assert "COMPLETED" in again, "the same request is the same submission"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_that_nobody_takes_in_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("incoming", "done"):
        (tmp_path / name).mkdir()
    request = tmp_path / "request.json"
    request.write_text('{"files": [{"name": "run.sh", "content": ""}]}')
    monkeypatch.setattr(waiting, "SOON", 0.05)
    done = click.testing.CliRunner().invoke(
        ctl_command, ["--spool", str(tmp_path), "submit", str(request), "--id", "x"]
    )
    assert (done.exit_code, done.stdout) == (0, "x\n")
    assert "was not taken in yet: it is still arriving, intake does not run" in done.stderr


def test_a_submission_is_cancelled(bench: Bench, program: Path) -> None:
    bench.sandbox.gate.clear()
    id_ = ctl(bench, "submit", str(program)).split()[0]
    assert f"its cancel was requested. `spoolctl status {id_}` shows" in ctl(bench, "cancel", id_)
    assert json.loads(ctl(bench, "cancel", id_, "--wait", "--json"))["status"] == "CANCELLED"
    bench.sandbox.gate.set()
    done = ctl(bench, "submit", str(program), "--id", "b", "--wait")
    assert "COMPLETED" in done
    assert "COMPLETED" in ctl(bench, "cancel", "b", "--wait", code=exits.NOT_COMPLETED)
    assert json.loads(ctl(bench, "cancel", "b", "--json")) == {"Submission_id": "b"}
    assert "id" in ctl(bench, "cancel", "../x", code=exits.FAILED)
    ctl(bench, "cancel", "nobody", "--wait", "--timeout", "0.2", code=exits.TIMED_OUT)


def test_a_file_that_cancels_nothing_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "incoming" / "a.cancel"
    path.parent.mkdir()
    assert reading.idle_cancel(str(tmp_path), "a") == ""
    path.touch()
    assert f"{path} is empty, so it cancels nothing" in reading.idle_cancel(str(tmp_path), "a")
    path.write_text("a\n")
    assert reading.idle_cancel(str(tmp_path), "a") == ""


def test_status_tells_of_it(tmp_path: Path) -> None:
    """Nobody works in this spool. Intake would remove the cancel after a while."""
    for name in ("incoming", "done", "progress"):
        (tmp_path / name).mkdir()
    (tmp_path / "progress" / "a.json").write_bytes(msgspec.json.encode(Response(Submission_id="a")))
    (tmp_path / "incoming" / "a.cancel").touch()
    command = [sys.executable, "-m", "spoold.cli.ctl", "--spool", str(tmp_path), "status", "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pending" in done.stdout
    assert "is empty, so it cancels nothing" in done.stderr


def test_a_finished_submission_runs_once_more(bench: Bench, program: Path) -> None:
    ctl(bench, "submit", str(program), "--id", "a", "--wait")
    assert json.loads(ctl(bench, "requeue", "a", "--json")) == {"Submission_id": "a"}
    bench.until(lambda: len(bench.sandbox.jobs) == 2, lambda: None)
    bench.until(lambda: bench.has("done", "a.response.json"), lambda: None)
    assert "COMPLETED" in ctl(bench, "status", "a")
    assert "no such submission" in ctl(bench, "requeue", "nobody", code=exits.FAILED)
    assert "cannot be an id" in ctl(bench, "requeue", "../a", code=exits.FAILED)


def make_newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": NEWER, "later": {}}))


def test_what_a_newer_version_wrote_is_named_and_left(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()
    for path in (bench.root / "builds" / "done").glob("*.response.json"):
        make_newer(path)
    assert "not listed: 1 builds of a newer version of spoold" in ctl(bench, "deps", "--local")
    make_newer(bench.root / "done" / "a.json")
    assert "a newer version of spoold" in ctl(bench, "requeue", "a", code=exits.FAILED)
    make_newer(bench.root / "builds" / "runtime.json")
    said = ctl(bench, "nixpkgs", "list", code=exits.FAILED)
    assert "a newer version of spoold" in said
    assert "upgrade this version" in said
    shown = ctl(bench, "check", width="300")
    assert shown.count(f"of a newer version of spoold (format {NEWER})") == 2
    assert "0 to repair" in shown
    assert "0 to repair" in ctl(bench, "check", "--repair")


def test_a_spool_is_checked_and_repaired(bench: Bench) -> None:
    assert "0 files" in ctl(bench, "check")
    assert json.loads(ctl(bench, "check", "--json")) == {"unexplained": []}
    (bench.root / "done" / os.fsdecode(b"x\x1b[2J\xff")).touch()
    (bench.root / "lost+found").touch()
    shown = ctl(bench, "check", code=exits.FAILED)
    assert "\x1b[2J" not in shown
    assert "1 to repair" in shown
    found = json.loads(ctl(bench, "check", "--repair", "--json"))["unexplained"]
    assert [(each["action"], each["repaired"]) for each in found] == [("leave", False), ("move to quarantine/", True)]
    assert "0 to repair" in ctl(bench, "check")
    assert len(bench.names("quarantine")) == 2


def test_packages_go_through_the_spool(bench: Bench, program: Path) -> None:
    ctl(bench, "submit", str(program), "--wait", code=exits.OK)
    assert "hello" in ctl(bench, "deps")
    assert json.loads(ctl(bench, "deps", "--json"))["packages"][0]["name"] == "hello"


def test_packages_are_read_locally_without_an_executor(bench: Bench, program: Path) -> None:
    assert "no packages" in ctl(bench, "deps", "--local")
    ctl(bench, "submit", str(program), "--wait")
    assert json.loads(ctl(bench, "deps", "--local", "--json"))["packages"][0]["name"] == "hello"


def test_a_table_of_packages_fits_a_narrow_terminal() -> None:
    """Names and versions are whole, even long ones. Output that doesn't go to a terminal is not cut at all."""
    path = f"/nix/store/{'a' * 32}-python3.11-scikit-learn-1.5.2"
    package = Package(name="python3.11-scikit-learn", version="1.5.2-unstable-2024", path=path, closure_size=1 << 30)
    table = package_table([package], 0.0)
    narrow = table.lines(100)
    assert all(len(line) <= 100 for line in narrow)
    for lines in (narrow, table.lines(40), table.lines()):
        assert len(lines) == 2
        assert "python3.11-scikit-learn  1.5.2-unstable-2024" in lines[1]
    assert narrow[1].endswith("…")
    assert table.lines()[1].endswith("-1.5.2")


def test_the_cache_is_collected_by_hand(bench: Bench, program: Path) -> None:
    ctl(bench, "submit", str(program), "--wait")
    for user in bench.names("builds/used"):
        os.utime(bench.root / "builds" / "used" / user, (1, 1))
    assert "1 builds" in ctl(bench, "gc", "--dry-run")
    assert len(bench.builds.finished()) == 1
    report = json.loads(ctl(bench, "gc", "--json"))
    assert (report["deleted"][0]["why"], report["freed"], report["dry_run"]) == ("age", 10, False)
    assert bench.builds.finished() == []
    assert bench.names("builds/collect") == set()


def test_pins_are_added_listed_and_removed(bench: Bench, program: Path) -> None:
    ctl(bench, "nixpkgs", "add", "24.11", "/srv/nixpkgs-24.11")
    assert "nixpkgs-24.11" in ctl(bench, "nixpkgs", "list", width="200")
    listed = json.loads(ctl(bench, "nixpkgs", "list", "--json"))["pins"]
    added = {"name": "24.11", "location": "/srv/nixpkgs-24.11", "from": "added", "path": store_path("nixpkgs-24.11")}
    assert added in listed
    bench.drop("a", nixpkgs="24.11")
    bench.until(lambda: bench.has("done", "a.response.json"), lambda: None)
    assert (bench.response("a")["status"], bench.backend.pins) == ("COMPLETED", {"24.11"})
    ctl(bench, "nixpkgs", "remove", "24.11")
    bench.until(lambda: "24.11" not in ctl(bench, "nixpkgs", "list"), lambda: None)
    bench.drop("b", nixpkgs="24.11")
    bench.until(lambda: bench.has("done", "b.response.json"), lambda: None)
    assert (bench.response("b")["status"], "24.11" in bench.response("b")["reason"]) == ("REJECTED", True)


def test_a_pin_that_cannot_be_provided_is_not_added(bench: Bench, program: Path) -> None:
    assert "not a nixpkgs" in ctl(bench, "nixpkgs", "add", "x", "/srv/bad", code=exits.FAILED)
    assert "bad" not in ctl(bench, "nixpkgs", "list")
    ctl(bench, "submit", str(program), "--wait")


def test_pins_that_are_added_at_once_are_all_there(bench: Bench) -> None:
    names = [f"pin-{number}" for number in range(3)]
    with ThreadPoolExecutor(len(names)) as pool:
        for _ in pool.map(lambda name: ctl(bench, "nixpkgs", "add", name, f"/srv/{name}"), names):
            pass
    assert bench.builds.pins.added() == {name: f"/srv/{name}" for name in names}


def test_a_pin_that_is_added_while_no_builder_runs_is_answered_when_one_starts(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "spool")
    with ThreadPoolExecutor(1) as pool:
        for location, code in (("/srv/bad", exits.FAILED), ("/srv/nixpkgs", exits.OK)):
            adding = pool.submit(ctl, bench, "nixpkgs", "add", "late", location, code=code)
            bench.until(bench.builds.pins.added, lambda: None)
            another = Builder(bench.settings, bench.backend)
            with contextlib.suppress(OperatorError):
                another.start()
            adding.result()
    assert bench.builds.pins.added() == {"late": "/srv/nixpkgs"}
    another.stop()
    bench.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "a b", "/x"], exits.USAGE, "letters"),
        (["add", "x", "relative"], exits.USAGE, "absolute"),
        (["add", "x", "--help"], exits.OK, "LOCATION"),
        (["remove", "nobody"], exits.FAILED, "no added pin"),
    ],
)
def test_errors_of_pins_say_what_to_do(bench: Bench, words: list[str], code: int, said: str) -> None:
    assert said in ctl(bench, "nixpkgs", *words, code=code)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status", "nobody"], exits.FAILED, "nothing is known"),
        (["submit", "/nonexistent"], exits.USAGE, "does not exist"),
        (["frobnicate"], exits.USAGE, "No such command"),
        (["--spool", "/nonexistent", "deps"], exits.FAILED, "--spool"),
        (["--config", "/nonexistent", "config"], exits.FAILED, "--config"),
    ],
)
def test_errors_say_what_to_do(bench: Bench, words: list[str], code: int, said: str) -> None:
    assert said in ctl(bench, *words, code=code)


def put(bench: Bench, name: str) -> Path:
    path = bench.root / "incoming" / name
    path.write_text("{}")
    bench.until(lambda: not path.exists(), lambda: None)
    return path


@pytest.mark.parametrize(
    "name", ["hw (1).json", "übung.json", "homework.zip", "job.response.json", "a\x1b[2J\n.json", "-x.json"]
)
def test_a_file_whose_name_is_refused_is_found_by_it(bench: Bench, name: str) -> None:
    put(bench, name)
    for asked in {name, name.removesuffix(".json")}:
        assert json.loads(ctl(bench, "status", asked, "--json"))["status"] == "REJECTED"
        shown = ctl(bench, "status", asked)
        assert "is not a name for a submission" in shown
        assert "\x1b" not in shown
    assert "nothing is known" in ctl(bench, "status", "other (1)", code=exits.FAILED)
    called = json.loads(ctl(bench, "status", name, "--json"))["Submission_id"]
    for asked in (called, f"{called}.refused.json"):
        assert json.loads(ctl(bench, "status", asked, "--json"))["Submission_id"] == called
    assert "nothing is known" in ctl(bench, "status", "../../etc/passwd", code=exits.FAILED)


def test_a_byte_that_is_no_text_is_found_as_well(bench: Bench) -> None:
    put(bench, "\udcff \udcfe.json")
    assert json.loads(ctl(bench, "status", "\udcff \udcfe", "--json"))["Submission_id"] == "%FF%20%FE"
    assert ctl(bench, "status", "\udcff \udcfe.json").startswith(r"\xff \xfe.json: REJECTED")
    assert r"\xff" in ctl(bench, "status", "\udcff", code=exits.FAILED)


def test_what_has_the_id_comes_before_a_name_that_was_refused(bench: Bench, program: Path) -> None:
    put(bench, "hw")
    assert json.loads(ctl(bench, "status", "hw", "--json"))["status"] == "REJECTED"
    ctl(bench, "submit", str(program), "--id=hw", "--wait")
    assert json.loads(ctl(bench, "status", "hw", "--json"))["status"] == "COMPLETED"


def test_a_name_that_was_refused_is_not_shown_for_a_submission_on_its_way(bench: TurningBench) -> None:
    put(bench, "hw")
    path = bench.root / "done" / "hw.refused.json"
    assert reading.look(Directory(str(bench.root)), "hw") == msgspec.json.decode(path.read_bytes(), type=Response)
    with bench.turning:  # so that intake doesn't give it up meanwhile
        (bench.root / "incoming" / "hw.json").write_text('{"files": [')
        assert reading.look(Directory(str(bench.root)), "hw") is None
        assert "was not taken in yet" in misnaming.why_unknown(str(bench.root), "hw")


def test_a_name_that_is_refused_soon_is_told_of(tmp_path: Path) -> None:
    for name in ("incoming", "done", "progress"):
        (tmp_path / name).mkdir()
    (tmp_path / "incoming" / "hw (1).json").touch()
    assert "is refused once it no longer changes" in misnaming.why_unknown(str(tmp_path), "hw (1)")
    (tmp_path / "done" / "x%20y.refused.json").touch()
    assert "x%20y@<uid>-<the first 8 digits" in misnaming.why_unknown(str(tmp_path), "x y")


@pytest.mark.parametrize("name", [".hw.json", "hw.json.part", "hw~", "hw.tmp"])
def test_an_upload_in_progress_is_told_of_as_such(tmp_path: Path, name: str) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / name).touch()
    assert "upload in progress" in misnaming.why_unknown(str(tmp_path), name)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_directory_of_the_spool_is_no_file_in_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "incoming").mkdir()
    assert "nothing is known" in misnaming.why_unknown(str(tmp_path), name)


@pytest.mark.parametrize(
    "name", ["hw (1).json", "übung.json", "HW.JSON", "-x.json", "job.response.json", f"{'x' * 140}.json"]
)
def test_a_file_of_any_name_is_submitted_under_a_proper_id(bench: Bench, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text('{"files": [{"name": "run.sh", "content": "echo hi"}]}')
    id_ = ctl(bench, "submit", str(file)).strip()
    assert ids.is_id(id_)
    assert id_ in ctl(bench, "submit", str(file), f"--id={id_}", "--wait", "--json")
    assert re.match(re.escape(names.proper(name.removesuffix(".json"))[:80]), id_)


def test_a_name_that_is_no_text_is_told_before_it_is_sent(bench: Bench, program: Path) -> None:
    (program / "caf\udce9").write_text("")
    assert r"caf\xe9: its name is not UTF-8" in ctl(bench, "submit", str(program), code=exits.FAILED)
    assert bench.names("incoming") == set()


def test_a_directory_without_run_sh_is_refused_before_it_is_sent(bench: Bench, tmp_path: Path) -> None:
    assert "run.sh" in ctl(bench, "submit", str(tmp_path / "spool" / "tmp"), code=exits.FAILED)


@pytest.mark.parametrize("id_", ["../x", "a b", "x.response", "-x"])
def test_a_bad_id_is_refused_before_it_is_sent(bench: Bench, program: Path, id_: str) -> None:

    assert "id" in ctl(bench, "submit", str(program), f"--id={id_}", code=exits.FAILED)
    assert bench.names("incoming") == set()


def test_the_settings_in_force_are_toml(bench: Bench) -> None:
    shown = ctl(bench, "config")
    assert "[lease]" in shown
    assert str(bench.root) in shown


def test_making_a_spool_twice_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    fresh = str(tmp_path / "fresh")
    assert "incoming" in ctl(bench, "--spool", fresh, "init")
    assert oct(os.stat(f"{fresh}/incoming").st_mode & 0o7777) == "0o1733"
    assert oct(os.stat(f"{fresh}/done").st_mode & 0o7777) == "0o711"
    assert "nothing to do" in ctl(bench, "--spool", fresh, "init")


def test_nothing_a_job_wrote_reaches_the_terminal_raw(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(
        json.dumps({"files": [{"name": "run.sh", "content": r"printf '\033[2Jx\r\007y [red]z\n'"}]}).encode()
    )
    shown = ctl(bench, "submit", str(tmp_path / "r.json"), "--wait")
    assert "\x1b[2J" not in shown
    assert "\\x1b[2Jx\\r\\x07y [red]z" in shown


def test_printable_keeps_text_and_escapes_control() -> None:
    assert printable("Ünï\n\t\x1b\u202e") == "Ünï\\n\\t\\x1b\\u202e"
    assert printable("a\nb", lines=True) == "a\nb"


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


def commands(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(words), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *words, name)


ALL = dict([*commands(ctl_command, "spoolctl"), *commands(daemon_command, "spoold")])


@pytest.mark.parametrize("words", ALL)
def test_help_teaches(words: str) -> None:
    """Each page has an example that one can type, and the exit codes. Each option is explained."""
    command = ALL[words]
    shown = click.testing.CliRunner().invoke(command, ["--help"], prog_name=words).output
    assert f"Usage: {words}" in shown
    examples = shown.partition("Examples:\n")[2].partition("\n\n")[0]
    assert any(
        re.match(rf"(sudo )?{words.partition(' ')[0]} (--\w\S* \S+ )*{words.partition(' ')[2]}", line.strip())
        for line in examples.splitlines()
    ), shown
    assert "Exit codes: 0" in shown
    assert "..." not in shown.partition("Commands:")[2], "each command's summary is whole"
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("words", [words for words in ALL if words.startswith("spoolctl ")])
def test_what_people_read_programs_can_read_too(words: str) -> None:
    options = {option for parameter in ALL[words].params for option in parameter.opts}
    assert "--json" in options or getattr(ALL[words], "commands", {})


def test_what_changes_something_says_so_in_json(bench: Bench, tmp_path: Path) -> None:
    fresh = str(tmp_path / "fresh")
    made = json.loads(ctl(bench, "--spool", fresh, "init", "--json"))
    assert f"{fresh}/incoming" in made["changed"]
    assert json.loads(ctl(bench, "--spool", fresh, "init", "--json")) == {"spool": fresh, "changed": []}
    assert json.loads(ctl(bench, "config", "--json"))["spool"]["path"] == str(bench.root)
    added = json.loads(ctl(bench, "nixpkgs", "add", "x", "/srv/x", "--json"))
    assert added == {"name": "x", "location": "/srv/x"}
    assert json.loads(ctl(bench, "nixpkgs", "remove", "x", "--json")) == {"name": "x"}


def test_a_settings_file_is_rewritten_in_place(tmp_path: Path) -> None:
    file, link = tmp_path / "spoold.toml", tmp_path / "link.toml"
    file.write_text('[docker]\nmode = "recycled"\n')
    file.chmod(0o640)
    link.symlink_to(file)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(link), "config", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = run()
    assert "docker.mode is sandbox.mode" in shown.stderr
    assert msgspec.toml.decode(shown.stdout)["sandbox"]["mode"] == "recycled"
    assert run("--migrate").stdout == f"{link}: docker.mode is sandbox.mode now\n"
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o640)
    assert file.read_text() == '[docker]\n\n[sandbox]\nmode = "recycled"\n'
    assert json.loads(run("--migrate", "--json").stdout) == {"file": str(link), "renamed": []}
    assert run().stderr == ""
    file.write_text('docker = { mode = "recycled" }\n')
    refused = run("--migrate")
    assert (refused.returncode, file.read_text()) == (exits.FAILED, 'docker = { mode = "recycled" }\n')
    assert "move docker.mode to sandbox.mode by hand" in refused.stderr


def test_dependencies_that_were_there_already_are_shown_so() -> None:
    built = Phase(time=4.25, cpu_time=1.0, memory=1 << 20, outcome=Outcome.OK)
    for cached, time_shown in ((True, "cached"), (False, "4.250 s")):
        phase = of_dependencies(built, cached=cached)
        (table,) = (each for each in parts("a", Response(dependencies=phase), cut=True) if isinstance(each, Table))
        assert time_shown in table.lines()[1]


def test_the_talk_of_a_case_that_failed_is_shown_and_does_nothing() -> None:
    talk = ">5\x1b[31m\n<lower\n" + ">6\n" * 100
    well = CaseResult(
        name="one", verdict=Verdict.ACCEPTED, points=1, run=Phase(outcome=Outcome.OK), interaction="<no\n"
    )
    case = msgspec.structs.replace(well, name="two", verdict=Verdict.WRONG_ANSWER, interaction=talk)
    shown = [str(part) for part in parts("a", Response(status=Status.COMPLETED, cases=[well, case]), cut=True)]
    at = shown.index("case two talk:")
    assert shown[at + 1 : at + 3] == [">5\\x1b[31m", "<lower"]
    assert [line for line in shown if line.endswith("more lines: see --json")]
    assert "<no" not in shown


def test_files_of_cases_are_shown_with_the_case() -> None:
    file = ReturnedFile(name="out/a\x1b[31m", size=2048, sha256="0" * 64, mode="0644")
    case = CaseResult(name="one\x1b[31m", verdict=Verdict.ACCEPTED, points=1, run=Phase(outcome=Outcome.OK))
    with_files = msgspec.structs.replace(case, outputs=[file], outputs_missing=["b", "c"])
    beside = OutputsTar(name="a.outputs.tar", size=1, sha256="0" * 64)
    response = Response(status=Status.COMPLETED, cases=[case, with_files], outputs_tar=beside)
    told = list(parts("a", response, cut=False))
    shown = "\n".join(line for part in told for line in (part.lines() if isinstance(part, Table) else [str(part)]))
    assert "\x1b" not in shown
    for words in (": file", "2.0 KiB", "required, but not returned: b, c", "all files: a.outputs.tar"):
        assert shown.count(words) == 1, shown
