"""Publish one message.

python examples/01_publish.py amqp://localhost hello "Hello World!"
"""

import sys
from typing import Any

from twisted.internet.task import react

from txmsg.amqp import connect


async def main(reactor: Any, url: str = "amqp://localhost", queue: str = "hello", text: str = "Hello World!") -> None:
    connection = await connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.queue_declare(queue, durable=True)
    await channel.basic_publish("", queue, text)
    print(f"sent {text!r} to {queue}")
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
