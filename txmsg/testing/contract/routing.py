"""The contract of the exchange types: which queues a message reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from txmsg.testing.contract.case import ContractCase, needs

__all__ = ["RoutingContract"]


class RoutingContract(ContractCase):
    """Each type that a transport says it has routes as RabbitMQ's does."""

    async def routed(
        self, channel: Any, exchange: str, key: str, queues: Mapping[str, str], **headers: Any
    ) -> list[str]:
        """The names in `queues` of those that a message reaches; each has it once."""
        await channel.publish(exchange, key, b"x", {"headers": headers} if headers else None)
        found: list[str] = []
        for name, queue in queues.items():
            while await channel.get(queue, no_ack=True) is not None:
                found.append(name)
        return sorted(found)

    async def bound(self, channel: Any, kind: str, bindings: Iterable[tuple[str, Any]]) -> tuple[str, dict[str, str]]:
        """An exchange of this kind and queues bound to it, by the key or the arguments of the binding."""
        exchange = self.unique(kind)
        await channel.exchange_declare(exchange, kind)
        self.addCleanup(self._delete, exchange)
        queues: dict[str, str] = {}
        for name, binding in bindings:
            queue = queues.get(name) or await self.queue(channel)
            queues[name] = queue
            is_key = isinstance(binding, str)
            await channel.queue_bind(queue, exchange, binding if is_key else "", None if is_key else binding)
        return exchange, queues

    async def _delete(self, exchange: str) -> None:
        connection = await self.new_connection()
        channel = await connection.channel()
        await channel.exchange_delete(exchange)
        await connection.close()

    @needs("exchanges")
    async def test_direct(self) -> None:
        """The very key; a queue that is bound twice gets it once."""
        channel = await self.channel()
        bindings = [("one", "a.b"), ("one", "a.c"), ("two", "a.b"), ("three", "a.*"), ("three", "#")]
        exchange, queues = await self.bound(channel, "direct", bindings)
        for key, expected in (("a.b", ["one", "two"]), ("a.c", ["one"]), ("a.*", ["three"]), ("a", []), ("A.B", [])):
            with self.subTest(key=key):
                self.assertEqual(await self.routed(channel, exchange, key, queues), expected)

    @needs("exchanges")
    async def test_fanout(self) -> None:
        """All of them, whatever the key."""
        channel = await self.channel()
        exchange, queues = await self.bound(channel, "fanout", [("one", "a"), ("one", "b"), ("two", "")])
        self.assertEqual(await self.routed(channel, exchange, "zzz", queues), ["one", "two"])

    @needs("exchanges")
    async def test_topic(self) -> None:
        """`*` is one word, `#` any number of them; all else is itself, whatever it means in other patterns."""
        channel = await self.channel()
        patterns = ["*.stock.#", "*.stock", "#", "a.#", "#.a.#", "*", "a.(b|c)", "a.b+", "a.[bc]", "a.?", "a.*.c"]
        exchange, queues = await self.bound(channel, "topic", [(pattern, pattern) for pattern in patterns])
        for key, expected in (
            ("usd.stock", ["#", "*.stock", "*.stock.#"]),
            ("eur.stock.db", ["#", "*.stock.#"]),
            ("a.stock.b.c", ["#", "#.a.#", "*.stock.#", "a.#"]),
            ("stock.nasdaq", ["#"]),
            ("a", ["#", "#.a.#", "*", "a.#"]),
            ("", ["#"]),
            ("a.b", ["#", "#.a.#", "a.#"]),
            ("a..c", ["#", "#.a.#", "a.#", "a.*.c"]),
            ("a.(b|c)", ["#", "#.a.#", "a.#", "a.(b|c)"]),
            ("a.b+", ["#", "#.a.#", "a.#", "a.b+"]),
            ("a.[bc]", ["#", "#.a.#", "a.#", "a.[bc]"]),
            ("a.bb", ["#", "#.a.#", "a.#"]),
            ("a.?", ["#", "#.a.#", "a.#", "a.?"]),
        ):
            with self.subTest(key=key):
                self.assertEqual(await self.routed(channel, exchange, key, queues), sorted(expected))

    @needs("exchanges")
    async def test_headers(self) -> None:
        """All of them, or any; "x-" ones do not count; one without a value asks for its presence."""
        channel = await self.channel()
        exchange, queues = await self.bound(
            channel,
            "headers",
            [
                ("all", {"x-match": "all", "a": 1, "b": "two"}),
                ("any", {"x-match": "any", "a": 1, "b": "two"}),
                ("there", {"x-match": "all", "c": None}),
            ],
        )
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"a": 1, "b": "two"}, ["all", "any"]),
            ({"a": 1, "b": "three"}, ["any"]),
            ({"a": "1"}, []),
            ({"c": 17}, ["there"]),
            ({"other": 1}, []),
        ]
        for headers, expected in cases:
            with self.subTest(headers=headers):
                self.assertEqual(await self.routed(channel, exchange, "", queues, **headers), expected)

    async def test_the_default_exchange(self) -> None:
        """Every queue is there under its name, without a binding, from the moment it is declared."""
        channel = await self.channel()
        queues = {name: await self.queue(channel) for name in ("one", "two")}
        self.assertEqual(await self.routed(channel, "", queues["one"], queues), ["one"])
        self.assertEqual(await self.routed(channel, "", "nobody." + queues["one"], queues), [])

    @needs("exchanges", "exchange bindings")
    async def test_exchanges_bound_to_exchanges(self) -> None:
        """A message that takes two ways to a queue is there once; circles do no harm."""
        channel = await self.channel()
        outer, queues = await self.bound(channel, "fanout", [("one", "")])
        inner, more = await self.bound(channel, "fanout", [("two", "")])
        await channel.queue_bind(queues["one"], inner)
        await channel.exchange_bind(inner, outer)
        await channel.exchange_bind(outer, inner)
        self.assertEqual(await self.routed(channel, outer, "", queues | more), ["one", "two"])
