"""Listeners: where the broker waits for clients, and where it may (C7.1, R37).

Without TLS only at addresses of this machine that no other machine can reach, unless the operator says in so many
words that passwords may cross the network in the clear.  And beyond this machine only if there is somebody to let in:
the built-in user guest is for this machine alone (C7.2).
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from txmsg.broker.addresses import is_loopback
from txmsg.broker.tls import ServerTLS
from txmsg.errors import ConfigurationError, clip

if TYPE_CHECKING:
    from txmsg.broker.server import Broker

__all__ = ["Listener", "check_address", "open_listener", "write_password"]

#: How many clients the kernel keeps waiting.
BACKLOG: Final = 128


class Listener:
    """One address at which clients may connect.

    host: str, port: int -- as they really are: port 0 was any free one.  is_tls: bool.
    """

    def __init__(self, broker: Broker, port: IListeningPort, is_tls: bool) -> None:
        self._broker = broker
        self._port: IListeningPort | None = port
        address: Any = port.getHost()
        self.host: str = address.host
        self.port: int = address.port
        self.is_tls = is_tls

    @property
    def url(self) -> str:
        """The URL for clients, without a user."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqps' if self.is_tls else 'amqp'}://{host}:{self.port}"

    def stop(self) -> Deferred[None]:
        """Accept no more; what is connected stays.  May be called more than once."""
        port, self._port = self._port, None
        if port is None:
            return maybeDeferred(lambda: None)
        self._broker.listeners.discard(self)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)

    def __repr__(self) -> str:
        return f"<Listener {self.url}>"


def check_address(broker: Broker, host: str, tls: ServerTLS | None, allow_remote_plaintext: bool) -> str:
    """The address to bind to; ConfigurationError where the rules above forbid it."""
    if host == "localhost":
        host = "127.0.0.1"
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        problem = f"the broker listens at an IP address or at localhost, not at {clip(host)!r}"
    else:
        problem = ""
    if problem:
        raise ConfigurationError(problem)
    if is_loopback(host):
        return host
    if tls is None and not allow_remote_plaintext:
        raise ConfigurationError(
            f"refusing to listen at {host} without TLS: passwords would cross the network in the clear; give TLS "
            "files, or allow_remote_plaintext=True if every machine on the way may read them"
        )
    if not broker.users.has_remote:
        raise ConfigurationError(
            f"nobody could log in at {host}: the built-in user guest is for this machine only; add a user first"
        )
    return host


def open_listener(
    broker: Broker, host: str, port: int, tls: ServerTLS | None, allow_remote_plaintext: bool
) -> Listener:
    """Listen.  ConfigurationError as for :func:`check_address`; Twisted's CannotListenError if the port is taken."""
    host = check_address(broker, host, tls, allow_remote_plaintext)
    if tls is None:
        bound = broker.reactor.listenTCP(port, broker.factory, backlog=BACKLOG, interface=host)
    else:
        bound = broker.reactor.listenSSL(port, broker.factory, tls.creator(), backlog=BACKLOG, interface=host)
    return Listener(broker, bound, tls is not None)


def write_password(path: str | os.PathLike[str], password: str) -> None:
    """Keep a password in a new file that only its owner can read (C7.2).

    ConfigurationError if there is such a file already, or it cannot be made.
    """
    problem = ""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        del password
    if problem:
        raise ConfigurationError(f"cannot write the password file {os.fspath(path)}: {problem}")
