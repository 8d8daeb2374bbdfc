"""The broker as a whole: virtual hosts, its end, and what must survive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.faults import Fault, fault
from txmsg.broker.interfaces import NoJournal
from txmsg.broker.server import STOP_TIMEOUT, Broker
from txmsg.broker.users.credentials import Users
from txmsg.errors import ConfigurationError
from txmsg.wire.layout import Method
from txmsg.wire.methods import channel, connection, queue


class VirtualHostTests(SynchronousTestCase):
    """Virtual hosts come and go."""

    def test_add(self) -> None:
        """Each is a world of its own; "/" is there."""
        broker = make_broker()
        other = broker.add_vhost("other")
        self.assertIs(broker.add_vhost("other"), other)
        self.assertEqual(list(broker.vhosts), ["/", "other"])
        self.assertIs(other.usage, broker.usage)
        for name in ("", "x" * 256):
            with self.assertRaises(ConfigurationError):
                broker.add_vhost(name)

    def test_delete(self) -> None:
        """Its connections end with 320, its queues and permissions are gone; others notice nothing."""
        broker = make_broker()
        broker.add_vhost("other")
        broker.users.set_permissions("guest", "other")
        peer, elsewhere = Peer(broker).open(vhost="other"), Peer(broker).open()
        peer.open_channel(1)
        peer.declare("q")
        peer.publish(b"x", "q")
        self.assertTrue(broker.delete_vhost("other"))
        self.assertFalse(broker.delete_vhost("other"))
        peer.pump()
        close = peer.expect(connection.Close)
        self.assertEqual((close.reply_code, close.reply_text), (320, "CONNECTION_FORCED - vhost 'other' is deleted"))
        elsewhere.open_channel(1)
        self.assertIsNone(broker.users.permissions("guest", "other"))
        self.assertEqual(broker.usage.bytes, 0)

    def test_delete_while_somebody_logs_in(self) -> None:
        """A connection that is not open yet is not ended by it."""
        broker = make_broker()
        broker.add_vhost("other")
        peer = Peer(broker)
        peer.start()
        broker.delete_vhost("other")
        peer.log_in()
        peer.tune()
        self.assertFalse(peer.is_lost)

    def test_delete_user(self) -> None:
        """The user's connections end with 320."""
        broker = make_broker()
        broker.users.add("bob", "x")
        broker.users.set_permissions("bob", "/")
        bob, guest = Peer(broker).open(user="bob", password="x"), Peer(broker).open()
        self.assertTrue(broker.delete_user("bob"))
        self.assertFalse(broker.delete_user("bob"))
        bob.pump()
        self.assertEqual(bob.expect(connection.Close).reply_text, "CONNECTION_FORCED - user 'bob' is deleted")
        guest.open_channel(1)


