"""Two protocols in one process, without a socket."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.testing.inprocess import BUFFER_SIZE, READ_SIZE, InProcessEndpoint, join


class Peer(Protocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.lost: list[type[BaseException]] = []
        self.producer: list[str] = []
        self.fails = False

    def dataReceived(self, data: bytes) -> None:
        self.got.append(data)
        if self.fails:
            raise ValueError("broken")

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008
        assert reason.type is not None
        self.lost.append(reason.type)

    def pauseProducing(self) -> None:
        self.producer.append("pause")

    def resumeProducing(self) -> None:
        self.producer.append("resume")

    def stopProducing(self) -> None:
        self.producer.append("stop")


class Joined(SynchronousTestCase):
    """Two peers, joined."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.near, self.far = Peer(), Peer()
        addresses = (IPv4Address("TCP", "127.0.0.1", 50000), IPv4Address("TCP", "127.0.0.1", 5672))
        join(self.clock, self.near, self.far, addresses)
        self.ours: Any = self.near.transport
        self.theirs: Any = self.far.transport

    def run_all(self) -> None:
        """All that is under way happens; none of it needs time."""
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StreamTests(Joined):
    """Bytes."""

    def test_bytes_arrive_in_order_in_a_later_turn(self) -> None:
        """Nothing is read inside a write; what was written in one turn is read in one piece."""
        self.ours.write(b"one ")
        self.ours.writeSequence([b"two ", b"three"])
        self.theirs.write(b"back")
        self.assertEqual(self.far.got, [])
        self.run_all()
        self.assertEqual(self.far.got, [b"one two three"])
        self.assertEqual(self.near.got, [b"back"])

    def test_what_is_written_is_copied(self) -> None:
        """A buffer that the writer uses again does not change what it wrote."""
        buffer = bytearray(b"one")
        self.ours.write(buffer)
        buffer[:] = b"two"
        self.run_all()
        self.assertEqual(self.far.got, [b"one"])

    def test_large_writes_are_read_in_parts(self) -> None:
        """As a socket is read: at most READ_SIZE at a time."""
        self.ours.write(b"x" * (READ_SIZE * 2 + 1))
        self.run_all()
        self.assertEqual([len(part) for part in self.far.got], [READ_SIZE, READ_SIZE, 1])

    def test_addresses(self) -> None:
        """Both ends are on this machine, so rules about loopback hold."""
        self.assertEqual(self.ours.getPeer(), self.theirs.getHost())
        self.assertEqual(self.ours.getHost(), self.theirs.getPeer())
        self.assertEqual(self.ours.getPeer().host, "127.0.0.1")

    def test_a_paused_reader_gets_nothing(self) -> None:
        """Until it goes on; in between it is all kept, in order."""
        self.theirs.pauseProducing()
        self.ours.write(b"one")
        self.run_all()
        self.assertEqual(self.far.got, [])
        self.ours.write(b"two")
        self.theirs.resumeProducing()
        self.run_all()
        self.assertEqual(self.far.got, [b"onetwo"])

    def test_the_producer_is_paused_while_the_buffer_is_full(self) -> None:
        """Once above BUFFER_SIZE, and resumed when all was read."""
        self.ours.registerProducer(self.near, True)
        self.theirs.pauseProducing()
        self.ours.write(b"x" * BUFFER_SIZE)
        self.assertEqual(self.near.producer, [])
        self.ours.write(b"x")
        self.ours.write(b"x")
        self.assertEqual(self.near.producer, ["pause"])
        self.theirs.resumeProducing()
        self.run_all()
        self.assertEqual(self.near.producer, ["pause", "resume"])

    def test_two_producers(self) -> None:
        """The second one is an error, as Twisted has it."""
        self.ours.registerProducer(self.near, True)
        self.assertRaises(RuntimeError, self.ours.registerProducer, self.near, True)


