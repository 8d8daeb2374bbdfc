"""`twistd txmsg-broker` as a process: with another project's client, signals, exit codes, and the demonstration."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from pathlib import Path
from typing import Any

import pika

from tests.service.children import ROOT, Child
from txmsg.testing.ports import free_ports


class ProcessTests(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txmsg-broker-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.children: list[Child] = []
        self.addCleanup(self.end_children)

    def end_children(self) -> None:
        for child in self.children:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait(10)

    def broker(self, *arguments: str, reactor: str = "default", **environment: str) -> Child:
        directory = Path(tempfile.mkdtemp(dir=self.folder))
        own = [f"--reactor={reactor}", "-n", "--pidfile=", "txmsg-broker"]
        child = Child(directory, [*own, *arguments], environment)
        self.children.append(child)
        return child

    def listening(self, *arguments: str, **options: str) -> tuple[Child, int]:
        """A broker that listens, and the port."""
        (port,) = free_ports(1)
        child = self.broker("--listen", f"127.0.0.1:{port}", *arguments, **options)
        child.until(lambda: "users: " in child.output)
        return child, port

    def connect(self, port: int, name: str = "guest", password: str = "guest") -> Any:
        credentials = pika.PlainCredentials(name, password)
        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=credentials))

    def stop(self, child: Child, number: int = signal.SIGTERM) -> None:
        child.signal(number)
        self.assertEqual(child.wait(), 0, child.output)

    def test_durable(self) -> None:
        """R35: what was confirmed is there after SIGTERM, and after SIGKILL; transient things are not."""
        data = str(self.folder / "data")
        child, port = self.listening("--data-dir", data)
        self.assertIn(f"durable: the data is in {data}", child.output)
        for number in (signal.SIGTERM, signal.SIGKILL):
            connection = self.connect(port)
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("kept", durable=True)
            channel.queue_declare("gone")
            channel.basic_publish("", "kept", str(number).encode(), pika.BasicProperties(delivery_mode=2))
            channel.basic_publish("", "kept", b"transient")
            if number == signal.SIGKILL:
                child.process.kill()
                child.process.wait(10)
                with self.assertRaises(pika.exceptions.AMQPConnectionError):
                    connection.close()
            else:
                connection.close()
                self.stop(child)
            child, port = self.listening("--data-dir", data)
        connection = self.connect(port)
        channel = connection.channel()
        bodies = [channel.basic_get("kept", auto_ack=True)[2] for _ in range(3)]
        self.assertEqual(bodies, [b"15", b"9", None])
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker):
            channel.queue_declare("gone", passive=True)
        connection.close()
        self.stop(child)

    def test_users_and_the_management_api(self) -> None:
        """Issue: --users, --management, and the environment; no password in any output."""
        users = self.folder / "users.toml"
        users.write_text('[users.me]\npassword = "c4n4ry"\ntags = ["administrator"]\n')
        users.chmod(0o600)
        (management,) = free_ports(1)
        child, port = self.listening("--users", str(users), TXMSG_BROKER_MANAGEMENT=f"127.0.0.1:{management}")
        self.assertIn("users: me", child.output)
        request = urllib.request.Request(f"http://127.0.0.1:{management}/api/overview")
        request.add_header("Authorization", f"Basic {base64.b64encode(b'me:c4n4ry').decode()}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            overview = json.load(answer)
        ports = {listener["port"]: listener["protocol"] for listener in overview["listeners"]}
        self.assertEqual(ports, {port: "amqp", management: "http"})
        for name, password in (("guest", "guest"), ("me", "wrong")):
            with self.assertRaises(pika.exceptions.AMQPConnectionError):
                self.connect(port, name, password)
        self.stop(child, signal.SIGINT)
        self.assertNotIn("c4n4ry", child.output + "".join(child.errors))

    def test_clients_are_told_of_the_end(self) -> None:
        """R30: 320, and exit code 0 in time."""
        child, port = self.listening()
        self.assertIn("in memory: everything in this broker is gone when it ends", child.output)
        connection = self.connect(port)
        child.signal()
        with self.assertRaises(pika.exceptions.ConnectionClosedByBroker) as caught:
            connection.process_data_events(20)
        self.assertEqual(caught.exception.reply_code, 320)
        self.assertEqual(child.wait(), 0, child.output)

    def test_an_address_in_use(self) -> None:
        """R33: one line on standard error, and a code of its own."""
        child, port = self.listening()
        second = self.broker("--listen", f"127.0.0.1:{port}")
        self.assertEqual(second.wait(), 14, second.output)
        (line,) = second.errors
        self.assertIn(f"cannot listen at 127.0.0.1:{port}: Address already in use", line)
        self.stop(child)

    def test_a_wrong_command_line(self) -> None:
        child = self.broker("--lisen", "x")
        self.assertEqual(child.wait(), 64)
        self.assertEqual(child.errors, ["txmsg-broker: unknown option --lisen; did you mean --listen? (exit code 64)"])

    def test_other_reactors(self) -> None:
        """peers 2: signals and exit code do not depend on the reactor."""
        for child, port in [self.listening(reactor=reactor) for reactor in ("asyncio", "poll", "select")]:
            self.connect(port).close()
            self.stop(child)


class DemonstrationTests(unittest.TestCase):
    def make_run(self, **given: str) -> subprocess.CompletedProcess[str]:
        """What `make run` runs, to its end."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TXMSG_")}
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "run_demo.py")],
            env=environment | {"PYTHONPATH": str(ROOT), "KEEP": ""} | given,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def test_what_it_cannot_do(self) -> None:
        """One line that says what to change, without a password."""
        for given, expected in (
            ({"TXMSG_URL": "amqp://me:secret@127.0.0.1:1"}, "cannot connect to 127.0.0.1:1: .*does a broker listen"),
            ({"TXMSG_URL": "secret@localhost"}, "TXMSG_URL is no URL of a broker, such as amqp://localhost"),
            ({"TXMSG_DEMO_MESSAGES": "many"}, "give a number of messages"),
        ):
            done = self.make_run(**given)
            self.assertEqual(done.returncode, 1)
            (line,) = done.stderr.splitlines()
            self.assertRegex(line, f"^FAILED: .*{expected}")
            self.assertNotIn("secret", done.stdout + done.stderr)

    def test_make_run(self) -> None:
        """Issue: broker, service and publisher in one command, on the embedded broker."""
        done = self.make_run(TXMSG_DEMO_MESSAGES="20")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"broker: any client can connect to amqp://guest:guest@127\.0\.0\.1:\d+/%2F")
        self.assertIn("20 of 20 messages handled, in order", done.stdout)
        self.assertIn("broker: exit status 0 after SIGTERM", done.stdout)
        self.assertTrue(done.stdout.endswith("done\n"))
