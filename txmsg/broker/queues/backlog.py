"""The messages of a queue that wait for a consumer, in the order in which they are to go.

RabbitMQ returns a message to its place when it comes back unsettled
(https://www.rabbitmq.com/docs/queues#message-ordering), and serves higher priorities first, each in order
(https://www.rabbitmq.com/docs/priority).

Invariant of :class:`Backlog`: entries leave at the head only, so whatever comes back is older than all that is still
fresh.  That makes a heap of the returned before a deque of the fresh enough: everything costs O(1), or O(log n) of
the returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txmsg.broker.message import Entry

__all__ = ["Backlog", "PriorityBacklog"]


class Backlog:
    """Entries by their sequence, oldest first."""

    __slots__ = ("_fresh", "_returned")

    def __init__(self) -> None:
        self._fresh: deque[Entry] = deque()
        self._returned: list[tuple[int, Entry]] = []

    def append(self, entry: Entry) -> None:
        """Add an entry that is younger than all others."""
        self._fresh.append(entry)

    def give_back(self, entry: Entry) -> None:
        """Return an entry that was taken from here to its place."""
        heappush(self._returned, (entry.sequence, entry))

    def pop(self) -> Entry:
        """Take the oldest; IndexError when there is none."""
        if self._returned:
            return heappop(self._returned)[1]
        return self._fresh.popleft()

    @property
    def head(self) -> Entry | None:
        """The oldest, left where it is; None when there is none."""
        if self._returned:
            return self._returned[0][1]
        return self._fresh[0] if self._fresh else None

    def clear(self) -> list[Entry]:
        """Take everything, in order."""
        entries = list(self)
        self._fresh = deque()
        self._returned = []
        return entries

    def __len__(self) -> int:
        return len(self._fresh) + len(self._returned)

    def __iter__(self) -> Iterator[Entry]:
        """All entries in order; nothing may be taken meanwhile."""
        for _, entry in sorted(self._returned):
            yield entry
        yield from self._fresh


class PriorityBacklog:
    """Entries by the priority of their message, highest first, and then by their sequence.

    maximum: int -- the queue's x-max-priority; higher priorities count as this one.
    """

    __slots__ = ("_lanes", "_occupied", "maximum")

    def __init__(self, maximum: int) -> None:
        self.maximum: Final = maximum
        self._lanes: dict[int, Backlog] = {}
        # A bit for each lane that has something: the highest of up to 256 is found without looking at them.
        self._occupied = 0

    def append(self, entry: Entry) -> None:
        """Add an entry that is younger than all others."""
        self._lane(entry).append(entry)

    def give_back(self, entry: Entry) -> None:
        """Return an entry that was taken from here to its place."""
        self._lane(entry).give_back(entry)

    def pop(self) -> Entry:
        """Take the oldest of the highest priority; IndexError when there is none."""
        if not self._occupied:
            raise IndexError("pop from an empty backlog")
        priority = self._occupied.bit_length() - 1
        lane = self._lanes[priority]
        entry = lane.pop()
        if lane.head is None:
            self._occupied ^= 1 << priority
        return entry

    @property
    def head(self) -> Entry | None:
        """The oldest of the highest priority, left where it is; None when there is none."""
        if not self._occupied:
            return None
        return self._lanes[self._occupied.bit_length() - 1].head

    def clear(self) -> list[Entry]:
        """Take everything, in order."""
        entries = list(self)
        self._lanes = {}
        self._occupied = 0
        return entries

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[Entry]:
        """All entries in order; nothing may be taken meanwhile."""
        for priority in sorted(self._lanes, reverse=True):
            yield from self._lanes[priority]

    def _lane(self, entry: Entry) -> Backlog:
        priority = min(entry.message.priority, self.maximum)
        self._occupied |= 1 << priority
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = Backlog()
        return lane
