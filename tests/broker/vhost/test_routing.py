"""txmsg.broker.vhost.routing: from one exchange through others to queues."""

from __future__ import annotations

import unittest
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.broker.model import fault_of, make_vhost, publish, take, taken_by
from txmsg.broker.faults import Fault
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import ROUTED, UNROUTED
from txmsg.broker.vhost import routing
from txmsg.broker.vhost.routing import RouteCache, routing_keys, without_bcc
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties


class RoutingCase(unittest.TestCase):
    """Some exchanges and queues."""

    def setUp(self) -> None:
        self.vhost = make_vhost()
        for name in ("one", "two", "three"):
            self.vhost.declare_queue(name)

    def exchange(self, name: str, type: str = "fanout", **more: Any) -> None:
        self.vhost.declare_exchange(name, type, **more)

    def reached(self, exchange: str, key: str = "", **more: Any) -> set[str]:
        """The queues a message gets to; whether it counts as routed agrees with it."""
        outcome = publish(self.vhost, exchange, key, **more)
        queues = taken_by(self.vhost)
        self.assertEqual(outcome, ROUTED if queues else UNROUTED)
        return queues


class ChainTests(RoutingCase):
    """Exchange to exchange."""

    def test_through(self) -> None:
        """R34: each exchange looks at the key in its own way."""
        self.exchange("topics", "topic")
        self.vhost.bind_exchange("topics", "amq.direct", "a.b")
        self.vhost.bind_queue("one", "topics", "a.*")
        self.vhost.bind_queue("two", "topics", "x.*")
        self.assertEqual(self.reached("amq.direct", "a.b"), {"one"})
        self.assertEqual(self.reached("amq.direct", "a.c"), set())

    def test_one_copy(self) -> None:
        """MB: A to B and back, A to itself, a queue bound to both: one copy."""
        self.exchange("a")
        self.exchange("b")
        for destination, source in (("a", "a"), ("b", "a"), ("a", "b")):
            self.vhost.bind_exchange(destination, source)
        for source in ("a", "b"):
            self.vhost.bind_queue("one", source)
            self.vhost.bind_queue("two", source, "again")
        self.assertEqual(self.reached("a"), {"one", "two"})
        self.assertEqual(self.reached("b"), {"one", "two"})

    def test_internal(self) -> None:
        """R34: clients may not publish to it, exchanges may."""
        self.exchange("inside", internal=True)
        self.vhost.bind_queue("one", "inside")
        self.vhost.bind_exchange("inside", "amq.fanout")
        self.assertEqual(self.reached("amq.fanout"), {"one"})
        text = "ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '/'"
        self.assertEqual(fault_of(publish, self.vhost, "inside"), (403, text))
        self.assertEqual(fault_of(self.vhost.publishable, "inside"), (403, text))

    def test_internal_after_a_dead_letter(self) -> None:
        """C7.5: that a dead letter has found its way through it opens it for nobody."""
        self.exchange("inside", internal=True)
        self.vhost.bind_queue("one", "inside", "k")
        letter = Message.published("inside", "k", NO_PROPERTIES, b"")
        self.vhost.publish_dead_letter("elsewhere", letter, NO_PROPERTIES)
        self.assertEqual(self.vhost.queues["one"].message_count, 1)
        again = Message.published("inside", "k", NO_PROPERTIES, b"")
        with self.assertRaises(Fault) as caught:
            self.vhost.publish("inside", "k", again, NO_PROPERTIES)
        self.assertEqual(caught.exception.reply_code, 403)
        self.assertEqual(self.vhost.queues["one"].message_count, 1)

    def test_long_chain(self) -> None:
        """R36: a thousand exchanges in a row are no recursion."""
        names = [f"x{number}" for number in range(900)]
        for name in names:
            self.exchange(name)
        for number in range(899):
            self.vhost.bind_exchange(names[number + 1], names[number])
        self.vhost.bind_queue("one", names[-1])
        self.assertEqual(self.reached(names[0]), {"one"})

    def test_missing(self) -> None:
        """F44: 404 for an exchange there is not."""
        text = "NOT_FOUND - no exchange 'none' in vhost '/'"
        self.assertEqual(fault_of(publish, self.vhost, "none"), (404, text))
        self.assertEqual(fault_of(publish, self.vhost, "none", headers={}), (404, text))
        self.assertEqual(fault_of(self.vhost.publishable, "none"), (404, text))
        self.assertIs(self.vhost.publishable("amq.direct"), self.vhost.exchanges["amq.direct"])


