"""The doctor's check of jobs' surroundings: what this host does for or to them, and what their engine says itself."""

from __future__ import annotations

from collections.abc import Iterator

from spoold import engines
from spoold.config import Settings
from spoold.doctor import kernel
from spoold.host import machine
from spoold.model.errors import OperatorError
from spoold.model.findings import Finding, Subject
from spoold.model.job import Runtime
from spoold.sandbox.facts import SOCKET

ENGINE = Subject("sandbox engine")
# Settings of the kernel that forbid user namespaces when they are 0. (Whether Ubuntu's AppArmor switch forbids them
# depends on the profile: the trial finds out.)
SWITCHES = ("user.max_user_namespaces", "kernel.unprivileged_userns_clone")


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield the findings; without a ``runtime``, which a builder provides, no job is tried."""
    yield _processes()
    yield _cores()
    yield from kernel.examine()
    yield from _sockets()
    if settings.sandbox.mode == "recycled":
        yield from _namespaces()
    try:
        engine = engines.find(settings.sandbox.engine)
    except OperatorError as error:
        yield ENGINE.refused(str(error))
        return
    yield from engine.examine(settings, runtime)


def _processes() -> Finding:
    what = Subject("processes of jobs and builds")
    if machine.hides_processes():
        return what.fine("are hidden from other users: /proc is mounted with hidepid")
    return what.note(
        "show their command lines to all users of this host, and with them the arguments of jobs and the packages that "
        "they see; a job's environment, input and files stay hidden",
        "mount -o remount,hidepid=invisible /proc, and the same option in /etc/fstab",
    )


def _cores() -> Finding:
    """Check where the kernel sends core dumps: a limit of 1 keeps them from programs and files, not from a socket."""
    what = Subject("core dumps of jobs")
    pattern = machine.sysctl("kernel.core_pattern")
    if not pattern.startswith("@"):
        return what.fine("are not made")
    return what.refused(
        f"go to a server on this host, whatever limit jobs have: kernel.core_pattern is {pattern!a}",
        "sysctl kernel.core_pattern=core, or a pattern that begins with |",
    )


def _sockets() -> Iterator[Finding]:
    """Check how well the memory in sockets can be counted, since on cgroup v1 nobody else counts it."""
    what = Subject("memory in a job's sockets")
    size = machine.sysctl("net.core.rmem_default")
    if size.isdecimal() and int(size) > SOCKET:
        yield what.warning(
            f"may be more than spoold counts: net.core.rmem_default is {size}",
            f"sysctl net.core.rmem_default=212992, or at most {SOCKET}",
        )
    elif machine.tells_of_sockets():
        yield what.fine("is counted as the job's memory")
    else:
        yield what.note(
            f"is not told by this kernel: each socket counts as {SOCKET >> 10} KiB of the job's memory",
            "modprobe -a tcp_diag udp_diag",
        )


def _namespaces() -> Iterator[Finding]:
    """Check the settings that keep recycled containers from making namespaces; the trial tells whether they can."""
    what = Subject('user namespaces, for sandbox.mode = "recycled"')
    wrong = [name for name in SWITCHES if machine.sysctl(name) == "0"]
    for name in wrong:
        better = "15000" if name.startswith("user.max") else "1"
        yield what.refused(f"{name} is 0", f"sysctl {name}={better}")
    if not wrong:
        yield what.fine("the kernel allows them")
