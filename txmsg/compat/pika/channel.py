"""TwistedChannel: one method for each of pika's, over a channel of `txmsg.amqp`.

Here are those that only declare, bind and delete; `publishing` and `consuming` have the rest.
Arguments and their defaults are those of pika 1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred

from txmsg.compat.pika.consuming import Consuming
from txmsg.compat.pika.publishing import Publishing

__all__ = ["TwistedChannel"]

Arguments = Mapping[str, Any] | None


class TwistedChannel(Publishing, Consuming):
    """A channel; made by `TwistedProtocolConnection.channel()`.

    Methods that return a Deferred fire it with pika's frame (`frame.method.queue` and so on) and fail it, also for a
    wrong argument, instead of raising; it may be cancelled at any time.  Settling returns None and raises.
    """

    # -- exchanges ---------------------------------------------------------------------------------

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str | Enum = "direct",
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[Any]:
        """Create an exchange, or check that it exists (`passive`); fires with the DeclareOk frame."""
        kind = exchange_type.value if isinstance(exchange_type, Enum) else exchange_type
        return self._framed(
            self._channel.exchange_declare,
            exchange,
            kind,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
        )

    def exchange_delete(self, exchange: str | None = None, if_unused: bool = False) -> Deferred[Any]:
        """Delete an exchange; fires with the DeleteOk frame."""
        return self._framed(self._channel.exchange_delete, exchange, if_unused=if_unused)

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[Any]:
        """Bind the exchange `destination` to the exchange `source`; fires with the BindOk frame."""
        return self._framed(self._channel.exchange_bind, destination, source, routing_key, arguments=arguments)

    def exchange_unbind(
        self,
        destination: str | None = None,
        source: str | None = None,
        routing_key: str = "",
        arguments: Arguments = None,
    ) -> Deferred[Any]:
        """Take a binding between exchanges away; fires with the UnbindOk frame."""
        return self._framed(self._channel.exchange_unbind, destination, source, routing_key, arguments=arguments)

    # -- queues ------------------------------------------------------------------------------------

    def queue_declare(
        self,
        queue: str,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[Any]:
        """Create a queue, or check that it exists (`passive`); fires with the DeclareOk frame.

        queue: "" lets the broker choose a name, which is `frame.method.queue`.
        """
        return self._framed(
            self._channel.queue_declare,
            queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
        )

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str | None = None, arguments: Arguments = None
    ) -> Deferred[Any]:
        """Bind a queue to an exchange; fires with the BindOk frame.  routing_key: None is the queue's name."""
        return self._framed(self._channel.queue_bind, queue, exchange, routing_key, arguments=arguments)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str | None = None,
        arguments: Arguments = None,
    ) -> Deferred[Any]:
        """Take a binding away; fires with the UnbindOk frame.  routing_key: None is the queue's name."""
        return self._framed(self._channel.queue_unbind, queue, exchange, routing_key, arguments=arguments)

    def queue_purge(self, queue: str) -> Deferred[Any]:
        """Drop the messages that wait in a queue; fires with the PurgeOk frame."""
        return self._framed(self._channel.queue_purge, queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False) -> Deferred[Any]:
        """Delete a queue; fires with the DeleteOk frame.  Its consumers on this channel end before that."""
        deleting = self._framed(self._channel.queue_delete, queue, if_unused=if_unused, if_empty=if_empty)
        return deleting.addCallback(self.queue_deleted, queue)

    # -- flow --------------------------------------------------------------------------------------

    def flow(self, active: bool = True) -> Deferred[Any]:
        """Ask the broker to stop (False) or go on with deliveries; fires with the bool of its answer.

        RabbitMQ refuses False with 540.
        """
        return self._called(self._channel.flow, bool(active)).addCallback(lambda reply: reply.active)
