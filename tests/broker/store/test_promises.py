"""What clients were told, and what a kill -9 or a restart leaves of it (R35, F56): over channels, at every moment.

The disk is a `HeldWorker`, so a test decides when a commit happens; a kill is a copy of the directory between two
steps.
"""

from __future__ import annotations

import random

from tests.broker.channel_client import Client, acks, deliveries
from tests.broker.store.broker_cases import BrokerTestCase
from tests.broker.store_cases import HeldWorker, bodies_of, persistent
from txmsg.broker.server import Broker
from txmsg.wire.events import MethodReceived
from txmsg.wire.methods import basic, exchange, queue, tx
from txmsg.wire.properties import BasicProperties

PERSISTENT = persistent()


def ready(broker: Broker, name: str = "q") -> list[bytes]:
    """The bodies that are ready in a queue; none if there is no such queue."""
    found = broker.vhosts["/"].queues.get(name)
    return [] if found is None else bodies_of(found.ready_entries())


class HeldTestCase(BrokerTestCase):
    """A broker with the durable queue q, whose disk waits for the test."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = HeldWorker()
        self.broker = self.start_broker(worker=self.worker)
        self.one = self.client(self.broker, channels=2)
        self.one.declare("q", durable=True)
        self.settle()
        self.worker.is_held = True

    def settle(self) -> None:
        """Let all that lingers be written."""
        for _ in range(3):
            self.clock.advance(0.1)

    def work(self) -> None:
        """One commit, if one is due."""
        self.clock.advance(0)
        if self.worker.jobs:
            self.worker.work()


class ConfirmTests(HeldTestCase):
    """R35: a confirm says that the message is on the disk."""

    def test_not_before_the_commit(self) -> None:
        """Nothing is said while the commit runs, and nothing is there; then both."""
        self.one.select_confirms()
        self.one.publish("", "q", b"1", b"2", properties=PERSISTENT)
        self.assertEqual(self.one.events(), [])
        self.assertEqual(ready(self.kill()), [])
        self.worker.work()
        self.assertEqual(acks(self.one.events()), [("ack", 2, True)])
        self.assertEqual(ready(self.kill()), [b"1", b"2"])

    def test_whatever_happens(self) -> None:
        """F56: after every step of a random session, a kill leaves all that was confirmed, in order, and no more."""
        for seed in range(4):
            chance = random.Random(seed)
            publishers = [self.client(self.broker) for _ in range(2)]
            sent: dict[int, list[bytes]] = {0: [], 1: []}
            confirmed = {0: 0, 1: 0}
            for publisher in publishers:
                publisher.select_confirms()
            first = len(ready(self.broker))
            published: list[bytes] = []
            for step in range(25):
                which = chance.randrange(2)
                bodies = [
                    b"%d.%d.%d.%d" % (seed, which, step, number) + b"x" * chance.choice((0, 10, 9000))
                    for number in range(chance.randrange(4))
                ]
                if bodies:
                    publishers[which].publish("", "q", *bodies, properties=PERSISTENT)
                    sent[which] += bodies
                    published += bodies
                for _ in range(chance.randrange(3)):
                    self.work()
                for number, publisher in enumerate(publishers):
                    for kind, tag, _ in acks(publisher.events()):
                        self.assertEqual(kind, "ack")
                        confirmed[number] = tag
                left = ready(self.kill())[first:]
                self.stores.pop()._database.abandon()
                self.assertEqual(left, published[: len(left)], f"seed {seed}, step {step}")
                for number in (0, 1):
                    missing = set(sent[number][: confirmed[number]]) - set(left)
                    self.assertEqual(missing, set(), f"seed {seed}, step {step}: confirmed and lost")
            for _ in range(5):
                self.work()
            self.assertEqual(ready(self.kill())[first:], published)

    def test_declarations(self) -> None:
        """declare-ok, bind-ok and delete-ok wait, too; what comes behind them waits with them."""
        for method in (
            queue.Declare(queue="d", durable=True),
            exchange.Declare(exchange="x", type="fanout", durable=True),
            queue.Bind(queue="d", exchange="x"),
            queue.Unbind(queue="d", exchange="x"),
            exchange.Delete(exchange="x"),
            queue.Delete(queue="d"),
        ):
            self.one.send(1, method)
            self.assertEqual(self.one.events(), [], method.NAME)
            self.worker.work()
            self.assertEqual(len(self.one.events()), 1, method.NAME)
        self.assertEqual(list(self.kill().vhosts["/"].queues), ["q"])

    def test_deleted_queue(self) -> None:
        """After delete-ok neither the queue nor its messages come back; a new one of that name is empty."""
        self.one.publish("", "q", b"1", properties=PERSISTENT)
        self.settle()
        self.work()
        self.one.send(1, queue.Delete(queue="q"), queue.Declare(queue="q", durable=True))
        for _ in range(3):
            self.work()
        self.assertEqual(len(self.one.events()), 2)
        killed = self.kill()
        self.assertEqual((list(killed.vhosts["/"].queues), ready(killed)), (["q"], []))


class TransactionTests(HeldTestCase):
    """R35: tx.commit-ok says that all of the transaction is on the disk; a kill leaves all of it or nothing."""

    def test_commit(self) -> None:
        """Publishes to two queues and the ack of a third message are one."""
        self.worker.is_held = False
        self.one.declare("r", durable=True)
        self.one.publish("", "q", b"old", properties=PERSISTENT)
        self.settle()
        self.worker.is_held = True
        self.one.select_tx()
        self.one.get("q")
        self.one.publish("", "q", b"1", properties=PERSISTENT)
        self.one.publish("", "r", b"2" * 9000, properties=PERSISTENT)
        self.one.send(1, basic.Ack(1))
        self.settle()
        self.assertEqual((self.one.events(), self.worker.jobs), ([], []))
        self.one.send(1, tx.Commit())
        self.assertEqual(self.one.events(), [])
        killed = self.kill()
        self.assertEqual((ready(killed), ready(killed, "r")), ([b"old"], []))
        self.worker.work()
        (answer,) = self.one.events()
        self.assertEqual(answer, MethodReceived(1, tx.CommitOk()))
        killed = self.kill()
        self.assertEqual((ready(killed), ready(killed, "r")), ([b"1"], [b"2" * 9000]))

    def test_not_committed(self) -> None:
        """What was not committed is not there, even after a clean stop."""
        self.worker.is_held = False
        self.one.select_tx()
        self.one.publish("", "q", b"1", properties=PERSISTENT)
        self.stop_broker(self.broker)
        self.assertEqual(ready(self.start_broker()), [])


class AckTests(HeldTestCase):
    """What was acked: it may come back after a kill within the window of the commit, marked, and never after that."""

    def setUp(self) -> None:
        super().setUp()
        self.worker.is_held = False
        self.one.publish("", "q", b"1", b"2", b"3", properties=PERSISTENT)
        self.settle()

    def test_window(self) -> None:
        """The ack is on the disk 50 ms later; until then a kill brings the message back as redelivered."""
        self.one.get("q", no_ack=False)
        self.one.send(1, basic.Ack(1))
        killed = self.kill()
        self.assertEqual(ready(killed), [b"1", b"2", b"3"])
        self.assertTrue(all(entry.redelivered for entry in killed.vhosts["/"].queues["q"].ready_entries()))
        self.clock.advance(0.051)
        self.assertEqual(ready(self.kill()), [b"2", b"3"])

    def test_after_a_restart(self) -> None:
        """An ack for what was restored counts like any other, over several restarts."""
        left = [b"1", b"2", b"3"]
        broker = self.broker
        while left:
            broker = self.restart_broker(broker)
            self.assertEqual(ready(broker), left)
            self.client(broker).get("q", no_ack=True)
            del left[0]
            self.clock.advance(0.051)
            self.assertEqual(ready(self.kill()), left)

    def test_unacked_at_a_stop(self) -> None:
        """What a consumer had comes back in its place, redelivered; what it had not is not marked."""
        self.one.call(basic.Qos(prefetch_count=2))
        self.one.consume("q")
        self.assertEqual(len(deliveries(self.one.events())), 2)
        broker = self.restart_broker(self.broker)
        other = self.client(broker)
        other.consume("q")
        seen = [(redelivered, body) for _, _, redelivered, body in deliveries(other.events())]
        self.assertEqual(seen, [(True, b"1"), (True, b"2"), (False, b"3")])

    def test_unacked_at_a_kill(self) -> None:
        """All are there, in order, and marked."""
        self.one.consume("q")
        self.one.send(1, basic.Nack(2), basic.Ack(3))
        self.clock.advance(0.051)
        other = self.client(self.kill())
        other.consume("q")
        seen = [(redelivered, body) for _, _, redelivered, body in deliveries(other.events())]
        self.assertEqual(seen, [(True, b"1"), (True, b"2")])

    def test_dropped_heads(self) -> None:
        """What a length limit has dropped stays dropped, and what a purge took away."""
        self.one.declare("short", durable=True, arguments={"x-max-length": 2})
        self.one.publish("", "short", b"a", b"b", b"c", properties=PERSISTENT)
        self.settle()
        self.assertEqual(ready(self.kill(), "short"), [b"b", b"c"])
        self.one.call(queue.Purge(queue="q"))
        self.settle()
        self.assertEqual(ready(self.kill()), [])


class RestartTests(BrokerTestCase):
    """What else a restart must not change (R35)."""

    def test_x_death(self) -> None:
        """x-death goes on counting where it was, after a stop and after a kill."""
        broker = self.start_broker()
        one = self.client(broker)
        one.declare("dead", durable=True)
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        one.declare("q", durable=True, arguments=dead)
        one.publish("", "q", b"1", properties=PERSISTENT)
        for count, start in enumerate((self.restart_broker, lambda _: self.kill()), 1):
            one.get("q")
            one.send(1, basic.Nack(0, multiple=True, requeue=False))
            self.clock.advance(0.1)
            broker = start(broker)
            one = self.client(broker)
            [entry] = broker.vhosts["/"].queues["dead"].ready_entries()
            headers = entry.message.decoded_properties.headers or {}
            [death] = headers["x-death"]
            self.assertEqual((death["queue"], death["reason"], death["count"]), ("q", "rejected", count))
            properties = BasicProperties(delivery_mode=2, headers=dict(headers))
            one.get("dead", no_ack=True)
            one.publish("", "q", b"1", properties=properties)

    def test_priorities(self) -> None:
        """The higher comes first, and of one priority the older."""
        broker = self.start_broker()
        one = self.client(broker)
        one.declare("q", durable=True, arguments={"x-max-priority": 5})
        for body, priority in ((b"a", 1), (b"b", 5), (b"c", 1), (b"d", 5)):
            one.publish("", "q", body, properties=persistent(priority=priority))
        self.clock.advance(0.1)
        for later in (self.kill(), self.restart_broker(broker)):
            self.assertEqual(ready(later), [b"b", b"d", b"a", b"c"])

    def test_time_to_live_of_a_queue(self) -> None:
        """It counts from the publish, over a kill, too."""
        broker = self.start_broker()
        one = self.client(broker)
        one.declare("q", durable=True, arguments={"x-message-ttl": 10_000})
        one.publish("", "q", b"old", properties=PERSISTENT)
        self.clock.advance(6)
        one.publish("", "q", b"new", properties=PERSISTENT)
        self.clock.advance(0.1)
        killed = self.kill()
        self.clock.advance(5)
        self.assertEqual(ready(killed), [b"new"])
        self.clock.advance(5)
        self.assertEqual(ready(killed), [])

    def test_what_ends_with_the_broker(self) -> None:
        """Transient, exclusive and unused auto-delete queues are gone, with their bindings to durable exchanges."""
        broker = self.start_broker()
        one = self.client(broker, channels=2)
        one.call(exchange.Declare(exchange="x", type="fanout", durable=True))
        one.declare("kept", durable=True)
        one.declare("transient")
        one.declare("exclusive", durable=True, exclusive=True)
        one.declare("unused", durable=True, auto_delete=True)
        one.consume("unused", number=2)
        for name in ("kept", "transient", "exclusive", "unused"):
            one.call(queue.Bind(queue=name, exchange="x"))
            one.call(queue.Bind(queue=name, exchange="amq.topic", routing_key=name))
        one.send(2, basic.Cancel("c", True))
        one.publish("x", "", b"1", properties=PERSISTENT)
        self.clock.advance(0.1)
        for later in (self.kill(), self.restart_broker(broker)):
            vhost = later.vhosts["/"]
            self.assertEqual(list(vhost.queues), ["kept"])
            self.assertEqual({binding.destination for binding in vhost.bindings()}, {"kept"})
            self.assertEqual(ready(later, "kept"), [b"1"])
            again: Client = self.client(later)
            for name in ("transient", "exclusive"):  # the names are free, for queues of another kind as well
                self.assertIsInstance(again.declare(name, durable=True), queue.DeclareOk)
            self.assertEqual(self.report.damage, [])
