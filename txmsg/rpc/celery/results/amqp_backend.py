"""AMQPBackend: Celery's old ``amqp://`` backend; results go to a queue of the task's own (celery B-07 to B-18).

It was deprecated in Celery 4 and is gone since 5.0, for a queue per task is a load for the broker: use it where both
sides are txmsg, or an old Celery has to be served.  What it has before rpc: the queue is declared by who sends the
result as well (B-07), so that a result is never dropped, and any process that knows the id can read it, once.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from txmsg.errors import ConfigurationError, TxmsgError
from txmsg.errors.celery import BacklogLimitExceeded
from txmsg.messaging import Channel, Connection, Exchange, Queue
from txmsg.rpc.celery.result_message import TaskResult
from txmsg.rpc.celery.results.backend import ResultBackend
from txmsg.rpc.celery.results.reply_queue import ReplyQueue
from txmsg.rpc.celery.results.table import TaskRecord

__all__ = ["AMQPBackend"]

_log = Logger(namespace="txmsg.rpc.celery.results")

#: Where results are published.
_EXCHANGE: Final = "celeryresults"
#: Queues that are consumed, where nobody waits for some of them: each has a channel, of which brokers give 2,047.
_WATCHED: Final = 1_000


class AMQPBackend(ResultBackend):
    """Results by one queue for each task; the queue of a task is consumed while somebody waits for it.

    exchange: str -- "celeryresults".   The others are those of :class:`~txmsg.rpc.celery.results.ResultBackend`;
    results are persistent unless that says otherwise (B-04).
    """

    scheme = "amqp"
    persistent_by_default = True

    def __init__(self, connection: Connection, *, exchange: str = _EXCHANGE, **settings: Any) -> None:
        super().__init__(connection, **settings)
        self.exchange = Exchange(exchange, "direct", durable=self.persistent, delivery_mode=2 if self.persistent else 1)
        self._watched: dict[str, ReplyQueue] = {}
        self._polling: Channel | None = None

    @staticmethod
    def rkey(task_id: str) -> str:
        """The name of a task's queue, and its routing key: the id without dashes (B-02)."""
        return task_id.replace("-", "")

    def queue_for(self, task_id: str) -> Queue:
        """The queue of a task, as it is declared (B-05)."""
        key = self.rkey(task_id)
        return Queue(key, self.exchange, key, durable=self.persistent, auto_delete=True, expires=self.expires)

    def destination_for(self, task_id: str, request: Any) -> tuple[str, str]:
        """The task's own queue; the correlation id of the request, or the task's id (B-06)."""
        return self.rkey(task_id), getattr(request, "correlation_id", None) or task_id

    def _publish_options(self, task_id: str) -> dict[str, Any]:
        return {"exchange": self.exchange, "declare": [self.queue_for(task_id)]}

    def ready(self) -> Deferred[None]:
        """Nothing is to be ready before a task is sent: its queue is declared with its result, too."""
        return succeed(None)

    def _watch(self, record: TaskRecord) -> Deferred[None]:
        """Consume the task's queue until it has ended."""
        task_id = record.task_id
        watched = self._watched.get(task_id)
        if watched is None:
            queue = self.queue_for(task_id)
            watched = self._watched[task_id] = ReplyQueue(
                self.connection, queue, self.received, lambda reason: self.table.fail(task_id, reason)
            )
            self._room()
        return watched.ready()

    def _room(self) -> None:
        """Of the queues that are consumed and that nobody waits for now, the oldest goes where there are too many."""
        if len(self._watched) <= min(self._limits["max_waiting"], _WATCHED):
            return
        for task_id in self._watched:
            record = self.table.peek(task_id)
            if record is None or not record.waiters:
                self._unwatch(task_id)
                return

    def received(self, delivery: Any) -> TaskResult | None:
        """A message from a task's queue; the final one ends the consuming of it."""
        message = super().received(delivery)
        if message is not None and message.is_ready:
            self._unwatch(message.task_id)
        return message

    def _unwatch(self, task_id: str) -> None:
        """Its queue goes with its consumer, as it is auto-delete; a result that is sent later makes it anew."""
        watched = self._watched.pop(task_id, None)
        if watched is not None:
            watched.close()

    def forget(self, task_id: str) -> None:
        """Drop what is known of a task, and its queue, if that is consumed; whoever waits for it is cancelled."""
        super().forget(task_id)
        self._unwatch(task_id)

    def get_task_meta(self, task_id: str, backlog_limit: int = 1000) -> Deferred[TaskResult | None]:
        """Look into the task's queue for the newest state; None: PENDING (A-19).

        A final state is taken out and kept here; another one stays in the queue, and older ones are dropped (A-15,
        A-17).  Where the queue is consumed, it is what has come.

        backlog_limit: int -- BacklogLimitExceeded, and all are in the queue again, when that many messages were looked
        at and more are there (A-16).  Also fails as connecting and declaring do.
        """
        try:
            record = self.table.record(task_id)
        except ConfigurationError as error:
            return fail(error)
        if record.is_final or task_id in self._watched:
            return succeed(record.message)
        if isinstance(backlog_limit, bool) or not isinstance(backlog_limit, int) or backlog_limit < 1:
            return fail(ConfigurationError(f"backlog_limit is an int from 1, not {backlog_limit!r}"))
        return Deferred.fromCoroutine(self._poll(record, backlog_limit))

    async def _poll(self, record: TaskRecord, backlog_limit: int) -> TaskResult | None:
        if self._polling is None or self._polling.is_closed:
            self._polling = Channel(self.connection)
        channel = self._polling
        queue = self.queue_for(record.task_id)
        await queue(channel).declare()
        found: list[Any] = []
        for _ in range(backlog_limit):
            delivery = await channel.get(queue.name)
            if delivery is None:
                break
            found.append(delivery)
        else:
            if await channel.get(queue.name) is not None:
                await channel.close()  # all of them go back
                raise BacklogLimitExceeded(record.task_id, backlog_limit)
        newest = None
        for delivery in found:
            message = super().received(delivery)
            if newest is not None:
                newest.ack()
            newest = delivery
            if message is not None and message.is_ready:
                break
        for delivery in found:
            if delivery is not newest and not delivery.is_settled:
                delivery.ack()
        if newest is not None:
            if record.is_final:
                newest.ack()
            else:
                newest.reject(requeue=True)
        return record.message

    async def _close(self) -> None:
        await super()._close()
        watched, self._watched = self._watched, {}
        for each in watched.values():
            await each.close()
        channel, self._polling = self._polling, None
        if channel is not None:
            try:
                await channel.close()
            except TxmsgError as error:
                _log.debug("a channel was not closed in order: {error}", error=str(error))
