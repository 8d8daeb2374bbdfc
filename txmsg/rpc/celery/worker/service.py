"""CeleryWorker: a Twisted service that runs tasks which unmodified clients of Celery send.

The invariants: no message stops it, and none comes again at once; only registered tasks are run, `concurrency` of them
at a time; the queues are declared exactly as Celery does it, and no reply queue is; a stop has an end.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, TypeVar, overload

from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, TxmsgError, clip
from txmsg.messaging import Accept, Connection, Message, Queue, serializers
from txmsg.rpc.celery.task_request import BadTask, parse_task
from txmsg.rpc.celery.worker.control import Control
from txmsg.rpc.celery.worker.counts import WorkerCounts
from txmsg.rpc.celery.worker.execution import Execution
from txmsg.rpc.celery.worker.following import Following
from txmsg.rpc.celery.worker.intake import Intake
from txmsg.rpc.celery.worker.outcomes import not_registered, task_revoked
from txmsg.rpc.celery.worker.outgoing import Outgoing, celery_queue
from txmsg.rpc.celery.worker.refusing import refuse, settle
from txmsg.rpc.celery.worker.task import Tasks
from txmsg.rpc.stopping import StoppingService, pass_on

__all__ = ["CeleryWorker"]

_F = TypeVar("_F", bound=Callable[..., Any])

_log = Logger(namespace="txmsg.rpc.celery.worker")

#: Seconds before it consumes again, when that has ended although nobody asked for it: at first, and at most.
_AGAIN_FIRST, _AGAIN_MOST = 1.0, 30.0
#: Seconds: an eta is looked at again after that, for the wall clock may be set meanwhile.
_LONGEST_WAIT = 3600.0


class CeleryWorker(StoppingService):
    """Runs tasks; a Twisted service, or `start()` and `stop()`.

    connection: Connection, or a URL for one of its own.  Results go over another one to the same broker.
    tasks: Tasks, or what has them as `tasks`; None: new ones, for :meth:`task`.
    queues -- a str is a queue as Celery declares it; for any other, a Queue.
    concurrency: int -- tasks that are waited for at a time, 100.
    prefetch_count: int | None -- messages that are fetched and not settled, of each queue; those that wait for their
        eta are not counted; None: as `concurrency`.
    acks_late: bool -- False: a message is acked before its task is run, as Celery does it; True: after its result was
        sent, so that it is run again when the worker dies.
    track_started: bool -- send STARTED.   result_extended: bool -- results repeat name, args, kwargs, retries, worker
        and queue.
    accept -- serializers of tasks, ["json"]; results are JSON.
    reply_prefixes -- beginnings of further names that results may go to, beside UUIDs and the brokers' own.
    default_queue: str | None -- for tasks that follow others and name no queue; None: the first of `queues`.
    hostname: str | None -- by which control requests name it; None: a new one.
    control: bool -- hear requests on `celery.pidbox`: revoke, ping, inspect.
    drain_timeout: float -- seconds that tasks at work are given at a stop, 10.  What has not ended then goes back to
        its queue, or, where it was acked already, its client is told (WorkerLostError).
    close_timeout: float -- seconds for each thing that then remains, 5.
    retry_policy -- of what it publishes.   wall_clock -- seconds since 1970, for eta and expires.
    """

    def __init__(
        self,
        connection: Connection | str,
        tasks: Any = None,
        queues: Iterable[Queue | str] | Queue | str = ("celery",),
        *,
        concurrency: int = 100,
        prefetch_count: int | None = None,
        acks_late: bool = False,
        track_started: bool = False,
        result_extended: bool = False,
        accept: Accept = ("json",),
        reply_prefixes: Iterable[str] = (),
        default_queue: str | None = None,
        hostname: str | None = None,
        control: bool = True,
        drain_timeout: float = 10.0,
        close_timeout: float = 5.0,
        retry_policy: Any = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
            raise ConfigurationError(f"concurrency is an int from 1, not {concurrency!r}")
        for seconds in (drain_timeout, close_timeout):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 1e9:
                raise ConfigurationError(f"the timeouts of a worker are seconds from 0, not {seconds!r}")
        serializers.accept(accept)
        self._owns_connection = isinstance(connection, str)
        super().__init__(Connection(connection) if isinstance(connection, str) else connection, _log)
        del connection
        self.tasks = _tasks_of(tasks)
        given = [queues] if isinstance(queues, Queue | str) else list(queues)
        self.queues = [celery_queue(queue) if isinstance(queue, str) else queue for queue in given]
        if not self.queues:
            raise ConfigurationError("a worker has a queue at least")
        self.concurrency = concurrency
        self.prefetch_count = min(concurrency, 65535) if prefetch_count is None else prefetch_count
        self.acks_late = acks_late
        self.track_started = track_started
        self.result_extended = result_extended
        self.hostname = hostname or f"txmsg{os.getpid()}.{token_hex(3)}@{socket.gethostname()}"
        self.drain_timeout = drain_timeout
        self.close_timeout = close_timeout
        self.counts = WorkerCounts()
        self.control = Control(self)
        self._has_control = control
        self._accept = accept
        self._wall_clock = wall_clock
        self.outgoing = Outgoing(self.connection.clone(), self.counts, reply_prefixes, retry_policy)
        self.following = Following(self.outgoing, default_queue or self.queues[0].name)
        self._intakes: list[Intake] = []
        self._starting: Deferred[None] | None = None
        #: Tasks that run, that wait for a place, and that wait for their eta.
        self.executions_running: dict[Execution, None] = {}
        self.executions_waiting: deque[Execution] = deque()
        self.executions_held: dict[Execution, None] = {}
        self._held_by_id: dict[str, Execution] = {}
        #: Answers to what is not run, under way.
        self._answering: set[Deferred[Any]] = set()
        #: Waits before it consumes again.
        self._waiting_again: set[Deferred[None]] = set()
        self._is_beginning = False

    @overload
    def task(self, function: _F, /) -> _F: ...

    @overload
    def task(self, function: None = None, /, **options: Any) -> Callable[[_F], _F]: ...

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Decorator: as :meth:`Tasks.task`, for the tasks of this worker."""
        return self.tasks.task(function, **options)

    def now(self) -> datetime:
        """The time by the wall clock, in UTC."""
        return datetime.fromtimestamp(self._wall_clock(), UTC)

    @property
    def is_consuming(self) -> bool:
        """Whether tasks may come from each queue."""
        return bool(self._intakes) and all(intake.is_consuming for intake in self._intakes)

    # -- starting --------------------------------------------------------------------------------------

    def startService(self) -> None:
        """:meth:`start`; what stops it from starting is logged."""
        super().startService()  # type: ignore[no-untyped-call]
        self.start().addErrback(_log_failure, "the Celery worker cannot start")

    def start(self) -> Deferred[None]:
        """Connect, by as many attempts as that takes, declare the queues, and consume; fires then.

        Fails with what another attempt cannot cure: AuthenticationFailed, PreconditionFailed (a queue is there and is
        another one) ...  After a loss it goes on by itself.
        """
        if self._is_stopping:
            return fail(ConfigurationError("the worker is stopping"))
        starting = self._starting
        if starting is None:
            self._stopped = None
            starting = self._starting = Deferred.fromCoroutine(self._start())
            starting.addErrback(self._not_started)
        waiter: Deferred[None] = Deferred()
        starting.addBoth(pass_on, waiter)
        return waiter

    def _not_started(self, failure: Failure) -> Failure:
        self._starting = None
        return failure

    async def _start(self) -> None:
        try:
            await self.connection.ensure_connection()
            await self.outgoing.connection.ensure_connection()
            if self._has_control:
                await self.control.start()
            self.connection.add_recovery_callback(self._recovered)
            for queue in self.queues:
                intake = Intake(self.connection, queue, self.prefetch_count, self._received, self._ended)
                self._intakes.append(intake)
                await intake.start()
        except BaseException:
            intakes, self._intakes = self._intakes, []
            self.connection.remove_recovery_callback(self._recovered)
            for intake in intakes:
                intake.close().addErrback(_ignore)
            self.control.stop().addErrback(_ignore)
            raise
        _log.info(
            "{hostname} runs {count} tasks of {queues}",
            hostname=self.hostname,
            count=len(self.tasks),
            queues=", ".join(queue.name for queue in self.queues),
        )

    def _ended(self, reason: BaseException, intake: Intake) -> None:
        """The consuming is over, for good: as long as nobody stops us, begin again."""
        if self._is_stopping or intake not in self._intakes:
            return
        if self.connection.is_closed:
            _log.info("the Celery worker ends with its connection: {reason}", reason=str(reason))
            return
        _log.warn(
            "tasks of {queue!r} do not come any more, consuming again: {reason}",
            queue=clip(intake.queue.name),
            reason=str(reason),
        )
        Deferred.fromCoroutine(self._start_again(intake)).addErrback(_log_failure, "the Celery worker has ended")

    async def _start_again(self, intake: Intake) -> None:
        wait = _AGAIN_FIRST
        while intake in self._intakes and not self.connection.is_closed:
            waiting: Deferred[None] = deferLater(self.connection.reactor, wait)
            self._waiting_again.add(waiting)
            try:
                await waiting
            except CancelledError:  # a stop
                return
            finally:
                self._waiting_again.discard(waiting)
            if self._is_stopping or intake not in self._intakes:
                return
            try:
                await intake.start()
                return
            except TxmsgError as error:
                wait = min(wait * 2, _AGAIN_MOST)
                _log.warn("cannot consume, trying again in {wait:g} s: {error}", wait=wait, error=str(error))

    def _recovered(self, reason: BaseException | None, delay: float | None = None) -> None:
        """The connection is back: what was here unsettled comes again, so it is not kept twice."""
        if reason is not None:
            return
        for execution in [each for each in self.executions_held if each.is_stale]:
            self._unhold(execution)
            self.counts.stale += 1
        kept = [each for each in self.executions_waiting if not each.is_stale]
        self.counts.stale += len(self.executions_waiting) - len(kept)
        self.executions_waiting = deque(kept)

    # -- messages --------------------------------------------------------------------------------------

    def _received(self, message: Message, intake: Intake) -> None:
        self.counts.received += 1
        if self._is_stopping:
            settle(message.requeue)
            return
        parsed = parse_task(message.raw_body, message.properties, accept=self._accept)
        if isinstance(parsed, BadTask):
            self.counts.bad += 1
            self._answer(refuse(self, message, parsed), message)
            return
        task = self.tasks.get(parsed.name)
        if task is None:
            self.counts.unknown += 1
            self._answer(refuse(self, message, not_registered(parsed), parsed.embed.chain), message)
            return
        execution = Execution(self, intake, message, parsed, task)
        reason = execution.why_not()
        if reason is not None:
            self._answer(execution.refuse(reason), message)
        elif parsed.eta is not None and parsed.eta > self.now():
            self._hold(execution)
        else:
            self._ready(execution)

    def _answer(self, answering: Coroutine[Any, Any, None], message: Message) -> None:
        """Wait for an answer to what is not run; if it fails, the message must not stay."""
        deferred = Deferred.fromCoroutine(answering)
        if deferred.called and not isinstance(deferred.result, Failure):
            return
        self._answering.add(deferred)

        def over(outcome: Any) -> None:
            self._answering.discard(deferred)
            if isinstance(outcome, Failure):
                _log.failure("a message could not be answered", failure=outcome)
                if message.state == "received":
                    settle(message.reject)
            self._tell_if_idle()

        deferred.addBoth(over)

    # -- eta -------------------------------------------------------------------------------------------

    def _hold(self, execution: Execution) -> None:
        """Keep it until its eta; another message may come in its place (K-06)."""
        # A channel that was closed because of `consumer_timeout` brings it again while the lost one is still here.
        lost = self._held_by_id.get(execution.request.task_id)
        if lost is not None and lost.is_stale:
            self._unhold(lost)
            self.counts.stale += 1
        self.executions_held[execution] = None
        self._held_by_id[execution.request.task_id] = execution
        execution.intake.hold()
        self._wait(execution)

    def _wait(self, execution: Execution) -> None:
        eta = execution.request.eta
        assert eta is not None
        left = (eta - self.now()).total_seconds()
        execution.timer = self.connection.reactor.callLater(max(0.0, min(left, _LONGEST_WAIT)), self._due, execution)

    def _due(self, execution: Execution) -> None:
        eta = execution.request.eta
        if eta is not None and eta > self.now() and not execution.is_stale:
            self._wait(execution)
            return
        self._unhold(execution)
        self._ready(execution)

    def _unhold(self, execution: Execution) -> None:
        if execution.timer is not None and execution.timer.active():
            execution.timer.cancel()
        execution.timer = None
        del self.executions_held[execution]
        if self._held_by_id.get(execution.request.task_id) is execution:
            del self._held_by_id[execution.request.task_id]
        execution.intake.release()

    # -- running ---------------------------------------------------------------------------------------

    def _ready(self, execution: Execution) -> None:
        self.executions_waiting.append(execution)
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Run what waits, as far as there are places; one loop, however many end at once."""
        if self._is_beginning or self._is_stopping:
            return
        self._is_beginning = True
        try:
            while self.executions_waiting and len(self.executions_running) < self.concurrency:
                execution = self.executions_waiting.popleft()
                self.executions_running[execution] = None
                Deferred.fromCoroutine(execution.run()).addBoth(self._run_over, execution)
        finally:
            self._is_beginning = False

    def _run_over(self, outcome: object, execution: Execution) -> None:
        del self.executions_running[execution]
        if isinstance(outcome, Failure):
            _log.failure("{task} could not be finished", failure=outcome, task=execution)
        self._begin_waiting()
        self._tell_if_idle()

    def revoke(self, task_ids: set[str], terminate: bool) -> list[str]:
        """For the control: what waits is answered now, and what runs is cancelled (`terminate`); ids of the latter."""
        held = [each for each in self.executions_held if each.request.task_id in task_ids]
        waiting = [each for each in self.executions_waiting if each.request.task_id in task_ids]
        for execution in held:
            self._unhold(execution)
        if waiting:
            revoked = set(waiting)
            self.executions_waiting = deque(each for each in self.executions_waiting if each not in revoked)
        for execution in held + waiting:
            if execution.is_stale:
                self.counts.stale += 1
            else:
                self._answer(execution.refuse(task_revoked("revoked")), execution.message)
        ended = []
        for execution in [each for each in self.executions_running if each.request.task_id in task_ids]:
            if terminate:
                execution.terminate()
                ended.append(execution.request.task_id)
        return ended

    # -- stopping --------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None and not starting.called:
            starting.addErrback(_ignore)
            starting.cancel()
        self.connection.remove_recovery_callback(self._recovered)
        intakes, self._intakes = self._intakes, []
        for again in list(self._waiting_again):
            again.cancel()
        ending = [intake.stop() for intake in intakes]
        if self._has_control:
            ending.append(self.control.stop())
        await self._within(self.close_timeout, _all(ending), "cancelling the consumers")
        for execution in list(self.executions_held):
            self._unhold(execution)
            execution.give_back()
        waiting, self.executions_waiting = self.executions_waiting, deque()
        for execution in waiting:
            execution.give_back()
        await self._within(self.drain_timeout, self._when_idle(), "draining")
        self.unfinished = len(self.executions_running)
        for execution in list(self.executions_running):
            execution.stop()
        await self._within(self.close_timeout, self._when_idle(), "sending the last results")
        ending = [self.outgoing.close()]
        if self._owns_connection:
            ending.append(self.connection.close())
        else:
            ending += [intake.close() for intake in intakes]
        await self._within(self.close_timeout, _all(ending), "closing")
        self._is_stopping = False

    def _when_idle(self) -> Deferred[None]:
        if not self.executions_running and not self._answering:
            return succeed(None)
        return self._wait_for_idle()

    def _tell_if_idle(self) -> None:
        if not self.executions_running and not self._answering:
            self._tell_idle_waiters()

    def __repr__(self) -> str:
        state = "stopping" if self._is_stopping else "consuming" if self.is_consuming else "idle"
        names = ", ".join(clip(queue.name, 60) for queue in self.queues)
        return f"<CeleryWorker of [{names}], {state}, {len(self.executions_running)} running>"


def _tasks_of(given: Any) -> Tasks:
    found = Tasks() if given is None else given if isinstance(given, Tasks) else getattr(given, "tasks", None)
    if not isinstance(found, Tasks):
        raise ConfigurationError(f"tasks are Tasks, or what has them as `tasks`, not {type(given).__name__}")
    return found


def _all(deferreds: Iterable[Deferred[Any]]) -> Deferred[Any]:
    """All of them; how each ends does not matter."""
    return DeferredList(list(deferreds), consumeErrors=True)


def _ignore(failure: Failure) -> None:
    """What fails while something else has failed."""


def _log_failure(failure: Failure, what: str) -> None:
    _log.failure("{what}", failure=failure, what=what)
