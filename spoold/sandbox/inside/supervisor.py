"""The supervisor's main line: say that it is ready, take the job, run the phases that the host orders."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # see phase
import os

from .counters import Counters
from .files import receive
from .phase import Phase
from .wire import GoneError, Host

VERSION = 1
RESERVE = 4 * 1024**2
PAGE = 4096


def main() -> None:
    """Serve one job, then wait for the end."""
    try:
        _serve(Host())
    except GoneError:
        os._exit(0)


def _serve(host: Host) -> None:
    counters = Counters()
    reserve = bytearray(RESERVE)
    reserve[::PAGE] = b"\1" * (RESERVE // PAGE)  # touched, so that it is really ours
    wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.set_wakeup_fd(wakeup_writer)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    host.send({"event": "ready", "version": VERSION, **_walls()})
    job = host.message()
    try:
        stdin = receive(host, job)
    except OSError as error:
        host.send({"event": "refused", "reason": error.strerror or ""})
        return
    while True:
        order = host.message()
        Phase(host, counters, order, wakeup, reserve).run(stdin if order["input"] else nothing)


def _walls() -> dict[str, object]:
    """Return what the kernel says of this process, for the host to check that the container is what it asked for."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file if b":" in line)
    return {
        "no_new_privileges": int(lines[b"NoNewPrivs"]),
        "seccomp": int(lines[b"Seccomp"]),
        "capabilities": int(lines[b"CapBnd"], 16),
    }
