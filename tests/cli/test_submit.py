"""``spoolctl submit`` loses nothing, says what it does, and has options for everything in a request."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing
import pytest

from spoold.cli import asked, exits, waiting
from spoold.cli.ctl import command
from spoold.client.response import Case, Fetching, Response, WaitingFor
from spoold.model.dropped import read_request
from spoold.model.submission import Request
from tests.actors.bench import Bench
from tests.patient import PATIENT

SCRIPT = '{"files": [{"name": "run.sh", "content": "true"}]}'


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Return a spool in which nobody works."""
    for name in ("incoming", "done", "progress"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    return tmp_path / "spool"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    root = tmp_path / "program"
    root.mkdir()
    (root / "run.sh").write_text("true")
    return root


def environment(spool: Path) -> dict[str, str]:
    return os.environ | {"SPOOLD_SPOOL": str(spool), "SPOOLD_CONFIG": os.devnull}


def ctl(spool: Path, *words: str, code: int = exits.OK, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([*PATIENT, *words], env=environment(spool), input=data, capture_output=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    return done


def asked_for(source: Path, *words: str, data: str | None = None, code: int = exits.OK) -> Any:
    """Return the request that would be submitted, or the error."""
    done = click.testing.CliRunner().invoke(
        command, ["--config", os.devnull, "submit", str(source), "--dry-run", *words], input=data
    )
    if code == exits.OK:
        assert done.exception is None, done.output
        read_request(done.stdout.encode(), max_files=100, pins=frozenset({"default", "24.11"}))
        return json.loads(done.stdout)
    assert done.exit_code == code or done.exception
    return f"{done.output}{done.exception}"


OPTIONS = [
    *("--stdin", "-", "--arg", "a", "--arg", "b", "--env", "A=b=c", "--env", "B="),
    *("--limit", "run.time=2", "--limit", "memory=64M", "--limit", "compile.cpu_time=500ms", "--limit", "stack=1GiB"),
    *("--limit", "run.processes=3", "--limit", "run.on_output_limit=end", "--limit", "dependencies.time=2min"),
    *("--nixpkgs", "24.11", "--priority", "-3", "--output", "plot*.png", "--output", "out/**", "--progress"),
    *("--packages", "python3 jq", "--packages", "python3Packages.numpy"),
]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_all_of_a_request_can_be_said_by_options(program: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "r.json"
    file.write_text(SCRIPT)
    request = asked_for(program if kind == "directory" else file, *OPTIONS, data="typed")
    assert (request["inputs"], request["args"], request["env"]) == ("typed", ["a", "b"], {"A": "b=c", "B": ""})
    assert request["limits"] == {
        "run": {"time": 2, "memory": 64 << 20, "stack": 1 << 30, "processes": 3, "on_output_limit": "end"},
        "compile": {"cpu_time": 0.5},
        "dependencies": {"time": 120},
    }
    assert (request["nixpkgs"], request["priority"], request["progress"]) == ("24.11", -3, True)
    assert request["outputs"] == [{"path": "plot*.png"}, {"path": "out/**"}]
    (shell,) = (each["content"] for each in request["files"] if each["name"] == "cutor.nix")
    assert "[ pkgs.python3 pkgs.jq pkgs.python3Packages.numpy ]" in shell


def test_every_key_that_a_person_may_say_has_an_option(program: Path) -> None:
    """Cases, checkers and interactors take whole files, so a request FILE has them."""
    said = set(asked_for(program, *OPTIONS, data="")) | {"inputs", "inputs_encoding"}
    assert set(Request.__struct_fields__) - said == {
        "kind",
        "cases",
        "compare",
        "stop_on_failure",
        "checker",
        "interactor",
    }


def test_options_are_laid_over_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    keys: dict[str, Any] = {
        "env": {"A": "1", "B": "1"},
        "args": ["x"],
        "limits": {"run": {"time": 1, "memory": 1 << 20}},
    }
    file.write_text(json.dumps(json.loads(SCRIPT) | keys | {"outputs": [{"path": "a"}], "inputs": None}))
    request = asked_for(file, "--env", "B=2", "--arg", "y", "--limit", "time=5", "--output", "b")
    assert (request["env"], request["args"]) == ({"A": "1", "B": "2"}, ["y"])
    assert request["limits"] == {"run": {"time": 5, "memory": 1 << 20}}
    assert [each["path"] for each in request["outputs"]] == ["a", "b"]


def test_a_request_from_standard_input(program: Path) -> None:
    assert asked_for(Path("-"), "--arg", "a", data=SCRIPT)["args"] == ["a"]
    assert "both come from standard input" in asked_for(Path("-"), "--stdin", "-", data=SCRIPT, code=exits.USAGE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "run.time"], "[PHASE.]KEY=VALUE"),
        (["--limit", "walk.time=2"], "PHASE is one of run, compile"),
        (["--limit", "tme=2"], "KEY is one of time"),
        (["--limit", "memory=2x"], "memory is a number of bytes, or ends in K, M or G"),
        (["--limit", "processes=2.5"], "processes is a whole number"),
        (["--limit", "time=nan"], "time is a number of seconds, or ends in s, ms or min"),
        (["--limit", "on_output_limit=stop"], "on_output_limit is one of "),
        (["--env", "A"], "NAME=VALUE"),
        (["--stdin", "/nonexistent"], "No such file"),
    ],
)
def test_options_that_are_wrong_say_what_is_right(program: Path, words: list[str], said: str) -> None:
    assert said in asked_for(program, *words, code=exits.USAGE)


def test_packages_are_not_named_twice(program: Path) -> None:
    (program / "cutor.nix").write_text("{ }: x")
    assert "has a cutor.nix, which already names packages" in asked_for(program, "--packages", "jq", code=exits.FAILED)
    (program / "cutor.nix").unlink()
    assert "is no package" in asked_for(program, "--packages", "a;b", code=exits.FAILED)


def test_what_the_daemon_would_refuse_is_not_sent(empty: Path, tmp_path: Path) -> None:
    """The client refuses it at once, with the daemon's message and its own exit code.

    This holds for JSON output too.
    """
    file = tmp_path / "r.json"
    for text, said in (
        ("{", "it is no JSON: line 1, column 2: the JSON ends there"),
        ('{"files": [], "stdin": "x"}', "inputs"),
        ('{"files": []}', "there is no run.sh"),
        ('{"files": [{"name": "run.sh", "content": "!", "encoding": "base64"}]}', "files[0].content ('run.sh')"),
    ):
        file.write_text(text)
        done = ctl(empty, "submit", str(file), "--json", code=exits.REFUSED)
        assert said in done.stderr.decode()
        told = json.loads(done.stdout)
        assert (said in told["error"], told["exit_code"]) == (True, exits.REFUSED)
    other = tmp_path / "hello.py"
    other.write_text("print('hello')")
    refused = ctl(empty, "submit", str(other), code=exits.REFUSED).stderr
    assert b"`spoolctl run FILE` runs a program. Put a program of several files into a directory" in refused
    assert os.listdir(empty / "incoming") == []


def test_what_cannot_travel_is_refused_by_name_or_left_out(empty: Path, program: Path) -> None:
    (program / "out").symlink_to("/etc/passwd")
    os.mkfifo(program / "pipe")
    (program / ".git").mkdir()
    refused = ctl(empty, "submit", str(program), code=exits.FAILED).stderr.decode()
    assert "left out, because no program needs them: .git" in refused
    assert "out: is a link out of the directory, to /etc/passwd" in refused
    assert "pipe: is no file" in refused
    assert "--leave-out" in refused
    assert os.listdir(empty / "incoming") == []
    done = ctl(empty, "submit", str(program), "--leave-out", "--dry-run")
    assert b"pipe: is no file: a socket, pipe or device cannot be submitted; left out" in done.stderr
    assert [each["name"] for each in json.loads(done.stdout)["files"]] == ["run.sh"]


def test_an_interrupted_wait_says_how_to_wait_again(bench: Bench, program: Path) -> None:
    """The id is told before the wait. Nothing is lost, and no traceback is shown."""
    bench.sandbox.gate.clear()
    line = [sys.executable, "-m", "spoold.cli.ctl", "submit", str(program), "--wait", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=environment(bench.root), stdout=pipe, stderr=pipe, text=True) as waits:
        assert waits.stderr
        assert waits.stdout
        match = re.fullmatch(r"(program-[0-9a-f]{12}): submitted\n", waits.stderr.readline())
        assert match
        bench.until(lambda: bench.progress(match[1]) == "RUNNING", lambda: None)
        waits.send_signal(signal.SIGINT)
        said = waits.stderr.read()
        assert waits.stdout.read() == ""
    assert (waits.returncode, "Traceback" in said) == (exits.INTERRUPTED, False)
    assert f"`spoolctl wait {match[1]}` waits again" in said
    bench.sandbox.gate.set()
    done = ctl(bench.root, "wait", match[1], "--json")
    assert json.loads(done.stdout)["status"] == "COMPLETED"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("word", ["submit", "run"])
def test_the_record_survives_the_end_of_a_terminal(empty: Path, program: Path, word: str, number: int) -> None:
    """A lost connection ends the command that waits; `list` still has the id, for `wait`."""
    words = ["submit", str(program), "--wait"] if word == "submit" else ["run", str(program / "run.sh")]
    line = [sys.executable, "-m", "spoold.cli.ctl", *words]
    with subprocess.Popen(line, env=environment(empty), stdin=-3, stdout=-3, stderr=-1, text=True) as waits:
        assert waits.stderr
        until = "was not taken in yet"
        assert any(until in said for said in iter(waits.stderr.readline, ""))
        waits.send_signal(number)
    (dropped,) = (empty / "incoming").glob("*.json")
    listed = json.loads(ctl(empty, "list", "--json").stdout)["submissions"]
    assert [each["Submission_id"] for each in listed] == [dropped.name.removesuffix(".json")]


def test_that_nothing_takes_it_in_is_said_while_it_is_waited_for(empty: Path, program: Path) -> None:
    line = [sys.executable, "-m", "spoold.cli.ctl", "submit", str(program), "--wait"]
    with subprocess.Popen(line, env=environment(empty), stderr=subprocess.PIPE, text=True) as waits:
        assert waits.stderr
        waits.stderr.readline()
        said = waits.stderr.readline()
        waits.send_signal(signal.SIGINT)
        assert "`spoolctl wait program-" in waits.stderr.read()
    assert "was not taken in yet: it is still arriving, intake does not run" in said
    assert "Look at `spoolctl top`" in said


def test_how_far_it_is_is_said_meanwhile(bench: Bench, program: Path) -> None:
    bench.sandbox.gate.clear()
    line = [sys.executable, "-m", "spoold.cli.ctl", "submit", str(program), "--wait"]
    with subprocess.Popen(line, env=environment(bench.root), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waits:
        assert waits.stderr
        id_ = waits.stderr.readline().decode().partition(":")[0]
        assert f"{id_}: running\n".encode() in iter(waits.stderr.readline, b"")
        bench.sandbox.gate.set()
        assert waits.communicate()[0].startswith(f"{id_}: COMPLETED".encode())
    assert waits.returncode == exits.OK


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (Response(), "queued"),
        (
            Response(waiting_for=WaitingFor("ab" * 32, "building")),
            "its dependencies are being built (build abababababab)",
        ),
        (Response(waiting_for=WaitingFor("ab" * 32, "queued")), "its dependencies wait to be built"),
        (
            Response(waiting_for=WaitingFor("ab" * 32, "building", Fetching(3, 14, 1, 2))),
            "are being built (build abababababab), 3 of 14 store paths have been fetched",
        ),
        (Response(status="COMPILING"), "compiling"),
        (Response(status="RUNNING", cases=[]), "running: 0 cases have ended"),
        (Response(status="RUNNING", cases=[Case("1", "accepted")]), "running: 1 case has ended"),
        (Response(status="TIRED\x1b"), "tired\\x1b"),
    ],
)
def test_words_for_how_far_it_is(response: Response, said: str) -> None:
    assert said in waiting.how_far(response)


