"""Delayed retries over real brokers, classic and quorum (R22, R26)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from tests.conformance.base import OverBroker, OverRabbitMQ, pause
from tests.conformance.recovery.case import RecoveryCase
from txmsg.amqp import BasicProperties, Delivery, RecoveringChannel, RetryPolicy


class RetryCases(RecoveryCase):
    queue_type: Literal["classic", "quorum"]

    async def declared(self, **options: Any) -> tuple[RetryPolicy, RecoveringChannel, Any]:
        """A policy, a channel, a publisher; the queues are deleted at the end."""
        policy = RetryPolicy(self.name("q")[-100:], queue_type=self.queue_type, **options)
        connection = await self.recovering()
        channel = await connection.channel(prefetch_count=200)
        await policy.declare(channel)
        self.addCleanup(self._delete, policy)
        return policy, channel, connection.publisher()

    async def _delete(self, policy: RetryPolicy) -> None:
        channel = await self.channel()
        for name in (policy.queue, *policy.delay_queues(), policy.dead_letter):
            await channel.queue_delete(name)

    async def test_poison_among_good_ones(self) -> None:
        """R26: a poison message is handled limit + 1 times, all in its headers; the good ones pass."""
        policy, channel, publisher = await self.declared(delays=(0.2, 0.4, 0))
        seen: list[tuple[float, int]] = []
        good: list[bytes] = []

        def handle(delivery: Delivery) -> None:
            if delivery.body == b"poison":
                seen.append((self.now(), policy.retries_of(delivery)))
                raise ValueError("poison")
            good.append(delivery.body)

        await channel.basic_consume(policy.queue, policy.handling(publisher, handle))
        source = await self.channel()
        await source.confirm_select()
        # CC, an expiration and no message id: none of them may be in the way.
        poison = BasicProperties(headers={"CC": [policy.queue + ".none"], "mine": "kept"}, expiration="60000")
        for number in range(100):
            source.basic_publish("", policy.queue, b"%d" % number)
            if number == 50:
                source.basic_publish("", policy.queue, b"poison", poison)
        await source.basic_publish("", policy.queue, b"last")
        await self.until(lambda: len(seen) == 4 and len(good) == 101, 15)
        await self.until_depth(source, policy.dead_letter, 1)
        dead = await self.get(source, policy.dead_letter)
        assert isinstance(dead.properties, BasicProperties)
        headers = dead.properties.headers or {}
        self.assertEqual([count for _, count in seen], [0, 1, 2, 3])
        self.assertEqual((headers["mine"], headers["x-retry-count"]), ("kept", 3))
        self.assertEqual(policy.origin_of(dead), ("", policy.queue))
        history = headers["x-retry-history"]
        self.assertEqual([each.get("delay") for each in history], [200, 400, 0, None])
        self.assertEqual({each["reason"] for each in history}, {"ValueError: poison"})
        gaps = [later - earlier for (earlier, _), (later, _) in pairwise(seen)]
        self.assertTrue(0.18 < gaps[0] < 2 and 0.38 < gaps[1] < 2 and gaps[2] < 1, gaps)
        self.assertEqual(await self.depth(source, policy.queue), 0)

    async def test_many_at_once_over_losses(self) -> None:
        """R9, R22: connections are lost in the middle; each message is a dead letter in the end, copies or not."""
        policy, channel, publisher = await self.declared(delays=(0.3,), limit=2)
        connection = channel.connection

        def handle(delivery: Delivery) -> None:
            raise ValueError("no")

        await channel.basic_consume(policy.queue, policy.handling(publisher, handle))
        source = await self.channel()
        await source.confirm_select()
        names = {b"%d" % number for number in range(100)}
        for name in sorted(names):
            last = source.basic_publish("", policy.queue, name)
        await last
        for _ in range(2):
            await pause(0.25)
            await self.lose(connection)  # type: ignore[arg-type]
        found: set[bytes] = set()
        ends = self.now() + 15
        while found != names and self.now() < ends:
            dead = await source.basic_get(policy.dead_letter, no_ack=True)
            if dead is None:
                await pause(0.05)
            else:
                found.add(dead.body)
                self.assertEqual(policy.retries_of(dead), 2)
        self.assertEqual(found, names)

    async def test_rejected(self) -> None:
        """By hand, without a retry: the broker makes a dead letter of it."""
        policy, channel, _ = await self.declared()
        await channel.basic_consume(policy.queue, Delivery.reject)
        source = await self.channel()
        await source.confirm_select()
        await source.basic_publish("", policy.queue, b"bad")
        await self.until_depth(source, policy.dead_letter, 1)


class ClassicRetryOverBroker(OverBroker, RetryCases):
    queue_type = "classic"


class QuorumRetryOverBroker(OverBroker, RetryCases):
    queue_type = "quorum"


class ClassicRetryOverRabbitMQ(OverRabbitMQ, RetryCases):
    queue_type = "classic"


class QuorumRetryOverRabbitMQ(OverRabbitMQ, RetryCases):
    queue_type = "quorum"
