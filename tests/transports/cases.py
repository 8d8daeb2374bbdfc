"""The contract of a messaging transport, as cases that run over each of them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.task import deferLater

from tests.cases import ReactorTestCase
from txmsg import abc
from txmsg.errors import (
    AlreadySettled,
    ChannelClosed,
    ConfigurationError,
    ConnectionClosed,
    ConsumerCancelled,
    DuplicateConsumerTag,
    EncodeError,
    NotFound,
    PreconditionFailed,
    PublishNacked,
    PublishReturned,
    ResourceLocked,
    StaleDelivery,
    TxmsgError,
)

E = TypeVar("E", bound=BaseException)

#: One value of each property.
PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain",
    "content_encoding": "utf-8",
    "headers": {"number": 1, "list": [1, "two", None], "table": {"a": True}, "octets": b"\x00\xff"},
    "delivery_mode": 1,
    "priority": 4,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "message_id": "m",
    "timestamp": 1700000000,
    "type": "t",
    "user_id": "guest",
    "app_id": "a",
    "cluster_id": "",
}


class TransportCases(ReactorTestCase):
    """What every transport promises; the subclass gives a connection."""

    __test__ = False

    async def new_connection(self) -> Any:
        """A connection to the broker of this case, the same one each time."""
        raise NotImplementedError

    async def connect(self) -> Any:
        connection = await self.new_connection()
        self.addCleanup(connection.close)
        return connection

    async def channel(self) -> Any:
        connection = await self.connect()
        return await connection.channel()

    async def failure(self, awaitable: Awaitable[Any], kind: type[E]) -> E:
        try:
            value = await awaitable
        except kind as error:
            return error
        raise self.failureException(f"succeeded with {value!r}")

    async def until(self, condition: Any) -> None:
        for _ in range(500):
            if condition():
                return
            await deferLater(installed_reactor, 0.01)
        self.fail("it did not come true in time")

    async def queue(self, channel: Any, *bodies: bytes, **settings: Any) -> str:
        declared = await channel.queue_declare(self.name("q")[-200:], auto_delete=True, **settings)
        for body in bodies:
            await channel.publish("", declared.name, body)
        return str(declared.name)

    # -- the shape

    async def test_the_protocols(self) -> None:
        """Connection, channel and delivery have all the methods that the contract names."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel, b"x")
        delivery = await channel.get(queue)
        self.assertIsInstance(connection, abc.MessagingConnection)
        self.assertIsInstance(channel, abc.MessagingChannel)
        self.assertIsInstance(delivery, abc.MessagingDelivery)
        self.assertTrue(connection.is_open and channel.is_open)
        for shown in (connection, channel, delivery):
            self.assertIn(type(shown).__name__, repr(shown))

    # -- messages

    async def test_a_message_comes_as_it_was(self) -> None:
        """Body, exchange, key, and all properties; those that were not given are not there."""
        channel = await self.channel()
        queue = await self.queue(channel)
        await channel.publish("", queue, b"body", PROPERTIES)
        await channel.publish("", queue, bytearray(b"more"))
        first = await channel.get(queue)
        self.assertEqual((first.body, first.exchange, first.routing_key), (b"body", "", queue))
        self.assertEqual(dict(first.properties), PROPERTIES)
        self.assertIsNone(first.properties_error)
        self.assertEqual((first.consumer_tag, first.redelivered), ("", False))
        second = await channel.get(queue, no_ack=True)
        self.assertEqual((second.body, dict(second.properties)), (b"more", {}))
        self.assertTrue(second.is_settled)
        self.assertIsNone(await channel.get(queue))

    async def test_headers_are_copied(self) -> None:
        """What a sender or a receiver changes later, nobody else sees."""
        channel = await self.channel()
        one, two = await self.queue(channel), await self.queue(channel)
        exchange = self.name("x")[-200:]
        await channel.exchange_declare(exchange, "fanout", auto_delete=True)
        for queue in (one, two):
            await channel.queue_bind(queue, exchange)
        headers = {"list": [1]}
        publish = channel.publish(exchange, "", b"", {"headers": headers})
        headers["list"].append(2)
        await publish
        first = await channel.get(one)
        first.properties["headers"]["list"].append(3)
        second = await channel.get(two)
        self.assertEqual(second.properties["headers"], {"list": [1]})

    async def test_what_amqp_cannot_carry(self) -> None:
        """EncodeError, which costs the message and not the channel."""
        channel = await self.channel()
        queue = await self.queue(channel)
        bad: list[dict[str, Any]] = [
            {"priority": 256},
            {"content_type": "x" * 256},
            {"headers": {"set": {1}}},
            {"colour": "red"},
            {"expiration": 60000},
        ]
        for properties in bad:
            with self.subTest(properties=properties):
                await self.failure(channel.publish("", queue, b"", properties), EncodeError)
        await self.failure(channel.publish("", queue, "text"), EncodeError)
        await channel.publish("", queue, b"fine")
        self.assertEqual((await channel.get(queue)).body, b"fine")

    async def test_nobody_gets_it(self) -> None:
        """A mandatory message fails with PublishReturned, another one is dropped; the channel stays open."""
        channel = await self.channel()
        await channel.publish("", self.name("nowhere"), b"")
        error = await self.failure(channel.publish("", self.name("nowhere"), b"", mandatory=True), PublishReturned)
        self.assertEqual((error.reply_code, error.reply_text), (312, "NO_ROUTE"))
        self.assertTrue(channel.is_open)

    async def test_a_full_queue_refuses(self) -> None:
        """x-overflow reject-publish: PublishNacked."""
        channel = await self.channel()
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await self.queue(channel, b"1", arguments=arguments)
        await self.failure(channel.publish("", queue, b"2"), PublishNacked)

    async def test_no_such_exchange(self) -> None:
        """kombu W12: NotFound ends the channel, and everything on it says so; the connection goes on.

        On a connection that recovers the channel is open again by itself, with its consumers.
        """
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel)
        got: list[Any] = []
        await channel.consume(queue, got.append)
        error = await self.failure(channel.publish("no such exchange", "", b""), NotFound)
        self.assertIn("NOT_FOUND - no exchange 'no such exchange' in vhost", error.reply_text)
        self.assertFalse(channel.is_open)
        if isinstance(connection, abc.RecoveringMessagingConnection):
            await self.until(lambda: channel.is_open)
            await channel.publish("", queue, b"again")
            await self.until(lambda: got)
            return
        await self.failure(channel.queue_declare("q"), NotFound)
        self.assertIsInstance(await channel.when_closed(), NotFound)
        self.assertTrue((await connection.channel()).is_open)

    # -- topology

    async def test_exchanges(self) -> None:
        """Declared, bound to each other, unbound, deleted; all four types route."""
        channel = await self.channel()
        queue = await self.queue(channel)
        inner = self.name("inner")[-200:]
        await channel.exchange_declare(inner, "direct", auto_delete=True)
        await channel.queue_bind(queue, inner, "key")
        for kind in ("direct", "fanout", "topic", "headers"):
            with self.subTest(kind=kind):
                outer = self.name(kind)[-200:]
                await channel.exchange_declare(outer, kind)
                await channel.exchange_bind(inner, outer, "key", {"x-match": "any", "h": 1})
                await channel.publish(outer, "key", b"1", {"headers": {"h": 1}})
                self.assertEqual((await channel.get(queue, no_ack=True)).body, b"1")
                await channel.exchange_unbind(inner, outer, "key", {"x-match": "any", "h": 1})
                await channel.publish(outer, "key", b"2", {"headers": {"h": 1}})
                self.assertIsNone(await channel.get(queue))
                await channel.exchange_delete(outer)
                await channel.exchange_delete(outer)

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

    async def test_refusals(self) -> None:
        """C12, W4: the same error, with the broker's words, for the same mistake."""
        owner = await self.channel()
        exclusive = (await owner.queue_declare("", exclusive=True)).name
        queue = await self.queue(owner, arguments={"x-max-length": 5})
        exchange = self.name("x")[-200:]
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

    # -- consuming

    async def test_consume(self) -> None:
        """In order, with the consumer's tag, never inside a call of ours; acked one by one."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1", b"2")
        got: list[Any] = []
        tag = await channel.consume(queue, got.append)
        await channel.publish("", queue, b"3")
        await self.until(lambda: len(got) == 3)
        self.assertEqual([delivery.body for delivery in got], [b"1", b"2", b"3"])
        self.assertEqual({delivery.consumer_tag for delivery in got}, {tag})
        self.assertEqual([delivery.delivery_tag for delivery in got], [1, 2, 3])
        for delivery in got:
            delivery.ack()
            self.assertTrue(delivery.is_settled)
            self.assertRaises(AlreadySettled, delivery.ack)

    async def test_prefetch(self) -> None:
        """No more than the prefetch count is unsettled; settling makes room."""
        channel = await self.channel()
        queue = await self.queue(channel, *[b"%d" % n for n in range(5)])
        got: list[Any] = []
        await channel.qos(2)
        await channel.consume(queue, got.append)
        await self.until(lambda: len(got) == 2)
        self.assertEqual((await channel.queue_declare(queue, passive=True, auto_delete=True)).message_count, 3)
        got[1].ack(multiple=True)
        await self.until(lambda: len(got) == 4)
        got[2].nack(requeue=False)
        await self.until(lambda: len(got) == 5)
        self.assertEqual([delivery.body for delivery in got], [b"0", b"1", b"2", b"3", b"4"])

    async def test_give_back(self) -> None:
        """A message that is given back comes again, as redelivered, in its place."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1", b"2")
        first = await channel.get(queue)
        first.nack()
        again = await channel.get(queue)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        again.reject(requeue=True)
        again = await channel.get(queue)
        self.assertEqual(again.body, b"1")
        again.reject()
        self.assertEqual((await channel.get(queue)).body, b"2")

    async def test_recover(self) -> None:
        """All that is unsettled comes again."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1", b"2")
        old = [await channel.get(queue), await channel.get(queue)]
        await channel.recover()
        again = await channel.get(queue)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        for delivery in old:
            self.assertTrue(delivery.is_settled)

    async def test_closing_gives_back(self) -> None:
        """X3, W21: what is unsettled when its channel closes goes back, once; settling it then is StaleDelivery."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        queue = await self.queue(other, b"1")
        delivery = await channel.get(queue)
        await channel.close()
        await channel.close()
        self.assertRaises(StaleDelivery, delivery.ack)
        again = await other.get(queue)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        self.assertIsNone(await other.get(queue))

    async def test_no_ack(self) -> None:
        """Settled when handed over."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1")
        got: list[Any] = []
        await channel.consume(queue, got.append, no_ack=True)
        await self.until(lambda: got)
        self.assertTrue(got[0].is_settled)
        self.assertRaises(AlreadySettled, got[0].ack)

    async def test_cancel(self) -> None:
        """Nothing comes after it; what came stays to be settled; an unknown tag is fine."""
        channel = await self.channel()
        queue = (await channel.queue_declare("", exclusive=True)).name
        await channel.publish("", queue, b"1")
        got: list[Any] = []
        tag = await channel.consume(queue, got.append)
        await self.until(lambda: got)
        await channel.cancel(tag)
        await channel.cancel(tag)
        await channel.publish("", queue, b"2")
        self.assertEqual((await channel.get(queue)).body, b"2")
        self.assertEqual(len(got), 1)
        got[0].ack()

    async def test_the_broker_cancels(self) -> None:
        """When the queue is deleted, `on_cancel` is told; not when the consumer was cancelled here."""
        channel = await self.channel()
        queue = (await channel.queue_declare("", exclusive=True)).name
        reasons: list[Any] = []
        tag = await channel.consume(queue, print, on_cancel=reasons.append)
        await channel.cancel(tag)
        tag = await channel.consume(queue, print, on_cancel=reasons.append)
        await channel.queue_delete(queue)
        await self.until(lambda: reasons)
        [reason] = reasons
        self.assertIsInstance(reason, ConsumerCancelled)
        self.assertEqual((reason.consumer_tag, reason.initiator), (tag, "server"))

    async def test_consumer_tags(self) -> None:
        """One may be chosen, and be used once."""
        channel = await self.channel()
        queue = await self.queue(channel)
        self.assertEqual(await channel.consume(queue, print, consumer_tag="mine"), "mine")
        await self.failure(channel.consume(queue, print, consumer_tag="mine"), DuplicateConsumerTag)
        await self.failure(channel.consume(queue, None), ConfigurationError)

    async def test_callbacks(self) -> None:
        """One may be `async def`; one that fails is logged, and its delivery stays unsettled."""
        channel = await self.channel()
        queue = await self.queue(channel, b"good", b"bad", b"worse")
        seen: list[bytes] = []

        async def handle(delivery: Any) -> None:
            await deferLater(installed_reactor, 0)
            seen.append(delivery.body)
            if delivery.body != b"good":
                raise ValueError(delivery.body)
            delivery.ack()

        def fail_at_once(delivery: Any) -> Any:
            if delivery.body == b"worse":
                seen.append(delivery.body)
                raise ValueError(delivery.body)
            return ensureDeferred(handle(delivery))

        await channel.consume(queue, fail_at_once)
        await self.until(lambda: len(seen) == 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        await channel.close()

    async def test_two_consumers_share(self) -> None:
        """W37: two consumers of one queue on one channel both get their part."""
        channel = await self.channel()
        queue = await self.queue(channel)
        one: list[Any] = []
        two: list[Any] = []
        await channel.consume(queue, one.append, no_ack=True)
        await channel.consume(queue, two.append, no_ack=True)
        await DeferredList([channel.publish("", queue, b"%d" % n) for n in range(10)], fireOnOneErrback=True)
        await self.until(lambda: len(one) + len(two) == 10)
        self.assertEqual((len(one), len(two)), (5, 5))

    async def test_the_end_of_a_connection(self) -> None:
        """Its channels end with it, and what is asked of them fails and says so; closing twice is fine."""
        connection = await self.connect()
        channel = await connection.channel()
        await connection.close()
        await connection.close()
        self.assertFalse(connection.is_open or channel.is_open)
        for ended in (connection, channel):
            reason = await ended.when_closed()
            self.assertIsInstance(reason, (ConnectionClosed, ChannelClosed))
            self.assertEqual(reason.initiator, "client")
        await self.failure(channel.publish("", "q", b""), TxmsgError)
        await self.failure(channel.queue_declare("q"), TxmsgError)
        await self.failure(connection.channel(), ConnectionClosed)
