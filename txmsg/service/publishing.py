"""The service's publisher: for handlers that ask for one, and for delayed retries.

It has a connection of its own, because a broker under an alarm stops reading from connections that publish, and with
the publishes it would not see the acks either (https://www.rabbitmq.com/docs/connections#flow-control, R16).

Invariant: its end is bounded (R30): what has no outcome by then is counted and logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp import BasicProperties, Publisher, PublisherReport, ReconnectingConnection
from txmsg.service.watch import ConnectionWatch

__all__ = ["ServicePublishing", "ThreadPublisher"]


class ServicePublishing:
    """A connection for publishing, with its one publisher.

    connection: a ReconnectingConnection that is not started yet.  watch: that of the connection.
    timeout: seconds for each publish.  on_closed: called with the reason should the connection end by itself.
    """

    _log = Logger()

    def __init__(
        self,
        connection: ReconnectingConnection,
        watch: ConnectionWatch,
        *,
        timeout: float,
        on_closed: Callable[[BaseException], object],
    ) -> None:
        self.connection = connection
        self.watch = watch
        self.publisher: Publisher = connection.publisher(timeout=timeout)
        self._on_closed = on_closed

    def start(self) -> None:
        """Begin to connect; nobody waits for it, as the publisher may be used before."""
        self.watch.begin()
        self.connection.start().addCallbacks(lambda connection: self.watch.started(), _ignore)
        self.connection.when_closed().addCallback(self._on_closed)

    async def close(self, timeout: float) -> None:
        """Wait for outcomes, then close; each for `timeout` seconds at most."""
        report: PublisherReport = await self.publisher.close(timeout)
        left = report.unconfirmed + report.not_sent
        if left:
            self._log.warn(
                "of what was published {unconfirmed} messages were not confirmed and {not_sent} not sent",
                unconfirmed=report.unconfirmed,
                not_sent=report.not_sent,
            )
        await self.connection.close(timeout)


class ThreadPublisher:
    """The service's publisher as a handler in a thread sees it: publish() waits for the outcome."""

    __slots__ = ("_publisher", "_reactor")

    def __init__(self, publisher: Publisher, reactor: Any) -> None:
        self._publisher = publisher
        self._reactor = reactor

    def __repr__(self) -> str:
        return f"<ThreadPublisher of {self._publisher!r}>"

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: BasicProperties | None = None,
        *,
        mandatory: bool | None = None,
        timeout: float | None = None,
    ) -> str:
        """As :meth:`txmsg.amqp.Publisher.publish`, but returns the message id, or raises what that fails with."""

        def publish() -> Deferred[str]:
            return self._publisher.publish(
                exchange, routing_key, body, properties, mandatory=mandatory, timeout=timeout
            )

        result: str = blockingCallFromThread(self._reactor, publish)  # type: ignore[arg-type]
        return result


def _ignore(_failure: Failure) -> None:
    """on_closed has the reason."""
