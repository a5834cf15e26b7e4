"""The proxy as a process: it takes orders on a Unix socket, and serves each order in a process of its own.

Under its unit it listens on a socket that every user of the host can connect to. Only root, the proxy's own user and
the builder's user may give orders, and the kernel says which user is connected. A fetch that goes wrong ends only its
own process.
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
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import NoReturn

import msgspec

from spoold.config import Settings
from spoold.host import accounts, journal
from spoold.host import log as logs
from spoold.host.log import Log
from spoold.host.notify import notify
from spoold.model.errors import OperatorError
from spoold.proxy import rules
from spoold.proxy.order import ACCEPTED, LONGEST, Given, Order, Purpose, Rules
from spoold.proxy.passing import Passing

log = Log("fetch")
DIRECTORY, NAME = "/run/spoold-fetch", "socket"  # DIRECTORY is the unit's RuntimeDirectory
BUILDER = "spoold-builder"
ORDERS = 32  # at once
ORDER_TIME = 30.0  # seconds within which an order has to arrive: a namespace is made for it meanwhile
_WHO = struct.Struct("iII")  # struct ucred: pid, uid, gid


RulesFor = Callable[[Purpose], Rules]


def run(read: Callable[[], Settings]) -> None:
    """Serve orders until SIGTERM. Where the settings name no host at all, log that and return.

    ``read`` reads the settings. Raises :class:`OperatorError` where they have a mistake, or the socket cannot be made.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the settings are read for each order
    settings = read()
    if not rules.any_at_all(settings.nix, settings.nixpkgs.values()):
        log.info("the proxy has nothing to do: the settings name no host in [nix] fetch, substituters or a pin")
        notify("READY=1")
        return
    callers = {0, os.geteuid(), accounts.uid_of(BUILDER)} - {None}
    path = os.path.join(os.environ.get("RUNTIME_DIRECTORY", DIRECTORY), NAME)
    with _listening(path) as listener:
        log.info("ready", hosts=" ".join(settings.nix.fetch), socket=path)
        notify("READY=1")
        _take_orders(listener, callers, partial(_rules, read, settings))


def _rules(read: Callable[[], Settings], at_start: Settings, purpose: Purpose) -> Rules:
    """Return what the settings allow now. They are read each time, since daemons take over new pins while they run."""
    try:
        settings = read()
    except OperatorError as error:
        log.error("the settings cannot be read; those from the start stay in use", error=error)
        settings = at_start
    return rules.of(purpose, settings.nix, settings.nixpkgs.values(), settings.builder.limits)


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as held:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            held.callback(os.unlink, path)
            os.chmod(path, 0o666)  # noqa: S103 - the kernel says who is connected
            listener.listen(ORDERS)
        except OSError as error:
            raise OperatorError(
                f"cannot listen at {path}: {error.strerror}; start it by its unit, which makes the directory: "
                "systemctl start spoold-fetch"
            ) from error
        yield listener


def _take_orders(listener: socket.socket, callers: Collection[int | None], rules_for: RulesFor) -> NoReturn:
    children: set[int] = set()
    while True:
        control, _ = listener.accept()
        with control:
            children -= _ended(children)
            _, uid, _ = _WHO.unpack(control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _WHO.size))
            if uid not in callers:
                log.warning("a user other than the builder connected; it is refused", uid=uid)
            elif len(children) >= ORDERS:
                log.warning("too many downloads at once; the builder tries again", most=ORDERS)
            elif child := os.fork():
                children.add(child)
            else:
                listener.close()
                os._exit(_served(control, rules_for))


def _ended(children: Collection[int]) -> set[int]:
    return {child for child in children if os.waitpid(child, os.WNOHANG)[0]}


def _served(control: socket.socket, rules_for: RulesFor) -> int:
    """Serve one order, in a process for it alone. Return the exit code of the process."""
    try:
        serve(control, rules_for)
    except (OSError, msgspec.DecodeError) as error:
        log.warning("an order was not carried out", error=error)
        return 1
    except Exception as error:  # noqa: BLE001 - the one handler of this process
        log.bug("an order was not carried out", error=error)
        return 1
    return 0


def serve(control: socket.socket, rules_for: RulesFor) -> None:
    """Serve the order that comes on ``control``, and send the report there.

    Raises :class:`OSError` or :class:`msgspec.DecodeError` where no whole order comes in time.
    """
    control.settimeout(ORDER_TIME)
    data, descriptors, *_ = socket.recv_fds(control, LONGEST, 1)
    order = msgspec.json.decode(data, type=Order)
    allowed = rules_for(order.purpose)
    order = msgspec.structs.replace(order, bytes=min(order.bytes, allowed.bytes), time=min(order.time, allowed.time))
    with socket.socket(fileno=descriptors[0]) as listener:
        for each in (listener, control):
            each.setblocking(False)
        control.send(ACCEPTED)
        # asyncio.run would wait for threads whose resolver does not answer.
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            report = loop.run_until_complete(Passing(allowed, order).serve(listener, control))
    control.setblocking(True)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the builder is gone
        control.sendall(msgspec.json.encode(report))


def main() -> None:
    """Serve one order for a builder that started this process.

    Two arguments follow the path of modules: a :class:`Given` in JSON, and the number of the socket's descriptor.
    """
    given = msgspec.json.decode(sys.argv[2], type=Given)
    control = socket.socket(fileno=int(sys.argv[3]))
    logs.set_up(level="info", journal=journal.is_stderr())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal. It ends the builder, which ends the order
    if given.uid >= 0:
        _become(given.uid)
    # An exit by sys.exit would wait for threads whose resolver does not answer.
    os._exit(_served(control, lambda _: given.rules))


def _become(uid: int) -> None:
    """Give up root for good. Load first the modules that Python loads on first use: they may not be readable later."""
    "".encode("idna")
    for module in ("concurrent.futures.thread", "traceback"):
        importlib.import_module(module)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
