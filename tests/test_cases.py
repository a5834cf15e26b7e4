"""Submissions with cases, through real daemons and real sandboxes of both kinds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.config import Settings
from spoold.model.limits import Limits, OutputLimits
from tests.served import Served, in_mode
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(900)]
GCC = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { buildInputs = [ pkgs.gcc ]; }"
PYTHON = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { buildInputs = [ pkgs.python3 ]; }"
COMPILE = {"name": "compile.sh", "content": "date +%N > compiled; gcc -O1 -o program program.c"}
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    int a, b;
    if (scanf("%d %d", &a, &b) != 2) return 7;
    if (a == 1) abort();
    if (a == 2) for (;;) ;
    volatile char *much = malloc(200 << 20);
    if (a == 3) for (int n = 0; n < 200 << 20; n += 4096) much[n] = 1;
    if (a == 4) for (int n = 0; n < 1000000; n++) puts("much");
    printf("%d\n", a + b);
}
"""
MOST = 160  # MiB that an executor may take for a submission with a thousand cases that print 64 MB


@pytest.fixture(scope="module", params=["single-use", "recycled"])
def served(
    request: pytest.FixtureRequest, nix_settings: Settings, docker_host: str, runtime: object
) -> Iterator[Served]:
    limits = Limits(outputs=OutputLimits(files=1000, total=256 << 20))
    settings = msgspec.structs.replace(nix_settings, limits=limits)
    with in_mode(request.param, settings, docker_host, "spoold-cases.") as made:
        yield made


@pytest.mark.alike
def test_a_program_that_is_compiled_once_is_judged_on_each_case(served: Served) -> None:
    inputs = ["20 22", "1 1", "2 2", "3 3", "4 4", "x", "5 6", "20 22"]
    wanted = [{"name": f"{n}", "inputs": each, "expected": {"stdout": "42"}} for n, each in enumerate(inputs)]
    limits = {"run": {"cpu_time": 1, "memory": 64 << 20, "stdout": 1000}}
    files = [COMPILE, {"name": "program.c", "content": PROGRAM}]
    served.drop("judged", "./program", GCC, files=files, cases=wanted, limits=limits)
    response = served.response("judged")
    assert (response["status"], response["run"]["outcome"]) == ("COMPLETED", "skipped"), response
    assert [case["verdict"] for case in response["cases"]] == [
        "accepted",
        "runtime_error",
        "time_limit",
        "memory_limit",
        "output_limit",
        "runtime_error",
        "wrong_answer",
        "accepted",
    ]
    assert [case["run"].get("signal") for case in response["cases"][:3]] == ["", "SIGABRT", "SIGKILL"]
    assert (response["summary"]["verdict"], response["summary"]["accepted"]) == ("runtime_error", 2)


def test_nothing_of_what_is_expected_is_where_a_program_can_find_it(served: Served) -> None:
    secret = secrets.token_hex(16)
    halves = f"s = '{secret[:16]}' + '{secret[16:]}'"
    look = f"""
import os
{halves}
places = ["/job", "/tmp", "/dev/shm", "/etc", "/run", "/var", "/spoold"]
files = [os.path.join(d, f) for p in places for d, _, fs in os.walk(p) for f in fs if f != "look.py"]
files += [f"/proc/{{p}}/{{f}}" for p in os.listdir("/proc") if p.isdigit() for f in ("environ", "cmdline", "maps")]
found = []
for path in files:
    try:
        if s.encode() in open(path, "rb").read(1 << 22): found.append(path)
    except OSError: pass
print(len(files) > 5, found, [k for k, v in os.environ.items() if s in v])
"""
    served.drop(
        "secret",
        "exec python3 look.py",
        PYTHON,
        files=[{"name": "look.py", "content": look}, {"name": "compile.sh", "content": "python3 look.py"}],
        cases=[{"name": "a", "expected": {"stdout": secret}}, {"name": "b", "expected": {"stdout": secret}}],
    )
    response = served.response("secret")
    printed = [response["compile"], *(case["run"] for case in response["cases"])]
    assert [each["stdout"] for each in printed] == ["True [] []\n"] * 3, response


