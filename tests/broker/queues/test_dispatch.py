"""Whose turn it is: round robin, priorities, single active consumer, exclusive consumers."""

from __future__ import annotations

import time

from tests.broker.model_fakes import FakeConsumer, QueueTestCase
from txmsg.broker.faults import Fault
from txmsg.broker.queues.dispatch import Dispatcher
from txmsg.broker.queues.queue import Queue


class DispatcherTests(QueueTestCase):
    """The Dispatcher alone."""

    def setUp(self) -> None:
        super().setUp()
        self.dispatcher = Dispatcher()

    def add(self, *consumers: FakeConsumer) -> None:
        for consumer in consumers:
            self.dispatcher.add(consumer)

    def turns(self, count: int) -> str:
        return "".join(consumer.tag if (consumer := self.dispatcher.take()) else "-" for _ in range(count))

    def test_nobody(self) -> None:
        self.assertEqual(self.turns(1), "-")

    def test_round_robin(self) -> None:
        self.add(*(FakeConsumer(tag) for tag in "abc"))
        self.assertEqual(self.turns(7), "abcabca")

    def test_only_those_that_can(self) -> None:
        blocked = FakeConsumer("b", prefetch=0)
        self.add(FakeConsumer("a"), blocked, FakeConsumer("c"))
        self.assertEqual(self.turns(4), "acac")

    def test_set_aside_costs_nothing(self) -> None:
        """A consumer that could not is not asked again until it says so, and then comes last."""
        blocked = FakeConsumer("b", prefetch=0)
        self.add(blocked, FakeConsumer("a"), FakeConsumer("c"))
        self.assertEqual(self.turns(3), "aca")
        self.assertEqual(blocked.asked, 1)
        blocked.prefetch = None
        self.dispatcher.may_be_available(blocked)
        self.dispatcher.may_be_available(blocked)
        self.assertEqual(self.turns(6), "cabcab")

    def test_higher_priorities_first(self) -> None:
        """https://www.rabbitmq.com/docs/consumer-priority: others only while none of them can."""
        high = FakeConsumer("H", priority=10)
        self.add(FakeConsumer("l", priority=-5), FakeConsumer("m"), high, FakeConsumer("n"))
        self.assertEqual(self.turns(3), "HHH")
        high.is_flowing = False
        self.assertEqual(self.turns(4), "mnmn")
        high.is_flowing = True
        self.assertEqual(self.turns(1), "m")
        self.dispatcher.may_be_available(high)
        self.assertEqual(self.turns(2), "HH")

    def test_remove(self) -> None:
        first, second, third = (FakeConsumer(tag) for tag in "abc")
        self.add(first, second, third)
        self.assertTrue(self.dispatcher.remove(second))
        self.assertFalse(self.dispatcher.remove(second))
        self.assertEqual((self.turns(4), len(self.dispatcher)), ("acac", 2))

    def test_removed_while_set_aside(self) -> None:
        """It does not come back by saying that it can."""
        consumer = FakeConsumer("a", prefetch=0)
        self.add(consumer)
        self.assertEqual(self.turns(1), "-")
        self.dispatcher.remove(consumer)
        self.dispatcher.may_be_available(consumer)
        consumer.prefetch = None
        self.assertEqual((self.turns(1), self.dispatcher.consumers), ("-", []))

    def test_thousands_who_go(self) -> None:
        """R36: one costs the same however many there are, with a single active consumer and with many priorities."""
        for is_single in (False, True):
            for spread in (1, 20_000):
                with self.subTest(is_single=is_single, spread=spread):
                    self.dispatcher = Dispatcher(is_single=is_single)
                    consumers = [FakeConsumer("a", prefetch=0, priority=number % spread) for number in range(20_000)]
                    self.add(*consumers)
                    self.turns(1)
                    began = time.process_time()
                    self.assertEqual(self.turns(100), "-" * 100)
                    for consumer in consumers:
                        self.assertTrue(self.dispatcher.remove(consumer))
                    # Where each looks at all the others this takes half a minute.
                    self.assertLess(time.process_time() - began, 3.0)

    def test_priorities_do_not_pile_up(self) -> None:
        """R36: a client that uses a new priority each time leaves nothing behind."""
        keeper = FakeConsumer("k", prefetch=0, priority=3)
        self.add(keeper)
        self.turns(1)
        for priority in range(50):
            consumer = FakeConsumer("a", priority=priority)
            self.add(consumer)
            self.dispatcher.remove(consumer)
        self.assertEqual(self.dispatcher._turns._priorities, [])
        keeper.prefetch = None
        self.dispatcher.may_be_available(keeper)
        self.assertEqual(self.turns(1), "k")

    def test_clear(self) -> None:
        consumers = [FakeConsumer(tag) for tag in "ab"]
        self.add(*consumers)
        self.assertEqual(self.dispatcher.clear(), consumers)
        self.assertEqual((self.turns(1), len(self.dispatcher)), ("-", 0))


