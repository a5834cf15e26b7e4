"""Cells: how one container serves many jobs, one after the other, none of which finds anything of another.

Theory of operation. For each job the supervisor makes a *cell*: a process in namespaces of its own (user, pid, mount,
IPC, UTS, network), which takes the supervisor's part for that one job. It is process 1 in there, so all that the job
leaves running dies with it, before the supervisor makes the next. What a job can write to are file systems in memory
that are the cell's own, as are /proc, the loopback interface, System V IPC and the view of the store.

A job that broke out of its cell by a hole in the kernel's namespaces would still be in the container, whose supervisor
holds no capability but SETUID, SETGID and KILL: so making a cell takes no privilege on the host. The cell is made as
the *holder*, a uid that is neither the job's nor root's, so that the kernel's quotas per user (of inotify, message
queues, pipes…) are counted for this container alone and not for root. Inside, holder is 0 and has all capabilities
over the cell; it drops those that it needs no more before anything of a job is touched.

See user_namespaces(7) for who may write which map.
"""

from __future__ import annotations

import gc
import os
import time

from . import kernel, masks, peaks, store
from .files import JOB_UID, WORK
from .kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT, call, libc

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from .counters import Counters

SPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWNET
)
STRAY = 8 * 1024**2  # bytes; the kernel's counts are no more exact than this, and a container has room for it
STRAY_TIMEOUT = 3.0  # seconds for it to free what a job held; it brings its counts up to date every two
ENDED, GONE = 0, 3  # exit codes of a cell: its job is done; the host has closed its side; any other is an accident
CALM = MS_NOSUID | MS_NODEV | MS_NOEXEC
# Bytes at least, at first and at most of a TCP socket; the kernel's usual 6 MB would be host memory that, on cgroup v1,
# no job is charged for.
BUFFERS = {
    "net.ipv4.tcp_rmem": "4096 65536 262144",
    "net.ipv4.tcp_wmem": "4096 16384 262144",
    "net.ipv4.tcp_max_tw_buckets": "1024",  # connections that were closed, which nobody is charged for
}
AF_INET, SOCK_DGRAM, SIOCSIFFLAGS, IFF_UP_RUNNING = 2, 2, 0x8914, 0x41


def serve_many(
    serve: Callable[[bool], NoReturn], counters: Counters, *, holder: int, space: int, inodes: int
) -> NoReturn:
    """Run ``serve`` in one cell after the other, until one ends in any other way than by ``leave``.

    It is told whether its cell is the first.
    ``holder`` and the uid after it are the cell's. A job's directories hold ``space`` bytes and ``inodes`` files each.
    """
    kernel.drop_bounding_set(kernel.CAP_SETUID, kernel.CAP_SETGID, kernel.CAP_KILL)
    gc.disable()
    gc.freeze()  # a collection would copy all the pages that a cell shares with us
    first, status, hosts = True, ENDED, masks.Masks()
    own = _held(counters)
    counters.begin_peaks(peaks.by_namespace())
    while status == ENDED:
        cell = _make(holder)
        if cell == 0:
            _furnish(space, inodes, hosts)
            serve(first)
        first = False
        _, status = os.waitpid(cell, 0)
        if status == ENDED and not _freed(counters, own + STRAY):
            os._exit(1)
    os._exit(0 if os.waitstatus_to_exitcode(status) == GONE else 1)


def _freed(counters: Counters, most: int) -> bool:
    """Wait until no more than ``most`` bytes are held.

    The kernel frees System V shared memory and descriptors under way in sockets some time after the last process died.
    Until then the next job would have that much less.
    """
    deadline = time.monotonic() + STRAY_TIMEOUT
    while _held(counters) > most:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _held(counters: Counters) -> int:
    memory = counters.memory()
    return memory.heap + memory.files


def leave() -> NoReturn:
    """End this cell; the supervisor makes another."""
    os._exit(ENDED)


def settle(names: list[bytes] | None) -> None:
    """Show the entries ``names`` of the store only, or all of it, and drop the capabilities that this took."""
    if names is not None:
        store.mount_view(names, unmount=False)
    kernel.drop_bounding_set()
    kernel.set_capabilities(kernel.CAP_SETUID, kernel.CAP_SETGID, kernel.CAP_KILL)


def _make(holder: int) -> int:
    """Return the id of a process in new namespaces; in that process 0."""
    made_reader, made_writer = os.pipe2(os.O_CLOEXEC)
    go_reader, go_writer = os.pipe2(os.O_CLOEXEC)
    os.setegid(holder)
    os.seteuid(holder)
    kernel.set_capabilities(kernel.CAP_SETUID, kernel.CAP_SETGID, kernel.CAP_KILL)
    cell = kernel.clone(SPACES | kernel.SIGCHLD)
    if cell == 0:
        libc.prctl(
            kernel.PR_SET_DUMPABLE, 1, 0, 0, 0
        )  # or its maps would be root's alone to write; ends when the job's files are written
        os.write(made_writer, b".")
        if not os.read(go_reader, 1):
            os._exit(1)
        for descriptor in (made_reader, made_writer, go_reader, go_writer):
            os.close(descriptor)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        return 0
    os.close(made_writer)
    os.read(made_reader, 1)
    for name in ("gid_map", "uid_map"):
        with open(f"/proc/{cell}/{name}", "wb", buffering=0) as file:
            file.write(b"0 %d 1\n%d %d 1\n" % (holder, JOB_UID, holder + 1))
    os.write(go_writer, b".")
    for descriptor in (made_reader, go_reader, go_writer):
        os.close(descriptor)
    os.seteuid(0)
    os.setegid(0)
    return cell


def _furnish(space: int, inodes: int, hosts: masks.Masks) -> None:
    """Make the cell's own file systems and bring its loopback interface up."""
    _mount("proc", "/proc", CALM)
    for name, value in BUFFERS.items():
        with open(f"/proc/sys/{name.replace('.', '/')}", "wb", buffering=0) as file:
            file.write(value.encode())
    # In a container of one job the engine did so; here it must not, or the kernel would refuse a /proc that shows more.
    call(libc.mount, b"/proc/sys", b"/proc/sys", None, MS_BIND, None)
    call(libc.mount, None, b"/proc/sys", None, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, None)
    hosts.cover()
    masks.hide()
    bounds = f"size={space},nr_inodes={inodes}"
    _mount("tmpfs", WORK, MS_NOSUID | MS_NODEV, f"{bounds},mode=0755,uid={JOB_UID},gid={JOB_UID}")
    _mount("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, f"{bounds},mode=1777")
    _mount("tmpfs", "/dev/shm", CALM, f"{bounds},mode=1777")
    _mount("mqueue", "/dev/mqueue", CALM)
    # Its devices work all the same, and their times, which anybody could set, tell the next job nothing.
    call(libc.mount, None, b"/dev", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, None)
    _bring_loopback_up()


def _mount(kind: str, path: str, flags: int, options: str = "") -> None:
    call(libc.mount, kind.encode(), path.encode(), kind.encode(), flags, options.encode())


def _bring_loopback_up() -> None:
    socket = call(libc.socket, AF_INET, SOCK_DGRAM, 0)
    request = b"lo".ljust(16, b"\0") + IFF_UP_RUNNING.to_bytes(2, "little")
    call(libc.ioctl, socket, SIOCSIFFLAGS, request.ljust(40, b"\0"))
    os.close(socket)
