"""Logical time: which of two events came first, without trusting anybody's wall clock.

Follows L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System" (1978).  The invariant: a
clock's value only grows, and what it gives out after it was told of another's value is above that value, so an
effect never has a lower value than its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

__all__ = ["LamportClock", "timetuple"]

EventT = TypeVar("EventT", bound="Sequence[Any]")


class LamportClock:
    """A counter that runs ahead of all it has heard of.

    initial_value: int -- the value to start from; 0 by default.

    Send :meth:`forward` with each message; give :meth:`adjust` what came with each message you get.  There is no lock
    in it: it is used in the reactor's thread, where nothing comes between reading the value and changing it.
    """

    __slots__ = ("value",)

    def __init__(self, initial_value: int = 0) -> None:
        #: What it was last set to.
        self.value = initial_value

    def forward(self) -> int:
        """One event of our own: count it, and return the new value."""
        self.value += 1
        return self.value

    def adjust(self, other: int) -> int:
        """Somebody else's value has been seen: go to one above the greater of the two, and return it."""
        self.value = max(self.value, other) + 1
        return self.value

    def sort_heap(self, events: Sequence[EventT]) -> EventT:
        """The one that wins of `events`, which are sorted already: tuples of (clock, id of a process, anything ...).

        It is the first; where several begin with the same clock, the one with the lowest id of these, so that
        everybody who has the same events picks the same one.  No more than the clock and the id of an event is
        looked at.  ValueError: there is none.
        """
        if not events:
            raise ValueError("there are no events to pick from")
        winner = events[0]
        for event in events[1:]:
            if event[0] != winner[0]:
                break
            if event[1] < winner[1]:
                winner = event
        return winner

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return f"<LamportClock {self.value}>"


class timetuple(NamedTuple):  # noqa: N801 - the name it is known by
    """An event that can be sorted, for instance in a heap: by clock, then by id.

    clock: int | None -- its logical time.  Where one of two events has none (0 or None), the two are ordered by their
        timestamps instead; so do not mix both kinds in one heap if there is a way around it.
    timestamp: float -- seconds since 1970.
    id: str -- of the process, for instance "hostname:pid".
    obj: Any -- whatever belongs to it; it is never compared by `<`, `>`, `<=` and `>=`.
    """

    clock: int | None
    timestamp: float
    id: str
    obj: Any = None

    def _is_before(self, other: tuple[Any, ...]) -> bool:
        clock, timestamp, id_ = other[:3]
        if not self.clock or not clock:
            return bool(self.timestamp < timestamp)
        return bool((self.clock, self.id) < (clock, id_))

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return self._is_before(other)

    def __gt__(self, other: tuple[Any, ...]) -> bool:
        return timetuple(*other)._is_before(self)

    def __le__(self, other: tuple[Any, ...]) -> bool:
        return not self > other

    def __ge__(self, other: tuple[Any, ...]) -> bool:
        return not self < other

    def __repr__(self) -> str:
        return f"timetuple(clock={self.clock}, timestamp={self.timestamp}, id={self.id!r}, obj={self.obj!r})"
