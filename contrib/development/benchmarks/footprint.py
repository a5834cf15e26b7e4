"""The memory of the peers that are servers and run on between two programs, found by their URL or a pid.

A peer that is a program leaves nothing in memory when it has ended.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from pathlib import Path

from benchmarks.engine import processes
from benchmarks.ways import megabytes

LISTENING = "0A"  # proc_pid_net(5): the state in /proc/net/tcp
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
PROXY = "docker-proxy"  # listens for a container, and is not the server that answers


class UnknownError(Exception):
    """A process cannot be found. The text says what was found instead, and what to do."""


def listener_of(url: str) -> int:
    """Return the pid of the process of this machine that listens at a URL; raises :class:`UnknownError`."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    inodes = _listening_on(port)
    if not _is_here(parts.hostname or "") or not inodes:
        raise UnknownError(f"no process of this machine listens at {url}. If it runs here, give its pid with --pid")
    for pid, _, name in processes():
        if inodes & _sockets_of(pid):
            if name == PROXY:
                raise UnknownError(f"a container listens at {url}. Give the pid of its first process with --pid")
            return pid
    raise UnknownError(f"this user cannot see which process listens at {url}. Give its pid with --pid")


def memory_of(pid: int) -> float:
    """Return the MB (PSS) of a process and of all its descendants."""
    parents = {each: parent for each, parent, _ in processes()}
    found, more = {pid}, {pid}
    while more:
        more = {each for each, parent in parents.items() if parent in more} - found
        found |= more
    total = 0.0
    for each in found:
        with contextlib.suppress(OSError, StopIteration):  # it ended meanwhile
            total += megabytes(each)
    return round(total, 1)


def _is_here(host: str) -> bool:
    """Tell whether a name leads to an address of this machine: only then can a socket be bound to it."""
    try:
        families = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, _, _, address in families:
        with socket.socket(family, kind) as tried:
            try:
                tried.bind(address)
            except OSError:
                continue
            return True
    return False


def _listening_on(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    inodes = set()
    for table in TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(words[9])
    return inodes


def _sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets, none where it is gone or we may not look at it."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found
