"""A job on trial: what the engine really gives it and keeps from it, and what happens at its limits.

The trial calls the executor's own ``prepare`` and runs a few jobs, under a name that only the doctor uses. So it
touches nothing of an executor that runs meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from spoold.config import ExecutorSettings, SandboxSettings, Settings
from spoold.model.errors import OperatorError, SpooldError
from spoold.model.findings import Finding, Subject
from spoold.model.job import Runtime, trial_job
from spoold.model.limits import MIB
from spoold.model.response import Outcome, Phase
from spoold.sandbox import program
from spoold.sandbox.pooled import PooledSandbox
from spoold.sandbox.stream import BrokenError
from spoold.sandbox.view import STORE

Tried = PooledSandbox[Any, Any]
WHAT = Subject("a job on trial")
WHOLE = "a job sees the whole store, though it cannot list it"
MEMORY = 64 * MIB
CPU_TIME = 30  # seconds; jobs of a busy host wait for a CPU, which is no fault of the host
KIND = b'#!/bin/sh\nstat -f -c %T "$(command -v stat)"\n'
BOMB = b"#!/bin/sh\nx=x; while :; do x=$x$x; done\n"
FILES = b"#!/bin/sh\ncd /tmp; for ((n = 0; n < 250000; n++)); do : >$n || exit 0; done 2>/dev/null\n"
FEW = 16384  # files in each job, for which a host can spare the kernel's memory
PLEA = b"#!/bin/sh\n! echo 0 >/proc/self/oom_score_adj\n"


def on_trial(settings: Settings) -> Settings:
    """Return settings for an engine on trial, under a name that only the doctor uses."""
    return replace(
        settings,
        executor=ExecutorSettings(name=f"doctor-{os.getpid()}"),
        sandbox=replace(settings.sandbox, waiting=0),
    )


def no_runtime() -> Finding:
    """Return the finding where no job can be tried yet."""
    return WHAT.unknown(
        "no builder has provided a runtime yet, or this user may not read it",
        "start `spoold builder`, then run the doctor again as root",
    )


def examine(sandbox: Tried, settings: Settings, runtime: Runtime, remedy: str) -> Iterator[Finding]:
    """Prepare a sandbox that was made from ``on_trial``, yield the findings, and close it.

    ``remedy`` mends an engine that runs no job at all.
    """
    try:
        sandbox.prepare()
        yield _started(sandbox)
        yield _of_root(sandbox)
        yield _view(sandbox, settings.sandbox)
        yield _layer(sandbox, settings, runtime)
        yield _memory(sandbox, settings)
        yield _files(sandbox, settings)
        yield _importance(sandbox, settings)
    except OperatorError as error:
        yield WHAT.refused(str(error))
    except SpooldError as error:
        yield WHAT.refused(f"the job cannot run: {error}", remedy)
    except BrokenError as error:
        yield WHAT.refused(f"the job cannot run, by a fault of spoold or of its runtime: {error}")
    finally:
        sandbox.close()


def _started(sandbox: Tried) -> Finding:
    plan = sandbox.plan
    assert plan is not None  # noqa: S101 - prepare() has made one
    start = f"{plan.settings.sandbox.mode} containers {sandbox.started}"
    seen = (
        "seccomp, no-new-privileges and the memory limit are on"
        if plan.resizable
        else "jobs have a kernel of their own"
    )
    return WHAT.fine(f"{start}; {seen}")


def _of_root(sandbox: Tried) -> Finding:
    """Check which files the first process of a container, which is root in there, has loaded."""
    what = Subject("programs that start as root in containers")
    container = sandbox.on_trial()
    try:
        maps = Path(f"/proc/{container.transport.pid}/maps").read_text(errors="replace")
    except OSError as error:
        return what.unknown(f"/proc/PID/maps cannot be read: {error.strerror}", "run the doctor as root, on this host")
    finally:
        container.close()
    return _of_what_is_loaded(what, maps)


def _of_what_is_loaded(what: Subject, maps: str) -> Finding:
    """Judge the files that a process has mapped, as /proc/pid/maps in proc(5) lists them."""
    words = [line.split(maxsplit=5) for line in maps.splitlines()]
    loaded = {line[5] for line in words if len(line) == 6}
    theirs = sorted(path for path in loaded if path.startswith(STORE))
    if theirs:
        return what.refused(
            f"a program of the store starts as root, and the builder can change it: {theirs[0]}",
            "restart the executor with the same version of spoold as this doctor",
        )
    if not any(path == program.IN_IMAGE for path in loaded):
        return what.unknown("the kernel does not list the supervisor's files", "see which runtime the engine uses")
    return what.fine("all come from the image, none from the Nix store")


def _view(sandbox: Tried, settings: SandboxSettings) -> Finding:
    what = Subject("view of the Nix store")
    if sandbox.viewed:
        return what.fine("a job sees its own closure only")
    if settings.view == "off":
        return what.warning(f"{WHOLE}: sandbox.view is off", 'set sandbox.view = "auto"')
    return what.warning(
        f"{WHOLE}: this kernel, engine or runtime does not allow the porter's mounts",
        'use Linux 5.12 or later and a rootful engine, or set sandbox.mode = "recycled". With '
        'sandbox.view = "required" the executor takes no work here',
    )


def _layer(sandbox: Tried, settings: Settings, runtime: Runtime) -> Finding:
    """Run a job that says on which kind of file system its own store is."""
    what = Subject("locks and watches in the Nix store")
    said = _run(sandbox, settings, KIND, runtime.closure).stdout.strip()
    if said == "overlayfs":
        return what.fine("no other job notices them: each job has a layer of its own on the store")
    return what.note(
        "other jobs notice them, so two jobs can talk, and a job can learn which programs others run",
        "load the kernel module overlay. Recycled containers need Linux 5.11 or later, single-use ones the porter",
    )


def _memory(sandbox: Tried, settings: Settings) -> Finding:
    """Run a job that takes more memory than it may."""
    outcome = _run(sandbox, settings, BOMB, []).outcome
    what = Subject("a job that takes too much memory")
    if outcome is Outcome.MEMORY_LIMIT:
        return what.fine(f"is ended at its limit of {MEMORY >> 20} MiB")
    return what.refused(f"is not ended at its limit: its outcome is {outcome}", "give the engine the memory controller")


def _files(sandbox: Tried, settings: Settings) -> Finding:
    """Run a job that makes empty files without end. The kernel keeps about 1 KiB of its own memory for each."""
    what = Subject("a job that makes too many files")
    if _run(sandbox, settings, FILES, []).outcome is Outcome.MEMORY_LIMIT:
        return what.fine("is ended at its memory limit")
    if settings.limits.work_inodes <= FEW:
        return what.fine(f"finds no room for more than {settings.limits.work_inodes} files in each of its directories")
    return what.warning(
        "is not ended at its memory limit: the kernel does not count the memory that it uses for the files",
        f"boot without cgroup.memory=nokmem, or set limits.work_inodes = {FEW}",
    )


def _importance(sandbox: Tried, settings: Settings) -> Finding:
    """Run a job that asks the kernel to spare it where the host's memory is short."""
    what = Subject("a job on a host that is short of memory")
    if _run(sandbox, settings, PLEA, []).outcome is Outcome.OK:
        return what.fine("is ended before the host's own programs, and cannot change that")
    return what.warning(
        "can make the kernel end the host's own programs first, because it may write its oom_score_adj",
        "use Linux 5.19 or later with Landlock: /sys/kernel/security/lsm must name landlock",
    )


def _run(sandbox: Tried, settings: Settings, script: bytes, closure: list[str]) -> Phase:
    """Return the run of a job of one script."""
    limits = replace(settings.limits.run.default, memory=MEMORY, time=10 * CPU_TIME, cpu_time=CPU_TIME)
    job = trial_job("doctor", script, limits, closure)
    return sandbox.run(job, lambda *_: None, threading.Event()).run
