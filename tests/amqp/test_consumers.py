"""Consumer: the ways to be handed deliveries, what a failing handler does, and bounded reading without acks."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError, Deferred, succeed

from tests.amqp.peer import Peer, PeerTestCase, outcomes
from txmsg.amqp.consumers import Consumer
from txmsg.amqp.delivery import Delivery
from txmsg.errors import (
    ChannelClosed,
    ChannelWrongState,
    ConnectionLost,
    ConsumerCancelled,
    EncodeError,
    OperationTimeout,
)

Basic = commands.Basic


class ConsumerTestCase(PeerTestCase):
    def consuming(self, callback: Any = None, *, no_ack: bool = False, **options: Any) -> tuple[Peer, Consumer]:
        peer = self.opened(**options)
        return peer, peer.consumer(peer.channel(), callback, no_ack=no_ack)

    def cancelled(self, peer: Peer, consumer: Consumer) -> ConsumerCancelled:
        """Cancel it as its user; the reason."""
        done = consumer.cancel()
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        self.assertIsNone(self.result(done))
        reason = self.result(consumer.when_ended())
        assert isinstance(reason, ConsumerCancelled)
        return reason


class QueueTests(ConsumerTestCase):
    def test_get(self) -> None:
        """K-21, W-93: deliveries are stored, or given to the get that waits; a cancelled get loses none (L-10)."""
        peer, consumer = self.consuming()
        other = peer.consumer(consumer.channel)
        waiting, cancelled = consumer.get(), consumer.get()
        cancelled.cancel()
        self.failed(cancelled, CancelledError)
        peer.deliver(consumer, b"1", b"2")
        peer.deliver(other, b"3", first=3)
        self.assertEqual(self.result(waiting).body, b"1")
        self.assertEqual(self.result(consumer.get()).body, b"2")
        self.assertEqual(self.result(other.get()).body, b"3")

    def test_a_delivery(self) -> None:
        """K-14: what the broker said of it."""
        peer, consumer = self.consuming()
        properties = commands.Basic.Properties(message_id="m", headers={"a": 1})
        peer.send(*peer.delivery(b"body", consumer.consumer_tag, 7, properties=properties, redelivered=True))
        delivery: Delivery = self.result(consumer.get())
        self.assertEqual((delivery.body, delivery.delivery_tag, delivery.redelivered), (b"body", 7, True))
        self.assertEqual((delivery.exchange, delivery.routing_key), ("x", "key"))
        self.assertEqual(delivery.consumer_tag, consumer.consumer_tag)
        self.assertEqual((delivery.properties.message_id, delivery.properties.headers), ("m", {"a": 1}))  # type: ignore[union-attr]
        self.assertIs(delivery.channel, consumer.channel)
        self.assertFalse(delivery.no_ack)
        self.assertIsNone(delivery.message_count)

    def test_iterating(self) -> None:
        """L-11: `async for` ends when we cancelled, and raises what else ended the consumer."""
        for end in ("client", "server", "lost"):
            peer, consumer = self.consuming()

            async def read(c: Consumer = consumer) -> list[bytes]:
                bodies = []
                async for delivery in c:
                    bodies.append(delivery.body)
                    delivery.ack()
                return bodies

            reading = Deferred.fromCoroutine(read())
            peer.deliver(consumer, b"1", b"2")
            if end == "client":
                self.cancelled(peer, consumer)
                self.assertEqual(self.result(reading), [b"1", b"2"])
            elif end == "server":
                peer.send(Basic.Cancel(consumer.consumer_tag, True))
                self.assertEqual(self.failed(reading, ConsumerCancelled).initiator, "server")
            else:
                peer.lose()
                self.failed(reading, ConnectionLost)

    def test_with_a_callback_there_is_no_queue(self) -> None:
        """get() and `async for` say so instead of waiting for ever."""
        _, consumer = self.consuming(lambda delivery: None)
        self.assertIsNone(consumer.queue)
        self.failed(consumer.get(), ChannelWrongState)
        self.assertRaises(ChannelWrongState, consumer.__aiter__)


class CallbackTests(ConsumerTestCase):
    def test_called_once_for_each_in_order(self) -> None:
        """R24, W-46: also for those that come in one chunk with consume-ok."""
        peer = self.opened()
        channel = peer.channel()
        seen: list[bytes] = []
        consuming = channel.basic_consume("q", lambda delivery: seen.append(delivery.body), consumer_tag="c")
        peer.read()
        peer.send(Basic.QosOk(), Basic.ConsumeOk("c"), *peer.delivery(b"1", "c", 1), *peer.delivery(b"2", "c", 2))
        self.result(consuming)
        peer.deliver("c", b"3", first=3)
        self.assertEqual(seen, [b"1", b"2", b"3"])

    def test_before_consume_ok(self) -> None:
        """K-22: deliveries that overtake consume-ok are not lost."""
        peer = self.opened()
        seen: list[bytes] = []
        consuming = peer.channel().basic_consume("q", lambda delivery: seen.append(delivery.body), consumer_tag="c")
        peer.read()
        peer.deliver("c", b"1")
        self.assertEqual(seen, [b"1"])
        peer.send(Basic.QosOk(), Basic.ConsumeOk("c"))
        self.result(consuming)

    def test_errors(self) -> None:
        """R26, F-22: raised, from a Deferred or a coroutine: logged, with the tags and not the body; the delivery stays
        unsettled, the next one is handed over."""

        async def coroutine(delivery: Delivery) -> None:
            raise ValueError("coroutine")

        def raising(delivery: Delivery) -> None:
            raise ValueError("raised")

        later: Deferred[None] = Deferred()
        for number, callback in enumerate((raising, coroutine, lambda delivery: later)):
            peer, consumer = self.consuming(callback)
            peer.deliver(consumer, b"canary", b"2")
            if number == 2:
                later.errback(ValueError("later"))
            failures = self.flushLoggedErrors(ValueError)
            self.assertEqual(len(failures), 1 if number == 2 else 2)
            self.assertEqual(peer.settlements(), [])
            self.assertEqual(peer.channels[1].outstanding, [1, 2])
            self.assertTrue(consumer.channel.is_open)

    def test_coroutines_and_deferreds_run(self) -> None:
        """Both styles are served: what they await is awaited; other results are ignored."""
        waits: Deferred[str] = Deferred()
        ends: list[Any] = []

        async def coroutine(delivery: Delivery) -> None:
            ends.append(await waits)
            delivery.ack()

        peer, consumer = self.consuming(coroutine)
        peer.deliver(consumer, b"1")
        self.assertEqual(peer.settlements(), [])
        waits.callback("done")
        self.assertEqual(ends, ["done"])
        self.assertEqual(peer.settlements(), [("Ack", 1, False)])
        for result in (succeed(1), "a string", 5):
            peer, consumer = self.consuming(lambda delivery, r=result: r)
            peer.deliver(consumer, b"1")
            self.assertTrue(consumer.is_active)

    def test_settling_publishing_and_closing_inside(self) -> None:
        """R32: a handler may do anything; what it does leaves in order."""
        peer = self.opened()
        channel = peer.channel()
        other = peer.channel()

        def callback(delivery: Delivery) -> None:
            other.basic_publish("", "out", delivery.body)
            delivery.ack()
            if delivery.body == b"2":
                channel.close()

        consumer = peer.consumer(channel, callback)
        peer.deliver(consumer, b"1", b"2", b"3")
        self.assertEqual(peer.names(), ["Basic.Publish", "Basic.Publish", "Basic.Ack", "Channel.Close"])
        self.assertEqual(peer.channels[1].settled, {1: "ack", 2: "ack"})

    def test_flags_of_another_type(self) -> None:
        """R23: what cannot be sent is refused before the delivery counts as settled."""
        seen: list[Delivery] = []
        peer, consumer = self.consuming(seen.append)
        peer.deliver(consumer, b"1", b"2")
        flag: Any = 1
        self.assertRaises(EncodeError, seen[0].nack, flag)
        self.assertRaises(EncodeError, seen[0].nack, True, flag)
        self.assertRaises(EncodeError, seen[1].reject, flag)
        self.assertEqual([delivery.is_settled for delivery in seen], [False, False])
        seen[0].nack()
        seen[1].reject()
        self.assertEqual(peer.channels[1].settled, {1: "requeue", 2: "drop"})

    def test_cancelling_inside(self) -> None:
        """24.9: what follows in the same chunk goes back to the queue, also for a callback."""
        seen: list[bytes] = []

        def callback(delivery: Delivery) -> None:
            seen.append(delivery.body)
            delivery.ack()
            consumer.cancel()

        peer, consumer = self.consuming(callback)
        peer.deliver(consumer, b"1", b"2", b"3")
        self.assertEqual(seen, [b"1"])
        self.assertEqual(peer.channels[1].settled, {1: "ack", 2: "requeue", 3: "requeue"})
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        self.assertEqual(self.result(consumer.when_ended()).initiator, "client")


class EndTests(ConsumerTestCase):
    def test_states(self) -> None:
        """repr and is_active say what may still come; when_ended fires at any time and may be cancelled."""
        peer, consumer = self.consuming()
        self.assertTrue(consumer.is_active)
        self.assertEqual(repr(consumer), f"<Consumer {consumer.consumer_tag!r} of 'q' active>")
        ended, dropped = consumer.when_ended(), consumer.when_ended()
        dropped.cancel()
        self.failed(dropped, CancelledError)
        consumer.cancel()
        self.assertFalse(consumer.is_active)
        self.assertIn("cancelling", repr(consumer))
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        self.assertIn("ended", repr(consumer))
        self.assertIs(self.result(ended), self.result(consumer.when_ended()))

    def test_who_ended_it(self) -> None:
        """O-10: ConsumerCancelled says by whom; the end of the channel is the channel's reason."""
        peer, consumer = self.consuming()
        reason = self.cancelled(peer, consumer)
        self.assertEqual((reason.initiator, reason.consumer_tag, reason.queue), ("client", consumer.consumer_tag, "q"))
        self.assertIn("basic_cancel was called", str(reason))
        again = peer.consumer(consumer.channel)
        peer.send(Basic.Cancel(again.consumer_tag, True))
        self.assertIn("queue was deleted", str(self.result(again.when_ended())))
        third = peer.consumer(consumer.channel)
        consumer.channel.close()
        peer.send(commands.Channel.CloseOk())
        self.assertIsInstance(self.result(third.when_ended()), ChannelClosed)

    def test_waiting_gets(self) -> None:
        """L-04, K-49, 24.10: fail oldest first with the reason; get() afterwards fails with it, too."""
        peer, consumer = self.consuming()
        gets = [consumer.get() for _ in range(2)]
        peer.send(Basic.Cancel(consumer.consumer_tag, True))
        reason = self.result(consumer.when_ended())
        for get in (*gets, consumer.get()):
            self.assertIs(self.failed(get, ConsumerCancelled), reason)

    def test_unfetched_deliveries_go_back(self) -> None:
        """O-05, L-06: with acks what nobody fetched is requeued; what was fetched stays to be settled."""
        for end in ("client", "server"):
            peer, consumer = self.consuming()
            peer.deliver(consumer, b"1", b"2", b"3")
            fetched = self.result(consumer.get())
            if end == "client":
                self.cancelled(peer, consumer)
            else:
                peer.send(Basic.Cancel(consumer.consumer_tag, True))
            self.assertEqual(peer.channels[1].settled, {2: "requeue", 3: "requeue"})
            fetched.ack()
            peer.read()
            self.assertEqual(peer.channels[1].settled, {1: "ack", 2: "requeue", 3: "requeue"})

    def test_without_acks_they_stay_readable(self) -> None:
        """O-06, O-07, 24.9: the broker has forgotten them, so they are not lost here; nothing is sent back."""
        peer, consumer = self.consuming(no_ack=True)
        peer.deliver(consumer, b"1", b"2")
        done = consumer.cancel()
        peer.deliver(consumer, b"3", first=3)
        peer.send(Basic.CancelOk(consumer.consumer_tag))
        self.result(done)
        self.assertEqual([self.result(consumer.get()).body for _ in range(3)], [b"1", b"2", b"3"])
        self.failed(consumer.get(), ConsumerCancelled)
        self.assertEqual(peer.settlements(), [])


