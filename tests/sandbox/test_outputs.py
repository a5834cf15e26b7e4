"""Files that a job returns from a real sandbox: those that were requested. No attack harms the reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.host.spill import Spill
from spoold.model.limits import MIB
from spoold.model.outputs import Output, Wanted
from spoold.model.response import Outcome
from tests.returned import contents
from tests.sandbox.conftest import RUN, AnySandbox, Run, longer, notes_of
from tests.sandbox.test_cancel import LONG, Going, has_process, marked, patient
from tests.waiting import until

__all__ = ["has_process", "patient"]  # fixtures
pytestmark = pytest.mark.docker


def wanted(*paths: str, required: bool = False, files: int = 64, file_size: int = MIB, total: int = 4 * MIB) -> Wanted:
    """Return a request for the files that match ``paths``."""
    outputs = [Output(path=path, required=required) for path in paths]
    return Wanted(outputs=outputs, files=files, file_size=file_size, total=total)


def test_what_matches_comes_back(run: Run) -> None:
    made = "mkdir -p out/a/b; echo 1 >out/1.txt; echo 2 >out/a/b/2.txt; echo 3 >out/a/3.png"
    script = made + '; printf %s "$0" >x; chmod 705 x'
    done = run(script, outputs=wanted("out/**/*.txt", "x"))
    assert done.run.outcome is Outcome.OK
    assert contents(done.outputs) == {"out/1.txt": b"1\n", "out/a/b/2.txt": b"2\n", "x": b"./run.sh"}
    assert done.outputs
    assert [file.mode for file in done.outputs.files][-1] == 0o705
    assert notes_of(done) == []


LATER = "echo before >a.txt; printf x >b.txt; "


@pytest.mark.parametrize(
    ("script", "limits", "outcome"),
    [
        ("exit 3", {}, Outcome.NONZERO_EXIT),
        ("kill -9 $$", {}, Outcome.SIGNALLED),
        ("sleep 600", {"time": 0.3}, Outcome.TIME_LIMIT),
        ("while :; do :; done", {"cpu_time": 0.3}, Outcome.CPU_LIMIT),
        ("x=y; while :; do x=$x$x; done", {}, Outcome.MEMORY_LIMIT),
        ("while echo y; do :; done", {"on_output_limit": "end"}, Outcome.OUTPUT_LIMIT),
        ("head -c 2000000 /dev/zero >large; exit 0", {"file_size": MIB}, Outcome.FILE_LIMIT),
    ],
)
def test_files_come_back_whatever_ended_the_program(
    run: Run, script: str, limits: dict[str, Any], outcome: Outcome
) -> None:
    written = {"a.txt": b"before\n", "b.txt": b"x"}

    def ended(times: float) -> tuple[object, dict[str, bytes]]:
        more = {name: each * times if name in ("time", "cpu_time") else each for name, each in limits.items()}
        done = run(LATER + script, limits=replace(RUN, **more), outputs=wanted("*.txt"))
        return done.run.outcome, contents(done.outputs)

    assert longer(ended, lambda found: found[1] == written) == (outcome, written)


def test_no_file_comes_back_where_nothing_ran(run: Run) -> None:
    done = run("true", compile_sh="echo x >a.txt; false", outputs=wanted("*", required=True))
    assert (done.run.outcome, done.outputs) == (Outcome.SKIPPED, None)


def test_files_of_the_run_come_back_and_those_that_compiling_left(run: Run) -> None:
    done = run("echo run >>b", compile_sh="echo compiled | tee a >b", outputs=wanted("a", "b", "*.sh"))
    assert contents(done.outputs) == {
        "a": b"compiled\n",
        "b": b"compiled\nrun\n",
        "compile.sh": b"echo compiled | tee a >b",
        "run.sh": b"echo run >>b",
    }


def test_what_is_required_and_missing_is_named(run: Run) -> None:
    asked = Wanted(
        outputs=[Output(path=path, required=True) for path in ("there", "none/*", "link", "large")],
        files=64,
        file_size=1000,
        total=MIB,
    )
    done = run("echo x >there; ln -s there link; head -c 1001 /dev/zero >large", outputs=asked)
    assert done.run.outcome is Outcome.OK
    assert done.outputs
    assert done.outputs.missing == ["none/*", "link", "large"]
    assert contents(done.outputs) == {"there": b"x\n"}
    assert notes_of(done) == [
        "run.outputs: 1 left out, larger than 1000 bytes",
        "run.outputs: 1 left out, no regular file",
    ]


ATTACK = r"""
import os, socket
def put(name, content=b"x"):
    with open(name, "wb") as file: file.write(content)
