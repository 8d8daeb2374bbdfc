"""The proxy, between sockets of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.cases import ReactorTestCase
from tests.certificates import shared_authority
from txmsg.amqp import AMQPProtocol, TLSOptions, connect
from txmsg.broker.tls import ServerTLS
from txmsg.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    HandshakeTimeout,
    HeartbeatTimeout,
    PublishTimeout,
    RemoteProtocolError,
)
from txmsg.testing import EmbeddedBroker
from txmsg.testing.disruption import TO_BROKER, TO_CLIENT, DisruptionProxy, Frame


class Peer(Protocol):
    """Notes what comes and how it ends."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.lost: type[BaseException] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008
        self.lost = reason.type


@implementer(IHalfCloseableProtocol)
class HalfClosing(Peer):
    """Stays when the other end has said its last."""

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass


class ProxyCase(ReactorTestCase):
    """A proxy in front of a server that takes notes."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.servers: list[HalfClosing] = []
        factory: Any = Factory()
        factory.noisy = False
        factory.buildProtocol = self._accepted
        self.port: Any = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.addCleanup(self._abort)
        where: Any = self.port.getHost()
        self.proxy = DisruptionProxy("127.0.0.1", where.port, seed=1)
        self.addCleanup(self.proxy.stop)
        self.successResultOf(self.proxy.start())

    def _abort(self) -> None:
        for server in self.servers:
            transport: Any = server.transport
            transport.abortConnection()

    def _accepted(self, _: object) -> HalfClosing:
        self.servers.append(HalfClosing())
        return self.servers[-1]

    async def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        """Wait for it."""
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, f"not within {seconds} s; {self.proxy!r}, {self.proxy.counters}")
            await deferLater(self.reactor, 0.003)

    async def wait(self, seconds: float) -> None:
        """Let that much time pass."""
        await deferLater(self.reactor, seconds)

    async def client(self, *, half_closing: bool = False) -> Peer:
        """A connection through the proxy."""
        kind: Any = HalfClosing if half_closing else Peer
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.proxy.port)
        made: Any = await endpoint.connect(Factory.forProtocol(kind))
        self.addCleanup(made.transport.abortConnection)
        found: Peer = made
        return found

    async def pair(self, *, half_closing: bool = False) -> tuple[Any, Any]:
        """The client's and the server's protocol of a connection through the proxy."""
        before = len(self.servers)
        client = await self.client(half_closing=half_closing)
        await self.until(lambda: len(self.servers) > before and self.servers[-1].transport)
        return client, self.servers[-1]


class TransparentTests(ProxyCase):
    """Without a fault it is not noticed."""

    async def test_octets(self) -> None:
        """Both ways, a lot of them, in order."""
        client, server = await self.pair()
        data = bytes(range(256)) * 8000
        client.transport.write(data)
        server.transport.write(data[::-1])
        await self.until(lambda: len(server.got) == len(client.got) == len(data), 20)
        self.assertEqual((server.got, client.got), (data, data[::-1]))
        self.assertEqual(self.proxy.counters.octets, {TO_BROKER: len(data), TO_CLIENT: len(data)})
        self.assertEqual(self.proxy.counters.passed, self.proxy.counters.octets)

    async def test_close(self) -> None:
        """What was written comes first; the other direction goes on until it ends, too."""
        client, server = await self.pair(half_closing=True)
        client.transport.write(b"last")
        client.transport.loseWriteConnection()
        await self.until(lambda: server.ended)
        self.assertEqual((server.got, client.ended), (b"last", False))
        server.transport.write(b"answer")
        server.transport.loseConnection()
        await self.until(lambda: client.ended)
        self.assertEqual(client.got, b"answer")
        await self.until(lambda: not self.proxy.connections)

    async def test_reset(self) -> None:
        """A reset is passed on as one."""
        client, server = await self.pair()
        client.transport.abortConnection()
        await self.until(lambda: server.lost)
        self.assertIs(server.lost, error.ConnectionLost)
        await self.until(lambda: not self.proxy.connections)

    async def test_no_server(self) -> None:
        """The client is reset."""
        await self.port.stopListening()
        client = await self.client()
        await self.until(lambda: client.lost)
        self.assertEqual(self.proxy.counters.unreachable, 1)

    async def test_a_reader_that_is_slow(self) -> None:
        """The writer's socket fills up: what the proxy holds is bounded."""
        client, server = await self.pair()
        server.transport.pauseProducing()
        client.transport.write(bytes(30_000_000))
        await self.wait(0.5)
        passed = self.proxy.counters.octets[TO_BROKER]
        await self.wait(0.2)
        self.assertEqual(self.proxy.counters.octets[TO_BROKER], passed)
        self.assertLess(passed, 29_000_000)
        server.transport.resumeProducing()
        await self.until(lambda: len(server.got) == 30_000_000, 20)


