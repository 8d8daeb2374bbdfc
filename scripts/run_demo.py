"""`make run`: a broker, the consumer service on it, and a publisher that feeds it.

1. The broker: `twistd -n txmsg-broker` on a free port of 127.0.0.1; or the one that TXMSG_URL names.
2. The service: `twistd -n txmsg-consumer` on a new queue, with demo_handler.py as its handler.
3. The publisher: pika, another project's client, with publisher confirms.
4. When every message has been handled and the queue is empty: SIGTERM to both, and both exit with 0.

The exit status is 0 if all of that was seen, 1 otherwise.  TXMSG_DEMO_MESSAGES sets how many messages.  With KEEP=1
broker and service go on before step 4 until Ctrl-C, for any client to connect to.
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
from txmsg.testing.ports import free_ports

HERE = Path(__file__).resolve().parent
#: How long each step may take, in seconds.
PATIENCE = 60.0
#: Lines of the service that are shown in full; of the rest a summary.
SHOWN = 5
#: How often another port is tried when somebody was quicker.
ATTEMPTS = 5


class DemoFailed(Exception):
    """Something was not as it should be; the text is the one line to show."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


class Twistd:
    """A running `twistd`, and what it prints; of that the lines with `marker` in them, from there on."""

    def __init__(self, name: str, arguments: list[str], folder: str, marker: str, **environment: str) -> None:
        self.name = name
        say(f"{name}: twistd --nodaemon --pidfile= {' '.join(arguments)}")
        search = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [str(twistd()), "--nodaemon", "--pidfile=", *arguments],
            env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(search)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is for us: the service is stopped before its broker.
            start_new_session=True,
        )
        self.log: list[str] = []
        self._marked: queue.Queue[str] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout, marker), daemon=True).start()

    def _read(self, output: IO[str], marker: str) -> None:
        for line in output:
            self.log.append(line.rstrip())
            _, found, rest = line.rstrip().partition(marker)
            if found:
                self._marked.put(rest)
        self._marked.put("")  # the end

    def next_marked(self, deadline: float | None, awaited: str) -> str:
        """Wait for the next line with the marker; `awaited` says what it means that there is none."""
        try:
            limit = None if deadline is None else max(0.0, deadline - time.monotonic())
            rest = self._marked.get(timeout=limit)
        except queue.Empty:
            raise DemoFailed(f"{awaited} within {PATIENCE:.0f} s") from None
        if not rest:
            raise DemoFailed(f"the {self.name} ended with exit status {self._process.wait()}")
        return rest

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
            raise DemoFailed(f"the {self.name} did not end within {PATIENCE:.0f} s of SIGTERM") from None


@contextlib.contextmanager
def broker(folder: str) -> Iterator[str]:
    """The URL of a broker for the length of a ``with`` block."""
    given = os.environ.get("TXMSG_URL")
    if given:
        say("broker: the one that TXMSG_URL names")
        yield given
        return
    running, address = start_broker(folder)
    try:
        say("broker: txmsg's own, in memory")
        # The default user's password is no secret: it is good on this machine only.
        url = f"amqp://guest:guest@{address}/%2F"
        say(f"broker: any client can connect to {url}")
        yield url
        status = running.stop()
        say(f"broker: exit status {status} after SIGTERM")
        if status:
            raise DemoFailed("the broker's exit status must be 0")
    except BaseException:
        print("\n".join(["the broker's last lines:", *running.log[-10:]]), file=sys.stderr)
        raise
    finally:
        with contextlib.suppress(DemoFailed):
            running.stop()


def start_broker(folder: str) -> tuple[Twistd, str]:
    """Start `twistd txmsg-broker`, and wait until it listens."""
    for attempt in range(1, ATTEMPTS + 1):
        address = f"127.0.0.1:{free_ports(1)[0]}"
        running = Twistd("broker", ["txmsg-broker", "--listen", address], folder, "listening: ")
        try:
            running.next_marked(time.monotonic() + PATIENCE, "the broker did not listen")
        except DemoFailed:
            running.stop()
            if attempt == ATTEMPTS or not any("Address already in use" in line for line in running.log):
                print("\n".join(["the broker's last lines:", *running.log[-10:]]), file=sys.stderr)
                raise
        else:
            return running, address
    raise AssertionError("unreachable: the last attempt returns or raises")


