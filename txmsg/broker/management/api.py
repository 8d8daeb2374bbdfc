"""ManagementAPI: what the answers have in common, and one question from beginning to end.

Knows no HTTP: `site` brings a method, a path, and who asks; what comes back is an :class:`Answer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.broker.connection.connection import BrokerConnection
from txmsg.broker.faults import Fault
from txmsg.broker.management import (
    bindings,
    connections,
    consumers,
    definitions,
    exchanges,
    health,
    overview,
    permissions,
    policies,
    queues,
    users,
    vhosts,
)
from txmsg.broker.management.calls import Answer, Call, Refusal, not_authorised, not_found, refusal_of
from txmsg.broker.management.plain import plain_text
from txmsg.broker.management.routes import Routes
from txmsg.broker.management.visitors import REFUSALS, Visitor
from txmsg.errors import TxmsgError

if TYPE_CHECKING:
    from txmsg.broker.channel import ServerChannel
    from txmsg.broker.server import Broker
    from txmsg.broker.users.credentials import User

__all__ = ["ManagementAPI"]

_ROUTES = Routes(
    (
        bindings,
        connections,
        consumers,
        definitions,
        exchanges,
        health,
        overview,
        permissions,
        policies,
        queues,
        users,
        vhosts,
    )
)


class ManagementAPI:
    """Answers questions about a broker.

    broker: Broker.  node: str -- what RabbitMQ calls the node: `txmsg@localhost`.
    """

    log = Logger(namespace="txmsg.broker.management")

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.node = f"{broker.name}@localhost"
        self._started = broker.reactor.seconds()
        #: (host, port) of each listener of the API itself.
        self.http_listeners: list[tuple[str, int]] = []

    # -- what answers need --------------------------------------------------------------------------------

    def uptime(self) -> int:
        """Milliseconds since the start."""
        return int((self.broker.reactor.seconds() - self._started) * 1000)

    def listeners(self) -> list[dict[str, Any]]:
        """All listeners as RabbitMQ shows them, by port."""
        found = [
            (listener.port, listener.host, "amqp/ssl" if listener.is_tls else "amqp")
            for listener in self.broker.listeners
        ]
        found += [(port, host, "http") for host, port in self.http_listeners]
        return [
            {"node": self.node, "protocol": protocol, "ip_address": host, "port": port, "socket_opts": {}}
            for port, host, protocol in sorted(found)
        ]

    def connection_name(self, owner: object) -> dict[str, Any] | None:
        """Who an exclusive queue belongs to; None if that is no connection."""
        if not isinstance(owner, BrokerConnection):
            return None
        return {"name": owner.name, "peer_host": owner.peer_host, "peer_port": owner.peer_port}

    def channel_name(self, channel: ServerChannel) -> str:
        """What RabbitMQ calls a channel."""
        return f"{channel.connection.name} ({channel.number})"

    def channel_details(self, channel: ServerChannel) -> dict[str, Any]:
        """How a consumer says which channel it is on."""
        connection = channel.connection
        user = connection.user
        return {
            "connection_name": connection.name,
            "name": self.channel_name(channel),
            "node": self.node,
            "number": channel.number,
            "peer_host": connection.peer_host,
            "peer_port": connection.peer_port,
            "user": "" if user is None else plain_text(user.name),
        }

    # -- a question ---------------------------------------------------------------------------------------

    def answer(
        self,
        user: User,
        method: str,
        path: Sequence[str],
        query: Mapping[str, str],
        headers: Mapping[str, str],
        content: bytes,
    ) -> Deferred[Answer]:
        """Fire with the answer to a question of `user`; never fails.

        path: the segments after `/api/`, percent-decoded.  An answer to a change comes when it is safe: when the
        journal has it, if there is one.
        """
        visitor = Visitor(user, self.broker.users)
        asked = maybeDeferred(self._ask, visitor, method, path, query, headers, content)
        asked.addCallback(lambda found: found if isinstance(found, Answer) else Answer(200, found))
        if method not in ("GET", "HEAD", "OPTIONS"):
            asked.addCallback(self._when_safe)
        asked.addErrback(self._refused)
        return asked

    def _ask(
        self,
        visitor: Visitor,
        method: str,
        path: Sequence[str],
        query: Mapping[str, str],
        headers: Mapping[str, str],
        content: bytes,
    ) -> Any:
        found = _ROUTES.find(method, path)
        if found is None:
            raise not_found()
        allowed = {"Allow": ", ".join(sorted(found.methods))}
        if method == "OPTIONS":
            return Answer(200, None, allowed)
        if found.route is None:
            return Answer(405, None, allowed)
        if not visitor.is_at_least(found.route.level):
            raise not_authorised(REFUSALS[found.route.level])
        call = Call(self, visitor, query, headers, content)
        return found.route.handler(call, *found.arguments)

    def _when_safe(self, answer: Answer) -> Deferred[Answer]:
        safe: Deferred[Answer] = Deferred()
        self.broker.journal.after_commit(lambda: safe.callback(answer), safe.errback)
        return safe

    def _refused(self, failure: Failure) -> Answer:
        error = failure.value
        if isinstance(error, Fault):
            error = refusal_of(error)
        if isinstance(error, Refusal):
            return Answer(error.status, {"error": error.error, "reason": error.reason})
        if isinstance(error, TxmsgError):
            return Answer(500, {"error": "internal_server_error", "reason": str(error)})
        self.log.failure("a question to the management API could not be answered", failure)
        return Answer(500, {"error": "internal_server_error", "reason": "see the broker's log"})

    def __repr__(self) -> str:
        return f"<ManagementAPI of {self.broker!r}>"
