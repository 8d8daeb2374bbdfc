"""When messages expire (x-message-ttl, `expiration`) and when queues do (x-expires)."""

from __future__ import annotations

import unittest

from twisted.internet.task import Clock

from tests.broker.model_fakes import FakeConsumer, QueueTestCase, message
from txmsg.broker.message import Entry
from txmsg.broker.queues.expiry import HeadTimer, Lease, expiry_of, is_expired


class ExpiryOfTests(unittest.TestCase):
    def test_the_smaller_of_both(self) -> None:
        """https://www.rabbitmq.com/docs/ttl: the lower of the queue's and the message's own."""
        cases = ((None, None, None), (500, None, 10.5), (None, 250, 10.25), (500, 250, 10.25), (0, 9, 10.0))
        for queue_ttl, expiration, expected in cases:
            with self.subTest(queue_ttl=queue_ttl, expiration=expiration):
                self.assertEqual(expiry_of(10.0, queue_ttl, expiration), expected)

    def test_is_expired(self) -> None:
        """At its moment, not before; rounding errors of the clock do not count."""
        self.assertFalse(is_expired(Entry(message(), 1), 1e9))
        entry = Entry(message(), 1, 5.0)
        self.assertFalse(is_expired(entry, 4.999))
        self.assertTrue(is_expired(entry, 5.0))
        self.assertTrue(is_expired(Entry(message(), 1, 0.1 + 0.2), 0.3))


class HeadTimerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []
        self.timer = HeadTimer(self.clock, lambda: self.calls.append(self.clock.seconds()))

    def test_runs_when_the_head_expires(self) -> None:
        self.timer.watch(Entry(message(), 1, 5.0))
        self.clock.advance(4.9)
        self.assertEqual(self.calls, [])
        self.clock.advance(0.1)
        self.assertEqual(self.calls, [5.0])

    def test_one_timer(self) -> None:
        """An earlier head replaces it; a later one leaves it, and it finds nothing."""
        self.timer.watch(Entry(message(), 1, 5.0))
        self.timer.watch(Entry(message(), 2, 9.0))
        self.timer.watch(Entry(message(), 3, 2.0))
        self.timer.watch(None)
        self.timer.watch(Entry(message(), 4))
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [2.0])
        self.clock.advance(3)
        self.assertEqual((self.calls, self.clock.getDelayedCalls()), ([3.0], []))

    def test_overdue(self) -> None:
        """In the next turn, never in this one."""
        self.clock.advance(10)
        self.timer.watch(Entry(message(), 1, 5.0))
        self.assertEqual(self.calls, [])
        self.clock.advance(0)
        self.assertEqual(self.calls, [10.0])

    def test_stop(self) -> None:
        self.timer.stop()
        self.timer.watch(Entry(message(), 1, 5.0))
        self.timer.stop()
        self.timer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timer.watch(Entry(message(), 1, 6.0))
        self.timer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LeaseTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ended: list[float] = []
        self.is_used = False
        self.lease = Lease(self.clock, 1500, lambda: self.is_used, lambda: self.ended.append(self.clock.seconds()))

    def test_ends(self) -> None:
        self.clock.pump([1.0, 0.5])
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([1.5], []))

    def test_renewed(self) -> None:
        """The time begins anew, exactly; with one timer for any number of uses."""
        for _ in range(5):
            self.clock.advance(1)
            self.lease.renew()
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(1.4)
        self.assertEqual(self.ended, [])
        self.clock.advance(0.1)
        self.assertEqual(self.ended, [6.5])

    def test_in_use(self) -> None:
        """No timer while it is in use; the time begins when that ends."""
        self.is_used = True
        self.clock.advance(10)
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([], []))
        self.is_used = False
        self.lease.renew()
        self.clock.advance(1.4)
        self.assertEqual(self.ended, [])
        self.clock.advance(0.1)
        self.assertEqual(self.ended, [11.5])

    def test_stop(self) -> None:
        self.lease.stop()
        self.lease.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class MessageTTLTests(QueueTestCase):
    """Through a queue."""

    def test_queue_ttl(self) -> None:
        """All of them, each at its moment, and none earlier; one timer."""
        queue = self.queue(arguments={"x-message-ttl": 1000})
        self.put(queue, b"1")
        self.clock.advance(0.5)
        self.put(queue, b"2")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.4)
        self.assertEqual(self.ready(queue), [b"1", b"2"])
        self.clock.advance(0.1)
        self.assertEqual((self.ready(queue), queue.message_count, queue.ready_bytes), ([b"2"], 1, 1))
        self.clock.advance(0.5)
        self.assertEqual((self.ready(queue), self.clock.getDelayedCalls()), ([], []))

    def test_no_ttl_no_timer(self) -> None:
        queue = self.queue()
        self.put(queue, b"1", b"2")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_own_ttl_only_at_the_head(self) -> None:
        """https://www.rabbitmq.com/docs/ttl: behind one that lives longer it waits, and is counted."""
        queue = self.queue()
        self.put(queue, b"long", expiration="5000")
        self.put(queue, b"short", expiration="1000")
        self.put(queue, b"ever")
        self.clock.advance(2)
        self.assertEqual(queue.message_count, 3)
        self.assertEqual(self.get(queue).message.body, b"long")
        self.assertEqual(self.ready(queue), [b"ever"])

    def test_expired_at_the_head_is_never_delivered(self) -> None:
        """Even if the timer is late."""
        queue = self.queue()
        self.put(queue, b"1", b"2", expiration="1000")
        self.put(queue, b"3")
        self.clock.rightNow += 2.0  # the time is over, and no timer has run
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.assertEqual(consumer.bodies, [b"3"])

    def test_all_expired(self) -> None:
        queue = self.queue()
        self.put(queue, b"1", b"2", expiration="1000")
        self.clock.rightNow += 2.0
        self.assertIsNone(queue.get(no_ack=True))
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.assertEqual((consumer.bodies, queue.message_count), ([], 0))

    def test_ttl_zero(self) -> None:
        """Delivered at once or not at all."""
        queue = self.queue(arguments={"x-message-ttl": 0})
        self.put(queue, b"1")
        self.assertEqual(queue.message_count, 0)
        consumer = FakeConsumer(prefetch=1)
        queue.add_consumer(consumer)
        self.put(queue, b"2", b"3")
        self.assertEqual((consumer.bodies, queue.message_count), ([b"2"], 0))

    def test_unacked_does_not_expire(self) -> None:
        """It has been delivered; when it comes back too late it goes at once (measured)."""
        queue = self.queue(arguments={"x-message-ttl": 200})
        self.put(queue, b"1")
        entry = self.get(queue)
        self.clock.advance(0.3)
        self.assertEqual(queue.unacked_count, 1)
        queue.requeue([entry])
        self.assertEqual((queue.message_count, queue.unacked_count), (0, 0))

    def test_delivered_at_once_and_returned_too_late(self) -> None:
        """The same for one that never rested in the queue."""
        queue = self.queue()
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.put(queue, b"1", expiration="200")
        self.clock.advance(0.3)
        queue.requeue(consumer.take())
        self.assertEqual((queue.message_count, consumer.entries), (0, []))

    def test_back_in_time(self) -> None:
        """A returned message keeps its moment."""
        queue = self.queue(arguments={"x-message-ttl": 1000})
        self.put(queue, b"1", b"2")
        entry = self.get(queue)
        self.clock.advance(0.5)
        queue.requeue([entry])
        self.clock.advance(0.4)
        self.assertEqual(self.ready(queue), [b"1", b"2"])
        self.clock.advance(0.1)
        self.assertEqual(self.ready(queue), [])

    def test_many_at_once_leave_the_reactor_its_turn(self) -> None:
        """What expires together goes in runs."""
        queue = self.queue()
        for number in range(2500):
            queue.put(message(b"%d" % number, expiration="1000"))
        seen: list[int] = []
        self.clock.callLater(1.0, lambda: seen.append(queue.message_count))
        self.clock.advance(1)
        self.assertEqual((seen, queue.message_count), ([1500], 0))

    def test_priorities_expire_at_the_head_only(self) -> None:
        """https://www.rabbitmq.com/docs/priority#interaction-with-ttl: lower ones wait behind higher ones."""
        queue = self.queue(arguments={"x-max-priority": 5})
        self.put(queue, b"low", priority=1, expiration="1000")
        self.put(queue, b"high", priority=5)
        self.clock.advance(2)
        self.assertEqual(queue.message_count, 2)
        queue.ack(self.get(queue))
        self.assertEqual(queue.message_count, 0)

    def test_purge_and_delete(self) -> None:
        """No timer is left in the reactor once the queue is gone."""
        queue = self.queue(arguments={"x-message-ttl": 1000, "x-expires": 5000})
        self.put(queue, b"1")
        queue.purge()
        self.clock.advance(1)
        self.put(queue, b"2")
        self.vhost.delete_queue("q")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """When the broker ends messages stay, for the next start, and timers do not."""
        queue = self.queue(arguments={"x-message-ttl": 1000, "x-expires": 5000})
        self.put(queue, b"1")
        queue.stop()
        self.assertEqual((self.clock.getDelayedCalls(), queue.message_count), ([], 1))


