"""The simulator: connecting, cuts, replay, what is left behind."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.testing.disruption.sessions import Session, SimulationCase
from txmsg.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeTimeout,
    HeartbeatTimeout,
    RemoteProtocolError,
)
from txmsg.testing.disruption import (
    TO_BROKER,
    TO_CLIENT,
    Network,
    Simulation,
    SimulationFailed,
    SimulationTimeout,
)


class ConnectingTests(SimulationCase):
    """What a client meets before it is connected."""

    def test_a_broker_that_is_down(self) -> None:
        """R11: refused."""
        simulation = self.simulate()
        simulation.broker.crash()
        with self.assertRaises(ConnectFailed):
            simulation.run_until(simulation.connect())

    def test_a_host_that_is_silent(self) -> None:
        """F10: accepts and says nothing."""
        simulation = self.simulate()
        simulation.broker.is_silent = True
        with self.assertRaises(HandshakeTimeout):
            simulation.run_until(simulation.connect(handshake_timeout=10))
        self.assertEqual(round(simulation.clock.seconds()), 10)

    def test_a_host_that_is_not_there(self) -> None:
        """F12: no answer at all; the client's own limit counts, else the system's."""
        simulation = self.simulate()
        simulation.broker.is_unreachable = True
        with self.assertRaises(ConnectTimeout):
            simulation.run_until(simulation.connect(connect_timeout=5))
        endpoint = simulation.endpoint()
        with self.assertRaises(error.TimeoutError):
            simulation.run_until(endpoint.connect(Factory.forProtocol(Protocol)))
        self.assertEqual(round(simulation.clock.seconds()), 35)

    def test_giving_up(self) -> None:
        """A cancelled connect leaves nothing."""
        simulation = self.simulate()
        connecting = simulation.endpoint().connect(Factory.forProtocol(Protocol))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual((simulation.finish(), simulation.links), ([], []))

    def test_several_brokers(self) -> None:
        """Each by its name."""
        simulation = self.simulate(brokers=("one", "two"))
        simulation.brokers["one"].crash()
        connection = simulation.run_until(simulation.connect(broker="two"))
        self.assertTrue(connection.is_open)
        self.assertEqual([link.broker for link in simulation.links], ["two"])
        with self.assertRaises(ConfigurationError):
            Simulation(brokers=())

    def test_brokers_by_port(self) -> None:
        """For a client with several hosts."""
        simulation = self.simulate(brokers=("one", "two"))
        choose = simulation.endpoints("failing-over")
        simulation.run_until(choose(simulation.parameters(port=5673)).connect(Factory.forProtocol(Protocol)))
        [link] = simulation.links
        self.assertEqual((link.broker, link.client), ("two", "failing-over"))
        link.close()
        with self.assertRaises(ConfigurationError):
            choose(simulation.parameters(port=5674))


class CutTests(SimulationCase):
    """Faults at a position, and of frames."""

    def test_after_frames(self) -> None:
        """The connection ends behind just that frame: 3 of the broker's are start, tune and open-ok."""
        simulation = self.simulate()
        cut = simulation.cut("fin", TO_CLIENT, after_frames=3)
        connection = simulation.run_until(simulation.connect())
        simulation.settle()
        self.assertFalse(connection.is_open)
        self.assertEqual((cut.count, cut.is_active), (1, False))

    def test_of_one_client_and_connection(self) -> None:
        """Others are left alone."""
        simulation = self.simulate()
        simulation.cut("rst", after_bytes=0, client="two", connection=2)
        for client, works in (("one", True), ("two", True), ("one", True), ("two", False), ("two", True)):
            outcome = simulation.watch(simulation.connect(client))
            simulation.advance(1)
            self.assertEqual(outcome.succeeded, works, client)

    def test_stall_for_some_time(self) -> None:
        """F3: shorter than the heartbeat allows: nothing is lost."""
        simulation = self.simulate()
        simulation.cut("stall", TO_BROKER, after_frames=4, seconds=3.0)
        connection, _ = self.publisher(simulation, heartbeat=4)
        self.assertTrue(connection.is_open)
        self.assertGreater(simulation.clock.seconds(), 3.0)

    def test_one_way_loss(self) -> None:
        """F9, R13: what we send arrives, and nothing comes back."""
        simulation = self.simulate()
        connection, _ = self.publisher(simulation, heartbeat=4)
        closed = simulation.watch(connection.when_closed())
        [link] = simulation.open_links()
        before = simulation.clock.seconds()
        link.swallow((TO_CLIENT,))
        simulation.advance(20)
        self.assertIsInstance(closed.result, HeartbeatTimeout)
        assert closed.fired_at is not None
        self.assertLess(closed.fired_at - before, 9.0)

    def test_stall_until_it_is_stopped(self) -> None:
        """Also at the beginning."""
        simulation = self.simulate()
        cut = simulation.cut("stall", after_bytes=0)
        outcome = simulation.watch(simulation.connect())
        simulation.advance(5)
        self.assertFalse(outcome.has_fired)
        cut.stop()
        simulation.settle()
        self.assertTrue(outcome.succeeded)

    def test_whatever_you_like(self) -> None:
        """A function, such as a crash at just that octet."""
        simulation = self.simulate()
        simulation.cut(lambda _: simulation.broker.restart(1.0), after_bytes=100)
        outcome = simulation.watch(simulation.connect())
        simulation.advance(2)
        self.assertFalse(outcome.succeeded)
        self.assertEqual((simulation.broker.crashes, simulation.broker.starts), (1, 2))
        simulation.run_until(simulation.connect())

    def test_frames(self) -> None:
        """F32: a bad end octet in what the broker sends is a protocol error."""
        simulation = self.simulate()
        simulation.frames.corrupt(1, TO_CLIENT, method="channel.open-ok")
        connection = simulation.run_until(simulation.connect())
        outcome = simulation.watch(connection.channel())
        simulation.advance(5)
        self.assertIsInstance(outcome.error, (RemoteProtocolError, ConnectionClosed))

    def test_what_makes_no_sense(self) -> None:
        """It is refused when it is set."""
        simulation = self.simulate()
        wrong: list[dict[str, Any]] = [
            {},
            {"after_bytes": 1, "after_frames": 1},
            {"after_bytes": -1},
            {"how": "burn", "after_bytes": 1},
        ]
        for arguments in wrong:
            with self.assertRaises(ConfigurationError):
                simulation.cut(**arguments)
        for network in ({"chunk": (0, 1)}, {"delay": (2.0, 1.0)}):
            with self.assertRaises(ConfigurationError):
                Network(**network)


