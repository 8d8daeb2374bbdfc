"""txmsg.broker.vhost.topology: declaring and deleting queues."""

from __future__ import annotations

import unittest
from typing import Any

from twisted.internet.task import Clock

from tests.broker.model import fault_of, make_vhost, publish
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.queues.queue import Queue
from txmsg.broker.vhost.topology import server_name
from txmsg.broker.vhost.vhost import VirtualHost

LOCKED_TEXT = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the original declaration."
)
LOCKED = (405, LOCKED_TEXT)
OK = (0, "")


def differs(what: str, received: str, current: str) -> tuple[int, str]:
    difference = f"received '{received}' but current is '{current}'"
    return 406, f"PRECONDITION_FAILED - inequivalent arg '{what}' for queue 'q' in vhost '/': {difference}"


class Taker:
    """A consumer without credit."""

    tag = "t"
    no_ack = False
    exclusive = False
    priority = 0
    is_available = False

    def __init__(self) -> None:
        self.cancellations: list[str] = []

    def deliver(self, queue: Queue, entry: object) -> None:
        raise AssertionError("it has no credit")

    def cancelled(self, queue: Queue) -> None:
        self.cancellations.append(queue.name)


class QueueCase(unittest.TestCase):
    """An empty virtual host, two connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.vhost = make_vhost(clock=self.clock)
        self.mine, self.theirs = object(), object()

    def declare(self, name: str = "q", **more: Any) -> tuple[int, str]:
        return fault_of(self.vhost.declare_queue, name, **more)


class DeclareTests(QueueCase):
    """queue.declare."""

    def test_new(self) -> None:
        """F44: it is there as declared, and the same again changes nothing."""
        arguments = {"x-max-length": 5, "x-foo": 1}
        made = self.vhost.declare_queue("q", durable=True, auto_delete=True, arguments=arguments)
        self.assertEqual((made.name, made.durable, made.auto_delete, made.exclusive), ("q", True, True, False))
        self.assertEqual(made.arguments, arguments)
        version = self.vhost.topology_version
        self.assertGreater(version, 0)
        again = self.vhost.declare_queue("q", durable=True, auto_delete=True, arguments={"x-max-length": 5})
        self.assertIs(again, made)
        self.assertEqual(self.vhost.topology_version, version)

    def test_inequivalent(self) -> None:
        """F44, MB: 406 for each property and argument; the first that differs is named."""
        self.vhost.declare_queue("q", arguments={"x-max-length": 5})
        self.assertEqual(self.declare(durable=True), differs("durable", "true", "false"))
        self.assertEqual(self.declare(auto_delete=True), differs("auto_delete", "true", "false"))
        self.assertEqual(self.declare(durable=True, auto_delete=True), differs("durable", "true", "false"))
        self.assertEqual(self.declare(arguments={"x-max-length": 6}), differs("x-max-length", "6", "5"))
        self.assertEqual(self.declare(arguments={"x-max-length": 5}), OK)

    def test_passive(self) -> None:
        """F44, MB: only the name counts; 404 where there is none, also for an empty name."""
        found = self.vhost.declare_queue("q", durable=True)
        self.assertIs(self.vhost.declare_queue("q", passive=True, arguments={"x-expires": "bad"}), found)
        for name in ("none", "", "amq.none"):
            self.assertEqual(self.declare(name, passive=True), (404, f"NOT_FOUND - no queue '{name}' in vhost '/'"))
        self.assertEqual(list(self.vhost.queues), ["q"])

    def test_reserved(self) -> None:
        """F44, MB: 403 for a new name that begins with `amq.`."""
        for name in ("amq.", "amq.q"):
            text = f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"
            self.assertEqual(self.declare(name), (403, text))
        for name in ("amq", "AMQ.q", "amqp.q"):
            self.assertEqual(self.declare(name), OK)

    def test_invalid_arguments(self) -> None:
        """MB: 406, and there is no queue afterwards."""
        code, text = self.declare(arguments={"x-expires": 0})
        self.assertEqual(code, 406)
        self.assertIn("x-expires", text)
        self.assertEqual((self.vhost.queues, self.vhost.topology_bytes), ({}, 0))

    def test_server_named(self) -> None:
        """C7.5: names nobody can guess, as RabbitMQ writes them; to be declared again by that name."""
        one, other = self.vhost.declare_queue(), self.vhost.declare_queue("")
        self.assertRegex(one.name, r"\Aamq\.gen-[A-Za-z0-9_-]{22}\Z")
        self.assertNotEqual(one.name, other.name)
        self.assertIs(self.vhost.declare_queue(one.name), one)
        self.assertEqual(len({server_name("amq.ctag") for _ in range(100)}), 100)

    def test_server_named_quorum(self) -> None:
        """R34: RabbitMQ names no quorum queues."""
        self.assertEqual(
            self.declare("", durable=True, arguments={"x-queue-type": "quorum"}),
            (406, "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"),
        )

    def test_line_breaks(self) -> None:
        """R34: RabbitMQ takes carriage returns and line feeds out of names it is told to make or delete."""
        self.assertEqual(self.vhost.declare_queue("a\r\nb").name, "ab")
        self.vhost.bind_queue("a\nb", "amq.\nfanout", "k\n")
        (binding,) = self.vhost.bindings()
        self.assertEqual((binding.destination, binding.source, binding.routing_key), ("ab", "amq.fanout", "k\n"))
        self.vhost.unbind_queue("a\nb", "amq.fanout", "k\n")
        self.assertEqual(self.vhost.binding_count, 0)
        self.vhost.delete_queue("a\rb")
        self.assertEqual(self.vhost.queues, {})
        self.assertEqual(self.vhost.declare_exchange("x\ny").name, "xy")
        self.vhost.delete_exchange("x\ny")
        self.assertNotIn("xy", self.vhost.exchanges)

    def test_used(self) -> None:
        """R34: a declaration, passive or not, begins the time of x-expires anew."""
        self.vhost.declare_queue("q", arguments={"x-expires": 1000})
        for passive in (False, True, False):
            self.clock.advance(0.9)
            self.vhost.declare_queue("q", passive=passive, arguments={"x-expires": 1000})
        self.clock.advance(0.9)
        self.assertIn("q", self.vhost.queues)
        self.clock.advance(0.2)
        self.assertNotIn("q", self.vhost.queues)

    def test_limit(self) -> None:
        """C7.3: 406 beyond the number of queues; those there are can be declared again."""
        self.vhost = make_vhost(limits=BrokerLimits(queues=2))
        self.assertEqual([self.declare(name) for name in ("a", "b", "b", "a")], [OK] * 4)
        text = "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is reached"
        self.assertEqual(self.declare("c"), (406, text))
        self.vhost.delete_queue("a")
        self.assertEqual(self.declare("c"), OK)

    def test_strict_4(self) -> None:
        """A transient queue that is not exclusive is refused; one there is, passive, durable and exclusive are not."""
        self.vhost = make_vhost(strict_4=True)
        code, text = self.declare("q")
        self.assertEqual(code, 541)
        self.assertIn("transient_nonexcl_queues", text)
        self.assertEqual(self.declare(""), (code, text))
        self.assertEqual(self.declare("d", durable=True), OK)
        self.assertEqual(self.declare("e", exclusive=True, owner=self.mine), OK)
        self.assertEqual(self.declare("e", passive=True, owner=self.mine), OK)
        self.assertEqual(self.declare("d", durable=True), OK)


class ExclusiveTests(QueueCase):
    """Queues that belong to one connection."""

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.vhost.declare_queue("q", exclusive=True, owner=self.mine)

    def test_locked(self) -> None:
        """MB, C7.5: nobody else may declare, look at, bind, unbind or delete it."""
        self.vhost.bind_queue("q", "amq.direct", "k", owner=self.mine)
        vhost, owner = self.vhost, self.theirs
        for call in (
            lambda: vhost.declare_queue("q", owner=owner),
            lambda: vhost.declare_queue("q", exclusive=True, owner=owner),
            lambda: vhost.declare_queue("q", passive=True, owner=owner),
            lambda: vhost.queue("q", owner),
            lambda: vhost.queue("q"),
            lambda: vhost.bind_queue("q", "amq.direct", owner=owner),
            lambda: vhost.unbind_queue("q", "amq.direct", "k", owner=owner),
            lambda: vhost.delete_queue("q", owner=owner),
        ):
            self.assertEqual(fault_of(call), LOCKED)
        self.assertEqual((list(vhost.queues), vhost.binding_count), (["q"], 1))

    def test_unbind_what_is_not_bound(self) -> None:
        """R34: that is no error, whoever asks."""
        self.assertEqual(fault_of(self.vhost.unbind_queue, "q", "amq.direct", "k", owner=self.theirs), OK)

    def test_anybody_publishes(self) -> None:
        """R34: to publish to it is not to use it."""
        publish(self.vhost, "", "q")
        self.assertEqual(self.queue.message_count, 1)

    def test_exclusive_must_agree(self) -> None:
        """F44: a queue is declared again as it was, exclusive or not; durable does not count for an exclusive one."""
        self.assertEqual(self.declare(owner=self.mine), LOCKED)
        self.assertEqual(self.declare(exclusive=True, durable=True, owner=self.mine), OK)
        self.assertIs(self.queue.durable, False)
        self.vhost.declare_queue("shared")
        code, _ = self.declare("shared", exclusive=True, owner=self.mine)
        self.assertEqual(code, 405)
        # It comes before all other differences.
        self.assertEqual(self.declare(owner=self.mine, durable=True, auto_delete=True), LOCKED)

    def test_owner_gone(self) -> None:
        """R34: it ends with its connection, and nothing else does."""
        self.vhost.declare_queue("other", exclusive=True, owner=self.theirs)
        self.vhost.declare_queue("second", exclusive=True, owner=self.mine)
        self.vhost.declare_queue("shared")
        taker = Taker()
        self.queue.add_consumer(taker)
        self.vhost.owner_gone(self.mine)
        self.assertEqual(list(self.vhost.queues), ["other", "shared"])
        self.assertEqual(taker.cancellations, ["q"])
        self.vhost.owner_gone(self.mine)
        self.vhost.owner_gone(object())
        self.assertEqual(len(self.vhost.queues), 2)

    def test_deleted_before(self) -> None:
        """Nothing is remembered of a queue that was deleted before its connection ended."""
        self.vhost.delete_queue("q", owner=self.mine)
        self.assertEqual(self.vhost._owned, {})
        self.vhost.declare_queue("q")
        self.vhost.owner_gone(self.mine)
        self.assertIn("q", self.vhost.queues)


class DeleteTests(QueueCase):
    """queue.delete, and queues that end by themselves."""

    def test_delete(self) -> None:
        """R34: with its bindings and messages; says how many were ready; once more is no error."""
        self.vhost.declare_queue("q")
        self.vhost.bind_queue("q", "amq.fanout")
        publish(self.vhost, "amq.fanout")
        publish(self.vhost, "", "q")
        self.assertEqual(self.vhost.delete_queue("q"), 2)
        self.assertEqual((self.vhost.queues, self.vhost.binding_count, self.vhost.topology_bytes), ({}, 0, 0))
        self.assertEqual(self.vhost.delete_queue("q"), 0)

    def test_conditions(self) -> None:
        """MB: 406 while it is used, or holds messages."""
        queue = self.vhost.declare_queue("q")
        publish(self.vhost, "", "q")
        taker = Taker()
        queue.add_consumer(taker)
        in_use = (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use")
        not_empty = (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty")
        delete = self.vhost.delete_queue
        self.assertEqual(fault_of(delete, "q", if_unused=True), in_use)
        self.assertEqual(fault_of(delete, "q", if_empty=True), not_empty)
        self.assertEqual(fault_of(delete, "q", if_empty=True, if_unused=True), not_empty)
        queue.purge()
        self.assertEqual(fault_of(delete, "q", if_empty=True, if_unused=True), in_use)
        queue.remove_consumer(taker)
        self.assertEqual(fault_of(delete, "q", if_empty=True, if_unused=True), OK)
        self.assertEqual(fault_of(delete, "q", if_empty=True, if_unused=True), OK)

    def test_consumers_are_told(self) -> None:
        """F36: and find the queue gone when they are."""
        queue = self.vhost.declare_queue("q")
        seen: list[bool] = []

        class Looking(Taker):
            def cancelled(self, queue: Queue) -> None:
                seen.append("q" in vhost.queues)

        vhost = self.vhost
        queue.add_consumer(Looking())
        vhost.delete_queue("q")
        self.assertEqual(seen, [False])

    def test_auto_delete(self) -> None:
        """R34: with its last consumer, never before it had one."""
        queue = self.vhost.declare_queue("q", auto_delete=True)
        self.vhost.bind_queue("q", "amq.fanout")
        takers = [Taker(), Taker()]
        for taker in takers:
            queue.add_consumer(taker)
        queue.remove_consumer(takers[0])
        self.assertIn("q", self.vhost.queues)
        queue.remove_consumer(takers[1])
        self.assertEqual((self.vhost.queues, self.vhost.binding_count), ({}, 0))

    def test_exclusive_auto_delete(self) -> None:
        """An exclusive one goes as well, though nobody says for whom."""
        queue = self.vhost.declare_queue("q", auto_delete=True, exclusive=True, owner=self.mine)
        taker = Taker()
        queue.add_consumer(taker)
        queue.remove_consumer(taker)
        self.assertEqual(self.vhost.queues, {})

    def test_clear(self) -> None:
        """R28: nothing is left of a virtual host that is deleted, exclusive queues and their consumers included."""
        vhost = self.vhost
        mine = vhost.declare_queue("mine", exclusive=True, owner=self.mine, arguments={"x-expires": 1000})
        vhost.declare_queue("durable", durable=True)
        vhost.declare_exchange("x", auto_delete=True)
        vhost.declare_exchange("y")
        vhost.bind_queue("mine", "x", owner=self.mine)
        vhost.bind_queue("durable", "amq.topic", "#.a")
        vhost.bind_exchange("amq.fanout", "amq.direct")
        publish(vhost, "", "durable", b"x")
        taker = Taker()
        mine.add_consumer(taker)
        vhost.clear()
        self.assertEqual((vhost.queues, len(vhost.exchanges), vhost.binding_count), ({}, 7, 0))
        self.assertEqual((vhost.topology_bytes, vhost.usage.bytes, vhost._owned), (0, 0, {}))
        self.assertEqual((taker.cancellations, self.clock.getDelayedCalls()), (["mine"], []))
        vhost.owner_gone(self.mine)

    def test_stop(self) -> None:
        """R28: no timer is left of a virtual host that is stopped, and its queues are still there."""
        self.vhost.declare_queue("q", arguments={"x-expires": 1000})
        self.vhost.declare_queue("t", arguments={"x-message-ttl": 1000})
        publish(self.vhost, "", "t")
        self.assertTrue(self.clock.getDelayedCalls())
        self.vhost.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.vhost.queues), 2)


class BytesTests(unittest.TestCase):
    """R36: how much may be declared, in bytes."""

    def test_refused(self) -> None:
        """C7.3: arguments and names count; what is deleted counts no more."""
        vhost = make_vhost(limits=BrokerLimits(topology_bytes=100_000))
        big = {"note": "x" * 60_000}
        vhost.declare_queue("q", arguments=big)
        for call in (
            lambda: vhost.declare_queue("r", arguments=big),
            lambda: vhost.declare_exchange("r", arguments=big),
            lambda: vhost.bind_queue("q", "amq.match", "r", big),
        ):
            code, text = fault_of(call)
            self.assertEqual(code, 406)
            self.assertIn("'r'", text)
            self.assertIn("100000 bytes", text)
        vhost.delete_queue("q")
        self.assertEqual(fault_of(vhost.declare_exchange, "r", arguments=big), OK)
        self.assertEqual(fault_of(vhost.declare_queue, "q"), OK)

    def test_what_comes_goes(self) -> None:
        """Everything deleted is nothing left."""
        vhost: VirtualHost = make_vhost()
        for number in range(5):
            vhost.declare_exchange(f"x{number}", "topic", arguments={"n": [number]})
            vhost.declare_queue(f"q{number}", arguments={"n": {"a": number}})
            vhost.bind_queue(f"q{number}", f"x{number}", "a.*.#", {"a": 1})
            vhost.bind_queue(f"q{number}", "amq.headers", "k", {"x-match": "any", "a": 1})
            vhost.bind_exchange(f"x{number}", "x0", "#")
        self.assertGreater(vhost.topology_bytes, 20_000)
        for number in range(5):
            vhost.delete_exchange(f"x{number}")
            vhost.delete_queue(f"q{number}")
        self.assertEqual((vhost.topology_bytes, vhost.binding_count, vhost._bindings_to), (0, 0, {}))
