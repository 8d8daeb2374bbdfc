"""Where the database is used: a thread of its own, so that the reactor never waits for the disk.

Invariant: the jobs run one after the other, in the order they were given, all in the same thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

__all__ = ["InlineWorker", "ThreadWorker", "Worker"]

T = TypeVar("T")


class Worker(Protocol):
    """Who runs the jobs."""

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """Run `job()` after the earlier ones; the Deferred fires in the reactor's thread with what comes of it."""

    def stop(self) -> None:
        """No more jobs will come; those that were given are still done."""


class ThreadWorker:
    """One thread, started with the first job.

    It is a daemon: a process that ends without :meth:`stop` is, to the data, a process that was killed.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """See :class:`Worker`."""
        deferred: Deferred[T] = Deferred()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="txmsg-broker-store", daemon=True)
            self._thread.start()
        self._jobs.put((job, deferred))
        return deferred

    def stop(self) -> None:
        """See :class:`Worker`."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, deferred = given
            try:
                result = job()
            except Exception:
                self._reactor.callFromThread(deferred.errback, Failure())
            else:
                self._reactor.callFromThread(deferred.callback, result)
            # Or a message would be held until the next job comes.
            del given, job, deferred
            result = None


class InlineWorker:
    """Runs each job at once where it is called: for a broker on a `task.Clock`, which has no threads to return to."""

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """See :class:`Worker`."""
        deferred: Deferred[T] = Deferred()
        try:
            result = job()
        except Exception:
            deferred.errback(Failure())
        else:
            deferred.callback(result)
        return deferred

    def stop(self) -> None:
        """Nothing is waiting."""
