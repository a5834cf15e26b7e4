"""What a container is allowed, as the runtime is told: config.json, see the OCI runtime specification.

The walls are Docker's (``engines.docker.walls``), from the same facts: no network, three capabilities, no new
privileges, the same seccomp profile, a read-only root, the store read-only. Limits are not among them: the container's
control group is there, with its limits, before the runtime starts, see ``container``.

Each job is in a cell (``inside/cell.c``), also in a container of one job. So no porter with rights over others'
containers is needed, and an ordinary user can run all of this. A job in a container of its own is behind two walls.

An ordinary user's containers have users of their own. Root in there is that user, as runtimes do it, and has the three
capabilities in the container's namespaces only. All other users are subordinate ids, which own nothing on the host.
Their user namespace gives them no devices either, so there is no list of devices.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from spoold.host.groups import Group, Groups
from spoold.sandbox.profile import profile
from spoold.sandbox.program import IN_IMAGE
from spoold.sandbox.sizes import Plan

VERSION = "1.0.2"  # of the specification; later ones read it as well
SIZE = 65535  # ids of a container beside root's; those of its jobs are among the last
CAPABILITIES = ["CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
CALM = ["nosuid", "noexec", "nodev"]
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}  # as the profile's archMap has them
KNOWN_TO_OCI = ("names", "action", "args", "errnoRet")


class Ids(NamedTuple):
    """The ids of containers' users: root is this process's user, the others are subordinate ids from ``uids`` on."""

    uid: int
    gid: int
    uids: int
    gids: int


@dataclass(frozen=True, kw_only=True)
class OciPlan(Plan):
    """What all containers of this engine have in common."""

    oci: str  # the path of the runtime
    place: str  # the directory of this sandbox
    root: str  # the directory that all containers have as their root
    store: str  # the directory of the host that is mounted as /nix/store
    groups: Groups
    ids: Ids | None  # None: users are the host's own

    @property
    def cells(self) -> bool:
        """Tell that each job is in a cell."""
        return True


def configuration(plan: OciPlan, group: Group, holder: int) -> dict[str, Any]:
    """Return config.json. ``holder`` is the container's own one of HOLDERS."""
    limits = plan.settings.limits
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [IN_IMAGE, str(holder), str(limits.room), str(limits.work_inodes)],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": plan.root, "readonly": True},
        "hostname": "sandbox",
        "mounts": _mounts(plan),
        "linux": {
            "namespaces": [{"type": kind} for kind in _namespaces(plan)],
            "cgroupsPath": plan.groups.path(group),
            "resources": {} if plan.ids else {"devices": [{"allow": False, "access": "rwm"}]},
            "seccomp": _seccomp(),
            # The kernel refuses a job a /proc that shows more than this one. The job's own /proc hides the same names.
            "maskedPaths": [],
            "readonlyPaths": [],
            **_maps(plan.ids),
        },
    }


def _mounts(plan: OciPlan) -> list[dict[str, Any]]:
    def mount(target: str, kind: str, options: list[str], source: str = "") -> dict[str, Any]:
        return {"destination": target, "type": kind, "source": source or kind, "options": options}

    return [
        mount("/proc", "proc", CALM),
        mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        # Empty, since there are no terminals, see HIDDEN_DIRECTORIES. Programs find the directory with every engine.
        mount("/dev/pts", "tmpfs", [*CALM, "ro", "mode=555", "size=4k"]),
        mount("/dev/shm", "tmpfs", [*CALM, "mode=1777", "size=64k"]),
        mount("/dev/mqueue", "mqueue", CALM),
        mount("/sys", "sysfs", [*CALM, "ro"]),
        mount("/sys/fs/cgroup", "cgroup", [*CALM, "relatime", "ro"]),
        mount("/nix/store", "bind", ["rbind", "ro", "nosuid", "nodev", "rprivate"], plan.store),
    ]


def _namespaces(plan: OciPlan) -> list[str]:
    """Return the kinds of namespaces. On cgroup v2 the supervisor counts at the root of the groups that it sees."""
    kinds = ["pid", "ipc", "uts", "mount", "network"]
    return kinds + (["cgroup"] if plan.groups.unified else []) + (["user"] if plan.ids else [])


def _seccomp() -> dict[str, Any]:
    found = profile(cells=True)
    return {
        "defaultAction": found["defaultAction"],
        "architectures": [ARCHITECTURES[os.uname().machine]],
        "syscalls": [{key: call[key] for key in KNOWN_TO_OCI if key in call} for call in found["syscalls"]],
    }


def _maps(ids: Ids | None) -> dict[str, Any]:
    if ids is None:
        return {}
    return {
        f"{kind}Mappings": [
            {"containerID": 0, "hostID": own, "size": 1},
            {"containerID": 1, "hostID": first, "size": SIZE},
        ]
        for kind, own, first in (("uid", ids.uid, ids.uids), ("gid", ids.gid, ids.gids))
    }
