"""The clock and the links of simulations."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.testing.disruption import (
    TO_BROKER,
    Network,
    SimulatedClock,
    Simulation,
    SimulationStuck,
)
from txmsg.testing.inprocess import BUFFER_SIZE


class ClockTests(SynchronousTestCase):
    """SimulatedClock."""

    def test_each_call_at_its_own_moment(self) -> None:
        """Other than with task.Clock, what a call sets anew begins when that call was due."""
        clock = SimulatedClock()
        moments: list[float] = []
        loop = LoopingCall(lambda: moments.append(clock.seconds()))
        loop.clock = clock
        loop.start(2.0, now=False)
        clock.advance(9.0)
        self.assertEqual(moments, [2.0, 4.0, 6.0, 8.0])
        self.assertEqual(clock.seconds(), 9.0)
        loop.stop()

    def test_a_hot_loop(self) -> None:
        """R26: who runs again and again without time passing is found out."""
        clock = SimulatedClock()

        def again() -> None:
            clock.callLater(0, again)

        again()
        with self.assertRaises(SimulationStuck):
            clock.advance(1)

    def test_what_raises_is_logged(self) -> None:
        """As in a reactor; the others run all the same."""
        clock = SimulatedClock()
        ran: list[int] = []

        def fails() -> None:
            raise ZeroDivisionError

        clock.callLater(1, fails)
        clock.callLater(1, ran.append, 1)
        clock.advance(1)
        self.assertEqual(ran, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Peer(Protocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.got = b""
        self.reads: list[int] = []
        self.lost: list[Any] = []
        self.paused: list[bool] = []

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self.reads.append(len(data))

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008
        self.lost.append(reason.type)

    def pauseProducing(self) -> None:
        self.paused.append(True)

    def resumeProducing(self) -> None:
        self.paused.append(False)

    def stopProducing(self) -> None:
        pass


class LinkTests(SynchronousTestCase):
    """Links behave as TCP connections do."""

    def setUp(self) -> None:
        self.simulation = Simulation(1, network=Network(chunk=(1, 1000), delay=(0.001, 0.01)))
        self.simulation.start()
        self.addCleanup(self.simulation.finish)
        self.near, self.far = Peer(), Peer()
        self.patch(self.simulation.broker, "accept", lambda _: self.far)
        found = self.simulation.run_until(self.simulation.endpoint().connect(Factory.forProtocol(lambda: self.near)))
        self.assertIs(found, self.near)
        [self.link] = self.simulation.links
        self.ours: Any = self.near.transport
        self.theirs: Any = self.far.transport

    def test_octets_arrive_in_chunks_and_in_order(self) -> None:
        """Each once."""
        data = bytes(range(256)) * 100
        self.ours.write(data[:20_000])
        self.ours.writeSequence([data[20_000:], b"!"])
        self.assertEqual(self.far.got, b"")
        self.simulation.advance(2)
        self.assertEqual(self.far.got, data + b"!")
        self.assertGreater(len(self.far.reads), 20)
        self.assertLessEqual(max(self.far.reads), 1000)
        self.assertEqual(self.link.octets(TO_BROKER), len(data) + 1)

    def test_close(self) -> None:
        """Everything that was written arrives first."""
        self.ours.write(b"x" * 5000)
        self.ours.loseConnection()
        self.simulation.advance(0)
        self.assertEqual(self.near.lost, [error.ConnectionDone])
        self.assertEqual(self.far.lost, [])
        self.simulation.advance(1)
        self.assertEqual((len(self.far.got), self.far.lost), (5000, [error.ConnectionDone]))
        self.assertTrue(self.link.is_over)

    def test_abort(self) -> None:
        """What is under way is lost, and the other end is reset."""
        self.ours.write(b"x" * 5000)
        self.ours.abortConnection()
        self.simulation.advance(1)
        self.assertEqual((self.near.lost, self.far.lost), ([error.ConnectionAborted], [error.ConnectionLost]))
        self.assertEqual(self.far.got, b"")

    def test_writing_to_one_who_is_gone(self) -> None:
        """Is answered with a reset."""
        self.theirs.write(b"x" * 5000)
        self.patch(self.link._ends[TO_BROKER], "_soon", lambda: None)  # the news of the end does not arrive
        self.ours.loseConnection()
        self.simulation.advance(1)
        self.assertEqual((self.near.lost, self.far.lost), ([error.ConnectionDone], [error.ConnectionLost]))

    def test_a_producer_is_paused(self) -> None:
        """While the other end does not read."""
        self.theirs.pauseProducing()
        self.ours.registerProducer(self.near, True)
        self.ours.write(b"x" * (BUFFER_SIZE + 1))
        self.simulation.advance(1)
        self.assertEqual((self.near.paused, self.far.got), ([True], b""))
        self.theirs.resumeProducing()
        self.simulation.advance(2)
        self.assertEqual((self.near.paused, len(self.far.got)), ([True, False], BUFFER_SIZE + 1))
        self.ours.loseConnection()
        self.simulation.advance(1)
        self.assertEqual(self.near.lost, [])
        self.ours.unregisterProducer()
        self.simulation.advance(1)
        self.assertEqual((self.near.lost, self.far.lost), ([error.ConnectionDone], [error.ConnectionDone]))

    def test_stall(self) -> None:
        """Later it all goes on where it was; one direction may go on meanwhile."""
        go_on = self.link.hold((TO_BROKER,))
        self.ours.write(b"one")
        self.theirs.write(b"two")
        self.simulation.advance(100)
        self.assertEqual((self.far.got, self.near.got), (b"", b"two"))
        go_on()
        self.simulation.advance(1)
        self.assertEqual(self.far.got, b"one")

    def test_black_hole(self) -> None:
        """F8, F9: nothing passes any more, not even an end."""
        self.link.swallow()
        self.ours.write(b"one")
        self.ours.loseConnection()
        self.simulation.advance(100)
        self.assertEqual((self.near.lost, self.far.lost, self.far.got), ([error.ConnectionDone], [], b""))

    def test_a_close_waits_for_the_system(self) -> None:
        """What the system does not take keeps the socket open until it is aborted (F22)."""
        self.link.swallow()
        self.ours.write(b"x" * 200_000)
        self.ours.loseConnection()
        self.simulation.advance(100)
        self.assertEqual(self.near.lost, [])
        self.ours.abortConnection()
        self.simulation.advance(0)
        self.assertEqual(self.near.lost, [error.ConnectionAborted])

    def test_the_network_closes_or_resets(self) -> None:
        """Both ends hear of it, once."""
        self.link.close()
        self.link.reset()
        self.simulation.advance(0)
        self.assertEqual((self.near.lost, self.far.lost), ([error.ConnectionDone], [error.ConnectionDone]))
