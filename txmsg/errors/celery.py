"""What Celery's result backends cannot do, and what they give up on."""

from __future__ import annotations

from txmsg.errors.base import clip
from txmsg.errors.rpc import RPCError

__all__ = ["BacklogLimitExceeded", "NotSupportedByBackend"]


class NotSupportedByBackend(RPCError, NotImplementedError):
    """Results that travel as messages can be read once, by who waits for them: groups are not saved, and there are no
    chords.  Celery's rpc and amqp backends raise NotImplementedError for the same."""


class BacklogLimitExceeded(RPCError):
    """A queue was polled for the newest state of a task, and did not come to its end.

    task_id: str.   limit: int -- messages that were looked at; all are in the queue again.
    """

    def __init__(self, task_id: str, limit: int) -> None:
        self.task_id = task_id
        self.limit = limit
        super().__init__(task_id, limit)

    def __str__(self) -> str:
        return f"more than {self.limit} messages wait in the queue of task {clip(self.task_id, 60)}"
