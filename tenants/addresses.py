"""Where nothing may be sent that a stranger chose the address of: what only this machine or its neighbours can reach.

A name is judged by what it connects to: every socket is checked against the list below as it is made, after the
resolver, so no spelling of an address (`127.1`, full-width digits, `0x7f000001`) and no change of mind of a name server
gets past. The list is our own, because `ipaddress.is_global` lets NAT64, 6to4 and `::127.0.0.1` through.
"""

import socket
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

BLOCKED: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host, at a public address
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        # Of IPv6 only 2000::/3 is anybody's: the rest holds loopback, ::a.b.c.d, ::ffff:a.b.c.d, NAT64 (64:ff9b::),
        # unique local, link-local, site-local and multicast.
        "::/3",
        "4000::/2",
        "8000::/1",
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which wraps any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


class BlockedAddress(PermissionError):
    """The name leads to an address on the list."""


def is_blocked(address: str) -> bool:
    """Whether nothing may be sent to a numeric address. What cannot be read is blocked."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    return any(found in block for block in BLOCKED if block.version == found.version)


class AddressGuard:
    """Makes a connector's sockets, each for the one resolved address that it will connect to. `refused`: one was not
    made."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self.refused = False

    def open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for a `getaddrinfo` entry. Raises BlockedAddress, which a connector takes for a failed connect."""
        family, kind, protocol, _, endpoint = address
        if not self._allow_private and is_blocked(str(endpoint[0])):
            self.refused = True
            raise BlockedAddress("an address on the list")
        return socket.socket(family=family, type=kind, proto=protocol)
