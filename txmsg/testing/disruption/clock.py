"""The clock of a simulation: a `task.Clock` that never jumps over a moment and that notices a hot loop.

`task.Clock.advance(60)` first moves the time by a minute and then runs what was due within it, so a timer that a call
sets anew begins late.  Here each call runs at its own moment, and those of one moment in the order they were set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.task import Clock
from twisted.logger import Logger

__all__ = ["MOST_CALLS_IN_A_MOMENT", "SimulatedClock", "SimulationStuck"]

#: So many calls without any time passing are no simulation any more but a loop.
MOST_CALLS_IN_A_MOMENT: Final = 100_000


class SimulationStuck(AssertionError):
    """Something runs again and again without any time passing: on a real reactor it would take all of the processor."""


class SimulatedClock(Clock):
    """The time of a simulation, from 0.

    turns: int -- how many calls have run.
    """

    _log = Logger(namespace="txmsg.testing.disruption.clock")

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 0.0
        self.turns = 0
        self._calls_now = 0

    def advance(self, amount: float) -> None:
        """Let `amount` seconds pass, and run what is due meanwhile, each call at its own moment."""
        end = self.rightNow + amount
        while self.turn(end):
            pass
        self.rightNow = max(self.rightNow, end)

    def turn(self, end: float) -> bool:
        """Run the next call that is due by `end`, at its moment; says whether there was one.

        As in a reactor, what a call raises is logged, and the others run all the same.
        """
        self._sortCalls()
        calls = self.calls
        if not calls or calls[0].getTime() > end:
            return False
        call: Any = calls.pop(0)
        moment = call.getTime()
        if moment > self.rightNow:
            self.rightNow = moment
            self._calls_now = 0
        self._calls_now += 1
        if self._calls_now > MOST_CALLS_IN_A_MOMENT:
            raise SimulationStuck(f"{self._calls_now} calls at {self.rightNow:g} s, the last one of {call!r}")
        self.turns += 1
        call.called = 1
        function: Callable[..., object] = call.func
        try:
            function(*call.args, **call.kw)
        except Exception:
            self._log.failure("a delayed call raised")
        return True

    def __repr__(self) -> str:
        return f"<SimulatedClock at {self.rightNow:g} s, {len(self.calls)} calls are due>"
