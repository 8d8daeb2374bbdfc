"""ClosableDeferredQueue: a queue of items and of waiters that can be closed with a reason.

A consumer without a callback puts its deliveries here.  The invariants:

- there are never items and waiters at the same time;
- the state is open or closed, it changes once, and the first reason is the one that stays;
- after the change nobody waits: every waiter has failed with the reason, the oldest first;
- an item is given to exactly one `get()`, is still here, or was returned by `close()`.

The order, the limits and the errors follow `twisted.internet.defer.DeferredQueue` where that has an
opinion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, QueueOverflow, QueueUnderflow, fail, succeed
from twisted.python.failure import Failure

from txmsg.errors import ConsumerCancelled, QueueClosed

__all__ = ["ClosableDeferredQueue"]

T = TypeVar("T")


class ClosableDeferredQueue(Generic[T]):
    """First in, first out, for items and for those who wait for one; `async for item in queue` reads it.

    size: int | None -- how many items are stored at most; None (the default) is no limit.  The prefetch
        count is what bounds the queue of an ack-mode consumer.
    backlog: int | None -- how many `get()` may wait at most; None is no limit.
    on_stored, on_removed: called with each item that enters the buffer, and with each that leaves it,
        by `get()` or because `close()` dropped it; so what is stored can be counted.  An item handed
        straight to a waiting `get()` is never stored.  They must not raise.

    `async for` ends when the queue was closed without a reason, with `QueueClosed`, or with a
    `ConsumerCancelled` that the client asked for; any other reason is raised out of the loop.
    A queue is true also while it is empty, so that `if consumer.queue:` asks whether there is one.
    """

    __slots__ = ("_backlog", "_items", "_reason", "_size", "_traceback", "_waiters", "on_removed", "on_stored")

    def __init__(
        self,
        size: int | None = None,
        backlog: int | None = None,
        *,
        on_stored: Callable[[T], object] | None = None,
        on_removed: Callable[[T], object] | None = None,
    ) -> None:
        self._items: deque[T] = deque()
        self._waiters: deque[Deferred[T]] = deque()
        self._reason: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._size = size
        self._backlog = backlog
        self.on_stored = on_stored
        self.on_removed = on_removed

    def put(self, item: T) -> bool:
        """Give `item` to the `get()` that has waited longest, or store it.

        Returns True, or False when the queue is closed: then the item was not taken and still belongs
        to the caller.  Raises `twisted.internet.defer.QueueOverflow` when `size` items are stored.
        """
        if self._reason is not None:
            return False
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.called:
                waiter.callback(item)
                return True
        items = self._items
        if self._size is not None and len(items) >= self._size:
            raise QueueOverflow(f"the queue holds {self._size} items already")
        items.append(item)
        if self.on_stored is not None:
            self.on_stored(item)
        return True

    def get(self) -> Deferred[T]:
        """A Deferred that fires with the oldest item, now or when there is one.

        It fails with the reason when the queue is closed and nothing is left to read, and with
        `twisted.internet.defer.QueueUnderflow` when `backlog` calls are waiting already.  Cancelling
        it loses no item: the next one goes to the next `get()`.
        """
        if self._items:
            return succeed(self._take())
        if self._reason is not None:
            return fail(self._failure(self._reason))
        if self._backlog is not None and len(self._waiters) >= self._backlog:
            return fail(QueueUnderflow(f"{self._backlog} calls of get() are waiting already"))
        waiter: Deferred[T] = Deferred(self._forget)
        self._waiters.append(waiter)
        return waiter

    def close(self, reason: BaseException | None = None, *, drain: bool = False) -> list[T]:
        """Close the queue; every waiting `get()` fails with `reason`, the oldest first.

        reason -- what every later `get()` fails with; None is a plain `QueueClosed`.
        drain -- False drops the stored items and returns them, oldest first: nobody else will see
            them.  True keeps them readable (`get()` fails only after the last of them) and returns
            an empty list.

        A queue that is closed already stays as it is: the first reason wins and nothing is dropped.
        """
        if reason is not None and not isinstance(reason, BaseException):
            raise TypeError(f"the reason must be an exception or None, not {type(reason).__name__}")
        if self._reason is not None:
            return []
        self._reason = reason = QueueClosed("the queue was closed") if reason is None else reason
        self._traceback = reason.__traceback__
        dropped: list[T] = []
        if not drain:
            dropped.extend(self._items)
            self._items.clear()
            if self.on_removed is not None:
                for item in dropped:
                    self.on_removed(item)
        # Taken one by one from the deque, because an errback may cancel another waiter.
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.called:
                waiter.errback(self._failure(reason))
        return dropped

    def clear(self) -> list[T]:
        """Drop the stored items and return them, oldest first; the queue stays open, and who waits goes on waiting."""
        dropped = list(self._items)
        self._items.clear()
        if self.on_removed is not None:
            for item in dropped:
                self.on_removed(item)
        return dropped

    @property
    def closed(self) -> BaseException | None:
        """The reason the queue was closed with, or None while it is open."""
        return self._reason

    @property
    def pending(self) -> list[T]:
        """The stored items, oldest first, as a new list."""
        return list(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return True

    def __aiter__(self) -> ClosableDeferredQueue[T]:
        return self

    async def __anext__(self) -> T:
        if self._items:
            return self._take()
        try:
            return await self.get()
        except (QueueClosed, ConsumerCancelled) as error:
            if isinstance(error, ConsumerCancelled) and error.initiator != "client":
                raise
        raise StopAsyncIteration

    def __repr__(self) -> str:
        state = "open" if self._reason is None else f"closed: {self._reason!r}"
        return f"<ClosableDeferredQueue {len(self._items)} items, {len(self._waiters)} waiting, {state}>"

    def _take(self) -> T:
        item = self._items.popleft()
        if self.on_removed is not None:
            self.on_removed(item)
        return item

    def _forget(self, waiter: Deferred[T]) -> None:
        # Absent when it was cancelled from inside its own callback chain.
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _failure(self, reason: BaseException) -> Failure:
        # The exception is shared by all who fail with it.  Raising it (await) makes its traceback grow,
        # so each Failure starts again from the one it was closed with.
        return Failure(reason.with_traceback(self._traceback))
