"""The supervisor's main line: say that it is ready, take the job, run the phases that the host orders.

With one argument, the uid of the job, it serves one, and the container ends with it. With those of
``cell.serve_many`` a copy of it serves each job in a cell of its own.
"""

from __future__ import annotations

import os
import sys

from . import cell, counters, peaks
from .files import FULL, receive, serve
from .messages import VERSION, Again, Broken, End, Message, Order, Parcel, Ready, Refused, failed, story
from .phase import Phase, Tools
from .wire import GoneError, Host

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import NoReturn

RESERVE, CELL_RESERVE = 4 * 1024**2, 256 * 1024  # bytes; touching more would be a good part of a cell's price


def main() -> None:
    """Serve until the host closes its side."""
    host = Host()
    tools = Tools(host)
    greeting = ready()
    holder, *room = map(int, sys.argv[1:])
    if room:
        cell.serve_many(
            lambda first: _serve_in_cell(tools, greeting if first else Again()),
            tools.counters,
            holder=holder,
            **dict(zip(("space", "inodes"), room, strict=True)),
        )
    serve(holder)
    tools.get_ready()
    tools.keep_in_reserve(RESERVE)
    try:
        tools.host.send(greeting)
        job = tools.host.message(Parcel)
        tools.counters.begin_peaks(peaks.left())
        _serve(tools, job)
    except GoneError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the host has to know what is wrong with us
        _tell(tools.host, error)
        os._exit(1)


def _tell(host: Host, error: Exception) -> None:
    """Tell the host of a bug of ours, where it still listens."""
    try:  # noqa: SIM105 (contextlib takes too long to import)
        host.send(Broken(story=story(error)))
    except GoneError:
        pass


def _serve_in_cell(tools: Tools, greeting: Message) -> NoReturn:
    tools.get_ready()
    tools.keep_in_reserve(CELL_RESERVE)
    try:
        tools.host.send(greeting)
        job = tools.host.message(Parcel)
        try:
            cell.settle(job.store if job.viewed else None)
        except OSError as error:
            tools.host.send(failed(error))
        _serve(tools, job)
    except GoneError:
        os._exit(cell.GONE)
    except Exception as error:  # noqa: BLE001 - as above
        _tell(tools.host, error)
        os._exit(1)


def _serve(tools: Tools, job: Parcel) -> NoReturn:
    host = tools.host
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        stdin = receive(host, job)
    except OSError as error:
        if error.errno not in FULL:
            raise  # the names are good: whatever else it is, the job has no part in it
        host.send(Refused(reason=(error.strerror or "").encode()))
        host.any_of()  # nothing comes but the end
        raise GoneError from error
    while True:
        order = host.any_of(Order, End)
        if not isinstance(order, Order):
            cell.leave()
        Phase(tools, order).run(stdin if order.input else nothing)


def ready() -> Ready:
    """Return the first message: what the kernel says of this process, for the host to see that it got what it asked."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file if b":" in line)
    return Ready(
        version=VERSION,
        # Kernels that are not Linux (gVisor's) do not say everything.
        no_new_privileges=int(lines.get(b"NoNewPrivs", b"-1")),
        seccomp=int(lines.get(b"Seccomp", b"-1")),
        capabilities=int(lines.get(b"CapBnd", b"-1"), 16),
        memory=counters.memory_limit(),
        kernel=_boot_id(),
    )


def _boot_id() -> bytes:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().strip()
    except OSError:
        return b""
