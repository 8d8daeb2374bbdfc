"""A channel of ``amqp://``: the contract's words for those of :class:`~txmsg.amqp.RecoveringChannel`.

Invariant: nothing is kept here that would have to come back; a delivery is handed on in the call in which it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from txmsg.abc import DeclaredQueue, Properties
from txmsg.amqp import BasicProperties, Delivery, RecoveringChannel, RecoveringConsumer
from txmsg.errors import ConfigurationError, ConsumerCancelled, EncodeError
from txmsg.transports.amqp.delivery import AMQPDelivery

__all__ = ["AMQPChannel"]

Arguments = Mapping[str, Any] | None


def _nothing(reply: object) -> None:
    """The reply says no more than that it is done."""


class AMQPChannel:
    """A :class:`~txmsg.abc.MessagingChannel` around a recovering channel of the client.

    channel: RecoveringChannel -- that one, in confirm mode.
    resubscribe_limit: float | None -- see :meth:`RecoveringChannel.basic_consume`.
    """

    _log = Logger(namespace="txmsg.transports.amqp")

    def __init__(self, channel: RecoveringChannel, resubscribe_limit: float | None = 300.0) -> None:
        self.channel = channel
        self._resubscribe_limit = resubscribe_limit
        self._basic_publish = channel.basic_publish
        #: The properties without headers that were given last, and what they are for the client: most repeat.
        self._given: dict[str, Any] = {}
        self._given_properties = BasicProperties()

    @property
    def is_open(self) -> bool:
        """Whether it can be used now; False while the connection, or the channel, is coming back."""
        return self.channel.is_open

    def close(self) -> Deferred[None]:
        """Give back what is unsettled and end it."""
        return self.channel.close().addCallback(_nothing)

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason when it has ended for good; a reconnect is no end."""
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
        if not isinstance(queue, str):  # the client's None is ""
            return fail(EncodeError(f"the name of a queue is a str, not {type(queue).__name__}"))
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
    ) -> Deferred[Any]:
        """Publish one message; fires at the broker's confirm.  See :class:`~txmsg.abc.MessagingChannel`.

        NotSent while the connection is away: nothing waits here for it to come back.  While the broker has closed the
        channel, and only that, it waits for the next one, with the limits of :meth:`RecoveringChannel.basic_publish`.
        """
        if type(body) is not bytes and not isinstance(body, (bytes, bytearray, memoryview)):
            return fail(EncodeError(f"a body is bytes, not {type(body).__name__}"))
        if not properties:
            return self._basic_publish(exchange, routing_key, body, mandatory=mandatory)
        if self._given == properties:
            encoded = self._given_properties
        else:
            try:
                encoded = self._properties(properties)
            except EncodeError as error:
                return fail(error)
        return self._basic_publish(exchange, routing_key, body, encoded, mandatory=mandatory)

    def _properties(self, given: Properties) -> BasicProperties:
        """What the client takes; those without headers are remembered, as they do not change and repeat."""
        if not isinstance(given, Mapping):
            raise EncodeError(f"properties are a mapping or None, not {type(given).__name__}")
        try:
            properties = BasicProperties(**given)
        except TypeError:
            unknown = ", ".join(sorted(str(key) for key in set(given) - set(BasicProperties.NAMES)))
            raise EncodeError(f"a message has no property {unknown}") from None
        if properties.headers is None:
            self._given, self._given_properties = dict(given), properties
        return properties

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
            queue,
            handle,
            no_ack=no_ack,
            exclusive=exclusive,
            consumer_tag=consumer_tag,
            arguments=arguments,
            resubscribe_limit=self._resubscribe_limit,
        )
        return consuming.addCallback(self._consuming, on_cancel)

    def _consuming(self, consumer: RecoveringConsumer, on_cancel: Callable[[BaseException], object] | None) -> str:
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