def test_exit_codes_tell_apart_whose_fault_it_is(bench: Bench, program: Path, tmp_path: Path) -> None:
    (program / "run.sh").write_text("exit 1")
    ctl(bench.root, "submit", str(program), "--wait", code=exits.NOT_COMPLETED)
    response = bench.root / "done" / "x.response.json"
    for status, code in (
        ("COMPLETED", exits.OK),
        ("COMPILE_FAILED", exits.NOT_COMPLETED),
        ("DEPENDENCIES_FAILED", exits.NOT_COMPLETED),
        ("REJECTED", exits.REFUSED),
        ("INTERNAL_ERROR", exits.SERVICE),
        ("CANCELLED", exits.CANCELLED),
    ):
        response.write_text(json.dumps({"Submission_id": "x", "status": status}))
        assert exits.of(status, "COMPLETED") == code
        if code in (exits.SERVICE, exits.CANCELLED):
            ctl(bench.root, "wait", "x", "--json", code=code)
    codes = {exits.OK, exits.FAILED, exits.USAGE, exits.BUG, exits.TIMED_OUT, exits.NOT_COMPLETED, exits.REFUSED}
    assert len(codes | {exits.SERVICE, exits.CANCELLED, exits.INTERRUPTED}) == 10
    away = ["--spool", "ssh://host.invalid/spool", "status", "x", "--json"]
    assert json.loads(ctl(bench.root, *away, code=exits.SERVICE).stdout)["exit_code"] == exits.SERVICE
    assert json.loads(ctl(bench.root, "status", "nobody", "--json", code=exits.FAILED).stdout)["exit_code"] == 1
    assert json.loads(ctl(bench.root, "submit", "--json", code=exits.USAGE).stdout)["exit_code"] == exits.USAGE


