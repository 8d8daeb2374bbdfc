"""The management API over HTTP: logins, limits, and what a browser must not do."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.server_peer import make_broker
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.management import site
from txmsg.broker.management.site import listen_management
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users
from txmsg.errors import ConfigurationError

GUEST = "guest:guest"


class Transport(StringTransport):
    """The server's end of a connection."""

    def __init__(self, host: str) -> None:
        super().__init__(
            peerAddress=IPv4Address("TCP", host, 40000), hostAddress=IPv4Address("TCP", "127.0.0.1", 15672)
        )
        self.is_aborted = False

    def abortConnection(self) -> None:
        self.is_aborted = True
        self.disconnecting = True


class SiteTestCase(SynchronousTestCase):
    allow_remote_plaintext = False
    host = "127.0.0.1"

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.broker: Broker = make_broker(self.reactor)
        self.listener = listen_management(
            self.broker, self.host, 15672, allow_remote_plaintext=self.allow_remote_plaintext
        )
        self.factory: Any = self.reactor.tcpServers[0][1]
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)
        self.open: list[Any] = []
        self.addCleanup(self.close_all)

    def close_all(self) -> None:
        for protocol in self.open:
            protocol.connectionLost(Failure(ConnectionDone()))

    def connect(self, host: str = "127.0.0.1") -> tuple[Any, Transport]:
        transport = Transport(host)
        protocol: Any = self.factory.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        self.open.append(protocol)
        return protocol, transport

    def request(
        self,
        method: str = "GET",
        path: str = "/api/whoami",
        *,
        login: str | None = GUEST,
        body: bytes = b"",
        peer: str = "127.0.0.1",
        **headers: str,
    ) -> bytes:
        """Everything that comes back on a new connection, at once."""
        protocol, transport = self.connect(peer)
        protocol.dataReceived(self.head(method, path, login=login, length=len(body), **headers) + body)
        answer: bytes = transport.value()
        return answer

    def head(self, method: str, path: str, *, login: str | None, length: int | None, **headers: str) -> bytes:
        lines = {"Host": "127.0.0.1:15672", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if login is not None:
            lines["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        if length:
            lines["Content-Length"] = str(length)
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode()

    def split(self, answer: bytes) -> tuple[int, dict[str, str], bytes]:
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, body


class RequestTests(SiteTestCase):
    def test_an_answer(self) -> None:
        status, headers, body = self.split(self.request())
        self.assertEqual((status, json.loads(body)), (200, {"name": "guest", "tags": ["administrator"]}))
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Content-Length"], str(len(body)))
        self.assertEqual(headers["Cache-Control"], "no-cache")
        # Nothing says that a page of another origin may read it.
        self.assertFalse([name for name in headers if name.lower().startswith("access-control")])

    def test_names_with_slashes(self) -> None:
        """RabbitMQ's default virtual host is %2F in paths; a slash at the end means nothing."""
        for path in ("/api/exchanges/%2F", "/api/exchanges/%2f/", "/api/exchanges/%2F?columns=name"):
            with self.subTest(path=path):
                self.assertEqual(self.split(self.request(path=path))[0], 200)

    def test_a_change(self) -> None:
        answer = self.request("PUT", "/api/queues/%2F/a%20b%2Fc", body=b'{"durable": true}')
        self.assertEqual(self.split(answer)[0], 201)
        self.assertEqual(list(self.broker.vhosts["/"].queues), ["a b/c"])
        status, headers, body = self.split(self.request("DELETE", "/api/queues/%2F/a%20b%2Fc"))
        self.assertEqual((status, body), (204, b""))
        self.assertNotIn("Content-Type", headers)

    def test_head(self) -> None:
        status, headers, body = self.split(self.request("HEAD"))
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["Content-Length"]), 10)

    def test_two_requests_on_one_connection(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(self.head("GET", "/api/whoami", login=GUEST, length=None) * 2)
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 2)

    def test_a_reason_in_a_header(self) -> None:
        self.assertEqual(self.split(self.request("DELETE", "/api/connections/nope", X_Reason="because"))[0], 404)

    def test_other_paths(self) -> None:
        for path in ("/", "/api", "/api/", "/nope", "/api/nope", "/whoami", "/api/%ff"):
            with self.subTest(path=path):
                self.assertEqual(self.split(self.request(path=path))[0], 404)
        self.assertEqual(self.split(self.request("PATCH", "/api/queues"))[0], 405)

    def test_a_failure_of_ours(self) -> None:
        """The answer says no more than that."""
        self.patch(type(self.broker.users), "all_permissions", lambda self: 1 / 0)
        status, _, body = self.split(self.request(path="/api/permissions"))
        self.assertEqual((status, json.loads(body)["reason"]), (500, "see the broker's log"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_somebody_who_does_not_wait(self) -> None:
        """A client that goes while its password is checked: nothing is answered, nothing is logged."""
        protocol, transport = self.connect()
        protocol.dataReceived(self.head("GET", "/api/whoami", login="guest:wrong", length=None))
        self.open.remove(protocol)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(60)
        self.assertEqual(transport.value(), b"")


class LoginTests(SiteTestCase):
    def test_without_a_password(self) -> None:
        """Not even whether a path exists is said."""
        for path in ("/api/whoami", "/api/nope", "/"):
            status, headers, body = self.split(self.request(path=path, login=None))
            self.assertEqual((status, body), (401, b""))
            self.assertEqual(headers["WWW-Authenticate"], 'Basic realm="txmsg management"')

    def test_a_wrong_password_takes_time(self) -> None:
        """C7.2: as at the AMQP port, later each time, for the same address."""
        waits = []
        for _ in range(3):
            protocol, transport = self.connect()
            protocol.dataReceived(self.head("GET", "/api/whoami", login="guest:wrong", length=None))
            waited = 0.0
            while not transport.value():
                self.reactor.advance(0.5)
                waited += 0.5
                self.assertLess(waited, 60)
            status, _, body = self.split(transport.value())
            self.assertEqual((status, json.loads(body)), (401, {"error": "not_authorized", "reason": "Login failed"}))
            waits.append(waited)
        self.assertEqual(waits, [1.0, 2.0, 4.0])

    def test_strange_logins(self) -> None:
        for header in (
            "Basic",
            "Basic !!!",
            "Basic Z3Vlc3Q=",
            "Bearer x",
            "Digest username=guest",
            "Basic " + "A" * 4000,
        ):
            with self.subTest(header=header[:20]):
                status, _, _ = self.split(self.request(login=None, Authorization=header))
                self.assertEqual(status, 401)

    def test_guest_is_for_this_machine(self) -> None:
        """C7.1: the peer's address decides."""
        protocol, transport = self.connect("192.0.2.1")
        protocol.dataReceived(self.head("GET", "/api/whoami", login=GUEST, length=None))
        self.reactor.advance(1)
        self.assertEqual(self.split(transport.value())[0], 401)

    def test_who_has_no_tag(self) -> None:
        self.broker.users.add("plain", "secret")
        status, _, body = self.split(self.request(login="plain:secret"))
        self.assertEqual((status, json.loads(body)["reason"]), (401, "Not management user"))

    def test_a_password_with_a_colon(self) -> None:
        self.broker.users.add("me", "a:b", ["management"])
        self.assertEqual(self.split(self.request(login="me:a:b"))[0], 200)


class HostTests(SiteTestCase):
    def test_another_name(self) -> None:
        """DNS rebinding: a page from evil.example whose name suddenly means 127.0.0.1 gets nothing."""
        for name in ("evil.example", "evil.example:15672", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            with self.subTest(name=name):
                status, _, body = self.split(self.request(Host=name))
                self.assertEqual((status, json.loads(body)["error"]), (421, "misdirected_request"))

    def test_names_of_this_machine(self) -> None:
        for name in ("localhost", "LOCALHOST:15672", "127.0.0.1", "[::1]:15672", "app.localhost", "localhost."):
            with self.subTest(name=name):
                self.assertEqual(self.split(self.request(Host=name))[0], 200)


class RemoteTests(SiteTestCase):
    allow_remote_plaintext = True
    host = "0.0.0.0"

    def test_any_name(self) -> None:
        """On other addresses the broker cannot know its names."""
        self.assertEqual(self.split(self.request(Host="broker.example"))[0], 200)


class LimitTests(SiteTestCase):
    """R36: what strangers can make it hold."""

    def test_a_long_body(self) -> None:
        """Refused by its length, before it is read."""
        limit = site.BODY_LIMIT
        for path, length, refused in (
            ("/api/queues/%2F/q", limit + 1, True),
            ("/api/queues/%2F/q", limit, False),
            ("/api/definitions", limit + 1, False),
            ("/api/definitions", site.LARGE_BODY_LIMIT + 1, True),
            ("/api/exchanges/%2F/amq.default/publish", limit + 1, False),
            ("/api/queues/%2F/q?x=/publish", limit + 1, True),
        ):
            with self.subTest(path=path, length=length):
                protocol, transport = self.connect()
                protocol.dataReceived(self.head("POST", path, login=GUEST, length=length))
                self.assertEqual(transport.value().startswith(b"HTTP/1.1 413"), refused)
                self.assertEqual(transport.disconnecting, refused)
                protocol.dataReceived(b"x" * 100)
                self.assertEqual(transport.value().count(b"HTTP/1.1"), int(refused))

    def test_a_long_body_in_chunks(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(
            self.head("PUT", "/api/queues/%2F/q", login=GUEST, length=None, Transfer_Encoding="chunked")
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(16):
            protocol.dataReceived(chunk)
        self.assertEqual(transport.value(), b"")
        protocol.dataReceived(chunk)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 413"))
        protocol.dataReceived(b"0\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
        self.assertEqual(self.broker.vhosts["/"].queues, {})

    def test_a_short_body_in_chunks(self) -> None:
        protocol, transport = self.connect()
        head = self.head("PUT", "/api/queues/%2F/q", login=GUEST, length=None, Transfer_Encoding="chunked")
        protocol.dataReceived(head + b"2\r\n{}\r\n0\r\n\r\n")
        self.assertEqual(self.split(transport.value())[0], 201)

    def test_a_long_body_of_a_stranger(self) -> None:
        """Nothing is read beyond what came with the head, until the login was right; a wrong one ends it, late."""
        for login in (None, "guest:wrong"):
            for length, headers in ((site.LARGE_BODY_LIMIT, {}), (None, {"Transfer_Encoding": "chunked"})):
                with self.subTest(login=login, length=length):
                    protocol, transport = self.connect()
                    head = self.head("POST", "/api/definitions", login=login, length=length, **headers)
                    protocol.dataReceived(head)
                    if login is not None:
                        self.assertEqual((transport.producerState, transport.value()), ("paused", b""))
                        self.reactor.advance(30)
                    self.assertEqual(self.split(transport.value())[0], 401)
                    self.assertTrue(transport.disconnecting)
                    protocol.dataReceived(b"5\r\n12345\r\n0\r\n\r\n")
                    self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
                    self.open.pop().connectionLost(Failure(ConnectionDone()))

    def test_a_long_body_of_a_stranger_who_has_gone(self) -> None:
        """Nothing is left of it."""
        protocol, transport = self.connect()
        protocol.dataReceived(self.head("POST", "/api/definitions", login="guest:wrong", length=1 << 20))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.open.remove(protocol)
        self.reactor.advance(30)
        self.assertEqual(transport.value(), b"")

    def test_a_long_body_that_is_read(self) -> None:
        """The login is asked for once, and the rest is read when it was right; so with what comes in one piece."""
        document = json.dumps({"payload": "x" * 100_000, "payload_encoding": "string", "properties": {}})
        document = document[:-1] + ', "routing_key": "q"}'
        self.broker.vhosts["/"].declare_queue("q")
        logins: list[str] = []
        check = self.broker.users.check

        def counted(name: str, password: Any, host: str) -> Any:
            logins.append(name)
            return check(name, password, host)

        self.patch(self.broker.users, "check", counted)
        path = "/api/exchanges/%2F/amq.default/publish"
        protocol, transport = self.connect()
        protocol.dataReceived(self.head("POST", path, login=GUEST, length=len(document)))
        self.assertEqual(transport.producerState, "producing")
        protocol.dataReceived(document.encode())
        self.assertEqual(self.split(transport.value())[0], 200)
        self.assertEqual(self.split(self.request("POST", path, body=document.encode()))[0], 200)
        self.assertEqual((len(logins), self.broker.vhosts["/"].queue("q").message_count), (2, 2))

    def test_connections(self) -> None:
        for _ in range(site.MOST_CONNECTIONS):
            self.connect()
        self.assertIsNone(self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        self.open.pop().connectionLost(Failure(ConnectionDone()))
        self.connect()

    def test_an_idle_connection(self) -> None:
        _, transport = self.connect()
        self.reactor.advance(site.IDLE_TIMEOUT + 1)
        self.assertTrue(transport.disconnecting)

    def test_no_http(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(b"AMQP\x00\x00\x09\x01" + b"\x00" * 100_000)
        self.assertTrue(transport.disconnecting)


class ListenerTests(SynchronousTestCase):
    def test_other_machines(self) -> None:
        """C7.1: passwords would cross the network."""
        broker = make_broker(MemoryReactorClock())
        with self.assertRaises(ConfigurationError):
            listen_management(broker, "0.0.0.0")
        self.assertEqual(broker.reactor.tcpServers, [])

    def test_what_it_says_of_itself(self) -> None:
        reactor: Any = MemoryReactorClock()
        broker = Broker(reactor=reactor, limits=BrokerLimits(), users=Users(cost=2))
        listener = listen_management(broker, "127.0.0.1", 15672)
        self.assertRegex(listener.url, r"^http://[\w.:\[\]]+:\d+/api/$")
        self.assertIn(listener.url, repr(listener))
        self.assertEqual(reactor.tcpServers[0][3], "127.0.0.1")

    def test_stop(self) -> None:
        reactor: Any = MemoryReactorClock()
        listener = listen_management(make_broker(reactor), "127.0.0.1", 15672)
        factory = reactor.tcpServers[0][1]
        transport = Transport("127.0.0.1")
        factory.buildProtocol(transport.getPeer()).makeConnection(transport)
        self.successResultOf(listener.stop())
        self.successResultOf(listener.stop())
        self.assertTrue(transport.is_aborted)
