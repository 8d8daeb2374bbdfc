"""RecoveringChannel: a channel that outlives its connections.

It has the methods of :class:`txmsg.amqp.Channel`, and is used as one.  What it does is in its parts:

- `channel_core`: its life, over any number of plain channels;
- `calls`: how a call waits for a connection and goes out again;
- `declaring`: the methods that end up in the topology;
- here: consuming and publishing.

Two things differ.  Deliveries are settled as objects (`delivery.ack()`), not by tag: tags begin at 1 again on each
plain channel, so a number alone could settle another message (R23).  And there are no transactions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from txmsg.amqp.channel import Channel
from txmsg.amqp.consumers import DeliveryCallback
from txmsg.amqp.delivery import Delivery, ReturnedMessage
from txmsg.amqp.operations import Arguments, table
from txmsg.amqp.recovery.channel_core import ChannelOwner
from txmsg.amqp.recovery.consumer import OnLoss, RecoveringConsumer
from txmsg.amqp.recovery.declaring import RecoveringDeclarations
from txmsg.amqp.recovery.deduplicating import DuplicateFilter
from txmsg.amqp.recovery.duplicates import DuplicateWindow
from txmsg.amqp.recovery.events import CHANNEL_FAILED, RecoveryEvent
from txmsg.errors import ChannelError, ConfigurationError, DuplicateConsumerTag, EncodeError, NotSent, Overloaded, clip
from txmsg.wire.methods import basic, confirm
from txmsg.wire.properties import BasicProperties

__all__ = ["RecoveringChannel"]

#: How many publishes may wait for a plain channel, and how many octets.
_MAX_WAITING: Final = 10_000
_MAX_WAITING_OCTETS: Final = 64 * 2**20


class RecoveringChannel(RecoveringDeclarations):
    """One channel of a :class:`ReconnectingConnection`; made by its `channel()`.

    connection: ReconnectingConnection.   channel: Channel | None -- the plain one of now.
    epoch: int -- how many plain channels there have been.

    Every method that returns a Deferred fails it instead of raising, and the Deferred may be cancelled at any time.
    """

    def __init__(self, connection: ChannelOwner, *, prefetch_count: int | None = None, confirm: bool = False) -> None:
        super().__init__(connection, prefetch_count=prefetch_count, confirm=confirm)
        self._tag_prefix = f"rtag.{os.urandom(8).hex()}"
        self._tags_made = 0
        self._starting: set[str] = set()
        #: How many publishes had to wait for a plain channel and have not ended, and their octets.
        self._publishes = 0
        self._octets = 0

    @classmethod
    def open(
        cls, connection: ChannelOwner, *, prefetch_count: int | None = None, confirm: bool = False
    ) -> Deferred[RecoveringChannel]:
        """For the connection: make one; fires with it when it is open, which may be after the next reconnect.

        OperationTimeout: there was no connection in time.  It is given up then, also when the Deferred is cancelled.
        """
        if connection.close_reason is not None:
            return fail(connection.close_reason.with_traceback(None))
        if prefetch_count is not None and not (type(prefetch_count) is int and 0 <= prefetch_count <= 65535):
            return fail(ConfigurationError(f"prefetch_count must be an int from 0 to 65535, not {prefetch_count!r}"))
        self = cls(connection, prefetch_count=prefetch_count, confirm=confirm)
        connection.add_member(self)
        if connection.protocol is not None:
            self.recover(connection.protocol).addErrback(self._not_opened)
        opened = self._calls.perform("channel.open", lambda channel: succeed(self))

        def give_up(failure: Any) -> Any:
            self.close()
            return failure

        return opened.addErrback(give_up)

    def _not_opened(self, failure: Failure) -> None:
        """The first plain channel could not be opened: it is tried again, or waits for the next connection."""
        if not failure.check(CancelledError):
            self.connection.report(RecoveryEvent(CHANNEL_FAILED, repr(self), failure.value))

    @property
    def consumers(self) -> dict[str, RecoveringConsumer]:
        """The consumers by consumer tag, also those that wait for a connection; a copy."""
        return dict(self._consumers)

    # -- consuming ---------------------------------------------------------------------------------

    def basic_consume(
        self,
        queue: str = "",
        callback: DeliveryCallback | None = None,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        no_local: bool = False,
        consumer_tag: str = "",
        arguments: Arguments = None,
        on_loss: OnLoss = "continue",
        dedupe: DuplicateWindow | None = None,
        resubscribe_limit: float | None = 300.0,
    ) -> Deferred[RecoveringConsumer]:
        """As :meth:`Channel.basic_consume`; fires with a :class:`RecoveringConsumer`, which comes back by itself.

        on_loss: "continue" -- the callback, or the queue, goes on after a reconnect; "close" -- the consumer ends with
            the reason of the loss, as a plain one does.
        dedupe: DuplicateWindow | None -- messages that it has seen are acked and counted, and never reach the handler.
        resubscribe_limit: seconds for which it tries to subscribe again on an open connection, when the broker has
            cancelled it or refuses it; None: for ever.  Then it ends with ConsumerCancelled.
        """
        if not isinstance(queue, str):
            return fail(EncodeError(f"the name of a queue is a str, not {type(queue).__name__}"))
        if not isinstance(consumer_tag, str):
            return fail(EncodeError(f"a consumer tag is a str, not {type(consumer_tag).__name__}"))
        if callback is not None and not callable(callback):
            return fail(ConfigurationError(f"the callback must be callable, not {type(callback).__name__}"))
        if on_loss not in ("continue", "close"):
            return fail(ConfigurationError(f'on_loss must be "continue" or "close", not {on_loss!r}'))
        if not consumer_tag:
            self._tags_made += 1
            consumer_tag = f"{self._tag_prefix}.{self._tags_made}"
        if consumer_tag in self._consumers or consumer_tag in self._starting:
            return fail(DuplicateConsumerTag(f"consumer tag {clip(consumer_tag)!r} is in use on this channel"))
        self._starting.add(consumer_tag)
        topology = self.connection.topology
        consumer = RecoveringConsumer(
            self,
            consumer_tag,
            topology.name_of(queue) if queue else self._on_wire(""),
            callback,
            no_ack=no_ack,
            exclusive=exclusive,
            no_local=no_local,
            arguments=table(arguments),
            on_loss=on_loss,
            duplicates=None if dedupe is None else DuplicateFilter(dedupe),
            resubscribe_limit=resubscribe_limit,
        )
        consumer.prefetch_count = self._prefetch_count

        def started(result: object) -> RecoveringConsumer:
            if not consumer.queue_key:
                consumer.queue_key = self._last_queue
            consumer.registered(topology.consumer_added(consumer.queue_key))
            self._consumers[consumer_tag] = consumer
            return consumer

        def ended(result: Any) -> Any:
            self._starting.discard(consumer_tag)
            return result

        return self._calls.perform("basic.consume", consumer.subscribe, started).addBoth(ended)

    def subscribe_consumer(self, consumer: RecoveringConsumer, channel: Channel) -> Deferred[Any]:
        """For consumers: subscribe one again, with the prefetch limit that it was started with."""
        differs = consumer.prefetch_count is not None and consumer.prefetch_count != self._prefetch_count
        if differs and consumer.prefetch_count is not None:
            channel.basic_qos(consumer.prefetch_count).addErrback(lambda failure: None)
        subscribed = consumer.subscribe(channel)
        if differs and self._prefetch_count is not None:
            channel.basic_qos(self._prefetch_count).addErrback(lambda failure: None)
        return subscribed

    def basic_cancel(self, consumer: RecoveringConsumer | str) -> Deferred[None]:
        """As :meth:`Channel.basic_cancel`: `consumer.cancel()`; a tag that is not known is fine."""
        if isinstance(consumer, RecoveringConsumer):
            if consumer.channel is not self:
                return fail(ChannelError(f"{consumer!r} belongs to another channel"))
            return consumer.cancel()
        if not isinstance(consumer, str):
            return fail(EncodeError(f"a consumer tag is a str, not {type(consumer).__name__}"))
        known = self._consumers.get(consumer)
        return succeed(None) if known is None else known.cancel()

    def basic_qos(
        self, prefetch_count: int = 0, *, prefetch_size: int = 0, global_qos: bool = False
    ) -> Deferred[basic.QosOk]:
        """As :meth:`Channel.basic_qos`; it holds after a reconnect too, for each consumer as when that was started."""
        if not isinstance(prefetch_count, int) or not 0 <= prefetch_count <= 65535:
            return fail(EncodeError(f"prefetch_count must be an int from 0 to 65535, not {prefetch_count!r}"))
        if global_qos:
            self._global_prefetch_count = prefetch_count
        else:
            self._prefetch_count = prefetch_count
        return self._calls.perform(
            "basic.qos",
            lambda channel: channel.basic_qos(prefetch_count, prefetch_size=prefetch_size, global_qos=global_qos),
        )

    def basic_recover(self, requeue: bool = True) -> Deferred[basic.RecoverOk]:
        """As :meth:`Channel.basic_recover`; not repeated: a loss has the same effect."""
        return self._calls.perform("basic.recover", lambda channel: channel.basic_recover(requeue), repeats=False)

    def basic_get(self, queue: str = "", *, no_ack: bool = False) -> Deferred[Delivery | None]:
        """As :meth:`Channel.basic_get`; it waits for a connection, but is not repeated when that is lost under way."""
        return self._calls.perform(
            "basic.get", lambda channel: channel.basic_get(self._on_wire(queue), no_ack=no_ack), repeats=False
        )

    def basic_ack(self, delivery: Delivery, multiple: bool = False) -> None:
        """As `delivery.ack()`.  ConfigurationError for a tag: see the module's docstring."""
        self._checked(delivery).ack(multiple)

    def basic_nack(self, delivery: Delivery, multiple: bool = False, requeue: bool = True) -> None:
        """As `delivery.nack()`.  ConfigurationError for a tag."""
        self._checked(delivery).nack(requeue, multiple)

    def basic_reject(self, delivery: Delivery, requeue: bool = True) -> None:
        """As `delivery.reject()`.  ConfigurationError for a tag."""
        self._checked(delivery).reject(requeue)

    @staticmethod
    def _checked(delivery: Delivery) -> Delivery:
        if not isinstance(delivery, Delivery):
            raise ConfigurationError(
                "on a recovering channel a delivery is settled as an object: delivery.ack(), not a delivery tag, "
                "because tags begin at 1 again after a reconnect"
            )
        return delivery

    # -- publishing --------------------------------------------------------------------------------

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: BasicProperties | None = None,
        *,
        mandatory: bool = False,
        wait: bool = False,
    ) -> Deferred[int | None]:
        """As :meth:`Channel.basic_publish`, on the plain channel of now; never sent twice by us.

        wait: what to do while there is no connection: False -- fail with NotSent; True -- wait for one, up to
            `operation_timeout`.
        While there is a connection, and another channel is being opened in place of one that the broker has closed, it
        waits for that, up to `operation_timeout`, then NotSent; Overloaded when 10,000 publishes, or 64 MiB, wait.
        A publish whose connection is lost before its confirm fails with PublishUnconfirmed.  What sends again, in
        order, is :class:`txmsg.amqp.Publisher`.
        """
        topology = self.connection.topology
        if topology.has_renamed and not exchange:
            with suppress(TypeError):  # what is no str is refused below
                routing_key = topology.current_name(routing_key)
        channel = self._channel
        is_open = channel is not None and channel.is_open
        if channel is not None and is_open and not self._calls.waiting:
            return channel.basic_publish(exchange, routing_key, body, properties, mandatory=mandatory)
        if self._reason is not None or self._closing is not None:
            return fail(NotSent("the channel is closed", self._wrong_state()))
        if not wait and not is_open and self.connection.protocol is None:
            return fail(NotSent("there is no connection at the moment", self.connection.last_error))
        size = len(body) if isinstance(body, (bytes, bytearray, memoryview, str)) else 0
        if self._publishes and (self._publishes >= _MAX_WAITING or self._octets + size > _MAX_WAITING_OCTETS):
            return fail(Overloaded(f"{self._publishes} publishes of {self._octets} octets wait for the channel"))
        if isinstance(body, (bytearray, memoryview)):
            body = bytes(body)  # which may be another one until it leaves
        publishing = self._calls.publish(
            lambda plain: plain.basic_publish(exchange, routing_key, body, properties, mandatory=mandatory), wait
        )
        self._publishes += 1
        self._octets += size
        return publishing.addBoth(self._published, size)

    def _published(self, outcome: Any, size: int) -> Any:
        """One that has waited has come to its end."""
        self._publishes -= 1
        self._octets -= size
        return outcome

    def confirm_select(self, *, nowait: bool = False) -> Deferred[confirm.SelectOk | None]:
        """As :meth:`Channel.confirm_select`; it holds after a reconnect too."""
        self._is_confirming = True
        return self._calls.perform("confirm.select", lambda channel: channel.confirm_select(nowait=nowait))

    def add_return_callback(self, callback: Callable[[ReturnedMessage], object]) -> None:
        """As :meth:`Channel.add_return_callback`, over reconnects."""
        self._return_callbacks.append(callback)
        if self._channel is not None:
            self._channel.add_return_callback(callback)

    def remove_return_callback(self, callback: Callable[[ReturnedMessage], object]) -> None:
        """Stop calling it; ValueError if it is not registered."""
        self._return_callbacks.remove(callback)
        if self._channel is not None and self._channel.is_open:
            self._channel.remove_return_callback(callback)
