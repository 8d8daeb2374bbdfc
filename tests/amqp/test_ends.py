"""What an end leaves behind: held publishes, a connection's hook and credentials, the reason that many fail with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.amqp.peer import Peer, PeerTestCase
from txmsg.amqp.client import AMQPProtocol
from txmsg.errors import ChannelClosed, ConnectionClosed, ConnectionLost, HandshakeTimeout, NotFound, NotSent

ChannelClass, Connection = commands.Channel, commands.Connection

NOT_FOUND = ChannelClass.Close(404, "NOT_FOUND - no exchange 'x' in vhost '/'", 60, 40)


def length(traceback: TracebackType | None) -> int:
    """How many frames it has."""
    frames = 0
    while traceback is not None:
        frames, traceback = frames + 1, traceback.tb_next
    return frames


class HeldPublishTests(PeerTestCase):
    def test_none_follows_channel_close(self) -> None:
        """R2, R21: the broker would answer it with 504 and end the connection; it fails as not sent instead."""
        for confirm in (False, True):
            peer = self.opened(close_timeout=10.0)
            channel = peer.confirm_channel() if confirm else peer.channel()
            peer.send(Connection.Blocked("low on memory"))
            publish = channel.basic_publish("", "q", b"held")
            declared = channel.queue_declare("q")
            closed = channel.close()
            peer.clock.advance(5)
            self.assertEqual(peer.names(), ["Channel.Close"])
            self.assertIsInstance(self.failed(publish, NotSent).cause, ChannelClosed)
            peer.send(Connection.Unblocked())
            self.assertEqual((peer.names(), peer.violations), ([], []))
            peer.send(ChannelClass.CloseOk())
            self.assertIs(self.failed(declared, ChannelClosed), self.result(closed))
            self.assertEqual((peer.protocol.outbox.messages, peer.protocol.outbox.bytes), (0, 0))

    def test_none_follows_connection_close(self) -> None:
        """R2, R21: nor is it reported as written."""
        peer = self.opened(close_timeout=10.0)
        publish = peer.channel().basic_publish
        peer.send(Connection.Blocked("low on memory"))
        held = [publish("", "q", b"1"), publish("", "q", b"2")]
        closed = peer.protocol.close()
        peer.clock.advance(5)
        self.assertEqual(peer.names(), ["Connection.Close"])
        for each in held:
            self.assertIsInstance(self.failed(each, NotSent).cause, ConnectionClosed)
        peer.send(Connection.Unblocked(), Connection.CloseOk())
        self.assertEqual(peer.names(), [])
        peer.lose()
        self.result(closed)

    def test_aborting_in_the_errback(self) -> None:
        """R29: the errback of a held publish ends the connection while its close is about to be written."""
        for close_channel in (False, True):
            peer = self.opened(close_timeout=10.0)
            channel = peer.channel()
            peer.send(Connection.Blocked("low on memory"))
            publish = channel.basic_publish("", "q", b"held")

            def abort(failure: object, peer: Peer = peer) -> None:
                peer.protocol.abort()

            publish.addErrback(abort)
            closed: Deferred[BaseException] = channel.close() if close_channel else peer.protocol.close()
            peer.clock.advance(5)
            self.assertEqual(peer.names(), [])
            self.assertTrue(peer.transport.disconnected)
            peer.lose()
            self.result(closed)


class ReadyHookTests(PeerTestCase):
    def hooked(self, hook: Callable[[AMQPProtocol], Any]) -> Peer:
        class Hooked(AMQPProtocol):
            def connection_ready(self) -> Any:
                return hook(self)

        peer = self.peer(protocol=Hooked).connect()
        peer.start()
        peer.send(Connection.Tune(2047, 131072, 0))
        peer.send(Connection.OpenOk())
        peer.read()
        return peer

    def test_the_hook_fails_because_the_connection_ends(self) -> None:
        """24.1: the broker's reason stays the reason, and the broker gets its close-ok as ever."""
        peer = self.hooked(lambda protocol: protocol.channel())
        peer.send(Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.assertFalse(peer.transport.disconnected)
        self.assertEqual(self.failed(peer.protocol.ready, ConnectionClosed).reply_code, 320)

    def test_the_hook_fails_while_we_close(self) -> None:
        """R29: an orderly close stays one, with its own reason."""
        going: Deferred[None] = Deferred()
        peer = self.hooked(lambda protocol: going)
        closed = peer.protocol.close()
        going.errback(ValueError("late"))
        self.assertFalse(peer.transport.disconnected)
        peer.send(Connection.CloseOk())
        peer.lose()
        self.assertIs(self.failed(peer.protocol.ready, ConnectionClosed), self.result(closed))


class SharedReasonTests(PeerTestCase):
    """R31: everybody fails with the same exception; raising it again and again must not make it grow."""

    def lengths(self, count: int, call: Callable[[], Awaitable[Any]]) -> list[int]:
        """The lengths of the tracebacks that `count` coroutines see; filled when they fail."""
        found: list[int] = []

        async def one() -> None:
            try:
                await call()
            except (ChannelClosed, ConnectionClosed) as error:
                found.append(length(error.__traceback__))

        for _ in range(count):
            ensureDeferred(one())
        return found

    def test_those_who_waited(self) -> None:
        """Calls, publishes that the broker has ended with the channel, and who waits for the connection."""
        peer = self.opened()
        channel = peer.confirm_channel()
        published = self.lengths(5, lambda: channel.basic_publish("x", "k", b""))
        called = self.lengths(5, channel.queue_declare)
        peer.send(NOT_FOUND)
        self.assertIsInstance(channel.close_reason, NotFound)
        peer = self.peer().connect()
        waited = self.lengths(5, peer.protocol.when_ready)
        peer.lose()
        self.failed(peer.protocol.ready, ConnectionClosed)
        for found in (published, called, waited):
            self.assertEqual((len(found), len(set(found))), (5, 1))

    def test_those_who_come_later(self) -> None:
        """A loop that keeps trying on what has ended."""
        peer = self.opened()
        channel = peer.channel()
        peer.send(NOT_FOUND)
        calls: list[Callable[[], Awaitable[Any]]] = [
            channel.queue_declare,
            lambda: channel.basic_publish("x", "k", b""),
            peer.protocol.channel,
            peer.protocol.when_ready,
        ]
        peer.lose(ConnectionLost())
        for call in calls:
            found = self.lengths(5, call)
            self.assertEqual((len(found), len(set(found))), (5, 1))


class CredentialsTests(PeerTestCase):
    def test_a_canceller_that_fails(self) -> None:
        """R11, R28, C3.1: credentials that are still fetched at the end fail to stop: it ends, without their words."""

        def canceller(deferred: Deferred[Any]) -> None:
            raise ValueError("hunter2")

        with capturedLogs() as events:
            peer = self.peer(credentials=lambda: Deferred(canceller), handshake_timeout=5.0).connect()
            peer.start()
            peer.clock.advance(5)
        self.failed(peer.protocol.ready, HandshakeTimeout)
        self.assertTrue(peer.transport.disconnected)
        logged = [formatEvent(event) for event in events]
        self.assertTrue(any("ValueError" in line for line in logged), logged)
        self.assertNotIn("hunter2", repr(events))