class StopTests(SynchronousTestCase):
    """The end."""

    def test_stop(self) -> None:
        """All are told 320 with RabbitMQ's words; it is over when they have answered."""
        broker = make_broker()
        peers = [Peer(broker).open() for _ in range(2)]
        stopped, again = broker.stop(), broker.stop()
        self.assertNoResult(stopped)
        self.assertIsNone(Peer(broker).connection)
        for peer in peers:
            peer.pump()
            close = peer.expect(connection.Close)
            self.assertEqual(
                (close.reply_code, close.reply_text),
                (320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"),
            )
            peer.send(connection.CloseOk())
        self.assertIsNone(self.successResultOf(stopped))
        self.assertIsNone(self.successResultOf(again))
        self.assertIsNone(self.successResultOf(broker.stop()))
        self.assertEqual(broker.reactor.getDelayedCalls(), [])

    def test_client_does_not_answer(self) -> None:
        """It is not waited for longer than some seconds."""
        broker = make_broker()
        peer = Peer(broker).open()
        stopped = broker.stop()
        peer.advance(STOP_TIMEOUT)
        peer.pump()
        self.assertIsNone(self.successResultOf(stopped))

    def test_timers_of_queues(self) -> None:
        """Times to live do not keep running."""
        broker = make_broker()
        vhost = broker.vhosts["/"]
        vhost.declare_queue("q", arguments={"x-expires": 10_000})
        self.assertIsNone(self.successResultOf(broker.stop()))
        self.assertEqual(broker.reactor.getDelayedCalls(), [])

    def test_strangers(self) -> None:
        """A connection that is not open is closed without a word."""
        broker = make_broker()
        peer = Peer(broker)
        peer.start()
        stopped = broker.stop()
        peer.pump()
        self.assertEqual((peer.methods, peer.is_lost), ([], True))
        self.assertIsNone(self.successResultOf(stopped))

    def test_close_all_connections(self) -> None:
        """With a reason of the operator's; the broker goes on."""
        broker = make_broker()
        peer = Peer(broker).open()
        self.assertEqual(broker.close_all_connections("maintenance"), 1)
        peer.pump()
        self.assertEqual(peer.expect(connection.Close).reply_text, "CONNECTION_FORCED - maintenance")
        Peer(broker).open()


class MemoryStore(NoJournal):
    """A store for settings only."""

    is_durable = False

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}
        self.is_closed = False
        self.on_failure: Callable[[Any], object] | None = None
        self.on_recovery: Callable[[], object] | None = None

    def load(self, broker: Broker) -> Deferred[str]:
        return succeed("report")

    def settings(self, kind: str) -> dict[str, Mapping[str, Any]]:
        return {name: value for (its, name), value in self.kept.items() if its == kind}

    def put_setting(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        self.kept[kind, name] = dict(value)

    def delete_setting(self, kind: str, name: str) -> None:
        self.kept.pop((kind, name), None)

    def close(self) -> Deferred[None]:
        self.is_closed = True
        return succeed(None)


class StoreTests(SynchronousTestCase):
    """Settings survive; failures of the store have their consequences."""

    def make(self, store: MemoryStore) -> Broker:
        broker = make_broker(store=store)
        self.assertEqual(self.successResultOf(broker.start()), "report")
        return broker

    def test_settings(self) -> None:
        """Virtual hosts, users and permissions are there again, and no others."""
        store = MemoryStore()
        broker = self.make(store)
        broker.add_vhost("other")
        broker.add_vhost("gone")
        broker.delete_vhost("gone")
        broker.users.add("anna", "secret", ["management"])
        broker.users.set_permissions("anna", "other", "a", "b", "c")
        broker.users.set_permissions("guest", "other")
        self.assertIsNone(self.successResultOf(broker.stop()))
        self.assertTrue(store.is_closed)

        again = self.make(store)
        self.assertEqual(sorted(again.vhosts), ["/", "other"])
        self.assertEqual(again.users.names(), ["anna", "guest"])
        self.assertEqual(again.users.permissions_of("anna"), {"other": ("a", "b", "c")})
        self.assertIsNotNone(self.successResultOf(again.users.check("anna", "secret")))
        Peer(again).open(vhost="other")

    def test_broken_setting(self) -> None:
        """One that cannot be used is reported, and the rest is."""
        store = MemoryStore()
        store.kept["user", "bad"] = {"hash": "!", "algorithm": "?", "tags": []}
        store.kept["vhost", "other"] = {"name": "other"}
        self.assertIn("other", self.make(store).vhosts)

    def test_failures(self) -> None:
        """A full disk blocks publishers until it is over; another failure closes everything with 541."""
        store = MemoryStore()
        broker = self.make(store)
        peer = Peer(broker).open()
        peer.open_channel(1)
        full, broken = Exception("full"), Exception("broken")
        full.recoverable = True  # type: ignore[attr-defined]
        assert store.on_failure is not None
        assert store.on_recovery is not None
        store.on_failure(full)
        peer.publish(b"x", "q")
        self.assertEqual(peer.expect(connection.Blocked).reason, "low on disk")
        store.on_recovery()
        peer.advance(0)
        peer.expect(connection.Unblocked)
        store.on_failure(broken)
        peer.pump()
        self.assertEqual(peer.expect(connection.Close).reply_code, 541)

    def test_in_memory(self) -> None:
        """R35: a broker without a store says so when it starts."""
        broker = make_broker()
        with patch.object(broker, "_log") as log:
            self.assertIsNone(self.successResultOf(broker.start()))
        self.assertIn("in memory", log.info.call_args.args[0])
        self.assertIn("in memory", repr(broker))


class UsersTests(SynchronousTestCase):
    """Where passwords are checked."""

    def test_threads(self) -> None:
        """In a thread where the reactor has some, in place on a clock; a choice of the caller's is kept."""
        broker = Broker(reactor=Clock(), users=Users(cost=2))
        self.assertIsNotNone(self.successResultOf(broker.users.check("guest", "guest")))
        calls: list[str] = []

        def run(work: Callable[[], Any]) -> Any:
            calls.append("mine")
            return work()

        broker = Broker(reactor=Clock(), users=Users(cost=2, run=run))
        self.successResultOf(broker.users.check("guest", "wrong"))
        self.assertEqual(calls, ["mine"])


class ScriptTests(SynchronousTestCase):
    """The points at which a test may make the broker misbehave."""

    def test_every_point(self) -> None:
        """Each is asked, and what it answers is done."""
        asked: list[str] = []

        class Everything:
            def accepted(self, where: object) -> bool:
                asked.append("accepted")
                return True

            def data_received(self, where: object, data: bytes) -> bytes:
                asked.append("data_received")
                return data

            def method_received(self, where: object, number: int, method: Method) -> Fault | None:
                asked.append(f"{number} {method.NAME}")
                if isinstance(method, queue.Purge):
                    return fault(404, "no queue for you")
                return fault(541, "enough") if isinstance(method, queue.Delete) else None

            def publish_received(self, where: object, number: int, exchange: str, key: str) -> None:
                asked.append("publish_received")

            def sending(self, where: object, data: bytes) -> bytes:
                return data

            def connection_lost(self, where: object) -> None:
                asked.append("connection_lost")

        broker = make_broker()
        broker.script = Everything()
        peer = Peer(broker).open()
        peer.open_channel(1)
        peer.send(queue.Purge(queue="q"), 1)
        self.assertEqual(peer.expect(channel.Close, 1).reply_code, 404)
        peer.send(channel.CloseOk(), 1)
        peer.open_channel(1)
        peer.publish(b"x", "q")
        peer.send(connection.UpdateSecret(new_secret="x"))
        peer.expect(connection.UpdateSecretOk)
        peer.send(queue.Delete(queue="q"), 1)
        self.assertEqual(peer.expect(connection.Close).reply_code, 541)
        peer.send(connection.CloseOk())
        for point in ("accepted", "data_received", "publish_received", "connection_lost", "1 queue.purge"):
            self.assertIn(point, asked)
        self.assertIn("0 connection.update-secret", asked)

    def test_refuse_and_stall(self) -> None:
        """A refused socket, octets that are swallowed, octets that never leave."""
        broker = make_broker()

        class Script:
            accepts = True
            reads = True
            sends = True

            def accepted(self, where: object) -> bool:
                return self.accepts

            def data_received(self, where: object, data: bytes) -> bytes | None:
                return data if self.reads else None

            def method_received(self, where: object, number: int, method: Method) -> None:
                """Nothing."""

            def publish_received(self, where: object, number: int, exchange: str, key: str) -> None:
                """Nothing."""

            def sending(self, where: object, data: bytes) -> bytes | None:
                return data if self.sends else None

        script = Script()
        broker.script = script  # type: ignore[assignment]  # connection_lost is optional
        script.accepts = False
        refused = Peer(broker)
        self.assertTrue(refused.is_lost)
        self.assertEqual(broker.admission.connections, 0)
        script.accepts = True
        peer = Peer(broker).open()
        script.reads = False
        peer.send(channel.Open(), 1)
        self.assertEqual(peer.methods, [])
        script.reads, script.sends = True, False
        peer.send_raw(b"\x01\x00\x02\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce")
        self.assertEqual(peer.methods, [])
        self.assertEqual(list(peer.server.channels), [2])
