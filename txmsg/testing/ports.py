"""Free TCP ports for brokers that tests start.

Invariant: every port given out is **below 32768**, the start of Linux's ephemeral range.  A client that keeps
retrying a port inside that range can be given the very same port for its own side, connect *to itself*, and
so hold the port the broker needs (TCP simultaneous open, RFC 9293 section 3.5).
"""

from __future__ import annotations

import random
import socket

__all__ = ["HIGHEST_PORT", "LOWEST_PORT", "free_ports"]

#: The range ports are picked from: above the well-known ones, below the ephemeral range.
LOWEST_PORT = 20000
HIGHEST_PORT = 32700

#: Ports that a default broker or its tools use by themselves.
_RESERVED = frozenset({25672})

_ATTEMPTS = 2000


def free_ports(count: int, *, host: str = "127.0.0.1") -> list[int]:
    """Return ``count`` different TCP ports on which nothing listens now.

    They are picked at random, so that test runs going on at once seldom choose the same; nothing reserves
    them, so whoever starts a server on one must be ready to try again.

    :param count: how many ports.
    :param host: the address on which they must be free.
    :raises OSError: if that many free ports were not found.
    """
    found: list[int] = []
    generator = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        if len(found) == count:
            break
        port = generator.randint(LOWEST_PORT, HIGHEST_PORT)
        if port not in found and port not in _RESERVED and _is_free(host, port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"no {count} free ports on {host} between {LOWEST_PORT} and {HIGHEST_PORT}")
    return found


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT from the last run is free to listen on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
