"""How a host is reached: its name is resolved once, and the proxy connects to the address that it checked."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Sequence

from spoold.model.addresses import Address, Network, may_be_reached
from spoold.model.hosts import Host

RESOLVING_TIME = 20.0  # seconds
CONNECTING_TIME = 15.0  # seconds, to each address
ADDRESSES = 8  # addresses of one host that are tried


class AwayError(Exception):
    """The host does not answer. The text says how it failed."""


class InsideError(Exception):
    """The name resolves only to addresses that must not be reached. The text names some of them."""


async def connect(host: Host, inside: Sequence[Network]) -> socket.socket:
    """Return a socket that is connected to ``host``. Raises :class:`AwayError` or :class:`InsideError`."""
    addresses = await resolve(host, inside)
    failed = ""
    for address in addresses[:ADDRESSES]:
        try:
            return await _connected(address, host.port)
        except TimeoutError:
            failed = f"{address} does not answer within {CONNECTING_TIME:g} s"
        except OSError as error:
            failed = f"{address}: {os.strerror(error.errno) if error.errno else error}"  # asyncio's text says less
    raise AwayError(f"{host} cannot be reached ({failed})")


async def resolve(host: Host, inside: Sequence[Network]) -> list[Address]:
    """Return the addresses of ``host`` that may be reached. Raises what :func:`connect` raises."""
    try:
        async with asyncio.timeout(RESOLVING_TIME):
            found = await lookup(host.name)
    except TimeoutError as error:
        raise AwayError(f"the name {host.name} cannot be resolved within {RESOLVING_TIME:g} s") from error
    except (OSError, UnicodeError) as error:
        raise AwayError(f"the name {host.name} cannot be resolved ({error})") from error
    addresses = [ipaddress.ip_address(each) for each in found]
    outside = [address for address in addresses if may_be_reached(address, inside)]
    if not outside:
        raise InsideError(
            f"{host} is {', '.join(map(str, addresses[:3]))} here, which is no address of the Internet, and "
            "`[nix] fetch_inside` does not list it"
        )
    return outside


async def lookup(name: str) -> list[str]:
    """Ask the resolver of this machine for the addresses of a name, best first. Raises :class:`OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _connected(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        async with asyncio.timeout(CONNECTING_TIME):
            await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection
