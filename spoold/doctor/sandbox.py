"""The doctor's look at the engine: what it says of itself, who may use it, and what a job on trial meets.

The trial is the executor's own ``prepare`` and two jobs, under a name of the doctor's own, so nothing of an executor
that runs meanwhile is touched.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from spoold.config import ExecutorSettings, SandboxSettings, Settings
from spoold.doctor import kernel
from spoold.engines.docker import checks
from spoold.engines.docker.connection import DockerConnection
from spoold.engines.docker.container import start as start_container
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.engines.docker.view import STORE
from spoold.host import accounts, machine, packages, proc
from spoold.model import holes
from spoold.model.errors import OperatorError, SpooldError
from spoold.model.findings import Finding, Level, Subject
from spoold.model.job import Runtime, trial_job
from spoold.model.limits import MIB
from spoold.model.response import Outcome, Phase
from spoold.sandbox import interpreter
from spoold.sandbox.inside import sockets

EXECUTOR, DOCKER = "spoold-executor", "docker"  # its user and its further group, as the unit has them
OLD = timedelta(days=548)  # since an engine was built; all who maintain one publish more often
TRIAL = Subject("a job on trial")
TRIAL_MEMORY = 64 * MIB
# Settings of the kernel that forbid user namespaces when they are 0. (Ubuntu's AppArmor switch depends on the profile:
# the trial finds out.)
SWITCHES = ("user.max_user_namespaces", "kernel.unprivileged_userns_clone")
KIND = b'#!/bin/sh\nstat -f -c %T "$(command -v stat)"\n'
BOMB = b"#!/bin/sh\nx=x; while :; do x=$x$x; done\n"
PLEA = b"#!/bin/sh\n! echo 0 >/proc/self/oom_score_adj\n"


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield what is found; without a ``runtime``, which a builder provides, no container is tried."""
    what, engine = Subject("Docker Engine"), DockerConnection(settings.docker.host)
    yield from _socket(engine.where)
    yield _processes()
    yield _cores()
    yield from kernel.examine()
    try:
        with engine.client() as api:
            information, version = api.info(), api.version()
    except OperatorError as error:
        yield what.unknown(str(error), "run the doctor as the executor's user, or as root")
        return
    except SpooldError as error:
        yield what.refused(str(error), "start it, or set docker.host")
        return
    yield from _versions(version)
    found = checks.of_engine(information, settings.docker, settings.sandbox.mode)
    yield from found
    if "crun" in (information.get("Runtimes") or ()):
        yield _crun()
    if settings.sandbox.mode == "recycled":
        yield from _namespaces()
    if any(finding.level is Level.REFUSED for finding in found):
        return
    if runtime is None:
        yield TRIAL.unknown(
            "what a builder provides for sandboxes is not there, or closed to this user",
            "start `spoold builder`, then ask the doctor again, as root",
        )
        return
    yield from _trial(settings, runtime)
    yield from _sockets()


def _socket(where: str) -> Iterator[Finding]:
    if not where.startswith("unix://"):
        yield Subject(f"Docker at {where}").warning(
            "whoever reaches this address and is let in is root on the engine's host",
            "use the Unix socket, or TLS with client certificates, and a firewall",
        )
        return
    path = where.removeprefix("unix://")
    what = Subject(f"Docker's socket {path}")
    try:
        found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode)
    except OSError:
        return  # whoever connects says it better
    if mode & 0o006:
        yield what.refused(f"mode {mode:04o}: every user of this host can become root through it", f"chmod 0660 {path}")
    else:
        yield what.fine(f"mode {mode:04o}")
    yield from _reach(path, found)


def _processes() -> Finding:
    what = Subject("processes of jobs and builds, for other users of this host")
    if machine.hides_processes():
        return what.fine("are hidden: /proc is mounted with hidepid")
    return what.note(
        "their command lines can be read, so the arguments of jobs, and which packages they see; never a job's "
        "environment, input or files",
        "mount -o remount,hidepid=invisible /proc, and the same option in /etc/fstab",
    )


