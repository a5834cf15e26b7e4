"""Verdicts about memory: never at the limit, and always 2 MiB above it, however short the peak.

Reported peaks are true.

contrib/development/benchmarks has the program, and the command that tries it hundreds of times.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import docker
import pytest
from msgspec.structs import replace

from benchmarks import memory
from benchmarks.memory import Row
from spoold.config import SandboxSettings
from spoold.engines.docker.container import Container
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.limits import COMPILE_DEFAULT, MIB, RUN_DEFAULT, PhaseLimits
from spoold.model.response import Outcome
from spoold.sandbox.runner import Runner
from tests.engines import SLOWNESS
from tests.sandbox.conftest import AnySandbox, Mode, made_sandbox, make_job, settings_for

pytestmark = pytest.mark.docker

LONG = bool(os.environ.get("SPOOLD_TEST_LONG"))
# number of jobs in each row, by its limit
TIMES = dict.fromkeys(memory.LIMITS, 10) if LONG else {16: 5, 64: 5, 128: 3, 512: 2}
PATIENT = replace(RUN_DEFAULT, time=60 * SLOWNESS, cpu_time=60 * SLOWNESS, file_size=256 * MIB)


def rows(*kinds: str) -> list[object]:
    return [pytest.param(row, id=f"{row.kind}-{row.limit >> 20}-{row.hold}") for row in memory.rows(list(kinds))]


def tried(sandbox: AnySandbox, row: Row, shell: str, times: int) -> None:
    seen = memory.Seen()
    for _ in range(times):
        seen.try_once(sandbox, row, row.job(shell, []))
    assert seen.good, seen


@pytest.mark.parametrize("row", rows("private"))
def test_never_at_the_limit_and_always_above_it(sandbox: AnySandbox, python_shell: str, row: Row) -> None:
    tried(sandbox, row, python_shell, TIMES[row.limit // MIB])


@pytest.mark.parametrize("row", [row for row in rows(*memory.KINDS[1:]) if "-64-0.0" in str(row)])
def test_so_it_is_with_each_kind_of_memory(sandbox: AnySandbox, python_shell: str, row: Row) -> None:
    tried(sandbox, row, python_shell, 2)


def holding(sizes: tuple[int, int], shell: str, ends: str = "") -> Job:
    """Return a job whose phases hold ``sizes`` MiB, each for an instant only."""
    compile_sh, run_sh = (f"python3 hold.py private {size * MIB} 0 || exit; {ends}" for size in sizes)
    return make_job(
        run_sh,
        compile_sh=compile_sh if sizes[0] else None,
        shell=shell,
        files={"hold.py": memory.PROGRAM.encode()},
        limits=PATIENT,
        compile_limits=replace(COMPILE_DEFAULT, time=PATIENT.time, cpu_time=PATIENT.time),
    )


def go(sandbox: AnySandbox, job: Job) -> JobResult:
    return sandbox.run(job, lambda *_: None, threading.Event())


def test_a_short_peak_is_told_after_a_higher_one(sandbox: AnySandbox, python_shell: str, api: docker.APIClient) -> None:
    """An earlier phase had the higher peak, or an earlier job in a recycled container."""
    result = go(sandbox, holding((300, 40), python_shell))
    if result.notes:
        assert api.info()["CgroupVersion"] == "2", result.notes
        pytest.skip(result.notes[0])
    for phase, size in ((result.compile, 300), (result.run, 40)):
        assert isinstance(phase.memory, int)
        assert abs(phase.memory - size * MIB) < 3 * MIB  # the shell takes some too
    seen = []
    for _ in range(5):
        result = go(sandbox, holding((0, 20), python_shell))
        assert isinstance(result.run.memory, int)
        seen.append(result.run.memory)
    assert max(seen) - min(seen) < MIB, seen


@pytest.mark.parametrize("default", [RUN_DEFAULT, COMPILE_DEFAULT], ids=["run", "compile"])
def test_the_default_limits_hold_however_short(sandbox: AnySandbox, python_shell: str, default: PhaseLimits) -> None:
    of_run = default is RUN_DEFAULT
    limit = (RUN_DEFAULT if of_run else COMPILE_DEFAULT).memory // MIB
    for more, right in ((-4, Outcome.OK), (2, Outcome.MEMORY_LIMIT)):
        sizes = (0, limit + more) if of_run else (limit + more, 20)
        result = go(sandbox, holding(sizes, python_shell))
        assert (result.run if of_run else result.compile).outcome is right, result


@pytest.mark.parametrize(("ends", "name"), [("exit 137", "SIGKILL"), ("kill -9 $$", "SIGKILL"), ("exit 1", "")])
def test_no_program_says_that_its_memory_was_short(
    sandbox: AnySandbox, python_shell: str, ends: str, name: str
) -> None:
    phase = go(sandbox, holding((0, 20), python_shell, ends)).run
    right = Outcome.SIGNALLED if name else Outcome.NONZERO_EXIT
    assert (phase.outcome, phase.signal) == (right, name)


WORKERS = """
import mmap, os, sys, time
held = mmap.mmap(-1, 30 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, 30 << 20, 4096): held[at] = 1
ends, never = os.pipe(), os.pipe()
children = []
for _ in range(124):
    if child := os.fork(): children.append(child)
    else:
        for at in range(0, 30 << 20, 4096): held[at]
        os.write(ends[1], b".")
        os.read(never[0], 1)
