"""The workload with pika, after its own examples: a BlockingConnection per thread, and a loop that connects again.

https://pika.readthedocs.io/en/stable/examples/blocking_publish_mandatory.html and
https://pika.readthedocs.io/en/stable/examples/blocking_consumer_generator.html say to catch AMQPConnectionError and to
connect again; the wait here is half a second.  A publish that the loss ended is reported as unconfirmed, not repeated:
pika leaves that to the application.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

from tests.lab.peers.commands import Commands
from tests.lab.recorder import LineRecorder
from tests.lab.workload import EXCHANGE, Settings, queue_name
from txmsg.testing.disruption.checker import Ending

__all__ = ["run"]

_WAIT = 0.5


class _Run:
    def __init__(self, settings: Settings, recorder: LineRecorder, commands: Commands) -> None:
        self.settings = settings
        self.recorder = recorder
        self.commands = commands
        self.confirmed: set[str] = set()
        self.handled: set[str] = set()
        self.is_over = threading.Event()

    def connect(self, number: int) -> Any:
        targets = self.settings.targets
        parameters = pika.URLParameters(targets[number % len(targets)])
        parameters.heartbeat = self.settings.heartbeat
        return pika.BlockingConnection(parameters)

    def declare(self) -> None:
        connection = self.connect(0)
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "direct", durable=True)
        arguments = {"x-queue-type": "quorum"} if self.settings.quorum else None
        for number in range(self.settings.queues):
            channel.queue_declare(queue_name(number), durable=True, arguments=arguments)
            channel.queue_bind(queue_name(number), EXCHANGE, queue_name(number))
        connection.close()

    def publish(self, number: int) -> None:
        name, queue = f"p{number}", queue_name(number % self.settings.queues)
        attempt = 0
        while not self.commands.stopping.is_set():
            pending = ""
            try:
                connection = self.connect(attempt)
                channel = connection.channel()
                channel.confirm_delivery()
                self.recorder.state(f"publishing-{number}", "ready", "")
                while not self.commands.stopping.is_set():
                    if self.commands.paused.is_set():
                        connection.sleep(0.05)
                        continue
                    pending = self.recorder.attempted(name)
                    ending: Ending = "confirmed"
                    try:
                        properties = pika.BasicProperties(delivery_mode=2, message_id=pending)
                        channel.basic_publish(EXCHANGE, queue, pending.encode(), properties, mandatory=True)
                    except UnroutableError:
                        ending = "returned"
                    except NackError:
                        ending = "nacked"
                    if ending == "confirmed":
                        self.confirmed.add(pending)
                    self.recorder.ended(pending, ending)
                    pending = ""
                    connection.sleep(self.settings.every)
                connection.close()
            except (AMQPError, OSError) as error:
                if pending:
                    self.recorder.ended(pending, "unconfirmed")
                self.recorder.state(f"publishing-{number}", "lost", type(error).__name__)
                attempt += 1
                time.sleep(_WAIT)

    def consume(self, number: int) -> None:
        queue = queue_name(number)
        attempt = 0
        while not self.is_over.is_set():
            try:
                connection = self.connect(attempt)
                channel = connection.channel()
                channel.basic_qos(prefetch_count=self.settings.prefetch)
                self.recorder.state(f"consuming-{number}", "ready", "")
                for method, _, body in channel.consume(queue, inactivity_timeout=0.1):
                    if self.is_over.is_set():
                        break
                    if method is None:
                        continue
                    message_id = body.decode()
                    self.recorder.handled(message_id, queue, method.redelivered)
                    self.handled.add(message_id)
                    channel.basic_ack(method.delivery_tag)
                else:
                    continue
                connection.close()
            except (AMQPError, OSError) as error:
                self.recorder.state(f"consuming-{number}", "lost", type(error).__name__)
                attempt += 1
                time.sleep(_WAIT)


def run(settings: Settings, recorder: LineRecorder, commands: Commands) -> None:
    """Run until it is told to stop, and everything confirmed was handled, or `quiet` is over."""
    made = _Run(settings, recorder, commands)
    made.declare()
    consumers = [threading.Thread(target=made.consume, args=(n,), daemon=True) for n in range(settings.queues)]
    publishers = [threading.Thread(target=made.publish, args=(n,), daemon=True) for n in range(settings.publishers)]
    for thread in (*consumers, *publishers):
        thread.start()
    recorder.write("started")
    commands.stopping.wait()
    for thread in publishers:
        thread.join(settings.publish_timeout)
    end = time.monotonic() + settings.quiet
    while made.confirmed - made.handled and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)
    made.is_over.set()
    for thread in consumers:
        thread.join(10)
