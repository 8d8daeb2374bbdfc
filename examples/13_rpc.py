"""Requests and replies by hand: who asks has a queue of its own for replies, and tells them apart by an id.

python examples/13_rpc.py serve "amqp://localhost" 1
python examples/13_rpc.py ask "amqp://localhost" 30
"""

import sys
from typing import Any
from uuid import uuid4

from twisted.internet.task import react

from txmsg.messaging import Connection, ConsumerProducerMixin, Message, Queue, itermessages

REQUESTS = Queue("rpc_queue")


def fib(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


class Server(ConsumerProducerMixin):
    """Answers `count` requests."""

    def __init__(self, connection: Connection, count: int) -> None:
        self.connection = connection
        self.left = count

    def get_consumers(self, Consumer: Any, channel: Any) -> Any:
        return [Consumer(queues=[REQUESTS], on_message=self.on_request, accept=["json"], prefetch_count=1)]

    async def on_request(self, message: Message) -> None:
        n = message.payload["n"]
        await self.producer.publish(
            {"result": fib(n)},
            exchange="",
            routing_key=message.properties["reply_to"],
            correlation_id=message.properties["correlation_id"],
            serializer="json",
            retry=True,
        )
        message.ack()
        print(f"fib({n})")
        self.left -= 1
        self.should_stop = not self.left


async def ask(connection: Connection, n: int) -> None:
    correlation_id = str(uuid4())
    replies = Queue(str(uuid4()), exclusive=True)(connection)
    await replies.declare()
    await connection.Producer().publish(
        {"n": n},
        routing_key=REQUESTS.name,
        declare=[REQUESTS],
        reply_to=replies,
        correlation_id=correlation_id,
    )
    async for body, message in itermessages(connection, None, replies, limit=None, timeout=10.0):
        message.ack()
        if message.properties.get("correlation_id") == correlation_id:
            print(f"fib({n}) is {body['result']}")
            break
    await connection.close()


async def main(reactor: Any, what: str, url: str, number: str = "30") -> None:
    connection = Connection(url, reactor=reactor)
    if what == "ask":
        await ask(connection, int(number))
    else:
        await Server(connection, int(number)).run()


if __name__ == "__main__":
    react(main, sys.argv[1:])
