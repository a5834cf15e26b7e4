"""The doctor's check of what keeps users apart in ``incoming/``: protections of sticky directories, and quotas.

Nobody can be kept from making files in a directory that all may write to. A user can make a file with mode 0666 under
the name that another user is about to write to. The other then writes into it, and the file and its answer are not
theirs. Linux refuses to open such a file where its protections are on (proc_sys_fs(5)). Every host on which people
write to the spool needs them, also a host that writes by NFS. Besides, files in ``incoming/`` take room on the disk,
and nothing but quotas of the file system bounds that.

Users who may let others into their mounts (mount.fuse3(8)) can mount over their own file there. Then their program
answers each look of intake at that name: late, or never.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from spoold.host import machine
from spoold.model.findings import Finding, Subject

WHAT = Subject("protections of sticky directories")
# The value 1 is enough, since incoming/ is sticky and everybody may write to it. At 2 group-writable directories count
# too.
PROTECTIONS = ("regular", "fifos", "symlinks", "hardlinks")
MOUNTS = Subject("mounts that users make")
FUSE = "/etc/fuse.conf"
QUOTAS = Subject("room that one user can take on the spool's disk")


def examine(root: str) -> Iterator[Finding]:
    """Yield the findings for the spool at ``root``."""
    if _is_closed(root):
        yield WHAT.fine("only its own user can reach this spool")
        return
    yield _protections()
    yield _mounts()
    yield _quotas(root)


def _is_closed(root: str) -> bool:
    """Tell whether a directory above the drop box lets in nobody but its owner."""
    path = Path(os.path.realpath(root))
    return any(not os.stat(each).st_mode & 0o011 for each in (path, *path.parents))


def _protections() -> Finding:
    names = [f"fs.protected_{name}" for name in PROTECTIONS]
    values = {name: machine.sysctl(name) for name in names}
    off = [name for name, value in values.items() if value in ("", "0")]
    if not off:
        return WHAT.fine("are on")
    if "" in values.values():
        remedy = "use Linux 4.19 or later"
    else:
        lines = "".join(f"{name} = 1\\n" for name in off)
        remedy = f"printf '{lines}' >/etc/sysctl.d/60-spoold.conf; sysctl --system"
    return WHAT.refused(
        f"off: {', '.join(off)}. A user of this host can trick others into writing to the user's own files in "
        "incoming/",
        remedy,
    )


def _mounts() -> Finding:
    try:
        lines = Path(FUSE).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in (line.strip() for line in lines):
        return MOUNTS.fine("are closed to other users")
    return MOUNTS.warning(
        "users may open them to others: a mount over a file in incoming/ can hold up intake, and so everybody",
        f"remove user_allow_other from {FUSE}",
    )


def _quotas(root: str) -> Finding:
    in_force = machine.user_quotas(os.path.join(root, "incoming"))
    if in_force:
        return QUOTAS.fine("is bounded by quotas of the file system")
    if in_force is None:
        return QUOTAS.unknown(
            f"this kernel cannot tell whether {machine.mount_of(root).kind} has quotas of users",
            "check on the host that has the disk: repquota -a",
        )
    return QUOTAS.note(
        "files in incoming/ have no bound: no quotas of users are in force on its file system",
        "turn on quotas (ext4: tune2fs -O quota; mount with usrquota, xfs with uquota), then set them, for example "
        "setquota -u USER 0 1G 0 10000 MOUNT",
    )
