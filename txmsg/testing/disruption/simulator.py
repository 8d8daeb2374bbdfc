"""The deterministic simulator: clients and brokers in one process, on one clock, every choice from one seed.

    with Simulation(seed=7) as simulation:
        simulation.cut("rst", after_bytes=300)
        connection = simulation.run_until(simulation.connect())

The broker is the embedded one, the client is whatever takes an endpoint and a clock; between them are simulated links
(:mod:`txmsg.testing.disruption.links`).  Nothing takes time but on the simulation's clock, and nothing is chosen by
anything but the seed, so a run that failed can be run again, step by step, with the seed it printed.
(What the client and the broker draw from the system, names and ids, has a fixed length and decides nothing.)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.amqp import AMQPProtocol, ConnectionParameters, connect
from txmsg.broker.limits import BrokerLimits
from txmsg.errors import ConfigurationError
from txmsg.testing.broker import EmbeddedBroker
from txmsg.testing.disruption.broker import SimulatedBroker
from txmsg.testing.disruption.chaos import Chaos, Disaster
from txmsg.testing.disruption.clock import SimulatedClock
from txmsg.testing.disruption.cuts import Cut, How
from txmsg.testing.disruption.frames import TO_BROKER, Direction, Directions
from txmsg.testing.disruption.links import Link, Network
from txmsg.testing.disruption.outcomes import Outcome
from txmsg.testing.disruption.rules import FrameRules
from txmsg.testing.scripted import ScriptedFault

__all__ = ["SimulatedEndpoint", "Simulation", "SimulationFailed", "SimulationTimeout"]

_T = TypeVar("_T")

#: Seconds after which an endpoint gives up a host that does not answer at all, as Twisted's TCP endpoints do.
CONNECT_TIMEOUT = 30.0

_PORT = 5672

#: Whose calls on the clock are the simulation's own.
_OURS = __package__ or ""


class SimulationTimeout(AssertionError):
    """Something did not happen within so many seconds of the simulation."""


class SimulationFailed(AssertionError):
    """Something was left behind, or went wrong unseen; the text lists it."""


class Simulation:
    """A little world of clients, brokers and the network between them; also a context manager.

    seed -- what all choices are made of: an int or a str.  Printed with what goes wrong.
    network: Network -- chunks and delays; None: everything at once, after 0.2 to 2 ms.
    brokers -- names; the first one is :attr:`broker`.
    is_durable: bool -- whether durable things survive a crash, and confirms wait for the simulated disk (R35).
    sync_delay: (float, float) -- seconds that a sync takes, at least and at most.
    limits: BrokerLimits | None -- of the brokers.
    set_up -- called with each embedded broker after each start: to declare what the test needs.
    is_traced: bool -- note each frame that arrives in the transcript.

    clock: SimulatedClock -- for `reactor=` and `clock=` of whatever runs in it.
    random: Random -- for your own choices, made of the seed.
    links: list of Link -- all connections that were made, the oldest first.
    frames: FrameRules -- faults of single frames on all links.
    outcomes: list of Outcome -- of what :meth:`watch` was given.
    transcript: list of (seconds, who, what).
    errors: list of str -- what was logged as an error.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        network: Network | None = None,
        brokers: Iterable[str] = ("broker",),
        is_durable: bool = True,
        sync_delay: tuple[float, float] = (0.0, 0.0),
        limits: BrokerLimits | None = None,
        set_up: Callable[[EmbeddedBroker], object] | None = None,
        is_traced: bool = False,
    ) -> None:
        self.seed = seed
        self.network = Network() if network is None else network
        self.clock = SimulatedClock()
        self.random = Random(f"{seed}/test")
        self.links: list[Link] = []
        self.frames = FrameRules()
        self.outcomes: list[Outcome] = []
        self.transcript: list[tuple[float, str, str]] = []
        self.errors: list[str] = []
        self._is_traced = is_traced
        self._cuts: list[Cut[Link]] = []
        self._chaos: list[Chaos] = []
        self._numbers: dict[str, int] = {}
        self._connects = Random(f"{seed}/connects")
        self._problems: list[str] | None = None
        self.brokers: dict[str, SimulatedBroker] = {
            name: SimulatedBroker(
                name,
                self.clock,
                Random(f"{seed}/{name}"),
                self.note,
                self._links_of,
                is_durable=is_durable,
                sync_delay=sync_delay,
                limits=BrokerLimits(login_delay=0.0) if limits is None else limits,
                set_up=set_up,
            )
            for name in brokers
        }
        if not self.brokers:
            raise ConfigurationError("a simulation has one broker at least")

    @property
    def broker(self) -> SimulatedBroker:
        """The first broker."""
        return next(iter(self.brokers.values()))

    def _links_of(self, broker: SimulatedBroker) -> list[Link]:
        return [link for link in self.links if link.broker == broker.name and not link.is_over]

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the brokers."""
        globalLogPublisher.addObserver(self._observer)
        for broker in self.brokers.values():
            self.run_until(broker.start())
        return self

    def finish(self, *, collect: bool = False) -> list[str]:
        """Take back all faults, end everything, and say what was left behind; the second time it says the same.

        That is: connections that clients had not closed, calls that they had left on the clock, watched Deferreds that
        have not fired or have failed with what is no error of txmsg's, and errors in the log.

        collect: whether to collect garbage first, for failures of Deferreds in a cycle that nobody handled: Twisted
            logs them when they are collected.  It takes some 10 ms or more, so it is up to you.
        """
        if self._problems is None:
            self._problems = self._finish(collect)
        return list(self._problems)

    def _finish(self, collect: bool) -> list[str]:
        self.frames.clear()
        for fault in (*self._chaos, *self._cuts):
            fault.stop()
        problems = [f"{outcome!r}" for outcome in self.outcomes if not outcome.is_typed]
        for link in self.links:
            if link.is_open:
                problems.append(f"not closed: {link!r}")
            link.end()
        stopping = [broker.stop() for broker in self.brokers.values()]
        self.clock.advance(0)
        for stop in stopping:
            self.run_until(stop, 30.0)
        problems += [f"left on the clock: {call}" for call in self.timers()]
        if collect:
            gc.collect()
        globalLogPublisher.removeObserver(self._observer)
        return problems + [f"in the log: {text}" for text in self.errors]

    def check(self, *, collect: bool = False) -> None:
        """Finish; SimulationFailed, with the seed, if anything was left behind."""
        problems = self.finish(collect=collect)
        if problems:
            raise SimulationFailed("\n".join([f"with seed {self.seed!r}:", *problems]))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"in {self!r}")
        self.finish()

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            text = str(event.get("log_format", ""))
            self.errors.append(f"{text} ({failure.value!r})" if isinstance(failure, Failure) else text)

    @property
    def _observer(self) -> ILogObserver:
        observer: Any = self._observe
        found: ILogObserver = observer
        return found

    # -- time --------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        self.clock.advance(seconds)

    def settle(self, seconds: float = 0.1) -> None:
        """The same, for what is under way to be done."""
        self.clock.advance(seconds)

    def run_until(self, deferred: Deferred[_T], limit: float = 60.0) -> _T:
        """Let time pass until `deferred` fires; returns its result or raises what it failed with.

        SimulationTimeout after `limit` seconds, or when nothing is due any more: then it will never fire.
        """
        outcome = Outcome(deferred, "run_until", self.clock)
        self.run_while(lambda: not outcome.has_fired, limit, "the Deferred did not fire")
        if outcome.error is not None:
            raise outcome.error
        result: _T = outcome.result
        return result

    def run_while(self, condition: Callable[[], bool], limit: float = 60.0, what: str = "it went on") -> None:
        """Let time pass while `condition()` is true; asked after each call that has run.  Else as for run_until."""
        end = self.clock.seconds() + limit
        while condition():
            if not self.clock.turn(end):
                waiting = "nothing is due any more" if not self.clock.getDelayedCalls() else f"{limit:g} s are over"
                raise SimulationTimeout(f"{what}, and {waiting}; {self!r}")

    def timers(self) -> list[IDelayedCall]:
        """What clients and brokers have on the clock; not what the simulation itself has."""
        calls: list[Any] = list(self.clock.getDelayedCalls())
        return [call for call in calls if not str(getattr(call.func, "__module__", "")).startswith(_OURS)]

    def watch(self, deferred: Deferred[Any], what: str = "a Deferred") -> Outcome:
        """Note what becomes of it; its failure counts as handled.  :meth:`finish` finds those that never fire."""
        outcome = Outcome(deferred, what, self.clock)
        self.outcomes.append(outcome)
        return outcome

    def note(self, who: str, what: str) -> None:
        """Add a line to the transcript."""
        self.transcript.append((round(self.clock.seconds(), 9), who, what))

    # -- clients -----------------------------------------------------------------------------------

    def endpoint(self, client: str = "client", broker: str | None = None) -> IStreamClientEndpoint:
        """Leads a client to a broker (None: the first one).  Connections count by the client's name."""
        return SimulatedEndpoint(self, client, self.brokers[broker] if broker is not None else self.broker)

    def endpoints(self, client: str = "client") -> Callable[[ConnectionParameters], IStreamClientEndpoint]:
        """What chooses the endpoint by a client's parameters, for those with several hosts.

        The brokers are on ports 5672, 5673 ... in their order, whatever the host; another port is a ConfigurationError.
        """
        names = list(self.brokers)

        def choose(parameters: ConnectionParameters) -> IStreamClientEndpoint:
            number = parameters.port - _PORT
            if not 0 <= number < len(names):
                raise ConfigurationError(f"no broker of the simulation is on port {parameters.port}")
            return self.endpoint(client, names[number])

        return choose

    def parameters(self, **fields: Any) -> ConnectionParameters:
        """Parameters of a client: guest, and whatever fields are given."""
        return self.broker.embedded.parameters(**fields)

    def connect(self, client: str = "client", broker: str | None = None, **fields: Any) -> Deferred[AMQPProtocol]:
        """Connect the plain client; fires with the open connection.  Nobody closes it for you."""
        return connect(self.parameters(**fields), reactor=self.clock, endpoint=self.endpoint(client, broker))

    def connected(
        self, factory: IProtocolFactory, client: str, broker: SimulatedBroker
    ) -> tuple[IProtocol | None, Failure | None]:
        """For the endpoints: make a connection now; the client's protocol, or why there is none."""
        number = self._numbers.get(client, 0) + 1
        theirs = IPv4Address("TCP", "127.0.0.1", _PORT + list(self.brokers).index(broker.name))
        ours = IPv4Address("TCP", "127.0.0.1", 49152 + len(self.links) % 16384)
        server = broker.accept(ours)
        near = None if server is None else factory.buildProtocol(theirs)
        if near is None or server is None:
            self.note(client, f"refused by {broker.name}")
            return None, Failure(error.ConnectionRefusedError())
        self._numbers[client] = number
        link = Link(
            self.clock,
            self.network,
            self.frames,
            self.seed,
            self.note,
            client=client,
            broker=broker.name,
            number=number,
            is_traced=self._is_traced,
        )
        self.links.append(link)
        link.join(near, server, (ours, theirs))
        for cut in list(self._cuts):
            cut.connected(link)
        return near, None

    def connect_delay(self) -> float:
        """For the endpoints: how long a connection takes."""
        low, high = self.network.delay
        return low + (high - low) * self._connects.random()

    # -- faults ------------------------------------------------------------------------------------

    def cut(
        self,
        how: How | Callable[[Link], object] = "rst",
        direction: Direction = TO_BROKER,
        *,
        after_bytes: int | None = None,
        after_frames: int | None = None,
        client: str | None = None,
        connection: int | None = None,
        stops: Directions = "both",
        seconds: float | None = None,
        times: int | None = 1,
    ) -> Cut[Link]:
        """Do something to a connection made from now on when so much of it has arrived in that direction.

        how: "fin" or "rst" end it, "blackhole" lets nothing pass any more, and "stall" lets nothing pass for `seconds`
            (None: until the fault is stopped); `stops` says in which directions.  Or a function, called with the Link,
            such as `lambda link: simulation.broker.restart()`.
        after_bytes, after_frames: the position; one of them.
        client, connection: whose, and which of his connections, from 1; None: any.   times: how often; None: always.
        """
        made: Cut[Link] = Cut(
            self._over,
            times,
            self.clock,
            how,
            direction,
            after_bytes=after_bytes,
            after_frames=after_frames,
            client=client,
            connection=connection,
            stops=stops,
            seconds=seconds,
        )
        self._cuts.append(made)
        return made

    def _over(self, fault: ScriptedFault) -> None:
        self._cuts = [each for each in self._cuts if each is not fault]
        self._chaos = [each for each in self._chaos if each is not fault]

    def open_links(self, client: str | None = None) -> list[Link]:
        """The connections whose client's end is open, the oldest first; of one client, or of all."""
        return [link for link in self.links if link.is_open and client in (None, link.client)]

    def disrupt(
        self,
        disasters: Iterable[Disaster] = ("fin", "rst", "stall", "blackhole", "crash", "stop"),
        *,
        every: tuple[float, float] = (0.1, 3.0),
        lasting: tuple[float, float] = (0.05, 2.0),
        times: int | None = None,
    ) -> Chaos:
        """Let things go wrong at random, as the seed has it, until it is stopped.

        disasters: what may happen: to a connection that is open ("fin", "rst", "stall", "blackhole"), or to a broker
            ("crash", "stop").   every: seconds in between.   lasting: seconds that a stall lasts and a broker is down.
        """
        made = Chaos(self._over, times, self, tuple(disasters), every, lasting, Random(f"{self.seed}/chaos"))
        self._chaos.append(made)
        return made

    def __repr__(self) -> str:
        return f"<Simulation with seed {self.seed!r} at {self.clock.seconds():g} s, {len(self.links)} connections>"


