"""What a restart finds of messages (R35, F56)."""

from __future__ import annotations

from typing import Any

from tests.broker.store_cases import StoreTestCase, bodies_of, execute, persistent
from txmsg.wire.tables import Int8


class MessageTests(StoreTestCase):
    """Messages come back in order, with all they had."""

    def test_message(self) -> None:
        """Every field of a message survives: names, properties octet by octet, priority, expiration, the long body."""
        host = self.start()
        host.queue(arguments={"x-max-priority": 9})
        long = bytes(range(256)) * 100
        fields: dict[str, Any] = {
            "headers": {"a": Int8(1), "deep": {"b": [1, "x"]}},
            "priority": 7,
            "expiration": "60000",
            "message_id": "m",
        }
        for body in (b"", b"short", long):
            host.publish(body, **fields)
        host.publish(b"plain")
        host = self.restart(host)
        entries = host.vhost.queue("q").ready_entries()
        self.assertEqual(bodies_of(entries), [b"", b"short", long, b"plain"])
        for entry in entries[:3]:
            message = entry.message
            self.assertEqual((message.exchange, message.routing_key, message.priority), ("", "q", 7))
            self.assertEqual((message.expiration, message.is_persistent), (60000, True))
            self.assertEqual(message.encoded_properties, persistent(**fields).encode())
            self.assertIs(type(message.decoded_properties.as_dict()["headers"]["a"]), Int8)
            self.assertEqual(entry.expires_at, 60.0)
            self.assertFalse(entry.redelivered)
        self.assertEqual((entries[3].message.expiration, entries[3].expires_at), (None, None))

    def test_order(self) -> None:
        """What came back to its place is there after a restart, however many times."""
        host = self.start()
        queue = host.queue()
        for number in range(10):
            host.publish(b"%d" % number)
            self.commit(host)
        taken = [queue.get(no_ack=False) for _ in range(4)]
        entries = [entry for entry in taken if entry is not None]
        queue.ack(entries[1])
        queue.requeue([entries[2], entries[0], entries[3]])
        for _ in range(2):
            host = self.restart(host)
            self.assertEqual(host.kept_bodies(), [b"0", *(b"%d" % number for number in range(2, 10))])
        host.publish(b"last")
        host = self.restart(host)
        self.assertEqual(host.kept_bodies()[-1], b"last")

    def test_redelivered(self) -> None:
        """After a clean stop `redelivered` is exact; after a crash it is true for all (R35, `redelivered` of 1.1)."""
        host = self.start()
        queue = host.queue()
        for body in (b"seen", b"new"):
            host.publish(body)
        entry = queue.get(no_ack=False)
        assert entry is not None
        queue.requeue([entry])
        host = self.restart(host)
        self.assertEqual([entry.delivery_count for entry in host.vhost.queue("q").ready_entries()], [1, 0])
        host = self.crash()
        self.assertFalse(self.report.stopped_cleanly)
        self.assertEqual([entry.redelivered for entry in host.vhost.queue("q").ready_entries()], [True, True])

    def test_delivery_count(self) -> None:
        """A quorum queue's count goes on where it was, and the message itself is kept as it was published."""
        host = self.start()
        queue = host.queue(arguments={"x-queue-type": "quorum"})
        host.publish(b"1")
        for _ in range(3):
            entry = queue.get(no_ack=False)
            assert entry is not None
            queue.requeue([entry])
        for _ in range(2):
            host = self.restart(host)
            [entry] = host.vhost.queue("q").ready_entries()
            self.assertEqual(entry.delivery_count, 3)
            headers = entry.message.decoded_properties.headers
            self.assertEqual(dict(headers or {}), {"x-delivery-count": 3})
        self.stop(host)
        [(record,)] = execute(self.directory / "broker.db", "SELECT record FROM message")
        self.assertNotIn(b"x-delivery-count", record)

    def test_long_body_that_comes_back_before_its_commit(self) -> None:
        """The message of a quorum queue is replaced by one with a header; its body is still the one that is written."""
        host = self.start()
        queue = host.queue(arguments={"x-queue-type": "quorum"})
        host.publish(b"x" * 10_000)
        entry = queue.get(no_ack=False)
        assert entry is not None
        queue.requeue([entry])
        host = self.restart(host)
        self.assertEqual(host.kept_bodies(), [b"x" * 10_000])

    def test_long_body_is_shared(self) -> None:
        """A long body is on the disk once for all the queues it is in, and goes with the last of them."""
        host = self.start()
        for name in ("a", "b", "c"):
            host.queue(name)
            host.vhost.bind_queue(name, "amq.fanout")
        body = b"x" * 50_000
        host.publish(body, exchange="amq.fanout")
        host.publish(b"short", exchange="amq.fanout")
        host = self.restart(host)
        self.assertEqual([host.kept_bodies(name) for name in "abc"], [[body, b"short"]] * 3)
        first, second = (host.vhost.queue(name).ready_entries()[0] for name in "ab")
        self.assertIs(first.message.body, second.message.body)
        for name, left in (("a", 1), ("b", 1), ("c", 0)):
            host.vhost.queue(name).get(no_ack=True)
            self.stop(host)
            self.assertEqual(execute(self.directory / "broker.db", "SELECT count(*) FROM body"), [(left,)])
            host = self.start()
            self.assertEqual(self.report.damage, [])

    def test_long_body_of_a_deleted_queue(self) -> None:
        """A body that is in another queue as well survives the first."""
        host = self.start()
        for name in ("a", "b"):
            host.queue(name)
            host.vhost.bind_queue(name, "amq.fanout")
        host.publish(b"x" * 50_000, exchange="amq.fanout")
        self.commit(host)
        host.vhost.delete_queue("a")
        host = self.restart(host)
        self.assertEqual(host.kept_bodies("b"), [b"x" * 50_000])
        host.vhost.delete_queue("b")
        self.stop(host)
        self.assertEqual(execute(self.directory / "broker.db", "SELECT count(*) FROM body"), [(0,)])

    def test_settled_messages_are_gone(self) -> None:
        """Acked, rejected, purged and expired messages do not come back."""
        host = self.start()
        queue = host.queue()
        for number in range(6):
            host.publish(b"%d" % number, **({"expiration": "1000"} if number == 5 else {}))
        self.commit(host)
        first, second = queue.get(no_ack=False), queue.get(no_ack=False)
        assert first is not None
        assert second is not None
        queue.ack(first)
        queue.reject(second)
        queue.get(no_ack=True)
        self.assertEqual(bodies_of(queue.ready_entries()), [b"3", b"4", b"5"])
        host = self.restart(host)
        self.assertEqual(host.kept_bodies(), [b"3", b"4", b"5"])
        host.vhost.queue("q").get(no_ack=True)
        host.vhost.queue("q").get(no_ack=True)
        self.clock.advance(2)
        self.assertEqual(host.kept_bodies(), [])
        host.publish(b"6")
        self.commit(host)
        host.vhost.queue("q").purge()
        host = self.restart(host)
        self.assertEqual(host.kept_bodies(), [])
        self.stop(host)
        database = self.directory / "broker.db"
        for table in ("message", "returned"):
            self.assertEqual(execute(database, f"SELECT count(*) FROM {table}"), [(0,)])

    def test_time_goes_on_while_the_broker_is_off(self) -> None:
        """A message's time to live counts from its publish; what has expired meanwhile becomes a dead letter."""
        host = self.start()
        host.queue("dead")
        host.queue(arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        host.publish(b"soon", expiration="10000")
        host.publish(b"later", expiration="60000")
        self.stop(host)
        self.now += 30
        host = self.start()
        self.clock.advance(0)
        self.assertEqual((host.kept_bodies(), host.kept_bodies("dead")), ([b"later"], [b"soon"]))
        host = self.restart(host)
        self.assertEqual((host.kept_bodies(), host.kept_bodies("dead")), ([b"later"], [b"soon"]))
        self.clock.advance(29)
        self.assertEqual(host.kept_bodies(), [b"later"])
        self.clock.advance(2)
        self.assertEqual(host.kept_bodies(), [])

    def test_dead_letter_is_one_transaction(self) -> None:
        """A message on its way to the dead letter queue is in exactly one of the two, whenever the broker is killed."""
        host = self.start()
        host.queue("dead")
        queue = host.queue(arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        host.publish(b"1")
        self.commit(host)
        entry = queue.get(no_ack=False)
        assert entry is not None
        queue.reject(entry)
        before = self.crash()
        self.assertEqual((before.kept_bodies(), before.kept_bodies("dead")), ([b"1"], []))
        self.commit(host)
        after = self.crash()
        self.assertEqual((after.kept_bodies(), after.kept_bodies("dead")), ([], [b"1"]))

    def test_new_messages_do_not_take_rows_that_are_in_use(self) -> None:
        """Rows go on above the highest of any table, a shared body's included."""
        host = self.start()
        for name in ("a", "b"):
            host.queue(name)
            host.vhost.bind_queue(name, "amq.fanout")
        host.publish(b"x" * 5000, exchange="amq.fanout")
        for number in range(3):
            host = self.restart(host)
            host.vhost.queue("b").get(no_ack=number == 0)
            host.publish(b"y" * (5000 + number), exchange="amq.fanout")
        host = self.restart(host)
        self.assertEqual(host.kept_bodies("a"), [b"x" * 5000, *(b"y" * (5000 + number) for number in range(3))])
