"""amqp:// as a connection that comes back: one attempt at first, then for ever; who is told; retry()."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.amqp.recovery.world import EXACT, REFUSES, SILENT, WorldTestCase
from txmsg.abc import MessagingConnection, RecoveringMessagingConnection
from txmsg.amqp import Backoff, Delivery, UndecodableProperties
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectionClosed,
    ConnectTimeout,
    EncodeError,
    NotSent,
    PublishUnconfirmed,
    RemoteProtocolError,
)
from txmsg.transports.amqp import AMQPChannel, AMQPConnection, AMQPDelivery, AMQPTransport
from txmsg.transports.memory import MemoryTransport

A = "amqp://guest:guest@a"
B = "amqp://guest:guest@b"
#: Waits so long that nothing comes back within them.
SLOW = Backoff(initial=60, maximum=60, eager_for=0, jitter=False)


class TransportTestCase(WorldTestCase):
    """AMQPTransport in the world."""

    def setUp(self) -> None:
        """Nobody has been told anything."""
        super().setUp()
        self.told: list[tuple[str, float | None]] = []
        self._made: list[AMQPConnection] = []

    def tearDown(self) -> None:
        """Close all: nothing may be left on the clock (R28)."""
        for connection in self._made:
            connection.close()
        self.world.run(5)
        super().tearDown()

    def connecting(self, url: str = A, alternates: tuple[str, ...] = (), **options: Any) -> Deferred[AMQPConnection]:
        """A connect that is under way."""
        given = {"endpoint": self.world.endpoint, "backoff": EXACT} | options
        return AMQPTransport().connect(url, reactor=self.clock, alternates=alternates, options=given)

    def connected(self, *arguments: Any, **options: Any) -> AMQPConnection:
        """A connection that is ready."""
        connecting = self.connecting(*arguments, **options)
        self.world.run(0.2)
        connection = self.successResultOf(connecting)
        self._made.append(connection)
        connection.add_recovery_callback(self.tell)
        return connection

    def tell(self, reason: BaseException | None, delay: float | None) -> None:
        """Note it."""
        self.told.append((type(reason).__name__ if reason else "back", delay))

    def channel(self, connection: AMQPConnection) -> AMQPChannel:
        """One that is open."""
        opening = connection.channel()
        self.world.run(0.2)
        return self.successResultOf(opening)

    def done(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred fires with in a moment."""
        self.world.run(0.2)
        return self.successResultOf(deferred)

    def lose(self, host: str = "a") -> None:
        """The broker at a host goes."""
        broker: Any = self.world.hosts[host]
        self.world.hosts[host] = REFUSES
        broker.stop()
        self.world.run(0.1)


