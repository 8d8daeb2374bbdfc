"""DuplicateWindow: which messages have been handled, so that a consumer can drop their copies (promise R7).

A publisher that sends a message again, because it cannot know whether the first copy arrived, gives both the same
message id (https://www.rabbitmq.com/docs/reliability#consumer-side: consumers have to expect duplicates).

Invariant: an id is in the window only if a delivery with it was acked, though perhaps too late for the broker to hear
of it.  What was only delivered, or was rejected or requeued, is not: it may come again and must be handled then (R22).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import ref

from twisted.internet.interfaces import IReactorTime

from txmsg.amqp import validation
from txmsg.amqp.delivery import Delivery
from txmsg.amqp.recovery.retry_headers import RETRY_COUNT
from txmsg.wire.properties import BasicProperties

if TYPE_CHECKING:
    from txmsg.amqp.recovery.deduplicating import RememberedDelivery

__all__ = ["DuplicateWindow", "MessageKey", "message_key"]

#: What is taken for the same message: queue, message id, how often it was retried.
MessageKey = tuple[str, str, int]


def message_key(delivery: Delivery) -> MessageKey | None:
    """What makes a delivery a copy of another one; None where it has no message id, or one that cannot be decoded.

    The same message in two queues is two messages, and so is one that came back through a delay queue
    (:class:`txmsg.amqp.RetryPolicy`).
    """
    properties = delivery.properties
    if not isinstance(properties, BasicProperties) or not properties.message_id:
        return None
    count = properties.headers.get(RETRY_COUNT, 0) if properties.headers else 0
    return getattr(delivery, "queue", ""), properties.message_id, count if type(count) is int else 0


class DuplicateWindow:
    """Remembers the messages that were handled; give it to `basic_consume(dedupe=...)`.

    One window may serve several consumers, also of several connections to the same virtual host: what one of them has
    handled, or is handling, does not reach the others' handlers.

    size: int -- how many messages it remembers; the oldest are forgotten first.  About 250 bytes each.
    max_age: float | None -- seconds for which it remembers one; None: until there is no room for it.
    clock: IReactorTime | None -- for `max_age`; None: the reactor.

    Ids that somebody makes up, and repeats, are taken for copies: publish such messages with ids of their own.
    """

    def __init__(self, size: int = 100_000, max_age: float | None = None, clock: IReactorTime | None = None) -> None:
        self.size = validation.integer("size", size, 1, 2**31)
        self.max_age = None if max_age is None else validation.seconds("max_age", max_age)
        #: Copies that were kept from handlers, of all its consumers.
        self.dropped = 0
        #: For the consumers: what is being handled; a weak reference when only the handler may still have it.
        self.being_handled: dict[MessageKey | None, RememberedDelivery | ref[RememberedDelivery]] = {}
        self._clock = clock
        #: When each was handled, oldest first.
        self._handled: OrderedDict[MessageKey, float] = OrderedDict()

    def seen(self, delivery: Delivery) -> bool:
        """Whether a message with its id was handled; False for one without an id."""
        key = message_key(delivery)
        return key is not None and self.has(key)

    def remember(self, delivery: Delivery) -> None:
        """It has been handled."""
        key = message_key(delivery)
        if key is not None:
            self.add(key)

    def has(self, key: MessageKey) -> bool:
        """As `seen`, for one whose key is known."""
        if self.max_age is not None:
            self._forget_old()
        return key in self._handled

    def add(self, key: MessageKey) -> None:
        """As `remember`, for one whose key is known."""
        handled = self._handled
        now = 0.0
        if self.max_age is not None:
            now = self._now()
            handled.pop(key, None)
        handled[key] = now
        if len(handled) > self.size:
            handled.popitem(last=False)

    def clear(self) -> None:
        """Forget everything that was handled."""
        self._handled.clear()

    def __len__(self) -> int:
        if self.max_age is not None:
            self._forget_old()
        return len(self._handled)

    def _forget_old(self) -> None:
        handled = self._handled
        assert self.max_age is not None
        limit = self._now() - self.max_age
        while handled and next(iter(handled.values())) <= limit:
            handled.popitem(last=False)

    def _now(self) -> float:
        if self._clock is None:
            from twisted.internet import reactor

            clock: Any = reactor
            self._clock = clock
        assert self._clock is not None
        return self._clock.seconds()

    def __repr__(self) -> str:
        return f"<DuplicateWindow {len(self._handled)} of {self.size}, {self.dropped} dropped>"
