"""Topics: a log is published once, and each listener gets what it asked for.

python examples/04_topic.py amqp://localhost "kern.*" "*.critical"
"""

import sys
from typing import Any

from twisted.internet.task import react

from txmsg.amqp import Delivery, connect

LOGS = [
    ("kern.info", "the kernel is fine"),
    ("cron.critical", "the clock has stopped"),
    ("cron.info", "nobody asked for this one"),
    ("kern.critical", "the kernel is on fire"),
]


async def main(reactor: Any, url: str = "amqp://localhost", *binding_keys: str) -> None:
    binding_keys = binding_keys or ("kern.*", "*.critical")
    connection = await connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.exchange_declare("logs", "topic")
    declared = await channel.queue_declare("", exclusive=True)
    for key in binding_keys:
        await channel.queue_bind(declared.queue, "logs", key)

    # A plain callable is the fastest way to consume.
    def on_log(delivery: Delivery) -> None:
        print(f"{delivery.routing_key}: {delivery.body.decode()}")

    consumer = await channel.basic_consume(declared.queue, on_log, no_ack=True)
    for key, text in LOGS:
        await channel.basic_publish("logs", key, text)
    # The cancel is answered after everything that was routed before it.
    await consumer.cancel()
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
