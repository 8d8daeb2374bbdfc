"""WireProtocol: what leaves in which write, when publishes have to wait, when reading stops, and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pamqp import commands
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer, PeerTestCase, ignore, outcomes
from txmsg.amqp.protocol import FLUSH_SIZE, WRITE_AHEAD, WireProtocol
from txmsg.errors import ConnectionLost, WrongThread
from txmsg.wire.connection import Limits, Role

Basic = commands.Basic


class Bare(WireProtocol):
    """The part under test alone, without a state of its own."""

    def __init__(self) -> None:
        self.test_clock = Clock()
        super().__init__(Role.SERVER, Limits(), self.test_clock)
        self.dropped: list[BaseException] = []

    def drop(self, reason: BaseException) -> None:
        self.dropped.append(reason)
        super().drop(reason)


class TransportTests(SynchronousTestCase):
    def connected(self, transport: Any) -> Bare:
        protocol = Bare()
        protocol.makeConnection(transport)
        return protocol

    def test_no_delay(self) -> None:
        """0.12: small frames do not wait for the acknowledgement of the ones before."""
        calls: list[bool] = []
        transport: Any = StringTransport()
        transport.setTcpNoDelay = calls.append
        self.connected(transport)
        self.assertEqual(calls, [True])

    def test_a_stream_that_is_not_tcp(self) -> None:
        """A unix socket has no delay to switch off; that is no error."""

        def refuse(enabled: bool) -> None:
            raise OSError("not a TCP socket")

        transport: Any = StringTransport()
        transport.setTcpNoDelay = refuse
        self.assertIs(self.connected(transport).transport, transport)

    def test_it_listens_to_the_transports_buffer(self) -> None:
        """I-07: it is registered as a streaming producer, so that it hears when the buffer is full."""
        transport = StringTransport()
        protocol = self.connected(transport)
        self.assertIs(transport.producer, protocol)
        self.assertTrue(transport.streaming)

    def test_finishing(self) -> None:
        """The socket closes when everything written has left: no producer may keep it waiting."""
        transport = StringTransport()
        protocol = self.connected(transport)
        protocol.write(b"last words")
        protocol.finish_transport()
        self.assertIsNone(transport.producer)
        self.assertTrue(transport.disconnecting)
        protocol.write(b"too late")
        self.assertEqual(transport.value(), b"last words")

    def test_aborting(self) -> None:
        """H-03: unsent bytes are not waited for; also on a transport that knows no abortConnection."""
        transport = StringTransport()
        self.connected(transport).abort_transport()
        self.assertTrue(transport.disconnected)

        class WithoutAbort(StringTransport):
            abortConnection: Any = None

        old = WithoutAbort()
        self.connected(old).abort_transport()
        self.assertTrue(old.disconnecting)
        self.assertIsNone(old.producer)
        Bare().abort_transport()

    def test_an_error_of_ours_does_not_hang_the_connection(self) -> None:
        """R18: what nobody expected is logged and drops the connection, with the error as the cause."""
        transport = StringTransport()
        protocol = self.connected(transport)
        protocol.dataReceived(b"AMQP\x00\x00\x09\x01")
        (reason,) = protocol.dropped
        assert isinstance(reason, ConnectionLost)
        self.assertIsInstance(reason.cause, NotImplementedError)
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(NotImplementedError)), 1)

    def test_the_default_reactor(self) -> None:
        """A-03, A-08: the installed one, imported when the protocol is made."""
        from twisted.internet import reactor

        self.assertIs(WireProtocol(Role.CLIENT, Limits()).reactor, reactor)


class ThreadTests(PeerTestCase):
    def elsewhere(self, call: Callable[[], Any]) -> BaseException | None:
        """What `call` raises in another thread."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return raised[0] if raised else None

    def test_every_call_says_so_at_once(self) -> None:
        """A-05: WrongThread is raised where the mistake is, nothing is written, nothing is changed."""
        peer = self.opened()
        channel, other = peer.channel(), peer.confirm_channel()
        deliveries: list[Any] = []
        consumer = peer.consumer(channel, deliveries.append)
        peer.deliver(consumer, b"1")
        calls: list[Callable[[], Any]] = [
            peer.protocol.channel,
            peer.protocol.close,
            peer.protocol.abort,
            lambda: peer.protocol.update_secret("t"),
            channel.queue_declare,
            channel.basic_consume,
            consumer.cancel,
            channel.basic_get,
            channel.basic_qos,
            channel.confirm_select,
            other.confirm_select,
            lambda: channel.basic_publish("", "q", b""),
            channel.close,
            deliveries[0].ack,
            deliveries[0].nack,
            deliveries[0].reject,
        ]
        for call in calls:
            error = self.elsewhere(call)
            self.assertIsInstance(error, WrongThread, getattr(call, "__qualname__", ""))
            self.assertIn("callFromThread", str(error))
        self.assertEqual(peer.read(), [])
        deliveries[0].ack()
        self.assertTrue(channel.is_open)

    def test_the_thread_is_that_of_the_connection(self) -> None:
        """A protocol may be made in one thread and connected in the reactor's."""
        peer = self.peer()
        self.elsewhere(peer.connect)
        self.assertRaises(WrongThread, peer.protocol.channel)
        self.assertRaises(WrongThread, peer.protocol.close)
        peer.protocol.thread_id = threading.get_ident()
        peer.protocol.ready.addErrback(lambda failure: None)


