"""Whose turn it is among the consumers of a queue.

RabbitMQ's rules: round robin among the consumers that can take a message, those with the highest x-priority before
all others (https://www.rabbitmq.com/docs/consumer-priority); with a single active consumer only that one, and when
it goes the next by priority and then by age takes over (https://www.rabbitmq.com/docs/consumers#single-active-consumer).

Invariant: a consumer that was found unable to take anything is set aside and costs nothing until it says that it can
again, so one message costs the same however many consumers wait for credit.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Consumer

__all__ = ["Dispatcher"]


class Dispatcher:
    """The consumers of one queue.

    is_single: bool -- x-single-active-consumer.
    active: Consumer | None -- with `is_single`, the one that is served.
    """

    __slots__ = ("_aside", "_consumers", "_priorities", "_turns", "active", "is_single")

    def __init__(self, *, is_single: bool = False) -> None:
        self.is_single = is_single
        self.active: Consumer | None = None
        self._consumers: dict[Consumer, None] = {}
        #: The priorities there are, highest first, and those who may be asked, by priority; the first is next.
        self._priorities: list[int] = []
        self._turns: dict[int, OrderedDict[Consumer, None]] = {}
        self._aside: set[Consumer] = set()

    @property
    def consumers(self) -> list[Consumer]:
        """All, oldest first."""
        return list(self._consumers)

    def __len__(self) -> int:
        return len(self._consumers)

    @property
    def is_exclusive(self) -> bool:
        """Whether the only consumer there is wants to stay the only one."""
        return len(self._consumers) == 1 and next(iter(self._consumers)).exclusive

    def add(self, consumer: Consumer) -> None:
        """A new consumer; it comes last in its priority."""
        self._consumers[consumer] = None
        if not self.is_single:
            self._enter(consumer)
        elif self.active is None:
            self._activate(consumer)

    def remove(self, consumer: Consumer) -> bool:
        """It takes no more; False if it was not known."""
        if consumer not in self._consumers:
            return False
        del self._consumers[consumer]
        self._leave(consumer)
        if consumer is self.active:
            self.active = None
            if self._consumers:
                # max keeps the first of equals: the oldest.
                self._activate(max(self._consumers, key=lambda waiting: waiting.priority))
        return True

    def may_be_available(self, consumer: Consumer) -> None:
        """It says that it can take messages again; if it was set aside it comes last in its priority."""
        if consumer in self._aside:
            self._aside.discard(consumer)
            self._turns[consumer.priority][consumer] = None

    def take(self) -> Consumer | None:
        """The consumer whose turn it is, and the turn passes to the next; None if none can take a message."""
        for priority in self._priorities:
            turn = self._turns[priority]
            while turn:
                consumer = next(iter(turn))
                if consumer.is_available:
                    if len(turn) > 1:
                        turn.move_to_end(consumer)
                    return consumer
                del turn[consumer]
                self._aside.add(consumer)
        return None

    def clear(self) -> list[Consumer]:
        """Forget all; returns them, oldest first."""
        consumers = list(self._consumers)
        self._consumers.clear()
        self._priorities.clear()
        self._turns.clear()
        self._aside.clear()
        self.active = None
        return consumers

    def _activate(self, consumer: Consumer) -> None:
        self.active = consumer
        self._enter(consumer)

    def _enter(self, consumer: Consumer) -> None:
        turn = self._turns.get(consumer.priority)
        if turn is None:
            turn = self._turns[consumer.priority] = OrderedDict()
            insort(self._priorities, consumer.priority, key=lambda priority: -priority)
        turn[consumer] = None

    def _leave(self, consumer: Consumer) -> None:
        turn = self._turns.get(consumer.priority)
        if turn is not None:
            turn.pop(consumer, None)
        self._aside.discard(consumer)
        if turn is not None and not turn and all(one.priority != consumer.priority for one in self._aside):
            # A client may use any number of priorities, one after the other.
            del self._turns[consumer.priority]
            self._priorities.remove(consumer.priority)
