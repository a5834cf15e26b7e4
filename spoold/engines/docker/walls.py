"""What a container is allowed, as the engine is told.

The walls are: no network, no capabilities but three, no new privileges, a seccomp profile of our own
(``sandbox/seccomp.json``, with reasons), a read-only root, the store read-only, memory without swap, a bound on
processes, and tmpfs of bounded size and number of files. So the host touches nothing that the job can write. The three
capabilities are the supervisor's: SETUID and SETGID to become the job's user, KILL to end its processes. They go when
the uid changes, and without new privileges they never come back.

No share of the CPU is asked for. Without one, all containers have the same share, whatever runs in them, on both
versions of control groups. The two containers of a talk are the exception: each has half a share, see ``shares``.

Files of /proc in which the kernel tells of the host are hidden, see ``inside/masks.c``.

A recycled container has the same walls, and a second row of them inside (``inside/cell.c``). Making that row takes the
calls in ``sandbox/seccomp-recycled.json``, an unmasked /proc, and no AppArmor profile, since Docker's own forbids all
mounts. Where /proc is masked, the kernel refuses to mount one for a job. The job's own /proc hides the same names. The
cells make the directories that the job can write.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import docker
from docker.types import LogConfig, Mount

from spoold.engines.docker.image import Image
from spoold.engines.docker.shares import Shares
from spoold.sandbox.facts import HIDDEN_DIRECTORIES, HIDDEN_FILES, LINE, NETWORK
from spoold.sandbox.profile import profile
from spoold.sandbox.program import IN_IMAGE
from spoold.sandbox.sizes import Plan, Size


@dataclass(frozen=True, kw_only=True)
class DockerPlan(Plan):
    """What all containers of this engine have in common."""

    image: Image
    store: str  # the directory of the host that is mounted as /nix/store
    labels: dict[str, str]
    network_disabled: bool
    unified: bool  # the engine's host has cgroup v2
    shares: Shares | None = None  # None: the engine halves no share
    remapped: bool = False  # the engine remaps users, so the image's files do not belong to the host's own root
    oci: str = ""  # the runtime; "" is the engine's own
    line: bool = False  # its supervisor calls on a socket of its own, see ``line``
    hosts: str = ""  # the file of the host that is mounted as /etc/hosts; "" where something else puts ours there


def configuration(api: docker.APIClient, plan: DockerPlan, size: Size, holder: int, line: str = "") -> dict[str, Any]:
    """Return the arguments of the call that creates the container.

    ``holder`` is its own one of HOLDERS. ``line`` is the directory with the socket on which its supervisor calls.
    """
    space, inodes = plan.settings.limits.room, plan.settings.limits.work_inodes
    data = {"/nix/store": plan.store, "/etc/hosts": plan.hosts, LINE: line}
    host = api.create_host_config(
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["SETUID", "SETGID", "KILL"],
        security_opt=["no-new-privileges", f"seccomp={seccomp(recycled=plan.cells)}"],
        mem_limit=size.memory,
        memswap_limit=size.memory,
        pids_limit=size.processes,
        cpu_shares=plan.shares.half if plan.shares and size.halved else None,
        ipc_mode="private",
        # The supervisor counts at the root of the groups that it sees. By the engine's default that may be the host's
        # root.
        cgroupns="private" if plan.unified else None,
        mounts=[
            Mount(target, source, type="bind", read_only=True, propagation="rprivate")
            for target, source in data.items()
            if source
        ],
        log_config=LogConfig(type="none"),
        runtime=plan.oci or None,
    )
    own = [str(holder)]
    if plan.cells:
        host["SecurityOpt"].append("apparmor=unconfined")
        host |= {"MaskedPaths": [], "ReadonlyPaths": []}
        own += [str(number) for number in (space, inodes)]
    else:
        host |= {
            "Sysctls": NETWORK,
            "MaskedPaths": [*HIDDEN_FILES, *HIDDEN_DIRECTORIES, "/proc/vmstat", "/sys/firmware"],
        }
        options = f"rw,nosuid,nodev,size={space},nr_inodes={inodes}"
        host["Tmpfs"] = {
            "/job": f"{options},exec,uid={holder},gid={holder},mode=0755",
            "/tmp": f"{options},exec,mode=1777",
            "/dev/shm": f"{options},noexec,mode=1777",
        }
    return {
        "image": plan.image.id,
        "entrypoint": [IN_IMAGE, *own],
        "user": "0:0",
        "hostname": "sandbox",
        "working_dir": "/",
        "stdin_open": True,
        "network_disabled": plan.network_disabled,
        "labels": plan.labels,
        "host_config": host,
    }


@functools.cache
def seccomp(*, recycled: bool) -> str:
    """Return the profile in the form that the engine takes."""
    return json.dumps(profile(cells=recycled))
