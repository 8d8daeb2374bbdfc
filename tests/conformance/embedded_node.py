"""An embedded broker with the operator's methods of a RabbitMQ node, so that a case may use either.

As those of :class:`txmsg.testing.rabbitmq.RabbitMQNode` they block, and are called in a thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread

from tests.certificates import shared_authority
from txmsg.broker.tls import ServerTLS
from txmsg.testing import EmbeddedBroker

_T = TypeVar("_T")


def in_reactor(call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call it in the reactor's thread, and wait."""
    result: Any = blockingCallFromThread(reactor, call, *args, **kwargs)  # type: ignore[arg-type]
    return result  # type: ignore[no-any-return]


class EmbeddedNode:
    """What the cases ask of `self.node`."""

    host = "127.0.0.1"

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.embedded = broker
        self.port = self.tls_port = self.mtls_port = 0

    async def start(self) -> None:
        """Start the broker, with the three listeners that the RabbitMQ node has."""
        await self.embedded.start()
        self.port = (await self.embedded.listen()).port

    async def listen_with_tls(self) -> None:
        """The other two."""
        authority = shared_authority()
        server = authority.issue("broker", dns=["localhost"], ip=["127.0.0.1", "::1"])
        files: dict[str, Any] = {
            "cert_file": server.certificate_file,
            "key_file": server.key_file,
            "ca_file": authority.certificate_file,
        }
        self.tls_port = (await self.embedded.listen(tls=ServerTLS(**files))).port
        self.mtls_port = (await self.embedded.listen(tls=ServerTLS(**files, verify="required"))).port

    @property
    def url(self) -> str:
        """For guest."""
        return self.embedded.url

    def add_user(self, name: str, password: str | None = None) -> None:
        """Without a password: by certificate only."""

        def add() -> None:
            self.embedded.broker.users.add(name, password)
            self.embedded.broker.users.set_permissions(name, "/")

        in_reactor(add)

    def set_permissions(self, user: str, virtual_host: str) -> None:
        """It may do everything there."""
        in_reactor(self.embedded.broker.users.set_permissions, user, virtual_host)

    def delete_user(self, name: str) -> None:
        """And its connections."""
        in_reactor(self.embedded.broker.delete_user, name)

    def add_vhost(self, name: str, *, user: str | None = "guest") -> None:
        """For `user`, if any."""

        def add() -> None:
            self.embedded.broker.add_vhost(name)
            if user is not None:
                self.embedded.broker.users.set_permissions(user, name)

        in_reactor(add)

    def delete_vhost(self, name: str) -> None:
        """And all that is in it."""
        in_reactor(self.embedded.broker.delete_vhost, name)

    def queue_depth(self, queue: str) -> int:
        """Ready and unacknowledged."""
        view = self.embedded.queue(queue)
        return in_reactor(lambda: view.depth + view.unacked)

    def close_all_connections(self, reason: str) -> None:
        """With 320."""
        in_reactor(self.embedded.broker.close_all_connections, reason)

    @contextlib.contextmanager
    def alarm(self, resource: str = "memory") -> Iterator[None]:
        """Publishers are blocked."""
        in_reactor(self.embedded.broker.block, resource)
        try:
            yield
        finally:
            in_reactor(self.embedded.broker.unblock, resource)

    def rabbitmqctl(self, *arguments: str) -> str:
        """`list_connections client_properties`, as text; nothing else is asked."""
        assert arguments == ("list_connections", "client_properties")
        return in_reactor(lambda: "\n".join(str(view.raw.client_properties) for view in self.embedded.connections))
