"""A channel that outlives its connections: calls, refusals, settings, publishing, closing (R2, R9, R23, R25, R29)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.amqp.recovery.site import SiteTestCase, ends
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.amqp.recovery.events import CHANNEL_FAILED, CHANNEL_REOPENED
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    NotFound,
    NotSent,
    OperationTimeout,
    PreconditionFailed,
    PublishUnconfirmed,
    StaleDelivery,
    WrongThread,
)


class WaitingTest(SiteTestCase):
    """R2: a call made while there is no connection, or whose connection is lost, ends once, and in time."""

    def setUp(self) -> None:
        """A channel."""
        super().setUp()
        self.channel = self.site.channel()

    def test_call_waits_for_the_connection(self) -> None:
        """In the order of the calls."""
        self.site.broker.faults.cut()
        declared = ends(self.channel.queue_declare("jobs"))
        bound = ends(self.channel.queue_bind("jobs", "amq.topic", "k"))
        self.site.clock.advance(0)
        self.assertEqual((declared, bound), ([], []))
        self.assertIn("waiting", repr(self.channel))
        self.site.ready(2)
        self.assertEqual(declared[0].queue, "jobs")
        self.assertEqual(len(bound), 1)
        self.assertEqual(len(self.site.connection.topology), 2)

    def test_call_has_a_limit(self) -> None:
        """`operation_timeout`, counted from the call; the text says what is amiss."""
        refusal = self.site.broker.faults.refuse()
        self.site.cut()
        waiting = ends(self.channel.queue_declare("jobs"))
        self.site.settle(29.9)
        self.assertEqual(waiting, [])
        self.site.settle(0.2)
        [error] = waiting
        self.assertIsInstance(error, OperationTimeout)
        self.assertIn("queue.declare had no reply within 30 s: there is no connection", str(error))
        refusal.stop()
        self.site.ready(2)
        self.assertEqual(list(self.site.connection.topology), [])

    def test_from_another_thread(self) -> None:
        """Peers 23: it fails there and then, also while there is no connection."""
        publisher = self.site.connection.publisher()
        self.site.settle()
        calls: list[Callable[[], object]] = [
            lambda: self.channel.queue_declare("jobs"),
            lambda: publisher.publish("", "jobs", b""),
        ]
        for is_there in (True, False):
            if not is_there:
                self.site.cut()
                self.assertFalse(self.channel.is_open)
            with ThreadPoolExecutor(1) as pool:
                for call in calls:
                    self.assertIsInstance(pool.submit(call).exception(), WrongThread)
        self.assertEqual((publisher.outstanding, list(self.site.connection.topology)), (0, []))

    def test_call_under_way_is_repeated(self) -> None:
        """kombu B23; The connection goes before the reply: what may be done twice goes out again."""
        calls: list[Deferred[Any]] = [
            self.channel.exchange_declare("x"),
            self.channel.queue_declare("jobs"),
            self.channel.queue_declare("again", nowait=True),
            self.channel.queue_bind("jobs", "x", "k"),
            self.channel.queue_unbind("jobs", "x", "none"),
            self.channel.exchange_bind("x", "amq.topic"),
            self.channel.exchange_unbind("x", "amq.topic"),
            self.channel.exchange_delete("gone"),
            self.channel.queue_delete("gone"),
            self.channel.basic_qos(3),
            self.channel.confirm_select(),
        ]
        consuming = self.channel.basic_consume("jobs")
        seen = [ends(call) for call in calls]
        self.site.broker.faults.cut()
        self.site.ready(2)
        self.assertEqual([len(each) for each in seen], [1] * len(calls))
        self.assertEqual([each[0] for each in seen if isinstance(each[0], Exception)], [])
        self.assertTrue(self.site.result(consuming).is_subscribed)
        self.assertEqual(self.site.subscribed(), ["jobs"])

    def test_call_that_must_not_be_repeated_fails_with_the_loss(self) -> None:
        """kombu B23; It is unknown whether the broker has done it."""
        self.site.result(self.channel.queue_declare("jobs"))
        calls: list[Deferred[Any]] = [
            self.channel.basic_get("jobs"),
            self.channel.queue_purge("jobs"),
            self.channel.queue_delete("jobs", if_empty=True),
            self.channel.queue_delete("jobs", if_unused=True),
            self.channel.exchange_delete("amq.topic", if_unused=True),
            self.channel.basic_recover(),
        ]
        seen = [ends(call) for call in calls]
        self.site.broker.faults.cut()
        self.site.settle()
        for [error] in seen:
            self.assertIsInstance(error, ConnectionClosed)
        self.site.ready(2)
        self.assertIn("jobs", self.site.connection.topology.queues)

    def test_deadline_counts_over_reconnects(self) -> None:
        """A call that is repeated has no more time than another one."""
        self.site.broker.faults.stall()
        waiting = ends(self.channel.queue_declare("jobs"))
        self.site.settle(20)
        self.site.broker.faults.clear()
        self.site.broker.faults.refuse()
        self.site.cut()
        self.site.settle(9.5)
        self.assertLessEqual(len(waiting), 1)
        self.site.settle(1)
        self.assertEqual(len(waiting), 1)

    def test_cancel(self) -> None:
        """While it waits, and while it is under way: the channel stays usable."""
        under_way = self.channel.queue_declare("first")
        under_way.cancel()
        self.assertIsInstance(self.site.outcome(under_way), CancelledError)
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        waiting = self.channel.queue_declare("second")
        waiting.cancel()
        self.assertIsInstance(self.site.outcome(waiting), CancelledError)
        self.site.ready(2)
        self.site.result(self.channel.queue_declare("third"))
        self.assertNotIn("second", self.site.broker.queues())

    def test_opened_before_the_connection(self) -> None:
        """A channel may be asked for at any time; it comes with the connection."""
        site = self.make_site()
        opening = site.connection.channel(confirm=True)
        site.start()
        channel = site.result(opening)
        self.assertTrue(channel.is_open)
        self.assertIsNotNone(channel.channel)
        self.assertTrue(channel.channel.is_confirming)
        self.assertEqual(channel.epoch, 1)

    def test_opening_has_a_limit(self) -> None:
        """It is given up then, and does not come back."""
        self.site.broker.faults.refuse()
        self.site.cut()
        opening = self.site.connection.channel()
        self.assertIsInstance(self.site.outcome(opening), OperationTimeout)
        self.site.broker.faults.clear()
        self.site.ready(2)
        self.assertEqual([len(view.channels) for view in self.site.broker.connections], [1])

    def test_opening_that_is_refused(self) -> None:
        """R2: what waits for a channel that cannot be opened says why at its end."""
        channels: list[RecoveringChannel] = []
        while True:
            opened = self.site.outcome(self.site.connection.channel())
            if isinstance(opened, OperationTimeout):
                break
            channels.append(opened)
        self.assertRegex(str(opened), "the channel is not open .all [0-9]+ channels of the connection are in use")
        self.assertGreater(len(channels), 3)

    def test_after_the_end_of_the_connection(self) -> None:
        """Everything fails with the reason, at once."""
        waiting = ends(self.channel.when_closed())
        self.site.result(self.site.connection.close())
        self.assertTrue(self.channel.is_closed)
        self.assertEqual(waiting, [self.channel.close_reason])
        for call in (
            self.channel.queue_declare("jobs"),
            self.channel.basic_consume("jobs"),
            self.channel.basic_publish("", "jobs", b""),
            self.channel.when_open(),
            self.site.connection.channel(),
        ):
            self.assertIsInstance(self.site.outcome(call), (ConnectionClosed, ChannelClosed, NotSent))
        self.site.outcome(self.channel.close())

    def test_calls_that_wait_when_the_connection_is_closed(self) -> None:
        """R28: none is left."""
        self.site.broker.faults.refuse()
        self.site.cut()
        waiting = ends(self.channel.queue_declare("jobs"))
        ready = ends(self.channel.when_open())
        self.site.result(self.site.connection.close())
        self.assertIsInstance(waiting[0], ConnectionClosed)
        self.assertIsInstance(ready[0], ConnectionClosed)


class RefusalTest(SiteTestCase):
    """R25: what the broker refuses fails, and the channel is opened again in its place."""

    def setUp(self) -> None:
        """A channel with settings and a consumer."""
        super().setUp()
        self.channel = self.site.channel(confirm=True, prefetch_count=2)
        self.site.result(self.channel.queue_declare("jobs"))
        self.consumer = self.site.result(self.channel.basic_consume("jobs"))

    def plain(self, queue: str = "jobs") -> Any:
        """The broker's view of the queue's one consumer."""
        [view] = self.site.broker.queue(queue).consumers
        return view

    def test_refused_call(self) -> None:
        """It fails with the broker's words; confirm mode, prefetch and consumer are back."""
        error = self.site.outcome(self.channel.queue_declare("none", passive=True))
        self.assertIsInstance(error, NotFound)
        self.assertEqual(error.method_name, "queue.declare")
        self.site.settle()
        self.assertEqual(self.site.kinds(), [CHANNEL_FAILED, CHANNEL_REOPENED])
        self.assertEqual(self.channel.epoch, 2)
        self.assertEqual(self.site.connection.epoch, 1)
        assert self.channel.channel is not None
        self.assertTrue(self.channel.channel.is_confirming)
        for number in range(3):
            self.site.result(self.channel.basic_publish("", "jobs", b"%d" % number))
        self.assertEqual(self.site.broker.queue("jobs").unacked, 2)
        self.assertEqual(self.site.result(self.consumer.get()).body, b"0")

    def test_innocent_calls_are_repeated(self) -> None:
        """Only the guilty one fails; also when another one of the same method comes behind it."""
        guilty = ends(self.channel.queue_declare("none", passive=True))
        innocent = [
            ends(self.channel.queue_declare("more")),
            ends(self.channel.queue_bind("jobs", "amq.topic", "k")),
            ends(self.channel.basic_consume("jobs", consumer_tag="second")),
        ]
        self.site.settle(1)
        self.assertIsInstance(guilty[0], NotFound)
        for [result] in innocent:
            self.assertNotIsInstance(result, Exception)
        self.assertEqual(self.site.subscribed(), ["jobs", "jobs"])

    def test_two_guilty_calls(self) -> None:
        """Each fails with its own refusal."""
        first = ends(self.channel.queue_declare("none", passive=True))
        second = ends(self.channel.queue_declare("nothing", passive=True))
        self.site.settle(1)
        self.assertIn("'none'", str(first[0]))
        self.assertIn("'nothing'", str(second[0]))

    def test_refusal_without_a_name(self) -> None:
        """The broker does not say which method it was: nothing is repeated for ever."""
        self.site.broker.faults.close_channel(406, on="queue.declare", queue="bad", times=None)
        failed = ends(self.channel.queue_declare("bad"))
        self.site.settle(10)
        self.assertIsInstance(failed[0], PreconditionFailed)

    def test_refused_consume(self) -> None:
        """It is not one of the consumers then, and does not try again."""
        error = self.site.outcome(self.channel.basic_consume("none"))
        self.assertIsInstance(error, NotFound)
        self.site.settle(5)
        self.assertEqual(list(self.channel.consumers.values()), [self.consumer])
        self.assertEqual(self.site.subscribed(), ["jobs"])

    def test_closed_again_and_again(self) -> None:
        """The waits grow: no hot loop (R12); and when it goes well again, so does the channel."""
        fault = self.site.broker.faults.close_channel(403, on="confirm.select", times=None)
        self.site.broker.faults.close_channel(406)
        self.site.settle(60)
        self.assertEqual(set(self.site.kinds()), {CHANNEL_FAILED})  # the consumer has no part in it
        self.assertLess(fault.count, 60)
        self.assertGreater(fault.count, 5)
        fault.stop()
        self.site.settle(60)
        self.assertTrue(self.channel.is_open)
        self.assertEqual(self.site.subscribed(), ["jobs"])

    def test_closed_now_and_then(self) -> None:
        """Once in a while (the delivery timeout of 30 minutes, say) is not again and again: no wait grows."""
        for _ in range(12):
            self.site.settle(40, step=5)
            self.site.broker.faults.close_channel(406)
            self.site.settle(0.05)
            self.assertTrue(self.consumer.is_subscribed)

    def test_deliveries_of_before_are_stale(self) -> None:
        """R23: settling one fails, and nothing is written; it comes again."""
        self.site.result(self.channel.basic_publish("", "jobs", b"x"))
        before = self.site.result(self.consumer.get())
        self.site.outcome(self.channel.queue_declare("none", passive=True))
        self.site.settle()
        with self.assertRaises(StaleDelivery):
            before.ack()
        with self.assertRaises(StaleDelivery):
            before.ack(multiple=True)
        again = self.site.result(self.consumer.get())
        self.assertTrue(again.redelivered)
        self.assertEqual(self.site.broker.queue("jobs").unacked, 1)
        self.channel.basic_ack(again)
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").unacked, 0)


