"""txmsg.broker.vhost.bindings: when two bindings are the same."""

from __future__ import annotations

import unittest
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import tables
from txmsg.broker.vhost.bindings import Binding, identity_of
from txmsg.wire.field_values import Float32, Int8, Int64, Timestamp


def binding(**changes: object) -> Binding:
    values: dict[str, object] = {
        "source": "x",
        "destination": "q",
        "destination_type": "queue",
        "routing_key": "k",
        "arguments": {"a": 1},
    }
    return Binding(**{**values, **changes})  # type: ignore[arg-type]


class IdentityTests(unittest.TestCase):
    """Equality, as RabbitMQ has it."""

    def test_same(self) -> None:
        """F44: the same values are the same binding."""
        self.assertEqual(binding(), binding())
        self.assertEqual(hash(binding()), hash(binding()))
        self.assertEqual(len({binding(), binding()}), 1)

    def test_each_part_counts(self) -> None:
        """F44: and other values are another one."""
        for change in (
            {"source": "y"},
            {"destination": "y"},
            {"destination_type": "exchange"},
            {"routing_key": "y"},
            {"arguments": {"a": 2}},
            {"arguments": {"b": 1}},
            {"arguments": None},
        ):
            with self.subTest(change=change):
                self.assertNotEqual(binding(**change), binding())
        self.assertNotEqual(binding(), "something else")

    def test_no_arguments(self) -> None:
        """An empty table is no table."""
        self.assertEqual(binding(arguments={}), binding(arguments=None))

    def test_order_does_not_count(self) -> None:
        """The order of a table says nothing, that of an array does."""
        self.assertEqual(binding(arguments={"a": 1, "b": 2}), binding(arguments={"b": 2, "a": 1}))
        self.assertNotEqual(binding(arguments={"a": [1, 2]}), binding(arguments={"a": [2, 1]}))

    def test_kind_counts(self) -> None:
        """RabbitMQ takes a number sent in another width for another argument (measured)."""
        values = [1, Int64(1), Int8(1), 1.0, Float32(1), True, "1", b"1", Decimal(1), Timestamp(1), None, [1], {"a": 1}]
        self.assertEqual(len({binding(arguments={"a": value}) for value in values}), len(values))
        self.assertEqual(len({identity_of(Decimal("1.0")), identity_of(Decimal("1.00"))}), 2)

    @given(tables())
    def test_any_table(self, table: dict[str, object]) -> None:
        """Every table has an identity, whatever its order."""
        self.assertEqual(identity_of(table), identity_of(dict(reversed(list(table.items())))))
        hash(binding(arguments=table))

    @given(st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
    def test_nested(self, value: object) -> None:
        """An array and a table with the same things in them differ."""
        self.assertNotEqual(identity_of([value]), identity_of({"0": value}))


class ValueTests(unittest.TestCase):
    """A binding is a value."""

    def test_arguments_are_copied(self) -> None:
        """What the caller does with its table afterwards does not change the binding."""
        arguments = {"a": 1}
        made = binding(arguments=arguments)
        arguments["a"] = 2
        self.assertEqual(made, binding())

    def test_destination(self) -> None:
        """It knows which kind of thing it leads to."""
        self.assertTrue(binding().is_to_queue)
        self.assertFalse(binding(destination_type="exchange").is_to_queue)

    def test_shown(self) -> None:
        """The ends, the key and how many arguments, escaped."""
        self.assertEqual(repr(binding()), "<Binding of queue 'q' to exchange 'x', key 'k', 1 arguments>")
        self.assertNotIn("\n", repr(binding(routing_key="a\nb")))
