"""Trying again: the arithmetic of the waits, and the loop on a clock."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError, ConnectFailed, NotFound, OperationTimeout
from txmsg.messaging.retrying.retrying import RetryIntervals, fxrange, fxrangemax, retry_over_time


class RetryIntervalsTests(SynchronousTestCase):
    """The numbers: kombu B7, B8."""

    def waits(self, count: int, **fields: float) -> list[float]:
        """The first waits."""
        intervals = RetryIntervals(**fields)  # type: ignore[arg-type]
        return [intervals.wait(k) for k in range(1, count + 1)]

    def test_the_first_wait_is_the_start(self) -> None:
        """kombu B7: 2/2/30 is 2, 4, 6 ... and never more than 30."""
        self.assertEqual(self.waits(4), [2, 4, 6, 8])
        self.assertEqual(self.waits(18)[13:], [28, 30, 30, 30, 30])

    def test_the_start_may_be_zero(self) -> None:
        """kombu B7: 0/2/30 starts with no wait."""
        expected = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 30, 30]
        self.assertEqual(self.waits(18, interval_start=0), expected)

    def test_the_maximum_is_never_exceeded(self) -> None:
        """kombu B7 and CN7: 1/1/1 stays 1, and a start above the maximum is cut."""
        self.assertEqual(self.waits(3, interval_start=1, interval_step=1, interval_max=1), [1, 1, 1])
        self.assertEqual(self.waits(2, interval_start=50), [30, 30])

    def test_how_many(self) -> None:
        """kombu B8 and CN6: None is for ever, 0 is no retry, N is N."""
        self.assertTrue(RetryIntervals().allows(10**9))
        self.assertFalse(RetryIntervals(max_retries=0).allows(1))
        three = RetryIntervals(max_retries=3)
        self.assertEqual([three.allows(k) for k in (1, 2, 3, 4)], [True, True, True, False])

    def test_nonsense_is_refused(self) -> None:
        for fields in (
            {"max_retries": -1},
            {"max_retries": 1.5},
            {"max_retries": True},
            {"interval_start": -1},
            {"interval_step": float("nan")},
            {"interval_max": "30"},
            {"interval_max": None},
            {"timeout": -0.1},
        ):
            with pytest.raises(ConfigurationError, match=next(iter(fields))):
                RetryIntervals(**fields)
        with pytest.raises(ValueError, match="counted from 1"):
            RetryIntervals().wait(0)

    def test_a_policy_changes_what_it_names(self) -> None:
        """kombu G18: a retry_policy is a mapping of some fields, or the whole."""
        base = RetryIntervals(interval_start=1)
        self.assertIs(base.changed(None), base)
        self.assertEqual(base.changed({}), base)
        self.assertEqual(base.changed({"max_retries": 3}), RetryIntervals(3, interval_start=1))
        whole = RetryIntervals(timeout=4)
        self.assertIs(base.changed(whole), whole)
        with pytest.raises(ConfigurationError, match="no max_retry: there are interval_max"):
            base.changed({"max_retry": 3})


class FxrangeTests(SynchronousTestCase):
    """kombu B25: ranges of floats."""

    def first(self, numbers: Iterator[float], count: int = 5) -> list[float]:
        """The first few."""
        return list(islice(numbers, count))

    def test_up_to_and_with_the_stop(self) -> None:
        self.assertEqual(self.first(fxrange(1.0, 3.0)), [1.0, 2.0, 3.0])
        self.assertEqual(self.first(fxrange(1.0, 2.9, 0.5)), [1.0, 1.5, 2.0, 2.5])

    def test_without_end(self) -> None:
        self.assertEqual(self.first(fxrange(0, None, 2)), [0, 2, 4, 6, 8])
        self.assertIsInstance(next(fxrange(0)), float)

    def test_the_last_again_and_again(self) -> None:
        self.assertEqual(self.first(fxrange(1, 3, 1, repeatlast=True)), [1, 2, 3, 3, 3])

    def test_rounding_does_not_add_up(self) -> None:
        self.assertEqual(len(list(fxrange(0, 1000, 0.1))), 10001)

    def test_a_ceiling(self) -> None:
        self.assertEqual(self.first(fxrangemax(1, None, 2, 4)), [1, 3, 4, 4, 4])
        self.assertEqual(self.first(fxrangemax(1, 6, 2, 4)), [1, 3, 4])


class RetryOverTimeTests(SynchronousTestCase):
    """kombu B24: the loop, with any function and any errors."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []
        self.told: list[tuple[str, float]] = []
        self.ticks: list[float] = []
        self.failures = 0
        self.error: BaseException = ConnectFailed("refused")

    def attempt(self, *args: Any, **kwargs: Any) -> Any:
        """Fails as often as it is told."""
        self.calls.append(self.clock.seconds())
        if len(self.calls) <= self.failures:
            return fail(self.error)
        return succeed((args, kwargs))

    def errback(self, error: BaseException, interval: float) -> None:
        """Notes what it is given."""
        self.told.append((type(error).__name__, interval))

    def callback(self) -> None:
        """Notes when."""
        self.ticks.append(self.clock.seconds())

    def start(self, failures: int, **options: Any) -> Deferred[Any]:
        """The loop over `attempt`."""
        self.failures = failures
        options.setdefault("errback", self.errback)
        return retry_over_time(self.attempt, ConnectFailed, (1,), {"a": 2}, reactor=self.clock, **options)

    def test_success_at_once(self) -> None:
        self.assertEqual(self.successResultOf(self.start(0)), ((1,), {"a": 2}))
        self.assertEqual((self.calls, self.told), ([0.0], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_waits(self) -> None:
        """kombu B2, B7: errback gets each error and the wait that follows."""
        done = self.start(5, interval_start=1, interval_step=3, interval_max=8)
        self.clock.pump([1, 4, 7, 8, 8])
        self.successResultOf(done)
        self.assertEqual(self.calls, [0, 1, 5, 12, 20, 28])
        self.assertEqual(self.told, [("ConnectFailed", wait) for wait in (1, 4, 7, 8, 8)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_errback_comes_before_the_wait(self) -> None:
        """kombu B2."""
        done = self.start(1)
        self.assertEqual(self.told, [("ConnectFailed", 2.0)])
        self.clock.advance(1.999)
        self.assertEqual(len(self.calls), 1)
        self.clock.advance(0.001)
        self.successResultOf(done)

    def test_n_retries_are_n_and_one_attempts(self) -> None:
        """kombu B8: and the last failure is not told to the errback, for nothing follows."""
        done = self.start(99, max_retries=3, interval_start=1, interval_step=0)
        self.clock.pump([1, 1, 1, 1, 1])
        self.assertIs(self.failureResultOf(done).value, self.error)
        self.assertEqual((len(self.calls), len(self.told)), (4, 3))

    def test_success_at_the_last_retry(self) -> None:
        """kombu B8."""
        done = self.start(3, max_retries=3, interval_start=1, interval_step=0)
        self.clock.pump([1, 1, 1])
        self.successResultOf(done)

    def test_no_retries(self) -> None:
        """kombu B8 and CN6."""
        self.failureResultOf(self.start(1, max_retries=0), ConnectFailed)
        self.assertEqual((len(self.calls), self.told), (1, []))

    def test_works_without_errback(self) -> None:
        """kombu B24."""
        done = self.start(1, errback=None)
        self.clock.advance(2)
        self.successResultOf(done)

    def test_another_error_ends_it(self) -> None:
        """kombu B9."""
        self.error = NotFound("no queue")
        self.failureResultOf(self.start(1), NotFound)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_raises_is_as_what_fails(self) -> None:
        def raises() -> None:
            self.calls.append(self.clock.seconds())
            raise self.error

        done = retry_over_time(raises, (ConnectFailed, KeyError), max_retries=1, reactor=self.clock)
        self.clock.advance(2)
        self.failureResultOf(done, ConnectFailed)
        self.assertEqual(self.calls, [0, 2])

    def test_which_errors_may_be_a_function(self) -> None:
        self.failures = 1
        done = retry_over_time(self.attempt, lambda error: "refused" in str(error), reactor=self.clock)
        self.clock.advance(2)
        self.successResultOf(done)

    def test_a_coroutine_is_run(self) -> None:
        async def attempt() -> str:
            await succeed(None)
            return "here"

        self.assertEqual(self.successResultOf(retry_over_time(attempt, KeyError, reactor=self.clock)), "here")

    # -- the callback

    def test_the_callback_comes_about_once_a_second(self) -> None:
        """kombu B3."""
        done = self.start(2, callback=self.callback, interval_start=2.5, interval_step=0)
        self.clock.pump([0.5] * 10)
        self.successResultOf(done)
        self.assertEqual(self.ticks, [0.0, 1.0, 2.0, 2.5, 3.5, 4.5])
        self.assertEqual(self.calls, [0.0, 2.5, 5.0])

    def test_the_callback_can_end_it(self) -> None:
        """kombu B3: what it raises is the outcome, also in the middle of a wait."""
        for when in (0.0, 1.0):
            self.calls.clear()
            start = self.clock.seconds()

            def callback(until: float = start + when) -> None:
                if self.clock.seconds() >= until:
                    raise RuntimeError("enough")

            done = self.start(9, callback=callback)
            self.clock.advance(when)
            self.failureResultOf(done, RuntimeError)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_errback_can_end_it(self) -> None:
        """kombu B2: what it raises is the outcome."""

        def errback(error: BaseException, interval: float) -> None:
            raise RuntimeError("enough")

        self.failureResultOf(self.start(9, errback=errback), RuntimeError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # -- the limit

    def test_the_limit_cuts_a_wait(self) -> None:
        """kombu B4: 2 + 4 s would be more than 5: the error is here after 5, and the errback was told so."""
        done = self.start(99, timeout=5)
        self.clock.pump([2, 2.5])
        self.assertNoResult(done)
        self.clock.advance(0.5)
        self.assertIs(self.failureResultOf(done).value, self.error)
        self.assertEqual([wait for _, wait in self.told], [2, 3])
        self.assertEqual(self.calls, [0, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_limit_cuts_an_attempt(self) -> None:
        """kombu B4: nothing hangs, whatever the attempt does; it is cancelled."""
        attempts: list[Deferred[None]] = []

        def hangs() -> Deferred[None]:
            attempts.append(Deferred())
            return attempts[-1]

        done = retry_over_time(hangs, ConnectFailed, timeout=3, reactor=self.clock)
        self.clock.advance(3)
        self.assertIn("3 s", str(self.failureResultOf(done, OperationTimeout).value))
        self.assertTrue(attempts[0].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_limit_tells_the_last_error(self) -> None:
        """kombu B4."""
        attempts: list[Deferred[None]] = []

        def hangs() -> Deferred[None]:
            attempts.append(Deferred() if attempts else fail(self.error))
            return attempts[-1]

        done = retry_over_time(hangs, ConnectFailed, timeout=3, reactor=self.clock)
        self.clock.pump([2, 1])
        self.assertIs(self.failureResultOf(done).value, self.error)

    def test_no_limit_is_left_behind(self) -> None:
        """kombu B4."""
        self.successResultOf(self.start(0, timeout=5))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ticks_go_on_in_a_wait_that_is_cut(self) -> None:
        """kombu B3, B4."""
        done = self.start(99, timeout=2.5, interval_start=30, callback=self.callback)
        self.clock.pump([1, 1, 0.5])
        self.failureResultOf(done)
        self.assertEqual(self.ticks, [0, 1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # -- cancelling

    def test_cancelling_a_wait(self) -> None:
        done = self.start(99, timeout=50, callback=self.callback)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_an_attempt(self) -> None:
        """The attempt is cancelled; its error, a recoverable one, is not retried."""
        cancelled: list[Deferred[None]] = []

        def attempt() -> Deferred[None]:
            def cancel(deferred: Deferred[None]) -> None:
                cancelled.append(deferred)
                deferred.errback(self.error)

            return Deferred(cancel)

        done = retry_over_time(attempt, ConnectFailed, reactor=self.clock)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_in_the_errback(self) -> None:
        done: Deferred[Any] = Deferred()
        started = False

        def errback(error: BaseException, interval: float) -> None:
            if started:
                done.cancel()

        done = self.start(99, errback=errback)
        started = True
        self.clock.advance(2)
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_in_the_attempt(self) -> None:
        made: list[Deferred[Any]] = []

        def attempt() -> Deferred[None]:
            self.calls.append(self.clock.seconds())
            if made:
                made[0].cancel()
            return fail(self.error)

        made.append(retry_over_time(attempt, ConnectFailed, reactor=self.clock))
        self.clock.advance(2)
        self.failureResultOf(made[0], CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
