"""The first steps: a queue, a few messages, channels, binding, connecting."""

from __future__ import annotations

from typing import Any

from tests.conformance.messaging.base import MessagingCase, OverMemory
from txmsg.errors import NotBoundError
from txmsg.messaging import Connection, Consumer, Exchange, Message, Producer, Queue


class OverviewExamples(OverMemory, MessagingCase):
    """Over ``memory://``."""

    def collect(self) -> tuple[list[Any], Any]:
        """A list of bodies, and the callback that fills it and acks."""
        bodies: list[Any] = []

        def on_message(body: Any, message: Message) -> None:
            bodies.append(body)
            message.ack()

        return bodies, on_message

    async def test_quick_overview(self) -> None:
        """Example 1: declare, publish JSON, consume one queue."""
        media = Exchange("media", "direct", durable=True)
        video = Queue("video", exchange=media, routing_key="video")
        bodies, process_media = self.collect()
        async with self.connection() as connection:
            producer = connection.Producer(serializer="json")
            await producer.publish(
                {"name": "/tmp/lolcat1.avi", "size": 1301013}, exchange=media, routing_key="video", declare=[video]
            )
            async with connection.Consumer(video, callbacks=[process_media]):
                await self.until(lambda: bodies)
        self.assertEqual(bodies, [{"name": "/tmp/lolcat1.avi", "size": 1301013}])

    async def test_two_queues(self) -> None:
        """Example 2: two queues of one consumer."""
        media = Exchange("media")
        queues = [Queue(name, exchange=media, routing_key=name) for name in ("video", "image")]
        bodies, on_message = self.collect()
        async with self.connection() as connection, connection.Consumer(queues, callbacks=[on_message]):
            producer = connection.Producer(exchange=media)
            await producer.publish("a film", routing_key="video")
            await producer.publish("a picture", routing_key="image")
            await self.until(lambda: len(bodies) == 2)
        self.assertEqual(sorted(bodies), ["a film", "a picture"])

    async def test_channels_by_hand(self) -> None:
        """Example 3: a channel of one's own, and objects that outlive the block they are used in."""
        connection = self.connection()
        channel = await connection.channel()
        queue = Queue("video", Exchange("media"), routing_key="video")
        bodies, on_message = self.collect()
        producer, consumer = Producer(channel), Consumer(channel, queue, callbacks=[on_message])
        for number in range(2):
            async with consumer:
                await producer.publish(number, exchange="media", routing_key="video")
                await self.until(lambda number=number: len(bodies) == number + 1)
        await channel.close()
        self.assertEqual(bodies, [0, 1])

    async def test_binding(self) -> None:
        """Example 4: unbound entities are descriptions; binding makes a copy."""
        exchange = Exchange("tasks", "direct")
        await self.failure(exchange.delete(), NotBoundError)
        bound = exchange(self.connection())
        self.assertTrue(bound.is_bound)
        self.assertFalse(exchange.is_bound)
        await bound.declare()
        await bound.delete()

    async def test_connecting(self) -> None:
        """Example 5: nothing is opened before it has to be; a block releases."""
        connection = self.connection()
        self.assertFalse(connection.connected)
        await connection.connect()
        self.assertTrue(connection.connected)
        await connection.release()
        self.assertFalse(connection.connected)
        async with connection:
            await connection.connect()
            self.assertTrue(connection.connected)
        self.assertFalse(connection.connected)

    async def test_producers(self) -> None:
        """Example 7: a producer of a connection, and one of a channel."""
        connection = self.connection()
        await Queue("q")(connection).declare()
        await connection.Producer().publish(1, routing_key="q")
        await Producer(await connection.channel()).publish(2, routing_key="q")
        await connection.Producer(channel=await connection.channel()).publish(3, routing_key="q")
        await self.until_depth("q", 3)

    async def test_anonymous_exchange(self) -> None:
        """Example 10: the default exchange takes a message straight to the queue that the key names."""
        connection = self.connection()
        queue = Queue("some_queue_name")(connection)
        await queue.declare()
        await connection.Producer().publish({"hello": "world"}, exchange="", routing_key="some_queue_name")
        message = await queue.get()
        assert message is not None
        self.assertEqual(message.payload, {"hello": "world"})
        self.assertEqual(message.delivery_info["exchange"], "")

    async def test_several_consumers_and_channels(self) -> None:
        """Example 12: several consumers, on several channels of one connection; the reactor serves them all."""
        connection = self.connection()
        bodies, on_message = self.collect()
        first, second = await connection.channel(), await connection.channel()
        consumers = [
            Consumer(first, Queue("a"), callbacks=[on_message]),
            Consumer(first, Queue("b"), callbacks=[on_message], accept=["json"]),
            Consumer(second, Queue("c"), callbacks=[on_message], prefetch_count=1),
        ]
        for consumer in consumers:
            await consumer.consume()
        for name in "abc":
            await connection.Producer().publish(name, routing_key=name, serializer="json")
        await self.until(lambda: len(bodies) == 3)
        for consumer in consumers:
            await consumer.cancel()
        self.assertEqual(sorted(bodies), ["a", "b", "c"])

    async def test_entities(self) -> None:
        """Example 28: declare, publish octets as they are, purge, delete."""
        connection = self.connection()
        exchange = Exchange("news", type="topic")(connection)
        queue = Queue("science", exchange, routing_key="*.science")(connection)
        await queue.declare()
        await exchange.publish(exchange.Message(b"the cat is dead"), routing_key="eu.science")
        await exchange.publish(exchange.Message(b"or is it"), routing_key="us.science")
        await exchange.publish(exchange.Message(b"nobody cares"), routing_key="us.sports")
        message = await queue.get(no_ack=True)
        assert message is not None
        self.assertEqual(message.body, b"the cat is dead")
        self.assertEqual(await queue.purge(), 1)
        await queue.delete()
        await exchange.delete()

    async def test_several_bindings(self) -> None:
        """Example 40: a queue with several bindings."""
        from txmsg.messaging import binding

        media, connection = Exchange("media", "direct"), self.connection()
        queue = Queue("name", [binding(media, routing_key="copy1"), binding(media, routing_key="copy2")])(connection)
        await queue.declare()
        for key in ("copy1", "copy2", "copy3"):
            await connection.Producer().publish(key, exchange="media", routing_key=key)
        bodies = [message.payload for _ in range(2) if (message := await queue.get(no_ack=True))]
        self.assertEqual(bodies, ["copy1", "copy2"])
        self.assertIsNone(await queue.get())

    async def test_exchange_to_exchange(self) -> None:
        """Example 41: one exchange feeds another."""
        connection = self.connection()
        destination, source = Exchange("B", "fanout")(connection), Exchange("A", "topic")(connection)
        await source.declare()
        await destination.declare()
        await destination.bind_to(source, routing_key="x.#")
        queue = Queue("q", destination)(connection)
        await queue.declare()
        producer = connection.Producer(exchange=source)
        await producer.publish("one", routing_key="x.y")
        await producer.publish("two", routing_key="y")
        message = await queue.get(no_ack=True)
        assert message is not None
        self.assertEqual(message.payload, "one")
        self.assertIsNone(await queue.get())

    async def test_clean_up(self) -> None:
        """Example 50: exchanges deleted by name, as after a namespace was given up; missing ones are fine."""
        connection = self.connection()
        await Exchange("reply.celery.pidbox", "direct")(connection).declare()
        channel = await connection.channel()
        for name in ("celery.pidbox", "reply.celery.pidbox"):
            await channel.exchange_delete(name)

    async def test_from_dict(self) -> None:
        """Example 51: a queue from options, as they stand in a configuration file."""
        queue = Queue.from_dict("tasks", exchange="media", exchange_type="topic", routing_key="video.#", durable=False)
        assert isinstance(queue.exchange, Exchange)
        self.assertEqual((queue.name, queue.exchange.name, queue.exchange.type), ("tasks", "media", "topic"))
        self.assertEqual((queue.routing_key, queue.durable), ("video.#", False))


def test_a_connection_is_a_description() -> None:
    """Example 5: making one opens nothing, wherever it leads."""
    assert not Connection("amqp://nobody.invalid:1//").connected
