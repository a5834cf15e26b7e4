"""A job's output is told during the run if its owner asked for that. Nothing changes for the job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from msgspec.structs import replace

from spoold.model.errors import TemporaryError
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.limits import MIB
from spoold.model.response import Outcome, Phase
from spoold.sandbox import RunCancelledError, runner
from spoold.sandbox.facts import TAIL
from tests.engines import SLOWNESS
from tests.sandbox.conftest import RUN, AnySandbox, Mode, longer, made_sandbox, make_job, settings_for
from tests.sandbox.test_cancel import containers_with, marked
from tests.waiting import PATIENCE

LONG = replace(RUN, time=600.0, cpu_time=600.0)
SEQ = "".join(f"{number}\n" for number in range(1, 40001))  # 228,894 bytes


class Told:
    """The phases that a job tells during the run. ``ends`` is set once ``enough`` accepts one."""

    def __init__(self, enough: Callable[[Phase], bool]) -> None:
        self.enough = enough
        self.ends = threading.Event()
        self.so_far: list[tuple[str, Phase]] = []
        self.phases: dict[str, Phase] = {}

    def on_output(self, name: str, phase: Phase) -> None:
        assert name not in self.phases, "the phase has ended already"
        self.so_far.append((name, phase))
        if self.enough(phase):
            self.ends.set()

    def run(self, sandbox: AnySandbox, job: Job) -> JobResult:
        """Run a job, and cancel it at the end."""
        return sandbox.run(replace(job, live=True), self.phases.__setitem__, self.ends, None, self.on_output)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "ENDING_TIMEOUT", PATIENCE)


@pytest.mark.alike
@pytest.mark.parametrize("kept", [1000, 65536, 8 * MIB])
def test_the_ends_come_while_it_runs(sandbox: AnySandbox, plain_shell: str, kept: int) -> None:
    told = Told(lambda phase: (phase.stdout_bytes, phase.stderr_bytes) == (len(SEQ), 5))
    limits = replace(LONG, stdout=kept)
    script = "seq 1 40000; echo oops >&2; sleep 600"
    with pytest.raises(RunCancelledError):
        told.run(sandbox, make_job(script, shell=plain_shell, limits=limits))
    name, phase = told.so_far[-1]
    assert (name, phase.stderr, phase.stderr_bytes, phase.stderr_truncated) == ("run", "oops\n", 5, False)
    assert (phase.stdout, phase.stdout_bytes, phase.stdout_truncated) == (SEQ[-TAIL:], len(SEQ), True)
    assert not isinstance(phase.outcome, Outcome)
    assert isinstance(phase.time, float)
    assert phase.time >= 1.0
    assert isinstance(phase.cpu_time, float)
    assert isinstance(phase.memory, int)
    end = told.phases["run"]
    assert (end.outcome, end.stdout, end.stdout_bytes) == (Outcome.CANCELLED, SEQ[:kept], len(SEQ))


@pytest.mark.alike
def test_compiling_is_told_too(sandbox: AnySandbox, plain_shell: str) -> None:
    told = Told(lambda phase: phase.stdout == "made\n")
    job = make_job("true", compile_sh="echo made; sleep 600", shell=plain_shell, compile_limits=LONG)
    with pytest.raises(RunCancelledError):
        told.run(sandbox, job)
    assert {name for name, _ in told.so_far} == {"compile"}
    assert told.phases["compile"].outcome is Outcome.CANCELLED


@pytest.mark.alike
def test_it_is_told_again_and_again(sandbox: AnySandbox, plain_shell: str) -> None:
    sizes: list[int] = []

    def again(phase: Phase) -> bool:
        sizes.append(len(phase.stdout))
        return len(set(sizes)) == 2

    with pytest.raises(RunCancelledError):
        Told(again).run(sandbox, make_job("while echo tick; do sleep 0.5; done", shell=plain_shell, limits=LONG))
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("script", "limits", "outcome"),
    [
        ("yes", {"time": 2.0}, Outcome.TIME_LIMIT),
        ("yes", {"cpu_time": 3.0}, Outcome.CPU_LIMIT),
        ("yes & while :; do :; done", {"cpu_time": 3.0}, Outcome.CPU_LIMIT),
        ("yes & sleep SECONDS; head -c 200000000 /dev/zero >file", {"file_size": 256 * MIB}, Outcome.MEMORY_LIMIT),
        ("echo; sleep SECONDS; yes", {"on_output_limit": "end"}, Outcome.OUTPUT_LIMIT),
    ],
)
def test_who_floods_is_limited_as_ever(
    sandbox: AnySandbox, plain_shell: str, script: str, limits: dict[str, Any], outcome: Outcome
) -> None:
    def flood(times: float) -> tuple[Told, JobResult]:
        told = Told(lambda _: False)
        more = {
            name: each * times * SLOWNESS if name in ("time", "cpu_time") else each for name, each in limits.items()
        }
        code = script.replace("SECONDS", str(2.0 * times))
        return told, told.run(sandbox, make_job(code, shell=plain_shell, limits=replace(LONG, **more)))

    told, result = longer(flood, lambda both: both[0].so_far)
    assert result.run.outcome is outcome
    assert told.phases["run"] == result.run
    assert told.so_far


@pytest.mark.alike
def test_nobody_is_told_who_did_not_ask(sandbox: AnySandbox, plain_shell: str) -> None:
    told = Told(lambda _: False)
    job = make_job("echo begun; sleep 2", shell=plain_shell)
    result = sandbox.run(job, told.phases.__setitem__, told.ends, None, told.on_output)
    assert (result.run.stdout, told.so_far) == ("begun\n", [])


@pytest.mark.alike
def test_whoever_asks_may_not_listen(sandbox: AnySandbox, plain_shell: str) -> None:
    job = replace(make_job("echo begun; sleep 2", shell=plain_shell), live=True)
    assert sandbox.run(job, lambda *_: None, threading.Event()).run.stdout == "begun\n"


@pytest.mark.alike
def test_what_is_no_text_is_told_in_base64(sandbox: AnySandbox, plain_shell: str) -> None:
    told = Told(lambda phase: phase.stdout_bytes == 4)
    with pytest.raises(RunCancelledError):
        told.run(sandbox, make_job(r"printf '\377\376\0a'; sleep 600", shell=plain_shell, limits=LONG))
    phase = told.so_far[-1][1]
    assert (phase.stdout, phase.stdout_encoding) == ("//4AYQ==", "base64")


def test_its_container_serves_others_as_ever(
    engine_at: str, runtime: Runtime, tmp_path: Path, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode: Mode = "recycled"
    own = made_sandbox(settings_for(engine_at, str(tmp_path), waiting=1, mode=mode), runtime)
    monkeypatch.setattr(runner, "CLEANUP_TIMEOUT", PATIENCE)
    try:
        own.prepare()
        jobs = 0

        def flood(times: float) -> Told:
            nonlocal jobs
            jobs += 1
            told = Told(lambda _: False)
            result = told.run(own, make_job(f"yes & sleep {2 * times}; kill $!", shell=plain_shell, limits=LONG))
            assert result.run.outcome is Outcome.OK
            return told

        for _ in range(3):
            assert longer(flood, lambda told: told.so_far).so_far
            jobs += 1
            assert (
                own.run(make_job("ls /job; echo hi", shell=plain_shell), lambda *_: None, threading.Event()).run.stdout
                == "run.sh\nhi\n"
            )
        assert (own.counts.reused, own.counts.died) == (jobs, 0)
    finally:
        own.close()


def test_a_container_that_is_killed_meanwhile_is_no_fault_of_the_jobs(
    sandbox: AnySandbox, api: docker.APIClient, plain_shell: str
) -> None:
    code, mark = marked("sleep MARK & yes")

    def kill(_: Phase) -> bool:
        for container in set(containers_with(api, sandbox._settings.spool.path, mark)):
            api.kill(container)
        return False

    with pytest.raises(TemporaryError, match="lost"):
        Told(kill).run(sandbox, make_job(code, shell=plain_shell, limits=LONG))
