"""Consuming: subscriptions, single gets, prefetch, and settling what was delivered.

Source: AMQP 0-9-1 section 1.8, https://www.rabbitmq.com/docs/consumers,
https://www.rabbitmq.com/docs/consumer-prefetch, https://www.rabbitmq.com/docs/nack
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from txmsg.amqp.channel_core import ChannelCore, State
from txmsg.amqp.consumers import Consumer, DeliveryCallback
from txmsg.amqp.delivery import Delivery
from txmsg.amqp.operations import Arguments, table
from txmsg.errors import (
    ChannelError,
    ConfigurationError,
    ConsumerCancelled,
    DuplicateConsumerTag,
    EncodeError,
    LocalProtocolError,
    OperationTimeout,
    StaleDelivery,
    clip,
)
from txmsg.wire.methods import basic

if TYPE_CHECKING:
    from txmsg.amqp.channel import Channel
    from txmsg.amqp.client import AMQPProtocol

__all__ = ["Consuming"]


class Consuming(ChannelCore):
    """The part of a channel that consumes."""

    def __init__(self, connection: AMQPProtocol, channel_number: int) -> None:
        super().__init__(connection, channel_number)
        self._consumers: dict[str, Consumer] = {}
        self._prefetch_count: int | None = None
        self._tag_prefix = f"ctag{channel_number}.{os.urandom(8).hex()}"
        self._tags_made = 0

    @property
    def consumers(self) -> dict[str, Consumer]:
        """The consumers of this channel by consumer tag; a copy."""
        return dict(self._consumers)

    # -- subscriptions -----------------------------------------------------------------------------

    def basic_consume(
        self,
        queue: str = "",
        callback: DeliveryCallback | None = None,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        no_local: bool = False,
        consumer_tag: str = "",
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[Consumer]:
        """Subscribe to a queue; fires with the :class:`Consumer` at consume-ok.

        queue: str -- "" is the last queue declared on this channel.
        callback: None -- deliveries go to the consumer's ClosableDeferredQueue; or a callable that is
            given each Delivery as it comes in.  It may return a Deferred or be `async def`; what it
            raises is logged, and the delivery stays unsettled.
        no_ack: True -- the broker regards messages as settled when it sends them: they are lost if this
            program dies.  Reading from the socket then stops while too many wait
            (`read_high_water_messages`, `read_high_water_bytes`).
        exclusive: True -- nobody else may consume from the queue (AccessRefused if somebody does).
        consumer_tag: "" -- a unique one is made up.
        arguments: for instance `x-priority`.

        Unless `basic_qos` was called before, the channel's prefetch is set to
        `default_prefetch_count`; `basic_qos(0)` is how to ask for no limit.

        Fails with DuplicateConsumerTag, NotFound, AccessRefused, and as all calls do.  If it is cancelled
        or times out, the subscription is undone when the broker has made it.
        """
        self.connection.check_thread()
        if not isinstance(consumer_tag, str):
            return fail(EncodeError(f"a consumer tag is a str, not {type(consumer_tag).__name__}"))
        if callback is not None and not callable(callback):
            return fail(ConfigurationError(f"the callback must be callable, not {type(callback).__name__}"))
        if consumer_tag in self._consumers:
            return fail(DuplicateConsumerTag(f"consumer tag {clip(consumer_tag)!r} is in use on this channel"))
        if not consumer_tag:
            self._tags_made += 1
            consumer_tag = f"{self._tag_prefix}.{self._tags_made}"
        if not no_ack and self._prefetch_count is None:
            default = self.connection.parameters.default_prefetch_count
            qos = self.basic_qos(default)
            qos.addErrback(lambda failure: None)  # whatever went wrong, consume meets it too
        parameters = self.connection.parameters
        bounded = (
            (parameters.read_high_water_messages, parameters.read_high_water_bytes)
            if no_ack or not self._prefetch_count
            else None
        )
        consumer = Consumer(cast("Channel", self), consumer_tag, queue, callback, no_ack, bounded)
        # Deliveries can come before consume-ok is handled, so the consumer is known from now on.
        self._consumers[consumer_tag] = consumer
        started = self._call(
            basic.Consume(
                queue=queue,
                consumer_tag=consumer_tag,
                no_local=no_local,
                no_ack=no_ack,
                exclusive=exclusive,
                nowait=nowait,
                arguments=table(arguments),
            ),
            lambda reply, abandoned: self._consuming(consumer, abandoned),
            consumer.subscribed,
        )
        started.addErrback(self._not_consuming, consumer)
        return started

    def _consuming(self, consumer: Consumer, abandoned: bool) -> Consumer:
        consumer.is_started = True
        if (abandoned or consumer.is_cancelling) and self._state is State.OPEN:
            consumer.is_cancelling = False
            self.basic_cancel(consumer).addErrback(lambda failure: None)
        return consumer

    def _not_consuming(self, failure: Failure, consumer: Consumer) -> Failure:
        """The subscription failed, or nobody waits for it any more."""
        if failure.check(CancelledError, OperationTimeout) and consumer.is_subscribed and self._state is State.OPEN:
            # The broker may still make it: what comes until it is undone goes back.
            self._stop_handing_over(consumer)
        else:
            self._forget(consumer)
        assert failure.value is not None
        for delivery in consumer.end(failure.value):
            self._requeue(delivery)
        return failure

    def _stop_handing_over(self, consumer: Consumer) -> None:
        consumer.is_cancelling = True
        consumer.read_on()
        if not consumer.no_ack:
            consumer.deliver = self._requeue

    def basic_cancel(self, consumer: Consumer | str) -> Deferred[None]:
        """End a subscription; fires once the broker has agreed, and no delivery comes after that.

        consumer: the Consumer or its tag; one that is unknown or has ended already is fine.

        What was delivered but not fetched, and what arrives until the broker agrees, goes back to the
        queue; with `no_ack` it stays readable.  Deliveries that were fetched stay to be settled.
        ChannelError: the consumer belongs to another channel.
        """
        self.connection.check_thread()
        if isinstance(consumer, Consumer):
            if consumer.channel is not self:
                return fail(ChannelError(f"{consumer!r} belongs to channel {consumer.channel.channel_number}"))
            known: Consumer | None = self._consumers.get(consumer.consumer_tag)
            if known is not consumer:
                known = None
        else:
            if not isinstance(consumer, str):
                return fail(EncodeError(f"a consumer tag is a str, not {type(consumer).__name__}"))
            known = self._consumers.get(consumer)
        if known is None:
            return succeed(None)
        target = known
        if target.is_cancelling:
            return target.when_ended().addCallback(lambda reason: None)
        if self._state is not State.OPEN:
            return fail(self._wrong_state())
        target.is_cancelling = True
        if not target.is_started:
            # RabbitMQ (3.10) falls over a basic.cancel that it gets before its own consume-ok, and ends the
            # connection with 541: `_consuming` goes on from here.
            return target.when_ended().addCallback(lambda reason: None)
        # Not before basic.cancel has left: what is given back would come again, and again.
        cancelled = self._call(
            basic.Cancel(consumer_tag=target.consumer_tag),
            lambda reply, abandoned: self._consumer_ended(target, "client"),
            lambda: self._stop_handing_over(target),
        )

        def try_again_later(failure: Failure) -> Failure:
            target.is_cancelling = False
            return failure

        cancelled.addErrback(try_again_later)
        return cancelled

    def _cancelled_by_server(self, cancel: basic.Cancel) -> None:
        consumer = self._consumers.get(cancel.consumer_tag)
        if consumer is not None:
            self._consumer_ended(consumer, "server")
        if not cancel.nowait and self._state is State.OPEN:
            self._answer(basic.CancelOk(consumer_tag=cancel.consumer_tag))

    def _consumer_ended(self, consumer: Consumer, initiator: str) -> None:
        self._forget(consumer)
        reason = ConsumerCancelled(consumer.consumer_tag, initiator, consumer.queue_name)
        for delivery in consumer.end(reason):
            self._requeue(delivery)

    def _forget(self, consumer: Consumer) -> None:
        # Its tag may have been given to another one, when the broker's cancel has crossed ours.
        if self._consumers.get(consumer.consumer_tag) is consumer:
            del self._consumers[consumer.consumer_tag]

    def _requeue(self, delivery: Delivery) -> None:
        """Give back what nobody will handle."""
        if self._state is State.OPEN and not delivery.is_settled:
            with suppress(StaleDelivery):
                delivery.nack(requeue=True)

    def basic_qos(
        self, prefetch_count: int = 0, *, prefetch_size: int = 0, global_qos: bool = False
    ) -> Deferred[basic.QosOk]:
        """Limit how many deliveries may be unsettled at a time.

        prefetch_count: int -- 0 (no limit) to 65535.
        prefetch_size: int -- bytes; RabbitMQ refuses anything but 0 (540).
        global_qos: False -- the limit holds for each consumer started later; True: for all consumers of
            the channel together.  Source: https://www.rabbitmq.com/docs/consumer-prefetch
        """
        method = basic.Qos(prefetch_size=prefetch_size, prefetch_count=prefetch_count, global_=global_qos)
        reply = self._call(method, must_write=True)
        if not (reply.called and isinstance(reply.result, Failure)):
            self._prefetch_count = prefetch_count
        return reply

    def basic_recover(self, requeue: bool = True) -> Deferred[basic.RecoverOk]:
        """Give all unsettled deliveries of the channel back to their queues, to be delivered again.

        From now on those deliveries are stale.  RabbitMQ refuses `requeue=False` with 540.
        """
        return self._call(basic.Recover(requeue=requeue), self._recovered, on_write=self._settlements.recover_sent)

    def _recovered(self, reply: basic.RecoverOk, abandoned: bool) -> basic.RecoverOk:
        self._settlements.recover_answered()
        return reply

    # -- single gets -------------------------------------------------------------------------------

    def basic_get(self, queue: str = "", *, no_ack: bool = False) -> Deferred[Delivery | None]:
        """Take one message from a queue; fires with a Delivery, or with None if the queue is empty.

        Any number of gets may be under way.  A get that was cancelled or timed out gives its message
        back when it comes (with `no_ack` it is lost: the broker has forgotten it by then).
        """

        def on_reply(reply: Any, abandoned: bool) -> Delivery | None:
            if not isinstance(reply, tuple):
                return None
            _, _, tag, redelivered, exchange, routing_key, message_count, properties, body = reply
            channel = cast("Channel", self)
            delivery = Delivery(
                channel, "", tag, redelivered, exchange, routing_key, properties, body, no_ack, message_count
            )
            if not no_ack:
                self._settlements.delivered(tag)
                if abandoned:
                    self._requeue(delivery)
            return delivery

        return self._call(basic.Get(queue=queue, no_ack=no_ack), on_reply)

    # -- settling ----------------------------------------------------------------------------------

    def is_open_delivery(self, delivery_tag: int) -> bool:
        """Whether this delivery tag is still to be settled on this channel."""
        return delivery_tag in self._settlements.open

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Settle a delivery as done; with `multiple` also all earlier ones (tag 0: all there are).

        Returns None: there is no reply to wait for.  The ack leaves at the end of this reactor turn,
        together with the others of that turn.

        Raises StaleDelivery, AlreadySettled, WrongThread; nothing is sent then.
        """
        connection = self.connection
        if get_ident() != connection.thread_id:
            connection.check_thread()
        settlements = self._settlements
        if multiple:
            self.flush_acks()
            last = settlements.settle_up_to(delivery_tag)[-1]
            self._write_settlement(self._wire.encode_ack, last, True)
            return
        had_acks = settlements.has_unwritten_acks
        settlements.ack(delivery_tag)
        if not had_acks:
            connection.flush_soon(self)

    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Give a delivery back: to its queue, or (requeue False) to the dead-letter exchange or nowhere.

        With `multiple` also all earlier ones (tag 0: all there are).  Raises as `basic_ack` does, and EncodeError for
        a flag that is neither True nor False; then the delivery is not settled.
        """
        self.connection.check_thread()
        _check_flags(multiple, requeue)
        self.flush_acks()
        if multiple:
            delivery_tag = self._settlements.settle_up_to(delivery_tag)[-1]
        else:
            delivery_tag = self._settlements.settle(delivery_tag)
        self._write_settlement(self._wire.encode_nack, delivery_tag, multiple, requeue)

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        """Give one delivery back, as `basic_nack` does.  Raises as that does."""
        self.connection.check_thread()
        _check_flags(requeue)
        self.flush_acks()
        delivery_tag = self._settlements.settle(delivery_tag)
        self._write_settlement(self._wire.encode_reject, delivery_tag, requeue)

    def _write_settlement(self, encode: Callable[..., bytes], *arguments: object) -> None:
        try:
            self.connection.write(encode(self.channel_number, *arguments))
        except LocalProtocolError as error:
            if not self._is_ended_by_peer(error):
                raise
            raise StaleDelivery("the broker has just closed the channel, and so requeued the delivery") from error

    def flush_acks(self) -> None:
        """Write the acks given since the last time, as few frames as possible."""
        if self._settlements.has_unwritten_acks:
            number, encode_ack = self.channel_number, self._wire.encode_ack
            try:
                acks = self._settlements.take_acks(lambda tag, multiple: encode_ack(number, tag, multiple))
            except LocalProtocolError as error:
                if not self._is_ended_by_peer(error):
                    raise
            else:
                self.connection.write(acks)

    # -- the end -----------------------------------------------------------------------------------

    def _stop_settling(self, reason: BaseException) -> None:
        super()._stop_settling(reason)
        for consumer in list(self._consumers.values()):
            consumer.read_on()

    def _end_consuming(self, reason: BaseException) -> None:
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers.values():
            consumer.end(reason)


def _check_flags(*flags: object) -> None:
    for flag in flags:
        if not isinstance(flag, bool):
            raise EncodeError(f"requeue and multiple are True or False, not {type(flag).__name__}")
