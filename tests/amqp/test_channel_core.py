"""The life of a channel: opening, closing, being closed, and what that means for everything that waits."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError, Deferred

from tests.amqp.peer import PeerTestCase, ignore, outcomes
from txmsg.amqp.channel import Channel
from txmsg.errors import (
    ChannelClosed,
    ChannelWrongState,
    ConnectionLost,
    NotFound,
    NotSent,
    PreconditionFailed,
    PublishUnconfirmed,
    StaleDelivery,
)

Basic, ChannelClass, Connection, Queue = commands.Basic, commands.Channel, commands.Connection, commands.Queue

NOT_FOUND = ChannelClass.Close(404, "NOT_FOUND - no exchange 'x' in vhost '/'", 50, 20)


def states(channel: Channel) -> tuple[bool, bool, bool]:
    return channel.is_open, channel.is_closing, channel.is_closed


class OpeningTests(PeerTestCase):
    def test_opening(self) -> None:
        """J-10, K-54: fires with the channel at open-ok; its number, connection and state can be read."""
        peer = self.opened()
        opening = peer.protocol.channel()
        peer.only(ChannelClass.Open)
        self.assertNoResult(opening)
        peer.send(ChannelClass.OpenOk())
        channel: Channel = self.result(opening)
        self.assertEqual((int(channel), channel.channel_number, states(channel)), (1, 1, (True, False, False)))
        self.assertIs(channel.connection, peer.protocol)
        self.assertTrue(channel.flow_active)
        self.assertFalse(channel.is_confirming)
        self.assertIsNone(channel.close_reason)
        self.assertEqual(repr(channel), "<Channel 1 open, 0 calls waiting, 0 unsettled, 0 held>")

    def test_closing_while_opening(self) -> None:
        """M-13, F-15: channel.close follows channel.open; a late open-ok opens nothing; channel() fails."""
        peer = self.opened()
        opening = peer.protocol.channel()
        channel = peer.protocol.channels[1]
        self.failed(channel.queue_declare("q"), ChannelWrongState)
        closed = channel.close()
        self.assertEqual(peer.names(), ["Channel.Open", "Channel.Close"])
        peer.send(ChannelClass.OpenOk())
        self.assertFalse(channel.is_open)
        self.assertNoResult(opening)
        peer.send(ChannelClass.CloseOk())
        self.assertIs(self.failed(opening, ChannelClosed), self.result(closed))

    def test_refused(self) -> None:
        """J-12: the broker may close a channel that it does not want to open."""
        peer = self.opened()
        opening = peer.protocol.channel()
        peer.send(ChannelClass.Close(406, "no more", 20, 10))
        self.assertEqual(peer.names(), ["Channel.Open", "Channel.CloseOk"])
        self.failed(opening, PreconditionFailed)


class ClosingTests(PeerTestCase):
    def test_an_orderly_close(self) -> None:
        """K-52: fires at close-ok with the reason; code and text are sent."""
        peer = self.opened()
        channel = peer.channel()
        closed = channel.close(320, "done")
        sent = peer.only(ChannelClass.Close)
        self.assertEqual((sent.reply_code, sent.reply_text), (320, "done"))
        self.assertEqual(states(channel), (False, True, False))
        self.assertNoResult(closed)
        peer.send(ChannelClass.CloseOk())
        error = self.result(closed)
        self.assertEqual((type(error), error.reply_code, error.initiator), (ChannelClosed, 320, "client"))
        self.assertIs(self.result(channel.closed), error)
        self.assertIs(channel.close_reason, error)
        self.assertEqual(states(channel), (False, False, True))
        self.assertTrue(peer.protocol.is_open)
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_closing_again(self) -> None:
        """R29: while closing and after: one close on the wire, one reason for all."""
        peer = self.opened()
        channel = peer.channel()
        done = [channel.close(), channel.close(), channel.when_closed()]
        done[1].cancel()
        self.failed(done.pop(1), CancelledError)
        peer.send(ChannelClass.CloseOk())
        done += [channel.close(), channel.when_closed()]
        self.assertEqual(peer.names(), ["Channel.Close"])
        self.assertEqual(len({id(self.result(each)) for each in done}), 1)

    def test_everything_that_waits_ends(self) -> None:
        """R28, K-02, K-26, W-01: calls, consumers, their gets: with the reason; the connection goes on."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        waiting: list[Deferred[Any]] = [
            channel.queue_declare("q"),
            channel.basic_consume("q"),
            channel.basic_get("q"),
            consumer.get(),
        ]
        closed = channel.close()
        peer.send(ChannelClass.CloseOk())
        for deferred in waiting:
            self.assertIs(self.failed(deferred), self.result(channel.when_closed()))
        self.assertIs(self.result(consumer.when_ended()), self.result(closed))
        self.assertEqual(channel.consumers, {})
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_frames_meanwhile_are_discarded(self) -> None:
        """R17, M-13: what the broker had on its way for a closing channel reaches nobody."""
        peer = self.opened()
        channel = peer.channel()
        seen: list[Any] = []
        consumer = peer.consumer(channel, seen.append)
        declared = channel.queue_declare("q")
        channel.close()
        peer.deliver(consumer, b"1", b"2")
        peer.send(Queue.DeclareOk("q", 0, 0))
        self.assertEqual(seen, [])
        self.assertNoResult(declared)
        peer.send(ChannelClass.CloseOk())
        self.failed(declared, ChannelClosed)

    def test_acks_of_the_same_turn_are_written_first(self) -> None:
        """R22: what was acked before close() is acked; what was not is requeued by the broker, and stale here."""
        peer = self.opened()
        channel = peer.channel()
        deliveries: list[Any] = []
        peer.deliver(peer.consumer(channel, deliveries.append), b"1", b"2", b"3")
        deliveries[0].ack()
        deliveries[2].ack()
        channel.close()
        self.assertEqual(peer.names(), ["Basic.Ack", "Basic.Ack", "Channel.Close"])
        self.assertRaises(StaleDelivery, deliveries[1].ack)
        self.assertTrue(deliveries[1].is_settled)

    def test_publishes_of_the_same_turn_are_written_first(self) -> None:
        """R30: the order of the calls is the order on the wire."""
        peer = self.opened()
        channel = peer.channel()
        ignore(channel.basic_publish("", "q", b"last words"))
        channel.close()
        self.assertEqual(peer.names(), ["Basic.Publish", "Channel.Close"])

    def test_confirms_are_waited_for(self) -> None:
        """R30: up to half of close_timeout; calls made before are still answered meanwhile."""
        peer = self.opened(close_timeout=10.0)
        channel = peer.confirm_channel()
        publish, declared = channel.basic_publish("", "q", b""), channel.queue_declare("q")
        peer.read()
        closed = channel.close()
        self.failed(channel.basic_publish("", "q", b""), ChannelClosed)
        peer.send(Queue.DeclareOk("q", 0, 0))
        self.assertEqual(peer.names(), [])
        peer.send(Basic.Ack(1))
        self.assertEqual(peer.names(), ["Channel.Close"])
        self.assertEqual(self.result(publish), 1)
        self.result(declared)
        peer.send(ChannelClass.CloseOk())
        self.result(closed)

    def test_confirms_that_do_not_come(self) -> None:
        """R2, R30: channel.close after half of the time; the publish ends as unconfirmed at close-ok."""
        peer = self.opened(close_timeout=10.0)
        channel = peer.confirm_channel()
        publish = channel.basic_publish("", "q", b"")
        peer.read()
        channel.close()
        peer.clock.advance(5)
        self.assertEqual(peer.names(), ["Channel.Close"])
        self.assertNoResult(publish)
        peer.send(ChannelClass.CloseOk())
        self.assertIsInstance(self.failed(publish, PublishUnconfirmed).cause, ChannelClosed)

    def test_held_publishes_are_waited_for(self) -> None:
        """R30: channel.close is behind them; when they cannot leave in time they end as not sent."""
        peer = self.opened(close_timeout=10.0)
        channel = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        publish = channel.basic_publish("", "q", b"held")
        closed = channel.close()
        self.assertEqual(peer.names(), [])
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.names(), ["Basic.Publish", "Channel.Close"])
        self.result(publish)
        peer.send(ChannelClass.CloseOk())
        self.result(closed)

        channel = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        publish = channel.basic_publish("", "q", b"held")
        closed = channel.close()
        peer.clock.advance(5)
        self.assertEqual(peer.names(), ["Channel.Close"])
        peer.clock.advance(5)
        self.failed(publish, NotSent)
        self.result(closed)

    def test_no_answer(self) -> None:
        """R17, R30: after close_timeout it counts as closed; the number stays taken until close-ok."""
        peer = self.opened(close_timeout=4.0)
        channel = peer.channel()
        closed = channel.close()
        peer.clock.advance(3.9)
        self.assertNoResult(closed)
        peer.clock.advance(0.2)
        error = self.result(closed)
        self.assertTrue(channel.is_closed)
        self.assertIs(self.failed(channel.queue_declare("q")), error)
        self.assertEqual(int(peer.channel()), 2)
        peer.send(ChannelClass.CloseOk(), channel=1)
        self.assertEqual(int(peer.channel()), 1)

    def test_a_text_that_does_not_fit(self) -> None:
        """R29: what channel.close cannot carry does not keep the channel open, here or there."""
        peer = self.opened()
        codes: list[Any] = [200, 200, 70_000, "200"]
        for code, text in zip(codes, ("x" * 300, "ü" * 200, "", ""), strict=True):
            channel = peer.channel()
            closed = channel.close(code, text)
            peer.only(ChannelClass.Close)
            peer.send(ChannelClass.CloseOk())
            self.result(closed)
            self.assertEqual(int(channel), 1)

    def test_a_reading_pause_does_not_keep_close_ok_out(self) -> None:
        """R30, I-11: a no_ack consumer has stopped reading; what closing needs is read."""
        peer = self.opened(read_high_water_messages=2)
        channel = peer.channel()
        consumer = peer.consumer(channel, no_ack=True)
        peer.deliver(consumer, b"1", b"2")
        self.assertEqual(peer.transport.producerState, "paused")
        channel.close()
        self.assertEqual(peer.transport.producerState, "producing")
        peer.send(ChannelClass.CloseOk())
        self.assertEqual([delivery.body for delivery in consumer.queue.pending], [b"1", b"2"])  # type: ignore[union-attr]

    def test_the_connection_is_lost_meanwhile(self) -> None:
        """R28: no timer of the closing is left, whether channel.close was sent or waits for confirms."""
        for with_confirms in (False, True):
            peer = self.opened()
            channel = peer.confirm_channel() if with_confirms else peer.channel()
            publish = channel.basic_publish("", "q", b"")
            closed = channel.close()
            peer.lose()
            self.assertIsInstance(self.result(closed), ConnectionLost)
            outcomes([publish])
            self.assertEqual(peer.clock.getDelayedCalls(), [])


