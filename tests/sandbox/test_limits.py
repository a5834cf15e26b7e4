"""Each limit, and each way around it: time, CPU, memory, output, files, processes; and what a job leaves running."""

from __future__ import annotations

import threading
from pathlib import Path

import docker
import pytest
from msgspec.structs import replace

from spoold.model.job import Runtime
from spoold.model.limits import COMPILE_DEFAULT, MIB, RUN_DEFAULT, PhaseLimits
from spoold.model.response import Outcome, Phase
from spoold.sandbox.facts import EXACT
from tests.engines import SLOWNESS
from tests.sandbox.conftest import RUN, AnySandbox, Mode, Run, longer, made_sandbox, make_job, settings_for

pytestmark = pytest.mark.docker

SHORT = replace(RUN, time=0.6 * SLOWNESS, cpu_time=30)
SLACK = 100.0 * SLOWNESS  # seconds; a busy machine must not fail the test


@pytest.mark.parametrize(
    "script",
    [
        "while :; do :; done",
        "sleep 600",
        "exec >&- 2>&- <&-; sleep 600",
        "trap '' TERM INT HUP XCPU; sleep 600 & while :; do wait; done",
        "kill -9 -1; sleep 600",
        "kill -STOP 0; sleep 600",
        "kill -STOP $PPID; kill -STOP 1; kill -9 1; sleep 600",
        "for i in 1 2 3; do (kill -STOP $BASHPID) & done; wait",
        "bomb() { bomb | bomb & wait; }; bomb 2>/dev/null; sleep 600",
    ],
    ids=["busy", "sleep", "closed", "ignores", "kill-all", "stop-group", "stop-parent", "stopped", "fork-bomb"],
)
def test_time_is_up_whatever_the_program_does(run: Run, script: str) -> None:
    phase = run("#!/bin/bash\necho begun\n" + script, limits=SHORT).run
    assert (phase.outcome, phase.signal) == ("time_limit", "SIGKILL")
    assert phase.stdout in ("begun\n", "")  # on a machine that stalls, nothing may have been printed
    assert isinstance(phase.time, float)
    assert SHORT.time <= phase.time < SLACK


def test_reading_its_output_is_paid_by_the_job(sandbox: AnySandbox, api: docker.APIClient, plain_shell: str) -> None:
    container = sandbox.on_trial()
    totals: list[float] = []

    def on_phase(*_: object) -> None:
        counted = api.stats(container.transport.id, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]
        totals.append(counted["total_usage"] / 1e9)

    # The job's start, its end and the looks at it don't count for it, and cost more on a slow machine.
    limits = replace(RUN, time=100 * SLOWNESS, cpu_time=SLOWNESS)
    job = make_job("exec cat /dev/zero", compile_sh="true", shell=plain_shell, limits=limits)
    phase = container.run(job, on_phase, threading.Event()).run
    container.close()
    assert phase.outcome is Outcome.CPU_LIMIT, phase
    assert isinstance(phase.cpu_time, float)
    assert phase.cpu_time > (totals[1] - totals[0]) * 0.75  # would be about 0.6 if only its own processes counted


@pytest.mark.engines
def test_cpu_time_of_all_processes_counts(run: Run) -> None:
    script = "for i in 1 2; do (while :; do :; done) & done; wait"
    phase = run(script, limits=replace(RUN, cpu_time=0.8)).run
    assert (phase.outcome, phase.exit_code) == ("cpu_limit", None)
    assert isinstance(phase.cpu_time, float)
    assert 0.8 <= phase.cpu_time < SLACK


def test_cpu_time_of_children_that_nobody_waited_for_counts(run: Run, python_shell: str) -> None:
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"  # the kernel adds the time of such children to no process
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        while time.process_time() < 0.25: pass\n"
        "        os._exit(0)\n"
        "    try: os.wait()\n"
        "    except ChildProcessError: pass\n"
    )
    phase = run("exec python3 main.py", files={"main.py": program.encode()}, shell=python_shell).run
    assert phase.outcome is Outcome.OK
    assert isinstance(phase.cpu_time, float)
    assert phase.cpu_time > 0.9


