"""CeleryApp: sends tasks to workers of Celery's, and to those of txmsg, and gives their results as Deferreds.

Where a task goes is what Celery does: queue ``celery``, a durable queue without arguments, bound to the
durable direct exchange of the same name; it is published to the default exchange with the queue's name as routing key.
The invariants: the queue for results is consumed before a task is published that names it; what a worker could
not read is not sent; a wait always has an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, TxmsgError, clip
from txmsg.errors.celery import NotSupportedByBackend
from txmsg.messaging import Accept, Connection, Exchange, Queue, RetryIntervals
from txmsg.rpc.celery.control import Control
from txmsg.rpc.celery.message import task_from_signature
from txmsg.rpc.celery.result_message import Child
from txmsg.rpc.celery.results import AMQPBackend, AsyncResult, GroupResult, ResultBackend, RPCBackend
from txmsg.rpc.celery.results.async_result import chain_results, result_of_child
from txmsg.rpc.celery.results.table import StateListener, TaskRecord
from txmsg.rpc.celery.routing import TaskQueues
from txmsg.rpc.celery.sending import TaskSender
from txmsg.rpc.celery.signature import OPTIONS, Signature, signatures_in
from txmsg.rpc.celery.signature import chain as chain_data
from txmsg.rpc.celery.signature import group as group_data
from txmsg.rpc.celery.times import Time
from txmsg.rpc.celery.waiting import within

__all__ = ["CeleryApp"]

_T = TypeVar("_T")

_BACKENDS: Final[dict[str, type[ResultBackend]]] = {"rpc": RPCBackend, "amqp": AMQPBackend}

_log = Logger(namespace="txmsg.rpc.celery.app")


class CeleryApp:
    """A client of Celery workers.

    broker: Connection | str -- a URL is for a connection of its own, which is closed with the app.
    backend -- "rpc", "amqp" (see :mod:`txmsg.rpc.celery.results`), or a ResultBackend, which is not closed with it.
    timeout: float -- seconds that a wait for a result has where nothing else is said, 300.
    default_queue: str -- "celery".   queues -- Queues that are not as Celery makes them by default; named in `queue=`.
    create_missing_queues: bool -- declare a queue that is not among them as Celery does; False: it has to be there.
    routes -- names of tasks to names of queues.
    serializer: str, compression: str | None, priority: int, protocol: int (2, or 1 for Celery 3.1) -- of task messages.
    accept -- content types of results, "json"; pickle is code that a stranger runs here.
    result_expires: float -- seconds after which results that nobody fetches are gone, one day.
    exceptions -- classes of your own that failures of tasks become; all others are RemoteError.
    retry_policy -- of sending: RetryIntervals, or a mapping with some of their fields; None: about 20 tries in as many
        seconds.   publish_timeout: float -- seconds that sending has in all, 30.
    max_in_flight: int -- tasks that are waited for, 10,000; more are Overloaded.
    namespace: str -- of the workers' remote control, "celery".
    reactor -- for the connection that it makes of a URL.   wall_clock -- seconds since 1970.

    Nothing is opened before the first task.  ConfigurationError, SerializerNotInstalled.
    """

    def __init__(
        self,
        broker: Connection | str = "amqp://localhost",
        *,
        backend: str | ResultBackend = "rpc",
        timeout: float = 300.0,
        default_queue: str = "celery",
        queues: Iterable[Queue] = (),
        create_missing_queues: bool = True,
        routes: Mapping[str, str] | None = None,
        serializer: str = "json",
        compression: str | None = None,
        priority: int = 0,
        protocol: int = 2,
        accept: Accept = ("json",),
        result_expires: float = 86_400.0,
        exceptions: Iterable[type[Exception]] = (),
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
        publish_timeout: float = 30.0,
        max_in_flight: int = 10_000,
        namespace: str = "celery",
        reactor: Any = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._owns_connection = isinstance(broker, str)
        self.connection = Connection(broker, reactor=reactor) if isinstance(broker, str) else broker
        del broker
        self._owns_backend = isinstance(backend, str)
        if isinstance(backend, str):
            if backend.removesuffix("://") not in _BACKENDS:
                raise ConfigurationError(f"backend is {' or '.join(map(repr, _BACKENDS))}, not {clip(backend, 40)!r}")
            backend = _BACKENDS[backend.removesuffix("://")](
                self.connection,
                accept=accept,
                expires=result_expires,
                timeout=timeout,
                exceptions=exceptions,
                max_waiting=max_in_flight,
            )
        self.backend: ResultBackend = backend
        self.control = Control(self.connection, namespace)
        #: Where tasks go.
        self.queues = TaskQueues(queues, default=default_queue, create_missing=create_missing_queues, routes=routes)
        self._defaults: dict[str, Any] = {"serializer": serializer, "priority": priority}
        if compression is not None:
            self._defaults["compression"] = compression
        self.protocol = protocol
        self._sender = TaskSender(
            self.connection, self.backend, retry_policy=retry_policy, publish_timeout=publish_timeout
        )
        self._wall_clock = wall_clock
        self._is_closed = False

    # -- one task ------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        countdown: float | None = None,
        eta: Time | None = None,
        expires: Time | None = None,
        queue: Queue | str | None = None,
        exchange: Exchange | str | None = None,
        routing_key: str | None = None,
        priority: int | None = None,
        headers: Mapping[str, Any] | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        retries: int | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        ignore_result: bool | None = None,
        link: Signature | Iterable[Signature] | None = None,
        link_error: Signature | Iterable[Signature] | None = None,
        task_id: str | None = None,
        group_id: str | None = None,
        group_index: int | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        reply_to: str | None = None,
        shadow: str | None = None,
        argsrepr: str | None = None,
        kwargsrepr: str | None = None,
        delivery_mode: int | str | None = None,
        protocol: int | None = None,
        mandatory: bool = True,
        retry: bool = True,
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
        on_state_change: StateListener | None = None,
    ) -> Deferred[AsyncResult]:
        """Send a task; fires with its handle when the broker has it.

        name -- as the worker has registered it.   args, kwargs -- what the serializer carries.
        countdown: seconds, eta -- not before then.   expires -- not after then: it is REVOKED, or dropped by the
        broker without a word, so that the wait for it ends with RPCTimeout.  Both are seconds from now, a timedelta, a
        datetime (naive: UTC) or ISO 8601.
        queue -- the name of one, or a Queue; None: as `routes` say, or `default_queue`.   exchange and routing_key --
        in place of a queue; an Exchange is declared, one by its name has to be there.
        priority: int, headers, serializer, compression, time_limit, soft_time_limit (seconds), retries, shadow,
        task_id, group_id, group_index, root_id, parent_id, argsrepr, kwargsrepr -- what :func:`build_task` says.
        ignore_result: bool -- nobody sends a result; None: as the task has it.
        link, link_error -- signatures that are run with its result, or when it has failed.
        reply_to: str | None -- a queue of somebody else, who gets the result then.
        delivery_mode -- 2, 1, "persistent" or "transient".   protocol: int -- 2 or 1; None: the app's.
        mandatory: bool -- NoResponder where it is routed to no queue.
        retry: bool -- send it again when the connection is lost: it may be there, and be run, twice then, under one id.
        on_state_change(message) -- called with each state that comes, a TaskResult.

        Fails with ConfigurationError or EncodeError for what a worker could not read; NoResponder; OperationalError
        when the retries are used up; PublishTimeout, NotSent or OperationTimeout after `publish_timeout`, which the
        queue for results has, and sending has; as connecting and declaring do
        (PreconditionFailed where somebody has declared the queue otherwise).
        """
        options: dict[str, Any] = {
            key: value
            for key, value in {
                "countdown": countdown,
                "eta": eta,
                "expires": expires,
                "queue": queue,
                "exchange": exchange,
                "routing_key": routing_key,
                "priority": priority,
                "headers": headers,
                "serializer": serializer,
                "compression": compression,
                "retries": retries,
                "time_limit": time_limit,
                "soft_time_limit": soft_time_limit,
                "ignore_result": ignore_result,
                "task_id": task_id,
                "group_id": group_id,
                "group_index": group_index,
                "root_id": root_id,
                "parent_id": parent_id,
                "reply_to": reply_to,
                "shadow": shadow,
                "argsrepr": argsrepr,
                "kwargsrepr": kwargsrepr,
                "delivery_mode": delivery_mode,
                "link": link,
                "link_error": link_error,
            }.items()
            if value is not None
        }
        try:
            signature = self.signature(name, args, kwargs, **options)
        except TxmsgError as error:
            return fail(error)
        how: dict[str, Any] = {"mandatory": mandatory, "retry": retry, "retry_policy": retry_policy}
        return self.send_signature(signature, protocol=protocol, on_state_change=on_state_change, **how)

    def _linked(self, given: Signature | Iterable[Signature]) -> list[dict[str, Any]]:
        """Each with an id, and with our queue for its result, which would go to the worker's otherwise (M-06)."""
        found = signatures_in([given] if isinstance(given, Signature) else given)
        if any(signature.kind in ("group", "chord") for signature in found):
            raise self._no_chord()
        return [
            signature.with_options(
                task_id=signature.task_id or str(uuid4()), reply_to=signature.reply_to or self.backend.reply_to
            ).as_data()
            for signature in found
        ]

    def call_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        revoke_on_cancel: bool = False,
        **options: Any,
    ) -> Deferred[Any]:
        """Send a task and wait for its value: :meth:`send_task` and :meth:`AsyncResult.get`, in one.

        timeout: float | None -- seconds for the result, from when the task has been sent.
        revoke_on_cancel -- of `get`.   options -- of `send_task`.
        """
        return self.send_task(name, args, kwargs, **options).addCallback(
            lambda result: result.get(timeout, revoke_on_cancel=revoke_on_cancel)
        )

    # -- signatures ----------------------------------------------------------------------------------

    def signature(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature:
        """A task that is sent later, or by somebody else: for groups, chains and links.

        immutable: bool -- it does not get the result of the task before it.   options -- of :meth:`send_task`; what
        travels with a chain or a link has to be what JSON can carry.   ConfigurationError, also for unknown options.
        """
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"the name of a task is a str that is not empty, not {clip(repr(name), 60)}")
        if unknown := options.keys() - OPTIONS:
            raise ConfigurationError(f"a task has no option {', '.join(sorted(unknown))}")
        for key in ("link", "link_error"):
            if options.get(key) is not None:
                options[key] = self._linked(options[key])
        if args is not None and not isinstance(args, list | tuple):
            raise ConfigurationError(f"the args of a task are a list or a tuple, not {type(args).__name__}")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise ConfigurationError(f"the kwargs of a task are a mapping, not {type(kwargs).__name__}")
        return Signature(name, tuple(args or ()), dict(kwargs or {}), options, immutable=immutable)

    def send_signature(
        self,
        signature: Signature,
        *,
        protocol: int | None = None,
        mandatory: bool = True,
        retry: bool = True,
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
        on_state_change: StateListener | None = None,
    ) -> Deferred[AsyncResult]:
        """Send one task, or a chain, that a signature stands for; as :meth:`send_task`."""
        if not isinstance(signature, Signature):
            return fail(ConfigurationError(f"a signature is wanted, not {type(signature).__name__}"))
        if signature.kind in ("group", "chord"):
            return fail(self._no_chord() if signature.kind == "chord" else ConfigurationError("use send_group()"))
        how: dict[str, Any] = {"mandatory": mandatory, "retry": retry, "retry_policy": retry_policy}
        if signature.kind == "chain":
            try:
                members = signature.members()
            except TxmsgError as error:
                return fail(error)
            return self.send_chain(members, on_state_change=on_state_change, protocol=protocol, **how)
        return Deferred.fromCoroutine(self._send(signature, protocol, on_state_change, how))

    async def _send(
        self,
        signature: Signature,
        protocol: int | None,
        on_state_change: StateListener | None,
        how: Mapping[str, Any],
        result: AsyncResult | None = None,
    ) -> AsyncResult:
        self._check_open()
        given = signature.options
        if given.get("delivery_mode", 2) not in (1, 2, "transient", "persistent"):
            raise ConfigurationError('delivery_mode is 2, 1, "persistent" or "transient"')
        backend = self.backend
        is_ours = signature.reply_to in (None, backend.reply_to)
        message = task_from_signature(
            signature,
            protocol=self.protocol if protocol is None else protocol,
            now=datetime.fromtimestamp(self._wall_clock(), UTC),
            reply_to=signature.reply_to or backend.reply_to,
            **{key: value for key, value in self._defaults.items() if given.get(key) is None},
        )
        destination = self.queues.destination(
            signature.task, given.get("queue"), given.get("exchange"), given.get("routing_key")
        )
        wants_result = is_ours and given.get("ignore_result") is not True
        if wants_result:
            await self._ready(backend.on_task_call(message.task_id))
            self._check_open()
        if result is None:
            result = AsyncResult(
                message.task_id,
                backend,
                control=self.control,
                task_name=signature.task,
                on_state_change=on_state_change if wants_result else None,
                # What nobody answers takes no place of what is waited for.
                record=None if wants_result else TaskRecord(message.task_id),
            )
        if not wants_result:
            result.ignore()
        try:
            await self._sender.send(message, destination, **how)
        except BaseException:
            backend.forget(message.task_id)
            raise
        return result

    def _check_open(self) -> None:
        if self._is_closed:
            raise TxmsgError("the app was closed")

    def _ready(self, readying: Deferred[_T]) -> Deferred[_T]:
        limit = self._sender.publish_timeout
        return within(limit, readying, self.connection.reactor, "the queue for results was not ready")

    # -- several tasks -------------------------------------------------------------------------------

    def send_group(
        self, signatures: Iterable[Signature], *, group_id: str | None = None, **how: Any
    ) -> Deferred[GroupResult]:
        """Send tasks that run at the same time; fires with the handle of all, in this order, when the broker has them.

        how -- protocol, mandatory, retry, retry_policy of :meth:`send_task`.

        Where one cannot be sent, it fails with that, after all others were tried; those that were sent are run, and
        what comes of them is dropped.  ConfigurationError: a group, chain or chord among them, or none at all.
        """
        return Deferred.fromCoroutine(self._send_group(signatures, group_id, how))

    async def _send_group(
        self, signatures: Iterable[Signature], group_id: str | None, how: Mapping[str, Any]
    ) -> GroupResult:
        signatures = signatures_in(signatures)
        if any(signature.kind == "chord" for signature in signatures):
            raise self._no_chord()
        made = group_data(signatures, reply_to=self.backend.reply_to, group_id=group_id)
        if not made.signatures:
            raise ConfigurationError("a group has at least one task")
        outcomes = await DeferredList(
            [self.send_signature(signature, **how) for signature in made.signatures], consumeErrors=True
        )
        results = [outcome for was_sent, outcome in outcomes if was_sent]
        for was_sent, outcome in outcomes:
            if not was_sent and isinstance(outcome, Failure):
                for result in results:
                    result.forget()
                outcome.raiseException()
        return GroupResult(made.group_id, results)

    def send_chain(
        self, signatures: Iterable[Signature], *, on_state_change: StateListener | None = None, **how: Any
    ) -> Deferred[AsyncResult]:
        """Send tasks that run one after the other, each with the result of the one before it as first argument.

        Fires with the handle of the last one, when the broker has the first; its `parent` is that of the one before.
        on_state_change -- of the last one.   how -- mandatory, retry, retry_policy of :meth:`send_task`.

        NotSupportedByBackend: a group with a task after it is a chord (A-29).
        """
        return Deferred.fromCoroutine(self._send_chain(signatures, on_state_change, how))

    async def _send_chain(
        self, signatures: Iterable[Signature], on_state_change: StateListener | None, how: Mapping[str, Any]
    ) -> AsyncResult:
        signatures = signatures_in(signatures)
        if any(signature.kind in ("group", "chord") for signature in signatures):
            raise self._no_chord()
        made = chain_data(signatures, reply_to=self.backend.reply_to)
        await self._ready(self.backend.ready())
        results = chain_results(made.task_ids, self.backend, self.control)
        if on_state_change is not None:
            results[-1].on_state_change(on_state_change)
        first = made.first.with_options(chain=[signature.as_data() for signature in made.rest])
        settings = {"mandatory": True, "retry": True, "retry_policy": None, **how}
        protocol = settings.pop("protocol", None)
        try:
            await self._send(first, protocol, None, settings, results[0])
        except BaseException:
            for result in results:
                result.forget()
            raise
        return results[-1]

    def send_chord(self, header: Iterable[Signature], body: Signature) -> Deferred[AsyncResult]:
        """NotSupportedByBackend (A-29): join the group here, and send the body with its results."""
        return fail(self._no_chord())

    def _no_chord(self) -> NotSupportedByBackend:
        return NotSupportedByBackend(
            f"chords need a store of results, which the {self.backend.scheme} backend is not: "
            "join the group here, and send the next task with its results"
        )

    # -- results -------------------------------------------------------------------------------------

    def result(self, task_id: str) -> AsyncResult:
        """A handle for a task of this process, by its id; a result that came before there was one is in it (A-18)."""
        return AsyncResult(task_id, self.backend, control=self.control)

    def group_result(self, group_id: str, task_ids: Iterable[str]) -> GroupResult:
        """The same for tasks that were sent as a group."""
        return GroupResult(group_id, [self.result(task_id) for task_id in task_ids])

    def result_from(self, child: Child) -> AsyncResult | GroupResult:
        """A handle again, from what its `as_child()` gave."""
        return result_of_child(child, self.backend, self.control)

    # -- life ----------------------------------------------------------------------------------------

    def start(self) -> Deferred[Self]:
        """Connect, and be ready for results; fires with the app.  Without it, that is done with the first task.

        TxmsgError: it was closed; make another.
        """
        if self._is_closed:
            return fail(TxmsgError("the app was closed"))
        return self.backend.ready().addCallback(lambda _: self)

    def close(self) -> Deferred[None]:
        """Whoever waits for a result fails; the queue for results goes, and the connection if it is the app's."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._is_closed = True
        await self._sender.close()
        for part in (self.control, self.backend if self._owns_backend else None):
            if part is None:
                continue
            try:
                await part.close()
            except TxmsgError as error:
                _log.debug("not everything was closed in order: {error}", error=str(error))
        if self._owns_connection:
            await self.connection.close()

    async def __aenter__(self) -> Self:
        """Connects (:meth:`start`); leaving the block closes it."""
        try:
            return await self.start()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<CeleryApp on {self.connection!r}>"
