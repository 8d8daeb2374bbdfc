"""Bad input, row by row: twistd in a child process, its exit code, and one line that says what to fix."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from tests.certificates import Authority, shared_authority
from tests.service.children import Child, ChildTestCase
from txmsg.testing.ports import free_ports

CANARY = "c4n4ry-p4ss"


class Row(NamedTuple):
    child: Child
    code: int
    expected: str


class BadInputTests(ChildTestCase):
    """Issue, "Bad input", R33: one typed error, one clear line, the documented exit code; no secret in it."""

    def setUp(self) -> None:
        super().setUp()
        self.rows: list[Row] = []

    def row(
        self, code: int, expected: str, *arguments: str, handler: str = "handlers:plain", **environment: Any
    ) -> None:
        """Start one; two at a time run, as this may be a small machine."""
        for running in self.rows[:-1]:
            with contextlib.suppress(AssertionError):
                running.child.wait()
        needed = [] if "--queue" in arguments else ["--queue", self.queue]
        # One attempt: there is nothing to wait for.
        needed += ["--start-limit", "0", "--handler", handler]
        child = self.twistd(*needed, *arguments, **environment)
        self.rows.append(Row(child, code, expected))

    def check(self) -> None:
        """Look at how they have ended."""
        for child, code, expected in self.rows:
            self.assertEqual(child.wait(30), code, f"{child.process.args!r}\n{child.output}\n{child.errors}")
            told = f"{child.output}\n{child.errors}"
            (line,) = child.errors
            self.assertTrue(line.startswith("txmsg-consumer: "), told)
            self.assertTrue(line.endswith(f" (exit code {code})"), told)
            self.assertIn(expected, line)
            self.assertNotIn(CANARY, told)
            self.assertNotIn("Traceback", told)
            self.assertNotIn("Unhandled", told)

    def url(self, port: int, user: str = "", host: str = "127.0.0.1", scheme: str = "amqp", path: str = "") -> str:
        at = f"{user}:{CANARY}@" if user else ""
        return f"{scheme}://{at}{host}:{port}{path}"

    def test_what_is_wrong_before_connecting(self) -> None:
        """64 and 78, found before twistd would fork: no log has been opened yet."""
        self.row(64, "unknown option --hander; did you mean 'handler'?", "--hander", "x")
        self.row(64, "--password would be seen", "--password", CANARY)
        self.row(78, "there is an @ behind the host", TXMSG_URL=f"amqp://u:{CANARY}/x@h/")
        self.row(78, "there is no module 'handlrs'", handler="handlrs:plain")
        self.row(78, "did you mean 'plain'?", handler="handlers:plan")
        self.row(78, "/none/ca.pem", "--tls-ca", "/none/ca.pem", TXMSG_URL="amqps://localhost")
        self.check()
        for row in self.rows:
            self.assertEqual(row.child.output, "")

    def test_a_daemon_is_told_before_it_is_one(self) -> None:
        child = self.twistd("--queue", "q", "--handler", "handlers:plan", daemon=True)
        self.assertEqual(child.wait(), 78)
        self.assertEqual(len(child.errors), 1)
        self.assertFalse((child.directory / "twistd.pid").exists())

    def test_what_is_wrong_with_the_address(self) -> None:
        """Unknown host, refused port, TLS on the plain port and the reverse, certificates."""
        (closed,) = free_ports(1)
        authority = shared_authority()
        ca = ["--tls-ca", str(authority.certificate_file)]
        other = Authority("somebody else's authority")
        stranger = other.issue("stranger", dns=["stranger"])
        secure = self.url(self.node.tls_port, host="localhost", scheme="amqps")
        mutual = self.url(self.node.mtls_port, "guest", host="localhost", scheme="amqps")
        self.row(
            14,
            "host",
            "--allow-plaintext-auth",
            TXMSG_URL=self.url(self.node.port, "guest", host="no-such-host.invalid"),
        )
        self.row(14, "check the host and port in the URL", TXMSG_URL=self.url(closed, "guest"))
        self.row(14, "amqps://", TXMSG_URL=self.url(self.node.tls_port, "guest"))
        self.row(
            16, "check that the port speaks TLS", *ca, TXMSG_URL=self.url(self.node.port, "u", "localhost", "amqps")
        )
        self.row(16, "--tls-ca", TXMSG_URL=secure)
        self.row(16, "--tls-ca", "--tls-ca", str(other.certificate_file), TXMSG_URL=secure)
        self.row(16, "--tls-cert", *ca, TXMSG_URL=mutual)
        self.row(
            16,
            "--tls-cert",
            *(*ca, "--tls-cert", str(stranger.certificate_file), "--tls-key", str(stranger.key_file)),
            TXMSG_URL=mutual,
        )
        self.check()

    def test_what_the_broker_refuses(self) -> None:
        """Wrong password, wrong vhost, missing permission, missing queue and exchange, mismatch, locked queue."""
        self.node.add_user("nobody", CANARY, permissions=("", "", ""))
        self.node.add_user("stranger", CANARY, virtual_host=None)
        self.addCleanup(self.node.delete_user, "nobody")
        self.addCleanup(self.node.delete_user, "stranger")
        self.declare()
        locked = self.name("locked")
        nobody = self.url(self.node.port, "nobody")
        with self.pika() as channel:
            channel.queue_declare(locked, exclusive=True)
            self.row(17, "check the user name and password", TXMSG_URL=self.url(self.node.port, "guest"))
            self.row(15, "check the virtual host", TXMSG_URL=f"{self.node.url_for(virtual_host='none')}")
            self.row(15, "check the virtual host", TXMSG_URL=self.url(self.node.port, "stranger"))
            self.row(15, "rabbitmqctl set_permissions", "--declare", "--queue", "new", TXMSG_URL=nobody)
            self.row(15, "rabbitmqctl set_permissions", TXMSG_URL=nobody)
            self.row(10, "let the service do it with --declare", "--queue", "missing")
            self.row(10, "leave out --declare", "--declare", "--no-durable")
            self.row(10, "leave out --declare", "--declare", "--queue-argument", "x-max-length=5")
            self.row(10, "create the exchange named in --bind first", "--bind", "missing:key")
            self.row(10, "another connection has the queue", "--queue", locked)
            self.check()

    def test_an_exclusive_consumer_is_in_the_way(self) -> None:
        self.declare()
        with self.pika() as channel:
            channel.basic_consume(self.queue, lambda *a: None, exclusive=True)
            self.row(15, "another consumer has the queue for itself")
            self.check()
