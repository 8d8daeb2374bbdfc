"""``amqp://`` and ``amqps://``: the messaging transport over :mod:`txmsg.amqp`.

Thin on purpose.  Channels are in confirm mode, so that a publish is done when the broker says so; typed replies become
the plain values of the contract, and :class:`~txmsg.amqp.BasicProperties` becomes a mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from txmsg.abc import DeclaredQueue, Guarantees, Properties
from txmsg.amqp import AMQPProtocol, BasicProperties, Channel, Consumer, Delivery, connect
from txmsg.errors import ConfigurationError, ConsumerCancelled, EncodeError

__all__ = ["AMQPChannel", "AMQPConnection", "AMQPDelivery", "AMQPTransport"]

Arguments = Mapping[str, Any] | None


def _nothing(reply: object) -> None:
    """The reply says no more than that it is done."""


class AMQPDelivery:
    """A :class:`~txmsg.abc.MessagingDelivery` around the client's own.

    delivery: Delivery -- that one, with everything AMQP tells.
    """

    __slots__ = ("_properties", "delivery")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self._properties: dict[str, Any] | None = None

    @property
    def body(self) -> bytes:
        """The content."""
        return self.delivery.body

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that are present; none where the sender's cannot be decoded (see `delivery.properties`)."""
        if self._properties is None:
            found = self.delivery.properties
            self._properties = found.as_dict() if isinstance(found, BasicProperties) else {}
        return self._properties

    @property
    def exchange(self) -> str:
        """Where it was published to."""
        return self.delivery.exchange

    @property
    def routing_key(self) -> str:
        """With which key."""
        return self.delivery.routing_key

    @property
    def redelivered(self) -> bool:
        """False: nobody has seen it before.  True: somebody may have."""
        return self.delivery.redelivered

    @property
    def consumer_tag(self) -> str:
        """Of the consumer it was sent to; "" from `get`."""
        return self.delivery.consumer_tag

    @property
    def delivery_tag(self) -> int:
        """Its number on the channel."""
        return self.delivery.delivery_tag

    def ack(self, multiple: bool = False) -> None:
        """It is done with.  StaleDelivery, AlreadySettled."""
        self.delivery.ack(multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """Give it back.  Raises as `ack`."""
        self.delivery.nack(requeue, multiple)

    def reject(self, requeue: bool = False) -> None:
        """Give this one back.  Raises as `ack`."""
        self.delivery.reject(requeue)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to settle."""
        return self.delivery.is_settled

    def __repr__(self) -> str:
        return f"<AMQPDelivery of {self.delivery!r}>"


class AMQPChannel:
    """A :class:`~txmsg.abc.MessagingChannel` around a channel of the client.

    channel: Channel -- that one, in confirm mode.
    """

    _log = Logger(namespace="txmsg.transports.amqp")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self.channel.is_open

    def close(self) -> Deferred[None]:
        """Give back what is unsettled and end it."""
        return self.channel.close().addCallback(_nothing)

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason when it has ended."""
        return self.channel.when_closed()

    # -- topology

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[None]:
        """Create an exchange, or check that it is there."""
        declared = self.channel.exchange_declare(
            exchange,
            exchange_type,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
        )
        return declared.addCallback(_nothing)

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> Deferred[None]:
        """Delete an exchange."""
        return self.channel.exchange_delete(exchange, if_unused=if_unused).addCallback(_nothing)

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from one exchange to another."""
        return self.channel.exchange_bind(destination, source, routing_key, arguments=arguments).addCallback(_nothing)

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away."""
        return self.channel.exchange_unbind(destination, source, routing_key, arguments=arguments).addCallback(_nothing)

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[DeclaredQueue]:
        """Create a queue, or check that it is there."""
        declared = self.channel.queue_declare(
            queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
        )
        return declared.addCallback(lambda ok: DeclaredQueue(ok.queue, ok.message_count, ok.consumer_count))

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        """Delete a queue; fires with how many messages went with it."""
        deleted = self.channel.queue_delete(queue, if_unused=if_unused, if_empty=if_empty)
        return deleted.addCallback(lambda ok: ok.message_count)

    def queue_purge(self, queue: str) -> Deferred[int]:
        """Drop the messages that are ready; fires with how many."""
        return self.channel.queue_purge(queue).addCallback(lambda ok: ok.message_count)

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from an exchange to a queue."""
        return self.channel.queue_bind(queue, exchange, routing_key, arguments=arguments).addCallback(_nothing)

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away."""
        return self.channel.queue_unbind(queue, exchange, routing_key, arguments=arguments).addCallback(_nothing)

    # -- messages

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[None]:
        """Publish one message; fires at the broker's confirm."""
        if not isinstance(body, (bytes, bytearray, memoryview)):
            return fail(EncodeError(f"a body is bytes, not {type(body).__name__}"))
        try:
            encoded = BasicProperties(**properties) if properties else None
        except TypeError:
            unknown = ", ".join(sorted(str(key) for key in set(properties or ()) - set(BasicProperties.NAMES)))
            return fail(EncodeError(f"a message has no property {unknown}"))
        except EncodeError as error:
            return fail(error)
        published = self.channel.basic_publish(exchange, routing_key, body, encoded, mandatory=mandatory)
        return published.addCallback(_nothing)

    def qos(self, prefetch_count: int) -> Deferred[None]:
        """How many deliveries each consumer started from now on may have unsettled; 0: any number."""
        return self.channel.basic_qos(prefetch_count).addCallback(_nothing)

    def consume(
        self,
        queue: str,
        callback: Callable[[AMQPDelivery], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Arguments = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each message of the queue to `callback(delivery)`; fires with the consumer tag."""

        if not callable(callback):  # the client's None means a queue of its own
            return fail(ConfigurationError(f"the callback must be callable, not {type(callback).__name__}"))

        def handle(delivery: Delivery) -> Any:
            return callback(AMQPDelivery(delivery))

        consuming = self.channel.basic_consume(
            queue, handle, no_ack=no_ack, exclusive=exclusive, consumer_tag=consumer_tag, arguments=arguments
        )
        return consuming.addCallback(self._consuming, on_cancel)

    def _consuming(self, consumer: Consumer, on_cancel: Callable[[BaseException], object] | None) -> str:
        if on_cancel is not None:
            told = consumer.when_ended().addCallback(partial(_tell_if_cancelled, on_cancel))
            told.addErrback(lambda failure: self._log.failure("on_cancel failed", failure=failure))
        return consumer.consumer_tag

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        """End a consumer."""
        return self.channel.basic_cancel(consumer_tag)

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[AMQPDelivery | None]:
        """Take one message; fires with the delivery, or None if the queue is empty."""
        got = self.channel.basic_get(queue, no_ack=no_ack)
        return got.addCallback(lambda delivery: None if delivery is None else AMQPDelivery(delivery))

    def recover(self) -> Deferred[None]:
        """Give all unsettled deliveries back to their queues."""
        return self.channel.basic_recover().addCallback(_nothing)

    def __repr__(self) -> str:
        return f"<AMQPChannel of {self.channel!r}>"


def _tell_if_cancelled(on_cancel: Callable[[BaseException], object], reason: BaseException) -> None:
    if isinstance(reason, ConsumerCancelled) and reason.initiator == "server":
        on_cancel(reason)


class AMQPConnection:
    """A :class:`~txmsg.abc.MessagingConnection` around a connection of the client.

    connection: AMQPProtocol -- that one.
    """

    def __init__(self, connection: AMQPProtocol) -> None:
        self.connection = connection

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self.connection.is_open

    async def _channel(self) -> AMQPChannel:
        channel = await self.connection.channel()
        await channel.confirm_select()
        return AMQPChannel(channel)

    def channel(self) -> Deferred[AMQPChannel]:
        """A new channel, in confirm mode."""
        return Deferred.fromCoroutine(self._channel())

    def close(self) -> Deferred[None]:
        """Close its channels and end it."""
        return self.connection.close().addCallback(_nothing)

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason when it has ended."""
        return self.connection.when_closed()

    def __repr__(self) -> str:
        return f"<AMQPConnection of {self.connection!r}>"


class AMQPTransport:
    """The transport of ``amqp://`` and ``amqps://``; a :class:`~txmsg.abc.MessagingTransport`."""

    schemes = ("amqp", "amqps")
    exchange_types = frozenset({"direct", "fanout", "topic", "headers"})
    default_ports: Mapping[str, int] = MappingProxyType({"amqp": 5672, "amqps": 5671})
    guarantees = Guarantees(
        delivery="at-least-once",
        is_ordered=True,
        survives_restart=True,
        redelivery_timeout=None,
        has_heartbeats=True,
    )

    def connect(
        self,
        url: str,
        *,
        reactor: Any = None,
        alternates: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Deferred[AMQPConnection]:
        """Connect and log in; see :func:`txmsg.amqp.connect` for the URL and the errors."""
        connected = connect(url, reactor=reactor)
        del url
        return connected.addCallback(AMQPConnection)
