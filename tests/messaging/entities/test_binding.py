"""binding: what it declares, binds and takes away."""

from __future__ import annotations

import copy
import pickle

from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.entities.recording import RecordingChannel
from txmsg.errors import ConfigurationError
from txmsg.messaging.entities import Exchange, Queue, binding


class BindingTests(SynchronousTestCase):
    """One binding."""

    def setUp(self) -> None:
        """A channel."""
        self.channel = RecordingChannel()

    def test_queue(self) -> None:
        """kombu E19, F20: declares its exchange, binds a queue with key and arguments, and unbinds it the same way."""
        made = binding(Exchange("x", "topic"), "key", {"a": 1})
        queue = Queue("q")(self.channel)
        for call in (made.declare(self.channel), made.bind(queue), made.unbind(queue)):
            self.successResultOf(call)
        self.assertEqual(
            self.channel.calls,
            [
                ("exchange_declare", "x", "topic", {"durable": True}),
                ("queue_bind", "q", "x", "key", {"arguments": {"a": 1}}),
                ("queue_unbind", "q", "x", "key", {"arguments": {"a": 1}}),
            ],
        )

    def test_exchange(self) -> None:
        """kombu E16: an exchange can be bound by one, too; unbind_arguments are for unbinding."""
        made = binding("x", "key", {"a": 1}, {"b": 2})
        exchange = Exchange("to")
        self.successResultOf(made.bind(exchange, channel=self.channel))
        self.successResultOf(made.unbind(exchange, channel=self.channel))
        self.assertEqual(
            self.channel.calls,
            [
                ("exchange_bind", "to", "x", "key", {"arguments": {"a": 1}}),
                ("exchange_unbind", "to", "x", "key", {"arguments": {"b": 2}}),
            ],
        )

    def test_default_exchange(self) -> None:
        """kombu F19: nothing is to be done."""
        queue = Queue("q")(self.channel)
        for made in (binding(), binding(""), binding(Exchange(""))):
            for call in (made.declare(self.channel), made.bind(queue), made.unbind(queue)):
                self.successResultOf(call)
        self.assertEqual(self.channel.calls, [])

    def test_value(self) -> None:
        """kombu E20, E4: equal by all its fields; in a set, a copy and a pickle."""
        made = binding("x", "key", {"a": 1}, {"b": 2})
        same = [binding(Exchange("x"), "key", {"a": 1}, {"b": 2}), copy.copy(made), pickle.loads(pickle.dumps(made))]
        self.assertEqual({made, *same}, {made})
        others: list[object] = [binding("x", "key", {"a": 1}), binding("x", "k", {"a": 1}, {"b": 2}), "x"]
        for other in others:
            self.assertNotEqual(made, other)
        self.assertEqual(repr(made), "<binding 'x' -> 'key'>")

    def test_wrong_arguments(self) -> None:
        """Refused, with what to give."""
        for exchange, key, arguments in ((3, "", None), ("x", 3, None), ("x", "", [1]), ("x", "", {1: 1})):
            with self.assertRaisesRegex(ConfigurationError, "give "):
                binding(exchange, key, arguments)  # type: ignore[arg-type]
