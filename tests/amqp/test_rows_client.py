"""What users of pika's Twisted adapter look for first, each on a peer: replies, states, numbering, the reactor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred

from tests.amqp.peer import Peer, PeerTestCase, outcomes, result_of
from txmsg.amqp import PlainCredentials
from txmsg.amqp.channel import Channel
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    ConnectionLost,
    ConsumerCancelled,
    ContentTooLarge,
    EncodeError,
    NotFound,
    PreconditionFailed,
    PublishUnconfirmed,
)
from txmsg.wire.methods import basic, confirm, exchange, queue, tx

Basic, Queue, Exchange, Tx = commands.Basic, commands.Queue, commands.Exchange, commands.Tx

#: A call, the peer's reply, and the class and fields that the Deferred has to fire with.
Case = tuple[Callable[[Channel], Deferred[Any]], Any, type, dict[str, object]]
CASES: list[Case] = [
    (lambda c: c.exchange_declare("x", "topic"), Exchange.DeclareOk(), exchange.DeclareOk, {}),
    (lambda c: c.exchange_delete("x"), Exchange.DeleteOk(), exchange.DeleteOk, {}),
    (lambda c: c.exchange_bind("d", "s"), Exchange.BindOk(), exchange.BindOk, {}),
    (lambda c: c.exchange_unbind("d", "s"), Exchange.UnbindOk(), exchange.UnbindOk, {}),
    (
        lambda c: c.queue_declare("q"),
        Queue.DeclareOk("q", 3, 2),
        queue.DeclareOk,
        {"queue": "q", "message_count": 3, "consumer_count": 2},
    ),
    (lambda c: c.queue_bind("q", "x"), Queue.BindOk(), queue.BindOk, {}),
    (lambda c: c.queue_unbind("q", "x"), Queue.UnbindOk(), queue.UnbindOk, {}),
    (lambda c: c.queue_purge("q"), Queue.PurgeOk(4), queue.PurgeOk, {"message_count": 4}),
    (lambda c: c.queue_delete("q"), Queue.DeleteOk(5), queue.DeleteOk, {"message_count": 5}),
    (lambda c: c.basic_qos(7), Basic.QosOk(), basic.QosOk, {}),
    (lambda c: c.basic_recover(), Basic.RecoverOk(), basic.RecoverOk, {}),
    (lambda c: c.tx_select(), Tx.SelectOk(), tx.SelectOk, {}),
    (lambda c: c.tx_commit(), Tx.CommitOk(), tx.CommitOk, {}),
    (lambda c: c.tx_rollback(), Tx.RollbackOk(), tx.RollbackOk, {}),
]


class ReplyTests(PeerTestCase):
    def test_every_reply_is_typed(self) -> None:
        """K-01, W-51, K-51, P-04: one Deferred for each call, fired with the one reply object and its fields."""
        peer = self.opened()
        channel = peer.channel()
        for call, reply, kind, fields in CASES:
            deferred = call(channel)
            self.assertEqual(len(peer.names()), 1)
            self.assertNoResult(deferred)
            peer.send(reply)
            result = self.successResultOf(deferred)
            self.assertIs(type(result), kind)
            self.assertEqual({name: getattr(result, name) for name in fields}, fields)

    def test_confirm_select_twice(self) -> None:
        """K-38, N-16, M-11: the second one succeeds, sends nothing, and does not begin to count anew."""
        peer = self.opened()
        channel = peer.channel()
        selected = channel.confirm_select()
        peer.only(commands.Confirm.Select)
        peer.send(commands.Confirm.SelectOk())
        self.assertIsInstance(self.successResultOf(selected), confirm.SelectOk)
        first = channel.basic_publish("", "q", b"1")
        self.successResultOf(channel.confirm_select())
        second = channel.basic_publish("", "q", b"2")
        self.assertEqual(peer.names(), ["Basic.Publish", "Basic.Publish"])
        peer.send(Basic.Ack(2, True))
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (1, 2))

    def test_confirms_begin_anew_on_another_connection(self) -> None:
        """W-36, N-01, N-15: pending ones fail; the next channel counts from 1 and nothing is left of the old."""
        old = self.opened()
        channel = old.confirm_channel()
        lost = [channel.basic_publish("", "q", b"%d" % n) for n in range(3)]
        old.lose()
        for deferred in lost:
            self.failed(deferred, PublishUnconfirmed)
        new = self.opened()
        again = new.confirm_channel().basic_publish("", "q", b"again")
        new.send(Basic.Ack(1, False))
        self.assertEqual(self.successResultOf(again), 1)

    def test_a_broker_without_confirms(self) -> None:
        """M-11, S-33: 540 ends the connection; confirm_select and the publish behind it fail with that."""
        peer = self.opened()
        channel = peer.channel()
        waiting = outcomes([channel.confirm_select(), channel.basic_publish("", "q", b"x")])
        peer.send(commands.Connection.Close(540, "NOT_IMPLEMENTED", 85, 10))
        for error in waiting:
            self.assertIsInstance(error, ConnectionClosed)
            self.assertEqual(error.reply_code, 540)

    def test_a_message_too_large_for_the_broker(self) -> None:
        """F43: the broker closes the channel, with 406 or 311; the publish fails with the broker's words."""
        for code, kind in ((406, PreconditionFailed), (311, ContentTooLarge)):
            peer = self.opened()
            publish = peer.confirm_channel().basic_publish("", "q", b"x" * 1000)
            peer.send(commands.Channel.Close(code, "message size 1000 is larger than configured", 60, 40))
            error = self.failed(publish, kind)
            self.assertIn("message size 1000", error.reply_text)
            self.assertEqual(error.method_name, "basic.publish")
            self.assertTrue(peer.protocol.is_open)

    def test_empty_routing_keys(self) -> None:
        """K-35, W-76: "" is a key like any other and is sent as it is, and is the default but for queue_bind's None."""
        peer = self.opened()
        channel = peer.channel()
        channel.queue_bind("q", "x", "").addErrback(lambda failure: None)
        self.assertEqual(peer.only(Queue.Bind).routing_key, "")
        channel.queue_unbind("q", "x", "").addErrback(lambda failure: None)
        self.assertEqual(peer.only(Queue.Unbind).routing_key, "")
        channel.queue_bind("q", "x").addErrback(lambda failure: None)
        self.assertEqual(peer.only(Queue.Bind).routing_key, "q")
        channel.exchange_bind("d", "s").addErrback(lambda failure: None)
        self.assertEqual(peer.only(Exchange.Bind).routing_key, "")
        channel.basic_publish("x", "", b"m")
        (_, publish), *_ = peer.read()
        assert isinstance(publish, Basic.Publish)
        self.assertEqual(publish.routing_key, "")

    def test_a_refused_call_leaves_nothing_behind(self) -> None:
        """K-06, K-05: its Deferred has failed and is not failed again, nor logged, when the channel closes."""
        peer = self.opened()
        channel = peer.channel()
        self.failed(channel.queue_declare("q" * 300), EncodeError)
        self.failed(channel.queue_declare(queue=123), EncodeError)  # type: ignore[call-overload]
        self.assertEqual(peer.names(), [])
        self.assertIn("0 calls waiting", repr(channel))
        peer.send(commands.Channel.Close(404, "NOT_FOUND", 50, 10))
        self.assertIsInstance(self.successResultOf(channel.closed), NotFound)
        self.flushed_nothing()

    def flushed_nothing(self) -> None:
        """Nothing has been logged as an error."""
        self.assertEqual(self.flushLoggedErrors(), [])


