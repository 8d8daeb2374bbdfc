"""Never lose, never hang: a publisher and a consumer that outlive their connections.

python examples/10_reconnecting.py "amqp://localhost" 100

Restart the broker while it runs (give it a larger number, to have the time): every message is sent, and handled.
"""

import sys
from typing import Any

from twisted.internet.task import deferLater, react

from txmsg.amqp import Delivery, DuplicateWindow, ReconnectingConnection, StateChange


async def main(reactor: Any, url: str = "amqp://localhost", count: str = "100", queue: str = "numbers") -> None:
    handled: list[int] = []

    def handle(delivery: Delivery) -> None:
        handled.append(int(delivery.body))
        delivery.ack()

    def tell(change: StateChange) -> None:
        print(f"{change.host}: {change.new.value}{f' ({change.reason})' if change.reason else ''}")

    connection = ReconnectingConnection(url, reactor=reactor)
    connection.add_state_callback(tell)
    async with connection:
        channel = await connection.channel(prefetch_count=10)
        await channel.queue_declare(queue, durable=True)
        await channel.basic_consume(queue, handle, dedupe=DuplicateWindow())

        publisher = connection.publisher()
        for number in range(int(count)):
            # Fires when the broker has it.  While there is no connection it waits for the next one.
            await publisher.publish("", queue, str(number))
        while len(handled) < int(count):
            await deferLater(reactor, 0.1)
        print(publisher.report())
        await channel.queue_delete(queue)
    print(f"{len(set(handled))} messages handled, {len(handled) - len(set(handled))} of them twice")


if __name__ == "__main__":
    react(main, sys.argv[1:])
