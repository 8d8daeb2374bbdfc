"""The simulated network: a link is one TCP connection between a client and a broker, without a socket.

What one end writes arrives at the other in chunks and after delays that the link draws from its own generator, made
of the simulation's seed and the link's name: so links do not disturb each other's choices.

Invariants, as with TCP: octets arrive in order, each at most once; `loseConnection` is done once the system has taken
what was written, and the other end reads that before the end of the stream; `abortConnection` loses what is under way
and resets the other end; above its mark a buffer pauses the producer that fills it; each protocol gets
`connectionLost` once.  What is held (a stall) goes on later; through a black hole nothing passes any more, not even
the news of an end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from twisted.internet import error
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError
from txmsg.testing.disruption.clock import SimulatedClock
from txmsg.testing.disruption.frames import DIRECTIONS, TO_BROKER, TO_CLIENT, Direction, FrameCutter
from txmsg.testing.disruption.rules import FrameEditor, FrameRules
from txmsg.testing.inprocess import BUFFER_SIZE, InProcessTransport
from txmsg.testing.scripted import Meter

__all__ = ["Link", "Network", "SimulatedTransport"]

#: Octets that the system takes for a socket whose peer reads nothing: only what is beyond keeps a close waiting.
SOCKET_BUFFER: Final = 64 * 1024

#: At a meter's limit: what is to be done to the link.
_Reached = Callable[["Link"], object]


@dataclass(frozen=True)
class Network:
    """How links carry octets while nothing goes wrong.

    chunk: octets that arrive at once, at least and at most; None: all that is under way.
    delay: seconds until a chunk arrives, at least and at most; also until a connection is made.
    """

    chunk: tuple[int, int] | None = None
    delay: tuple[float, float] = (0.0002, 0.002)

    def __post_init__(self) -> None:
        if self.chunk is not None and not 1 <= self.chunk[0] <= self.chunk[1]:
            raise ConfigurationError("chunk is a least and a most number of octets, from 1 up")
        if not 0 <= self.delay[0] <= self.delay[1]:
            raise ConfigurationError("delay is a least and a most number of seconds, from 0 up")


class SimulatedTransport(InProcessTransport):
    """One end of a link: what a protocol has as `transport`.

    octets: int -- how many of those written here have arrived.
    """

    def __init__(self, link: Link, direction: Direction, host: IAddress, peer: IAddress, random: Random) -> None:
        super().__init__(link.clock, host, peer)
        self._link = link
        self._direction: Direction = direction
        self._random = random
        self._network = link.network
        #: Written here and on its way; `_buffer` is what was written since it was last looked at.
        self._flight = bytearray()
        self._editor = FrameEditor(link.rules, direction)
        self._meters: list[tuple[Meter, _Reached]] = []
        #: How many stalls hold this direction.
        self._holds = 0
        self._is_black_hole = False
        self._call: IDelayedCall | None = None
        #: This end is closed: what is under way still arrives, and then the end of the stream does.
        self._has_finished = False
        #: This end is aborted: that is what arrives.
        self._has_reset = False
        self.octets = 0

    # -- ITransport --------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Twisted: close it once the system has taken all that was written."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._finish()

    def abortConnection(self) -> None:
        """Twisted: close it now; the other end is reset."""
        if self.connected:
            self._has_reset = True
            self._ended(error.ConnectionAborted())
            self._soon()

    def unregisterProducer(self) -> None:
        """Twisted: forget the producer."""
        self._producer = None
        self._is_producer_paused = False
        self._finish()

    # -- for the link ------------------------------------------------------------------------------

    def join(self, protocol: IProtocol, other: SimulatedTransport) -> None:
        """These belong together."""
        self._protocol, self._other = protocol, other

    def watch(self, meter: Meter, reached: _Reached) -> None:
        """Call `reached(link)` when what has arrived reaches the meter's limit; nothing more arrives before."""
        self._meters.append((meter, reached))

    def hold(self) -> None:
        """From now on nothing arrives, until as many :meth:`release` calls."""
        self._holds += 1

    def release(self) -> None:
        """Go on."""
        self._holds -= 1
        self._soon()

    def swallow(self) -> None:
        """Nothing arrives any more, ever."""
        self._is_black_hole = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def cut(self, reason: Exception) -> None:
        """The end, from outside."""
        self._has_finished = self._has_reset = False
        self._flight.clear()
        self._ended(reason)

    # -- inside ------------------------------------------------------------------------------------

    def _soon(self) -> None:
        if not self._is_scheduled and self._other is not None and not self._is_black_hole:
            self._is_scheduled = True
            low, high = self._network.delay
            self._call = self._clock.callLater(low + (high - low) * self._random.random() if high else 0, self._move)

    def _move(self) -> None:
        """A chunk arrives."""
        self._is_scheduled = False
        self._call = None
        other = self._other
        assert isinstance(other, SimulatedTransport)
        if self._holds or self._is_black_hole:
            return
        if self._has_reset:
            self._has_reset = False
            other._ended(error.ConnectionLost())
            return
        if not other.connected:
            self._buffer.clear()
            self._flight.clear()
            self._size = 0
            if self.connected:  # as a system answers octets for a socket that is closed
                self._ended(error.ConnectionLost())
            return
        if other._is_reading_paused:
            return
        self._take_written()
        if self._flight:
            self._arrive(other)
            if self._holds or self._is_black_hole:
                return
        self._let_go_on()
        if self._flight or self._buffer:
            self._soon()
        elif self._has_finished:
            self._has_finished = False
            other._ended(error.ConnectionDone())

    def _take_written(self) -> None:
        if self._buffer:
            self._flight += self._editor.feed(b"".join(self._buffer))
            self._buffer.clear()
            self._size = len(self._flight)

    def _arrive(self, other: SimulatedTransport) -> None:
        """Some of what is on its way is read there."""
        chunk = self._network.chunk
        size = len(self._flight) if chunk is None else self._random.randint(*chunk)
        data = bytes(self._flight[:size])
        reached: list[_Reached] = []
        for watched in list(self._meters):
            end = watched[0].feed(data)
            if end is not None:
                data = data[:end]
                self._meters.remove(watched)
                reached.append(watched[1])
        del self._flight[: len(data)]
        self._size -= len(data)
        self.octets += len(data)
        self._link.arrived(self._direction, data)
        other._deliver(data)
        for call in reached:
            call(self._link)

    def _let_go_on(self) -> None:
        """There is room again for who writes here."""
        if self._size <= BUFFER_SIZE and self.connected:
            producer = self._producer
            if producer is not None and (self._is_producer_paused or not self._is_streaming):
                self._is_producer_paused = False
                producer.resumeProducing()
            self._finish()

    def _finish(self) -> None:
        """Close, if that was asked for and the system has taken everything."""
        if self.connected and self.disconnecting and self._producer is None and self._size <= SOCKET_BUFFER:
            self._has_finished = True
            self._ended(error.ConnectionDone())
            self._soon()

    def _ended(self, reason: Exception) -> None:
        """This end is over; its protocol hears of it in a turn of its own."""
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        if not self._has_finished:
            self._buffer.clear()
            self._flight.clear()
            self._size = 0
        self._link.ended(self._direction, reason)
        self._clock.callLater(0, self._lost, Failure(reason))

    def _lost(self, reason: Failure) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self._protocol = self._protocol, None
        protocol.connectionLost(reason)


