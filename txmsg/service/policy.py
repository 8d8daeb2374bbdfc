"""What happens to a message whose handler did not succeed.

The default, `requeue_once`: a failing message is handed back to the queue after `requeue_delay` seconds,
and rejected for good when it fails again, so that it is dead-lettered if its queue has a dead-letter
exchange and dropped if not.  "Again" is read from the broker's `redelivered` flag, which needs no memory
of ours and survives restarts; it is also set when an earlier consumer lost the message, so a message is
tried *at most* twice.  Invariant: no message goes round in a hot loop, whatever the handler does.

With `retry` it waits at the broker, in queues that need no plug-in, and comes back with its number of tries in its
headers; after the last it goes to the dead letter queue (:class:`txmsg.amqp.RetryPolicy`).

A handler that knows better raises :class:`Reject`, :class:`Requeue` or :class:`Halt`.

Sources: https://www.rabbitmq.com/docs/confirms (redelivery), https://www.rabbitmq.com/docs/dlx.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from txmsg.errors import TxmsgError
from txmsg.service.exit_codes import ExitCode

__all__ = [
    "MINIMUM_REQUEUE_DELAY",
    "BodyRefused",
    "FailurePolicy",
    "Halt",
    "HandlerDecision",
    "OnFailure",
    "Reject",
    "Requeue",
    "Settlement",
    "Verdict",
]

#: Seconds that a message asked for with `Requeue` is held at least: the floor that makes a loop not hot.
MINIMUM_REQUEUE_DELAY = 0.1

_LONGEST_DELAY = 86400


class HandlerDecision(TxmsgError):
    """The base of what a handler raises to decide itself what becomes of its message."""


class Reject(HandlerDecision):
    """Raised by a handler: this message is not wanted; reject it without requeue.

    It goes to the queue's dead-letter exchange if there is one, else it is dropped.  `reason` is logged
    (cut at 200 characters): put no message content into it.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = str(reason)
        super().__init__(reason)


class Requeue(HandlerDecision):
    """Raised by a handler: not now; hand the message back to the queue after `delay` seconds.

    There is no limit to how often a handler may say so, but each time costs at least
    `MINIMUM_REQUEUE_DELAY`.  `delay` is from 0 to 86400; None means the service's `requeue_delay`.
    """

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        if delay is not None and not 0 <= delay <= _LONGEST_DELAY:
            raise ValueError(f"delay must be from 0 to {_LONGEST_DELAY} seconds, not {delay}")
        self.delay = delay
        self.reason = str(reason)
        super().__init__(delay, reason)


class Halt(HandlerDecision):
    """Raised by a handler: stop the whole service, in order, with `exit_code` (0 to 255).

    With `requeue=True` (the default) the message goes back to the queue, otherwise it is acked.  Other
    handlers at work are waited for as at SIGTERM.
    """

    def __init__(self, exit_code: int = ExitCode.HANDLER, *, requeue: bool = True, reason: str = "") -> None:
        if not 0 <= exit_code <= 255:
            raise ValueError(f"exit_code must be from 0 to 255, not {exit_code}")
        self.exit_code = int(exit_code)
        self.requeue = requeue
        self.reason = str(reason)
        super().__init__(exit_code, requeue, reason)


class Settlement(enum.Enum):
    """The ways to settle a delivery."""

    ACK = "ack"
    REQUEUE = "requeue"
    REJECT = "reject"
    RETRY = "retry"
    """Published again, to come back later, and then acked."""
    DEAD_LETTER = "dead_letter"
    """Published to the dead letter queue, and then acked."""
    KEEP = "keep"
    """Left unsettled, until the channel closes."""


class BodyRefused(HandlerDecision):
    """The body of a message for a declared handler is not accepted, or cannot be decoded; the handler has not run.

    settlement: Settlement -- what is to become of it.   error: BaseException -- why.
    """

    def __init__(self, settlement: Settlement, error: BaseException) -> None:
        self.settlement = settlement
        self.error = error
        super().__init__(settlement, error)


class OnFailure(enum.Enum):
    """The names that the setting `on_failure` may have."""

    REQUEUE_ONCE = "requeue_once"
    REJECT = "reject"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with one failed message.

    settlement: how to settle it.  delay: seconds to wait before that.  is_decision: the handler asked for
    it, so there is no traceback to log.  halt_with: the exit code to stop the service with, or None.
    reason: the handler's words, "" if none.
    """

    settlement: Settlement
    delay: float = 0.0
    is_decision: bool = False
    halt_with: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """Turns the exception of a handler into a :class:`Verdict`.

    on_failure: `requeue_once` (default), `reject` (no second try) or `retry` (the delays are counted elsewhere).
    requeue_delay: seconds between a failure and its requeue, and the default of `Requeue`.
    """

    on_failure: OnFailure = OnFailure.REQUEUE_ONCE
    requeue_delay: float = 1.0

    def judge(self, error: BaseException, *, redelivered: bool) -> Verdict:
        """The verdict on a message whose handler raised `error`."""
        if isinstance(error, Reject):
            return Verdict(Settlement.REJECT, is_decision=True, reason=error.reason)
        if isinstance(error, Requeue):
            delay = self.requeue_delay if error.delay is None else error.delay
            return Verdict(Settlement.REQUEUE, max(delay, MINIMUM_REQUEUE_DELAY), is_decision=True, reason=error.reason)
        if isinstance(error, Halt):
            settlement = Settlement.REQUEUE if error.requeue else Settlement.ACK
            return Verdict(settlement, is_decision=True, halt_with=error.exit_code, reason=error.reason)
        if isinstance(error, BodyRefused):
            reason = str(error.error) or type(error.error).__name__
            delay = max(self.requeue_delay, MINIMUM_REQUEUE_DELAY) if error.settlement is Settlement.REQUEUE else 0.0
            return Verdict(error.settlement, delay, is_decision=True, reason=reason)
        if not isinstance(error, Exception):
            # SystemExit, KeyboardInterrupt: the handler wants the process to end, not this message to fail.
            return Verdict(Settlement.REQUEUE, halt_with=ExitCode.HANDLER, reason=type(error).__name__)
        if self.on_failure is OnFailure.RETRY:
            return Verdict(Settlement.RETRY)
        if redelivered or self.on_failure is OnFailure.REJECT:
            return Verdict(Settlement.REJECT)
        return Verdict(Settlement.REQUEUE, self.requeue_delay)
