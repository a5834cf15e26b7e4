"""The supervisor's main line: say that it is ready, take the job, run the phases that the host orders."""

from __future__ import annotations

import os

from .files import receive
from .phase import Phase, Tools
from .wire import GoneError, Host

VERSION = 1


def main() -> None:
    """Serve one job, then wait for the end."""
    try:
        _serve(Host())
    except GoneError:
        os._exit(0)


def _serve(host: Host) -> None:
    tools = Tools(host)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    host.send(ready())
    job = host.message()
    try:
        stdin = receive(host, job)
    except OSError as error:
        host.send({"event": "refused", "reason": error.strerror or ""})
        return
    while True:
        order = host.message()
        Phase(tools, order).run(stdin if order["input"] else nothing)


def ready() -> dict[str, object]:
    """Return the first message: what the kernel says of this process, for the host to see that it got what it asked."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file if b":" in line)
    return {
        "event": "ready",
        "version": VERSION,
        "no_new_privileges": int(lines[b"NoNewPrivs"]),
        "seccomp": int(lines[b"Seccomp"]),
        "capabilities": int(lines[b"CapBnd"], 16),
    }
