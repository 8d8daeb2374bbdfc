"""`twistd txmsg-consumer` in child processes, on a real RabbitMQ."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pika

from tests.cases import RabbitMQTestCase

EMPTY: Mapping[str, str] = {}
ROOT = Path(__file__).resolve().parents[2]

#: The module that the children import; each line of the file "seen" is one thing that a handler has done.
HANDLERS = """
import os, sys, threading, time
from twisted.internet.defer import Deferred
from txmsg.service import Halt, Reject, Requeue

def seen(*words):
    with open("seen", "a") as file:
        print(*words, file=file, flush=True)

def later(seconds):
    from twisted.internet import reactor
    done = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done

def publish(delivery):
    return delivery.channel.basic_publish("", "answers", delivery.body.upper())

def plain(delivery):
    seen("plain", delivery.body.decode())
    publish(delivery)

def deferred(delivery):
    done = later(0.01).addCallback(lambda _: publish(delivery))
    return done.addCallback(lambda _: seen("deferred", delivery.body.decode()))

async def coroutine(delivery):
    await later(0.01)
    await publish(delivery)
    seen("coroutine", delivery.body.decode())

async def publishing(delivery, publisher):
    await publisher.publish("", "answers", delivery.body.upper())
    seen("publishing", delivery.body.decode())

def publishing_thread(delivery, publisher):
    assert publisher.publish("", "answers", delivery.body.upper())
    seen("publishing_thread", delivery.body.decode())

def threaded(delivery):
    assert threading.current_thread() is not threading.main_thread()
    delivery.call_in_reactor(publish, delivery)
    seen("threaded", delivery.body.decode())

async def slow(delivery):
    seen("begin", delivery.body.decode())
    await later(1.0)
    seen("end", delivery.body.decode())

async def quick(delivery):
    await later(0.002)
    seen(delivery.body.decode())

async def forwarding(delivery, publisher):
    await publisher.publish("", "answers", delivery.body)
    seen(delivery.body.decode())

def never(delivery):
    seen("begin", delivery.body.decode())
    return Deferred()

def blocked(delivery):
    seen("begin", delivery.body.decode())
    time.sleep(60)

def failing(delivery):
    seen("attempt", delivery.body.decode(), delivery.redelivered, time.monotonic())
    if delivery.body.startswith(b"bad"):
        raise ValueError("cannot use %r with %s" % (delivery.body, os.environ.get("TXMSG_PASSWORD")))

def rejecting(delivery):
    seen("attempt", delivery.body.decode())
    raise Reject("not wanted")

def halting(delivery):
    seen("halt")
    raise Halt(42, reason="enough is enough")

def own_settlement(delivery):
    delivery.reject(requeue=False) if delivery.body == b"no" else delivery.ack()
    seen("settled", delivery.body.decode())

import atexit
atexit.register(seen, "atexit")
"""


class Child:
    """One twistd process: its output, its end."""

    def __init__(self, directory: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.directory = directory
        self.queue = ""
        self.output_file = directory / "output"
        self.error_file = directory / "errors"
        twistd = shutil.which("twistd", path=str(Path(sys.executable).parent))
        command = [twistd] if twistd else [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TXMSG_")}
        with self.output_file.open("wb") as output, self.error_file.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=directory,
                env={**inherited, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    @property
    def output(self) -> str:
        """What it has logged."""
        return self.output_file.read_text()

    @property
    def errors(self) -> list[str]:
        """The lines on its standard error."""
        return self.error_file.read_text().splitlines()

    @property
    def seen(self) -> list[str]:
        """What its handlers say."""
        file = self.directory / "seen"
        return file.read_text().splitlines() if file.exists() else []

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, limit: float = 40.0) -> int:
        """The exit code; negative for death by a signal."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the child has not ended in {limit} s:\n{self.output}") from None

    def until(self, condition: Callable[[], Any], limit: float = 40.0) -> None:
        """Wait until `condition` holds; fail with the child's output if it never does."""
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"it did not come to that in {limit} s:\n{self.output}\n{self.errors}\n{self.seen}"
                )
            if self.process.poll() is not None and not condition():
                raise AssertionError(f"the child ended first:\n{self.output}\n{self.errors}\n{self.seen}")
            time.sleep(0.02)

    def until_seen(self, *lines: str) -> None:
        """Wait until the handlers have said just this."""
        self.until(lambda: self.seen == list(lines))

    def until_seen_so_many(self, count: int) -> None:
        """Wait until the handlers have said so many lines."""
        self.until(lambda: len(self.seen) == count)

    def until_consuming(self) -> None:
        self.until(lambda: "consuming from queue" in self.output)


class ChildTestCase(RabbitMQTestCase):
    """Starts children; whatever a test leaves running is killed."""

    timeout = 90

    def setUp(self) -> None:
        super().setUp()
        self.children: list[Child] = []
        self.addCleanup(self.end_children)
        self.queue = self.name("service")

    def end_children(self) -> None:
        for child in self.children:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait(10)
            shutil.rmtree(child.directory, ignore_errors=True)

    def twistd(
        self,
        *arguments: str,
        daemon: bool = False,
        reactor: str = "default",
        files: Mapping[str, str] = EMPTY,
        **environment: Any,
    ) -> Child:
        """`twistd -n txmsg-consumer` with `arguments`, in a directory with HANDLERS and `files`.

        Of our environment variables it has only those given, TXMSG_URL by default.
        """
        directory = Path(tempfile.mkdtemp(prefix="txmsg-service-"))
        for name, text in {"handlers.py": HANDLERS, **files}.items():
            (directory / name).write_text(text)
        own = ["--pidfile=twistd.pid", "--logfile=log"] if daemon else ["-n", "--pidfile="]
        environment.setdefault("TXMSG_URL", self.node.url)
        child = Child(directory, [f"--reactor={reactor}", *own, "txmsg-consumer", *arguments], environment)
        self.children.append(child)
        return child

    def consumer(self, handler: str, *arguments: str, **others: Any) -> Child:
        """A child that consumes `self.queue` with one of HANDLERS."""
        child = self.twistd("--queue", self.queue, "--handler", f"handlers:{handler}", *arguments, **others)
        child.queue = self.queue
        return child

    # -- another program at the same broker

    @contextlib.contextmanager
    def pika(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def declare(self, *, name: str = "", **arguments: Any) -> None:
        with self.pika() as channel:
            channel.queue_declare(name or self.queue, durable=True, arguments=arguments or None)

    def publish(self, *bodies: str, **properties: Any) -> None:
        with self.pika() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", self.queue, body.encode(), pika.BasicProperties(**properties))

    def ready(self, queue: str = "") -> int:
        """The number of messages that wait in a queue."""
        with self.pika() as channel:
            return int(channel.queue_declare(queue or self.queue, passive=True).method.message_count)