class StateTests(PeerTestCase):
    def test_attributes_of_a_channel(self) -> None:
        """K-54, M-25, M-01: its states, number, connection, consumers and flow, before and after the end."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        self.assertEqual((channel.is_open, channel.is_closing, channel.is_closed), (True, False, False))
        self.assertEqual((channel.channel_number, int(channel)), (1, 1))
        self.assertIs(channel.connection, peer.protocol)
        self.assertEqual(channel.consumers, {consumer.consumer_tag: consumer})
        self.assertTrue(channel.flow_active)
        self.assertIn("Channel 1 open", repr(channel))
        channel.close()
        self.assertEqual((channel.is_open, channel.is_closing, channel.is_closed), (False, True, False))
        peer.send(commands.Channel.CloseOk())
        self.assertEqual((channel.is_open, channel.is_closing, channel.is_closed), (False, False, True))
        self.assertEqual(channel.consumers, {})
        self.assertIs(channel.connection, peer.protocol)

    def test_no_other_attributes(self) -> None:
        """K-55: what is no method of a channel is an AttributeError, whatever the layers below have."""
        channel = self.opened().channel()
        self.assertRaises(AttributeError, getattr, channel, "add_callback")
        self.assertRaises(AttributeError, getattr, channel, "_send_method")

    def test_publishing_while_the_channel_closes(self) -> None:
        """K-32, S-17: a failed Deferred in each state that is not open, never an exception; nothing is written."""
        peer = self.opened()
        channel = peer.channel()
        channel.close(reply_text="enough")
        peer.read()
        closing = self.failed(channel.basic_publish("", "q", b"x"), ChannelClosed)
        self.assertEqual((closing.initiator, closing.reply_text), ("client", "enough"))
        peer.send(commands.Channel.CloseOk())
        self.assertIs(self.failed(channel.basic_publish("", "q", b"x"), ChannelClosed), closing)
        self.assertEqual(peer.names(), [])

    def test_three_kinds_of_reasons(self) -> None:
        """M-04, K-10, W-65, W-67: by the broker, by us, with the connection: one exception object each."""
        peer = self.opened()
        by_broker, by_us, by_loss = peer.channel(), peer.channel(), peer.channel()
        peer.send(commands.Channel.Close(404, "NOT_FOUND - no queue", 60, 20), channel=1)
        by_us.close(reply_text="done")
        peer.read()
        peer.send(commands.Channel.CloseOk(), channel=2)
        peer.lose()
        reasons: list[Any] = [self.successResultOf(channel.closed) for channel in (by_broker, by_us, by_loss)]
        self.assertIsInstance(reasons[0], NotFound)
        self.assertEqual(reasons[0].initiator, "server")
        self.assertEqual((type(reasons[1]), reasons[1].initiator), (ChannelClosed, "client"))
        self.assertIsInstance(reasons[2], ConnectionLost)
        self.assertIs(reasons[2], self.successResultOf(peer.protocol.closed))

    def test_close_needs_no_cancel_and_no_channel_close(self) -> None:
        """F-11, F-12: connection.close alone is sent; the broker ends channels and consumers with it, and so do we."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        waiting = consumer.get()
        peer.protocol.close()
        self.assertEqual(peer.names(), ["Connection.Close"])
        peer.send(commands.Connection.CloseOk())
        peer.lose()
        for error in (
            self.failed(waiting, ConnectionClosed),
            result_of(channel.closed),
            result_of(consumer.when_ended()),
        ):
            self.assertEqual(error.initiator, "client")

    def test_a_cancel_by_the_broker(self) -> None:
        """M-03, S-22, O-10: the consumer ends and says who did it; its channel goes on."""
        peer = self.opened()
        channel = peer.channel()
        consumer = peer.consumer(channel)
        ended = consumer.when_ended()
        peer.send(Basic.Cancel(consumer.consumer_tag, True))
        error: Any = self.successResultOf(ended)
        self.assertIsInstance(error, ConsumerCancelled)
        self.assertEqual((error.initiator, error.consumer_tag, error.queue), ("server", consumer.consumer_tag, "q"))
        self.assertFalse(consumer.is_active)
        self.assertTrue(channel.is_open)

    def test_how_much_is_buffered(self) -> None:
        """U-11: the number of deliveries that wait to be read."""
        peer = self.opened()
        consumer = peer.consumer(peer.channel())
        peer.deliver(consumer, b"1", b"2", b"3")
        assert consumer.queue is not None
        self.assertEqual(len(consumer.queue.pending), 3)
        self.successResultOf(consumer.get())
        self.assertEqual(len(consumer.queue.pending), 2)