class SettingsTest(SiteTestCase):
    """R9: prefetch limits, confirm mode and return callbacks hold on every connection."""

    def test_each_consumer_keeps_its_prefetch(self) -> None:
        """basic.qos holds for the consumers started after it: so it does after a reconnect."""
        channel = self.site.channel()
        for queue, prefetch in (("one", 1), ("three", 3), ("two", 2)):
            self.site.result(channel.queue_declare(queue, durable=True))
            channel.basic_qos(prefetch)
            self.site.result(channel.basic_consume(queue))
        self.site.result(channel.basic_qos(4))
        self.site.reconnect()
        self.site.result(channel.queue_declare("four"))
        self.site.result(channel.basic_consume("four"))
        for queue in ("one", "two", "three", "four"):
            for _ in range(9):
                self.site.result(channel.basic_publish("", queue, b"x"))
        self.site.settle()
        unacked = {queue: self.site.broker.queue(queue).unacked for queue in ("one", "two", "three", "four")}
        self.assertEqual(unacked, {"one": 1, "two": 2, "three": 3, "four": 4})

    def test_global_prefetch(self) -> None:
        """The limit of the channel as a whole too."""
        channel = self.site.channel()
        self.site.result(channel.basic_qos(5, global_qos=True))
        self.site.result(channel.queue_declare("jobs", durable=True))
        for _ in range(2):
            self.site.result(channel.basic_consume("jobs"))
        self.site.reconnect()
        for _ in range(9):
            self.site.result(channel.basic_publish("", "jobs", b"x"))
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").unacked, 5)

    def test_returns(self) -> None:
        """A callback hears of returned messages on every connection, until it is removed."""
        channel = self.site.channel(confirm=True)
        returned: list[bytes] = []

        def hear(message: Any) -> None:
            returned.append(message.body)

        channel.add_return_callback(hear)
        self.site.outcome(channel.basic_publish("", "none", b"1", mandatory=True))
        self.site.reconnect()
        self.site.outcome(channel.basic_publish("", "none", b"2", mandatory=True))
        channel.remove_return_callback(hear)
        self.site.outcome(channel.basic_publish("", "none", b"3", mandatory=True))
        self.assertEqual(returned, [b"1", b"2"])
        self.assertRaises(ValueError, channel.remove_return_callback, hear)

    def test_last_queue_by_the_empty_name(self) -> None:
        """ "" is the last queue declared on this channel, also on the next connection."""
        channel = self.site.channel()
        declared = channel.queue_declare("", exclusive=True)
        bound = channel.queue_bind("", "amq.topic")  # written before its name is known
        first = self.site.result(declared).queue
        self.site.result(bound)
        self.assertIn(f"binding of queue {first!r} to exchange 'amq.topic' with {first!r}", self.site.entities())
        self.site.reconnect()
        self.site.result(channel.queue_bind("", "amq.direct", "k"))
        consumer = self.site.result(channel.basic_consume(""))
        now = self.site.connection.topology.current_name(first)
        self.assertNotEqual(now, first)
        self.assertEqual(consumer.queue_name, now)
        self.assertLessEqual(
            {
                f"binding of queue {now!r} to exchange 'amq.topic' with {now!r}",
                f"binding of queue {now!r} to exchange 'amq.direct' with 'k'",
            },
            self.site.entities(),
        )
        self.site.result(channel.queue_unbind(first, "amq.topic"))
        self.site.result(channel.basic_publish("", first, b"by its old name"))
        self.assertEqual(self.site.result(consumer.get()).body, b"by its old name")
        self.site.result(channel.queue_purge(""))
        self.site.result(channel.queue_delete(first))
        self.assertEqual(list(self.site.connection.topology), [])

    def test_channels_do_not_pile_up(self) -> None:
        """Each connection has as many channels as the application has."""
        self.site.channel(), self.site.channel()
        for _ in range(20):
            self.site.reconnect()
        self.site.settle(1)
        self.assertEqual([len(view.channels) for view in self.site.broker.connections], [2])


