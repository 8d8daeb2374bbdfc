"""A worker with hooks: ConsumerProducerMixin, which is a Twisted service too.

python examples/14_worker.py "amqp://localhost" 3

It takes numbers from one queue, and sends their squares to another.  Restart the broker while it runs: it goes on.
Under twistd, give it a parent: `Squares(Connection(url)).setServiceParent(application)`.
"""

import sys
from typing import Any

from twisted.internet.task import react

from txmsg.messaging import Connection, Consumer, ConsumerProducerMixin, Message, Queue, itermessages

NUMBERS, SQUARES = Queue("numbers to square"), Queue("squares")


class Squares(ConsumerProducerMixin):
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Consumer]:
        return [Consumer(queues=[NUMBERS], callbacks=[self.square], accept=["json"], prefetch_count=10)]

    async def square(self, number: int, message: Message) -> None:
        await self.producer.publish(number**2, routing_key=SQUARES.name, declare=[SQUARES], retry=True)
        message.ack()

    def on_consume_ready(self, connection: Any, channel: Any, consumers: list[Consumer], **kwargs: Any) -> None:
        print(f"consuming from {NUMBERS.name}")

    def on_consume_end(self, connection: Any, channel: Any) -> Any:
        print("no more of them")
        return super().on_consume_end(connection, channel)


async def main(reactor: Any, url: str = "amqp://localhost", count: str = "3") -> None:
    async with Connection(url, reactor=reactor) as connection:
        for queue in (NUMBERS, SQUARES):
            await queue(connection).declare()
        worker = Squares(connection)
        worker.startService()
        for number in range(1, int(count) + 1):
            await connection.Producer().publish(number, routing_key=NUMBERS.name)
        async with itermessages(connection, None, SQUARES, limit=int(count), timeout=10) as squares:
            async for square, message in squares:
                print(square)
                message.ack()
        # What is at work is finished, its answers are confirmed, and the connections are closed.
        await worker.stopService()
        for queue in (NUMBERS, SQUARES):
            await queue(connection).delete()


if __name__ == "__main__":
    react(main, sys.argv[1:])
