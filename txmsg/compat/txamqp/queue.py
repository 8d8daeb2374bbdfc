"""TimeoutDeferredQueue: what a txamqp program reads its deliveries from.

A closed queue tells everybody who waits, the first who waited first, and whoever comes later; it takes nothing more.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue, fail
from twisted.internet.interfaces import IDelayedCall

__all__ = ["Closed", "Empty", "TimeoutDeferredQueue"]


class Empty(Exception):  # txamqp's name, and the programs'
    """Nothing came within the time that `get` was given."""


class Closed(Exception):
    """The queue is closed.  `args[0]`, if there is one: what closed the channel or connection."""


class TimeoutDeferredQueue(DeferredQueue[Any]):
    """A DeferredQueue whose `get` takes a limit, and that can be closed.

    clock -- an IReactorTime provider; default: the installed reactor, when it is needed.
    closed: bool.   reason -- what `close` was given.
    limit: int | None -- how many it holds; the oldest is dropped for one more.
    """

    #: Putting this in closes the queue.
    END = object()

    def __init__(self, clock: Any = None, limit: int | None = None) -> None:
        super().__init__()
        self._clock = clock
        self.limit = limit
        self.closed = False
        self.reason: Any = None
        #: Whether what it holds is of no use after the end of the channel: the broker delivers it again.
        self.is_acked = False

    @property
    def clock(self) -> Any:
        """The clock for the limits."""
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        return self._clock

    def put(self, obj: Any) -> None:
        """Hand it to the first who waits, or keep it.  A closed queue drops it."""
        if obj is self.END:
            self.close()
        if self.closed:
            return
        if self.limit is not None and len(self.pending) >= self.limit:
            del self.pending[0]
        super().put(obj)

    def get(self, timeout: float | None = None) -> Deferred[Any]:
        """The next one; fails with Empty after `timeout` seconds (None and 0: no limit), or with Closed.

        May be cancelled.  What a closed queue still holds can be had before it fails.
        """
        if self.closed and not self.pending:
            return fail(self._error())
        waiting = super().get()
        if timeout and not waiting.called:
            limit = self.clock.callLater(timeout, self._too_late, waiting)
            waiting.addBoth(self._in_time, limit)
        return waiting

    def _too_late(self, waiting: Deferred[Any]) -> None:
        if waiting in self.waiting:
            self.waiting.remove(waiting)
            waiting.errback(Empty())

    def _in_time(self, result: Any, limit: IDelayedCall) -> Any:
        if limit.active():
            limit.cancel()
        return result

    def _error(self) -> Closed:
        return Closed() if self.reason is None else Closed(self.reason)

    def close(self, reason: Any = None, discard: bool = False) -> None:
        """Close it; whoever waits fails with Closed.   discard: drop what it holds.   The first reason stays."""
        if self.closed:
            return
        self.closed = True
        self.reason = reason
        if discard:
            self.pending.clear()
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.errback(self._error())
