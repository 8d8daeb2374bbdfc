"""The processes whose memory benchmarks/memory.py watches, and the one that feeds the consumer.

Each reads its task from the command line and prints one line of JSON.  A process samples its own resident
set, because only it knows how many messages it has handled at that moment.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from twisted.internet import defer, task

from benchmarks.task import URL_VARIABLE
from txmsg.amqp import BasicProperties, Channel, ConnectionParameters, connect
from txmsg.errors import NotSent, Overloaded, PublishFailed

__all__ = ["BODY_SIZE", "resident_bytes"]

BODY_SIZE = 64 * 1024
PROPERTIES = BasicProperties(delivery_mode=1)

#: The feeder holds at most about this many messages in the broker.
QUEUE_LENGTH = 1000
SAMPLES = 200


def resident_bytes() -> int:
    """This process's resident set; its highest so far where /proc does not tell the present one."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


async def consumer(reactor: Any, options: argparse.Namespace) -> dict[str, object]:
    """Take `count` messages with `prefetch` in flight and ack each; sample as messages go by."""
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE]))
    channel = await connection.channel()
    await channel.basic_qos(options.prefetch)
    deliveries = await channel.basic_consume(options.queue)
    samples = [resident_bytes()]
    every, received, received_bytes = max(1, options.count // SAMPLES), 0, 0
    async for delivery in deliveries:
        received += 1
        received_bytes += len(delivery.body)
        delivery.ack()
        if received % every == 0:
            samples.append(resident_bytes())
        if received == options.count:
            break
    await connection.close()
    return {"samples": samples, "received_bytes": received_bytes}


async def feeder(reactor: Any, options: argparse.Namespace) -> dict[str, object]:
    """Publish `count` messages, waiting whenever the queue is long enough."""
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE]))
    channel = await connection.channel()
    body = b"x" * BODY_SIZE
    for number in range(options.count):
        await channel.basic_publish("", options.queue, body, PROPERTIES)
        if number % (QUEUE_LENGTH // 4) == 0:
            while (found := await channel.queue_declare(options.queue, passive=True)) is not None:
                if found.message_count <= QUEUE_LENGTH:
                    break
                await task.deferLater(reactor, 0.01)
    await channel.queue_declare(options.queue, passive=True)
    await connection.close()
    return {}


async def publisher(reactor: Any, options: argparse.Namespace) -> dict[str, object]:
    """Publish without ever waiting, far beyond the outbox's bound, into a connection that reads nothing."""
    parameters = ConnectionParameters.from_url(
        os.environ[URL_VARIABLE],
        heartbeat=0,
        outbox_max_messages=options.max_messages,
        outbox_max_bytes=options.max_bytes,
    )
    connection = await connect(parameters)
    channel = await connection.channel()
    if options.confirm:
        await channel.confirm_select()
    outcome = Outcome(channel, options.queue)
    before = highest = resident_bytes()
    for number in range(options.count):
        # Bodies of their own: one shared object would cost its memory only once.
        outcome.publish(number.to_bytes(8, "big") + bytes(options.size - 8))
        if number % 64 == 0:
            await task.deferLater(reactor, 0)
            highest = max(highest, resident_bytes())
    held = options.count - outcome.refused - outcome.done
    highest = max(highest, resident_bytes())
    connection.abort()
    return {"before": before, "highest": highest, "held": held, "refused": outcome.refused, "done": outcome.done}


async def declare(reactor: Any, options: argparse.Namespace) -> dict[str, object]:
    """Declare the queue anew."""
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE]))
    channel = await connection.channel()
    await channel.queue_delete(options.queue)
    await channel.queue_declare(options.queue, durable=True)
    await connection.close()
    return {}


async def delete(reactor: Any, options: argparse.Namespace) -> dict[str, object]:
    """Delete the queue."""
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE]))
    await (await connection.channel()).queue_delete(options.queue)
    await connection.close()
    return {}


class Outcome:
    """Counts what became of the publishes; one that fails in another way is an error of the run."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self.channel, self.queue = channel, queue
        self.refused = self.done = 0

    def publish(self, body: bytes) -> None:
        self.channel.basic_publish("", self.queue, body, PROPERTIES).addCallbacks(self.on_done, self.on_failure)

    def on_done(self, _: object) -> None:
        self.done += 1

    def on_failure(self, failure: Any) -> None:
        # What is still held when the run ends fails by the abort; only refusals count.
        if failure.check(Overloaded) is not None:
            self.refused += 1
        else:
            failure.trap(NotSent, PublishFailed)


TASKS = {each.__name__: each for each in (declare, delete, consumer, feeder, publisher)}


def main(reactor: Any, options: argparse.Namespace) -> defer.Deferred[None]:
    async def run() -> None:
        print(json.dumps(await TASKS[options.task](reactor, options)), flush=True)

    return defer.Deferred.fromCoroutine(run())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, default=BODY_SIZE)
    parser.add_argument("--prefetch", type=int, default=100)
    parser.add_argument("--max-messages", type=int, default=100_000)
    parser.add_argument("--max-bytes", type=int, default=64 * 1024 * 1024)
    parser.add_argument("--confirm", action="store_true")
    task.react(main, [parser.parse_args()])
