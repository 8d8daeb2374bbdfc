"""Settling: acks and their coalescing, nack, reject, recover; whatever is tried, the broker never says 406 (R23)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, pause
from txmsg.amqp import Channel, Delivery
from txmsg.errors import AlreadySettled, EncodeError, NotFound, PreconditionFailed, SettlementError, StaleDelivery


class SettlementCases(BrokerCase):
    async def deliveries(self, count: int, channel: Channel) -> tuple[str, list[Delivery]]:
        """The name of a queue and `count` unsettled deliveries from it."""
        name = await self.queue(channel, *[b"%d" % n for n in range(count)])
        await channel.basic_qos(0)
        consumer = await channel.basic_consume(name)
        return name, [await consumer.get() for _ in range(count)]

    async def assert_alive(self, channel: Channel) -> None:
        """The channel survives a round trip: the broker had nothing to complain about."""
        await channel.basic_qos(0)
        await pause(0.01)
        await channel.basic_qos(0)
        self.assertTrue(channel.is_open)

    async def test_twice(self) -> None:
        """R23: every pair of settlements: the second raises AlreadySettled and sends nothing."""
        channel = await self.channel()
        ways: list[Any] = [Delivery.ack, Delivery.nack, Delivery.reject, lambda d: d.ack(multiple=True)]
        ways.append(lambda d: d.nack(multiple=True))
        _, deliveries = await self.deliveries(25, channel)
        pairs = [(a, b) for a in ways for b in ways]
        for (first, second), delivery in zip(pairs, deliveries, strict=True):
            first(delivery)
            self.assertTrue(delivery.is_settled)
            self.assertRaises(AlreadySettled, second, delivery)
        await self.assert_alive(channel)

    async def test_tags_that_were_never_delivered(self) -> None:
        """R23, W-11, W-24, K-15 to K-17: unknown, negative, huge, zero, of the wrong type, missing."""
        channel = await self.channel()
        _, deliveries = await self.deliveries(3, channel)
        for tag in (0, 4, 99, 2**63 - 1, 2**64, -1, "1", None, 1.5):
            for settle in (channel.basic_ack, channel.basic_nack, channel.basic_reject):
                self.assertRaises((SettlementError, EncodeError), settle, tag)
        for settle in (channel.basic_ack, channel.basic_nack, channel.basic_reject):
            self.assertRaises(TypeError, settle)
        channel.basic_ack(0, multiple=True)
        self.assertRaises(SettlementError, channel.basic_ack, 0, True)
        self.assertRaises(SettlementError, channel.basic_nack, 0, True)
        self.assertTrue(all(d.is_settled for d in deliveries))
        await self.assert_alive(channel)

    async def test_multiple_beyond_the_last(self) -> None:
        """R23: a tag above all delivered ones with `multiple` settles what is open, and is not sent as it is."""
        channel = await self.channel()
        name, deliveries = await self.deliveries(5, channel)
        deliveries[4].ack()
        channel.basic_ack(4, multiple=True)
        self.assertRaises(AlreadySettled, channel.basic_ack, 1000, True)
        await self.assert_alive(channel)
        self.assertEqual(await self.depth(channel, name), 0)

    async def test_multiple_over_settled_ones(self) -> None:
        """R23: `multiple` on a tag that is itself settled reaches the earlier open ones without a 406 (kombu D17)."""
        channel = await self.channel()
        name, deliveries = await self.deliveries(10, channel)
        deliveries[9].ack()
        deliveries[4].ack()
        await self.assert_alive(channel)
        channel.basic_ack(5, multiple=True)
        self.assertEqual([d.is_settled for d in deliveries], [True] * 5 + [False] * 4 + [True])
        deliveries[8].nack(requeue=False, multiple=True)
        await self.assert_alive(channel)
        await self.assert_empty(channel, name)

    async def test_on_another_channel(self) -> None:
        """R23, O-12: a tag belongs to its channel (kombu D17)."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        await self.deliveries(2, channel)
        self.assertRaises(SettlementError, other.basic_ack, 1)
        self.assertRaises(SettlementError, other.basic_ack, 2, True)
        await self.assert_alive(other)

    async def test_after_the_channel_closed(self) -> None:
        """R23, W-23, peers 65: StaleDelivery, whoever closed it; nothing reaches the next channel of that number."""
        connection = await self.connect()
        for closed_by_us in (True, False):
            channel = await connection.channel()
            _, deliveries = await self.deliveries(2, channel)
            if closed_by_us:
                await channel.close()
            else:
                await self.failure(channel.queue_declare(self.name("missing"), passive=True), NotFound)
            successor = await connection.channel(channel.channel_number)
            for settle in (deliveries[0].ack, deliveries[0].nack, deliveries[0].reject):
                error = self.assertRaises(StaleDelivery, settle)
                self.assertIn("requeued", str(error))
            self.assertTrue(deliveries[0].is_settled)
            await self.assert_alive(successor)
        await connection.close()
        self.assertRaises(StaleDelivery, deliveries[1].ack)

    async def test_while_the_channel_closes(self) -> None:
        """R23, O-08: from close() on nothing is sent; acks given before it are."""
        connection = await self.connect()
        channel, checker = await connection.channel(), await connection.channel()
        name, deliveries = await self.deliveries(4, channel)
        deliveries[0].ack()
        deliveries[1].ack()
        closed = channel.close()
        self.assertRaises(SettlementError, deliveries[2].ack)
        await closed
        await self.until_depth(checker, name, 2)

    async def test_recover(self) -> None:
        """K-37, R23: basic.recover redelivers; the old deliveries are stale, the new ones can be settled.

        kombu D19
        """
        channel = await self.channel()
        name = await self.queue(channel, b"0", b"1", b"2")
        consumer = await channel.basic_consume(name)
        old = [await consumer.get() for _ in range(3)]
        old[0].ack()
        await channel.basic_recover()
        new = [await consumer.get() for _ in range(2)]
        self.assertEqual([(d.body, d.redelivered) for d in new], [(b"1", True), (b"2", True)])
        self.assertRaises(StaleDelivery, old[1].ack)
        self.assertRaises(SettlementError, old[2].nack)
        for delivery in new:
            delivery.ack()
        await self.assert_alive(channel)
        await self.assert_empty(channel, name)

    async def test_nack_and_reject(self) -> None:
        """K-16, K-17: requeue puts it back, marked as redelivered; without requeue it is gone (kombu D18)."""
        channel = await self.channel()
        name = await self.queue(channel, b"a", b"b")
        for settle, left in [
            (lambda d: d.nack(), 2),
            (lambda d: d.reject(requeue=True), 2),
            (lambda d: d.reject(), 1),
            (lambda d: d.nack(requeue=False), 0),
        ]:
            delivery = await self.get(channel, name, no_ack=False)
            settle(delivery)
            await self.until_depth(channel, name, left)

    async def test_requeue_keeps_the_order(self) -> None:
        """O-05: nacked messages come again in their old order, flagged."""
        channel = await self.channel()
        name = await self.queue(channel, *[b"%d" % n for n in range(5)])
        got = await self.get_all(channel, name, 5, no_ack=False)
        got[4].nack(multiple=True)
        await self.until_depth(channel, name, 5)
        again = await self.get_all(channel, name, 5)
        self.assertEqual([(d.body, d.redelivered) for d in again], [(b"%d" % n, True) for n in range(5)])

    async def assert_empty(self, channel: Channel, name: str) -> None:
        """Nothing ready, and nothing comes back when the channel closes: nothing was unsettled."""
        connection = channel.connection
        await channel.close()
        checker = await connection.channel()
        await pause(0.05)
        self.assertEqual(await self.depth(checker, name), 0)

    async def test_acks_in_any_order(self) -> None:
        """arch 4.4: 1,000 deliveries acked in a shuffled order, over many reactor turns: all are settled.

        kombu D17
        """
        channel = await self.channel()
        name, deliveries = await self.deliveries(1000, channel)
        random.Random(1).shuffle(deliveries)
        for start in range(0, 1000, 37):
            for delivery in deliveries[start : start + 37]:
                delivery.ack()
            await pause(0)
        await self.assert_empty(channel, name)

    async def test_acks_with_gaps(self) -> None:
        """arch 4.4: what is not acked is never swept away by a coalesced ack."""
        channel = await self.channel()
        name, deliveries = await self.deliveries(300, channel)
        kept = {7, 100, 101, 299}
        for index, delivery in enumerate(deliveries):
            if index not in kept:
                delivery.ack()
            if index % 50 == 49:
                await pause(0)
        connection = channel.connection
        await channel.close()
        checker = await connection.channel()
        await self.until_depth(checker, name, len(kept))
        left = await self.get_all(checker, name, len(kept))
        self.assertEqual([int(d.body) for d in left], sorted(kept))

    async def test_acks_between_nacks_and_rejects(self) -> None:
        """arch 4.4, K-09: any mixture in one turn has exactly the effect of its calls in that order."""
        rng = random.Random(7)
        channel = await self.channel()
        name, deliveries = await self.deliveries(200, channel)
        requeued: list[int] = []
        consumer = next(iter(channel.consumers.values()))
        await consumer.cancel()
        for index, delivery in enumerate(deliveries):
            way = rng.randrange(4)
            if way == 0:
                delivery.nack()
                requeued.append(index)
            elif way == 1:
                delivery.reject()
            else:
                delivery.ack()
            if rng.random() < 0.05:
                await pause(0)
        connection = channel.connection
        await channel.close()
        checker = await connection.channel()
        await self.until_depth(checker, name, len(requeued))
        left = await self.get_all(checker, name, len(requeued))
        self.assertEqual([int(d.body) for d in left], requeued)

    async def test_ack_then_close_at_once(self) -> None:
        """K-09: acks given in the same turn as close() of the connection are on the wire before it."""
        connection = await self.connect()
        channel = await connection.channel()
        watcher = await self.channel()
        name = self.name("q")
        await watcher.queue_declare(name)
        for n in range(10):
            watcher.basic_publish("", name, b"%d" % n)
        await self.until_depth(watcher, name, 10)
        consumer = await channel.basic_consume(name)
        deliveries = [await consumer.get() for _ in range(10)]
        for delivery in deliveries[:6]:
            delivery.ack()
        await connection.close()
        await self.until_depth(watcher, name, 4)
        await watcher.queue_delete(name)

    async def test_random_settling(self) -> None:
        """R23: thousands of random settlements, right and wrong, with `multiple`: the channel never dies."""
        rng = random.Random(23)
        channel = await self.channel()
        await channel.basic_qos(50)
        name = await self.queue(channel, *[b"x"] * 300)
        seen: list[Delivery] = []
        finished: Deferred[None] = Deferred()
        refused = 0

        def handle(delivery: Delivery) -> None:
            nonlocal refused
            seen.append(delivery)
            for _ in range(3):
                tag = rng.choice([rng.randrange(0, len(seen) + 3), delivery.delivery_tag])
                settle = rng.choice([channel.basic_ack, channel.basic_nack, channel.basic_reject])
                try:
                    if settle == channel.basic_reject:
                        settle(tag, requeue=False)
                    elif settle == channel.basic_nack:
                        channel.basic_nack(tag, rng.random() < 0.3, requeue=rng.random() < 0.3)
                    else:
                        settle(tag, rng.random() < 0.3)
                except SettlementError:
                    refused += 1
            if len(seen) == 1000 and not finished.called:
                finished.callback(None)

        consumer = await channel.basic_consume(name, handle)
        for _ in range(40):
            if finished.called:
                break
            for _ in range(50):
                channel.basic_publish("", name, b"more")
            await pause(0.02)
            channel.basic_ack(0, multiple=True) if not all(d.is_settled for d in seen) else None
        await self.until(lambda: finished.called)
        self.assertGreater(refused, 100)
        await consumer.cancel()
        await self.assert_alive(channel)