class AlternateTests(RoutingCase):
    """Alternate exchanges."""

    def setUp(self) -> None:
        super().setUp()
        self.exchange("rest")
        self.vhost.bind_queue("two", "rest")
        self.exchange("x", "direct", arguments={"alternate-exchange": "rest"})
        self.vhost.bind_queue("one", "x", "a")

    def test_only_what_is_left(self) -> None:
        """R34: it gets what the exchange routes nowhere, and nothing else."""
        self.assertEqual(self.reached("x", "a"), {"one"})
        self.assertEqual(self.reached("x", "b"), {"two"})

    def test_message_is_unchanged(self) -> None:
        """R34: exchange and key stay those of the publish."""
        publish(self.vhost, "x", "b")
        (message,) = take(self.vhost.queues["two"])
        self.assertEqual((message.exchange, message.routing_key), ("x", "b"))

    def test_not_there(self) -> None:
        """R34: one that is missing is none; it works once it is declared."""
        self.exchange("y", arguments={"alternate-exchange": "later"})
        self.assertEqual(self.reached("y"), set())
        self.exchange("later")
        self.vhost.bind_queue("three", "later")
        self.assertEqual(self.reached("y"), {"three"})
        self.vhost.delete_exchange("later")
        self.assertEqual(self.reached("y"), set())

    def test_chain(self) -> None:
        """R34: one that comes later and binds nothing leads on to its own; when it goes, nothing does."""
        self.exchange("y", arguments={"alternate-exchange": "later"})
        self.assertEqual(self.reached("y"), set())
        self.exchange("later", arguments={"alternate-exchange": "rest"})
        self.assertEqual(self.reached("y"), {"two"})
        self.vhost.delete_exchange("later")
        self.assertEqual(self.reached("y"), set())

    def test_default_exchange(self) -> None:
        """R34: an empty name is none, as RabbitMQ was measured to do."""
        self.exchange("y", arguments={"alternate-exchange": ""})
        self.assertEqual(self.reached("y", "one"), set())

    def test_circle(self) -> None:
        """R34: alternates that lead to each other route nowhere."""
        self.exchange("y", arguments={"alternate-exchange": "z"})
        self.exchange("z", arguments={"alternate-exchange": "y"})
        self.exchange("self", arguments={"alternate-exchange": "self"})
        self.assertEqual(self.reached("y"), set())
        self.assertEqual(self.reached("self"), set())

    def test_of_a_destination(self) -> None:
        """R34: where a message went to another exchange it was routed, but that one has an alternate of its own."""
        self.exchange("empty")
        self.vhost.bind_exchange("empty", "x", "c")
        self.assertEqual(self.reached("x", "c"), set())
        self.vhost.bind_exchange("x", "amq.fanout")
        self.assertEqual(self.reached("amq.fanout", "zzz"), {"two"})

    def test_internal(self) -> None:
        """R34: an internal one is fine."""
        self.exchange("inside", internal=True)
        self.vhost.bind_queue("three", "inside")
        self.exchange("y", arguments={"alternate-exchange": "inside"})
        self.assertEqual(self.reached("y"), {"three"})

    def test_with_cc(self) -> None:
        """R34: a CC key that is routed leaves nothing for it."""
        self.assertEqual(self.reached("x", "b", headers={"CC": ["a"]}), {"one"})
        self.assertEqual(self.reached("x", "b", headers={"CC": ["c"]}), {"two"})


