"""How the calls of a channel are written, answered and given up, also behind publishes that are held."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError

from tests.amqp.peer import Peer, PeerTestCase, ignore
from txmsg.amqp.channel import Channel
from txmsg.errors import (
    EncodeError,
    NotSent,
    OperationTimeout,
)
from txmsg.wire.methods import queue

Basic, Connection, Queue = commands.Basic, commands.Connection, commands.Queue


class CallTests(PeerTestCase):
    def test_calls_are_written_without_waiting(self) -> None:
        """K-07, W-86: in the order of the calls; their replies find them in that order (kombu D36)."""
        peer = self.opened()
        channel = peer.channel()
        declared = [channel.queue_declare(name) for name in ("a", "b")]
        purged = channel.queue_purge("a")
        self.assertEqual(peer.names(), ["Queue.Declare", "Queue.Declare", "Queue.Purge"])
        peer.send(Queue.DeclareOk("a", 0, 0), Queue.DeclareOk("b", 0, 0), Queue.PurgeOk(3))
        self.assertEqual([self.result(each).queue for each in declared], ["a", "b"])
        self.assertEqual(self.result(purged).message_count, 3)

    def test_replies_out_of_order(self) -> None:
        """RabbitMQ may send consume-ok after a later declare-ok."""
        peer = self.opened()
        channel = peer.channel()
        consuming = channel.basic_consume("q", consumer_tag="c")
        declared = channel.queue_declare("other")
        peer.send(Basic.QosOk(), Queue.DeclareOk("other", 0, 0))
        self.assertEqual(self.result(declared).queue, "other")
        self.assertNoResult(consuming)
        peer.send(Basic.ConsumeOk("c"))
        self.assertEqual(self.result(consuming).consumer_tag, "c")

    def test_nowait(self) -> None:
        """M-07: the bit is set, the Deferred has fired with None, and no reply is waited for (kombu D28)."""
        peer = self.opened()
        channel = peer.channel()
        self.assertIsNone(self.result(channel.queue_declare("q", nowait=True)))
        self.assertTrue(peer.only(Queue.Declare).nowait)
        later = channel.queue_declare("other")
        peer.send(Queue.DeclareOk("other", 0, 0))
        self.assertEqual(self.result(later).queue, "other")

    def test_what_cannot_be_sent(self) -> None:
        """K-05, K-06, M-22, Q-21, Q-22: a failed EncodeError at once, nothing on the wire, the channel usable."""
        peer = self.opened()
        channel = peer.channel()
        declare: Any = channel.queue_declare
        exchange_declare: Any = channel.exchange_declare
        consume: Any = channel.basic_consume
        get: Any = channel.basic_get
        bad: list[Any] = [
            declare("x" * 256),
            declare("ü" * 128),
            declare(123),
            declare(None),
            declare("q", arguments={"x": object()}),
            declare("q", arguments={1: 2}),
            declare("q", arguments=5),
            declare("q", arguments="ab"),
            declare("q", arguments=[("a",)]),
            declare("q", arguments={"x": "y" * 200_000}),
            exchange_declare("x", 5),
            channel.basic_qos(70_000),
            channel.basic_qos(-1),
            consume("x" * 256),
            consume("q", arguments=5),
            get(b"q\xff" * 200),
        ]
        for number, deferred in enumerate(bad):
            with self.subTest(number):
                self.failed(deferred, EncodeError)
        self.assertEqual(set(peer.names()), {"Basic.Qos"}, "the prefetch of the consumes; nothing else")
        self.assertEqual(channel.consumers, {})
        self.assertTrue(channel.is_open)
        declared = channel.queue_declare("q")
        peer.send(Queue.DeclareOk("q", 0, 0))
        self.result(declared)

    def test_unicode_names(self) -> None:
        """W-22, W-72: names and keys are UTF-8."""
        peer = self.opened()
        ignore(peer.channel().queue_declare("schlange-ü", arguments={"ключ": "wert"}))
        sent = peer.only(Queue.Declare)
        self.assertEqual((sent.queue, sent.arguments), ("schlange-ü", {"ключ": "wert"}))

    def test_cancelling(self) -> None:
        """R8: the late reply is swallowed, the next call gets its own, for every kind of call."""
        peer = self.opened()
        channel = peer.channel()
        for make, reply in (
            (lambda: channel.queue_declare("q"), Queue.DeclareOk("q", 0, 0)),
            (lambda: channel.queue_purge("q"), Queue.PurgeOk(1)),
            (lambda: channel.basic_qos(5), Basic.QosOk()),
            (lambda: channel.exchange_declare("x"), commands.Exchange.DeclareOk()),
            (lambda: channel.tx_select(), commands.Tx.SelectOk()),
            (lambda: channel.basic_recover(), Basic.RecoverOk()),
        ):
            cancelled, kept = make(), make()
            cancelled.cancel()
            self.failed(cancelled, CancelledError)
            peer.send(reply)
            self.assertNoResult(kept)
            peer.send(reply)
            self.result(kept)
        self.assertTrue(channel.is_open)

    def test_time_out(self) -> None:
        """R2, R16: OperationTimeout says whether the broker has blocked us; the channel stays usable."""
        peer = self.opened(operation_timeout=5.0)
        channel = peer.channel()
        declared = channel.queue_declare("q")
        peer.clock.advance(5)
        self.assertFalse(self.failed(declared, OperationTimeout).blocked)
        peer.send(Connection.Blocked("low on memory"))
        bound = channel.queue_bind("q", "x")
        peer.clock.advance(5)
        self.assertTrue(self.failed(bound, OperationTimeout).blocked)
        peer.send(Connection.Unblocked(), Queue.DeclareOk("q", 0, 0), Queue.BindOk())
        again = channel.queue_declare("q")
        peer.send(Queue.DeclareOk("q", 1, 0))
        self.assertEqual(self.result(again), queue.DeclareOk("q", 1, 0))
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_a_reply_nobody_asked_for(self) -> None:
        """W-85, R18: a violation of the broker's ends the connection with a typed error."""
        peer = self.opened()
        channel = peer.channel()
        declared = channel.queue_declare("q")
        peer.read()
        peer.send(Queue.PurgeOk(1))
        self.assertEqual(peer.only(Connection.Close).reply_code, 503)
        self.assertIn("queue.purge-ok", str(self.failed(declared)))

    def test_acks_go_before_the_next_method(self) -> None:
        """W-89, P-02: a method sees the acks that were given before it."""
        peer = self.opened()
        channel = peer.channel()
        deliveries: list[Any] = []
        peer.deliver(peer.consumer(channel, deliveries.append), b"1", b"2")
        deliveries[1].ack()
        ignore(channel.basic_recover())
        self.assertEqual(peer.names(), ["Basic.Ack", "Basic.Recover"])


