"""The same bindings and messages on RabbitMQ and on our model: the same queues get the same messages."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from tests.broker.model import make_vhost, publish, take
from tests.cases import RabbitMQTestCase
from txmsg.amqp import Channel, Delivery, connect
from txmsg.wire.field_values import Float32, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32
from txmsg.wire.properties import BasicProperties

#: A binding key or routing key, and the arguments or headers.
Keyed: TypeAlias = tuple[str, Mapping[str, Any] | None]
#: For each binding, the numbers of the messages that went through.
Routed: TypeAlias = list[list[int]]


def through_model(type: str, bindings: Sequence[Keyed], messages: Sequence[Keyed]) -> Routed:
    """Each binding leads to a queue of its own; what do the queues get?"""
    vhost = make_vhost()
    vhost.declare_exchange("x", type)
    queues = []
    for number, (key, arguments) in enumerate(bindings):
        queues.append(vhost.declare_queue(f"q{number}"))
        vhost.bind_queue(f"q{number}", "x", key, arguments)
    for number, (key, headers) in enumerate(messages):
        publish(vhost, "x", key, str(number).encode(), headers=headers)
    return [[int(message.body) for message in take(queue)] for queue in queues]


class _Collector:
    """Collects what a queue holds until the last message that was put into it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.done: Deferred[None] = Deferred()

    def __call__(self, delivery: Delivery) -> None:
        if delivery.body == b"end":
            self.done.callback(None)
        else:
            self.numbers.append(int(delivery.body))


class RoutingTests(RabbitMQTestCase):
    """R34: where the two disagree, RabbitMQ is right."""

    timeout = 60

    async def through_rabbitmq(self, type: str, bindings: Sequence[Keyed], messages: Sequence[Keyed]) -> Routed:
        """What the queues get there."""
        connection = await connect(self.parameters())
        self.addCleanup(connection.close)
        channel: Channel = await connection.channel()
        exchange = self.name("x")
        await channel.exchange_declare(exchange, type, auto_delete=True)
        collectors = []
        names = []
        for key, arguments in bindings:
            declared = await channel.queue_declare("", exclusive=True)
            names.append(declared.queue)
            await channel.queue_bind(declared.queue, exchange, key, arguments=arguments)
            collectors.append(_Collector())
            await channel.basic_consume(declared.queue, collectors[-1], no_ack=True)
        await channel.confirm_select()
        for number, (key, headers) in enumerate(messages):
            properties = BasicProperties(headers=headers)
            await channel.basic_publish(exchange, key, str(number).encode(), properties)
        for name in names:
            await channel.basic_publish("", name, b"end")
        for collector in collectors:
            await collector.done
        return [collector.numbers for collector in collectors]

    async def compare(self, type: str, bindings: Sequence[Keyed], messages: Sequence[Keyed]) -> None:
        """Each binding that differs, with the messages it should have let through and those it did."""
        theirs = await self.through_rabbitmq(type, bindings, messages)
        ours = through_model(type, bindings, messages)
        differences = [
            (binding, [messages[number] for number in right], [messages[number] for number in wrong])
            for binding, right, wrong in zip(bindings, theirs, ours, strict=True)
            if right != wrong
        ]
        self.assertEqual(differences, [])
        # It must not be because nothing matches.
        self.assertGreater(sum(map(len, ours)), len(bindings))

    async def test_topic(self) -> None:
        """C7.6, MB: patterns of all short combinations, and many longer ones, against keys of the same words."""
        chance = random.Random(20261121)
        words = ("a", "b", "", "*", "#", "a*", "#a")
        short = [".".join(some) for size in (0, 1, 2) for some in itertools.product(words[:5], repeat=size)]
        long = {".".join(chance.choices(words, k=chance.randint(3, 6))) for _ in range(90)}
        patterns = sorted({*short, *long, "a(.*)", "a.[b]", "é.#", "#.a.#.b.#"})
        key_words = ("a", "b", "", "c", "*", "#", "a*")
        keys = {".".join(chance.choices(key_words, k=chance.randint(3, 7))) for _ in range(120)}
        keys |= {".".join(some) for size in (0, 1, 2) for some in itertools.product(key_words[:4], repeat=size)}
        keys |= {"a(.*)", "a.[b]", "a.b", "é", "é.ü", "."}
        await self.compare("topic", [(key, None) for key in patterns], [(key, None) for key in sorted(keys)])

    async def test_direct(self) -> None:
        """R34: keys are the same to the letter."""
        keys: list[Keyed] = [(key, None) for key in ("", "a", "A", "a ", "a.b", "#", "*", "é", "e\u0301")]
        await self.compare("direct", keys, [*keys, *keys])

    async def test_headers(self) -> None:
        """MB, R34: each way to match with each kind of value on both sides."""
        values: tuple[Any, ...] = (
            *(None, True, False, 0, 1, -1, 1.0, 0.0, 1.5, "", "1", "a", "true", b"", b"a", b"1"),
            *(Int8(1), UInt8(1), Int16(1), UInt16(1), Int32(1), UInt32(1), Int64(1), Timestamp(1), Float32(1.5)),
            *(2**40, Decimal("1.0"), Decimal("1.00"), Decimal(1)),
            *([], [1], [1.0], [Int64(1)], [[1]], ["a"], {}, {"a": 1}, {"a": Int64(1)}, {"b": {"a": 1}}),
        )
        bindings: list[Keyed] = [("", {"h": value}) for value in values]
        messages: list[Keyed] = [("", {"h": value}) for value in values]
        messages += [("", None), ("", {}), ("", {"g": 1})]
        await self.compare("headers", bindings, messages)

    async def test_header_combinations(self) -> None:
        """MB: all, any and their forms with x-, over tables of a few names."""
        chance = random.Random(8)
        names, values = ("a", "b", "c", "x-d", "X-E", "x-"), (1, 2, "1", None, True)

        def table(most: int) -> dict[str, Any]:
            return {name: chance.choice(values) for name in chance.sample(names, chance.randint(0, most))}

        bindings: list[Keyed] = [("", None), ("", {"x-match": "all"}), ("", {"x-match": "any"})]
        for match in (None, "all", "any", "all-with-x", "any-with-x"):
            for _ in range(16):
                bindings.append(("", {**({} if match is None else {"x-match": match}), **table(3)}))
        messages: list[Keyed] = [("", None), *(("", table(6)) for _ in range(150))]
        await self.compare("headers", bindings, messages)
