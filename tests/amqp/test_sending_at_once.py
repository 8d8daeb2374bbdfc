"""What is written leaves in the same turn where the transport is a socket, and else when the transport likes."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp.protocol import WireProtocol
from txmsg.wire.session import Limits
from txmsg.wire.states import Role


class Writers(Clock):
    """A reactor that is never asked what can be written."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Any] = []

    def addWriter(self, writer: Any) -> None:
        if writer not in self.waiting:
            self.waiting.append(writer)

    def removeReader(self, reader: Any) -> None:
        """Nothing is read here."""

    def removeWriter(self, writer: Any) -> None:
        if writer in self.waiting:
            self.waiting.remove(writer)


class Socket(FileDescriptor):
    """Takes so many octets at a time; -1: it is broken."""

    def __init__(self, reactor: Any, takes: int) -> None:
        super().__init__(reactor)
        self.connected = 1
        self.takes = takes
        self.sent = b""

    def writeSomeData(self, data: bytes) -> Any:
        if self.takes < 0:
            return CONNECTION_LOST
        self.sent += bytes(data[: self.takes])
        return min(self.takes, len(data))


class SendingTests(SynchronousTestCase):
    """WireProtocol.flush_output."""

    def protocol(self, takes: int) -> WireProtocol:
        self.reactor = Writers()
        self.socket = Socket(self.reactor, takes)
        protocol = WireProtocol(Role.CLIENT, Limits(), self.reactor)
        protocol.makeConnection(self.socket)
        return protocol

    def test_at_once(self) -> None:
        """The reactor need not find out first that the socket takes it, and nothing is left to be written."""
        self.protocol(1000).write(b"frames")
        self.assertEqual(self.socket.sent, b"frames")
        self.assertEqual(self.reactor.waiting, [])

    def test_one_message_at_the_end_of_the_turn(self) -> None:
        """Publishes of one turn still leave together."""
        protocol = self.protocol(1000)
        protocol.write_all([b"one"])
        protocol.write_all([b"two"])
        self.assertEqual(self.socket.sent, b"")
        self.reactor.advance(0)
        self.assertEqual(self.socket.sent, b"onetwo")

    def test_a_full_socket(self) -> None:
        """What it does not take waits for the reactor, in order; nobody else tries, and copies all of it for that."""
        protocol = self.protocol(4)
        protocol.write(b"frames")
        self.assertEqual(self.socket.sent, b"fram")
        self.assertEqual(self.reactor.waiting, [self.socket])
        self.socket.takes = 1000
        protocol.write(b"more")
        self.assertEqual(self.socket.sent, b"fram")
        self.assertEqual(self.reactor.waiting, [self.socket])
        self.socket.doWrite()
        self.assertEqual(self.socket.sent, b"framesmore")
        self.assertEqual(self.reactor.waiting, [])
        protocol.write(b" and again at once")
        self.assertEqual(self.socket.sent, b"framesmore and again at once")

    def test_a_broken_socket(self) -> None:
        """The reactor tries again, and tells everybody."""
        self.protocol(-1).write(b"frames")
        self.assertEqual(self.reactor.waiting, [self.socket])
        self.assertIs(self.socket.doWrite(), CONNECTION_LOST)

    def test_a_socket_that_is_being_closed(self) -> None:
        """Its end is the reactor's to find: nobody else tells the protocol."""
        protocol = self.protocol(4)
        protocol.write(b"frames")
        self.socket.loseConnection()
        self.socket.takes = 1000
        protocol.write(b"more")
        self.assertEqual(self.reactor.waiting, [self.socket])
