"""The contract of declaring, binding and deleting."""

from __future__ import annotations

from typing import Any

from txmsg.errors import AccessRefused, ChannelClosed, NotFound, PreconditionFailed, ResourceLocked
from txmsg.testing.contract.case import ContractCase, needs

__all__ = ["TopologyContract"]


class TopologyContract(ContractCase):
    """Exchanges and queues: the same answers as a broker's."""

    @needs("exchanges", "exchange bindings")
    async def test_exchanges(self) -> None:
        """Declared, bound to each other, unbound, deleted; all four types route."""
        channel = await self.channel()
        queue = await self.queue(channel)
        inner = self.unique("inner")
        await channel.exchange_declare(inner, "direct", auto_delete=True)
        await channel.queue_bind(queue, inner, "key")
        for kind in ("direct", "fanout", "topic", "headers"):
            with self.subTest(kind=kind):
                outer = self.unique(kind)
                await channel.exchange_declare(outer, kind)
                await channel.exchange_bind(inner, outer, "key", {"x-match": "any", "h": 1})
                await channel.publish(outer, "key", b"1", {"headers": {"h": 1}})
                self.assertEqual((await channel.get(queue, no_ack=True)).body, b"1")
                await channel.exchange_unbind(inner, outer, "key", {"x-match": "any", "h": 1})
                await channel.publish(outer, "key", b"2", {"headers": {"h": 1}})
                self.assertIsNone(await channel.get(queue))
                await channel.exchange_delete(outer)
                await channel.exchange_delete(outer)

    @needs("exchanges")
    async def test_queues(self) -> None:
        """Declared by name or without, looked at, bound, unbound, purged, deleted."""
        channel = await self.channel()
        named = await channel.queue_declare("")
        self.assertTrue(named.name.startswith("amq.gen-"))
        self.assertEqual(tuple(named), (named.name, 0, 0))
        await channel.queue_bind(named.name, "amq.topic", "a.#")
        await channel.publish("amq.topic", "a.b", b"")
        self.assertEqual((await channel.queue_declare(named.name, passive=True)).message_count, 1)
        await channel.queue_unbind(named.name, "amq.topic", "a.#")
        await channel.publish("amq.topic", "a.b", b"")
        self.assertEqual(await channel.queue_purge(named.name), 1)
        await channel.publish("", named.name, b"")
        self.assertEqual(await channel.queue_delete(named.name), 1)
        self.assertEqual(await channel.queue_delete(named.name), 0)

    @needs("exchanges", "exclusive", "queue arguments")
    async def test_refusals(self) -> None:
        """The same error, with the broker's words, for the same mistake."""
        owner = await self.channel()
        exclusive = (await owner.queue_declare("", exclusive=True)).name
        queue = await self.queue(owner, arguments={"x-max-length": 5})
        exchange = self.unique("x")
        await owner.exchange_declare(exchange, "fanout", auto_delete=True)
        await owner.queue_bind(queue, exchange)
        cases: list[tuple[str, type[ChannelClosed], Any, Any]] = [
            ("no queue", NotFound, "queue_declare", {"queue": "no.such.queue", "passive": True}),
            ("inequivalent arg 'x-max-length'", PreconditionFailed, "queue_declare", {"queue": queue}),
            ("inequivalent arg 'type'", PreconditionFailed, "exchange_declare", {"exchange": exchange}),
            ("in use", PreconditionFailed, "exchange_delete", {"exchange": exchange, "if_unused": True}),
            ("cannot obtain exclusive access", ResourceLocked, "queue_declare", {"queue": exclusive, "passive": True}),
            ("no queue", NotFound, "get", {"queue": "no.such.queue"}),
            ("no queue", NotFound, "queue_bind", {"queue": "no.such.queue", "exchange": exchange}),
            ("no queue", NotFound, "queue_purge", {"queue": "no.such.queue"}),
        ]
        other = await self.connect()
        for text, kind, method, arguments in cases:
            with self.subTest(method=method, text=text):
                channel = await other.channel()
                if method == "queue_declare" and "passive" not in arguments:
                    arguments = arguments | {"auto_delete": True}
                error = await self.failure(getattr(channel, method)(**arguments), kind)
                self.assertIn(text, error.reply_text)
                self.assertEqual(error.initiator, "server")

    @needs("exclusive")
    async def test_exclusive_queues_end_with_the_connection(self) -> None:
        """And with nothing else."""
        connection = await self.connect()
        other = await self.channel()
        first = await connection.channel()
        name = (await first.queue_declare("", exclusive=True)).name
        await first.close()
        second = await connection.channel()
        await second.queue_declare(name, passive=True)
        await connection.close()
        await self.failure(other.queue_declare(name, passive=True), NotFound)

    @needs("exchanges")
    async def test_what_makes_exchanges_the_same(self) -> None:
        """Type, durability, auto-delete, internal and arguments; the same again is fine, anything else is refused."""
        connection = await self.connect()
        channel = await connection.channel()
        exchange, other = self.unique("x"), self.unique("other")
        await channel.exchange_declare(other, "fanout")
        declared = {"exchange_type": "topic", "durable": False, "arguments": {"alternate-exchange": other}}
        await channel.exchange_declare(exchange, **declared)
        await channel.exchange_declare(exchange, **declared)
        await channel.exchange_declare(exchange, passive=True)
        differences: list[dict[str, Any]] = [
            {"exchange_type": "direct"},
            {"durable": True},
            {"auto_delete": True},
            {"internal": True},
            {"arguments": None},
        ]
        for change in differences:
            with self.subTest(change=change):
                second = await connection.channel()
                await self.failure(second.exchange_declare(exchange, **(declared | change)), PreconditionFailed)
                await second.close()
        await channel.exchange_delete(exchange)
        await channel.exchange_delete(other)
        await self.failure(channel.exchange_declare(exchange, passive=True), NotFound)

    @needs("exchanges")
    async def test_reserved_names(self) -> None:
        """The exchanges of a broker are there, and `amq.` is its own."""
        connection = await self.connect()
        for exchange, kind in (("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic")):
            channel = await connection.channel()
            await channel.exchange_declare(exchange, kind, durable=True)
            await channel.close()
        for call, arguments in (
            ("exchange_declare", ("amq.mine", "direct")),
            ("queue_declare", ("amq.mine",)),
            ("exchange_delete", ("amq.direct",)),
        ):
            with self.subTest(call=call):
                channel = await connection.channel()
                await self.failure(getattr(channel, call)(*arguments), AccessRefused)
                await channel.close()

    @needs("exchanges")
    async def test_auto_delete(self) -> None:
        """A queue goes with its last consumer, and not before it has had one; an exchange with its last binding."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        queue, exchange = await self.queue(channel, b"x"), self.unique("x")
        await channel.exchange_declare(exchange, "fanout", auto_delete=True)
        await channel.queue_bind(queue, exchange)
        first = await channel.consume(queue, print, no_ack=False)
        second = await other.consume(queue, print)
        await channel.cancel(first)
        self.assertEqual((await channel.queue_declare(queue, passive=True)).consumer_count, 1)
        await other.cancel(second)
        await self.failure(channel.queue_declare(queue, passive=True), NotFound)
        last = await connection.channel()
        await self.failure(last.exchange_declare(exchange, passive=True), NotFound)

    async def test_deletes_with_a_condition(self) -> None:
        """`if_unused`, `if_empty`: refused, and it is there still."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel, b"x")
        await self.failure(channel.queue_delete(queue, if_empty=True), PreconditionFailed)
        second = await connection.channel()
        tag = await second.consume(queue, print, no_ack=False)
        third = await connection.channel()
        await self.failure(third.queue_delete(queue, if_unused=True), PreconditionFailed)
        await second.queue_declare(queue, passive=True)
        await second.cancel(tag)
