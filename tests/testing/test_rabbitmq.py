"""txmsg.testing.rabbitmq: the private node, watched through pika."""

from __future__ import annotations

import gc
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from pathlib import Path
from unittest import mock

import pika

from tests.cases import RabbitMQTestCase
from tests.certificates import shared_authority
from tests.rabbitmq import why_no_rabbitmq
from tests.source import ROOT
from txmsg.testing.rabbitmq import (
    NodeFailed,
    RabbitMQMissing,
    RabbitMQNode,
    _thread_states,
    find_rabbitmq_server,
)


def open_connection(url: str) -> pika.BlockingConnection:
    """A connection of another client."""
    return pika.BlockingConnection(pika.URLParameters(url))


def collect_sockets() -> None:
    """Let go of the sockets that pika does not close when a connection fails: they are not ours to answer for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class SharedNodeTests(RabbitMQTestCase):
    """What an administrator's methods do, on the node that all tests share."""

    def setUp(self) -> None:
        """Clean up after pika at the end."""
        super().setUp()
        self.addCleanup(collect_sockets)

    def test_ports(self) -> None:
        """The node answers on ports below 32768 and shows its state, not its secrets, in repr."""
        for port in (self.node.port, self.node.tls_port, self.node.mtls_port):
            self.assertLess(port, 32768)
        self.assertIn(f"running on port {self.node.port}", repr(self.node))

    def test_queue_depth(self) -> None:
        """Ready and unacknowledged messages are counted; an unknown queue is a KeyError."""
        connection = open_connection(self.node.url)
        channel = connection.channel()
        queue = self.name("queue")
        channel.queue_declare(queue, exclusive=True)
        for _ in range(3):
            channel.basic_publish("", queue, b"body")
        channel.basic_get(queue)
        self.assertEqual(self.node.queue_depth(queue), 3)
        connection.close()
        with self.assertRaises(KeyError):
            self.node.queue_depth(queue)

    def test_users_and_virtual_hosts(self) -> None:
        """A user may do what they were permitted, where they were permitted it."""
        user, virtual_host = self.name("user"), self.name("vhost")
        self.node.add_vhost(virtual_host, user=None)
        self.addCleanup(self.node.delete_vhost, virtual_host)
        self.node.add_user(user, "secret", virtual_host=virtual_host, permissions=("", "", ".*"))
        self.addCleanup(self.node.delete_user, user)
        url = self.node.url_for(user=user, password="secret", virtual_host=virtual_host)
        connection = open_connection(url)
        with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker, "ACCESS_REFUSED"):
            connection.channel().queue_declare("not permitted")
        connection.close()
        with self.assertRaises(pika.exceptions.AMQPConnectionError):
            open_connection(self.node.url_for(user=user, password="secret"))

    def test_certificate_user(self) -> None:
        """EXTERNAL on the port that requires a client certificate; without one the port refuses."""
        authority = shared_authority()
        user = self.name("user")
        self.node.add_user(user)
        self.addCleanup(self.node.delete_user, user)
        context = ssl.create_default_context(cafile=str(authority.certificate_file))
        without_certificate = ssl.create_default_context(cafile=str(authority.certificate_file))
        client = authority.issue(user)
        context.load_cert_chain(client.certificate_file, client.key_file)
        external = pika.credentials.ExternalCredentials()
        for port in (self.node.tls_port, self.node.mtls_port):
            pika.BlockingConnection(
                pika.ConnectionParameters(
                    "localhost", port, credentials=external, ssl_options=pika.SSLOptions(context, "localhost")
                )
            ).close()
        options = pika.SSLOptions(without_certificate, "localhost")
        pika.BlockingConnection(pika.ConnectionParameters("localhost", self.node.tls_port, ssl_options=options)).close()
        with self.assertRaises(pika.exceptions.AMQPConnectionError):
            pika.BlockingConnection(pika.ConnectionParameters("localhost", self.node.mtls_port, ssl_options=options))

    def test_alarm(self) -> None:
        """A publisher is blocked for as long as the alarm is held."""
        connection = open_connection(self.node.url)
        told: list[str] = []
        connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
        with self.node.alarm():
            connection.channel().basic_publish("", "nowhere", b"")
            connection.process_data_events(0.5)
            self.assertEqual(told, ["blocked"])
        connection.process_data_events(0.5)
        self.assertEqual(told, ["blocked", "unblocked"])
        connection.close()

    def test_close_all_connections(self) -> None:
        """The broker closes them with the reason given."""
        connection = open_connection(self.node.url)
        self.node.close_all_connections("the reason")
        with self.assertRaisesRegex(pika.exceptions.ConnectionClosedByBroker, "the reason"):
            connection.process_data_events(5)

    def test_failing_command(self) -> None:
        """A failing rabbitmqctl says what it said; one that takes too long is given up."""
        with self.assertRaisesRegex(NodeFailed, r"(?s)rabbitmqctl delete_user: exit \d+: .*no-such-user"):
            self.node.delete_user("no-such-user")
        with self.assertRaisesRegex(NodeFailed, "took more than"):
            self.node.rabbitmqctl("eval", "timer:sleep(5000).", timeout=0.2)

    def test_eval(self) -> None:
        """The value of an Erlang expression."""
        self.assertEqual(self.node.eval("1 + 1"), "2")