def test_a_cheat_changes_nothing_but_its_own_verdict(served: Served) -> None:
    """The cheat rewrites the program, leaves processes that print, and closes its directory.

    Later cases are still right.
    """
    cheat = """
    read -r word
    if [ "$word" = cheat ]; then
        echo 'echo 42' > run.sh; cp run.sh program; chmod 0 /job
        (while :; do echo 42 > /proc/$PPID/fd/1; sleep 0.01; done) &
        (setsid sh -c 'while :; do sleep 1; done') &
        exit 0
    fi
    echo "$word"; ls; cat run.sh | wc -l
    """
    words = ["fine", "cheat", "fine", "cheat", "fine"]
    wanted = [{"name": f"{n}", "inputs": f"{word}\n"} for n, word in enumerate(words)]
    made = {"name": "compile.sh", "content": "echo x > program"}
    served.drop("cheat", cheat, files=[made], cases=wanted)
    printed = [case["run"]["stdout"] for case in served.response("cheat")["cases"]]
    assert printed[0].startswith("fine\ncompile.sh\nprogram\nrun.sh\n")
    assert printed[2] == printed[4] == printed[0]


SPY = """
import os
print(os.path.exists("/job/judge"), [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid() and
      b"judge" in open(f"/proc/{p}/cmdline", "rb").read()], "SECRET" in str(os.environ), os.listdir("/tmp"))
print(input())
"""
TESTLIB = r"""
#include <stdio.h>
int main(int count, char **words)
{
    FILE *input = fopen(words[1], "r"), *output = fopen(words[2], "r");
    long n, divisor = 0;
    if (count != 4 || !input || !output || fscanf(input, "%ld", &n) != 1)
        return 3;
    if (fscanf(output, "False [] False []%ld", &divisor) != 1) {
        fprintf(stderr, "wrong output format\n");
        return 2;
    }
    if (divisor <= 1 || divisor >= n || n % divisor)
        return 1;
    fprintf(stderr, "points %d\n", divisor * divisor > n ? 10 : 3);
    return 7;
}
"""


@pytest.mark.alike
def test_a_checker_with_packages_of_its_own(served: Served) -> None:
    """The program has Python and no compiler, and the checker is written in C. Neither sees anything of the other."""
    checker = {
        "files": [
            {"name": "cutor.nix", "content": GCC},
            {"name": "compile.sh", "content": "gcc -O1 -o check check.c"},
            {"name": "check.c", "content": TESTLIB},
            {"name": "run.sh", "content": 'exec ./check "$@"'},
        ],
        "protocol": "testlib",
    }
    named = [("91\n7\n", "small"), ("91\n13\n", "large"), ("91\n9\n", "wrong"), ("91\nx\n", "none")]
    wanted = [{"name": name, "inputs": text, "points": 10, "expected": {"stdout": "SECRET"}} for text, name in named]
    script = "read -r n; exec python3 spy.py"
    served.drop("checked", script, PYTHON, files=[{"name": "spy.py", "content": SPY}], cases=wanted, checker=checker)
    response = served.response("checked")
    assert [(case["verdict"], case["points"]) for case in response["cases"]] == [
        ("partial", 3.0),
        ("accepted", 10.0),
        ("wrong_answer", 0.0),
        ("wrong_answer", 0.0),
    ], response
    assert [case["message"] for case in response["cases"] if "message" in case] == [
        "points 3",
        "points 10",
        "wrong output format",
    ]
    assert (response["summary"]["points"], response["summary"]["verdict"]) == (13.0, "partial")
    served.assert_nothing_is_left()


@pytest.mark.alike
def test_points_and_words_that_a_checker_leaves(served: Served) -> None:
    script = """
    read -r n < judge/input
    echo "$n" > feedback/score.txt; echo "for $n" > feedback/judgemessage.txt
    ln -sf /etc/passwd feedback/teammessage.txt; exit 42
    """
    wanted = [{"name": f"{n}", "inputs": f"{n}\n", "points": 4} for n in (1, 4)]
    served.drop("left", "cat", cases=wanted, checker={"files": [{"name": "run.sh", "content": script}]})
    response = served.response("left")
    assert [(case["verdict"], case["points"], case["message"]) for case in response["cases"]] == [
        ("partial", 1.0, "for 1"),
        ("accepted", 4.0, "for 4"),
    ], response


