"""R36: hostile clients beside a healthy one for a minute, each in a process of its own, at a broker in a third.

Whether anything is left behind is seen in `test_fuzz`, in one process; here are sockets, the memory of the process, and
time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.broker.hostile.fuzz_client import PASSWORD, PERMISSIONS, USER
from tests.service.children import ROOT, Child
from txmsg.testing.ports import free_ports

#: Seconds.  It is said in so many words that it is a minute: there is this one such test in a run.
DURATION = 60.0
#: How long the healthy client may wait for one message, published, confirmed and consumed.  It is 0.1 s or so on two
#: busy processors.
LONGEST_GAP = 5.0
#: The broker's memory: what may be in queues, as much that waits for slow readers, and the process itself.
QUEUES, MEMORY = 64, 300
#: How many hostile processes there are.
COUNT = 3

_USERS = f"""
[users.healthy]
password = "healthy"
[users.healthy.permissions."/"]
configure = ".*"
write = ".*"
read = ".*"
[users.{USER}]
password = "{PASSWORD}"
[users.{USER}.permissions."/"]
configure = '{PERMISSIONS[0]}'
write = '{PERMISSIONS[1]}'
read = '{PERMISSIONS[2]}'
"""


class Healthy:
    """Publishes, has it confirmed, and consumes it, one message after the other.

    count: int -- messages.  longest: float -- seconds that one took at most.
    """

    def __init__(self, port: int) -> None:
        credentials = pika.PlainCredentials("healthy", "healthy")
        parameters = pika.ConnectionParameters("127.0.0.1", port, credentials=credentials, heartbeat=10)
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.channel.queue_declare("untouched", exclusive=True)
        self.channel.basic_consume("untouched", self.delivered, auto_ack=False)
        self.bodies: list[bytes] = []
        self.count = 0
        self.longest = 0.0

    def delivered(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """A message."""
        self.bodies.append(body)
        channel.basic_ack(method.delivery_tag)

    def round_trip(self) -> None:
        """One message there and back; AssertionError if it is another, or does not come."""
        began = time.monotonic()
        self.count += 1
        body = b"%d" % self.count
        self.channel.basic_publish("", "untouched", body, mandatory=True)
        while not self.bodies:
            assert time.monotonic() - began < LONGEST_GAP, f"message {self.count} was lost"
            self.connection.process_data_events(1)
        assert self.bodies == [body], self.bodies
        self.bodies.clear()
        self.longest = max(self.longest, time.monotonic() - began)


class FuzzedBrokerTests(unittest.TestCase):
    """The broker of `twistd txmsg-broker`."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txmsg-fuzz-"))
        self.addCleanup(shutil.rmtree, self.folder)

    @contextmanager
    def broker(self) -> Iterator[tuple[Child, int]]:
        """The broker, and its port."""
        users = self.folder / "users.toml"
        users.write_text(_USERS)
        users.chmod(0o600)
        (port,) = free_ports(1)
        limits = ["--max-queue-memory", "8MiB", "--max-memory", f"{QUEUES}MiB"]
        command = ["-n", "--pidfile=", "txmsg-broker", "--listen", f"127.0.0.1:{port}", "--users", str(users)]
        child = Child(self.folder, [*command, *limits], {})
        try:
            child.until(lambda: "users: " in child.output)
            yield child, port
        finally:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait(20)

    @contextmanager
    def hostile(self, port: int, number: int, seconds: float) -> Iterator[Path]:
        """A process of hostile clients, and the file with its seeds."""
        output = self.folder / f"seeds.{number}"
        arguments = ["-m", "tests.broker.hostile.fuzz_process", str(port), str(number * 1_000_000), str(seconds)]
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=file)
        try:
            yield output
        finally:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)

    @pytest.mark.timeout(300)
    def test_a_minute(self) -> None:
        """R36, R32: it loses nothing and waits for nothing, and the broker's memory stays within its limits."""
        with self.broker() as (child, port), ExitStack() as stack:
            healthy = Healthy(port)
            healthy.round_trip()
            seeds = [stack.enter_context(self.hostile(port, number, DURATION)) for number in range(COUNT)]
            began = time.monotonic()
            try:
                while time.monotonic() < began + DURATION:
                    healthy.round_trip()
                stack.close()
                self.check(child, healthy, seeds)
            except BaseException as error:
                error.add_note(f"the last sessions: {[file.read_text().splitlines()[-3:] for file in seeds]}")
                raise
            healthy.round_trip()
            healthy.connection.close()
            child.signal()
            self.assertEqual(child.wait(), 0)

    def check(self, child: Child, healthy: Healthy, seeds: list[Path]) -> None:
        """Say how it was, and whether that is good."""
        memory = _memory(child.process.pid)
        ends = [file.read_text().splitlines()[-1] for file in seeds]
        print(f"longest gap {healthy.longest:.2f} s of {healthy.count}, {memory} MiB, {', '.join(ends)}")  # noqa: T201
        for end in ends:
            self.assertRegex(end, r"^\d+ sessions$")
        self.assertGreater(sum(int(end.split()[0]) for end in ends), 100)
        self.assertLess(healthy.longest, LONGEST_GAP)
        self.assertLess(memory, MEMORY)
        self.assertNotIn("unexpected error", child.output)
        self.assertNotIn("Traceback", child.output)
        self.assertEqual(child.errors, [])


def _memory(number: int) -> int:
    """The most memory that a process has had, in MiB; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), 0)
