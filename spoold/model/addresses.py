"""Tells which addresses lie outside of an operator's own networks.

Only unicast addresses of the Internet count as outside. All others do not: loopback, private and link-local addresses,
multicast, and IPv6 addresses with an IPv4 address inside (mapped, compatible, 6to4, Teredo, NAT64), which lead to
wherever the inner address leads. The tables are IANA's special-purpose registries (RFC 6890). The properties of
Python's ipaddress are no help here: ``is_global`` is true of 64:ff9b::7f00:1, of 2002:7f00:1:: and of multicast.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_OUTSIDE_6 = ip_network("2000::/3")  # the only range that was ever given out as global unicast
_SPECIAL_6 = [
    ip_network(text)
    for text in (
        "2001::/23",  # for protocols: Teredo, benchmarks, ORCHID and others
        "2001:db8::/32",  # documentation, as is 3fff::/20
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]
_SPECIAL_4 = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared, behind a provider's NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the metadata of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
]

ANYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def is_outside(address: Address) -> bool:
    """Tell whether an address is a unicast address of the Internet, without a special purpose."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    return address in _OUTSIDE_6 and not any(address in network for network in _SPECIAL_6)


def may_be_reached(address: Address, inside: Iterable[Network]) -> bool:
    """Tell whether an address is outside, or in one of the operator's own networks ``inside``."""
    return is_outside(address) or any(address in network for network in inside)


def network(text: str) -> Network:
    """Parse a network as an operator writes it. Raises :class:`ValueError`, which says what is wrong."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network: {error}; write it as '10.1.2.0/24'") from None