class EndTests(Joined):
    """How it ends."""

    def test_a_close_waits_for_what_was_written(self) -> None:
        """All arrives before the end; later writes are dropped."""
        self.ours.write(b"last words")
        self.ours.loseConnection()
        self.ours.write(b"too late")
        self.run_all()
        self.assertEqual(self.far.got, [b"last words"])
        self.assertEqual((self.near.lost, self.far.lost), ([error.ConnectionDone], [error.ConnectionDone]))

    def test_a_close_waits_for_a_registered_producer(self) -> None:
        """As with Twisted's sockets."""
        self.ours.registerProducer(self.near, True)
        self.ours.loseConnection()
        self.run_all()
        self.assertEqual(self.far.lost, [])
        self.ours.unregisterProducer()
        self.run_all()
        self.assertEqual(self.far.lost, [error.ConnectionDone])

    def test_a_close_waits_for_a_paused_reader(self) -> None:
        """Who does not read does not see the end."""
        self.theirs.pauseProducing()
        self.ours.write(b"last words")
        self.ours.loseConnection()
        self.run_all()
        self.assertEqual(self.far.lost, [])
        self.theirs.resumeProducing()
        self.run_all()
        self.assertEqual((self.far.got, self.far.lost), ([b"last words"], [error.ConnectionDone]))

    def test_an_abort_does_not(self) -> None:
        """What was on its way is lost, both ways."""
        self.ours.write(b"lost")
        self.theirs.write(b"lost too")
        self.ours.abortConnection()
        self.run_all()
        self.assertEqual((self.near.got, self.far.got), ([], []))
        self.assertEqual((self.near.lost, self.far.lost), ([error.ConnectionAborted], [error.ConnectionLost]))

    def test_the_end_comes_once(self) -> None:
        """However often and from wherever it is asked for; a producer hears of it."""
        self.ours.registerProducer(self.near, True)
        self.ours.abortConnection()
        self.ours.loseConnection()
        self.theirs.abortConnection()
        self.theirs.loseConnection()
        self.run_all()
        self.assertEqual((len(self.near.lost), len(self.far.lost)), (1, 1))
        self.assertEqual(self.near.producer, ["stop"])
        self.ours.registerProducer(self.near, True)
        self.assertEqual(self.near.producer, ["stop", "stop"])
        self.assertIn("closed", repr(self.ours))

    def test_a_protocol_that_fails_is_dropped(self) -> None:
        """And its error is logged."""
        self.far.fails = True
        self.ours.write(b"x")
        self.run_all()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.near.lost, [error.ConnectionLost])

    def test_nothing_is_read_after_a_close(self) -> None:
        """Who has closed its end gets nothing more."""
        self.ours.write(b"one")
        self.theirs.write(b"two")
        self.ours.loseConnection()
        self.run_all()
        self.assertEqual((self.near.got, self.far.got), ([], [b"one"]))


class EndpointTests(SynchronousTestCase):
    """The endpoint for clients."""

    def test_connects(self) -> None:
        """Every connection has an address of its own."""
        clock = Clock()
        made: list[Peer] = []

        class Servers(Factory):
            def buildProtocol(self, addr: Any) -> Peer:
                made.append(Peer())
                return made[-1]

        endpoint = InProcessEndpoint(Servers(), clock, 5673)
        clients: list[Any] = [
            self.successResultOf(endpoint.connect(Factory.forProtocol(Peer))),
            self.successResultOf(endpoint.connect(Factory.forProtocol(Peer))),
        ]
        clients[1].transport.write(b"hello")
        clock.advance(0)
        self.assertEqual([peer.got for peer in made], [[], [b"hello"]])
        ports = {peer.transport.getPeer().port for peer in made}  # type: ignore[union-attr]
        self.assertEqual(len(ports), 2)
        self.assertEqual(clients[0].transport.getPeer().port, 5673)
        self.assertIn("5673", repr(endpoint))

    def test_refuses(self) -> None:
        """A server's factory that builds nothing refuses; a client's that builds nothing gives up."""

        class Nobody(Factory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        for servers, clients in ((Nobody(), Factory.forProtocol(Peer)), (Factory.forProtocol(Peer), Nobody())):
            refused: Deferred[Any] = InProcessEndpoint(servers, Clock()).connect(clients)
            self.failureResultOf(refused, error.ConnectionRefusedError)
