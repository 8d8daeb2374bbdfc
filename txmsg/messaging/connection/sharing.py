"""SharedAttempt: one attempt that several callers wait for.

Invariant: an attempt is cancelled only when nobody waits for it any more; a caller that gives up takes nothing from
the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

__all__ = ["SharedAttempt"]

_T = TypeVar("_T")


class SharedAttempt(Generic[_T]):
    """Runs something at most once at a time.

    start: called without arguments for an attempt, when none is under way; None: it is given to `join`, so that this
        object holds nothing of what it runs.
    """

    def __init__(self, start: Callable[[], Deferred[_T]] | None = None) -> None:
        self._start = start
        self._running: Deferred[_T] | None = None
        self._waiters: list[Deferred[_T]] = []

    @property
    def is_running(self) -> bool:
        """Whether an attempt is under way."""
        return self._running is not None

    def join(self, start: Callable[[], Deferred[_T]] | None = None) -> Deferred[_T]:
        """Wait for the attempt under way, or begin one; fires with its outcome.  May be cancelled."""
        begin = self._start if start is None else start
        if begin is None:
            raise TypeError("there is nothing to start")
        waiter: Deferred[_T] = Deferred(self._leave)
        self._waiters.append(waiter)
        if self._running is None:
            running = self._running = begin()
            running.addBoth(self._over, running)
        return waiter

    def abandon(self, reason: BaseException) -> None:
        """Cancel the attempt under way: all who wait for it fail with `reason`."""
        running, self._running = self._running, None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(Failure(reason))
        if running is not None:
            running.cancel()

    def _leave(self, waiter: Deferred[_T]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        waiter.errback(Failure(CancelledError()))
        if not self._waiters and self._running is not None:
            running, self._running = self._running, None
            running.cancel()

    def _over(self, outcome: _T | Failure, running: Deferred[_T]) -> None:
        if running is not self._running:
            return  # abandoned: nobody waits for it
        self._running = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)
