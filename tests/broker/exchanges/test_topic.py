"""txmsg.broker.exchanges.topic, against a model that matches one pattern at a time."""

from __future__ import annotations

import functools
import time
import unittest
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from tests.broker.model import fault_of, make_vhost, publish, taken_by
from txmsg.broker.exchanges.topic import MAX_STEPS, TopicExchange, words_of
from txmsg.broker.vhost.bindings import Binding


def matches(pattern: str, key: str) -> bool:
    """Whether a binding key matches a routing key, by trying everything."""
    wanted, given_ = tuple(words_of(pattern)), tuple(words_of(key))

    @functools.cache
    def from_here(i: int, j: int) -> bool:
        if i == len(wanted):
            return j == len(given_)
        if wanted[i] == "#":
            return from_here(i + 1, j) or (j < len(given_) and from_here(i, j + 1))
        return j < len(given_) and wanted[i] in ("*", given_[j]) and from_here(i + 1, j + 1)

    return from_here(0, 0)


def keys(*words: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(words), max_size=6).map(".".join)


PATTERNS = keys("a", "b", "", "*", "#", "a*", "#b")
KEYS = keys("a", "b", "", "c", "*", "#", "a*")


class Topic:
    """A topic exchange alone, with the patterns themselves as queues."""

    def __init__(self) -> None:
        vhost = make_vhost()
        self.exchange = vhost.exchanges["amq.topic"]
        assert isinstance(self.exchange, TopicExchange)
        self.queues = vhost.queues
        self.vhost = vhost

    def bind(self, pattern: str, name: str = "") -> None:
        name = name or f"q {pattern}"
        self.vhost.declare_queue(name)
        self.vhost.bind_queue(name, "amq.topic", pattern)

    def unbind(self, pattern: str) -> None:
        self.vhost.unbind_queue(f"q {pattern}", "amq.topic", pattern)

    def matching(self, key: str) -> list[str]:
        """The names of the destinations, sorted, without their first two letters."""
        return sorted(destination.name[2:] for destination in self.exchange.route(key, None))


class MatchTests(unittest.TestCase):
    """Which patterns match which keys."""

    def assert_matches(self, pattern: str, *, yes: tuple[str, ...] = (), no: tuple[str, ...] = ()) -> None:
        topic = Topic()
        topic.bind(pattern)
        self.assertEqual([key for key in yes if not topic.matching(key)], [], f"{pattern} matches these")
        self.assertEqual([key for key in no if topic.matching(key)], [], f"{pattern} does not match these")

    def test_table_mb(self) -> None:
        """MB: what RabbitMQ was measured to answer (kombu W8)."""
        check = self.assert_matches
        check("*.stock.#", yes=("usd.stock", "eur.stock.db", "a.stock.b.c"), no=("stock.nasdaq", "a.b.stock"))
        check("#", yes=("", "a", "a.b", "."))
        check("#.#", yes=("", "a", "a.b.c"))
        check("*", yes=("a",), no=("", "a.b", "."))
        check("#.*", yes=("a", "a.b"), no=("",))
        check("*.#", yes=("a", "a.b"), no=("",))
        check("a.#", yes=("a", "a.", "a.b.c"), no=("", "b", "ab"))
        check("a.*", yes=("a.", "a.b"), no=("a", "a.b.c"))
        check("*.a", yes=(".a", "b.a"), no=("a", "b.c.a"))
        check("a.*.b", yes=("a..b", "a.x.b"), no=("a.b",))
        check("#.a.#", yes=("a", "x.a", "a.x", "x.a.y"), no=("", "b", "aa"))
        check("", yes=("",), no=("a", "."))

    def test_other_characters_are_letters(self) -> None:
        """MB, C7.6: no regular expression and no glob is made of a key (kombu W9)."""
        self.assert_matches("a(.*)", yes=("a(.*)",), no=("a", "ab"))
        self.assert_matches("a.[b]", yes=("a.[b]",), no=("a.b",))
        self.assert_matches("a*", yes=("a*",), no=("a", "ab"))
        self.assert_matches("a#.b", yes=("a#.b",), no=("a.b",))
        self.assert_matches("?", yes=("?",), no=("a",))

    def test_wildcards_in_keys_are_letters(self) -> None:
        """A routing key with a star is a word like any other."""
        self.assert_matches("a.b", no=("a.*", "a.#", "#", "*.*"))
        self.assert_matches("a.*", yes=("a.*", "a.#"))

    @given(st.lists(PATTERNS, max_size=12), st.lists(KEYS, min_size=1, max_size=12))
    @example(["#.a.*", "*.#.a", "#.#.b", ""], ["a.b", "", "b.a.a", "a.a.a"])
    def test_any_patterns(self, patterns: list[str], routing_keys: list[str]) -> None:
        """C7.6: the walk finds exactly what trying everything finds, each destination once."""
        topic = Topic()
        for pattern in patterns:
            topic.bind(pattern)
        for key in routing_keys:
            expected = sorted({pattern for pattern in patterns if matches(pattern, key)})
            self.assertEqual(topic.matching(key), expected, key)

    @given(st.lists(PATTERNS, max_size=12, unique=True), st.data())
    def test_unbind(self, patterns: list[str], data: st.DataObject) -> None:
        """What was unbound matches no more, what was not still does, and nothing stays behind of it."""
        topic = Topic()
        for pattern in patterns:
            topic.bind(pattern)
        gone = data.draw(st.lists(st.sampled_from(patterns), unique=True)) if patterns else []
        for pattern in gone:
            topic.unbind(pattern)
        left = [pattern for pattern in patterns if pattern not in gone]
        for key in data.draw(st.lists(KEYS, max_size=6)):
            self.assertEqual(topic.matching(key), sorted(pattern for pattern in left if matches(pattern, key)))
        for pattern in left:
            topic.unbind(pattern)
        assert isinstance(topic.exchange, TopicExchange)
        self.assertTrue(topic.exchange._root.is_empty)
        self.assertEqual(topic.exchange._by_key, {})

    def test_patterns_that_mean_the_same(self) -> None:
        """`#.#` and `#` share their place, and each goes by itself."""
        topic = Topic()
        for pattern in ("#", "#.#"):
            topic.bind(pattern, "q x")
        self.assertEqual(topic.matching("a"), ["x"])
        topic.vhost.unbind_queue("q x", "amq.topic", "#")
        self.assertEqual(topic.matching("a"), ["x"])
        topic.vhost.unbind_queue("q x", "amq.topic", "#.#")
        self.assertEqual(topic.matching("a"), [])


