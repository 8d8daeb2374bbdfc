"""SimpleQueue and SimpleBuffer over memory://, the embedded broker and RabbitMQ."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.errors import ConsumerCancelled, ContentDisallowed, NotBoundError, PublishNacked, QueueEmpty
from txmsg.messaging.entities import Exchange, Queue
from txmsg.messaging.simple import SimpleBuffer, SimpleQueue


class SimpleCases(MessagingCase):
    """What both do, on each transport."""

    def simple(self, name: str | Queue = "", **options: Any) -> SimpleQueue:
        """A SimpleQueue on a connection of its own, whose queue expires."""
        expires = {} if isinstance(name, Queue) else {"queue_args": {"x-expires": 60_000}}
        return SimpleQueue(self.connection(), name or self.name("simple"), **{**expires, **options})

    async def test_values(self) -> None:
        """First in, first out; each is unsettled until it is acked (kombu M1, M3, M5)."""
        queue = self.simple()
        for value in (1, {"two": [2]}, "three", b"four", None):
            await queue.put(value)
        messages = [await queue.get(timeout=10) for _ in range(5)]
        self.assertEqual([message.payload for message in messages], [1, {"two": [2]}, "three", b"four", None])
        self.assertEqual(messages[0].properties["delivery_mode"], 2)
        messages[0].ack()
        messages[1].ack()
        await queue.channel.close()
        await self.until_depth(queue.queue.name, 3)

    async def test_name(self) -> None:
        """One name for queue, exchange and routing key; durable, acked (kombu M1, M12)."""
        queue = self.simple()
        name = queue.queue.name
        await queue.put("a")
        message = await queue.get_nowait()
        self.assertEqual((message.delivery_info["exchange"], message.delivery_info["routing_key"]), (name, name))
        message.ack()
        self.assertEqual((queue.no_ack, queue.queue.durable, queue.queue.auto_delete), (False, True, False))
        self.assertIs(queue.consumer.channel, queue.channel)
        self.assertIs(queue.producer.channel, queue.channel)
        self.assertEqual(queue.exchange_opts, {"type": "direct"})
        self.assertIn(name, repr(queue))
        await queue.channel.exchange_delete(name)

    async def test_a_queue_in_place_of_the_name(self) -> None:
        """Its own exchange and routing key are used; without an exchange its name (kombu M2)."""
        exchange = Exchange(self.name("exchange"), "topic", durable=False, auto_delete=True)
        queue = self.simple(Queue(self.name("queue"), exchange, "a.key", auto_delete=True))
        await queue.put(1)
        message = await queue.get(timeout=10)
        self.assertEqual(
            (message.delivery_info["exchange"], message.delivery_info["routing_key"]), (exchange.name, "a.key")
        )
        message.ack()
        plain = self.simple(Queue(self.name("plain"), auto_delete=True))
        await plain.put(2)
        self.assertEqual((await plain.get(timeout=10)).payload, 2)

    async def test_on_a_channel(self) -> None:
        """A channel, or a connection, whose default channel it is (kombu M3)."""
        connection = self.connection()
        channel = await connection.channel()
        queue = SimpleQueue(channel, self.name("q"), queue_args={"x-expires": 60_000})
        self.assertIs(queue.channel, channel)
        other = connection.SimpleQueue(queue.queue, serializer="json")
        self.assertIs(other.channel, connection.default_channel)
        await queue.put(1)
        await queue.close()
        self.assertEqual((await other.get(timeout=10)).payload, 1)
        with self.assertRaisesRegex(NotBoundError, "needs a channel or a connection"):
            SimpleQueue(None, "q")  # type: ignore[arg-type]

    async def test_empty(self) -> None:
        """At once, or after the timeout; the class knows the error (kombu M5, M6, M13)."""
        queue = self.simple()
        await self.failure(queue.get_nowait(), queue.Empty)
        await self.failure(queue.get(block=False), QueueEmpty)
        await self.failure(queue.get(timeout=0), QueueEmpty)
        await self.failure(queue.get(timeout=0.05), QueueEmpty)
        start = time.monotonic()
        await self.failure(queue.get(timeout=0.2), SimpleQueue.Empty)
        self.assertTrue(0.19 <= time.monotonic() - start < 2)
        self.assertIs(queue.Full, PublishNacked)

    async def test_waits(self) -> None:
        """Who waits is served in order, and nothing that happens elsewhere delays a timeout (kombu M5)."""
        queue = self.simple()
        busy = self.simple()
        early = queue.get(timeout=0.3)
        start = time.monotonic()
        self.addCleanup(early.addErrback, lambda failure: None)
        await busy.put(0)
        for number in range(3):
            await busy.get(timeout=10)
            await busy.put(number)
        await self.failure(early, QueueEmpty)
        self.assertLess(time.monotonic() - start, 5)
        waiting = [queue.get(timeout=10) for _ in range(3)]
        for number in range(3):
            await queue.put(number)
        self.assertEqual([message.payload for message in await gatherResults(waiting)], [0, 1, 2])

    async def test_cancelled_get_loses_nothing(self) -> None:
        """Neither a waiting one nor one that fetches (kombu M5)."""
        queue = self.simple()
        waiting = queue.get()
        await self.until(lambda: queue.consumer.is_consuming)
        waiting.cancel()
        await self.failure(waiting, CancelledError)
        await queue.put(1)
        self.assertEqual((await queue.get(timeout=10)).payload, 1)
        await queue.close()
        await queue.put(2)
        fetching = queue.get_nowait()
        if fetching.called:  # memory:// needs no round trip
            (await fetching).reject(requeue=True)
        else:
            fetching.cancel()
            await self.failure(fetching, CancelledError)
        self.assertEqual((await queue.get(timeout=10)).payload, 2)

    async def test_get_and_get_nowait(self) -> None:
        """In the order of the queue, whichever way they are fetched (kombu M5, M6)."""
        queue = self.simple(prefetch_count=2)
        for number in range(6):
            await queue.put(number)
        found = [await queue.get(timeout=10)]
        found += [await queue.get_nowait() for _ in range(5)]
        self.assertEqual([message.payload for message in found], [0, 1, 2, 3, 4, 5])
        await self.failure(queue.get_nowait(), QueueEmpty)

    async def test_put_as_it_is_told(self) -> None:
        """Defaults of the queue, and for each message others (kombu M7)."""
        queue = self.simple(serializer="json", compression="zlib")
        await queue.put("text")
        await queue.put("text", serializer="raw", headers={"a": 1}, compression="gzip", priority=3)
        await queue.put({}, compression="")
        first, second, third = [await queue.get(timeout=10) for _ in range(3)]
        self.assertEqual(
            (first.content_type, first.headers), ("application/json", {"compression": "application/x-gzip"})
        )
        self.assertEqual((first.payload, second.payload, third.payload), ("text", "text", {}))
        self.assertNotEqual(second.content_type, "application/json")
        self.assertEqual(second.headers["a"], 1)
        self.assertEqual(second.properties["priority"], 3)
        self.assertEqual(third.headers, {})

    async def test_put_with_another_key(self) -> None:
        """The routing key can be another one; then it may come nowhere (kombu M7)."""
        queue = self.simple(exchange_opts={"type": "topic", "durable": False, "auto_delete": True})
        await queue.put(1, routing_key="elsewhere")
        await queue.channel.queue_bind(queue.queue.name, queue.queue.name, "else.*")
        await queue.put(2, routing_key="else.where")
        self.assertEqual((await queue.get(timeout=10)).payload, 2)

    async def test_accept(self) -> None:
        """What is not on the list is not decoded (kombu M1)."""
        queue = self.simple(accept=["json"], serializer="yaml")
        await queue.put([1])
        message = await queue.get(timeout=10)
        with self.assertRaises(ContentDisallowed):
            message.payload  # noqa: B018
        await queue.put([1])
        with self.assertRaises(ContentDisallowed):
            (await queue.get_nowait()).payload  # noqa: B018

    async def test_size_and_clear(self) -> None:
        """What was sent ahead is counted and dropped, too (kombu M8)."""
        queue = self.simple()
        self.assertEqual((await queue.qsize(), await queue.clear()), (0, 0))
        for number in range(5):
            await queue.put(number)
        self.assertEqual(await queue.qsize(), 5)
        (await queue.get(timeout=10)).ack()
        self.assertEqual((await queue.qsize(), await queue.clear(), await queue.qsize()), (4, 4, 0))
        await queue.put("new")
        self.assertEqual((await queue.get(timeout=10)).payload, "new")

    async def test_close(self) -> None:
        """What was sent ahead goes back, in its order; who waits is told; it may be used again (kombu M9)."""
        queue = self.simple()
        for number in range(5):
            await queue.put(number)
        (await queue.get(timeout=10)).ack()
        await queue.close()
        await self.until_depth(queue.queue.name, 4)
        await queue.close()
        async with queue:
            found = [await queue.get(timeout=10) for _ in range(4)]
            self.assertEqual([message.payload for message in found], [1, 2, 3, 4])
            for message in found:
                message.ack()
            waiting = queue.get()
            await self.until(lambda: queue.consumer.is_consuming)
        await self.failure(waiting, ConsumerCancelled)
        self.assertFalse(queue.consumer.is_consuming)

    async def test_queue_arguments(self) -> None:
        """They are the queue's; a full queue refuses (kombu M10, M13)."""
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish", "x-expires": 60_000}
        queue = self.simple(queue_args=arguments, queue_opts={"durable": True})
        self.assertEqual(queue.queue_args, arguments)
        await queue.put(1)
        await self.failure(queue.put(2), queue.Full)

    async def test_exchange_options(self) -> None:
        """Another type, for instance (kombu M11)."""
        name = self.name("fan")
        options = {"type": "fanout", "durable": False, "auto_delete": True}
        queue = self.simple(name, exchange_opts=options)
        await queue.put(1, routing_key="whatever")
        self.assertEqual((await queue.get(timeout=10)).payload, 1)
        self.assertEqual(queue.exchange_opts, options)

    async def test_no_ack(self) -> None:
        """Settled when it is given out, and not before: closing loses nothing (kombu M1, M9)."""
        queue = self.simple(no_ack=True)
        for number in range(4):
            await queue.put(number)
        message = await queue.get(timeout=10)
        message.ack()  # does nothing
        self.assertEqual((await queue.get_nowait()).payload, 1)
        await queue.close()
        self.assertEqual((await queue.get_nowait()).payload, 2)
        await queue.channel.close()
        await self.until_depth(queue.queue.name, 1)

    async def test_after_a_loss(self) -> None:
        """Nothing is lost when the connection is, and the queue goes on by itself."""
        queue = self.simple()
        for number in range(3):
            await queue.put(number)
        (await queue.get(timeout=10)).ack()
        waiting = self.simple().get()
        waiting.addErrback(lambda failure: None)
        await self.cut_off(queue.channel.connection)
        found = sorted([(await queue.get(timeout=20)).payload for _ in range(2)])
        self.assertIn(found, ([1, 2], [0, 1]))  # the ack of 0 may not have reached the broker
        await queue.put("more")

    async def test_buffer(self) -> None:
        """Not durable, deleted when it is closed, transient messages that need no ack (kombu M4)."""
        buffer = SimpleBuffer(self.connection(), self.name("buffer"))
        await buffer.put(1)
        await buffer.put(2)
        message = await buffer.get(timeout=10)
        self.assertEqual((message.payload, message.properties["delivery_mode"], message.acknowledged), (1, 1, True))
        self.assertEqual((buffer.no_ack, buffer.queue.durable, buffer.queue.auto_delete), (True, False, True))
        self.assertEqual((await buffer.qsize(), await buffer.clear()), (1, 1))
        await self.failure(buffer.get_nowait(), buffer.Empty)
        await buffer.close()
        again = self.connection().SimpleBuffer(buffer.queue.name)
        self.assertEqual(await again.qsize(), 0)
        await again.channel.queue_delete(buffer.queue.name)

    async def test_buffer_after_close(self) -> None:
        """Its queue has gone with its last user, and its exchange: a later call makes both again (kombu M4, M9)."""
        buffer = SimpleBuffer(self.connection(), self.name("buffer"))
        for number in range(2):
            await buffer.put(number)
            self.assertEqual((await buffer.get(timeout=10)).payload, number)
            await buffer.close()

    async def test_somebody_deletes_the_queue(self) -> None:
        """kombu (b) 6, R25: what was declared is declared again, and used."""
        queue = self.simple()
        await queue.put(0)
        (await queue.get(timeout=10)).ack()
        waiting = queue.get()
        await (await self.connection().channel()).queue_delete(queue.queue.name)
        if not self.recovers:
            await self.failure(waiting, ConsumerCancelled)
            waiting = queue.get()
        for _ in range(200):
            await queue.put(1)
            await self.pause(0.02)
            if waiting.called:
                break
        self.assertEqual((await waiting).payload, 1)


class SimpleOverMemory(OverMemory, SimpleCases):
    """Over memory://."""


class SimpleOverBroker(OverBroker, SimpleCases):
    """Over the embedded broker."""


class SimpleOverRabbitMQ(OverRabbitMQ, SimpleCases):
    """Over RabbitMQ."""
