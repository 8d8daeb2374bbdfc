"""Consumers that come back: losses, the broker's cancel, deleted queues, duplicates, throughput (R7, R22, R23, R25)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.recovery.site import SiteTestCase, ends
from txmsg.amqp import BasicProperties, Delivery
from txmsg.amqp.consumers import Consumer
from txmsg.amqp.deferred_queue import ClosableDeferredQueue
from txmsg.amqp.recovery.events import CONSUMER_CANCELLED, CONSUMER_ENDED, CONSUMER_FAILED, CONSUMER_RESUMED
from txmsg.errors import (
    ChannelWrongState,
    ConnectionClosed,
    ConnectionLost,
    ConsumerCancelled,
    NotFound,
    OperationTimeout,
    ResourceLocked,
    StaleDelivery,
)


class ConsumerCase(SiteTestCase):
    """A channel, a durable queue `jobs`, and a way to put messages into it."""

    def setUp(self) -> None:
        """Declare."""
        super().setUp()
        self.channel = self.site.channel()
        self.site.result(self.channel.queue_declare("jobs", durable=True))

    def put(self, *bodies: bytes, queue: str = "jobs", **properties: Any) -> None:
        """Publish without a client."""
        for body in bodies:
            self.site.broker.publish("", queue, body, properties)
        self.site.settle()


class LossTest(ConsumerCase):
    """R9, R23: what a reconnect means for a consumer."""

    def test_queue_goes_on(self) -> None:
        """The same ClosableDeferredQueue and tag; what was not fetched comes again once, what was fetched is stale."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        queue, tag = consumer.queue, consumer.consumer_tag
        self.put(b"1", b"2", b"3")
        first = self.site.result(consumer.get())
        self.assertEqual(len(queue), 2)
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        self.assertEqual(len(queue), 0)
        self.assertFalse(consumer.is_subscribed)
        self.assertTrue(consumer.is_active)
        waiting = ends(consumer.get())
        with self.assertRaises(StaleDelivery):
            first.ack()
        self.site.ready(2)
        self.assertIs(consumer.queue, queue)
        self.assertEqual(consumer.consumer_tag, tag)
        self.assertEqual(consumer.epoch, 2)
        bodies = [waiting[0].body]
        for _ in range(2):
            delivery = self.site.result(consumer.get())
            bodies.append(delivery.body)
        self.assertEqual(bodies, [b"1", b"2", b"3"])
        delivery.ack(multiple=True)
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").unacked, 0)

    def test_iteration_goes_on(self) -> None:
        """`async for` does not notice, and ends when the consumer is cancelled."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        bodies: list[bytes] = []

        async def read() -> None:
            async for delivery in consumer:
                bodies.append(delivery.body)
                delivery.ack()

        reading = Deferred.fromCoroutine(read())
        self.put(b"1")
        self.site.reconnect()
        self.put(b"2")
        self.site.result(consumer.cancel())
        self.site.result(reading)
        self.assertEqual(bodies, [b"1", b"2"])

    def test_callback_goes_on(self) -> None:
        """It is given to the plain consumer as it is: nothing stands in between."""
        seen: list[Delivery] = []
        consumer = self.site.result(self.channel.basic_consume("jobs", seen.append))
        self.put(b"1")
        seen[-1].ack()
        self.site.settle()
        self.site.reconnect()
        self.put(b"2")
        self.assertEqual([delivery.body for delivery in seen], [b"1", b"2"])
        plain = consumer._plain
        self.assertIs(plain._callback.__self__, seen)
        self.assertEqual(plain.deliver, plain._deliver_to_callback)
        self.assertIsInstance(self.site.outcome(consumer.get()), ChannelWrongState)
        self.assertRaises(ChannelWrongState, consumer.__aiter__)

    def test_queue_is_put_into_directly(self) -> None:
        """The delivery path of a consumer with a queue is that of a plain one."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.assertEqual(consumer._plain.deliver, consumer.queue.put)

    def test_on_loss_close(self) -> None:
        """By choice it ends with the reason, and does not come back."""
        consumer = self.site.result(self.channel.basic_consume("jobs", on_loss="close"))
        other = self.site.result(self.channel.basic_consume("jobs"))
        waiting, ended = ends(consumer.get()), ends(consumer.when_ended())
        self.site.reconnect()
        self.assertIsInstance(waiting[0], ConnectionLost)
        self.assertIsInstance(ended[0], ConnectionClosed)
        self.assertIn("ended", repr(consumer))
        self.assertEqual(list(self.channel.consumers.values()), [other])
        self.assertEqual(self.site.subscribed(), ["jobs"])

    def test_no_ack_keeps_what_has_come(self) -> None:
        """The broker has forgotten it: it stays readable, counts for the pause of reading, and more comes behind."""
        site = self.make_site()
        site.start()
        channel = site.channel()
        site.result(channel.queue_declare("jobs", durable=True))
        consumer = site.result(channel.basic_consume("jobs", no_ack=True))
        for body in (b"1", b"2"):
            site.broker.publish("", "jobs", body)
        site.settle()
        site.reconnect()
        self.assertEqual(consumer._plain._waiting_messages, 2)
        site.broker.publish("", "jobs", b"3")
        site.settle()
        self.assertEqual([site.result(consumer.get()).body for _ in range(3)], [b"1", b"2", b"3"])
        self.assertEqual(consumer._plain._waiting_messages, 0)

    def test_cancel_while_there_is_no_connection(self) -> None:
        """It ends at once, and does not come back."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        self.assertEqual(ends(consumer.cancel()), [None])
        self.assertIsInstance(self.site.outcome(consumer.get()), ConsumerCancelled)
        self.site.ready(2)
        self.assertEqual(self.site.subscribed(), [])

    def test_cancel_under_way_at_the_loss(self) -> None:
        """The subscription goes with the connection: that is what was wanted."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put(b"1")
        cancelling, again = ends(consumer.cancel()), ends(consumer.cancel())
        self.site.broker.faults.cut()
        self.site.ready(2)
        self.assertEqual((cancelling, again), ([None], [None]))
        self.assertEqual(self.site.subscribed(), [])
        self.assertEqual(self.site.broker.queue("jobs").bodies, [b"1"])

    def test_cancel_without_an_answer(self) -> None:
        """R2: it has a limit for everybody who waits, and may be tried again; a wait may be given up by itself."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        stalled = self.site.broker.faults.stall()
        given_up = consumer.cancel()
        calls = [consumer.cancel(), consumer.cancel()]
        given_up.cancel()
        for call in calls:
            self.assertIsInstance(self.site.outcome(call), OperationTimeout)
        self.assertIsInstance(self.site.outcome(given_up), CancelledError)
        self.assertTrue(consumer.is_active)
        stalled.stop()
        self.assertIsNone(self.site.outcome(consumer.cancel()))
        self.assertFalse(consumer.is_active)
        self.assertEqual(self.site.subscribed(), [])

    def test_cancel_gives_back_what_nobody_fetched(self) -> None:
        """It is in the queue again, for others."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put(b"1", b"2")
        self.site.result(consumer.get()).ack()
        self.site.result(consumer.cancel())
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").bodies, [b"2"])
        self.assertEqual(self.site.result(consumer.cancel()), None)