LINKS_ITS_POINTS = "ln -s /etc/passwd feedback/score.txt; exit 42"


@pytest.mark.parametrize(
    "what", ["exec sleep 600", "exec yes", "kill -9 $$", "rm -rf /job/*; exit 1", "exit 0", LINKS_ITS_POINTS]
)
def test_a_checker_that_misbehaves_is_an_error_of_the_judge(served: Served, what: str) -> None:
    checker = {"files": [{"name": "run.sh", "content": what}], "limits": {"run": {"time": 2, "memory": 64 << 20}}}
    id_ = f"bad-{abs(hash(what))}"
    served.drop(id_, "cat", cases=[{"name": "a", "inputs": "x"}, {"name": "b", "inputs": "y"}], checker=checker)
    response = served.response(id_)
    assert response["status"] == "COMPLETED"
    assert [case["verdict"] for case in response["cases"]] == ["judge_error"] * 2
    assert all(case["message"].startswith("checker: ") for case in response["cases"])


@pytest.mark.parametrize(
    "role", ["executor", *(pytest.param(each, marks=pytest.mark.alike) for each in ("intake", "health", "builder"))]
)
def test_kill_9_in_the_middle_of_cases_gives_one_right_answer(served: Served, role: str) -> None:
    wanted = [{"name": f"{n}", "inputs": f"{n}", "expected": {"stdout": f"{n}"}} for n in range(12)]
    id_ = f"killed-{role}"
    files = [{"name": "compile.sh", "content": "echo made > made"}]
    script = "test -e made && sleep 0.3 && tee read"
    served.drop(id_, script, files=files, cases=wanted, outputs=[{"path": "read", "required": True}])
    shown, answer = served.spool / "progress" / f"{id_}.json", served.spool / "done" / f"{id_}.response.json"

    def is_in_the_middle() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return b'"accepted"' in shown.read_bytes()
        return answer.exists()  # the job ended before this look

    until(is_in_the_middle, served.said)
    served.processes[role].send_signal(signal.SIGKILL)
    served.processes[role].wait()
    served.start([role])
    response = served.response(id_)
    assert [(case["verdict"], case["run"]["stdout"]) for case in response["cases"]] == [
        ("accepted", f"{n}") for n in range(12)
    ]
    assert [case["outputs"][0]["content"] for case in response["cases"]] == [f"{n}" for n in range(12)]
    served.assert_nothing_is_left()


@pytest.mark.alike
def test_files_of_cases_lie_beside_the_response(served: Served, tmp_path: Path) -> None:
    """Each case has its own files, and they are complete. This includes a case that a limit ended."""
    script = """
    mkdir out; read -r word; echo "$word" >out/word; cat /dev/urandom | head -c 700000 >out/data; ls >ls
    test "$word" != slow || sleep 60
    """
    words = ["one", "slow", "two"]
    wanted: list[dict[str, Any]] = [{"name": f"../{word}", "inputs": f"{word}\n"} for word in words]
    wanted[1]["limits"] = {"time": 10}
    files = [{"name": "compile.sh", "content": "echo x >made"}]
    asked = [{"path": "out/**"}, {"path": "ls"}, {"path": "none", "required": True}]
    served.drop("files", script, files=files, cases=wanted, outputs=asked)
    response = served.response("files")
    assert [case["verdict"] for case in response["cases"]] == ["accepted", "time_limit", "accepted"], response
    assert [case["outputs_missing"] for case in response["cases"]] == [["none"]] * 3
    tar = served.spool / "done" / response["outputs_tar"]["name"]
    assert hashlib.sha256(tar.read_bytes()).hexdigest() == response["outputs_tar"]["sha256"]
    subprocess.run(["tar", "xf", tar, "-C", tmp_path], check=True)
    for case, word in zip(response["cases"], words, strict=True):
        below = tmp_path / f"%2E.%2F{word}"
        found = {str(path.relative_to(below)): path.read_bytes() for path in below.rglob("*") if path.is_file()}
        assert found["out/word"].decode() == f"{word}\n"
        assert found["ls"] == b"compile.sh\nls\nmade\nout\nrun.sh\n"
        assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == {
            file["name"]: file["sha256"] for file in case["outputs"]
        }
    served.assert_nothing_is_left()


