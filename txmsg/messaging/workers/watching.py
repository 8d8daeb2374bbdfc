"""ConsumerWatch: what happens to the consumers of a worker, for the loop that runs them.

Invariant: of a connection that comes back by itself each failed attempt is told, and its return; where there is nothing
that comes back, there is a reason for the loop to end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConsumerCancelled, clip
from txmsg.messaging.consuming.consumer import Consumer
from txmsg.messaging.consuming.stream import unwatch, watch

__all__ = ["ConsumerWatch", "entered", "when_all_idle"]


class ConsumerWatch:
    """Watches the connection and the consumers of one start of a worker.

    connection: Connection.   on_error(exc, interval): an attempt to come back has failed.
    on_revived: called when the connection is back.

    on_back: called after that; None: nothing.   reason: BaseException | None -- why the consumers have ended.
    """

    _log = Logger(namespace="txmsg.messaging.mixins")

    def __init__(
        self,
        connection: Any,
        on_error: Callable[[BaseException, float], object],
        on_revived: Callable[[], object],
    ) -> None:
        self.reason: BaseException | None = None
        self.on_back: Callable[[], object] | None = None
        self._connection = connection
        self._on_error = on_error
        self._on_revived = on_revived
        self._is_up = True
        self._messages = 0
        self._waiter: Deferred[None] | None = None
        self._ends: list[Deferred[Any]] = []
        self._telling: Deferred[Any] | None = None
        connection.add_recovery_callback(self._changed)
        watch(connection, self._message)

    def begin(self, consumers: Sequence[Consumer]) -> None:
        """Watch these, too."""
        for consumer in consumers:
            ended = consumer.when_ended()
            self._ends.append(ended)
            ended.addCallbacks(self._consumer_ended, _ignore)

    def end(self) -> None:
        """Watch no more."""
        self._connection.remove_recovery_callback(self._changed)
        unwatch(self._connection, self._message)
        ends, self._ends = self._ends, []
        for ended in ends:
            if not ended.called:
                ended.cancel()
        if self._telling is not None:
            self._telling.cancel()
        self.wake()

    # -- for the loop ------------------------------------------------------------------------------

    async def next_message(self, seconds: float) -> bool:
        """Wait until a message has come, at most `seconds`; whether one has.  Raises the reason when all has ended."""
        if not self._messages and self.reason is None:
            waiter = self._waiter = Deferred()
            timer = self._connection.reactor.callLater(max(seconds, 0.0), self.wake)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer.active():
                    timer.cancel()
        if self._messages:
            self._messages -= 1
            return True
        if self.reason is not None:
            raise self.reason
        return False

    def wake(self) -> None:
        """Let the loop look around now."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    # -- what happens --------------------------------------------------------------------------------

    def _message(self) -> None:
        self._messages += 1
        self.wake()

    def _fail(self, reason: BaseException) -> None:
        if self.reason is None:
            self.reason = reason
        self.wake()

    def _consumer_ended(self, reason: BaseException) -> None:
        if not (isinstance(reason, ConsumerCancelled) and reason.initiator == "client"):
            self._fail(reason)

    def _changed(self, reason: BaseException | None, delay: float | None) -> None:
        """The connection was lost, an attempt has failed, or it is back."""
        if reason is None:
            self._is_up = True
            self._telling = Deferred.fromCoroutine(self._back())
            self._telling.addErrback(self._hook_failed)
        elif not self._connection.is_recovering:
            self._fail(reason)
        elif self._is_up:
            self._is_up = False
            self._log.warn("the connection was lost, and will come back: {reason}", reason=clip(str(reason)))
        else:
            self._on_error(reason, delay or 0.0)

    async def _back(self) -> None:
        await maybeDeferred(self._on_revived)
        if self.on_back is not None:
            await maybeDeferred(self.on_back)

    def _hook_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            assert failure.value is not None
            self._fail(failure.value)


@asynccontextmanager
async def entered(context: Any) -> AsyncIterator[None]:
    """A context manager of either kind, or None, as an asynchronous one."""
    if context is None:
        yield
    elif hasattr(context, "__aenter__"):
        async with context:
            yield
    else:
        with context:
            yield


async def when_all_idle(consumers: Sequence[Consumer], seconds: float, clock: Any) -> bool:
    """Wait until no awaitable of a callback runs, at most `seconds`; whether that is so."""
    idle = gatherResults([consumer.when_idle() for consumer in consumers], consumeErrors=True)
    if not idle.called:
        await idle.addTimeout(seconds, clock).addErrback(_ignore)
    return not any(consumer.handlers_running for consumer in consumers)


def _ignore(_failure: Failure) -> None:
    """It was given up here."""
