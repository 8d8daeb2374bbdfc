"""RecoveringConsumer: a subscription that comes back, and never is silently idle (R25).

Behind it stands one plain :class:`txmsg.amqp.Consumer` after another, with the same consumer tag.  A callback is given
to each of them as it is, and a queue is put into by each of them directly: nothing stands in the way of a delivery.

- The connection or the channel is lost: it subscribes again with the channel.  What was delivered and not fetched is
  dropped from the queue, because the broker delivers it again (with `no_ack` it stays: the broker has forgotten it).
  What was fetched settles with StaleDelivery (R23).
- The broker cancels it (the queue was deleted, its node went down): it declares the queue again, if the topology has
  it, and subscribes again, with growing waits, up to `resubscribe_limit`; then it ends with ConsumerCancelled.
- The application has deleted the queue itself: it ends with ConsumerCancelled at once.

Source: https://www.rabbitmq.com/docs/consumers, https://www.rabbitmq.com/docs/consumer-cancel
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txmsg.amqp.channel import Channel
from txmsg.amqp.consumers import Consumer, DeliveryCallback, DeliveryReader
from txmsg.amqp.deferred_queue import ClosableDeferredQueue
from txmsg.amqp.delivery import Delivery
from txmsg.amqp.recovery.deduplicating import DuplicateFilter
from txmsg.amqp.recovery.events import (
    CONSUMER_CANCELLED,
    CONSUMER_ENDED,
    CONSUMER_FAILED,
    CONSUMER_RESUMED,
    RecoveryEvent,
)
from txmsg.amqp.recovery.replay import replay
from txmsg.amqp.recovery.topology import ConsumerRecord
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    ConsumerCancelled,
    SettlementError,
    clip,
)

if TYPE_CHECKING:
    from txmsg.amqp.recovery.channel import RecoveringChannel

__all__ = ["OnLoss", "RecoveringConsumer"]

#: "continue": go on after a reconnect; "close": end with the reason, as a plain consumer does.
OnLoss = Literal["continue", "close"]

#: Seconds between looks at whether the channel is there again, at least.
_SHORTEST = 0.1


class RecoveringConsumer(DeliveryReader):
    """One subscription, over any number of connections; made by :meth:`RecoveringChannel.basic_consume`.

    channel: RecoveringChannel.
    consumer_tag: str -- the same for ever.
    no_ack: bool.   on_loss: "continue" or "close".
    queue: ClosableDeferredQueue[Delivery] | None -- the same for ever; None for a consumer with a callback.
    epoch: int -- how many subscriptions there have been.
    """

    def __init__(
        self,
        channel: RecoveringChannel,
        consumer_tag: str,
        queue: str,
        callback: DeliveryCallback | None,
        *,
        no_ack: bool,
        exclusive: bool,
        no_local: bool,
        arguments: Mapping[str, Any],
        on_loss: OnLoss,
        duplicates: DuplicateFilter | None,
        resubscribe_limit: float | None,
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        #: The queue's name as the application knows it; "" is the last one declared, until that is known.
        self.queue_key = queue
        self.no_ack = no_ack
        self.on_loss = on_loss
        self.epoch = 0
        self.queue = ClosableDeferredQueue() if callback is None else None
        #: The limit in force when it was started; None: the default.
        self.prefetch_count: int | None = None
        self._callback = callback
        self._options: dict[str, Any] = {
            "no_ack": no_ack,
            "exclusive": exclusive,
            "no_local": no_local,
            "arguments": arguments,
        }
        self._duplicates = duplicates
        self._limit = resubscribe_limit
        self._record: ConsumerRecord | None = None
        self._plain: Consumer | None = None
        self._is_started = False
        self._is_cancelling = False
        self._reason: BaseException | None = None
        self._ended_waiters: list[Deferred[BaseException]] = []
        self._cancel_waiters: list[Deferred[None]] = []
        self._retry: IDelayedCall | None = None
        self._retrying: Deferred[None] | None = None
        self._attempt = 0
        self._failing_since: float | None = None
        self._started_at = 0.0

    # -- for the user ------------------------------------------------------------------------------

    @property
    def queue_name(self) -> str:
        """What the broker calls the queue now."""
        return self.channel.connection.topology.current_name(self.queue_key)

    @property
    def is_active(self) -> bool:
        """Whether deliveries may still come, now or after a reconnect: neither ended nor being cancelled."""
        return self._reason is None and not self._is_cancelling

    @property
    def is_subscribed(self) -> bool:
        """Whether the broker has it among its consumers now, as far as we know."""
        return self._plain is not None and self._is_started

    @property
    def duplicates_dropped(self) -> int:
        """How many deliveries `dedupe` has kept from the handler."""
        return 0 if self._duplicates is None else self._duplicates.dropped

    def cancel(self) -> Deferred[None]:
        """End the subscription for good; fires once the broker has agreed, or at once while there is no connection.

        What was delivered but not fetched goes back to the queue (with `no_ack` it stays readable).
        Cancelling twice, or after the end, succeeds.  Fails with OperationTimeout if the broker does not answer; it may
        be called again then.  Cancelling the Deferred ends this wait only.
        """
        if self._reason is not None:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._cancel_waiters.remove)
        self._cancel_waiters.append(waiter)
        if not self._is_cancelling:
            self._stop_retrying()
            if self._plain is None:
                self._cancelled()
            else:
                self._is_cancelling = True
                self._plain.cancel().addCallbacks(lambda result: self._cancelled(), self._not_cancelled)
        return waiter

    def _cancelled(self) -> None:
        self.end(ConsumerCancelled(self.consumer_tag, "client", self.queue_name))

    def _not_cancelled(self, failure: Failure) -> None:
        if failure.check(ChannelClosed, ConnectionClosed):
            self._cancelled()  # the subscription went with it
            return
        self._is_cancelling = False
        waiters, self._cancel_waiters = self._cancel_waiters, []
        for waiter in waiters:
            waiter.errback(failure)

    def when_ended(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason (ConsumerCancelled, ChannelClosed ...) at the end."""
        if self._reason is not None:
            return succeed(self._reason)
        waiter: Deferred[BaseException] = Deferred(self._ended_waiters.remove)
        self._ended_waiters.append(waiter)
        return waiter

    def __repr__(self) -> str:
        if self._reason is not None:
            state = "ended"
        elif self._is_cancelling:
            state = "cancelling"
        elif self.is_subscribed:
            state = "subscribed"
        else:
            state = "trying again" if self.is_waiting else "waiting for the channel"
        return f"<RecoveringConsumer {clip(self.consumer_tag, 60)!r} of {clip(self.queue_name, 60)!r} {state}>"

    # -- for the channel -----------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether it tries by itself, later: what it wants is refused at the moment."""
        return self._retry is not None or self._retrying is not None

    @property
    def is_subscribing(self) -> bool:
        """Whether a subscription is under way or there."""
        return self._plain is not None

    def registered(self, record: ConsumerRecord) -> None:
        """The first subscription has succeeded."""
        self._record = record

    def subscribe(self, channel: Channel) -> Deferred[Any]:
        """Subscribe on this plain channel; fails as basic_consume does."""
        topology = self.channel.connection.topology
        name = topology.current_name(self.queue_key) if self.queue_key else ""
        started = channel.basic_consume(name, self._callback, consumer_tag=self.consumer_tag, **self._options)
        plain = channel.consumers.get(self.consumer_tag)
        if plain is None:
            return started
        self._plain = plain
        self._is_started = False
        if self.queue is not None:
            plain.hand_over_to(self.queue)
        if self._duplicates is not None:
            self._duplicates.begin(plain, self.queue_key, self.channel.connection.clock)
        plain.when_ended().addCallback(self._plain_ended, plain)
        return started.addCallback(self._subscribed, plain)

    def _subscribed(self, result: Any, plain: Consumer) -> Any:
        if plain is self._plain:
            self._is_started = True
            self.epoch += 1
            self._started_at = self.channel.connection.clock.seconds()
            self._failing_since = None
        return result

    def _plain_ended(self, reason: BaseException, plain: Consumer) -> None:
        if plain is not self._plain:
            return
        was_started, self._plain, self._is_started = self._is_started, None, False
        self._drop_unfetched(plain)
        if self._reason is not None or self._is_cancelling or not was_started:
            return
        if isinstance(reason, ConsumerCancelled):
            self._cancelled_below(reason)
        elif self.on_loss == "close":
            self.end(reason)

    def _drop_unfetched(self, plain: Consumer) -> None:
        if self._duplicates is not None:
            self._duplicates.reset()
        if self.queue is None or self.no_ack:
            return
        if self._is_cancelling:
            return  # `end` gives it back
        for delivery in self.queue.clear():
            _give_back(delivery)
            if self._duplicates is not None:
                self._duplicates.not_handled(delivery)

    def _cancelled_below(self, reason: ConsumerCancelled) -> None:
        topology = self.channel.connection.topology
        if reason.initiator == "client" or (self._record is not None and topology.is_deleted(self._record)):
            self.end(reason)
            return
        self._report(CONSUMER_CANCELLED, reason)
        if self.on_loss == "close":
            self.end(reason)
        else:
            self._try_later(reason)

    def connection_lost(self, reason: BaseException) -> None:
        """The connection is gone: the next one begins with a subscription for everybody."""
        self._stop_retrying()
        self._attempt = 0
        self._failing_since = None

    def refused(self, error: BaseException) -> None:
        """The broker has closed the channel because of this consumer: try again alone, later."""
        self._report(CONSUMER_FAILED, error)
        self._try_later(error)

    # -- trying again --------------------------------------------------------------------------------

    def _report(self, kind: str, error: BaseException | None = None) -> None:
        self.channel.connection.report(RecoveryEvent(kind, repr(self), error))

    def _stop_retrying(self) -> None:
        if self._retry is not None:
            retry, self._retry = self._retry, None
            retry.cancel()
        if self._retrying is not None:
            retrying, self._retrying = self._retrying, None
            retrying.cancel()

    def _try_later(self, error: BaseException) -> None:
        connection = self.channel.connection
        now, backoff = connection.clock.seconds(), connection.backoff
        if self._failing_since is None:
            self._failing_since = now
            if now - self._started_at >= backoff.reset_after:
                self._attempt = 0
        topology = connection.topology
        is_deleted = self._record is not None and topology.is_deleted(self._record)
        if is_deleted or (self._limit is not None and now - self._failing_since >= self._limit):
            self._report(CONSUMER_ENDED, error)
            self.end(ConsumerCancelled(self.consumer_tag, "server", self.queue_name))
            return
        self._attempt += 1
        self._retry = connection.clock.callLater(backoff.delay(self._attempt), self._try_now)

    def _try_now(self) -> None:
        self._retry = None
        channel = self.channel.channel
        if channel is None or not channel.is_open:
            # It is being opened again.  Not with the others: it may have been this one that the broker closed it for.
            delay = max(self.channel.connection.backoff.delay(self._attempt), _SHORTEST)
            self._retry = self.channel.connection.clock.callLater(delay, self._try_now)
            return
        retrying = Deferred.fromCoroutine(self._resubscribe(channel))
        if not retrying.called:
            self._retrying = retrying
        retrying.addCallbacks(self._resubscribed, self._not_resubscribed, errbackArgs=(channel,))

    async def _resubscribe(self, channel: Channel) -> None:
        """Make sure of the queue on a channel that nobody minds, then subscribe."""
        connection = self.channel.connection
        topology = connection.topology
        protocol = channel.connection
        plan = topology.plan_for(self.queue_key)
        queue = topology.queues.get(topology.name_of(self.queue_key))
        refused = await replay(protocol, plan, connection)
        if queue in refused or not any(queue is entity for stage in plan for entity in stage):
            probe = await protocol.channel()
            await probe.queue_declare(self.queue_name, passive=True)
            probe.close()
        await self.channel.subscribe_consumer(self, channel)

    def _resubscribed(self, result: None) -> None:
        self._retrying = None
        if self._reason is None:
            self._report(CONSUMER_RESUMED)

    def _not_resubscribed(self, failure: Failure, channel: Channel) -> None:
        self._retrying = None
        error = failure.value
        if self._reason is not None or failure.check(CancelledError) or not channel.connection.is_open:
            return
        assert error is not None
        self._report(CONSUMER_FAILED, error)
        self._try_later(error)

    # -- the end -----------------------------------------------------------------------------------

    def end(self, reason: BaseException) -> None:
        """It is over for good; the first reason stays."""
        if self._reason is not None:
            return
        self._reason = reason
        self._stop_retrying()
        connection = self.channel.connection
        self.channel.forget_consumer(self)
        if self._record is not None:
            connection.topology.consumer_removed(self._record)
        if self.queue is not None:
            for delivery in self.queue.close(reason, drain=self.no_ack):
                _give_back(delivery)
        cancel_waiters, self._cancel_waiters = self._cancel_waiters, []
        for cancel_waiter in cancel_waiters:
            cancel_waiter.callback(None)
        waiters, self._ended_waiters = self._ended_waiters, []
        for waiter in waiters:
            waiter.callback(reason)


def _give_back(delivery: Delivery) -> None:
    """Requeue what nobody has fetched, where the broker has not done so already."""
    if delivery.channel.is_open and not delivery.is_settled:
        with suppress(SettlementError):
            delivery.nack(requeue=True)
