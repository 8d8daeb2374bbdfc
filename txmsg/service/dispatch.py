"""From a delivery to its settlement: order, concurrency, results.

Promises kept here (see docs/consumer-service.md): handlers start in delivery order and at most
`concurrency` of them run (R24); a message is acked only after its handler succeeded (R22); a failing one
follows the policy and never goes round in a hot loop (R26); a delivery whose properties cannot be decoded
is rejected without a handler seeing it (R20); a result that comes after the channel has gone harms
nobody (R23).  Nothing that a sender wrote but the message id, and no body, is logged.

Deliveries that no handler has begun wait here; their number is bounded by the prefetch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp import BasicProperties, Delivery
from txmsg.amqp.secret import REDACTED, Secret
from txmsg.errors import EncodeError, SettlementError, clip
from txmsg.service.handler import HandlerRunner
from txmsg.service.policy import MINIMUM_REQUEUE_DELAY, BodyRefused, FailurePolicy, Settlement, Verdict

__all__ = ["Counts", "HandlerDispatch", "Retry"]

#: Sends a failed message on and acks it; fires with the seconds until its next try, None: there is none.
Retry = Callable[[Delivery, BaseException], Deferred[float | None]]

#: Seconds that handlers which finish at once may run before the reactor gets a turn: signals, heartbeats.
TURN = 0.02

#: A traceback that is longer is cut in the middle.
TRACEBACK_LIMIT = 20_000


@dataclass(slots=True)
class Counts:
    """What became of the deliveries.

    handled: handler succeeded.  failed: it raised.  requeued, rejected: settled so, for whatever reason.
    undecodable: the properties could not be read, or the body not be decoded.  retried: sent on for another try; dead:
    sent to the dead letter queue after the last one.  stale: not begun when their connection was lost.
    """

    handled: int = 0
    failed: int = 0
    requeued: int = 0
    rejected: int = 0
    undecodable: int = 0
    retried: int = 0
    dead: int = 0
    stale: int = 0

    @classmethod
    def total(cls, parts: Iterable[Counts]) -> Counts:
        """The sums over several dispatches."""
        values = [astuple(part) for part in parts]
        return cls(*(sum(column) for column in zip(*values, strict=True)))


class _Work:
    """One delivery that is with a handler, or held for its delayed requeue."""

    __slots__ = ("delivery", "result", "timer")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.result: Deferred[Any] | None = None
        self.timer: Any = None


class HandlerDispatch:
    """Feeds deliveries to the handler, in order and bounded, and settles them by its results.

    runner: runs the handler.  policy: judges failures.  concurrency: handlers at once.  clock: an
    IReactorTime.  queue: the queue's name, for log lines.  on_halt: called with an exit code and a reason
    when a handler wants the service to end.  secrets: texts that must not appear in a logged traceback.
    retry: what sends a failed message on, and settles it; needed for the policy `retry`.
    dead_letter: the same for a message that is to be a dead letter at once.
    """

    _log = Logger()

    def __init__(
        self,
        runner: HandlerRunner,
        policy: FailurePolicy,
        *,
        concurrency: int,
        clock: Any,
        queue: str,
        on_halt: Callable[[int, str], None],
        secrets: Iterable[Secret] = (),
        retry: Retry | None = None,
        dead_letter: Retry | None = None,
    ) -> None:
        self.counts = Counts()
        self._runner = runner
        self._policy = policy
        self._concurrency = concurrency
        self._clock = clock
        self._queue = queue
        self._on_halt = on_halt
        self._ways = {Settlement.RETRY: retry, Settlement.DEAD_LETTER: dead_letter}
        self._secrets = tuple(secret for secret in secrets if secret)
        self._waiting: deque[Delivery] = deque()
        self._running: set[_Work] = set()
        self._held: set[_Work] = set()
        self._retrying: set[_Work] = set()
        self._next_turn: Any = None
        self._spent = 0.0
        self._is_pumping = False
        self._is_stopped = False
        self._is_abandoned = False
        self._idle: list[Deferred[bool]] = []

    def __repr__(self) -> str:
        return (
            f"<HandlerDispatch queue={self._queue!r} running={len(self._running)}/{self._concurrency} "
            f"waiting={len(self._waiting)} held={len(self._held)}{' stopped' if self._is_stopped else ''}>"
        )

    @property
    def running(self) -> int:
        """The number of handlers at work, and of retries that are being published."""
        return len(self._running) + len(self._retrying)

    def offer(self, delivery: Delivery) -> None:
        """Take a delivery; its handler starts now or when those before it allow."""
        if self._is_stopped:
            self._settle(_Work(delivery), Settlement.REQUEUE)
            return
        self._waiting.append(delivery)
        self._pump()

    def drop_stale(self) -> None:
        """Forget deliveries of a channel that is gone and that no handler has begun: the broker delivers them again.

        Call it when a connection or channel is lost (R23, R24).
        """
        kept = deque(delivery for delivery in self._waiting if delivery.channel.is_open)
        dropped = len(self._waiting) - len(kept)
        self._waiting = kept
        for work in [work for work in self._held if not work.delivery.channel.is_open]:
            work.timer.cancel()
            self._held.discard(work)
            dropped += 1
        self.counts.stale += dropped
        if dropped:
            self._log.info("{dropped} messages were waiting; the broker will deliver them again", dropped=dropped)

    def stop_intake(self) -> int:
        """Start no handler any more; hand back now what waits for one and what was held for later.

        Call it when basic.cancel has been sent, or the broker sends them here again.  Returns the number of
        deliveries that no handler had begun.
        """
        self._is_stopped = True
        untouched, self._waiting = self._waiting, deque()
        for delivery in untouched:
            self._settle(_Work(delivery), Settlement.REQUEUE)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        for work in list(self._held):
            work.timer.cancel()
            self._release(work)
        self._check_idle()
        return len(untouched)

    def when_idle(self) -> Deferred[bool]:
        """A Deferred that fires when no handler runs: True, or False if abandon() cut it short."""
        waiter: Deferred[bool] = Deferred(self._idle.remove)
        self._idle.append(waiter)
        self._check_idle()
        return waiter

    def abandon(self) -> None:
        """Wait no longer: late results settle nothing.  The deliveries go back when the channel closes."""
        self.stop_intake()
        self._is_abandoned = True
        self._check_idle()

    def cancel_running(self) -> None:
        """Cancel the Deferreds of the handlers at work; call it when the channel is closed."""
        for work in list(self._running):
            if work.result is not None:
                work.result.cancel()

    # -- running --------------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._is_pumping or self._next_turn is not None:
            return
        self._is_pumping = True
        try:
            while self._waiting and len(self._running) < self._concurrency:
                if self._spent >= TURN:
                    # Counted over all deliveries of one read from the socket, each of which comes by offer().
                    self._next_turn = self._clock.callLater(0, self._pump_again)
                    return
                begin = self._clock.seconds()
                self._begin(self._waiting.popleft())
                self._spent += self._clock.seconds() - begin
        finally:
            self._is_pumping = False

    def _pump_again(self) -> None:
        self._next_turn = None
        self._spent = 0.0
        self._pump()

    def _begin(self, delivery: Delivery) -> None:
        if not delivery.channel.is_open:
            self.counts.stale += 1
            return
        if not isinstance(delivery.properties, BasicProperties):
            self._undecodable(delivery, delivery.properties.error)
            return
        work = _Work(delivery)
        self._running.add(work)
        try:
            result = self._runner.run(delivery)
        except BaseException:
            self._failed(Failure(), work)
            return
        if result is None:
            self._succeeded(None, work)
            return
        work.result = result
        result.addCallbacks(self._succeeded, self._failed, callbackArgs=(work,), errbackArgs=(work,))

    def _succeeded(self, _result: object, work: _Work) -> None:
        self.counts.handled += 1
        self._settle(work, Settlement.ACK)
        self._end(work)

    def _failed(self, failure: Failure, work: _Work) -> None:
        try:
            self._judge(failure, work)
        except Exception:
            # The slot must come free whatever happens; the message goes back when the channel closes.
            self._log.failure("a failed handler could not be dealt with ({what})", what=self._describe(work.delivery))
            self._end(work)

    def _judge(self, failure: Failure, work: _Work) -> None:
        if self._is_abandoned:
            self._log_late(work)
            self._end(work)
            return
        delivery = work.delivery
        error: BaseException = failure.value if failure.value is not None else RuntimeError("no exception")
        verdict = self._policy.judge(error, redelivered=delivery.redelivered)
        self._report(failure, verdict, delivery)
        if verdict.halt_with is not None:
            # First, so that the consumer is cancelled before the broker gets the message back.
            self._on_halt(verdict.halt_with, verdict.reason)
        if isinstance(error, BodyRefused):
            self.counts.undecodable += 1
        elif verdict.settlement is Settlement.ACK:
            self.counts.handled += 1
        else:
            self.counts.failed += 1
        way = self._ways.get(verdict.settlement)
        if way is not None and not delivery.is_settled:
            self._send_on(work, error.error if isinstance(error, BodyRefused) else error, way)
        elif verdict.settlement is Settlement.KEEP:
            self._end(work)
        elif verdict.delay > 0 and not self._is_stopped:
            self._hold(work, verdict.delay)
            self._after_end()
        else:
            self._settle(work, verdict.settlement)
            self._end(work)

    def _hold(self, work: _Work, delay: float) -> None:
        self._running.discard(work)
        self._held.add(work)
        work.timer = self._clock.callLater(delay, self._release, work)

    def _send_on(self, work: _Work, error: BaseException, retry: Retry) -> None:
        """Let a failed message come back later; its handler's place is free meanwhile."""
        self._running.discard(work)
        self._retrying.add(work)
        sending = retry(work.delivery, error)
        sending.addCallbacks(self._sent_on, self._not_sent_on, callbackArgs=(work,), errbackArgs=(work,))
        self._after_end()

    def _sent_on(self, delay: float | None, work: _Work) -> None:
        self._retrying.discard(work)
        if delay is None:
            self.counts.dead += 1
            self._log.warn("message has failed for the last time ({what})", what=self._describe(work.delivery))
        else:
            self.counts.retried += 1
        self._check_idle()

    def _not_sent_on(self, failure: Failure, work: _Work) -> None:
        """It is the broker's still: hand it back, not at once."""
        self._retrying.discard(work)
        if failure.check(SettlementError, EncodeError):
            # Settled meanwhile, or its channel is gone; or nothing will ever publish it as it is.
            self._settle(work, Settlement.REJECT)
            self._check_idle()
            return
        self._log.warn(
            "message requeued, as its retry could not be published: {error} ({what})",
            error=clip(str(failure.value)),
            what=self._describe(work.delivery),
        )
        if self._is_stopped:
            self._settle(work, Settlement.REQUEUE)
        else:
            self._hold(work, max(self._policy.requeue_delay, MINIMUM_REQUEUE_DELAY))
        self._check_idle()

    def _release(self, work: _Work) -> None:
        """The delay before a requeue is over."""
        self._held.discard(work)
        self._settle(work, Settlement.REQUEUE)

    def _end(self, work: _Work) -> None:
        self._running.discard(work)
        self._after_end()

    def _after_end(self) -> None:
        if self._waiting:
            self._pump()
        elif self._idle:
            self._check_idle()

    def _check_idle(self) -> None:
        if self._is_abandoned or (self._is_stopped and not self._running and not self._retrying):
            waiters, self._idle = self._idle, []
            for waiter in waiters:
                waiter.callback(not self._running and not self._retrying)

    # -- settling -------------------------------------------------------------------------------------

    def _settle(self, work: _Work, settlement: Settlement) -> None:
        delivery = work.delivery
        if self._is_abandoned:
            self._log_late(work)
            return
        try:
            if delivery.is_settled and delivery.channel.is_open:
                return  # The handler did it itself.
            if settlement is Settlement.ACK:
                delivery.ack()
            elif settlement is Settlement.REQUEUE:
                delivery.reject(requeue=True)
                self.counts.requeued += 1
            else:
                delivery.reject(requeue=False)
                self.counts.rejected += 1
        except SettlementError as error:
            self._log.info(
                "message not settled, the broker will deliver it again: {error} ({what})",
                error=str(error),
                what=self._describe(delivery),
            )
        except Exception:
            self._log.failure("message not settled ({what})", what=self._describe(delivery))

    def _undecodable(self, delivery: Delivery, error: BaseException) -> None:
        self.counts.undecodable += 1
        self._log.error(
            "message rejected, its properties cannot be decoded: {error} ({what})",
            error=clip(str(error)),
            what=self._describe(delivery),
        )
        self._settle(_Work(delivery), Settlement.REJECT)

    # -- telling --------------------------------------------------------------------------------------

    def _describe(self, delivery: Delivery) -> str:
        message_id = getattr(delivery.properties, "message_id", None)
        return (
            f"message id {_name(message_id)}, queue {_name(self._queue)}, delivery tag {delivery.delivery_tag}, "
            f"exchange {_name(delivery.exchange)}, routing key {_name(delivery.routing_key)}"
        )

    def _report(self, failure: Failure, verdict: Verdict, delivery: Delivery) -> None:
        fate = {
            Settlement.ACK: "message acked",
            Settlement.REJECT: "message rejected",
            Settlement.REQUEUE: "message requeued",
            Settlement.RETRY: "message goes to its next try",
            Settlement.DEAD_LETTER: "message goes to the dead letters",
            Settlement.KEEP: "message kept unsettled",
        }[verdict.settlement]
        what = self._describe(delivery)
        if verdict.is_decision:
            reason = clip(verdict.reason) or "no reason given"
            if isinstance(failure.value, BodyRefused):
                self._log.error("{fate}, its body is refused: {reason} ({what})", fate=fate, reason=reason, what=what)
                return
            self._log.warn("{fate} by the handler: {reason} ({what})", fate=fate, reason=reason, what=what)
            return
        again = f" in {verdict.delay:g} s" if verdict.delay > 0 else ""
        self._log.error(
            "handler failed, {fate}{again} ({what})\n{traceback}",
            fate=fate,
            again=again,
            what=what,
            # Text, not the Failure: an observer that prints local variables would print the body.
            traceback=self._scrub(failure.getTraceback(), delivery.body),
        )

    def _scrub(self, text: str, body: bytes) -> str:
        """Take our secrets, and the body where an exception quotes it whole, out of a traceback."""
        for secret in self._secrets:
            text = text.replace(secret.reveal(), REDACTED)
        if 4 <= len(body) <= len(text):
            content = bytes(body).decode("utf-8", "replace")
            for quoted in (content, repr(bytes(body))[2:-1], repr(content)[1:-1]):
                text = text.replace(quoted, "<body>")
        if len(text) > TRACEBACK_LIMIT:
            half = TRACEBACK_LIMIT // 2
            text = f"{text[:half]}\n...\n{text[-half:]}"
        return text

    def _log_late(self, work: _Work) -> None:
        self._log.info(
            "handler ended after the deadline, the broker will deliver its message again ({what})",
            what=self._describe(work.delivery),
        )


def _name(value: str | None) -> str:
    return "none" if value is None else repr(clip(value, 80))
