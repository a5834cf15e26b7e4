"""What a container is allowed, as the engine is told.

The walls: no network, no capabilities but three, no new privileges, Docker's seccomp profile, a read-only root, the
store read-only, memory without swap, a bound on processes, and tmpfs of bounded size and number of files, so that the
host touches nothing that the job can write. The three capabilities are the supervisor's: SETUID and SETGID to become
the job's user, KILL to end its processes; they go when the uid changes, and without new privileges never come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import docker
from docker.types import LogConfig, Mount

from spoold.config import Settings
from spoold.model.job import Job, Runtime
from spoold.model.limits import MIB, PhaseLimits
from spoold.sandbox.image import MODULES
from spoold.sandbox.inside.files import JOB_UID

SUPERVISOR_MEMORY = 16 * MIB
ROUND = 8 * MIB
SHARED_MEMORY = 64 * MIB  # /dev/shm, at most
BOOT = f"import sys; sys.path.insert(0, {MODULES!r}); from inside.supervisor import main; main()"


@dataclass(frozen=True)
class Plan:
    """What all containers of this sandbox have in common."""

    settings: Settings
    runtime: Runtime
    image: str
    labels: dict[str, str]
    network_disabled: bool


@dataclass(frozen=True)
class Size:
    """The container's own limits; they hold the supervisor too, so they are a little above the job's."""

    memory: int
    processes: int

    @classmethod
    def of(cls, limits: PhaseLimits, beside: int) -> Size:
        """Return the size for a phase; ``beside`` is the bytes of files and input, which lie in memory as well.

        Rounded, so that jobs with the default limits share one size, which a waiting container can already have.
        """
        beside += SUPERVISOR_MEMORY + limits.stdout + limits.stderr
        return cls(limits.memory + -(-beside // ROUND) * ROUND, limits.processes + 1)


def held(job: Job) -> int:
    """Return the bytes of memory that a job's files and input take before anything of it runs."""
    return len(job.stdin) + sum(len(file.content) for file in job.files)


def configuration(api: docker.APIClient, plan: Plan, size: Size) -> dict[str, Any]:
    """Return the arguments of the call that creates the container."""
    space, inodes = plan.settings.limits.work_size, plan.settings.limits.work_inodes
    mine = f"rw,exec,nosuid,nodev,uid={JOB_UID},gid={JOB_UID},mode=0755,size={space},nr_inodes={inodes}"
    shared = f"rw,exec,nosuid,nodev,mode=1777,size={space},nr_inodes={inodes}"
    host = api.create_host_config(
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["SETUID", "SETGID", "KILL"],
        security_opt=["no-new-privileges"],
        mem_limit=size.memory,
        memswap_limit=size.memory,
        pids_limit=size.processes,
        tmpfs={"/work": mine, "/tmp": shared},  # noqa: S108
        shm_size=min(space, SHARED_MEMORY),
        ipc_mode="private",
        mounts=[Mount("/nix/store", plan.runtime.store, type="bind", read_only=True, propagation="rprivate")],
        log_config=LogConfig(type="none"),
        runtime=plan.settings.docker.runtime or None,
    )
    return {
        "image": plan.image,
        "entrypoint": [f"{plan.runtime.python}/bin/python3", "-I", "-S", "-E", "-B", "-c", BOOT],
        "user": "0:0",
        "hostname": "sandbox",
        "working_dir": "/",
        "stdin_open": True,
        "network_disabled": plan.network_disabled,
        "labels": plan.labels,
        "host_config": host,
    }
