"""What a queue tells the journal, and how it is restored."""

from __future__ import annotations

from tests.broker.model_fakes import FakeConsumer, QueueTestCase, bodies, message
from txmsg.broker.message import Entry
from txmsg.broker.queues.queue import PENDING, REJECTED, ROUTED

_QUORUM = {"x-queue-type": "quorum"}


class JournalTests(QueueTestCase):
    """R35: what is told, and when a publish is only PENDING."""

    def test_persistent_in_durable(self) -> None:
        queue = self.queue(durable=True)
        self.assertEqual(self.put(queue, b"1", b"2", delivery_mode=2), [PENDING, PENDING])
        queue.ack(self.get(queue))
        queue.requeue([self.get(queue)])
        queue.get(no_ack=True)
        self.assertEqual(
            self.journal.told,
            [
                ("added", "q", b"1"),
                ("added", "q", b"2"),
                ("removed", "q", b"1"),
                ("returned", "q", b"2", 1),
                ("removed", "q", b"2"),
            ],
        )

    def test_what_is_not_kept(self) -> None:
        """Transient messages; transient queues; exclusive ones, whatever was asked for."""
        self.assertEqual(self.put(self.queue("a", durable=True), b"1", delivery_mode=1), [ROUTED])
        self.assertEqual(self.put(self.queue("b"), b"1", delivery_mode=2), [ROUTED])
        exclusive = self.queue("c", durable=True, exclusive=True, owner="me")
        self.assertEqual(self.put(exclusive, b"1", delivery_mode=2), [ROUTED])
        for queue in self.vhost.queues.values():
            queue.requeue([self.get(queue)])
            queue.ack(self.get(queue))
            queue.purge()
        self.assertEqual(self.journal.told, [])

    def test_added_before_delivered(self) -> None:
        """A consumer that acks is told of what the journal knows."""
        queue = self.queue(durable=True)
        queue.add_consumer(FakeConsumer())
        self.assertEqual(self.put(queue, b"1", delivery_mode=2), [PENDING])
        self.assertEqual(self.journal.told, [("added", "q", b"1")])

    def test_delivered_without_ack(self) -> None:
        """It is gone before it could be kept."""
        queue = self.queue(durable=True)
        queue.add_consumer(FakeConsumer(no_ack=True))
        self.assertEqual(self.put(queue, b"1", delivery_mode=2), [ROUTED])
        self.assertEqual(self.journal.told, [])

    def test_backlog_without_ack(self) -> None:
        queue = self.queue(durable=True)
        self.put(queue, b"1", delivery_mode=2)
        queue.add_consumer(FakeConsumer(no_ack=True))
        self.assertEqual(self.journal.told, [("added", "q", b"1"), ("removed", "q", b"1")])

    def test_purge(self) -> None:
        """In one go, the persistent ones."""
        queue = self.queue(durable=True)
        self.put(queue, b"1", b"2", delivery_mode=2)
        self.put(queue, b"3")
        self.journal.told.clear()
        queue.purge()
        queue.purge()
        self.assertEqual(self.journal.told, [("purged", "q", [b"1", b"2"])])

    def test_delete(self) -> None:
        """The messages go with the queue, unacked ones too."""
        queue = self.queue(durable=True)
        self.put(queue, b"1", b"2", delivery_mode=2)
        entry = self.get(queue)
        self.journal.told.clear()
        self.vhost.delete_queue("q")
        queue.ack(entry)
        self.assertEqual(self.journal.told, [("deleted", "q")])

    def test_expired_and_dropped(self) -> None:
        queue = self.queue(durable=True, arguments={"x-max-length": 1})
        self.put(queue, b"1", delivery_mode=2)
        self.put(queue, b"2", delivery_mode=2, expiration="100")
        self.clock.advance(0.1)
        self.assertEqual(
            self.journal.told,
            [("added", "q", b"1"), ("added", "q", b"2"), ("removed", "q", b"1"), ("removed", "q", b"2")],
        )

    def test_refused(self) -> None:
        """What was not taken was not told."""
        queue = self.queue(durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        self.assertEqual((self.put(queue, b"1", delivery_mode=2), self.journal.told), ([REJECTED], []))


class RestoreTests(QueueTestCase):
    def entry(self, sequence: int, *, expires_at: float | None = None, delivery_count: int = 0) -> Entry:
        entry = Entry(message(b"%d" % sequence, delivery_mode=2), sequence, expires_at)
        entry.delivery_count = delivery_count
        return entry

    def test_in_order(self) -> None:
        """R35: as they were, and what comes later goes behind; the journal is not told."""
        queue = self.queue(durable=True)
        for sequence in (3, 5, 9):
            queue.restore(self.entry(sequence))
        self.put(queue, b"new")
        self.assertEqual(self.ready(queue), [b"3", b"5", b"9", b"new"])
        self.assertEqual((queue.message_count, queue.ready_bytes), (4, 6))
        self.assertGreater(queue.ready_entries()[-1].sequence, 9)
        self.assertEqual(self.journal.told, [])
        for _ in range(4):
            queue.ack(self.get(queue))
        self.assertEqual((self.usage.bytes, queue.held_bytes), (0, 0))

    def test_redelivered(self) -> None:
        queue = self.queue(durable=True)
        queue.restore(self.entry(1, delivery_count=2))
        self.assertTrue(self.get(queue).redelivered)

    def test_quorum(self) -> None:
        """The count is shown again, and goes on."""
        queue = self.queue(durable=True, arguments={**_QUORUM, "x-delivery-limit": 3})
        queue.restore(self.entry(1, delivery_count=2))
        entry = self.get(queue)
        self.assertEqual((entry.message.decoded_properties.headers or {})["x-delivery-count"], 2)
        queue.requeue([entry])
        queue.requeue([self.get(queue)])
        self.assertEqual(queue.message_count, 0)

    def test_expired_meanwhile(self) -> None:
        """Never delivered; dropped once the reactor runs, when the queue for its dead letter is there."""
        queue = self.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}, durable=True)
        self.clock.advance(100)
        queue.restore(self.entry(1, expires_at=50.0))
        queue.restore(self.entry(2, expires_at=150.0))
        dead = self.queue("dead")
        self.assertEqual(queue.message_count, 2)
        self.clock.advance(0)
        self.assertEqual((self.ready(queue), self.ready(dead)), ([b"2"], [b"1"]))
        self.clock.advance(50)
        self.assertEqual(self.ready(dead), [b"1", b"2"])

    def test_priorities(self) -> None:
        queue = self.queue(arguments={"x-max-priority": 5})
        for sequence, priority in ((1, 0), (2, 3)):
            queue.restore(Entry(message(b"%d" % sequence, priority=priority), sequence))
        self.assertEqual(bodies(queue.ready_entries()), [b"2", b"1"])