class FirstConnectTests(TransportTestCase):
    """The first connect is one attempt at one host, and leaves nothing when it fails."""

    def test_connected(self) -> None:
        """R1: it is what the contract names, and the memory transport's is not."""
        self.world.broker()
        connection = self.connected()
        self.assertIsInstance(connection, RecoveringMessagingConnection)
        self.assertTrue(connection.is_open)
        self.assertIn("AMQPConnection", repr(connection))
        plain = self.successResultOf(MemoryTransport().connect())
        self.assertNotIsInstance(plain, RecoveringMessagingConnection)
        self.assertIsInstance(plain, MessagingConnection)
        plain.close()

    def test_failures(self) -> None:
        """kombu D41: typed, after one attempt; the alternates are for later."""
        self.world.broker("b")
        self.world.hosts["s"] = SILENT
        for url, kind in (
            (A, ConnectFailed),
            ("amqp://guest:guest@s", ConnectTimeout),
            ("amqp://guest:wrong@b", AuthenticationFailed),
        ):
            with self.subTest(url=url):
                self.world.attempts.clear()
                connecting = self.connecting(url, (B,), attempt_timeout=2)
                self.world.run(3)
                self.assertIsInstance(self.failed(connecting), kind)
                self.world.run(100)
                self.assertEqual(len(self.world.attempts), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_cannot_be_used(self) -> None:
        """Before anything is sent; a wrong alternate too; never raised."""
        for url, alternates, options in (
            ("http://x", (), {}),
            (A, ("nonsense",), {}),
            (A, (), {"heartbaet": 3}),
            (A, (), {"recovery_limit": -3}),
            (A, (), {"order": "sideways"}),
        ):
            with self.subTest(url=url, alternates=alternates, options=options):
                self.assertIsInstance(self.failed(self.connecting(url, alternates, **options)), ConfigurationError)
        self.assertEqual(self.world.attempts, [])

    def test_cancelled(self) -> None:
        """The attempt is given up."""
        self.world.hosts["a"] = SILENT
        connecting = self.connecting()
        self.world.run(0.1)
        connecting.cancel()
        self.assertIsInstance(self.failed(connecting), CancelledError)
        self.world.run(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_before_it_began(self) -> None:
        """Nothing is tried at all."""
        self.world.broker()
        connecting = self.connecting()
        connecting.cancel()
        self.assertIsInstance(self.failed(connecting), CancelledError)
        self.world.run(1)
        self.assertEqual(self.world.attempts, [])


class LossTests(TransportTestCase):
    """A loss: who is told, and what comes back."""

    def test_everything_comes_back(self) -> None:
        """R1, R25, kombu D8: consumers, prefetch, declared queues, confirms; on the same channel."""
        self.world.broker()
        connection = self.connected()
        channel = self.channel(connection)
        self.done(channel.qos(1))
        queue = self.done(channel.queue_declare("jobs", durable=True)).name
        got: list[Any] = []
        tag = self.done(channel.consume(queue, got.append))
        self.done(channel.publish("", queue, b"1", {"delivery_mode": 2}))
        self.assertEqual([delivery.body for delivery in got], [b"1"])
        self.lose()
        self.assertEqual((connection.is_open, channel.is_open), (False, False))
        self.assertIsInstance(self.failed(channel.publish("", queue, b"2")), NotSent)
        self.world.run(2)
        self.world.broker()
        self.world.run(10)
        self.assertTrue(connection.is_open and channel.is_open)
        self.assertEqual(self.told[0][0], "ConnectionForced")
        self.assertEqual(self.told[-1], ("back", None))
        self.assertEqual({name for name, _ in self.told[1:-1]}, {"ConnectFailed"})
        for body in (b"3", b"4"):
            self.done(channel.publish("", queue, body))
        self.assertEqual([(each.body, each.consumer_tag) for each in got[1:]], [(b"3", tag)])
        got[1].ack()
        self.world.run(0.1)
        self.assertEqual(got[2].body, b"4")

    def test_a_publish_under_way(self) -> None:
        """R2: nobody knows what has become of it."""
        self.world.broker()
        connection = self.connected()
        channel = self.channel(connection)
        published = channel.publish("", "q", b"1")
        connection.connection.reconnect()
        self.world.run(0.1)
        self.assertIsInstance(self.failed(published), PublishUnconfirmed)

    def test_callbacks(self) -> None:
        """They are told with the wait; one that raises is logged; one that was removed is not told."""
        self.world.broker()
        connection = self.connected(backoff=SLOW)

        def broken(reason: object, delay: object) -> None:
            raise ValueError("of the application")

        connection.add_recovery_callback(broken)
        connection.remove_recovery_callback(self.tell)
        connection.remove_recovery_callback(self.tell)
        connection.add_recovery_callback(self.tell)
        self.lose()
        self.assertEqual(self.told, [("ConnectionForced", 60)])
        connection.remove_recovery_callback(self.tell)
        connection.retry().addErrback(lambda failure: None)
        self.world.run(0.1)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_a_queue_is_named_by_a_text(self) -> None:
        """EncodeError; "" is a name, and nothing else that is false."""
        self.world.broker()
        channel = self.channel(self.connected())
        names: list[Any] = [None, [], {}, 0]
        for name in names:
            for call in (channel.queue_declare, channel.get, channel.queue_purge):
                refused = call(name)
                self.world.run(0.1)
                self.assertIsInstance(self.failed(refused), EncodeError)
        self.assertTrue(self.done(channel.queue_declare("")).name)

    def test_alternates(self) -> None:
        """kombu B6: after a loss the other hosts have their turn; it says where it is."""
        self.world.broker()
        self.world.broker("b")
        connection = self.connected(A, ("amqp://guest:guest@refuses", B))
        self.assertEqual((connection.connection.where, connection.url_index), ("a:5672", 0))
        self.lose()
        self.world.run(5)
        self.assertEqual((connection.connection.where, connection.is_open), ("b:5672", True))
        self.assertEqual(connection.url_index, 2)

    def test_blocked(self) -> None:
        """R16, kombu D4: an alarm is no loss, and it is told with the broker's words."""
        broker = self.world.broker()
        told: list[str] = []
        connection = self.connected(on_blocked=told.append, on_unblocked=lambda: told.append("on"))
        broker.faults.block("memory")
        channel = self.channel(connection)
        published = channel.publish("", "q", b"1")
        self.world.run(1)
        self.assertEqual((told, connection.is_open), (["low on memory"], True))
        self.assertNoResult(published)
        broker.faults.unblock()
        self.world.run(1)
        self.successResultOf(published)
        self.assertEqual((told, self.told), (["low on memory", "on"], []))


class RetryTests(TransportTestCase):
    """retry(): an attempt now, and its outcome."""

    def test_it_is_there(self) -> None:
        """At once."""
        self.world.broker()
        self.assertIsNone(self.successResultOf(self.connected().retry()))

    def test_at_once(self) -> None:
        """The wait is cut short; an attempt that fails says why, and one that does not brings it back."""
        self.world.broker()
        connection = self.connected(backoff=SLOW)
        self.lose()
        first, second = connection.retry(), connection.retry()
        self.world.run(0.1)
        for retry in (first, second):
            self.assertIsInstance(self.failed(retry), ConnectFailed)
        self.world.broker()
        retry = connection.retry()
        self.assertNoResult(retry)
        self.world.run(0.2)
        self.assertIsNone(self.successResultOf(retry))
        self.assertTrue(connection.is_open)

    def test_a_round(self) -> None:
        """kombu B6: it fails when all its hosts have been tried."""
        self.world.broker()
        connection = self.connected(A, (B,), backoff=SLOW)
        self.lose()
        self.world.attempts.clear()
        tried: list[str] = []
        retry = connection.retry()
        retry.addErrback(lambda failure: tried.extend(host for _, host in self.world.attempts))
        self.world.run(0.1)
        self.assertEqual(tried, ["b", "a"])

    def test_cancelled(self) -> None:
        """It ends that wait only, also from a callback of another."""
        self.world.broker()
        connection = self.connected(backoff=SLOW)
        self.lose()
        first, second = connection.retry(), connection.retry()
        first.addErrback(lambda failure: second.cancel())
        self.world.run(0.1)
        self.assertIsInstance(self.failed(second), CancelledError)
        self.world.broker()
        third = connection.retry()
        third.cancel()
        self.assertIsInstance(self.failed(third), CancelledError)
        self.world.run(0.2)
        self.assertTrue(connection.is_open)

    def test_the_end(self) -> None:
        """After the end, and when it comes, it fails with the reason."""
        self.world.broker()
        connection = self.connected(backoff=SLOW)
        self.lose()
        self.world.hosts["a"] = SILENT
        retry = connection.retry()
        ended = connection.when_closed()
        self.world.run(0.1)
        connection.close()
        self.world.run(0.1)
        self.assertIsInstance(self.failed(retry), ConnectionClosed)
        self.assertIsInstance(self.failed(connection.retry()), ConnectionClosed)
        self.assertIsInstance(self.successResultOf(ended), ConnectionClosed)

    def test_giving_up(self) -> None:
        """With `max_attempts` it ends, with the last error."""
        self.world.broker()
        connection = self.connected(max_attempts=2)
        ended = connection.when_closed()
        self.lose()
        self.world.run(5)
        self.assertIsInstance(self.successResultOf(ended), ConnectFailed)
        self.assertIsInstance(self.failed(connection.retry()), ConnectFailed)


class ChannelTests(TransportTestCase):
    """What a channel of amqp:// does by itself."""

    def test_properties_that_repeat(self) -> None:
        """They are made once, from the contents and not the object; what has headers is made each time."""
        self.world.broker()
        channel = self.channel(self.connected())
        queue = self.done(channel.queue_declare("")).name
        given: dict[str, Any] = {"content_type": "text/plain"}
        for change in ({}, {"priority": 3}, {"headers": {"n": 1}}, {}):
            given.update(change)
            self.done(channel.publish("", queue, b"x", given))
        given["headers"]["n"] = 2
        self.done(channel.publish("", queue, b"x", given))
        plain, urgent, headed, again, last = (self.done(channel.get(queue)) for _ in range(5))
        self.assertEqual(plain.properties, {"content_type": "text/plain"})
        self.assertEqual(urgent.properties, {"content_type": "text/plain", "priority": 3})
        self.assertEqual((headed.properties, headed.properties["headers"]), (again.properties, {"n": 1}))
        self.assertEqual(last.properties["headers"], {"n": 2})
        got: list[Any] = []
        self.done(channel.consume(queue, got.append))
        for _ in range(5):
            self.done(channel.publish("", queue, b"x", {"content_type": "text/plain"}))
            self.assertEqual(got[-1].properties, {"content_type": "text/plain"})
            got[-1].properties["priority"] = 9
        self.assertEqual(len(got), 5)

    def test_headers_that_are_equal_only(self) -> None:
        """kombu D38: 1 and True are equal, and two things in a table."""
        self.world.broker()
        channel = self.channel(self.connected())
        queue = self.done(channel.queue_declare("")).name
        for value in (1, True):
            self.done(channel.publish("", queue, b"x", {"headers": {"n": value}}))
            self.assertIs(self.done(channel.get(queue)).properties["headers"]["n"], value)

    def test_undecodable_properties(self) -> None:
        """kombu D38: it costs this message at most: what it is, is said."""
        broken: Any = UndecodableProperties(b"\xff\xff", RemoteProtocolError("bad flags"))
        delivery = AMQPDelivery(Delivery(None, "c", 1, False, "", "q", broken, b"x"))  # type: ignore[arg-type]
        self.assertEqual((delivery.body, delivery.properties), (b"x", {}))
        self.assertIn("bad flags", str(delivery.properties_error))

    def test_consumers_that_cannot_come_back(self) -> None:
        """kombu D14: when its queue stays away for longer than `resubscribe_limit`, on_cancel is told."""
        self.world.broker()
        connection = self.connected(resubscribe_limit=0)
        channel = self.channel(connection)
        other = self.channel(self.connected())
        self.done(other.queue_declare("theirs", auto_delete=False))
        reasons: list[BaseException] = []
        self.done(channel.consume("theirs", print, on_cancel=reasons.append))
        self.done(other.queue_delete("theirs"))
        self.world.run(3)
        self.assertEqual([type(reason).__name__ for reason in reasons], ["ConsumerCancelled"])