class ReactorTests(PeerTestCase):
    def test_where_to_connect_is_not_the_protocols_business(self) -> None:
        """J-02: host and port are not looked at; virtual host and tuning are."""
        peer = self.opened(
            host="broker.invalid", port=1, credentials=PlainCredentials("u", "p"), virtual_host="/app", channel_max=5
        )
        self.assertTrue(peer.protocol.is_open)
        assert peer.protocol.negotiated is not None
        self.assertEqual(peer.protocol.negotiated.channel_max, 5)
        opened = [decoded for _, decoded in peer.frames if isinstance(decoded, commands.Connection.Open)]
        self.assertEqual([method.virtual_host for method in opened], ["/app"])

    def test_the_reactor_is_never_stopped(self) -> None:
        """J-20, W-70: neither by a close, nor by the broker's, nor by an abort, a loss or nonsense."""
        endings: list[Callable[[Peer], object]] = [
            lambda peer: peer.protocol.close(),
            lambda peer: peer.send(commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0)),
            lambda peer: peer.protocol.abort(),
            lambda peer: peer.lose(),
            lambda peer: peer.send_raw(b"\xff" * 100),
        ]
        for end in endings:
            peer = self.opened()
            stopped: list[str] = []
            for name in ("stop", "crash", "disconnectAll"):
                setattr(peer.clock, name, partial(stopped.append, name))
            end(peer)
            peer.clock.advance(60)
            peer.lose()
            peer.clock.advance(60)
            self.assertTrue(peer.protocol.is_closed)
            self.assertEqual(stopped, [])
