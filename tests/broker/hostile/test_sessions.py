"""Whole sessions that go wrong: cut anywhere, sent in pieces, too slow, too fast, and never read (R36)."""

from __future__ import annotations

import random
import struct

from tests.broker.hostile.beside import (
    BesideCase,
    body_frame,
    frame,
    header_frame,
    method_frame,
    short_string,
    timed,
)
from tests.broker.hostile.fuzz_client import FuzzClient
from tests.broker.server_peer import Peer
from txmsg.broker.connection.connection import CLOSE_TIMEOUT
from txmsg.broker.connection.slow_reader import STALL_TIMEOUT
from txmsg.wire.constants import PROTOCOL_HEADER
from txmsg.wire.methods import basic, channel, confirm, connection, queue, tx

_FRAME = FuzzClient.frame
_NUMBERS = (1, 2)
_HEARTBEAT = frame(8, 0, b"")


def _message(routing_key: str, body: bytes, number: int = 1) -> bytes:
    publish = _FRAME(number, basic.Publish(routing_key=routing_key).encode())
    return publish + header_frame(number, len(body)) + body_frame(number, body)


#: Connect, declare, bind, consume, three publishes, one of them large, an ack, a transaction, confirms, the close.
CANONICAL = [
    PROTOCOL_HEADER,
    _FRAME(0, connection.StartOk(response=b"\0guest\0guest").encode()),
    _FRAME(0, connection.TuneOk(channel_max=10, frame_max=4096, heartbeat=60).encode()),
    _FRAME(0, connection.Open().encode()),
    *(_FRAME(number, channel.Open().encode()) for number in _NUMBERS),
    _FRAME(1, queue.Declare(queue="canonical", exclusive=True, arguments={"x-max-length": 10}).encode()),
    _FRAME(1, queue.Bind(queue="canonical", exchange="amq.topic", routing_key="#").encode()),
    _FRAME(1, basic.Qos(prefetch_count=5).encode()),
    _FRAME(1, basic.Consume(queue="canonical", consumer_tag="me").encode()),
    _FRAME(2, confirm.Select().encode()),
    _message("canonical", b"first", 2),
    _message("canonical", b"second", 2),
    _FRAME(2, basic.Publish(routing_key="canonical").encode())
    + header_frame(2, 6000)
    + body_frame(2, bytes(4000))
    + body_frame(2, bytes(2000)),
    _FRAME(1, basic.Ack(delivery_tag=1).encode()),
    _FRAME(1, tx.Select().encode()),
    _FRAME(1, basic.Nack(delivery_tag=2, requeue=True).encode()),
    _message("canonical", b"third"),
    _FRAME(1, tx.Commit().encode()),
    _FRAME(1, basic.Cancel(consumer_tag="me").encode()),
    _FRAME(1, channel.Close().encode()),
    _FRAME(0, connection.Close().encode()),
]


class CanonicalTests(BesideCase):
    """One session that does a little of everything."""

    def play(self, octets: list[bytes]) -> bytes:
        """Send these pieces; what the broker has sent."""
        peer = Peer(self.broker)
        for piece in octets:
            peer.send_raw(piece)
            self.settle(peer)
        if not peer.is_lost:
            peer.lose()
        return peer.raw

    def test_one_octet_at_a_time(self) -> None:
        """F5, R18: the same octets come back as for whole frames."""
        whole = self.play(CANONICAL)
        self.assertTrue(whole.endswith(_FRAME(0, connection.CloseOk().encode())))
        self.assertIn(b"third", whole)
        pieces = [octets[at : at + 1] for octets in CANONICAL for at in range(len(octets))]
        self.assertEqual(self.play(pieces), whole)
        self.leave_no_trace()

    def test_cut_everywhere(self) -> None:
        """F4, R28: wherever the socket is lost nothing is left."""
        octets = b"".join(CANONICAL[6:])
        for at in [*range(1000), *range(1000, len(octets), 37)]:
            peer = Peer(self.broker)
            for piece in CANONICAL[:6]:
                peer.send_raw(piece)
            peer.server.dataReceived(octets[:at])
            peer.lose()
            self.assertEqual(self.state(), self.before, f"cut at {at}")
        self.leave_no_trace()

    def test_cut_in_the_handshake(self) -> None:
        """The same before it is open."""
        for count in range(6):
            for at in range(len(CANONICAL[count])):
                peer = Peer(self.broker)
                for piece in [*CANONICAL[:count], CANONICAL[count][:at]]:
                    peer.send_raw(piece)
                peer.lose()
                self.assertEqual(self.state(), self.before, f"cut at {at} of {count}")
        self.leave_no_trace()

    def test_one_octet_changed(self) -> None:
        """Z: every octet after the handshake once, at random: whatever comes of it, nothing is left."""
        chance = random.Random(7)
        octets = b"".join(CANONICAL[6:])
        for at in [*range(700), *range(700, len(octets), 61)]:
            changed = bytearray(octets)
            changed[at] ^= chance.randint(1, 255)
            peer = Peer(self.broker)
            for piece in CANONICAL[:6]:
                peer.send_raw(piece)
            peer.server.dataReceived(bytes(changed))
            if not peer.is_lost:
                peer.lose()
            # A name that is another now belongs to nobody when this session is gone.
            for name in set(self.vhost.queues) - {"healthy"}:
                self.vhost.delete_queue(name)
            self.assertEqual(self.state(), self.before, f"seed 7, octet {at}")
        self.leave_no_trace()


