"""DisruptionProxy: a TCP proxy between a client and a broker that does to the octets what bad networks do.

    proxy = DisruptionProxy("127.0.0.1", broker.port)
    await proxy.start()
    connection = await connect(proxy.url)
    with proxy.blackhole():
        ...

Everything may be switched on and off while connections are open.  It knows AMQP's frames, so it can count them, end a
connection behind one, and drop, duplicate, swap, inject or corrupt one (`proxy.frames`).  What is inside TLS it cannot
see: there the faults of octets work, and those of frames do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from txmsg.errors import ConfigurationError
from txmsg.testing.disruption.cuts import Cut, How
from txmsg.testing.disruption.frames import TO_BROKER, TO_CLIENT, Direction, Directions
from txmsg.testing.disruption.proxied import ProxiedConnection
from txmsg.testing.disruption.rules import FrameRules
from txmsg.testing.disruption.toxics import Bandwidth, BlackHole, Hold, Latency, Slicer, SlowClose, Toxic
from txmsg.testing.ports import free_ports
from txmsg.testing.scripted import ScriptedFault

__all__ = ["DisruptionProxy", "ProxyCounters"]

_HOST: Final = "127.0.0.1"
_LISTEN_ATTEMPTS: Final = 20


def _both() -> dict[Direction, int]:
    return {TO_BROKER: 0, TO_CLIENT: 0}


@dataclass
class ProxyCounters:
    """What has happened so far.

    accepted, turned_away, silenced: int -- connections that were taken, reset at once, and left without an answer.
    unreachable: int -- connections for which there was no broker.
    octets, frames, passed, swallowed: dict -- by direction: octets and whole frames that came, octets that were passed
        on, octets that a black hole took.
    """

    accepted: int = 0
    turned_away: int = 0
    silenced: int = 0
    unreachable: int = 0
    octets: dict[Direction, int] = field(default_factory=_both)
    frames: dict[Direction, int] = field(default_factory=_both)
    passed: dict[Direction, int] = field(default_factory=_both)
    swallowed: dict[Direction, int] = field(default_factory=_both)

    def as_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self)


class _Times(ScriptedFault):
    """Connections that are not passed on."""

    def happened(self) -> None:
        self._happened()


class _Listening(Factory):
    noisy = False

    def __init__(self, proxy: DisruptionProxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return self._proxy.accepted()


class _TurnedAway(Protocol):
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class _Silent(Protocol):
    def __init__(self, proxy: DisruptionProxy) -> None:
        self._proxy = proxy

    def connectionMade(self) -> None:
        self._proxy.silent.add(self)

    def connectionLost(self, reason: object = None) -> None:
        self._proxy.silent.discard(self)
        self._proxy.connection_over(None)


class DisruptionProxy:
    """A proxy on a free port of 127.0.0.1.

    host, port -- where the broker is; `server` may be set to another (host, port) for connections to come.
    seed -- of jitter and slices.
    reactor -- None: the installed one.

    connections: list of ProxiedConnection -- those that are open, the oldest first; each can be disturbed by itself.
    counters: ProxyCounters.
    frames: FrameRules -- faults of single frames.
    toxics: list of Toxic -- what is switched on.
    """

    def __init__(self, host: str, port: int, *, seed: int | str = 0, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        self.server = (host, port)
        self.connections: list[ProxiedConnection] = []
        self.counters = ProxyCounters()
        self.frames = FrameRules()
        self.toxics: list[Toxic] = []
        self.silent: set[Protocol] = set()
        self._seed = seed
        self._cuts: list[Cut[ProxiedConnection]] = []
        self._turning_away: list[_Times] = []
        self._silencing: list[_Times] = []
        self._port: Any = None
        self._number = 0
        self._own_port = 0
        self._closing: Deferred[Any] = succeed(None)
        self._refusals: list[ScriptedFault] = []
        self._gone: Deferred[None] | None = None

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> Deferred[DisruptionProxy]:
        """Listen; fires with the proxy itself."""
        return maybeDeferred(self._start)

    def _start(self) -> DisruptionProxy:
        for attempt in range(1, _LISTEN_ATTEMPTS + 1):
            [self._own_port] = free_ports(1, host=_HOST)
            try:
                self._listen()
            except CannotListenError:  # somebody was faster
                if attempt == _LISTEN_ATTEMPTS:
                    raise
                continue
            break
        return self

    def _listen(self) -> None:
        self._port = self.reactor.listenTCP(self._own_port, _Listening(self), interface=_HOST)

    def _stop_listening(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            self._closing = maybeDeferred(port.stopListening)

    def stop(self) -> Deferred[None]:
        """Stop listening, take everything back, reset what is open; fires when no socket is left."""
        self.clear()
        self._stop_listening()
        for connection in list(self.connections):
            connection.reset()
        for protocol in list(self.silent):
            transport: Any = protocol.transport
            transport.abortConnection()
        self._gone = Deferred()
        self.connection_over(None)
        return DeferredList([self._closing, self._gone]).addCallback(lambda _: None)

    async def __aenter__(self) -> DisruptionProxy:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def clear(self) -> None:
        """Take back everything that is set; connections stay."""
        self.frames.clear()
        for fault in (*self._refusals, *self.toxics, *self._cuts, *self._turning_away, *self._silencing):
            fault.stop()

    @property
    def port(self) -> int:
        """Where it listens; it stays the same, also while it refuses connections.  ConfigurationError before start."""
        if not self._own_port:
            raise ConfigurationError("the proxy has not been started")
        return self._own_port

    @property
    def url(self) -> str:
        """For a client that is guest: amqp://guest:guest@127.0.0.1:port/%2F."""
        return f"amqp://guest:guest@{_HOST}:{self.port}/%2F"

    # -- connections -------------------------------------------------------------------------------

    def accepted(self) -> Protocol | None:
        """For the port: a client has connected."""
        if self._turning_away:
            self.counters.turned_away += 1
            self._turning_away[0].happened()
            return _TurnedAway()
        if self._silencing:
            self.counters.silenced += 1
            self._silencing[0].happened()
            return _Silent(self)
        self.counters.accepted += 1
        self._number += 1
        made = ProxiedConnection(self, self._number, self._seed)
        self.connections.append(made)
        made.connect(*self.server)
        for cut in list(self._cuts):
            cut.connected(made)
        return made.front

    def connection_over(self, connection: ProxiedConnection | None) -> None:
        """For the connections: both sockets of one are closed."""
        if connection in self.connections:
            assert connection is not None
            self.connections.remove(connection)
        if self._gone is not None and not self.connections and not self.silent and not self._gone.called:
            self._gone.callback(None)

    # -- faults of connecting ----------------------------------------------------------------------

    def refuse(self) -> ScriptedFault:
        """Do not listen, so that connections are refused, until it is stopped."""

        def over(fault: ScriptedFault) -> None:
            self._refusals.remove(fault)
            if not self._refusals and self._gone is None:
                self._closing.addCallback(lambda _: self._listen_again())

        refusal = ScriptedFault(over, None)
        self._refusals.append(refusal)
        self._stop_listening()
        return refusal

    def _listen_again(self) -> None:
        if self._port is None and not self._refusals and self._gone is None:
            self._listen()

    def turn_away(self, times: int | None = None) -> ScriptedFault:
        """Accept and reset at once.   times: how many; None: all, until it is stopped."""
        return self._of_connections(self._turning_away, times)

    def accept_silently(self, times: int | None = None) -> ScriptedFault:
        """Accept and say nothing, ever.   times: how many; None: all, until it is stopped."""
        return self._of_connections(self._silencing, times)

    def _of_connections(self, those: list[_Times], times: int | None) -> ScriptedFault:
        def over(fault: ScriptedFault) -> None:
            those[:] = [each for each in those if each is not fault]

        made = _Times(over, times)
        those.append(made)
        return made

    # -- faults at a position ----------------------------------------------------------------------

    def cut(
        self,
        how: How | Callable[[ProxiedConnection], object] = "rst",
        direction: Direction = TO_BROKER,
        *,
        after_bytes: int | None = None,
        after_frames: int | None = None,
        connection: int | None = None,
        stops: Directions = "both",
        seconds: float | None = None,
        times: int | None = 1,
    ) -> Cut[ProxiedConnection]:
        """Do something to a connection made from now on when so much has been passed on in that direction.

        how: "fin" or "rst" end it, "blackhole" lets nothing pass any more, and "stall" lets nothing pass for `seconds`
            (None: until the fault is stopped); `stops` says in which directions.  Or a function, called with the
            ProxiedConnection, such as `lambda connection: connection.half_close("to_client")`.
        after_bytes, after_frames: the position; one of them.  Frames cannot be counted under TLS.
        connection: which one, by its number; None: any.   times: how often; None: always, until it is stopped.
        """
        made: Cut[ProxiedConnection] = Cut(
            self._cut_is_over,
            times,
            self.reactor,
            how,
            direction,
            after_bytes=after_bytes,
            after_frames=after_frames,
            client=None,
            connection=connection,
            stops=stops,
            seconds=seconds,
        )
        self._cuts.append(made)
        return made

    def _cut_is_over(self, fault: ScriptedFault) -> None:
        self._cuts = [each for each in self._cuts if each is not fault]

    def reset_all(self) -> int:
        """Reset all connections now; how many there were."""
        found = list(self.connections)
        for connection in found:
            connection.reset()
        return len(found)

    def close_all(self) -> int:
        """End all connections now, with FIN; how many there were."""
        found = list(self.connections)
        for connection in found:
            connection.close()
        return len(found)

    # -- faults that last --------------------------------------------------------------------------

    def latency(self, seconds: float, *, jitter: float = 0.0, directions: Directions = "both") -> Toxic:
        """Everything takes so much longer, plus or minus up to `jitter` seconds; order is kept."""
        return self._on(Latency(self._off, directions, seconds, jitter))

    def bandwidth(self, octets_per_second: float, *, directions: Directions = "both") -> Toxic:
        """So many octets pass per second at most, on each connection and in each direction; 0: none."""
        return self._on(Bandwidth(self._off, directions, octets_per_second))

    def slicer(
        self, size: int = 1, *, variation: int = 0, delay: float = 0.0, directions: Directions = "both"
    ) -> Toxic:
        """Octets pass in slices of `size`, plus or minus up to `variation`, at least `delay` seconds apart."""
        return self._on(Slicer(self._off, directions, size, variation, delay))

    def blackhole(self, directions: Directions = "both") -> Toxic:
        """What passes is lost and nobody is told, while it lasts; afterwards what comes passes again, with a gap."""
        return self._on(BlackHole(self._off, directions))

    def stall(self, directions: Directions = "both") -> Toxic:
        """Nothing passes while it lasts; afterwards everything goes on where it was."""
        return self._on(Hold(self._off, directions))

    def slow_close(self, seconds: float, *, directions: Directions = "both") -> Toxic:
        """The end of a stream passes so many seconds late."""
        return self._on(SlowClose(self._off, directions, seconds))

    def _on(self, toxic: Toxic) -> Toxic:
        self.toxics.append(toxic)
        self._toxics_changed()
        return toxic

    def _off(self, toxic: ScriptedFault) -> None:
        self.toxics = [each for each in self.toxics if each is not toxic]
        self._toxics_changed()

    def _toxics_changed(self) -> None:
        for connection in list(self.connections):
            connection.toxics_changed()

    def __repr__(self) -> str:
        where = f"on port {self._own_port}" if self._port is not None else "not listening"
        return f"<DisruptionProxy {where}, {len(self.connections)} connections, {len(self.toxics)} toxics>"
