"""Backoff: how long to wait before the next attempt.

Exponential with full jitter and a cap, so that many clients of one broker spread out: with full jitter (uniform between
0 and the bound) they make the fewest attempts for the same time to recover.  Pure: it knows no clock and no state.

The promise is R12; it is what limits the attempts of a hundred clients after a restart (F27).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random as default_random

from txmsg.amqp.validation import flag, seconds, shown
from txmsg.errors import ConfigurationError

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The policy of a ReconnectingConnection; times in seconds.

    initial: 0.5 -- the bound of the first wait.   factor: 2.0 -- the bound grows by it with each round over all hosts.
    maximum: 30.0 -- the bound never exceeds it.
    eager: 1.5 and eager_for: 30.0 -- while an outage is younger than `eager_for` the bound does not exceed `eager`, so
        that a broker that restarts is found again within `eager` of being up.  Set eager_for=0 to do without.
    reset_after: 30.0 -- a connection that was ready for so long was stable: the next outage begins at `initial`.
    slow: 30.0 -- the least wait for a host that refused us (login, virtual host, TLS name): no fast loop (R12).
    jitter: True -- wait between 0 and the bound; False: the bound itself, for tests.
    random: a callable that returns floats in [0, 1) -- default: random.random.
    """

    initial: float = 0.5
    factor: float = 2.0
    maximum: float = 30.0
    eager: float = 1.5
    eager_for: float = 30.0
    reset_after: float = 30.0
    slow: float = 30.0
    jitter: bool = True
    random: Callable[[], float] = default_random

    def __post_init__(self) -> None:
        for name in ("initial", "maximum", "eager", "eager_for", "reset_after", "slow"):
            object.__setattr__(self, name, seconds(name, getattr(self, name), zero=True))
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float) or not 1 <= self.factor <= 1000:
            raise ConfigurationError(f"factor must be a number from 1 to 1000, not {shown(self.factor)}")
        flag("jitter", self.jitter)
        if not callable(self.random):
            raise ConfigurationError("random must be a callable that returns a float")

    def bound(self, attempt: int, outage: float | None = None) -> float:
        """Return the most that `delay` returns.

        attempt: int -- 1 for the first wait of an outage.   outage: how long it has lasted; None: never mind.
        """
        exponent = min(max(attempt, 1) - 1, 60)
        try:
            bound = min(self.initial * self.factor**exponent, self.maximum)
        except OverflowError:
            bound = self.maximum
        if outage is not None and outage < self.eager_for:
            bound = min(bound, self.eager)
        return bound

    def delay(self, attempt: int, outage: float | None = None) -> float:
        """Return the seconds to wait before the next round over the hosts; arguments as for `bound`."""
        bound = self.bound(attempt, outage)
        return bound * self.random() if self.jitter else bound

    def slow_delay(self) -> float:
        """Return the seconds for which a host that refused us is left alone: `slow` to one and a half times that."""
        return self.slow * (1 + self.random() / 2) if self.jitter else self.slow
