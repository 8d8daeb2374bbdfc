"""StoppingService: what runs functions for others, and ends in order (R30).

The invariants: a stop ends, whatever becomes of its steps; who asks again while it is under way waits for the same one.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.messaging import Connection

__all__ = ["StoppingService", "pass_on"]


class StoppingService(Service):
    """A service whose stop waits for what is at work; what that is, and what to let go of, says the subclass.

    connection: Connection.
    unfinished: int -- what was still at work when the last stop gave up waiting.
    """

    def __init__(self, connection: Connection, log: Logger) -> None:
        self.connection = connection
        self._log = log
        self.unfinished = 0
        self._is_stopping = False
        self._stopped: Deferred[None] | None = None
        self._idle_waiters: list[Deferred[None]] = []

    def stopService(self) -> Deferred[None]:
        """:meth:`stop`."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self.stop()

    def stop(self) -> Deferred[None]:
        """Take no more, wait for what is at work, and let go of everything; fires when that is done.

        What was not begun goes back to its queue; what has not ended after `drain_timeout` is cancelled.  It ends
        within `drain_timeout` and four times `close_timeout`; twice is fine.
        """
        if self._stopped is None:
            self._is_stopping = True
            self._stopped = Deferred.fromCoroutine(self._stop())
        waiter: Deferred[None] = Deferred()
        self._stopped.addBoth(pass_on, waiter)
        return waiter

    async def _stop(self) -> None:
        """The subclass's part; each of its waits is one of `_within`.  It sets `_is_stopping` back at its end."""
        raise NotImplementedError

    def stop_now(self) -> None:
        """Cut a stop short that waits for what is at work, as if `drain_timeout` were over."""
        if self._is_stopping:
            self._tell_idle_waiters()

    def _wait_for_idle(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._idle_waiters.append(waiter)
        return waiter

    def _tell_idle_waiters(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    async def _within(self, seconds: float, deferred: Deferred[Any], what: str) -> None:
        """Wait for it that long; how it ends is only logged."""
        try:
            await deferred.addTimeout(seconds, self.connection.reactor)
        except defer.TimeoutError:
            self._log.warn("{what} did not end within {seconds:g} s", what=what, seconds=seconds)
        except Exception as error:
            self._log.warn("{what} did not end in order: {error}", what=what, error=f"{type(error).__name__}: {error}")


def pass_on(outcome: Any, waiter: Deferred[Any]) -> Any:
    """For addBoth: tell the waiter, and keep a success for others."""
    waiter.callback(outcome)
    return None if isinstance(outcome, Failure) else outcome
