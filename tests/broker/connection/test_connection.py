"""One client's connection: channels, violations, closes in every order, and what is left afterwards."""

from __future__ import annotations

import struct
import unittest

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.connection.connection import CLOSE_TIMEOUT
from txmsg.broker.faults import fault
from txmsg.wire.methods import basic, channel, connection, exchange, queue


def frame(kind: int, number: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, number, len(payload)) + payload + b"\xce"


def method_frame(number: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return frame(1, number, struct.pack(">HH", class_id, method_id) + arguments)


class ChannelTests(unittest.TestCase):
    """Opening and closing channels."""

    def test_numbers_are_used_again(self) -> None:
        """A closed channel's number is free, whoever closed it."""
        peer = Peer(make_broker()).open()
        peer.open_channel(3)
        peer.send(channel.Close(), 3)
        peer.expect(channel.CloseOk, 3)
        peer.open_channel(3)
        peer.send(queue.Declare(queue="missing", passive=True), 3)
        self.assertEqual(peer.expect(channel.Close, 3).reply_code, 404)
        peer.send(channel.CloseOk(), 3)
        peer.open_channel(3)
        self.assertEqual(list(peer.server.channels), [3])

    def test_every_channel_there_may_be(self) -> None:
        """4.4, channels: as many as were agreed on; one more is 530 and the end of the connection."""
        peer = Peer(make_broker(channels=5)).open()
        for number in range(1, 6):
            peer.open_channel(number)
        peer.send_raw(method_frame(6, 20, 10, b"\0"))
        close = peer.expect(connection.Close)
        self.assertEqual(
            (close.reply_code, close.reply_text, close.class_id, close.method_id),
            (530, "NOT_ALLOWED - number of channels opened (5) has reached the negotiated channel_max (5)", 0, 0),
        )

    def test_open_and_close_in_one_chunk(self) -> None:
        """The wire knows of the close before open-ok is sent; nothing fails, and the connection lives."""
        peer = Peer(make_broker()).open()
        chunk = peer.wire.send_method(1, channel.Open())
        peer.send_raw(chunk + method_frame(1, 20, 40, b"\0\xc8\0\0\0\0\0"))
        self.assertTrue(peer.server.is_open)

    def test_behind_open_in_one_chunk(self) -> None:
        """A client need not wait for open-ok: what comes in the same octets is done."""
        peer = Peer(make_broker()).open()
        octets = peer.wire.send_method(1, channel.Open()) + method_frame(1, 50, 10, b"\0\0\1q\0" + bytes(4))
        publish = method_frame(1, 60, 40, b"\0\0\0\x01q\0") + frame(2, 1, struct.pack(">HHQH", 60, 0, 1, 0))
        peer.send_raw(octets + (publish + frame(3, 1, b"x")) * 2)
        peer.expect(channel.OpenOk, 1)
        peer.expect(queue.DeclareOk, 1)
        self.assertEqual(peer.broker.vhosts["/"].queues["q"].message_count, 2)

    def test_large_body(self) -> None:
        """4.4, body: refused on its header with 406 on its channel; what is on the way is discarded (F33, F43)."""
        peer = Peer(make_broker(max_message_size=1000)).open()
        peer.open_channel(1)
        peer.open_channel(2)
        header = struct.pack(">HHQH", 60, 0, 1001, 0)
        publish = method_frame(1, 60, 40, b"\0\0\0\x01q\0")
        peer.send_raw(publish + frame(2, 1, header) + frame(3, 1, b"x" * 1001) + publish)
        close = peer.expect(channel.Close, 1)
        self.assertEqual(
            (close.reply_code, close.reply_text, close.class_id, close.method_id),
            (406, "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000", 60, 40),
        )
        peer.send_raw(frame(2, 1, header))
        peer.send(channel.CloseOk(), 1)
        peer.open_channel(1)
        peer.publish(b"x" * 1000, "q", number=2)
        self.assertTrue(peer.server.is_open)

    def test_impossible_body(self) -> None:
        """F33: a size of 2**63 is refused like any other, and costs nothing."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.send_raw(method_frame(1, 60, 40, b"\0\0\0\x01q\0") + frame(2, 1, struct.pack(">HHQH", 60, 0, 1 << 63, 0)))
        self.assertEqual(peer.expect(channel.Close, 1).reply_code, 406)


class ViolationTests(unittest.TestCase):
    """F32, F33 from the other side: each ends the connection with a code, and nothing else."""

    def assert_closed(
        self, octets: bytes, code: int, text: str | None = None, ids: tuple[int, int] | None = None
    ) -> None:
        broker = make_broker()
        healthy, peer = Peer(broker).open(), Peer(broker).open()
        peer.open_channel(1)
        peer.send_raw(octets)
        close = peer.expect(connection.Close)
        self.assertEqual(close.reply_code, code, close)
        if text is not None:
            self.assertEqual(close.reply_text, text)
        if ids is not None:
            self.assertEqual((close.class_id, close.method_id), ids)
        self.assertEqual(peer.server.channels, {})
        peer.send(connection.CloseOk())
        self.assertTrue(peer.is_lost)
        self.assertEqual(broker.reactor.getDelayedCalls(), [])
        healthy.open_channel(1)

    def test_not_open_channel(self) -> None:
        """504 and the method's ids."""
        self.assert_closed(method_frame(2, 60, 10, bytes(7)), 504, "CHANNEL_ERROR - expected 'channel.open'", (60, 10))

    def test_second_open(self) -> None:
        """504, not 503."""
        self.assert_closed(method_frame(1, 20, 10, b"\0"), 504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10))

    def test_servers_method(self) -> None:
        """What only servers send is 503."""
        self.assert_closed(method_frame(1, 50, 11, b"\1q" + bytes(8)), 503, "COMMAND_INVALID - unimplemented method")

    def test_connection_methods(self) -> None:
        """What belongs to the handshake, or to channels, is 504 on channel 0."""
        text = "CHANNEL_ERROR - unexpected method in connection state running"
        self.assert_closed(method_frame(0, 10, 40, b"\1/\0\0"), 504, text, (10, 40))
        self.assert_closed(method_frame(0, 50, 10, bytes(12)), 504, text, (50, 10))

    def test_unknown_method(self) -> None:
        """540, where RabbitMQ crashes."""
        self.assert_closed(method_frame(1, 60, 999), 540)

    def test_contents_out_of_place(self) -> None:
        """505 for a header or body that belongs to nothing, and for a method inside a content."""
        header = frame(2, 1, struct.pack(">HHQH", 60, 0, 5, 0))
        publish = method_frame(1, 60, 40, b"\0\0\0\x01q\0")
        self.assert_closed(header, 505)
        self.assert_closed(frame(3, 1, b"x"), 505)
        self.assert_closed(publish + frame(3, 1, b"x"), 505)
        self.assert_closed(publish + header + publish, 505)
        self.assert_closed(
            frame(2, 9, struct.pack(">HHQH", 60, 0, 5, 0)),
            505,
            "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
        )

    def test_frames(self) -> None:
        """501 for frames that are none."""
        for octets in (
            frame(4, 1, b""),
            frame(9, 1, b""),
            frame(8, 0, b"x"),
            frame(8, 5, b""),
            frame(1, 1, b"abc"),
            frame(1, 1, b"\0\x3c\0\x0a")[:-1] + b"\x00",
            struct.pack(">BHI", 3, 1, 0xFFFFFFFF),
            struct.pack(">BHI", 3, 1, 131072 + 1),
        ):
            with self.subTest(octets=octets):
                self.assert_closed(octets, 501)

    def test_frames_of_eight_octets_more(self) -> None:
        """R19: AMQPStorm's payloads are as large as frame_max, its frames 8 octets larger; RabbitMQ takes them."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        header = frame(2, 1, struct.pack(">HHQH", 60, 0, 131072, 0))
        peer.send_raw(method_frame(1, 60, 40, b"\0\0\0\x01q\0") + header + frame(3, 1, bytes(131072)))
        peer.open_channel(2)

    def test_body_beyond_its_size(self) -> None:
        """4.4, body: frames must add up to the size exactly (CVE-2026-67235)."""
        publish = method_frame(1, 60, 40, b"\0\0\0\x01q\0") + frame(2, 1, struct.pack(">HHQH", 60, 0, 5, 0))
        self.assert_closed(publish + frame(3, 1, b"123456"), 501)

    def test_nesting(self) -> None:
        """4.4, nesting: 32 levels in a table, the 33rd is 502, and nothing is declared."""

        def nested(levels: int) -> bytes:
            table = b""
            for _ in range(levels - 1):
                table = b"\1aF" + len(table).to_bytes(4, "big") + table
            return len(table).to_bytes(4, "big") + table

        declare = b"\0\0\1q\0"
        self.assert_closed(method_frame(1, 50, 10, declare + nested(33)), 502)
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.send_raw(method_frame(1, 50, 10, declare + nested(32)))
        peer.expect(queue.DeclareOk, 1)

    def test_table_entries(self) -> None:
        """4.4, table entries: 1,024 in one table, one more is 502."""

        def entries(count: int) -> bytes:
            table = b"".join(b"\4%04dV" % number for number in range(count))
            return len(table).to_bytes(4, "big") + table

        declare = b"\0\0\1q\0"
        self.assert_closed(method_frame(1, 50, 10, declare + entries(1025)), 502)
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.send_raw(method_frame(1, 50, 10, declare + entries(1024)))
        peer.expect(queue.DeclareOk, 1)

    def test_close_ok_with_the_violation(self) -> None:
        """The close-ok is found in octets that are no longer read; without one the socket closes after a while."""
        peer = Peer(make_broker()).open()
        peer.send_raw(frame(9, 0, b""))
        peer.expect(connection.Close)
        peer.send_raw(b"rubbish" * 100)
        self.assertFalse(peer.is_lost)
        peer.advance(CLOSE_TIMEOUT + 0.1)
        self.assertTrue(peer.is_lost)


class DefectTests(SynchronousTestCase):
    """R36: an error in the broker itself costs one connection."""

    def test_defect(self) -> None:
        """541, logged with its traceback, and the others go on."""
        broker = make_broker()
        healthy, peer = Peer(broker).open(), Peer(broker).open()
        peer.open_channel(1)
        broken = peer.server.channels[1]
        broken.method_received = lambda method: 1 / 0  # type: ignore[assignment]
        peer.send(queue.Declare(queue="q"), 1)
        self.assertEqual(peer.expect(connection.Close).reply_code, 541)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        healthy.open_channel(1)

    def test_defect_at_the_end(self) -> None:
        """A channel that fails while it is closed keeps nothing else from being cleaned up."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        peer.open_channel(2)
        peer.declare("mine", exclusive=True)
        peer.server.channels[1].closed = lambda: 1 / 0  # type: ignore[method-assign, assignment]
        peer.lose()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(broker.vhosts["/"].queues, {})
        self.assertEqual(broker.connections, set())


