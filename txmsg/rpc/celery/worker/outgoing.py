"""Outgoing: what a worker publishes: results, and tasks that follow others (celery A-03 to A-14, K-01, M-04).

Everything is confirmed, and sent again after a loss, for a bounded time: 20 retries, about one a second (A-14).
Invariants: a result goes to the default exchange with `reply_to` as its routing key, and that queue is never declared
here (A-12); it goes to a name that clients give to their reply queues, never to any queue that a message names
(C6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, PublishReturned, TxmsgError, clip
from txmsg.messaging import Connection, Exchange, Producer, Queue, RetryIntervals
from txmsg.rpc.celery.message import TaskMessage
from txmsg.rpc.celery.result_message import ResultMessage
from txmsg.rpc.celery.results.backend import RESULT_RETRY_POLICY, may_send_to, policy_for
from txmsg.rpc.celery.worker.counts import WorkerCounts

__all__ = ["Outgoing", "celery_queue"]

_log = Logger(namespace="txmsg.rpc.celery.worker")


def celery_queue(name: str) -> Queue:
    """A queue exactly as Celery declares it: durable, no arguments, bound to a direct exchange of its name."""
    return Queue(name, Exchange(name, "direct"), routing_key=name)


class Outgoing:
    """Publishes over a connection of its own, so that a broker that is short of memory does not hold back acks.

    connection: Connection.   counts: WorkerCounts.   prefixes -- beginnings of further names that results may go to.
    retry_policy -- as for :meth:`txmsg.messaging.Producer.publish`.
    """

    def __init__(
        self,
        connection: Connection,
        counts: WorkerCounts,
        prefixes: Iterable[str] = (),
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
    ) -> None:
        given = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
        if not all(isinstance(prefix, str) and prefix for prefix in given):
            raise ConfigurationError("a prefix of the queues that results may go to is a str that is not empty")
        self.connection = connection
        self.prefixes = given
        self.retry_policy = RESULT_RETRY_POLICY.changed(retry_policy)
        self._counts = counts
        self._producer = Producer(connection)

    def may_reply_to(self, name: str) -> bool:
        """Whether results may go there."""
        return may_send_to(name, self.prefixes)

    def send_result(
        self, reply_to: str | None, result: ResultMessage, instead: Callable[[str], ResultMessage] | None = None
    ) -> Deferred[None]:
        """Send a result, if somebody wants it (A-06).  That its queue is gone is no error: the client does not want it
        any more (N-15).  Does not fail, but logs and counts what was not sent (A-14).

        instead(why) -- what is sent in place of a result that the broker refuses, because it is too large for it.
        """
        if reply_to is None:
            return succeed(None)
        if not self.may_reply_to(reply_to):
            self._counts.unanswered += 1
            _log.warn("a result is not sent: {queue!r} is no name of a reply queue", queue=clip(reply_to))
            return succeed(None)
        sent = self._publish("", reply_to, result.body, result.properties)
        if instead is not None:
            sent.addErrback(self._refused, reply_to, result, instead)
        return sent.addErrback(self._unsent, result)

    def _refused(
        self, failure: Failure, reply_to: str, result: ResultMessage, instead: Callable[[str], ResultMessage]
    ) -> Deferred[None] | Failure:
        error = failure.value
        if self.connection.is_closed or not isinstance(error, TxmsgError) or error.recoverable:
            return failure
        _log.error("{state} of {task_id} was refused", state=clip(result.state, 60), task_id=clip(result.task_id, 60))
        made = instead(clip(f"{result.state} of {len(result.body)} octets was refused: {error}"))
        return self._publish("", reply_to, made.body, made.properties)

    def _unsent(self, failure: Failure, result: ResultMessage) -> None:
        self._counts.unanswered += 1
        _log.error(
            "{state} of {task_id} was not sent: {error}",
            state=clip(result.state, 60),
            task_id=clip(result.task_id, 60),
            error=clip(str(failure.value)),
        )

    def send_task(self, message: TaskMessage, queue: str, exchange: str = "") -> Deferred[None]:
        """Send a task.  A queue that is not there is declared as Celery does it, so that the task waits in it.

        PublishReturned: an exchange that leads to no queue.
        """
        return Deferred.fromCoroutine(self._send_task(message, queue, exchange))

    async def _send_task(self, message: TaskMessage, queue: str, exchange: str) -> None:
        try:
            await self._publish(exchange, queue, message.body, message.properties, mandatory=True)
        except PublishReturned:
            if exchange:
                raise
            _log.info("the queue {queue!r} is not there, declaring it", queue=clip(queue))
            declare = [celery_queue(queue)]
            await self._publish("", queue, message.body, message.properties, mandatory=True, declare=declare)

    def _publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Mapping[str, Any], **options: Any
    ) -> Deferred[None]:
        given = dict(properties)
        expiration = given.pop("expiration", None)
        return self._producer.publish(
            body,
            routing_key,
            exchange=exchange,
            expiration=None if expiration is None else int(expiration) / 1000,
            retry=True,
            retry_policy=policy_for(routing_key, self.retry_policy),
            message_id=None,  # Celery sends none (celery D-08)
            **given,
            **options,
        )

    def close(self) -> Deferred[None]:
        """End the connection; what waits to be sent is not."""
        return self.connection.close()