class FinishTests(SimulationCase):
    """R28: what is left behind is found."""

    def test_everything(self) -> None:
        """A connection, a timer, a Deferred, an untyped error, an error in the log; all of them with the seed."""
        simulation = self.simulate(7)
        self.publisher(simulation)
        simulation.clock.callLater(100, print)
        simulation.watch(Deferred(), "never")
        failing: Deferred[None] = Deferred()
        simulation.watch(failing, "untyped")
        failing.errback(KeyError("x"))
        simulation.clock.callLater(0, lambda: 1 / 0)
        simulation.settle()
        with self.assertRaises(SimulationFailed) as caught:
            simulation.check()
        text = str(caught.exception)
        for part in ("seed 7", "of never: none", "untyped: KeyError", "not closed: <Link client#1", "on the clock",
                     "ZeroDivisionError"):  # fmt: skip
            self.assertIn(part, text)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_failures_that_nobody_handled(self) -> None:
        """Twisted logs them when they are collected, which a cycle keeps from happening at once."""
        simulation = self.simulate()

        def fail() -> None:
            deferred: Any = Deferred()
            deferred.itself = deferred
            deferred.errback(ZeroDivisionError())

        fail()
        problems = simulation.finish(collect=True)
        self.assertIn("ZeroDivisionError", str(problems))
        self.assertEqual(simulation.finish(), problems)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_nothing(self) -> None:
        """A client that is closed leaves nothing."""
        simulation = self.simulate()
        connection, _ = self.publisher(simulation)
        simulation.run_until(connection.close())
        simulation.check()

    def test_what_never_happens(self) -> None:
        """Waiting for it ends, at the latest after the limit."""
        simulation = self.simulate()
        with self.assertRaises(SimulationTimeout) as caught:
            simulation.run_until(Deferred())
        self.assertIn("nothing is due any more", str(caught.exception))
        self.publisher(simulation, heartbeat=4)
        with self.assertRaises(SimulationTimeout):
            simulation.run_until(Deferred(), 30)

    def test_a_failure_names_the_seed(self) -> None:
        """As a note."""
        with self.assertRaises(ValueError) as caught, Simulation(42):
            raise ValueError
        self.assertIn("seed 42", caught.exception.__notes__[0])


class ReplayTests(SimulationCase):
    """The same seed, the same run."""

    def transcript(self, seed: int) -> list[tuple[float, str, str]]:
        """Of a session among disasters."""
        session = Session(seed, network=Network(chunk=(1, 100)), is_traced=True)
        session.run(how="rst", after_bytes=400 + seed)
        return session.simulation.transcript

    def test_same_seed(self) -> None:
        """Moment by moment, frame by frame."""
        for seed in range(3):
            self.assertEqual(self.transcript(seed), self.transcript(seed))

    def test_other_seed(self) -> None:
        """Another run."""
        self.assertNotEqual(self.transcript(1), self.transcript(2))
