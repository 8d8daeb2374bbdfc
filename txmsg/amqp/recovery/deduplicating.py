"""Keeping duplicates from a consumer's handler: the consumer's half of R7.

A publisher that sends a message again, because it cannot know whether the first copy arrived, gives both the same
message id.  A copy is dropped (acked and counted) if its message was handled before, which the window knows, or is
being handled now.  An id goes into the window when its delivery is settled for good, not when it is delivered: a
message that was delivered and never acked comes again with the same id, and must not be taken for a duplicate (R22).

Dropping a copy while the first is being handled is safe: should the handler fail, the first one is still the broker's
to deliver again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from txmsg.amqp.consumers import Consumer
from txmsg.amqp.delivery import Delivery
from txmsg.errors import SettlementError

__all__ = ["DuplicateFilter", "RememberedDelivery", "Window"]


#: How many open deliveries there are at least before they are looked through.
_SWEEP = 1000


def _message_id(delivery: Delivery) -> str | None:
    """The sender's id of a message; None where there is none, or the properties cannot be decoded."""
    return getattr(delivery.properties, "message_id", None) or None


class Window(Protocol):
    """What remembers ids; :class:`txmsg.amqp.DuplicateWindow` is one."""

    def seen(self, delivery: Delivery, /) -> bool:
        """Whether a message with this id was handled before; False for one without an id."""

    def remember(self, delivery: Delivery, /) -> object:
        """It has been handled."""


class RememberedDelivery(Delivery):
    """A delivery that tells the window when it is settled for good."""

    __slots__ = ("_filter",)

    def __init__(self, delivery: Delivery, duplicates: DuplicateFilter) -> None:
        super().__init__(
            delivery.channel,
            delivery.consumer_tag,
            delivery.delivery_tag,
            delivery.redelivered,
            delivery.exchange,
            delivery.routing_key,
            delivery.properties,
            delivery.body,
            delivery.no_ack,
            delivery.message_count,
        )
        self._filter = duplicates

    def ack(self, multiple: bool = False) -> None:
        """As :meth:`Delivery.ack`; the message counts as handled."""
        super().ack(multiple)
        self._filter.settled(self, multiple, handled=True)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """As :meth:`Delivery.nack`; the message counts as handled unless it is to come again."""
        super().nack(requeue, multiple)
        self._filter.settled(self, multiple, handled=not requeue)

    def reject(self, requeue: bool = False) -> None:
        """As :meth:`Delivery.reject`; the message counts as handled unless it is to come again."""
        super().reject(requeue)
        self._filter.settled(self, False, handled=not requeue)


class DuplicateFilter:
    """What stands between the deliveries of one consumer and its handler.

    dropped: int -- how many copies were kept away.
    """

    def __init__(self, window: Window) -> None:
        self.dropped = 0
        self._window = window
        #: Deliveries that are being handled, by tag, in their order; and their message ids.
        self._open: dict[int, Delivery] = {}
        self._ids: set[str] = set()
        self._sweep_at = _SWEEP

    def begin(self, plain: Consumer) -> None:
        """Look at everything that this plain consumer is given, before it is handed over."""
        self.reset()
        plain.deliver = _Filtered(self, plain.deliver)

    def reset(self) -> None:
        """The channel is gone, and the broker delivers again what was being handled."""
        self._open.clear()
        self._ids.clear()

    def take(self, delivery: Delivery, deliver: Callable[[Delivery], object]) -> None:
        """Hand a delivery over, or drop it."""
        message_id = _message_id(delivery)
        if message_id is not None and (message_id in self._ids or self._window.seen(delivery)):
            self.dropped += 1
            if not delivery.no_ack:
                with suppress(SettlementError):
                    delivery.ack()
            return
        if delivery.no_ack:
            self._window.remember(delivery)
            deliver(delivery)
            return
        if len(self._open) >= self._sweep_at:
            self._sweep()
        # Also one without an id: it may be settled with `multiple`, for those before it.
        remembered = RememberedDelivery(delivery, self)
        self._open[delivery.delivery_tag] = remembered
        if message_id is not None:
            self._ids.add(message_id)
        deliver(remembered)

    def settled(self, delivery: Delivery, multiple: bool, *, handled: bool) -> None:
        """A delivery was settled, and with `multiple` all before it."""
        tags = [delivery.delivery_tag]
        if multiple:
            tags = [tag for tag in self._open if tag <= delivery.delivery_tag]
        for tag in tags:
            self._settled(tag, handled)

    def _settled(self, tag: int, handled: bool) -> None:
        done = self._open.pop(tag, None)
        if done is None:
            return
        self._ids.discard(_message_id(done) or "")
        if handled:
            self._window.remember(done)

    def _sweep(self) -> None:
        """Find what was settled behind our back: by another consumer's `multiple`, or by the channel's basic_ack."""
        for tag, delivery in list(self._open.items()):
            if delivery.is_settled:
                self._settled(tag, handled=True)
        self._sweep_at = max(_SWEEP, 2 * len(self._open))


class _Filtered:
    """The `deliver` of a plain consumer, with the filter before it."""

    __slots__ = ("_deliver", "_filter")

    def __init__(self, duplicates: DuplicateFilter, deliver: Callable[[Delivery], object]) -> None:
        self._filter = duplicates
        self._deliver = deliver

    def __call__(self, delivery: Delivery) -> None:
        self._filter.take(delivery, self._deliver)