def test_a_container_that_is_killed_in_the_middle_of_a_case_changes_no_answer(served: Served, docker_host: str) -> None:
    mark = f"600.{secrets.randbelow(10**9):09}"
    wanted = [{"name": f"{n}", "inputs": f"{n}", "expected": {"stdout": f"{n}"}} for n in range(4)]
    began = served.spool / "done" / "lost.response.json"
    script = f"test -e made && cat && if test $# -gt 0; then timeout 20 sleep {mark}; fi; true"
    wanted[2] |= {"args": ["nap"], "limits": {"time": 300}}
    served.drop("lost", script, files=[{"name": "compile.sh", "content": "echo made > made"}], cases=wanted)

    def busy() -> list[str]:
        listed = docker(docker_host, "ps", "--quiet", "--no-trunc", "--filter", f"label=spoold.spool={served.spool}")
        return [each for each in listed.split() if mark in docker(docker_host, "top", each, "-eo", "pid,args")]

    until(busy, served.said)
    for each in busy():
        docker(docker_host, "kill", each)
    until(lambda: end_all(mark) or began.exists(), served.said)  # type: ignore[func-returns-value] # it is None
    response = served.response("lost")
    assert [(case["verdict"], case["run"]["stdout"]) for case in response["cases"]] == [
        ("accepted", f"{n}") for n in range(4)
    ]
    assert response["attempt"] == 2
    served.assert_nothing_is_left()


def end_all(mark: str) -> None:
    """End the processes with ``mark`` in their command line, where we may and see them.

    Elsewhere they end by themselves.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGTERM)


def docker(host: str, *words: str) -> str:
    return subprocess.run(["docker", "--host", host, *words], capture_output=True, check=False, text=True).stdout


def memory_of(pid: int) -> float:
    """Return the peak memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@pytest.mark.alike("recycled")
def test_a_thousand_cases_that_print_much(served: Served) -> None:
    many = 1000 if "recycled" in served.config.read_text() else 60
    wanted: list[dict[str, Any]] = [{"name": f"{n}", "inputs": f"{n}"} for n in range(many)]
    served.drop("many", "cat; head -c 65536 /dev/zero | tr '\\0' x", cases=wanted, limits={"run": {"stdout": 1 << 20}})
    response = served.response("many")
    assert response["summary"]["accepted"] == many
    outputs = [case["run"]["stdout"] for case in response["cases"]]
    assert all(output.startswith(f"{n}x") for n, output in enumerate(outputs))
    assert sum(map(len, outputs)) <= 16 * 1024 * 1024 + 1024 * many
    if os.path.exists(f"/proc/{served.processes['executor'].pid}"):
        assert memory_of(served.processes["executor"].pid) < MOST


@pytest.mark.alike("recycled")
def test_many_cases_that_return_much_take_a_bounded_part_of_memory(served: Served) -> None:
    """The returned files lie on the disk, in one place for all cases, until they are in the tar."""
    many = 300 if "recycled" in served.config.read_text() else 60
    size = 180_000_000 // many
    wanted: list[dict[str, Any]] = [{"name": f"{n}", "inputs": f"{n}"} for n in range(many)]
    script = f"cat >name; head -c {size} /dev/zero >data"
    served.drop("returned", script, cases=wanted, outputs=[{"path": "name"}, {"path": "data"}])
    response = served.response("returned")
    assert response["summary"]["accepted"] == many
    assert [[file["name"] for file in case["outputs"]] for case in response["cases"]] == [["data", "name"]] * many
    assert [case["outputs"][1]["content"] for case in response["cases"]] == [f"{n}" for n in range(many)]
    assert response["outputs_tar"]["size"] > many * size
    assert memory_of(served.processes["executor"].pid) < MOST
