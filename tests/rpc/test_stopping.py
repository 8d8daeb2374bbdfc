"""The tests of txmsg.rpc.stopping."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txmsg.messaging import Connection
from txmsg.rpc.stopping import StoppingService


class _Slow(StoppingService):
    """Its first step fails, its second does not end."""

    stops = 0

    async def _stop(self) -> None:
        self.stops += 1
        await self._within(2, fail(ValueError("no")), "the first")
        await self._within(3, self._wait_for_idle(), "the second")
        self._is_stopping = False


class StoppingTests(SynchronousTestCase):
    """R30: a stop ends."""

    def setUp(self) -> None:
        """A service on a clock, and what it logs."""
        self.clock = Clock()
        self.lines: list[str] = []
        log = Logger(namespace="t", observer=lambda event: self.lines.append(formatEvent(event)))  # type: ignore[arg-type]
        self.service = _Slow(Connection("memory://stopping", reactor=self.clock), log)

    def test_steps_that_go_wrong(self) -> None:
        """Each is logged in words, and the next is taken; all who ask wait for one stop, and one may give up."""
        first, second, third = self.service.stop(), self.service.stopService(), self.service.stop()
        third.cancel()
        self.failureResultOf(third)
        self.clock.advance(2.9)
        self.assertNoResult(first)
        self.clock.advance(0.2)
        self.successResultOf(gatherResults([first, second, self.service.stop()]))
        self.assertEqual(self.service.stops, 1)
        self.assertEqual(
            self.lines, ["the first did not end in order: ValueError: no", "the second did not end within 3 s"]
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_now(self) -> None:
        """What is waited for is given up at once; without a stop nothing happens."""
        self.service.stop_now()
        stopping: Deferred[None] = self.service.stop()
        self.service.stop_now()
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
