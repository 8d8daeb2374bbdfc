"""Which addresses are this machine's own: for the rules about `guest`, and about listening without TLS (C7.1).

Only what the other end of a connection really is counts, never a name it gives, nor the address it connected to:
a proxy on this machine that forwards strangers makes all of them local, so no PROXY header is believed or read.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

__all__ = ["LOCAL", "host_of", "is_loopback", "port_of"]

#: What stands for a peer without an IP address: in this process, or behind a unix socket.
LOCAL: Final = "local"


def is_loopback(host: str) -> bool:
    """Whether `host`, an IP address in text, :data:`LOCAL` or "localhost", cannot be reached from another machine."""
    if host in (LOCAL, "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def host_of(address: IAddress | None) -> str:
    """The host of a transport's end: an IP address in text, or :data:`LOCAL`."""
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host
    return LOCAL


def port_of(address: IAddress | None) -> int:
    """The port of a transport's end, 0 where it has none."""
    if isinstance(address, IPv4Address | IPv6Address):
        return address.port
    return 0
