"""A container never has more memory than was counted when its job was let in, and gives it back afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from spoold.model.job import Job
from spoold.model.limits import COMPILE_DEFAULT, MIB, RUN_DEFAULT
from spoold.model.response import Outcome
from spoold.sandbox import sizes
from spoold.sandbox.pool import Pool
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import Size
from spoold.sandbox.transport import Transport
from tests.sandbox.conftest import RUN, AnySandbox, Run

SHARED = """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
ctypes.memset(libc.shmat(libc.shmget(0, 700 << 20, 0o1600), None, 0), 1, 700 << 20)
"""
JOBS = {
    "defaults": {"limits": RUN_DEFAULT},
    "little": {"limits": RUN},
    "much": {"limits": replace(RUN, memory=1200 * MIB)},
    "files that compiling leaves": {"compile_sh": "head -c 200M /dev/zero >/tmp/left", "limits": RUN_DEFAULT},
    "memory that compiling leaves": {
        "compile_sh": "exec python3 shared.py",
        "files": {"shared.py": SHARED.encode()},
        "limits": RUN_DEFAULT,
    },
    "files that a small limit leaves no room for": {
        "compile_sh": "head -c 60M /dev/zero >left; head -c 60M /dev/zero >/tmp/left",
        "compile_limits": replace(COMPILE_DEFAULT, memory=128 * MIB),
    },
}


@pytest.mark.parametrize("kind", JOBS)
def test_no_container_gets_more_than_its_job_asked_for(
    run: Run, sandbox: AnySandbox, python_shell: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen: list[tuple[int, int]] = []
    tried = sandbox.on_trial()
    tried.close()
    carrier = type(tried.transport)
    kept, start = carrier.resize, Runner._phases
    asked = 0

    def note(container: Transport, size: Size) -> None:
        kept(container, size)
        seen.append((size.memory, asked))

    def begin(container: Runner[Any], stream: object, job: Job, *more: object, **others: object) -> object:
        nonlocal asked
        asked = sizes.asked(container.plan.settings.limits, job)
        return start(container, stream, job, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(carrier, "resize", note)
    monkeypatch.setattr(Runner, "_phases", begin)
    result = run("true", shell=python_shell, **JOBS[kind])  # type: ignore[arg-type]
    assert result.run.outcome is Outcome.OK, result
    assert seen
    assert all(size <= asked for size, asked in seen), seen


def test_what_a_job_leaves_in_memory_goes_before_its_container(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    give = Pool.give

    def look(pool: Pool[Any], container: Runner[Any], *, again: bool = False) -> None:
        ended.append(again or not container.alive())
        give(pool, container, again=again)

    monkeypatch.setattr(Pool, "give", look)
    assert (
        run(
            "for n in 1 2 3 4; do head -c 15M /dev/zero >/tmp/$n; done", limits=replace(RUN, time=300, cpu_time=300)
        ).run.outcome
        is Outcome.OK
    )
    assert ended == [True]