def _cores() -> Finding:
    """Look where the kernel sends core dumps: a limit of 1 keeps them from programs and files, not from a socket."""
    what = Subject("core dumps of jobs")
    pattern = machine.sysctl("kernel.core_pattern")
    if not pattern.startswith("@"):
        return what.fine("are not made")
    return what.refused(
        f"go to a server on this host whatever their limit is: kernel.core_pattern is {pattern!a}",
        "sysctl kernel.core_pattern=core, or a pattern that begins with |",
    )


def _reach(path: str, found: os.stat_result) -> Iterator[Finding]:
    """Tell whether the executor's user, where it has one of its own, may use the socket."""
    uid = accounts.uid_of(EXECUTOR)
    if uid is None:
        return
    what = Subject(f"Docker's socket, for {EXECUTOR}")
    groups = accounts.groups_of(EXECUTOR) | {accounts.gid_of(DOCKER)}  # the latter by its unit
    if found.st_uid == uid or (found.st_gid in groups and found.st_mode & stat.S_IWGRP):
        yield what.fine("can be used")
    else:
        remedy = f"chgrp {DOCKER} {path}; chmod g+rw {path} (or start the engine again)"
        yield what.warning("is closed", remedy)


def _versions(version: dict[str, Any]) -> Iterator[Finding]:
    yield _age(version)
    for component in version.get("Components") or ():
        if component["Name"] in holes.HOLES:
            own = packages.version_of(component["Name"])
            yield holes.finding(component["Name"], component["Version"], own)


def _crun() -> Finding:
    """Ask crun itself: the engine tells of its default runtime only."""
    try:
        said = proc.run(["crun", "--version"], packages.BOUNDS).stdout.data.decode(errors="replace")
    except OperatorError:
        said = ""
    version = said.partition("crun version ")[2].split("\n")[0]
    if not version:
        return Subject("crun").unknown("the engine has it, and it is not on the PATH of this command")
    return holes.finding("crun", version, packages.version_of("crun"))


def _namespaces() -> Iterator[Finding]:
    """Look for what keeps recycled containers from making namespaces; whether they can is for the trial to say."""
    what = Subject('user namespaces, for sandbox.mode = "recycled"')
    wrong = [name for name in SWITCHES if machine.sysctl(name) == "0"]
    for name in wrong:
        better = "15000" if name.startswith("user.max") else "1"
        yield what.refused(f"{name} is 0", f"sysctl {name}={better}")
    if not wrong:
        yield what.fine("the kernel allows them")


def _age(version: dict[str, Any]) -> Finding:
    what = Subject(f"Docker Engine {version.get('Version', '')}")
    try:
        built = datetime.fromisoformat(str(version.get("BuildTime"))[:10]).replace(tzinfo=UTC)
    except ValueError:
        return what.unknown("it does not say when it was built")
    if datetime.now(UTC) - built > OLD:
        return what.warning(
            f"built on {built:%Y-%m-%d}: nobody seems to mend holes in it any more",
            "upgrade it, or the distribution that it comes from",
        )
    return what.fine(f"built on {built:%Y-%m-%d}")


def _trial(settings: Settings, runtime: Runtime) -> Iterator[Finding]:
    own = replace(
        settings,
        executor=ExecutorSettings(name=f"doctor-{os.getpid()}"),
        sandbox=replace(settings.sandbox, waiting=0),
    )
    sandbox = DockerSandbox(own, runtime)
    try:
        sandbox.prepare()
        yield _started(sandbox)
        yield _of_root(sandbox, DockerConnection(settings.docker.host))
        yield _view(sandbox, settings.sandbox)
        yield _layer(sandbox, settings, runtime)
        yield _memory(sandbox, settings)
        yield _importance(sandbox, settings)
    except OperatorError as error:
        yield TRIAL.refused(str(error))
    except SpooldError as error:
        yield TRIAL.refused(f"it cannot run: {error}", "see the engine's own log")
    finally:
        sandbox.close()


def _started(sandbox: DockerSandbox) -> Finding:
    assert sandbox.plan is not None  # noqa: S101 - prepare() has made one
    plan = sandbox.plan
    start = f"{plan.settings.sandbox.mode} containers start with {plan.oci or 'the default runtime'}"
    seen = (
        "seccomp, no-new-privileges and the memory limit are on"
        if plan.resizable
        else "jobs have a kernel of their own"
    )
    return TRIAL.fine(f"{start}; {seen}")


