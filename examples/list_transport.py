"""A messaging transport of one's own, whole: queues are lists in this process.

python examples/list_transport.py

It has the default exchange only, and refuses the others.  What keeps messages somewhere else has the same parts, with
its store where `Store` is here; docs/transports.md goes through them.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed
from twisted.internet.task import react
from twisted.logger import Logger

from txmsg.abc import DeclaredQueue, Guarantees
from txmsg.amqp import BasicProperties
from txmsg.errors import (
    AlreadySettled,
    ChannelClosed,
    ConfigurationError,
    ConnectionClosed,
    ConsumerCancelled,
    DuplicateConsumerTag,
    EncodeError,
    NotFound,
    NotImplementedByPeer,
    PreconditionFailed,
    PublishReturned,
    StaleDelivery,
    TxmsgError,
)
from txmsg.transports import register, transport_for
from txmsg.transports.options import check_options
from txmsg.wire.primitives import encode_short_string


class Store:
    """Where the messages are: the part that another transport has something else for."""

    def __init__(self) -> None:
        self.queues: dict[str, ListQueue] = {}
        self.names = 0


class ListQueue:
    """Messages that are ready, and who wants them."""

    def __init__(self, name: str, auto_delete: bool) -> None:
        self.name = name
        self.auto_delete = auto_delete
        self.ready: deque[ListMessage] = deque()
        self.consumers: deque[ListConsumer] = deque()


class ListMessage:
    """One message.   number: its place in the queue, also when it comes back."""

    numbers = 0

    def __init__(self, routing_key: str, body: bytes, properties: dict[str, Any]) -> None:
        ListMessage.numbers = self.number = ListMessage.numbers + 1
        self.routing_key, self.body, self.properties = routing_key, body, properties
        self.redelivered = False


class ListConsumer:
    """A subscription.   room: how many more it takes; None: any number."""

    def __init__(self, channel: ListChannel, tag: str, queue: ListQueue, callback: Any, no_ack: bool) -> None:
        self.channel, self.tag, self.queue, self.callback, self.no_ack = channel, tag, queue, callback, no_ack
        self.room = None if no_ack or not channel.prefetch_count else channel.prefetch_count
        self.on_cancel: Callable[[BaseException], object] | None = None


class ListDelivery:
    """txmsg.abc.MessagingDelivery."""

    exchange = ""
    properties_error: BaseException | None = None

    def __init__(
        self, channel: ListChannel, queue: ListQueue, message: ListMessage, tag: int, consumer: ListConsumer | None
    ) -> None:
        self.channel, self.queue, self.message, self.consumer = channel, queue, message, consumer
        self.delivery_tag = tag
        self.body, self.routing_key, self.redelivered = message.body, message.routing_key, message.redelivered
        self.properties = copy.deepcopy(message.properties)
        self.consumer_tag = "" if consumer is None else consumer.tag

    @property
    def is_settled(self) -> bool:
        return self.channel.unsettled.get(self.delivery_tag) is not self

    def ack(self, multiple: bool = False) -> None:
        self.channel.settle(self, multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        give_back(self.channel.settle(self, multiple), requeue)

    def reject(self, requeue: bool = False) -> None:
        self.nack(requeue)

    def __repr__(self) -> str:
        return f"<ListDelivery {self.delivery_tag}>"


def give_back(deliveries: list[ListDelivery], requeue: bool) -> None:
    """Put messages in their places again."""
    for delivery in deliveries if requeue else ():
        delivery.message.redelivered = True
        ready = delivery.queue.ready
        ready.append(delivery.message)
        delivery.queue.ready = deque(sorted(ready, key=lambda message: message.number))
    for delivery in deliveries:
        delivery.channel.connection.wake(delivery.queue)


class ListChannel:
    """txmsg.abc.MessagingChannel."""

    _log = Logger()

    def __init__(self, connection: ListConnection) -> None:
        self.connection, self.store = connection, connection.store
        self.unsettled: dict[int, ListDelivery] = {}
        self.consumers: dict[str, ListConsumer] = {}
        self.last_tag = self.prefetch_count = 0
        self.reason: TxmsgError | None = None
        self._ended: list[Deferred[BaseException]] = []

    def __repr__(self) -> str:
        return f"<ListChannel {'open' if self.is_open else 'closed'}>"

    # -- its life: one reason, once

    @property
    def is_open(self) -> bool:
        return self.reason is None

    def close(self) -> Deferred[None]:
        self.end(ChannelClosed("closed by the application", 200, initiator="client"))
        return succeed(None)

    def when_closed(self) -> Deferred[BaseException]:
        if self.reason is not None:
            return succeed(self.reason)
        self._ended.append(Deferred())
        return self._ended[-1]

    def end(self, reason: TxmsgError) -> None:
        if self.reason is None:
            self.reason = reason
            self.connection.channels.discard(self)
            for consumer in list(self.consumers.values()):
                self._stop(consumer)
            unsettled, self.unsettled = self.unsettled, {}
            give_back(list(unsettled.values()), True)
            for ended in self._ended:
                ended.callback(reason)

    def _call(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Every method is this: a Deferred, and an error of the broker's kind ends the channel."""
        if self.reason is not None:
            return fail(self.reason)
        try:
            return succeed(call(*arguments))
        except TxmsgError as error:
            if isinstance(error, ChannelClosed):
                self.end(error)
            return fail(error)

    # -- topology: what there is not, is refused

    def _refused(self, *arguments: Any, **settings: Any) -> Deferred[Any]:
        return fail(NotImplementedByPeer("there is only the default exchange here"))

    exchange_declare = exchange_delete = exchange_bind = exchange_unbind = queue_bind = queue_unbind = _refused

    def _queue(self, name: str) -> ListQueue:
        if name not in self.store.queues:
            raise NotFound(f"NOT_FOUND - no queue '{name}'")
        return self.store.queues[name]

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[DeclaredQueue]:
        def declare() -> DeclaredQueue:
            if durable or exclusive or arguments:
                raise NotImplementedByPeer("queues are neither durable nor exclusive here, and have no arguments")
            name = queue
            if not name:
                self.store.names += 1
                name = f"amq.gen-{self.store.names}"
            if not passive:
                self.store.queues.setdefault(name, ListQueue(name, auto_delete))
            found = self._queue(name)
            return DeclaredQueue(name, len(found.ready), len(found.consumers))

        return self._call(declare)

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        def delete() -> int:
            found = self.store.queues.get(queue)
            if found is None:
                return 0
            if (if_unused and found.consumers) or (if_empty and found.ready):
                raise PreconditionFailed(f"PRECONDITION_FAILED - queue '{queue}' is in use")
            del self.store.queues[queue]
            for consumer in list(found.consumers):
                consumer.channel._cancelled(consumer)
            return len(found.ready)

        return self._call(delete)

    def queue_purge(self, queue: str) -> Deferred[int]:
        def purge() -> int:
            ready = self._queue(queue).ready
            count = len(ready)
            ready.clear()
            return count

        return self._call(purge)

    # -- messages

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Mapping[str, Any] | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[Any]:
        def put() -> None:
            for name in (exchange, routing_key):
                encode_short_string(name, "the name")
            if exchange:
                raise NotFound(f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")
            if not isinstance(body, (bytes, bytearray, memoryview)):
                raise EncodeError(f"a body is bytes, not {type(body).__name__}")
            try:  # what AMQP could not carry is refused, and what is kept is nobody else's
                encoded = BasicProperties(**(properties or {})).encode()
            except TypeError as error:
                raise EncodeError(str(error)) from None
            kept = BasicProperties.decode(encoded).as_dict()
            queue = self.store.queues.get(routing_key)
            if queue is not None:
                queue.ready.append(ListMessage(routing_key, bytes(body), kept))
                self.connection.wake(queue)
            elif mandatory:
                raise PublishReturned(312, "NO_ROUTE", exchange, routing_key)

        return self._call(put)

    def qos(self, prefetch_count: int) -> Deferred[None]:
        return self._call(setattr, self, "prefetch_count", prefetch_count)

    def consume(
        self,
        queue: str,
        callback: Callable[[ListDelivery], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Mapping[str, Any] | None = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        def start() -> str:
            if not callable(callback):
                raise ConfigurationError("the callback must be callable")
            if exclusive or arguments:
                raise NotImplementedByPeer("consumers are not exclusive here, and have no arguments")
            if consumer_tag in self.consumers:
                raise DuplicateConsumerTag(f"consumer tag {consumer_tag!r} is in use on this channel")
            self.store.names += 1
            tag = consumer_tag or f"ctag-{self.store.names}"
            consumer = self.consumers[tag] = ListConsumer(self, tag, self._queue(queue), callback, no_ack)
            consumer.on_cancel = on_cancel
            consumer.queue.consumers.append(consumer)
            self.connection.wake(consumer.queue)
            return tag

        return self._call(start)

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        def stop() -> None:
            if consumer_tag in self.consumers:
                self._stop(self.consumers[consumer_tag])

        return self._call(stop)

    def _stop(self, consumer: ListConsumer) -> None:
        del self.consumers[consumer.tag]
        queue = consumer.queue
        queue.consumers.remove(consumer)
        if queue.auto_delete and not queue.consumers:
            self.store.queues.pop(queue.name, None)

    def _cancelled(self, consumer: ListConsumer) -> None:
        """The queue is gone: its consumer is told, in a turn of its own."""
        self._stop(consumer)
        if consumer.on_cancel is not None:
            reason = ConsumerCancelled(consumer.tag, "server", consumer.queue.name)
            self.connection.reactor.callLater(0, self.guarded, consumer.on_cancel, reason)

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[ListDelivery | None]:
        def take() -> ListDelivery | None:
            found = self._queue(queue)
            return self.delivery(found, None, no_ack) if found.ready else None

        return self._call(take)

    def recover(self) -> Deferred[None]:
        def give_all_back() -> None:
            unsettled, self.unsettled = self.unsettled, {}
            for delivery in unsettled.values():
                make_room(delivery)
            give_back(list(unsettled.values()), True)

        return self._call(give_all_back)

    # -- deliveries

    def delivery(self, queue: ListQueue, consumer: ListConsumer | None, no_ack: bool) -> ListDelivery:
        """Take the next message out of the queue; a copy survives here until it is settled."""
        self.last_tag += 1
        made = ListDelivery(self, queue, queue.ready.popleft(), self.last_tag, consumer)
        if not no_ack:
            self.unsettled[self.last_tag] = made
        return made

    def settle(self, delivery: ListDelivery, multiple: bool) -> list[ListDelivery]:
        """Take a delivery, or all up to it, out of what is unsettled."""
        if self.reason is not None:
            raise StaleDelivery("the channel is closed", self.reason)
        tag = delivery.delivery_tag
        tags = [each for each in self.unsettled if each == tag or (multiple and each < tag)]
        if not tags:
            raise AlreadySettled(f"delivery {tag} is settled")
        found = [self.unsettled.pop(each) for each in tags]
        for each in found:
            make_room(each)
        return found

    def guarded(self, call: Callable[[Any], object], argument: object) -> None:
        """Run what the application gave us: what it raises is logged, what it returns is waited for."""

        def run() -> Any:
            result = call(argument)
            return ensureDeferred(_wait(result)) if isinstance(result, Awaitable) else None

        maybeDeferred(run).addErrback(lambda failure: self._log.failure("a callback failed", failure=failure))


async def _wait(result: Awaitable[Any]) -> None:
    await result


def make_room(delivery: ListDelivery) -> None:
    """Its consumer may have another one."""
    consumer = delivery.consumer
    if consumer is not None and consumer.room is not None:
        consumer.room += 1
        consumer.channel.connection.wake(consumer.queue)


class ListConnection:
    """txmsg.abc.MessagingConnection; nothing can be lost here, so it does not come back."""

    def __init__(self, store: Store, reactor: Any) -> None:
        self.store, self.reactor = store, reactor
        self.channels: set[ListChannel] = set()
        self.reason: ConnectionClosed | None = None
        self._ended: list[Deferred[BaseException]] = []
        self._awake: dict[ListQueue, None] = {}

    def __repr__(self) -> str:
        return f"<ListConnection {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        return self.reason is None

    def channel(self) -> Deferred[ListChannel]:
        if self.reason is not None:
            return fail(self.reason)
        made = ListChannel(self)
        self.channels.add(made)
        return succeed(made)

    def close(self) -> Deferred[None]:
        if self.reason is None:
            self.reason = ConnectionClosed("closed by the application", 200, initiator="client")
            for channel in list(self.channels):
                channel.end(self.reason)
            for ended in self._ended:
                ended.callback(self.reason)
        return succeed(None)

    def when_closed(self) -> Deferred[BaseException]:
        if self.reason is not None:
            return succeed(self.reason)
        self._ended.append(Deferred())
        return self._ended[-1]

    def wake(self, queue: ListQueue) -> None:
        """See to a queue in the next turn: no callback is ever called inside a call of the application's."""
        if not self._awake:
            self.reactor.callLater(0, self._hand_over)
        self._awake[queue] = None

    def _hand_over(self) -> None:
        """One message for each queue, and again: a busy queue starves no other, nor one consumer another."""
        queues, self._awake = self._awake, {}
        for queue in queues:
            for consumer in list(queue.consumers):
                if queue.ready and consumer.room != 0:
                    queue.consumers.rotate(-1)
                    if consumer.room is not None:
                        consumer.room -= 1
                    self.wake(queue)
                    made = consumer.channel.delivery(queue, consumer, consumer.no_ack)
                    consumer.channel.guarded(consumer.callback, made)


class ListTransport:
    """txmsg.abc.MessagingTransport: ``list://``."""

    schemes = ("list",)
    default_ports: ClassVar[Mapping[str, int]] = {}
    exchange_types: ClassVar[frozenset[str]] = frozenset()
    guarantees = Guarantees(delivery="at-least-once", is_ordered=True, survives_restart=False, redelivery_timeout=None)

    def __init__(self) -> None:
        self.store = Store()

    def connect(
        self,
        url: str,
        *,
        reactor: Any = None,
        alternates: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Deferred[ListConnection]:
        try:
            check_options("list://", options, ())
        except ConfigurationError as error:
            return fail(error)
        if reactor is None:
            from twisted.internet import reactor
        return succeed(ListConnection(self.store, reactor))


async def main(reactor: Any) -> None:
    register("list", ListTransport)
    connection = await transport_for("list://").connect("list://", reactor=reactor)
    channel = await connection.channel()
    await channel.queue_declare("jobs")
    done: Deferred[ListDelivery] = Deferred()
    await channel.consume("jobs", done.callback)
    await channel.publish("", "jobs", b"first", {"message_id": "1"})
    delivery = await done
    print(delivery.properties["message_id"], delivery.body.decode())
    delivery.ack()
    await connection.close()


if __name__ == "__main__":
    react(main)
