"""All of spoold: four real daemons, real Nix, real Docker, and a client that uses only cp and cat."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.config import DockerSettings, SandboxSettings, Settings
from spoold.model.states import ALWAYS
from tests.names import named
from tests.served import PATIENCE, SETTLE, Served
from tests.stopped import stands_still
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(600)]
PYTHON = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { buildInputs = [ pkgs.python3 ]; }"
NAP = f"sleep {300 if os.geteuid() == 0 else 40}.{os.getpid()}"  # as root, wake() ends it
GCC = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { buildInputs = [ pkgs.gcc ]; }"


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, nix_settings: Settings, docker_host: str, runtime: object
) -> Iterator[Served]:
    """Yield a served spool. ``runtime`` is requested so that one process at a time prepares the store."""
    directory = tmp_path_factory.mktemp("served")
    docker, sandbox = DockerSettings(host=docker_host), SandboxSettings(waiting=2)  # no reserve for bursts
    made = Served(directory, msgspec.structs.replace(nix_settings, docker=docker, sandbox=sandbox))
    yield made
    made.stop()
    shutil.rmtree(directory)


def test_python_with_stdin_args_and_env(served: Served) -> None:
    program = {"name": "main.py", "content": "import os, sys\nprint(sys.stdin.read(), sys.argv[1:], os.environ['WHO'])"}
    served.drop(
        "python",
        'exec python3 main.py "$@"',
        PYTHON,
        files=[program],
        inputs="in\n",
        args=["--privileged", "", "$(id)", ";id"],
        env={"WHO": "a\nb"},
    )
    response = served.response("python")
    assert response["status"] == "COMPLETED", response
    assert response["run"]["stdout"] == "in\n ['--privileged', '', '$(id)', ';id'] a\nb\n"
    assert response["dependencies"]["outcome"] == "ok"
    assert response["run"]["memory"] > 1 << 20
    assert 0 < response["run"]["cpu_time"] < response["run"]["time"] + 0.1


def test_c_with_a_compiler(served: Served) -> None:
    source = (
        '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); return 3; }'
    )
    files = [{"name": "compile.sh", "content": "gcc -O1 -o sum src/sum.c"}, {"name": "src/sum.c", "content": source}]
    served.drop("c", "./sum", GCC, files=files, inputs="20 22")
    response = served.response("c")
    assert (response["status"], response["compile"]["outcome"]) == ("RUN_FAILED", "ok"), response
    assert (response["run"]["stdout"], response["run"]["exit_code"]) == ("42\n", 3)


def test_c_that_does_not_compile(served: Served) -> None:
    files = [
        {"name": "compile.sh", "content": "gcc -o x x.c"},
        {"name": "x.c", "content": "int main(void) { return x; }"},
    ]
    served.drop("c-bad", "./x", GCC, files=files)
    response = served.response("c-bad")
    assert (response["status"], response["compile"]["exit_code"]) == ("COMPILE_FAILED", 1)
    assert "undeclared" in response["compile"]["stderr"]
    assert response["run"] == {"stdout": "", "stderr": "", "time": "", "signal": "", "outcome": "skipped"}


def test_a_dependency_that_does_not_exist(served: Served) -> None:
    served.drop("missing", "true", PYTHON.replace("python3", "nosuchpackage"))
    response = served.response("missing")
    assert (response["status"], response["dependencies"]["outcome"]) == ("DEPENDENCIES_FAILED", "nonzero_exit")
    assert "nosuchpackage" in response["dependencies"]["stderr"]
    assert "cutor.nix" in response["dependencies"]["stderr"]


def test_one_that_runs_for_ever(served: Served) -> None:
    for seconds in (1, 4, 16):  # later tries have more time, in case the machine stood still before the job began
        id_ = f"endless-{seconds}"
        served.drop(id_, "echo begun; while :; do :; done", limits={"run": {"time": seconds, "cpu_time": 60}})
        response = served.response(id_)
        assert (response["status"], response["run"]["outcome"]) == ("RUN_FAILED", "time_limit")
        assert 0.9 * seconds < response["run"]["time"] < seconds + 30
        if response["run"]["stdout"]:
            break
    assert response["run"]["stdout"] == "begun\n"


def test_a_binary_file_and_binary_output(served: Served) -> None:
    data = bytes(range(256))
    file = {"name": "d/data.bin", "content": base64.b64encode(data).decode(), "encoding": "base64"}
    served.drop("binary", "cat d/data.bin", files=[file])
    response = served.response("binary")
    assert (response["run"]["stdout_encoding"], response["run"]["stdout_bytes"]) == ("base64", 256)
    assert base64.b64decode(response["run"]["stdout"]) == data


def test_a_job_sees_its_expression_its_nixpkgs_and_no_other_store_path(served: Served) -> None:
    script = 'cat cutor.nix; echo; ls "${NIX_PATH#nixpkgs=}/default.nix"; ls /nix/store | grep -c drv; ls /nix/store'
    served.drop("sees", script, f"{PYTHON} # mine")
    response = served.response("sees")
    lines = response["run"]["stdout"].splitlines()
    runtime = json.loads((served.spool / "builds" / "runtime.json").read_bytes())
    pin = runtime["nixpkgs"]["default"]
    assert lines[:3] == [f"{PYTHON} # mine", f"{pin}/default.nix", "0"]
    listed = {f"/nix/store/{line}" for line in lines if len(line) > 33 and line[32] == "-"}
    record = next(r for r in served.records() if r["result"]["shell"] in listed)
    assert listed == {*record["result"]["closure"], *runtime["closure"], pin}


def test_a_hundred_of_one_environment_are_one_build_and_ten_others_ten(served: Served) -> None:
    before = served.builds()
    same = f"{PYTHON} # the same"
    for number in range(100):
        served.drop(f"same-{number}", f"echo {number}", same)
    for number in range(10):
        served.drop(f"other-{number}", f"echo {number}", f"{PYTHON} # {number}")
    for number in range(100):
        assert served.response(f"same-{number}")["run"]["stdout"] == f"{number}\n"
    assert len(served.builds() - before) == 11
    for number in range(10):
        assert served.response(f"other-{number}")["run"]["stdout"] == f"{number}\n"
    served.assert_nothing_is_left()


@pytest.mark.parametrize("role", list(ALWAYS))
def test_kill_9_of_a_daemon_in_the_middle_loses_and_doubles_nothing(served: Served, role: str) -> None:
    numbers = range(16)
    for number in numbers:
        program = {"name": "p.py", "content": f"print(sum(i * i for i in range({number} * 1000)))"}
        served.drop(f"{role}-{number}", "python3 p.py", f"{PYTHON} # {role} {number % 2}", files=[program])
        if number == 12:
            time.sleep(0.4)
            served.processes[role].send_signal(signal.SIGKILL)
            served.processes[role].wait()
    served.start([role])
    for number in numbers:
        response = served.response(f"{role}-{number}")
        assert response["status"] == "COMPLETED", response
        assert response["run"]["stdout"] == f"{sum(i * i for i in range(number * 1000))}\n"
    served.assert_nothing_is_left()


def test_what_is_shown_on_the_way_is_no_answer_where_its_executor_is_killed(served: Served) -> None:
    script = f"seq 1 40000; echo begun >&2; ({NAP}; true) 2>/dev/null; echo end"
    served.drop("shown", script, progress=True, limits={"run": {"time": 600}})
    side_file = served.spool / "progress" / "shown.json"

    def is_shown() -> bool:
        with contextlib.suppress(FileNotFoundError):
            run = json.loads(side_file.read_bytes())["run"]
            return bool(run["stdout"].endswith("39999\n40000\n") and run["stderr"])
        return False

    until(is_shown)
    response = answered_after_a_kill(served, "shown")
    assert (response["status"], response["run"]["stderr"]) == ("COMPLETED", "begun\n"), response
    assert response["run"]["stdout"] == "".join(f"{number}\n" for number in range(1, 40001)) + "end\n"
    served.assert_nothing_is_left()


def answered_after_a_kill(served: Served, id_: str) -> Any:
    """Kill the executor that runs a submission, start another one, and return the response."""
    served.processes["executor"].send_signal(signal.SIGKILL)
    served.processes["executor"].wait()
    served.start(["executor"])
    until(lambda: wake() or (served.spool / "done" / f"{id_}.response.json").exists())  # type: ignore[func-returns-value] # it is None
    return served.response(id_)


def test_a_talk_whose_executor_is_killed_begins_anew_and_is_answered_once(served: Served) -> None:
    talk = 'echo hello; read -r word; [ "$word" = hello ] && exit 42; exit 43'
    script = f'read -r word; [ "$1" = quick ] || ({NAP}; true) 2>/dev/null; echo "$word"'
    cases = [{"name": "one", "args": ["quick"]}, {"name": "two"}]
    served.drop(
        "talk",
        script,
        cases=cases,
        interactor={"files": [{"name": "run.sh", "content": talk}]},
        limits={"run": {"time": 600}},
    )
    side_file = served.spool / "progress" / "talk.json"

    def has_begun() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return len(json.loads(side_file.read_bytes()).get("cases", [])) == 1
        return False

    until(has_begun)
    response = answered_after_a_kill(served, "talk")
    assert (response["status"], response["attempt"], response["summary"]["accepted"]) == ("COMPLETED", 2, 2), response
    served.assert_nothing_is_left()


def test_an_executor_that_is_stopped_past_its_lease_has_lost(served: Served, tmp_path: Path, docker_host: str) -> None:
    """Another executor answers. The first one continues, publishes nothing and removes its container."""
    first = served.processes["executor"]
    limits = {"run": {"time": 600}}
    served.drop("slow", f"{NAP}; echo $(</proc/sys/kernel/random/uuid)", limits=limits)
    until(lambda: len(busy(served, docker_host)) == 1)
    first.send_signal(signal.SIGSTOP)
    until(lambda: stands_still(first.pid))
    # so that the test need not wait for the end of the lease
    os.utime(served.spool / "running" / named("slow"), (1, 1))
    settings = msgspec.toml.decode(served.config.read_bytes())
    settings["executor"]["name"] = "second"
    config = tmp_path / "second.toml"
    config.write_bytes(msgspec.toml.encode(settings))
    command = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(config), "executor"]
    second = subprocess.Popen(command, stdout=served.log, stderr=served.log)
    try:
        until(lambda: len(busy(served, docker_host)) == 2)
        first.send_signal(signal.SIGCONT)
        until(lambda: len(busy(served, docker_host)) == 1)
        assert not (served.spool / "done" / "slow.response.json").exists()
        wake()
        response = served.response("slow")
        assert response["status"] == "COMPLETED"
        second.terminate()
        assert second.wait(PATIENCE) == 0
        assert served.response("slow") == response
        served.drop("after", "echo after")
        assert served.response("after")["run"]["stdout"] == "after\n"
        assert "lost the lease; another attempt has it" in served.said()
    finally:
        first.send_signal(signal.SIGCONT)
        second.kill()
        second.wait()
    served.assert_nothing_is_left()


def containers(served: Served, docker_host: str) -> list[str]:
    labels = ["--filter", f"label=spoold.spool={served.spool}"]
    command = ["docker", "--host", docker_host, "ps", "--quiet", "--no-trunc", *labels]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()


def busy(served: Served, docker_host: str) -> list[str]:
    """Return the containers in which ``sleep`` runs."""
    found = []
    for name in containers(served, docker_host):
        command = ["docker", "--host", docker_host, "top", name, "-eo", "pid,args"]
        if NAP in subprocess.run(command, capture_output=True, check=False, text=True).stdout:
            found.append(name)
    return found


def wake() -> None:
    """End the naps of jobs, where we may and see their processes. Elsewhere they end by themselves."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes() == NAP.encode().replace(b" ", b"\0") + b"\0":
                os.kill(int(process.name), signal.SIGTERM)


