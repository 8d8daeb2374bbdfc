"""txmsg.broker.vhost.topology: declaring, binding and deleting exchanges."""

from __future__ import annotations

import itertools
import unittest
from typing import Any

from tests.broker.model import fault_of, make_vhost, publish, taken_by
from txmsg.broker.limits import BrokerLimits

OK = (0, "")


def missing(kind: str, name: str) -> tuple[int, str]:
    return 404, f"NOT_FOUND - no {kind} '{name}' in vhost '/'"


def differs(what: str, difference: str) -> tuple[int, str]:
    return 406, f"PRECONDITION_FAILED - inequivalent arg '{what}' for exchange 'x' in vhost '/': {difference}"


class ExchangeCase(unittest.TestCase):
    """An empty virtual host."""

    def setUp(self) -> None:
        self.vhost = make_vhost()

    def declare(self, name: str = "x", type: str = "direct", **more: Any) -> tuple[int, str]:
        return fault_of(self.vhost.declare_exchange, name, type, **more)


class DeclareTests(ExchangeCase):
    """exchange.declare."""

    def test_new(self) -> None:
        """F44: it is there as declared, and the same again changes nothing; unknown arguments do not count."""
        more: dict[str, Any] = {"durable": True, "auto_delete": True, "internal": True}
        for kind in ("direct", "fanout", "topic", "headers"):
            made = self.vhost.declare_exchange(kind, kind, arguments={"a": 1}, **more)
            self.assertEqual(
                (made.name, made.type, made.durable, made.auto_delete, made.internal), (kind, kind, True, True, True)
            )
            self.assertEqual(made.arguments, {"a": 1})
            self.assertIs(self.vhost.declare_exchange(kind, kind, **more), made)

    def test_inequivalent(self) -> None:
        """F44, MB: 406, in the order type, durable, auto_delete, internal, alternate-exchange."""
        self.vhost.declare_exchange("x")
        everything: dict[str, Any] = {"durable": True, "auto_delete": True, "internal": True}
        everything["arguments"] = {"alternate-exchange": "a"}
        self.assertEqual(
            self.declare("x", "fanout", **everything), differs("type", "received 'fanout' but current is 'direct'")
        )
        for name in ("durable", "auto_delete", "internal"):
            self.assertEqual(self.declare("x", **everything), differs(name, "received 'true' but current is 'false'"))
            del everything[name]
        self.assertEqual(
            self.declare("x", **everything),
            differs("alternate-exchange", "received the value 'a' of type 'longstr' but current is none"),
        )

    def test_passive(self) -> None:
        """F44: only the name counts, not even the type must be one."""
        found = self.vhost.declare_exchange("x")
        self.assertIs(self.vhost.declare_exchange("x", "bogus", passive=True, durable=True), found)
        for name in ("none", "amq.none"):
            self.assertEqual(self.declare(name, passive=True), missing("exchange", name))

    def test_type(self) -> None:
        """MB: an unknown type is 503, also for an exchange there is."""
        unknown = (503, "COMMAND_INVALID - unknown exchange type 'bogus'")
        self.assertEqual(self.declare("x", "bogus"), unknown)
        self.assertEqual(self.declare("x", "Direct")[0], 503)
        self.vhost.declare_exchange("x")
        self.assertEqual(self.declare("x", "bogus"), unknown)

    def test_reserved(self) -> None:
        """MB: 403 for a new name that begins with `amq.`; those there are can be declared as they are."""
        text = "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'"
        self.assertEqual(self.declare("amq.x"), (403, text))
        self.assertEqual(self.declare("amq.topic", "topic", durable=True), OK)
        self.assertEqual(self.declare("amq.topic", "topic")[0], 406)

    def test_alternate(self) -> None:
        """R34: the alternate exchange need not be there, but must be a name."""
        made = self.vhost.declare_exchange("x", arguments={"alternate-exchange": "none"})
        self.assertEqual(made.alternate, "none")
        text = "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'y' in vhost '/'"
        refused = self.declare("y", arguments={"alternate-exchange": 1})
        self.assertEqual(refused, (406, f"PRECONDITION_FAILED - {text}"))
        self.assertNotIn("y", self.vhost.exchanges)

    def test_limit(self) -> None:
        """C7.3: 406 beyond the number of exchanges, not counting those that are always there."""
        self.vhost = make_vhost(limits=BrokerLimits(exchanges=2))
        self.assertEqual([self.declare(name) for name in ("a", "b", "b")], [OK] * 3)
        text = "PRECONDITION_FAILED - cannot declare exchange 'c': exchange limit in vhost '/' (2) is reached"
        self.assertEqual(self.declare("c"), (406, text))
        self.vhost.delete_exchange("a")
        self.assertEqual(self.declare("c"), OK)


