"""Exchanges, queues and bindings: arguments, typed replies, refusals, nowait."""

from __future__ import annotations

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, pause
from txmsg.errors import (
    AccessRefused,
    ChannelClosed,
    CommandInvalid,
    ConnectionClosed,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)
from txmsg.wire.methods import exchange, queue


class TopologyCases(BrokerCase):
    async def test_queue_declare_reply(self) -> None:
        """K-43, W-83: the reply names the queue and counts; an empty name is chosen by the broker (kombu D24)."""
        channel = await self.channel()
        name = self.name("q")
        declared = await channel.queue_declare(name, exclusive=True)
        self.assertEqual(declared, queue.DeclareOk(queue=name, message_count=0, consumer_count=0))
        channel.basic_publish("", name, b"1")
        await self.until_depth(channel, name, 1)
        await channel.basic_consume(name, prefetch_none)
        again = await channel.queue_declare(name, passive=True)
        self.assertEqual(again.consumer_count, 1)
        generated = await channel.queue_declare(exclusive=True)
        self.assertTrue(generated.queue.startswith("amq.gen-"))

    async def test_the_empty_name_is_the_last_declared_queue(self) -> None:
        """M-24, K-21: in bind, consume, get, purge and delete (kombu D16, D25)."""
        channel = await self.channel()
        declared = await channel.queue_declare("", exclusive=True)
        await channel.queue_bind("", "amq.direct", "key-of-" + declared.queue)
        channel.basic_publish("amq.direct", "key-of-" + declared.queue, b"1")
        await self.until_depth(channel, declared.queue, 1)
        delivery = await channel.basic_get("", no_ack=True)
        assert delivery is not None
        self.assertEqual(delivery.body, b"1")
        await channel.queue_purge("")
        await channel.queue_delete("")
        await self.failure(channel.queue_declare(declared.queue, passive=True), NotFound)

    async def test_bindings(self) -> None:
        """K-41, K-42, K-44, K-45, W-69, W-76: bind and unbind of queues and exchanges; None means the queue's name.

        kombu D23, D25
        """
        channel = await self.channel()
        source, target = self.name("source"), self.name("target")
        self.assertIsInstance(await channel.exchange_declare(source, "fanout"), exchange.DeclareOk)
        await channel.exchange_declare(target, "direct")
        name = await self.queue(channel)
        self.assertIsInstance(await channel.exchange_bind(target, source), exchange.BindOk)
        self.assertIsInstance(await channel.queue_bind(name, target), queue.BindOk)
        await channel.queue_bind(name, target, "")
        await channel.confirm_select()
        for key, expected in [(name, 1), ("", 2), ("elsewhere", 2)]:
            await channel.basic_publish(source, key, b"x")
            await self.until_depth(channel, name, expected)
        self.assertIsInstance(await channel.queue_unbind(name, target), queue.UnbindOk)
        await channel.basic_publish(source, name, b"x")
        self.assertEqual(await self.depth(channel, name), 2)
        self.assertIsInstance(await channel.exchange_unbind(target, source), exchange.UnbindOk)
        await channel.basic_publish(source, "", b"x")
        self.assertEqual(await self.depth(channel, name), 2)
        self.assertIsInstance(await channel.exchange_delete(source), exchange.DeleteOk)
        await channel.exchange_delete(target)
        await channel.exchange_delete(target)  # one that is gone is fine

    async def test_topic_exchange(self) -> None:
        """T-01: the type is passed on as it is."""
        channel = await self.channel()
        name = await self.queue(channel)
        prefix = self.name("key").replace(".", "-")
        await channel.queue_bind(name, "amq.topic", f"{prefix}.*.ok")
        await channel.confirm_select()
        for key in (f"{prefix}.a.ok", f"{prefix}.ok", f"{prefix}.a.b.ok"):
            await channel.basic_publish("amq.topic", key, key.encode())
        delivery = await channel.basic_get(name, no_ack=True)
        assert delivery is not None
        self.assertEqual((delivery.exchange, delivery.routing_key), ("amq.topic", f"{prefix}.a.ok"))
        self.assertIsNone(await channel.basic_get(name))

    async def test_purge_and_delete_count(self) -> None:
        """K-46, K-47: PurgeOk and DeleteOk carry the number of messages (kombu D26, D27)."""
        channel = await self.channel()
        name = await self.queue(channel, b"1", b"2", b"3")
        self.assertEqual(await channel.queue_purge(name), queue.PurgeOk(message_count=3))
        channel.basic_publish("", name, b"4")
        await self.until_depth(channel, name, 1)
        self.assertEqual(await channel.queue_delete(name), queue.DeleteOk(message_count=1))

    async def test_conditional_deletes(self) -> None:
        """K-40, K-47: if_unused and if_empty are refused with PreconditionFailed (kombu D22, D26)."""
        connection = await self.connect()
        keeper = await connection.channel()
        name = await self.queue(keeper, b"1")
        await self.failure((await connection.channel()).queue_delete(name, if_empty=True), PreconditionFailed)
        await keeper.basic_consume(name, prefetch_none)
        await self.failure((await connection.channel()).queue_delete(name, if_unused=True), PreconditionFailed)
        source = self.name("source")
        await keeper.exchange_declare(source, auto_delete=False)
        await keeper.queue_bind(name, source, "k")
        await self.failure((await connection.channel()).exchange_delete(source, if_unused=True), PreconditionFailed)
        await keeper.queue_unbind(name, source, "k")
        await keeper.exchange_delete(source, if_unused=True)

    async def test_nowait(self) -> None:
        """M-07: the Deferred fires with None at once, the broker does it, and a refusal closes the channel.

        kombu D28
        """
        channel = await self.channel()
        name, source = self.name("q"), self.name("x")
        for deferred in (
            channel.queue_declare(name, exclusive=True, nowait=True),
            channel.exchange_declare(source, "direct", nowait=True),
            channel.queue_bind(name, source, "k", nowait=True),
            channel.queue_purge(name, nowait=True),
        ):
            self.assertTrue(deferred.called)
            self.assertIsNone(await deferred)
        channel.basic_publish(source, "k", b"1")
        await self.until_depth(channel, name, 1)
        await channel.exchange_delete(source, nowait=True)
        await channel.queue_delete(name, nowait=True)
        await channel.queue_bind(name, source, "k", nowait=True)
        reason = await channel.closed
        self.assertIsInstance(reason, NotFound)

    async def test_queue_of_another_connection(self) -> None:
        """F44: exclusive means ResourceLocked for everybody else (kombu D24)."""
        channel = await self.channel()
        name = await self.queue(channel)
        stranger = await self.channel()
        error = await self.failure(stranger.queue_declare(name, passive=True), ResourceLocked)
        self.assertEqual(error.reply_code, 405)

    async def test_an_exclusive_queue_goes_with_its_connection(self) -> None:
        """K-43: exclusive queues are deleted when the connection closes."""
        connection = await self.connect()
        name = await self.queue(await connection.channel())
        await connection.close()
        checker = await self.connect()
        for _ in range(50):
            try:
                await (await checker.channel()).queue_declare(name, passive=True)
            except NotFound:
                return
            except ResourceLocked:
                pass  # the broker is still at it
            await pause(0.02)
        self.fail("the queue is still there")


