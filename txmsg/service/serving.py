"""A server as a service that ends: start, watch, drain, and one outcome for the process.

An RPCServer and a CeleryWorker are services themselves, which go on for ever.  This one gives up as the consumer
service does (:mod:`txmsg.service.watch`), by the same settings and with the same exit codes.

Invariants: it ends exactly once, with one :class:`~txmsg.service.exit_codes.Outcome`, within `stop_limit` (R30); what
is not finished then is the broker's to deliver again (R22).
"""

from __future__ import annotations

import enum
import random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp.recovery.failures import Verdict, classify
from txmsg.errors import ConfigurationError, ConnectionClosed, ConnectTimeout, NotFound, TxmsgError, clip
from txmsg.service.config import ConsumerConfig
from txmsg.service.exit_codes import ExitCode, Outcome, explain_server
from txmsg.service.servers import ServerPlan
from txmsg.service.watch import REFUSED_LATER

__all__ = ["ServerService"]

#: Seconds between two looks at whether it still serves.
_LOOK = 1.0


class _State(enum.Enum):
    IDLE = "idle"
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    FINISHED = "finished"


class ServerService(Service):
    """Runs one server.

    plan: what to run.   config: the limits, and `drain`, which holds in place of the server's own.
    reactor: None takes the global one when the service starts.
    """

    _log = Logger()

    def __init__(self, plan: ServerPlan, config: ConsumerConfig, *, reactor: Any = None) -> None:
        self.plan = plan
        self.config = config
        self._server = plan.server
        self._connection = plan.server.connection
        self._reactor = reactor
        self._state = _State.IDLE
        self._starting: Deferred[None] | None = None
        self._limit: Any = None
        self._look_again: Any = None
        self._began = 0.0
        #: Since when: lost, refused, there without requests; None: not so.
        self._lost_since: float | None = None
        self._refused_since: float | None = None
        self._silent_since: float | None = None
        self._last_error: BaseException | None = None
        self._outcome: Outcome | None = None
        self._waiting: list[Deferred[Outcome]] = []

    def __repr__(self) -> str:
        return f"<ServerService of {self.plan.name}, {self._state.value}>"

    @property
    def is_consuming(self) -> bool:
        """Whether requests may come now; False also during an outage."""
        return self._state is _State.SERVING and self._connection.connected and self._server.is_consuming

    @property
    def stop_limit(self) -> float:
        """The seconds within which a stop ends."""
        return self.config.drain + 5 * self._server.close_timeout

    def when_finished(self) -> Deferred[Outcome]:
        """A fresh Deferred that fires with the outcome once the service has ended; it never fails."""
        waiter: Deferred[Outcome] = Deferred()
        if self._state is _State.FINISHED and self._outcome is not None:
            waiter.callback(self._outcome)
        else:
            self._waiting.append(waiter)
        return waiter

    def startService(self) -> None:
        """Begin to connect as soon as the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[Outcome]:
        """Drain and close; fires when that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        finished = self.when_finished()
        self._end(Outcome(ExitCode.OK, "stopped"))
        return finished

    def stop_now(self) -> None:
        """Cut the drain short: what has not finished goes back to the queue."""
        if self._state is _State.STOPPING:
            self._server.stop_now()

    # -- start ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._state is not _State.IDLE:
            return
        self._state = _State.STARTING
        self._began = self._reactor.seconds()
        self._connection.add_recovery_callback(self._recovered)
        if self.config.start_limit:
            self._limit = self._reactor.callLater(self.config.start_limit, self._too_long)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self._started, self._start_failed)

    async def _start(self) -> None:
        wait = self.config.backoff_initial
        while True:
            try:
                await self._connection.connect()
                # Also when it is not worth another try: that is for us to say, and for it to log.
                await self._server.start()
            except TxmsgError as error:
                self._last_error = error
                if not self._is_worth_retrying(error):
                    raise
                pause = random.uniform(wait / 2, wait)  # noqa: S311 - so that not all come at once
                self._log.warn(
                    "{plan} cannot start: {reason}; next attempt in {pause:.1f} s",
                    plan=str(self.plan),
                    reason=_text(error),
                    pause=pause,
                )
                await deferLater(self._reactor, pause)
                wait = min(2 * wait, self.config.backoff_maximum)
            else:
                return

    def _is_worth_retrying(self, error: TxmsgError) -> bool:
        limit = self.config.start_limit
        if limit is not None and self._reactor.seconds() - self._began >= limit:
            return False
        if getattr(error, "recoverable", False):
            return True
        if isinstance(error, NotFound) and "inaccessible" in error.reply_text:
            return True  # RabbitMQ, while the node that has the queue is down or has just come up
        if not isinstance(error, ConnectionClosed) or isinstance(error, ConfigurationError):
            return False
        return classify(error) is Verdict.SLOW and not self._is_refused_too_long(error, self.config.refused_limit or 0)

    def _is_refused_too_long(self, error: BaseException, limit: float) -> bool:
        """Note an error of connecting; whether nothing but refusals has come for so long."""
        if classify(error) not in (Verdict.SLOW, Verdict.FATAL):
            self._refused_since = None
            return False
        now = self._reactor.seconds()
        if self._refused_since is None:
            self._refused_since = now
        return bool(now - self._refused_since >= limit)

    def _too_long(self) -> None:
        self._limit = None
        seconds = self._reactor.seconds() - self._began
        self._failed(self._last_error or ConnectTimeout(f"not serving within {seconds:g} s"))

    def _started(self, _result: None) -> None:
        self._starting = None
        if self._state is not _State.STARTING:
            return
        self._cancel_limit()
        self._state = _State.SERVING
        self._last_error = self._refused_since = None
        self._log.info("{plan} serves {describes}", plan=str(self.plan), describes=self.plan.describes)
        self._look()

    def _start_failed(self, failure: Failure) -> None:
        self._starting = None
        if self._state is not _State.STARTING:
            return
        error: BaseException = failure.value or RuntimeError("no exception")
        if not isinstance(error, TxmsgError):
            self._log.error("unexpected at start\n{traceback}", traceback=failure.getTraceback())
        self._failed(error)

    # -- while it runs --------------------------------------------------------------------------------

    def _recovered(self, reason: BaseException | None, delay: float | None = None) -> None:
        """The connection was lost, could not be made again, or is there (None)."""
        if reason is None:
            self._lost_since = self._refused_since = self._last_error = None
            return
        self._last_error = reason
        if self._lost_since is None:
            self._lost_since = self._reactor.seconds()
        limit = self.config.refused_limit
        is_refused = self._is_refused_too_long(reason, REFUSED_LATER if limit is None else limit)
        # Of several hosts the others have their turn first; without a delay there are some left.
        if is_refused and delay and self._state is _State.SERVING:
            self._failed(reason)

    def _look(self) -> None:
        """Whether it still serves; again in a second."""
        self._look_again = None
        now = self._reactor.seconds()
        problem: BaseException | None = None
        if self._connection.is_closed:
            problem = self._last_error or ConnectionClosed("its connection was closed", initiator="client")
        elif not self._connection.connected:
            self._silent_since = None
            if self._lost_since is None:
                self._lost_since = now
            if _has_passed(self.config.recovery_limit, now - self._lost_since):
                problem = self._last_error or ConnectTimeout("the connection does not come back")
        elif not self._server.is_consuming:
            if self._silent_since is None:
                self._silent_since = now
            limit = self.config.resubscribe_limit
            if _has_passed(limit, now - self._silent_since):
                self._end(
                    Outcome(
                        ExitCode.CANCELLED,
                        f"{self.plan} could not consume again for {limit:g} s; see the log for the reason",
                    )
                )
                return
        else:
            self._lost_since = self._silent_since = None
        if problem is not None:
            self._failed(problem)
            return
        self._look_again = self._reactor.callLater(_LOOK, self._look)

    # -- the ends -------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        """It cannot go on, or not start."""
        if self._state in (_State.STARTING, _State.SERVING):
            self._end(explain_server(error, str(self.plan), is_running=self._state is _State.SERVING))

    def _cancel_limit(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()

    def _end(self, outcome: Outcome) -> None:
        """Stop, once, with `outcome`; later ends change nothing."""
        if self._state in (_State.STOPPING, _State.FINISHED):
            return
        was_idle = self._state is _State.IDLE
        self._state = _State.STOPPING
        self._outcome = outcome
        self._cancel_limit()
        if self._look_again is not None:
            self._look_again.cancel()
        if outcome.exit_code != ExitCode.OK:
            self._log.critical("{line}", line=outcome.line)
        if was_idle:
            self._finish(None)
        else:
            Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed).addCallback(self._finish)

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.addErrback(lambda failure: failure.trap(CancelledError) and None)
            self._starting.cancel()
        server, begin = self._server, self._reactor.seconds()
        server.drain_timeout = self.config.drain
        self._log.info("stopping {plan}, which has up to {drain:g} s", plan=str(self.plan), drain=self.config.drain)
        await server.stop()
        self._connection.remove_recovery_callback(self._recovered)
        unfinished = server.unfinished
        self._log.info(
            "{plan} has stopped in {seconds:.1f} s, {unfinished} unfinished: {counts}",
            plan=str(self.plan),
            seconds=self._reactor.seconds() - begin,
            unfinished=unfinished,
            counts=getattr(server, "counts", ""),
        )
        if unfinished and self._outcome is not None:
            line = f"{unfinished} of {self.plan} did not finish in time"
            if self._outcome.exit_code == ExitCode.OK:
                self._outcome = Outcome(ExitCode.DRAIN_DEADLINE, line, unfinished)
            else:
                self._outcome = Outcome(self._outcome.exit_code, self._outcome.line, unfinished)
            self._log.error("{line}", line=line)
        if self.plan.connection is not None:
            await self.plan.connection.close().addTimeout(server.close_timeout, self._reactor)

    def _stop_failed(self, failure: Failure) -> None:
        """Something broke; the end of the process drops what is left."""
        self._log.failure("stopping did not go as it should", failure)

    def _finish(self, _result: None) -> None:
        self._state = _State.FINISHED
        assert self._outcome is not None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._outcome)


def _has_passed(limit: float | None, seconds: float) -> bool:
    return limit is not None and seconds >= limit


def _text(error: BaseException) -> str:
    return clip(" ".join(str(error).split()), 300) or type(error).__name__