def start_service(url: str, queue_name: str, folder: str) -> Twistd:
    """Start `twistd txmsg-consumer`."""
    arguments = ["txmsg-consumer", "--queue", queue_name, "--declare", "--prefetch", "100"]
    arguments += ["--handler", "demo_handler:handle"]
    # The URL holds a password, so it goes where other users of the machine cannot see it.
    return Twistd("service", arguments, folder, "handled ", TXMSG_URL=url)


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


def wait_for_consumer(connection: pika.BlockingConnection, queue_name: str, service: Twistd) -> None:
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


def keep(connection: pika.BlockingConnection, service: Twistd, queue_name: str, url: str) -> pika.BlockingConnection:
    """Show what the service handles until Ctrl-C; returns a new connection, as the old one has sent no heartbeats."""
    connection.close()
    say(f"broker and service go on: publish to the queue {queue_name}; Ctrl-C ends them")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            say(f"service: handled {service.next_marked(None, '')}")
    say("")
    return connect(url)


def connect(url: str) -> pika.BlockingConnection:
    """Connect with pika."""
    try:
        parameters = pika.URLParameters(url)
        where = f"{parameters.host}:{parameters.port}"
        parameters.blocked_connection_timeout = PATIENCE
    except (ValueError, IndexError):
        # Not the URL itself, which may hold a password.
        raise DemoFailed("TXMSG_URL is no URL of a broker, such as amqp://localhost") from None
    try:
        return pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        why = f": {error}" if str(error) else " (does a broker listen there?)"
        raise DemoFailed(f"cannot connect to {where}: {type(error).__name__}{why}") from None


def remove_queue(connection: pika.BlockingConnection, queue_name: str) -> None:
    """Leave nothing behind on somebody's broker, also when something went wrong."""
    if connection.is_open:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.channel().queue_delete(queue_name)
    if connection.is_open:
        connection.close()


def demonstrate(url: str, count: int) -> None:
    """Everything after the broker is there."""
    queue_name = f"txmsg.demo.{secrets.token_hex(4)}"
    connection = connect(url)
    with tempfile.TemporaryDirectory() as folder:
        service = start_service(url, queue_name, folder)
        try:
            wait_for_consumer(connection, queue_name, service)
            say(f"service: consumes from {queue_name}")
            started = time.monotonic()
            published = publish(connection, queue_name, count)
            say(f"publisher: pika published {count} messages, all confirmed, in {time.monotonic() - started:.1f} s")
            deadline = time.monotonic() + PATIENCE
            handled = []
            for number in range(count):
                handled.append(service.next_marked(deadline, "no message was handled"))
                if number < SHOWN or number == count - 1:
                    say(f"service: handled {handled[-1]}")
                elif number == SHOWN:
                    say("service: ...")
            if handled != published:
                raise DemoFailed("the messages handled are not those published, in their order")
            if os.environ.get("KEEP", "0") not in ("", "0"):
                connection = keep(connection, service, queue_name, url)
            status = service.stop()
            # Only now: what was prefetched and not acknowledged would be back in the queue.
            channel = connection.channel()
            ready, consumers = depth(channel, queue_name)
            say(f"queue: {ready} messages, {consumers} consumers; {len(handled)} of {count} messages handled, in order")
            say(f"service: exit status {status} after SIGTERM")
            if ready or status:
                raise DemoFailed("the queue must be empty and the exit status 0")
        except BaseException:
            with contextlib.suppress(DemoFailed):
                service.stop()
            print("\n".join(["the service's last lines:", *service.log[-20:]]), file=sys.stderr)
            raise
        finally:
            remove_queue(connection, queue_name)


def main() -> int:
    """Run the demonstration."""
    try:
        given = os.environ.get("TXMSG_DEMO_MESSAGES", "1000")
        if not given.isascii() or not given.isdigit():
            raise DemoFailed(f"TXMSG_DEMO_MESSAGES={given}: give a number of messages")
        count = int(given)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is started here must not outlive this
        with tempfile.TemporaryDirectory() as folder, broker(folder) as url:
            demonstrate(url, count)
    except KeyboardInterrupt:
        print("FAILED: interrupted", file=sys.stderr)
        return 1
    except (DemoFailed, TxmsgError, pika.exceptions.AMQPError) as error:
        print(f"FAILED: {error or type(error).__name__}", file=sys.stderr)
        return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
