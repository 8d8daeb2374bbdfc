"""Keeping duplicates from a consumer's handler: what stands between its deliveries and the handler (R7).

A delivery whose message was handled, which the :class:`DuplicateWindow` knows, is acked and counted, and goes no
further.  A copy of one that is being handled now

- on the same open channel is acked at once: should the handler fail, the first is still the broker's to deliver again;
- otherwise waits, not acked, for how that ends.  It may be the very same message, which the broker has delivered again
  because it lost the first connection, perhaps before we did.  If the handler acks in the end, though the ack comes too
  late for the broker, the copy is acked; if it settles it otherwise, or lets go of it, the copy is handled.

Invariant: no delivery is acked here unless its message was acked by a handler, or is still unacked on the same channel.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmsg.amqp.consumers import Consumer
from txmsg.amqp.delivery import Delivery
from txmsg.amqp.recovery.duplicates import DuplicateWindow, MessageKey, message_key
from txmsg.errors import SettlementError, StaleDelivery

__all__ = ["DuplicateFilter", "RememberedDelivery"]

#: How many open deliveries there are at least before they are looked through.
_SWEEP = 1000
#: Seconds between looks at the copies that wait: whether anybody still has the first one.
_LOOK = 1.0


class RememberedDelivery(Delivery):
    """A delivery whose settlement the window learns of.

    queue: str -- the consumer's queue, as the application calls it.
    """

    __slots__ = ("__weakref__", "_subscription", "key", "queue", "waiting")

    def __init__(self, delivery: Delivery, subscription: _Subscription) -> None:
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
        self._subscription = subscription
        self.queue = subscription.queue
        self.key = message_key(self)
        #: Which subscriptions have copies that wait for the end of this one; None: none.
        self.waiting: set[_Subscription] | None = None

    def ack(self, multiple: bool = False) -> None:
        """As :meth:`Delivery.ack`; the message counts as handled, also if it is too late for the broker."""
        try:
            super().ack(multiple)
        except StaleDelivery:
            self._subscription.settled(self, multiple, is_handled=True)
            raise
        self._subscription.settled(self, multiple, is_handled=True)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """As :meth:`Delivery.nack`; the message does not count as handled."""
        try:
            super().nack(requeue, multiple)
        except StaleDelivery:
            self._subscription.settled(self, multiple, is_handled=False)
            raise
        self._subscription.settled(self, multiple, is_handled=False)

    def reject(self, requeue: bool = False) -> None:
        """As :meth:`Delivery.reject`; the message does not count as handled."""
        try:
            super().reject(requeue)
        except StaleDelivery:
            self._subscription.settled(self, False, is_handled=False)
            raise
        self._subscription.settled(self, False, is_handled=False)


class DuplicateFilter:
    """What keeps duplicates from one consumer's handler, over its subscriptions.

    dropped: int -- how many copies were kept away.
    """

    def __init__(self, window: DuplicateWindow) -> None:
        self.window = window
        self.dropped = 0
        self._subscription: _Subscription | None = None

    def begin(self, plain: Consumer, queue: str, clock: IReactorTime) -> None:
        """Look at everything that this plain consumer is given, before it is handed over."""
        self.reset()
        self._subscription = subscription = _Subscription(self, plain.deliver, queue, clock)
        plain.deliver = subscription.take

    def reset(self) -> None:
        """The subscription has ended; what it has handed over may still be handled."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.end()

    def not_handled(self, delivery: Delivery) -> None:
        """It was never fetched, and cannot be settled any more."""
        if isinstance(delivery, RememberedDelivery):
            delivery._subscription.settled(delivery, False, is_handled=False)


