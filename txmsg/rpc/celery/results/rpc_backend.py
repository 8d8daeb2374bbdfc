"""RPCBackend: Celery's ``rpc://``; results go to one queue of the client that sent the task (celery A-01 to A-35).

Who runs a task sends to the default exchange with the queue's name as routing key, and never declares that queue
(A-03, A-12); only the process that sent the task can read its results (A-35).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, fail

from txmsg.errors import ConfigurationError
from txmsg.messaging import Connection, Queue
from txmsg.rpc.celery.result_message import TaskResult
from txmsg.rpc.celery.results.backend import ResultBackend, may_send_to
from txmsg.rpc.celery.results.reply_queue import ReplyQueue
from txmsg.rpc.celery.results.table import TaskRecord

__all__ = ["RPCBackend"]


class RPCBackend(ResultBackend):
    """Results by one queue for each client.

    reply_prefixes -- further names of queues that :meth:`store_result` may send to begin so; as long as can be, and
        never empty.  Without them: UUIDs, and what brokers name themselves.
    oid: str | None -- the name of the queue for results, a UUID; None: a new one.

    The others are those of :class:`~txmsg.rpc.celery.results.ResultBackend`.
    """

    scheme = "rpc"

    def __init__(
        self,
        connection: Connection,
        *,
        reply_prefixes: Iterable[str] = (),
        oid: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(connection, **settings)
        prefixes = (reply_prefixes,) if isinstance(reply_prefixes, str) else tuple(reply_prefixes)
        if not all(isinstance(prefix, str) and prefix for prefix in prefixes):
            raise ConfigurationError("a prefix of the queues that results may go to is a str that is not empty")
        self._prefixes = prefixes
        #: Which client this is.
        self.oid = str(uuid4()) if oid is None else oid
        self._queue = ReplyQueue(
            connection, Queue(self.oid, durable=True, expires=self.expires), self.received, self._lost
        )

    @property
    def reply_to(self) -> str:
        """The queue that results come to."""
        return self.oid

    @property
    def reply_queue(self) -> Queue:
        """The same, as it is declared: durable, with `x-expires` (A-30)."""
        return self._queue.queue

    def destination_for(self, task_id: str, request: Any) -> tuple[str, str]:
        """(reply_to, correlation_id) of the request; the task's id for a request that has no correlation id.

        RuntimeError: no request (A-05).
        """
        if request is None:
            raise RuntimeError(f"a result of task {task_id} goes where its request says, and there is none")
        return getattr(request, "reply_to", None) or "", getattr(request, "correlation_id", None) or task_id

    def _may_send_to(self, routing_key: str) -> bool:
        return may_send_to(routing_key, self._prefixes)

    @property
    def is_ready(self) -> bool:
        """Whether results can come."""
        return self._queue.is_ready

    def ready(self) -> Deferred[None]:
        """Declare the queue and consume it, unless that is done over the present connection (A-08, A-24).

        Also fails when the backend was closed.
        """
        return fail(self._closed()) if self._is_closed else self._queue.ready()

    def _watch(self, record: TaskRecord) -> Deferred[None]:
        return self._queue.ready()

    def _lost(self, reason: BaseException) -> None:
        """No result can come any more."""
        self.table.fail_all(reason)

    def get_task_meta(self, task_id: str, backlog_limit: int = 1000) -> Deferred[TaskResult | None]:
        """The newest state that has come; None: PENDING, or unknown (A-19).

        backlog_limit: not used: results are consumed as they come, so that nothing is polled (A-15, A-16).
        """

        def look(ignored: object) -> TaskResult | None:
            return self.table.record(task_id).message

        return self.ready().addCallback(look)

    async def _close(self) -> None:
        await super()._close()
        await self._queue.close()