class SettlementServerCases(SettlementCases):
    async def test_nothing_is_unacked_on_the_broker(self) -> None:
        """arch 4.4: asked directly, the broker holds neither a ready nor an unacknowledged message."""
        channel = await self.channel()
        name, deliveries = await self.deliveries(500, channel)
        random.Random(3).shuffle(deliveries)
        for delivery in deliveries:
            delivery.ack()
        await self.assert_alive(channel)
        self.assertEqual(await self.in_thread(self.node.queue_depth, name), 0)

    async def test_the_broker_loses_patience(self) -> None:
        """F42, peers 33, 51: the delivery ack timeout: PreconditionFailed on that channel only, then StaleDelivery."""
        await self.shorten_patience()
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        _, [delivery] = await self.deliveries(1, channel)
        reason = await channel.closed
        self.assertIsInstance(reason, PreconditionFailed)
        self.assertIn("timeout", str(reason).lower())
        self.assertRaises(StaleDelivery, delivery.ack)
        await self.assert_alive(other)

    async def shorten_patience(self) -> None:
        """Let the broker wait half a second for an ack, until the end of the case."""
        raise NotImplementedError


class SettlementOverRabbitMQ(OverRabbitMQ, SettlementServerCases):
    async def shorten_patience(self) -> None:
        names = ("consumer_timeout", "channel_tick_interval")
        listed = ", ".join(names)
        asked = f"[Value || Name <- [{listed}], {{ok, Value}} <- [application:get_env(rabbit, Name)]]"
        before = (await self.in_thread(self.node.eval, asked)).strip("[]").split(",")
        await self.set_broker(dict(zip(names, ["500", "300"], strict=True)))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.set_broker(dict(zip(names, before, strict=True)))))

    async def set_broker(self, settings: dict[str, str]) -> None:
        """Set variables of the application rabbit, as Erlang terms."""
        calls = [f"application:set_env(rabbit, {name}, {value})" for name, value in settings.items()]
        await self.in_thread(self.node.eval, ", ".join(calls))


class SettlementOverBroker(OverBroker, SettlementServerCases):
    async def shorten_patience(self) -> None:
        vhost = self.embedded.broker.vhosts["/"]
        vhost.limits = replace(vhost.limits, acknowledgement_timeout=0.5)


class SettlementOverPeer(OverPeer, SettlementCases):
    async def test_acks_of_one_turn_are_one_frame(self) -> None:
        """arch 4.4: in order, one multiple ack; with a gap, one multiple ack below it and single ones above."""
        channel = await self.channel()
        _, deliveries = await self.deliveries(10, channel)
        session = self.session
        mark = len(session.received)
        for delivery in deliveries[:4]:
            delivery.ack()
        await channel.basic_qos(0)
        for delivery in [*deliveries[4:6], *deliveries[7:9]]:
            delivery.ack()
        await channel.basic_qos(0)
        acks = [(m.delivery_tag, m.multiple) for _, m in session.received[mark:] if m.name == "Basic.Ack"]
        self.assertEqual(acks, [(4, True), (6, True), (8, False), (9, False)])
