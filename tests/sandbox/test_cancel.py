"""A cancelled job still gets an account of what ran, and no job can delay that."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from msgspec.structs import replace

from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.job import JobResult, Runtime
from spoold.model.limits import MIB, PhaseLimits
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import RunCancelledError, runner, schedule, verdict, wire
from spoold.sandbox.messages import Cancel, Done, Message
from spoold.sandbox.stream import Stream
from tests.sandbox.conftest import RUN, AnySandbox, Mode, make_job, settings_for
from tests.waiting import PATIENCE, until

LONG = replace(RUN, time=600.0, cpu_time=600.0)


class Going:
    """A job that runs in a thread, and the phases that it has told so far."""

    def __init__(self, sandbox: AnySandbox, **parts: Any) -> None:
        self.cancelled = threading.Event()
        self.told: dict[str, Phase] = {}
        pool = ThreadPoolExecutor(1)
        job = make_job(**parts)
        self.future: Future[JobResult] = pool.submit(sandbox.run, job, self.told.__setitem__, self.cancelled)
        pool.shutdown(wait=False)

    def cancel(self) -> Phase:
        """Cancel the job, and return the last phase that it told."""
        self.cancelled.set()
        with pytest.raises(RunCancelledError):
            self.future.result(timeout=PATIENCE)
        return list(self.told.values())[-1]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give supervisors time to answer, even when the machine stalls."""
    monkeypatch.setattr(runner, "ENDING_TIMEOUT", PATIENCE)


@pytest.fixture
def has_process() -> Callable[[str, int], bool]:
    """Return a function that tells whether ``count`` command lines contain a text, which only a job's can."""
    return lambda text, count: sum(text.encode() in each for each in command_lines()) >= count


def command_lines() -> Iterator[bytes]:
    """Yield the command lines of all processes of this host, where the engines run too."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            yield (process / "cmdline").read_bytes()


def containers_with(api: docker.APIClient, spool: str, text: str) -> list[str]:
    """Return the containers in the sandboxes of ``spool``, once for each process whose command line contains a text."""
    found = []
    for each in api.containers(filters={"label": f"spoold.spool={spool}"}):
        with suppress(docker.errors.APIError):  # it has ended meanwhile
            found += [each["Id"] for line in api.top(each["Id"])["Processes"] or () if text in line[-1]]
    return found


def marked(script: str) -> tuple[str, str]:
    """Replace MARK in a script by a duration that no other job has. Return the script and the duration."""
    mark = f"600.{secrets.randbelow(10**9):09}"
    return script.replace("MARK", mark), mark


# A job's script, and the number of processes that show that it is under way.
JOBS = {
    "it sleeps": ("sleep MARK", 1),
    "it ignores signals": ("trap '' INT TERM HUP QUIT CHLD; sleep MARK", 1),
    "it is stopped": ("bash -c 'kill -STOP $PPID $$; : MARK'", 1),
    "it left a child to nobody": ("( (sleep MARK &) ); exec sleep MARK", 2),
    "it forks": ("f() { sleep MARK & f & f & wait; }; f 2>/dev/null", 8),
    "it computes": ("sleep MARK & while :; do :; done", 1),
    "it closed its output": ("exec >&- 2>&-; sleep MARK", 1),
}


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("script", JOBS)
def test_what_it_came_to_is_told(
    sandbox: AnySandbox, plain_shell: str, has_process: Callable[[str, int], bool], script: str
) -> None:
    body, count = JOBS[script]
    code, mark = marked(f"echo out; echo err >&2; {body}")
    going = Going(sandbox, run_sh=code, shell=plain_shell, limits=LONG)
    until(lambda: has_process(mark, count))
    phase = going.cancel()
    assert list(going.told) == ["run"]
    assert phase.outcome is Outcome.CANCELLED
    assert (phase.stdout, phase.stderr, phase.signal, phase.exit_code) == ("out\n", "err\n", "SIGKILL", None)
    assert (phase.stdout_bytes, phase.stdout_truncated) == (4, False)
    assert isinstance(phase.time, float)
    assert phase.time > 0
    assert isinstance(phase.cpu_time, float)
    assert isinstance(phase.memory, int)
    assert phase.memory > 0
    until(lambda: not has_process(mark, 1))


@pytest.mark.usefixtures("patient")
def test_its_output_is_within_its_limit(
    sandbox: AnySandbox, plain_shell: str, has_process: Callable[[str, int], bool]
) -> None:
    code, mark = marked("head -c 100000 /dev/zero | tr '\\0' x; sleep MARK & yes")
    limits = replace(LONG, stdout=1000)
    going = Going(sandbox, run_sh=code, shell=plain_shell, limits=limits)
    until(lambda: has_process(mark, 1))
    phase = going.cancel()
    assert phase.outcome is Outcome.CANCELLED
    assert (phase.stdout, phase.stdout_truncated) == ("x" * 1000, True)
    assert isinstance(phase.stdout_bytes, int)
    assert phase.stdout_bytes >= 100_000


@pytest.mark.usefixtures("patient")
def test_its_memory_is_measured(sandbox: AnySandbox, plain_shell: str, has_process: Callable[[str, int], bool]) -> None:
    code, mark = marked("head -c 10000000 /dev/zero >file; sleep MARK")
    going = Going(sandbox, run_sh=code, shell=plain_shell, limits=LONG)
    until(lambda: has_process(mark, 1))
    phase = going.cancel()
    assert isinstance(phase.memory, int)
    assert 10_000_000 <= phase.memory <= 10_000_000 + 16 * MIB


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("ended", ["compile", "run"])
def test_phases_that_ended_are_told_as_they_are_and_later_ones_not_at_all(
    sandbox: AnySandbox, plain_shell: str, has_process: Callable[[str, int], bool], ended: str
) -> None:
    code, mark = marked("echo at it; sleep MARK")
    scripts = {"compile_sh": "echo made", "run_sh": code} if ended == "run" else {"compile_sh": code, "run_sh": "true"}
    going = Going(sandbox, **scripts, shell=plain_shell, limits=LONG, compile_limits=LONG)
    until(lambda: has_process(mark, 1))
    going.cancel()
    told = {name: (phase.outcome, phase.stdout) for name, phase in going.told.items()}
    at_it = (Outcome.CANCELLED, "at it\n")
    assert told == ({"compile": (Outcome.OK, "made\n"), "run": at_it} if ended == "run" else {"compile": at_it})


@pytest.mark.usefixtures("patient")
def test_between_two_phases_the_next_is_not_begun(sandbox: AnySandbox, plain_shell: str) -> None:
    cancelled = threading.Event()
    told: dict[str, Phase] = {}

    def on_phase(name: str, phase: Phase) -> None:
        told[name] = phase
        cancelled.set()

    with pytest.raises(RunCancelledError):
        sandbox.run(make_job("true", compile_sh="true", shell=plain_shell), on_phase, cancelled)
    assert {name: phase.outcome for name, phase in told.items()} == {"compile": Outcome.OK}


def test_before_it_began_nothing_is_told(sandbox: AnySandbox, plain_shell: str) -> None:
    cancelled = threading.Event()
    cancelled.set()
    told: dict[str, Phase] = {}
    with pytest.raises(RunCancelledError):
        sandbox.run(make_job("true", shell=plain_shell), told.__setitem__, cancelled)
    assert told == {}


@pytest.mark.usefixtures("patient")
def test_a_job_that_has_ended_stays_as_it_is(
    sandbox: AnySandbox, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor hears of the cancel after it has told the end. Its container serves other jobs."""
    message = Stream.message

    def at_the_last_moment(stream: Stream, patience: float, *expected: type[Message]) -> Message:
        if stream.cancelled is cancelled and not cancelled.is_set():
            until(lambda: not stream.silent())
            stream._pipe.send(memoryview(wire.frame(Cancel())))  # crosses the message about the end
            cancelled.set()
        return message(stream, patience, *expected)

    cancelled = threading.Event()
    died = sandbox.counts.died
    with monkeypatch.context() as patched:
        patched.setattr(Stream, "message", at_the_last_moment)
        result = sandbox.run(make_job("echo hi", shell=plain_shell), lambda *_: None, cancelled)
    assert cancelled.is_set()
    assert (result.run.outcome, result.run.stdout, result.compile) == (Outcome.OK, "hi\n", SKIPPED_PHASE)
    for _ in range(3):
        again = sandbox.run(make_job("echo hi", shell=plain_shell), lambda *_: None, threading.Event())
        assert again.run.stdout == "hi\n"
    assert sandbox.counts.died == died


