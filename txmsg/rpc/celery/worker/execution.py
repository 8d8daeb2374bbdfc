"""Execution: one task message, from its receipt to its settlement.

    received -> held until its eta -> waits for a place -> runs -> what follows is sent, then the result -> settled

Invariants: the message is settled once, and not before what has to be sent first was confirmed (`acks_late`); a task
whose message the broker will deliver again is not run; whatever the function raises is data in a result; one final
state is sent, after all others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import RemoteError, SettlementError, TxmsgError, clip
from txmsg.messaging import Message, serializers
from txmsg.rpc.celery.failures import traceback_text
from txmsg.rpc.celery.message import TaskMessage
from txmsg.rpc.celery.reprs import bounded_repr
from txmsg.rpc.celery.result_message import Child, ResultMessage, build_result
from txmsg.rpc.celery.states import FAILURE, READY_STATES, RETRY, REVOKED, STARTED, SUCCESS
from txmsg.rpc.celery.task_request import TaskRequest, build_retry
from txmsg.rpc.celery.worker.outcomes import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    rejected,
    soft_time_limit_exceeded,
    task_revoked,
    time_limit_exceeded,
    worker_lost,
)
from txmsg.rpc.celery.worker.request import Request
from txmsg.rpc.celery.worker.running import Running

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from txmsg.rpc.celery.worker.intake import Intake
    from txmsg.rpc.celery.worker.service import CeleryWorker
    from txmsg.rpc.celery.worker.task import Task

__all__ = ["Execution"]

_log = Logger(namespace="txmsg.rpc.celery.worker")


class _Stopped(Exception):
    """The worker stops, and the task has not ended in time."""


class _Failed:
    """A Failure as a value: its traceback stays that of the function."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Execution:
    """One run of a task.

    worker: CeleryWorker.   intake: Intake -- where the message came from.   message: Message.
    request: TaskRequest.   task: Task.
    """

    def __init__(
        self, worker: CeleryWorker, intake: Intake, message: Message, request: TaskRequest, task: Task
    ) -> None:
        self.worker = worker
        self.intake = intake
        self.message = message
        self.request = request
        self.task = task
        self.acks_late = worker.acks_late if task.acks_late is None else task.acks_late
        #: Waits for its eta.
        self.timer: IDelayedCall | None = None
        self.running: Running | None = None
        self.is_over = False
        #: With what the waiting for it was ended by us.
        self._abandoned_with: Any = None
        self._bound = Request(self, request, task)
        self._timers: list[IDelayedCall] = []

    # -- its message -----------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """Whether the message was lost with its connection: the broker delivers it again."""
        return self.message.state == "received" and self.message.delivery.is_settled

    def settle(self, how: Callable[[], None]) -> bool:
        """Settle it; False where it was lost before."""
        try:
            how()
        except SettlementError as error:
            self.worker.counts.stale += 1
            _log.debug("the message of {task} was not settled: {error}", task=self, error=str(error))
            return False
        return True

    def _ack(self) -> None:
        if self.message.state == "received":
            self.settle(self.message.ack)

    def give_back(self) -> None:
        """To its queue: it was not begun."""
        self.is_over = True
        self.worker.counts.given_back += 1
        self.settle(self.message.requeue)

    # -- its results -----------------------------------------------------------------------------------

    def _is_wanted(self, state: str) -> bool:
        """L-01 to L-04."""
        request, task = self.request, self.task
        ignored = task.ignore_result if request.ignore_result is None else request.ignore_result
        return not ignored or (state in (FAILURE, RETRY, REVOKED) and task.store_errors_even_if_ignored)

    def send_state(
        self, state: str, result: Any, children: list[Child] | None = None, traceback: str | None = None
    ) -> Deferred[None]:
        """Send a state to the client, if it wants it; EncodeError where it cannot be."""
        if self.is_over or not self._is_wanted(state):
            return succeed(None)
        return self._send(self._build(state, result, children, traceback))

    def _send(self, made: ResultMessage) -> Deferred[None]:
        """A final one is replaced where the broker refuses it: else the client would wait for ever (J-11)."""
        instead = self._refused if made.state in READY_STATES else None
        return self.worker.outgoing.send_result(self.request.reply_to, made, instead)

    def _refused(self, why: str) -> ResultMessage:
        return self._build(FAILURE, RemoteError("EncodeError", why, "kombu.exceptions", (why,)))

    def _build(
        self, state: str, result: Any, children: list[Child] | None = None, traceback: str | None = None
    ) -> ResultMessage:
        request = self.request
        return build_result(
            request.task_id,
            state,
            result,
            correlation_id=request.correlation_id,
            traceback=traceback,
            children=children or (),
            now=self.worker.now(),
            group_id=request.group_id,
            parent_id=request.parent_id,
            extended=self._extended() if self.worker.result_extended else None,
        )

    def _extended(self) -> dict[str, Any]:
        """What `result_extended` adds (H-09)."""
        request = self.request
        return {
            "name": request.name,
            "args": request.args,
            "kwargs": request.kwargs,
            "worker": self.worker.hostname,
            "retries": request.retries,
            "queue": self.intake.queue.name,
        }

    def call_from_thread(self, state: str, result: Any) -> None:
        """As :meth:`send_state`, from another thread; what cannot be sent is logged."""

        def send() -> None:
            if self._bound.is_over:
                return
            try:
                self.send_state(state, result)
            except TxmsgError as error:
                _log.warn("{task}: {state} was not sent: {error}", task=self, state=clip(state), error=str(error))

        self.worker.connection.reactor.callFromThread(send)

    # -- before it runs --------------------------------------------------------------------------------

    def why_not(self) -> RemoteError | None:
        """Why it is not run: it was called off, or has expired (K-08, K-09)."""
        if self.worker.control.is_revoked(self.request.task_id):
            return task_revoked("revoked")
        if self.request.is_expired(self.worker.now()):
            return task_revoked("expired")
        return None

    async def refuse(self, reason: RemoteError) -> None:
        """REVOKED, also for what is left of its chain; and acked."""
        counts = self.worker.counts
        if reason.exc_args == ("expired",):
            counts.expired += 1
        else:
            counts.revoked += 1
        _log.info("{task} is not run: {reason}", task=self, reason=reason.message)
        await self.send_state(REVOKED, reason)
        await self._answer_chain(REVOKED, reason, None)
        self.is_over = True
        self._ack()

    # -- running ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run it, and settle it; does not fail."""
        if self.is_stale:
            self._is_stale_now()
            return
        try:
            await self._run()
        except Exception:
            _log.failure("{task} could not be finished", task=self)
            await self._give_up()
        finally:
            self.is_over = True
            self._stop_timers()

    async def _give_up(self) -> None:
        """The worker itself failed: tell the client, and never let it come again at once."""
        error = worker_lost("the worker could not finish the task")
        try:
            await self._answer_chain(FAILURE, error, None)
            await self.send_state(FAILURE, error)
        except Exception:
            _log.failure("nobody can be told of {task}", task=self)
        if self.message.state == "received":
            self.settle(self.message.reject)

    def _is_stale_now(self) -> None:
        self.is_over = True
        self.worker.counts.stale += 1

    async def _run(self) -> None:
        reason = self.why_not()
        if reason is not None:
            await self.refuse(reason)
            return
        if not self.acks_late and not self.settle(self.message.ack):
            return  # it comes again
        task = self.task
        if self.worker.track_started if task.track_started is None else task.track_started:
            self.send_state(STARTED, {"pid": os.getpid(), "hostname": self.worker.hostname})
        _log.debug("{task} begins", task=self)
        outcome = await self._call().addErrback(_Failed)
        self._stop_timers()
        if isinstance(outcome, _Failed):
            await self._failed(outcome.failure)
        else:
            await self._succeeded(outcome)

    def _call(self) -> Deferred[Any]:
        task, request = self.task, self.request
        args = [self._bound, *request.args] if task.bind else request.args
        self.running = Running(
            lambda: task.function(*args, **request.kwargs), self.worker.connection.reactor, task.thread
        )
        if not self.running.is_over:
            self._limit(self._bound.soft_time_limit, self._soft_time_limit_is_over)
            self._limit(self._bound.time_limit, self._time_limit_is_over)
        return self.running.ended

    def _limit(self, seconds: float | None, call: Callable[[], None]) -> None:
        if seconds:
            self._timers.append(self.worker.connection.reactor.callLater(seconds, call))

    def _stop_timers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()

    def _soft_time_limit_is_over(self) -> None:
        _log.warn("the soft time limit of {task} is over", task=self)
        try:
            is_told = self._bound.soft_time_limit_is_over()
        except Exception:
            _log.failure("what {task} does at its soft time limit failed", task=self)
            return
        if not is_told and self.running is not None:
            self.running.interrupt()

    def _time_limit_is_over(self) -> None:
        _log.error("the time limit of {task} is over", task=self)
        self._abandon(time_limit_exceeded(self._bound.time_limit or 0))

    def terminate(self) -> None:
        """Called off while it runs (K-12): REVOKED, and the function is cancelled."""
        self._abandon(task_revoked("terminated"))

    def stop(self) -> None:
        """The worker does not wait for it any longer."""
        self._abandon(_Stopped())

    def _abandon(self, error: BaseException) -> None:
        if self.running is not None and not self.running.is_over:
            self._abandoned_with = error
            self.running.abandon(error)

    # -- how it ends -----------------------------------------------------------------------------------

    async def _succeeded(self, result: Any) -> None:
        request = self.request
        made = self._build(SUCCESS, result) if self._is_wanted(SUCCESS) else None
        try:
            if made is not None and made.state != SUCCESS:
                # It cannot be encoded, so nothing may follow it (J-11); this fails.
                serializers.dumps(result, "json")
            children = await self.worker.following.succeeded(request, result)
        except TxmsgError as error:
            if error.recoverable and self.acks_late:
                # There was no broker: nothing is known to be done, so it is run again.
                _log.error("what follows {task} was not sent: {error}", task=self, error=str(error))
                self.settle(self.message.requeue)
                return
            await self._failed(Failure())
            return
        self.worker.counts.succeeded += 1
        if made is not None:
            if children:
                made = self._build(SUCCESS, result, children)
            await self._send(made)
        self._ack()

    async def _failed(self, failure: Failure) -> None:
        value: Any = failure.value
        if isinstance(value, Retry):
            await self._retry(value, failure)
        elif isinstance(value, Ignore):
            self.worker.counts.ignored += 1
            self._ack()
        elif isinstance(value, Reject):
            await self._rejected(value)
        elif isinstance(value, _Stopped):
            await self._stopped()
        elif value is self._abandoned_with and value.exc_type == "TaskRevokedError":
            await self.refuse(value)
        else:
            traceback = None if value is self._abandoned_with else traceback_text(failure)
            error = value
            if isinstance(value, SoftTimeLimitExceeded):
                error = soft_time_limit_exceeded()
            elif not isinstance(value, Exception):  # under its own name it would end the client's process, too
                error = worker_lost(f"the task has raised {bounded_repr(value)}")
            await self._fail(error, traceback, failure)

    async def _fail(self, error: BaseException, traceback: str | None, failure: Failure) -> None:
        """FAILURE: to the client, for what is left of the chain, and to errbacks."""
        self.worker.counts.failed += 1
        if failure.check(*self.task.throws):
            _log.info("{task} failed: {error}", task=self, error=bounded_repr(failure.value))
        else:
            _log.error(
                "{task} failed: {error}\n{traceback}",
                task=self,
                error=bounded_repr(failure.value),
                traceback=traceback or "",
            )
        await self._answer_chain(FAILURE, error, traceback)
        await self.send_state(FAILURE, error, traceback=traceback)
        # After the result: nobody says how long they take.
        await self._errbacks(error, traceback)
        self._ack()

    async def _answer_chain(self, state: str, error: BaseException, traceback: str | None) -> None:
        chain = self.request.embed.chain
        if chain:
            await self.worker.following.will_not_run(chain, state, error, traceback, self.worker.now())

    async def _errbacks(self, error: BaseException, traceback: str | None) -> None:
        """M-07: those of one parameter are sent; those of more, and registered here, are called."""
        for errback in self.request.embed.errbacks:
            task = self.worker.tasks.get(errback.task)
            try:
                if task is not None and not errback.immutable and task.takes_error():
                    args = [self._bound, error, traceback, *errback.args]
                    if task.bind:
                        args.insert(0, self._bound)
                    await Running(
                        partial(task.function, *args, **errback.kwargs),
                        self.worker.connection.reactor,
                        task.thread,
                    ).ended
                else:
                    await self.worker.following.failed(self.request, errback)
            except Exception:
                _log.failure("the errback {errback} of {task} failed", errback=clip(errback.task), task=self)

    def retry_message(self, retry: Retry) -> TaskMessage:
        """The message of the next attempt; ConfigurationError, EncodeError."""
        properties = self.message.properties
        options = dict(retry.changes)
        options.setdefault("serializer", serializers.type_to_name.get(properties.get("content_type") or "", "json"))
        options.setdefault("compression", self.message.headers.get("compression"))
        options.setdefault("persistent", properties.get("delivery_mode", 2) != 1)
        made = build_retry(self.request, eta=retry.eta, now=self.worker.now(), **options)
        # The broker would drop it silently; a worker answers that it has expired.
        return replace(made, properties={key: made.properties[key] for key in made.properties if key != "expiration"})

    async def _retry(self, retry: Retry, failure: Failure) -> None:
        """RETRY, then the message of the next attempt; when that is confirmed, this one is acked (K-01 to K-05)."""
        why = retry.exc
        if why is None:
            why = RemoteError("Retry", str(retry), "celery.exceptions", (str(retry),))
        # RETRY first: else the next attempt's result could be there before it.
        sent = self.send_state(RETRY, why, [Child(self.request.task_id)], traceback_text(failure))
        try:
            message = self.retry_message(retry)
            await self.worker.outgoing.send_task(message, retry.queue or self.intake.queue.name)
        except TxmsgError as error:
            _log.error("{task} cannot be sent again: {error}", task=self, error=str(error))
            if error.recoverable and self.acks_late:
                self.settle(self.message.requeue)
                return
            await self._fail(error if retry.exc is None else retry.exc, traceback_text(failure), Failure(error))
            return
        self.worker.counts.retried += 1
        await sent
        self._ack()

    async def _rejected(self, reject: Reject) -> None:
        self.worker.counts.rejected += 1
        is_here = self.message.state == "received"
        if not (reject.requeue and is_here):  # nobody runs it again
            error = rejected(reject)
            await self._answer_chain(FAILURE, error, None)
            await self.send_state(FAILURE, error)
        if is_here:
            self.settle(lambda: self.message.reject(reject.requeue))
        elif reject.requeue:
            _log.warn("{task} cannot be requeued: it was acked before it ran (acks_late)", task=self)

    async def _stopped(self) -> None:
        """Back to its queue if it can be (acks_late); else nobody runs it again, which is told."""
        if self.message.state == "received":
            self.worker.counts.given_back += 1
            self.settle(self.message.requeue)
            return
        error = worker_lost("the worker has ended before the task")
        await self._fail(error, None, Failure(error))

    def __repr__(self) -> str:
        return f"{clip(self.request.name, 100)}[{clip(self.request.task_id, 60)}]"