class CopyTests(RoutingCase):
    """CC and BCC."""

    def test_keys(self) -> None:
        """R34: more routing keys, on every exchange; each queue gets one copy."""
        for headers in ({"CC": ["two", "three"]}, {"BCC": ["two"], "CC": ["three"]}, {"CC": ["one", "two", "three"]}):
            self.assertEqual(self.reached("", "one", headers=headers), {"one", "two", "three"})
        self.vhost.bind_queue("two", "amq.topic", "b.#")
        self.assertEqual(self.reached("amq.topic", "a", headers={"BCC": ["b.c"]}), {"two"})
        self.assertEqual(self.reached("", "none", headers={"CC": []}), set())
        self.assertEqual(self.reached("", "none", headers={"cc": ["one"]}), set())

    def test_other_entries_are_skipped(self) -> None:
        """R34: what is no text in the array is not used."""
        self.assertEqual(self.reached("", "one", headers={"CC": [1, None, b"two", ["two"], "three"]}), {"one", "three"})

    def test_wrong_type(self) -> None:
        """R34: 406 if it is no array, with RabbitMQ's name of the kind; nothing is published."""
        for value, kind in (("one", "longstr"), (None, "void"), (1, "signedint"), ({"a": "one"}, "table")):
            for name in ("CC", "BCC"):
                self.assertEqual(
                    fault_of(publish, self.vhost, "", "one", headers={name: value}),
                    (406, f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}'),
                )
        self.assertEqual(taken_by(self.vhost), set())

    def test_bcc_is_taken_off(self) -> None:
        """R34: who gets the message does not see BCC, but CC; nothing else of it changes."""
        headers = {"BCC": ["two"], "CC": ["three"], "h": 1}
        publish(self.vhost, "", "one", b"body", headers=headers, message_id="m", delivery_mode=2, priority=3)
        for name in ("one", "two", "three"):
            (message,) = take(self.vhost.queues[name])
            self.assertEqual(message.decoded_properties.headers, {"CC": ["three"], "h": 1})
            self.assertEqual(message.decoded_properties.message_id, "m")
            self.assertEqual((message.body, message.routing_key), (b"body", "one"))
            self.assertEqual((message.is_persistent, message.priority), (True, 3))
        self.assertIn("BCC", headers)

    def test_bcc_alone(self) -> None:
        """R34: without other headers an empty table is left."""
        publish(self.vhost, "", "one", headers={"BCC": []})
        (message,) = take(self.vhost.queues["one"])
        self.assertEqual(message.decoded_properties.headers, {})

    def test_without_bcc(self) -> None:
        """For a return: the same without BCC, or the very same."""
        plain = BasicProperties(headers={"a": 1})
        self.assertIs(without_bcc(plain), plain)
        self.assertIs(without_bcc(NO_PROPERTIES), NO_PROPERTIES)
        self.assertEqual(without_bcc(BasicProperties(app_id="x", headers={"BCC": []})).headers, {})
        self.assertEqual(without_bcc(BasicProperties(app_id="x", headers={"BCC": []})).app_id, "x")

    def test_routing_keys(self) -> None:
        """The key itself comes first, each once."""
        self.assertEqual(routing_keys("a", {"CC": ["b", "a"], "BCC": ["b", "c"]}), ["a", "b", "c"])
        self.assertEqual(routing_keys("a", {}), ["a"])


