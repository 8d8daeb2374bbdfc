"""txmsg.broker.exchanges.headers, against a model that looks at every binding."""

from __future__ import annotations

import time
import unittest
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.broker.model import fault_of, make_vhost, publish, taken_by
from txmsg.broker.exchanges.headers import HeadersExchange, comparable
from txmsg.wire.field_values import Float32, Int8, Int64, Timestamp, UInt32


def matches(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """Whether a binding matches, by RabbitMQ's description."""
    kind = arguments.get("x-match", "all")
    counted = [
        name for name in arguments if name != "x-match" and (kind.endswith("-with-x") or not name.startswith("x-"))
    ]
    met = [
        name in headers and (arguments[name] is None or comparable(arguments[name]) == comparable(headers[name]))
        for name in counted
    ]
    return any(met) if kind.startswith("any") else all(met)


NAMES = st.sampled_from(["a", "b", "c", "x-d", "x-e", "CC2"])
VALUES = st.sampled_from([1, 2, 1.0, "1", True, False, None, "", b"1", Int64(1), [1], {"a": 1}, Decimal(1)])
TABLES = st.dictionaries(NAMES, VALUES, max_size=4)
MATCH = st.sampled_from([{}, *({"x-match": kind} for kind in ("all", "any", "all-with-x", "any-with-x"))])
ARGUMENTS = st.builds(lambda match, table: {**match, **table}, MATCH, TABLES)


class HeadersCase(unittest.TestCase):
    """A headers exchange and one queue."""

    def setUp(self) -> None:
        self.vhost = make_vhost()
        self.vhost.declare_queue("q")

    def is_match(self, arguments: Mapping[str, Any] | None, headers: Mapping[str, Any] | None) -> bool:
        """Whether a message with these headers gets through a binding with these arguments."""
        self.vhost.bind_queue("q", "amq.headers", "", arguments)
        publish(self.vhost, "amq.headers", "ignored", headers=headers)
        self.vhost.unbind_queue("q", "amq.headers", "", arguments)
        return taken_by(self.vhost) == {"q"}


class MatchTests(HeadersCase):
    """Which bindings match."""

    def test_table_mb(self) -> None:
        """MB: what RabbitMQ was measured to answer."""
        any_, all_ = {"x-match": "any"}, {"x-match": "all"}
        for arguments, headers, expected in (
            (None, None, True),
            (None, {"a": 1}, True),
            ({"a": 1}, {"a": 1, "b": 2}, True),
            ({"a": 1, "b": 2}, {"a": 1}, False),
            ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
            (all_, {}, True),
            (any_, {"a": 1}, False),
            ({**any_, "a": 1, "b": 2}, {"b": 2}, True),
            ({**any_, "a": 1, "b": 2}, {"b": 1, "a": 2}, False),
            ({**any_, "a": 1}, None, False),
            ({"x-a": 1}, {"x-a": 2}, True),
            ({**any_, "x-a": 1}, {"x-a": 1}, False),
            ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 2}, False),
            ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
            ({"x-match": "any-with-x", "x-a": 1, "b": 1}, {"x-a": 1}, True),
            ({"a": None}, {"a": "anything"}, True),
            ({"a": None}, {"a": None}, True),
            ({"a": None}, {"b": 1}, False),
            ({"a": 1}, {"a": "1"}, False),
            ({"a": "1"}, {"a": 1}, False),
            ({"a": 1}, {"A": 1}, False),
        ):
            with self.subTest(arguments=arguments, headers=headers):
                self.assertIs(self.is_match(arguments, headers), expected)

    def test_values(self) -> None:
        """R34: as RabbitMQ compares: numbers by value, texts by octets, the rest by kind too."""
        for one, other, expected in (
            (1, Int64(1), True),
            (Int8(1), UInt32(1), True),
            (1, 1.0, True),
            (1.5, Float32(1.5), True),
            (1, True, False),
            (0, False, False),
            ("true", True, False),
            ("a", b"a", True),
            ("\udcff", b"\xff", True),
            (5, Timestamp(5), True),
            (Decimal("1.0"), Decimal("1.00"), False),
            (Decimal(1), 1, False),
            ([1], [1], True),
            ([1], [1.0], False),
            ({"a": 1}, {"a": 1}, True),
            ({"a": 1}, {"a": 2}, False),
            ({"a": 1}, [1], False),
            ("", None, False),
        ):
            with self.subTest(one=one, other=other):
                self.assertIs(self.is_match({"h": one}, {"h": other}), expected)
                self.assertIs(self.is_match({"x-match": "any", "h": one}, {"h": other}), expected)

    def test_refused(self) -> None:
        """R34: an x-match that is none, with RabbitMQ's texts; other exchanges do not look at it."""
        bind = self.vhost.bind_queue
        for match, text in (
            ("bad", '<<"bad">>; expected all, any, all-with-x, or any-with-x'),
            ("", "<<>>; expected all, any, all-with-x, or any-with-x"),
        ):
            self.assertEqual(
                fault_of(bind, "q", "amq.match", "", {"x-match": match}),
                (406, f"PRECONDITION_FAILED - Invalid x-match field value {text}"),
            )
        for wrong, text in ((1, "signedint (value 1)"), (True, "bool (value true)"), (None, "void (value undefined)")):
            self.assertEqual(
                fault_of(bind, "q", "amq.match", "", {"x-match": wrong}),
                (406, f"PRECONDITION_FAILED - Invalid x-match field type {text}; expected longstr"),
            )
        self.assertEqual(fault_of(bind, "q", "amq.topic", "", {"x-match": "bad"}), (0, ""))
        self.assertEqual(fault_of(self.vhost.unbind_queue, "q", "amq.match", "", {"x-match": "bad"}), (0, ""))
        self.assertEqual(self.vhost.binding_count, 1)

    @given(st.lists(ARGUMENTS, max_size=6), st.lists(TABLES, min_size=1, max_size=6))
    def test_any_bindings(self, bindings: list[dict[str, Any]], messages: list[dict[str, Any]]) -> None:
        """C7.6: what is looked up by the headers is what looking at every binding finds, each queue once."""
        vhost = make_vhost()
        for number, arguments in enumerate(bindings):
            vhost.declare_queue(str(number))
            vhost.bind_queue(str(number), "amq.headers", "", arguments)
        for headers in messages:
            publish(vhost, "amq.headers", headers=headers)
            expected = {str(n) for n, arguments in enumerate(bindings) if matches(arguments, headers)}
            self.assertEqual(taken_by(vhost), expected)

    @given(st.lists(ARGUMENTS, max_size=8), TABLES, st.data())
    def test_unbind(self, bindings: list[dict[str, Any]], headers: dict[str, Any], data: st.DataObject) -> None:
        """What was unbound matches no more, and nothing stays behind of it."""
        vhost = make_vhost()
        for number, arguments in enumerate(bindings):
            vhost.declare_queue(str(number))
            vhost.bind_queue(str(number), "amq.headers", "", arguments)
        order = data.draw(st.permutations(range(len(bindings))))
        half = len(order) // 2
        for number in order[:half]:
            vhost.unbind_queue(str(number), "amq.headers", "", bindings[number])
        publish(vhost, "amq.headers", headers=headers)
        self.assertEqual(taken_by(vhost), {str(n) for n in order[half:] if matches(bindings[n], headers)})
        for number in order[half:]:
            vhost.delete_queue(str(number))
        exchange = vhost.exchanges["amq.headers"]
        assert isinstance(exchange, HeadersExchange)
        self.assertEqual((exchange._by_name, exchange._patterns, dict(exchange._always)), ({}, {}, {}))

    def test_message_without_headers(self) -> None:
        """Only a binding that asks for nothing matches."""
        self.assertTrue(self.is_match({}, None))
        self.assertFalse(self.is_match({"a": None}, None))


class CostTests(HeadersCase):
    """What a route costs."""

    def test_many_bindings(self) -> None:
        """C7.6: bindings that share no pair with the message cost nothing, and one common to all next to nothing."""
        bests: dict[str, list[float]] = {"other": [], "report": []}
        bound = 0
        for count in (5, 5000):
            for number in range(bound, count):
                self.vhost.bind_queue("q", "amq.headers", "", {"type": "report", "number": number})
            bound = count
            exchange = self.vhost.exchanges["amq.headers"]
            self.assertTrue(exchange.route("", {"type": "report", "number": 3}))
            for kind, found in bests.items():
                best = float("inf")
                for _ in range(10):
                    started = time.process_time()
                    for _ in range(20):
                        exchange.route("", {"type": kind, "number": 3})
                    best = min(best, time.process_time() - started)
                found.append(best)
        for kind, (few, many) in bests.items():
            with self.subTest(kind):
                self.assertLess(many, 30 * few)  # one after the other it would be a thousand times

    def test_deep_values(self) -> None:
        """C7.6: the deepest table the wire accepts is compared without an error."""
        value: Any = 1
        for _ in range(15):  # two levels each
            value = [{"a": value}]
        self.assertTrue(self.is_match({"h": value}, {"h": value}))
