"""The first programs that a reader sees, README.md and docs/messaging.md, run as they stand, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cases import RabbitMQTestCase, ReactorTestCase
from tests.conformance.base import OverBroker
from tests.source import ROOT
from txmsg import Connection, Queue

ORDER = "{'id': 17, 'items': ['tea']}\n"


def programs(page: str) -> dict[str, str]:
    """The Python blocks of a page that begin with a file's name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {
        name: f"# {name}\n{code}" for name, code in re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", text, re.M | re.S)
    }


class Folder:
    """An empty folder with the programs of a page in it; `url` is where their broker is."""

    def __init__(self, test: Any, page: str, url: str = "amqp://localhost") -> None:
        self.path = Path(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, self.path)
        for name, code in programs(page).items():
            (self.path / name).write_text(code.replace('"amqp://localhost"', repr(url)), encoding="utf-8")

    def run(self, *arguments: str, until: str = "") -> str:
        """What a program prints; with `until`, it is interrupted when that has come."""
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore")
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # What it waits for may never be printed.
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        with process:
            try:
                assert process.stdout is not None
                if not until:
                    return process.communicate(timeout=25)[0]
                printed = ""
                while until not in printed and (line := process.stdout.readline()):
                    printed += line
                process.send_signal(signal.SIGINT)  # so that what was printed is acked, too
                process.wait(timeout=25)
                return printed
            finally:
                watchdog.cancel()
                process.kill()


class MemoryTests(SynchronousTestCase):
    """What needs no broker."""

    def test_readme(self) -> None:
        """kombu AD10, example 1: the first program of the README."""
        self.assertEqual(Folder(self, "README.md").run("hello.py"), ORDER)

    def test_calls(self) -> None:
        """Issue 7: the shortest client and server."""
        self.assertEqual(Folder(self, "README.md").run("fibonacci.py"), "6765\n")

    def test_hello(self) -> None:
        """The first step."""
        self.assertEqual(Folder(self, "docs/messaging.md").run("hello.py"), ORDER)

    def test_a_test(self) -> None:
        """The fourth step: the test passes."""
        self.assertIn("PASSED (successes=1)", Folder(self, "docs/messaging.md").run("-m", "twisted.trial", "test_shop"))


class FirstSteps(ReactorTestCase):
    """The steps with a broker."""

    __test__ = False
    node: Any

    async def test_send_and_receive(self) -> None:
        """The second step."""
        folder = Folder(self, "docs/messaging.md", self.node.url)
        self.assertEqual(await self.in_thread(folder.run, "send.py"), "3 orders are safe\n")
        printed = await self.in_thread(folder.run, "receive.py", until="order 3")
        self.assertEqual(printed, "order 1\norder 2\norder 3\n")

    def serve(self, folder: Folder, until: str, *what: str) -> Deferred[str]:
        """Run the handler in work.py, or what is given, as a service, until it has printed something."""
        twistd = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")
        service = ("txmsg-consumer", *(what or ("--app", "work")), "--url", self.node.url)
        return self.in_thread(folder.run, *twistd, *service, until=until)

    async def test_a_service(self) -> None:
        """The third step: what is sent is handled."""
        folder = Folder(self, "docs/messaging.md", self.node.url)
        await self.in_thread(folder.run, "send.py")
        printed = await self.serve(folder, "order 3")
        self.assertEqual(re.findall(r"#info\] (order \d)", printed), ["order 1", "order 2", "order 3"])


class FirstStepsOverRabbitMQ(RabbitMQTestCase, FirstSteps):
    __test__ = True


class FirstStepsOverBroker(OverBroker, FirstSteps):
    __test__ = True

    async def test_the_service_of_the_readme(self) -> None:
        """Its handler is called; and the program of the client below gets what it sends."""
        folder = Folder(self, "README.md", self.node.url)
        async with Connection(self.node.url) as connection:
            await connection.Producer().publish({"image": 17}, routing_key="work", declare=[Queue("work")])
        self.assertIn("{'image': 17}", await self.serve(folder, "'image'"))
        self.assertEqual(await self.in_thread(folder.run, "client.py"), "b'Hello World!'\n")

    async def test_celery_in_the_readme(self) -> None:
        """Issue 7: the shortest worker runs the task of the shortest client."""
        folder = Folder(self, "README.md", self.node.url)
        serving = self.serve(folder, "begins", "--celery", "shop:tasks")
        self.assertEqual(await self.in_thread(folder.run, "total.py"), "3\n")
        self.assertIn("shop.add", await serving)