class BoundedReadingTests(ConsumerTestCase):
    """I-11: without acks no prefetch limits what the broker sends, so reading stops."""

    def state(self, peer: Peer) -> str:
        return peer.transport.producerState

    def test_by_messages(self) -> None:
        """Paused at the mark, resumed when half of it is gone."""
        peer, consumer = self.consuming(no_ack=True, read_high_water_messages=4)
        peer.deliver(consumer, b"1", b"2", b"3")
        self.assertEqual(self.state(peer), "producing")
        peer.deliver(consumer, b"4", b"5", first=4)
        self.assertEqual(self.state(peer), "paused")
        for _ in range(2):
            self.result(consumer.get())
        self.assertEqual(self.state(peer), "paused")
        self.result(consumer.get())
        self.assertEqual(self.state(peer), "producing")
        peer.deliver(consumer, b"6", b"7", first=6)
        self.assertEqual(self.state(peer), "paused", "again")

    def test_by_bytes(self) -> None:
        """The same for the sum of the bodies."""
        peer, consumer = self.consuming(no_ack=True, read_high_water_bytes=1000)
        peer.deliver(consumer, bytes(600), bytes(400))
        self.assertEqual(self.state(peer), "paused")
        self.result(consumer.get())
        self.assertEqual(self.state(peer), "producing")

    def test_a_call_that_times_out_meanwhile_says_so(self) -> None:
        """I-11: its reply waits in the socket that nobody reads."""
        peer, consumer = self.consuming(no_ack=True, read_high_water_messages=1, operation_timeout=5)
        peer.deliver(consumer, b"1")
        declared = consumer.channel.queue_declare("q")
        peer.clock.advance(5)
        self.assertIn("reading is paused", str(self.failed(declared, OperationTimeout)))

    def test_a_waiting_get_stores_nothing(self) -> None:
        """What goes straight to a get does not count."""
        peer, consumer = self.consuming(no_ack=True, read_high_water_messages=1)
        waiting = consumer.get()
        peer.deliver(consumer, b"1")
        self.result(waiting)
        self.assertEqual(self.state(peer), "producing")

    def test_callbacks_that_take_their_time(self) -> None:
        """Messages whose Deferred or coroutine runs count as waiting, also when it fails."""
        running: list[Deferred[None]] = []

        async def callback(delivery: Delivery) -> None:
            running.append(Deferred())
            await running[-1]

        peer, consumer = self.consuming(callback, no_ack=True, read_high_water_messages=2)
        peer.deliver(consumer, b"1", b"2")
        self.assertEqual(self.state(peer), "paused")
        running[0].errback(ValueError("handler"))
        self.assertEqual(self.state(peer), "producing")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        running[1].callback(None)

    def test_callbacks_that_are_done_at_once(self) -> None:
        """They hold nothing up."""
        peer, consumer = self.consuming(lambda delivery: succeed(None), no_ack=True, read_high_water_messages=1)
        peer.deliver(consumer, b"1", b"2", b"3")
        self.assertEqual(self.state(peer), "producing")

    def test_with_a_prefetch_it_is_not_needed(self) -> None:
        """R24: the prefetch is the bound of a consumer with acks."""
        peer, consumer = self.consuming(read_high_water_messages=1)
        peer.deliver(consumer, b"1", b"2", b"3")
        self.assertEqual(self.state(peer), "producing")

    def test_with_unlimited_prefetch_it_is(self) -> None:
        """R24: basic_qos(0) asks for no limit by name; memory stays bounded by reading."""
        peer = self.opened(read_high_water_messages=2)
        channel = peer.channel()
        unlimited = channel.basic_qos(0)
        peer.send(Basic.QosOk())
        self.result(unlimited)
        consumer = peer.consumer(channel)
        peer.deliver(consumer, b"1", b"2")
        self.assertEqual(self.state(peer), "paused")

    def test_two_consumers(self) -> None:
        """Reading goes on when neither needs the pause any more."""
        peer, first = self.consuming(no_ack=True, read_high_water_messages=1)
        second = peer.consumer(first.channel, no_ack=True)
        peer.deliver(first, b"1")
        peer.deliver(second, b"2", first=2)
        self.result(first.get())
        self.assertEqual(self.state(peer), "paused")
        self.result(second.get())
        self.assertEqual(self.state(peer), "producing")

    def test_every_way_to_end_reads_on(self) -> None:
        """R28, R30: cancel, the broker's cancel and the end of the channel do not leave the connection deaf, and what
        cancelling waits for can be read."""
        for end in ("cancel", "server", "close"):
            peer, consumer = self.consuming(no_ack=True, read_high_water_messages=1)
            peer.deliver(consumer, b"1", b"2")
            self.assertEqual(self.state(peer), "paused")
            if end == "cancel":
                consumer.cancel()
                self.assertEqual(self.state(peer), "producing")
                peer.deliver(consumer, b"3", first=3)
                self.assertEqual(self.state(peer), "producing", "no new pause while cancel-ok is waited for")
                peer.send(Basic.CancelOk(consumer.consumer_tag))
            elif end == "server":
                peer.send(Basic.Cancel(consumer.consumer_tag, True))
            else:
                peer.send(commands.Channel.Close(406, "x", 0, 0))
            self.assertEqual(self.state(peer), "producing")
            self.assertFalse(peer.protocol.is_reading_paused)
            self.assertEqual(self.result(consumer.get()).body, b"1")

    def test_the_end_of_the_connection(self) -> None:
        """The transport is gone; what came before stays readable, and handlers may finish."""
        running: list[Deferred[None]] = []

        def callback(delivery: Delivery) -> Deferred[None]:
            running.append(Deferred())
            return running[-1]

        peer, consumer = self.consuming(no_ack=True, read_high_water_messages=2)
        with_callback = peer.consumer(consumer.channel, callback, no_ack=True)
        peer.deliver(consumer, b"1", b"2")
        peer.deliver(with_callback, b"3", b"4", first=3)
        peer.lose()
        self.assertEqual([self.result(consumer.get()).body for _ in range(2)], [b"1", b"2"])
        self.failed(consumer.get(), ConnectionLost)
        for each in running:
            each.callback(None)
        self.assertEqual(outcomes([consumer.when_ended()])[0], self.result(with_callback.when_ended()))