class SlowTests(BesideCase):
    """Clients that take their time, or do not read."""

    def test_half_open(self) -> None:
        """A client whose machine is gone: by heartbeats, or by what it does not take (R13)."""
        peer = self.attacker(heartbeat=2)
        peer.declare("gone", exclusive=True)
        for _ in range(60):
            self.clock.advance(0.1)
        peer.pump()
        self.assertTrue(peer.is_lost)
        self.leave_no_trace(peer)

    def test_heartbeats_alone(self) -> None:
        """Before the login they win no time; after it they do, and a hundred thousand of them are soon read."""
        peer = Peer(self.broker)
        peer.start()
        for _ in range(11):
            peer.send_raw(_HEARTBEAT)
            peer.advance(1)
        self.assertTrue(peer.is_lost)
        other = self.attacker(heartbeat=1)
        for _ in range(100):
            other.advance(0.25)
            other.send_raw(_HEARTBEAT)
        self.assertFalse(other.is_lost)
        with timed(self, 2.0):
            self.feed(other, _HEARTBEAT * 100_000)
        self.assertEqual(other.methods, [])
        self.leave_no_trace(peer, other)

    def test_slow_handshake(self) -> None:
        """An octet every second: all of it has to be done in ten (slow loris)."""
        octets = b"".join(CANONICAL[:6])
        peers = [Peer(self.broker) for _ in range(40)]
        for at in range(12):
            for peer in peers:
                peer.send_raw(octets[at : at + 1])
            self.clock.advance(1)
            for peer in peers:
                peer.pump()
        self.assertTrue(all(peer.is_lost for peer in peers))
        self.leave_no_trace(*peers)

    def test_slow_content(self) -> None:
        """A message that never ends holds what has come of it, as long as its sender shows that it lives."""
        peer = self.attacker(heartbeat=1)
        publish = method_frame(1, 60, 40, b"\0\0\0" + short_string(b"healthy") + b"\0")
        peer.send_raw(publish + header_frame(1, 1000))
        for _ in range(100):
            peer.send_raw(body_frame(1, b"x"))
            peer.advance(0.5)
            self.round_trip()
        self.assertEqual(self.broker.usage.bytes, 100)
        for _ in range(40):
            peer.advance(0.1)
        self.assertTrue(peer.is_lost)
        self.leave_no_trace(peer)

    def test_never_reads(self) -> None:
        """Deliveries stop when nothing is taken, and after 15 s it is over: what it had is back in its place."""
        peer = self.attacker()
        peer.declare("q")
        for number in range(50):
            peer.publish(bytes(50_000) + b"%d" % number, "q")
        peer.server.pauseProducing()
        peer.server.dataReceived(peer.wire.send_method(1, basic.Consume(queue="q")))
        self.assertLess(self.vhost.queues["q"].unacked_count, 30)
        self.clock.advance(STALL_TIMEOUT + 1)
        self.clock.advance(CLOSE_TIMEOUT + 1)
        peer.pump()
        self.assertTrue(peer.is_lost)
        self.assertEqual((self.vhost.queues["q"].message_count, self.vhost.queues["q"].unacked_count), (50, 0))
        self.leave_no_trace(peer, delete=["q"])


