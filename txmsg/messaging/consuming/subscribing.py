"""Subscribing: which queues a consumer consumes, under which tags, and how it comes back.

The bookkeeping (kombu H11 to H18): the prefetch count goes out before each subscription, tags are never used twice,
`consume` starts only what is not consumed yet, and ending a subscription leaves alone what was delivered already.

What is done to a consumer (consume, cancel, flow, revive ...) is done one after the other, in the order of the calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, ConsumerCancelled, NotBoundError, clip
from txmsg.messaging.connection.failures import channel_errors, connection_errors
from txmsg.messaging.consuming.dispatch import MessageDispatch, maybe_awaited
from txmsg.messaging.entities.declaring import cache_of
from txmsg.messaging.entities.entity import channel_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmsg.messaging.connection.channel import Channel
    from txmsg.messaging.entities import Queue

__all__ = ["DIRECT_REPLY", "STREAM_PREFETCH", "Subscribing", "Subscription", "in_any_case"]

_T = TypeVar("_T")

#: The queue of direct replies, which can be consumed with no_ack only.
#: https://www.rabbitmq.com/docs/direct-reply-to
DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"

#: The prefetch count of a consumer that is iterated over and was given none: what waits to be fetched is bounded.
STREAM_PREFETCH: Final = 200

#: Numbers for tags, so that no two consumers of this process have the same one.
_numbers = itertools.count(1)


class Subscription:
    """One queue that is consumed, or is to be.

    queue: Queue -- bound.   no_ack: bool.
    """

    __slots__ = ("no_ack", "queue")

    def __init__(self, queue: Queue, no_ack: bool) -> None:
        self.queue = queue
        self.no_ack = no_ack


class Subscribing(MessageDispatch):
    """The part of a Consumer that consumes queues, and stops.

    channel: Channel | None.   no_ack: bool | None.   auto_declare: bool.   prefetch_count: int | None.
    tag_prefix: str.   on_cancel -- see :class:`~txmsg.messaging.consuming.consumer.Consumer`.
    """

    def __init__(
        self,
        channel: Any,
        queues: Queue | Iterable[Queue] | None,
        no_ack: bool | None,
        auto_declare: bool | None,
        prefetch_count: int | None,
        tag_prefix: str | None,
        on_cancel: Callable[[Queue, BaseException], object] | None,
        **dispatch: Any,
    ) -> None:
        super().__init__(**dispatch)
        self.channel: Channel | None = None if channel is None else _channel_of(channel)
        self.no_ack = no_ack
        self.auto_declare = True if auto_declare is None else auto_declare
        self.prefetch_count = prefetch_count
        self.tag_prefix = "txmsg." if tag_prefix is None else tag_prefix
        self.on_cancel = on_cancel
        self._queues: list[Queue] = []
        self._subscriptions: dict[str, Subscription] = {}
        #: What `flow(False)` has stopped.
        self._paused: list[Subscription] = []
        self._is_paused = False
        #: Whether what it consumed could not be consumed again: `consume` tries once more.
        self._is_unrevived = False
        self._lock = DeferredLock()
        self._ended_waiters: list[Deferred[BaseException]] = []
        if queues is not None:
            for queue in queues if isinstance(queues, Iterable) and not isinstance(queues, str) else (queues,):
                self._add(queue)

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def queues(self) -> list[Queue]:
        """Its queues, bound to its channel."""
        return list(self._queues)

    @property
    def connection(self) -> Any:
        """The Connection of its channel; None without a channel."""
        return None if self.channel is None else self.channel.connection

    @property
    def consumer_tags(self) -> list[str]:
        """The tags of what it consumes now."""
        return list(self._subscriptions)

    @property
    def is_consuming(self) -> bool:
        """Whether messages may come."""
        return bool(self._subscriptions)

    @property
    def is_paused(self) -> bool:
        """Whether `flow(False)` is in force."""
        return self._is_paused

    def consuming_from(self, queue: Queue | str) -> bool:
        """Whether it consumes this queue, given as such or by name."""
        name = _name_of(queue)
        return any(each.queue.name == name for each in self._subscriptions.values())

    def when_ended(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason when nothing is consumed any more.

        ConsumerCancelled: it was cancelled here, or the broker ended the last of its subscriptions.  Otherwise why its
        channel or connection ended for good; a loss that is recovered from is no end.
        """
        waiter: Deferred[BaseException] = Deferred(self._ended_waiters.remove)
        self._ended_waiters.append(waiter)
        return waiter

    # -- queues ----------------------------------------------------------------------------------------

    def _add(self, queue: Queue) -> Queue:
        if not hasattr(queue, "bind"):
            given = f", such as Queue({clip(repr(queue))})" if isinstance(queue, str) else ""
            raise ConfigurationError(f"a {type(queue).__name__} cannot be consumed from: give a Queue{given}")
        bound = queue if self.channel is None else queue.bind(self.channel)
        if bound.name:
            self._queues = [each for each in self._queues if each.name != bound.name]
        self._queues.append(bound)
        return bound

    def declare(self) -> Deferred[None]:
        """Declare the queues, their exchanges and bindings."""
        return Deferred.fromCoroutine(self._declare(self._queues))

    async def _declare(self, queues: list[Queue]) -> None:
        for queue in list(queues):
            await queue.declare()

    # -- consuming -------------------------------------------------------------------------------------

    def consume(self, no_ack: bool | None = None) -> Deferred[Self]:
        """Start to consume those queues that are not consumed yet; fires with the consumer.

        no_ack: bool | None -- for these, in place of that of the consumer.
        Fails as `Connection.connect` and `Queue.declare` do, with NotFound for a queue that is not there, with
        AccessRefused where somebody else has it exclusively.  Then none of these queues is consumed.
        """
        return self._one_after_the_other(self._consume, no_ack)

    def _one_after_the_other(self, call: Any, *arguments: Any) -> Deferred[Any]:
        return self._lock.run(lambda: Deferred.fromCoroutine(call(*arguments)))

    def _on(self) -> Channel:
        if self.channel is None:
            raise NotBoundError("the consumer has no channel: make it with one, or revive() it")
        return self.channel

    async def _consume(self, no_ack: bool | None) -> Self:
        channel = self._on()
        taken = [each.queue for each in (*self._subscriptions.values(), *self._paused)]
        fresh = [queue for queue in self._queues if not any(_is_same(queue, other) for other in taken)]
        if self._is_unrevived:
            await channel.when_usable()
            await self._revive(channel)
        if self._is_paused:
            self._paused += [Subscription(queue, self._no_ack_of(queue, no_ack)) for queue in fresh]
            return self
        if fresh:
            await channel.when_usable()
            if self.auto_declare:
                await self._declare(fresh)
            await self._subscribe(channel, [Subscription(queue, self._no_ack_of(queue, no_ack)) for queue in fresh])
        return self

    def _no_ack_of(self, queue: Queue, no_ack: bool | None) -> bool:
        if no_ack is None:
            no_ack = self.no_ack
        return bool(queue.no_ack if no_ack is None else no_ack)

    async def _subscribe(self, channel: Channel, wanted: list[Subscription]) -> None:
        """Consume these queues, all in one round trip."""
        prefetch_count = self.prefetch_count
        if prefetch_count is None and self._is_streaming:
            prefetch_count = STREAM_PREFETCH
        under_way: list[Deferred[Any]] = []
        if prefetch_count is not None:
            under_way.append(channel.qos(prefetch_count))
        self._stream.reopen()
        started: dict[str, Subscription] = {}
        for subscription in wanted:
            tag = f"{self.tag_prefix}{next(_numbers)}"
            # Deliveries, and a cancellation, may come before the reply is seen here.
            self._subscriptions[tag] = started[tag] = subscription
            # What waits to be fetched has to be bounded, so it is settled when it is fetched.
            settles = subscription.no_ack and self._is_streaming and subscription.queue.name != DIRECT_REPLY
            consuming = channel.consume(
                subscription.queue.name,
                self._receiver(channel, subscription.no_ack, settles),
                no_ack=subscription.no_ack and not settles,
                consumer_tag=tag,
                arguments=subscription.queue.consumer_arguments,
                on_cancel=partial(self._cancelled_by_broker, tag),
            )
            under_way.append(consuming)
        channel.add_member(self)
        try:
            await _all(under_way)
        except Exception:
            for tag in started:
                self._subscriptions.pop(tag, None)
                if channel.is_open:
                    await channel.cancel(tag).addErrback(lambda failure: None)
            if not self._subscriptions:
                channel.remove_member(self)
            raise

    def _cancelled_by_broker(self, tag: str, reason: BaseException) -> None:
        subscription = self._subscriptions.pop(tag, None)
        if subscription is None:
            return
        channel = self.channel
        if channel is not None:
            channel.no_ack_consumers.discard(tag)
            declared = cache_of(channel)
            if declared is not None:
                declared.forget("queue", subscription.queue.name)
        if self.on_cancel is None:
            self._log.warn(
                "the broker has ended the consumer {tag} of {queue}: {reason}",
                tag=tag,
                queue=clip(subscription.queue.name),
                reason=reason,
            )
        else:
            try:
                telling = maybe_awaited(self.on_cancel(subscription.queue, reason))
            except Exception:
                self._log.failure("on_cancel failed")
            else:
                telling.addErrback(lambda failure: self._log.failure("on_cancel failed", failure=failure))
        if not self._subscriptions and not self._is_paused:
            if channel is not None:
                channel.remove_member(self)
            self._end(reason)

    def cancel(self) -> Deferred[None]:
        """Stop consuming; fires when nothing more comes.  :meth:`consume` starts again.

        What was delivered is not touched: callbacks may settle it, and ``async for`` goes on to the last of it.
        Cancelling the Deferred ends this wait only; so with those of `cancel_by_queue` and `close`.
        """
        return in_any_case(self._one_after_the_other(self._cancel))

    async def _cancel(self) -> None:
        self._paused = []
        self._is_paused = self._is_unrevived = False
        await self._unsubscribe(list(self._subscriptions))
        channel = self.channel
        if channel is not None:
            channel.remove_member(self)
        self._end(ConsumerCancelled("", "client", ", ".join(queue.name for queue in self._queues)))

    async def _unsubscribe(self, tags: list[str]) -> None:
        channel = self.channel
        if channel is None:
            return
        gone = {tag: self._subscriptions.pop(tag) for tag in tags}
        outcomes = await gatherResults([channel.cancel(tag).addErrback(_kept) for tag in gone])
        failed = {tag: each.failure for tag, each in zip(gone, outcomes, strict=True) if isinstance(each, _Kept)}
        for tag, failure in failed.items():
            if channel.is_open:
                self._subscriptions[tag] = gone[tag]  # nobody has answered: it may be tried again
            elif failure.check(*connection_errors, *channel_errors):
                continue  # it has gone with the channel
            failure.raiseException()

    def cancel_by_queue(self, queue: Queue | str) -> Deferred[None]:
        """Stop consuming this queue, given as such or by name, and forget it.  One that is not there is fine."""
        return in_any_case(self._one_after_the_other(self._cancel_by_queue, _name_of(queue)))

    async def _cancel_by_queue(self, name: str) -> None:
        self._paused = [each for each in self._paused if each.queue.name != name]
        await self._unsubscribe([tag for tag, each in self._subscriptions.items() if each.queue.name == name])
        self._queues = [each for each in self._queues if each.name != name]
        if not self._subscriptions and not self._is_paused and self.channel is not None:
            self.channel.remove_member(self)
            self._end(ConsumerCancelled("", "client", name))

    def _end(self, reason: BaseException) -> None:
        self._stream.close(reason)
        waiters, self._ended_waiters = self._ended_waiters, []
        for waiter in waiters:
            waiter.callback(reason)

    # -- coming back ---------------------------------------------------------------------------------------

    def revive(self, channel: Any) -> Deferred[None]:
        """Go over to `channel`, or to what is behind it now: declare, and consume again what was consumed.

        The old tags are forgotten; what was delivered with them cannot be settled (StaleDelivery) if its channel is
        gone, and comes again.
        """
        return self._one_after_the_other(self._revive, channel)

    async def _revive(self, channel: Any) -> None:
        old, new = self.channel, _channel_of(channel)
        if old is not None and old is not new:
            tags, wanted = list(self._subscriptions), list(self._subscriptions.values())
            old.remove_member(self)
            await self._unsubscribe(tags)
        else:
            wanted = list(self._subscriptions.values())
        self.channel = new
        self._rebind(new, [*wanted, *self._paused])
        before, self._subscriptions = self._subscriptions, {}
        self._is_unrevived = False
        try:
            if self.auto_declare and wanted:
                await self._declare([each.queue for each in wanted])
            if wanted:
                await self._subscribe(new, wanted)
        except Exception:
            # Not consumed, but still to be: the channel tries again, or calls lost(), or the application consumes.
            self._is_unrevived = bool(wanted)
            self._subscriptions = before or {f"{self.tag_prefix}{next(_numbers)}": each for each in wanted}
            if wanted and old is new:
                new.add_member(self)
            raise

    def _rebind(self, channel: Channel, subscriptions: list[Subscription]) -> None:
        for index, queue in enumerate(self._queues):
            if queue.is_bound:
                queue.revive(channel)
                continue
            bound = self._queues[index] = queue.bind(channel)
            for each in subscriptions:
                if each.queue is queue:
                    each.queue = bound

    def lost(self, reason: BaseException) -> None:
        """For the channel: it has ended for good."""
        self._subscriptions.clear()
        self._paused = []
        self._is_paused = self._is_unrevived = False
        self._end(reason)


def _channel_of(channel: Any) -> Channel:
    return cast("Channel", channel_of(channel))


def _name_of(queue: Queue | str) -> str:
    return queue if isinstance(queue, str) else queue.name


def _is_same(queue: Queue, other: Queue) -> bool:
    return queue is other or (bool(queue.name) and queue.name == other.name)


def in_any_case(work: Deferred[_T]) -> Deferred[_T]:
    """The outcome of `work` for one who may stop waiting for it, which does not stop the work."""
    waiter: Deferred[_T] = Deferred()
    work.addCallbacks(waiter.callback, waiter.errback)
    return waiter


async def _all(under_way: list[Deferred[Any]]) -> None:
    """Wait for all of them; raise what the first that failed has failed with."""
    results = await gatherResults([each.addErrback(_kept) for each in under_way])
    for result in results:
        if isinstance(result, _Kept):
            result.failure.raiseException()


class _Kept:
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def _kept(failure: Failure) -> _Kept:
    return _Kept(failure)