class LifeTests(unittest.TestCase):
    """Starting, stopping and ending; these start nodes of their own."""

    def setUp(self) -> None:
        """Skip without RabbitMQ."""
        if why_no_rabbitmq():
            self.skipTest(why_no_rabbitmq())
        self.addCleanup(collect_sockets)

    def test_stop_kill_pause(self) -> None:
        """What is durable is there after stop and start, on the same port; close removes everything."""
        with RabbitMQNode(settings={"log.file.level": "warning"}) as node:
            directory, port = node.directory, node.port
            connection = open_connection(node.url)
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("durable", durable=True)
            channel.basic_publish("", "durable", b"kept", pika.BasicProperties(delivery_mode=2))
            node.pause()
            self.assertTrue(node.is_running)
            self.assertEqual(set(_thread_states(int((directory / "pid").read_text()))), {"T"})
            node.resume()
            node.stop()
            node.stop()
            self.assertFalse(node.is_running)
            self.assertIn("not running", repr(node))
            node.start()
            node.start()
            self.assertEqual(node.port, port)
            self.assertEqual(node.queue_depth("durable"), 1)
            node.kill()
            self.assertFalse(node.is_running)
            self.assertNotEqual(node.log(), "")
        self.assertFalse(directory.exists())
        node.close()

    def test_ends_with_its_process(self) -> None:
        """A node whose starter is killed with SIGKILL is gone within seconds, its port mapper included."""
        program = (
            "import time; from txmsg.testing import RabbitMQNode; n = RabbitMQNode(); n.start();"
            "print(n._leader.pid, n.directory, flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
            assert starter.stdout is not None
            leader, directory = starter.stdout.readline().split()
            group = int(leader)
            os.killpg(group, 0)
            starter.send_signal(signal.SIGKILL)
            starter.wait()
        deadline = time.monotonic() + 10
        while self._exists(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(self._exists(group))
        # Only the files of a starter that was killed are left to the system's cleaning of /tmp.
        self.assertTrue(Path(directory).name.startswith("txmsg-rabbitmq-"))
        subprocess.run(["/bin/rm", "-rf", directory], check=True)

    def _exists(self, group: int) -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True

    def test_node_that_does_not_start(self) -> None:
        """A wrong setting gives NodeFailed with what the node said; nothing is left."""
        node = RabbitMQNode(settings={"no.such.setting": "1"})
        with self.assertRaisesRegex(NodeFailed, "ended while starting"):
            node.start()
        self.assertFalse(node.is_running)
        self.assertFalse(node.directory.exists())

    def test_node_that_takes_too_long(self) -> None:
        """Past boot_timeout the node is killed."""
        node = RabbitMQNode(boot_timeout=0.2)
        with self.assertRaisesRegex(NodeFailed, "did not answer within 0.2 s"):
            node.start()
        self.assertFalse(node.is_running)

    def test_ports_taken_meanwhile(self) -> None:
        """A port that somebody took between our look and the node's: other ports are tried."""
        node = RabbitMQNode()
        with mock.patch.object(RabbitMQNode, "_boot", side_effect=[NodeFailed("eaddrinuse"), None]) as boot:
            node.start()
        self.assertEqual(boot.call_count, 2)
        node.close()


class FindTests(unittest.TestCase):
    """find_rabbitmq_server."""

    def test_named_by_environment(self) -> None:
        """TXMSG_RABBITMQ_SERVER comes first."""
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "rabbitmq-server"
            script.touch(mode=0o755)
            with mock.patch.dict(os.environ, {"TXMSG_RABBITMQ_SERVER": str(script)}):
                self.assertEqual(find_rabbitmq_server(), script)

    def test_missing(self) -> None:
        """A wrapper that would change the user is not taken; with nothing else the error says what to do."""
        with tempfile.TemporaryDirectory() as folder:
            wrapper = Path(folder) / "rabbitmq-script-wrapper"
            wrapper.touch(mode=0o755)
            (Path(folder) / "rabbitmq-server").symlink_to(wrapper)
            with (
                mock.patch.dict(os.environ, {"PATH": folder, "TXMSG_RABBITMQ_SERVER": ""}),
                mock.patch("txmsg.testing.rabbitmq.DEBIAN_SERVER", "/nonexistent"),
                self.assertRaisesRegex(RabbitMQMissing, "apt-get install"),
            ):
                find_rabbitmq_server()
