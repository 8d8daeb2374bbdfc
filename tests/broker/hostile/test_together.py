"""What many connections may hold together, of what each alone may hold (R36).

One connection has its limits, and there are 256 of them: here are those that the whole broker has beside.
"""

from __future__ import annotations

import unittest

from tests.broker.hostile.beside import BesideCase, body_frame, header_frame, method_frame, short_string
from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.connection.shares import Shares
from txmsg.wire.methods import basic, connection, tx

TOO_MUCH = (
    "RESOURCE_ERROR - all clients together hold more than 500000 bytes in what they have not finished, and this one "
    "most"
)
_PUBLISH = b"\0\0" + short_string(b"") + short_string(b"q") + b"\0"


class SharesTests(unittest.TestCase):
    """The counting."""

    def test_largest(self) -> None:
        """Beyond the limit the one with most is named, and of equals the one that came first."""
        shares: Shares[str] = Shares(100)
        self.assertIsNone(shares.add("a", 50))
        self.assertIsNone(shares.add("b", 50))
        self.assertEqual(shares.add("c", 1), "a")
        self.assertEqual(shares.add("b", 1), "b")
        shares.remove("b")
        self.assertEqual((shares.total, shares.of("b"), shares.of("c")), (51, 0, 1))
        shares.remove("a", 20)
        shares.remove("a", 30)
        shares.remove("nobody")
        self.assertEqual((shares.total, len(shares)), (1, 1))


class UnfinishedTests(BesideCase):
    """What has been begun and is not finished keeps the alarm on, and is out of reach of every consumer."""

    limits = {"broker_bytes": 1_000_000, "max_message_size": 200_000, "queue_bytes": 800_000}

    def begin(self, octets: int) -> Peer:
        """A client that sends the first `octets` of a message, and no more."""
        peer = self.attacker()
        peer.send_raw(method_frame(1, 60, 40, _PUBLISH) + header_frame(1, 200_000))
        while octets:
            part = min(octets, 100_000)
            peer.send_raw(body_frame(1, bytes(part)))
            octets -= part
        return peer

    def test_contents(self) -> None:
        """Parts of messages take half of broker_bytes at most: then the one with most of them is closed with 506."""
        peers = [self.begin(150_000), self.begin(190_000), self.begin(120_000)]
        self.assertFalse(self.broker.alarms.are_on)
        last = self.begin(100_000)
        peers[1].pump()
        self.assertEqual(
            self.closed(peers[1]),
            ("connection", 506, TOO_MUCH),
        )
        for peer in (peers[0], peers[2], last):
            self.assertTrue(peer.server.is_open)
        self.assertEqual(self.broker.usage.bytes, 370_000)
        self.leave_no_trace(*peers, last)

    def test_begun_behind_a_violation(self) -> None:
        """A part of a message in the same octets as what closes the connection counts no more."""
        peer = self.attacker()
        # Nothing wrong for the wire, which reads on: basic.qos with a prefetch size.
        violation = method_frame(1, 60, 10, b"\0\0\0\1\0\0\0")
        peer.send_raw(violation + method_frame(1, 60, 40, _PUBLISH) + header_frame(1, 9) + body_frame(1, b"12345678"))
        self.assertEqual(self.closed(peer)[:2], ("connection", 540))
        self.assertEqual((self.broker.usage.bytes, self.broker.unfinished.total), (0, 0))
        self.leave_no_trace(peer)

    def test_honest_clients_are_not_blocked_for_ever(self) -> None:
        """As many large messages at once as would raise the alarm by themselves: it does not come to that."""
        peers = [self.begin(150_000) for _ in range(8)]
        self.assertFalse(self.broker.alarms.are_on)
        self.round_trip()
        for peer in peers:
            peer.pump()
            if peer.server.is_open:
                peer.send_raw(body_frame(1, bytes(50_000)))
        self.assertEqual(sum(peer.server.is_open for peer in peers), 3)
        self.leave_no_trace(*peers)

    def test_transactions(self) -> None:
        """Transactions that are never committed count with them."""
        peers = []
        for _ in range(4):
            peer = self.attacker(channels=2)
            for number in (1, 2):
                peer.send(tx.Select(), number)
                peer.expect(tx.SelectOk, number)
                peer.publish(bytes(100_000), "q", number=number)
            peers.append(peer)
        self.assertFalse(self.broker.alarms.are_on)
        for peer in peers:
            peer.pump()
        self.assertEqual([peer.server.is_open for peer in peers], [False, False, True, True])
        self.assertEqual(self.closed(peers[0])[:2], ("connection", 506))
        self.round_trip()
        peers[3].send(tx.Commit(), 1)
        peers[3].expect(tx.CommitOk, 1)
        self.leave_no_trace(*peers)

    def test_one_transaction(self) -> None:
        """Where the one with most is the one that publishes, it is told so in place of the publish."""
        peer = self.attacker()
        peer.send(tx.Select(), 1)
        peer.expect(tx.SelectOk, 1)
        for _ in range(5):
            peer.publish(bytes(100_000), "q")
        self.assertEqual(self.closed(peer)[:2], ("connection", 506))
        peer.send(connection.CloseOk())
        self.leave_no_trace(peer)

    def test_what_is_blocked_can_be_consumed(self) -> None:
        """The alarm on, by queues: publishers that were cut short wait, and go on when a consumer has come."""
        waiting = self.begin(150_000)
        publisher = self.attacker()
        publisher.declare("full")
        publisher.declare("full too")
        for number in range(9):
            publisher.publish(bytes(100_000), "full" if number % 2 else "full too")
        self.assertTrue(self.broker.alarms.are_on)
        waiting.send_raw(body_frame(1, bytes(10_000)))
        consumer = self.attacker()
        consumer.consume("full", no_ack=True)
        consumer.consume("full too", no_ack=True)
        self.settle(consumer)
        self.settle(waiting)
        self.assertFalse(self.broker.alarms.are_on)
        waiting.send_raw(body_frame(1, bytes(40_000)))
        self.assertTrue(waiting.server.is_open)
        self.leave_no_trace(waiting, publisher, consumer, delete=["full", "full too"])


