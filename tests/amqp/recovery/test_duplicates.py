"""The duplicate window, and what it keeps from handlers (R7) without losing anything (R22)."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.recovery.test_consumer import ConsumerCase
from txmsg.amqp import Backoff, BasicProperties, Delivery, DuplicateWindow, ReconnectingConnection
from txmsg.amqp.recovery.deduplicating import RememberedDelivery
from txmsg.amqp.recovery.retry_headers import RETRY_COUNT
from txmsg.errors import AlreadySettled, ConfigurationError, StaleDelivery
from txmsg.testing.disruption import QueueChecker, Simulation


def delivery(message_id: str | None = None, **properties: Any) -> Delivery:
    """One without a channel."""
    nothing: Any = None
    return Delivery(nothing, "tag", 1, False, "", "jobs", BasicProperties(message_id=message_id, **properties), b"x")


class WindowTests(SynchronousTestCase):
    """R7: what it remembers, and for how long."""

    def test_remembers(self) -> None:
        """By id; what has none is never seen."""
        window = DuplicateWindow()
        for each in (delivery("a"), delivery(None), delivery("")):
            self.assertFalse(window.seen(each))
            window.remember(each)
        self.assertTrue(window.seen(delivery("a")))
        self.assertFalse(window.seen(delivery("b")))
        self.assertFalse(window.seen(delivery(None)))
        self.assertEqual(len(window), 1)
        window.clear()
        self.assertFalse(window.seen(delivery("a")))

    def test_size(self) -> None:
        """The oldest are forgotten first."""
        window = DuplicateWindow(3)
        for name in "abcd":
            window.remember(delivery(name))
        self.assertEqual([window.seen(delivery(name)) for name in "abcd"], [False, True, True, True])
        self.assertEqual(repr(window), "<DuplicateWindow 3 of 3, 0 dropped>")

    def test_age(self) -> None:
        """Each is remembered for so long after it was handled last."""
        clock = Clock()
        window = DuplicateWindow(max_age=10, clock=clock)
        window.remember(delivery("a"))
        window.remember(delivery("b"))
        clock.advance(6)
        window.remember(delivery("a"))
        clock.advance(5)
        self.assertEqual([window.seen(delivery(name)) for name in "ab"], [True, False])
        clock.advance(5)
        self.assertEqual(len(window), 0)

    def test_retries_are_no_copies(self) -> None:
        """A message that was put back has its id and another count; a count that is none does not matter."""
        window = DuplicateWindow()
        window.remember(delivery("a", headers={"other": 1}))
        self.assertTrue(window.seen(delivery("a")))
        self.assertFalse(window.seen(delivery("a", headers={RETRY_COUNT: 1})))
        self.assertTrue(window.seen(delivery("a", headers={RETRY_COUNT: "1"})))
        self.assertTrue(window.seen(delivery("a", headers={RETRY_COUNT: []})))

    def test_settings(self) -> None:
        """What cannot be used is refused by name."""
        for name, value in (("size", 0), ("max_age", -1)):
            with self.assertRaisesRegex(ConfigurationError, name):
                DuplicateWindow(**{name: value})  # type: ignore[arg-type]


class FilterTests(ConsumerCase):
    """R7: copies do not reach the handler; R22: and nothing is lost by that."""

    def setUp(self) -> None:
        """A window, and a handler that only collects."""
        super().setUp()
        self.window = DuplicateWindow()
        self.seen: list[Delivery] = []
        self.consumer = self.site.result(self.channel.basic_consume("jobs", self.seen.append, dedupe=self.window))

    def bodies(self) -> list[bytes]:
        """What the handler was given."""
        return [each.body for each in self.seen]

    def test_copy_of_what_was_handled(self) -> None:
        """It is acked and counted; what has no id is no copy."""
        self.put(b"1", message_id="a")
        self.seen[0].ack()
        self.put(b"1", message_id="a")
        self.put(b"2", message_id="b")
        self.put(b"3", b"3")
        self.assertEqual(self.bodies(), [b"1", b"2", b"3", b"3"])
        self.assertEqual((self.consumer.duplicates_dropped, self.window.dropped), (1, 1))
        self.seen[-1].ack(multiple=True)
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").unacked, 0)
        self.put(b"2", message_id="b")
        self.assertEqual(len(self.seen), 4)

    def test_copy_of_what_is_being_handled(self) -> None:
        """On the same channel it is dropped: should the handler fail, the first one comes again."""
        self.put(b"1", b"1", message_id="a")
        self.assertEqual(len(self.seen), 1)
        self.assertEqual(self.site.broker.queue("jobs").unacked, 1)
        self.seen[0].nack(requeue=True)
        self.site.settle()
        self.assertEqual(len(self.seen), 2)

    def test_what_was_not_acked_is_not_handled(self) -> None:
        """A message that was rejected or put back may come again: by a dead letter exchange, say."""
        for _ in range(2):
            self.put(b"1", message_id="a")
            self.seen[-1].nack()
            self.site.settle()
            self.seen[-1].reject()
        self.put(b"1", message_id="a")
        self.seen[-1].nack(requeue=False)
        self.assertEqual((len(self.seen), self.consumer.duplicates_dropped), (5, 0))

    def test_the_same_id_in_another_queue(self) -> None:
        """Is another message, also with one window."""
        self.site.result(self.channel.queue_declare("more"))
        self.site.result(self.channel.basic_consume("more", self.seen.append, dedupe=self.window))
        for queue in ("jobs", "more"):
            self.put(b"1", queue=queue, message_id="a")
        for each in self.seen:
            each.ack()
        for queue in ("jobs", "more"):
            self.put(b"1", queue=queue, message_id="a")
        self.assertEqual((len(self.seen), self.window.dropped), (2, 2))

    def test_acked_too_late(self) -> None:
        """R7, R23: it comes again while it is being handled; when that ends well, what came again is dropped."""
        self.put(b"1", message_id="a")
        self.site.reconnect()
        self.assertEqual(len(self.seen), 1)
        self.assertEqual(self.site.broker.queue("jobs").unacked, 1)
        with self.assertRaises(StaleDelivery):
            self.seen[0].ack()
        self.site.settle()
        self.assertEqual((len(self.seen), self.consumer.duplicates_dropped), (1, 1))
        self.assertEqual(self.site.broker.queue("jobs").messages, [])
        self.assertEqual(self.site.broker.queue("jobs").unacked, 0)

    def test_acked_too_late_with_those_before(self) -> None:
        """R23: `multiple` means all of the old connection that somebody still has."""
        for name in "abc":
            self.put(name.encode(), message_id=name)
        self.site.reconnect()
        with self.assertRaises(StaleDelivery):
            self.seen[1].ack(multiple=True)
        self.site.settle()
        self.assertEqual((len(self.seen), self.consumer.duplicates_dropped), (3, 2))
        self.assertEqual(self.site.broker.queue("jobs").unacked, 1)

    def test_failed_too_late(self) -> None:
        """R22: if the handling ends otherwise, it is handled again; what is said later does not count."""
        self.put(b"1", message_id="a")
        for number in range(2):
            self.site.reconnect()
            self.assertEqual(len(self.seen), number + 1)
            with self.assertRaises(StaleDelivery):
                (self.seen[-1].nack if number else self.seen[-1].reject)()
            self.assertEqual(len(self.seen), number + 1, "the handler was called from within nack()")
            self.site.settle()
            self.assertEqual(len(self.seen), number + 2)
        with self.assertRaises(StaleDelivery):
            self.seen[0].ack()
        self.assertEqual(len(self.window), 0)
        self.seen[2].ack()
        self.assertEqual(len(self.window), 1)

    def test_let_go_too_late(self) -> None:
        """R22: if nobody has the first one any more, nobody can say how it ended: handled again."""
        self.put(b"1", message_id="a")
        self.site.reconnect()
        self.assertEqual(len(self.seen), 1)
        self.seen.clear()
        gc.collect()
        self.site.settle(1.1)
        self.assertEqual(len(self.seen), 1)
        self.seen[0].ack()

    def test_several_losses(self) -> None:
        """It waits as long as it takes, and each connection that is lost takes its copy along."""
        self.put(b"1", message_id="a")
        for _ in range(3):
            self.site.reconnect()
            self.site.settle(5)
        self.assertEqual((len(self.seen), self.site.broker.queue("jobs").unacked), (1, 1))
        with self.assertRaises(StaleDelivery):
            self.seen[0].ack()
        self.site.settle()
        self.assertEqual((len(self.seen), self.site.broker.queue("jobs").unacked), (1, 0))

    def test_second_connection(self) -> None:
        """R7, R22: two connections and one window: a copy waits for the other's handler and is never acked before."""
        other = self.make_other()
        seen: list[Delivery] = []
        channel = self.site.result(other.channel())
        self.put(b"1", message_id="a")
        self.site.result(channel.basic_consume("jobs", seen.append, dedupe=self.window))
        self.site.result(self.channel.basic_qos(1))
        self.site.result(self.consumer.cancel())
        self.put(b"1", message_id="a")
        self.site.settle(5)
        self.assertEqual((len(self.seen), len(seen), self.site.broker.queue("jobs").unacked), (1, 0, 2))
        self.seen[0].ack()
        self.site.settle()
        self.assertEqual((len(seen), self.site.broker.queue("jobs").unacked), (0, 0))
        self.put(b"1", message_id="a")
        self.assertEqual((len(seen), self.site.broker.queue("jobs").unacked), (0, 0))

    def test_cancelled_with_a_copy_that_waits(self) -> None:
        """It goes back to the queue."""
        other = self.make_other()
        channel = self.site.result(other.channel())
        self.put(b"1", message_id="a")
        second = self.site.result(channel.basic_consume("jobs", self.fail, dedupe=self.window))
        self.site.result(self.consumer.cancel())
        self.put(b"1", message_id="a")
        self.assertEqual(self.site.broker.queue("jobs").unacked, 2)
        self.site.result(second.cancel())
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").unacked, 1)
        self.assertEqual(self.site.broker.queue("jobs").depth, 1)

    def make_other(self) -> ReconnectingConnection:
        """Another connection to the same broker."""
        other = ReconnectingConnection(
            self.site.broker.parameters(heartbeat=0),
            reactor=self.site.clock,
            endpoint=lambda parameters: self.site.broker.endpoint,
        )
        self.site.result(other.start())
        self.addCleanup(lambda: self.site.result(other.close()))
        return other

    def test_settled_behind_its_back(self) -> None:
        """R22: by the `multiple` of another consumer: nobody knows how, so it does not count as handled."""
        duplicates: Any = self.consumer._duplicates
        subscription = duplicates._subscription
        subscription._sweep_at = 3
        for number in range(3):
            self.put(b"x", message_id=str(number))
        self.seen[-1].channel.basic_nack(0, multiple=True, requeue=False)
        self.put(b"x", message_id="1")
        self.put(b"x", message_id="3")
        self.assertEqual(len(self.seen), 5)
        self.assertEqual(len(subscription._open), 2)
        self.assertEqual((len(self.window), self.consumer.duplicates_dropped), (0, 0))

    def test_settled_twice(self) -> None:
        """R23: the first settlement counts."""
        self.put(b"1", message_id="a")
        self.seen[0].reject()
        with self.assertRaises(AlreadySettled):
            self.seen[0].ack()
        self.put(b"1", message_id="a")
        self.assertEqual(len(self.seen), 2)

    def test_without_acks(self) -> None:
        """With `no_ack` it counts as handled when it is delivered."""
        self.site.result(self.channel.queue_declare("more"))
        consumer = self.site.result(self.channel.basic_consume("more", no_ack=True, dedupe=self.window))
        self.put(b"1", b"1", b"1", queue="more", message_id="m")
        self.assertEqual((len(consumer.queue), consumer.duplicates_dropped), (1, 2))

    def test_with_a_queue(self) -> None:
        """What was not fetched at the loss comes again, and is no duplicate."""
        self.site.result(self.channel.queue_declare("more", durable=True))
        consumer = self.site.result(self.channel.basic_consume("more", dedupe=self.window))
        for name in "abc":
            self.put(name.encode(), queue="more", message_id=name)
        first = self.site.result(consumer.get())
        kept = list(consumer.queue.pending)
        self.site.reconnect()
        with self.assertRaises(StaleDelivery):
            first.ack()
        self.site.settle()
        self.assertEqual([self.site.result(consumer.get()).body for _ in range(2)], [b"b", b"c"])
        self.assertEqual((len(kept), consumer.duplicates_dropped), (2, 1))

    def test_nothing_is_kept(self) -> None:
        """R31: of what was handled only the id stays, of what nobody has nothing."""
        for number in range(20):
            self.put(b"x", message_id=str(number))
            if number % 2:
                self.seen[-1].ack()
                self.seen.pop()
        self.site.reconnect()
        self.seen.clear()
        gc.collect()
        self.site.settle(2)
        self.assertEqual(len(self.seen), 10)
        while self.seen:
            self.seen.pop().ack()
        gc.collect()
        found = [each for each in gc.get_objects() if isinstance(each, RememberedDelivery)]
        self.assertEqual((found, len(self.window.being_handled), len(self.window)), ([], 0, 20))


