"""The processes that benchmarks/durable.py starts: the embedded broker on a data directory, a publisher, a consumer.

Each prints a line when it is ready.  The publisher begins at a line on its standard input and prints its seconds at the
last confirm; the consumer prints its own, from the first delivery to the answer behind its last ack.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from twisted.internet import defer, stdio, task

from benchmarks.embedded_tasks import UntilEnd, opened, tell
from txmsg.amqp import BasicProperties, Delivery
from txmsg.broker.server import Broker
from txmsg.broker.store import SQLiteStore
from txmsg.testing.ports import free_ports

PERSISTENT = BasicProperties(delivery_mode=2)
QUEUE = "txmsg.benchmark.durable"


async def serve(reactor: Any, options: argparse.Namespace) -> None:
    """Be the broker."""
    broker = Broker(reactor=reactor, store=SQLiteStore(options.data_dir, reactor=reactor))
    await broker.start()
    listener = await broker.listen("127.0.0.1", free_ports(1)[0])
    until_end = UntilEnd()
    stdio.StandardIO(until_end)
    tell(f"amqp://guest:guest@127.0.0.1:{listener.port}/%2F")
    await until_end.ended
    await broker.stop()


async def publish(reactor: Any, options: argparse.Namespace) -> None:
    """Publish `count` messages, at most `in_flight` of them unconfirmed, into an empty durable queue."""
    connection, channel = await opened(options)
    await channel.queue_delete(QUEUE)
    await channel.queue_declare(QUEUE, durable=True)
    await channel.confirm_select()
    body, in_flight = b"x" * options.size, options.in_flight
    tell("ready")
    sys.stdin.readline()
    started = time.perf_counter()
    window: list[defer.Deferred[int | None]] = []
    for _ in range(options.count):
        window.append(channel.basic_publish("", QUEUE, body, PERSISTENT))
        if len(window) >= in_flight:
            await window[in_flight // 10]
            del window[: in_flight // 10 + 1]
    for written in window:
        await written
    tell(json.dumps({"seconds": time.perf_counter() - started}))
    await connection.close()


async def consume(reactor: Any, options: argparse.Namespace) -> None:
    """Take and ack `count` messages."""
    connection, channel = await opened(options)
    await channel.basic_qos(200)
    done: defer.Deferred[None] = defer.Deferred()
    left = options.count
    started = 0.0

    def on_delivery(delivery: Delivery) -> None:
        nonlocal left, started
        if left == options.count:
            started = time.perf_counter()
        delivery.ack()
        left -= 1
        if not left:
            done.callback(None)

    await channel.basic_consume(QUEUE, on_delivery)
    tell("ready")
    await done
    await channel.queue_declare(QUEUE, passive=True)
    tell(json.dumps({"seconds": time.perf_counter() - started}))
    await connection.close()


def main() -> None:
    """Be one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "publish", "consume"])
    parser.add_argument("--data-dir")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=1)
    options = parser.parse_args()
    role = {"serve": serve, "publish": publish, "consume": consume}[options.role]
    task.react(lambda reactor: defer.ensureDeferred(role(reactor, options)))


if __name__ == "__main__":
    main()