os.mkdir("out"); os.chdir("out")
put("good", b"good"); os.chmod("good", 0); put("setuid"); os.chmod("setuid", 0o6755)
for name in (b"\xff", b"a\nb", b"-rf", b"\\", b"\xc2\x85", "a\u2028".encode(), b"n" * 255): put(name)
put("UPPER"); put("upper"); put("e\u0301"); put("\u00e9")
os.mkfifo("pipe"); socket.socket(socket.AF_UNIX).bind("socket")
links = {"passwd": "/etc/passwd", "shadow": "../../etc/shadow", "loop": "loop", "self": "/proc/1/environ"}
for name, to in {**links, "fd": "/proc/self/fd/0", "root": "/"}.items(): os.symlink(to, name)
for number in range(20):
    with open(f"sparse{number}", "wb") as file: file.truncate(250 << 20)
os.mkdir("closed"); put("closed/file", b"closed"); os.chmod("closed", 0)
for _ in range(300): os.mkdir("d"); os.chdir("d")
os.chmod("/job/out", 0o100); os.chmod("/job", 0)
if os.fork() == 0:
    while True:
        try: os.chdir("/job/out")
        except OSError: pass
os._exit(0)
"""


def test_no_attack_changes_anything_but_what_comes_back(run: Run, python_shell: str) -> None:
    done = run(
        "exec python3 a.py",
        shell=python_shell,
        files={"a.py": ATTACK.encode()},
        limits=replace(RUN, file_size=512 * MIB),
        outputs=wanted("out/**", "out/root/etc/*", "out/fd", total=16 * MIB),
    )
    assert (done.run.outcome, done.run.stderr) == (Outcome.OK, "")
    assert contents(done.outputs) == {
        "out/UPPER": b"x",
        "out/closed/file": b"closed",
        "out/e\u0301": b"x",
        "out/good": b"good",
        "out/" + "n" * 255: b"x",
        "out/setuid": b"x",
    }
    assert done.outputs
    assert {file.name: file.mode for file in done.outputs.files if "s" in file.name} == {
        "out/closed/file": 0o644,
        "out/setuid": 0o755,
    }
    assert notes_of(done) == [
        "run.outputs: 20 left out, larger than 1048576 bytes",
        "run.outputs: 8 left out, no regular file",
        "run.outputs: 8 left out, a name that no request can have",
        "run.outputs: 1 directories that lie too deep were not looked into",
    ]


def test_a_hundred_thousand_files(run: Run, python_shell: str) -> None:
    program = b"import os\nfor each in range(100_000): os.mknod(str(each))"
    limits = replace(RUN, time=60, cpu_time=60, memory=512 * MIB)
    done = run(
        "exec python3 a.py", shell=python_shell, files={"a.py": program}, limits=limits, outputs=wanted("*", files=3)
    )
    assert sorted(contents(done.outputs)) == ["0", "1", "10"]
    assert notes_of(done) == ["run.outputs: 99999 left out, beyond 3 files"]


def test_files_that_fill_the_memory_cost_no_more_than_themselves(run: Run) -> None:
    """No process can be started in that memory. The phase is still told, and the next job runs."""
    script = "echo x >a.txt; while head -c 8388608 /dev/zero >>/tmp/all; do :; done"
    done = run(script, limits=replace(RUN, file_size=1 << 40), outputs=wanted("*.txt", required=True))
    assert done.run.outcome is Outcome.MEMORY_LIMIT
    assert done.outputs
    assert (contents(done.outputs) == {"a.txt": b"x\n"}) is (done.outputs.missing == [])
    assert run("echo next").run.stdout == "next\n"


def test_large_contents_take_no_memory_of_the_hosts(run: Run) -> None:
    asked = wanted("*.bin", total=64 * MIB, file_size=MIB)
    done = run("for i in $(seq 10 60); do head -c 1048576 /dev/urandom >$i.bin; done", outputs=asked)
    assert done.outputs
    assert len(done.outputs.files) == 51
    assert isinstance(done.outputs.contents, Spill)
    assert not done.outputs.contents._few
    assert len(contents(done.outputs)) == 51


@pytest.mark.usefixtures("patient")
def test_no_files_of_a_cancelled_program_come_back(
    sandbox: AnySandbox, run: Run, plain_shell: str, has_process: Callable[[str, int], bool]
) -> None:
    script, mark = marked("echo x >a; exec sleep MARK")
    job = Going(sandbox, run_sh=script, shell=plain_shell, limits=LONG, outputs=wanted("*"))
    until(lambda: has_process(mark, 1))
    assert job.cancel().outcome is Outcome.CANCELLED
    assert run("echo next").run.stdout == "next\n"


def test_the_next_job_finds_nothing_of_what_came_back(run: Run) -> None:
    assert contents(run("echo x >a; ls", outputs=wanted("*")).outputs) == {"a": b"x\n", "run.sh": b"echo x >a; ls"}
    assert contents(run("ls", outputs=wanted("*")).outputs) == {"run.sh": b"ls"}
