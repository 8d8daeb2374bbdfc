"""Alarms and blocked connections: who waits, from when to when, and what it is told."""

from __future__ import annotations

import struct
import unittest

from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.alarms import DISK, MEMORY, Alarms, blocked_text
from txmsg.wire.methods import basic, connection, queue


def _body(number: int, octets: int) -> bytes:
    return struct.pack(">BHI", 3, number, octets) + b"x" * octets + b"\xce"


def _begun(number: int, size: int, octets: int) -> bytes:
    """A publish to the queue q of `size` octets, of which so many come."""
    method = struct.pack(">BHIHH", 1, number, 10, 60, 40) + b"\0\0\0\1q\0\xce"
    header = struct.pack(">BHIHHQHB", 2, number, 14, 60, 0, size, 0, 0xCE)
    return method + header + _body(number, octets)


class AlarmsTests(unittest.TestCase):
    """The set of alarms."""

    def test_changes(self) -> None:
        """Each change is told once."""
        seen: list[bool] = []
        alarms = Alarms(lambda: seen.append(alarms.are_on))
        alarms.set(MEMORY)
        alarms.set(MEMORY)
        alarms.set(DISK)
        alarms.clear(MEMORY)
        alarms.clear(MEMORY)
        self.assertEqual(alarms.sources, {DISK})
        alarms.clear(DISK)
        self.assertEqual(seen, [True, True, True, False])
        self.assertIn("none", repr(alarms))

    def test_texts(self) -> None:
        """RabbitMQ's words."""
        self.assertEqual(blocked_text([MEMORY]), "low on memory")
        self.assertEqual(blocked_text({MEMORY, DISK}), "low on disk & memory")


class BlockedTests(unittest.TestCase):
    """F37 from the other side."""

    def test_blocked_at_the_next_publish(self) -> None:
        """Not before it; the publish waits, and everything behind it; all of it is done afterwards, in order."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        peer.declare("q")
        peer.publish(b"before", "q")
        broker.block()
        peer.declare("still", exclusive=True)
        self.assertEqual(peer.server.state, "running")
        peer.publish(b"waits", "q")
        self.assertEqual(peer.expect(connection.Blocked).reason, "low on memory")
        self.assertEqual(peer.server.state, "blocked")
        self.assertEqual(peer.transport.producerState, "paused")
        peer.send(queue.Declare(queue="q", passive=True), 1)
        self.assertEqual(peer.methods, [])
        broker.block(DISK)
        broker.unblock(MEMORY)
        peer.pump()
        self.assertEqual(peer.methods, [])
        broker.unblock(DISK)
        peer.pump()
        peer.expect(connection.Unblocked)
        self.assertEqual(peer.expect(queue.DeclareOk, 1).message_count, 2)
        self.assertEqual(peer.transport.producerState, "producing")

    def test_in_one_chunk(self) -> None:
        """What came before the publish in the same octets is done."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        broker.block()
        declare = peer.wire.send_method(1, queue.Declare(queue="q"))
        publish = b"".join(peer.wire.send_content(1, basic.Publish(routing_key="q"), b"\0\0", b"x"))
        peer.send_raw(declare + publish + declare)
        peer.expect(queue.DeclareOk, 1)
        peer.expect(connection.Blocked)
        self.assertEqual(peer.methods, [])
        broker.unblock()
        peer.pump()
        peer.expect(connection.Unblocked)
        self.assertEqual(peer.expect(queue.DeclareOk, 1).message_count, 1)

    def test_consumers_are_not(self) -> None:
        """Those who only consume notice nothing, and empty the queues."""
        broker = make_broker()
        peer, consumer = Peer(broker).open(), Peer(broker).open()
        peer.open_channel(1)
        consumer.open_channel(1)
        peer.declare("q")
        peer.publish(b"x", "q")
        broker.block()
        consumer.consume("q")
        consumer.send_raw(consumer.wire.encode_ack(1, 1))
        self.assertEqual(consumer.methods, [])
        self.assertEqual(consumer.server.state, "running")
        self.assertEqual(broker.usage.bytes, 0)

    def test_without_capability(self) -> None:
        """Such a client is blocked without a word."""
        broker = make_broker()
        peer = Peer(broker).open(capabilities={})
        peer.open_channel(1)
        broker.block()
        peer.publish(b"x", "q")
        self.assertEqual((peer.methods, peer.server.state), ([], "blocked"))
        broker.unblock()
        peer.pump()
        self.assertEqual((peer.methods, peer.server.state), ([], "running"))

    def test_new_connections(self) -> None:
        """They may come while an alarm is on."""
        broker = make_broker()
        broker.block()
        Peer(broker).open().open_channel(1)

    def test_heartbeats_go_on(self) -> None:
        """A blocked client is sent heartbeats and is not judged by its own (0.6)."""
        broker = make_broker()
        peer = Peer(broker).open(heartbeat=2)
        peer.open_channel(1)
        broker.block()
        peer.publish(b"x", "q")
        sent = len(peer.raw)
        for _ in range(100):
            peer.advance(0.2)
        self.assertFalse(peer.is_lost)
        self.assertGreaterEqual(len(peer.raw) - sent, 15 * 8)
        broker.unblock()
        for _ in range(15):
            peer.advance(0.2)
        self.assertFalse(peer.is_lost)
        for _ in range(12):
            peer.advance(0.2)
        self.assertTrue(peer.is_lost)

    def test_close_while_blocked(self) -> None:
        """The broker's close gets through."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        peer.declare("q")
        broker.block()
        peer.publish(b"x", "q")
        peer.expect(connection.Blocked)
        broker.close_all_connections("enough")
        peer.pump()
        peer.expect(connection.Close)
        peer.send(connection.CloseOk())
        self.assertTrue(peer.is_lost)
        self.assertEqual(broker.vhosts["/"].queues["q"].message_count, 0)

    def test_publishes_while_closing(self) -> None:
        """A publish on a connection that is closing is dropped, alarm or not."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        publish = b"".join(peer.wire.send_content(1, basic.Publish(routing_key="q"), b"\0\0", b"x"))
        broker.block()
        peer.server.pause_reading("test")
        peer.send_raw(publish * 2)
        broker.close_all_connections("enough")
        peer.pump()
        peer.expect(connection.Close)
        self.assertEqual(peer.methods, [])


