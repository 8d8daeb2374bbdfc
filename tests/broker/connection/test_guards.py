"""What no longer happens once a connection is over, or paused: the guards of the flow and of the blocking."""

from __future__ import annotations

import socket
import struct
import unittest
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.broker.server_peer import Peer, make_broker
from tests.cases import ReactorTestCase
from txmsg.amqp.protocol import READ_SIZE
from txmsg.broker.connection.connection import UNTRUSTED_READ_SIZE
from txmsg.broker.faults import fault
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users
from txmsg.wire.methods import basic, connection, queue
from txmsg.wire.properties import BasicProperties


def begun(peer: Peer) -> bytes:
    """A publish whose body does not come."""
    publish = basic.Publish(routing_key="q").encode()
    header = struct.pack(">HHQH", 60, 0, 10, 0)
    return b"".join(
        struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
        for kind, payload in ((1, publish), (2, header), (3, b"12345"))
    )


class BlockedTests(unittest.TestCase):
    """An alarm and one connection."""

    def test_told_once(self) -> None:
        """F37: a publish, and a part of one in the same octets, are one connection.blocked."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        broker.block()
        message = b"".join(peer.wire.encode_publish(1, "", "q", False, BasicProperties(), b"x"))
        peer.send_raw(message + begun(peer))
        peer.expect(connection.Blocked)
        self.assertEqual(peer.methods, [])
        broker.unblock()
        peer.pump()
        peer.expect(connection.Unblocked)
        self.assertEqual(peer.methods, [])
        self.assertEqual(peer.transport.producerState, "producing")

    def test_closed_while_blocked(self) -> None:
        """Who is closed then is told that, and nothing of the alarm's end."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        broker.block()
        peer.publish(b"x", "q")
        peer.expect(connection.Blocked)
        peer.server.close_with(fault(320, "enough"))
        self.assertEqual(peer.transport.producerState, "producing")
        broker.unblock()
        peer.pump()
        self.assertEqual(peer.expect(connection.Close).reply_code, 320)
        self.assertEqual(peer.methods, [])
        peer.send(connection.CloseOk())
        self.assertTrue(peer.is_lost)
        self.assertEqual(broker.reactor.getDelayedCalls(), [])

    def test_gone_while_blocked(self) -> None:
        """The alarm's end does not touch a socket that is closed."""
        broker = make_broker()
        peer = Peer(broker).open()
        peer.open_channel(1)
        broker.block()
        peer.publish(b"x", "q")
        held = peer.transport.producerState
        peer.lose()
        broker.unblock()
        self.assertEqual((held, peer.transport.producerState), ("paused", "paused"))


class OverTests(unittest.TestCase):
    """After `end_at_once`, before Twisted says that the socket is closed."""

    def test_no_close(self) -> None:
        """No connection.close, no timer for its answer, no second end."""
        peer = Peer(make_broker()).open()
        peer.server.end_at_once("a test")
        peer.server.close_with(fault(320, "enough"))
        peer.server.end_quietly()
        self.assertEqual(peer.transport.value(), b"")
        self.assertEqual(peer.broker.reactor.getDelayedCalls(), [])
        self.assertFalse(peer.server.is_closing)
        peer.pump()
        self.assertEqual(peer.broker.connections, set())

    def test_no_reading(self) -> None:
        """What was paused is not read again, and what was held does not happen."""
        peer = Peer(make_broker()).open()
        peer.open_channel(1)
        peer.server.pause_reading("test")
        peer.send_raw(peer.wire.send_method(1, queue.Declare(queue="held")))
        peer.server.end_at_once("a test")
        peer.server.resume_reading("test")
        self.assertEqual(peer.transport.producerState, "paused")
        self.assertEqual(peer.broker.vhosts["/"].queues, {})

    def test_not_open(self) -> None:
        """Before connection.open nothing is open, and after the end has begun nothing is any more."""
        peer = Peer(make_broker())
        self.assertFalse(peer.server.is_open)
        peer.open()
        self.assertTrue(peer.server.is_open)
        peer.server.close_with(fault(320, "enough"))
        self.assertFalse(peer.server.is_open)


class HandshakeTests(unittest.TestCase):
    """Reading stops while a login is checked."""

    def test_checked_in_a_thread(self) -> None:
        """Nothing is read until the password has been checked; then it goes on, or says so late."""
        for password, is_right in ((b"guest", True), (b"wrong", False)):
            with self.subTest(is_right=is_right):
                broker = make_broker()
                checks: list[tuple[Callable[[], Any], Deferred[Any]]] = []

                def later(work: Callable[[], Any]) -> Deferred[Any]:
                    checks.append((work, Deferred()))  # noqa: B023
                    return checks[-1][1]  # noqa: B023

                broker.users.run = later
                peer = Peer(broker)
                peer.start()
                peer.log_in(b"\0guest\0" + password)
                self.assertEqual(
                    (peer.server.state, peer.transport.producerState, peer.methods), ("starting", "paused", [])
                )
                ((work, done),) = checks
                done.callback(work())
                peer.pump()
                self.assertEqual(peer.transport.producerState, "producing" if is_right else "paused")
                if is_right:
                    peer.expect(connection.Tune)
                else:
                    peer.advance(1.1)
                    self.assertEqual(peer.expect(connection.Close).reply_code, 403)
                    self.assertEqual(peer.transport.producerState, "producing")

    def test_unknown_mechanism(self) -> None:
        """There is nothing to check, and still nothing is read until the refusal has been told."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in(b"", "KERBEROS")
        self.assertEqual(peer.transport.producerState, "paused")
        peer.advance(1.1)
        self.assertEqual(peer.expect(connection.Close).reply_code, 403)
        self.assertEqual(peer.transport.producerState, "producing")


class ReadSizeTests(ReactorTestCase):
    """R36: strangers are read in small pieces."""

    async def test_read_size(self) -> None:
        """8 KiB at once before the login, much more after it."""
        broker = Broker(reactor=reactor, users=Users(cost=2))
        listener = await broker.listen(port=0)
        with socket.create_connection(("127.0.0.1", listener.port)) as stream:
            while not broker.connections:
                await deferLater(reactor, 0.01)
            (made,) = broker.connections
            self.assertEqual(getattr(made.transport, "bufferSize", None), UNTRUSTED_READ_SIZE)
            response = b"\0guest\0guest"
            start_ok = connection.StartOk(response=response).encode()
            stream.sendall(b"AMQP\x00\x00\x09\x01")
            await self.in_thread(stream.recv, 65536)
            stream.sendall(struct.pack(">BHI", 1, 0, len(start_ok)) + start_ok + b"\xce")
            while made.user is None:
                await deferLater(reactor, 0.01)
            self.assertEqual(getattr(made.transport, "bufferSize", None), READ_SIZE)
        await made.gone
        await broker.stop()
