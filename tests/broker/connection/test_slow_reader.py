"""A client that does not read: what waits for it is bounded, in octets and in time (4.4, write buffer)."""

from __future__ import annotations

import socket
import ssl
import unittest

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport

from tests.broker.server_peer import Peer, make_broker
from tests.cases import ReactorTestCase
from tests.certificates import shared_authority
from txmsg.broker.connection.slow_reader import STALL_TIMEOUT, SlowReader, unsent
from txmsg.broker.server import Broker
from txmsg.broker.tls import ServerTLS
from txmsg.broker.users.credentials import Users
from txmsg.wire.methods import basic, connection


class Watched:
    """A SlowReader with a limit of 1,000 octets and what it did."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.left: int | None = None
        self.seen: list[str] = []
        self.watch = SlowReader(
            self.clock,
            1000,
            left=lambda: self.left,
            pause=lambda: self.seen.append("pause"),
            resume=lambda: self.seen.append("resume"),
            too_slow=lambda why: self.seen.append(why),
        )


class SlowReaderTests(unittest.TestCase):
    """The watch itself."""

    def test_pause_and_drop(self) -> None:
        """Reading stops above half of the limit; above the limit the client is dropped, once."""
        it = Watched()
        for _ in range(6):
            it.watch.wrote(100)
        self.assertEqual(it.seen, [])
        it.watch.wrote(100)
        self.assertEqual(it.seen, ["pause"])
        for _ in range(20):
            it.watch.wrote(100)
        self.assertEqual(it.seen, ["pause", "it does not read what it is sent"])
        self.assertEqual(it.clock.getDelayedCalls(), [])

    def test_a_large_message(self) -> None:
        """One message may be larger than the limit."""
        it = Watched()
        it.watch.wrote(100_000)
        it.watch.wrote(100)
        it.watch.wrote(100)
        self.assertEqual(it.seen, [])

    def test_emptied(self) -> None:
        """Everything begins anew when all has left."""
        it = Watched()
        for _ in range(3):
            for _ in range(9):
                it.watch.wrote(100)
            it.watch.emptied()
        self.assertEqual(it.seen, ["pause", "resume"] * 3)
        self.assertEqual(it.clock.getDelayedCalls(), [])

    def test_stalled(self) -> None:
        """Nothing leaves for 15 s: dropped."""
        for left in (None, 500):
            with self.subTest(left=left):
                it = Watched()
                it.left = left
                it.watch.wrote(10)
                it.clock.advance(STALL_TIMEOUT - 0.1)
                self.assertEqual(it.seen, [])
                it.clock.advance(0.2)
                self.assertEqual(it.seen, ["it has read nothing for 15 s"])
                it.watch.wrote(10)
                self.assertEqual(it.clock.getDelayedCalls(), [])

    def test_slow_but_alive(self) -> None:
        """As long as something leaves it may take its time."""
        it = Watched()
        it.left = 1000
        it.watch.wrote(10)
        for left in range(990, 900, -10):
            it.left = left
            it.clock.advance(STALL_TIMEOUT)
        self.assertEqual(it.seen, [])

    def test_unsent(self) -> None:
        """A transport that shows no buffer is no error."""
        self.assertIsNone(unsent(StringTransport()))
        self.assertIsNone(unsent(None))


class UnsentTests(ReactorTestCase):
    """What can be seen of a real transport's buffer."""

    async def test_sockets(self) -> None:
        """It grows while the client does not read, and shrinks when it does; plain and under TLS."""
        server = shared_authority().issue("localhost", dns=["localhost"])
        tls = ServerTLS(cert_file=server.certificate_file, key_file=server.key_file)
        for options in (None, tls):
            with self.subTest(options=options):
                broker = Broker(reactor=reactor, users=Users(cost=2))
                listener = await broker.listen(port=0, tls=options)
                stream = socket.create_connection(("127.0.0.1", listener.port))
                if options is not None:
                    context = ssl.create_default_context(cafile=shared_authority().certificate_file)
                    stream = await self.in_thread(context.wrap_socket, stream, server_hostname="localhost")
                while not broker.connections:
                    await deferLater(reactor, 0.01)
                (connection,) = broker.connections
                connection.write(b"x" * 20_000_000)
                await deferLater(reactor, 0.05)
                before = unsent(connection.transport)
                assert before is not None
                self.assertGreater(before, 5_000_000)
                for _ in range(20):
                    await self.in_thread(stream.recv, 500_000)
                await deferLater(reactor, 0.05)
                after = unsent(connection.transport)
                assert after is not None
                self.assertLess(after, before)
                stream.close()
                await connection.gone
                await broker.stop()


class ConnectionTests(unittest.TestCase):
    """The watch at work."""

    def test_client_that_only_asks(self) -> None:
        """Replies that nobody reads: reading stops, and the memory stays within the limit."""
        peer = Peer(make_broker(write_buffer=100_000)).open()
        peer.open_channel(1)
        peer.declare("q")
        for _ in range(20):
            peer.publish(b"x" * 10_000, "q")
        peer.server.pauseProducing()
        get = peer.wire.send_method(1, basic.Get(queue="q", no_ack=True))
        for _ in range(200):
            peer.server.dataReceived(get)
        self.assertEqual(peer.transport.producerState, "paused")
        self.assertLess(len(peer.transport.value()), 100_000)
        self.assertTrue(peer.server.is_open)
        peer.server.resumeProducing()
        self.assertEqual(peer.transport.producerState, "producing")
        peer.pump()
        self.assertEqual(len(peer.contents), 20)

    def test_one_chunk_of_requests(self) -> None:
        """What is behind in the same octets waits too: a client that reads gets all of it."""
        peer = Peer(make_broker(write_buffer=100_000)).open()
        peer.open_channel(1)
        peer.declare("q")
        for _ in range(20):
            peer.publish(b"x" * 20_000, "q")
        peer.server.pauseProducing()
        get = peer.wire.send_method(1, basic.Get(queue="q", no_ack=True))
        peer.server.dataReceived(get * 20)
        self.assertLess(len(peer.transport.value()), 200_000)
        while len(peer.contents) < 20 and peer.server.is_open:
            peer.pump()
            peer.server.resumeProducing()
            peer.server.pauseProducing()
        self.assertEqual(len(peer.contents), 20)

    def test_stalled_client_is_closed(self) -> None:
        """320, should it ever read again; the socket closes anyway."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.server.pauseProducing()
        peer.send_raw(peer.wire.send_method(1, basic.Qos(prefetch_count=1)))
        peer.expect(basic.QosOk, 1)
        peer.advance(STALL_TIMEOUT + 1)
        close = peer.expect(connection.Close)
        self.assertEqual(close.reply_code, 320)
        self.assertEqual(close.reply_text, "CONNECTION_FORCED - the client is dropped, it has read nothing for 15 s")
        peer.advance(10)
        self.assertTrue(peer.is_lost)
        self.assertEqual(peer.broker.reactor.getDelayedCalls(), [])

    def test_largest_message(self) -> None:
        """A message of max_message_size reaches a client whatever the limit is."""
        peer = Peer(make_broker(write_buffer=10_000, max_message_size=1_000_000)).open()
        peer.open_channel(1)
        peer.declare("q")
        peer.publish(b"x" * 1_000_000, "q")
        peer.server.pauseProducing()
        peer.send(basic.Get(queue="q", no_ack=True), 1)
        peer.send(basic.Get(queue="q", no_ack=True), 1)
        self.assertEqual(len(peer.contents), 1)
        self.assertTrue(peer.server.is_open)
