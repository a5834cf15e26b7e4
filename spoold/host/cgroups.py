"""Where control groups can be made: which directories of which controllers are ours to divide.

On v2 a group that holds processes cannot have children with limits. So the processes in our own group, usually the
daemon alone, first move into a group ``daemon`` below it. That takes a group that is ours to divide. systemd marks
such groups (Delegate=yes, in a service or a scope), gives ordinary users those that belong to them, and manages all
others itself. Where there is no systemd, a process that may write to a group may divide it.

On v1 systemd gives groups to root alone. So the builder's unit makes a group ``builds`` below its own for the builder,
and an executor's unit may make a group ``jobs``. In a job of a batch system, on v2, ``jobs`` may lie beside the group
that holds our process. Then ``jobs`` is the group to divide.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
SYSTEMD = Path("/run/systemd/system")  # exists where systemd is process 1, see sd_booted(3)
DELEGATED = ("user.delegate", "trusted.delegate")  # the first since systemd 251; only root can read the second
LEAF = "daemon"
OF_THE_UNIT, OF_JOBS = "builds", "jobs"  # see systemd/spoold-builder.service, and "Engines" in contrib/docs/operator.md
MAKING_WAY = 10  # tries to move processes away, since new ones may start meanwhile


def parents() -> dict[str, Path]:
    """Return where groups can be made: a directory per controller."""
    if delegable():
        found = unified(own_group())
    else:
        found = {name: path for name, path in trees(OF_THE_UNIT).items() if name in ("memory", "pids", "cpuacct")}
    return {controller: path for controller, path in found.items() if os.access(path, os.W_OK)}


def trees(delegated: str) -> dict[str, Path]:
    """Return our group in each tree of v1, by controller, or the group ``delegated`` below it where there is one."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own = tree(controller) / path.lstrip("/")
            found[controller] = own / delegated if (own / delegated).is_dir() else own
    return {controller: path for controller, path in found.items() if (path / "cgroup.procs").exists()}


def tree(controller: str) -> Path:
    """Return where a controller's tree is on v1. Some trees have only a name, and v2's tree may be there as well."""
    return MOUNT / (controller.removeprefix("name=") or "unified")


def own_group() -> Path:
    """Return our group on v2."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return MOUNT / next(line for line in lines if line.startswith("0::"))[len("0::/") :]


def delegable() -> bool:
    """Tell whether an ordinary user can be given groups here, which takes cgroup v2."""
    return (MOUNT / "cgroup.controllers").exists()


def unified(own: Path, *wanted: str) -> dict[str, Path]:
    """Return where groups can be made on cgroup v2, for processes in the group ``own``.

    The groups have the controllers memory and pids, and those that are ``wanted`` where they can be had.
    """
    parent = own.parent if own.name == LEAF else own
    return divided(parent, *wanted) if _ours(parent) else {}


def divided(parent: Path, *wanted: str) -> dict[str, Path]:
    """Return the same for groups below ``parent``, which is ours to divide."""
    for controller in ("memory", "pids", *wanted):
        with contextlib.suppress(OSError):
            _enable(parent, controller)
    with contextlib.suppress(OSError):
        enabled = (parent / "cgroup.subtree_control").read_text().split()
        if "memory" in enabled:
            return dict.fromkeys(("memory", "pids", "cpuacct"), parent)
    return {}


def beside(own: Path, name: str) -> Path | None:
    """Return the group ``name`` that was made for us, below ``own`` or the nearest group above it, on v2; else None.

    It is ours to divide, also where systemd manages groups: systemd's are named after units, such as ``a.scope``.
    """
    for above in (own, *own.parents):
        if above == MOUNT.parent:
            break
        if (above / name / "cgroup.procs").exists() and os.access(above / name, os.W_OK):
            return above / name
    return None


def _ours(group: Path) -> bool:
    """Tell whether a group is ours to divide. Where systemd manages groups, not even root may divide all of them."""
    if not SYSTEMD.is_dir():
        return True
    with contextlib.suppress(OSError):
        if group.stat().st_uid == os.geteuid() != 0:  # a user's own systemd marks nothing
            return True
    for name in DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _enable(group: Path, controller: str) -> None:
    """Enable a controller for the groups below ``group``; move the processes in it away where they prevent that."""
    file = group / "cgroup.subtree_control"
    for _ in range(MAKING_WAY):
        if controller in file.read_text().split():
            return
        try:
            file.write_text(f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _make_way(group)


def _make_way(group: Path) -> None:
    """Move the processes of ``group`` into the group ``daemon`` below it."""
    leaf = group / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(pid)