def test_sleeping_costs_no_cpu(run: Run) -> None:
    phase = run("sleep 0.5").run
    assert isinstance(phase.time, float)
    assert isinstance(phase.cpu_time, float)
    assert phase.time - phase.cpu_time > 0.4  # on a machine that stalls, both are longer


HOG = b"import time\nhog = []\nwhile True:\n    hog.append(bytearray(b'x' * 1048576))\n"
MAPPER = b"import mmap\nheld = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): held[at] = 1\n"
SURVIVOR = b"import subprocess, sys\nsubprocess.run([sys.executable, 'hog.py'])\nprint('survived')\n"


@pytest.mark.engines
@pytest.mark.parametrize("size", [32 * MIB, 128 * MIB])
@pytest.mark.parametrize("program", [HOG, MAPPER, SURVIVOR], ids=["heap", "mmap", "grandchild"])
def test_memory(run: Run, python_shell: str, program: bytes, size: int) -> None:
    files = {"main.py": program, "hog.py": HOG}
    phase = run("python3 main.py; exit 0", files=files, shell=python_shell, limits=replace(RUN, memory=size)).run
    assert phase.outcome is Outcome.MEMORY_LIMIT
    assert isinstance(phase.memory, int)
    assert size <= phase.memory < 2 * size + 64 * MIB


@pytest.mark.parametrize("place", ["/tmp", "/job", "/dev/shm"])
def test_files_in_memory_are_memory(run: Run, place: str) -> None:
    limits = replace(RUN, memory=48 * MIB, file_size=256 * MIB)
    phase = run(f"head -c 200M /dev/zero >{place}/big; head -c 200M /dev/zero >{place}/more; exit 0", limits=limits).run
    assert phase.outcome is Outcome.MEMORY_LIMIT


def test_memory_a_little_over_the_limit_is_seen_though_the_container_has_room(run: Run) -> None:
    limits = replace(RUN, memory=32 * MIB, file_size=256 * MIB, time=600)
    phase = run("head -c 38M /dev/zero >/tmp/held; sleep 600", limits=limits).run
    assert phase.outcome is Outcome.MEMORY_LIMIT
    assert isinstance(phase.time, float)
    assert phase.time < SLACK


def test_peak_memory_is_the_jobs_own(run: Run, python_shell: str) -> None:
    program = b"held = b'x' * (40 << 20)\n"
    phase = run("python3 main.py", files={"main.py": program}, shell=python_shell).run
    assert isinstance(phase.memory, int)
    assert 40 * MIB < phase.memory < 60 * MIB


def test_reading_files_of_the_store_is_not_memory(run: Run) -> None:
    limits = replace(RUN, memory=16 * MIB)
    phase = run("for f in /nix/store/*/lib/*.so* $(command -v bash env); do cat $f; done | wc -c", limits=limits).run
    assert phase.outcome is Outcome.OK


@pytest.mark.engines
def test_each_phase_has_its_own_memory_limit(run: Run, python_shell: str) -> None:
    program = b"import sys, time\nheld = b'x' * (80 << 20)\ntime.sleep(float(sys.argv[1]))\n"
    result = run(
        "python3 main.py 60; exit 0",
        compile_sh="python3 main.py 0.3",  # long enough for a look to see it
        files={"main.py": program},
        shell=python_shell,
        limits=replace(RUN, memory=48 * MIB),
        compile_limits=replace(COMPILE_DEFAULT, memory=256 * MIB),
    )
    assert (result.compile.outcome, result.run.outcome) == ("ok", "memory_limit")
    assert isinstance(result.compile.memory, int)
    assert result.compile.memory > 80 * MIB


def test_deleting_what_compile_left_makes_no_room_for_more_memory(run: Run, python_shell: str) -> None:
    result = run(
        "rm /tmp/left; exec python3 -c 'import time; held = bytearray(b\"x\") * (80 << 20); time.sleep(60)'",
        compile_sh="head -c 100M /dev/zero >/tmp/left",
        shell=python_shell,
        limits=replace(RUN, memory=32 * MIB),
    )
    assert (result.compile.outcome, result.run.outcome) == ("ok", "memory_limit")


