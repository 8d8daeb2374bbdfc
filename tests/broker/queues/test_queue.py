"""Queue: put, get, settle, purge, delete; the order and the counts."""

from __future__ import annotations

from dataclasses import replace

from tests.broker.model_fakes import FakeConsumer, QueueTestCase, message
from txmsg.broker.faults import Fault
from txmsg.broker.message import Entry
from txmsg.broker.queues.queue import REJECTED, ROUTED, Queue
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.wire.field_values import Int64

_QUORUM = {"x-queue-type": "quorum"}


class GetTests(QueueTestCase):
    def test_first_in_first_out(self) -> None:
        queue = self.queue()
        self.assertEqual(self.put(queue, b"1", b"22", b"333"), [ROUTED] * 3)
        self.assertEqual((queue.message_count, queue.ready_bytes, queue.unacked_count), (3, 6, 0))
        entry = self.get(queue)
        self.assertEqual((entry.message.body, entry.redelivered), (b"1", False))
        self.assertEqual((queue.message_count, queue.ready_bytes, queue.unacked_count), (2, 5, 1))
        queue.ack(entry)
        self.assertEqual((queue.message_count, queue.unacked_count), (2, 0))

    def test_empty(self) -> None:
        self.assertIsNone(self.queue().get(no_ack=False))

    def test_no_ack(self) -> None:
        """Gone at once."""
        queue = self.queue()
        self.put(queue, b"1")
        entry = queue.get(no_ack=True)
        assert entry is not None
        self.assertEqual(entry.message.body, b"1")
        self.assertEqual((queue.message_count, queue.unacked_count, self.usage.bytes), (0, 0, 0))

    def test_a_message_as_it_was_published(self) -> None:
        queue = self.queue()
        sent = message(b"1", exchange="x", key="k", content_type="text/plain")
        queue.put(sent)
        self.assertIs(self.get(queue).message, sent)


class RequeueTests(QueueTestCase):
    def test_back_to_its_place(self) -> None:
        """https://www.rabbitmq.com/docs/confirms#consumer-nacks-requeue: in front of those that came later."""
        queue = self.queue()
        self.put(queue, b"1", b"2", b"3", b"4")
        first, second, third = (self.get(queue) for _ in range(3))
        queue.requeue([second])
        self.put(queue, b"5")
        queue.requeue([third, first])
        self.assertEqual(self.ready(queue), [b"1", b"2", b"3", b"4", b"5"])
        self.assertEqual((queue.message_count, queue.unacked_count, queue.ready_bytes), (5, 0, 5))

    def test_redelivered(self) -> None:
        """The next one to be delivered, and marked."""
        queue = self.queue()
        self.put(queue, b"1", b"2")
        queue.requeue([self.get(queue)])
        entry = self.get(queue)
        self.assertEqual((entry.message.body, entry.redelivered, entry.delivery_count), (b"1", True, 1))
        self.assertFalse(self.get(queue).redelivered)

    def test_to_whoever_can(self) -> None:
        """What comes back goes to the consumers again, the one who gave it back included."""
        queue = self.queue()
        giver, other = FakeConsumer("a", prefetch=1), FakeConsumer("b", prefetch=0)
        queue.add_consumer(giver)
        queue.add_consumer(other)
        self.put(queue, b"1")
        giver.is_flowing = False
        queue.requeue(giver.take())
        self.assertEqual(self.ready(queue), [b"1"])
        other.prefetch = 1
        queue.consumer_available(other)
        self.assertEqual((other.bodies, other.entries[0].redelivered), ([b"1"], True))

    def test_nothing(self) -> None:
        self.queue().requeue([])

    def test_classic_queues_do_not_count(self) -> None:
        """Any number of times, without a header."""
        queue = self.queue(arguments={})
        self.put(queue, b"1", headers={})
        for _ in range(5):
            queue.requeue([self.get(queue)])
        self.assertEqual(self.get(queue).message.decoded_properties.headers, {})


