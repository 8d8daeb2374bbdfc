"""What became of the Deferreds of a simulation: each must fire, once, with a result or a typed failure (R2, R28)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.errors import TxmsgError
from txmsg.testing.disruption.clock import SimulatedClock

__all__ = ["Outcome"]


class Outcome:
    """What became of one Deferred that is watched; its failure counts as handled.

    what: str -- whose it is.
    watched_at: float; fired_at: float | None -- in seconds of the simulation.
    result -- what it fired with; None before, and for a failure.
    error: BaseException | None -- what it failed with.
    """

    def __init__(self, deferred: Deferred[Any], what: str, clock: SimulatedClock) -> None:
        self.what = what
        self.watched_at = clock.seconds()
        self.fired_at: float | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._clock = clock
        deferred.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, result: Any) -> None:
        self.fired_at = self._clock.seconds()
        self.result = result

    def _failed(self, failure: Failure) -> None:
        self.fired_at = self._clock.seconds()
        self.error = failure.value

    @property
    def has_fired(self) -> bool:
        """Whether anything became of it."""
        return self.fired_at is not None

    @property
    def succeeded(self) -> bool:
        """Whether it fired with a result."""
        return self.has_fired and self.error is None

    @property
    def is_typed(self) -> bool:
        """Whether it succeeded, or failed with an error of txmsg's."""
        return self.succeeded or isinstance(self.error, TxmsgError)

    def __repr__(self) -> str:
        if not self.has_fired:
            return f"<Outcome of {self.what}: none since {self.watched_at:g} s>"
        how = "succeeded" if self.error is None else type(self.error).__name__
        return f"<Outcome of {self.what}: {how} at {self.fired_at:g} s>"
