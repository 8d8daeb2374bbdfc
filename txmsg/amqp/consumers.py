"""Consumers: one core, three ways to be handed deliveries.

1. A :class:`ClosableDeferredQueue`: `yield consumer.get()` or `async for delivery in consumer`.
2. A callable, called once for each delivery as it comes in: the fast one, with nothing in between.
3. Either of them with `no_ack`, where no prefetch limits what the broker sends: then reading from the
   socket stops while too much is waiting, and goes on when half of it is gone.

With acks, memory is bounded by the prefetch count.  Whatever ends a consumer (basic_cancel, the broker's
basic.cancel when its queue is deleted, the end of the channel or connection) reaches its user: the queue
closes with the reason, `when_ended()` fires with it.
Source: https://www.rabbitmq.com/docs/consumers, https://www.rabbitmq.com/docs/consumer-cancel
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp.deferred_queue import ClosableDeferredQueue
from txmsg.amqp.delivery import Delivery
from txmsg.errors import ChannelWrongState, clip

if TYPE_CHECKING:
    from txmsg.amqp.channel import Channel

__all__ = ["Consumer", "DeliveryCallback", "DeliveryReader"]

#: A handler of deliveries: its result is None, a Deferred, or a coroutine (which is then run).
DeliveryCallback = Callable[[Delivery], "Deferred[Any] | Coroutine[Any, Any, Any] | None"]


class DeliveryReader:
    """What a consumer without a callback is read by: `await get()`, or `async for`.

    consumer_tag: str.   queue: ClosableDeferredQueue[Delivery] | None -- None for a consumer with a callback.
    """

    consumer_tag: str
    queue: ClosableDeferredQueue[Delivery] | None

    def get(self) -> Deferred[Delivery]:
        """The next delivery; fails with the reason once the consumer has ended.  May be cancelled.

        A consumer with a callback has no queue: ChannelWrongState.
        """
        if self.queue is None:
            return fail(ChannelWrongState(f"consumer {self.consumer_tag!r} has a callback, so there is nothing to get"))
        return self.queue.get()

    def __aiter__(self) -> ClosableDeferredQueue[Delivery]:
        if self.queue is None:
            raise ChannelWrongState(f"consumer {self.consumer_tag!r} has a callback, so it cannot be iterated over")
        return self.queue


class Consumer(DeliveryReader):
    """One subscription of a channel to a queue; made by :meth:`Channel.basic_consume`.

    consumer_tag: str -- unique on the channel.
    queue_name: str -- as given to basic_consume ("" means the channel's last declared queue).
    no_ack: bool -- whether the broker regards deliveries as settled when it sends them.
    queue: ClosableDeferredQueue[Delivery] | None -- None for a consumer with a callback.
    """

    _log = Logger(namespace="txmsg.amqp.consumer")

    def __init__(
        self,
        channel: Channel,
        consumer_tag: str,
        queue_name: str,
        callback: DeliveryCallback | None,
        no_ack: bool,
        bounded_reading: tuple[int, int] | None,
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.queue_name = queue_name
        self.no_ack = no_ack
        self.is_cancelling = False
        self.is_subscribed = False
        self.is_started = False
        self._callback = callback
        self._reason: BaseException | None = None
        self._ended_waiters: list[Deferred[BaseException]] = []
        #: (messages, bytes) above which reading stops; None where the prefetch is the bound.
        self._high_water = bounded_reading
        self._waiting_messages = 0
        self._waiting_bytes = 0
        self._is_reading_paused = False
        #: Called by the channel for each delivery.
        self.deliver: Callable[[Delivery], object]
        self.queue = None
        if callback is not None:
            self.deliver = self._deliver_to_callback
        else:
            if bounded_reading is None:
                self.queue = ClosableDeferredQueue()
            else:
                self.queue = ClosableDeferredQueue(on_stored=self._started, on_removed=self._finished)
            self.deliver = self.queue.put

    # -- for the user ------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether deliveries may still come: neither ended nor being cancelled."""
        return self._reason is None and not self.is_cancelling

    def cancel(self) -> Deferred[None]:
        """Stop the subscription; fires once the broker has agreed.

        What was delivered but not fetched goes back to the queue (with `no_ack` it stays readable).
        Cancelling twice, or after the end, succeeds.
        """
        return self.channel.basic_cancel(self)

    def when_ended(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason (ConsumerCancelled, ChannelClosed ...) at the end."""
        if self._reason is not None:
            return succeed(self._reason)
        waiter: Deferred[BaseException] = Deferred(self._ended_waiters.remove)
        self._ended_waiters.append(waiter)
        return waiter

    def __repr__(self) -> str:
        state = "active" if self.is_active else ("cancelling" if self._reason is None else "ended")
        return f"<Consumer {clip(self.consumer_tag, 60)!r} of {clip(self.queue_name, 60)!r} {state}>"

    def subscribed(self) -> None:
        """For the channel: basic.consume has been written."""
        self.is_subscribed = True

    def hand_over_to(self, queue: ClosableDeferredQueue[Delivery]) -> None:
        """For a consumer that outlives this one: deliveries go straight to its queue, which stays open at our end."""
        if self._high_water is not None:
            queue.on_stored, queue.on_removed = self._started, self._finished
            for waiting in queue.pending:
                self._started(waiting)
        self.deliver = queue.put

    # -- deliveries --------------------------------------------------------------------------------

    def _deliver_to_callback(self, delivery: Delivery) -> None:
        assert self._callback is not None
        try:
            result = self._callback(delivery)
        except Exception:
            self._handler_failed(Failure(), delivery)
        else:
            if result is not None:
                self._watch(result, delivery)

    def _watch(self, result: object, delivery: Delivery) -> None:
        """Let a Deferred or coroutine of the callback run, and log how it fails."""
        if inspect.iscoroutine(result):
            running: Deferred[Any] = Deferred.fromCoroutine(result)
        elif isinstance(result, Deferred):
            running = result
        else:
            return
        if running.called and not isinstance(running.result, (Failure, Deferred)):
            return
        if self._high_water is not None:
            self._started(delivery)
            running.addBoth(self._handled, delivery)
        running.addErrback(self._handler_failed, delivery)

    def _handled(self, result: object, delivery: Delivery) -> object:
        self._finished(delivery)
        return result

    def _handler_failed(self, failure: Failure, delivery: Delivery) -> None:
        # Not settled for the user: acking would lose the message, requeueing would make a hot loop.
        self._log.failure(
            "the callback of consumer {tag!r} failed on delivery {delivery_tag}; it stays unsettled",
            failure=failure,
            tag=clip(self.consumer_tag),
            delivery_tag=delivery.delivery_tag,
        )

    # -- bounded reading ---------------------------------------------------------------------------

    def _started(self, delivery: Delivery) -> None:
        assert self._high_water is not None
        self._waiting_messages += 1
        self._waiting_bytes += len(delivery.body)
        messages, size = self._high_water
        if not self._is_reading_paused and (self._waiting_messages >= messages or self._waiting_bytes >= size):
            self._is_reading_paused = True
            self.channel.connection.pause_reading(self)

    def _finished(self, delivery: Delivery) -> None:
        assert self._high_water is not None
        self._waiting_messages -= 1
        self._waiting_bytes -= len(delivery.body)
        if self._is_reading_paused:
            messages, size = self._high_water
            if self._waiting_messages <= messages // 2 and self._waiting_bytes <= size // 2:
                self._resume_reading()

    def read_on(self) -> None:
        """Whatever waits here: what ends the consumer must be read, and what still comes before that is finite."""
        self._resume_reading()
        self._high_water = self._high_water and (1 << 62, 1 << 62)

    def _resume_reading(self) -> None:
        if self._is_reading_paused:
            self._is_reading_paused = False
            self.channel.connection.resume_reading(self)

    # -- the end -----------------------------------------------------------------------------------

    def end(self, reason: BaseException) -> list[Delivery]:
        """The subscription is over.  Returns the deliveries that nobody fetched and that are to be requeued.

        Without acks nothing can be requeued: what has come stays readable before `get()` fails.
        """
        if self._reason is not None:
            return []
        self._reason = reason
        unfetched: list[Delivery] = []
        if self.queue is not None:
            unfetched = self.queue.close(reason, drain=self.no_ack)
        self.read_on()
        waiters, self._ended_waiters = self._ended_waiters, []
        for waiter in waiters:
            waiter.callback(reason)
        return unfetched