class DeliveryCountTests(QueueTestCase):
    """x-delivery-count of quorum queues, as measured."""

    def setUp(self) -> None:
        super().setUp()
        self.quorum = self.queue("quorum", _QUORUM, durable=True)

    def count(self, entry: Entry) -> object:
        return (entry.message.decoded_properties.headers or {}).get("x-delivery-count")

    def test_the_headers_are_sorted(self) -> None:
        self.quorum.put(message(b"1", headers={"zz": 1, "Aa": 2}))
        consumer = FakeConsumer()
        self.quorum.add_consumer(consumer)
        self.quorum.requeue(consumer.take())
        (entry,) = consumer.take()
        self.assertEqual(list(entry.message.decoded_properties.headers or {}), ["Aa", "x-delivery-count", "zz"])

    def test_consumer(self) -> None:
        """Absent the first time, then the number of returns; other headers stay, and classic places are not touched."""
        classic = self.queue("classic")
        sent = message(b"1", content_type="a", headers={"mine": [1]})
        self.quorum.put(sent)
        classic.put(sent)
        consumer = FakeConsumer()
        self.quorum.add_consumer(consumer)
        for count in (None, 1, 2):
            (entry,) = consumer.take()
            self.assertEqual(self.count(entry), count)
            self.quorum.requeue([entry])
        (entry,) = consumer.take()
        headers = entry.message.decoded_properties.headers
        self.assertEqual(headers, {"mine": [1], "x-delivery-count": 3})
        self.assertIsInstance(self.count(entry), Int64)
        self.assertEqual(entry.message.decoded_properties.content_type, "a")
        self.assertIs(self.get(classic).message, sent)

    def test_get(self) -> None:
        """basic.get shows the 0, too."""
        self.put(self.quorum, b"1")
        for count in (0, 1, 2):
            entry = self.get(self.quorum)
            self.assertEqual(self.count(entry), count)
            self.quorum.requeue([entry])

    def test_memory(self) -> None:
        """The header is counted, and nothing is left in the end."""
        sent = message(b"1", key="quorum")
        self.quorum.put(sent)
        for _ in range(3):
            self.quorum.requeue([self.get(self.quorum)])
        self.assertEqual(sent.places, 0)
        self.assertEqual(self.usage.bytes, self.quorum.held_bytes)
        self.quorum.ack(self.get(self.quorum))
        self.assertEqual((self.usage.bytes, self.quorum.held_bytes), (0, 0))

    def test_no_room_for_it(self) -> None:
        """R36: a message whose headers are full goes without."""
        sent = message(b"1", key="quorum", headers={f"h{number}": 1 for number in range(4096)})
        self.quorum.put(sent)
        self.quorum.requeue([self.get(self.quorum)])
        entry = self.get(self.quorum)
        self.assertIs(entry.message, sent)
        self.assertTrue(entry.redelivered)
        self.quorum.ack(entry)
        self.assertEqual(self.usage.bytes, 0)

    def test_limit(self) -> None:
        """https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling: a limit of 2 is three deliveries."""
        queue = self.queue("q", {**_QUORUM, "x-delivery-limit": 2}, durable=True)
        self.put(queue, b"1", b"2")
        for _ in range(3):
            queue.requeue([self.get(queue)])
        self.assertEqual(self.ready(queue), [b"2"])
        self.assertEqual((queue.message_count, queue.unacked_count, queue.ready_bytes), (1, 0, 1))

    def test_properties_stay(self) -> None:
        """Priority, expiry and persistence survive the new header."""
        sent = message(b"1", key="quorum", priority=3, expiration="5000", delivery_mode=2)
        self.quorum.put(sent)
        entry = self.get(self.quorum)
        self.assertEqual(
            (entry.message.priority, entry.message.expiration, entry.message.is_persistent), (3, 5000, True)
        )
        self.assertEqual(entry.message.decoded_properties.expiration, "5000")


class PriorityTests(QueueTestCase):
    def test_order(self) -> None:
        """https://www.rabbitmq.com/docs/priority: higher first, above the maximum counts as it, none is 0."""
        queue = self.queue(arguments={"x-max-priority": 5})
        for body, priority in ((b"a", None), (b"b", 5), (b"c", 1), (b"d", 9), (b"e", 0)):
            self.put(queue, body, priority=priority)
        self.assertEqual(self.ready(queue), [b"b", b"d", b"c", b"a", b"e"])

    def test_back_to_its_place(self) -> None:
        queue = self.queue(arguments={"x-max-priority": 5})
        self.put(queue, b"1", b"2", priority=1)
        entry = self.get(queue)
        self.put(queue, b"3", priority=2)
        queue.requeue([entry])
        self.assertEqual(self.ready(queue), [b"3", b"1", b"2"])

    def test_not_in_other_queues(self) -> None:
        queue = self.queue()
        self.put(queue, b"1", priority=1)
        self.put(queue, b"9", priority=9)
        self.assertEqual(self.ready(queue), [b"1", b"9"])


