"""ResultIterator: the results of many tasks in the order in which they come (celery B-12, M-01 to M-03).

Invariant: whatever ends the iteration, nothing waits any more when it has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError
from txmsg.rpc.celery.result_message import TaskResult
from txmsg.rpc.celery.results.table import TaskRecord

if TYPE_CHECKING:
    from txmsg.rpc.celery.results.backend import ResultBackend

__all__ = ["ResultIterator"]


class ResultIterator:
    """``async for task_id, message in iterator``; :meth:`close` it, if it is not read to its end.

    timeout: float | None -- seconds for all together; None: the backend's.
    on_state_change(task_id, message) -- called with each state of each task.
    """

    def __init__(
        self,
        backend: ResultBackend,
        records: Sequence[TaskRecord],
        timeout: float | None = None,
        on_state_change: Callable[[str, TaskResult], object] | None = None,
    ) -> None:
        self._backend = backend
        self._records: dict[str, TaskRecord] = {record.task_id: record for record in records}
        self._timeout = timeout
        self._on_state_change = on_state_change
        self._waiting: dict[str, Deferred[Any]] | None = None
        self._arrived: deque[tuple[str, TaskResult]] = deque()
        self._failure: Failure | None = None
        self._next: Deferred[None] | None = None

    def __aiter__(self) -> ResultIterator:
        """Begins to wait, with the first step."""
        return self

    async def __anext__(self) -> tuple[str, TaskResult]:
        """The next that has come.  RPCTimeout, Overloaded, and what connecting and consuming raise."""
        if self._next is not None:
            raise ConfigurationError("one step of this iteration is under way, and there is one at a time")
        if self._waiting is None:
            self._begin()
        assert self._waiting is not None
        while not self._arrived:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                self.close()
                failure.raiseException()
            if not self._waiting:
                raise StopAsyncIteration
            self._next = Deferred()
            try:
                await self._next
            except CancelledError:
                self.close()
                raise
            finally:
                self._next = None
        return self._arrived.popleft()

    def _begin(self) -> None:
        self._waiting = {}
        for task_id, record in self._records.items():
            waiting = self._backend.wait(
                record, self._timeout, propagate=False, on_state_change=self._listener(task_id)
            )
            self._waiting[task_id] = waiting
            waiting.addCallbacks(self._came, self._failed, (task_id,), {}, (task_id,))

    def _listener(self, task_id: str) -> Callable[[TaskResult], object] | None:
        told = self._on_state_change
        if told is None:
            return None
        return lambda message: told(task_id, message)

    def _came(self, message: TaskResult, task_id: str) -> None:
        self._leave(task_id)
        self._arrived.append((task_id, message))
        self._wake()

    def _failed(self, failure: Failure, task_id: str) -> None:
        self._leave(task_id)
        if self._failure is None:
            self._failure = failure
        self._wake()

    def _leave(self, task_id: str) -> None:
        if self._waiting is not None:
            self._waiting.pop(task_id, None)

    def _wake(self) -> None:
        waiter = self._next
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    def close(self) -> None:
        """Wait no longer."""
        waiting, self._waiting = self._waiting or {}, {}
        for each in waiting.values():
            each.cancel()
        self._arrived.clear()
        self._failure = None

    async def in_order(self) -> list[TaskResult]:
        """All of them, in the order in which they were asked for."""
        found = {task_id: message async for task_id, message in self}
        return [found[task_id] for task_id in self._records]
