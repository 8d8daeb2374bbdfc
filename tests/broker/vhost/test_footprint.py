"""txmsg.broker.vhost.footprint: what is declared is not counted for much less than it takes."""

from __future__ import annotations

import gc
import tracemalloc
import unittest
from collections.abc import Callable

from tests.broker.model import make_vhost
from txmsg.broker.vhost.footprint import cost_of
from txmsg.broker.vhost.vhost import VirtualHost


class CountTests(unittest.TestCase):
    """Adding up."""

    def test_grows_with_what_is_in_it(self) -> None:
        """Every name, octet and nested value counts."""
        for less, more in (
            ("", "x" * 100),
            (b"", b"x" * 100),
            ({}, {"a": 1}),
            ({"a": 1}, {"a": [1]}),
            ({"a": [1]}, {"a": [1, 2]}),
            ({"a": {"b": 1}}, {"a": {"b": "x" * 10}}),
            ({"a": {"b": 1}}, {"a": {"b" * 10: 1}}),
        ):
            self.assertLess(cost_of(less), cost_of(more))
        self.assertEqual(cost_of("a", {"b": 1}), cost_of("a") + cost_of({"b": 1}))

    def test_deep(self) -> None:
        """However deep, it is no recursion."""
        value: object = 1
        for _ in range(10_000):
            value = [value]
        self.assertGreater(cost_of(value), 10_000)


def _queues(vhost: VirtualHost) -> None:
    for number in range(300):
        vhost.declare_queue(f"queue{number}")


def _arguments(vhost: VirtualHost) -> None:
    for number in range(50):
        table = {f"k{at}": {"a": [1, 1.5 * number, f"text {at}"]} for at in range(30)}
        vhost.declare_queue(f"queue{number}", arguments=table)


def _exchanges(vhost: VirtualHost) -> None:
    for number in range(300):
        vhost.declare_exchange(f"exchange{number}", "topic")


def _direct(vhost: VirtualHost) -> None:
    vhost.declare_queue("q")
    for number in range(500):
        vhost.bind_queue("q", "amq.direct", f"key{number}")


def _topic(vhost: VirtualHost) -> None:
    vhost.declare_queue("q")
    for number in range(200):
        vhost.bind_queue("q", "amq.topic", f"{number}." + "ab." * 50 + "#")


def _headers(vhost: VirtualHost) -> None:
    vhost.declare_queue("q")
    for number in range(100):
        pairs = {f"k{number}-{at}": at for at in range(20)}
        vhost.bind_queue("q", "amq.headers", "", {"x-match": "any", **pairs})


class MeasuredTests(unittest.TestCase):
    """R36: a limit on bytes is only worth what the bytes are."""

    def test_measured(self) -> None:
        """What is counted is at least what was allocated, and not ten times as much."""
        declares: tuple[Callable[[VirtualHost], None], ...]
        declares = (_queues, _arguments, _exchanges, _direct, _topic, _headers)
        for declare in declares:
            vhost = make_vhost()
            gc.collect()
            tracemalloc.start()
            try:
                declare(vhost)
                taken, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            with self.subTest(declare=declare.__name__):
                self.assertLess(taken, vhost.topology_bytes)
                self.assertLess(vhost.topology_bytes, 10 * taken)