class PurgeTests(QueueTestCase):
    def test_only_what_is_ready(self) -> None:
        """What a consumer has stays with it."""
        queue = self.queue()
        self.put(queue, b"1", b"2", b"3")
        entry = self.get(queue)
        self.assertEqual(queue.purge(), 2)
        self.assertEqual((queue.message_count, queue.ready_bytes, queue.unacked_count), (0, 0, 1))
        queue.requeue([entry])
        self.assertEqual(self.ready(queue), [b"1"])

    def test_no_dead_letters(self) -> None:
        dead = self.queue("dead")
        queue = self.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        self.put(queue, b"1")
        queue.purge()
        self.assertEqual(dead.message_count, 0)

    def test_empty(self) -> None:
        self.assertEqual(self.queue().purge(), 0)


class ConsumerTests(QueueTestCase):
    def test_counts(self) -> None:
        queue = self.queue()
        first, second = FakeConsumer("a"), FakeConsumer("b")
        queue.add_consumer(first)
        queue.add_consumer(second)
        self.assertEqual((queue.consumers, queue.consumer_count), ([first, second], 2))
        queue.remove_consumer(first)
        queue.remove_consumer(first)
        self.assertEqual((queue.consumers, queue.consumer_count), ([second], 1))

    def test_removed_consumers_get_nothing(self) -> None:
        """And keep what they have until they settle it."""
        queue = self.queue()
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.put(queue, b"1")
        queue.remove_consumer(consumer)
        self.put(queue, b"2")
        queue.consumer_available(consumer)
        self.assertEqual((consumer.bodies, self.ready(queue), queue.unacked_count), ([b"1"], [b"2"], 1))
        queue.ack(consumer.take()[0])
        self.assertEqual(queue.unacked_count, 0)

    def test_auto_delete(self) -> None:
        """With the last consumer; never before there was one."""
        queue = self.queue(auto_delete=True)
        self.put(queue, b"1")
        first, second = FakeConsumer("a", prefetch=0), FakeConsumer("b", prefetch=0)
        queue.add_consumer(first)
        queue.add_consumer(second)
        queue.remove_consumer(first)
        self.assertIn("q", self.vhost.queues)
        queue.remove_consumer(second)
        self.assertNotIn("q", self.vhost.queues)
        self.assertTrue(queue.is_deleted)
        self.assertEqual(self.usage.bytes, 0)

    def test_auto_delete_and_a_stranger(self) -> None:
        """Somebody who never consumed does not end it by leaving."""
        queue = self.queue(auto_delete=True)
        queue.remove_consumer(FakeConsumer())
        self.assertIn("q", self.vhost.queues)

    def test_auto_delete_exclusive(self) -> None:
        queue = self.queue(auto_delete=True, exclusive=True, owner="me")
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        queue.remove_consumer(consumer)
        self.assertNotIn("q", self.vhost.queues)

    def test_deliver_may_settle(self) -> None:
        """A consumer that acks while it is being called gets the next one from the outer loop."""
        queue = self.queue()

        class Eager(FakeConsumer):
            depth = 0

            def deliver(self, queue: Queue, entry: Entry) -> None:
                Eager.depth += 1
                assert Eager.depth == 1
                super().deliver(queue, entry)
                queue.ack(self.take()[0])
                queue.consumer_available(self)
                Eager.depth -= 1

        self.put(queue, b"1", b"2", b"3")
        consumer = Eager(prefetch=1)
        queue.add_consumer(consumer)
        self.put(queue, b"4")
        self.assertEqual([body for _, body in consumer.log], [b"1", b"2", b"3", b"4"])
        self.assertEqual((queue.unacked_count, self.usage.bytes), (0, 0))


class DeleteTests(QueueTestCase):
    def test_consumers_are_told(self) -> None:
        """F36: each once; the count is of what was ready."""
        queue = self.queue()
        consumer = FakeConsumer(prefetch=1)
        queue.add_consumer(consumer)
        self.put(queue, b"1", b"2", b"3")
        self.assertEqual(self.vhost.delete_queue("q"), 2)
        self.assertEqual((consumer.cancelled_by, queue.consumer_count), ([queue], 0))
        queue.remove_consumer(consumer)  # as its channel does
        self.assertEqual(consumer.cancelled_by, [queue])

    def test_settling_afterwards(self) -> None:
        """Harmless: nothing comes back, nothing becomes a dead letter."""
        dead = self.queue("dead")
        queue = self.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        self.put(queue, b"1", b"2", b"3")
        entries = [self.get(queue) for _ in range(3)]
        self.vhost.delete_queue("q")
        queue.ack(entries[0])
        queue.reject(entries[1])
        queue.requeue(entries[2:])
        self.assertEqual((queue.unacked_count, queue.message_count, dead.message_count), (0, 0, 0))
        self.assertEqual(self.usage.bytes, 0)

    def test_no_dead_letters(self) -> None:
        dead = self.queue("dead")
        queue = self.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        self.put(queue, b"1")
        self.vhost.delete_queue("q")
        self.assertEqual(dead.message_count, 0)

    def test_takes_nothing_any_more(self) -> None:
        queue = self.queue()
        self.vhost.delete_queue("q")
        self.assertEqual((self.put(queue, b"1"), queue.message_count, self.usage.bytes), ([REJECTED], 0, 0))

    def test_repr(self) -> None:
        """State, and a name that cannot forge a line."""
        queue = Queue(VirtualHost("/", clock=self.clock), "a\nb")
        queue.put(message(b"secret"))
        self.assertEqual(repr(queue), r"<Queue 'a\nb' in '/': 1 ready, 0 unacked, 0 consumers>")
        queue.delete()
        self.assertIn("deleted", repr(queue))


