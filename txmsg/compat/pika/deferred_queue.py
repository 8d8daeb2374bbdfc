"""ClosableDeferredQueue, as pika has it: Twisted's DeferredQueue that can be closed with an exception.

What differs from pika's: those who wait fail in the order in which they began to wait, the first reason stays, and
`drain` keeps what was put readable.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue, QueueOverflow, fail, succeed
from twisted.logger import Logger

__all__ = ["ClosableDeferredQueue"]


class _Items(deque[Any]):
    """What waits to be fetched: Twisted and pika have a list here, the front of which is slow to take from.

    Programs that look at it as at a list can.
    """

    __hash__ = None

    def __getitem__(self, index: Any) -> Any:  # a slice, too
        return list(self)[index] if isinstance(index, slice) else super().__getitem__(index)

    def pop(self, index: int = -1) -> Any:
        item = self[index]
        del self[index]
        return item

    def __eq__(self, other: object) -> bool:
        return list(self) == other if isinstance(other, list) else super().__eq__(other)


class ClosableDeferredQueue(DeferredQueue[Any]):
    """A DeferredQueue with an end.

    size: int | None -- how many items are stored at most (`QueueOverflow`); None is no limit.
    backlog: int | None -- how many `get()` may wait at most (`QueueUnderflow`); None is no limit.
    closed: Exception | None -- the reason it was closed with; None while it is open.
    """

    _log = Logger(namespace="txmsg.compat.pika.deferred_queue")

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        self.closed: BaseException | None = None
        super().__init__(size, backlog)
        self.pending: deque[Any] = _Items()  # type: ignore[assignment]

    def put(self, obj: Any) -> Deferred[Any] | None:  # type: ignore[override]
        """Give `obj` to the `get()` that has waited longest, or store it.

        Returns None; once the queue is closed, a Deferred that has failed with the reason, and `obj` is not taken.
        """
        if self.closed is not None:
            return fail(self.closed)
        # As in the base class, without another call for each message.
        if self.waiting:
            self.waiting.pop(0).callback(obj)
        elif self.size is None or len(self.pending) < self.size:
            self.pending.append(obj)
        else:
            raise QueueOverflow
        return None

    def get(self) -> Deferred[Any]:
        """A Deferred that fires with the next item, or fails with the reason once the queue is closed.

        Cancelling it loses no item.
        """
        if self.pending:
            return succeed(self.pending.popleft())
        return super().get() if self.closed is None else fail(self.closed)

    def close(self, reason: BaseException | None, *, drain: bool = False) -> None:
        """Close the queue: all who wait fail with `reason`, the oldest first.

        drain -- False drops what was put and not fetched; True keeps it readable, `get()` fails after the last of it.
        A queue that is closed stays as it is: the first reason wins.
        """
        if self.closed is not None:
            self._log.debug("the queue was closed before, with {reason!r}", reason=self.closed)
            return
        if reason is None:
            # pika's stays open then, and fails those who wait with an exception of no use.
            raise TypeError("a queue is closed with an exception")
        self.closed = reason
        if not drain:
            self.pending.clear()
        # One by one from the list, because the errback of one may cancel another.
        while self.waiting:
            self.waiting.pop(0).errback(reason)