class QueueExpiryTests(QueueTestCase):
    """x-expires: https://www.rabbitmq.com/docs/ttl#queue-ttl."""

    def exists(self) -> bool:
        return "q" in self.vhost.queues

    def test_unused(self) -> None:
        """It goes with its messages; publishing is no use."""
        queue = self.queue(arguments={"x-expires": 1000})
        self.clock.advance(0.9)
        self.put(queue, b"1")
        self.assertTrue(self.exists())
        self.clock.advance(0.1)
        self.assertFalse(self.exists())
        self.assertEqual(self.usage.bytes, 0)

    def test_uses(self) -> None:
        """Declaring it, passively too, and basic.get renew it (measured)."""
        queue = self.queue(arguments={"x-expires": 1000})
        for use in (
            lambda: self.queue(arguments={"x-expires": 1000}),
            lambda: self.vhost.declare_queue("q", passive=True),
            lambda: queue.get(no_ack=False),
        ):
            self.clock.advance(0.9)
            use()
        self.clock.advance(0.9)
        self.assertTrue(self.exists())
        self.clock.advance(0.1)
        self.assertFalse(self.exists())

    def test_consumers(self) -> None:
        """As long as there is one; then the time begins."""
        queue = self.queue(arguments={"x-expires": 1000})
        first, second = FakeConsumer("a"), FakeConsumer("b")
        queue.add_consumer(first)
        queue.add_consumer(second)
        self.clock.advance(5)
        queue.remove_consumer(first)
        self.clock.advance(5)
        queue.remove_consumer(second)
        self.clock.advance(0.9)
        self.assertTrue(self.exists())
        self.clock.advance(0.1)
        self.assertFalse(self.exists())

    def test_exclusive(self) -> None:
        """An owner's queue expires like any other."""
        self.queue(arguments={"x-expires": 1000}, exclusive=True, owner="me")
        self.clock.advance(1)
        self.assertFalse(self.exists())
