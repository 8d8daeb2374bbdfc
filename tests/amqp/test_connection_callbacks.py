"""close() and abort() in every kind of callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred

from tests.amqp.peer import Peer, PeerTestCase, outcomes
from txmsg.errors import (
    ConnectionForced,
    PublishUnconfirmed,
    StaleDelivery,
)

Connection = commands.Connection


def ending(peer: Peer, end: Callable[[Peer], Any]) -> Callable[[object], None]:
    """A callback that ends the connection."""

    def callback(result: object) -> None:
        end(peer)

    return callback


class InsideCallbacksTests(PeerTestCase):
    """R29, R32: close() and abort() are legal in any callback, and end what they end once."""

    def ends(self) -> list[tuple[str, Callable[[Peer], Any]]]:
        return [("close", lambda peer: peer.protocol.close()), ("abort", lambda peer: peer.protocol.abort())]

    def finish(self, peer: Peer) -> None:
        """The broker does what it is asked."""
        if "Connection.Close" in peer.names():
            peer.send(Connection.CloseOk())
        self.assertTrue(peer.transport.disconnecting)
        peer.lose()
        self.assertEqual(self.result(peer.protocol.when_closed()).initiator, "client")

    def test_in_ready(self) -> None:
        for name, end in self.ends():
            with self.subTest(name):
                peer = self.peer()
                peer.protocol.ready.addCallback(ending(peer, end))
                peer.connect()
                peer.start()
                peer.send(Connection.Tune(2047, 131072, 0))
                waiter = peer.protocol.when_ready()
                peer.send(Connection.OpenOk())
                outcomes([waiter, peer.protocol.ready])
                self.finish(peer)

    def test_in_a_reply(self) -> None:
        for name, end in self.ends():
            with self.subTest(name):
                peer = self.opened()
                channel = peer.channel()
                declared, bound = channel.queue_declare("q"), channel.queue_bind("q", "x")
                declared.addCallback(ending(peer, end))
                peer.read()
                peer.send(commands.Queue.DeclareOk("q", 0, 0), commands.Queue.BindOk())
                self.result(declared)
                self.finish(peer)
                outcomes([bound])

    def test_in_a_delivery(self) -> None:
        for name, end in self.ends():
            with self.subTest(name):
                peer = self.opened()
                seen: list[bytes] = []

                def callback(delivery: Any, p: Peer = peer, e: Any = end, s: list[bytes] = seen) -> None:
                    s.append(delivery.body)
                    e(p)

                peer.deliver(peer.consumer(peer.channel(), callback), b"1", b"2")
                self.assertEqual(seen, [b"1"], "nothing is handed out after the end was asked for")
                self.finish(peer)

    def test_in_a_confirm(self) -> None:
        for name, end in self.ends():
            with self.subTest(name):
                peer = self.opened()
                channel = peer.confirm_channel()
                publishes = [channel.basic_publish("", "q", b"") for _ in range(3)]
                publishes[0].addCallback(ending(peer, end))
                peer.read()
                peer.send(commands.Basic.Ack(3, True))
                self.result(publishes[0])
                found = outcomes(publishes[1:])
                if name == "close":
                    self.assertEqual(found, [2, 3])
                else:
                    self.assertEqual([type(o) for o in found], [PublishUnconfirmed] * 2)
                self.finish(peer)

    def test_in_notices(self) -> None:
        for name, end in self.ends():
            with self.subTest(name):
                peer = self.opened()
                peer.protocol.blocked.add_blocked_callback(ending(peer, end))
                peer.send(Connection.Blocked("low on memory"))
                self.finish(peer)

    def test_in_closed(self) -> None:
        """R29: asking again, in the very callback that says it is over."""
        for name, end in self.ends():
            with self.subTest(name):
                peer = self.opened()
                again: list[Any] = []

                def ask_again(result: object, p: Peer = peer, e: Any = end, a: list[Any] = again) -> None:
                    a.append(e(p))

                peer.protocol.closed.addCallback(ask_again)
                peer.protocol.channel().addErrback(ask_again)
                peer.lose()
                self.assertEqual(len(again), 2)
                outcomes([deferred for deferred in again if deferred is not None])

    def test_errbacks_that_use_other_channels(self) -> None:
        """W-17, K-11, R21: at the end of the connection the errback on each channel publishes, calls, acks, opens and
        closes on all the others: everything fails with the reason, and no byte follows close-ok."""
        peer = self.opened()
        channels = [peer.confirm_channel() for _ in range(10)]
        deliveries: list[Any] = []
        for channel in channels:
            consumer = peer.consumer(channel, deliveries.append)
            peer.deliver(consumer, b"m", channel=channel.channel_number)
        made: list[Deferred[Any]] = []

        def meddle(failure: object) -> None:
            for other, delivery in zip(channels, deliveries, strict=True):
                made.extend([other.basic_publish("", "q", b"m"), other.queue_declare("q"), other.basic_get("q")])
                made.append(peer.protocol.channel())
                other.close()
                self.assertRaises(StaleDelivery, delivery.ack)

        for channel in channels:
            channel.queue_declare("q").addErrback(meddle)
        peer.read()
        peer.send(Connection.Close(320, "bye", 0, 0))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.assertEqual({type(error) for error in outcomes(made)}, {ConnectionForced})
        self.assertEqual(len(made), 400)
        self.assertEqual(len(peer.clock.getDelayedCalls()), 1, "the second that the peer has to close the socket")
