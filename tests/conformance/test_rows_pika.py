"""docs/coming-from-pika.md: its left columns are pika, its right ones txmsg, and its program runs."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from typing import Any

import pika.adapters.twisted_connection
import pika.exceptions
from twisted.internet.defer import Deferred, inlineCallbacks

from tests.cases import ReactorTestCase
from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, settle
from tests.source import ROOT
from txmsg import errors
from txmsg.amqp import AMQPProtocol, Channel, connect
from txmsg.errors import ConnectFailed
from txmsg.testing import free_ports

PAGE = (ROOT / "docs" / "coming-from-pika.md").read_text(encoding="utf-8")


def rows() -> list[tuple[str, str]]:
    """The two columns of all tables."""
    found = re.findall(r"^\| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    return [(left, right) for left, right in found if not left.startswith("---")]


def code(text: str) -> str:
    """What stands between backquotes."""
    return " ".join(re.findall(r"`([^`]+)`", text))


class PageTests(unittest.TestCase):
    def test_methods_of_channels_and_connections(self) -> None:
        """peers 1: each method and attribute on the right is there, and each on the left was pika's."""
        theirs = {
            "channel": pika.adapters.twisted_connection.TwistedChannel,
            "connection": pika.adapters.twisted_connection.TwistedProtocolConnection,
        }
        ours = {"channel": Channel, "connection": AMQPProtocol}
        seen = 0
        # Set by __init__, and so no attributes of the classes.
        own = {"on_closed", "ready", "closed", "blocked", "_impl"}
        for left, right in rows():
            for text, classes in ((left, theirs), (right, ours)):
                for owner, name in re.findall(r"\b(channel|connection)\.(\w+)", code(text)):
                    seen += 1
                    self.assertTrue(name in own or hasattr(classes[owner], name), f"{owner}.{name} in {text}")
        self.assertGreater(seen, 25)

    def test_errors(self) -> None:
        """peers 1: each exception on the right is ours, each on the left pika's."""
        section = PAGE.partition("## Exceptions")[2].partition("\n## ")[0]
        for left, right in re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)[1:]:
            for name in re.findall(r"`([A-Z]\w+)", left):
                self.assertTrue(hasattr(pika.exceptions, name), name)
            for name in re.findall(r"`([A-Z]\w+)", right):
                self.assertIn(name, errors.__all__)


class ProgramCases(BrokerCase):
    """The program at the end of the page."""

    async def test_the_program_runs(self) -> None:
        """peers 1: the right-hand program takes what is in the queue and acknowledges it."""
        (program,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "connect(" in block]
        printed: list[bytes] = []
        connections: list[AMQPProtocol] = []

        def connect_here(url: str) -> Deferred[Any]:
            self.assertEqual(url, "amqp://localhost")
            return connect(self.parameters()).addCallback(keep)

        def keep(connection: AMQPProtocol) -> AMQPProtocol:
            connections.append(connection)
            return connection

        class Reactor:
            """Runs already."""

            run = staticmethod(lambda: None)

        channel = await self.channel()
        await channel.queue_declare("hello", durable=True)
        for body in (b"one", b"two"):
            channel.basic_publish("", "hello", body)
        names = {
            "inlineCallbacks": inlineCallbacks,
            "connect": connect_here,
            "reactor": Reactor,
            "print": printed.append,
        }
        exec(compile(program, "coming-from-pika.md", "exec"), names)
        await self.until(lambda: len(printed) == 2)
        self.assertEqual(printed, [b"one", b"two"])
        done: Any = names["d"]
        done.addErrback(lambda failure: None)  # its connection is closed below, under the waiting get
        await connections[0].close()
        await self.until_depth(channel, "hello", 0)
        await channel.queue_delete("hello")


class ProgramOverRabbitMQ(OverRabbitMQ, ProgramCases):
    pass


class ProgramOverBroker(OverBroker, ProgramCases):
    pass


class ProgramOverPeer(OverPeer, ProgramCases):
    pass


class SilenceTests(ReactorTestCase):
    """What a program that has set up no logging sees."""

    async def test_nothing_is_printed(self) -> None:
        """A-07: neither importing nor a connection that fails prints anything."""
        [port] = free_ports(1)
        program = (
            "from twisted.internet.task import react\n"
            "from txmsg.amqp import connect\n"
            "def main(reactor):\n"
            f"    return connect('amqp://127.0.0.1:{port}').addErrback(lambda failure: None)\n"
            "react(main)\n"
        )
        done = await self.in_thread(
            subprocess.run, [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        error = await settle(connect(f"amqp://127.0.0.1:{port}"))
        self.assertIsInstance(error, ConnectFailed)
