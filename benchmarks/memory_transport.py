"""`python -m benchmarks.memory_transport`: what a message costs through ``memory://``, and through Kombu's.

A message of 100 bytes is published, handed to a consumer's callback and acked, all in this process; batches of 100
are published before the consumer's turn.  Printed is the CPU time of the fastest of several rounds for each, taken in
turns, so that what else the machine does hits both; and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from txmsg.transports.memory import MemoryTransport

BODY = b"x" * 100
BATCH = 100


def txmsg_round(count: int, properties: dict[str, Any] | None) -> float:
    """CPU seconds for `count` messages through txmsg's transport."""
    clock = Clock()
    transport = MemoryTransport(reactor=clock)
    opened: list[Any] = []
    transport.connect("memory://").addCallback(opened.append)
    for _ in range(2):
        opened[0].channel().addCallback(opened.append)
    _, publisher, consumer = opened
    publisher.queue_declare("q")
    handled = 0

    def handle(delivery: Any) -> None:
        nonlocal handled
        handled += 1
        delivery.ack()

    consumer.qos(200)
    consumer.consume("q", handle)
    started = time.process_time()
    for _ in range(count // BATCH):
        for _ in range(BATCH):
            publisher.publish("", "q", BODY, properties)
        clock.advance(0)
    while handled < count:
        clock.advance(0)
    spent = time.process_time() - started
    transport.reset()
    return spent


def kombu_round(count: int, properties: dict[str, Any] | None) -> float:
    """The same through Kombu's memory transport, with its Producer and Consumer."""
    import kombu

    handled = 0

    def handle(body: object, message: Any) -> None:
        nonlocal handled
        handled += 1
        message.ack()

    with kombu.Connection("memory://") as connection:
        queue = kombu.Queue("q", channel=connection.default_channel)
        queue.declare()
        queue.purge()
        producer = connection.Producer()
        options = dict(properties or {})
        with connection.Consumer([queue], callbacks=[handle], accept=["application/data"], prefetch_count=200):
            started = time.process_time()
            for number in range(count // BATCH):
                for _ in range(BATCH):
                    producer.publish(
                        BODY,
                        routing_key="q",
                        content_type="application/data",
                        content_encoding="binary",
                        **options,
                    )
                while handled < (number + 1) * BATCH:
                    connection.drain_events(timeout=5)
            return time.process_time() - started


def main() -> None:
    """Measure, and print three lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="in each round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: %(default)s)")
    arguments = parser.parse_args()
    count = max(BATCH, arguments.messages // BATCH * BATCH)
    kinds: list[tuple[str, Callable[[int, dict[str, Any] | None], float], dict[str, Any] | None]] = [
        ("txmsg memory://", txmsg_round, None),
        ("txmsg memory://, with headers", txmsg_round, {"headers": {"id": 1}, "delivery_mode": 2}),
        ("Kombu memory://", kombu_round, None),
        ("Kombu memory://, with headers", kombu_round, {"headers": {"id": 1}, "delivery_mode": 2}),
    ]
    best = dict.fromkeys((name for name, _, _ in kinds), float("inf"))
    for _ in range(arguments.rounds):
        for name, run, properties in kinds:
            best[name] = min(best[name], run(count, properties))
    for name, seconds in best.items():
        print(f"{name:32} {seconds / count * 1e6:6.2f} us a message")
    print(f"Kombu takes {best['Kombu memory://'] / best['txmsg memory://']:.1f} times as long")


if __name__ == "__main__":
    main()
