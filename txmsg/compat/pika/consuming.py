"""Consuming: subscriptions with a ClosableDeferredQueue, single gets, prefetch, and settling.

What was delivered and not fetched when a subscription is cancelled goes back to its queue (pika keeps it, unacked,
until the channel closes); with auto_ack, where nothing can go back, it stays readable (pika drops it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pika import exceptions, frame, spec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.amqp import Channel, Consumer, Delivery
from txmsg.compat.pika.channel_core import ChannelCore
from txmsg.compat.pika.deferred_queue import ClosableDeferredQueue
from txmsg.compat.pika.errors import ConsumerCancelled, bad_argument
from txmsg.compat.pika.messages import PropertiesReader, ReceivedMessage, deliver_method, get_ok_method
from txmsg.errors import ConsumerCancelled as NativeConsumerCancelled
from txmsg.errors import EncodeError, SettlementError, TxmsgError

__all__ = ["Consuming", "Subscription"]

#: A named tuple's own constructor costs twice as much.
_new_message = tuple.__new__


class Subscription:
    """One basic_consume: deliveries go into `queue`, until it ends."""

    def __init__(self, channel: Consuming, queue_name: str, auto_ack: bool) -> None:
        self.queue = ClosableDeferredQueue()
        self.queue_name = queue_name
        self.consumer: Consumer | None = None
        self._channel = channel
        self._auto_ack = auto_ack
        self._read = PropertiesReader().read

    def deliver(self, delivery: Delivery) -> None:
        """For the native consumer: a message has come."""
        queue = self.queue
        if queue.closed is not None:
            self._give_back(delivery.delivery_tag)
            return
        message = (self._channel, deliver_method(delivery), self._read(delivery.properties), delivery.body)
        queue.put(_new_message(ReceivedMessage, message))

    def started(self, consumer: Consumer) -> tuple[ClosableDeferredQueue, str]:
        """The broker has made the subscription."""
        self.consumer = consumer
        self._channel.subscribed(self)
        consumer.when_ended().addCallback(self._ended)
        return self.queue, consumer.consumer_tag

    def not_started(self, failure: Failure) -> Failure:
        """It has not, or nobody waits for it any more: nobody has the queue."""
        assert failure.value is not None
        self.close(failure.value)
        return failure

    def _ended(self, reason: BaseException) -> None:
        self._channel.unsubscribed(self, reason)

    def close(self, reason: BaseException) -> None:
        """Close the queue with pika's reason, and give back what nobody has fetched."""
        if self.queue.closed is not None:
            return
        unfetched = [] if self._auto_ack else list(self.queue.pending)
        self.queue.close(reason, drain=self._auto_ack)
        for message in unfetched:
            self._give_back(message.method.delivery_tag)

    def _give_back(self, delivery_tag: int) -> None:
        if not self._auto_ack and self._channel.is_open:
            with suppress(SettlementError):
                self._channel.native.basic_nack(delivery_tag, requeue=True)


