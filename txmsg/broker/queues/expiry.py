"""When messages and queues expire.

RabbitMQ's rules (https://www.rabbitmq.com/docs/ttl): a message expires at the head of its queue, after the queue's
x-message-ttl or its own expiration, whichever is less; so one behind a message that lives longer stays and is counted.
A queue with x-expires is deleted when it had no consumer, no basic.get and no declaration for so long.

Invariant: one timer for all messages of a queue and one for the queue, and none where nothing expires.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from txmsg.broker.erlang_terms import term_of_text
from txmsg.broker.faults import invalid_expiration
from txmsg.broker.queues.arguments import MAX_TTL

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Clock, Timer
    from txmsg.broker.message import Entry

__all__ = ["HeadTimer", "Lease", "check_expiration", "expiry_of", "is_expired"]

_NUMBER: Final = re.compile(r"[+-]?[0-9]+")

#: Seconds that count as nothing.  Sums of floats may fall short of the moment meant by less than this, and a timer
#: for the difference would run at once, again and again.
_SLACK: Final = 1e-6


def check_expiration(expiration: str) -> None:
    """The property `expiration` of a message: Fault 406, in RabbitMQ's words, unless it is a number of milliseconds."""
    if expiration.isascii() and expiration.isdigit() and len(expiration) < 12:
        return
    number = _NUMBER.match(expiration)
    if number is None:
        raise invalid_expiration(expiration, "no_integer")
    rest = expiration[number.end() :]
    if rest:
        raise invalid_expiration(expiration, f"{{leftover_string,{term_of_text(rest)}}}")
    # At most 255 digits, which int() takes without limit of its own.
    value = int(number[0])
    if value < 0:
        raise invalid_expiration(expiration, f"{{value_negative,{value}}}")
    if value > MAX_TTL:
        raise invalid_expiration(expiration, f"{{value_too_large,{value}}}")


def expiry_of(now: float, queue_ttl: int | None, expiration: int | None) -> float | None:
    """The moment at which a message expires that arrives `now`; both times to live in ms, None for ever."""
    if queue_ttl is None:
        ttl = expiration
    elif expiration is None:
        ttl = queue_ttl
    else:
        ttl = min(queue_ttl, expiration)
    return None if ttl is None else now + ttl / 1000


def is_expired(entry: Entry, now: float) -> bool:
    """Whether it may not be delivered any more."""
    return entry.expires_at is not None and entry.expires_at <= now + _SLACK


class HeadTimer:
    """Calls `expired()` when the head of a queue expires."""

    __slots__ = ("_clock", "_due", "_expired", "_timer")

    def __init__(self, clock: Clock, expired: Callable[[], object]) -> None:
        self._clock = clock
        self._expired = expired
        self._timer: Timer | None = None
        self._due = 0.0

    def watch(self, head: Entry | None) -> None:
        """This is the head now.

        A timer for an earlier head stays: it would cost more to cancel it each time than to let it find nothing.
        """
        if head is None or head.expires_at is None:
            return
        if self._timer is not None:
            if self._due <= head.expires_at:
                return
            self._timer.cancel()
        self._due = head.expires_at
        self._timer = self._clock.callLater(max(0.0, self._due - self._clock.seconds()), self._run)

    def _run(self) -> None:
        self._timer = None
        self._expired()

    def stop(self) -> None:
        """No call any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Lease:
    """Calls `expired()` when a queue was not used for `duration` ms.

    `is_used()` tells whether it is in use now (has consumers).  Whoever ends the use, or uses it for a moment, calls
    :meth:`renew`.
    """

    __slots__ = ("_clock", "_duration", "_expired", "_is_used", "_since", "_timer")

    def __init__(
        self, clock: Clock, duration: int, is_used: Callable[[], object], expired: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._duration = duration / 1000
        self._is_used = is_used
        self._expired = expired
        self._timer: Timer | None = None
        self._since = clock.seconds()
        self.renew()

    def renew(self) -> None:
        """It is, or was until now, in use: the time begins anew."""
        self._since = self._clock.seconds()
        if self._timer is None:
            # Set once for a whole run of uses: what was used meanwhile gets another one when it is due.
            self._timer = self._clock.callLater(self._duration, self._run)

    def _run(self) -> None:
        self._timer = None
        if self._is_used():
            return  # renewed when the last consumer goes
        left = self._since + self._duration - self._clock.seconds()
        if left > _SLACK:
            self._timer = self._clock.callLater(left, self._run)
        else:
            self._expired()

    def stop(self) -> None:
        """No call any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