@pytest.mark.engines
def test_what_compile_leaves_is_not_the_runs_memory(run: Run) -> None:
    result = run(
        "echo ran; head -c 12M /dev/zero >/tmp/more",
        compile_sh="head -c 150M /dev/zero >left",
        limits=replace(RUN, memory=16 * MIB, file_size=256 * MIB),
    )
    assert (result.compile.outcome, result.run.outcome, result.run.stdout) == ("ok", "ok", "ran\n")
    assert isinstance(result.run.memory, int)
    assert 12 * MIB - EXACT <= result.run.memory <= 16 * MIB


@pytest.mark.engines
def test_each_phase_has_its_own_limit_of_processes(run: Run, python_shell: str) -> None:
    program = b"import os, signal\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: signal.pause()\n        n += 1\nexcept OSError: pass\nprint(n)\n"  # noqa: E501
    result = run(
        "exec python3 main.py",
        compile_sh="exec python3 main.py",
        files={"main.py": program},
        shell=python_shell,
        limits=replace(RUN, processes=10),
        compile_limits=replace(COMPILE_DEFAULT, processes=30),
    )
    assert (result.compile.stdout, result.run.stdout) == ("29\n", "9\n")


def test_zombies_are_reaped_while_the_program_runs(run: Run) -> None:
    alone = "until set -- /proc/[0-9]*; [ $# = 2 ]; do sleep 0.01; done"  # until only process 1 is left beside this one
    script = f"#!/bin/bash\nfor i in {{1..10}}; do ( (:) & (:) & ); {alone}; done; echo $?"
    phase = run(script, limits=replace(RUN, processes=16)).run
    assert (phase.stdout, phase.stderr) == ("0\n", "")


@pytest.mark.parametrize("wrap", ["exec ", ""], ids=["main", "child"])
def test_file_size(run: Run, wrap: str) -> None:
    phase = run(f"{wrap}head -c 20M /dev/zero >big", limits=replace(RUN, file_size=1 * MIB)).run
    assert phase.outcome is Outcome.FILE_LIMIT
    assert phase.signal == "SIGXFSZ"


def test_a_sparse_file_counts(run: Run) -> None:
    assert run("exec truncate -s 8E big").run.outcome is not Outcome.OK
    assert run("exec truncate -s 1G big").run.outcome is not Outcome.OK


def test_open_files(run: Run) -> None:
    assert run("ulimit -n; ulimit -Hn").run.stdout == "64\n64\n"


def test_the_work_directory_is_bounded(run: Run, python_shell: str) -> None:
    program = (
        b"import os, errno\nn = 0\n"
        b"try:\n    while True:\n        open(f'f{n}', 'w').close(); n += 1\n"
        b"except OSError as error: print(errno.errorcode[error.errno], n < 300000)\n"
    )
    # The other tests' limit of memory would be met first, by the kernel's memory for so many files.
    limits = replace(RUN, memory=1024 * MIB, time=120 * SLOWNESS, cpu_time=120 * SLOWNESS)
    phase = run("exec python3 main.py", files={"main.py": program}, shell=python_shell, limits=limits).run
    assert phase.stdout == "ENOSPC True\n"


def test_endless_output_ends_at_the_time_limit(run: Run) -> None:
    whole = "y\n" * 32768

    def flood(times: float) -> Phase:
        return run("yes & yes >&2", limits=replace(SHORT, time=times * SHORT.time, cpu_time=600)).run

    def came_far(phase: Phase) -> bool:
        both = phase.stdout == phase.stderr == whole
        return both and isinstance(phase.stdout_bytes, int) and phase.stdout_bytes > 1 * MIB

    phase = longer(flood, came_far)
    assert phase.outcome is Outcome.TIME_LIMIT
    assert (phase.stdout, phase.stderr) == (whole, whole)
    assert isinstance(phase.stdout_bytes, int)
    assert phase.stdout_bytes > 1 * MIB


def test_the_end_of_the_program_is_the_end(run: Run, python_shell: str) -> None:
    program = b"import os, time\nos.setsid()\nprint('begun', flush=True)\ntime.sleep(600)\n"
    script = "#!/bin/bash\n(trap '' TERM; sleep 600) & python3 main.py | { read x; echo $x; touch /tmp/x; } &\n"
    script += "until [ -e /tmp/x ]; do sleep 0.01; done; echo done"
    phase = run(script, files={"main.py": program}, shell=python_shell).run
    assert (phase.stdout, phase.outcome) == ("begun\ndone\n", "ok")