def test_a_cancel_cuts_no_output_of_a_phase_that_has_ended(
    sandbox: AnySandbox, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel comes after the end was told, while megabytes of output are on their way."""
    cancelled = threading.Event()

    def cancelled_now(done: Done, limits: PhaseLimits) -> bool:
        cancelled.set()
        return verdict.is_possible(done, limits)

    monkeypatch.setattr(runner, "is_possible", cancelled_now)
    limits = replace(RUN, stdout=8 * MIB)
    job = make_job("head -c 8000000 /dev/zero | tr '\\0' x", shell=plain_shell, limits=limits)
    result = sandbox.run(job, lambda *_: None, cancelled)
    assert (result.run.outcome, len(result.run.stdout)) == (Outcome.OK, 8_000_000)


@pytest.fixture
def own(
    docker_host: str, runtime: Runtime, tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DockerSandbox]:
    """Yield a sandbox with one container for this test. When it was used, it is removed soon on a busy machine too."""
    monkeypatch.setattr(schedule, "LINGER", 0.1)
    made = DockerSandbox(settings_for(docker_host, str(tmp_path), waiting=1, mode=mode), runtime)
    made.prepare()
    yield made
    made.close()


def test_a_container_that_does_not_answer_is_not_waited_for(
    own: AnySandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str
) -> None:
    code, mark = marked("echo out; sleep MARK")
    going = Going(own, run_sh=code, shell=plain_shell, limits=LONG)
    found: list[str] = []

    def begun() -> bool:
        found.extend(containers_with(api, str(tmp_path), mark))
        return bool(found)

    until(begun)
    (container,) = found
    api.pause(container)
    phase = going.cancel()
    assert (phase.outcome, phase.stdout, phase.signal) == (Outcome.CANCELLED, "", "SIGKILL")
    assert isinstance(phase.time, float)
    label = {"label": f"spoold.spool={tmp_path}"}
    until(lambda: container not in {each["Id"] for each in api.containers(all=True, filters=label)})
