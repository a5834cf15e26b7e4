"""A job's files and shared memory have the room that its memory limit leaves. A note names the bound that they met."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from spoold.model.errors import ClientError
from spoold.model.job import JobResult, Runtime
from spoold.model.limits import COMPILE_DEFAULT, GIB, MIB, RUN_DEFAULT, Limits
from spoold.model.response import Outcome
from spoold.sandbox import sizes
from tests import engines
from tests.sandbox.conftest import Mode, Run, made_sandbox, make_job, notes_of, settings_for

pytestmark = pytest.mark.docker

PATIENT = replace(RUN_DEFAULT, time=60 * engines.SLOWNESS, cpu_time=60 * engines.SLOWNESS)
SEMAPHORES = r"""
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    size_t size = 200u << 20;
    sem_t *ready = sem_open("/ready", O_CREAT | O_EXCL, 0600, 0);
    int file = shm_open("/shared", O_CREAT | O_RDWR, 0600);
    if (ready == SEM_FAILED || file < 0 || ftruncate(file, size)) return 1;
    char *held = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (!fork()) {
        memset(held, 7, size);
        sem_post(sem_open("/ready", 0));
        _exit(0);
    }
    sem_wait(ready);
    printf("%d %d\n", held[0], held[size - 1]);
    return sem_unlink("/ready") || shm_unlink("/shared") || !wait(NULL);
}
"""
PYTHON = """
import multiprocessing, multiprocessing.shared_memory as shared, sys
size = int(sys.argv[1]) << 20
block = shared.SharedMemory(create=True, size=size)
for at in range(0, size, 4096):
    block.buf[at] = 1
print(sum(block.buf[::4096]) << 12 >> 20)
block.close(); block.unlink()
def count(lock, value):
    for _ in range(100):
        with lock:
            value.value += 1
lock, value = multiprocessing.Lock(), multiprocessing.Value("i", 0, lock=False)
workers = [multiprocessing.Process(target=count, args=(lock, value)) for _ in range(4)]
for worker in workers: worker.start()
for worker in workers: worker.join()
with multiprocessing.Pool(2) as pool:
    print(value.value, pool.map(abs, [-1, -2]))
"""
FILES = "cd {0}; for ((n = 0; n < {1}; n++)); do : >$n; done"


def named(phase: JobResult, *words: str) -> bool:
    """Tell whether there is one note for each of these words, in order."""
    return len(phase.notes) == len(words) and all(word in note for word, note in zip(words, phase.notes, strict=True))


@pytest.mark.parametrize(("size", "memory"), [(100, 512), (300, 512), (1200, 1536)])
def test_shared_memory_and_semaphores_of_python(run: Run, python_shell: str, size: int, memory: int) -> None:
    limits = replace(PATIENT, memory=memory * MIB, file_size=2 * GIB)
    files = {"main.py": PYTHON.encode()}
    result = run("exec python3 main.py $1", files=files, args=(str(size),), shell=python_shell, limits=limits)
    assert (result.run.stdout, result.run.stderr) == (f"{size}\n400 [1, 2]\n", "")
    assert notes_of(result) == []


def test_shared_memory_and_semaphores_of_c(run: Run, c_shell: str) -> None:
    files = {"main.c": SEMAPHORES.encode()}
    result = run("./main", compile_sh="gcc -o main main.c", files=files, shell=c_shell, limits=PATIENT)
    assert (result.run.stdout, result.run.outcome) == ("7 7\n", Outcome.OK)
    assert notes_of(result) == []


@pytest.mark.parametrize("place", ["/job", "/tmp", "/dev/shm"])
def test_files_have_what_the_memory_limit_leaves_and_a_note_says_what_they_took(run: Run, place: str) -> None:
    """The second job has as much room as the first, because the first job's files are removed."""
    for _ in range(2):
        result = run(f"head -c 400M /dev/zero >{place}/much", limits=PATIENT)
        assert (result.run.outcome, result.notes) == (Outcome.OK, [])
    result = run(f"head -c 600M /dev/zero >{place}/more", limits=replace(PATIENT, file_size=GIB))
    assert result.run.outcome is Outcome.MEMORY_LIMIT
    assert named(result, "run: of its 536870912 bytes of memory, files in /job, /tmp and /dev/shm"), result.notes
    result = run(
        "true", compile_sh=f"head -c 100M /dev/zero >{place}/x", compile_limits=replace(PATIENT, memory=64 * MIB)
    )
    assert named(result, "compile: of its 67108864 bytes of memory, files"), result.notes


