"""The real Kombu on the other side: what we publish it consumes, and the reverse, through one broker.

Every serializer, compression, header and property; entities that one of the two declares again; requests and replies.
Kombu blocks, so it runs in a thread, with a limit to each of its waits.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import kombu as untyped_kombu
import kombu.common as untyped_common

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverRabbitMQ
from tests.messaging.strategies import same
from txmsg.messaging import (
    Connection,
    Consumer,
    Exchange,
    Message,
    Producer,
    Queue,
    register_pickle,
    serializers,
)

kombu: Any = untyped_kombu
common: Any = untyped_common

SERIALIZERS = ["json", "yaml", "msgpack", "pickle"]
COMPRESSIONS = [None, "zlib", "gzip", "bzip2", "lzma", "zstd", "brotli"]
ACCEPT = [*SERIALIZERS, "text/plain", "image/png"]

VALUE: dict[str, Any] = {"none": None, "int": -(2**40), "float": 1.5, "text": "naïve \N{SNOWMAN}", "list": [1, [], {}]}
TYPED: dict[str, Any] = {
    "aware": datetime.datetime(2026, 11, 21, 17, 0, 0, 123456, tzinfo=datetime.UTC),
    "date": datetime.date(2026, 11, 21),
    "time": datetime.time(12, 30, 1, 5),
    "uuid": uuid.UUID(int=7),
    "decimal": Decimal("1.10"),
    "bytes": b"\x00\xff",
}
HEADERS: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": 7,
    "negative": -1,
    "long": 2**40,
    "float": 1.5,
    "text": "ä",
    "empty": "",
    "decimal": Decimal("3.14"),
    "list": [1, "two", [3], {"four": 4}],
    "table": {"a": {"b": [None, True]}},
}
OTHERS: list[Any] = [TYPED, "text ä", b"\x00octets", [], 0, False, None]
SENT = datetime.datetime(2026, 11, 21, 17, tzinfo=datetime.UTC)
PROPERTIES: dict[str, Any] = {
    "correlation_id": "c-1",
    "reply_to": "replies",
    "message_id": "m-1",
    "type": "order",
    "user_id": "guest",
    "app_id": "app",
    "cluster_id": "cluster",
}


def consume_in_kombu(url: str, queue: str, count: int) -> list[Any]:
    """What Kombu gets: (value, message) of each."""
    got: list[Any] = []

    def received(body: Any, message: Any) -> None:
        got.append((body, message))
        message.ack()

    with (
        kombu.Connection(url) as connection,
        connection.Consumer([kombu.Queue(queue, no_declare=True)], callbacks=[received], accept=ACCEPT),
    ):
        while len(got) < count:
            connection.drain_events(timeout=10)
    return got


def with_kombu(url: str, use: Callable[[Any], Any]) -> Any:
    """Call `use(connection)`, which must not wait for long."""
    with kombu.Connection(url) as connection:
        return use(connection)


class KombuCases(MessagingCase):
    """Both ways."""

    __test__ = False
    _pickles = False

    async def kombu(self, use: Callable[[Any], Any]) -> Any:
        """Call `use(Kombu's connection)` in a thread."""
        return await self.in_thread(with_kombu, self.url(), use)

    def allow_pickle(self) -> None:
        """Until the end of the case."""
        if not self._pickles:
            self._pickles = True
            register_pickle([uuid.UUID])
            self.addCleanup(serializers.unregister, "pickle")

    async def take(self, connection: Connection, queue: str, count: int) -> list[Message]:
        """So many messages of the queue, acked."""
        self.allow_pickle()
        got: list[Message] = []

        def on_message(message: Message) -> None:
            got.append(message)
            message.ack()

        compressions = [name for name in COMPRESSIONS if name]
        consumer = Consumer(
            connection,
            [Queue(queue, no_declare=True)],
            on_message=on_message,
            accept=ACCEPT,
            accept_compression=compressions,
        )
        async with consumer:
            await self.until(lambda: len(got) == count)
        return got

    async def test_bodies_to_kombu(self) -> None:
        """Kombu G4, G5, G12 to G15, G29, J1, J2, K1, K3: each serializer with each compression; text and octets."""
        self.allow_pickle()
        connection, name = self.connection(), self.name("q")
        await Queue(name)(connection).declare()
        producer, expected = Producer(connection, routing_key=name), list[Any]()
        for serializer in SERIALIZERS:
            for compression in COMPRESSIONS:
                await producer.publish(VALUE, serializer=serializer, compression=compression)
                expected.append((VALUE, compression))
        for value in OTHERS:
            await producer.publish(value)
            expected.append((value, None))
        await producer.publish(b"\x89PNG", content_type="image/png", content_encoding="binary")
        expected.append((b"\x89PNG", None))
        got = await self.in_thread(consume_in_kombu, self.url(), name, len(expected))
        for (body, message), (value, compression) in zip(got, expected, strict=True):
            with self.subTest(content_type=message.content_type, compression=compression):
                self.assertTrue(same(body, value), f"{body!r} is not {value!r}")
                self.assertEqual("compression" in message.headers, compression is not None)
        self.assertEqual(got[-1][1].content_type, "image/png")

    async def test_bodies_from_kombu(self) -> None:
        """Kombu I2, I3, I10, J1, J2, J27, K1, K3: each serializer with each compression; text and octets."""
        name, expected = self.name("q"), list[Any]()

        def publish(connection: Any) -> None:
            kombu.Queue(name)(connection).declare()
            producer = connection.Producer(routing_key=name)
            for serializer in SERIALIZERS:
                for compression in COMPRESSIONS:
                    producer.publish(VALUE, serializer=serializer, compression=compression)
                    expected.append(VALUE)
            for value in OTHERS:
                producer.publish(value)
                expected.append(value)
            producer.publish(b"\x89PNG", content_type="image/png", content_encoding="binary")
            expected.append(b"\x89PNG")

        await self.kombu(publish)
        got = await self.take(self.connection(), name, len(expected))
        for message, value in zip(got, expected, strict=True):
            with self.subTest(content_type=message.content_type, headers=message.headers):
                self.assertTrue(same(message.payload, value), f"{message.payload!r} is not {value!r}")

    async def test_properties_to_kombu(self) -> None:
        """Kombu G8, G10, G11, G14, G19, G20: every header and property arrives as it was given."""
        connection, name = self.connection(), self.name("q")
        await Queue(name)(connection).declare()
        await Producer(connection).publish(
            {},
            name,
            headers=HEADERS,
            priority=5,
            expiration=60.5,
            delivery_mode="transient",
            timestamp=SENT,
            **PROPERTIES,
        )
        ((_, message),) = await self.in_thread(consume_in_kombu, self.url(), name, 1)
        self.assertEqual(message.headers, HEADERS)
        self.assertEqual({key: message.properties[key] for key in PROPERTIES}, PROPERTIES)
        self.assertEqual(
            [message.properties[key] for key in ("priority", "expiration", "delivery_mode")], [5, "60500", 1]
        )
        self.assertEqual(message.properties["timestamp"], int(SENT.timestamp()))  # py-amqp has it as a number
        self.assertEqual((message.content_type, message.content_encoding), ("application/json", "utf-8"))
        self.assertEqual(message.delivery_info["routing_key"], name)

    async def test_properties_from_kombu(self) -> None:
        """Kombu I10: every header and property arrives as it was given."""
        name = self.name("q")

        def publish(connection: Any) -> None:
            kombu.Queue(name)(connection).declare()
            connection.Producer().publish(
                {},
                name,
                headers=HEADERS,
                priority=5,
                expiration=60.5,
                delivery_mode=1,
                timestamp=int(SENT.timestamp()),
                **PROPERTIES,
            )

        await self.kombu(publish)
        (message,) = await self.take(self.connection(), name, 1)
        self.assertEqual(message.headers, HEADERS)
        self.assertEqual({key: message.properties[key] for key in PROPERTIES}, PROPERTIES)
        self.assertEqual(
            [message.properties[key] for key in ("priority", "expiration", "delivery_mode")], [5, "60500", 1]
        )
        self.assertEqual(message.properties["timestamp"], int(SENT.timestamp()))
        self.assertEqual(message.delivery_info["routing_key"], name)

    def definitions(self, words: Any, name: str) -> list[Any]:
        """The same entities, by txmsg's classes or by Kombu's."""
        topic = words.Exchange(f"{name}.topic", "topic", durable=False, auto_delete=False)
        headers = words.Exchange(f"{name}.headers", "headers", arguments={"alternate-exchange": f"{name}.topic"})
        return [
            words.Queue(f"{name}.plain", topic, routing_key="a.#", durable=False),
            words.Queue(
                f"{name}.full",
                topic,
                routing_key="*.b",
                expires=60.5,
                message_ttl=30.25,
                max_length=100,
                max_length_bytes=10_000,
                max_priority=5,
                queue_arguments={"x-dead-letter-exchange": f"{name}.topic", "x-dead-letter-routing-key": "dead"},
            ),
            words.Queue(f"{name}.auto", auto_delete=True),
            words.Queue(
                f"{name}.bound",
                bindings=[
                    words.binding(topic, routing_key="one"),
                    words.binding(headers, arguments={"x-match": "any", "kind": "x", "n": 1}),
                ],
            ),
        ]

    async def test_entities_declared_by_both(self) -> None:
        """Kombu E7, F6 to F10, F16, F20: the broker takes the other one's declaration for the same."""
        import txmsg.messaging

        for first in ("kombu", "txmsg"):
            name = self.name(first)

            def declare(connection: Any, name: str = name) -> None:
                for queue in self.definitions(kombu, name):
                    queue(connection).declare()

            async def ours(name: str = name) -> None:
                connection = self.connection()
                for queue in self.definitions(txmsg.messaging, name):
                    await queue(connection).declare()

            if first == "kombu":
                await self.kombu(declare)
                await ours()
            else:
                await ours()
                await self.kombu(declare)

    async def test_settled_by_both(self) -> None:
        """Kombu I5, I6, I16: what one gives back the other gets, flagged; rejected is gone."""
        connection, name = self.connection(), self.name("q")
        queue = Queue(name)(connection)
        await queue.declare()
        await Producer(connection).publish("first", name)
        await Producer(connection).publish("second", name)

        def requeue(connection: Any) -> Any:
            message = kombu.Queue(name)(connection).get()
            message.requeue()
            return message.payload, message.delivery_info["redelivered"]

        self.assertEqual(await self.kombu(requeue), ("first", False))
        message = await queue.get()
        assert message is not None
        self.assertEqual((message.payload, message.redelivered), ("first", True))
        message.requeue()

        def reject(connection: Any) -> Any:
            message = kombu.Queue(name)(connection).get()
            message.reject()
            return message.payload, message.delivery_info["redelivered"]

        self.assertEqual(await self.kombu(reject), ("first", True))
        message = await queue.get(no_ack=True)
        assert message is not None
        self.assertEqual((message.payload, message.redelivered), ("second", False))

    async def test_replies(self) -> None:
        """Kombu O8, O9, O15: Kombu answers our request by send_reply, and we read the reply."""
        connection, name = self.connection(), self.name("q")
        await Queue(name)(connection).declare()
        replies = Queue(f"{name}.replies", Exchange(""), auto_delete=True)(connection)
        await replies.declare()
        await Producer(connection).publish({"n": 2}, name, reply_to=replies, correlation_id="c-1")

        def answer(connection: Any) -> None:
            message = kombu.Queue(name)(connection).get()
            request = message.payload
            common.send_reply(kombu.Exchange(""), message, {"n": request["n"] * 2}, connection.Producer())
            message.ack()

        await self.kombu(answer)
        (reply,) = await self.take(connection, f"{name}.replies", 1)
        self.assertEqual((reply.payload, reply.properties["correlation_id"]), ({"n": 4}, "c-1"))


class KombuOverBroker(OverBroker, KombuCases):
    """On our own broker."""


class KombuOverRabbitMQ(OverRabbitMQ, KombuCases):
    """On RabbitMQ."""