def test_all_output_written_before_the_end_is_kept(run: Run) -> None:
    phase = run("head -c 60000 /dev/zero & wait; exit 0").run
    assert phase.stdout_bytes == 60000


DAEMON = b"""
import os, signal, time
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        open("/tmp/alive", "a").write("x")
        time.sleep(0.01)
while not os.path.exists("/tmp/alive"):
    time.sleep(0.01)
"""
LIST = b"""
import os, time
def size(): return os.stat("/tmp/alive").st_size
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) == [1, os.getpid()])
before = size()
time.sleep(0.3)
print(size() - before)
"""


def test_nothing_of_compile_lives_on_in_run(run: Run, python_shell: str) -> None:
    files = {"daemon.py": DAEMON, "list.py": LIST}
    result = run("exec python3 list.py", compile_sh="python3 daemon.py", files=files, shell=python_shell)
    assert (result.compile.outcome, result.run.stdout) == ("ok", "True\n0\n")


def test_every_limit_is_reported_with_what_was_used(run: Run) -> None:
    def partial(times: float) -> Phase:
        return run("echo partial; sleep 600", limits=replace(SHORT, time=times * SHORT.time)).run

    phase = longer(partial, lambda phase: phase.stdout)
    assert (phase.stdout, phase.exit_code) == ("partial\n", None)
    assert isinstance(phase.memory, int)
    assert phase.memory > 0


@pytest.mark.engines
def test_the_default_limits_of_both_phases_need_no_change_of_the_container(
    engine_at: str, runtime: Runtime, tmp_path: Path, plain_shell: str, mode: Mode
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a limit was changed")

    assert COMPILE_DEFAULT.memory > RUN_DEFAULT.memory
    sandbox = made_sandbox(settings_for(engine_at, str(tmp_path), mode=mode), runtime)
    sandbox.prepare()
    tried = sandbox.on_trial()
    kind = type(tried.transport)
    tried.close()
    job = make_job("echo hi", compile_sh="true", shell=plain_shell, limits=RUN_DEFAULT)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "resize", lambda self, size: None if size == self.size else refuse())
            assert sandbox.run(job, lambda *_: None, threading.Event()).run.stdout == "hi\n"
    finally:
        sandbox.close()


@pytest.mark.parametrize("more", [1.1, 1.5])
def test_a_run_is_held_to_its_own_default(run: Run, python_shell: str, more: float) -> None:
    """The container would allow that much, because a compilation may take it."""
    text = f"import sys, time; x = b'x' * int({RUN_DEFAULT.memory * more}); time.sleep(float(sys.argv[1]))"
    program = text.encode()
    limits = replace(RUN_DEFAULT, time=RUN_DEFAULT.time * SLOWNESS, cpu_time=RUN_DEFAULT.cpu_time * SLOWNESS)
    phase = run("python3 a.py 600", files={"a.py": program}, shell=python_shell, limits=limits).run
    assert phase.outcome is Outcome.MEMORY_LIMIT
    script = "python3 a.py 0.05; echo $?"
    result = run("true", compile_sh=script, files={"a.py": program}, shell=python_shell, limits=limits)
    assert (result.compile.outcome, result.compile.stdout) == (Outcome.OK, "0\n")


DEEP = b"""
#include <stdio.h>
#include <stdlib.h>
int down(volatile char *above, long left) {
    volatile char here[1024];
    here[0] = above[0];
    return left ? down(here, left - 1) + here[0] : 0;
}
int main(int count, char **words) { char first[1] = {0}; printf("%d\\n", down(first, atol(words[1]) * 1024)); }
"""


def test_the_stack(run: Run, c_shell: str) -> None:
    files = {"a.c": DEEP}

    def deep(mebibytes: int, limits: PhaseLimits) -> Phase:
        script = f"exec ./a.out {mebibytes}"
        return run(script, compile_sh="cc -O0 a.c", files=files, shell=c_shell, limits=limits).run

    assert deep(40, RUN_DEFAULT).stdout == "0\n"  # more than the usual 8 MiB of shells
    assert deep(40, replace(RUN_DEFAULT, stack=16 * MIB)).signal == "SIGSEGV"
    assert deep(100, replace(RUN_DEFAULT, stack=256 * MIB)).stdout == "0\n"