class ToxicTests(ProxyCase):
    """What lasts until it is switched off."""

    async def test_latency(self) -> None:
        """Each way; switched off, what is under way goes on at once."""
        client, server = await self.pair()
        with self.proxy.latency(0.1, jitter=0.05) as toxic:
            started = time.monotonic()
            client.transport.write(b"ping")
            await self.until(lambda: server.got)
            self.assertGreater(time.monotonic() - started, 0.04)
            self.assertEqual(toxic.count, 1)
        with self.proxy.latency(60, directions=TO_CLIENT):
            client.transport.write(b"ping")
            server.transport.write(b"pong")
            await self.until(lambda: server.got == b"pingping")
            self.assertEqual(client.got, b"")
        await self.until(lambda: client.got == b"pong")

    async def test_bandwidth(self) -> None:
        """F21: so many octets per second; and none at all."""
        client, server = await self.pair()
        toxic = self.proxy.bandwidth(20_000)
        started = time.monotonic()
        client.transport.write(bytes(6000))
        await self.until(lambda: len(server.got) == 6000)
        self.assertGreater(time.monotonic() - started, 0.2)
        toxic.stop()
        with self.proxy.bandwidth(0):
            client.transport.write(b"x")
            await self.wait(0.05)
            self.assertEqual(len(server.got), 6000)
        await self.until(lambda: len(server.got) == 6001)

    async def test_slicer(self) -> None:
        """F7: slices, one after the other."""
        client, server = await self.pair()
        slicer = self.proxy.slicer(3, variation=2, directions=TO_BROKER)
        client.transport.write(bytes(range(100)))
        await self.until(lambda: server.got == bytes(range(100)))
        self.assertGreaterEqual(slicer.count, 20)

    async def test_black_hole(self) -> None:
        """F8: what passes is lost, and no end is told; one direction is enough."""
        client, server = await self.pair()
        hole = self.proxy.blackhole(TO_BROKER)
        client.transport.write(b"lost")
        server.transport.write(b"found")
        await self.until(lambda: client.got == b"found")
        client.transport.abortConnection()
        await self.wait(0.1)
        self.assertEqual((server.got, server.lost, server.ended), (b"", None, False))
        self.assertEqual(self.proxy.counters.swallowed[TO_BROKER], 4)
        hole.stop()
        await self.until(lambda: server.lost)

    async def test_stall(self) -> None:
        """F2, F3: nothing passes, and then all of it, the end included."""
        client, server = await self.pair()
        with self.proxy.stall():
            client.transport.write(b"late")
            client.transport.loseConnection()
            await self.wait(0.05)
            self.assertEqual((server.got, server.ended), (b"", False))
        await self.until(lambda: server.ended)
        self.assertEqual(server.got, b"late")

    async def test_slow_close(self) -> None:
        """F22: the end of the stream is late."""
        client, server = await self.pair()
        self.proxy.slow_close(0.1)
        started = time.monotonic()
        client.transport.loseConnection()
        await self.until(lambda: server.ended)
        self.assertGreater(time.monotonic() - started, 0.09)

    async def test_clear(self) -> None:
        """Takes everything back."""
        client, server = await self.pair()
        self.proxy.stall()
        self.proxy.frames.drop(1)
        self.proxy.turn_away()
        self.proxy.cut("rst", after_bytes=1)
        refusal = self.proxy.refuse()
        client.transport.write(b"x")
        self.proxy.clear()
        await self.until(lambda: server.got == b"x")
        self.assertFalse(refusal.is_active)
        second, other = await self.pair()
        second.transport.write(b"12")
        await self.until(lambda: other.got == b"12")

    def test_what_makes_no_sense(self) -> None:
        """It is refused when it is set."""
        for call in (
            lambda: self.proxy.latency(-1),
            lambda: self.proxy.bandwidth(-1),
            lambda: self.proxy.slicer(0),
            lambda: self.proxy.slow_close(-1),
            lambda: DisruptionProxy("127.0.0.1", 1).port,
        ):
            with self.assertRaises(ConfigurationError):
                call()
        self.assertEqual(self.proxy.toxics, [])


