"""How many may come in (4.4, connections; R36)."""

from __future__ import annotations

import tracemalloc
import unittest

from twisted.internet.task import Clock

from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.connection.admission import Admission
from txmsg.broker.limits import BrokerLimits


class AdmissionTests(unittest.TestCase):
    """The counting."""

    def test_room(self) -> None:
        """In all, and from one address."""
        admission = Admission(BrokerLimits(connections=3, connections_per_address=2))
        for number in range(2):
            self.assertTrue(admission.has_room("a"))
            admission.enter(number, "a", lambda: None)
        self.assertFalse(admission.has_room("a"))
        self.assertTrue(admission.has_room("b"))
        admission.enter(2, "b", lambda: None)
        self.assertFalse(admission.has_room("c"))
        admission.leave(0, "a")
        self.assertTrue(admission.has_room("a"))
        for who, host in ((1, "a"), (2, "b")):
            admission.leave(who, host)
        self.assertEqual((admission.connections, admission.unauthenticated), (0, 0))
        self.assertEqual(dict(admission._addresses), {})

    def test_waiting(self) -> None:
        """First come, first served; those who leave while they wait are no longer in line."""
        admission = Admission(BrokerLimits(unauthenticated=2))
        went_on: list[int] = []
        entered = [
            admission.enter(n, str(n), lambda n=n: went_on.append(n))  # type: ignore[misc]
            for n in range(6)
        ]
        self.assertEqual(entered, [True, True, False, False, False, False])
        admission.leave(2, "2")
        admission.judged(0)
        admission.judged(0)
        self.assertEqual(went_on, [3])
        admission.leave(1, "1")
        self.assertEqual(went_on, [3, 4])
        self.assertEqual((admission.unauthenticated, admission.waiting), (2, 1))


class ConnectionTests(unittest.TestCase):
    """The limits at work."""

    def test_connections(self) -> None:
        """4.4, connections: 256, 64 from one address; beyond it the socket is closed when it is accepted."""
        broker = make_broker(connections=10, connections_per_address=4)
        peers = [Peer(broker, f"127.0.0.{1 + n // 4}") for n in range(12)]
        self.assertEqual([peer.connection is not None for peer in peers], [True] * 10 + [False] * 2)
        self.assertIsNone(Peer(broker, "127.0.0.1").connection)
        self.assertEqual(broker.refused, 3)
        peers[0].lose()
        self.assertIsNotNone(Peer(broker, "127.0.0.1").connection)

    def test_defaults(self) -> None:
        """The numbers of the table."""
        limits = BrokerLimits()
        self.assertEqual(
            (limits.connections, limits.unauthenticated, limits.connections_per_address, limits.channels),
            (256, 16, 64, 256),
        )

    def test_unauthenticated(self) -> None:
        """4.4: while 16 have not logged in the next is not read; when one is done it goes on."""
        broker = make_broker(unauthenticated=3)
        strangers = [Peer(broker, f"127.0.0.{number}") for number in range(1, 4)]
        late = Peer(broker)
        header = late.wire.send_protocol_header()
        late.send_raw(header)
        self.assertEqual((late.raw, late.transport.producerState), (b"", "paused"))
        strangers[0].open()
        late.pump()
        self.assertIn(b"product", late.raw)
        self.assertEqual(late.transport.producerState, "producing")

    def test_strangers_run_out_of_time(self) -> None:
        """4.4, handshake: 10 s in total, however it is spent, and also in the line; then the line moves."""
        broker = make_broker(unauthenticated=2)
        silent, slow, late = Peer(broker), Peer(broker), Peer(broker)
        for octet in b"AMQP\x00\x00\x09":
            slow.send_raw(bytes([octet]))
            slow.advance(1.2)
        broker.reactor.advance(1.0)
        later = Peer(broker)
        broker.reactor.advance(1.0)
        for peer in (silent, slow, late):
            peer.pump()
            self.assertTrue(peer.is_lost)
            self.assertEqual(peer.raw, b"")
        later.open()

    def test_handshake_that_stops(self) -> None:
        """After the login, too; an open connection may be silent for as long as it likes."""
        broker = make_broker()
        peer, quiet = Peer(broker), Peer(broker).open()
        peer.start()
        peer.log_in()
        peer.tune()
        peer.advance(10.1)
        quiet.pump()
        self.assertTrue(peer.is_lost)
        self.assertFalse(quiet.is_lost)

    def test_refused_logins_leave_the_line(self) -> None:
        """Who waits for its refusal takes nobody's place."""
        broker = make_broker(unauthenticated=1)
        wrong = Peer(broker)
        wrong.start()
        wrong.log_in(b"\0guest\0wrong")
        Peer(broker).open()

    def test_memory_of_a_stranger(self) -> None:
        """R36: what has not logged in costs at most 64 KiB, whatever it sends."""
        broker = make_broker(unauthenticated=1000, connections=1000, connections_per_address=1000)
        start = b"AMQP\x00\x00\x09\x01"
        pieces = [
            [],
            [start],
            [start, b"\x01\x00\x00\x00\x00\x10\x00" + b"x" * 4096],
            [start, *[b"\x01\x00\x00\x00\x00\x10\x00"[i : i + 1] for i in range(7)], *[b"x"] * 4096],
            [b"A"] * 7,
            [start, b"\x03\x00\x00\x00\x00\x10\x00" + b"x" * 4000],
        ]
        Peer(broker).open().lose()  # what is made once
        for number, sent in enumerate(pieces):
            with self.subTest(number=number):
                count = 20
                tracemalloc.start()
                before = tracemalloc.get_traced_memory()[0]
                connections = []
                for _ in range(count):
                    peer = Peer(broker)
                    for piece in sent:
                        peer.send_raw(piece)
                    connections.append(peer.server)
                    # What the test itself keeps does not count.
                    peer.raw = b""
                    peer.methods.clear()
                used = (tracemalloc.get_traced_memory()[0] - before) / count
                tracemalloc.stop()
                self.assertLess(used, 64 * 1024)

    def test_no_timers_left(self) -> None:
        """Nothing of a lost stranger remains."""
        clock = Clock()
        broker = make_broker(clock, unauthenticated=1)
        peers = [Peer(broker) for _ in range(4)]
        for peer in peers:
            peer.lose()
        self.assertEqual((clock.getDelayedCalls(), broker.connections), ([], set()))
        self.assertEqual((broker.admission.connections, broker.admission.waiting), (0, 0))
