"""The service under twistd while its broker is killed and started again: RabbitMQ, and txmsg's own."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions

from tests.cases import ReactorTestCase
from tests.service.children import HANDLERS, Child, ChildTestCase
from txmsg.testing.ports import free_ports

#: Messages that are published, one confirmed after the other, while the broker goes and comes.
COUNT = 400


class Load:
    """Publishes with pika in a thread; what is not confirmed is published again."""

    def __init__(self, url: str, queue: str) -> None:
        self.confirmed = 0
        self._parameters = pika.URLParameters(url)
        self._queue = queue
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_stopped = threading.Event()

    def _run(self) -> None:
        while self.confirmed < COUNT and not self._is_stopped.is_set():
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                self._publish()
            self._is_stopped.wait(0.1)

    def _publish(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        with contextlib.closing(connection):
            channel = connection.channel()
            channel.confirm_delivery()
            persistent = pika.BasicProperties(delivery_mode=2)
            while self.confirmed < COUNT and not self._is_stopped.is_set():
                channel.basic_publish("", self._queue, f"m{self.confirmed}".encode(), persistent, mandatory=True)
                self.confirmed += 1
                time.sleep(0.002)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._is_stopped.set()
        self._thread.join(30)


def all_handled(child: Child) -> bool:
    return len({line for line in child.seen if line.startswith("m")}) == COUNT


class RabbitMQTests(ChildTestCase):
    timeout = 150

    def test_killed_under_load(self) -> None:
        """Issue, R9, R22, F5: kill -9, started again: nothing is lost, the service goes on and ends with 0."""
        child = self.consumer("quick", "--declare", "--backoff-maximum", "2")
        child.until_consuming()
        with Load(self.node.url, self.queue) as load:
            child.until(lambda: len(child.seen) > 50)
            self.node.kill()
            self.node.start()
            child.until(lambda: load.confirmed == COUNT)
            child.until(lambda: all_handled(child))
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
        self.assertEqual(child.errors, [])
        self.assertIn("the connection to 127.0.0.1", child.output)
        self.assertEqual(self.ready(), 0)


class OwnBrokerTests(ReactorTestCase):
    """On `twistd txmsg-broker` with its data on disk."""

    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.url = f"amqp://guest:guest@{self.address}"
        self.children: list[Child] = []
        self.addCleanup(self.end_children)

    def end_children(self) -> None:
        for child in self.children:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait(10)

    def twistd(self, *arguments: str) -> Child:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "handlers.py").write_text(HANDLERS)
        child = Child(folder, ["-n", "--pidfile=", *arguments], {"TXMSG_URL": self.url})
        self.children.append(child)
        return child

    def broker(self) -> Child:
        data = str(self.folder / "data")
        child = self.twistd("txmsg-broker", "--listen", self.address, "--data-dir", data)
        child.until(lambda: "listening: " in child.output)
        return child

    def kill(self, broker: Child) -> None:
        broker.signal(signal.SIGKILL)
        broker.wait()

    @contextlib.contextmanager
    def pika(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        with contextlib.closing(connection):
            yield connection.channel()

    def test_killed_under_load(self) -> None:
        """Issue, R1, R9, R22, F1: three times; each message's answer has been published, none is lost."""
        broker = self.broker()
        with self.pika() as channel:
            channel.queue_declare("answers", durable=True)
        child = self.twistd(
            *("txmsg-consumer", "--queue", "work", "--declare", "--handler", "handlers:forwarding"),
            *("--concurrency", "20", "--backoff-maximum", "0.5"),
        )
        child.until_consuming()
        with Load(self.url, "work") as load:
            for number in range(1, 4):
                mark = 90 * number
                child.until(lambda mark=mark: load.confirmed > mark)  # type: ignore[misc]
                self.kill(broker)
                broker = self.broker()
            child.until(lambda: load.confirmed == COUNT)
            child.until(lambda: all_handled(child))
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
        self.assertEqual(child.errors, [])
        with self.pika() as channel:
            answers = set()
            while (answer := channel.basic_get("answers", auto_ack=True))[0] is not None:
                answers.add(answer[2].decode())
            self.assertEqual(channel.queue_declare("work", passive=True).method.message_count, 0)
        self.assertEqual(answers, {f"m{number}" for number in range(COUNT)})

    def test_sigterm_while_disconnected(self) -> None:
        """R30: it ends at once, with 0; also before the broker was ever there."""
        early = self.twistd("txmsg-consumer", "--queue", "work", "--declare", "--handler", "handlers:plain")
        early.until(lambda: "cannot be made" in early.output)
        broker = self.broker()
        child = self.twistd("txmsg-consumer", "--queue", "work", "--declare", "--handler", "handlers:plain")
        child.until_consuming()
        self.kill(broker)
        child.until(lambda: "is lost" in child.output and "cannot be made" in child.output)
        for each in (early, child):
            began = time.monotonic()
            each.signal()
            self.assertEqual(each.wait(), 0, each.output)
            self.assertLess(time.monotonic() - began, 5)
            self.assertEqual(each.errors, [])

    def test_the_service_starts_first(self) -> None:
        """R11: and consumes as soon as there is a broker."""
        child = self.twistd("txmsg-consumer", "--queue", "work", "--declare", "--handler", "handlers:plain")
        child.until(lambda: "cannot be made" in child.output)
        self.broker()
        child.until_consuming()
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