class BehindHeldPublishesTests(PeerTestCase):
    """R4: while publishes of a channel are held, its methods wait behind them."""

    def blocked(self, **options: Any) -> tuple[Peer, Channel]:
        peer = self.opened(**options)
        channel = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        ignore(channel.basic_publish("", "q", b"held"))
        return peer, channel

    def test_the_order_of_the_calls(self) -> None:
        peer, channel = self.blocked()
        other = peer.channel()
        declared = channel.queue_declare("q")
        ignore(channel.basic_publish("", "q", b"more"), other.queue_purge("q"))
        self.assertEqual(peer.names(), ["Queue.Purge"], "another channel does not wait")
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.names(), ["Basic.Publish", "Queue.Declare", "Basic.Publish"])
        peer.send(Queue.DeclareOk("q", 0, 0))
        self.result(declared)

    def test_no_reply_before_it_is_written(self) -> None:
        """A reply for a method that has not left is nobody's."""
        peer, channel = self.blocked()
        ignore(channel.queue_declare("q"))
        peer.send(Queue.DeclareOk("q", 0, 0))
        self.assertEqual(peer.only(Connection.Close).reply_code, 503)

    def test_cancelled_or_timed_out_it_does_not_leave(self) -> None:
        """R8: nobody waits for it, and it has not begun."""
        peer, channel = self.blocked(operation_timeout=5.0)
        cancelled, timed_out = channel.queue_declare("a"), channel.queue_declare("b")
        cancelled.cancel()
        self.failed(cancelled, CancelledError)
        peer.clock.advance(4)
        kept = channel.queue_declare("c")
        peer.clock.advance(1)
        self.assertTrue(self.failed(timed_out, OperationTimeout).blocked)
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.only(Queue.Declare).queue, "c", "the publish has had its time too")
        peer.send(Queue.DeclareOk("c", 0, 0))
        self.assertEqual(self.result(kept).queue, "c")

    def test_nowait(self) -> None:
        """Fires when it is written, not before."""
        peer, channel = self.blocked()
        declared = channel.queue_declare("q", nowait=True)
        self.assertNoResult(declared)
        peer.send(Connection.Unblocked())
        self.assertIsNone(self.result(declared))
        self.assertEqual(peer.clock.getDelayedCalls()[1:], [], "only the outbox's own timer may be there")

    def test_what_cannot_be_sent(self) -> None:
        """EncodeError at once, or when it is written if only then it is known; the rest goes on."""
        peer, channel = self.blocked()
        self.failed(channel.queue_declare("x" * 256), EncodeError)
        too_large = channel.queue_declare("q", arguments={"x": "y" * 200_000})
        behind = channel.queue_declare("behind")
        peer.send(Connection.Unblocked())
        self.failed(too_large, EncodeError)
        self.assertEqual(peer.names(), ["Basic.Publish", "Queue.Declare"])
        peer.send(Queue.DeclareOk("behind", 0, 0))
        self.result(behind)

    def test_the_end_meanwhile(self) -> None:
        """R28: held calls fail with the reason, and nothing of them is left."""
        peer, channel = self.blocked()
        declared = channel.queue_declare("q")
        peer.lose()
        self.assertIs(self.failed(declared), self.result(channel.closed))

    def test_the_end_in_the_middle_of_the_drain(self) -> None:
        """R32: the callback of a held publish ends the connection: the calls behind it do not leave."""
        peer, channel = self.blocked()
        second = channel.basic_publish("", "q", b"second")
        second.addCallback(lambda result: peer.protocol.abort())
        declared = channel.queue_declare("q")
        third = channel.basic_publish("", "q", b"third")
        peer.send(Connection.Unblocked())
        self.failed(declared, Exception)
        self.failed(third, NotSent)
        self.assertTrue(peer.transport.disconnected)
