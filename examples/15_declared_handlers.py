"""Handlers that declare what they consume, for `twistd txmsg-consumer`.

cd examples; cp 15_declared_handlers.py shop.py
TXMSG_URL=amqp://localhost twistd -n --pidfile= txmsg-consumer --app shop

Or see them at work for three messages, in a program of its own:

python examples/15_declared_handlers.py "amqp://localhost"
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from txmsg.messaging import Connection, Exchange, Message, Queue
from txmsg.service import ConsumerConfig, ConsumerService, consumes

SHOP = Exchange("shop", "topic", durable=False, auto_delete=True)
ORDERS = Queue("shop.orders", SHOP, "order.*", durable=False, auto_delete=True)
PRICES = Queue("shop.prices", SHOP, "price", durable=False, auto_delete=True)

done: Deferred[None] = Deferred()


@consumes(ORDERS, accept=["json"], prefetch_count=10)
def order(body: dict[str, Any], message: Message) -> None:
    """Is acked when it returns; what is no JSON never comes here."""
    print(f"order {body['id']} by {message.delivery_info['routing_key']}")
    if body["id"] == 2 and not done.called:
        done.callback(None)


@consumes(PRICES, serializer="json", concurrency=4, on_failure="reject")
async def price(body: str, message: Message, producer: Any) -> None:
    """Answers with a new order; is acked when the broker has confirmed that."""
    await producer.publish({"id": 2, "of": body}, "order.priced", exchange=SHOP)


async def main(reactor: Any, url: str = "amqp://localhost") -> None:
    service = ConsumerService(ConsumerConfig(url=url), consumers=[order, price], reactor=reactor)
    service.startService()
    async with Connection(url, reactor=reactor) as connection:
        producer = connection.Producer(exchange=SHOP)
        for queue in (ORDERS, PRICES):
            await queue(connection).declare()
        await producer.publish({"id": 1}, routing_key="order.new")
        await producer.publish("<order/>", routing_key="order.new", content_type="application/xml")
        await producer.publish("tea", routing_key="price")
        await done
    outcome = await service.stopService()
    print(outcome.line)


if __name__ == "__main__":
    react(main, sys.argv[1:])
