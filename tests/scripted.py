"""A scripted AMQP server: it plays exactly what a test wrote down, right or wrong.

Frames are built and read by **pamqp**, another project's codec, so that our own never judges itself.  A script
is a coroutine that is given the peer::

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()                                     # header ... connection.open-ok
        channel = await peer.accept_channel()
        declare = await peer.expect(commands.Queue.Declare, channel)
        peer.send(commands.Queue.DeclareOk(declare.queue, 0, 0), channel)

It knows no clock and no socket, so the same script plays in memory (:func:`play_in_memory`) and on a real
socket (:class:`ScriptedServer`), plain or TLS.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from OpenSSL.crypto import X509, PKey
from pamqp import base, body, commands, frame, header, heartbeat
from twisted.internet import ssl
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect

from tests.cases import ReactorTestCase
from tests.certificates import Issued
from txmsg.testing.ports import free_ports

Frame = base.Frame | body.ContentBody | header.ContentHeader | header.ProtocolHeader | heartbeat.Heartbeat
Script = Callable[["ScriptedPeer"], Coroutine[Deferred[Any], Any, None]]
_F = TypeVar("_F", bound=Frame)

_FRAME_HEADER = struct.Struct(">BHI")
_PROTOCOL_HEADER_SIZE = 8

#: What RabbitMQ says of itself, shortened.
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class PeerGone(Exception):
    """The client's side was closed while the script waited for a frame."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the client said in the handshake."""

    start_ok: commands.Connection.StartOk
    tune_ok: commands.Connection.TuneOk
    open: commands.Connection.Open


@dataclass(frozen=True, slots=True)
class Content:
    """A method with its content, put together."""

    method: base.Frame
    properties: commands.Basic.Properties
    body: bytes