def _of_root(sandbox: DockerSandbox, engine: DockerConnection) -> Finding:
    """Look which files the first process of a container has loaded, which is root in there."""
    assert sandbox.plan is not None  # noqa: S101 - prepare() has made one
    what = Subject("programs that start as root in containers")
    container = start_container(engine, sandbox.plan, threading.Event())
    try:
        maps = Path(f"/proc/{container.transport.pid}/maps").read_text(errors="replace")
    except OSError as error:
        return what.unknown(f"cannot be looked at: {error.strerror}", "run the doctor as root, here")
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
            f"a program of the store is started as root, which the builder can change: {theirs[0]}",
            "restart the executor, of the version that this doctor is of",
        )
    if not any(path.startswith(interpreter.ROOT) for path in loaded):
        return what.unknown("the kernel does not tell", "see which runtime the engine uses")
    return what.fine("come from the image, and none from the Nix store")


def _view(sandbox: DockerSandbox, settings: SandboxSettings) -> Finding:
    what = Subject("what a job sees of the Nix store")
    if sandbox.viewed:
        return what.fine("its own closure")
    if settings.view == "off":
        return what.warning("all of it, unlisted: sandbox.view is off", 'set sandbox.view = "auto"')
    return what.warning(
        "all of it, unlisted: this kernel, engine or runtime does not allow the porter's mounts",
        'use Linux 5.12 or later and a rootful engine, or sandbox.mode = "recycled"; '
        'sandbox.view = "required" takes no work instead',
    )


def _layer(sandbox: DockerSandbox, settings: Settings, runtime: Runtime) -> Finding:
    """Have a job say on which kind of file system its own store is."""
    what = Subject("what a job locks or watches in the Nix store")
    said = _run(sandbox, settings, KIND, runtime.closure).stdout.strip()
    if said == "overlayfs":
        return what.fine("is no other job's concern: each has a layer of its own")
    return what.note(
        "others notice, so two jobs can talk, and one can learn which programs others run",
        "load the module overlay; recycled containers need Linux 5.11 or later, single-use ones need the porter",
    )


def _memory(sandbox: DockerSandbox, settings: Settings) -> Finding:
    """Have a job take more memory than it may."""
    outcome = _run(sandbox, settings, BOMB, []).outcome
    what = Subject("a job that takes too much memory")
    if outcome is Outcome.MEMORY_LIMIT:
        return what.fine(f"is ended at its limit of {TRIAL_MEMORY >> 20} MiB")
    return what.refused(f"is not ended at its limit, but: {outcome}", "give the engine the memory controller")


def _importance(sandbox: DockerSandbox, settings: Settings) -> Finding:
    """Have a job ask the kernel to be spared where the host's memory is short."""
    what = Subject("a job, where the host's memory is short,")
    if _run(sandbox, settings, PLEA, []).outcome is Outcome.OK:
        return what.fine("goes before all else, and cannot change that")
    return what.warning(
        "can have the kernel end the host's own programs before itself: it may write its oom_score_adj",
        "use Linux 5.19 or later, with landlock among the modules in /sys/kernel/security/lsm",
    )


def _run(sandbox: DockerSandbox, settings: Settings, script: bytes, closure: list[str]) -> Phase:
    """Return what became of a job of one script."""
    limits = replace(settings.limits.run.default, memory=TRIAL_MEMORY, time=30, cpu_time=30)
    job = trial_job("doctor", script, limits, closure)
    return sandbox.run(job, lambda *_: None, threading.Event()).run


def _sockets() -> Iterator[Finding]:
    """Look how well what sockets hold can be counted, which on cgroup v1 is nobody's memory else."""
    what = Subject("what a job's sockets hold")
    size = machine.sysctl("net.core.rmem_default")
    if size.isdecimal() and int(size) > sockets.EACH:
        yield what.warning(
            f"may be more than is counted: net.core.rmem_default is {size}",
            f"sysctl net.core.rmem_default=212992, or at most {sockets.EACH}",
        )
    elif sockets.tells():
        yield what.fine("is counted as its memory")
    else:
        yield what.note(
            f"is not told by this kernel: each counts as {sockets.EACH >> 10} KiB of the job's memory",
            "modprobe -a tcp_diag udp_diag",
        )