class EndTests(unittest.TestCase):
    """However a connection ends, what it held is free."""

    def test_client_closes(self) -> None:
        """Exclusive queues are gone before close-ok, and unacked messages are back."""
        broker = make_broker()
        peer, other = Peer(broker).open(), Peer(broker).open()
        peer.open_channel(1)
        other.open_channel(1)
        peer.declare("mine", exclusive=True)
        other.declare("shared")
        other.publish(b"x", "shared")
        peer.consume("shared")
        self.assertEqual(broker.vhosts["/"].queues["shared"].message_count, 0)
        peer.send(connection.Close(reply_code=200, reply_text="bye"))
        peer.expect(connection.CloseOk)
        self.assertTrue(peer.is_lost)
        self.assertEqual(list(broker.vhosts["/"].queues), ["shared"])
        self.assertEqual(broker.vhosts["/"].queues["shared"].message_count, 1)
        self.assertEqual(broker.connections, {other.server})

    def test_socket_is_lost(self) -> None:
        """The same without a word."""
        broker = make_broker()
        peer = Peer(broker).open(heartbeat=5)
        peer.open_channel(1)
        peer.declare("mine", exclusive=True)
        peer.lose()
        self.assertEqual(broker.vhosts["/"].queues, {})
        self.assertEqual(broker.reactor.getDelayedCalls(), [])
        self.assertEqual(broker.admission.connections, 0)

    def test_broker_closes(self) -> None:
        """close_with: the exclusive queues are gone at once; what comes after it is ignored, but close and close-ok."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        peer.declare("mine", exclusive=True)
        peer.server.close_with(fault(320, "enough"), exchange.Declare)
        peer.server.close_with(fault(541, "a second reason"))
        self.assertEqual(broker.vhosts["/"].queues, {})
        self.assertEqual(peer.server.state, "closing")
        late = method_frame(1, 50, 10, b"\0\0\4late\0" + bytes(4))
        peer.send_raw(late)
        close = peer.expect(connection.Close)
        self.assertEqual((close.reply_code, close.reply_text), (320, "CONNECTION_FORCED - enough"))
        self.assertEqual((close.class_id, close.method_id), (40, 10))
        self.assertEqual(broker.vhosts["/"].queues, {})
        peer.send(connection.CloseOk())
        self.assertTrue(peer.is_lost)
        self.assertEqual(peer.methods, [])

    def test_closes_cross(self) -> None:
        """F30: both are answered."""
        peer = Peer(make_broker()).open()
        theirs = peer.wire.send_method(0, connection.Close(reply_code=200))
        peer.server.close_with(fault(320, "enough"))
        peer.send_raw(theirs)
        peer.expect(connection.Close)
        peer.expect(connection.CloseOk)
        self.assertTrue(peer.is_lost)

    def test_client_does_not_answer(self) -> None:
        """The socket is closed after a while."""
        peer = Peer(make_broker()).open()
        peer.server.close_with(fault(320, "enough"))
        peer.pump()
        peer.advance(CLOSE_TIMEOUT - 0.1)
        self.assertFalse(peer.is_lost)
        peer.advance(0.2)
        self.assertTrue(peer.is_lost)
        self.assertTrue(peer.transport.is_aborted)

    def test_gone(self) -> None:
        """`gone` fires when the socket is closed."""
        peer = Peer(make_broker()).open()
        seen: list[object] = []
        peer.server.gone.addCallback(seen.append)
        self.assertEqual(seen, [])
        peer.lose()
        self.assertEqual(seen, [None])


class OtherMethodTests(unittest.TestCase):
    """What else there is on channel 0."""

    def test_update_secret(self) -> None:
        """It is answered, and is not shown."""
        peer = Peer(make_broker()).open()
        peer.send(connection.UpdateSecret(new_secret="canary", reason="rotated"))
        peer.expect(connection.UpdateSecretOk)
        self.assertNotIn("canary", repr(vars(peer.server)))

    def test_heartbeats(self) -> None:
        """One comes every T/2; a silent client is dropped after 2T and a bit (R13)."""
        peer = Peer(make_broker()).open(heartbeat=4)
        for _ in range(20):
            peer.advance(0.1)
        self.assertTrue(peer.raw.endswith(b"\x08\x00\x00\x00\x00\x00\x00\xce"))
        for _ in range(59):
            peer.advance(0.1)
        self.assertFalse(peer.is_lost)
        for _ in range(12):
            peer.advance(0.1)
        self.assertTrue(peer.is_lost)
        self.assertTrue(peer.transport.is_aborted)

    def test_heartbeats_keep_alive(self) -> None:
        """Any octet is a sign of life."""
        peer = Peer(make_broker()).open(heartbeat=1)
        for _ in range(50):
            peer.advance(0.2)
            peer.send_raw(peer.wire.heartbeat())
        self.assertFalse(peer.is_lost)

    def test_no_heartbeats(self) -> None:
        """A heartbeat of 0 is none."""
        clock = Clock()
        peer = Peer(make_broker(clock)).open(heartbeat=0)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(peer.server.heartbeat_interval, 0)


class HeldEventTests(unittest.TestCase):
    """While reading is paused nothing reaches a channel, not even from the same octets."""

    def test_order(self) -> None:
        """What was held comes first, then what came later; all in order."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        server, seen = peer.server, []
        receiver = server.channels[1]

        def take(method: object) -> None:
            assert isinstance(method, queue.Declare)
            seen.append(method.queue)
            if method.queue == "2":
                server.pause_reading("test")

        receiver.method_received = take  # type: ignore[method-assign]
        chunk = [peer.wire.send_method(1, queue.Declare(queue=str(n))) for n in range(6)]
        peer.send_raw(b"".join(chunk[:4]))
        peer.send_raw(chunk[4])
        self.assertEqual(seen, ["0", "1", "2"])
        self.assertEqual(peer.transport.producerState, "paused")
        server.resume_reading("test")
        self.assertEqual(seen, ["0", "1", "2", "3", "4"])
        self.assertEqual(peer.transport.producerState, "producing")
        peer.send_raw(chunk[5])
        self.assertEqual(seen[-1], "5")

    def test_paused_and_resumed_meanwhile(self) -> None:
        """A wait that is over at once holds nothing."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        server, seen = peer.server, []

        def take(method: object) -> None:
            seen.append(method)
            server.pause_reading("test")
            server.resume_reading("test")

        server.channels[1].method_received = take  # type: ignore[method-assign]
        peer.send_raw(b"".join(peer.wire.send_method(1, queue.Declare(queue="q")) for _ in range(3)))
        self.assertEqual(len(seen), 3)
        self.assertEqual(peer.transport.producerState, "producing")

    def test_close_while_paused(self) -> None:
        """A connection that is closed while it waits is read again, for its close-ok."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.server.pause_reading("test")
        peer.send_raw(peer.wire.send_method(1, queue.Declare(queue="held")))
        peer.server.close_with(fault(320, "enough"))
        self.assertEqual(peer.transport.producerState, "producing")
        peer.pump()
        peer.expect(connection.Close)
        peer.send(connection.CloseOk())
        self.assertTrue(peer.is_lost)
        self.assertEqual(peer.broker.vhosts["/"].queues, {})

    def test_clients_close_while_paused(self) -> None:
        """A close that was read and held is answered when the broker closes too."""
        peer = Peer(make_broker()).open()
        peer.server.pause_reading("test")
        peer.send(connection.Close(reply_code=200))
        self.assertEqual(peer.methods, [])
        peer.server.close_with(fault(320, "enough"))
        peer.pump()
        peer.expect(connection.CloseOk)
        self.assertTrue(peer.is_lost)

    def test_two_who_pause(self) -> None:
        """Reading goes on when the last of them agrees."""
        peer = Peer(make_broker()).open()
        server = peer.server
        server.pause_reading("a")
        server.pause_reading("b")
        server.resume_reading("a")
        self.assertEqual(peer.transport.producerState, "paused")
        server.resume_reading("b")
        server.resume_reading("b")
        self.assertEqual(peer.transport.producerState, "producing")


class CountTests(unittest.TestCase):
    """What the management shows."""

    def test_octets(self) -> None:
        """All of them, both ways."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.send(basic.Qos(prefetch_count=1), 1)
        self.assertEqual(peer.server.octets_sent, len(peer.raw))
        self.assertGreater(peer.server.octets_received, 100)

    def test_names(self) -> None:
        """RabbitMQ's form."""
        peer = Peer(make_broker()).open()
        self.assertEqual(peer.server.name, f"127.0.0.1:{peer.server.peer_port} -> 127.0.0.1:5672")
        self.assertIn("running", repr(peer.server))
