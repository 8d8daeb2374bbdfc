"""The processes that benchmarks/embedded.py starts: the embedded broker, a publisher and a consumer.

Each prints a line when it is ready.  The publisher begins at a line on its standard input; the consumer prints its
seconds, from the first delivery to the answer behind its last ack; the broker ends when its standard input does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import Any

from twisted.internet import defer, stdio, task
from twisted.internet.protocol import Protocol

from benchmarks.task import URL_VARIABLE
from txmsg.amqp import BasicProperties, Channel, ConnectionParameters, Delivery, connect
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.server import Broker
from txmsg.testing.ports import free_ports

PROPERTIES = BasicProperties(delivery_mode=1)


def tell(line: str) -> None:
    """Print a line that the runner waits for."""
    print(line, flush=True)


class UntilEnd(Protocol):
    """Fires when the standard input ends."""

    def __init__(self) -> None:
        self.ended: defer.Deferred[None] = defer.Deferred()

    def connectionLost(self, reason: object = None) -> None:
        self.ended.callback(None)


async def serve(reactor: Any, options: argparse.Namespace) -> None:
    """Be the broker."""
    limits = BrokerLimits(queue_bytes=options.memory, broker_bytes=options.memory) if options.memory else None
    broker = Broker(reactor=reactor, limits=limits)
    await broker.start()
    listener = await broker.listen("127.0.0.1", free_ports(1)[0])
    until_end = UntilEnd()
    stdio.StandardIO(until_end)
    tell(f"amqp://guest:guest@127.0.0.1:{listener.port}/%2F")
    await until_end.ended
    await broker.stop()


async def opened(options: argparse.Namespace) -> tuple[Any, Channel]:
    connection = await connect(ConnectionParameters.from_url(os.environ[URL_VARIABLE], heartbeat=0))
    return connection, await connection.channel()


async def publish(reactor: Any, options: argparse.Namespace) -> None:
    """Publish `count` messages, at most `in_flight` of them unconfirmed; 0 for no confirms."""
    connection, channel = await opened(options)
    if options.declare:
        await channel.queue_declare(options.queue, durable=True)
    if options.in_flight:
        await channel.confirm_select()
    body, queue, in_flight = b"x" * options.size, options.queue, options.in_flight
    tell("ready")
    sys.stdin.readline()
    basic_publish = channel.basic_publish
    window: list[defer.Deferred[int | None]] = []
    for _ in range(options.count):
        written = basic_publish("", queue, body, PROPERTIES)
        if in_flight:
            window.append(written)
            if len(window) >= in_flight:
                await window[in_flight // 2]
                del window[: in_flight // 2]
        elif not written.called:
            await written
    for written in window:
        await written
    await connection.close()


async def consume(reactor: Any, options: argparse.Namespace) -> None:
    """Take and ack `count` messages."""
    connection, channel = await opened(options)
    await channel.queue_declare(options.queue, auto_delete=True)
    await channel.basic_qos(options.prefetch)
    done: defer.Deferred[None] = defer.Deferred()
    left = options.count
    started = 0.0

    def on_delivery(delivery: Delivery) -> None:
        nonlocal left, started
        if left == options.count:
            started = time.perf_counter()
        delivery.ack()
        if options.single_acks:
            channel.flush_acks()
        left -= 1
        if not left:
            done.callback(None)

    await channel.basic_consume(options.queue, on_delivery)
    tell("ready")
    await done
    # A channel is worked off in order: behind this answer every ack has been taken.
    await channel.queue_declare(options.queue, passive=True)
    tell(json.dumps({"seconds": time.perf_counter() - started}))
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "publish", "consume"])
    parser.add_argument("--queue", default="txmsg.benchmark")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--in-flight", type=int, default=0)
    parser.add_argument("--single-acks", type=int, default=0, help="1: a frame for each ack, none for several")
    parser.add_argument("--declare", type=int, default=0, help="1: the publisher declares the queue")
    parser.add_argument("--memory", type=int, default=0, help="bytes that the broker may hold; 0: the default")
    parser.add_argument("--profile", help="the broker writes its profile here")
    options = parser.parse_args()
    role = {"serve": serve, "publish": publish, "consume": consume}[options.role]
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(reactor: Any) -> defer.Deferred[None]:
        return defer.ensureDeferred(role(reactor, options))

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
