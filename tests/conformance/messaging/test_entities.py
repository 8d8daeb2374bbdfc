"""Exchanges, queues and bindings at a broker: what declaring does where the broker decides."""

from __future__ import annotations

from typing import Any

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.errors import (
    AccessRefused,
    ContentDisallowed,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)
from txmsg.messaging import Broadcast, Exchange, Queue, binding, maybe_declare


class EntityCases(MessagingCase):
    """The cases."""

    async def publish(self, exchange: Exchange, *keys: str, **options: Any) -> None:
        """A message to each key, whose body is the key."""
        for key in keys:
            await exchange.publish(exchange.Message(key, **options), key)

    async def bodies(self, queue: Queue) -> list[bytes]:
        """All that is in a queue."""
        found = []
        while (message := await queue.get(no_ack=True)) is not None:
            found.append(message.body)
        return found

    async def test_topic(self) -> None:
        """kombu E10, F16, F19, F20, celery C-02: words, `*` and `#`; a queue with two bindings gets one copy."""
        connection = self.connection()
        exchange = Exchange(self.name("x"), "topic", durable=False)(connection)
        keys = ["usd.stock", "eur.stock.db", "stock.nasdaq", "a.b.stock", ""]
        wanted = {"*.stock.#": keys[:2], "#": keys, "a.*.stock": keys[3:4]}
        queues = {}
        for pattern in wanted:
            queues[pattern] = Queue("", exchange, pattern, exclusive=True)(connection)
            await queues[pattern].declare()
        both = Queue("", [exchange.binding("#.stock"), exchange.binding("usd.#")], exclusive=True)(connection)
        await both.declare()
        await self.publish(exchange, *keys)
        for pattern, expected in wanted.items():
            self.assertEqual(await self.bodies(queues[pattern]), [key.encode() for key in expected], pattern)
        self.assertEqual(await self.bodies(both), [b"usd.stock", b"a.b.stock"])
        await both.unbind_from(exchange, "usd.#")
        await self.publish(exchange, "usd.x", "x.stock")
        self.assertEqual(await self.bodies(both), [b"x.stock"])

    async def test_headers(self) -> None:
        """kombu E11, F10: x-match all and any; no x-match is all; 1 is not "1"; an absent value asks for presence."""
        connection = self.connection()
        exchange = Exchange(self.name("x"), "headers", durable=False)(connection)
        cases: dict[str, dict[str, Any]] = {
            "all": {"x-match": "all", "a": 1, "b": "2"},
            "any": {"x-match": "any", "a": 1, "b": "2"},
            "default": {"a": 1, "b": "2"},
            "strict": {"a": "1"},
            "present": {"a": None},
            "everything": {"x-match": "all"},
            "nothing": {"x-match": "any"},
        }
        queues = {}
        for case, arguments in cases.items():
            queues[case] = Queue("", exchange, binding_arguments=arguments, exclusive=True)(connection)
            await queues[case].declare()
        await exchange.publish(exchange.Message(b"ab", headers={"a": 1, "b": "2"}))
        await exchange.publish(exchange.Message(b"a", headers={"a": 1}))
        await exchange.publish(exchange.Message(b"none"))
        expected = {
            "all": [b"ab"],
            "any": [b"ab", b"a"],
            "default": [b"ab"],
            "strict": [],
            "present": [b"ab", b"a"],
            "everything": [b"ab", b"a", b"none"],
            "nothing": [],
        }
        self.assertEqual({case: await self.bodies(queue) for case, queue in queues.items()}, expected)

    async def test_fanout(self) -> None:
        """kombu E12, O1: the key is ignored; each Broadcast has a copy."""
        connection = self.connection()
        name = self.name("x")
        queues = [Broadcast(name, exchange=Exchange(name, "fanout", durable=False))(connection) for _ in range(2)]
        for queue in queues:
            await queue.declare()
        await self.publish(Exchange(name, "fanout")(connection), "a", "b")
        for queue in queues:
            self.assertEqual(await self.bodies(queue), [b"a", b"b"])
            await queue.delete()

    async def test_exchange_to_exchange(self) -> None:
        """kombu E16, E17: from one exchange into another, and no more after unbinding; if_unused while it is bound."""
        connection = self.connection()
        source = Exchange(self.name("s"), "topic", durable=False)(connection)
        target = Exchange(self.name("t"), "fanout", durable=False)(connection)
        queue = Queue("", target, exclusive=True)(connection)
        await source.declare()
        await queue.declare()
        await target.bind_to(source, "a.#")
        await self.publish(source, "a.b", "b.a")
        await target.unbind_from(source, "a.#")
        await self.publish(source, "a.c")
        self.assertEqual(await self.bodies(queue), [b"a.b"])
        await self.failure(target.delete(if_unused=True), PreconditionFailed)
        await target(self.connection()).delete()
        await source(self.connection()).delete()
        await self.failure(Exchange(source.name)(self.connection()).declare(passive=True), NotFound)

    async def test_what_is_there_already(self) -> None:
        """kombu E13, E15, F18: the same again is fine, another definition is not; passive only looks."""
        name = self.name("q")
        connection = self.connection()
        queue = Queue(name, durable=False, expires=60, max_length=3)
        await queue(connection).declare()
        await queue(connection).declare()
        await self.failure(Queue(name, expires=60, max_length=3)(self.connection()).declare(), PreconditionFailed)
        found = await queue(connection).queue_declare(passive=True)
        self.assertEqual(found, (name, 0, 0))
        await self.failure(Queue("no-" + name)(self.connection()).queue_declare(passive=True), NotFound)
        await self.failure(Exchange(name, passive=True)(self.connection()).declare(), NotFound)
        await queue(connection).delete()

    async def test_exclusive(self) -> None:
        """kombu F4: it is this connection's alone, and goes with it."""
        connection, other = self.connection(), self.connection()
        queue = Queue(self.name("q"), exclusive=True)
        await queue(connection).declare()
        await self.failure(queue(other).declare(), ResourceLocked)
        await connection.close()
        await self.failure(queue(self.connection()).queue_declare(passive=True), NotFound)

    async def test_auto_delete(self) -> None:
        """kombu F5, F24: it goes with its last consumer, and not before it had one."""
        connection = self.connection()
        queue = Queue(self.name("q"), durable=False, auto_delete=True)(connection)
        await queue.declare()
        await queue.get()
        await queue.queue_declare(passive=True)
        tag = await queue.consume(callback=lambda delivery: None)
        await queue.cancel(tag)
        await self.failure(queue.queue_declare(passive=True), NotFound)

    async def test_expires(self) -> None:
        """kombu F6: seconds; what nobody uses goes; the broker refuses 0."""
        connection = self.connection()
        queue = Queue(self.name("q"), expires=0.1)(connection)
        await queue.declare()

        async def is_gone() -> bool:
            try:
                await queue(self.connection()).queue_declare(passive=True)
            except NotFound:
                return True
            return False

        for _ in range(20):  # asking is not using it
            if await is_gone():
                break
            await self.pause(0.1)
        else:
            self.fail("the queue is still there")
        await self.failure(Queue(self.name("q"), expires=0)(self.connection()).declare(), PreconditionFailed)

    async def test_limits(self) -> None:
        """kombu F7 to F9, F12: TTL 0 keeps nothing, the oldest make room, the highest priority goes first."""
        connection = self.connection()
        default = Exchange("")(connection)
        no_time = Queue("", exclusive=True, message_ttl=0)(connection)
        short = Queue("", exclusive=True, max_length=2)(connection)
        small = Queue("", exclusive=True, max_length_bytes=5)(connection)
        ranked = Queue("", exclusive=True, max_priority=5)(connection)
        for queue in (no_time, short, small, ranked):
            await queue.declare()
            for number in range(4):
                await default.publish(default.Message(f"{number}--", priority=number), queue.name)
        self.assertEqual(await self.bodies(no_time), [])
        self.assertEqual(await self.bodies(short), [b"2--", b"3--"])
        self.assertEqual(await self.bodies(small), [b"3--"])
        self.assertEqual(await self.bodies(ranked), [b"3--", b"2--", b"1--", b"0--"])

    async def test_get(self) -> None:
        """kombu F23: a message or None; the accept list holds for its payload; it is to be settled."""
        connection = self.connection()
        queue = Queue("", exclusive=True)(connection)
        await queue.declare()
        self.assertIsNone(await queue.get())
        default = Exchange("")(connection)
        await default.publish(default.Message(b"[1]", content_type="application/json"), queue.name)
        refused = await queue.get(accept=[])
        assert refused is not None
        with self.assertRaises(ContentDisallowed):
            refused.payload  # noqa: B018
        refused.requeue()
        message = await queue.get()
        assert message is not None
        self.assertEqual((message.payload, message.redelivered), ([1], True))
        message.ack()
        self.assertIsNone(await queue.get())

    async def test_purge_and_delete(self) -> None:
        """kombu F25: how many went; if_empty and if_unused are the broker's errors."""
        connection = self.connection()
        queue = Queue(self.name("q"), durable=False)(connection)
        await queue.declare()
        for count in (2, 3):
            for _ in range(count):
                await Exchange("")(connection).publish(b"x", queue.name)
            if count == 2:
                self.assertEqual(await queue.purge(), 2)
        await self.failure(queue(self.connection()).delete(if_empty=True), PreconditionFailed)
        consuming = await self.connection().channel()
        await Queue(queue.name, no_ack=True)(consuming).consume("tag", lambda delivery: None)
        await self.failure(queue(self.connection()).delete(if_unused=True), PreconditionFailed)
        await consuming.cancel("tag")
        await Exchange("")(connection).publish(b"x", queue.name)
        self.assertEqual(await queue.delete(), 1)
        self.assertEqual(await queue.delete(), 0)

    async def test_reserved_names(self) -> None:
        """kombu E14: the broker's own exchanges are used without a word; a queue cannot have such a name."""
        connection = self.connection()
        queue = Queue("", Exchange("amq.topic", "topic"), self.name("k"), exclusive=True)(connection)
        await queue.declare()
        await self.publish(Exchange("amq.topic")(connection), queue.routing_key)
        self.assertEqual(await self.bodies(queue), [queue.routing_key.encode()])
        await self.failure(Queue("amq.mine")(self.connection()).declare(), AccessRefused)

    async def test_server_named(self) -> None:
        """kombu F17: the name is there for the original; declared again it is the same queue, or another once gone."""
        connection = self.connection()
        queue = Queue(durable=False)
        self.assertTrue(await maybe_declare(queue, connection))
        first = queue.name
        self.assertTrue(first.startswith("amq.gen-"))
        await Exchange("")(connection).publish(b"x", first)
        self.assertEqual(await queue(connection).declare(), first)
        self.assertEqual(await queue(connection).delete(), 1)
        again = await queue(connection).declare()
        self.assertNotEqual(again, first)
        self.assertEqual(queue.name, again)
        await queue(connection).delete()

    async def test_durable_queue_and_transient_exchange(self) -> None:
        """kombu E21: the two can be bound, as RabbitMQ has it."""
        connection = self.connection()
        exchange = Exchange(self.name("x"), durable=False, auto_delete=True)
        queue = Queue(self.name("q"), [binding(exchange, "k")])(connection)
        await queue.declare()
        await self.publish(exchange(connection), "k")
        self.assertEqual(await queue.delete(), 1)

    async def test_maybe_declare_after_a_loss(self) -> None:
        """kombu O2: once for a connection; after a loss it is declared again."""
        connection = self.connection()
        queue = Queue(self.name("q"), durable=False)
        self.assertTrue(await maybe_declare(queue, connection))
        self.assertFalse(await maybe_declare(queue, connection))
        await queue(self.connection()).delete()
        await self.cut()
        await self.until(lambda: queue not in connection.declared_entities)
        await connection.ensure_connection()
        self.assertTrue(await maybe_declare(queue, connection))
        await queue(connection).delete()


class EntitiesOverMemory(OverMemory, EntityCases):
    """In this process."""


class EntitiesOverBroker(OverBroker, EntityCases):
    """On a socket."""


class EntitiesOverRabbitMQ(OverRabbitMQ, EntityCases):
    """RabbitMQ has the last word."""
