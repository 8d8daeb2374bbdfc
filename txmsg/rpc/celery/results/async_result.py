"""AsyncResult: the handle of a task that was sent (celery B-09, L-06, M-04).

Everything that says how the task is doing tells what has come so far and waits for nothing; what waits is a Deferred
with a time limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, TxmsgError, clip
from txmsg.rpc.celery.result_message import Child, TaskResult
from txmsg.rpc.celery.results.table import StateListener, TaskRecord
from txmsg.rpc.celery.states import FAILURE, SUCCESS

if TYPE_CHECKING:
    from txmsg.rpc.celery.control import Control
    from txmsg.rpc.celery.results.backend import ResultBackend
    from txmsg.rpc.celery.results.group_result import GroupResult

__all__ = ["AsyncResult", "chain_results", "result_of_child"]

_log = Logger(namespace="txmsg.rpc.celery.results")


class AsyncResult:
    """A task, and what is known of it.

    task_id: str.   backend -- where its result comes to.
    parent: AsyncResult | GroupResult | None -- the task before it in a chain.
    control: Control | None -- for :meth:`revoke`.   task_name: str -- where it is known.
    on_state_change(message) -- called with each state that comes, a TaskResult, the final one included.
    """

    def __init__(
        self,
        task_id: str,
        backend: ResultBackend,
        *,
        parent: AsyncResult | GroupResult | None = None,
        control: Control | None = None,
        task_name: str = "",
        on_state_change: StateListener | None = None,
        record: TaskRecord | None = None,
    ) -> None:
        if not isinstance(task_id, str) or not task_id:
            raise ConfigurationError("the id of a task is a str that is not empty")
        self.task_id = task_id
        self.backend = backend
        self.parent = parent
        self.task_name = task_name
        self._control = control
        self._record = backend.table.record(task_id) if record is None else record
        if on_state_change is not None:
            self.on_state_change(on_state_change)

    @property
    def id(self) -> str:
        """The task's id, as Celery calls it."""
        return self.task_id

    # -- what has come so far ------------------------------------------------------------------------

    def _known(self) -> TaskRecord:
        """The record: the table's, where it was dropped there and something has come since."""
        if not self._record.is_final:
            found = self.backend.table.find(self.task_id)
            if found is not None:
                self._record = found
        return self._record

    @property
    def message(self) -> TaskResult | None:
        """The newest state that has come; None: none."""
        return self._known().message

    @property
    def state(self) -> str:
        """Its name; "PENDING" as long as nothing has come, also for a task that was never sent (A-19)."""
        return self._known().state

    status = state

    @property
    def result(self) -> Any:
        """The value; what a custom state tells; the exception of a task that failed, was revoked or is retried."""
        message = self.message
        if message is None:
            return None
        return message.value if message.error is None else self.backend.error_of(message)

    info = result

    @property
    def traceback(self) -> str | None:
        """The worker's traceback of a failure, as text."""
        message = self.message
        return None if message is None else message.traceback

    @property
    def date_done(self) -> datetime | None:
        """When it ended, in UTC; None: it has not, or the worker does not say."""
        message = self.message
        return None if message is None else message.date_done

    def ready(self) -> bool:
        """Whether it has ended."""
        return self._known().is_final

    def successful(self) -> bool:
        """Whether it has ended with a value."""
        return self.state == SUCCESS

    def failed(self) -> bool:
        """Whether it has ended with an exception."""
        return self.state == FAILURE

    def ignore(self) -> None:
        """No result comes here: it was sent with `ignore_result`, or to somebody else's queue."""
        self._record.is_ignored = True

    @property
    def record(self) -> TaskRecord:
        """What the table of the backend has of it."""
        return self._known()

    @property
    def is_ignored(self) -> bool:
        """Whether it was sent with `ignore_result`, so that nothing comes of it."""
        return self._record.is_ignored

    @property
    def children(self) -> list[AsyncResult | GroupResult] | None:
        """What the task has sent itself; None: nothing has come yet.

        Their results come to whom the task has named: with workers of Celery's, not to here (M-06).
        """
        message = self.message
        return (
            None
            if message is None
            else [result_of_child(child, self.backend, self._control) for child in message.children]
        )

    def as_child(self) -> Child:
        """What stands for it in a message, and can be kept: `as_child().as_data()` is what Celery's `as_tuple()` is."""
        return Child(self.task_id, None if self.parent is None else self.parent.as_child())

    # -- waiting -------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        on_state_change: StateListener | None = None,
        revoke_on_cancel: bool = False,
    ) -> Deferred[Any]:
        """Fires with the value of the task when it has ended; None for one whose result is ignored (L-06).

        timeout: float | None -- seconds, RPCTimeout after that; None: the backend's.  A task that was lost, dropped by
            the broker when it expired, or not understood has no answer at all, so that this is how it ends (K-10).
        propagate: bool -- fail with the task's error: RemoteError, TaskRevoked, or a class among the `exceptions` of
            the app; False: fire with it.
        on_state_change(message) -- called with each state that comes while this waits.
        revoke_on_cancel: bool -- when the Deferred is cancelled, revoke the task, so that it is not begun any more.

        Also fails with Overloaded, and as connecting and consuming do.  May be called again and at any time; cancelling
        one ends that one wait.
        """
        record = self._known()
        if record.is_ignored and not record.is_final:
            return succeed(None)
        waiting = self.backend.wait(record, timeout, propagate=propagate, on_state_change=on_state_change)
        if revoke_on_cancel:
            waiting.addErrback(self._maybe_revoke)
        return waiting.addCallback(self._value)

    def _value(self, message: TaskResult) -> Any:
        return message.value if message.error is None else self.backend.error_of(message)

    def _maybe_revoke(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            self.revoke().addErrback(_not_revoked, self.task_id)
        return failure

    def wait_for(self, timeout: float | None = None) -> Deferred[TaskResult]:
        """Fires with the final state, whichever it is, and all that the worker says of it; as :meth:`get` else."""
        return self.backend.wait(self._known(), timeout, propagate=False)

    def poll(self) -> Deferred[str]:
        """Fires with the state that is known by now, after looking for it where that is needed (the amqp backend)."""
        return self.backend.get_task_meta(self.task_id).addCallback(lambda message: self.state)

    def on_state_change(self, listener: StateListener) -> None:
        """Call `listener(message)` with each state that comes from now on, the final one included.

        STARTED comes only from workers that are told to say it; RETRY has an exception and is no end (I-05).
        """
        record = self._known()
        if not record.is_final:
            record.listeners.append(listener)

    def remove_state_listener(self, listener: StateListener) -> None:
        """Undo :meth:`on_state_change`; one that is not there is fine."""
        record = self._known()
        if listener in record.listeners:
            record.listeners.remove(listener)

    # -- ending it -----------------------------------------------------------------------------------

    def revoke(self, terminate: bool = False, signal: str = "SIGTERM") -> Deferred[None]:
        """Tell the workers not to run it; as :meth:`txmsg.rpc.celery.Control.revoke`.  Fires when the broker has that.

        A worker that gets the task afterwards reports REVOKED; one that runs it already goes on, unless `terminate`.
        """
        return self.revoke_all([self], terminate, signal)

    def revoke_all(self, results: Iterable[AsyncResult], terminate: bool, signal: str) -> Deferred[None]:
        """For groups: revoke these tasks, with one message."""
        if self._control is None:
            return fail(ConfigurationError("this result knows no app: use app.control.revoke()"))
        return self._control.revoke([result.task_id for result in results], terminate=terminate, signal=signal)

    def forget(self) -> None:
        """Drop what is known of it and what still comes; whoever waits for it is cancelled.

        Do this for tasks whose result you do not want, and did not send with `ignore_result`.
        """
        self.backend.forget(self.task_id)
        self._record = TaskRecord(self.task_id)

    def __eq__(self, other: object) -> bool:
        """By id."""
        return isinstance(other, AsyncResult) and other.task_id == self.task_id

    def __hash__(self) -> int:
        return hash(self.task_id)

    def __repr__(self) -> str:
        name = f" {clip(self.task_name, 60)}" if self.task_name else ""
        return f"<AsyncResult{name} {clip(self.task_id, 60)}: {clip(self.state, 40)}>"


def result_of_child(child: Child, backend: ResultBackend, control: Control | None = None) -> AsyncResult | GroupResult:
    """A handle for what a task has sent, or for what `as_child()` gave."""
    from txmsg.rpc.celery.results.group_result import GroupResult

    if not isinstance(child, Child):
        raise ConfigurationError(f"a Child is wanted, not {type(child).__name__}")
    parent = None if child.parent is None else result_of_child(child.parent, backend, control)
    if child.members is None:
        return AsyncResult(child.task_id, backend, parent=parent, control=control)
    members = [result_of_child(member, backend, control) for member in child.members]
    return GroupResult(child.task_id, [each for each in members if isinstance(each, AsyncResult)], parent=parent)


def chain_results(task_ids: Iterable[str], backend: ResultBackend, control: Control | None = None) -> list[AsyncResult]:
    """Handles for the tasks of a chain, in the order in which they run; each is the parent of the next."""
    made: list[AsyncResult] = []
    for task_id in task_ids:
        made.append(AsyncResult(task_id, backend, parent=made[-1] if made else None, control=control))
    return made


def _not_revoked(failure: Failure, task_id: str) -> None:
    failure.trap(TxmsgError)
    _log.warn("the task {task} could not be revoked: {error}", task=clip(task_id, 60), error=str(failure.value))
