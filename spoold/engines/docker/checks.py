"""What an engine and its containers must have before any job runs: the same for the executor and for the doctor.

The executor stops at what is refused, and takes no work until that is mended. The engine's own report is read first,
because it gives the better message. Then a container on trial tells what it really got.
"""

from __future__ import annotations

from typing import Any

from spoold.config import DockerSettings, NixSettings, Settings
from spoold.host import machine
from spoold.model.findings import Finding, Subject
from spoold.sandbox import checks
from spoold.sandbox.messages import Ready

CAUSES = checks.Causes(
    privileges="upgrade the engine",
    seccomp="remove seccomp=unconfined from the engine's options, or use a kernel with seccomp",
    memory="the engine ignores limits: see `docker info`, and give it the cgroup controllers memory and pids",
)
NETWORK = ("tcp", "http", "https", "ssh")  # an engine on another host is reached by one of these
AUTOMATIC = "crun"  # the fastest runtime; used where the engine has it and a container starts with it


def store(settings: NixSettings, where: str) -> str | None:
    """Return the real path of the directory that jobs get as their store, None where it may be on another host."""
    return None if is_elsewhere(where) else checks.store(settings)


def is_elsewhere(where: str) -> bool:
    """Tell whether the engine at ``where`` may be on another host."""
    return where.partition("://")[0] in NETWORK


def of_engine(information: dict[str, Any], settings: Settings) -> list[Finding]:
    """Return the findings on the isolation that an engine can give, from its ``info``."""
    options = {option.removeprefix("name=").partition(",")[0] for option in information.get("SecurityOptions") or ()}
    return [
        _limits(information, rootless="rootless" in options),
        _shares(information, pinned=settings.sandbox.pin_cpus),
        _seccomp(options),
        _runtime(information.get("Runtimes") or {}, settings.docker),
        _users(options),
        _apparmor(options, settings.sandbox.mode),
    ]


def _limits(information: dict[str, Any], *, rootless: bool) -> Finding:
    what = Subject("limits of memory and processes")
    version = information.get("CgroupVersion") or "1"
    if rootless and (version == "1" or information.get("CgroupDriver") == "none"):
        return what.refused(
            f"a rootless engine on cgroup v{version} without a cgroup driver ignores all limits",
            "boot with systemd.unified_cgroup_hierarchy=1 and delegate the controllers memory and pids to the "
            "engine's user, or use a rootful engine",
        )
    missing = [name for name in ("MemoryLimit", "PidsLimit") if not information.get(name)]
    if missing:
        return what.refused(
            f"the engine cannot enforce limits ({' and '.join(missing)} off)",
            "the engine needs the cgroup controllers memory and pids: boot with cgroup_enable=memory, or delegate them",
        )
    return what.fine(f"cgroup v{version}")


def _shares(information: dict[str, Any], *, pinned: bool) -> Finding:
    """Check whether each container is weighed as one, however many processes are in it."""
    what = Subject("shares of the CPU")
    if pinned and not information.get("CPUSet"):
        return what.refused(
            "sandbox.pin_cpus is set, but the engine cannot bind a container to a CPU (CPUSet off)",
            "the engine needs the cgroup controller cpuset: delegate it, or unset sandbox.pin_cpus",
        )
    if not information.get("CPUShares"):
        return what.warning(
            "the engine shares out no CPU time (CPUShares off): a job with many processes takes the CPU from other "
            "jobs, which may then meet their limits of wall-clock time",
            "it needs the cgroup controller cpu: boot without cgroup_disable=cpu, or delegate it to the engine's user",
        )
    return what.fine("each job is weighed as one, however many processes it has")


def _seccomp(options: set[str]) -> Finding:
    if "seccomp" in options:
        return checks.SECCOMP.fine("the engine filters system calls")
    return checks.SECCOMP.refused(
        "the engine runs containers without its seccomp profile",
        "use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp",
    )


def _runtime(known: dict[str, Any], settings: DockerSettings) -> Finding:
    what = Subject("OCI runtime")
    if settings.runtime and settings.runtime not in known:
        return what.refused(
            f"the engine has no docker.runtime {settings.runtime!a}; it has {', '.join(sorted(known))}",
            'add it to "runtimes" in /etc/docker/daemon.json and restart the engine, or change docker.runtime',
        )
    if settings.runtime or AUTOMATIC in known:
        return what.fine(settings.runtime or AUTOMATIC)
    return what.note(
        "the engine's own",
        'crun starts containers sooner: install it and add {"runtimes": {"crun": {"path": "/usr/bin/crun"}}} to '
        "/etc/docker/daemon.json",
    )


def _users(options: set[str]) -> Finding:
    what = Subject("users of containers")
    if "rootless" in options:
        return what.fine("a rootless engine: root in a container is an ordinary user of the host")
    if "userns" in options:
        return what.fine("userns-remap: root in a container is nobody on the host")
    return what.note(
        "root in a container (the supervisor, never a job) is root on the host, with only three capabilities",
        'for one more wall, set {"userns-remap": "default"} in /etc/docker/daemon.json',
    )


def _apparmor(options: set[str], mode: str) -> Finding:
    what = Subject("AppArmor")
    if "apparmor" not in options:
        return what.note("the engine has none. The other walls do not depend on it")
    if mode == "recycled":
        return what.note("recycled containers run without a profile, which would forbid the mounts of their cells")
    return what.fine("containers run under the engine's profile")


def of_container(ready: Ready, memory: int, settings: DockerSettings) -> list[Finding]:
    """Return the findings on a container, from what it tells. It was made with a limit of ``memory`` bytes."""
    if settings.runtime and ready.kernel.decode() != machine.boot_id():
        return [Subject("kernel").fine(f"{settings.runtime} gives jobs a kernel of their own")]
    return checks.of_container(ready, memory, CAUSES)