@implementer(IStreamClientEndpoint)
class SimulatedEndpoint:
    """A Twisted endpoint that leads to a broker of a simulation."""

    def __init__(self, simulation: Simulation, client: str, broker: SimulatedBroker) -> None:
        self._simulation = simulation
        self._client = client
        self._broker = broker

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Twisted: make a connection; fires with the client's protocol, or fails with one of Twisted's errors.

        ConnectionRefusedError while the broker is down, TimeoutError after 30 s if its host does not answer.
        Cancelling it gives the attempt up.
        """
        simulation = self._simulation
        call: list[IDelayedCall] = []

        def cancel(_: Deferred[IProtocol]) -> None:
            call[0].cancel()

        def made() -> None:
            protocol, failure = simulation.connected(protocolFactory, self._client, self._broker)
            if protocol is None:
                assert failure is not None
                result.errback(failure)
            else:
                result.callback(protocol)

        def silence() -> None:
            result.errback(Failure(error.TimeoutError()))

        result: Deferred[IProtocol] = Deferred(cancel)
        if self._broker.is_unreachable:
            call.append(simulation.clock.callLater(CONNECT_TIMEOUT, silence))
        else:
            call.append(simulation.clock.callLater(simulation.connect_delay(), made))
        return result

    def __repr__(self) -> str:
        return f"<SimulatedEndpoint of {self._client} to {self._broker.name}>"
