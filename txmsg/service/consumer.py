"""The consumer service: connect, declare, consume, drain, end.

A :class:`twisted.application.service.Service` for `twistd`, a .tac file or another service.  It knows no
process: how it ended is told by :meth:`ConsumerService.when_finished`, and what becomes of the process is
the business of :mod:`txmsg.service.exit`.

Invariant: the service ends exactly once, with one :class:`~txmsg.service.exit_codes.Outcome`, within
`drain` plus the connection's own limits, whatever ended it (R30): a stop, a failed start, a lost
connection, the broker's cancel, or a handler's Halt.  It never goes on without a consumer (R25).
Reconnecting belongs to a later version.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg import amqp
from txmsg.amqp import AMQPProtocol, Channel, ConnectionParameters, Consumer
from txmsg.amqp.secret import Secret
from txmsg.errors import TxmsgError, clip
from txmsg.service.config import ConsumerConfig
from txmsg.service.connection import connection_parameters
from txmsg.service.dispatch import HandlerDispatch
from txmsg.service.exit_codes import ExitCode, Outcome, Stage, explain
from txmsg.service.handler import Handler, HandlerRunner, ReactorRunner, ThreadRunner, load_handler
from txmsg.service.policy import FailurePolicy, OnFailure

__all__ = ["ConsumerService"]


class _State(enum.Enum):
    IDLE = "idle"
    STARTING = "starting"
    CONSUMING = "consuming"
    STOPPING = "stopping"
    FINISHED = "finished"


class ConsumerService(Service):
    """Consumes one queue with one handler.

    config: what to do.  handler: the callable; None imports `config.handler`.  reactor: None takes the
    global one when the service starts.  connect: a stand-in for :func:`txmsg.amqp.connect`.

    Raises ConfigurationError for parameters or a handler that cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        config: ConsumerConfig,
        handler: Handler | None = None,
        *,
        reactor: Any = None,
        connect: Callable[..., Deferred[AMQPProtocol]] | None = None,
    ) -> None:
        self.config = config
        self._handler = load_handler(config.handler) if handler is None else handler
        self._parameters: ConnectionParameters = connection_parameters(config)
        self._reactor = reactor
        self._connect = amqp.connect if connect is None else connect
        self._address = self._parameters.as_url()
        self._state = _State.IDLE
        self._stage = Stage.CONNECT
        self._starting: Deferred[None] | None = None
        self._connection: AMQPProtocol | None = None
        self._channel: Channel | None = None
        self._consumer: Consumer | None = None
        self._runner: HandlerRunner | None = None
        self._dispatch: HandlerDispatch | None = None
        self._deadline: Any = None
        self._outcome: Outcome | None = None
        self._waiting: list[Deferred[Outcome]] = []

    def __repr__(self) -> str:
        return f"<ConsumerService queue={self.config.queue!r} {self._state.value}>"

    @property
    def is_consuming(self) -> bool:
        """The broker has confirmed the consumer, and nothing has ended it."""
        return self._state is _State.CONSUMING

    @property
    def stop_limit(self) -> float:
        """The seconds within which a stop ends: the drain, then closing the channel and the connection."""
        return self.config.drain + 2 * self._parameters.close_timeout

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

    async def _start(self) -> None:
        config = self.config
        connection = await self._connect(self._parameters, reactor=self._reactor)
        self._connection = connection
        self._log.info("connected to {address}", address=self._address)
        connection.when_closed().addCallback(self._lost)
        self._stage = Stage.DECLARE if config.declare else Stage.CHECK
        channel = self._channel = await connection.channel()
        channel.when_closed().addCallback(self._lost)
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
        await channel.basic_qos(config.prefetch)
        dispatch = self._make_dispatch()
        self._consumer = await channel.basic_consume(
            config.queue, dispatch.offer, consumer_tag=config.consumer_tag, exclusive=config.exclusive
        )

    def _make_dispatch(self) -> HandlerDispatch:
        config = self.config
        if config.threads:
            self._runner = ThreadRunner(self._handler, config.threads, self._reactor)
        else:
            self._runner = ReactorRunner(self._handler)
        self._runner.start()
        password: Secret | None = getattr(self._parameters.credentials, "password", None)
        self._dispatch = HandlerDispatch(
            self._runner,
            FailurePolicy(OnFailure(config.on_failure), config.requeue_delay),
            concurrency=config.concurrency,
            clock=self._reactor,
            queue=config.queue,
            on_halt=self._halted,
            secrets=[] if password is None else [password],
        )
        return self._dispatch

    def _started(self, _result: None) -> None:
        self._starting = None
        assert self._consumer is not None
        self._stage = Stage.RUNNING
        if self._state is not _State.STARTING:
            return  # A handler halted us, or the broker left, in the same breath as consume-ok.
        self._state = _State.CONSUMING
        self._log.info(
            "consuming from queue {queue} as {tag}, prefetch {prefetch}, concurrency {concurrency}",
            queue=clip(self.config.queue),
            tag=clip(self._consumer.consumer_tag),
            prefetch=self.config.prefetch or "unlimited",
            concurrency=self.config.concurrency,
        )
        self._consumer.when_ended().addCallback(self._lost)

    def _start_failed(self, failure: Failure) -> None:
        self._starting = None
        if self._state is not _State.STARTING and failure.check(CancelledError):
            return
        error: BaseException = failure.value or RuntimeError("no exception")
        if not isinstance(error, TxmsgError):
            self._log.error("unexpected at start\n{traceback}", traceback=failure.getTraceback())
        self._end(self._explain(error))

    # -- the ends -------------------------------------------------------------------------------------

    def _explain(self, error: BaseException) -> Outcome:
        return explain(error, self._stage, address=self._address, queue=self.config.queue)

    def _lost(self, reason: BaseException) -> None:
        """Consumer, channel or connection ended; whichever tells first, its reason is the outcome."""
        if self._state is _State.CONSUMING:
            self._end(self._explain(reason))

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
        if self._starting is not None:
            self._starting.cancel()
        dispatch = self._dispatch
        if dispatch is not None:
            if self._consumer is not None and self._consumer.is_active:
                # Not waited for: the handlers' time runs already, and closing the channel ends it too.
                self._consumer.cancel().addErrback(_ignore)
            await self._drain(dispatch, dispatch.stop_intake())
        if self._channel is not None:
            # Its close-ok says that the broker has taken the acks sent before it.
            await self._channel.close().addErrback(_ignore)
        if self._connection is not None:
            await self._connection.close().addErrback(_ignore)

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
            "drained in {seconds:.1f} s: {handled} handled, {failed} failed, {requeued} requeued, {rejected} rejected; "
            "{untouched} not begun and {unfinished} unfinished went back to the queue",
            seconds=self._reactor.seconds() - begin,
            handled=counts.handled,
            failed=counts.failed,
            requeued=counts.requeued,
            rejected=counts.rejected,
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

    def _stop_failed(self, failure: Failure) -> None:
        self._log.failure("stopping did not go as it should", failure)
        if self._connection is not None:
            self._connection.abort()

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
