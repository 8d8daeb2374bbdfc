"""as_dict and from_dict: entities as settings."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError
from txmsg.messaging.entities import Broadcast, Exchange, Queue, binding


class AsDictTests(SynchronousTestCase):
    """Values that JSON carries."""

    def test_recurse(self) -> None:
        """kombu F21: with recurse, exchange and bindings are dicts as well, and make the same queue again."""
        queues = [
            Queue("q", Exchange("x", "topic", delivery_mode=1), "key", queue_arguments={"a": [1]}, expires=1.5),
            Queue("q", [binding("x", "a", {"n": 1}, {"n": 1}), Exchange("y", "fanout").binding()], alias="mine"),
            Queue("", exclusive=True, max_priority=3),
        ]
        for queue in queues:
            fields = json.loads(json.dumps(queue.as_dict(recurse=True)))
            self.assertEqual(Queue.from_dict(**fields), queue)

    def test_flat(self) -> None:
        """Without it they are the objects."""
        exchange = Exchange("x")
        queue = Queue("q", [binding(exchange, "a")])
        self.assertEqual(Queue("q", exchange).as_dict()["exchange"], exchange)
        self.assertEqual(queue.as_dict()["bindings"], [binding(exchange, "a")])
        self.assertEqual(queue.bindings[0].as_dict()["exchange"], exchange)

    def test_they_are_copies(self) -> None:
        """Changing the dict changes nothing."""
        queue = Queue("q", queue_arguments={"a": 1}, exchange=Exchange("x", arguments={"b": 2}))
        fields = queue.as_dict(recurse=True)
        fields["queue_arguments"].clear()
        fields["exchange"]["arguments"].clear()
        self.assertEqual(queue, Queue("q", Exchange("x", arguments={"b": 2}), queue_arguments={"a": 1}))


class FromDictTests(SynchronousTestCase):
    """The options of settings files."""

    def test_both(self) -> None:
        """kombu F22: durable and auto_delete are for both, unless one is named; binding_key and routing_key are one."""
        queue = Queue.from_dict(
            "q",
            exchange="x",
            exchange_type="topic",
            binding_key="a.#",
            durable=False,
            queue_durable=True,
            auto_delete=False,
            exchange_auto_delete=True,
            delivery_mode="transient",
            exchange_arguments={"e": 1},
            queue_arguments={"q": 1},
            binding_arguments={"b": 1},
            consumer_arguments={"c": 1},
            exclusive=False,
            no_ack=True,
        )
        expected = Queue(
            "q",
            Exchange("x", "topic", durable=False, auto_delete=True, delivery_mode=1, arguments={"e": 1}),
            "a.#",
            durable=True,
            no_ack=True,
            queue_arguments={"q": 1},
            binding_arguments={"b": 1},
            consumer_arguments={"c": 1},
        )
        self.assertEqual(queue, expected)
        self.assertEqual(Queue.from_dict("q", routing_key="k").routing_key, "k")
        self.assertEqual(Queue.from_dict("q", routing_key="k", binding_key="b").routing_key, "b")

    def test_the_rest(self) -> None:
        """kombu F22: every argument of a queue is an option; None is as if it were not there; bindings as dicts."""
        options: dict[str, Any] = {"expires": 1, "message_ttl": 2, "max_length": 3, "max_length_bytes": 4}
        options |= {"max_priority": 5, "alias": "a", "no_declare": True}
        queue = Queue.from_dict("q", **options, durable=None, exchange=None, bindings=None)
        self.assertEqual({key: getattr(queue, key) for key in options}, options)
        self.assertTrue(queue.durable)
        bound = Queue.from_dict("q", bindings=[{"exchange": "x", "routing_key": "a"}, binding("y")])
        self.assertEqual(bound.bindings, [binding("x", "a"), binding("y")])

    def test_unknown(self) -> None:
        """A misspelt option is not passed over."""
        with self.assertRaisesRegex(ConfigurationError, "no option 'exchange_typ': did you mean exchange_type"):
            Queue.from_dict("q", exchange_typ="topic")
        with self.assertRaisesRegex(ConfigurationError, "no option 'zzz': leave it out"):
            Queue.from_dict("q", zzz=1)
        with self.assertRaisesRegex(ConfigurationError, "a binding has no key"):
            Queue.from_dict("q", bindings=[{"exchange": "x", "key": "a"}])

    def test_of_a_subclass(self) -> None:
        """The class that is asked is the class that is made."""
        made = Broadcast.from_dict("bcast.1", exchange="x", exchange_type="fanout")
        self.assertIs(type(made), Broadcast)
        self.assertEqual((made.name, made.exchange), ("bcast.1", Exchange("x", "fanout")))
