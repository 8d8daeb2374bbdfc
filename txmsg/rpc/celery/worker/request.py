"""Request: what a bound task is given: who asked, how often, and the means to say how it goes.

The invariant: nothing is sent for a task that is over, and everything that came in the message is the sender's claim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import Deferred, succeed

from txmsg.errors import ConfigurationError, clip
from txmsg.rpc.celery.states import PROGRESS, READY_STATES
from txmsg.rpc.celery.times import Time, time_after
from txmsg.rpc.celery.worker.outcomes import Retry, TaskOutcome, max_retries_exceeded

if TYPE_CHECKING:
    from txmsg.rpc.celery.task_request import TaskRequest
    from txmsg.rpc.celery.worker.execution import Execution
    from txmsg.rpc.celery.worker.task import Task

__all__ = ["Request"]


class Request:
    """One run of a task.

    id, name: str.   args: list.   kwargs: dict.   retries: int -- 0 at the first attempt.
    reply_to: str | None; correlation_id, root_id, parent_id, group_id -- as the message has them.
    eta, expires: datetime | None, in UTC.   time_limit, soft_time_limit: seconds or None, of the message or the task.
    headers: dict -- the sender's own.   delivery_info: dict -- exchange, routing_key, redelivered, priority,
    consumer_tag; `redelivered` is the broker's word (K-13).   hostname: str -- of the worker.
    """

    def __init__(self, execution: Execution, request: TaskRequest, task: Task) -> None:
        self._execution = execution
        self._request = request
        self.task = task
        self.id = request.task_id
        self.name = request.name
        self.args = request.args
        self.kwargs = request.kwargs
        self.retries = request.retries
        self.reply_to = request.reply_to
        self.correlation_id = request.correlation_id
        self.root_id = request.root_id
        self.parent_id = request.parent_id
        self.group_id = request.group_id
        self.eta = request.eta
        self.expires = request.expires
        self.time_limit = request.time_limit or task.time_limit
        self.soft_time_limit = request.soft_time_limit or task.soft_time_limit
        self.headers: dict[str, Any] = request.own_headers
        self.hostname = execution.worker.hostname
        self.delivery_info: dict[str, Any] = {**execution.message.delivery_info, "priority": request.priority}
        self._soft_callbacks: list[Callable[[], object]] = []

    @property
    def redelivered(self) -> bool:
        """Whether somebody may have begun with it before."""
        return bool(self.delivery_info["redelivered"])

    @property
    def max_retries(self) -> int | None:
        """Attempts after the first one; None: any number."""
        return self.task.max_retries

    @property
    def is_over(self) -> bool:
        """Whether it has ended, by itself or otherwise: nobody waits for what it does now."""
        running = self._execution.running
        return self._execution.is_over or (running is not None and running.is_over)

    @property
    def is_revoked(self) -> bool:
        """Whether it was called off since it began; it may go on, or end."""
        return self._execution.worker.control.is_revoked(self.id)

    # -- how it goes -----------------------------------------------------------------------------------

    def update_state(self, state: str = PROGRESS, meta: Any = None) -> Deferred[None]:
        """Tell the client, who sees `meta` as the result of that state (I-08); fires when it has been sent.

        state: str -- one of your own, which never ends the client's wait.   In a thread it returns at once.
        ConfigurationError: a final state.   EncodeError: `meta` cannot be sent.
        """
        if state in READY_STATES:
            raise ConfigurationError(f"{state} is final: return, or raise")
        if self.is_over:
            return succeed(None)
        if self.task.thread:
            self._execution.call_from_thread(state, meta)
            return succeed(None)
        return self._execution.send_state(state, meta)

    def on_soft_time_limit(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the soft limit is over, instead of interrupting the task; in a thread, too, where
        nothing can be interrupted: it is called in the thread of the reactor.
        """
        self._soft_callbacks.append(callback)

    def retry(
        self,
        exc: BaseException | type[BaseException] | None = None,
        *,
        countdown: float | None = None,
        eta: Time | None = None,
        max_retries: int | None = None,
        args: list[Any] | tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **changes: Any,
    ) -> NoReturn:
        """End this attempt, and let the task be sent again with the same id (K-01); always raises.

        exc -- why; None: the exception that is being handled.   countdown: seconds; eta: a time; None of them: the
        task's default_retry_delay.   max_retries: int | None -- None: the task's.
        args, kwargs -- others than before.   queue: str | None -- None: where this one came from.
        changes -- priority, expires, time_limit, soft_time_limit, ignore_result or headers, other than before.

        Raises Retry; when no retries are left, `exc`, or MaxRetriesExceededError where nobody has said why (K-03).
        ConfigurationError, EncodeError: what cannot be sent.
        """
        why = sys.exc_info()[1] if exc is None else exc() if isinstance(exc, type) else exc
        if why is not None and not isinstance(why, BaseException):
            raise ConfigurationError(f"what a task is tried again for is an exception, not {type(why).__name__}")
        if isinstance(why, TaskOutcome):
            raise why
        limit = self.task.max_retries if max_retries is None else max_retries
        if limit is not None and self.retries >= limit:
            if why is None:
                raise max_retries_exceeded(self.name, self.id)
            raise why
        unknown = set(changes) - {"priority", "expires", "time_limit", "soft_time_limit", "ignore_result", "headers"}
        if unknown:
            raise ConfigurationError(f"retry() cannot change {clip(', '.join(sorted(unknown)))}")
        now = self._execution.worker.now()
        when = countdown if countdown is not None else eta
        due = time_after(self.task.default_retry_delay if when is None else when, "eta", now)
        if args is not None:
            changes["args"] = args
        if kwargs is not None:
            changes["kwargs"] = kwargs
        retry = Retry(why, due if due > now else None, changes, queue)
        self._execution.retry_message(retry)  # what cannot be sent fails here, in the task
        raise retry from why

    # -- for the execution -----------------------------------------------------------------------------

    def soft_time_limit_is_over(self) -> bool:
        """Call the callbacks; whether there were any."""
        callbacks, self._soft_callbacks = self._soft_callbacks, []
        for callback in callbacks:
            callback()
        return bool(callbacks)

    def __repr__(self) -> str:
        return f"<Request {clip(self.name, 100)!r} {clip(self.id, 60)} retries={self.retries}>"
