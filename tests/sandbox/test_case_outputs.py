"""Files of cases in a real sandbox. Each case has its own files, and room that no earlier case has used up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.job import JobResult
from spoold.model.limits import MIB, PhaseLimits
from spoold.model.outputs import Output, Returned, Wanted
from spoold.model.response import Outcome
from tests.sandbox.conftest import RUN, longer, make_job
from tests.sandbox.test_cases import All, with_cases

pytestmark = pytest.mark.docker
Cases = Callable[..., tuple[JobResult, All]]
TOGETHER = Wanted(outputs=[], files=64, file_size=MIB, total=4 * MIB)


@pytest.fixture
def cases(sandbox: DockerSandbox, python_shell: str) -> Cases:
    """Return a function that runs a program once for each word, and asks for the files in ``out``."""

    def _cases(
        program: str, *words: str, together: Wanted = TOGETHER, limits: PhaseLimits = RUN, **parts: Any
    ) -> tuple[JobResult, All]:
        made = {"main.py": program.encode()}
        each: Sequence[PhaseLimits] = parts.pop("each", ())
        job = make_job("exec python3 main.py $1", shell=python_shell, files=made, outputs=together, **parts)
        job = with_cases(replace(job, run=limits), *words, limits=each)
        asked = [Output(path="out/**", required=True)]
        job = replace(job, cases=[replace(case, outputs=asked) for case in job.cases])
        judge = All()
        return sandbox.run(job, lambda *_: None, threading.Event(), judge), judge

    return _cases


def found(returned: Returned) -> dict[str, bytes]:
    """Return the files of a case by name."""
    return {each.name: b"".join(returned.contents.pieces(each.at, each.size)) for each in returned.files}


LEAVE = """
import os, sys
os.makedirs("out/deep", exist_ok=True)
print(sorted(os.listdir("out")))
open(f"out/{sys.argv[1]}", "w").write(sys.argv[1]); open("out/deep/all", "w").write(sys.argv[1])
"""


def test_each_case_returns_its_own_files_and_those_that_compiling_left(cases: Cases) -> None:
    result, judge = cases(LEAVE, "a", "b", compile_sh="mkdir out; echo made >out/made")
    assert [found(result.of_cases[n]) for n in range(2)] == [
        {"out/a": b"a", "out/deep/all": b"a", "out/made": b"made\n"},
        {"out/b": b"b", "out/deep/all": b"b", "out/made": b"made\n"},
    ]
    assert judge.printed == ["['deep', 'made']\n"] * 2
    assert (judge.notes, result.outputs) == ([[], []], None)
    result.close()


ATTACK = r"""
import os, socket, sys
def put(name, content=b"x"):
    with open(name, "wb") as file: file.write(content)
os.mkdir("out"); os.chdir("out")
if sys.argv[1] == "odd":
    for n in range(2000): os.symlink("/etc/passwd", f"link{n}"); os.mkfifo(f"pipe{n}")
    socket.socket(socket.AF_UNIX).bind("socket")
    for n in range(20):
        with open(f"sparse{n}", "wb") as file: file.truncate(1 << 30)
    for name in (b"\xff", b"a\nb", b"-rf", b"\\"): put(name)
    for _ in range(300): os.mkdir("d"); os.chdir("d")
elif sys.argv[1] == "many":
    for n in range(100_000): os.mknod(f"/job/out/{n}")
elif sys.argv[1] == "large":
    for n in range(8): put(f"{n}", bytes(1 << 20))
elif sys.argv[1] == "closed":
    put("good", b"good"); os.chmod("good", 0); os.chmod("/job/out", 0o100); os.chmod("/job", 0)
    if os.fork() == 0:
        while True: pass
else:
    put("good", sys.argv[1].encode())
"""


def test_what_is_left_out_of_a_case_takes_nothing_of_others(cases: Cases) -> None:
    wide = replace(RUN, time=60.0, cpu_time=60.0, file_size=2 << 30)
    result, judge = cases(ATTACK, "a", "odd", "closed", "b", limits=wide)
    assert judge.outcomes == [Outcome.OK] * 4, judge.runs
    assert [found(result.of_cases[n]) for n in range(4)] == [
        {"out/good": b"a"},
        {},
        {"out/good": b"good"},
        {"out/good": b"b"},
    ]
    assert [each.missing for each in result.of_cases.values()] == [[], ["out/**"], [], []]
    assert judge.notes[1] == [
        f"run.outputs: 20 left out, larger than {MIB} bytes",
        "run.outputs: 4001 left out, no regular file",
        "run.outputs: 4 left out, a name that no request can have",
        "run.outputs: 1 directories that lie too deep were not looked into",
    ]
    assert [notes for number, notes in enumerate(judge.notes) if number != 1] == [[]] * 3
    result.close()


def test_a_case_that_returns_all_that_there_may_be_leaves_those_after_it_nothing_but_their_verdicts(
    cases: Cases,
) -> None:
    wide = replace(RUN, time=60.0, cpu_time=60.0)
    few = replace(TOGETHER, files=3)
    result, judge = cases(ATTACK, "a", "many", "b", limits=wide, together=few)
    assert judge.outcomes == [Outcome.OK] * 3, judge.runs
    assert [sorted(found(each)) for each in result.of_cases.values()] == [["out/good"], ["out/0", "out/1"], []]
    assert judge.notes == [
        [],
        ["run.outputs: 99998 left out, beyond 3 files of all cases"],
        ["run.outputs: 1 left out, beyond 3 files of all cases"],
    ]
    assert result.of_cases[2].missing == ["out/**"]
    result.close()


def test_all_cases_have_so_many_bytes_together(cases: Cases) -> None:
    result, judge = cases(ATTACK, "a", "large", "b", "large")
    assert [len(each.files) for each in result.of_cases.values()] == [1, 3, 1, 0]
    assert [notes for notes in judge.notes if notes] == [
        [f"run.outputs: 5 left out, beyond {4 * MIB} bytes of all cases"],
        [f"run.outputs: 8 left out, beyond {4 * MIB} bytes of all cases"],
    ]
    result.close()


ENDED = """
import os, sys, time
os.mkdir("out"); open("out/a", "w").write("before")
if sys.argv[1] == "memory": x = bytearray(900 << 20)
if sys.argv[1] == "time": time.sleep(600)
if sys.argv[1] == "killed": os.kill(os.getpid(), 9)
"""


def test_files_come_back_whatever_ended_a_case(cases: Cases) -> None:
    """A case that ran out of memory may leave too little of it to read the files. A note tells that."""
    little = replace(RUN, memory=64 * MIB)

    def ended(times: float) -> tuple[JobResult, All]:
        short = replace(little, time=1.5 * times)
        return cases(ENDED, "time", "fine", "memory", "killed", each=[short, little, little, little])

    result, judge = longer(ended, lambda both: found(both[0].of_cases[0]))
    assert judge.outcomes == [Outcome.TIME_LIMIT, Outcome.OK, Outcome.MEMORY_LIMIT, Outcome.SIGNALLED]
    assert [found(result.of_cases[n]) for n in (0, 1, 3)] == [{"out/a": b"before"}] * 3
    assert bool(found(result.of_cases[2])) is not bool(judge.notes[2])
    result.close()
