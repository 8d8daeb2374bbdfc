"""Scripted faults: each happens as often as it was asked for, to whom it was meant for, and then no more.

F1 to F17, F30, F31, F34, F36, F37: these are the faults that users of the test kit can set.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.cases import ReactorTestCase
from txmsg.amqp import AMQPProtocol, Channel, connect
from txmsg.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionForced,
    ConnectionLost,
    ConsumerCancelled,
    HeartbeatTimeout,
    InternalError,
    NotFound,
    PreconditionFailed,
    PublishNacked,
    PublishUnconfirmed,
    ResourceLocked,
    TxmsgError,
)
from txmsg.testing import EmbeddedBroker, NoSuchEntity


class FaultTestCase(SynchronousTestCase):
    """A broker on a clock, and clients without sockets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = EmbeddedBroker(reactor=self.clock)
        self.successResultOf(self.broker.start())
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Nothing is left behind: no timer, no script, no connection."""
        stopped = self.broker.stop()
        for _ in range(10):
            self.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.broker.broker.script)
        self.assertEqual(self.broker.connections, [])

    def result(self, deferred: Deferred[Any]) -> Any:
        self.clock.advance(0)
        return self.successResultOf(deferred)

    def failure(self, deferred: Deferred[Any], *types: type[BaseException]) -> Any:
        self.clock.advance(0)
        return self.failureResultOf(deferred, *types).value

    def connect(self, **fields: Any) -> AMQPProtocol:
        connection: AMQPProtocol = self.result(self.broker.connect(**({"heartbeat": 0} | fields)))
        return connection

    def channel(self, connection: AMQPProtocol | None = None) -> Channel:
        """One in confirm mode."""
        channel: Channel = self.result((connection or self.connect()).channel())
        self.result(channel.confirm_select())
        return channel


class PublishTests(FaultTestCase):
    """What happens to publishes."""

    def test_nack(self) -> None:
        """F34: so many of those to one queue are refused, however they get there; others are not."""
        channel = self.channel()
        for name in ("jobs", "other"):
            self.broker.declare_queue(name)
        self.result(channel.queue_bind("jobs", "amq.topic", "job.#"))
        refused = self.broker.faults.nack(queue="jobs", times=2)
        self.result(channel.basic_publish("", "other", b""))
        self.failure(channel.basic_publish("", "jobs", b""), PublishNacked)
        self.failure(channel.basic_publish("amq.topic", "job.new", b""), PublishNacked)
        self.assertEqual((refused.count, refused.is_active, self.broker.broker.script), (2, False, None))
        self.result(channel.basic_publish("", "jobs", b""))
        self.assertEqual(self.broker.queue("jobs").depth, 1)

    def test_nack_by_exchange_and_key(self) -> None:
        """Until it is stopped; as a context manager at the end of the block."""
        channel = self.channel()
        with self.broker.faults.nack(exchange="amq.direct", routing_key="a", times=None) as refused:
            for _ in range(3):
                self.failure(channel.basic_publish("amq.direct", "a", b""), PublishNacked)
            self.result(channel.basic_publish("amq.direct", "b", b""))
            self.result(channel.basic_publish("amq.fanout", "a", b""))
            self.assertIn("active, happened 3 times", repr(refused))
            self.assertIn("PublishFault", repr(self.broker.faults))
        self.result(channel.basic_publish("amq.direct", "a", b""))
        self.assertIn("none", repr(self.broker.faults))

    def test_nack_without_confirms(self) -> None:
        """The message is not taken, and nobody is told."""
        channel = self.result(self.connect().channel())
        self.broker.declare_queue("jobs")
        self.broker.faults.nack(queue="jobs")
        channel.basic_publish("", "jobs", b"1")
        channel.basic_publish("", "jobs", b"2")
        self.clock.advance(0)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"2"])

    def test_lose(self) -> None:
        """No confirm ever comes for that one; the others get theirs."""
        channel = self.channel()
        self.broker.faults.lose()
        lost = channel.basic_publish("", "q", b"1")
        later = channel.basic_publish("", "q", b"2")
        self.result(later)
        self.assertNoResult(lost)
        channel.connection.abort()
        self.failure(lost, PublishUnconfirmed)

    def test_close_channel_on_publish(self) -> None:
        """F31: the channel ends with the code and text asked for; the connection goes on."""
        connection = self.connect()
        channel = self.channel(connection)
        self.broker.faults.close_channel(406, "PRECONDITION_FAILED - no more", on="basic.publish", exchange="")
        self.result(channel.basic_publish("amq.direct", "q", b""))
        error = self.failure(channel.basic_publish("", "q", b""), PreconditionFailed)
        self.assertEqual(error.reply_text, "PRECONDITION_FAILED - no more")
        self.assertTrue(connection.is_open)

    def test_block(self) -> None:
        """F37: who publishes is told, and told again when it is over."""
        channel = self.channel()
        self.result(channel.basic_publish("", "q", b""))
        with self.broker.faults.block() as blocked:
            waiting = channel.basic_publish("", "q", b"")
            self.clock.advance(1)
            self.assertTrue(channel.connection.is_blocked)
            self.assertIn("low on memory", channel.connection.blocked.reason or "")
            self.assertNoResult(waiting)
            self.assertTrue(blocked.is_active)
        self.result(waiting)
        self.assertFalse(channel.connection.is_blocked)

    def test_unblock(self) -> None:
        """All that has been blocked, by any source."""
        channel = self.channel()
        self.broker.faults.block("disk")
        waiting = channel.basic_publish("", "q", b"")
        self.clock.advance(0)
        self.assertIn("low on disk", channel.connection.blocked.reason or "")
        self.broker.faults.unblock()
        self.result(waiting)
        self.broker.faults.clear()


class MethodTests(FaultTestCase):
    """Methods that are refused."""

    def test_close_channel_on_a_method(self) -> None:
        """Only that method, for that queue; once."""
        connection = self.connect()
        fault = self.broker.faults.close_channel(405, on="queue.declare", queue="mine")
        channel = self.channel(connection)
        self.result(channel.queue_declare("other"))
        error = self.failure(channel.queue_declare("mine"), ResourceLocked)
        self.assertEqual(error.reply_text, "RESOURCE_LOCKED - a scripted fault")
        self.assertEqual((error.class_id, error.method_id), (50, 10))
        self.assertEqual(fault.count, 1)
        self.assertFalse(self.broker.queue("mine").exists)
        self.result(self.channel(connection).queue_declare("mine"))

    def test_close_all_channels(self) -> None:
        """Now, without a method that caused it."""
        connection = self.connect()
        channels = [self.channel(connection), self.channel()]
        closed = self.broker.faults.close_channel(404)
        self.assertEqual((closed.count, closed.is_active), (2, False))
        for channel in channels:
            error = self.result(channel.when_closed())
            self.assertIsInstance(error, NotFound)
            self.assertEqual((error.class_id, error.method_id), (0, 0))
        self.assertTrue(connection.is_open)

    def test_close_connection(self) -> None:
        """F30: all of them, with 320 unless asked otherwise; or the one that does something."""
        one, two = self.connect(), self.connect()
        self.assertEqual(self.broker.faults.close_connection().count, 2)
        for connection in (one, two):
            error = self.result(connection.when_closed())
            self.assertIsInstance(error, ConnectionForced)
            self.assertEqual(error.reply_text, "CONNECTION_FORCED - a scripted fault")
        one, two = self.connect(), self.connect()
        self.broker.faults.close_connection(541, "INTERNAL_ERROR", on="channel.open")
        self.failure(one.channel(), InternalError)
        self.result(two.channel())

    def test_methods_that_are_none(self) -> None:
        """A misspelt one is refused, and one that is never asked about."""
        for name in ("queue.declair", "basic.ack", ""):
            self.assertRaises(ConfigurationError, self.broker.faults.close_channel, on=name)

    def test_cancel_consumers(self) -> None:
        """F36: they are told, what they have not settled stays theirs; the queue stays."""
        channel = self.channel()
        self.broker.declare_queue("q")
        self.broker.publish("", "q", b"1")
        got: list[Any] = []
        consumer = self.result(channel.basic_consume("q", got.append))
        self.clock.advance(0)
        self.assertEqual(self.broker.faults.cancel_consumers("q").count, 1)
        reason = self.result(consumer.when_ended())
        self.assertIsInstance(reason, ConsumerCancelled)
        self.assertEqual(reason.initiator, "server")
        self.broker.publish("", "q", b"2")
        self.clock.advance(0)
        queue = self.broker.queue("q")
        self.assertEqual((queue.consumers, queue.depth, queue.unacked), ([], 1, 1))
        got[0].ack()
        self.clock.advance(0)
        self.assertEqual(queue.unacked, 0)
        self.assertRaises(NoSuchEntity, self.broker.faults.cancel_consumers, "other")


class ConnectionTests(FaultTestCase):
    """What happens to connections."""

    def test_refuse(self) -> None:
        """F1: so many clients are turned away, then they get in."""
        refused = self.broker.faults.refuse(times=2)
        for _ in range(2):
            self.failure(self.broker.connect(), ConnectionLost)
        self.assertEqual(refused.count, 2)
        self.connect()

    def test_cut_now(self) -> None:
        """F5: all there are, without a word."""
        one, two = self.connect(), self.connect()
        waiting = self.channel(one).queue_declare("q")
        self.assertEqual(self.broker.faults.cut().count, 2)
        for connection in (one, two):
            self.assertIsInstance(self.result(connection.when_closed()), ConnectionLost)
        self.failure(waiting, ConnectionLost)
        self.connect()

    def test_cut_after_bytes(self) -> None:
        """What came before is read; one connection, unless more are asked for."""
        channel, other = self.channel(), self.channel()
        self.broker.declare_queue("q")
        cut = self.broker.faults.cut(after_bytes=1000)
        first = channel.basic_publish("", "q", b"x" * 100)
        self.result(first)
        second = channel.basic_publish("", "q", b"x" * 1000)
        self.failure(second, PublishUnconfirmed)
        self.assertEqual((cut.count, cut.is_active, self.broker.queue("q").depth), (1, False, 1))
        self.result(other.basic_publish("", "q", b"x" * 2000))
        self.assertIsNone(self.broker.broker.script)

    def test_cut_after_bytes_that_were_sent(self) -> None:
        """The broker has it, and the client does not know."""
        channel = self.channel()
        self.broker.declare_queue("q")
        self.broker.faults.cut(after_bytes=1, of="sent")
        self.failure(channel.basic_publish("", "q", b"x"), PublishUnconfirmed)
        self.assertEqual(self.broker.queue("q").depth, 1)

    def test_cut_after_frames(self) -> None:
        """start-ok, tune-ok, open, channel.open, confirm.select; then a publish of three frames, of which one comes."""
        old = self.channel()
        self.broker.declare_queue("q")
        cut = self.broker.faults.cut(after_frames=6)
        channel = self.channel()
        self.result(old.basic_publish("", "q", b"x"))
        self.failure(channel.basic_publish("", "q", b"x"), PublishUnconfirmed)
        self.assertEqual((cut.count, self.broker.queue("q").depth), (1, 1))

    def test_cut_after_frames_that_were_sent(self) -> None:
        """start, tune: the client never sees open-ok."""
        self.broker.faults.cut(after_frames=2, of="sent")
        self.failure(self.broker.connect(), TxmsgError)
        self.connect()

    def test_cut_at_a_message(self) -> None:
        """F8: the third is lost; of the two before it the publisher may know."""
        channel = self.channel()
        self.broker.declare_queue("q")
        self.broker.faults.cut(at_message=3)
        published = [channel.basic_publish("", "q", b"%d" % n) for n in range(5)]
        outcomes = self.result(DeferredList(published, consumeErrors=True))
        self.assertEqual(self.broker.queue("q").bodies, [b"0", b"1"])
        self.assertEqual([succeeded for succeeded, _ in outcomes[2:]], [False] * 3)

    def test_cut_every_connection(self) -> None:
        """times=None: until it is stopped."""
        with self.broker.faults.cut(at_message=1, times=None):
            for _ in range(3):
                self.failure(self.channel().basic_publish("", "q", b""), PublishUnconfirmed)
        self.result(self.channel().basic_publish("", "q", b""))

    def test_cuts_that_are_none(self) -> None:
        """One number at most, and 1 at least."""
        for arguments in ({"after_bytes": 1, "at_message": 1}, {"after_frames": 0}, {"after_bytes": 1, "of": "read"}):
            with self.subTest(arguments=arguments):
                self.assertRaises(ConfigurationError, self.broker.faults.cut, **arguments)

    def test_stall(self) -> None:
        """F2: nothing is read, nothing leaves; then it goes on where it was, and nothing is lost."""
        channel = self.channel()
        self.broker.declare_queue("q")
        stalled = self.broker.faults.stall()
        waiting = [channel.basic_publish("", "q", b"%d" % n) for n in range(3)]
        self.clock.advance(5)
        self.broker.publish("", "q", b"from elsewhere")
        self.assertEqual(self.broker.queue("q").depth, 1)
        stalled.stop()
        self.assertEqual(self.result(DeferredList(waiting))[0], (True, 1))
        self.assertEqual(self.broker.queue("q").depth, 4)
        self.assertIsNone(self.broker.broker.script)

    def test_stall_holds_deliveries(self) -> None:
        """They come later, in order."""
        channel = self.channel()
        self.broker.declare_queue("q")
        got: list[bytes] = []
        self.result(channel.basic_consume("q", lambda delivery: got.append(delivery.body), no_ack=True))
        with self.broker.faults.stall():
            for n in range(3):
                self.broker.publish("", "q", b"%d" % n)
                self.clock.advance(0)
            self.assertEqual(got, [])
        self.clock.advance(0)
        self.assertEqual(got, [b"0", b"1", b"2"])

    def test_heartbeats_notice_a_stall(self) -> None:
        """R13: the client does, within its time."""
        connection = self.connect(heartbeat=2)
        self.broker.faults.stall()
        for _ in range(10):
            self.clock.advance(0.5)
        self.assertIsInstance(self.result(connection.when_closed()), HeartbeatTimeout)

    def test_a_client_that_connects_into_a_stall(self) -> None:
        """F3: it gets no answer, and gives up after its own limit."""
        self.broker.faults.stall()
        connecting = self.broker.connect(handshake_timeout=3.0)
        for _ in range(4):
            self.clock.advance(1)
        self.failure(connecting, TxmsgError)

    def test_delay(self) -> None:
        """F4: a call takes two ways; order is kept; what is under way when it is stopped comes at once."""
        channel = self.channel()
        delayed = self.broker.faults.delay(0.5)
        first, second = channel.queue_declare("a"), channel.queue_declare("b")
        self.clock.pump([0, 0.4])
        self.assertFalse(self.broker.queue("a").exists)
        self.clock.pump([0.1])
        self.assertTrue(self.broker.queue("b").exists)
        self.clock.pump([0.4])
        self.assertNoResult(first)
        self.clock.pump([0.1])
        self.result(DeferredList([first, second], fireOnOneErrback=True))
        third = channel.queue_declare("c")
        self.clock.pump([0, 0.1])
        delayed.stop()
        delayed.stop()
        self.result(third)
        self.assertRaises(ConfigurationError, self.broker.faults.delay, 0)

    def test_a_delayed_connection_that_ends(self) -> None:
        """No timer outlives it."""
        channel = self.channel()
        self.broker.faults.delay(60)
        waiting = channel.queue_declare("a")
        self.clock.advance(0)
        channel.connection.abort()
        self.failure(waiting, TxmsgError)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_two_at_once(self) -> None:
        """Each does its part."""
        channel = self.channel()
        self.broker.faults.nack()
        self.broker.faults.delay(1)
        waiting = channel.basic_publish("", "q", b"")
        self.clock.pump([0, 1, 1])
        self.failure(waiting, PublishNacked)
        self.assertEqual(len(self.broker.faults.active), 1)
        self.broker.faults.clear()


class SocketTests(ReactorTestCase):
    """The same over real sockets."""

    async def test_refuse(self) -> None:
        """F1: the client says that somebody hung up."""
        async with EmbeddedBroker(listen=True) as broker:
            broker.faults.refuse(times=1)
            with self.assertRaises(ConnectionLost) as caught:
                await connect(broker.url)
            self.assertNotIsInstance(caught.exception, ConnectFailed)
            await (await connect(broker.url)).close()

    async def test_cut_and_stall(self) -> None:
        """F2, F5: large messages cut in the middle, then a stall that the heartbeat ends."""
        async with EmbeddedBroker(listen=True) as broker:
            broker.declare_queue("q")
            connection = await connect(broker.parameters(heartbeat=1))
            channel = await connection.channel()
            await channel.confirm_select()
            broker.faults.cut(after_bytes=500_000)
            with self.assertRaises(PublishUnconfirmed):
                await channel.basic_publish("", "q", b"x" * 1_000_000)
            self.assertEqual(broker.queue("q").depth, 0)
            connection = await connect(broker.parameters(heartbeat=1))
            with broker.faults.stall():
                self.assertIsInstance(await connection.when_closed(), HeartbeatTimeout)

    async def test_sent_bytes_arrive_before_the_cut(self) -> None:
        """What was let through is read by the client: here all of a delivery but its last byte."""
        async with EmbeddedBroker(listen=True) as broker:
            broker.declare_queue("q")
            connection = await connect(broker.url)
            channel = await connection.channel()
            got: list[Any] = []
            await channel.basic_consume("q", got.append)
            broker.faults.cut(after_bytes=300_000, of="sent")
            broker.publish("", "q", b"1")
            broker.publish("", "q", b"x" * 300_000)
            await connection.when_closed()
            self.assertEqual([delivery.body for delivery in got], [b"1"])
