"""The life of an open connection: who learns of its end, with which reason, and how long it may take."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost as SocketLost

from tests.amqp.peer import Peer, PeerTestCase, outcomes
from txmsg.amqp.channel import Channel
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    ConnectionWrongState,
    InternalError,
    NotSent,
    PublishUnconfirmed,
    StaleDelivery,
)

Connection = commands.Connection


def states(peer: Peer) -> tuple[bool, bool, bool]:
    """(is_open, is_closing, is_closed)."""
    protocol = peer.protocol
    return protocol.is_open, protocol.is_closing, protocol.is_closed


class WaitingTests(PeerTestCase):
    def test_when_ready(self) -> None:
        """J-05: a fresh Deferred each time, before and after the fact; one may be cancelled without harm."""
        peer = self.peer()
        waiters = [peer.protocol.when_ready() for _ in range(3)]
        waiters[1].cancel()
        self.failed(waiters[1], CancelledError)
        peer.open()
        for waiter in (waiters[0], waiters[2], peer.protocol.when_ready(), peer.protocol.when_ready()):
            self.assertIs(self.result(waiter), peer.protocol)
        closed = peer.protocol.close()
        self.failed(peer.protocol.when_ready(), ConnectionWrongState)
        peer.lose()
        self.assertIs(self.failed(peer.protocol.when_ready()), self.result(closed))

    def test_ready_fires_once(self) -> None:
        """J-07, 24.2: `ready` has succeeded; the end of the connection is for `closed`."""
        peer = self.opened()
        self.assertIs(self.result(peer.protocol.ready), peer.protocol)
        peer.lose(SocketLost())
        self.assertIsInstance(self.result(peer.protocol.closed), ConnectionLost)

    def test_when_closed(self) -> None:
        """J-08, J-09, F-04: fires with the reason as a result; the same object for all; at any time."""
        peer = self.peer()
        waiters = [peer.protocol.when_closed()]
        peer.open()
        waiters += [peer.protocol.when_closed(), peer.protocol.when_closed()]
        waiters[2].cancel()
        self.failed(waiters.pop(), CancelledError)
        cause = SocketLost()
        peer.lose(cause)
        error = self.result(peer.protocol.closed)
        self.assertIs(type(error), ConnectionLost)
        self.assertIs(error.cause, cause)
        self.assertEqual(error.initiator, "transport")
        for waiter in (*waiters, peer.protocol.when_closed()):
            self.assertIs(self.result(waiter), error)

    def test_states_exclude_each_other(self) -> None:
        """F-06, J-17: none of the three while opening; then one at a time."""
        peer = self.peer()
        self.assertEqual(states(peer), (False, False, False))
        peer.open()
        self.assertEqual(states(peer), (True, False, False))
        self.assertIsNone(peer.protocol.close_reason)
        peer.protocol.close()
        self.assertEqual(states(peer), (False, True, False))
        peer.send(Connection.CloseOk())
        self.assertEqual(states(peer), (False, True, False), "the socket is still there")
        peer.lose()
        self.assertEqual(states(peer), (False, False, True))
        self.assertIsInstance(peer.protocol.close_reason, ConnectionClosed)


class ClosingTests(PeerTestCase):
    def test_an_orderly_close(self) -> None:
        """F-11, F-14, W-09, W-80: connection.close with code and text; fires when the socket is gone."""
        peer = self.opened()
        closed = peer.protocol.close(320, "see you")
        sent = peer.only(Connection.Close)
        self.assertEqual((sent.reply_code, sent.reply_text, sent.class_id, sent.method_id), (320, "see you", 0, 0))
        self.assertNoResult(closed)
        peer.send(Connection.CloseOk())
        self.assertTrue(peer.transport.disconnecting)
        self.assertFalse(peer.transport.disconnected)
        self.assertNoResult(closed)
        peer.lose()
        error = self.result(closed)
        self.assertIs(type(error), ConnectionClosed)
        self.assertEqual((error.reply_code, error.reply_text, error.initiator), (320, "see you", "client"))
        self.assertIs(self.result(peer.protocol.closed), error)

    def test_closing_again(self) -> None:
        """R29, J-13, W-14: twice, while closing and after: one close on the wire, one reason."""
        peer = self.opened()
        done = [peer.protocol.close() for _ in range(2)]
        peer.send(Connection.CloseOk())
        done.append(peer.protocol.close())
        self.assertEqual(peer.names(), ["Connection.Close"])
        peer.lose()
        done.append(peer.protocol.close())
        self.assertEqual(len({id(self.result(each)) for each in done}), 1)

    def test_a_cancelled_waiter(self) -> None:
        """R8: cancelling what close() returned stops the waiting, not the closing."""
        peer = self.opened()
        closed = peer.protocol.close()
        closed.cancel()
        self.failed(closed, CancelledError)
        peer.send(Connection.CloseOk())
        self.assertTrue(peer.transport.disconnecting)

    def test_a_text_that_does_not_fit(self) -> None:
        """R29, R30: what connection.close cannot carry is left out: the end is orderly all the same."""
        for code, text in ((200, "x" * 300), (1 << 16, "")):
            peer = self.opened()
            closed = peer.protocol.close(code, text)
            sent = peer.only(Connection.Close)
            self.assertEqual((sent.reply_code, sent.reply_text), (200, ""))
            peer.send(Connection.CloseOk())
            peer.lose()
            self.assertEqual(self.result(closed).reply_code, code)

    def test_no_answer(self) -> None:
        """R30: after close_timeout the socket is aborted; the reason is still ours."""
        peer = self.opened(close_timeout=4.0)
        closed = peer.protocol.close()
        peer.clock.advance(3.9)
        self.assertFalse(peer.transport.disconnected)
        peer.clock.advance(0.2)
        self.assertTrue(peer.transport.disconnected)
        peer.lose()
        self.assertEqual(self.result(closed).initiator, "client")

    def test_a_socket_that_does_not_close(self) -> None:
        """R30: after close-ok the peer has a second to close; then it is aborted."""
        peer = self.opened()
        peer.protocol.close()
        peer.send(Connection.CloseOk())
        peer.clock.advance(0.9)
        self.assertFalse(peer.transport.disconnected)
        peer.clock.advance(0.2)
        self.assertTrue(peer.transport.disconnected)

    def test_lost_while_closing(self) -> None:
        """J-09: the socket may go before close-ok: we asked for the end, so the reason is ours."""
        peer = self.opened()
        closed = peer.protocol.close()
        peer.lose(SocketLost())
        self.assertEqual(self.result(closed).initiator, "client")

    def test_everything_that_waits_ends(self) -> None:
        """R28, F-15, F-21, K-02, W-68, W-84: channels opening, open and closing, calls, gets, consumers: with the one
        reason.
        """
        peer = self.opened()
        first, second = peer.channel(), peer.channel()
        consumer = peer.consumer(first)
        opening = peer.protocol.channel()
        closing = second.close()
        waiting: list[Deferred[Any]] = [
            opening,
            first.queue_declare("q"),
            first.basic_get("q"),
            first.basic_consume("q"),
            consumer.get(),
        ]
        done = peer.protocol.close()
        peer.send(Connection.CloseOk())
        self.assertEqual(len(peer.clock.getDelayedCalls()), 1, "only the second that the peer has to close")
        for deferred in waiting:
            self.assertEqual(self.failed(deferred).initiator, "client")
        for waiter in (closing, first.closed, second.closed, consumer.when_ended()):
            self.assertEqual(self.result(waiter).initiator, "client")
        peer.lose()
        self.result(done)

    def test_calls_while_closing(self) -> None:
        """F-18, K-03: nothing new begins on a connection that is closing; nothing follows connection.close."""
        peer = self.opened()
        channel = peer.confirm_channel()
        delivery = self.delivered(peer, channel)
        peer.protocol.close(320, "going")
        peer.read()
        for deferred in (channel.queue_declare("q"), channel.basic_publish("", "q", b"")):
            error = self.failed(deferred, ChannelClosed)
            self.assertEqual((error.initiator, error.reply_code), ("client", 320))
            self.assertIn("going", str(error))
        self.failed(peer.protocol.channel(), ConnectionWrongState)
        self.assertRaises(StaleDelivery, delivery.ack)
        self.assertEqual(peer.read(), [])

    def delivered(self, peer: Peer, channel: Channel) -> Any:
        found: list[Any] = []
        peer.deliver(peer.consumer(channel, found.append), b"message")
        return found[0]

    def test_a_channel_that_is_closing_already(self) -> None:
        """R29: its own close goes on, with its own reason."""
        peer = self.opened()
        channel = peer.channel()
        closed = channel.close(320, "the channel's own")
        peer.protocol.close()
        self.assertEqual(peer.names(), ["Channel.Close", "Connection.Close"])
        self.assertIn("the channel's own", str(self.failed(channel.queue_declare("q"))))
        peer.send(Connection.CloseOk())
        self.assertEqual(self.result(closed).initiator, "client")

    def test_acks_given_before_are_written(self) -> None:
        """R22, R30: an ack of the same turn precedes connection.close."""
        peer = self.opened()
        self.delivered(peer, peer.channel()).ack()
        peer.protocol.close()
        self.assertEqual(peer.names(), ["Basic.Ack", "Connection.Close"])

    def test_publishes_of_the_same_turn_are_written(self) -> None:
        """R30: a publish without confirms precedes connection.close."""
        peer = self.opened()
        channel = peer.channel()
        self.result(channel.basic_publish("", "q", b"last words"))
        peer.protocol.close()
        self.assertEqual(peer.names(), ["Basic.Publish", "Connection.Close"])

    def test_confirms_are_waited_for(self) -> None:
        """R30: unconfirmed publishes get half of close_timeout; connection.close follows the last answer."""
        peer = self.opened(close_timeout=10.0)
        channels = [peer.confirm_channel(), peer.confirm_channel()]
        publishes = [channel.basic_publish("", "q", b"") for channel in channels]
        peer.read()
        peer.protocol.close()
        peer.clock.advance(1)
        peer.send(commands.Basic.Ack(1), channel=1)
        self.assertEqual(peer.names(), [])
        peer.send(commands.Basic.Ack(1), channel=2)
        self.assertEqual(peer.names(), ["Connection.Close"])
        self.assertEqual(outcomes(publishes), [1, 1])

    def test_confirms_that_do_not_come(self) -> None:
        """R2, R30: after half of the time connection.close is sent; the publishes end as unconfirmed, in time."""
        peer = self.opened(close_timeout=10.0)
        channel = peer.confirm_channel()
        publish = channel.basic_publish("", "q", b"")
        peer.read()
        done = peer.protocol.close()
        peer.clock.advance(4.9)
        self.assertEqual(peer.names(), [])
        peer.clock.advance(0.2)
        self.assertEqual(peer.names(), ["Connection.Close"])
        self.assertNoResult(publish)
        peer.clock.advance(5)
        error = self.failed(publish, PublishUnconfirmed)
        self.assertIsInstance(error.cause, ConnectionClosed)
        peer.lose()
        self.result(done)

    def test_while_blocked(self) -> None:
        """R30, 0.6: the broker reads nothing; held publishes fail as not sent, and it ends in its time."""
        peer = self.opened(close_timeout=10.0)
        channel = peer.confirm_channel()
        peer.send(Connection.Blocked("low on memory"))
        publish = channel.basic_publish("", "q", b"")
        done = peer.protocol.close()
        peer.clock.advance(5)
        self.assertEqual(peer.names(), ["Connection.Close"])
        peer.clock.advance(5)
        self.assertTrue(peer.transport.disconnected)
        self.failed(publish, NotSent)
        peer.lose()
        self.result(done)

    def test_lost_while_confirms_are_waited_for(self) -> None:
        """R28: the waiting ends with the connection."""
        peer = self.opened()
        publish = peer.confirm_channel().basic_publish("", "q", b"")
        peer.protocol.close()
        peer.lose(SocketLost())
        self.failed(publish, PublishUnconfirmed)

    def test_a_reading_pause_does_not_keep_close_ok_out(self) -> None:
        """R30, I-11: a no_ack consumer with too much on its hands has stopped reading; closing reads on."""
        peer = self.opened(read_high_water_messages=2)
        consumer = peer.consumer(peer.channel(), no_ack=True)
        peer.deliver(consumer, b"1", b"2")
        self.assertEqual(peer.transport.producerState, "paused")
        peer.protocol.close()
        self.assertEqual(peer.transport.producerState, "producing")
        peer.send(Connection.CloseOk())


class ClosedByTheBrokerTests(PeerTestCase):
    def test_the_reason_reaches_everybody(self) -> None:
        """24.1, F-16, F-19, S-11, S-12, W-81: close-ok is sent; code, text and method are in the one object that all
        get.
        """
        peer = self.opened()
        channels = [peer.channel(), peer.channel()]
        consumer = peer.consumer(channels[0])
        waiting: list[Deferred[Any]] = [
            channels[0].queue_declare("q"),
            channels[1].basic_get("q"),
            consumer.get(),
            peer.protocol.channel(),
        ]
        peer.read()
        peer.send(Connection.Close(320, "CONNECTION_FORCED - bye", 50, 10))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.assertTrue(peer.transport.disconnecting)
        error = self.failed(waiting[0], ConnectionForced)
        self.assertEqual(
            (error.reply_code, error.reply_text, error.initiator), (320, "CONNECTION_FORCED - bye", "server")
        )
        self.assertEqual((error.class_id, error.method_id, error.method_name), (50, 10, "queue.declare"))
        for deferred in waiting[1:]:
            self.assertIs(self.failed(deferred), error)
        for channel in channels:
            self.assertIs(self.result(channel.closed), error)
        self.assertIs(self.result(consumer.when_ended()), error)
        self.assertNoResult(peer.protocol.closed)
        peer.lose()
        self.assertIs(self.result(peer.protocol.closed), error)

    def test_unconfirmed_publishes_get_the_brokers_error(self) -> None:
        """N-15: the documented outcome of a close by the broker."""
        peer = self.opened()
        publish = peer.confirm_channel().basic_publish("", "q", b"")
        peer.read()
        peer.send(Connection.Close(541, "INTERNAL_ERROR", 0, 0))
        self.failed(publish, InternalError)

    def test_crossing_closes(self) -> None:
        """24.7 for connections, A-02: both sides close at once: close-ok is written, the broker's reason counts."""
        peer = self.opened()
        closed = peer.protocol.close()
        peer.send(Connection.Close(320, "bye", 0, 0))
        self.assertEqual(peer.names(), ["Connection.Close", "Connection.CloseOk"])
        peer.send(Connection.CloseOk())
        peer.lose()
        self.assertIsInstance(self.result(closed), ConnectionForced)

    def test_while_we_wait_for_confirms(self) -> None:
        """R29: our own connection.close is then not sent any more."""
        peer = self.opened()
        publish = peer.confirm_channel().basic_publish("", "q", b"")
        closed = peer.protocol.close()
        peer.read()
        peer.send(Connection.Close(320, "bye", 0, 0))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.failed(publish, ConnectionForced)
        peer.lose()
        self.assertIsInstance(self.result(closed), ConnectionForced)

    def test_in_the_middle_of_a_chunk(self) -> None:
        """24.6: what came before counts, what comes after does not."""
        peer = self.opened()
        channel = peer.confirm_channel()
        publishes = [channel.basic_publish("", "q", b"") for _ in range(2)]
        peer.read()
        peer.send_raw(
            peer.encode(commands.Basic.Ack(1))
            + peer.encode(Connection.Close(320, "", 0, 0))
            + peer.encode(commands.Basic.Ack(2))
        )
        found = outcomes(publishes)
        self.assertEqual(found[0], 1)
        self.assertIsInstance(found[1], ConnectionForced)


