"""The supervisor's main line: say that it is ready, take the job, run the phases that the host orders.

With one argument, the uid of the job, it serves one, and the container ends with it. With those of
``cell.serve_many`` a copy of it serves each job in a cell of its own.
"""

from __future__ import annotations

import os
import sys

from . import cell, counters
from .files import receive, serve
from .phase import Phase, Tools
from .wire import GoneError, Host

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERSION = 2
RESERVE, CELL_RESERVE = 4 * 1024**2, 256 * 1024  # bytes; touching more would be a good part of a cell's price


def main() -> None:
    """Serve until the host closes its side."""
    host = Host()
    tools = Tools(host)
    greeting = ready()
    holder, *room = map(int, sys.argv[1:])
    if room:
        again: dict[str, object] = {"event": "again"}
        cell.serve_many(
            lambda first: _serve_in_cell(tools, greeting if first else again),
            tools.counters,
            holder=holder,
            **dict(zip(("space", "inodes", "shared"), room, strict=True)),
        )
    serve(holder)
    tools.get_ready()
    tools.keep_in_reserve(RESERVE)
    try:
        tools.host.send(greeting)
        _serve(tools, tools.host.message())
    except GoneError:
        os._exit(0)


def _serve_in_cell(tools: Tools, greeting: dict[str, object]) -> NoReturn:
    tools.get_ready()
    tools.keep_in_reserve(CELL_RESERVE)
    try:
        tools.host.send(greeting)
        job = tools.host.message()
        try:
            cell.settle(job.get("store"))
        except OSError as error:
            tools.host.send({"event": "failed", "reason": f"{os.fsdecode(error.filename or b'')}: {error.strerror}"})
        _serve(tools, job)
    except GoneError:
        os._exit(cell.GONE)


def _serve(tools: Tools, job: dict[str, Any]) -> NoReturn:
    host = tools.host
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        stdin = receive(host, job)
    except OSError as error:
        host.send({"event": "refused", "reason": error.strerror or ""})
        host.message()  # nothing comes but the end
        raise GoneError from error
    while True:
        order = host.message()
        if order.get("end"):
            cell.leave()
        Phase(tools, order).run(stdin if order["input"] else nothing)


def ready() -> dict[str, object]:
    """Return the first message: what the kernel says of this process, for the host to see that it got what it asked."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file if b":" in line)
    return {
        "event": "ready",
        "version": VERSION,
        # Kernels that are not Linux (gVisor's) do not say everything.
        "no_new_privileges": int(lines.get(b"NoNewPrivs", b"-1")),
        "seccomp": int(lines.get(b"Seccomp", b"-1")),
        "capabilities": int(lines.get(b"CapBnd", b"-1"), 16),
        "memory": counters.memory_limit(),
        "kernel": _boot_id(),
    }


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
