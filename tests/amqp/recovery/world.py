"""A small world for reconnecting connections: hosts by name, on a test clock, without sockets.

A host is an embedded broker, or it does what hosts do to clients: it refuses, does not answer, accepts and stays mute.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txmsg.amqp import AMQPProtocol, Backoff, ConnectionParameters, ReconnectingConnection, StateChange
from txmsg.testing import EmbeddedBroker
from txmsg.testing.inprocess import InProcessEndpoint

__all__ = ["EXACT", "MUTE", "REFUSES", "SILENT", "FakeMember", "World", "WorldTestCase"]

#: What a host can be in place of a broker.
REFUSES, SILENT, MUTE = "refuses", "silent", "mute"

#: A policy without chance: 0.5, 1, 2, 4 ... 30 s.
EXACT = Backoff(jitter=False, eager_for=0)


class World:
    """Hosts by name.   attempts: (time, host) of each connect."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.hosts: dict[str, EmbeddedBroker | str] = {}
        self.attempts: list[tuple[float, str]] = []

    def broker(self, host: str = "a") -> EmbeddedBroker:
        """Put an embedded broker at `host`."""
        broker = EmbeddedBroker(reactor=self.clock)
        broker.start()
        self.clock.advance(0)
        self.hosts[host] = broker
        return broker

    def endpoint(self, parameters: ConnectionParameters) -> IStreamClientEndpoint:
        """What a ReconnectingConnection connects with."""
        return _Route(self, parameters.host)

    def run(self, seconds: float, step: float = 1 / 32) -> None:
        """Let time pass in small steps (a power of two, so that the times come out even)."""
        end = self.clock.seconds() + seconds
        self.clock.advance(0)
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(min(step, end - self.clock.seconds()))
        self.clock.advance(0)
        self.clock.advance(0)


@implementer(IStreamClientEndpoint)
class _Route:
    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = host

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Go to what is there now."""
        world = self._world
        world.attempts.append((world.clock.seconds(), self._host))
        there = world.hosts.get(self._host, REFUSES)
        if isinstance(there, EmbeddedBroker):
            return there.endpoint.connect(protocolFactory)
        if there == SILENT:
            return Deferred()
        if there == MUTE:
            return InProcessEndpoint(Factory.forProtocol(Protocol), world.clock).connect(protocolFactory)
        return fail(error.ConnectionRefusedError())


class FakeMember:
    """A member that writes down what it is told.

    next: what `recover` returns or raises, first the first; None once there are no more.
    """

    def __init__(self, name: str, calls: list[str], order: int = 10) -> None:
        self.name = name
        self.order = order
        self.calls = calls
        self.next: list[Deferred[None] | Exception] = []
        self.protocols: list[AMQPProtocol] = []
        self.stopping: Deferred[None] | None = None

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """Note it."""
        self.calls.append(f"recover {self.name}")
        self.protocols.append(protocol)
        outcome = self.next.pop(0) if self.next else None
        if isinstance(outcome, Exception):
            return fail(outcome)
        if outcome is not None:
            return outcome
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def lost(self, reason: BaseException) -> None:
        """Note it."""
        self.calls.append(f"lost {self.name}")

    def closed(self, reason: BaseException) -> None:
        """Note it."""
        self.calls.append(f"closed {self.name}")

    def stop(self) -> Deferred[None]:
        """Note it."""
        self.calls.append(f"stop {self.name}")
        if self.stopping is not None:
            return self.stopping
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def __repr__(self) -> str:
        return f"<FakeMember {self.name}>"


class WorldTestCase(SynchronousTestCase):
    """Every connection made is closed at the end; then nothing may be left on the clock (R28)."""

    def setUp(self) -> None:
        """An empty world."""
        self.world = World()
        self.clock = self.world.clock
        self.steps: list[StateChange] = []
        self._connections: list[ReconnectingConnection] = []

    def tearDown(self) -> None:
        """Close all, stop the brokers, and look for what is left."""
        for connection in self._connections:
            connection.close(1)
        self.world.run(5)
        for connection in self._connections:
            self.assertEqual(connection.state.value, "closed")
        for broker in self.world.hosts.values():
            if isinstance(broker, EmbeddedBroker):
                broker.stop()
        self.world.run(30)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def connection(self, targets: Any = "amqp://a", **options: Any) -> ReconnectingConnection:
        """A connection in this world that notes its states in `steps`; not started."""
        options.setdefault("endpoint", self.world.endpoint)
        options.setdefault("backoff", EXACT)
        options.setdefault("order", "listed")
        options.setdefault("credentials", _guest)
        connection = ReconnectingConnection(targets, reactor=self.clock, **options)
        connection.add_state_callback(self.steps.append)
        self._connections.append(connection)
        return connection

    def started(self, targets: Any = "amqp://a", **options: Any) -> ReconnectingConnection:
        """A connection that is ready."""
        connection = self.connection(targets, **options)
        self.noErrors(connection.start())
        self.world.run(0.1)
        self.assertEqual(connection.state.value, "ready")
        return connection

    def noErrors(self, deferred: Deferred[Any]) -> None:
        """Nobody waits for this one."""
        deferred.addErrback(lambda failure: None)

    def states(self) -> list[str]:
        """The names of the states so far, without the first."""
        return [step.new.value for step in self.steps]

    def failed(self, deferred: Deferred[Any]) -> BaseException:
        """The exception that a Deferred has failed with."""
        failure: Failure = self.failureResultOf(deferred)
        assert failure.value is not None
        return failure.value


def _guest() -> Any:
    from txmsg.amqp import PlainCredentials

    return PlainCredentials("guest", "guest")