def test_a_directory_without_a_script_is_told_what_to_do(empty: Path, program: Path) -> None:
    (program / "run.sh").rename(program / "main.py")
    said = ctl(empty, "submit", str(program), code=exits.FAILED).stderr
    assert b"there is no run.sh in it, which is what is run. Write one that starts the program. `spoolctl run" in said


def test_a_response_of_a_newer_version_says_to_upgrade(empty: Path) -> None:
    (empty / "done" / "x.response.json").write_text('{"Submission_id": "x", "status": "NEW"}')
    for word in ("status", "wait"):
        said = ctl(empty, word, "x", code=exits.FAILED).stderr
        assert b"If a newer version of spoold wrote it, upgrade this one" in said


def test_a_bug_has_a_code_of_its_own(empty: Path) -> None:
    broken = "from spoold.cli import ctl, listing; listing.listed.callback = lambda **_: 1 // 0; ctl.main()"
    words = [sys.executable, "-c", broken, "list", "--json"]
    done = subprocess.run(words, env=environment(empty), capture_output=True, check=False)
    assert done.returncode == exits.BUG, done.stderr
    assert b"Traceback" in done.stderr
    told = json.loads(done.stdout)
    assert ("ZeroDivisionError" in told["error"], told["exit_code"]) == (True, exits.BUG)


