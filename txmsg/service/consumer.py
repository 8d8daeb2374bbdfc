"""The consumer service: connect, declare, consume, drain, end.

A :class:`twisted.application.service.Service` for `twistd`, a .tac file or another service.  It knows no
process: how it ended is told by :meth:`ConsumerService.when_finished`, and what becomes of the process is
the business of :mod:`txmsg.service.exit`.

It consumes on a :class:`txmsg.amqp.ReconnectingConnection`: a lost connection, a closed channel, a cancelled consumer
and a deleted queue are not its end, but what :mod:`txmsg.service.watch` has no patience for any more is.

Invariants: it ends exactly once, with one :class:`~txmsg.service.exit_codes.Outcome`, within `drain` plus the
connections' own limits, whatever ended it and whatever state its connections are in (R30).  It never goes on without a
consumer that is there or on its way back (R25).  What is unsettled when it ends is the broker's to deliver again (R22).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp import (
    Backoff,
    ConnectionParameters,
    ReconnectingConnection,
    RecoveryEvent,
    RecoveryState,
    StateChange,
)
from txmsg.amqp.recovery.events import CHANNEL_FAILED, CONSUMER_ENDED
from txmsg.amqp.secret import Secret
from txmsg.errors import NotFound, OperationTimeout, TxmsgError, clip
from txmsg.service.config import ConsumerConfig
from txmsg.service.connection import connection_targets
from txmsg.service.declared import DeclaredConsumer
from txmsg.service.dispatch import Counts, HandlerDispatch
from txmsg.service.exit_codes import ExitCode, Outcome, Stage, explain
from txmsg.service.handler import Handler
from txmsg.service.plan import ConsumerPlan, plan_consumers
from txmsg.service.publishing import ServicePublishing
from txmsg.service.subscription import Subscription
from txmsg.service.watch import ConnectionWatch

__all__ = ["ConsumerService"]

#: Seconds until a queue is looked for again whose node is not there.
_NODE_DOWN_DELAY = 1.0


class _State(enum.Enum):
    IDLE = "idle"
    STARTING = "starting"
    CONSUMING = "consuming"
    STOPPING = "stopping"
    FINISHED = "finished"


class ConsumerService(Service):
    """Consumes one queue with one handler, or what several declared handlers say.

    config: what to do.  handler: the callable; None imports what `config` names.
    consumers: handlers with `@consumes`, or DeclaredConsumers, in place of those that `config` names.
    reactor: None takes the global one when the service starts.
    endpoint: as for :class:`txmsg.amqp.ReconnectingConnection`, for tests without sockets.
    plans: what `plan_consumers` has made of `config` already.

    Raises ConfigurationError for parameters or a handler that cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        config: ConsumerConfig,
        handler: Handler | None = None,
        *,
        consumers: Sequence[DeclaredConsumer | Handler] | None = None,
        reactor: Any = None,
        endpoint: Callable[[Any], IStreamClientEndpoint] | None = None,
        plans: Sequence[ConsumerPlan] | None = None,
    ) -> None:
        self.config = config
        self._plans = list(plans) if plans is not None else plan_consumers(config, handler, consumers)
        self._queue = ", ".join(plan.config.queue for plan in self._plans)
        self._targets: list[ConnectionParameters] = connection_targets(config, self._queue)
        self._reactor = reactor
        self._endpoint = endpoint
        self._addresses = {f"{target.host}:{target.port}": target.as_url() for target in self._targets}
        self._address = "; ".join(self._addresses.values())
        self._state = _State.IDLE
        self._starting: Deferred[None] | None = None
        self._connection: ReconnectingConnection | None = None
        self._watch: ConnectionWatch | None = None
        self._publishing: ServicePublishing | None = None
        self._subscriptions: list[Subscription] = []
        #: That which an error is about.
        self._current: Subscription | None = None
        self._consumer_error: BaseException | None = None
        self._deadline: Any = None
        self._outcome: Outcome | None = None
        self._waiting: list[Deferred[Outcome]] = []

    def __repr__(self) -> str:
        connection = self._connection
        where = "" if connection is None else f", connection {connection.state.value}"
        return f"<ConsumerService queue={clip(self._queue)!r} {self._state.value}{where}>"

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has it among the queue's consumers now; False also during an outage."""
        return self._state is _State.CONSUMING and all(each.is_subscribed for each in self._subscriptions)

    @property
    def stop_limit(self) -> float:
        """The seconds within which a stop ends: the drain, then closing channel or publisher, and the connection."""
        return self.config.drain + 2 * self._close_timeout

    @property
    def _close_timeout(self) -> float:
        return max(target.close_timeout for target in self._targets)

    def when_finished(self) -> Deferred[Outcome]:
        """A fresh Deferred that fires with the outcome once the service has ended; it never fails."""
        waiter: Deferred[Outcome] = Deferred()
        if self._state is _State.FINISHED and self._outcome is not None:
            waiter.callback(self._outcome)
        else:
            self._waiting.append(waiter)
        return waiter

    # -- twisted.application.service.IService --------------------------------------------------------

    def startService(self) -> None:
        """Begin to connect as soon as the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        passwords: list[Secret | None] = [getattr(target.credentials, "password", None) for target in self._targets]
        self._subscriptions = [
            Subscription(
                plan,
                reactor=self._reactor,
                on_ended=self._consumer_ended,
                on_halt=self._halted,
                secrets=[password for password in passwords if password is not None],
            )
            for plan in self._plans
        ]
        for warning in self.config.warnings:
            self._log.warn("{warning}", warning=warning)
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[Outcome]:
        """Drain and close; fires when that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        finished = self.when_finished()
        self._end(Outcome(ExitCode.OK, "stopped"))
        return finished

    def stop_now(self) -> None:
        """Cut the drain short: what handlers have not finished goes back to the queue."""
        if self._state is _State.STOPPING:
            self._abandon()

    # -- start ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._state is not _State.IDLE:
            return
        self._state = _State.STARTING
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self._started, self._start_failed)

    def _connect(self, what: str, name: str) -> tuple[ReconnectingConnection, ConnectionWatch]:
        config = self.config
        connection = ReconnectingConnection(
            self._targets,
            reactor=self._reactor,
            backoff=Backoff(initial=config.backoff_initial, maximum=config.backoff_maximum),
            order=config.host_order,
            attempt_timeout=config.attempt_timeout,
            endpoint=self._endpoint,
            name=name,
        )
        watch = ConnectionWatch(
            connection,
            config,
            what=what,
            addresses=self._addresses,
            clock=self._reactor,
            on_give_up=self._failed,
        )
        return connection, watch

    async def _start(self) -> None:
        connection, watch = self._connection, self._watch = self._connect("the connection", "")
        connection.add_state_callback(self._state_changed)
        connection.add_event_callback(self._event_happened)
        connection.when_closed().addCallback(self._failed)
        watch.begin()
        await connection.start()
        if any(subscription.plan.publishes for subscription in self._subscriptions):
            name = f"{self._targets[0].connection_name} (publishing)"
            self._publishing = ServicePublishing(
                *self._connect("the publishing connection", name),
                timeout=self.config.publish_timeout,
                on_closed=self._failed,
            )
            self._publishing.start()
        for subscription in self._subscriptions:
            self._current = subscription
            await self._subscribe(subscription, connection, watch)

    async def _subscribe(
        self, subscription: Subscription, connection: ReconnectingConnection, watch: ConnectionWatch
    ) -> None:
        publisher = None if self._publishing is None else self._publishing.publisher
        while True:
            epoch = connection.epoch
            try:
                await subscription.subscribe(connection, publisher)
            except OperationTimeout:
                # A call waits for a connection only so long; the limits of the start are longer.
                if watch.start_is_over:
                    raise
                if connection.is_ready and connection.epoch == epoch:
                    connection.reconnect("the broker does not answer")
                await connection.start()
            except NotFound as error:
                # RabbitMQ, while the node that has the queue is down or has just come up.
                if "inaccessible" not in error.reply_text or watch.start_is_over:
                    raise
                await deferLater(self._reactor, _NODE_DOWN_DELAY)
            else:
                return

    def _started(self, _result: None) -> None:
        self._starting = None
        assert self._watch is not None
        if self._state is not _State.STARTING:
            return  # A handler halted us, or the broker left, in the same breath as consume-ok.
        self._state = _State.CONSUMING
        self._watch.started()
        for subscription in self._subscriptions:
            subscription.started()

    def _start_failed(self, failure: Failure) -> None:
        self._starting = None
        if self._state is not _State.STARTING and failure.check(CancelledError):
            return
        error: BaseException = failure.value or RuntimeError("no exception")
        if not isinstance(error, TxmsgError):
            self._log.error("unexpected at start\n{traceback}", traceback=failure.getTraceback())
        self._failed(error)

    # -- while it runs --------------------------------------------------------------------------------

    def _state_changed(self, change: StateChange) -> None:
        if change.new is RecoveryState.LOST:
            self._drop_stale()

    def _drop_stale(self) -> None:
        for dispatch in self._dispatches:
            dispatch.drop_stale()

    def _event_happened(self, event: RecoveryEvent) -> None:
        if event.kind == CHANNEL_FAILED:
            self._drop_stale()
        elif event.kind == CONSUMER_ENDED:
            self._consumer_error = event.error

    # -- the ends -------------------------------------------------------------------------------------

    def _failed(self, reason: BaseException) -> None:
        """It cannot go on: given up, closed for good, or not started."""
        if self._state in (_State.STARTING, _State.CONSUMING):
            stage, queue = Stage.CONNECT, self._queue
            if self._current is not None:
                stage, queue = self._current.stage, self._current.queue
            self._end(explain(reason, stage, address=self._address, queue=queue))

    def _consumer_ended(self, reason: BaseException, subscription: Subscription) -> None:
        """For good; why it could not come back says more than that it was cancelled."""
        self._current = subscription
        self._failed(self._consumer_error or reason)

    def _halted(self, exit_code: int, reason: str) -> None:
        because = f": {clip(reason)}" if reason else ""
        self._end(Outcome(exit_code, f"the handler halted the service{because}"))

    def _end(self, outcome: Outcome) -> None:
        """Stop, once, with `outcome`; later ends change nothing."""
        if self._state in (_State.STOPPING, _State.FINISHED):
            return
        self._state = _State.STOPPING
        self._outcome = outcome
        if outcome.exit_code != ExitCode.OK:
            self._log.critical("{line}", line=outcome.line)
        Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed).addCallback(self._finish)

    async def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop_limiting()
        if self._publishing is not None:
            self._publishing.watch.stop_limiting()
        if self._starting is not None:
            self._starting.cancel()
        if self._dispatches:
            await self._drain(sum(subscription.stop_intake() for subscription in self._subscriptions))
        # Each for itself, as the one may be blocked, or without a connection.
        closing = [Deferred.fromCoroutine(self._close())]
        if self._publishing is not None:
            closing.append(Deferred.fromCoroutine(self._publishing.close(self._close_timeout)))
        await gatherResults([each.addErrback(self._stop_failed) for each in closing])

    async def _close(self) -> None:
        if self._connection is not None and self._connection.is_ready:
            for subscription in self._subscriptions:
                await subscription.close()
        if self._connection is not None:
            await self._connection.close(self._close_timeout)

    @property
    def _dispatches(self) -> list[HandlerDispatch]:
        return [each.dispatch for each in self._subscriptions if each.dispatch is not None]

    @property
    def _running(self) -> int:
        return sum(subscription.running for subscription in self._subscriptions)

    def _abandon(self) -> None:
        for dispatch in self._dispatches:
            dispatch.abandon()

    async def _drain(self, untouched: int) -> None:
        begin = self._reactor.seconds()
        if self._running:
            self._log.info(
                "waiting up to {drain:g} s for {running} running handler(s)",
                drain=self.config.drain,
                running=self._running,
            )
        self._deadline = self._reactor.callLater(self.config.drain, self._abandon)
        await gatherResults([dispatch.when_idle() for dispatch in self._dispatches])
        if self._deadline.active():
            self._deadline.cancel()
        unfinished, counts = self._running, Counts.total(dispatch.counts for dispatch in self._dispatches)
        retries = any(subscription.plan.retry is not None for subscription in self._subscriptions)
        self._log.info(
            "drained in {seconds:.1f} s: {handled} handled, {failed} failed, {requeued} requeued, {rejected} rejected"
            "{retried}; {untouched} not begun and {unfinished} unfinished went back to the queue",
            seconds=self._reactor.seconds() - begin,
            handled=counts.handled,
            failed=counts.failed,
            requeued=counts.requeued,
            rejected=counts.rejected,
            retried=f", {counts.retried} to be retried, {counts.dead} dead" if retries else "",
            untouched=untouched,
            unfinished=unfinished,
        )
        if unfinished and self._outcome is not None:
            queue = clip(
                ", ".join(s.queue for s in self._subscriptions if s.dispatch is not None and s.dispatch.running)
            )
            line = f"{unfinished} handler(s) did not finish in time; their messages go back to queue {queue!r}"
            if self._outcome.exit_code == ExitCode.OK:
                self._outcome = Outcome(ExitCode.DRAIN_DEADLINE, line, unfinished)
            else:
                self._outcome = Outcome(self._outcome.exit_code, self._outcome.line, unfinished)
            self._log.error("{line}", line=line)

    def _stop_failed(self, failure: Failure) -> Deferred[None]:
        """Something broke: end what is left at once."""
        self._log.failure("stopping did not go as it should", failure)
        connections = [self._connection, None if self._publishing is None else self._publishing.connection]
        left = [connection.close(0) for connection in connections if connection is not None]
        return gatherResults(left).addCallback(lambda results: None)

    def _finish(self, _result: None) -> None:
        for subscription in self._subscriptions:
            subscription.let_go()
        self._state = _State.FINISHED
        assert self._outcome is not None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._outcome)
