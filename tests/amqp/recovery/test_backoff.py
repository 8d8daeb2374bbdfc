"""Backoff: the waits between rounds."""

from __future__ import annotations

import random
import unittest

from txmsg.amqp import Backoff
from txmsg.errors import ConfigurationError


class BackoffTests(unittest.TestCase):
    """R12: exponential, full jitter, a cap."""

    def test_grows_to_the_maximum(self) -> None:
        """The bound doubles up to its cap, however long it goes on."""
        backoff = Backoff(jitter=False)
        self.assertEqual([backoff.delay(n) for n in range(1, 9)], [0.5, 1, 2, 4, 8, 16, 30, 30])
        self.assertEqual(backoff.delay(10**9), 30)
        self.assertEqual(Backoff(jitter=False, factor=1000.0).delay(10**6), 30)

    def test_full_jitter(self) -> None:
        """The wait is spread over all of 0 to the bound."""
        backoff = Backoff(random=random.Random(4).random)
        delays = [backoff.delay(5) for _ in range(2000)]
        self.assertTrue(all(0 <= delay <= 8 for delay in delays))
        self.assertAlmostEqual(sum(delays) / len(delays), 4, delta=0.2)
        self.assertLess(min(delays), 0.1)
        self.assertGreater(max(delays), 7.9)

    def test_eager(self) -> None:
        """Early in an outage no wait is longer than `eager`, so that a broker's restart is noticed at once."""
        backoff = Backoff(jitter=False)
        self.assertEqual([backoff.delay(n, 29.9) for n in (1, 2, 3, 9)], [0.5, 1, 1.5, 1.5])
        self.assertEqual(backoff.delay(9, 30.0), 30)

    def test_slow(self) -> None:
        """A host that refused us is left alone for `slow` at least."""
        backoff = Backoff(slow=10, random=random.Random(4).random)
        delays = [backoff.slow_delay() for _ in range(500)]
        self.assertTrue(all(10 <= delay <= 15 for delay in delays))
        self.assertGreater(max(delays), 14.9)
        self.assertEqual(Backoff(slow=10, jitter=False).slow_delay(), 10)

    def test_refused(self) -> None:
        """What makes no sense is a ConfigurationError that names the parameter."""
        for name, value in (
            ("initial", -1),
            ("factor", 0.5),
            ("factor", "2"),
            ("maximum", float("nan")),
            ("jitter", 1),
            ("random", 0.5),
            ("slow", None),
        ):
            with self.subTest(name=name, value=value), self.assertRaisesRegex(ConfigurationError, name):
                Backoff(**{name: value})  # type: ignore[arg-type]
