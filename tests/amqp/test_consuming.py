"""basic.consume, cancel, qos and get."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError

from tests.amqp.peer import Peer, PeerTestCase, ignore, outcomes
from txmsg.amqp.consumers import Consumer
from txmsg.amqp.delivery import Delivery
from txmsg.errors import (
    AccessRefused,
    AlreadySettled,
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    DuplicateConsumerTag,
    EncodeError,
    NotFound,
    OperationTimeout,
)

Basic, Connection = commands.Basic, commands.Connection


class ConsumeTests(PeerTestCase):
    def test_on_the_wire(self) -> None:
        """K-21, W-45: every argument is where it belongs; all flags default to False."""
        peer = self.opened()
        channel = peer.channel()
        ignore(
            channel.basic_qos(5),
            channel.basic_consume("q"),
            channel.basic_consume(
                "q", no_ack=True, exclusive=True, no_local=True, consumer_tag="mine", arguments={"x-priority": 10}
            ),
        )
        (_, _), (_, plain), (_, full) = peer.read()
        assert isinstance(plain, Basic.Consume)
        assert isinstance(full, Basic.Consume)
        self.assertEqual((plain.queue, plain.arguments, plain.nowait), ("q", {}, False))
        self.assertEqual((plain.no_ack, plain.exclusive, plain.no_local), (False, False, False))
        self.assertEqual((full.no_ack, full.exclusive, full.no_local), (True, True, True))
        self.assertEqual((full.consumer_tag, full.arguments), ("mine", {"x-priority": 10}))

    def test_it_fires_with_the_consumer(self) -> None:
        """K-21: at consume-ok; it is among the channel's consumers, by its tag."""
        peer = self.opened()
        channel = peer.channel()
        consuming = channel.basic_consume("q", consumer_tag="c")
        self.assertNoResult(consuming)
        peer.send(Basic.QosOk(), Basic.ConsumeOk("c"))
        consumer: Consumer = self.result(consuming)
        self.assertEqual((consumer.consumer_tag, consumer.queue_name, consumer.no_ack), ("c", "q", False))
        self.assertIs(consumer.channel, channel)
        self.assertEqual(channel.consumers, {"c": consumer})
        channel.consumers.clear()
        self.assertEqual(len(channel.consumers), 1, "a copy")

    def test_tags_are_unique(self) -> None:
        """K-23, W-52: over consumers, channels and connections."""
        tags: set[str] = set()
        for _ in range(2):
            peer = self.opened()
            for _ in range(2):
                channel = peer.channel()
                for _ in range(3):
                    tags.add(peer.consumer(channel).consumer_tag)
        self.assertEqual(len(tags), 12)

    def test_a_tag_in_use(self) -> None:
        """K-24: DuplicateConsumerTag before anything is written; also while the old consumer is being cancelled.

        kombu D13
        """
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel, consumer_tag="c")
        self.failed(channel.basic_consume("q", consumer_tag="c"), DuplicateConsumerTag)
        consumer.cancel()
        peer.read()
        self.failed(channel.basic_consume("q", consumer_tag="c"), DuplicateConsumerTag)
        self.assertEqual(peer.read(), [])
        peer.send(Basic.CancelOk("c"))
        self.assertIsNot(peer.consumer(channel, consumer_tag="c"), consumer)
        self.assertEqual(peer.consumer(peer.channel(), consumer_tag="c").consumer_tag, "c")

    def test_arguments_of_the_wrong_kind(self) -> None:
        """M-22: a failed Deferred, nothing written, no consumer left behind."""
        peer = self.opened()
        channel = peer.channel()
        consume: Any = channel.basic_consume
        self.failed(consume("q", "not callable"), ConfigurationError)
        self.failed(consume("q", consumer_tag=5), EncodeError)
        self.failed(consume("q", consumer_tag="x" * 256), EncodeError)
        self.failed(consume(5), EncodeError)
        self.assertEqual(channel.consumers, {})

    def test_refused(self) -> None:
        """K-25: 404 and 403 close the channel; the Deferred fails with that."""
        for code, kind in ((404, NotFound), (403, AccessRefused)):
            peer = self.opened()
            channel = peer.channel()
            consuming = channel.basic_consume("q")
            peer.read()
            peer.send(commands.Channel.Close(code, "no", 60, 20))
            self.failed(consuming, kind)
            self.assertEqual(channel.consumers, {})

    def test_nowait(self) -> None:
        """M-07: fires at once; the tag is ours, so nothing is missing."""
        peer = self.opened()
        channel = peer.channel()
        consumer = self.result(channel.basic_consume("q", nowait=True))
        self.assertEqual(peer.names(), ["Basic.Qos", "Basic.Consume"])
        peer.deliver(consumer, b"1")
        self.assertEqual(self.result(consumer.get()).body, b"1")

    def test_cancelled_before_consume_ok(self) -> None:
        """R8, R25: what comes meanwhile goes back; the subscription is undone when the broker has made it."""
        seen: list[Delivery] = []
        for callback in (None, seen.append):
            peer = self.opened()
            channel = peer.channel()
            consuming = channel.basic_consume("q", callback, consumer_tag="c")
            peer.read()
            peer.deliver("c", b"1")
            consuming.cancel()
            self.failed(consuming, CancelledError)
            peer.deliver("c", b"2", first=2)
            peer.send(Basic.QosOk(), Basic.ConsumeOk("c"))
            self.assertEqual(peer.names()[-1], "Basic.Cancel")
            peer.deliver("c", b"3", first=3)
            peer.send(Basic.CancelOk("c"))
            self.assertEqual(channel.consumers, {})
            settled = peer.channels[1].settled
            self.assertEqual([settled.get(n) for n in (2, 3)], ["requeue", "requeue"])
            self.assertEqual(settled.get(1), "requeue" if callback is None else None)
        self.assertEqual([delivery.body for delivery in seen], [b"1"])

    def test_timed_out(self) -> None:
        """R2, I-03: as above for OperationTimeout; the channel stays usable."""
        peer = self.opened(operation_timeout=5.0)
        channel = peer.channel()
        consuming = channel.basic_consume("q", consumer_tag="c")
        peer.clock.advance(5)
        self.failed(consuming, OperationTimeout)
        peer.read()
        peer.send(Basic.QosOk(), Basic.ConsumeOk("c"))
        self.assertEqual(peer.only(Basic.Cancel).consumer_tag, "c")
        peer.send(Basic.CancelOk("c"))
        self.assertIsInstance(peer.consumer(channel, consumer_tag="c"), Consumer)

    def test_cancelled_while_it_is_held(self) -> None:
        """R4, R8: behind held publishes it has not begun: it never does, and its tag is free."""
        peer = self.opened()
        channel = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        ignore(channel.basic_publish("", "q", b""))
        consuming = channel.basic_consume("q", consumer_tag="c", no_ack=True)
        consuming.cancel()
        self.failed(consuming, CancelledError)
        self.assertEqual(channel.consumers, {})
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.names(), ["Basic.Publish"])
        self.assertIsInstance(peer.consumer(channel, consumer_tag="c"), Consumer)