class CancelledByTheBrokerTest(ConsumerCase):
    """R25: never silently idle."""

    def test_cancelled_while_the_queue_stays(self) -> None:
        """As when a node goes: it subscribes again, and says so."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put(b"1")
        self.site.broker.faults.cancel_consumers("jobs")
        self.site.settle(1)
        self.assertEqual(self.site.kinds(), [CONSUMER_CANCELLED, CONSUMER_RESUMED])
        self.assertTrue(consumer.is_subscribed)
        self.assertEqual(self.site.result(consumer.get()).body, b"1")

    def test_queue_deleted_by_somebody_else(self) -> None:
        """It is declared again, with its bindings, because the topology has it."""
        self.site.result(self.channel.exchange_declare("ex", auto_delete=True))
        self.site.result(self.channel.queue_bind("jobs", "ex", "k"))
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        before = self.site.entities()
        other = self.site.result(self.site.broker.connect())
        channel = self.site.result(other.channel())
        self.site.result(channel.queue_delete("jobs"))
        self.site.settle(1)
        self.assertEqual(self.site.entities(), before)
        self.assertEqual(self.site.kinds(), [CONSUMER_CANCELLED, CONSUMER_RESUMED])
        self.put(b"1")
        self.assertEqual(self.site.result(consumer.get()).body, b"1")

    def test_queue_of_somebody_else(self) -> None:
        """It is not ours to declare: it is waited for, on a channel that harms nobody, and then all is well."""
        self.site.broker.declare_queue("theirs")
        consumer = self.site.result(self.channel.basic_consume("theirs"))
        other = self.site.result(self.site.broker.connect())
        channel = self.site.result(other.channel())
        self.site.result(channel.queue_delete("theirs"))
        self.site.settle(3)
        self.assertIn(CONSUMER_FAILED, self.site.kinds())
        self.assertIsInstance(self.site.events[-1].error, NotFound)
        self.assertIn("trying again", repr(consumer))
        self.assertEqual(self.channel.epoch, 1)
        self.site.broker.declare_queue("theirs")
        self.site.settle(10)
        self.assertTrue(consumer.is_subscribed)
        self.assertEqual(self.site.kinds()[-1], CONSUMER_RESUMED)
        self.assertEqual(self.channel.epoch, 1)

    def test_limit(self) -> None:
        """After `resubscribe_limit` it ends with ConsumerCancelled: typed, reported, not before."""
        self.site.broker.declare_queue("theirs")
        consumer = self.site.result(self.channel.basic_consume("theirs", resubscribe_limit=60.0))
        waiting = ends(consumer.get())
        other = self.site.result(self.site.broker.connect())
        self.site.result(self.site.result(other.channel()).queue_delete("theirs"))
        self.site.settle(50)
        self.assertEqual(waiting, [])
        self.site.settle(60)
        self.assertIsInstance(waiting[0], ConsumerCancelled)
        self.assertEqual(waiting[0].initiator, "server")
        self.assertEqual(self.site.kinds()[-1], CONSUMER_ENDED)
        self.assertEqual(self.channel.consumers, {})

    def test_queue_deleted_by_the_application(self) -> None:
        """Here there is nothing to come back to: it ends with ConsumerCancelled."""
        for nowait in (False, True):
            with self.subTest(nowait=nowait):
                self.site.result(self.channel.queue_declare("temp"))
                consumer = self.site.result(self.channel.basic_consume("temp"))
                self.site.result(self.channel.queue_delete("temp", nowait=nowait))
                self.site.settle(1)
                self.assertIsInstance(self.site.outcome(consumer.get()), ConsumerCancelled)
                self.assertNotIn("temp", self.site.broker.queues())
        self.assertEqual(self.site.kinds(), [])

    def test_queue_deleted_by_the_application_while_it_tries_again(self) -> None:
        """It does not wait for its limit."""
        self.site.broker.faults.close_channel(403, on="queue.declare", queue="jobs", times=None)
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.site.wipe()
        self.site.ready(2)
        self.site.settle(1)
        self.assertIn("trying again", repr(consumer))
        self.site.result(self.channel.queue_delete("jobs"))
        self.site.settle(40)
        self.assertIsInstance(self.site.outcome(consumer.get()), ConsumerCancelled)
        self.assertEqual(self.site.kinds()[-1], CONSUMER_ENDED)

    def test_queue_that_is_not_wanted_back(self) -> None:
        """The application does not want it declared again: it is waited for, without harm to the channel."""
        self.site.connection.topology.wanted = lambda entity: False
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.site.wipe()
        self.site.ready(2)
        self.site.settle(5)
        epoch = self.channel.epoch
        self.site.settle(20)
        self.assertEqual(self.channel.epoch, epoch)
        self.assertNotIn("jobs", self.site.broker.queues())
        self.site.broker.declare_queue("jobs")
        self.site.settle(31)
        self.assertTrue(consumer.is_subscribed)

    def test_cancel_while_it_tries_again(self) -> None:
        """No more tries."""
        self.site.broker.declare_queue("theirs")
        consumer = self.site.result(self.channel.basic_consume("theirs"))
        other = self.site.result(self.site.broker.connect())
        self.site.result(self.site.result(other.channel()).queue_delete("theirs"))
        self.site.settle(1)
        self.site.result(consumer.cancel())
        self.site.broker.declare_queue("theirs")
        self.site.settle(5)
        self.assertEqual(self.site.broker.queue("theirs").consumers, [])

    def test_cancelled_with_on_loss_close(self) -> None:
        """By choice it ends."""
        consumer = self.site.result(self.channel.basic_consume("jobs", on_loss="close"))
        self.site.broker.faults.cancel_consumers("jobs")
        self.site.settle(1)
        self.assertIsInstance(self.site.outcome(consumer.get()), ConsumerCancelled)
        self.assertEqual(self.site.subscribed(), [])

    def test_exclusive_queue_that_the_old_connection_still_has(self) -> None:
        """The broker has not noticed yet that it is dead: 405, until it has."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.site.result(self.channel.queue_declare("mine", exclusive=True))
        mine = self.site.result(self.channel.basic_consume("mine"))
        self.site.broker.faults.close_channel(405, on="queue.declare", queue="mine", times=3)
        self.site.reconnect()
        self.assertTrue(consumer.is_subscribed)
        self.assertFalse(mine.is_subscribed)
        self.assertIsInstance(self.site.events[0].error, ResourceLocked)
        self.site.settle(10)
        self.assertTrue(mine.is_subscribed)
        self.assertEqual(self.site.subscribed(), ["jobs", "mine"])

    def test_refused_at_a_recovery(self) -> None:
        """One of three is refused: the others go on, it tries by itself."""
        self.site.broker.declare_queue("theirs")
        consumers = [self.site.result(self.channel.basic_consume(queue)) for queue in ("jobs", "theirs", "jobs")]
        self.site.wipe()
        self.site.ready(2)
        self.site.settle(1)
        self.assertEqual([consumer.is_subscribed for consumer in consumers], [True, False, True])
        self.assertIn(CONSUMER_FAILED, self.site.kinds())
        self.site.broker.declare_queue("theirs")
        self.site.settle(10)
        self.assertEqual([consumer.is_subscribed for consumer in consumers], [True, True, True])
        self.assertEqual(self.site.connection.epoch, 2)

    def test_many_refused_at_a_recovery(self) -> None:
        """R9: each costs some round trips, and not one for each of the others too."""
        channel = self.site.channel()
        consumers = []
        for number in range(40):
            self.site.broker.declare_queue(f"q{number}")
            consumers.append(self.site.result(channel.basic_consume(f"q{number}")))
        self.site.broker.faults.delay(0.1)
        self.site.wipe()
        for number in range(20):
            self.site.broker.declare_queue(f"q{2 * number}")
        began = self.site.clock.seconds()
        self.site.ready(2)
        self.assertLess(self.site.clock.seconds() - began, 20)
        self.site.settle(1)
        self.assertEqual([consumer.is_subscribed for consumer in consumers[:4]], [True, False, True, False])
        self.assertEqual(len(self.site.subscribed()), 20)

    def test_broker_and_library_agree(self) -> None:
        """R25: whatever happens, the broker's consumers are those that say they are subscribed."""
        consumers = [self.site.result(self.channel.basic_consume("jobs", consumer_tag=tag)) for tag in "abc"]
        for trouble in (
            self.site.cut,
            lambda: self.site.broker.faults.cancel_consumers("jobs"),
            lambda: self.site.broker.faults.close_channel(406),
            lambda: self.site.broker.faults.close_connection(),
            lambda: self.site.outcome(self.channel.queue_declare("none", passive=True)),
            lambda: self.site.result(consumers[1].cancel()),
            self.site.wipe,
        ):
            trouble()
            for _ in range(100):
                self.site.settle(0.1)
                queue = self.site.broker.queues().get("jobs")
                there = set() if queue is None else {view.tag for view in queue.consumers}
                subscribed = {consumer.consumer_tag for consumer in consumers if consumer.is_subscribed}
                self.assertEqual(subscribed, there)
            self.assertEqual(there, {consumer.consumer_tag for consumer in consumers if consumer.is_active})