class MemoryTests(unittest.TestCase):
    """4.4, broker bytes: blocked in place of out of memory (C7.3)."""

    def test_bytes_in_queues(self) -> None:
        """Above the limit publishers are blocked; when consumers have made room they go on, and nothing is lost."""
        broker = make_broker(broker_bytes=100_000)
        peer, consumer = Peer(broker).open(), Peer(broker).open()
        peer.open_channel(1)
        consumer.open_channel(1)
        peer.declare("q")
        for _ in range(30):
            peer.publish(b"x" * 10_000, "q")
            if peer.server.state == "blocked":
                break
        self.assertEqual(peer.server.state, "blocked")
        self.assertLess(broker.usage.bytes, 130_000)
        peer.expect(connection.Blocked)
        consumer.send(basic.Qos(prefetch_count=1), 1)
        consumer.expect(basic.QosOk, 1)
        consumer.consume("q")
        for tag in range(1, 8):
            consumer.send_raw(consumer.wire.encode_ack(1, tag))
        broker.reactor.advance(0)
        peer.pump()
        peer.expect(connection.Unblocked)
        self.assertEqual(peer.server.state, "running")

    def test_contents_that_never_end(self) -> None:
        """Parts of bodies count too, and one connection has two of the largest messages in parts at most (F33)."""
        broker = make_broker(max_message_size=50_000, broker_bytes=1_000_000)
        peer = Peer(broker).open()
        for number in range(1, 5):
            peer.open_channel(number)
        for number in range(1, 3):
            peer.send_raw(_begun(number, 50_000, 45_000))
        self.assertEqual(broker.usage.bytes, 90_000)
        peer.send_raw(_body(1, 5_000))
        self.assertEqual(broker.usage.bytes, 45_000)
        peer.send_raw(_begun(3, 50_000, 45_000))
        self.assertEqual(peer.methods, [])
        peer.send_raw(_begun(4, 50_000, 15_000))
        self.assertEqual(peer.expect(connection.Close).reply_code, 506)
        self.assertEqual(broker.usage.bytes, 0)

    def test_part_of_a_content_blocks(self) -> None:
        """The beginning of a body is a publish."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        broker.block()
        octets = b"".join(peer.wire.send_content(1, basic.Publish(routing_key="q"), b"\0\0", b"x" * 50_000))
        peer.send_raw(octets[:-5])
        peer.expect(connection.Blocked)
        peer.lose()
        self.assertEqual(broker.usage.bytes, 0)