class CutTests(ProxyCase):
    """Faults at a position, and of whole connections."""

    async def test_reset_behind_an_octet(self) -> None:
        """F4: just so many arrive."""
        self.proxy.cut("fin", TO_BROKER, after_bytes=5)
        client, server = await self.pair()
        client.transport.write(b"0123456789")
        await self.until(lambda: client.lost and server.ended)
        self.assertEqual(server.got, b"01234")
        self.assertIs(client.lost, error.ConnectionDone)

    async def test_reset(self) -> None:
        """Both ends are reset; only the connection that was meant."""
        cut = self.proxy.cut("rst", TO_CLIENT, after_bytes=2, connection=2)
        first, server = await self.pair()
        server.transport.write(b"0123")
        await self.until(lambda: first.got == b"0123")
        second, server = await self.pair()
        server.transport.write(b"0123")
        await self.until(lambda: second.lost and server.lost)
        self.assertIs(second.lost, error.ConnectionLost)
        self.assertEqual((cut.count, first.lost), (1, None))

    async def test_stall_behind_an_octet(self) -> None:
        """F6: and it goes on, when it is stopped or after the time."""
        cut = self.proxy.cut("stall", TO_BROKER, after_bytes=3)
        client, server = await self.pair()
        client.transport.write(b"0123456789")
        await self.until(lambda: server.got == b"012")
        await self.wait(0.03)
        self.assertEqual(server.got, b"012")
        cut.stop()
        await self.until(lambda: server.got == b"0123456789")
        self.proxy.cut("stall", TO_BROKER, after_bytes=0, seconds=0.05)
        client, server = await self.pair()
        client.transport.write(b"x")
        await self.until(lambda: server.got == b"x")

    async def test_black_hole_behind_an_octet(self) -> None:
        """For good."""
        self.proxy.cut("blackhole", TO_BROKER, after_bytes=3, stops=TO_BROKER)
        client, server = await self.pair()
        client.transport.write(b"0123456789")
        server.transport.write(b"back")
        await self.until(lambda: server.got == b"012" and client.got == b"back")

    async def test_half_close(self) -> None:
        """One direction ends, the other one goes on."""
        self.proxy.cut(lambda connection: connection.half_close(TO_CLIENT), after_bytes=1)
        client, server = await self.pair(half_closing=True)
        client.transport.write(b"1")
        await self.until(lambda: client.ended)
        client.transport.write(b"2")
        await self.until(lambda: server.got == b"12")
        self.assertFalse(server.ended)

    async def test_all_of_them_now(self) -> None:
        """Reset or closed."""
        pairs = [await self.pair(), await self.pair()]
        self.assertEqual(self.proxy.reset_all(), 2)
        await self.until(lambda: all(peer.lost is error.ConnectionLost for pair in pairs for peer in pair))
        client, server = await self.pair()
        self.assertEqual(self.proxy.close_all(), 1)
        await self.until(lambda: client.lost is error.ConnectionDone and server.ended)


class ConnectingTests(ProxyCase):
    """Faults of connecting."""

    async def test_refuse(self) -> None:
        """F12: nobody listens; and then again on the same port."""
        port = self.proxy.port
        for _ in range(3):
            with self.proxy.refuse():
                await self.wait(0.01)
                await self.assertFailure(Deferred.fromCoroutine(self.client()), error.ConnectionRefusedError)
            await self.wait(0.01)
            await self.pair()
            self.assertEqual(self.proxy.port, port)

    async def test_turn_away(self) -> None:
        """So many times."""
        fault = self.proxy.turn_away(2)
        for _ in range(2):
            client = await self.client()
            await self.until(lambda client=client: client.lost)  # type: ignore[misc]
        await self.pair()
        self.assertEqual(
            (fault.is_active, self.proxy.counters.turned_away, self.proxy.counters.accepted), (False, 2, 1)
        )

    async def test_accept_silently(self) -> None:
        """F10: nothing comes, and nothing reaches the server."""
        self.proxy.accept_silently(1)
        client = await self.client()
        client.transport.write(b"hello")  # type: ignore[union-attr]
        await self.wait(0.05)
        self.assertEqual((client.got, client.lost, self.servers, self.proxy.counters.silenced), (b"", None, [], 1))

    async def test_another_server(self) -> None:
        """For connections to come."""
        self.proxy.server = ("127.0.0.1", 1)
        client = await self.client()
        await self.until(lambda: client.lost)


