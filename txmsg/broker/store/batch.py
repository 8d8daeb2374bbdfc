"""What happened since the last commit, and becomes one transaction.

It is a state, not a log: a message that was added and removed again before its commit leaves no trace, and a
definition is kept in its last form.  So the order within a batch does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from txmsg.broker.message import Message
from txmsg.broker.store.records import (
    INLINE_LIMIT,
    definition_checksum,
    message_checksum,
    pack_message,
    returned_checksum,
)
from txmsg.errors import TxmsgError

__all__ = [
    "DEFINITION_DELETED",
    "DEFINITION_PUT",
    "MESSAGES_REMOVED",
    "MESSAGE_ADDED",
    "MESSAGE_RETURNED",
    "QUEUE_EMPTIED",
    "Batch",
    "Change",
    "Waiter",
    "ranges",
]

#: What one change does; see `txmsg.broker.store.schema`.
DEFINITION_PUT: Final = 1
DEFINITION_DELETED: Final = 2
MESSAGE_ADDED: Final = 3
MESSAGES_REMOVED: Final = 4
MESSAGE_RETURNED: Final = 5
QUEUE_EMPTIED: Final = 6

#: what, row, number, body, record, checksum
Change = tuple[int, int, int, "int | None", "bytes | None", int]
#: Called when the batch is safe, and when it could not be kept.
Waiter = tuple[Callable[[], object], "Callable[[TxmsgError], object] | None"]


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The runs of consecutive numbers: (first, last), ascending."""
    first = last = None
    for number in sorted(numbers):
        if first is None or last is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


class Batch:
    """Changes by row, and who waits for them.

    added: row -> (row of the queue, message, when it expires).  Not the entry: what comes back to a quorum queue gets
        another message, with the header for its count.
    bodies: long bodies that these share: message -> [row, how many].
    removed: rows written before.   returned: row -> how often it has come back.
    definitions: row -> (kind, record), or None for one that is gone.   emptied: rows of queues that are gone.
    size: octets of the bodies in `added`, about.
    """

    __slots__ = ("added", "bodies", "definitions", "emptied", "removed", "returned", "size", "waiters")

    def __init__(self) -> None:
        self.added: dict[int, tuple[int, Message, float | None]] = {}
        self.bodies: dict[Message, list[int]] = {}
        self.removed: set[int] = set()
        self.returned: dict[int, int] = {}
        self.definitions: dict[int, tuple[int, bytes] | None] = {}
        self.emptied: set[int] = set()
        self.size = 0
        self.waiters: list[Waiter] = []

    def __len__(self) -> int:
        """How many changes it has, about."""
        return len(self.added) + len(self.removed) + len(self.returned) + len(self.definitions) + len(self.emptied)

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} changes, {len(self.waiters)} wait>"

    def remove(self, row: int) -> None:
        """The message in `row` is gone."""
        added = self.added.pop(row, None)
        if added is None:
            self.removed.add(row)
        else:
            message = added[1]
            self.size -= message.size
            if message.size > INLINE_LIMIT:
                self._drop_body(message)
        if self.returned:
            self.returned.pop(row, None)

    def share_body(self, message: Message, next_row: int) -> int:
        """One more row of `message`, whose body is long; returns the row of the body, `next_row` if it is new."""
        body = self.bodies.setdefault(message, [next_row, 0])
        body[1] += 1
        return body[0]

    def _drop_body(self, message: Message) -> None:
        body = self.bodies[message]
        body[1] -= 1
        if not body[1]:
            del self.bodies[message]

    def empty_queue(self, queue: int) -> None:
        """All the messages of the queue in that row are gone."""
        for row in [row for row, (owner, *_) in self.added.items() if owner == queue]:
            self.remove(row)
        self.emptied.add(queue)

    def absorb(self, later: Batch) -> None:
        """Add what happened after this, for this could not be written."""
        for queue in later.emptied:
            self.empty_queue(queue)
        for row in later.removed:
            self.remove(row)
        self.added.update(later.added)
        for message, (row, count) in later.bodies.items():
            self.bodies.setdefault(message, [row, 0])[1] += count
        self.returned.update(later.returned)
        self.definitions.update(later.definitions)
        self.size += later.size

    def changes(self, wall_offset: float) -> Iterator[Change]:
        """The rows to write but for the long bodies; runs in the thread of the database, while nothing changes it.

        `wall_offset`: seconds from the broker's clock to the time of day, which goes on while the broker is off.
        """
        for row, definition in self.definitions.items():
            if definition is None:
                yield DEFINITION_DELETED, row, 0, None, None, 0
            else:
                kind, record = definition
                yield DEFINITION_PUT, row, kind, None, record, definition_checksum(row, kind, record)
        bodies = self.bodies
        for row, (queue, message, expires_at) in self.added.items():
            body = bodies[message][0] if message.size > INLINE_LIMIT else 0
            record = pack_message(message, None if expires_at is None else expires_at + wall_offset)
            yield MESSAGE_ADDED, row, queue, body or None, record, message_checksum(row, queue, body, record)
        for row, count in self.returned.items():
            yield MESSAGE_RETURNED, row, count, None, None, returned_checksum(row, count)
        for first, last in ranges(self.removed):
            yield MESSAGES_REMOVED, first, last, None, None, 0
        for row in self.emptied:
            yield QUEUE_EMPTIED, row, 0, None, None, 0
