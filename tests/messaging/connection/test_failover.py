"""Tests of which URL is tried next."""

from __future__ import annotations

import random
import unittest
from collections.abc import Iterator
from itertools import cycle, islice, repeat

from txmsg.errors import ConfigurationError
from txmsg.messaging.connection.failover import Failover, FailoverStrategy, round_robin, shuffle
from txmsg.messaging.connection.hidden import HiddenText

URLS = [HiddenText(f"amqp://{name}") for name in "abc"]


class FailoverTests(unittest.TestCase):
    """The URLs of a connection."""

    def following(self, strategy: FailoverStrategy, count: int = 6) -> list[str]:
        """The first URL, and those after it, by the letter."""
        failover = Failover(URLS, strategy)
        return [failover.present[-1], *(failover.next()[-1] for _ in range(count))]

    def test_round_robin(self) -> None:
        """kombu B11, B12: the first one first, then in order, without end."""
        self.assertEqual(self.following("round-robin"), list("abcabca"))

    def test_shuffle(self) -> None:
        """kombu B12: each once in each round, in orders that differ."""
        random.seed(5)
        self.addCleanup(random.seed)
        order = list(islice(shuffle(list("abcd")), 40))
        rounds = [tuple(order[n : n + 4]) for n in range(0, 40, 4)]
        self.assertEqual({tuple(sorted(each)) for each in rounds}, {tuple("abcd")})
        self.assertGreater(len(set(rounds)), 3)
        self.assertEqual(list(shuffle([])), [])

    def test_callable(self) -> None:
        """kombu B12: a callable is given the list; one that ends is asked anew."""
        self.assertEqual(self.following(lambda urls: reversed(urls)), list("acbacba"))
        self.assertEqual(self.following(cycle), list("abcabca"))
        self.assertEqual(self.following(lambda urls: []), list("aaaaaaa"))

    def test_iterator(self) -> None:
        """kombu B12: an iterator is followed, also to URLs that were in no list; at its end nothing changes."""

        def order() -> Iterator[str]:
            yield "amqp://x"
            yield "amqp://x"
            yield "amqp://y"

        self.assertEqual(self.following(order()), list("axxyyyy"))
        self.assertEqual(self.following(repeat("amqp://b")), list("abbbbbb"))

    def test_one_url(self) -> None:
        """kombu B13: with one URL nothing is switched."""
        failover = Failover(URLS[:1], "shuffle")
        self.assertFalse(failover.has_others)
        self.assertEqual(failover.next(), "amqp://a")

    def test_completes_cycle(self) -> None:
        """kombu B14: every third failure of three hosts; every one of a single host."""
        failover = Failover(URLS)
        self.assertEqual([failover.completes_cycle(n) for n in range(6)], [False, False, True] * 2)
        self.assertTrue(Failover(URLS[:1]).completes_cycle(0))

    def test_refused(self) -> None:
        """A name that there is not, and what is no strategy."""
        for wrong in ("random", 5, None):
            with self.subTest(strategy=wrong), self.assertRaises(ConfigurationError):
                Failover(URLS, wrong)  # type: ignore[arg-type]

    def test_present_is_hidden(self) -> None:
        """kombu U5: what an own strategy yields is not shown either."""
        failover = Failover(URLS, repeat("amqp://u:S3CRET@h"))
        failover.next()
        self.assertNotIn("S3CRET", repr(vars(failover)["present"]))
        self.assertEqual(list(islice(round_robin(["a", "b"]), 3)), ["a", "b", "a"])
