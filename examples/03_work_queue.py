"""A work queue: tasks are shared out between workers, and none is lost when a worker dies.

python examples/03_work_queue.py amqp://localhost send "....."     (each dot is a second of work)
python examples/03_work_queue.py amqp://localhost work 1
"""

import sys
from typing import Any

from twisted.internet.task import deferLater, react

from txmsg.amqp import BasicProperties, Channel, connect

QUEUE = "tasks"
PERSISTENT = BasicProperties(delivery_mode=2)


async def send(channel: Channel, text: str) -> None:
    await channel.confirm_select()
    await channel.basic_publish("", QUEUE, text, PERSISTENT, mandatory=True)
    print(f"sent {text!r}, and the broker has it on disk")


async def work(reactor: Any, channel: Channel, count: int) -> None:
    # One task at a time: the next one goes to whoever is free.
    await channel.basic_qos(1)
    consumer = await channel.basic_consume(QUEUE)
    for _ in range(count):
        delivery = await consumer.get()
        text = delivery.body.decode()
        print(f"working on {text!r}")
        await deferLater(reactor, 0.1 * text.count("."))
        delivery.ack()
        print("done")
    await consumer.cancel()


async def main(reactor: Any, url: str = "amqp://localhost", role: str = "send", argument: str = "...") -> None:
    connection = await connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.queue_declare(QUEUE, durable=True)
    if role == "send":
        await send(channel, argument)
    else:
        await work(reactor, channel, int(argument))
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
