"""Drain: waiting for "the next event", for code that was written around a loop that drains them.

With a reactor nothing needs to be drained: deliveries come by themselves.  Old code that calls `drain_events` to let
time pass until something has happened can go on doing so.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txmsg.errors import OperationTimeout

__all__ = ["Drain"]


class Drain:
    """Those who wait for the next delivery of a connection."""

    def __init__(self) -> None:
        self._waiters: list[Deferred[None]] = []

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def wait(self, timeout: float | None, reactor: Any) -> Deferred[None]:
        """Fires when something was delivered.  OperationTimeout after `timeout` seconds; None: no limit."""
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiters.append(waiter)
        if timeout is None:
            return waiter

        def too_late(outcome: Any, seconds: float) -> Any:
            if isinstance(outcome, Failure) and outcome.check(CancelledError):
                raise OperationTimeout(f"nothing was delivered within {seconds} s")
            return outcome

        return waiter.addTimeout(timeout, reactor, onTimeoutCancel=too_late)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiters.remove(waiter)

    def happened(self) -> None:
        """Something was delivered: all who wait are told."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def end(self, reason: BaseException) -> None:
        """Nothing will be delivered any more."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(Failure(reason))
