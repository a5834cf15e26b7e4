"""An executor or a builder as a process of its own that waits in the middle of its work.

``python -m tests.crash.holder ROLE ROOT NAME SKEW``: beside ROOT it makes ``NAME.began`` once it holds something. It
goes on when ``NAME.go`` exists, and its results contain NAME. If it is asked to stop meanwhile, it makes
``NAME.asked``. The file server's clock is off by SKEW seconds. It ignores a lost lease, so that only the names on disk
keep it from doing harm.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.model.job import BuildResult, Job, JobResult
from spoold.model.response import SKIPPED_PHASE, Fetching, Outcome, Phase, Stream, finished_phase
from spoold.sandbox import Judge
from tests.actors.bench import settings_for
from tests.standins import PlainBackend, PlainSandbox, store_path


def skewed(real: Callable[..., None], skew: float) -> Callable[..., None]:
    """Return an ``os.utime`` for a file server whose clock is off by ``skew`` seconds."""

    def utime(path: Any, times: tuple[float, float] | None = None, **options: Any) -> None:
        if times is None and "ns" not in options:
            times = (time.time() + skew,) * 2
        real(path, times, **options)

    return utime


class Waits:
    """Wait until the work may end."""

    def __init__(self, place: Path, name: str) -> None:
        self.place = place
        self.name = name

    def wait(self, cancelled: threading.Event) -> None:
        (self.place / f"{self.name}.began").touch()
        while not (self.place / f"{self.name}.go").exists():
            if cancelled.is_set():
                (self.place / f"{self.name}.asked").touch()
            time.sleep(0.01)


class WaitingSandbox(PlainSandbox):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def run(
        self,
        job: Job,  # noqa: ARG002
        on_phase: Callable[[str, Phase], None],  # noqa: ARG002
        cancelled: threading.Event,
        judge: Judge | None = None,  # noqa: ARG002
        on_output: Callable[[str, Phase], None] | None = None,  # noqa: ARG002
    ) -> JobResult:
        self.waits.wait(cancelled)
        said = Stream(self.waits.name.encode(), len(self.waits.name))
        phase = finished_phase(stdout=said, stderr=Stream(b"", 0), time=0.1, outcome=Outcome.OK, exit_code=0)
        return JobResult(compile=SKIPPED_PHASE, run=phase)


class WaitingBackend(PlainBackend):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def build(
        self,
        build_id: str,
        expression: str,
        nixpkgs: str,
        cancelled: threading.Event,
        tell: Callable[[Fetching], None] | None = None,
    ) -> BuildResult:
        self.waits.wait(cancelled)
        made = super().build(build_id, expression, nixpkgs, threading.Event(), tell)
        return msgspec.structs.replace(made, shell=store_path(self.waits.name))


def main(role: str, root: Path, name: str, skew: float) -> None:
    os.utime = skewed(os.utime, skew)
    settings = settings_for(root)
    settings = msgspec.structs.replace(settings, executor=msgspec.structs.replace(settings.executor, name=name))
    waits = Waits(root.parent, name)
    actor: Executor | Builder
    if role == "executor":
        actor = Executor(settings, lambda _: WaitingSandbox(waits))
    else:
        actor = Builder(settings, WaitingBackend(waits))
    actor.start()
    while not (root.parent / f"{name}.end").exists():
        actor.step()
        time.sleep(0.02)
    actor.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
