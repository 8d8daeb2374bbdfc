"""A channel of ``memory://``: consuming and settling, straight on the model; publishing is in `publishing`.

Invariants: no callback of the application runs inside a call of the model; a delivery is settled once, on its channel.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from txmsg.broker import faults
from txmsg.broker.faults import Fault
from txmsg.broker.vhost.direct_reply import REPLY_TO
from txmsg.errors import (
    AlreadySettled,
    ChannelClosed,
    ConfigurationError,
    ConsumerCancelled,
    DuplicateConsumerTag,
    EncodeError,
    StaleDelivery,
    TxmsgError,
)
from txmsg.transports.memory.consumer import MemoryConsumer, priority_of
from txmsg.transports.memory.delivery import MemoryDelivery
from txmsg.transports.memory.life import carried, name
from txmsg.transports.memory.publishing import Publishing

if TYPE_CHECKING:
    from txmsg.broker.queues.queue import Queue
    from txmsg.transports.memory.connection import MemoryConnection

__all__ = ["MemoryChannel"]

#: How many deliveries are handed over in one turn of the reactor, so that others get their turn too.
_BATCH: Final = 256


class MemoryChannel(Publishing):
    """A :class:`~txmsg.abc.MessagingChannel`; made by :meth:`MemoryConnection.channel`.

    unsettled: the deliveries that are still to be settled, by delivery tag, ascending.
    consumers: by tag.
    """

    def __init__(self, connection: MemoryConnection) -> None:
        super().__init__(connection)
        self.unsettled: dict[int, MemoryDelivery] = {}
        self.consumers: dict[str, MemoryConsumer] = {}
        #: The delivery tag given last.
        self.last_tag = 0
        #: What waits for the next turn to be handed over.
        self.ready: deque[MemoryDelivery] = deque()
        self._is_handing_over = False
        #: Who waits until nothing of a cancelled consumer is in `ready` any more.
        self._after_last_of: dict[MemoryConsumer, Deferred[None]] = {}
        self._prefetch_count = 0

    def close(self) -> Deferred[None]:
        """Give back what is unsettled and end it; closing twice is fine."""
        self.check_thread()
        self.end(ChannelClosed("closed by the application", 200, initiator="client"))
        return succeed(None)

    # -- consuming ---------------------------------------------------------------------------------

    def qos(self, prefetch_count: int) -> Deferred[None]:
        """How many deliveries each consumer started from now on may have unsettled; 0: any number (to 10,000)."""
        if not isinstance(prefetch_count, int) or not 0 <= prefetch_count <= 65535:
            return fail(EncodeError("prefetch_count is an int from 0 to 65535"))

        def set_it() -> None:
            self._prefetch_count = prefetch_count

        return self._call(set_it)

    def consume(
        self,
        queue: str,
        callback: Callable[[MemoryDelivery], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Mapping[str, Any] | None = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each message of the queue to `callback(delivery)`; fires with the consumer tag.

        See :meth:`txmsg.abc.MessagingChannel.consume`.  NotFound, ResourceLocked, AccessRefused (somebody has it
        exclusively), DuplicateConsumerTag (the channel stays open).
        """
        if not callable(callback):
            return fail(ConfigurationError(f"the callback must be callable, not {type(callback).__name__}"))
        if consumer_tag and consumer_tag in self.consumers:
            return fail(DuplicateConsumerTag(f"consumer tag {consumer_tag!r} is in use on this channel"))

        def start() -> str:
            limit = self.vhost.limits.consumers_per_channel
            if len(self.consumers) >= limit:
                raise faults.consumer_limit(limit)
            tag = name("consumer_tag", consumer_tag) or f"amq.ctag-{secrets.token_urlsafe(16)}"
            consumer = MemoryConsumer(
                self,
                tag,
                callback,
                no_ack=no_ack,
                exclusive=exclusive,
                priority=priority_of(carried(arguments)),
                prefetch_count=self._prefetch_count,
                on_cancel=on_cancel,
            )
            if queue == REPLY_TO:
                self._consume_replies(consumer)
                return tag
            found = consumer.queue = self.vhost.queue(name("queue", queue), self.connection)
            # Deliveries may come before add_consumer is back.
            self.consumers[tag] = consumer
            try:
                found.add_consumer(consumer)
            except Fault:
                del self.consumers[tag]
                raise
            return tag

        return self._call(start)

    def _consume_replies(self, consumer: MemoryConsumer) -> None:
        """Direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to): replies come here with no queue between."""
        if not consumer.no_ack:
            raise faults.reply_consumer_acknowledges()
        if self._replies is not None:
            raise faults.reply_consumer_set()
        consumer.reply_name = self.vhost.direct_reply.register(consumer)
        self._replies = self.consumers[consumer.tag] = consumer
        self.forget_properties()

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        """End a consumer; fires when nothing more will come.  An unknown one is fine.

        What was not handed over yet goes back to the queue; with no_ack it is handed over still.
        """

        def stop() -> MemoryConsumer | None:
            consumer = self.consumers.pop(consumer_tag, None)
            if consumer is not None:
                self._end_consumer(consumer)
            return consumer

        stopped = self._call(stop)
        return stopped.addCallback(self._after_last)

    def _after_last(self, consumer: MemoryConsumer | None) -> Deferred[None] | None:
        if consumer is None or not any(delivery.consumer is consumer for delivery in self.ready):
            return None
        done = self._after_last_of[consumer] = Deferred()
        return done

    def _end_consumer(self, consumer: MemoryConsumer) -> None:
        consumer.end()
        if consumer is self._replies:
            self._forget_replies()
        waiting: list[MemoryDelivery] = []
        if not consumer.no_ack:
            waiting = [delivery for delivery in self.ready if delivery.consumer is consumer]
            for delivery in waiting:
                del self.unsettled[delivery.delivery_tag]
        queue, consumer.queue = consumer.queue, None
        # First what it has not seen goes back, for with its last consumer the queue may go.
        self._give_back(waiting, True)
        if queue is not None:
            queue.remove_consumer(consumer)

    def _forget_replies(self) -> None:
        replies, self._replies = self._replies, None
        if replies is not None:
            self.vhost.direct_reply.unregister(replies.reply_name)
            self.forget_properties()

    def consumer_cancelled(self, consumer: MemoryConsumer) -> None:
        """For a consumer whose queue is gone: tell its owner, in the next turn."""
        if self.consumers.get(consumer.tag) is consumer:
            del self.consumers[consumer.tag]
        consumer.end()
        queue, consumer.queue = consumer.queue, None
        if consumer.on_cancel is not None:
            reason = ConsumerCancelled(consumer.tag, "server", "" if queue is None else queue.name)
            self.connection.reactor.callLater(0, self._guarded, consumer.on_cancel, reason)

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[MemoryDelivery | None]:
        """Take one message; fires with the delivery, or None if the queue is empty."""

        def take() -> MemoryDelivery | None:
            found: Queue = self.vhost.queue(name("queue", queue), self.connection)
            entry = found.get(no_ack=no_ack)
            if entry is None:
                return None
            self.last_tag += 1
            delivery = MemoryDelivery(self, None, found, entry, self.last_tag, no_ack)
            delivery.message_count = found.message_count
            if not no_ack:
                self.unsettled[self.last_tag] = delivery
            return delivery

        return self._call(take)

    # -- handing over ------------------------------------------------------------------------------

    def hand_over_soon(self) -> None:
        """For a consumer: there is something in `ready`."""
        if not self._is_handing_over:
            self._is_handing_over = True
            self.connection.reactor.callLater(0, self._hand_over)

    def _hand_over(self) -> None:
        """A turn: give deliveries to the callbacks."""
        left = _BATCH
        while self.ready and left:
            left -= 1
            delivery = self.ready.popleft()
            consumer = delivery.consumer
            assert consumer is not None
            try:
                result = consumer.callback(delivery)
            except Exception:
                self._log.failure(
                    "the callback of consumer {tag!r} failed; the delivery stays unsettled", tag=consumer.tag
                )
            else:
                if result is not None:
                    self._run(result, consumer)
            if consumer.no_ack:
                consumer.one_less()
        self._is_handing_over = False
        if self.ready:
            self.hand_over_soon()
        if self._after_last_of:
            # Others of the channel may have something at all times: that is no reason to wait.
            left_over = {delivery.consumer for delivery in self.ready}
            for consumer in [each for each in self._after_last_of if each not in left_over]:
                self._after_last_of.pop(consumer).callback(None)

    def _run(self, result: object, consumer: MemoryConsumer) -> None:
        """What a callback returned: run it if there is something to run, and log how it fails."""
        if isinstance(result, Awaitable):
            running: Deferred[Any] = maybeDeferred(_await, result)
            running.addErrback(
                lambda failure: self._log.failure(
                    "the callback of consumer {tag!r} failed", failure=failure, tag=consumer.tag
                )
            )

    def _guarded(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            self._log.failure("a callback failed")

    # -- settling ----------------------------------------------------------------------------------

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """The message is done with; `multiple`: and so are all earlier ones (tag 0: all there are).

        StaleDelivery when the channel has ended, AlreadySettled, WrongThread.
        """
        if get_ident() != self._thread_id:
            self.check_thread()
        if multiple:
            for delivery in self._up_to(delivery_tag):
                delivery.queue.ack(delivery.entry)
                if delivery.consumer is not None:
                    delivery.consumer.one_less()
            return
        try:
            delivery = self.unsettled.pop(delivery_tag)
        except (KeyError, TypeError):
            raise self._refusal(delivery_tag) from None
        delivery.queue.ack(delivery.entry)
        consumer = delivery.consumer
        if consumer is not None:
            consumer.one_less()

    def nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Give a message back: to its queue, or (requeue False) to the dead-letter exchange or nowhere.

        Raises as `ack`.
        """
        self.check_thread()
        if multiple:
            self._give_back(self._up_to(delivery_tag), requeue)
            return
        try:
            delivery = self.unsettled.pop(delivery_tag)
        except (KeyError, TypeError):
            raise self._refusal(delivery_tag) from None
        self._give_back([delivery], requeue)

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Give one message back.  Raises as `ack`."""
        self.nack(delivery_tag, False, requeue)

    def recover(self) -> Deferred[None]:
        """Give all unsettled deliveries back to their queues, to be delivered again."""

        def give_back() -> None:
            deliveries = list(self.unsettled.values())
            self.unsettled.clear()
            self._give_back(deliveries, True)

        return self._call(give_back)

    def _up_to(self, delivery_tag: int) -> list[MemoryDelivery]:
        """Take out what is unsettled up to that tag (0: all); never empty."""
        if not isinstance(delivery_tag, int):
            raise self._refusal(delivery_tag)
        found = [delivery for tag, delivery in self.unsettled.items() if not delivery_tag or tag <= delivery_tag]
        if not found:
            raise self._refusal(delivery_tag)
        for delivery in found:
            del self.unsettled[delivery.delivery_tag]
        return found

    def _give_back(self, deliveries: list[MemoryDelivery], requeue: bool) -> None:
        """Return deliveries, which are not in `unsettled` any more, to where they came from."""
        if self.ready:
            # Not handed over yet, and never to be.
            gone = {delivery.delivery_tag for delivery in deliveries}
            self.ready = deque(delivery for delivery in self.ready if delivery.delivery_tag not in gone)
        if requeue:
            by_queue: dict[Queue, list[MemoryDelivery]] = {}
            for delivery in deliveries:
                by_queue.setdefault(delivery.queue, []).append(delivery)
            for queue, those in by_queue.items():
                queue.requeue([delivery.entry for delivery in those])
        else:
            for delivery in deliveries:
                delivery.queue.reject(delivery.entry)
        for delivery in deliveries:
            if delivery.consumer is not None:
                delivery.consumer.one_less()

    def _refusal(self, delivery_tag: object) -> TxmsgError:
        if not isinstance(delivery_tag, int):
            return EncodeError(f"a delivery tag is an int, not {type(delivery_tag).__name__}")
        if self._reason is not None:
            return StaleDelivery(
                f"delivery {delivery_tag} cannot be settled any more, it is back in its queue: {self._reason}"
            )
        return AlreadySettled(
            f"delivery {delivery_tag} is not open on this channel: "
            "it was settled before, was delivered with no_ack, or never was delivered here"
        )

    # -- the end -----------------------------------------------------------------------------------

    def _release(self) -> None:
        self._forget_replies()
        consumers, self.consumers = self.consumers, {}
        deliveries, self.unsettled = list(self.unsettled.values()), {}
        self.ready.clear()
        for consumer in consumers.values():
            consumer.end()
        for consumer in consumers.values():
            queue, consumer.queue = consumer.queue, None
            if queue is not None:
                queue.remove_consumer(consumer)
        self._give_back(deliveries, True)
        waiting, self._after_last_of = self._after_last_of, {}
        for done in waiting.values():
            done.callback(None)

    def __repr__(self) -> str:
        return (
            f"<MemoryChannel {'open' if self.is_open else 'closed'}, {len(self.consumers)} consumers, "
            f"{len(self.unsettled)} unsettled>"
        )


async def _await(what: Awaitable[Any]) -> Any:
    return await what