def test_bad_input_is_refused_while_the_rest_flows(served: Served, tmp_path: Path) -> None:
    incoming = served.spool / "incoming"
    canary = tmp_path / "canary"
    canary.write_text("secret")
    bombs = {
        "nested": b"[" * 100_000,
        "keys": b'{"env":{' + b",".join(b'"a%d":""' % n for n in range(500_000)) + b"}}",
        "truncated": b'{"files": [',
        "empty": b"",
        "utf16": '{"files": []}'.encode("utf-16"),
        "unknown": b'{"filez": []}',
        "path": b'{"files": [{"name": "run.sh", "content": ""}, {"name": "../x", "content": ""}]}',
        "huge": b'{"inputs": "' + b"x" * (17 << 20) + b'"}',
    }
    for name, data in bombs.items():
        (incoming / f"bad-{name}.json").write_bytes(data)
    (incoming / "bad-symlink.json").symlink_to(canary)
    os.link(canary, incoming / "bad-hardlink.json")
    os.mkfifo(incoming / "bad-fifo.json")
    (incoming / "bad-directory.json").mkdir()
    served.settle(0.5)  # all of them are there
    served.drop("good", "echo fine")
    assert served.response("good")["run"]["stdout"] == "fine\n"
    for name in [*bombs, "symlink", "hardlink", "fifo", "directory"]:
        response = served.response(f"bad-{name}")
        assert response["status"] == "REJECTED"
        assert response["reason"].isprintable()
        assert "secret" not in json.dumps(response)
    assert canary.read_text() == "secret"
    for path in (served.spool / "quarantine").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    served.settle(SETTLE)


