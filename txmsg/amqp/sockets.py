"""Options of the TCP socket below a transport, also below TLS."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper

__all__ = ["set_socket_options"]

_log = Logger(namespace="txmsg.amqp.sockets")


def set_socket_options(transport: Any, tcp_options: Mapping[str, int] | None) -> None:
    """Set TCP options by name (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT) on the transport's socket.

    Any TCP_KEEP... switches keep-alive on.  Left out are: names that this platform does not have, and all of them on a
    stream that is not TCP (B-16).  What the system refuses is logged, and does not cost the connection.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    if not tcp_options or not ITCPTransport.providedBy(transport):
        return
    handle: Any = getattr(transport, "getHandle", lambda: None)()
    if any(name.startswith("TCP_KEEP") for name in tcp_options):
        transport.setTcpKeepAlive(True)
    for name, value in tcp_options.items():
        number = getattr(socket, name, None)
        if number is None:
            continue
        try:
            handle.setsockopt(socket.IPPROTO_TCP, number, value)
        except (AttributeError, OSError) as error:
            _log.warn("cannot set {name}={value} on the socket: {error}", name=name, value=value, error=error)
