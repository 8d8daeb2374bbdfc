"""Publishes that wait for the broker or the socket, and those that come too late."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.amqp.peer import Peer, PublishTestCase, ignore, outcomes
from txmsg.amqp.channel import Channel
from txmsg.errors import (
    ChannelClosed,
    ConnectionLost,
    NotSent,
    Overloaded,
)

Basic, Connection = commands.Basic, commands.Connection


class HeldTests(PublishTestCase):
    """R6, R16, I-06: publishes wait while the broker blocks the connection or stops the channel's flow."""

    def blocked(self, *, confirm: bool = False, **options: Any) -> tuple[Peer, Channel]:
        peer, channel = self.channel(confirm=confirm, **options)
        peer.send(Connection.Blocked("low on memory"))
        return peer, channel

    def test_they_leave_in_order_when_it_is_over(self) -> None:
        """R4: across two channels each keeps its order; what is published meanwhile goes behind."""
        peer, first = self.channel()
        second = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        made = [channel.basic_publish("", "q", b"%d" % n) for n in range(3) for channel in (first, second)]
        made[0].addCallback(lambda result: ignore(first.basic_publish("", "q", b"meanwhile")))
        self.assertEqual(peer.read(), [])
        self.assertEqual(outcomes(made), [None] * 6)
        self.assertEqual(repr(first), "<Channel 1 open, 0 calls waiting, 0 unsettled, 3 held>")
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [b"0", b"1", b"2", b"meanwhile", b"0", b"1", b"2"])
        for publish in made:
            self.assertIsNone(self.result(publish))
        self.assertEqual(peer.protocol.outbox.messages, 0)

    def test_numbers_are_given_when_they_are_written(self) -> None:
        """R8, N-01: a publish that was cancelled while held has none; the others are confirmed right."""
        peer, channel = self.blocked(confirm=True)
        made = [channel.basic_publish("", "q", b"%d" % n, mandatory=n == 2) for n in range(3)]
        made[0].cancel()
        self.failed(made[0], CancelledError)
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [b"1", b"2"])
        peer.send(Basic.Ack(2))
        self.assertEqual(self.result(made[2]), 2)
        peer.send(Basic.Ack(1))
        self.assertEqual(self.result(made[1]), 1)

    def test_the_bound(self) -> None:
        """R6: Overloaded at once; there is room again when others end."""
        peer, channel = self.blocked(outbox_max_messages=2)
        first, second = (channel.basic_publish("", "q", b"") for _ in range(2))
        error = self.failed(channel.basic_publish("", "q", b""), Overloaded)
        self.assertIn("low on memory", str(error))
        peer.send(Connection.Unblocked())
        self.assertEqual(len(peer.published()), 2)
        self.assertEqual([self.result(first), self.result(second)], [None, None])
        peer.send(Connection.Blocked("again"))
        ignore(channel.basic_publish("", "q", b""))
        self.assertEqual(peer.protocol.outbox.messages, 1)

    def test_the_bound_in_bytes(self) -> None:
        """R6: what counts is what would be written, frames included, and 1.5 KiB for each message."""
        _, channel = self.blocked(outbox_max_bytes=12_000)
        held = channel.basic_publish("", "q", bytes(9_000))
        self.failed(channel.basic_publish("", "q", bytes(1_000)), Overloaded)
        self.assertNoResult(held)
        ignore(held)

    def test_the_deadline(self) -> None:
        """R2: NotSent within confirm_timeout (or operation_timeout, without confirms) plus a second."""
        for confirm, limits in (
            (True, {"confirm_timeout": 5.0, "operation_timeout": 50.0}),
            (False, {"confirm_timeout": 50.0, "operation_timeout": 5.0}),
        ):
            peer, channel = self.blocked(confirm=confirm, **limits)
            peer.clock.advance(0.3)
            publish = channel.basic_publish("", "q", b"")
            peer.clock.pump([0.1] * 49)
            self.assertNoResult(publish)
            peer.clock.pump([0.1] * 12)
            self.assertIn("low on memory", str(self.failed(publish, NotSent)))
            peer.send(Connection.Unblocked())
            self.assertEqual(peer.published(), [])

    def test_the_end(self) -> None:
        """R2: no byte has left: NotSent, whoever ends it; those that were written fail first, in their order (R4)."""
        for end in (
            lambda peer: peer.lose(),
            lambda peer: peer.send(Connection.Close(320, "bye", 0, 0)),
            lambda peer: peer.send(commands.Channel.Close(406, "x", 0, 0)),
        ):
            peer, channel = self.channel(confirm=True)
            order: list[str] = []

            def note(failure: Failure, o: list[str] = order) -> None:
                o.append(type(failure.value).__name__)

            written = channel.basic_publish("", "q", b"written")
            peer.read()
            peer.send(Connection.Blocked("low on memory"))
            held = channel.basic_publish("", "q", b"held")
            held.addErrback(note)
            written.addErrback(note)
            end(peer)
            self.assertEqual(len(order), 2)
            self.assertEqual(order[1], "NotSent")
            self.assertEqual(peer.protocol.outbox.messages, 0)

    def test_flow(self) -> None:
        """I-09, I-08: channel.flow is answered; this channel's publishes wait, in order, others do not (kombu D29)."""
        peer, channel = self.channel()
        other = peer.channel()
        peer.read()
        peer.send(commands.Channel.Flow(False))
        self.assertIs(peer.only(commands.Channel.FlowOk).active, False)
        self.assertFalse(channel.flow_active)
        held = [channel.basic_publish("", "q", b"%d" % n) for n in range(2)]
        ignore(other.basic_publish("", "q", b"other"))
        self.assertEqual(peer.published(), [b"other"])
        peer.send(commands.Channel.Flow(True))
        self.assertEqual(peer.names(), ["Channel.FlowOk", "Basic.Publish", "Basic.Publish"])
        self.assertTrue(channel.flow_active)
        self.assertEqual([self.result(publish) for publish in held], [None, None])
        ignore(channel.basic_publish("", "q", b"2"))
        self.assertEqual(peer.published(), [b"2"])

    def test_flow_and_blocked(self) -> None:
        """Both must be over."""
        peer, channel = self.channel()
        peer.send(commands.Channel.Flow(False), Connection.Blocked("low on memory"))
        peer.read()
        ignore(channel.basic_publish("", "q", b"held"))
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [])
        peer.send(Connection.Blocked("low on memory"), commands.Channel.Flow(True))
        self.assertEqual(peer.names(), ["Channel.FlowOk"])
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [b"held"])


class EndedInTheSameChunkTests(PublishTestCase):
    """The broker's close came in the same bytes as what is being handled: the wire has ended before we know."""

    def test_publishing_in_a_callback(self) -> None:
        """R2, R21: nothing follows the close; the publish fails as not sent, with the reason that is on its way."""
        for close in (commands.Channel.Close(404, "gone", 0, 0), Connection.Close(320, "gone", 0, 0)):
            for confirm in (False, True):
                peer, channel = self.channel(confirm=confirm)
                made: list[Deferred[Any]] = []

                def callback(delivery: Any, c: Channel = channel, m: list[Deferred[Any]] = made) -> None:
                    m.append(c.basic_publish("", "q", delivery.body))

                consumer = peer.consumer(channel, callback)
                peer.read()
                peer.send_raw(peer.encode(*peer.delivery(b"m", consumer.consumer_tag, 1)) + peer.encode(close))
                self.assertNotIn("Basic.Publish", peer.names())
                error = self.failed(made[0], NotSent, ChannelClosed, ConnectionLost)
                self.assertIs(error.cause if isinstance(error, NotSent) else error, channel.close_reason)
