"""One connection through the proxy: a socket from the client, one to the broker, and a pipe in each direction.

It is as transparent as the kernel lets it be: the end of a stream is passed on as such, each direction by itself, and a
reset as a reset.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import error
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.testing.disruption.frames import DIRECTIONS, TO_BROKER, TO_CLIENT, Direction
from txmsg.testing.disruption.pipe import Pipe
from txmsg.testing.scripted import Meter

if TYPE_CHECKING:
    from txmsg.testing.disruption.proxy import DisruptionProxy

__all__ = ["ProxiedConnection", "Side"]

#: Seconds in which the broker's host has to take a connection.
_CONNECT_TIMEOUT: Final = 10.0


@implementer(IHalfCloseableProtocol)
class Side(Protocol):
    """One of the two sockets.

    out: Pipe -- takes what it reads.   back: Pipe -- writes to it.
    """

    def __init__(self, connection: ProxiedConnection, out: Pipe, back: Pipe) -> None:
        self._connection = connection
        self.out = out
        self.back = back

    def connectionMade(self) -> None:
        """Twisted: pass octets."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self.out.reads(transport)
        self.back.writes(transport)
        self._connection.side_made(self)

    def dataReceived(self, data: bytes) -> None:
        """Twisted: octets to pass on."""
        self.out.received(data)

    def readConnectionLost(self) -> None:
        """Twisted: the end of the stream from there."""
        self.out.source_ended()

    def writeConnectionLost(self) -> None:
        """Twisted: we have ended ours."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the socket is gone."""
        self._connection.side_lost(self, reason)


class ProxiedConnection:
    """One client's connection.

    proxy: DisruptionProxy.   number: int -- from 1, in the order they were accepted.
    client: str -- always "": the proxy does not know whose it is.
    """

    client = ""

    def __init__(self, proxy: DisruptionProxy, number: int, seed: object) -> None:
        self.proxy = proxy
        self.number = number
        self._pipes: dict[Direction, Pipe] = {
            direction: Pipe(self, direction, Random(f"{seed}/{number}/{direction}")) for direction in DIRECTIONS
        }
        self.front = Side(self, self._pipes[TO_BROKER], self._pipes[TO_CLIENT])
        self.back = Side(self, self._pipes[TO_CLIENT], self._pipes[TO_BROKER])
        self._connecting: Any = None
        self._open: set[Side] = set()
        #: Which side was lost while the news of it could not pass.
        self._untold: set[Side] = set()

    @property
    def is_open(self) -> bool:
        """Whether one of the sockets is open."""
        return bool(self._open) or self._connecting is not None

    @property
    def is_raw(self) -> bool:
        """Whether what passes is no AMQP that the proxy can read, such as TLS: then no rule for frames applies."""
        return any(pipe.editor.cutter.is_raw for pipe in self._pipes.values())

    # -- life --------------------------------------------------------------------------------------

    def connect(self, host: str, port: int) -> None:
        """Go on to the broker."""
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        endpoint = kind(self.proxy.reactor, host, port, timeout=_CONNECT_TIMEOUT)
        self._connecting = endpoint.connect(Factory.forProtocol(lambda: self.back))
        self._connecting.addCallbacks(lambda _: None, self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        self.proxy.counters.unreachable += 1
        self.reset()

    def side_made(self, side: Side) -> None:
        """For the sides."""
        self._open.add(side)
        if side is self.back:
            self._connecting = None
            if self.front not in self._open:
                self.reset()

    def side_lost(self, side: Side, reason: Failure) -> None:
        """For the sides: one is gone; the other one follows, as soon as it may know."""
        self._open.discard(side)
        side.back.stop()
        if not self._open:
            self._over()
        elif reason.check(error.ConnectionDone):
            side.out.source_ended()
        elif side.out.is_held:
            self._untold.add(side)
        else:
            self._abort(self._other(side))
        if side is self.front and self._connecting is not None:
            self._connecting.cancel()

    def _other(self, side: Side) -> Side:
        return self.back if side is self.front else self.front

    def _over(self) -> None:
        for pipe in self._pipes.values():
            pipe.stop()
        self.proxy.connection_over(self)

    def finished(self, pipe: Pipe) -> None:
        """For the pipes: one has passed everything, up to the end of the stream."""
        sink = self.back if pipe.direction == TO_BROKER else self.front
        both = all(each.is_finished for each in self._pipes.values())
        for side in list(self._open):
            transport: Any = side.transport
            if both or side is sink:
                transport.unregisterProducer()
                if both or self._other(side) not in self._open:
                    transport.loseConnection()
                else:
                    transport.loseWriteConnection()

    def toxics_changed(self) -> None:
        """For the proxy: something was switched on or off."""
        for pipe in self._pipes.values():
            pipe.wake()
        for side in list(self._untold):
            if not side.out.is_held:
                self._untold.discard(side)
                self._abort(self._other(side))

    def _abort(self, side: Side) -> None:
        if side in self._open:
            transport: Any = side.transport
            transport.abortConnection()

    # -- faults ------------------------------------------------------------------------------------

    def watch(self, direction: Direction, meter: Meter, reached: Callable[[ProxiedConnection], object]) -> None:
        """Call `reached` with this when what was passed on that way reaches the meter's limit."""
        self._pipes[direction].watch(meter, reached)

    def reset(self) -> None:
        """Reset both sockets (RST); what is held is lost."""
        self._stop_pipes()
        for side in (self.front, self.back):
            self._abort(side)

    def close(self) -> None:
        """End both streams (FIN), behind what was passed on already; what is held is lost."""
        self._stop_pipes()
        for side in list(self._open):
            transport: Any = side.transport
            transport.unregisterProducer()
            transport.loseConnection()

    def _stop_pipes(self) -> None:
        for pipe in self._pipes.values():
            pipe.stop()
        if self._connecting is not None:
            self._connecting.cancel()

    def half_close(self, direction: Direction = TO_CLIENT) -> None:
        """End the stream that way only; the other direction goes on."""
        side = self.back if direction == TO_BROKER else self.front
        self._pipes[direction].stop()
        if side in self._open:
            transport: Any = side.transport
            transport.unregisterProducer()
            transport.loseWriteConnection()

    def swallow(self, directions: tuple[Direction, ...] = DIRECTIONS) -> None:
        """Nothing passes that way any more, and no end either."""
        for direction in directions:
            self._pipes[direction].swallow()

    def hold(self, directions: tuple[Direction, ...] = DIRECTIONS) -> Callable[[], None]:
        """Nothing passes that way until the function that is returned is called."""
        pipes = [self._pipes[direction] for direction in directions]
        for pipe in pipes:
            pipe.hold()

        def release() -> None:
            for pipe in pipes:
                pipe.release()
            self.toxics_changed()

        return release

    def __repr__(self) -> str:
        state = "open" if self.is_open else "over"
        return f"<ProxiedConnection {self.number}: {state}{', raw' if self.is_raw else ''}>"