class _Worker:
    """A consumer in a simulation: it takes its time, now and then fails, and tells the checker what it handled."""

    def __init__(self, simulation: Simulation, checker: QueueChecker, window: DuplicateWindow, name: str) -> None:
        self.simulation = simulation
        self.checker = checker
        self.window = window
        self.random = simulation.random
        self.running: set[str] = set()
        self.handled: list[str] = []
        self.connection = ReconnectingConnection(
            simulation.parameters(heartbeat=4),
            reactor=simulation.clock,
            endpoint=lambda parameters: simulation.endpoint(name),
            backoff=Backoff(random=simulation.random.random),
        )

    async def start(self) -> None:
        """Consume."""
        await self.connection.start()
        channel = await self.connection.channel(prefetch_count=10)
        await channel.basic_consume("jobs", self.handle, dedupe=self.window, resubscribe_limit=None)

    def handle(self, taken: Delivery) -> None:
        """Take between nothing and two seconds."""
        message_id = taken.body.decode()
        assert message_id not in self.running, "two handlers have one message"
        self.running.add(message_id)
        self.simulation.clock.callLater(self.random.choice((0.0, 0.01, 0.3, 2.0)), self.finish, taken, message_id)

    def finish(self, taken: Delivery, message_id: str) -> None:
        """Succeed, or fail."""
        self.running.discard(message_id)
        chance = self.random.random()
        try:
            if chance < 0.8:
                self.handled.append(message_id)
                taken.ack()
            elif chance < 0.9:
                taken.nack()
            # Else it lets go of it, as a handler that raises: only a lost channel brings it back.
            else:
                taken.reject(requeue=True)
        except StaleDelivery:
            pass


