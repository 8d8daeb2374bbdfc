"""BrokerService: from its configuration to its one outcome."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.broker.server_peer import Peer
from tests.certificates import shared_authority
from txmsg.broker import service as service_module
from txmsg.broker.definitions.policies import Policy, policies_of
from txmsg.broker.exit_codes import BrokerOutcome, ExitCode
from txmsg.broker.kinds import Address
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.options import BrokerConfig
from txmsg.broker.server import Broker
from txmsg.broker.service import BrokerService
from txmsg.broker.store import StoreFailed
from txmsg.broker.users.credentials import SCRYPT_COST, Users
from txmsg.errors import ConfigurationError
from txmsg.wire.methods import connection

USERS = """
[users.orders]
password = "c4n4ry-p4ss"
tags = ["administrator"]
permissions."/".configure = ""
permissions."/".write = ".*"
permissions."/".read = ".*"
permissions.shop.configure = ""
permissions.shop.write = ""
permissions.shop.read = ".*"
"""


class Cases:
    """What both kinds of test case need."""

    def prepare(self, case: SynchronousTestCase) -> None:
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if str(event.get("log_namespace", "")).startswith("txmsg.broker"):
                self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        case.addCleanup(globalLogPublisher.removeObserver, observe)
        # The garbage collector is the whole process's: tests leave it alone.
        case.patch(service_module, "CollectorWatch", FakeWatch)
        case.patch(service_module, "Users", cheap_users)
        folder = tempfile.TemporaryDirectory()
        case.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)


class FakeWatch:
    running = 0

    def __init__(self, usage: object, clock: object) -> None:
        pass

    def start(self) -> None:
        FakeWatch.running += 1

    def stop(self) -> None:
        FakeWatch.running -= 1


def cheap_users(**options: Any) -> Users:
    assert SCRYPT_COST > 2
    return Users(cost=2, **options)


class ServiceTests(SynchronousTestCase, Cases):
    def setUp(self) -> None:
        self.prepare(self)
        self.reactor: Any = MemoryReactorClock()

    def start(self, **options: Any) -> BrokerService:
        service = BrokerService(BrokerConfig(**options), reactor=self.reactor)
        service.startService()
        self.reactor.run()
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: BrokerService) -> BrokerOutcome:
        stopping = service.stopService()
        self.reactor.advance(service.stop_limit)
        return self.successResultOf(stopping)

    def broker_of(self, service: BrokerService) -> Broker:
        assert service.broker is not None
        return service.broker

    def outcome(self, service: BrokerService) -> BrokerOutcome:
        return self.successResultOf(service.when_finished())

    # -- start

    def test_by_default(self) -> None:
        """C7.1, R35, R37: on this machine only; in memory, which it says."""
        service = self.start()
        self.assertTrue(service.is_running)
        addresses = [(port, interface) for port, _, _, interface in self.reactor.tcpServers]
        self.assertEqual(addresses, [(5672, "127.0.0.1"), (5672, "::1")])
        self.assertEqual(service.urls, ["amqp://0.0.0.0:5672", "amqp://[::1]:5672"])
        self.assertIn("in memory: everything in this broker is gone when it ends; --data-dir keeps it", self.lines)
        self.assertIn("users: guest (from this machine only)", self.lines)
        Peer(self.broker_of(service)).open().lose()
        self.assertEqual(FakeWatch.running, 1)
        self.assertIn("running", repr(service))

    def test_without_ipv6(self) -> None:
        """The second default address is only there where the machine has it."""
        self.fail_to_listen("::1", errno.EADDRNOTAVAIL)
        service = self.start()
        self.assertTrue(service.is_running)
        self.assertEqual(service.urls, ["amqp://0.0.0.0:5672"])

    def fail_to_listen(self, interface: str, number: int) -> None:
        listen = self.reactor.listenTCP

        def listenTCP(port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
            if interface == refused:
                raise CannotListenError(interface, port, OSError(number, "strerror of it"))
            return listen(port, factory, backlog, interface)

        refused = interface
        self.reactor.listenTCP = listenTCP

    def test_an_address_in_use(self) -> None:
        """One line, which says what to do; nothing listens any more."""
        for interface in ("127.0.0.1", "::1"):
            with self.subTest(interface=interface):
                self.reactor = MemoryReactorClock()
                self.fail_to_listen(interface, errno.EADDRINUSE)
                outcome = self.outcome(self.start())
                self.assertEqual(outcome.exit_code, ExitCode.LISTEN)
                expected = f"cannot listen at {Address(interface, 5672)}: strerror of it; stop what has it, or choose"
                self.assertIn(expected, outcome.line)

    def test_the_management_address_in_use(self) -> None:
        self.fail_to_listen("127.0.0.1", errno.EADDRINUSE)
        service = self.start(listen=(Address("::1", 1),), management=Address("127.0.0.1", 15672))
        self.assertEqual(self.outcome(service).exit_code, ExitCode.LISTEN)

    def test_users(self) -> None:
        """C7.2: with a users file just those; its passwords are in no log and no repr."""
        service = self.start(users=self.write("users.toml", USERS))
        broker = self.broker_of(service)
        self.assertEqual(broker.users.names(), ["orders"])
        self.assertIn("shop", broker.vhosts)
        Peer(broker).open(user="orders", password="c4n4ry-p4ss", vhost="shop").lose()
        self.assertIn("users: orders", self.lines)
        self.assertNotIn("c4n4ry", f"{self.lines} {service!r} {vars(service)}")

    def test_definitions(self) -> None:
        document = {
            "users": [{"name": "u", "tags": "", "password": "p"}],
            "permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}],
            "queues": [{"name": "q", "vhost": "/", "durable": True}],
            "parameters": [{"name": "upstream"}],
        }
        path = self.write("definitions.json", json.dumps(document))
        service = self.start(definitions=path)
        broker = self.broker_of(service)
        self.assertEqual((broker.users.names(), list(broker.vhosts["/"].queues)), (["u"], ["q"]))
        self.assertIn(f"definitions of {path}: 1 users, 1 permissions, 1 queues", self.lines)
        self.assertIn("definitions: run-time parameters are not used: upstream", self.lines)

    def test_definitions_without_users(self) -> None:
        """Then guest is there, as without them."""
        service = self.start(definitions=self.write("definitions.json", "{}"))
        self.assertEqual(self.broker_of(service).users.names(), ["guest"])

    def test_definitions_that_cannot_be(self) -> None:
        document = {"queues": [{"name": "q", "vhost": "nope"}]}
        service = self.start(definitions=self.write("definitions.json", json.dumps(document)))
        outcome = self.outcome(service)
        self.assertEqual(outcome.exit_code, ExitCode.CONFIGURATION)
        self.assertEqual(outcome.line, "queue 'q': there is no virtual host 'nope'")
        self.assertEqual(self.reactor.tcpServers, [])

    def test_a_file_that_cannot_be_read_is_found_at_once(self) -> None:
        """Before a daemon is one."""
        for options in ({"users": "/none"}, {"definitions": "/none"}, {"tls_cert": "/none"}):
            with self.subTest(options=options), self.assertRaises(ConfigurationError):
                BrokerService(BrokerConfig(**options), reactor=self.reactor)  # type: ignore[arg-type]

    def test_tls(self) -> None:
        issued = shared_authority().issue("localhost", dns=["localhost"])
        service = self.start(
            tls_listen=(Address("127.0.0.1", 5671),),
            tls_cert=str(issued.certificate_file),
            tls_key=str(issued.key_file),
            tls_ca=str(shared_authority().certificate_file),
        )
        self.assertEqual(service.urls, ["amqps://0.0.0.0:5671"])
        self.assertEqual([port for port, *_ in self.reactor.tcpServers + self.reactor.sslServers], [5671])
        assert service._tls is not None
        self.assertEqual(service._tls.verify, "required")

    def test_tls_without_client_certificates(self) -> None:
        issued = shared_authority().issue("localhost", dns=["localhost"])
        service = BrokerService(
            BrokerConfig(tls_cert=str(issued.certificate_file), tls_key=str(issued.key_file)), reactor=self.reactor
        )
        assert service._tls is not None
        self.assertEqual(service._tls.verify, "none")

    def test_beyond_this_machine_with_nobody_to_let_in(self) -> None:
        """C7.2: guest is for this machine only, so such a broker would be of no use."""
        service = self.start(listen=(Address("0.0.0.0", 5672),), allow_remote_plaintext=True)
        outcome = self.outcome(service)
        self.assertEqual(outcome.exit_code, ExitCode.CONFIGURATION)
        self.assertIn("nobody could log in", outcome.line)

    def test_limits_and_strictness(self) -> None:
        service = self.start(limits=BrokerLimits(channels=7), strict_4=True)
        broker = self.broker_of(service)
        self.assertEqual((broker.limits.channels, broker.strict_4), (7, True))

    def test_something_unexpected(self) -> None:
        self.patch(service_module, "import_definitions", lambda *arguments: 1 / 0)
        service = self.start(definitions=self.write("definitions.json", "{}"))
        outcome = self.outcome(service)
        self.assertEqual(outcome.exit_code, ExitCode.START)
        self.assertIn("ZeroDivisionError", outcome.line)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # -- stop

    def test_stop(self) -> None:
        """R30: clients are told, 320; the service ends with 0."""
        service = self.start(management=Address("127.0.0.1", 15672))
        assert service.management is not None
        self.assertIn(f"management API: {service.management.url}", self.lines)
        peer = Peer(self.broker_of(service)).open()
        stopping = service.stopService()
        peer.pump()
        close = peer.expect(connection.Close)
        self.assertEqual(close.reply_code, 320)
        self.assertNoResult(stopping)
        peer.send(connection.CloseOk())
        outcome = self.successResultOf(stopping)
        self.assertEqual((outcome.exit_code, outcome.line, outcome.unfinished), (0, "stopped", 0))
        self.assertEqual(service.management._api.http_listeners, [])
        self.assertIn("stopped: 1 connections were closed", self.lines)
        self.assertEqual(FakeWatch.running, 0)
        self.assertEqual(self.outcome(service).exit_code, 0)

    def test_stop_now(self) -> None:
        """A second signal: those who do not answer are not waited for."""
        service = self.start()
        peer = Peer(self.broker_of(service)).open()
        stopping = service.stopService()
        peer.pump()
        self.assertNoResult(stopping)
        service.stop_now()
        peer.pump()
        self.assertEqual(self.successResultOf(stopping).exit_code, 0)

    def test_stop_is_bounded(self) -> None:
        """R30: a client that never answers."""
        service = self.start()
        peer = Peer(self.broker_of(service)).open()
        stopping = service.stopService()
        self.reactor.advance(service.stop_limit)
        peer.pump()
        self.assertEqual(self.successResultOf(stopping).exit_code, 0)

    def test_stop_before_the_start(self) -> None:
        service = BrokerService(BrokerConfig(), reactor=self.reactor)
        service.startService()
        self.assertEqual(self.stop(service).exit_code, 0)
        self.reactor.run()
        self.assertEqual(self.reactor.tcpServers, [])
        self.assertIsNone(service.broker)
        service.stop_now()

    def test_stop_while_starting(self) -> None:
        """What has begun ends first; nothing listens."""
        loading: Deferred[None] = Deferred()
        self.patch(Broker, "start", lambda broker: loading)
        service = self.start()
        stopping = service.stopService()
        self.assertNoResult(stopping)
        loading.callback(None)
        self.assertEqual(self.successResultOf(stopping).exit_code, 0)
        self.assertEqual(self.reactor.tcpServers, [])

    def test_stop_that_fails(self) -> None:
        service = self.start()

        def fail(broker: Broker) -> None:
            raise ZeroDivisionError

        with_patch = self.patch(Broker, "stop", fail)
        outcome = self.successResultOf(service.stopService())
        self.assertEqual(outcome.exit_code, ExitCode.UNFINISHED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        with_patch.restore()


class DurableTests(TestCase, Cases):
    """On the real reactor, because the store works in a thread."""

    timeout = 60

    def setUp(self) -> None:
        self.prepare(self)
        self.config = BrokerConfig(listen=(Address("127.0.0.1", 0),), data_dir=str(self.folder / "data"))

    async def started(self, config: BrokerConfig | None = None) -> Any:
        """A service, once it runs or has ended."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        service = BrokerService(config or self.config)
        self.addCleanup(service.stopService)
        service.startService()
        for _ in range(1000):
            if service.is_running or service._outcome is not None:
                return service
            await deferLater(reactor, 0.01, lambda: None)
        raise AssertionError("it did not start")

    async def test_what_is_kept(self) -> None:
        """R35: queues, users, permissions, virtual hosts and policies; guest stays away once it was deleted."""
        service = await self.started()
        broker = service.broker
        broker.add_vhost("shop").declare_queue("q", durable=True)
        broker.users.add("orders", "p")
        broker.users.set_permissions("orders", "shop", "^a", "^b", "^c")
        broker.delete_user("guest")
        policies_of(broker.vhosts["shop"]).put(Policy.checked("shop", "p", "^q", {"max-length": 3}))
        outcome = await service.stopService()
        self.assertEqual(outcome.exit_code, ExitCode.OK)
        service = await self.started()
        broker = service.broker
        queue = broker.vhosts["shop"].queues["q"]
        self.assertEqual(queue.settings.max_length, 3)
        self.assertEqual(broker.users.names(), ["orders"])
        self.assertEqual(broker.users.permissions("orders", "shop").configure, "^a")
        self.assertTrue(any(line.startswith("durable: the data is in ") for line in self.lines))
        self.assertFalse(any(line.startswith("in memory") and "--data-dir" in line for line in self.lines[-6:]))

    async def test_the_users_file_decides(self) -> None:
        """Somebody who is taken out of the file is out, although the data directory has him."""
        path = self.write("users.toml", USERS + "\n[users.gone]\npassword = 'p'\n")
        config = BrokerConfig(listen=self.config.listen, data_dir=self.config.data_dir, users=path)
        service = await self.started(config)
        self.assertEqual(service.broker.users.names(), ["gone", "orders"])
        await service.stopService()
        self.write("users.toml", USERS)
        service = await self.started(config)
        self.assertEqual(service.broker.users.names(), ["orders"])

    async def test_two_brokers_in_one_directory(self) -> None:
        await self.started()
        second = await self.started()
        outcome = await second.when_finished()
        self.assertEqual(outcome.exit_code, ExitCode.DATA)

    async def test_a_directory_that_others_can_read(self) -> None:
        """C7.4."""
        (self.folder / "data").write_text("no directory")
        service = await self.started()
        outcome = await service.when_finished()
        self.assertEqual(outcome.exit_code, ExitCode.DATA)
        self.assertIn("data", outcome.line)

    async def test_a_disk_that_failed(self) -> None:
        """R35: an end that has lost something is no good end."""
        service = await self.started()
        service.broker.store.failure = StoreFailed("no space", recoverable=False)
        outcome = await service.stopService()
        self.flushLoggedErrors(StoreFailed)
        self.assertEqual(outcome.exit_code, ExitCode.DATA)
        self.assertIn("no space", outcome.line)