class WritingTests(PeerTestCase):
    def writes(self, peer: Peer) -> list[bytes]:
        """What was written since the last look; the turn does not end."""
        found = list(peer.transport.writes)
        del peer.transport.writes[:]
        return found

    def test_one_write_for_the_publishes_of_a_turn(self) -> None:
        """0.12, J-18: publishes of a turn leave together at its end, in order."""
        peer = self.opened()
        channel = peer.channel()
        self.writes(peer)
        for n in range(20):
            channel.basic_publish("", "q", b"%d" % n)
        self.assertEqual(self.writes(peer), [])
        self.assertEqual(peer.published(), [b"%d" % n for n in range(20)])
        self.assertEqual(len(self.writes(peer)), 1)

    def test_a_method_takes_along_what_was_published(self) -> None:
        """R4: the order of the calls is the order on the wire, whatever they are."""
        peer = self.opened()
        channel = peer.channel()
        channel.basic_publish("", "q", b"1")
        ignore(channel.queue_declare("q"))
        channel.basic_publish("", "q", b"2")
        self.assertEqual(peer.names(), ["Basic.Publish", "Queue.Declare", "Basic.Publish"])

    def test_what_callbacks_write_leaves_in_one_piece(self) -> None:
        """Acks, publishes and methods made while a chunk is handled are one write, at its end."""
        peer = self.opened()
        channel, other = peer.channel(), peer.channel()

        def callback(delivery: Any) -> None:
            other.basic_publish("", "q", delivery.body)
            delivery.ack()

        consumer = peer.consumer(channel, callback)
        self.writes(peer)
        peer.deliver(consumer, *[b"%d" % n for n in range(50)])
        self.assertEqual(len(self.writes(peer)), 1)
        names = peer.names()
        self.assertEqual(names.count("Basic.Publish"), 50)
        self.assertEqual(names.count("Basic.Ack"), 1)

    def test_much_output_does_not_wait_for_the_end_of_the_turn(self) -> None:
        """R6: what gathers is bounded."""
        peer = self.opened()
        channel = peer.channel()
        self.writes(peer)
        for _ in range(100):
            channel.basic_publish("", "q", bytes(4096))
        self.assertGreater(len(self.writes(peer)), 4)
        self.assertLess(peer.protocol._output_size, FLUSH_SIZE)
        self.assertEqual(len(peer.published()), 100)

    def test_a_large_body_leaves_at_once(self) -> None:
        """24.12, W-33: in frames of the negotiated size, whole, and behind what was published before."""
        peer = self.peer().open(frame_max=4096)
        channel = peer.channel()
        channel.basic_publish("", "q", b"small")
        channel.basic_publish("", "q", bytes(range(256)) * 1000)
        channel.basic_publish("", "q", b"")
        self.assertEqual(peer.published(), [b"small", bytes(range(256)) * 1000, b""])

    def test_nothing_is_left_behind_by_the_turn(self) -> None:
        """R28: after the end of a turn no call is scheduled."""
        peer = self.opened()
        channel = peer.channel()
        channel.basic_publish("", "q", b"")
        self.assertEqual(len(peer.clock.getDelayedCalls()), 1)
        peer.read()
        self.assertEqual(peer.clock.getDelayedCalls(), [])