def test_unused_dependencies_go_while_others_run(served: Served, nix_settings: Settings) -> None:
    """These settings treat every unneeded dependency as unused. Jobs run, wait and build during the collection."""
    served.drop("warm", "python3 -c 'print(1)'", f"{PYTHON} # collected")
    assert served.response("warm")["status"] == "COMPLETED"
    until(lambda: served.ctl("gc", "--dry-run")["deleted"])  # true once it was unused for a moment
    assert served.builds()
    slow = (
        "import time\nfor _ in range(30):\n    time.sleep(0.1)\n    import sys, json, decimal, sqlite3\nprint('whole')"
    )
    served.drop("kept", "python3 p.py", f"{PYTHON} # kept", files=[{"name": "p.py", "content": slow}])
    until(lambda: bool(os.listdir(served.spool / "running")))
    for number in range(6):
        served.drop(f"gc-{number}", f"python3 -c 'print({number})'", f"{PYTHON} # during {number % 3}")
    report = served.ctl("gc")
    assert report["deleted"]
    assert report["error"] == ""
    assert served.response("kept")["run"]["stdout"] == "whole\n"
    for number in range(6):
        assert served.response(f"gc-{number}")["run"]["stdout"] == f"{number}\n"
    until(lambda: served.ctl("gc")["complete"] and not served.builds())  # a collection keeps what was used a moment ago
    verified = subprocess.run(
        ["nix-store", "--store", f"{nix_settings.nix.state}/nix", "--verify", "--check-contents"],
        env={"PATH": os.environ["PATH"], "NIX_REMOTE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, "error" in verified.stderr) == (0, False), verified.stderr
    served.drop("again", "python3 -c 'print(2)'", f"{PYTHON} # collected")
    assert served.response("again")["run"]["stdout"] == "2\n"
    served.assert_nothing_is_left()


def test_nothing_is_left_when_all_have_stopped(served: Served, docker_host: str) -> None:
    served.assert_nothing_is_left()
    served.stop()
    labels = ["--filter", f"label=spoold.spool={served.spool}"]
    command = ["docker", "--host", docker_host, "ps", "--all", "--quiet", *labels]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""