class _Subscription:
    """The deliveries of one plain consumer."""

    def __init__(
        self, owner: DuplicateFilter, deliver: Callable[[Delivery], object], queue: str, clock: IReactorTime
    ) -> None:
        self.queue = queue
        self._owner = owner
        self._window = owner.window
        self._deliver = deliver
        self._clock = clock
        #: Handed over and not settled, by tag; after the end only those that somebody still has.
        self._open: MutableMapping[int, RememberedDelivery] = {}
        #: Copies that wait, by tag.
        self._held: dict[int, RememberedDelivery] = {}
        self._sweep_at = _SWEEP
        self._timer: IDelayedCall | None = None

    def take(self, delivery: Delivery) -> None:
        """Hand a delivery over, drop it, or let it wait."""
        taken = RememberedDelivery(delivery, self)
        key = taken.key
        if key is None:
            self._deliver(taken)
        elif self._window.has(key):
            self._drop(taken)
        elif taken.no_ack:
            self._window.add(key)
            self._deliver(taken)
        else:
            self._take_unseen(taken, key)

    def _take_unseen(self, taken: RememberedDelivery, key: MessageKey) -> None:
        being_handled = self._window.being_handled
        entry = being_handled.get(key)
        first = entry() if isinstance(entry, weakref.ref) else entry
        if first is not None:
            channel = first.channel
            if not channel.is_open or (channel is not taken.channel and not first.is_settled):
                self._held[taken.delivery_tag] = taken
                if first.waiting is None:
                    first.waiting = set()
                first.waiting.add(self)
                self._look_within(_LOOK)
                return
            if not first.is_settled:
                self._drop(taken)
                return
            # Else it was settled by another consumer's `multiple`, and nobody knows how.
            taken.waiting = first.waiting
        being_handled[key] = taken
        if len(self._open) >= self._sweep_at:
            self._sweep()
        self._open[taken.delivery_tag] = taken
        self._deliver(taken)

    def _drop(self, taken: RememberedDelivery) -> None:
        self._owner.dropped += 1
        self._window.dropped += 1
        if not taken.no_ack:
            with suppress(SettlementError):
                Delivery.ack(taken)

    # -- what becomes of them ----------------------------------------------------------------------

    def settled(self, delivery: RememberedDelivery, multiple: bool, *, is_handled: bool) -> None:
        """A delivery was settled, and with `multiple` all before it."""
        if multiple:
            for tag in [tag for tag in self._open if tag <= delivery.delivery_tag]:
                self._finish(self._open.pop(tag), is_handled)
        else:
            self._open.pop(delivery.delivery_tag, None)
        self._finish(delivery, is_handled)

    def _finish(self, delivery: RememberedDelivery, is_handled: bool) -> None:
        key, delivery.key = delivery.key, None
        if key is None:
            return  # it has none, or was settled before: what it was settled with first counts
        if is_handled:
            self._window.add(key)
        being_handled = self._window.being_handled
        entry = being_handled.get(key)
        if entry is delivery or (isinstance(entry, weakref.ref) and entry() is delivery):
            del being_handled[key]
            for subscription in delivery.waiting or ():
                subscription._look_within(0.0)

    def _sweep(self) -> None:
        """Forget what was settled behind our back, by another consumer's `multiple`: nobody knows how."""
        for tag, delivery in list(self._open.items()):
            if delivery.is_settled:
                del self._open[tag]
                self._finish(delivery, False)
        self._sweep_at = max(_SWEEP, 2 * len(self._open))

    # -- copies that wait --------------------------------------------------------------------------

    def _look_within(self, seconds: float) -> None:
        # In another turn of the reactor: a handler is not called from within its `nack`.
        if not self._held:
            return
        if self._timer is not None:
            if self._timer.getTime() <= self._clock.seconds() + seconds:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        held, self._held = self._held, {}
        for copy in held.values():
            if not copy.channel.is_open:
                continue  # an earlier one's handler has closed it
            if self._deliver is _nowhere:  # the same
                with suppress(SettlementError):
                    Delivery.nack(copy)
            elif copy.key is not None and self._window.has(copy.key):
                self._drop(copy)
            elif copy.key is not None:
                self._take_unseen(copy, copy.key)
        self._look_within(_LOOK)

    def end(self) -> None:
        """No more deliveries come.  Those that wait are the broker's again."""
        self._deliver = _nowhere
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, {}
        for copy in held.values():
            if copy.channel.is_open:
                with suppress(SettlementError):
                    Delivery.nack(copy)
        # Whoever has one may still settle it.  Whoever has none cannot, so let go of them.
        being_handled = self._window.being_handled
        for delivery in self._open.values():
            if being_handled.get(delivery.key) is delivery:
                being_handled[delivery.key] = weakref.ref(delivery, partial(_let_go, being_handled, delivery.key))
        self._open = weakref.WeakValueDictionary(self._open)


def _let_go(being_handled: dict[Any, Any], key: Any, reference: weakref.ref[RememberedDelivery]) -> None:
    """Nobody has it any more.  May run in any thread, so it does no more than this."""
    if being_handled.get(key) is reference:
        being_handled.pop(key, None)


def _nowhere(delivery: Delivery) -> Any:
    """Where deliveries go after the end: none come."""
