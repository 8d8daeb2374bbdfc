"""BlockedState: who hears of connection.blocked, and when a blocked connection is given up."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp.blocked import BlockedState
from txmsg.errors import ConnectionBlockedTimeout


class BlockedStateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.changes: list[bool] = []
        self.given_up: list[BaseException] = []
        self.heard: list[str | None] = []

    def state(self, timeout: float | None = None) -> BlockedState:
        def notify(callback: Callable[..., object], *args: object) -> None:
            callback(*args)

        state = BlockedState(
            self.clock,
            timeout,
            lambda: self.changes.append(state.is_blocked),
            self.given_up.append,
            notify,
        )
        state.add_blocked_callback(self.heard.append)
        state.add_unblocked_callback(lambda: self.heard.append(None))
        return state

    def test_blocked_and_unblocked(self) -> None:
        """I-01, I-02, R16: state, reason and callbacks; the state is set before anybody is told (kombu D4)."""
        state = self.state()
        self.assertFalse(state.is_blocked)
        state.block("low on memory")
        self.assertTrue(state.is_blocked)
        self.assertEqual(state.reason, "low on memory")
        state.unblock()
        self.assertFalse(state.is_blocked)
        self.assertIsNone(state.reason)
        self.assertEqual(self.changes, [True, False])
        self.assertEqual(self.heard, ["low on memory", None])

    def test_an_empty_reason_is_blocked_all_the_same(self) -> None:
        """I-01: falsy is not absent."""
        state = self.state()
        state.block("")
        self.assertTrue(state.is_blocked)
        self.assertEqual(self.heard, [""])

    def test_the_reason_is_made_harmless(self) -> None:
        """C3.3: the peer's words are cut and cannot forge a log line."""
        state = self.state()
        state.block("disk\n" + "x" * 1000)
        assert state.reason is not None
        self.assertNotIn("\n", state.reason)
        self.assertLess(len(state.reason), 250)
        self.assertIn("disk", repr(state))

    def test_without_a_limit_no_timer(self) -> None:
        """B-14: None is never."""
        self.state(None).block("low on memory")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_limit(self) -> None:
        """I-04: given up when it stays blocked for that long; the error has the broker's reason."""
        self.state(5.0).block("low on disk")
        self.clock.advance(4.9)
        self.assertEqual(self.given_up, [])
        self.clock.advance(0.2)
        (error,) = self.given_up
        self.assertIsInstance(error, ConnectionBlockedTimeout)
        self.assertIn("low on disk", str(error))
        self.assertIn("5 s", str(error))

    def test_a_second_notice_does_not_start_the_time_anew(self) -> None:
        """I-04: the limit runs from the first connection.blocked; the newest reason is the one shown."""
        state = self.state(5.0)
        state.block("low on memory")
        self.clock.advance(3)
        state.block("low on disk")
        self.assertEqual(state.reason, "low on disk")
        self.clock.advance(2)
        self.assertEqual(len(self.given_up), 1)

    def test_unblocked_in_time(self) -> None:
        """I-04: connection.unblocked stops the time, and the next block starts it from the beginning."""
        state = self.state(5.0)
        state.block("a")
        self.clock.advance(4)
        state.unblock()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        state.block("b")
        self.clock.advance(4)
        self.assertEqual(self.given_up, [])
        self.clock.advance(1)
        self.assertEqual(len(self.given_up), 1)

    def test_zero_is_at_once(self) -> None:
        """B-14: 0 gives up in the same moment the reactor gets to it."""
        self.state(0.0).block("low on memory")
        self.clock.advance(0)
        self.assertEqual(len(self.given_up), 1)

    def test_stop(self) -> None:
        """R28: stop leaves no timer, may come twice and after the time was over, and keeps the state."""
        state = self.state(5.0)
        state.stop()
        state.block("low on memory")
        state.stop()
        state.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(state.is_blocked)

        expired = self.state(5.0)
        expired.block("low on memory")
        self.clock.advance(5)
        expired.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_callbacks_may_register_callbacks(self) -> None:
        """R32: one that is added while the notice goes round hears the next one."""
        state = self.state()
        state.add_blocked_callback(lambda reason: state.add_blocked_callback(self.heard.append))
        state.block("a")
        self.assertEqual(self.heard, ["a"])
        state.block("b")
        self.assertEqual(self.heard, ["a", "b", "b"])
