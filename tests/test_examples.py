"""The programs in examples/ do what they and the documentation say, on a real RabbitMQ and on our own broker."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cases import RabbitMQTestCase, ReactorTestCase
from tests.certificates import shared_authority
from tests.conformance.base import OverBroker

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: str) -> str:
    """Run one example in a process of its own and return what it printed; an error code is an error here."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error,ignore::DeprecationWarning")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=25,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert not done.stderr, f"{name} wrote to standard error:\n{done.stderr}"
    return done.stdout


class RunningExample:
    """An example that goes on until it is told to stop: its first line says that it is there."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(EXAMPLES / name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error,ignore::DeprecationWarning"),
        )

    def __enter__(self) -> str:
        """Its first line."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(25, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise AssertionError(f"{self._name} has said nothing: {self._process.communicate()[1]}")
        return line.strip()

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        """SIGTERM: it ends in order."""
        self._process.terminate()
        try:
            _, errors = self._process.communicate(timeout=25)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if kind is None:
            assert (self._process.returncode, errors) == (0, ""), f"{self._name}: {self._process.returncode}, {errors}"


def fetch(url: str) -> tuple[int, Any]:
    """The status and the JSON at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class ExampleCases(ReactorTestCase):
    """W-32, W-95, peers 8: every published program is executed, as a user would run it."""

    __test__ = False
    node: Any
    #: What the broker calls itself.
    product = "RabbitMQ"

    async def run_example(self, name: str, *arguments: str) -> str:
        """As above, with the reactor running."""
        return await self.in_thread(run_example, name, *arguments)

    async def test_publish_then_consume(self) -> None:
        """X-01, X-04, X-06: what 01 sends, 02 receives."""
        queue = self.name("hello")
        sent = await self.run_example("01_publish.py", self.node.url, queue, "Hello World!")
        self.assertEqual(sent, f"sent 'Hello World!' to {queue}\n")
        received = await self.run_example("02_consume.py", self.node.url, queue, "1")
        self.assertEqual(received, "received 'Hello World!'\n")

    async def test_work_queue(self) -> None:
        """X-08, X-10: a task is confirmed when it is sent, and worked on when somebody takes it."""
        sent = await self.run_example("03_work_queue.py", self.node.url, "send", "..")
        self.assertIn("the broker has it on disk", sent)
        worked = await self.run_example("03_work_queue.py", self.node.url, "work", "1")
        self.assertEqual(worked, "working on '..'\ndone\n")

    async def test_topic(self) -> None:
        """Each binding brings its messages, and no others."""
        printed = await self.run_example("04_topic.py", self.node.url)
        self.assertEqual(
            printed,
            "kern.info: the kernel is fine\n"
            "cron.critical: the clock has stopped\n"
            "kern.critical: the kernel is on fire\n",
        )

    async def test_confirms(self) -> None:
        """X-10, X-11, X-13: all are confirmed, and the unroutable one is returned."""
        printed = await self.run_example("05_confirms.py", self.node.url, "1000")
        self.assertIn("1000 of 1000 messages are safe", printed)
        self.assertIn("not lost: returned by the broker: NO_ROUTE (code 312)", printed)

    async def test_tls_client_certificate(self) -> None:
        """X-15, D-03, D-04, D-05: mutual TLS and EXTERNAL; the user is the certificate's common name."""
        client = shared_authority().issue(self.name("client"))
        user = client.certificate_file.read_bytes()
        common_name = _common_name(user)
        await self.in_thread(self.node.add_user, common_name, "not used")
        await self.in_thread(self.node.set_permissions, common_name, "/")
        printed = await self.run_example(
            "06_tls_client_certificate.py",
            "localhost",
            str(self.node.tls_port),
            str(shared_authority().certificate_file),
            str(client.certificate_file),
            str(client.key_file),
        )
        self.assertEqual(printed, f"connected to {self.product} over TLS\nreceived 'for your eyes only'\n")

    async def test_low_level_channel(self) -> None:
        """X-05, X-14, P-01, P-02: an endpoint of one's own, callbacks, a transaction."""
        printed = await self.run_example("07_low_level_channel.py", "127.0.0.1", str(self.node.port))
        self.assertIn("the broker says: NOT_FOUND", printed)
        self.assertIn("got b'one', 1 left\ngot b'two', 0 left\n", printed)

    async def test_reconnecting(self) -> None:
        """R1, R9: the publisher and the consumer that outlive connections; here nothing goes wrong."""
        printed = await self.run_example("10_reconnecting.py", self.node.url, "50", self.name("numbers"))
        self.assertIn(": ready\n", printed)
        self.assertIn("published=50, confirmed=50", printed)
        self.assertTrue(printed.endswith("50 messages handled, 0 of them twice\n"), printed)

    async def test_simple_queue(self) -> None:
        """Kombu AD10, example 16: hello, put and got."""
        queue = self.name("simple")
        sent = await self.run_example("11_simple_queue.py", "put", self.node.url, queue, "Hello", "World!")
        self.assertEqual(sent, "2 in the queue\n")
        self.assertEqual(
            await self.run_example("11_simple_queue.py", "get", self.node.url, queue), "got 'Hello'\ngot 'World!'\n"
        )

    async def test_tasks(self) -> None:
        """Kombu AD10, example 17: tasks that wait for a worker, and one that it does not know."""
        for urgency, name in (("low", "format_disk"), ("high", "hello")):
            sent = await self.run_example("12_tasks.py", "send", self.node.url, urgency, name, "Kombu")
            self.assertEqual(sent, f"sent {name} to tasks.{urgency}\n")
        self.assertEqual(await self.run_example("12_tasks.py", "work", self.node.url, "2"), "Hello Kombu\n")

    async def test_rpc(self) -> None:
        """Kombu AD10, O15, example 14: a server and a client."""
        serving = self.in_thread(run_example, "13_rpc.py", "serve", self.node.url, "1")
        self.assertEqual(await self.run_example("13_rpc.py", "ask", self.node.url, "30"), "fib(30) is 832040\n")
        self.assertEqual(await serving, "fib(30)\n")

    async def test_worker(self) -> None:
        """Kombu N1, N17, AD10, example 13: a worker, which is a service."""
        printed = await self.run_example("14_worker.py", self.node.url, "3")
        self.assertEqual(printed, "consuming from numbers to square\n1\n4\n9\nno more of them\n")

    async def test_declared_handlers(self) -> None:
        """Issue: handlers with their queues; what is not accepted reaches none of them."""
        printed = await self.run_example("15_declared_handlers.py", self.node.url)
        self.assertEqual(printed, "order 1 by order.new\norder 2 by order.priced\nstopped\n")

    async def test_rpc_fibonacci(self) -> None:
        """Issue 7: RPC fibonacci in ten lines; who calls when nobody serves is told so."""

        def ask() -> str:
            with RunningExample("16_rpc_fibonacci.py", "serve", self.node.url) as line:
                assert line == "serving"
                return run_example("16_rpc_fibonacci.py", "ask", self.node.url, "30")

        self.assertEqual(await self.in_thread(ask), "fib(30) is 832040\n")
        with self.assertRaisesRegex(AssertionError, "NoResponder"):
            await self.run_example("16_rpc_fibonacci.py", "ask", self.node.url, "30")

    async def test_celery_worker(self) -> None:
        """Issue 7: a Twisted worker for an unmodified client of Celery."""
        if find_spec("celery") is None:
            raise SkipTest("Celery is not installed")
        from tests.celery.client_process import ClientProcess

        queue = self.name("worker")
        code = """
            states = []
            total = app.send_task("add", [1, 2])
            result = app.send_task("countdown", [2])
            result.get(timeout=20, on_message=lambda message: states.append((message["task_id"], message["status"])))
            return [total.get(timeout=20), result.result, [state for task_id, state in states if task_id == result.id]]
        """

        def ask() -> Any:
            with RunningExample("18_celery_worker.py", self.node.url, queue) as line:
                assert line == f"waiting for tasks in queue {queue}"
                with contextlib.closing(ClientProcess()) as client:
                    return client.run(self.node.url, queue, code)

        self.assertEqual(await self.in_thread(ask), [3, "lift-off", ["PROGRESS", "PROGRESS", "SUCCESS"]])

    async def test_web_endpoint_that_calls_celery(self) -> None:
        """Issue 7: an answer when the task is done, by a worker of Celery's own."""
        if find_spec("celery") is None:
            raise SkipTest("Celery is not installed")
        from tests.celery.workers import WorkerProcess

        queue = self.name("web")

        def ask() -> list[tuple[int, Any]]:
            with (
                contextlib.closing(WorkerProcess(self.node.url, queue)) as worker,
                RunningExample("17_web_celery.py", self.node.url, "0", queue) as url,
            ):
                worker.wait()
                return [fetch(f"{url}?x={x}&y=2") for x in ("1", "40", "one")]

        self.assertEqual(
            await self.in_thread(ask),
            [(200, {"result": 3}), (200, {"result": 42}), (400, {"error": "give x and y, two whole numbers"})],
        )

    async def test_web_endpoint_and_our_worker(self) -> None:
        """Issue 7: the same with the worker of the other example; nobody needs Celery then."""
        queue = self.name("web")

        def ask() -> list[tuple[int, Any]]:
            with (
                RunningExample("18_celery_worker.py", self.node.url, queue),
                RunningExample("17_web_celery.py", self.node.url, "0", queue) as url,
            ):
                return [fetch(f"{url}?x=1&y=2")]

        self.assertEqual(await self.in_thread(ask), [(200, {"result": 3})])