@pytest.mark.parametrize("seed", range(4))
def test_in_a_simulation(seed: int) -> None:
    """R7, R22, F1, F4, F6: random faults, a publisher that sends again, handlers of all speeds: each message is handled
    successfully exactly once, though the broker delivers many of them twice."""
    checker = QueueChecker("random", seed=seed)
    with Simulation(seed, set_up=lambda broker: broker.declare_queue("jobs", durable=True)) as simulation:
        window = DuplicateWindow()
        workers = [_Worker(simulation, checker, window, f"worker-{number}") for number in range(2)]
        shared: set[str] = set()
        for worker in workers:
            worker.running = shared
            simulation.watch(Deferred.fromCoroutine(worker.start()), "worker")
        connection = ReconnectingConnection(
            simulation.parameters(heartbeat=4),
            reactor=simulation.clock,
            endpoint=lambda parameters: simulation.endpoint("publisher"),
            backoff=Backoff(random=simulation.random.random),
        )
        publisher = connection.publisher(timeout=300)
        simulation.run_until(connection.start())
        chaos = simulation.disrupt(every=(0.2, 2.0))
        for _ in range(150):
            message_id = checker.attempt()
            checker.publishing(message_id, publisher.publish("", "jobs", message_id.encode()))
            simulation.advance(0.1)
        chaos.stop()
        simulation.run_until(publisher.drain(), 400)
        sent = {f"publisher-{number}" for number in range(1, 151)}
        simulation.run_while(lambda: not sent <= handled_by(workers), 120, "not all were handled")
        simulation.advance(5)
        for worker in workers:
            for message_id in worker.handled:
                checker.handled(message_id)
        report = checker.report()
        assert (report.lost, report.duplicates, report.unexpected, report.unfired) == (0, 0, 0, 0), report
        assert report.confirmed == 150
        assert window.dropped > 0, "nothing happened"
        queue = simulation.broker.embedded.queue("jobs")
        assert (queue.depth, queue.unacked) == (0, 0)
        for each in (connection, *(worker.connection for worker in workers)):
            simulation.run_until(each.close())
        simulation.check()


def handled_by(workers: list[_Worker]) -> set[str]:
    """What any of them has handled."""
    return {message_id for worker in workers for message_id in worker.handled}