@pytest.mark.parametrize("words", [["wait", "x"], ["submit", "-"], ["run", "x.py"], ["batch", "-"], ["grade", "x.py"]])
@pytest.mark.parametrize("time", ["nan", "-1"])
def test_a_time_to_wait_that_is_none_is_refused(empty: Path, words: list[str], time: str) -> None:
    (empty / "x.py").touch()
    words = [str(empty / word) if word == "x.py" else word for word in words]
    refused = ctl(empty, *words, "--timeout", time, code=exits.USAGE).stderr
    assert f"{time} is no time: write a number of seconds, 0 or more".encode() in refused


def test_several_are_waited_for(bench: Bench, program: Path) -> None:
    bench.sandbox.gate.clear()
    ids = [ctl(bench.root, "submit", str(program)).stdout.decode().strip() for _ in range(2)]
    done = ctl(bench.root, "wait", *ids, "--timeout", "0.1", code=exits.TIMED_OUT)
    assert f"`spoolctl wait {' '.join(ids)}` waits again".encode() in done.stderr
    bench.sandbox.gate.set()
    lines = ctl(bench.root, "wait", *ids, "--json").stdout.splitlines()
    assert {json.loads(line)["Submission_id"] for line in lines} == set(ids)
    assert len(ctl(bench.root, "wait", *ids, "--any", "--json").stdout.splitlines()) == 1
    assert b"cannot be an id" in ctl(bench.root, "wait", "../x", code=exits.FAILED).stderr


