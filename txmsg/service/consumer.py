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
from collections.abc import Callable
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
    RecoveringChannel,
    RecoveringConsumer,
    RecoveryEvent,
    RecoveryState,
    StateChange,
)
from txmsg.amqp.recovery.duplicates import DuplicateWindow
from txmsg.amqp.recovery.events import CHANNEL_FAILED, CONSUMER_ENDED
from txmsg.amqp.secret import Secret
from txmsg.errors import NotFound, OperationTimeout, TxmsgError, clip
from txmsg.service.config import ConsumerConfig
from txmsg.service.connection import connection_targets
from txmsg.service.dispatch import HandlerDispatch
from txmsg.service.exit_codes import ExitCode, Outcome, Stage, explain
from txmsg.service.handler import Handler, HandlerRunner, ReactorRunner, ThreadRunner, load_handler, wants_publisher
from txmsg.service.policy import FailurePolicy, OnFailure
from txmsg.service.publishing import ServicePublishing
from txmsg.service.retrying import ServiceRetry, retry_policy
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
    """Consumes one queue with one handler.

    config: what to do.  handler: the callable; None imports `config.handler`.  reactor: None takes the
    global one when the service starts.  endpoint: as for :class:`txmsg.amqp.ReconnectingConnection`, for
    tests without sockets.

    Raises ConfigurationError for parameters or a handler that cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        config: ConsumerConfig,
        handler: Handler | None = None,
        *,
        reactor: Any = None,
        endpoint: Callable[[Any], IStreamClientEndpoint] | None = None,
    ) -> None:
        self.config = config
        self._handler = load_handler(config.handler) if handler is None else handler
        self._targets: list[ConnectionParameters] = connection_targets(config)
        self._policy = retry_policy(config)
        self._reactor = reactor
        self._endpoint = endpoint
        self._addresses = {f"{target.host}:{target.port}": target.as_url() for target in self._targets}
        self._address = "; ".join(self._addresses.values())
        self._state = _State.IDLE
        self._stage = Stage.CONNECT
        self._starting: Deferred[None] | None = None
        self._connection: ReconnectingConnection | None = None
        self._watch: ConnectionWatch | None = None
        self._publishing: ServicePublishing | None = None
        self._retry: ServiceRetry | None = None
        self._channel: RecoveringChannel | None = None
        self._consumer: RecoveringConsumer | None = None
        self._consumer_error: BaseException | None = None
        self._runner: HandlerRunner | None = None
        self._dispatch: HandlerDispatch | None = None
        self._deadline: Any = None
        self._outcome: Outcome | None = None
        self._waiting: list[Deferred[Outcome]] = []

    def __repr__(self) -> str:
        connection = self._connection
        where = "" if connection is None else f", connection {connection.state.value}"
        return f"<ConsumerService queue={self.config.queue!r} {self._state.value}{where}>"

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has it among the queue's consumers now; False also during an outage."""
        return self._state is _State.CONSUMING and self._consumer is not None and self._consumer.is_subscribed

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
        if self._state is _State.STOPPING and self._dispatch is not None:
            self._dispatch.abandon()

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
        config = self.config
        connection, watch = self._connection, self._watch = self._connect("the connection", "")
        connection.add_state_callback(self._state_changed)
        connection.add_event_callback(self._event_happened)
        connection.when_closed().addCallback(self._failed)
        watch.begin()
        await connection.start()
        if self._policy is not None or wants_publisher(self._handler):
            name = f"{self._targets[0].connection_name} (publishing)"
            self._publishing = ServicePublishing(
                *self._connect("the publishing connection", name),
                timeout=config.publish_timeout,
                on_closed=self._failed,
            )
            self._publishing.start()
            if self._policy is not None:
                self._retry = ServiceRetry(config, self._policy, self._publishing.publisher)
        while True:
            epoch = connection.epoch
            try:
                await self._subscribe(connection)
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

    async def _subscribe(self, connection: ReconnectingConnection) -> None:
        config = self.config
        self._stage = Stage.DECLARE if config.declare else Stage.CHECK
        if self._channel is None:
            self._channel = await connection.channel(prefetch_count=config.prefetch)
        channel = self._channel
        if self._retry is not None:
            await self._retry.declare(channel)
        if self._retry is None or not config.declare:
            await channel.queue_declare(
                config.queue,
                passive=not config.declare,
                durable=config.durable,
                auto_delete=config.auto_delete,
                arguments=dict(config.queue_arguments) or None,
            )
        self._stage = Stage.BIND
        for exchange, key in config.bind:
            await channel.queue_bind(config.queue, exchange, key)
        self._stage = Stage.CONSUME
        dispatch = self._dispatch or self._make_dispatch()
        self._consumer = await channel.basic_consume(
            config.queue,
            dispatch.offer,
            consumer_tag=config.consumer_tag,
            exclusive=config.exclusive,
            dedupe=DuplicateWindow(config.dedupe_window, clock=self._reactor) if config.dedupe_window else None,
            resubscribe_limit=config.resubscribe_limit,
        )

    def _make_dispatch(self) -> HandlerDispatch:
        config = self.config
        publishing = self._publishing
        publisher = None if publishing is None or not wants_publisher(self._handler) else publishing.publisher
        if config.threads:
            self._runner = ThreadRunner(self._handler, config.threads, self._reactor, publisher)
        else:
            self._runner = ReactorRunner(self._handler, publisher)
        self._runner.start()
        passwords: list[Secret | None] = [getattr(target.credentials, "password", None) for target in self._targets]
        self._dispatch = HandlerDispatch(
            self._runner,
            FailurePolicy(OnFailure(config.on_failure), config.requeue_delay),
            concurrency=config.concurrency,
            clock=self._reactor,
            queue=config.queue,
            on_halt=self._halted,
            secrets=[password for password in passwords if password is not None],
            retry=None if self._retry is None else self._retry.retry,
        )
        return self._dispatch

    def _started(self, _result: None) -> None:
        self._starting = None
        assert self._consumer is not None
        assert self._watch is not None
        self._stage = Stage.RUNNING
        if self._state is not _State.STARTING:
            return  # A handler halted us, or the broker left, in the same breath as consume-ok.
        self._state = _State.CONSUMING
        self._watch.started()
        self._log.info(
            "consuming from queue {queue} as {tag}, prefetch {prefetch}, concurrency {concurrency}",
            queue=clip(self.config.queue),
            tag=clip(self._consumer.consumer_tag),
            prefetch=self.config.prefetch or "unlimited",
            concurrency=self.config.concurrency,
        )
        self._consumer.when_ended().addCallback(self._consumer_ended)

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
        if change.new is RecoveryState.LOST and self._dispatch is not None:
            self._dispatch.drop_stale()

    def _event_happened(self, event: RecoveryEvent) -> None:
        if event.kind == CHANNEL_FAILED and self._dispatch is not None:
            self._dispatch.drop_stale()
        elif event.kind == CONSUMER_ENDED:
            self._consumer_error = event.error

    # -- the ends -------------------------------------------------------------------------------------

    def _failed(self, reason: BaseException) -> None:
        """It cannot go on: given up, closed for good, or not started."""
        if self._state in (_State.STARTING, _State.CONSUMING):
            self._end(explain(reason, self._stage, address=self._address, queue=self.config.queue))

    def _consumer_ended(self, reason: BaseException) -> None:
        """For good; why it could not come back says more than that it was cancelled."""
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
        dispatch = self._dispatch
        if dispatch is not None:
            if self._consumer is not None and self._consumer.is_active:
                # Not waited for: the handlers' time runs already, and closing the channel ends it too.
                self._consumer.cancel().addErrback(_ignore)
            await self._drain(dispatch, dispatch.stop_intake())
        # Each for itself, as the one may be blocked, or without a connection.
        closing = [Deferred.fromCoroutine(self._close())]
        if self._publishing is not None:
            closing.append(Deferred.fromCoroutine(self._publishing.close(self._close_timeout)))
        await gatherResults([each.addErrback(self._stop_failed) for each in closing])

    async def _close(self) -> None:
        if self._channel is not None and self._connection is not None and self._connection.is_ready:
            # Its close-ok says that the broker has taken the acks sent before it.
            await self._channel.close().addErrback(_ignore)
        if self._connection is not None:
            await self._connection.close(self._close_timeout)

    async def _drain(self, dispatch: HandlerDispatch, untouched: int) -> None:
        begin = self._reactor.seconds()
        if dispatch.running:
            self._log.info(
                "waiting up to {drain:g} s for {running} running handler(s)",
                drain=self.config.drain,
                running=dispatch.running,
            )
        self._deadline = self._reactor.callLater(self.config.drain, dispatch.abandon)
        await dispatch.when_idle()
        if self._deadline.active():
            self._deadline.cancel()
        unfinished, counts = dispatch.running, dispatch.counts
        self._log.info(
            "drained in {seconds:.1f} s: {handled} handled, {failed} failed, {requeued} requeued, {rejected} rejected"
            "{retried}; {untouched} not begun and {unfinished} unfinished went back to the queue",
            seconds=self._reactor.seconds() - begin,
            handled=counts.handled,
            failed=counts.failed,
            requeued=counts.requeued,
            rejected=counts.rejected,
            retried=f", {counts.retried} to be retried, {counts.dead} dead" if self._retry is not None else "",
            untouched=untouched,
            unfinished=unfinished,
        )
        if unfinished and self._outcome is not None:
            queue = clip(self.config.queue)
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
        if self._dispatch is not None and self._runner is not None:
            self._dispatch.cancel_running()
            self._runner.stop()
        self._state = _State.FINISHED
        assert self._outcome is not None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._outcome)


def _ignore(_failure: Failure) -> None:
    """Closing is best effort: what could not be closed in order is closed with the connection."""
