"""txmsg.broker.exchanges: direct, fanout and default ones."""

from __future__ import annotations

import unittest

from tests.broker.model import fault_of, make_vhost, publish, take, taken_by
from txmsg.broker.exchanges import EXCHANGE_TYPES, STANDARD_EXCHANGES, DirectExchange
from txmsg.broker.queues.queue import ROUTED, UNROUTED


class ExchangeCase(unittest.TestCase):
    """Three queues."""

    def setUp(self) -> None:
        self.vhost = make_vhost()
        for name in ("one", "two", "three"):
            self.vhost.declare_queue(name)

    def reached(self, exchange: str, key: str = "") -> set[str]:
        """The queues a message gets to."""
        publish(self.vhost, exchange, key)
        return taken_by(self.vhost)


class DirectTests(ExchangeCase):
    """The key is the same, to the letter."""

    def test_route(self) -> None:
        """R34: one queue for a key, several for a key, several keys for a queue."""
        bind = self.vhost.bind_queue
        for queue, key in (("one", "a"), ("two", "a"), ("one", "b"), ("three", "")):
            bind(queue, "amq.direct", key)
        self.assertEqual(self.reached("amq.direct", "a"), {"one", "two"})
        self.assertEqual(self.reached("amq.direct", "b"), {"one"})
        self.assertEqual(self.reached("amq.direct", ""), {"three"})
        for key in ("A", "ab", "a.", "#", "*"):
            self.assertEqual(self.reached("amq.direct", key), set(), key)

    def test_wildcards_are_letters(self) -> None:
        """`#` is a key like any other."""
        self.vhost.bind_queue("one", "amq.direct", "#")
        self.assertEqual(self.reached("amq.direct", "#"), {"one"})
        self.assertEqual(self.reached("amq.direct", "a"), set())

    def test_two_bindings_one_copy(self) -> None:
        """R34: bindings that differ in their arguments only lead to one copy, and each goes by itself."""
        for arguments in (None, {"a": 1}):
            self.vhost.bind_queue("one", "amq.direct", "a", arguments)
        self.assertEqual(self.reached("amq.direct", "a"), {"one"})
        self.vhost.unbind_queue("one", "amq.direct", "a", {"a": 1})
        self.assertEqual(self.reached("amq.direct", "a"), {"one"})
        self.vhost.unbind_queue("one", "amq.direct", "a")
        self.assertEqual(self.reached("amq.direct", "a"), set())
        exchange = self.vhost.exchanges["amq.direct"]
        assert isinstance(exchange, DirectExchange)
        self.assertEqual(exchange._by_key, {})

    def test_unbind_one_of_two_queues(self) -> None:
        """The other one stays bound."""
        self.vhost.bind_queue("one", "amq.direct", "a")
        self.vhost.bind_queue("two", "amq.direct", "a")
        self.vhost.unbind_queue("one", "amq.direct", "a")
        self.assertEqual(self.reached("amq.direct", "a"), {"two"})


class FanoutTests(ExchangeCase):
    """Whatever the key."""

    def test_route(self) -> None:
        """R34: every bound queue once, however often it is bound."""
        for queue, key in (("one", ""), ("one", "x"), ("two", "y")):
            self.vhost.bind_queue(queue, "amq.fanout", key)
        self.assertEqual(self.reached("amq.fanout", "whatever"), {"one", "two"})
        self.vhost.unbind_queue("one", "amq.fanout", "x")
        self.assertEqual(self.reached("amq.fanout", "x"), {"one", "two"})
        self.vhost.unbind_queue("one", "amq.fanout", "")
        self.assertEqual(self.reached("amq.fanout", ""), {"two"})


class DefaultTests(ExchangeCase):
    """The key is the name of a queue."""

    def test_route(self) -> None:
        """R34: every queue is reached by its name and nothing else."""
        self.assertEqual(self.reached("", "two"), {"two"})
        self.assertEqual(publish(self.vhost, "", "four"), UNROUTED)
        self.assertEqual(publish(self.vhost, "", ""), UNROUTED)

    def test_queues_come_and_go(self) -> None:
        """A name nobody had is routed once a queue has it, and not after its end."""
        self.assertEqual(publish(self.vhost, "", "four"), UNROUTED)
        queue = self.vhost.declare_queue("four")
        self.assertEqual(publish(self.vhost, "", "four", b"x"), ROUTED)
        self.assertEqual([message.body for message in take(queue)], [b"x"])
        self.vhost.delete_queue("four")
        self.assertEqual(publish(self.vhost, "", "four"), UNROUTED)

    def test_it_cannot_be_touched(self) -> None:
        """MB: declare, delete, bind and unbind answer 403."""
        refused = (403, "ACCESS_REFUSED - operation not permitted on the default exchange")
        vhost = self.vhost
        calls = (
            lambda: vhost.declare_exchange(""),
            lambda: vhost.declare_exchange("", passive=True),
            lambda: vhost.delete_exchange(""),
            lambda: vhost.bind_queue("one", ""),
            lambda: vhost.unbind_queue("one", ""),
            lambda: vhost.bind_exchange("", "amq.fanout"),
            lambda: vhost.bind_exchange("amq.fanout", ""),
            lambda: vhost.unbind_exchange("", "amq.fanout"),
            lambda: vhost.unbind_exchange("amq.fanout", ""),
        )
        self.assertEqual([fault_of(call) for call in calls], [refused] * len(calls))


class StandardTests(unittest.TestCase):
    """What is there from the start."""

    def test_standard_exchanges(self) -> None:
        """R34: RabbitMQ's seven, durable; the trace one is internal."""
        exchanges = make_vhost().exchanges
        self.assertEqual(
            {name: (found.type, found.durable, found.internal) for name, found in exchanges.items()},
            {
                "": ("direct", True, False),
                "amq.direct": ("direct", True, False),
                "amq.fanout": ("fanout", True, False),
                "amq.topic": ("topic", True, False),
                "amq.headers": ("headers", True, False),
                "amq.match": ("headers", True, False),
                "amq.rabbitmq.trace": ("topic", True, True),
            },
        )

    def test_types(self) -> None:
        """Four types, and each class says its own."""
        self.assertEqual(sorted(EXCHANGE_TYPES), ["direct", "fanout", "headers", "topic"])
        self.assertEqual(len(STANDARD_EXCHANGES), 6)

    def test_shown(self) -> None:
        """The type, the name and how many bindings."""
        vhost = make_vhost()
        self.assertEqual(repr(vhost.exchanges["amq.match"]), "<headers exchange 'amq.match', 0 bindings>")
