"""The proxy as a process: it takes orders on a Unix socket, and serves each in a process of its own.

Under its unit it listens on a socket that every user of the host finds and that only the builder's user may use: the
kernel says who calls. A fetch that goes wrong takes its own process with it, and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from typing import NoReturn

import msgspec

from spoold.config import NixSettings, Settings
from spoold.host import accounts, journal
from spoold.host import log as logs
from spoold.host.log import Log
from spoold.host.notify import notify
from spoold.model import addresses
from spoold.model.errors import OperatorError
from spoold.model.hosts import Hosts
from spoold.model.job import BuildLimits
from spoold.proxy.order import ACCEPTED, LONGEST, Order
from spoold.proxy.passing import Passing, Rules

log = Log("fetch")
DIRECTORY, NAME = "/run/spoold-fetch", "socket"  # the first is its unit's RuntimeDirectory
BUILDER = "spoold-builder"
ORDERS = 32  # at once
ORDER_TIME = 10.0  # seconds for an order to come
_WHO = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy for one order is started with: the settings that count, and the user to become, -1 for none."""

    fetch: list[str]
    fetch_inside: list[str]
    uid: int


def run(settings: Settings) -> None:
    """Serve orders until SIGTERM; where there is nothing to let through, say so and end.

    Raises :class:`OperatorError` where the socket cannot be made.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # all of its settings need a restart
    if not settings.nix.fetch:
        log.info("nothing to do: [nix] fetch names no host")
        notify("READY=1")
        return
    callers = {0, os.geteuid(), accounts.uid_of(BUILDER)} - {None}
    path = os.path.join(os.environ.get("RUNTIME_DIRECTORY", DIRECTORY), NAME)
    with _listening(path) as listener:
        log.info("ready", hosts=" ".join(settings.nix.fetch), socket=path)
        notify("READY=1")
        _take_orders(listener, callers, rules(settings.nix), settings.builder.limits)


def rules(settings: NixSettings) -> Rules:
    """Return what the operator allows."""
    return Rules(Hosts(settings.fetch), [addresses.network(each) for each in settings.fetch_inside])


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as held:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            held.callback(os.unlink, path)
            os.chmod(path, 0o666)  # noqa: S103 - the kernel says who calls
            listener.listen(ORDERS)
        except OSError as error:
            raise OperatorError(
                f"cannot listen at {path}: {error.strerror}; start it by its unit, which makes the directory: "
                "systemctl start spoold-fetch"
            ) from error
        yield listener


def _take_orders(
    listener: socket.socket, callers: Collection[int | None], rules: Rules, limits: BuildLimits
) -> NoReturn:
    children: set[int] = set()
    while True:
        control, _ = listener.accept()
        with control:
            children -= _ended(children)
            _, uid, _ = _WHO.unpack(control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _WHO.size))
            if uid not in callers:
                log.warning("a user who is not the builder has called", uid=uid)
            elif len(children) >= ORDERS:
                log.warning("too many fetches at once; the builder tries again", most=ORDERS)
            elif child := os.fork():
                children.add(child)
            else:
                listener.close()
                os._exit(_served(control, rules, limits))


def _ended(children: Collection[int]) -> set[int]:
    return {child for child in children if os.waitpid(child, os.WNOHANG)[0]}


def _served(control: socket.socket, rules: Rules, limits: BuildLimits | None) -> int:
    """Serve one order, in a process for it alone; return the process's exit code."""
    try:
        serve(control, rules, limits)
    except (OSError, msgspec.DecodeError) as error:
        log.warning("an order was not carried out", error=error)
        return 1
    except Exception as error:  # noqa: BLE001 - the one handler of this process
        log.bug("an order was not carried out", error=error)
        return 1
    return 0


def serve(control: socket.socket, rules: Rules, limits: BuildLimits | None = None) -> None:
    """Serve the order that comes by ``control``, and answer it there; ``limits`` are bounds beside its own."""
    control.settimeout(ORDER_TIME)
    data, descriptors, *_ = socket.recv_fds(control, LONGEST, 1)
    order = msgspec.json.decode(data, type=Order)
    if limits is not None:
        order = msgspec.structs.replace(
            order, bytes=min(order.bytes, limits.fetch_bytes), time=min(order.time, limits.fetch_time)
        )
    with socket.socket(fileno=descriptors[0]) as listener:
        for each in (listener, control):
            each.setblocking(False)
        control.send(ACCEPTED)
        report = asyncio.run(Passing(rules, order).serve(listener, control))
    control.setblocking(True)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the builder is gone
        control.sendall(msgspec.json.encode(report))


def main() -> None:
    """Serve one order on the socket whose number is the second argument; the first is a :class:`Given`."""
    given = msgspec.json.decode(sys.argv[2], type=Given)
    control = socket.socket(fileno=int(sys.argv[3]))
    logs.set_up(level="info", journal=journal.is_stderr())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the builder ends, and so the order
    nix = NixSettings(fetch=given.fetch, fetch_inside=given.fetch_inside)
    if given.uid >= 0:
        _become(given.uid)
    # Threads of a resolver that does not answer are nothing to wait for.
    os._exit(_served(control, rules(nix), None))


def _become(uid: int) -> None:
    """Give up root for good; what Python loads when it is first used is loaded before, it may not be readable later."""
    "".encode("idna")
    for module in ("concurrent.futures.thread", "traceback"):
        importlib.import_module(module)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
