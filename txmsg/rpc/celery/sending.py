"""TaskSender: publishes task messages, confirmed, and again when the connection was lost.

A task that was sent twice has one id, so that its second result is a duplicate; it is run twice all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.logger import Logger

from txmsg.errors import ConfigurationError, NoResponder, PublishReturned, TxmsgError
from txmsg.messaging import Channel, Connection, Producer, RetryIntervals
from txmsg.rpc.celery.message import TaskMessage
from txmsg.rpc.celery.results import ResultBackend, RPCBackend
from txmsg.rpc.celery.routing import Destination

__all__ = ["TASK_RETRY_POLICY", "TaskSender"]

#: At once, then after 0.2 s, 0.4 s ... 1 s, 20 times.  (Celery gives up after 3.)
TASK_RETRY_POLICY: Final = RetryIntervals(max_retries=20, interval_start=0.0, interval_step=0.2, interval_max=1.0)

_log = Logger(namespace="txmsg.rpc.celery.sending")


class TaskSender:
    """Over a channel of its own.

    retry_policy: RetryIntervals, or a mapping with some of their fields; None: :data:`TASK_RETRY_POLICY`.
    publish_timeout: float -- seconds that sending has in all.
    """

    def __init__(
        self,
        connection: Connection,
        backend: ResultBackend,
        *,
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
        publish_timeout: float = 30.0,
    ) -> None:
        if isinstance(publish_timeout, bool) or not isinstance(publish_timeout, int | float) or not publish_timeout > 0:
            raise ConfigurationError(f"publish_timeout is a number of seconds above 0, not {publish_timeout!r}")
        self.connection = connection
        self._backend = backend
        self.retry_policy = self._policy(retry_policy, TASK_RETRY_POLICY)
        self.publish_timeout = publish_timeout
        self._producer: Producer | None = None

    @staticmethod
    def _policy(given: RetryIntervals | Mapping[str, Any] | None, default: RetryIntervals) -> RetryIntervals:
        if given is not None and not isinstance(given, RetryIntervals | Mapping):
            raise ConfigurationError(f"a retry policy is RetryIntervals or a mapping, not {type(given).__name__}")
        return given if isinstance(given, RetryIntervals) else default.changed(given or {})

    async def send(
        self,
        message: TaskMessage,
        destination: Destination,
        *,
        mandatory: bool = True,
        retry: bool = True,
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
    ) -> None:
        """Send one task; returns when the broker has confirmed it.  NoResponder, and as a Producer's publish fails."""
        if self._producer is None:
            self._producer = Producer(Channel(self.connection))
        properties = dict(message.properties)
        expiration = properties.pop("expiration", None)
        declare = destination.declare
        backend = self._backend
        if isinstance(backend, RPCBackend) and backend.is_ready and not self.connection.is_recovering:
            # After a loss the task may leave before the queue for results is consumed again: it has to be there.
            declare = (*declare, backend.reply_queue)
        try:
            await self._producer.publish(
                message.body,
                exchange=destination.exchange,
                routing_key=destination.routing_key,
                **properties,
                message_id=None,
                expiration=None if expiration is None else int(expiration) / 1000,
                mandatory=mandatory,
                declare=declare,
                retry=retry,
                retry_policy=self._policy(retry_policy, self.retry_policy),
                timeout=self.publish_timeout,
            )
        except PublishReturned as error:
            raise NoResponder(error.exchange, error.routing_key) from None

    async def close(self) -> None:
        """Send no more: what waits fails with NotSent."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        await producer.close()
        try:
            await producer.channel.close()
        except TxmsgError as error:
            _log.debug("a channel was not closed in order: {error}", error=str(error))
