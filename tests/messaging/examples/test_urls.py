"""URLs, lists of them, and what a broker wants besides."""

from __future__ import annotations

import pytest

from tests.conformance.messaging.base import MessagingCase, OverMemory, OverRabbitMQ
from txmsg.messaging import Connection
from txmsg.testing import free_ports


@pytest.mark.parametrize(
    ("url", "host", "virtual_host"),
    [
        ("amqp://", "localhost:5672", "/"),
        ("amqp://localhost", "localhost:5672", "/"),
        ("amqp://localhost//foo", "localhost:5672", "/foo"),
        ("amqp://localhost/foo", "localhost:5672", "foo"),
        ("amqp://localhost//", "localhost:5672", "/"),
        ("amqp://localhost/", "localhost:5672", ""),
        ("amqp://guest:guest@localhost:5672//?heartbeat=10", "localhost:5672", "/"),
        ("amqps://localhost//", "localhost:5671", "/"),
        ("pyamqp://broker:1234/x", "broker:1234", "x"),
    ],
)
def test_sample_urls(url: str, host: str, virtual_host: str) -> None:
    """Example 6: the URLs of the documentation."""
    connection = Connection(url)
    assert (connection.host, connection.virtual_host) == (host, virtual_host)


def test_default_connection() -> None:
    """Example 6: no URL, and all of it written out, lead to the same place."""
    explicit = Connection("amqp://guest:guest@localhost:5672//").info()
    for connection in (
        Connection(),
        Connection("amqp://"),
        Connection(hostname="localhost", userid="guest", password="guest", port=5672, virtual_host="/"),
    ):
        info = connection.info()
        assert {key: info[key] for key in ("hostname", "port", "virtual_host", "userid", "transport")} == {
            key: explicit[key] for key in ("hostname", "port", "virtual_host", "userid", "transport")
        }


class FailoverExamples(OverMemory, MessagingCase):
    """Lists of URLs."""

    async def test_lists(self) -> None:
        """Example 39: a list of URLs, and the same as one string; the first that answers is taken."""
        (nobody,) = free_ports(1)
        urls = [f"amqp://127.0.0.1:{nobody}//", self.url()]
        for given in (urls, ";".join(urls)):
            connection = Connection(given)
            self.addCleanup(connection.close)
            await connection.connect()
            self.assertTrue(connection.connected)
            self.assertEqual(connection.info()["transport"], "memory")


class BrokerExamples(OverRabbitMQ, MessagingCase):
    """What needs RabbitMQ."""

    async def test_failover_and_options(self) -> None:
        """Example 25: two URLs, transport options, a strategy."""
        (nobody,) = free_ports(1)
        connection = Connection(
            f"amqp://127.0.0.1:{nobody}//;{self.url()}",
            failover_strategy="round-robin",
            transport_options={"client_properties": {"app": "examples"}},
            connect_timeout=10,
        )
        self.addCleanup(connection.close)
        await connection.connect()
        self.assertTrue(connection.connected)

    async def test_a_client_certificate(self) -> None:
        """Example 25: TLS, with a certificate in place of a password."""
        from tests.certificates import shared_authority

        authority = shared_authority()
        client = authority.issue("examples-client")
        await self.in_thread(self.node.add_user, "examples-client")
        connection = Connection(
            f"amqps://localhost:{self.node.mtls_port}//",
            ssl={
                "ca_certs": authority.certificate_file,
                "certfile": client.certificate_file,
                "keyfile": client.key_file,
            },
            login_method="EXTERNAL",
            connect_timeout=10,
        )
        self.addCleanup(connection.close)
        await connection.connect()
        self.assertTrue(connection.connected)

    async def test_what_prefetch_means(self) -> None:
        """Example 37: RabbitMQ counts a global prefetch by channel, not by connection."""
        connection = self.connection()
        await connection.connect()
        self.assertFalse(connection.qos_semantics_matches_spec)