class FloodTests(BesideCase):
    """Very many of what costs little to send."""

    limits = {"queues": 1000, "queue_bytes": 1_000_000}

    def test_tiny_frames(self) -> None:
        """A hundred thousand empty body frames inside a content, and then the content is taken."""
        peer = self.attacker()
        publish = method_frame(1, 60, 40, b"\0\0\0" + short_string(b"nowhere") + b"\0")
        with timed(self, 4.0):
            peer.send_raw(publish + header_frame(1, 1))
            self.feed(peer, body_frame(1, b"") * 100_000)
        peer.send_raw(body_frame(1, b"x"))
        peer.send(basic.Qos(), 1)
        peer.expect(basic.QosOk, 1)
        self.leave_no_trace(peer)

    def test_declares(self) -> None:
        """queue.declare, again and again, with names of the broker's: up to the limit, then 406; the others go on."""
        peer = self.attacker()
        declare = _FRAME(1, queue.Declare(queue="", exclusive=True, nowait=True).encode())
        with timed(self, 10.0):
            self.feed(peer, declare * 20_000)
        self.assertEqual(self.closed(peer)[:2], ("channel", 406))
        self.assertEqual(len(self.vhost.queues), 1000)
        self.round_trip()
        self.leave_no_trace(peer)

    def test_publishes_to_a_full_queue(self) -> None:
        """Every one beyond the limit is nacked; the queue and what counts stay where they are."""
        peer = self.attacker()
        peer.declare("full", exclusive=True)
        peer.send(confirm.Select(), 1)
        peer.expect(confirm.SelectOk, 1)
        with timed(self, 10.0):
            self.feed(peer, _message("full", bytes(1000)) * 10_000)
        self.assertLessEqual(self.broker.usage.bytes, 1_000_000)
        self.assertFalse(self.broker.alarms.are_on)
        self.assertTrue(peer.server.is_open)
        peer.methods.clear()
        self.leave_no_trace(peer)

    def test_channels(self) -> None:
        """Channels opened and closed as fast as can be leave none."""
        peer = self.attacker()
        both = _FRAME(2, channel.Open().encode()) + _FRAME(2, channel.Close().encode())
        with timed(self, 10.0):
            for _ in range(3000):
                peer.server.dataReceived(both)
        self.assertEqual(list(peer.server.channels), [1])
        peer.transport.clear()
        self.leave_no_trace(peer)

    def test_connections(self) -> None:
        """Thousands of connects, some with octets, none with a login."""
        for number in range(3000):
            peer = Peer(self.broker, f"127.0.0.{number % 250 + 1}")
            if peer.connection is not None:
                peer.send_raw((PROTOCOL_HEADER, b"", b"\x16\x03\x01", PROTOCOL_HEADER[:5])[number % 4])
                if not peer.is_lost:
                    peer.lose()
        self.leave_no_trace()


class PoisonTests(BesideCase):
    """A message that one client accepts to send must not hurt those who get it."""

    def test_names(self) -> None:
        """NUL, line ends and what is no UTF-8, in keys and properties, reach a consumer as the octets they are."""
        peer = self.attacker()
        peer.declare("q", exclusive=True)
        peer.send(queue.Bind(queue="q", exchange="amq.topic", routing_key="#"), 1)
        peer.expect(queue.BindOk, 1)
        peer.consume("q", no_ack=True)
        for key in (b"a\0b", b"\xff\xfe", b"\r\n\r\nHTTP", b"." * 255, b"\xed\xa0\x80"):
            publish = method_frame(1, 60, 40, b"\0\0" + short_string(b"amq.topic") + short_string(key) + b"\0")
            properties = b"\x80\0" + short_string(key)
            peer.send_raw(publish + header_frame(1, 1, properties) + body_frame(1, b"x"))
            self.settle(peer)
            (delivery,) = peer.contents
            peer.contents.clear()
            self.assertEqual(delivery[6].encode("utf-8", "surrogateescape"), key)
            self.assertEqual(delivery[7].content_type.encode("utf-8", "surrogateescape"), key)
        self.leave_no_trace(peer)

    def test_declared_size(self) -> None:
        """Sizes that are only said cost nothing (F33; CVE-2023-46120)."""
        peers = [self.attacker(channels=8) for _ in range(4)]
        publish = b"\0\0\0" + short_string(b"healthy") + b"\0"
        for peer in peers:
            for number in range(1, 9):
                peer.send_raw(method_frame(number, 60, 40, publish) + header_frame(number, 16 << 20))
            peer.send_raw(struct.pack(">BHI", 3, 1, 131064))
        self.assertEqual(self.broker.usage.bytes, 0)
        self.leave_no_trace(*peers)