@pytest.mark.parametrize("words", [["--spool", "{}", "status", "x"], ["status", "x", "--spool", "{}"]])
def test_the_spool_is_named_before_the_command_or_after_it(empty: Path, tmp_path: Path, words: list[str]) -> None:
    (empty / "done" / "x.response.json").write_text('{"Submission_id": "x", "status": "COMPLETED"}')
    done = ctl(tmp_path / "other", *(word.format(empty) for word in words))
    assert done.stdout.startswith(b"x: COMPLETED")


def test_the_spool_of_the_settings(empty: Path, tmp_path: Path) -> None:
    (empty / "done" / "x.response.json").write_text('{"Submission_id": "x", "status": "COMPLETED"}')
    config = tmp_path / "spoold.toml"
    config.write_text(f'[spool]\npath = "{empty}"\n')
    run = click.testing.CliRunner(env={"SPOOLD_SPOOL": None, "SPOOLD_CONFIG": str(config)})
    assert run.invoke(command, ["status", "x"]).output.startswith("x: COMPLETED")
    config.write_text("[spool]\npath = 3\n")
    assert "spool.path" in str(run.invoke(command, ["status", "x"]).exception)
    config.write_text("[")
    assert "spoold.toml" in str(run.invoke(command, ["status", "x"]).exception)


def test_what_is_listed_of_commands_is_what_they_say_themselves() -> None:
    for name, each in command.commands.items():
        assert each.short_help == command.lazily[name].about


def test_who_reads_a_little_of_it_is_no_error(empty: Path) -> None:
    text = json.dumps({"status": "COMPLETED", "run": {"stdout": "x\n" * 400_000, "time": 0.1}})
    (empty / "done" / "x.response.json").write_text(text)
    line = f"{sys.executable} -m spoold.cli.ctl status x | head -n 1"
    done = subprocess.run(["sh", "-c", line], env=environment(empty), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"x: COMPLETED\n", b"")


def test_a_pin_that_only_the_daemon_knows_is_its_to_judge() -> None:
    asked.check(json.dumps(json.loads(SCRIPT) | {"nixpkgs": "unknown"}).encode(), Path("r.json"))


def test_an_interrupt_before_it_is_sent_has_no_traceback(empty: Path, program: Path) -> None:
    os.mkfifo(program.parent / "input")
    line = [sys.executable, "-m", "spoold.cli.ctl", "submit", str(program), "--stdin", str(program.parent / "input")]
    submits = subprocess.Popen(line, env=environment(empty), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with submits, (program.parent / "input").open("wb"):  # the program opens the pipe, so it has imported everything
        submits.send_signal(signal.SIGINT)
        said = submits.communicate()[1]
    assert (submits.returncode, b"Traceback" in said) == (exits.INTERRUPTED, False)