class ExamplesOverRabbitMQ(RabbitMQTestCase, ExampleCases):
    __test__ = True


class ExamplesOverBroker(OverBroker, ExampleCases):
    product = "txmsg"

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]
        """Listen for TLS, too."""
        return super().setUp().addCallback(lambda _: Deferred.fromCoroutine(self.node.listen_with_tls()))

    async def test_memory_transport(self) -> None:
        """R38: the same program prints the same on `memory://` and over AMQP."""
        expected = "rome: sun (forecast)\noslo.port: snow (forecast)\neurope: wind (forecast)\n"
        for url in ("memory://", self.node.url):
            with self.subTest(url=url):
                self.assertEqual(await self.run_example("09_memory_transport.py", url), expected)


class TestingExampleTests(SynchronousTestCase):
    """The example that is a file of tests."""

    def test_with_embedded_broker(self) -> None:
        """All of its tests pass."""
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "08_testing_with_embedded_broker.py")],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("Ran 4 tests", done.stderr)


def _common_name(pem: bytes) -> str:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_pem_x509_certificate(pem).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


class TutorialTests(SynchronousTestCase):
    """The tutorial shows the examples as they are."""

    def test_quoted_code_is_in_the_examples(self) -> None:
        """Every Python block of the tutorial that quotes an example stands in it, line by line."""
        text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
        sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("[01]*.py")))
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertGreaterEqual(len(blocks), 5)
        for block in blocks:
            if block.startswith("# work.py"):
                continue
            for line in block.splitlines():
                self.assertIn(line.strip(), sources)

    def test_every_example_says_how_to_run_it(self) -> None:
        """The docstring of each example holds its command line."""
        for path in sorted(EXAMPLES.glob("[01]*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            self.assertIn(f"python examples/{path.name}", docstring)
