"""A plain channel of ``amqp://``: nothing is confirmed on it, and it ends with its connection.

For requests and replies, where an answer confirms the question, and where nothing of a lost connection is worth having
back.  Invariant: it is on the connection of now, and what is published on it never waits for another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from txmsg.abc import Properties, ReturnCallback
from txmsg.amqp import BasicProperties, Channel, Consumer, Delivery, RecoveringChannel, ReturnedMessage
from txmsg.errors import ConfigurationError, ConsumerCancelled, EncodeError, PublishReturned
from txmsg.transports.amqp.channel import AMQPChannel
from txmsg.transports.amqp.delivery import AMQPDelivery

__all__ = ["PlainAMQPChannel"]

_log = Logger(namespace="txmsg.transports.amqp")


class PlainAMQPChannel(AMQPChannel):
    """A :class:`~txmsg.abc.MessagingChannel` around one channel of the client.

    plain: Channel -- that one, not in confirm mode.
    on_return -- see :meth:`txmsg.abc.OffersPlainChannels.plain_channel`.
    """

    def __init__(self, plain: Channel, on_return: ReturnCallback | None = None) -> None:
        # What is called in AMQPChannel is the same on both.
        super().__init__(cast(RecoveringChannel, plain))
        self.plain = plain
        self._on_return = on_return
        plain.add_return_callback(self._returned)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[Any]:
        """Publish one message; fires when it is on its way and the socket takes more."""
        if type(body) is not bytes and not isinstance(body, (bytes, bytearray, memoryview)):
            return fail(EncodeError(f"a body is bytes, not {type(body).__name__}"))
        try:
            encoded = self._properties(properties) if properties else None
        except EncodeError as error:
            return fail(error)
        return self._basic_publish(exchange, routing_key, body, encoded, mandatory=mandatory)

    def _returned(self, message: ReturnedMessage) -> None:
        if self._on_return is None:
            _log.debug("a message was returned: {message!r}", message=message)
            return
        properties = message.properties
        error = PublishReturned(message.reply_code, message.reply_text, message.exchange, message.routing_key, message)
        self._on_return(error, properties.as_dict() if isinstance(properties, BasicProperties) else {})

    def consume(
        self,
        queue: str,
        callback: Callable[[AMQPDelivery], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Mapping[str, Any] | None = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each message of the queue to `callback(delivery)`; fires with the consumer tag."""
        if not callable(callback):
            return fail(ConfigurationError(f"the callback must be callable, not {type(callback).__name__}"))

        def handle(delivery: Delivery) -> Any:
            return callback(AMQPDelivery(delivery))

        consuming = self.plain.basic_consume(
            queue, handle, no_ack=no_ack, exclusive=exclusive, consumer_tag=consumer_tag, arguments=arguments
        )
        return consuming.addCallback(_consuming, on_cancel)

    def __repr__(self) -> str:
        return f"<PlainAMQPChannel of {self.plain!r}>"


def _consuming(consumer: Consumer, on_cancel: Callable[[BaseException], object] | None) -> str:
    def ended(reason: BaseException) -> None:
        if on_cancel is not None and isinstance(reason, ConsumerCancelled) and reason.initiator == "server":
            on_cancel(reason)

    told = consumer.when_ended().addCallback(ended)
    told.addErrback(lambda failure: _log.failure("on_cancel failed", failure=failure))
    return consumer.consumer_tag
