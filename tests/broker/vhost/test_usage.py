"""Usage: the bytes that raise and clear the alarm."""

from __future__ import annotations

import unittest

from tests.broker.model_fakes import FakeConsumer, QueueTestCase, message
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.queues.queue import REJECTED, ROUTED
from txmsg.broker.vhost.usage import Usage


class UsageTests(unittest.TestCase):
    def setUp(self) -> None:
        self.usage = Usage(1000)
        self.calls: list[str] = []
        self.usage.on_high = lambda: self.calls.append("high")
        self.usage.on_low = lambda: self.calls.append("low")

    def test_rises_above_the_limit_once(self) -> None:
        """R36: the alarm comes with the first byte beyond the limit."""
        self.usage.add(1000)
        self.assertEqual((self.usage.is_high, self.calls), (False, []))
        self.usage.add(1)
        self.usage.add(500)
        self.assertEqual((self.usage.is_high, self.calls), (True, ["high"]))

    def test_falls_below_nine_tenths(self) -> None:
        """It ends with a gap, so that it does not flap."""
        self.usage.add(1001)
        self.usage.remove(100)
        self.assertEqual((self.usage.bytes, self.calls), (901, ["high"]))
        self.usage.remove(1)
        self.assertEqual((self.usage.is_high, self.calls), (False, ["high", "low"]))
        self.usage.remove(900)
        self.usage.add(1001)
        self.assertEqual(self.calls, ["high", "low", "high"])

    def test_without_callbacks(self) -> None:
        """Nobody has to listen."""
        usage = Usage(10)
        usage.add(11)
        self.assertTrue(usage.is_high)
        usage.remove(11)
        self.assertFalse(usage.is_high)

    def test_no_limit(self) -> None:
        """None: never high."""
        usage = Usage()
        usage.add(10**15)
        self.assertFalse(usage.is_high)
        self.assertIn("no limit", repr(usage))

    def test_another_limit(self) -> None:
        """The alarm follows at once, both ways."""
        self.usage.add(630)
        self.usage.set_limit(630)
        self.assertEqual(self.calls, [])
        self.usage.set_limit(500)
        self.assertEqual(self.calls, ["high"])
        self.usage.set_limit(650)
        self.assertEqual(self.calls, ["high"])  # still above nine tenths
        self.assertIn("high", repr(self.usage))
        self.usage.set_limit(700)
        self.assertEqual(self.calls, ["high", "low"])
        self.usage.set_limit(None)
        self.assertEqual((self.calls, self.usage.limit), (["high", "low"], None))


class CountingTests(QueueTestCase):
    """What queues add to it."""

    limits = BrokerLimits(queue_bytes=10_000, broker_bytes=16_000)

    def test_a_message_counts_once(self) -> None:
        """In several queues it costs its body once, and something for each place."""
        first, second = self.queue("a"), self.queue("b")
        shared = message(bytes(5000))
        first.put(shared)
        alone = self.usage.bytes
        self.assertGreater(alone, 5000)
        second.put(shared)
        self.assertTrue(alone < self.usage.bytes < alone + 1000)
        self.assertEqual(shared.places, 2)
        first.get(no_ack=True)
        self.assertEqual((self.usage.bytes, shared.places), (alone, 1))
        second.get(no_ack=True)
        self.assertEqual((self.usage.bytes, first.held_bytes, second.held_bytes), (0, 0, 0))

    def test_unacked_counts_until_it_is_settled(self) -> None:
        """What a consumer holds is memory, too; also when its queue is gone."""
        queue = self.queue("q")
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.put(queue, b"1", b"2", b"3", b"4")
        held = self.usage.bytes
        queue.ack(consumer.take()[0])
        self.assertEqual(self.usage.bytes, held * 3 // 4)
        self.vhost.delete_queue("q")
        self.assertEqual(self.usage.bytes, held * 3 // 4)
        queue.ack(consumer.take()[0])
        queue.reject(consumer.take()[0])
        queue.requeue(consumer.take())
        self.assertEqual((self.usage.bytes, queue.held_bytes, queue.unacked_count), (0, 0, 0))

    def test_delivered_without_ack_counts_nothing(self) -> None:
        """It never rests in the queue."""
        queue = self.queue("q")
        queue.add_consumer(FakeConsumer(no_ack=True))
        self.put(queue, bytes(1000))
        self.assertEqual((self.usage.bytes, queue.held_bytes), (0, 0))

    def test_everything_is_given_back(self) -> None:
        """Purged, expired, dropped, dead-lettered, rejected: nothing is left of any."""
        target = self.queue("dead")
        queue = self.queue("q", {"x-max-length": 3, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        self.put(queue, b"1", b"2", b"3", b"4", expiration="1000")
        queue.reject(self.get(queue))
        self.clock.advance(2)
        self.put(queue, b"5", b"6")
        self.assertEqual(self.ready(target), [b"1", b"2", b"3", b"4"])
        queue.purge()
        target.purge()
        self.assertEqual(self.usage.bytes, 0)

    def test_a_full_queue_refuses(self) -> None:
        """C7.3: beyond queue_bytes publishes are refused, and other queues go on."""
        queue, other = self.queue("q"), self.queue("other")
        outcomes = self.put(queue, *[bytes(3000)] * 4)
        self.assertEqual(outcomes, [ROUTED] * 3 + [REJECTED])
        self.assertLessEqual(queue.held_bytes, 10_000)
        self.assertEqual(self.put(other, b"x"), [ROUTED])
        queue.get(no_ack=True)
        self.assertEqual(self.put(queue, bytes(3000)), [ROUTED])

    def test_a_full_broker_refuses(self) -> None:
        """C7.3: who cannot be blocked is refused at 1.25 times the limit."""
        queues = [self.queue(str(number)) for number in range(4)]
        outcomes = [outcome for queue in queues for outcome in self.put(queue, bytes(4000), bytes(4000))]
        self.assertEqual(outcomes, [ROUTED] * 5 + [REJECTED] * 3)
        self.assertTrue(self.usage.is_high)