class ScriptedPeer(Protocol):
    """The server's end of one connection.

    :ivar received: every frame that came in, with its channel number, heartbeats included.
    :ivar raw: every byte that came in.
    :ivar closed: fires when the connection is lost.
    """

    transport: ITCPTransport

    def __init__(self) -> None:
        self.received: list[tuple[int, Frame]] = []
        self.raw = bytearray()
        self.closed: Deferred[None] = Deferred()
        self.is_lost = False
        self._buffer = bytearray()
        self._inbox: deque[tuple[int, Frame]] = deque()
        self._waiting: Deferred[None] | None = None

    # -- Twisted's side

    def dataReceived(self, data: bytes) -> None:
        """Split what comes into frames; pamqp decodes each of them."""
        self.raw += data
        self._buffer += data
        while size := self._first_frame_size():
            _, channel, decoded = frame.unmarshal(bytes(self._buffer[:size]))
            del self._buffer[:size]
            self.received.append((channel, decoded))
            if not isinstance(decoded, heartbeat.Heartbeat):
                self._inbox.append((channel, decoded))
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the waiting script, which sees what came in before first."""
        self.is_lost = True
        self._wake()
        self.closed.callback(None)

    def _first_frame_size(self) -> int:
        """The size of the first frame in the buffer; 0 when it is not whole yet."""
        if self._buffer[:4] == b"AMQP":
            return _PROTOCOL_HEADER_SIZE if len(self._buffer) >= _PROTOCOL_HEADER_SIZE else 0
        if len(self._buffer) < _FRAME_HEADER.size:
            return 0
        size = int(_FRAME_HEADER.unpack_from(self._buffer)[2]) + _FRAME_HEADER.size + 1
        return size if len(self._buffer) >= size else 0

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    # -- what comes in

    async def next(self) -> tuple[int, Frame]:
        """The next frame and its channel number; heartbeats are passed over.

        :raises PeerGone: when the connection is lost and everything received has been taken.
        """
        while not self._inbox:
            if self.is_lost:
                raise PeerGone("the client closed the connection; the script waited for a frame")
            self._waiting = Deferred()
            await self._waiting
        return self._inbox.popleft()

    async def expect(self, kind: type[_F], channel: int | None = None) -> _F:
        """The next frame, which must be a ``kind`` (on ``channel``, if that is given)."""
        number, received = await self.next()
        assert isinstance(received, kind), f"expected {kind.__name__}, got {received!r} on channel {number}"
        assert channel is None or number == channel, f"{kind.__name__} came on channel {number}, not {channel}"
        return received

    async def expect_content(self, kind: type[base.Frame], channel: int) -> Content:
        """The next method, which must be a ``kind`` on ``channel``, with the content that follows it."""
        method = await self.expect(kind, channel)
        head = await self.expect(header.ContentHeader, channel)
        octets = b""
        while len(octets) < head.body_size:
            octets += (await self.expect(body.ContentBody, channel)).value
        assert len(octets) == head.body_size, f"{len(octets)} octets came, {head.body_size} were announced"
        return Content(method, head.properties, octets)

    async def expect_loss(self) -> None:
        """Wait until the client has closed the socket; a frame before that is an error."""
        try:
            number, received = await self.next()
        except PeerGone:
            return
        raise AssertionError(f"expected the end of the connection, got {received!r} on channel {number}")

    @property
    def methods(self) -> list[str]:
        """The names of all methods received, in order: ``["Connection.StartOk", ...]``."""
        return [received.name for _, received in self.received if isinstance(received, base.Frame)]

    # -- what goes out

    def send(self, value: Frame, channel: int = 0) -> None:
        """Send one frame."""
        self.transport.write(frame.marshal(value, channel))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.transport.write(data)

    def send_frame(self, kind: int, channel: int, payload: bytes) -> None:
        """Send a frame around ``payload``, whatever that is."""
        self.transport.write(_FRAME_HEADER.pack(kind, channel, len(payload)) + payload + b"\xce")

    def send_content(
        self,
        method: base.Frame,
        octets: bytes,
        channel: int,
        properties: commands.Basic.Properties | None = None,
        piece: int = 100_000,
    ) -> None:
        """Send a method with content, in body frames of at most ``piece`` octets, in one write."""
        values: list[Frame] = [method, header.ContentHeader(0, len(octets), properties)]
        values += [body.ContentBody(octets[i : i + piece]) for i in range(0, len(octets), piece)]
        self.transport.write(b"".join(frame.marshal(value, channel) for value in values))

    def deliver(
        self,
        octets: bytes,
        *,
        channel: int,
        consumer_tag: str,
        delivery_tag: int,
        properties: commands.Basic.Properties | None = None,
        redelivered: bool = False,
        exchange: str = "",
        routing_key: str = "q",
    ) -> None:
        """Send one basic.deliver."""
        method = commands.Basic.Deliver(consumer_tag, delivery_tag, redelivered, exchange, routing_key)
        self.send_content(method, octets, channel, properties)

    # -- the usual exchanges

    async def accept(
        self,
        *,
        mechanisms: str = "PLAIN AMQPLAIN",
        locales: str = "en_US",
        capabilities: dict[str, bool] | None = None,
        channel_max: int = 2047,
        frame_max: int = 131072,
        heartbeat: int = 0,
    ) -> Accepted:
        """Play the server's part of the handshake, up to connection.open-ok."""
        start_ok = await self.start(mechanisms=mechanisms, locales=locales, capabilities=capabilities)
        self.send(commands.Connection.Tune(channel_max, frame_max, heartbeat))
        tune_ok = await self.expect(commands.Connection.TuneOk, 0)
        opened = await self.expect(commands.Connection.Open, 0)
        self.send(commands.Connection.OpenOk())
        return Accepted(start_ok, tune_ok, opened)

    async def start(
        self,
        *,
        mechanisms: str = "PLAIN AMQPLAIN",
        locales: str = "en_US",
        capabilities: dict[str, bool] | None = None,
    ) -> commands.Connection.StartOk:
        """Play the first step: the protocol header, connection.start, and the client's start-ok."""
        await self.expect(header.ProtocolHeader)
        properties: Any = {
            "product": "scripted peer",
            "version": "1",
            "capabilities": CAPABILITIES if capabilities is None else capabilities,
        }
        self.send(commands.Connection.Start(0, 9, properties, mechanisms, locales))
        return await self.expect(commands.Connection.StartOk, 0)

    async def accept_channel(self) -> int:
        """Answer channel.open; returns the channel number the client chose."""
        number, received = await self.next()
        assert isinstance(received, commands.Channel.Open), f"expected Channel.Open, got {received!r}"
        self.send(commands.Channel.OpenOk(), number)
        return number

    async def accept_close(self) -> commands.Connection.Close:
        """Answer the client's connection.close, and close the socket as a server does."""
        close = await self.expect(commands.Connection.Close, 0)
        self.send(commands.Connection.CloseOk())
        self.transport.loseConnection()
        return close

    async def close(self, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Close the connection from the server's side: connection.close, close-ok, end of the socket."""
        self.send(commands.Connection.Close(code, text, class_id, method_id))
        while True:
            _, received = await self.next()
            if isinstance(received, commands.Connection.CloseOk):
                break
        self.transport.loseConnection()

    async def close_channel(self, channel: int, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Close one channel from the server's side and wait for channel.close-ok."""
        self.send(commands.Channel.Close(code, text, class_id, method_id), channel)
        await self.expect(commands.Channel.CloseOk, channel)

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()


def play_in_memory(
    client: Protocol, script: Script, clock: Clock | None = None
) -> tuple[ScriptedPeer, IOPump, Deferred[None]]:
    """Join ``client`` to a scripted peer without sockets.

    Returns the peer, the pump that moves the bytes (``pump.flush()`` until nothing moves any more), and a
    Deferred that fires when the script has ended or fails with its error.
    """
    peer = ScriptedPeer()
    pump = connect(
        peer,
        FakeTransport(peer, isServer=True),
        client,
        FakeTransport(client, isServer=False),
        clock=clock,
    )
    played = Deferred.fromCoroutine(script(peer))
    pump.flush()
    return peer, pump, played


class ScriptedServer:
    """A listening port on 127.0.0.1 that plays one script for each connection.

    :ivar port: its number.
    :ivar peers: the connections there were, oldest first.
    """

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.port = 0
        self.peers: list[ScriptedPeer] = []
        self._scripts = scripts
        self._played: list[Deferred[None]] = []
        self._listening: IListeningPort | None = None

    def listen(self, *, tls: Issued | None = None, client_ca: Path | None = None, reactor: Any = None) -> None:
        """Start to listen.

        :param tls: the certificate to show; ``None`` for a plain socket.
        :param client_ca: ask for a client certificate from this authority, and refuse a client that has none.
        """
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = installed
        (self.port,) = free_ports(1)
        factory = _PlayingFactory(self._build)
        if tls is None:
            self._listening = reactor.listenTCP(self.port, factory, interface="127.0.0.1")
        else:
            context = server_options(tls, client_ca=client_ca)
            self._listening = reactor.listenSSL(self.port, factory, context, interface="127.0.0.1")

    def _build(self) -> ScriptedPeer:
        script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
        peer = _Playing(script, self._played)
        self.peers.append(peer)
        return peer

    async def played(self) -> None:
        """Wait until the scripts started so far have ended; the first error of one is raised."""
        await gatherResults(list(self._played), consumeErrors=True)

    async def stop(self) -> None:
        """Stop listening and reset what is still connected."""
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await maybeDeferred(listening.stopListening)
        for peer in self.peers:
            if not peer.is_lost:
                peer.abort()
                await peer.closed


class _PlayingFactory(Factory):
    noisy = False

    def __init__(self, build: Callable[[], ScriptedPeer]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> ScriptedPeer:
        """A peer for the next connection."""
        return self._build()


class _Playing(ScriptedPeer):
    """A peer that starts its script when it is connected."""

    def __init__(self, script: Script, played: list[Deferred[None]]) -> None:
        super().__init__()
        self._script = script
        self._played_list = played

    def connectionMade(self) -> None:
        """Start the script."""
        # Small frames must not wait for the acknowledgement of the one before.
        self.transport.setTcpNoDelay(True)
        self._played_list.append(Deferred.fromCoroutine(self._script(self)))


def server_options(issued: Issued, *, client_ca: Path | None = None, **options: Any) -> ssl.CertificateOptions:
    """Twisted's TLS options of a server that shows ``issued`` (``options`` as for CertificateOptions)."""
    trust = None
    if client_ca is not None:
        trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(client_ca.read_bytes())])
    return ssl.CertificateOptions(
        privateKey=PKey.from_cryptography_key(issued.key),
        certificate=X509.from_cryptography(issued.certificate),
        trustRoot=trust,
        **options,
    )


class ScriptedTestCase(ReactorTestCase):
    """A test on a real socket against scripts."""

    def serve(self, *scripts: Script, tls: Issued | None = None, client_ca: Path | None = None) -> ScriptedServer:
        """Listen for the length of the test; connection n plays script n, later ones the last script."""
        server = ScriptedServer(scripts)
        server.listen(tls=tls, client_ca=client_ca)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server