class QueueDispatchTests(QueueTestCase):
    """Through a queue."""

    def consumers(self, queue: Queue, *consumers: FakeConsumer) -> None:
        for consumer in consumers:
            queue.add_consumer(consumer)

    def test_spread(self) -> None:
        """peers 18: three consumers get every third message each, in order."""
        queue = self.queue()
        log: list[tuple[str, bytes]] = []
        self.consumers(queue, *(FakeConsumer(tag, log=log) for tag in "abc"))
        self.put(queue, *(b"%d" % number for number in range(7)))
        self.assertEqual("".join(tag for tag, _ in log), "abcabca")
        self.assertEqual([body for _, body in log], [b"%d" % number for number in range(7)])

    def test_prefetch_and_priority(self) -> None:
        """As measured: two of priority 3 fill up first, in turns; then the others; then messages wait."""
        queue = self.queue()
        log: list[tuple[str, bytes]] = []
        self.consumers(queue, *(FakeConsumer(tag, prefetch=2, priority=3 * (tag in "HI"), log=log) for tag in "lmHI"))
        self.put(queue, *(b"%d" % number for number in range(9)))
        self.assertEqual("".join(tag for tag, _ in log), "HIHIlmlm")
        self.assertEqual(self.ready(queue), [b"8"])

    def test_backlog_goes_to_a_new_consumer(self) -> None:
        """In order, before add_consumer returns, as many as it can take."""
        queue = self.queue()
        self.put(queue, b"1", b"2", b"3")
        consumer = FakeConsumer(prefetch=2)
        queue.add_consumer(consumer)
        self.assertEqual((consumer.bodies, self.ready(queue)), ([b"1", b"2"], [b"3"]))
        self.assertEqual((queue.message_count, queue.unacked_count), (1, 2))

    def test_available_again(self) -> None:
        """F50: what waits goes on as soon as there is credit, and not before."""
        queue = self.queue()
        consumer = FakeConsumer(prefetch=1)
        queue.add_consumer(consumer)
        self.put(queue, b"1", b"2", b"3")
        queue.ack(consumer.take()[0])
        self.assertEqual(consumer.bodies, [])
        queue.consumer_available(consumer)
        self.assertEqual((consumer.bodies, self.ready(queue)), ([b"2"], [b"3"]))

    def test_a_late_message_does_not_overtake(self) -> None:
        """A message goes behind those that wait, even if there is a consumer that has not said that it can."""
        queue = self.queue()
        consumer = FakeConsumer(prefetch=1)
        queue.add_consumer(consumer)
        self.put(queue, b"1", b"2")
        queue.ack(consumer.take()[0])
        self.put(queue, b"3")
        self.assertEqual(self.ready(queue), [b"2", b"3"])

    def test_no_ack(self) -> None:
        """Gone as soon as it is delivered, out of the backlog as well as at once."""
        queue = self.queue()
        self.put(queue, b"1")
        consumer = FakeConsumer(no_ack=True)
        queue.add_consumer(consumer)
        self.put(queue, b"2")
        self.assertEqual([body for _, body in consumer.log], [b"1", b"2"])
        self.assertEqual((queue.message_count, queue.unacked_count, queue.held_bytes), (0, 0, 0))

    def test_long_backlogs_leave_the_reactor_its_turn(self) -> None:
        """R24: a consumer without any limit gets a thousand messages, and the others in the next turns."""
        queue = self.queue()
        self.put(queue, *(b"%d" % number for number in range(2500)))
        consumer = FakeConsumer()
        queue.add_consumer(consumer)
        self.assertEqual(len(consumer.entries), 1000)
        self.put(queue, b"last")
        self.clock.advance(0)
        self.assertEqual(len(consumer.entries), 2501)
        self.assertEqual(consumer.bodies[-1], b"last")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deleted_in_the_middle_of_a_long_backlog(self) -> None:
        """No timer stays behind."""
        queue = self.queue()
        self.put(queue, *[b""] * 1500)
        queue.add_consumer(FakeConsumer())
        self.vhost.delete_queue("q")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_single_active_consumer(self) -> None:
        """peers 21: one is served; when it goes the next takes over: by priority, then by age (measured)."""
        queue = self.queue(arguments={"x-single-active-consumer": True})
        log: list[tuple[str, bytes]] = []
        consumers = [
            FakeConsumer(tag, priority=priority, log=log) for tag, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 5))
        ]
        self.consumers(queue, *consumers)
        for index in (0, 2, 3, 1):
            self.put(queue, b"")
            self.assertIs(queue.active_consumer, consumers[index])
            queue.remove_consumer(consumers[index])
        self.assertEqual("".join(tag for tag, _ in log), "acdb")
        self.assertIsNone(queue.active_consumer)

    def test_single_active_consumer_without_credit(self) -> None:
        """The others do not help out."""
        queue = self.queue(arguments={"x-single-active-consumer": True})
        active, waiting = FakeConsumer("a", prefetch=1), FakeConsumer("b")
        self.consumers(queue, active, waiting)
        self.put(queue, b"1", b"2")
        queue.consumer_available(waiting)
        self.assertEqual((waiting.bodies, self.ready(queue)), ([], [b"2"]))
        queue.remove_consumer(active)
        self.assertEqual(waiting.bodies, [b"2"])
        queue.requeue(active.take())
        self.assertEqual(waiting.bodies, [b"2", b"1"])

    def test_active_consumer_of_other_queues(self) -> None:
        queue = self.queue()
        queue.add_consumer(FakeConsumer())
        self.assertIsNone(queue.active_consumer)

    def test_exclusive_consumers(self) -> None:
        """C7.5: alone or not at all, with RabbitMQ's text."""
        queue = self.queue()
        shared, exclusive = FakeConsumer("s"), FakeConsumer("e", exclusive=True)
        queue.add_consumer(shared)
        self.refuse(queue, exclusive)
        queue.add_consumer(FakeConsumer("t"))
        self.refuse(queue, exclusive)
        for consumer in queue.consumers:
            queue.remove_consumer(consumer)
        queue.add_consumer(exclusive)
        self.refuse(queue, shared)
        self.refuse(queue, FakeConsumer("e2", exclusive=True))
        queue.remove_consumer(exclusive)
        queue.add_consumer(shared)
        self.assertEqual(queue.consumers, [shared])

    def test_exclusive_on_a_quorum_queue(self) -> None:
        """It means nothing there (measured)."""
        queue = self.queue(durable=True, arguments={"x-queue-type": "quorum", "x-single-active-consumer": True})
        for tag in ("a", "b"):
            queue.add_consumer(FakeConsumer(tag, exclusive=True))
        self.assertEqual(queue.consumer_count, 2)

    def test_exclusive_on_a_single_active_queue(self) -> None:
        """Refused even for the first (measured)."""
        self.refuse(self.queue(arguments={"x-single-active-consumer": True}), FakeConsumer(exclusive=True))

    def refuse(self, queue: Queue, consumer: FakeConsumer) -> None:
        before = queue.consumers
        with self.assertRaises(Fault) as caught:
            queue.add_consumer(consumer)
        self.assertEqual(
            (caught.exception.reply_code, caught.exception.reply_text),
            (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"),
        )
        self.assertEqual(queue.consumers, before)
