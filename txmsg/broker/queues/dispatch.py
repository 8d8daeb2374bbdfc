"""Whose turn it is among the consumers of a queue.

RabbitMQ's rules: round robin among the consumers that can take a message, those with the highest x-priority before
all others (https://www.rabbitmq.com/docs/consumer-priority); with a single active consumer only that one, and when
it goes the next by priority and then by age takes over (https://www.rabbitmq.com/docs/consumers#single-active-consumer).

Invariants: a consumer that was found unable to take anything is set aside and costs nothing until it says that it can
again, so one message costs the same however many consumers wait for credit, and whatever priorities they have; and
each consumer that goes costs the same however many there are, for a client may go with thousands (R36).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Consumer

__all__ = ["Dispatcher"]


class _Line:
    """Consumers in line: those with the highest priority first, and among these as they came.

    There is nothing of a priority that nobody in line has: a client may use any number of them.
    """

    __slots__ = ("_by_priority", "_priorities")

    def __init__(self) -> None:
        #: Negative, so that the highest is the first.
        self._priorities: list[int] = []
        self._by_priority: dict[int, OrderedDict[Consumer, None]] = {}

    def join(self, consumer: Consumer) -> None:
        """Come last in its priority."""
        same = self._by_priority.get(consumer.priority)
        if same is None:
            same = self._by_priority[consumer.priority] = OrderedDict()
            self._priorities.insert(bisect_left(self._priorities, -consumer.priority), -consumer.priority)
        same[consumer] = None

    def leave(self, consumer: Consumer) -> bool:
        """False if it was not in line."""
        same = self._by_priority.get(consumer.priority)
        if same is None or consumer not in same:
            return False
        del same[consumer]
        if not same:
            del self._by_priority[consumer.priority]
            del self._priorities[bisect_left(self._priorities, -consumer.priority)]
        return True

    def first(self) -> Consumer | None:
        """Who is first; None if nobody is there."""
        return next(iter(self._by_priority[-self._priorities[0]])) if self._priorities else None

    def to_the_end(self, consumer: Consumer) -> None:
        """It had its turn, and comes last in its priority."""
        same = self._by_priority[consumer.priority]
        if len(same) > 1:
            same.move_to_end(consumer)

    def clear(self) -> None:
        """Everybody goes."""
        self._priorities.clear()
        self._by_priority.clear()


class Dispatcher:
    """The consumers of one queue.

    is_single: bool -- x-single-active-consumer.
    active: Consumer | None -- with `is_single`, the one that is served.
    """

    __slots__ = ("_aside", "_consumers", "_successors", "_turns", "active", "is_single")

    def __init__(self, *, is_single: bool = False) -> None:
        self.is_single = is_single
        self.active: Consumer | None = None
        self._consumers: dict[Consumer, None] = {}
        #: Those who may be asked; and, with `is_single`, those who are to be active one day.
        self._turns = _Line()
        self._successors = _Line()
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
            self._turns.join(consumer)
        elif self.active is None:
            self._activate(consumer)
        else:
            self._successors.join(consumer)

    def remove(self, consumer: Consumer) -> bool:
        """It takes no more; False if it was not known."""
        if consumer not in self._consumers:
            return False
        del self._consumers[consumer]
        self._aside.discard(consumer)
        if not self._turns.leave(consumer):
            self._successors.leave(consumer)
        if consumer is self.active:
            self.active = None
            successor = self._successors.first()
            if successor is not None:
                self._successors.leave(successor)
                self._activate(successor)
        return True

    def may_be_available(self, consumer: Consumer) -> None:
        """It says that it can take messages again; if it was set aside it comes last in its priority."""
        if consumer in self._aside:
            self._aside.discard(consumer)
            self._turns.join(consumer)

    def take(self) -> Consumer | None:
        """The consumer whose turn it is, and the turn passes to the next; None if none can take a message."""
        turns = self._turns
        while (consumer := turns.first()) is not None:
            if consumer.is_available:
                turns.to_the_end(consumer)
                return consumer
            turns.leave(consumer)
            self._aside.add(consumer)
        return None

    def clear(self) -> list[Consumer]:
        """Forget all; returns them, oldest first."""
        consumers = list(self._consumers)
        self._consumers.clear()
        self._turns.clear()
        self._successors.clear()
        self._aside.clear()
        self.active = None
        return consumers

    def _activate(self, consumer: Consumer) -> None:
        self.active = consumer
        self._turns.join(consumer)