class LeakTest(SiteTestCase):
    """R31: nothing of a connection that is gone is kept."""

    def test_old_connections_are_forgotten(self) -> None:
        """Whatever was under way and whatever was refused; the plain channels without help of the collector."""
        channel = self.site.channel(confirm=True)
        self.site.result(channel.queue_declare("jobs", durable=True))
        self.site.result(channel.queue_declare("", exclusive=True))
        consumer = self.site.result(channel.basic_consume("jobs"))
        protocols: list[weakref.ref[Any]] = []
        channels: list[weakref.ref[Any]] = []
        for _ in range(30):
            assert self.site.connection.protocol is not None
            assert channel.channel is not None
            protocols.append(weakref.ref(self.site.connection.protocol))
            channels.append(weakref.ref(channel.channel))
            refused = self.site.outcome(channel.queue_declare("none", passive=True))
            self.assertIsInstance(refused, NotFound)
            del refused
            under_way = ends(channel.basic_get("jobs"))
            waiting = ends(consumer.get())
            self.site.reconnect()
            self.site.broker.publish("", "jobs", b"x")
            self.site.settle()
            waiting[0].ack()
            del under_way, waiting
        self.site.connection.history.clear()
        self.site.events.clear()
        self.assertEqual([each() for each in channels[:-2] if each() is not None], [])
        gc.collect()
        self.assertEqual([each() for each in protocols + channels if each() is not None], [])


class PublishingTest(SiteTestCase):
    """A plain publish on a recovering channel: sent once, or failed with what is known (R2)."""

    def test_while_there_is_no_connection(self) -> None:
        """NotSent, or it waits for one."""
        channel = self.site.channel(confirm=True)
        self.site.result(channel.queue_declare("jobs", durable=True))
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        self.assertIsInstance(self.site.outcome(channel.basic_publish("", "jobs", b"lost")), NotSent)
        waiting = ends(channel.basic_publish("", "jobs", b"waits", wait=True))
        self.site.ready(2)
        self.assertEqual(waiting, [1])
        self.assertEqual(self.site.broker.queue("jobs").bodies, [b"waits"])

    def test_unconfirmed_at_the_loss(self) -> None:
        """kombu B23; Nobody knows: PublishUnconfirmed, and it is not sent again."""
        channel = self.site.channel(confirm=True)
        self.site.result(channel.queue_declare("jobs", durable=True))
        publishing = channel.basic_publish("", "jobs", b"x", wait=True)
        self.site.broker.faults.cut()
        self.assertIsInstance(self.site.outcome(publishing), PublishUnconfirmed)