class SettingsTests(QueueTestCase):
    """change_settings, for policies."""

    def test_length(self) -> None:
        """At once."""
        queue = self.queue()
        self.put(queue, b"1", b"2", b"3")
        queue.change_settings(replace(queue.settings, max_length=1))
        self.assertEqual(self.ready(queue), [b"3"])
        queue.change_settings(replace(queue.settings, max_length=None))
        self.put(queue, b"4")
        self.assertEqual(self.ready(queue), [b"3", b"4"])

    def test_ttl(self) -> None:
        """For what comes from now on."""
        queue = self.queue()
        queue.change_settings(replace(queue.settings, message_ttl=1000))
        self.put(queue, b"1")
        queue.change_settings(replace(queue.settings, message_ttl=None))
        self.put(queue, b"2")
        self.clock.advance(1)
        self.assertEqual(self.ready(queue), [b"2"])

    def test_dead_letters(self) -> None:
        """And without them again."""
        dead, queue = self.queue("dead"), self.queue()
        queue.change_settings(
            replace(queue.settings, dead_letter_exchange="", dead_letter_routing_key="dead", max_length=1)
        )
        self.put(queue, b"1", b"2")
        queue.change_settings(replace(queue.settings, dead_letter_exchange=None))
        self.put(queue, b"3")
        self.assertEqual((self.ready(dead), self.ready(queue)), ([b"1"], [b"3"]))

    def test_expires(self) -> None:
        queue = self.queue(arguments={"x-expires": 1000})
        queue.change_settings(replace(queue.settings, expires=3000))
        self.clock.advance(2)
        self.assertIn("q", self.vhost.queues)
        self.clock.advance(1)
        self.assertNotIn("q", self.vhost.queues)

    def test_expires_no_more(self) -> None:
        """Whatever is done with it later."""
        queue = self.queue(arguments={"x-expires": 1000})
        queue.change_settings(replace(queue.settings, expires=None))
        queue.get(no_ack=True)
        self.clock.advance(2)
        self.assertIn("q", self.vhost.queues)

    def test_a_new_head_expires(self) -> None:
        """One that comes to the head because of a new length."""
        queue = self.queue()
        self.put(queue, b"1")
        self.put(queue, b"2", expiration="1000")
        queue.change_settings(replace(queue.settings, max_length=1))
        self.assertEqual(self.ready(queue), [b"2"])
        self.clock.advance(1)
        self.assertEqual(self.ready(queue), [])

    def test_what_stays(self) -> None:
        """The type, the priorities and the single active consumer are for life."""
        queue = self.queue(arguments={"x-max-priority": 5, "x-single-active-consumer": True})
        queue.change_settings(replace(queue.settings, max_priority=None, single_active_consumer=False))
        self.assertEqual((queue.settings.max_priority, queue.settings.single_active_consumer), (5, True))


class ArgumentTests(QueueTestCase):
    def test_refused(self) -> None:
        """The constructor checks its arguments."""
        with self.assertRaises(Fault):
            Queue(self.vhost, "q", arguments={"x-max-length": -1})

    def test_attributes(self) -> None:
        arguments = {"x-max-length": 5, "x-foo": 1}
        queue = self.queue(arguments=arguments, durable=True, auto_delete=True)
        self.assertEqual((queue.arguments, queue.settings.max_length, queue.type), (arguments, 5, "classic"))
        self.assertIsNot(queue.arguments, arguments)
        self.assertEqual((queue.durable, queue.exclusive, queue.auto_delete, queue.owner), (True, False, True, None))
