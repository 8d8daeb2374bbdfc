"""Two protocols of one process, joined without a socket.

:func:`join` makes the two ends of a stream.  What one end writes, the other one's protocol gets in a later turn of the
reactor, at most :data:`READ_SIZE` bytes at a time, and never inside the write.  On a `twisted.internet.task.Clock`,
`clock.advance(0)` runs all that is under way, so a test is deterministic and needs neither sockets nor time.

Invariant, as with TCP: bytes arrive in order, each once; a reader that pauses keeps the writer's buffer, and above
:data:`BUFFER_SIZE` the writer's producer is paused; both protocols get `connectionLost` exactly once; after
`loseConnection` all that was written arrives first, after `abortConnection` nothing more does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["BUFFER_SIZE", "READ_SIZE", "InProcessEndpoint", "InProcessTransport", "join"]

#: Bytes that one reading turn hands on at most.
READ_SIZE: Final = 256 * 1024
#: Bytes in an end's buffer above which the producer that writes to it is paused.
BUFFER_SIZE: Final = 64 * 1024


@implementer(ITransport, IConsumer, IPushProducer)
class InProcessTransport:
    """One end of a stream inside the process: what a protocol has as `transport`."""

    _log = Logger(namespace="txmsg.testing.inprocess")

    #: For protocols that ask their transport whether it is over (as Twisted's own abstract transports have it).
    connected = True
    disconnecting = False

    def __init__(self, clock: IReactorTime, host: IAddress, peer: IAddress) -> None:
        self._clock = clock
        self._host = host
        self._peer_address = peer
        self._protocol: Any = None
        self._other: InProcessTransport | None = None
        #: Written here, not yet read there.
        self._buffer: list[bytes] = []
        self._size = 0
        self._producer: Any = None
        self._is_streaming = False
        self._is_producer_paused = False
        self._is_reading_paused = False
        self._is_scheduled = False

    # -- ITransport --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Twisted: send some bytes; nothing happens once the end is closed."""
        if not data or self.disconnecting or not self.connected:
            return
        self._buffer.append(bytes(data))
        self._size += len(data)
        self._hold_producer()
        self._soon()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Twisted: the same with several pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Twisted: close it once all that was written has been read."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._soon()

    def abortConnection(self) -> None:
        """Twisted: close it now; what was not read is lost."""
        if not self.connected:
            return
        other = self._other
        self._end(error.ConnectionAborted())
        if other is not None:
            other._end(error.ConnectionLost())

    def getPeer(self) -> IAddress:
        """Twisted: an address of this machine."""
        return self._peer_address

    def getHost(self) -> IAddress:
        """Twisted: an address of this machine."""
        return self._host

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay to switch off."""

    # -- IConsumer ---------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Twisted: pause `producer` while the buffer is full.  Only push producers are served."""
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = producer
        self._is_streaming = streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Twisted: forget the producer."""
        self._producer = None
        self._is_producer_paused = False
        if self.disconnecting:
            self._soon()

    # -- IPushProducer -----------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Twisted: hand nothing more to our protocol."""
        self._is_reading_paused = True

    def resumeProducing(self) -> None:
        """Twisted: go on."""
        self._is_reading_paused = False
        if self._other is not None:
            self._other._soon()

    def stopProducing(self) -> None:
        """Twisted: the reader wants no more."""
        self.loseConnection()

    # -- inside ------------------------------------------------------------------------------------

    def _hold_producer(self) -> None:
        if self._size > BUFFER_SIZE and self._producer is not None and not self._is_producer_paused:
            self._is_producer_paused = True
            if self._is_streaming:
                self._producer.pauseProducing()

    def _soon(self) -> None:
        if not self._is_scheduled and self.connected:
            self._is_scheduled = True
            self._clock.callLater(0, self._move)

    def _move(self) -> None:
        """A turn: let the other end read from our buffer, and close when that was asked for and all is read."""
        self._is_scheduled = False
        other = self._other
        if not self.connected or other is None or other._is_reading_paused:
            return
        if self._buffer:
            data = b"".join(self._buffer)
            rest = data[READ_SIZE:]
            self._buffer = [rest] if rest else []
            self._size = len(rest)
            other._deliver(data[:READ_SIZE])
            if self._buffer:
                self._soon()
                return
        if not self.connected:
            return
        producer = self._producer
        if producer is not None and (self._is_producer_paused or not self._is_streaming):
            self._is_producer_paused = False
            producer.resumeProducing()
        if self.disconnecting and self._producer is None and not self._buffer:
            # What was still on its way to us is lost, as with a socket that is closed.
            self._end(error.ConnectionDone())
            other._end(error.ConnectionDone())
        elif self._buffer:
            self._soon()

    def _deliver(self, data: bytes) -> None:
        if self.disconnecting:
            return  # as with a socket, of which nothing is read any more then
        try:
            self._protocol.dataReceived(data)
        except Exception:
            self._log.failure("the protocol failed; its connection is dropped")
            self.abortConnection()

    def _end(self, reason: Exception) -> None:
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        self._buffer.clear()
        self._size = 0
        self._clock.callLater(0, self._lost, Failure(reason))

    def _lost(self, reason: Failure) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self._protocol, self._other = self._protocol, None, None
        protocol.connectionLost(reason)

    def __repr__(self) -> str:
        state = "open" if self.connected and not self.disconnecting else "closing" if self.connected else "closed"
        return f"<InProcessTransport {state}, {self._size} bytes on their way>"


def join(clock: IReactorTime, client: IProtocol, server: IProtocol, addresses: tuple[IAddress, IAddress]) -> None:
    """Connect two protocols; `addresses` are those of the client's and of the server's end."""
    ours, theirs = addresses
    near, far = InProcessTransport(clock, ours, theirs), InProcessTransport(clock, theirs, ours)
    near._other, far._other = far, near
    near._protocol, far._protocol = client, server
    server.makeConnection(far)
    client.makeConnection(near)


@implementer(IStreamClientEndpoint)
class InProcessEndpoint:
    """A Twisted endpoint that leads to a factory of servers in this process.

    servers: IProtocolFactory -- what builds the server's protocol; None from it refuses the connection.
    clock: IReactorTime.   port: the number that the server's address has.
    """

    _last_port = 49151

    def __init__(self, servers: IProtocolFactory, clock: IReactorTime, port: int = 5672) -> None:
        self._servers = servers
        self._clock = clock
        self._address = IPv4Address("TCP", "127.0.0.1", port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Twisted: make a connection; fires at once with the client's protocol."""
        cls = type(self)
        cls._last_port = 49152 + (cls._last_port - 49151) % 16384
        ours = IPv4Address("TCP", "127.0.0.1", cls._last_port)
        client = protocolFactory.buildProtocol(self._address)
        server = None if client is None else self._servers.buildProtocol(ours)
        if client is None or server is None:
            return fail(error.ConnectionRefusedError())
        join(self._clock, client, server, (ours, self._address))
        return succeed(client)

    def __repr__(self) -> str:
        return f"<InProcessEndpoint to {self._address.host}:{self._address.port}>"