async def prefetch_none(delivery: object) -> None:
    """A consumer that holds on to what it gets."""


class TopologyServerCases(TopologyCases):
    async def test_names_are_utf8(self) -> None:
        """W-22, T-03: a non-ASCII name round trips."""
        channel = await self.channel()
        declared = await channel.queue_declare("очередь-é-" + self.name("q"), exclusive=True)
        self.assertTrue(declared.queue.startswith("очередь-é-"))
        channel.basic_publish("", declared.queue, b"1")
        await self.until_depth(channel, declared.queue, 1)
        delivery = await channel.basic_get(declared.queue, no_ack=True)
        assert delivery is not None
        self.assertEqual(delivery.routing_key, declared.queue)

    async def test_arguments_reach_the_broker(self) -> None:
        """W-06, W-27, Q-18: integers of every size, strings, tables and lists as queue arguments."""
        channel = await self.channel()
        arguments = {
            "x-max-length": 2**31,
            "x-message-ttl": 60_000,
            "x-expires": 2**32 - 1,
            "x-dead-letter-exchange": "amq.direct",
            "x-dead-letter-routing-key": "dead",
            "x-max-priority": 5,
            "x-other": {"nested": [1, 2**63 - 1, -(2**63), True, None, 1.5, b"bytes", "é"]},
        }
        name = self.name("q")
        await channel.queue_declare(name, exclusive=True, arguments=arguments)
        await channel.queue_declare(name, exclusive=True, arguments=arguments)
        error = await self.failure(
            channel.queue_declare(name, exclusive=True, arguments={**arguments, "x-message-ttl": "60000"}),
            PreconditionFailed,
        )
        self.assertIn("x-message-ttl", error.reply_text)

    async def test_reserved_names(self) -> None:
        """K-39: amq.* may not be declared, and the default exchange neither: AccessRefused (kombu D21)."""
        connection = await self.connect()
        await self.failure((await connection.channel()).exchange_declare("amq.mine", "direct"), AccessRefused)
        await self.failure((await connection.channel()).exchange_declare("", "direct"), AccessRefused)
        await self.failure((await connection.channel()).queue_declare("amq.mine"), AccessRefused)

    async def test_an_unknown_exchange_type_ends_the_connection(self) -> None:
        """T-01, F-16: RabbitMQ answers with 503 for the connection; the call fails with exactly that (kombu D21)."""
        connection = await self.connect()
        channel = await connection.channel()
        error = await self.failure(channel.exchange_declare(self.name("x"), "x-nothing"), CommandInvalid)
        self.assertEqual((error.reply_code, error.method_name), (503, "exchange.declare"))
        self.assertIs(await connection.when_closed(), error)
        self.assertIsInstance(error, ConnectionClosed)
        self.assertNotIsInstance(error, ChannelClosed)


class TopologyOverRabbitMQ(OverRabbitMQ, TopologyServerCases):
    pass


class TopologyOverBroker(OverBroker, TopologyServerCases):
    pass


class TopologyOverPeer(OverPeer, TopologyCases):
    pass
