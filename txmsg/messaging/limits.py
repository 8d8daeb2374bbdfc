"""TokenBucket: at most so many a second, with bursts.

The algorithm: https://en.wikipedia.org/wiki/Token_bucket.  Invariant: over any stretch of `t` seconds no more than
`capacity + fill_rate * t` tokens are consumed.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txmsg.errors import ConfigurationError

__all__ = ["TokenBucket"]

#: Of a token: whoever waits for as long as `expected_time` said shall not miss it by the last digit.
_ROUNDING: Final = 1e-9


class TokenBucket:
    """Tokens that fill up with time.

    fill_rate: float -- tokens per second, above 0.
    capacity: float -- how many it holds at most, which is the greatest burst; 1 by default.  It begins full.
    clock -- what tells the time (`seconds()`); None takes the installed reactor.

    What has to wait may be left in it with :meth:`add`, and taken with :meth:`pop` when there are tokens for it; the
    bucket only keeps it.
    """

    def __init__(self, fill_rate: float, capacity: float = 1, *, clock: Any = None) -> None:
        if not (math.isfinite(fill_rate) and fill_rate > 0):
            raise ConfigurationError(f"fill_rate is a number of tokens per second above 0, not {fill_rate!r}")
        if not (math.isfinite(capacity) and capacity > 0):
            raise ConfigurationError(f"capacity is a number of tokens above 0, not {capacity!r}")
        self.fill_rate = float(fill_rate)
        self.capacity = float(capacity)
        #: What was left with `add`, oldest first.
        self.contents: deque[Any] = deque()
        self._clock = clock
        self._tokens = self.capacity
        #: When its tokens were last counted, in seconds of the clock.
        self.timestamp = self._seconds()

    def can_consume(self, tokens: float = 1) -> bool:
        """Take that many tokens, all or none; whether they were there.  ConfigurationError for a negative number."""
        if not tokens >= 0:  # NaN is none either
            raise ConfigurationError(f"tokens is a number from 0, not {tokens!r}")
        if tokens > self.available() + _ROUNDING:
            return False
        self._tokens -= tokens
        return True

    def expected_time(self, tokens: float = 1) -> float:
        """In how many seconds there will be that many tokens, if nobody takes any; 0.0: now.

        For more than the capacity: when it would hold so many, though it never does.
        """
        return max(tokens - self.available(), 0.0) / self.fill_rate

    def consume(self, tokens: float = 1) -> Deferred[None]:
        """Take that many tokens as soon as they are there; fires when it has.  May be cancelled: then none are taken.

        Who asks while others wait may be served before them, when it asks for less.
        ConfigurationError for more than the capacity: they are never there.
        """
        return Deferred.fromCoroutine(self._consume(tokens))

    async def _consume(self, tokens: float) -> None:
        if tokens > self.capacity:
            raise ConfigurationError(f"the bucket holds {self.capacity:g} tokens, and never {tokens:g}")
        while not self.can_consume(tokens):
            # A little more than the sum says, which is rounded: no second wait of next to nothing.
            await deferLater(self._time(), self.expected_time(tokens) + 1e-6)

    def available(self) -> float:
        """How many tokens there are now."""
        now = self._seconds()
        if now > self.timestamp and self._tokens < self.capacity:
            self._tokens = min(self.capacity, self._tokens + self.fill_rate * (now - self.timestamp))
        self.timestamp = now
        return self._tokens

    def add(self, item: Any) -> None:
        """Leave something in it that waits for tokens."""
        self.contents.append(item)

    def pop(self) -> Any:
        """What was left there first; takes no token.  IndexError: there is nothing."""
        return self.contents.popleft()

    def clear_pending(self) -> None:
        """Forget what was left there."""
        self.contents.clear()

    def __repr__(self) -> str:
        return (
            f"<TokenBucket {self.fill_rate:g}/s, {self._tokens:g} of {self.capacity:g}, {len(self.contents)} waiting>"
        )

    def _time(self) -> IReactorTime:
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        return cast("IReactorTime", self._clock)

    def _seconds(self) -> float:
        return self._time().seconds()