class PrefetchTests(PeerTestCase):
    def prefetches(self, peer: Peer) -> list[int | None]:
        return [frame.prefetch_count for _, frame in peer.read() if isinstance(frame, Basic.Qos)]

    def test_the_default(self) -> None:
        """R24: unlimited only if asked for by name: the first consumer with acks brings the default prefetch along."""
        peer = self.opened(default_prefetch_count=17)
        channel = peer.channel()
        ignore(channel.basic_consume("q", no_ack=True))
        self.assertEqual(self.prefetches(peer), [])
        ignore(channel.basic_consume("q"), channel.basic_consume("q"))
        self.assertEqual(self.prefetches(peer), [17])
        ignore(peer.channel().basic_consume("q"))
        self.assertEqual(self.prefetches(peer), [17])

    def test_asked_for_by_name(self) -> None:
        """K-36: basic_qos, 0 too, is kept."""
        for count in (0, 1, 65535):
            peer = self.opened()
            channel = peer.channel()
            limited = channel.basic_qos(count)
            ignore(channel.basic_consume("q"))
            self.assertEqual(self.prefetches(peer), [count])
            peer.send(Basic.QosOk())
            self.result(limited)

    def test_on_the_wire(self) -> None:
        """K-36: prefetch_count comes first in our call, and is where it belongs."""
        peer = self.opened()
        channel = peer.channel()
        ignore(channel.basic_qos(10, prefetch_size=0, global_qos=True))
        sent = peer.only(Basic.Qos)
        self.assertEqual((sent.prefetch_count, sent.prefetch_size, sent.global_), (10, 0, True))

    def test_given_up_while_it_is_held(self) -> None:
        """R24: a consumer started later relies on the limit, so it is set although nobody waits any more."""
        peer = self.opened()
        channel = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        ignore(channel.basic_publish("", "q", b""))
        limiting = channel.basic_qos(5)
        limiting.cancel()
        self.failed(limiting, CancelledError)
        ignore(channel.basic_consume("q"))
        peer.send(Connection.Unblocked())
        self.assertEqual(self.prefetches(peer), [5])