class BrokerTests(ReactorTestCase):
    """Between a client and a broker."""

    async def start(self, *, tls: ServerTLS | None = None) -> DisruptionProxy:
        """A broker and its proxy."""
        self.broker = EmbeddedBroker()
        await self.broker.start()
        self.addCleanup(self.broker.stop)
        listener = await self.broker.listen(tls=tls)
        proxy = DisruptionProxy("127.0.0.1", listener.port)
        await proxy.start()
        self.addCleanup(proxy.stop)
        return proxy

    async def connect(self, proxy: DisruptionProxy, **fields: Any) -> AMQPProtocol:
        """A client through the proxy."""
        connection = await connect(self.broker.parameters(port=proxy.port, **fields))
        self.addCleanup(connection.close)
        return connection

    async def test_frames_are_counted(self) -> None:
        """Whole ones, without the protocol header."""
        proxy = await self.start()
        proxy.slicer(1)
        connection = await self.connect(proxy)
        self.assertEqual(proxy.counters.frames, {TO_BROKER: 3, TO_CLIENT: 3})
        self.assertFalse(proxy.connections[0].is_raw)
        await connection.close()

    async def test_a_confirm_is_dropped(self) -> None:
        """F34: the publish ends by its deadline."""
        proxy = await self.start()
        channel = await (await self.connect(proxy, confirm_timeout=0.2)).channel()
        await channel.confirm_select()
        self.broker.declare_queue("jobs")
        dropped = proxy.frames.drop(1, TO_CLIENT, method="basic.ack")
        publish = channel.basic_publish("", "jobs", b"first")
        await self.assertFailure(publish, PublishTimeout)
        self.assertEqual((dropped.count, self.broker.queue("jobs").bodies), (1, [b"first"]))
        proxy.reset_all()

    async def test_a_frame_is_injected(self) -> None:
        """F32: one of a type that does not exist."""
        proxy = await self.start()
        connection = await self.connect(proxy)
        proxy.frames.inject(Frame.of(4, 0, b""), 1, TO_CLIENT)
        closed = connection.when_closed()
        await self.assertFailure(connection.channel(), RemoteProtocolError)
        self.assertIsInstance(await closed, RemoteProtocolError)

    async def test_a_black_hole(self) -> None:
        """R13: heartbeats find out."""
        proxy = await self.start()
        connection = await self.connect(proxy, heartbeat=1)
        with proxy.blackhole():
            self.assertIsInstance(await connection.when_closed(), HeartbeatTimeout)

    async def test_connecting(self) -> None:
        """F10, F12: refused, turned away, silent."""
        proxy = await self.start()
        with proxy.turn_away():
            await self.assertFailure(Deferred.fromCoroutine(self.connect(proxy)), ConnectionLost)
        with proxy.accept_silently():
            connecting = Deferred.fromCoroutine(self.connect(proxy, handshake_timeout=0.1))
            await self.assertFailure(connecting, HandshakeTimeout)
        with proxy.refuse():
            await deferLater(self.broker.reactor, 0.01)
            await self.assertFailure(Deferred.fromCoroutine(self.connect(proxy)), ConnectFailed)

    async def test_tls(self) -> None:
        """Passes as it is: faults of octets work, rules for frames do nothing."""
        authority = shared_authority()
        issued = authority.issue("proxied", dns=["localhost"], ip=["127.0.0.1"])
        proxy = await self.start(tls=ServerTLS(cert_file=issued.certificate_file, key_file=issued.key_file))
        rule = proxy.frames.drop(None, "both", times=None)
        proxy.slicer(50)
        connection = await self.connect(proxy, tls=TLSOptions(ca_file=authority.certificate_file))
        self.assertTrue(proxy.connections[0].is_raw)
        self.assertEqual((rule.count, proxy.counters.frames), (0, {TO_BROKER: 0, TO_CLIENT: 0}))
        proxy.reset_all()
        self.assertIsInstance(await connection.when_closed(), ConnectionLost)
