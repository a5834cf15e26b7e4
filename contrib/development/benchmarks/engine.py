"""The processes of a Docker engine: the daemon, its descendants, and the shims of a spool's containers."""

from __future__ import annotations

import struct
from pathlib import Path
from socket import AF_UNIX, SO_PEERCRED, SOL_SOCKET, socket

from benchmarks.served import Served
from benchmarks.ways import megabytes

PEER = struct.Struct("iII")  # unix(7), SO_PEERCRED: pid, uid, gid


def listener(docker: str) -> int:
    """Return the pid of the daemon that listens at the URL ``docker``."""
    with socket(AF_UNIX) as connection:
        connection.connect(docker.removeprefix("unix://"))
        pid: int = PEER.unpack(connection.getsockopt(SOL_SOCKET, SO_PEERCRED, PEER.size))[0]
    return pid


def processes() -> list[tuple[int, int, str]]:
    """Return pid, parent and name of each process of the host."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                text = (directory / "stat").read_text()
            except OSError:
                continue
            name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 1 :].split()
            found.append((int(directory.name), int(rest[1]), name))
    return found


def _words_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def processes_of(engine: int, served: Served) -> set[int]:
    """Return the pids of the daemon, of all that it started, and of the shims of containers that live.

    A shim is nobody's child. A program in a container is a shim's child, and no part of the engine.
    """
    ids, found, shims = served.container_ids(), {engine}, set()
    for pid, parent, name in sorted(processes()):
        if name.startswith("containerd-shim") and not ids.isdisjoint(_words_of(pid)):
            shims.add(pid)
        elif parent in found:
            found.add(pid)
    return found | shims


def engine_memory(docker: str, served: Served) -> dict[str, float]:
    """Return the MB of an engine while one spool's containers wait: of the daemons, and of all the spool's shims."""
    names = {pid: name for pid, _, name in processes()}
    memory = {"daemons": 0.0, "shims": 0.0}
    for pid in processes_of(listener(docker), served):
        memory["shims" if names.get(pid, "").startswith("containerd-shim") else "daemons"] += megabytes(pid)
    return {name: round(size, 1) for name, size in memory.items()}