class BindTests(ExchangeCase):
    """queue.bind, exchange.bind and their opposites."""

    def setUp(self) -> None:
        super().setUp()
        self.vhost.declare_queue("q")
        self.vhost.declare_exchange("x")

    def test_missing(self) -> None:
        """F44: 404 that names what is missing, the source first."""
        bind, bind_exchange = self.vhost.bind_queue, self.vhost.bind_exchange
        self.assertEqual(fault_of(bind, "none", "x"), missing("queue", "none"))
        self.assertEqual(fault_of(bind, "q", "none"), missing("exchange", "none"))
        self.assertEqual(fault_of(bind, "no", "none"), missing("exchange", "none"))
        self.assertEqual(fault_of(bind_exchange, "none", "x"), missing("exchange", "none"))
        self.assertEqual(fault_of(bind_exchange, "x", "none"), missing("exchange", "none"))
        self.assertEqual(fault_of(bind_exchange, "destination", "source"), missing("exchange", "source"))

    def test_unbind_missing(self) -> None:
        """MB: to undo what was never done is no error."""
        unbind, unbind_exchange = self.vhost.unbind_queue, self.vhost.unbind_exchange
        for queue, exchange in (("none", "x"), ("q", "none"), ("no", "none"), ("q", "x")):
            self.assertEqual(fault_of(unbind, queue, exchange), OK)
        for destination, source in (("none", "x"), ("x", "none"), ("no", "none"), ("x", "x")):
            self.assertEqual(fault_of(unbind_exchange, destination, source), OK)

    def test_twice(self) -> None:
        """R34: the same binding twice is one."""
        for _ in range(2):
            self.vhost.bind_queue("q", "x", "k", {"a": 1})
        self.assertEqual(self.vhost.binding_count, 1)
        version = self.vhost.topology_version
        self.vhost.bind_queue("q", "x", "k", {"a": 1})
        self.assertEqual(self.vhost.topology_version, version)
        self.vhost.unbind_queue("q", "x", "k", {"a": 1})
        self.assertEqual(self.vhost.binding_count, 0)

    def test_arguments(self) -> None:
        """R34: other arguments, another binding."""
        self.vhost.bind_queue("q", "x", "k", {"a": 1})
        self.vhost.bind_queue("q", "x", "k")
        self.vhost.unbind_queue("q", "x", "k", {"a": 2})
        self.assertEqual([dict(binding.arguments) for binding in self.vhost.bindings()], [{"a": 1}, {}])

    def test_listed(self) -> None:
        """What there is, by its source and by what it leads to."""
        self.vhost.bind_queue("q", "x", "k")
        self.vhost.bind_queue("q", "amq.topic", "#")
        self.vhost.bind_exchange("x", "amq.topic", "t")
        self.assertEqual(
            [(found.source, found.destination_type, found.destination) for found in self.vhost.bindings()],
            [("amq.topic", "queue", "q"), ("amq.topic", "exchange", "x"), ("x", "queue", "q")],
        )
        queue, exchange = self.vhost.queues["q"], self.vhost.exchanges["x"]
        self.assertEqual([found.source for found in self.vhost.bindings_to(queue)], ["x", "amq.topic"])
        self.assertEqual([found.routing_key for found in self.vhost.bindings_to(exchange)], ["t"])
        self.assertEqual([found.destination for found in exchange.bindings], ["q"])

    def test_limit(self) -> None:
        """C7.3: 406 beyond the number of bindings; one there is can be made again."""
        self.vhost = make_vhost(limits=BrokerLimits(bindings=2))
        self.vhost.declare_queue("q")
        bind = self.vhost.bind_queue
        self.assertEqual([fault_of(bind, "q", "amq.direct", key) for key in "abb"], [OK] * 3)
        self.assertEqual(fault_of(bind, "q", "amq.direct", "c")[0], 406)
        self.assertEqual(fault_of(self.vhost.bind_exchange, "amq.fanout", "amq.direct", "c")[0], 406)
        self.vhost.unbind_queue("q", "amq.direct", "a")
        self.assertEqual(fault_of(bind, "q", "amq.direct", "c"), OK)


