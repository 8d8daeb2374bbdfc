"""The tests of txmsg.messaging.limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError
from txmsg.messaging.limits import TokenBucket


class TokenBucketTests(SynchronousTestCase):
    """Rate limits on a clock (kombu AC6)."""

    def setUp(self) -> None:
        self.clock = Clock()

    def test_all_or_nothing(self) -> None:
        """It begins full, and takes what is asked for or nothing (kombu AC6)."""
        bucket = TokenBucket(1, capacity=3, clock=self.clock)
        self.assertTrue(bucket.can_consume(2))
        self.assertFalse(bucket.can_consume(2))
        self.assertTrue(bucket.can_consume(1))
        self.assertFalse(bucket.can_consume())

    def test_what_is_no_number_of_tokens(self) -> None:
        """It would leave more in it than it holds, or nothing for ever."""
        bucket = TokenBucket(1, capacity=3, clock=self.clock)
        for wrong in (-1, float("nan")):
            self.assertRaises(ConfigurationError, bucket.can_consume, wrong)
        self.assertEqual(bucket.available(), 3)

    def test_fills_with_time(self) -> None:
        """At the rate, and up to the capacity (kombu AC6)."""
        bucket = TokenBucket(4, capacity=2, clock=self.clock)
        self.assertTrue(bucket.can_consume(2))
        self.clock.advance(0.2)
        self.assertFalse(bucket.can_consume())
        self.clock.advance(0.05)
        self.assertTrue(bucket.can_consume())
        self.clock.advance(1000)
        self.assertEqual((bucket.available(), bucket.timestamp), (2.0, 1000.25))

    def test_expected_time(self) -> None:
        """In how many seconds there is enough (kombu AC6)."""
        bucket = TokenBucket(0.5, capacity=2, clock=self.clock)
        self.assertEqual(bucket.expected_time(2), 0.0)
        bucket.can_consume(2)
        self.assertEqual((bucket.expected_time(), bucket.expected_time(2)), (2.0, 4.0))
        self.clock.advance(1)
        self.assertEqual(bucket.expected_time(), 1.0)

    def test_what_waits(self) -> None:
        """It keeps what is left with it, in order (kombu AC6)."""
        bucket = TokenBucket(1, clock=self.clock)
        bucket.add("a")
        bucket.add("b")
        bucket.add("c")
        self.assertEqual((bucket.pop(), bucket.pop(), list(bucket.contents)), ("a", "b", ["c"]))
        self.assertEqual(repr(bucket), "<TokenBucket 1/s, 1 of 1, 1 waiting>")
        bucket.clear_pending()
        self.assertRaises(IndexError, bucket.pop)

    def test_consume(self) -> None:
        """Fires as soon as the tokens are there."""
        bucket = TokenBucket(2, clock=self.clock)
        self.successResultOf(bucket.consume())
        waiting = bucket.consume()
        self.clock.advance(0.49)
        self.assertNoResult(waiting)
        self.clock.advance(0.011)
        self.successResultOf(waiting)
        self.assertFalse(bucket.can_consume())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Takes nothing, and leaves nothing behind."""
        bucket = TokenBucket(1, clock=self.clock)
        bucket.can_consume()
        waiting = bucket.consume()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        self.assertTrue(bucket.can_consume())

    def test_never(self) -> None:
        """More than it holds is refused, and so are rates that are none."""
        self.failureResultOf(TokenBucket(1, 2, clock=self.clock).consume(3), ConfigurationError)
        for rate, capacity in ((0, 1), (-1, 1), (float("nan"), 1), (1, 0), (1, float("inf"))):
            self.assertRaises(ConfigurationError, TokenBucket, rate, capacity, clock=self.clock)

    @given(
        rate=st.floats(0.01, 1000),
        capacity=st.floats(0.1, 100),
        steps=st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 50)), max_size=50),
    )
    def test_never_more_than_the_rate(self, rate: float, capacity: float, steps: list[tuple[float, float]]) -> None:
        """Whatever is asked for and when, no more is given than filled in (kombu AC6)."""
        clock = Clock()
        bucket = TokenBucket(rate, capacity, clock=clock)
        consumed = 0.0
        for seconds, tokens in steps:
            clock.advance(seconds)
            if bucket.can_consume(tokens):
                consumed += tokens
            self.assertLessEqual(consumed, (capacity + rate * clock.seconds()) * (1 + 1e-9) + 1e-6)