def best_of(call: Callable[[], object], times: int = 20, rounds: int = 5) -> float:
    """Seconds of processor time that `call` takes, in the best of some rounds; what is unbounded takes minutes."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(times):
            call()
        best = min(best, (time.process_time() - started) / times)
    return best


class CostTests(unittest.TestCase):
    """What a route costs does not explode."""

    def test_many_hashes(self) -> None:
        """C7.6: `#.#.#...` of 255 bytes takes less than 1 ms."""
        topic = Topic()
        topic.bind(".".join("#" * 128), "q #")
        key = ".".join("a" * 128)
        self.assertEqual(topic.matching(key), ["#"])
        self.assertLess(best_of(lambda: topic.exchange.route(key, None)), 0.05)

    def test_hashes_between_words(self) -> None:
        """C7.6: nor does `#.a.#.a...` explode, whether or not it matches at the end."""
        topic = Topic()
        topic.bind(".".join(["#.a"] * 63), "q yes")
        topic.bind(".".join(["#.a"] * 62 + ["b"]), "q no")
        key = ".".join("a" * 128)
        self.assertEqual(topic.matching(key), ["yes"])
        self.assertLess(best_of(lambda: topic.exchange.route(key, None), 5), 0.5)

    def test_hashes_and_stars(self) -> None:
        """`#.*.#.*...` is as many stars and one `#`."""
        topic = Topic()
        topic.bind(".".join(["#.*"] * 63), "q yes")
        self.assertEqual(topic.matching(".".join("a" * 63)), ["yes"])
        self.assertEqual(topic.matching(".".join("a" * 62)), [])
        key = ".".join("a" * 128)
        self.assertLess(best_of(lambda: topic.exchange.route(key, None)), 0.05)

    def test_many_bindings(self) -> None:
        """C7.6: routing to 1 of 10,000 bindings costs about what 1 of 10 costs; see `benchmarks.routing`."""
        for pattern in ("stock.usd.{}", "*.usd.{}", "stock.#.{}", "#.{}.#"):
            costs = []
            for count in (10, 10_000):
                vhost = make_vhost()
                vhost.declare_queue("q")
                for number in range(count):
                    vhost.bind_queue("q", "amq.topic", pattern.format(number))
                exchange = vhost.exchanges["amq.topic"]
                self.assertEqual(len(exchange.route("stock.usd.5", None)), 1)
                costs.append(best_of(functools.partial(exchange.route, "stock.usd.5", None), 300))
            with self.subTest(pattern=pattern):
                self.assertLess(costs[1], 20 * costs[0])  # one after the other it would be a thousand times

    def test_refused_beyond_a_bound(self) -> None:
        """R36: whose thousands of patterns all match a long key gets a channel error, and holds up nobody."""
        topic = Topic()
        topic.vhost.declare_queue("q")
        exchange = topic.exchange
        for number in range(3000):
            # All combinations of `a` and `*`, then `#`: each of them matches, from then on for ever.
            pattern = ".".join("a" if number >> bit & 1 else "*" for bit in range(12)) + ".#.a"
            exchange.add(Binding("amq.topic", "q", "queue", pattern), topic.queues["q"])
        key = ".".join("a" * 128)
        started = time.process_time()
        code, text = fault_of(publish, topic.vhost, "amq.topic", key)
        self.assertLess(time.process_time() - started, 5)
        self.assertEqual(code, 506)
        self.assertIn("amq.topic", text)
        self.assertGreater(3000 * 128, MAX_STEPS)
        self.assertEqual(taken_by(topic.vhost), set())
        publish(topic.vhost, "amq.topic", ".".join("a" * 14))
        self.assertEqual(taken_by(topic.vhost), {"q"})