for _ in range(124): os.read(ends[0], 1)
while any(open(f"/proc/{child}/stat").read().split()[2] != "S" for child in children): time.sleep(0.01)
total = 0
for process in [os.getpid(), *children]:
    text = open(f"/proc/{process}/smaps_rollup").read()
    total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss_Anon:"))
print(total, flush=True)
os._exit(0)  # or it would take pages of its own to end
"""


def test_what_many_processes_share_counts_once_and_the_kernels_own_not_at_all(
    sandbox: AnySandbox, python_shell: str
) -> None:
    """The kernel's own memory for a hundred processes is 13 MB."""
    files = {"main.py": WORKERS.encode()}
    limits = PATIENT
    for _ in range(2):
        phase = go(sandbox, make_job("exec python3 main.py", shell=python_shell, files=files, limits=limits)).run
        assert (phase.outcome, phase.stderr) == (Outcome.OK, "")
        assert isinstance(phase.memory, int)
        assert abs(phase.memory - int(phase.stdout) * 1024) < MIB
        limits = replace(PATIENT, memory=phase.memory + MIB // 2)  # hardly more than it needs


PEAKS = ("memory.max_usage_in_bytes", "memory.kmem.max_usage_in_bytes", "memory.peak")
REACH = """
import glob, os
for path in glob.glob("/sys/**", recursive=True) + ["/sys/own", *(f"/sys/own/{name}" for name in NAMES)]:
    for flags in (os.O_RDWR, os.O_WRONLY):
        try: os.open(path, flags)
        except OSError: continue
        print("can be written to:", path)
try: found = os.listdir("/sys/own")
except OSError: found = []
if found: print("can be listed:", found)
print(sorted(map(int, os.listdir("/proc/self/fd"))))
"""


def test_no_job_gets_to_the_files_of_the_peaks(sandbox: AnySandbox, python_shell: str) -> None:
    files = {"main.py": f"NAMES = {PEAKS}{REACH}".encode()}
    phase = go(sandbox, make_job("exec python3 main.py", shell=python_shell, files=files, limits=PATIENT)).run
    assert (phase.stderr, phase.stdout) == ("", "[0, 1, 2, 3]\n")


@pytest.fixture
def blind(docker_host: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnySandbox:
    """Return a sandbox whose kernel never resets its peak. Without a porter this is so for containers of one job."""
    settings = settings_for(docker_host, str(tmp_path), waiting=1)
    return made_sandbox(replace(settings, sandbox=SandboxSettings(waiting=1, view="off")), runtime)


def test_where_the_kernel_keeps_its_peak_a_note_says_what_may_be_missed(blind: AnySandbox, python_shell: str) -> None:
    blind.prepare()
    try:
        first, second = (go(blind, holding((compiling, 20), python_shell)) for compiling in (0, 200))
    finally:
        blind.close()
    assert isinstance(first.run.memory, int)
    assert (first.notes, abs(first.run.memory - 20 * MIB) < 3 * MIB) == ([], True)
    (note,) = second.notes
    assert note.startswith("run.memory: peaks shorter than 10 ms may be missing")


def test_a_container_that_would_not_see_a_job_pass_its_limit_is_not_given_to_it(
    sandbox: AnySandbox, python_shell: str, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """The kernel keeps one peak for good here, and an earlier job's was high."""
    if mode == "single-use":
        pytest.skip("containers of this mode have no earlier job")
    assert sandbox._pool is not None
    taken: list[Runner[Container]] = []
    take = sandbox._pool.take

    def high(*words: object) -> Runner[Container]:
        taken.append(take(*words))  # type: ignore[arg-type]
        taken[-1]._unseen = 100 * MIB
        return taken[-1]

    monkeypatch.setattr(sandbox._pool, "take", high)
    row = Row("private", 64 * MIB, 0.0)
    tried(sandbox, row, python_shell, 1)
    assert not taken[0].alive()
    tried(sandbox, Row("private", 128 * MIB, 0.0), python_shell, 1)