class Consuming(ChannelCore):
    """The part of a channel that consumes."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._subscriptions: dict[str, Subscription] = {}
        self._cancel_callbacks: list[Callable[[Any], object]] = []
        self._ack = channel.basic_ack

    @property
    def native(self) -> Channel:
        """The channel of txmsg below, for whoever moves on: what it settles must not be settled here as well."""
        return self._channel

    # -- subscriptions -----------------------------------------------------------------------------

    def basic_consume(
        self,
        queue: str,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[tuple[ClosableDeferredQueue, str]]:
        """Subscribe to a queue; fires with (ClosableDeferredQueue of ReceivedMessage, consumer tag).

        queue: "" is the last queue declared on this channel.   consumer_tag: None -- a unique one is made up.

        The queue is closed with ConsumerCancelled, or with what ended the channel.  Without `basic_qos` the broker
        sends all it has.  Fails with ChannelClosedByBroker (404, 403 ...), DuplicateConsumerTag, TypeError.
        """
        subscription = Subscription(self, queue, bool(auto_ack))
        subscribing: Any = self._called(
            self._channel.basic_consume,
            queue,
            subscription.deliver,
            no_ack=auto_ack,
            exclusive=exclusive,
            arguments=arguments,
            consumer_tag="" if consumer_tag is None else consumer_tag,  # last, for DuplicateConsumerTag
        )
        return subscribing.addCallbacks(subscription.started, subscription.not_started)  # type: ignore[no-any-return]

    def subscribed(self, subscription: Subscription) -> None:
        """For subscriptions: it has begun."""
        assert subscription.consumer is not None
        self._subscriptions[subscription.consumer.consumer_tag] = subscription

    def unsubscribed(self, subscription: Subscription, reason: BaseException) -> None:
        """For subscriptions: it has ended."""
        assert subscription.consumer is not None
        tag = subscription.consumer.consumer_tag
        if self._subscriptions.get(tag) is subscription:
            del self._subscriptions[tag]
        if not isinstance(reason, NativeConsumerCancelled):
            subscription.close(self._why())
            return
        subscription.close(ConsumerCancelled(str(reason)))
        if reason.initiator == "server":
            cancel = frame.Method(self.channel_number, spec.Basic.Cancel(tag))
            for callback in list(self._cancel_callbacks):
                self._channel.connection.guarded(callback, cancel)

    def add_on_cancel_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(frame)` when the broker cancels a consumer (Basic.Cancel), behind the end of its queue."""
        self._cancel_callbacks.append(callback)

    def basic_cancel(self, consumer_tag: str = "") -> Deferred[Any]:
        """End a subscription; fires with the CancelOk frame.  Its queue is closed with ConsumerCancelled before.

        A tag that is not known, or not any more, succeeds at once.
        """
        refused = self._refused()
        if refused is not None:
            return refused
        cancelled = frame.Method(self.channel_number, spec.Basic.CancelOk(consumer_tag))
        return self._called(self._channel.basic_cancel, consumer_tag).addCallback(lambda _: cancelled)

    def queue_deleted(self, reply: Any, queue: str) -> Any:
        """The broker's Basic.Cancel for the queue's consumers may come later, or (without a capability) never."""
        for subscription in [each for each in self._subscriptions.values() if each.queue_name == queue]:
            subscription.close(ConsumerCancelled(f"Queue {queue} was deleted."))
        return reply

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, global_qos: bool = False) -> Deferred[Any]:
        """How many unacked messages the broker sends; fires with the QosOk frame.

        prefetch_count: 0 for no limit.   prefetch_size: octets; RabbitMQ refuses it (540).
        global_qos: for all consumers of the channel together.
        """
        return self._framed(self._channel.basic_qos, prefetch_count, prefetch_size=prefetch_size, global_qos=global_qos)

    def basic_recover(self, requeue: bool = False) -> Deferred[Any]:
        """Have all unacked messages of the channel delivered again; fires with the RecoverOk frame.

        RabbitMQ refuses `requeue=False`, pika's default, with 540.
        """
        return self._framed(self._channel.basic_recover, bool(requeue))

    def basic_get(self, queue: str, auto_ack: bool = False) -> Deferred[Any]:
        """Take one message; fires with a ReceivedMessage (its method is Basic.GetOk), or with None.

        Any number may be under way, where pika raises DuplicateGetOkCallback.
        """
        return self._called(self._channel.basic_get, queue, no_ack=auto_ack).addCallback(self._got)

    def _got(self, delivery: Delivery | None) -> ReceivedMessage | None:
        if delivery is None:
            return None
        return ReceivedMessage(
            self, get_ok_method(delivery), PropertiesReader().read(delivery.properties), delivery.body
        )

    # -- settling ----------------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Settle a delivery as done; with `multiple` all earlier ones too (tag 0: all there are).

        Raises ChannelWrongStateError on a channel that is closing or closed: the broker delivers it again.
        AMQPChannelError for a tag that is not open (settled before, or auto_ack), over which pika loses the channel.
        """
        try:
            self._ack(delivery_tag, bool(multiple))
        except TxmsgError as error:
            self._not_settled(error, delivery_tag, multiple)

    def basic_nack(self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True) -> None:
        """Give a delivery back; without `requeue` it is dead-lettered or dropped.  Raises as `basic_ack`."""
        try:
            self._channel.basic_nack(delivery_tag=delivery_tag, multiple=bool(multiple), requeue=bool(requeue))
        except TxmsgError as error:
            self._not_settled(error, delivery_tag, multiple)

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        """Give one delivery back, as `basic_nack` does."""
        try:
            self._channel.basic_reject(delivery_tag=delivery_tag, requeue=bool(requeue))
        except TxmsgError as error:
            self._not_settled(error, delivery_tag, False)

    def _not_settled(self, error: TxmsgError, delivery_tag: object, multiple: bool) -> None:
        if not self._channel.is_open:
            raise self._wrong_state() from error
        if isinstance(error, EncodeError):
            raise bad_argument(error) from error
        if multiple and delivery_tag == 0:
            return  # there is nothing to settle, which is no error to the broker either
        raise exceptions.AMQPChannelError(str(error)) from error
