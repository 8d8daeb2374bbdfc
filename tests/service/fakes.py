"""A clock that is also a reactor, and a broker's connection that does what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from txmsg.amqp import BasicProperties, Delivery
from txmsg.errors import AlreadySettled, ConsumerCancelled, StaleDelivery


class ClockReactor(Clock):
    """Time that moves when told, and the three other things that the service asks of a reactor."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callWhenRunning(self, call: Callable[..., object], *args: Any) -> None:
        call(*args)

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        self.callLater(0, call, *args)

    def stop(self) -> None:
        self.stops += 1


class Closable:
    """What a connection and a channel have in common."""

    def __init__(self) -> None:
        self.is_open = True
        self.reason: BaseException | None = None
        self.calls: list[Any] = []
        self._waiting: list[Deferred[BaseException]] = []

    def when_closed(self) -> Deferred[BaseException]:
        waiter: Deferred[BaseException] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def lose(self, reason: BaseException) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self.reason = reason
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(reason)


class FakeConsumer(Closable):
    consumer_tag = "tag-1"

    def __init__(self, channel: FakeChannel) -> None:
        super().__init__()
        self._channel = channel

    @property
    def is_active(self) -> bool:
        return self.is_open

    def when_ended(self) -> Deferred[BaseException]:
        return self.when_closed()

    def cancel(self) -> Deferred[None]:
        self._channel.calls.append("cancel")
        self.lose(ConsumerCancelled(self.consumer_tag, "client", "work"))
        return succeed(None)


class FakeChannel(Closable):
    """Answers every method at once, or with `replies[name]`: an exception, or a Deferred.

    `is_early`: a delivery comes before consume-ok, as the protocol allows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replies: dict[str, Any] = {}
        self.unsettled: set[int] = set()
        self.settled: list[tuple[Any, ...]] = []
        self.offer: Callable[[Delivery], object] = lambda delivery: None
        self.consumer = FakeConsumer(self)
        self.is_early = False

    def _answer(self, name: str, *details: Any) -> Deferred[Any]:
        self.calls.append((name, *details))
        reply = self.replies.get(name)
        if isinstance(reply, Deferred):
            return reply
        result: Deferred[Any] = Deferred()
        if isinstance(reply, BaseException):
            result.errback(reply)
        else:
            result.callback(reply)
        return result

    def queue_declare(self, queue: str, **arguments: Any) -> Deferred[Any]:
        return self._answer("queue_declare", queue, arguments)

    def queue_bind(self, queue: str, exchange: str, routing_key: str) -> Deferred[Any]:
        return self._answer("queue_bind", queue, exchange, routing_key)

    def basic_qos(self, prefetch_count: int) -> Deferred[Any]:
        return self._answer("basic_qos", prefetch_count)

    def basic_consume(self, queue: str, callback: Callable[[Delivery], object], **options: Any) -> Deferred[Any]:
        self.offer = callback
        if self.is_early:
            callback(self.delivery(1))
        self.replies.setdefault("basic_consume", None)
        return self._answer("basic_consume", queue, options).addCallback(lambda _: self.consumer)

    def close(self) -> Deferred[None]:
        return self._answer("close").addCallback(lambda _: self.lose(ConsumerCancelled("", "client")))

    def lose(self, reason: BaseException) -> None:
        self.unsettled.clear()
        super().lose(reason)

    # -- settling, as Delivery asks for it

    def is_open_delivery(self, tag: int) -> bool:
        return tag in self.unsettled

    def _settle(self, tag: int, how: tuple[Any, ...]) -> None:
        if not self.is_open:
            raise StaleDelivery("the channel is closed")
        if tag not in self.unsettled:
            raise AlreadySettled(f"delivery {tag} is settled")
        self.unsettled.discard(tag)
        self.settled.append((tag, *how))

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self._settle(delivery_tag, ("ack",))

    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        self._settle(delivery_tag, ("requeue" if requeue else "reject",))

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        self._settle(delivery_tag, ("requeue" if requeue else "reject",))

    def delivery(
        self, tag: int, body: bytes = b"body", *, redelivered: bool = False, properties: Any = None
    ) -> Delivery:
        """A delivery that waits to be settled on this channel."""
        self.unsettled.add(tag)
        return Delivery(
            self,  # type: ignore[arg-type]
            "tag-1",
            tag,
            redelivered,
            "exchange",
            "key",
            BasicProperties(message_id=f"m{tag}") if properties is None else properties,
            body,
        )


class FakeConnection(Closable):
    def __init__(self) -> None:
        super().__init__()
        self.fake_channel = FakeChannel()
        self.is_aborted = False

    def channel(self) -> Deferred[FakeChannel]:
        return succeed(self.fake_channel)

    def close(self) -> Deferred[BaseException]:
        self.calls.append("close")
        self.lose(ConsumerCancelled("", "client"))
        assert self.reason is not None
        return succeed(self.reason)

    def abort(self) -> None:
        self.is_aborted = True

    def lose(self, reason: BaseException) -> None:
        # As the real one: from the inside out, each with the same reason.
        self.fake_channel.consumer.lose(reason)
        self.fake_channel.lose(reason)
        super().lose(reason)
