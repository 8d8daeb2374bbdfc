"""The same program on a broker in memory, and on a real one: only the URL differs.

python examples/09_memory_transport.py memory://
python examples/09_memory_transport.py amqp://localhost
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from txmsg.abc import MessagingDelivery
from txmsg.transports import transport_for

COUNT = 3


async def main(reactor: Any, url: str = "memory://") -> None:
    connection = await transport_for(url).connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.exchange_declare("weather", "topic", auto_delete=True)
    queue = await channel.queue_declare("", exclusive=True)
    await channel.queue_bind(queue.name, "weather", "europe.#")

    done: Deferred[None] = Deferred()

    def handle(delivery: MessagingDelivery) -> None:
        place = delivery.routing_key.removeprefix("europe.")
        print(f"{place}: {delivery.body.decode()} ({delivery.properties['type']})")
        delivery.ack()
        if delivery.delivery_tag == COUNT:
            done.callback(None)

    await channel.consume(queue.name, handle)
    for key, text in (("europe.rome", "sun"), ("asia.tokyo", "rain"), ("europe.oslo.port", "snow"), ("europe", "wind")):
        await channel.publish("weather", key, text.encode(), {"type": "forecast"})
    await done
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
