"""The porter: gives a waiting container a Nix store that holds only what its job may see.

It also covers what the kernel tells of the host there, see ``masks``, and leaves its supervisor the peaks of memory as
files that can be written to, see ``peaks``. On the host the engine has a ``porter`` as well, which gives the orders.

It is not the supervisor and sees no job. It runs in a container of its own, among the processes of the engine's host
and with the right to mount, and takes orders from the executor alone. An order names the first process of a container
that waits, the container, and store paths. Nothing of a job runs in there yet, so nobody can play tricks on the mounts.

Theory of operation. The container was made with the whole store at /nix/store, read-only. The porter enters its mount
namespace, clones a mount for each path out of a layer over that one, takes the whole store away, and puts a small
tmpfs in its place onto which the clones are moved. What is not in the order is then nowhere in the namespace, whatever
becomes of the job.

A process id may have been given to somebody else: the id is turned into a descriptor once, and what that stands for is
checked to be in the container's cgroup.
"""

from __future__ import annotations

import os
import resource

from .kernel import CLONE_NEWNS, call, libc
from .masks import Masks
from .messages import Broken, GiveView, Gone, Message, ViewGiven, failed, story
from .store import mount_view
from .supervisor import ready
from .wire import GoneError, Host


def main() -> None:
    """Carry out orders until the host closes its side."""
    host = Host()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    hosts = Masks()
    host.send(ready())
    try:
        while True:
            host.send(_carry_out(host.message(GiveView), home, hosts))
    except GoneError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the host has to know what is wrong with us
        host.send(Broken(story=story(error)))
        os._exit(1)


def _carry_out(order: GiveView, home: int, hosts: Masks) -> Message:
    try:
        namespace = _find(order.pid, order.container, home)
    except (OSError, ValueError) as error:
        return Gone(reason=str(error).encode())
    try:
        call(libc.setns, namespace, CLONE_NEWNS)
        try:
            hosts.cover(peaks_too=True)
            if order.paths:
                mount_view(order.paths, unmount=True)
        finally:
            call(libc.setns, home, CLONE_NEWNS)
    except OSError as error:
        return failed(error)
    finally:
        os.close(namespace)
    return ViewGiven()


def _find(pid: int, container: bytes, home: int) -> int:
    """Return a descriptor of the mount namespace of ``pid``, which must be in the cgroup of ``container``."""
    process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        cgroup = os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        try:
            if container not in os.read(cgroup, 1 << 16):
                raise ValueError("the process is not the container's")
        finally:
            os.close(cgroup)
        namespace = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    finally:
        os.close(process)
    if os.fstat(namespace).st_ino == os.fstat(home).st_ino:
        os.close(namespace)
        raise ValueError("the process has no mounts of its own")
    return namespace