class DeleteTests(ExchangeCase):
    """exchange.delete, and exchanges that end by themselves."""

    def chain(self, *names: str, **more: Any) -> None:
        """Exchanges of which each leads to the next."""
        for name in names:
            self.vhost.declare_exchange(name, "fanout", **more)
        for source, destination in itertools.pairwise(names):
            self.vhost.bind_exchange(destination, source)

    def test_delete(self) -> None:
        """R34: with all bindings from it and to it, one to itself too; once more is no error."""
        self.chain("a", "x", "b")
        self.vhost.bind_exchange("x", "x", "self")
        self.vhost.delete_exchange("x")
        self.assertEqual((self.vhost.binding_count, self.vhost._bindings_to), (0, {}))
        self.assertEqual(fault_of(self.vhost.exchange, "x"), missing("exchange", "x"))
        self.assertEqual(fault_of(self.vhost.delete_exchange, "x"), OK)

    def test_standard(self) -> None:
        """MB: 403 for `amq.` names, there or not."""
        for name in ("amq.direct", "amq.none"):
            text = f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"
            self.assertEqual(fault_of(self.vhost.delete_exchange, name), (403, text))

    def test_if_unused(self) -> None:
        """MB: 406 while it is the source of a binding; to be a destination is not to be used."""
        self.chain("a", "b")
        in_use = (406, "PRECONDITION_FAILED - exchange 'a' in vhost '/' in use")
        self.assertEqual(fault_of(self.vhost.delete_exchange, "a", if_unused=True), in_use)
        self.assertEqual(fault_of(self.vhost.delete_exchange, "b", if_unused=True), OK)
        self.assertEqual(fault_of(self.vhost.delete_exchange, "a", if_unused=True), OK)

    def test_auto_delete(self) -> None:
        """R34: with the last binding from it, however that goes; never before it had one."""
        for how in ("unbind", "queue", "exchange", "unbind exchange"):
            with self.subTest(how=how):
                self.vhost.declare_queue("q")
                self.vhost.declare_exchange("d")
                self.vhost.declare_exchange("x", auto_delete=True)
                self.vhost.bind_queue("q", "amq.fanout")
                if how in ("unbind", "queue"):
                    self.vhost.bind_queue("q", "x", "1")
                else:
                    self.vhost.bind_exchange("d", "x", "1")
                self.vhost.bind_queue("q", "x", "2")
                self.vhost.unbind_queue("q", "x", "2")
                self.assertIn("x", self.vhost.exchanges)
                if how == "unbind":
                    self.vhost.unbind_queue("q", "x", "1")
                elif how == "queue":
                    self.vhost.delete_queue("q")
                elif how == "exchange":
                    self.vhost.delete_exchange("d")
                else:
                    self.vhost.unbind_exchange("d", "x", "1")
                self.assertNotIn("x", self.vhost.exchanges)
                self.vhost.delete_queue("q")

    def test_auto_delete_bound_twice(self) -> None:
        """One that led to the same queue twice ends once."""
        self.vhost.declare_queue("q")
        self.vhost.declare_exchange("x", auto_delete=True)
        for key in ("1", "2"):
            self.vhost.bind_queue("q", "x", key)
        self.vhost.delete_queue("q")
        self.assertEqual((len(self.vhost.exchanges), self.vhost.topology_bytes), (7, 0))

    def test_auto_delete_chain(self) -> None:
        """R34: each takes the one before it along, however many there are."""
        names = [f"x{number}" for number in range(900)]
        self.chain(*names, auto_delete=True)
        self.vhost.declare_queue("q")
        self.vhost.bind_queue("q", names[-1])
        self.vhost.delete_queue("q")
        self.assertEqual(len(self.vhost.exchanges), 7)
        self.assertEqual((self.vhost.binding_count, self.vhost.topology_bytes), (0, 0))

    def test_auto_delete_circle(self) -> None:
        """Two that lead to each other, one of which is deleted."""
        self.chain("a", "b", auto_delete=True)
        self.vhost.bind_exchange("a", "b")
        self.vhost.delete_exchange("a")
        self.assertEqual(len(self.vhost.exchanges), 7)

    def test_auto_delete_is_destination(self) -> None:
        """To lose what leads to it ends no exchange."""
        self.chain("a", "x")
        self.vhost.declare_exchange("y", auto_delete=True)
        self.vhost.bind_exchange("y", "a")
        self.vhost.delete_exchange("a")
        self.assertIn("y", self.vhost.exchanges)

    def test_new_one_of_the_same_name(self) -> None:
        """R10: nothing of the old one comes back."""
        self.vhost.declare_queue("q")
        self.vhost.declare_exchange("x", "fanout")
        self.vhost.bind_queue("q", "x")
        publish(self.vhost, "x")
        self.assertEqual(taken_by(self.vhost), {"q"})
        self.vhost.delete_exchange("x")
        self.vhost.declare_exchange("x", "fanout")
        publish(self.vhost, "x")
        self.assertEqual(taken_by(self.vhost), set())