class CacheTests(RoutingCase):
    """Routes are remembered, and forgotten in time."""

    def test_remembered(self) -> None:
        """A route is found once for each exchange and key, also one that leads nowhere."""
        self.vhost.bind_queue("one", "amq.topic", "a.*")
        for _ in range(3):
            self.assertEqual(self.reached("amq.topic", "a.b"), {"one"})
            self.assertEqual(self.reached("amq.topic", "b"), set())
            self.assertEqual(self.reached("amq.topic", "a.b", headers={"h": 1}), {"one"})
        self.assertEqual(set(self.vhost.routes.known), {("amq.topic", "a.b"), ("amq.topic", "b")})

    def test_exchange_gone(self) -> None:
        """F44: an exchange that routed nothing answers 404 once it is deleted."""
        self.exchange("x")
        self.assertEqual(self.reached("x"), set())
        self.vhost.delete_exchange("x")
        self.assertEqual(fault_of(publish, self.vhost, "x")[0], 404)

    def test_headers_are_not(self) -> None:
        """R34: a headers exchange on the way decides anew for each message, with the same key."""
        self.exchange("x")
        self.vhost.bind_exchange("amq.headers", "x")
        self.vhost.bind_queue("one", "amq.headers", "", {"h": 1})
        for headers, expected in (({"h": 1}, {"one"}), ({"h": 2}, set()), (None, set()), ({"h": 1}, {"one"})):
            self.assertEqual(self.reached("x", "k", headers=headers), expected)
        self.assertEqual(self.vhost.routes.known, {})

    def test_copies_are_not(self) -> None:
        """A message with CC leaves no route behind that others would take."""
        self.assertEqual(self.reached("", "one", headers={"CC": ["two"]}), {"one", "two"})
        self.assertEqual(self.reached("", "one"), {"one"})

    def test_bounded(self) -> None:
        """R36: keys nobody comes back to do not fill the memory."""
        for number in range(routing._MAX_ROUTES + 10):
            self.reached("amq.direct", str(number))
        self.assertLessEqual(len(self.vhost.routes.known), routing._MAX_ROUTES)

    def test_bounded_with_many_queues(self) -> None:
        """R36: neither do keys that each lead to many queues."""
        count = 400
        for number in range(count):
            self.vhost.declare_queue(f"q{number}")
            self.vhost.bind_queue(f"q{number}", "amq.topic", "#")
        source, routes = self.vhost.exchange("amq.topic"), self.vhost.routes
        most = 0
        for number in range(2 * routing._MAX_PLACES // count):
            self.assertEqual(len(routes.find(source, [str(number)], None)), count)
            most = max(most, len(routes.known))
        self.assertEqual(most, routing._MAX_PLACES // count)
        self.vhost.declare_exchange("new", "fanout")
        routes.find(source, ["k"], None)
        self.assertEqual(routes._places, count)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["bind", "unbind", "chain", "unchain", "queue", "unqueue", "x", "unx"]),
                st.sampled_from(["a", "b"]),
            ),
            max_size=12,
        )
    )
    def test_never_stale(self, changes: list[tuple[str, str]]) -> None:
        """R34: after any change a message goes where it goes without what is remembered."""
        vhost = make_vhost()
        vhost.declare_exchange("x", arguments={"alternate-exchange": "y"})
        vhost.declare_queue("q")
        for change, key in changes:
            call = {
                "bind": lambda key: fault_of(vhost.bind_queue, "q", "x", key),
                "unbind": lambda key: vhost.unbind_queue("q", "x", key),
                "chain": lambda key: fault_of(vhost.bind_exchange, "y", "x", key),
                "unchain": lambda key: vhost.unbind_exchange("y", "x", key),
                "queue": lambda key: vhost.declare_queue("q"),
                "unqueue": lambda key: vhost.delete_queue("q"),
                "x": lambda key: (vhost.declare_exchange("y", "fanout"), fault_of(vhost.bind_queue, "q", "y")),
                "unx": lambda key: vhost.delete_exchange("y"),
            }[change]
            call(key)
            for exchange, asked in (("x", "a"), ("x", "b"), ("", "q")):
                found = vhost.routes.find(vhost.exchanges[exchange], [asked], None)
                fresh = RouteCache().find(vhost.exchanges[exchange], [asked], None)
                self.assertEqual(found, fresh, (change, exchange, asked))