class PlacesTests(BesideCase):
    """Sixteen may be in who have not logged in: not all of them from one address."""

    def test_silent_sockets(self) -> None:
        """64 silent sockets of one address take half of the places, and one from elsewhere gets in at once."""
        silent = [Peer(self.broker, "127.0.0.9") for _ in range(64)]
        self.assertEqual(self.broker.admission.unauthenticated, 8)
        other = Peer(self.broker, "127.0.0.10").open()
        self.assertTrue(other.server.is_open)
        self.assertEqual((self.broker.admission.unauthenticated, self.broker.admission.waiting), (8, 56))
        self.leave_no_trace(other, *silent)

    def test_the_line_passes_over_them(self) -> None:
        """Who waits goes on as soon as there is a place for its address, whoever came before."""
        broker = make_broker(unauthenticated=4)
        first = [Peer(broker, host) for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3")]
        late = [Peer(broker, host) for host in ("127.0.0.1", "127.0.0.4")]
        first[2].lose()
        self.assertEqual([peer.transport.producerState for peer in late], ["paused", "producing"])
        first[3].lose()
        self.assertEqual([peer.transport.producerState for peer in late], ["paused", "producing"])
        first[0].lose()
        self.assertEqual([peer.transport.producerState for peer in late], ["producing", "producing"])
        for peer in (*first[1:2], *late):
            peer.lose()
        self.assertEqual((broker.admission.connections, broker.admission.waiting), (0, 0))


class UnsentTests(BesideCase):
    """What waits for clients that do not read."""

    limits = {"broker_bytes": 1_000_000, "max_message_size": 200_000}

    def slow(self) -> Peer:
        """A client that asks for the large message, and does not read it."""
        peer = self.attacker()
        peer.server.pauseProducing()
        peer.server.dataReceived(peer.wire.send_method(1, basic.Get(queue="q", no_ack=True)))
        return peer

    def test_unsent(self) -> None:
        """All together as much as may be in queues: the one with most is dropped, of equals the one that came first."""
        owner = self.attacker()
        owner.declare("q")
        for number in range(8):
            owner.publish(bytes(190_000 if number == 2 else 100_000), "q")
        slow: list[Peer] = []
        highest = 0
        for _ in range(8):
            slow.append(self.slow())
            highest = max(highest, sum(len(peer.transport.value()) for peer in slow))
        self.assertFalse(any(peer.server._is_connected is False for peer in slow))
        self.assertLess(highest, 1_000_000)
        for _ in range(2):
            owner.publish(bytes(100_000), "q")
            slow.append(self.slow())
        self.assertEqual([number for number, peer in enumerate(slow) if not peer.server._is_connected], [2])
        self.round_trip()
        # Who begins to read counts no more.
        slow[0].server.resumeProducing()
        owner.publish(bytes(100_000), "q")
        slow.append(self.slow())
        self.assertEqual(sum(not peer.server._is_connected for peer in slow), 1)
        # Many in one turn, before Twisted says that any of the dropped is gone.
        for _ in range(20):
            owner.publish(bytes(100_000), "q")
            slow.append(self.slow())
        waiting = [peer for peer in slow if peer.server._is_connected and peer.transport.value()]
        self.assertLessEqual(sum(len(peer.transport.value()) for peer in waiting), 1_010_000)
        self.assertGreater(len(waiting), 5)
        for peer in slow:
            peer.transport.clear()
        self.leave_no_trace(owner, *slow, delete=["q"])
        self.assertEqual(self.broker.unsent.total, 0)
