"""Where the broker listens, and where it refuses to (C7.1, C7.2, R37); on real sockets."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import unittest
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.error import CannotListenError

from tests.cases import ReactorTestCase
from txmsg.amqp import connect
from txmsg.broker.addresses import LOCAL, host_of, is_loopback, port_of
from txmsg.broker.listeners import check_address, write_password
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users
from txmsg.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent.parent


class AddressTests(unittest.TestCase):
    """What is of this machine."""

    def test_loopback(self) -> None:
        """By the address itself."""
        for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost", LOCAL, "::ffff:127.0.0.1", "::1%lo"):
            self.assertTrue(is_loopback(host), host)
        for host in ("10.0.0.1", "0.0.0.0", "::", "", "localhost.evil.example", "::ffff:10.0.0.1", "fe80::1%lo"):
            self.assertFalse(is_loopback(host), host)

    def test_no_address(self) -> None:
        """A transport without an IP address is in this process, or behind a unix socket."""
        self.assertEqual((host_of(None), port_of(None)), (LOCAL, 0))


class CheckTests(unittest.TestCase):
    """The rules, without a socket."""

    def setUp(self) -> None:
        self.users = Users(cost=2)
        self.broker = Broker(reactor=reactor, users=self.users)

    def refused(self, host: str, allow: bool = False) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            check_address(self.broker, host, None, allow)
        return str(caught.exception)

    def test_loopback(self) -> None:
        """127.0.0.1 and ::1 need nothing."""
        for host, bound in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1"), ("localhost", "127.0.0.1")):
            self.assertEqual(check_address(self.broker, host, None, False), bound)

    def test_remote(self) -> None:
        """R37: another address needs TLS or the flag, and a user who may come from there."""
        for host in ("0.0.0.0", "::", "10.1.2.3"):
            self.assertIn("without TLS", self.refused(host))
            self.assertIn("nobody could log in", self.refused(host, allow=True))
        self.users.add("anna", "secret")
        self.assertIn("without TLS", self.refused("0.0.0.0"))
        self.assertEqual(check_address(self.broker, "0.0.0.0", None, True), "0.0.0.0")

    def test_no_address(self) -> None:
        """Names are not looked up."""
        for host in ("", "broker.example", "1.2.3", "127.0.0.1\n"):
            self.assertIn("IP address", self.refused(host))


class PasswordFileTests(ReactorTestCase):
    """C7.2: a random password is in a file that only its owner reads."""

    def test_file(self) -> None:
        """0600 from the beginning, and never over something that is there."""
        path = self.mktemp()
        write_password(path, "secret")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "secret\n")
        with self.assertRaises(ConfigurationError) as caught:
            write_password(path, "another")
        self.assertNotIn("another", str(caught.exception))
        os.symlink("/nonexistent/target", path + ".link")
        with self.assertRaises(ConfigurationError):
            write_password(path + ".link", "another")


class ListenerTests(ReactorTestCase):
    """Real sockets."""

    async def test_listen(self) -> None:
        """Any free port; a client gets in; the listener stops twice; what is connected stays."""
        broker = Broker(reactor=reactor, users=Users(cost=2))
        listener = await broker.listen(port=0)
        self.assertEqual((listener.host, listener.is_tls), ("127.0.0.1", False))
        self.assertIn(listener.url, repr(listener))
        client = await connect(f"{listener.url}/%2f")
        await listener.stop()
        await listener.stop()
        self.assertEqual(broker.listeners, set())
        self.assertTrue(client.is_open)
        await client.close()
        await broker.stop()

    async def test_ipv6(self) -> None:
        """::1 is this machine too."""
        if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
            self.skipTest("no IPv6 here")
        broker = Broker(reactor=reactor, users=Users(cost=2))
        listener = await broker.listen("::1", 0)
        client = await connect(f"{listener.url}/%2f")
        (connection,) = broker.connections
        self.assertEqual(connection.peer_host, "::1")
        await client.close()
        await broker.stop()

    async def test_port_taken(self) -> None:
        """Twisted's own error, which names the port."""
        broker = Broker(reactor=reactor, users=Users(cost=2))
        listener = await broker.listen(port=0)
        with self.assertRaises(CannotListenError):
            await broker.listen(port=listener.port)
        await broker.stop()

    async def test_unix_socket(self) -> None:
        """The factory serves other ports too; the peer of a unix socket is of this machine."""
        from twisted.internet.endpoints import UNIXClientEndpoint

        broker = Broker(reactor=reactor, users=Users(cost=2))
        path = self.mktemp()
        port = reactor.listenUNIX(path, broker.factory)  # type: ignore[attr-defined]
        client = await connect("amqp://localhost", endpoint=UNIXClientEndpoint(reactor, path))
        (connection,) = broker.connections
        self.assertEqual(connection.peer_host, LOCAL)
        await client.close()
        await port.stopListening()
        await broker.stop()


_OUT_OF_FILES = """
import resource, socket, sys
from twisted.internet import reactor, task
from twisted.internet.defer import ensureDeferred
from txmsg.amqp import connect
from txmsg.broker.users.credentials import Users
from txmsg.broker.server import Broker

async def main():
    broker = Broker(reactor=reactor, users=Users(cost=2))
    listener = await broker.listen(port=0)
    used = 0
    sockets = [socket.socket() for _ in range(30)]
    for each in sockets:
        each.setblocking(False)
    highest = max(each.fileno() for each in sockets)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 6, highest + 6))
    for each in sockets:
        each.connect_ex(("127.0.0.1", listener.port))
    for _ in range(10):
        await task.deferLater(reactor, 0.05, lambda: None)
    print("accepted", len(broker.connections))
    for each in sockets:
        each.close()
    for _ in range(10):
        await task.deferLater(reactor, 0.05, lambda: None)
    client = await connect(f"amqp://127.0.0.1:{listener.port}")
    print("connected")
    await client.close()
    await broker.stop()

task.react(lambda reactor: ensureDeferred(main()))
"""


class OutOfFilesTests(unittest.TestCase):
    """A broker that runs out of file descriptors."""

    def test_listener_lives(self) -> None:
        """R36: clients beyond the limit are closed, and the listener accepts again when there is room (EMFILE)."""
        done = subprocess.run(
            [sys.executable, "-c", _OUT_OF_FILES],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.split("\n")
        self.assertLess(int(lines[0].removeprefix("accepted ")), 20)
        self.assertEqual(lines[1], "connected")
