"""MemoryTransport: from a ``memory://`` URL to a virtual host in this process.

    memory://            the broker without a name, virtual host "/"
    memory://test/jobs   the broker named "test", virtual host "jobs"

Connections to the same name and virtual host meet, whoever made them; nothing else does.  A broker is there from the
first connection on and holds what it has until :meth:`MemoryTransport.reset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred, fail, succeed

from txmsg.abc import Guarantees
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.vhost.usage import Usage
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import ConfigurationError, ConnectionForced
from txmsg.transports.memory.connection import MemoryConnection
from txmsg.transports.options import check_options

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Clock

__all__ = ["MemoryTransport"]


class _MemoryBroker:
    """What a name stands for: virtual hosts that share a clock and a limit on memory."""

    def __init__(self, clock: Clock, limits: BrokerLimits) -> None:
        self.clock = clock
        self.limits = limits
        self.usage = Usage(limits.broker_bytes)
        self.vhosts: dict[str, VirtualHost] = {}

    def vhost(self, name: str) -> VirtualHost:
        found = self.vhosts.get(name)
        if found is None:
            found = VirtualHost(name, clock=self.clock, limits=self.limits, usage=self.usage)
            self.vhosts[name] = found
        return found


class MemoryTransport:
    """The transport of ``memory://``; a :class:`~txmsg.abc.MessagingTransport`.

    reactor -- its clock, for TTL and for the turns in which callbacks run: a `task.Clock` makes a test deterministic.
        None: the one given to the first `connect` to a name, or the installed one.
    limits: BrokerLimits -- of each broker; None for the defaults.
    """

    schemes = ("memory",)
    default_ports: Mapping[str, int] = MappingProxyType({})
    url_options: frozenset[str] = frozenset()
    url_defaults: Mapping[str, str] = MappingProxyType({"virtual_host": "/"})
    exchange_types = frozenset({"direct", "fanout", "topic", "headers"})
    guarantees = Guarantees(delivery="at-least-once", is_ordered=True, survives_restart=False, redelivery_timeout=None)

    def __init__(self, *, reactor: Any = None, limits: BrokerLimits | None = None) -> None:
        self._reactor = reactor
        self._limits = BrokerLimits() if limits is None else limits
        self._brokers: dict[str, _MemoryBroker] = {}
        self._connections: dict[MemoryConnection, None] = {}

    def connect(
        self,
        url: str = "memory://",
        *,
        reactor: Any = None,
        alternates: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Deferred[MemoryConnection]:
        """Connect; fires at once.  ConfigurationError for a URL that cannot be used.

        reactor: all who connect to one name must give the same one, or none.
        alternates: not used: a connection to one's own process is not lost.   options: there are none.
        """
        try:
            check_options("memory://", options, ())
            name, vhost = _parse(url)
            broker = self._broker(name, reactor)
        except ConfigurationError as error:
            return fail(error)
        connection = MemoryConnection(broker.vhost(vhost), broker.clock)
        self._connections[connection] = None
        connection.when_closed().addCallback(lambda reason: self._connections.pop(connection, None))
        return succeed(connection)

    def vhost(self, url: str = "memory://") -> VirtualHost:
        """The virtual host behind `url`, made if need be: `vhost().queues["jobs"].message_count` and the like."""
        name, vhost = _parse(url)
        return self._broker(name, None).vhost(vhost)

    def reset(self) -> None:
        """Close all connections (ConnectionForced) and forget everything: for the end of a test."""
        for connection in list(self._connections):
            connection.end(ConnectionForced("the memory transport was reset"))
        brokers, self._brokers = self._brokers, {}
        for broker in brokers.values():
            for vhost in broker.vhosts.values():
                for queue in list(vhost.queues.values()):
                    vhost.delete_queue(queue.name, owner=queue.owner)

    def _broker(self, name: str, reactor: Any) -> _MemoryBroker:
        wanted = self._reactor if reactor is None else reactor
        found = self._brokers.get(name)
        if found is None:
            if wanted is None:
                from twisted.internet import reactor as wanted
            found = self._brokers[name] = _MemoryBroker(wanted, self._limits)
        elif wanted is not None and wanted is not found.clock:
            raise ConfigurationError(
                f"memory://{name} runs on another reactor already; choose another name for this one"
            )
        return found

    def __repr__(self) -> str:
        return f"<MemoryTransport {len(self._brokers)} brokers, {len(self._connections)} connections>"


def _parse(url: object) -> tuple[str, str]:
    """The name and the virtual host in a URL; nothing of a URL that might hold a password is shown."""
    if not isinstance(url, str):
        raise ConfigurationError(f"a URL is a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        is_bare = parts.scheme == "memory" and not (parts.query or parts.fragment) and "@" not in parts.netloc
    except ValueError:
        is_bare = False
    if not is_bare:
        raise ConfigurationError("a memory URL is memory://name/vhost, both may be left out; there is no user in it")
    path = parts.path.removeprefix("/")
    if "/" in path:
        raise ConfigurationError('a memory URL has one path segment: write a "/" in the virtual host as %2F')
    return unquote(parts.netloc), unquote(path) or "/"
