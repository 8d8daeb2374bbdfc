"""ResultBackend: what the rpc and the amqp backend of Celery have in common.

A worker sends with :meth:`~ResultBackend.store_result`; a client reads what has come by way of a table.  The
invariants: storing never fails a task (A-14: it is retried, then given up and logged); waiting always has an end; and
nothing is decoded whose content type is not accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, NotFound, TxmsgError, clip
from txmsg.errors.celery import NotSupportedByBackend
from txmsg.messaging import Accept, Channel, Connection, Producer, RetryIntervals, serializers
from txmsg.rpc.celery.failures import ExceptionClasses
from txmsg.rpc.celery.result_message import ResultMessage, TaskResult, UnreadableResult, build_result, parse_result
from txmsg.rpc.celery.results.arriving import ResultIterator
from txmsg.rpc.celery.results.table import ResultTable, StateListener, TaskRecord, check_limits
from txmsg.rpc.direct_reply_to import DIRECT_REPLY_PREFIX, is_direct_reply_to

__all__ = ["RESULT_RETRY_POLICY", "ResultBackend", "may_send_to", "policy_for"]

#: A-14: the first retry at once, then after a second each, 20 in all.
RESULT_RETRY_POLICY: Final = RetryIntervals(max_retries=20, interval_start=0.0, interval_step=1.0, interval_max=1.0)

#: Names that brokers make for queues, and UUIDs, which clients' reply queues are named by since Celery 3.1.
_REPLY_NAMES: Final = re.compile(
    r"amq\.gen-.+|[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE | re.DOTALL
)

_log = Logger(namespace="txmsg.rpc.celery.results")


def may_send_to(name: str, prefixes: tuple[str, ...] = ()) -> bool:
    """Whether results may go to a queue that a message names (C6.1): only to what clients receive replies by.

    prefixes -- beginnings of further names.
    """
    if name.startswith(DIRECT_REPLY_PREFIX):
        return is_direct_reply_to(name)
    return _REPLY_NAMES.fullmatch(name) is not None or name.startswith(prefixes)


def policy_for(name: str, policy: RetryIntervals) -> RetryIntervals:
    """How results to that queue are tried again.

    Only once for direct reply-to: RabbitMQ closes the connection for some names that are made up.
    """
    return policy.changed({"max_retries": 1}) if name.startswith(DIRECT_REPLY_PREFIX) else policy


class ResultBackend:
    """Results as messages.

    connection: Connection -- the caller's; it is not closed with the backend.
    serializer: str -- of results that are sent.   accept -- of those that come; None: as the serializer.
    persistent: bool | None -- delivery_mode 2 for results; None: as the kind of backend has it.
    expires: float -- seconds after which results that nobody fetches are gone: one day.
    timeout: float -- seconds that a wait has where nothing else is said.
    exceptions -- classes of your own that failures become; all others are RemoteError.
    retry_policy -- of :meth:`store_result`.
    max_waiting, max_kept, max_out_of_band: int -- :class:`~txmsg.rpc.celery.results.ResultTable`.
    """

    #: What is sent where `persistent` is None.
    persistent_by_default = False
    #: Results go away by themselves (A-26), and a group is joined as they come (A-27).
    supports_autoexpire = True
    supports_native_join = True
    scheme = ""

    def __init__(
        self,
        connection: Connection,
        *,
        serializer: str = "json",
        accept: Accept = None,
        persistent: bool | None = None,
        expires: float = 86_400.0,
        timeout: float = 300.0,
        exceptions: Iterable[type[Exception]] | ExceptionClasses = (),
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
        max_waiting: int = 10_000,
        max_kept: int = 10_000,
        max_out_of_band: int = 1_000,
    ) -> None:
        for what, value in (("expires", expires), ("timeout", timeout)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 2**31:
                raise ConfigurationError(f"{what} is a number of seconds above 0, not {value!r}")
        serializers.dumps(None, serializer)
        self.connection = connection
        self.serializer = serializer
        self._accept = serializers.accept([serializer] if accept is None else accept)
        self.persistent = self.persistent_by_default if persistent is None else persistent
        self.expires = float(expires)
        self.timeout = float(timeout)
        self.exceptions = exceptions if isinstance(exceptions, ExceptionClasses) else ExceptionClasses(exceptions)
        self.retry_policy = (
            retry_policy
            if isinstance(retry_policy, RetryIntervals)
            else RESULT_RETRY_POLICY.changed(retry_policy or {})
        )
        #: Results that were not sent: nobody can be given them, or the retries are used up.
        self.unsendable = 0
        self._limits = check_limits(max_waiting=max_waiting, max_kept=max_kept, max_out_of_band=max_out_of_band)
        self._made_table: ResultTable | None = None
        self._made_producer: Producer | None = None
        self._is_closed = False

    # -- what it is made of --------------------------------------------------------------------------

    @property
    def table(self) -> ResultTable:
        """What is known of tasks."""
        if self._made_table is None:
            self._made_table = ResultTable(self.connection.reactor, expires=self.expires, **self._limits)
        return self._made_table

    @property
    def reply_to(self) -> str:
        """What task messages name as the queue for results; "" where they need not."""
        return ""

    def as_uri(self) -> str:
        """What Celery calls it (A-31); there is no password in it."""
        return f"{self.scheme}://"

    def _producer(self) -> Producer:
        if self._made_producer is None:
            self._made_producer = Producer(Channel(self.connection))
        return self._made_producer

    # -- the worker's side ---------------------------------------------------------------------------

    def destination_for(self, task_id: str, request: Any) -> tuple[str, str]:
        """The routing key of a result, and its correlation id (A-05, B-06)."""
        raise NotImplementedError

    def _publish_options(self, task_id: str) -> dict[str, Any]:
        """Exchange, and what is to be declared."""
        return {}

    def _may_send_to(self, routing_key: str) -> bool:
        return True

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> Deferred[str | None]:
        """Send one state of a task; fires when the broker has it.

        result -- the value, or what a custom state tells; for RETRY, FAILURE and REVOKED an exception, a Failure, or
        the data of one.   traceback: str | None -- None: that of the exception.
        request -- with `reply_to`, `correlation_id`, `group_id`, `parent_id`, `children`, as far as it has them.

        Fires with the state that was sent: FAILURE where the value of a SUCCESS cannot be encoded (J-11).  None: it was
        not sent, for there is no reply_to (A-06) or it is not the name of a queue for replies (C6.1), or
        because the retries are used up, which is logged.  A queue that does not exist is not told of: the broker drops
        the result (N-15).

        Fails with EncodeError where a custom state's value cannot be encoded, ConfigurationError for a state that is
        never sent, or one that needs an exception; RuntimeError without a request where one is needed.
        """
        return Deferred.fromCoroutine(self._store(task_id, result, state, traceback, request))

    async def _store(self, task_id: str, result: Any, state: str, traceback: str | None, request: Any) -> str | None:
        routing_key, correlation_id = self.destination_for(task_id, request)
        if not routing_key:
            return None
        if not self._may_send_to(routing_key):
            self.unsendable += 1
            _log.warn(
                "no result is sent to {queue!r}: not the name of a queue for replies", queue=clip(routing_key, 80)
            )
            return None
        message = build_result(
            task_id,
            state,
            result,
            correlation_id=correlation_id,
            traceback=traceback,
            children=getattr(request, "children", None) or (),
            group_id=getattr(request, "group_id", None),
            parent_id=getattr(request, "parent_id", None),
            persistent=self.persistent,
            serializer=self.serializer,
        )
        try:
            await self._publish(message, routing_key, task_id)
        except TxmsgError as error:
            self.unsendable += 1
            _log.error(
                "the state {state} of task {task} could not be sent: {error}",
                state=clip(message.state, 40),
                task=clip(task_id, 60),
                error=clip(str(error)),
            )
            return None
        return message.state

    async def _publish(self, message: ResultMessage, routing_key: str, task_id: str) -> None:
        for is_last in (False, False, True):
            try:
                await self._producer().publish(
                    message.body,
                    routing_key=routing_key,
                    **{**message.properties, "message_id": None},
                    retry=True,
                    retry_policy=policy_for(routing_key, self.retry_policy),
                    **self._publish_options(task_id),
                )
            except NotFound:
                # A queue that deletes itself has gone between its declaration and its binding, with its last consumer.
                if is_last:
                    raise
            else:
                return

    # -- the client's side ---------------------------------------------------------------------------

    def ready(self) -> Deferred[None]:
        """Be able to receive results.  Fails as connecting, declaring and consuming do."""
        raise NotImplementedError

    def on_task_call(self, task_id: str) -> Deferred[TaskRecord]:
        """A task is about to be sent (A-07): its result has somewhere to come to when this has fired."""

        def expect(ignored: Any) -> TaskRecord:
            return self.table.record(task_id)

        return self.ready().addCallback(expect)

    def _watch(self, record: TaskRecord) -> Deferred[None]:
        """Somebody waits for it: let its results come."""
        raise NotImplementedError

    def received(self, delivery: Any) -> TaskResult | None:
        """A message that should be a result; what it says, None: it is not."""
        try:
            if delivery.properties_error is not None:
                raise UnreadableResult("a result whose properties cannot be read") from delivery.properties_error
            message = parse_result(delivery.body, delivery.properties, accept=self._accept)
        except UnreadableResult as error:
            self.table.unreadable(error.task_id or error.correlation_id, error)
            return None
        self.table.received(message, len(delivery.body))
        return message

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        on_state_change: StateListener | None = None,
    ) -> Deferred[TaskResult]:
        """Fires with the final state of a task; at once if it is there (B-09).  May be cancelled.

        timeout: float | None -- seconds, RPCTimeout after that; None: the backend's.
        propagate: bool -- fail with the error of a task that has failed or was revoked: RemoteError, TaskRevoked, or a
        class among `exceptions`.
        on_state_change(message) -- called with each state that comes.  Those that came before are not told again.

        Also fails with Overloaded, and as connecting and consuming do.
        """
        try:
            record = self.table.record(task_id)
        except ConfigurationError as error:
            return fail(error)
        return self.wait(record, timeout, propagate=propagate, on_state_change=on_state_change)

    def wait(
        self,
        record: TaskRecord,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        on_state_change: StateListener | None = None,
    ) -> Deferred[TaskResult]:
        """:meth:`wait_for`, for what the table has."""
        if self._is_closed and not record.is_final:
            return fail(self._closed())
        if on_state_change is not None and not record.is_final:
            record.listeners.append(on_state_change)
        waiting = self.table.wait(record, self.timeout if timeout is None else timeout)
        watching: Deferred[None] | None = None

        def not_watched(failure: Failure) -> None:
            if not waiting.called:
                failures.append(failure)
                waiting.cancel()

        def over(outcome: Any) -> Any:
            if watching is not None:
                watching.cancel()
            if on_state_change is not None and on_state_change in record.listeners:
                record.listeners.remove(on_state_change)
            if failures:
                return failures[0]
            if propagate and isinstance(outcome, TaskResult) and outcome.raises:
                raise self.raised_by(outcome)
            return outcome

        failures: list[Failure] = []
        if not waiting.called:
            watching = self._watch(record).addErrback(not_watched)
        return waiting.addBoth(over)

    def error_of(self, message: TaskResult) -> Exception:
        """The exception of a task that has failed, was revoked, or is retried."""
        error = message.error
        if error is None:
            return TxmsgError(f"the task {clip(message.task_id, 60)} is {clip(message.state, 40)}")
        return self.exceptions.make(error)

    def raised_by(self, message: TaskResult) -> Exception:
        """The same, made anew: what is raised has a traceback, whose frames must not stay with what is kept here."""
        return self.error_of(message if message.error is None else replace(message, error=copy(message.error)))

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        *,
        on_state_change: Callable[[str, TaskResult], object] | None = None,
    ) -> ResultIterator:
        """``async for task_id, message in ...``: the final states of tasks, as they come (B-12).

        timeout: float | None -- seconds for all of them together; RPCTimeout is raised then.
        Failures are not raised: look at `message.raises`.   on_state_change(task_id, message) -- each state.
        """
        return ResultIterator(self, [self.table.record(task_id) for task_id in task_ids], timeout, on_state_change)

    def get_task_meta(self, task_id: str, backlog_limit: int = 1000) -> Deferred[TaskResult | None]:
        """The newest state of a task that is known by now, without waiting for another; None: PENDING (A-19)."""
        raise NotImplementedError

    def poll(self, task_id: str, backlog_limit: int = 1000) -> Deferred[TaskResult | None]:
        """:meth:`get_task_meta`."""
        return self.get_task_meta(task_id, backlog_limit)

    def forget(self, task_id: str) -> None:
        """Drop what is known of a task, and what still comes (A-33); whoever waits for it is cancelled."""
        self.table.forget(task_id)

    # -- what results that are messages cannot do ----------------------------------------------------

    def save_group(self, group_id: str, result: Any) -> Deferred[None]:
        """NotSupportedByBackend (A-28, B-17): keep the GroupResult, or its `as_child()`."""
        return self._not_supported("groups cannot be saved")

    def restore_group(self, group_id: str) -> Deferred[None]:
        """NotSupportedByBackend."""
        return self._not_supported("groups cannot be restored")

    def delete_group(self, group_id: str) -> Deferred[None]:
        """NotSupportedByBackend."""
        return self._not_supported("groups cannot be deleted")

    def reload_task_result(self, task_id: str) -> Deferred[None]:
        """NotSupportedByBackend."""
        return self._not_supported("a result cannot be read again")

    def reload_group_result(self, group_id: str) -> Deferred[None]:
        """NotSupportedByBackend."""
        return self._not_supported("a group cannot be read again")

    def _not_supported(self, what: str) -> Deferred[None]:
        return fail(NotSupportedByBackend(f"{what}: the {self.scheme} backend has messages, and no store"))

    # -- ending --------------------------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """Whoever waits fails; the connection stays open."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._is_closed = True
        if self._made_table is not None:
            self._made_table.close(self._closed())
        producer, self._made_producer = self._made_producer, None
        if producer is not None:
            await producer.close()
            try:
                await producer.channel.close()
            except TxmsgError as error:
                _log.debug("a channel was not closed in order: {error}", error=str(error))

    @staticmethod
    def _closed() -> TxmsgError:
        return TxmsgError("the results were closed by the application")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.connection!r}>"
