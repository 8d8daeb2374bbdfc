"""The processes that benchmarks/messaging.py starts: one that publishes or one that consumes, each in one of its ways.

A message is a dictionary of about 100 bytes as JSON.  Each process prints one line at its end: seconds and CPU seconds,
from the first publish to the last confirm, or until the broker has the last ack.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import deque
from typing import Any

from twisted.internet import defer, task

from benchmarks.plan import REFILL
from benchmarks.task import URL_VARIABLE, Stopwatch
from txmsg.amqp import BasicProperties, ConnectionParameters, Delivery, connect

#: 100 bytes as JSON.
BODY = {"id": 123456, "name": "an order of some size", "items": [1, 2, 3, 4], "price": 12.5, "note": "now"}
PROPERTIES = BasicProperties(content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=0)
PREFETCH = 200


async def confirmed(give: Any, count: int, in_flight: int) -> None:
    """Call `give()` so often, `in_flight` of them unconfirmed; wait for the oldest REFILL then."""
    unconfirmed: deque[defer.Deferred[Any]] = deque()
    for _ in range(count):
        if len(unconfirmed) == in_flight:
            await unconfirmed[REFILL - 1]
            for _ in range(REFILL):
                await unconfirmed.popleft()
        unconfirmed.append(give())
    while unconfirmed:
        await unconfirmed.popleft()


async def publish_plain(options: argparse.Namespace) -> None:
    """On a channel in confirm mode: octets as they are, or what json.dumps makes of each."""
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE], heartbeat=0))
    channel = await connection.channel()
    await channel.confirm_select()
    await channel.queue_declare(options.queue, durable=True)
    await channel.queue_purge(options.queue)
    queue, octets, watch = options.queue, json.dumps(BODY).encode(), Stopwatch()
    publish = channel.basic_publish

    def give_octets() -> Any:
        return publish("", queue, octets, PROPERTIES)

    def give_json() -> Any:
        return publish("", queue, json.dumps(BODY).encode(), PROPERTIES)

    watch.start()
    await confirmed(give_json if options.how == "json" else give_octets, options.count, options.in_flight)
    watch.stop()
    watch.print_result()
    await connection.close()


async def consume_plain(options: argparse.Namespace) -> None:
    """By a callable of the channel: acked, and decoded by json.loads or not."""
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE], heartbeat=0))
    channel = await connection.channel()
    await channel.basic_qos(PREFETCH)
    done: defer.Deferred[None] = defer.Deferred()
    left, watch, decodes = options.count, Stopwatch(), options.how == "json"

    def on_delivery(delivery: Delivery) -> None:
        nonlocal left
        if decodes:
            json.loads(delivery.body)
        delivery.ack()
        left -= 1
        if not left:
            done.callback(None)

    watch.start()
    await channel.basic_consume(options.queue, on_delivery)
    await done
    await channel.queue_declare(options.queue, passive=True)
    watch.stop()
    watch.print_result()
    await connection.close()


async def publish_messaging(options: argparse.Namespace) -> None:
    """By txmsg.messaging's Producer."""
    from txmsg.messaging import Connection, Producer, Queue

    async with Connection(os.environ[URL_VARIABLE]) as connection:
        queue = Queue(options.queue)(connection)
        await queue.declare()
        await queue.purge()
        producer, watch, name = Producer(connection), Stopwatch(), options.queue
        watch.start()
        await confirmed(lambda: producer.publish(BODY, routing_key=name), options.count, options.in_flight)
        watch.stop()
        watch.print_result()


async def consume_messaging(options: argparse.Namespace) -> None:
    """By txmsg.messaging's Consumer and a callback."""
    from txmsg.messaging import Connection, Consumer, Queue

    done: defer.Deferred[None] = defer.Deferred()
    left, watch = options.count, Stopwatch()

    def on_message(body: Any, message: Any) -> None:
        nonlocal left
        message.ack()
        left -= 1
        if not left:
            done.callback(None)

    async with Connection(os.environ[URL_VARIABLE]) as connection:
        channel = await connection.channel()
        queue = Queue(options.queue)
        consumer = Consumer(channel, [queue], callbacks=[on_message], prefetch_count=PREFETCH)
        watch.start()
        await consumer.consume()
        await done
        await queue(channel).queue_declare(passive=True)
        watch.stop()
        watch.print_result()


def publish_kombu(options: argparse.Namespace) -> None:
    """By Kombu's Producer over pyamqp, which waits for each confirm."""
    import kombu as untyped

    kombu: Any = untyped
    with kombu.Connection(os.environ[URL_VARIABLE], transport_options={"confirm_publish": True}) as connection:
        queue = kombu.Queue(options.queue)(connection)
        queue.declare()
        queue.purge()
        producer, watch = connection.Producer(), Stopwatch()
        watch.start()
        for _ in range(options.count):
            producer.publish(BODY, routing_key=options.queue)
        watch.stop()
        watch.print_result()


def consume_kombu(options: argparse.Namespace) -> None:
    """By Kombu's Consumer over pyamqp."""
    import kombu as untyped

    kombu: Any = untyped
    left, watch = options.count, Stopwatch()

    def on_message(body: Any, message: Any) -> None:
        nonlocal left
        message.ack()
        left -= 1

    with kombu.Connection(os.environ[URL_VARIABLE]) as connection:
        queue = kombu.Queue(options.queue)
        watch.start()
        with connection.Consumer([queue], callbacks=[on_message], prefetch_count=PREFETCH):
            while left:
                connection.drain_events(timeout=30)
            queue(connection.default_channel).queue_declare(passive=True)
            watch.stop()
        watch.print_result()


ROLES: dict[tuple[str, str], Any] = {
    ("publish", "messaging"): publish_messaging,
    ("consume", "messaging"): consume_messaging,
    ("publish", "octets"): publish_plain,
    ("consume", "octets"): consume_plain,
    ("publish", "json"): publish_plain,
    ("consume", "json"): consume_plain,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "consume"])
    parser.add_argument("how", choices=["messaging", "octets", "json", "kombu"])
    parser.add_argument("--queue", default="txmsg.benchmark.messaging")
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--profile", help="write a profile here")
    options = parser.parse_args()
    if options.how == "kombu":
        (publish_kombu if options.role == "publish" else consume_kombu)(options)
        return
    role = ROLES[options.role, options.how]

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
