"""The processes that benchmarks/recovering.py starts: one publisher or one consumer, plain or recovering.

Each prints one line at its end: seconds and CPU seconds, from the first publish or delivery to the last answer.
"""

from __future__ import annotations

import argparse
import os
from collections import deque
from typing import Any

from twisted.internet import defer, task

from benchmarks.plan import REFILL
from benchmarks.task import URL_VARIABLE, Stopwatch
from txmsg.amqp import BasicProperties, ConnectionParameters, Delivery, ReconnectingConnection, connect

PROPERTIES = BasicProperties(delivery_mode=1)


async def publish(options: argparse.Namespace) -> None:
    """Publish `count` messages, `in_flight` of them unconfirmed; wait for the oldest REFILL then."""
    parameters = ConnectionParameters.from_url(os.environ[URL_VARIABLE], heartbeat=0)
    connection: Any
    publisher: Any
    if options.how == "publisher":
        connection = ReconnectingConnection(parameters)
        await connection.start()
        publisher = connection.publisher(timeout=120)
        channel = await connection.channel()
        give: Any = publisher.publish
        arguments: dict[str, Any] = {}
    else:
        connection = await connect(parameters)
        channel = await connection.channel()
        publisher = await connection.channel()
        await publisher.confirm_select()
        give, arguments = publisher.basic_publish, {"mandatory": True} if options.how == "mandatory" else {}
    await channel.queue_declare(options.queue)
    await channel.queue_purge(options.queue)
    queue, body, in_flight = options.queue, b"x" * options.size, options.in_flight
    unconfirmed: deque[defer.Deferred[Any]] = deque()
    watch = Stopwatch()
    watch.start()
    for _ in range(options.count):
        if len(unconfirmed) == in_flight:
            await unconfirmed[REFILL - 1]
            for _ in range(REFILL):
                await unconfirmed.popleft()
        unconfirmed.append(give("", queue, body, PROPERTIES, **arguments))
    while unconfirmed:
        await unconfirmed.popleft()
    watch.stop()
    watch.print_result()
    await connection.close()


async def consume(options: argparse.Namespace) -> None:
    """Take and ack `count` messages, which are there."""
    parameters = ConnectionParameters.from_url(os.environ[URL_VARIABLE], heartbeat=0)
    connection: Any
    if options.how == "plain":
        connection = await connect(parameters)
    else:
        connection = ReconnectingConnection(parameters)
        await connection.start()
    channel = await connection.channel()
    await channel.basic_qos(options.prefetch)
    done: defer.Deferred[None] = defer.Deferred()
    left = options.count

    def on_delivery(delivery: Delivery) -> None:
        nonlocal left
        delivery.ack()
        left -= 1
        if not left:
            done.callback(None)

    watch = Stopwatch()
    watch.start()
    if options.how == "deduplicated":
        from txmsg.amqp import DuplicateWindow

        await channel.basic_consume(options.queue, on_delivery, dedupe=DuplicateWindow())
    else:
        await channel.basic_consume(options.queue, on_delivery)
    await done
    await channel.queue_declare(options.queue, passive=True)
    watch.stop()
    watch.print_result()
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "consume"])
    parser.add_argument("how", choices=["plain", "mandatory", "publisher", "recovering", "deduplicated"])
    parser.add_argument("--queue", default="txmsg.benchmark")
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--prefetch", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--profile", help="write a profile here")
    options = parser.parse_args()
    role = {"publish": publish, "consume": consume}[options.role]

    def run(reactor: Any) -> defer.Deferred[None]:
        return defer.ensureDeferred(role(options))

    if not options.profile:
        task.react(run)
        return
    import cProfile

    profile = cProfile.Profile()
    try:
        profile.runcall(task.react, run)
    finally:
        profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
