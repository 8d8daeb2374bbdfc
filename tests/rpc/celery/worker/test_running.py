"""Functions until they end: threads, Deferreds in places where none is expected, what is not run any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from txmsg.rpc.celery.worker.outcomes import SoftTimeLimitExceeded
from txmsg.rpc.celery.worker.running import Running

__all__: list[str] = []


class _LateThreads:
    """A reactor whose threads begin when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def getThreadPool(self) -> _LateThreads:
        """It is one itself."""
        return self

    def callInThreadWithCallback(self, on_result: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        """As a pool whose threads are all taken."""

        def run() -> None:
            try:
                result, is_good = function(*args, **kwargs), True
            except BaseException:
                result, is_good = Failure(), False
            on_result(is_good, result)

        self.waiting.append(run)

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """At once."""
        function(*args, **kwargs)


class ThreadTests(SynchronousTestCase):
    """celery J-15."""

    def test_the_pool_is_twisteds(self) -> None:
        """What the double has is what is used of the real one."""
        self.assertTrue(hasattr(ThreadPool, "callInThreadWithCallback"))

    def test_called_off_while_it_waits_for_a_thread(self) -> None:
        """Its client has been told that it was not run: so it is not, when a thread is free at last."""
        reactor, calls = _LateThreads(), list[int]()
        running = Running(lambda: calls.append(1), reactor, thread=True)
        running.abandon(ValueError("over"))
        self.failureResultOf(running.ended, ValueError)
        for run in reactor.waiting:
            run()
        self.assertEqual(calls, [])

    def test_a_deferred_from_a_thread(self) -> None:
        """It fails: nobody can wait for a Deferred that was made in a thread."""
        reactor = _LateThreads()
        running = Running(Deferred, reactor, thread=True)
        for run in reactor.waiting:
            run()
        self.failureResultOf(running.ended, TypeError)


class AwaitTests(SynchronousTestCase):
    """Coroutines."""

    def test_a_missing_await(self) -> None:
        """A coroutine that returns a Deferred ends when that does; it must not hang."""
        first, second = Deferred[None](), Deferred[int]()

        async def task() -> Any:
            await first
            return second

        running = Running(task, None)
        first.callback(None)
        self.assertNoResult(running.ended)
        second.callback(5)
        self.assertEqual(self.successResultOf(running.ended), 5)

    def test_a_soft_limit_there(self) -> None:
        """What it waits for then is cancelled."""
        second: Deferred[int] = Deferred()

        async def task() -> Any:
            return second

        running = Running(task, None)
        running.interrupt()
        self.failureResultOf(running.ended, SoftTimeLimitExceeded)

    def test_whatever_is_raised(self) -> None:
        """KeyboardInterrupt, too, is how the task ends; it does not leave a message unsettled."""
        for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):

            def task(kind: type[BaseException] = kind) -> None:
                raise kind

            self.failureResultOf(Running(task, None).ended, kind)