class BackPressureTests(PeerTestCase):
    def fill(self, peer: Peer, channel: Any, size: int = 16_000) -> list[Any]:
        """Publish until the connection holds publishes back."""
        peer.protocol.pauseProducing()
        made: list[Any] = []
        while peer.protocol.can_publish:
            made.append(channel.basic_publish("", "q", bytes(size)))
            peer.clock.advance(0)
            assert len(made) < 1000
        return made

    def test_a_full_buffer_takes_some_more(self) -> None:
        """I-07: after the transport's notice up to WRITE_AHEAD bytes are written, then publishes are held."""
        peer = self.opened()
        channel = peer.channel()
        peer.protocol.pauseProducing()
        self.assertTrue(peer.protocol.can_publish)
        made = self.fill(peer, channel)
        written = sum(map(len, peer.transport.writes))
        self.assertGreaterEqual(written, WRITE_AHEAD)
        self.assertLess(written, WRITE_AHEAD + 2 * FLUSH_SIZE)
        held = channel.basic_publish("", "q", b"held")
        peer.published()
        self.assertEqual(peer.read(), [])
        self.assertNoResult(held)
        self.assertEqual(peer.protocol.outbox.messages, 1)
        peer.protocol.resumeProducing()
        self.assertEqual(peer.published(), [b"held"])
        self.assertIsNone(self.result(held))
        self.assertEqual(outcomes(made), [None] * len(made))

    def test_the_publish_that_filled_it_waits_for_room(self) -> None:
        """K-31: without confirms a publish succeeds when the socket takes more: a slow broker slows us down."""
        peer = self.opened()
        channel = peer.channel()
        peer.protocol.pauseProducing()
        first = channel.basic_publish("", "q", bytes(2 * WRITE_AHEAD))
        peer.clock.advance(0)
        self.assertFalse(peer.protocol.can_publish)
        self.assertNoResult(first)
        self.assertEqual(peer.published(), [bytes(2 * WRITE_AHEAD)])
        peer.protocol.resumeProducing()
        self.assertIsNone(self.result(first))

    def test_methods_and_acks_are_not_held(self) -> None:
        """A slow socket holds publishes only: a consumer goes on to settle, other channels go on to call."""
        peer = self.opened()
        channel, other = peer.channel(), peer.channel()
        deliveries: list[Any] = []
        consumer = peer.consumer(other, deliveries.append)
        self.fill(peer, channel)
        peer.read()
        ignore(channel.basic_publish("", "q", b"held"), other.queue_declare("q"))
        peer.deliver(consumer, b"", channel=2)
        deliveries[0].ack()
        self.assertEqual(peer.names(), ["Queue.Declare", "Basic.Ack"])

    def test_the_buffer_fills_again_while_held_publishes_leave(self) -> None:
        """I-07: the rest stays held, in order."""
        peer = self.opened()
        channel = peer.channel()
        self.fill(peer, channel)
        peer.published()
        bodies = [bytes([n]) * 50_000 for n in range(60)]
        held = [channel.basic_publish("", "q", body) for body in bodies]
        written: list[bytes] = []
        for _ in range(len(bodies)):
            if not peer.protocol.outbox.messages:
                break
            # As Twisted's transports do: the notice comes from inside write(), when it is above its mark.
            peer.protocol.resumeProducing()
            peer.protocol.pauseProducing()
            written += peer.published()
        peer.protocol.resumeProducing()
        written += peer.published()
        self.assertEqual(written, bodies)
        self.assertEqual(outcomes(held), [None] * 60)

    def test_both_gates_must_be_open(self) -> None:
        """R16: unblocked, but the socket is full; then the socket is free again."""
        peer = self.opened()
        channel = peer.channel()
        self.fill(peer, channel)
        peer.published()
        peer.send(commands.Connection.Blocked("low on memory"))
        channel.basic_publish("", "q", b"held")
        peer.protocol.resumeProducing()
        self.assertEqual(peer.published(), [])
        peer.protocol.pauseProducing()
        peer.send(commands.Connection.Unblocked())
        self.assertEqual(peer.published(), [b"held"])

    def test_the_transport_goes_away(self) -> None:
        """stopProducing is followed by connectionLost; it needs nothing of us."""
        peer = self.opened()
        peer.protocol.stopProducing()
        self.assertTrue(peer.protocol.is_open)


class ReadingTests(PeerTestCase):
    def test_reading_stops_for_the_first_and_goes_on_after_the_last(self) -> None:
        """I-11: any number of consumers may ask for it."""
        peer = self.opened()
        protocol = peer.protocol
        protocol.pause_reading("a")
        protocol.pause_reading("b")
        self.assertTrue(protocol.is_reading_paused)
        self.assertEqual(peer.transport.producerState, "paused")
        protocol.resume_reading("a")
        self.assertEqual(peer.transport.producerState, "paused")
        protocol.resume_reading("b")
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertFalse(protocol.is_reading_paused)

    def test_a_peer_is_not_judged_while_we_do_not_read(self) -> None:
        """R14: its heartbeats wait in the kernel; after that it has its two intervals again."""
        peer = self.peer(heartbeat=10).open()
        peer.protocol.pause_reading(self)
        peer.clock.pump([1] * 100)
        self.assertTrue(peer.protocol.is_open)
        peer.protocol.resume_reading(self)
        peer.clock.pump([1] * 19)
        self.assertTrue(peer.protocol.is_open)
        peer.clock.pump([1] * 3)
        self.assertFalse(peer.protocol.is_open)

    def test_after_the_end(self) -> None:
        """W-34: a transport that is gone is not told to read."""
        peer = self.opened()
        peer.protocol.pause_reading(self)
        peer.protocol.abort()
        peer.protocol.resume_reading(self)
        peer.protocol.pause_reading(self)
        peer.protocol.resume_reading(self)
        self.assertEqual(peer.transport.producerState, "paused")
