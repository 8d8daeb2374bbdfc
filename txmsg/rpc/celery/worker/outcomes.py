"""How a task may end besides returning and failing: Retry, Ignore, Reject, the time limits (celery J-12 to J-15, K-01).

These are exceptions of ours, which a task raises or is given; what goes to clients has the names that Celery's clients
know.  Pure: no Twisted, no I/O.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from txmsg.errors import RemoteError, clip
from txmsg.rpc.celery.reprs import bounded_repr
from txmsg.rpc.celery.task_request import BadTask, TaskRequest

__all__ = [
    "Ignore",
    "Reject",
    "Retry",
    "SoftTimeLimitExceeded",
    "TaskOutcome",
    "max_retries_exceeded",
    "not_registered",
    "rejected",
    "soft_time_limit_exceeded",
    "task_revoked",
    "time_limit_exceeded",
    "worker_lost",
]

_CELERY: Final = "celery.exceptions"
_BILLIARD: Final = "billiard.exceptions"


class TaskOutcome(Exception):
    """Raised by a task: it has neither succeeded nor failed."""


class Ignore(TaskOutcome):
    """No result is sent, and the message is acked (J-12)."""


class Reject(TaskOutcome):
    """The message is rejected, if it is not acked yet (`acks_late`).

    reason -- told to the client, by a FAILURE, unless `requeue` brings it back (J-13).
    requeue: bool -- True: back to its queue, at once, for whoever takes it next; not a way to wait.
    """

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)


class Retry(TaskOutcome):
    """The task is sent again, with the same id: raised by `Request.retry`.

    exc: BaseException | None -- why.   eta: datetime -- when, in UTC.
    changes -- what is different in the next message, by names of :func:`txmsg.rpc.celery.message.build_task`.
    queue: str | None -- where it goes; None: where this one came from.
    """

    def __init__(
        self,
        exc: BaseException | None = None,
        eta: datetime | None = None,
        changes: dict[str, Any] | None = None,
        queue: str | None = None,
    ) -> None:
        self.exc = exc
        self.eta = eta
        self.changes = changes or {}
        self.queue = queue
        super().__init__(exc, eta)

    def __str__(self) -> str:
        when = "now" if self.eta is None else f"at {self.eta.isoformat()}"
        why = "" if self.exc is None else f": {bounded_repr(self.exc)}"
        return f"again {when}{why}"


class SoftTimeLimitExceeded(Exception):
    """Raised in a coroutine when its `soft_time_limit` is over: it may clean up and end (J-15)."""


# -- as Celery's clients know them -----------------------------------------------------------------


def _celery(name: str, *args: Any, module: str = _CELERY) -> RemoteError:
    return RemoteError(name, " ".join(arg if isinstance(arg, str) else bounded_repr(arg) for arg in args), module, args)


def task_revoked(reason: str) -> RemoteError:
    """It was called off: "revoked", "expired" or "terminated" (K-08, K-12)."""
    return _celery("TaskRevokedError", reason)


def max_retries_exceeded(name: str, task_id: str) -> RemoteError:
    """It was tried as often as it may be, and nobody has said why it failed (K-03)."""
    return _celery("MaxRetriesExceededError", f"Can't retry {clip(name)}[{clip(task_id)}]: no retries are left")


def rejected(reject: Reject) -> RemoteError:
    """It was rejected for good (J-13)."""
    return _celery("Reject", reject.reason, reject.requeue)


def time_limit_exceeded(seconds: float) -> RemoteError:
    """The hard limit is over (J-15)."""
    return _celery("TimeLimitExceeded", seconds, module=_BILLIARD)


def soft_time_limit_exceeded() -> RemoteError:
    """The soft limit is over, and the task did not end otherwise (J-15)."""
    return _celery("SoftTimeLimitExceeded", module=_BILLIARD)


def worker_lost(reason: str) -> RemoteError:
    """The worker ended before the task, which nobody runs again (J-14)."""
    return _celery("WorkerLostError", reason, module=_BILLIARD)


def not_registered(request: TaskRequest) -> BadTask:
    """A task that is not registered (J-09)."""
    return BadTask(
        reason="there is no such task here",
        exc_type="NotRegistered",
        exc_module="celery.exceptions",
        exc_args=(request.name,),
        task_id=request.task_id,
        name=request.name,
        reply_to=request.reply_to,
        correlation_id=request.correlation_id,
        ignore_result=request.ignore_result,
        root_id=request.root_id,
        parent_id=request.parent_id,
        group_id=request.group_id,
    )
