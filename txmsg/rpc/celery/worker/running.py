"""Running: a function that was called, until it ends or is not waited for any more.

A coroutine can be interrupted with an exception of our own; a Deferred can only be cancelled; a thread cannot be
stopped at all.  Invariant: whatever the function does, `ended` fires once, and what comes after that is dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.rpc.celery.reprs import bounded_repr
from txmsg.rpc.celery.worker.outcomes import SoftTimeLimitExceeded

__all__ = ["Running"]

_log = Logger(namespace="txmsg.rpc.celery.worker")


class Running:
    """Calls `function()`.

    thread: bool -- in a thread of the reactor's pool.
    ended: Deferred -- fires with the result, or fails as the function, or as :meth:`abandon` says.
    """

    def __init__(self, function: Callable[[], Any], reactor: Any, thread: bool = False) -> None:
        self.ended: Deferred[Any] = Deferred()
        self._is_over = False
        self._is_thread = thread
        self._coroutine: _Interruptible | None = None
        self._is_interrupted = False
        self._awaited: Deferred[Any] | None = None
        try:
            if thread:
                result = deferToThreadPool(reactor, reactor.getThreadPool(), self._in_thread, function)
            else:
                result = function()
            if isinstance(result, Awaitable):
                self._awaited = result = self._as_deferred(result)
        except BaseException:  # sys.exit() in a task ends the task, and Ctrl-C is a signal that Twisted handles
            self._end(Failure())
            return
        if self._awaited is None:
            self._end(result)
        else:
            self._awaited.addBoth(self._outcome)

    def _in_thread(self, function: Callable[[], Any]) -> Any:
        if self._is_over:
            return None  # called off while it waited for a thread
        result = function()
        if isinstance(result, Deferred):
            raise TypeError("a task in a thread returns its result, not a Deferred")
        return result

    def _as_deferred(self, awaitable: Any) -> Deferred[Any]:
        if isinstance(awaitable, Deferred):
            return awaitable
        if hasattr(awaitable, "add_done_callback"):
            return Deferred.fromFuture(awaitable)
        if inspect.iscoroutine(awaitable):
            self._coroutine = _Interruptible(awaitable)
            return Deferred.fromCoroutine(_wait_for(self._coroutine))
        return Deferred.fromCoroutine(_wait_for(awaitable))

    def _outcome(self, outcome: Any) -> None:
        if self._is_over:
            if isinstance(outcome, Failure) and not outcome.check(CancelledError, SoftTimeLimitExceeded):
                _log.debug("a task failed when it was over: {error}", error=bounded_repr(outcome.value))
            return
        if self._is_interrupted and isinstance(outcome, Failure) and outcome.check(CancelledError):
            outcome = Failure(SoftTimeLimitExceeded())
        self._end(outcome)

    def _end(self, outcome: Any) -> None:
        if not self._is_over:
            self._is_over = True
            self.ended.callback(outcome)

    @property
    def is_over(self) -> bool:
        """Whether `ended` has fired."""
        return self._is_over

    def interrupt(self) -> None:
        """The soft limit is over: SoftTimeLimitExceeded in a coroutine; a Deferred is cancelled, which then ends with
        that error.
        """
        if self._is_over or self._is_thread or self._awaited is None:
            return
        self._is_interrupted = True
        if self._coroutine is not None and not self._coroutine.is_over:
            self._coroutine.interrupt()
            self._is_interrupted = False
        self._awaited.cancel()

    def abandon(self, error: BaseException) -> None:
        """Cancel it, and let `ended` fail with `error`, whatever it makes of that; not waited for."""
        if self._is_over:
            return
        self._end(Failure(error))
        if self._awaited is not None:
            self._awaited.cancel()


class _Interruptible:
    """Awaits a coroutine; where it is cancelled because of a limit, it sees that limit's exception."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._is_interrupted = False
        #: It has returned; what it returned may still be waited for.
        self.is_over = False

    def interrupt(self) -> None:
        """The next thing that the coroutine sees is SoftTimeLimitExceeded."""
        self._is_interrupted = True

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        send: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                yielded = send(value)
            except StopIteration as stop:
                self.is_over = True
                return stop.value
            try:
                send, value = coroutine.send, (yield yielded)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                send, value = coroutine.throw, error
            if self._is_interrupted:
                self._is_interrupted = False
                send, value = coroutine.throw, SoftTimeLimitExceeded()


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    result = await awaitable
    # `return something()` where an `await` is missing: nothing can be fired with a Deferred.
    return await result if isinstance(result, Deferred) else result