class HandOverTest(SynchronousTestCase):
    """The two small doors in the plain parts that this needs."""

    def test_clear_keeps_the_queue_open(self) -> None:
        """Items go, with the count; waiters stay."""
        removed: list[int] = []
        queue: ClosableDeferredQueue[int] = ClosableDeferredQueue(on_removed=removed.append)
        queue.put(1)
        queue.put(2)
        self.assertEqual(queue.clear(), [1, 2])
        self.assertEqual(removed, [1, 2])
        self.assertEqual(queue.clear(), [])
        waiting = queue.get()
        self.assertEqual(queue.clear(), [])
        queue.put(3)
        self.assertEqual(self.successResultOf(waiting), 3)

    def test_hand_over(self) -> None:
        """Deliveries go to the given queue, which stays open at the consumer's end."""
        queue: ClosableDeferredQueue[Delivery] = ClosableDeferredQueue()
        nothing: Any = None
        plain = Consumer(nothing, "tag", "jobs", None, False, None)
        plain.hand_over_to(queue)
        delivery = Delivery(nothing, "tag", 1, False, "", "jobs", BasicProperties(), b"x")
        plain.deliver(delivery)
        self.assertEqual(plain.end(ConnectionLost()), [])
        self.assertEqual(queue.pending, [delivery])
        self.assertIsNone(queue.closed)
