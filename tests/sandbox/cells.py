"""A sandbox with one recycled container, and access to the container that waits in it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.model.job import Job, JobResult, Runtime
from spoold.model.limits import Limits
from spoold.sandbox import runner
from spoold.sandbox.runner import Runner
from tests.sandbox.conftest import AnySandbox, made_sandbox, settings_for
from tests.waiting import PATIENCE, until

Make = Callable[..., AnySandbox]


@pytest.fixture
def make(engine_at: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Yield a function that makes a sandbox with one recycled container. All are closed at the end.

    A container has time to get ready again, even when the machine stalls.
    """
    made: list[AnySandbox] = []
    monkeypatch.setattr(runner, "CLEANUP_TIMEOUT", PATIENCE)

    def _make(*, limits: Limits | None = None, **options: object) -> AnySandbox:
        settings = replace(settings_for(engine_at, str(tmp_path / str(len(made)))), limits=limits or Limits())
        chosen = replace(settings.sandbox, mode="recycled", **{"waiting": 1, **options})
        made.append(made_sandbox(replace(settings, sandbox=chosen), runtime))
        made[-1].prepare()
        return made[-1]

    yield _make
    for sandbox in made:
        sandbox.close()


def go(sandbox: AnySandbox, job: Job) -> JobResult:
    return sandbox.run(job, lambda *_: None, threading.Event())


def waiting(sandbox: AnySandbox) -> Runner[Any]:
    """Wait until the container waits for a job, and return it."""
    found: list[Runner[Any]] = []

    def waits() -> bool:
        assert sandbox._pool is not None
        found.extend(sandbox._pool._waiting)
        return bool(found)

    until(waits, lambda: "no container waits")
    return found[0]


def container(sandbox: AnySandbox) -> str:
    """Return the id of the container that waits for a job."""
    found: str = waiting(sandbox).transport.id
    return found


def family(pid: int) -> list[int]:
    """Return a process and all its descendants. Some of them may have ended meanwhile."""
    found = [pid]
    for each in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return found
