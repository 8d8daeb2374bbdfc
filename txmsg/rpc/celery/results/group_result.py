"""GroupResult: the handles of tasks that were sent together (celery A-27, A-28, M-01 to M-03).

Invariant: a join waits for all its members with one time limit, and when it has ended nothing of it waits any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from txmsg.errors import ConfigurationError, clip
from txmsg.rpc.celery.result_message import Child, TaskResult
from txmsg.rpc.celery.results.arriving import ResultIterator

if TYPE_CHECKING:
    from txmsg.rpc.celery.results.async_result import AsyncResult
    from txmsg.rpc.celery.results.backend import ResultBackend

__all__ = ["GroupResult"]


class GroupResult:
    """Several tasks.

    group_id: str.   results -- their handles, in the order in which they were sent.   parent -- as AsyncResult's.

    It cannot be saved with the backend (A-28): keep it, or its `as_child()`, and make it again with
    `CeleryApp.result_from()`, in the process that has sent the group.
    """

    def __init__(self, group_id: str, results: Iterable[AsyncResult], *, parent: Any = None) -> None:
        self.group_id = group_id
        self.results: Sequence[AsyncResult] = tuple(results)
        self.parent = parent

    @property
    def id(self) -> str:
        """The group's id, as Celery calls it."""
        return self.group_id

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AsyncResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AsyncResult:
        return self.results[index]

    # -- what has come so far

    @property
    def completed_count(self) -> int:
        """How many have ended with a value."""
        return sum(result.successful() for result in self.results)

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(result.ready() for result in self.results)

    def waiting(self) -> bool:
        """Whether one has not ended."""
        return not self.ready()

    def successful(self) -> bool:
        """Whether all have ended with values."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Whether one has failed."""
        return any(result.failed() for result in self.results)

    # -- waiting

    def join(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        native: bool = True,
        on_state_change: Callable[[str, TaskResult], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Fires with the values, in the order in which the tasks were sent.

        timeout: float | None -- seconds for all together (M-02), RPCTimeout after that; None: the backend's.
        propagate: bool -- fail with the error of a task, at once; False: the errors are among the values.
        native: bool -- the error that comes first is the one; False: that of the task that was sent first, when all
            before it have come (M-03).
        on_state_change(task_id, message) -- called with each state of each task.

        What comes after it has failed is absorbed.  May be cancelled.  Of no task at all: [].
        """
        if not self.results:
            return succeed([])
        return Deferred.fromCoroutine(self._join(timeout, propagate, native, on_state_change))

    get = join

    async def _join(self, timeout: float | None, propagate: bool, native: bool, on_state_change: Any) -> list[Any]:
        arriving = self.as_completed(timeout, on_state_change=on_state_change)
        found: dict[str, TaskResult] = {}
        position = 0
        try:
            async for task_id, message in arriving:
                found[task_id] = message
                if not propagate:
                    continue
                if native and message.raises:
                    raise self.results[0].backend.raised_by(message)
                while position < len(self.results) and self.results[position].task_id in found:
                    first = found[self.results[position].task_id]
                    if first.raises:
                        raise self.results[position].backend.raised_by(first)
                    position += 1
        finally:
            arriving.close()
        return [self._value(result, found) for result in self.results]

    @staticmethod
    def _value(result: AsyncResult, found: dict[str, TaskResult]) -> Any:
        message = found.get(result.task_id)
        if message is None:  # its result is ignored
            return None
        return message.value if message.error is None else result.backend.error_of(message)

    def as_completed(
        self,
        timeout: float | None = None,
        *,
        on_state_change: Callable[[str, TaskResult], object] | None = None,
    ) -> ResultIterator:
        """``async for task_id, message in group.as_completed()``: the final states as they come.

        As :meth:`txmsg.rpc.celery.results.ResultBackend.get_many`.
        """
        wanted = [result for result in self.results if not result.is_ignored]
        return ResultIterator(self._backend(), [result.record for result in wanted], timeout, on_state_change)

    # -- ending it

    def revoke(self, terminate: bool = False, signal: str = "SIGTERM") -> Deferred[None]:
        """Tell the workers not to run them; one message for all of them.  As :meth:`AsyncResult.revoke`."""
        return self.results[0].revoke_all(self.results, terminate, signal) if self.results else succeed(None)

    def forget(self) -> None:
        """:meth:`AsyncResult.forget` for each."""
        for result in self.results:
            result.forget()

    def save(self) -> Deferred[None]:
        """NotSupportedByBackend (A-28)."""
        return maybeDeferred(lambda: self._backend().save_group(self.group_id, self))

    def delete(self) -> Deferred[None]:
        """NotSupportedByBackend (A-28)."""
        return maybeDeferred(lambda: self._backend().delete_group(self.group_id))

    def _backend(self) -> ResultBackend:
        backends = {id(result.backend): result.backend for result in self.results}
        if len(backends) != 1:
            raise ConfigurationError("the results of a group come to one backend, and there is at least one of them")
        return next(iter(backends.values()))

    def as_child(self) -> Child:
        """What stands for it in a message, and can be kept."""
        parent = None if self.parent is None else self.parent.as_child()
        return Child(self.group_id, parent, tuple(result.as_child() for result in self.results))

    def __repr__(self) -> str:
        return f"<GroupResult {clip(self.group_id, 60)}: {self.completed_count} of {len(self)}>"