class ClosedByTheBrokerTests(PeerTestCase):
    def test_a_soft_error(self) -> None:
        """24.6, S-18, K-08, F-19: close-ok is sent; the call before succeeded, all behind fail with the one reason."""
        peer = self.opened()
        channel = peer.confirm_channel()
        declared = channel.queue_declare("q")
        peer.send(Queue.DeclareOk("q", 0, 0))
        failing = channel.basic_publish("x", "k", b"")
        behind: list[Deferred[Any]] = [channel.queue_bind("q", "x"), channel.basic_get("q")]
        order: list[str] = []

        def note(result: Any, what: str) -> Any:
            order.append(what)
            return result

        behind[0].addErrback(note, "call")
        channel.closed.addCallback(note, "closed")
        peer.read()
        peer.send(NOT_FOUND)
        self.assertEqual(peer.names(), ["Channel.CloseOk"])
        self.result(declared)
        error = self.failed(failing, NotFound)
        self.assertEqual((error.reply_code, error.initiator, error.method_name), (404, "server", "queue.bind"))
        self.assertIn("no exchange 'x'", str(error))
        for deferred in behind:
            self.assertIs(self.failed(deferred), error)
        self.assertIs(self.result(channel.closed), error)
        self.assertEqual(order, ["call", "closed"], "K-10")
        self.assertTrue(peer.protocol.is_open)

    def test_calls_afterwards(self) -> None:
        """K-03, K-29, W-73, W-87: the stored reason each time, nothing written, everything still readable."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        peer.send(NOT_FOUND)
        peer.read()
        reason = self.result(channel.closed)
        for _ in range(2):
            for deferred in (
                channel.queue_declare("q"),
                channel.basic_get("q"),
                channel.basic_publish("", "q", b""),
                channel.basic_consume("q"),
                channel.basic_qos(1),
                channel.confirm_select(),
                channel.tx_select(),
                consumer.get(),
            ):
                self.assertIs(self.failed(deferred), reason)
        self.assertIs(self.result(channel.close()), reason)
        self.result(channel.basic_cancel("unknown"))
        self.result(channel.basic_cancel(consumer))
        self.assertRaises(StaleDelivery, channel.basic_ack, 1)
        self.assertEqual(peer.read(), [])
        self.assertIn("closed", repr(channel))
        self.assertEqual((int(channel), channel.consumers, channel.is_open), (1, {}, False))

    def test_the_number_is_free_at_once(self) -> None:
        """M-17: in the very callback that tells the end a channel with that number can be opened."""
        peer = self.opened()
        channel = peer.channel()
        again: list[Deferred[Channel]] = []
        channel.closed.addCallback(lambda reason: again.append(peer.protocol.channel(1)))
        peer.send(NOT_FOUND)
        self.assertEqual(peer.names(), ["Channel.CloseOk", "Channel.Open"])
        peer.send(ChannelClass.OpenOk())
        self.assertEqual(int(self.result(again[0])), 1)

    def test_other_channels_lose_nothing(self) -> None:
        """R17: a confirm, a delivery and a reply for others, in the same chunk around the close, arrive."""
        peer = self.opened()
        failing, other = peer.confirm_channel(), peer.confirm_channel()
        seen: list[bytes] = []
        consumer = peer.consumer(other, lambda delivery: seen.append(delivery.body))
        publishes = [failing.basic_publish("", "q", b""), other.basic_publish("", "q", b"")]
        declared = other.queue_declare("q")
        peer.read()
        peer.send_raw(
            peer.encode(*peer.delivery(b"before", consumer.consumer_tag, 1, channel=2), channel=2)
            + peer.encode(NOT_FOUND, channel=1)
            + peer.encode(*peer.delivery(b"after", consumer.consumer_tag, 2, channel=2), channel=2)
            + peer.encode(Basic.Ack(1), Queue.DeclareOk("q", 0, 0), channel=2)
        )
        self.failed(publishes[0], NotFound)
        self.assertEqual(self.result(publishes[1]), 1)
        self.assertEqual(seen, [b"before", b"after"])
        self.result(declared)

    def test_crossing_closes(self) -> None:
        """24.7, M-15, W-16: we answer close-ok; the reason is the broker's; the number waits for ours."""
        peer = self.opened()
        channel = peer.channel()
        closed = channel.close()
        peer.send(ChannelClass.Close(406, "PRECONDITION_FAILED", 60, 80))
        self.assertEqual(peer.names(), ["Channel.Close", "Channel.CloseOk"])
        self.assertIsInstance(self.result(closed), PreconditionFailed)
        self.assertEqual(int(peer.channel()), 2)
        peer.send(ChannelClass.CloseOk(), channel=1)
        self.assertEqual(int(peer.channel()), 1)

    def test_while_our_close_waits_for_confirms(self) -> None:
        """M-16: then nothing of ours is sent any more; close() is done."""
        peer = self.opened()
        channel = peer.confirm_channel()
        publish = channel.basic_publish("", "q", b"")
        closed = channel.close()
        peer.read()
        peer.send(NOT_FOUND)
        self.assertEqual(peer.names(), ["Channel.CloseOk"])
        self.failed(publish, NotFound)
        self.assertIsInstance(self.result(closed), NotFound)
        self.assertEqual(int(peer.channel()), 1)

    def test_callbacks_that_use_the_dead_channel(self) -> None:
        """K-11: an errback may call, publish, close and cancel on it; everything fails with the reason."""
        peer = self.opened()
        channel = peer.confirm_channel()
        consumer = peer.consumer(channel)
        made: list[Deferred[Any]] = []

        def meddle(failure: object) -> None:
            made.extend([channel.queue_declare("q"), channel.basic_publish("", "q", b""), channel.basic_get("q")])
            made.append(consumer.cancel())
            channel.close()

        for _ in range(3):
            channel.queue_declare("q").addErrback(meddle)
        channel.basic_publish("", "q", b"").addErrback(meddle)
        consumer.get().addErrback(meddle)
        peer.read()
        peer.send(NOT_FOUND)
        self.assertEqual(peer.names(), ["Channel.CloseOk"])
        self.assertEqual({id(error) for error in outcomes(made) if error is not None}, {id(channel.close_reason)})
        self.assertEqual(len(made), 20)
