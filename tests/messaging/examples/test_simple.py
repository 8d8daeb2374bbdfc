"""Simple queues, broadcasting, iterating, priorities of consumers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import LogEvent, Logger, LogLevel, formatEvent

from tests.conformance.messaging.base import MessagingCase, OverMemory, OverRabbitMQ
from txmsg.errors import OperationTimeout
from txmsg.messaging import Broadcast, Connection, Message, Queue, drain_consumer, eventloop, itermessages


class SimpleExamples(OverMemory, MessagingCase):
    """Over ``memory://``."""

    async def test_hello(self) -> None:
        """Example 16: a publisher and a consumer in a few lines."""
        async with Connection(self.url()) as connection, connection.SimpleQueue("simple_queue") as queue:
            await queue.put("helloworld")
        async with Connection(self.url()) as connection, connection.SimpleQueue("simple_queue") as queue:
            message = await queue.get(block=True, timeout=10)
            self.assertEqual(message.payload, "helloworld")
            message.ack()

    async def test_logger(self) -> None:
        """Example 18: log events through a queue; in a buffer they are not kept."""
        async with self.connection() as connection, connection.SimpleQueue("kombu_demo") as queue:

            def send(event: LogEvent) -> None:
                sent.append(queue.put({"text": formatEvent(event), "level": event["log_level"].name}))

            sent: list[Any] = []
            log = Logger("examples", observer=send)  # type: ignore[arg-type]  # any callable observes
            log.emit(LogLevel.warn, "disk {disk} is full", disk="sda")
            await sent[0]
            message = await queue.get(timeout=5)
            message.ack()
            self.assertEqual(message.payload, {"text": "disk sda is full", "level": "warn"})
            async with connection.SimpleBuffer("logs") as buffer:
                await buffer.put("line")
                self.assertEqual((await buffer.get(timeout=5)).payload, "line")

    async def test_event_loop(self) -> None:
        """Example 29: the events of a connection, so many or as long as some come."""
        connection, got = self.connection(), list[Any]()

        def on_message(body: Any, message: Message) -> None:
            got.append(body)
            message.ack()

        async with connection.Consumer(Queue("q"), callbacks=[on_message]):
            for number in range(3):
                await connection.Producer().publish(number, routing_key="q")
            async for _ in eventloop(connection, limit=1, timeout=5):
                pass
            with self.assertRaises(OperationTimeout):
                async for _ in eventloop(connection, timeout=0.05):
                    pass
        self.assertEqual(got, [0, 1, 2])

    async def test_iterating(self) -> None:
        """Example 29: messages instead of events."""
        connection = self.connection()
        await Queue("q")(connection).declare()
        for number in range(4):
            await connection.Producer().publish(number, routing_key="q")
        got = []
        async for body, message in itermessages(connection, None, Queue("q"), limit=2, timeout=5):
            got.append(body)
            message.ack()
        async for body, message in drain_consumer(connection.Consumer(Queue("q")), limit=None, timeout=0.05):
            got.append(body)
            message.ack()
        self.assertEqual(got, [0, 1, 2, 3])

    async def test_broadcast(self) -> None:
        """Example 30: everybody has a queue; its name is made up, given, or given and made unique."""
        self.assertTrue(str(Broadcast("cast").name).startswith("bcast."))
        self.assertEqual(Broadcast("cast", queue="mine").name, "mine")
        unique = Broadcast("cast", queue="mine", unique=True).name
        self.assertRegex(unique, r"^mine\.[0-9a-f-]{36}$")
        connection, got = self.connection(), list[Any]()

        def hearing(name: str) -> Callable[[Any, Message], None]:
            return lambda body, message: got.append((name, body))

        async with (
            connection.Consumer(Broadcast("cast"), callbacks=[hearing("a")], no_ack=True),
            connection.Consumer(Broadcast("cast"), callbacks=[hearing("b")], no_ack=True),
        ):
            await connection.Producer().publish("hear", exchange="cast")
            await self.until(lambda: len(got) == 2)
        self.assertEqual(sorted(got), [("a", "hear"), ("b", "hear")])


class RabbitMQExamples(OverRabbitMQ, MessagingCase):
    """What needs RabbitMQ."""

    async def test_priority(self) -> None:
        """Example 15: as long as the consumer of the higher priority has room, the other gets nothing."""
        name, connection = self.name("q"), self.connection()
        got: list[str] = []

        def taking(who: str) -> Callable[[Any, Message], None]:
            def take(body: Any, message: Message) -> None:
                got.append(who)
                message.ack()

            return take

        low = connection.Consumer(
            Queue(name, auto_delete=True, consumer_arguments={"x-priority": 0}), callbacks=[taking("low")]
        )
        high = connection.Consumer(
            Queue(name, auto_delete=True, consumer_arguments={"x-priority": 10}), callbacks=[taking("high")]
        )
        async with low, high:
            for _ in range(5):
                await connection.Producer().publish("x", routing_key=name)
            await self.until(lambda: len(got) == 5)
        self.assertEqual(got, ["high"] * 5)
