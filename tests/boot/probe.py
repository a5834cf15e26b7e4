"""Print what a process can do in the place of a daemon, as JSON: for each attempt "", or why it failed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path


def tried(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return str(error)
    return ""


def written(directory: str) -> None:
    path = Path(directory) / "probe"
    path.write_text("")
    path.unlink()


def connected() -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect("/run/docker.sock")


def outside() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.connect(("192.0.2.1", 9))


attempts: dict[str, Callable[[], object]] = {
    "docker": connected,
    "store": lambda: written("/var/lib/spoold/nix/nix/var"),
    "above": lambda: written("/var/lib/spoold"),
    "sockets": lambda: socket.socket(socket.AF_INET).close(),
    "network": outside,
    "spool": lambda: written("/var/spool/spoold/tmp"),
    "response": lambda: Path("/var/spool/spoold/done/hers.response.json").read_bytes(),
    "etc": lambda: written("/etc"),
    "usr": lambda: written("/usr"),
    "home": lambda: os.listdir("/home/alice"),
    "root": lambda: Path("/root/secret").read_bytes(),
}
status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(
    json.dumps(
        {what: tried(attempt) for what, attempt in attempts.items()}
        | {key: status[key] for key in ("Uid", "NoNewPrivs", "Seccomp")}
    )
)
