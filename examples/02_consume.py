"""Take COUNT messages from a queue, one after the other.

python examples/02_consume.py amqp://localhost hello 1
"""

import sys
from typing import Any

from twisted.internet.task import react

from txmsg.amqp import connect


async def main(reactor: Any, url: str = "amqp://localhost", queue: str = "hello", count: str = "1") -> None:
    connection = await connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.queue_declare(queue, durable=True)
    consumer = await channel.basic_consume(queue)
    left = int(count)
    async for delivery in consumer:
        print(f"received {delivery.body.decode()!r}")
        delivery.ack()
        left -= 1
        if not left:
            break
    await consumer.cancel()
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
