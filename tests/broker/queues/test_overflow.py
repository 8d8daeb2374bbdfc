"""x-max-length, x-max-length-bytes and x-overflow."""

from __future__ import annotations

import unittest
from typing import Any

from tests.broker.model_fakes import FakeConsumer, QueueTestCase, bodies
from txmsg.broker.queues.overflow import DROP_HEAD, REJECT_PUBLISH, LengthLimit
from txmsg.broker.queues.queue import REJECTED, ROUTED


class LengthLimitTests(unittest.TestCase):
    def test_is_exceeded(self) -> None:
        """Either limit; exactly at it is allowed."""
        cases = (
            (LengthLimit(2, None), (2, 10**9), False),
            (LengthLimit(2, None), (3, 0), True),
            (LengthLimit(None, 10), (10**9, 10), False),
            (LengthLimit(None, 10), (1, 11), True),
            (LengthLimit(5, 10), (5, 10), False),
            (LengthLimit(0, None), (1, 0), True),
        )
        for limit, (length, octets), expected in cases:
            with self.subTest(limit=(limit.max_length, limit.max_bytes), length=length, octets=octets):
                self.assertIs(limit.is_exceeded(length, octets), expected)

    def test_rejects(self) -> None:
        self.assertFalse(LengthLimit(1, 1, DROP_HEAD).rejects)
        self.assertTrue(LengthLimit(1, 1, REJECT_PUBLISH).rejects)


class OverflowTests(QueueTestCase):
    def dead(self) -> dict[str, Any]:
        """Arguments for dead letters into the queue `dead`."""
        self.queue("dead")
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}

    def test_drop_head(self) -> None:
        """The oldest make room; the publisher sees nothing of it."""
        queue = self.queue(arguments={"x-max-length": 2})
        self.assertEqual(self.put(queue, b"1", b"2", b"3", b"4"), [ROUTED] * 4)
        self.assertEqual((self.ready(queue), queue.message_count), ([b"3", b"4"], 2))

    def test_bytes(self) -> None:
        """As measured: 5, then 6, then 11 octets into a queue of 10, where the last fits in no way."""
        queue = self.queue(arguments={"x-max-length-bytes": 10})
        left = []
        for body in (b"12345", b"123456", b"12345678901"):
            self.put(queue, body)
            left.append(queue.message_count)
        self.assertEqual((left, queue.ready_bytes), ([1, 1, 0], 0))

    def test_unacked_does_not_count(self) -> None:
        """And what comes back makes the queue drop again: at the head (measured)."""
        queue = self.queue(arguments={"x-max-length": 2})
        self.put(queue, b"0", b"1")
        taken = [self.get(queue), self.get(queue)]
        self.put(queue, b"2", b"3")
        self.assertEqual(self.ready(queue), [b"2", b"3"])
        queue.requeue(taken)
        self.assertEqual((self.ready(queue), queue.unacked_count), ([b"2", b"3"], 0))

    def test_delivered_at_once(self) -> None:
        """With drop-head a length of 0 means: only if a consumer is waiting."""
        queue = self.queue(arguments={"x-max-length": 0})
        self.put(queue, b"1")
        consumer = FakeConsumer(prefetch=1)
        queue.add_consumer(consumer)
        self.put(queue, b"2", b"3")
        self.assertEqual((consumer.bodies, queue.message_count), ([b"2"], 0))

    def test_drop_head_of_priorities(self) -> None:
        """As measured: the head is the highest priority, so that is what goes."""
        queue = self.queue(arguments={"x-max-priority": 5, "x-max-length": 2})
        for priority in (1, 5, 3, 0):
            self.put(queue, b"%d" % priority, priority=priority)
        self.assertEqual(self.ready(queue), [b"1", b"0"])

    def test_dropped_heads_are_dead_letters(self) -> None:
        queue = self.queue(arguments={"x-max-length": 1, **self.dead()})
        self.put(queue, b"1", b"2", b"3")
        self.assertEqual(self.ready(queue), [b"3"])
        dead = self.vhost.queues["dead"].ready_entries()
        self.assertEqual(bodies(dead), [b"1", b"2"])
        headers = dead[0].message.decoded_properties.headers or {}
        self.assertEqual(headers["x-death"][0]["reason"], "maxlen")

    def test_reject_publish(self) -> None:
        """The new one is refused, which a publisher with confirms is told; the old stay."""
        queue = self.queue(arguments={"x-max-length": 2, "x-overflow": "reject-publish", **self.dead()})
        self.assertEqual(self.put(queue, b"1", b"2", b"3"), [ROUTED, ROUTED, REJECTED])
        self.assertEqual((self.ready(queue), self.ready(self.vhost.queues["dead"])), ([b"1", b"2"], []))
        self.assertEqual(self.usage.bytes, queue.held_bytes)

    def test_reject_publish_bytes(self) -> None:
        queue = self.queue(arguments={"x-max-length-bytes": 10, "x-overflow": "reject-publish"})
        self.assertEqual(self.put(queue, bytes(6), bytes(6), bytes(4)), [ROUTED, REJECTED, ROUTED])

    def test_reject_publish_comes_first(self) -> None:
        """A waiting consumer does not help (measured)."""
        queue = self.queue(arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.assertEqual((self.put(queue, b"1"), consumer.bodies), ([REJECTED], []))

    def test_reject_publish_drops_nothing(self) -> None:
        """What comes back is over the limit, and stays."""
        queue = self.queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        self.put(queue, b"1")
        taken = [self.get(queue)]
        self.put(queue, b"2")
        queue.requeue(taken)
        self.assertEqual(self.ready(queue), [b"1", b"2"])

    def test_reject_publish_dlx(self) -> None:
        """Refused, and a dead letter."""
        queue = self.queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish-dlx", **self.dead()})
        self.assertEqual(self.put(queue, b"1", b"2"), [ROUTED, REJECTED])
        dead = self.vhost.queues["dead"].ready_entries()
        self.assertEqual(bodies(dead), [b"2"])
        headers = dead[0].message.decoded_properties.headers or {}
        self.assertEqual((headers["x-death"][0]["reason"], headers["x-death"][0]["queue"]), ("maxlen", "q"))

    def test_reject_publish_dlx_of_a_quorum_queue(self) -> None:
        """It counts as drop-head there (measured)."""
        arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish-dlx", **self.dead()}
        queue = self.queue(durable=True, arguments=arguments)
        self.assertEqual(self.put(queue, b"1", b"2"), [ROUTED, ROUTED])
        self.assertEqual((self.ready(queue), self.ready(self.vhost.queues["dead"])), ([b"2"], [b"1"]))

    def test_reject_publish_dlx_without_exchange(self) -> None:
        queue = self.queue(arguments={"x-max-length": 0, "x-overflow": "reject-publish-dlx"})
        self.assertEqual(self.put(queue, b"1"), [REJECTED])
