"""`make run`: the consumer service at work on a real RabbitMQ, fed by a real publisher.

1. RabbitMQ: the one that TXMSG_URL names, or else a private node, started here and removed at the end.
2. The service: `twistd -n txmsg-consumer` on a new queue, with demo_handler.py as its handler.
3. The publisher: pika, another project's client, with publisher confirms.
4. When every message has been handled and the queue is empty: SIGTERM, and the service exits with 0.

The exit status is 0 if all of that was seen, 1 otherwise.  TXMSG_DEMO_MESSAGES sets how many messages.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pika

from txmsg.errors import TxmsgError
from txmsg.testing import RabbitMQNode

HERE = Path(__file__).resolve().parent
#: How long each step may take, in seconds.
PATIENCE = 60.0
#: Lines of the service that are shown in full; of the rest a summary.
SHOWN = 5


class DemoFailed(Exception):
    """Something was not as it should be; the text is the one line to show."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """The URL of a RabbitMQ for the length of a ``with`` block."""
    given = os.environ.get("TXMSG_URL")
    if given:
        say("RabbitMQ: the one that TXMSG_URL names")
        yield given
        return
    say("RabbitMQ: starting a private node")
    started = time.monotonic()
    with RabbitMQNode() as node:
        say(f"RabbitMQ: {node.name} listens on {node.host}:{node.port} after {time.monotonic() - started:.1f} s")
        yield node.url


class Service:
    """The running `twistd txmsg-consumer`, and what it prints."""

    def __init__(self, url: str, queue_name: str, folder: str) -> None:
        command = ["twistd", "--nodaemon", "--pidfile=", "txmsg-consumer", "--queue", queue_name, "--declare"]
        command += ["--prefetch", "100", "--handler", "demo_handler:handle"]
        say(f"service: {' '.join(command)}")
        search = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [str(twistd()), *command[1:]],
            # The URL holds a password, so it goes where other users of the machine cannot see it.
            env=os.environ | {"TXMSG_URL": url, "PYTHONPATH": os.pathsep.join(search)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        self._handled: queue.Queue[str] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.log.append(line.rstrip())
            _, found, message = line.rstrip().partition("handled ")
            if found:
                self._handled.put(message)
        self._handled.put("")  # the end

    def next_handled(self, deadline: float) -> str:
        """Wait for the next message the handler printed."""
        try:
            message = self._handled.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise DemoFailed(f"no message was handled within {PATIENCE:.0f} s") from None
        if not message:
            raise DemoFailed(f"the service ended with exit status {self._process.wait()}")
        return message

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Send SIGTERM, as a process supervisor does, and return the exit status."""
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise DemoFailed(f"the service did not end within {PATIENCE:.0f} s of SIGTERM") from None


def twistd() -> Path:
    """The `twistd` beside the Python that runs this."""
    found = Path(sys.executable).parent / "twistd"
    if not found.exists():
        raise DemoFailed(f"there is no {found}: install txmsg into this Python first")
    return found


def depth(channel: pika.adapters.blocking_connection.BlockingChannel, queue_name: str) -> tuple[int, int]:
    """How many messages are ready in the queue, and how many consumers it has."""
    answer = channel.queue_declare(queue_name, passive=True).method
    return answer.message_count, answer.consumer_count


def wait_for_consumer(connection: pika.BlockingConnection, queue_name: str, service: Service) -> None:
    """Wait until the service has declared its queue and consumes from it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not service.is_running():
            raise DemoFailed("the service ended while starting")
        # A passive declare of a queue that does not exist yet closes the channel: take a new one each time.
        with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
            channel = connection.channel()
            if depth(channel, queue_name)[1]:
                channel.close()
                return
            channel.close()
        time.sleep(0.1)
    raise DemoFailed(f"the service did not consume within {PATIENCE:.0f} s")


def publish(connection: pika.BlockingConnection, queue_name: str, count: int) -> list[str]:
    """Publish that many messages, each confirmed by the broker before the next."""
    channel = connection.channel()
    channel.confirm_delivery()
    bodies = [f"message {number} of {count}" for number in range(1, count + 1)]
    for message in bodies:
        channel.basic_publish("", queue_name, message.encode(), mandatory=True)
    channel.close()
    return bodies


def demonstrate(url: str, count: int) -> None:
    """Everything after RabbitMQ is there."""
    queue_name = f"txmsg.demo.{secrets.token_hex(4)}"
    connection = pika.BlockingConnection(pika.URLParameters(url))
    with tempfile.TemporaryDirectory() as folder:
        service = Service(url, queue_name, folder)
        try:
            wait_for_consumer(connection, queue_name, service)
            say(f"service: consumes from {queue_name}")
            started = time.monotonic()
            published = publish(connection, queue_name, count)
            say(f"publisher: pika published {count} messages, all confirmed, in {time.monotonic() - started:.1f} s")
            deadline = time.monotonic() + PATIENCE
            handled = []
            for number in range(count):
                handled.append(service.next_handled(deadline))
                if number < SHOWN or number == count - 1:
                    say(f"service: handled {handled[-1]}")
                elif number == SHOWN:
                    say("service: ...")
            if handled != published:
                raise DemoFailed("the messages handled are not those published, in their order")
            status = service.stop()
            # Only now: what was prefetched and not acknowledged would be back in the queue.
            channel = connection.channel()
            ready, consumers = depth(channel, queue_name)
            say(f"queue: {ready} messages, {consumers} consumers; {len(handled)} of {count} messages handled, in order")
            channel.queue_delete(queue_name)
            say(f"service: exit status {status} after SIGTERM")
            if ready or status:
                raise DemoFailed("the queue must be empty and the exit status 0")
        except BaseException:
            with contextlib.suppress(DemoFailed):
                service.stop()
            print("\n".join(["the service's last lines:", *service.log[-20:]]), file=sys.stderr)
            raise
        finally:
            connection.close()


def main() -> int:
    """Run the demonstration."""
    try:
        count = int(os.environ.get("TXMSG_DEMO_MESSAGES", "1000"))
        with broker() as url:
            demonstrate(url, count)
    except (DemoFailed, TxmsgError, pika.exceptions.AMQPError, ValueError) as error:
        print(f"FAILED: {error or type(error).__name__}", file=sys.stderr)
        return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