class AbortTests(PeerTestCase):
    def test_abort(self) -> None:
        """H-03: the socket is dropped at once, without a word; everybody learns it now."""
        peer = self.opened()
        channel = peer.confirm_channel()
        publish, declared = channel.basic_publish("", "q", b""), channel.queue_declare("q")
        peer.read()
        peer.protocol.abort()
        self.assertTrue(peer.transport.disconnected)
        self.assertEqual(peer.read(), [])
        self.assertEqual(self.failed(declared, ConnectionClosed).initiator, "client")
        self.failed(publish, PublishUnconfirmed)
        peer.lose()
        self.assertIn("aborted", str(self.result(peer.protocol.closed)))

    def test_with_a_reason(self) -> None:
        """Who aborts may say why; the first reason stays."""
        reason = ConnectionLost("the disk is full")
        peer = self.opened()
        peer.protocol.abort(reason)
        peer.protocol.abort(ConnectionLost("another"))
        peer.lose()
        self.assertIs(self.result(peer.protocol.closed), reason)

    def test_before_there_is_a_socket_and_after(self) -> None:
        """R29: legal at any time."""
        peer = self.peer()
        peer.protocol.abort()
        self.failed(peer.protocol.ready, ConnectionClosed)
        self.result(peer.protocol.when_closed())
        peer.protocol.abort()

    def test_output_of_the_same_turn_is_dropped(self) -> None:
        """A publish that was not handed to the socket is not written after the end."""
        peer = self.opened()
        channel = peer.channel()
        channel.basic_publish("", "q", b"")
        peer.protocol.abort()
        self.assertEqual(peer.read(), [])

    def test_data_after_the_end(self) -> None:
        """W-34: whatever still arrives is ignored."""
        peer = self.opened()
        seen: list[Any] = []
        consumer = peer.consumer(peer.channel(), seen.append)
        peer.protocol.abort()
        peer.deliver(consumer, b"late")
        peer.send(Connection.Close(320, "late", 0, 0))
        self.assertEqual((seen, peer.read()), ([], []))