def test_memory_that_is_no_files_is_not_named_as_such(run: Run, python_shell: str) -> None:
    limits = replace(PATIENT, memory=64 * MIB)
    result = run("python3 -c 'bytearray(200 << 20)'", shell=python_shell, limits=limits)
    assert (result.run.outcome, result.notes) == (Outcome.MEMORY_LIMIT, [])


@pytest.mark.parametrize("place", ["/job", "/tmp", "/dev/shm"])
def test_many_files(run: Run, place: str) -> None:
    result = run(f"cd {place}; for ((n = 0; n < 50000; n++)); do : >$n; done", limits=PATIENT)
    assert (result.run.outcome, result.notes) == (Outcome.OK, [])


def test_what_the_kernel_keeps_of_files_counts_and_is_named(run: Run) -> None:
    """250000 files take 250 MiB in the kernel. No limit on their contents would bound that."""
    result = run(FILES.format("/tmp", 250000, "/tmp"), limits=replace(PATIENT, memory=32 * MIB))
    assert result.run.outcome is Outcome.MEMORY_LIMIT
    assert len(result.notes) == 1, result.notes
    assert "the kernel" in result.notes[0]  # the kernel may have had to end the whole sandbox


@pytest.fixture
def small(engine_at: str, runtime: Runtime, tmp_path: Path, mode: Mode) -> Iterator[Callable[..., JobResult]]:
    """Yield a function that runs a job where the operator gives little room."""
    settings = settings_for(engine_at, str(tmp_path), mode=mode)
    sandbox = made_sandbox(replace(settings, limits=Limits(work_size=8 * MIB, work_inodes=100)), runtime)
    sandbox.prepare()

    def go(script: str, shell: str, **files: bytes) -> JobResult:
        job = make_job(script, shell=shell, limits=PATIENT, files=files)
        return sandbox.run(job, lambda *_: None, threading.Event())

    yield go
    sandbox.close()


@pytest.mark.parametrize("place", ["/job", "/tmp", "/dev/shm"])
def test_what_was_full_is_named(small: Callable[..., JobResult], plain_shell: str, place: str) -> None:
    result = small(f"head -c 9M /dev/zero >{place}/much; true", plain_shell)
    assert "No space left on device" in result.run.stderr
    assert named(result, f"run: {place} had no room for another byte: it may have 8388608 bytes here"), result.notes
    result = small(f"cd {place}; for ((n = 0; n < 100; n++)); do : >$n; done; true", plain_shell)
    assert named(result, f"run: {place} had no room for another file or directory: it may have 100 of them"), (
        result.notes
    )


def test_files_that_do_not_fit_are_the_clients_fault(small: Callable[..., JobResult], plain_shell: str) -> None:
    for files in ({"much": b"x" * 9 * MIB}, {f"d{n}/f": b"" for n in range(90)}):
        with pytest.raises(ClientError, match=r"files: .*No space left"):
            small("true", plain_shell, **files)


def test_what_compiling_leaves_is_counted_before_a_job_begins(plain_shell: str) -> None:
    """The compilation may fill its whole allowance with files, and the run has its own limit beside them."""
    job = replace(make_job("true", shell=plain_shell, compile_sh="true"), compile=COMPILE_DEFAULT, run=RUN_DEFAULT)
    asked = sizes.asked(Limits(), job)
    assert asked >= COMPILE_DEFAULT.memory + RUN_DEFAULT.memory
    assert sizes.asked(Limits(work_size=64 * MIB), job) <= 3 * 64 * MIB + COMPILE_DEFAULT.memory + 64 * MIB
    assert sizes.asked(Limits(work_size=64 * MIB), job) < asked