class Link:
    """One connection through the simulated network.

    client: str -- whose it is.   broker: str -- to whom.   number: int -- which one of this client, from 1.
    name: str -- "client#1".
    made_at: float -- when, in seconds of the simulation.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        network: Network,
        rules: FrameRules,
        seed: object,
        note: Callable[[str, str], object],
        *,
        client: str,
        broker: str,
        number: int,
        is_traced: bool = False,
    ) -> None:
        self.clock = clock
        self.network = network
        self.rules = rules
        self.client = client
        self.broker = broker
        self.number = number
        self.name = f"{client}#{number}"
        self.made_at = clock.seconds()
        self._seed = seed
        self._note = note
        self._is_traced = is_traced
        #: The end that writes in this direction.
        self._ends: dict[Direction, SimulatedTransport] = {}
        #: Frames of the trace, for each direction.
        self._traces = {direction: FrameCutter() for direction in DIRECTIONS}

    def join(self, client: IProtocol, server: IProtocol, addresses: tuple[IAddress, IAddress]) -> None:
        """Connect two protocols; `addresses` are those of the client's and of the broker's end."""
        ours, theirs = addresses
        near = self._end(TO_BROKER, ours, theirs)
        far = self._end(TO_CLIENT, theirs, ours)
        near.join(client, far)
        far.join(server, near)
        self._note(self.name, f"connected to {self.broker}")
        server.makeConnection(far)
        client.makeConnection(near)

    def _end(self, direction: Direction, host: IAddress, peer: IAddress) -> SimulatedTransport:
        made = SimulatedTransport(self, direction, host, peer, Random(f"{self._seed}/{self.name}/{direction}"))
        self._ends[direction] = made
        return made

    # -- looking -----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the client's end is still open."""
        end = self._ends.get(TO_BROKER)
        return end is not None and end.connected

    @property
    def is_over(self) -> bool:
        """Whether both ends are closed."""
        return not any(end.connected for end in self._ends.values())

    def octets(self, direction: Direction) -> int:
        """How many octets have arrived that way."""
        return self._ends[direction].octets

    # -- disturbing --------------------------------------------------------------------------------

    def watch(self, direction: Direction, meter: Meter, reached: _Reached) -> None:
        """Call `reached(link)` when what has arrived that way reaches the meter's limit."""
        self._ends[direction].watch(meter, reached)

    def close(self) -> None:
        """The network closes it (FIN): both ends read the end of the stream; what is under way is lost."""
        self._cut("closed by the network", error.ConnectionDone)

    def reset(self) -> None:
        """The network resets it (RST): both ends lose it."""
        self._cut("reset by the network", error.ConnectionLost)

    def _cut(self, what: str, reason: type[Exception]) -> None:
        if not self.is_over:
            self._note(self.name, what)
            for end in self._ends.values():
                end.cut(reason())

    def swallow(self, directions: tuple[Direction, ...] = DIRECTIONS) -> None:
        """A black hole: nothing arrives any more, and no end hears of the other one's (half-open)."""
        self._note(self.name, f"black hole {' and '.join(directions)}")
        for direction in directions:
            self._ends[direction].swallow()

    def end(self) -> None:
        """For the simulation, which is over: reset it, and leave nothing on the clock."""
        self.reset()
        for end in self._ends.values():
            end.swallow()

    def hold(self, directions: tuple[Direction, ...] = DIRECTIONS) -> Callable[[], None]:
        """Nothing arrives until the function that is returned is called; then everything goes on where it was."""
        self._note(self.name, f"stalled {' and '.join(directions)}")
        ends = [self._ends[direction] for direction in directions]
        for end in ends:
            end.hold()

        def release() -> None:
            self._note(self.name, "goes on")
            for end in ends:
                end.release()

        return release

    # -- for the ends ------------------------------------------------------------------------------

    def arrived(self, direction: Direction, data: bytes) -> None:
        """Some octets have arrived."""
        if self._is_traced:
            for piece in self._traces[direction].feed(data, hold=True):
                self._note(self.name, f"{direction} {piece!r}" if isinstance(piece, tuple) else direction)

    def ended(self, direction: Direction, reason: Any) -> None:
        """One of the ends is over."""
        who = "client" if direction == TO_BROKER else "broker"
        self._note(self.name, f"{who}'s end: {type(reason).__name__}")

    def __repr__(self) -> str:
        state = "open" if self.is_open else "over" if self.is_over else "open at the broker only"
        sizes = ", ".join(f"{end.octets} octets {direction}" for direction, end in self._ends.items())
        return f"<Link {self.name} to {self.broker}: {state}, {sizes}>"