class CancelTests(PeerTestCase):
    def test_cancelling(self) -> None:
        """K-18, 24.8: fires at cancel-ok, and no delivery comes after that; by consumer or by tag."""
        peer = self.opened()
        channel = peer.channel()
        for by_tag in (False, True):
            consumer = peer.consumer(channel)
            done = channel.basic_cancel(consumer.consumer_tag if by_tag else consumer)
            self.assertEqual(peer.only(Basic.Cancel).consumer_tag, consumer.consumer_tag)
            self.assertNoResult(done)
            peer.send(Basic.CancelOk(consumer.consumer_tag))
            self.assertIsNone(self.result(done))
            self.assertEqual(channel.consumers, {})

    def test_unknown_or_already_cancelled(self) -> None:
        """24.8, K-19: succeeds at once, nothing is written."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        consumer.cancel()
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        peer.read()
        for what in ("unknown", consumer, consumer.consumer_tag):
            self.assertIsNone(self.result(channel.basic_cancel(what)))
        self.assertIsNone(self.result(consumer.cancel()))
        self.assertEqual(peer.read(), [])

    def test_before_consume_ok(self) -> None:
        """24.8, O-01: RabbitMQ falls over a basic.cancel that overtakes its consume-ok, so ours waits for that."""
        peer = self.opened()
        channel = peer.channel()
        consuming = channel.basic_consume("q", no_ack=True, consumer_tag="c")
        done = [channel.basic_cancel("c"), channel.basic_cancel("c")]
        self.assertEqual(peer.names(), ["Basic.Consume"])
        peer.send(Basic.ConsumeOk("c"))
        self.assertFalse(self.result(consuming).is_active)
        self.assertEqual(peer.names(), ["Basic.Cancel"])
        self.assertEqual(outcomes(done), [None, None])
        peer.send(Basic.CancelOk("c"))
        for each in done:
            self.assertTrue(each.called)
        self.assertEqual(channel.consumers, {})

    def test_before_a_subscription_that_fails(self) -> None:
        """R28: then there is nothing to cancel."""
        peer = self.opened(operation_timeout=5.0)
        channel = peer.channel()
        consuming = channel.basic_consume("q", no_ack=True, consumer_tag="c")
        cancelling = channel.basic_cancel("c")
        peer.clock.advance(5)
        self.failed(consuming, OperationTimeout)
        self.assertIsNone(self.result(cancelling))

    def test_what_is_no_tag(self) -> None:
        """K-18: EncodeError, and nothing is raised."""
        cancel: Any = self.opened().channel().basic_cancel
        no_tags: list[Any] = [None, 5, [], b"c"]
        for tag in no_tags:
            self.failed(cancel(tag), EncodeError)

    def test_cancelling_twice(self) -> None:
        """K-19: while the first is on its way the second waits with it; one basic.cancel is written."""
        peer = self.opened()
        consumer = peer.consumer(peer.channel())
        done = [consumer.cancel(), consumer.cancel()]
        self.assertEqual(peer.names(), ["Basic.Cancel"])
        self.assertEqual(outcomes(done), [None, None])
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        for each in done:
            self.result(each)

    def test_another_channels_consumer(self) -> None:
        """O-12: a local error; also when both have a consumer with that tag."""
        peer = self.opened()
        first, second = peer.channel(), peer.channel()
        consumer = peer.consumer(first, consumer_tag="c")
        peer.consumer(second, consumer_tag="c")
        peer.read()
        self.failed(second.basic_cancel(consumer), ChannelError)
        self.assertEqual(peer.read(), [])
        self.assertTrue(consumer.is_active)

    def test_deliveries_meanwhile(self) -> None:
        """24.9, K-20, W-19: until cancel-ok they go back to the queue, each once (kombu D15)."""
        peer = self.opened()
        consumer = peer.consumer(peer.channel())
        peer.deliver(consumer, b"1")
        fetched = self.result(consumer.get())
        done = consumer.cancel()
        peer.deliver(consumer, b"2", b"3", first=2)
        self.assertEqual(peer.channels[1].settled, {2: "requeue", 3: "requeue"})
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        self.result(done)
        self.assertFalse(fetched.is_settled)
        fetched.ack()

    def test_crossing_cancels(self) -> None:
        """O-03: the broker's cancel comes while cancel-ok is waited for: the end is told once."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel, consumer_tag="c")
        done = consumer.cancel()
        peer.send(Basic.Cancel("c", True))
        reason = self.result(consumer.when_ended())
        self.assertEqual(reason.initiator, "server")
        # The tag is free; the cancel-ok that is still to come is not the new consumer's.
        again = peer.consumer(channel, consumer_tag="c")
        peer.send(Basic.CancelOk("c"))
        self.result(done)
        self.assertEqual(channel.consumers, {"c": again})
        self.assertTrue(again.is_active)
        peer.deliver(again, b"1")
        self.assertEqual(self.result(again.get()).body, b"1")

    def test_the_brokers_cancel(self) -> None:
        """O-01, O-02, O-04, K-49: the consumer ends, the channel goes on; cancel-ok only if it is asked for."""
        for nowait in (True, False):
            peer = self.opened()
            channel = peer.channel()
            consumer = peer.consumer(channel)
            peer.read()
            peer.send(Basic.Cancel(consumer.consumer_tag, nowait))
            self.assertEqual(peer.names(), [] if nowait else ["Basic.CancelOk"])
            self.assertEqual(self.result(consumer.when_ended()).initiator, "server")
            self.assertTrue(channel.is_open)
            peer.send(Basic.Cancel("unknown", True))
            self.assertTrue(channel.is_open)

    def test_given_up_on_the_way(self) -> None:
        """R8: who cancels the Deferred, or whom it times out, still has the consumer cancelled by the late answer."""
        peer = self.opened(operation_timeout=5.0)
        channel = peer.channel()
        for give_up in ("cancel", "time out"):
            consumer = peer.consumer(channel)
            done = consumer.cancel()
            if give_up == "cancel":
                done.cancel()
                self.failed(done, CancelledError)
            else:
                peer.clock.advance(5)
                self.failed(done, OperationTimeout)
            peer.send(Basic.CancelOk(consumer.consumer_tag))
            self.result(consumer.when_ended())
            self.assertEqual(channel.consumers, {})

    def test_given_up_while_it_is_held(self) -> None:
        """R26: a cancel behind held publishes never leaves: the consumer goes on, nothing is requeued in a loop."""
        seen: list[bytes] = []
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel, lambda delivery: seen.append(delivery.body))
        peer.send(Connection.Blocked("low on memory"))
        ignore(channel.basic_publish("", "q", b""))
        done = consumer.cancel()
        peer.deliver(consumer, b"1")
        self.assertEqual(peer.settlements(), [], "the cancel has not left: it would come again")
        done.cancel()
        self.failed(done, CancelledError)
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.names(), ["Basic.Publish"])
        peer.deliver(consumer, b"2", first=2)
        self.assertEqual((seen, peer.settlements()), ([b"1", b"2"], []))
        self.assertTrue(consumer.is_active)

    def test_on_a_channel_that_is_closing(self) -> None:
        """O-08: nothing is written on it any more; the consumer ends with the channel."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        channel.close()
        peer.read()
        self.failed(consumer.cancel(), ChannelClosed)
        self.assertEqual(peer.read(), [])
        peer.send(commands.Channel.CloseOk())
        self.result(consumer.cancel())

    def test_many_consumers_leave_nothing(self) -> None:
        """O-09, W-53: a channel that lived through 200 consumers remembers none of them."""
        peer = self.opened()
        channel = peer.channel()
        for _ in range(200):
            consumer = peer.consumer(channel)
            consumer.cancel()
            peer.send(Basic.CancelOk(consumer.consumer_tag))
        self.assertEqual(channel.consumers, {})
        self.assertIn(" 0 calls waiting, 0 unsettled", repr(channel))


class GetTests(PeerTestCase):
    def test_a_message_or_none(self) -> None:
        """K-27, X-05: a Delivery with message_count, or None; W-76: the queue's name may be empty."""
        peer = self.opened()
        channel = peer.channel()
        found, nothing = channel.basic_get("q"), channel.basic_get()
        self.assertEqual([frame.queue for _, frame in peer.read() if isinstance(frame, Basic.Get)], ["q", ""])
        peer.answer_get(b"body", 1, left=4)
        peer.send(Basic.GetEmpty())
        delivery: Delivery = self.result(found)
        self.assertEqual((delivery.body, delivery.message_count, delivery.consumer_tag), (b"body", 4, ""))
        self.assertFalse(delivery.is_settled)
        delivery.ack()
        self.assertEqual(peer.settlements(), [("Ack", 1, False)])
        self.assertIsNone(self.result(nothing))

    def test_several_at_once(self) -> None:
        """K-28, K-30, W-49: any number may be under way; answers go in order."""
        peer = self.opened()
        channel = peer.channel()
        gets = [channel.basic_get("q") for _ in range(3)]
        peer.read()
        peer.answer_get(b"1", 1)
        peer.send(Basic.GetEmpty())
        peer.answer_get(b"3", 2)
        found = outcomes(gets)
        self.assertEqual([getattr(each, "body", None) for each in found], [b"1", None, b"3"])

    def test_without_acks(self) -> None:
        """W-29: it is settled from the beginning, and cannot be settled."""
        peer = self.opened()
        got = peer.channel().basic_get("q", no_ack=True)
        self.assertIs(peer.only(Basic.Get).no_ack, True)
        peer.answer_get(b"1", 1)
        delivery: Delivery = self.result(got)
        self.assertTrue(delivery.is_settled)
        self.assertRaises(AlreadySettled, delivery.ack)
        self.assertEqual(peer.settlements(), [])

    def test_given_up(self) -> None:
        """R8: a get that nobody waits for gives its message back when it comes; the next get has its own."""
        peer = self.opened()
        channel = peer.channel()
        cancelled, kept = channel.basic_get("q"), channel.basic_get("q")
        cancelled.cancel()
        self.failed(cancelled, CancelledError)
        peer.read()
        peer.answer_get(b"1", 1)
        self.assertEqual(peer.settlements(), [("Nack", 1, False)])
        self.assertNoResult(kept)
        peer.answer_get(b"2", 2)
        self.assertEqual(self.result(kept).body, b"2")

    def test_get_ok_nobody_asked_for(self) -> None:
        """R18: 503."""
        peer = self.opened()
        peer.channel()
        peer.send(*peer.content(Basic.GetOk(1, False, "x", "k", 0), b""))
        self.assertEqual(peer.only(Connection.Close).reply_code, 503)
