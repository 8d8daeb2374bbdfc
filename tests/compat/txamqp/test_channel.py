"""AMQChannel over RabbitMQ and over the embedded broker: the methods by name, consuming, publishing, confirms."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.compat.txamqp.cases import OverBroker, OverRabbitMQ, TxAMQPCase, outcomes, pause
from txmsg.compat.txamqp.channel import AMQChannel
from txmsg.compat.txamqp.client import ChannelClosed, TwistedDelegate
from txmsg.compat.txamqp.content import Content
from txmsg.compat.txamqp.message import Message
from txmsg.compat.txamqp.methods import bind
from txmsg.compat.txamqp.queue import Closed as QueueClosed
from txmsg.compat.txamqp.queue import Empty
from txmsg.compat.txamqp.spec import method_named
from txmsg.errors import DuplicateConsumerTag, EncodeError, PublishReturned, SettlementError


class Watching(TwistedDelegate):
    """Notes confirms and cancels, which txamqp itself never hears of."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []

    def basic_ack(self, ch: Any, msg: Message) -> None:
        self.notes.append(("ack", msg.delivery_tag))

    def basic_cancel(self, ch: Any, msg: Message) -> None:
        self.notes.append(("cancel", msg.consumer_tag))


class ChannelCases(TxAMQPCase):
    async def test_declares(self) -> None:
        """Positional with the ticket first, by keyword, with the names of each of txamqp's XML files."""
        channel = await self.tx_channel()
        exchange, queue = self.name("ex")[-200:], self.name("q")[-200:]
        reply = await channel.exchange_declare(0, exchange, "topic", False, False, True)
        self.assertEqual((reply.method.klass.name, reply.method.name), ("exchange", "declare-ok"))
        reply = await channel.queue_declare(reserved_1=0, queue=queue, exclusive="True", no_wait=False, arguments=None)
        self.assertEqual((reply.queue, reply.message_count, reply.consumer_count), (queue, 0, 0))
        self.assertEqual((reply[0], reply[-2], len(reply)), (queue, 0, 3))
        await channel.queue_bind(queue=queue, exchange=exchange, routing_key="a.*")
        self.assertIsNone(await channel.queue_bind(ticket=0, exchange=exchange, routing_key="b", nowait=True))
        channel.basic_publish(exchange=exchange, routing_key="a.b", content=Content("one"))
        channel.basic_publish(exchange=exchange, routing_key="b", content=Content("two"))
        self.assertEqual((await channel.queue_purge(queue=queue)).message_count, 2)
        await channel.queue_unbind(queue=queue, exchange=exchange, routing_key="b", arguments={})
        await channel.exchange_bind(destination=exchange, source="amq.topic", routing_key="#")
        await channel.exchange_unbind(destination=exchange, source="amq.topic", routing_key="#")
        self.assertEqual((await channel.access_request(realm="/data", active=True)).ticket, 0)
        self.assertEqual((await channel.queue_delete(queue=queue)).message_count, 0)
        await channel.exchange_delete(exchange=exchange)
        self.assertEqual((await channel.channel_close()).method.name, "close-ok")

    async def test_calls_before_open_ok(self) -> None:
        """What is called while channel.open is on its way waits for it, in order."""
        client = await self.tx_connect()
        channel: Any = await client.channel(3)
        queue = self.name("q")[-200:]
        seen = outcomes(
            [
                channel.channel_open(),
                channel.queue_declare(queue=queue, exclusive=True),
                channel.basic_publish(routing_key=queue, content=Content("x")),
            ]
        )
        reply = await channel.basic_get(queue=queue, no_ack=True)
        self.assertEqual(reply.content.body, "x")
        self.assertEqual(sorted(index for index, _ in seen), [0, 1, 2])
        self.assertEqual([reply for _, reply in seen if isinstance(reply, Exception)], [])

    async def test_not_open(self) -> None:
        """A call on a channel that is not open fails by itself (txamqp: 504, and the connection is gone)."""
        client = await self.tx_connect()
        never: Any = await client.channel(7)
        error = await self.failure(never.queue_declare(exclusive=True), ChannelClosed)
        self.assertEqual(error.args[0].reply_code, 504)
        channel = await self.tx_channel(client)
        await self.failure(channel.channel_open(), ChannelClosed)
        await channel.channel_close()
        await self.failure(channel.tx_select(), ChannelClosed)
        await channel.channel_open()
        await channel.tx_select()

    async def test_publish_and_consume(self) -> None:
        """A message of a consumer: its fields, text and octets, properties in three spellings."""
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel)
        incoming = await self.tx_consume(channel, queue, no_ack=True, consumer_tag="me")
        content = Content("grün", properties={"delivery mode": 2, "headers": {"a": 1}})
        content["message-id"], content["content_type"] = "id", "text/plain"
        channel.basic_publish(0, "", queue, content=content)
        channel.basic_publish(routing_key=queue, content=Content(b"\xff\x00"))
        channel.basic_publish(routing_key=queue)
        message = await incoming.get(timeout=5)
        self.assertEqual((message.method.klass.name, message.method.name), ("basic", "deliver"))
        self.assertEqual((message.consumer_tag, message.delivery_tag, message.routing_key), ("me", 1, queue))
        self.assertFalse(message.redelivered)
        self.assertEqual(message.content.body, "grün")
        expected = {"delivery mode": 2, "headers": {"a": 1}, "message id": "id", "content type": "text/plain"}
        self.assertEqual(expected, message.content.properties)
        self.assertEqual(message.content["message_id"], "id")
        self.assertEqual((await incoming.get(timeout=5)).content.body, b"\xff\x00")
        self.assertEqual((await incoming.get(timeout=5)).content.body, "")
        await self.failure(incoming.get(timeout=0.05), Empty)

    async def test_get_and_ack(self) -> None:
        """basic_get, basic_ack, basic_nack, basic_reject, basic_recover; a wrong tag costs nothing (R23)."""
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel, "1", "2", "3", "4")
        tags = [(await channel.basic_get(queue=queue)).delivery_tag for _ in range(4)]
        self.assertEqual((await channel.basic_get(queue=queue)).method.name, "get-empty")
        self.assertIsNone(await channel.basic_ack(tags[1], True))
        await channel.basic_nack(delivery_tag=tags[2], requeue=True)
        again = await channel.basic_get(queue=queue)
        self.assertEqual((again.content.body, again.redelivered), ("3", True))
        await channel.basic_reject(delivery_tag=again.delivery_tag)
        await channel.basic_recover(requeue=True)
        again = await channel.basic_get(queue=queue)
        self.assertEqual(again.content.body, "4")
        await channel.basic_ack(again.delivery_tag)
        await self.failure(channel.basic_ack(again.delivery_tag), SettlementError)
        await channel.basic_ack(delivery_tag=0, multiple=True)
        self.assertEqual((await channel.basic_get(queue=queue)).method.name, "get-empty")

    async def test_prefetch(self) -> None:
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel, "1", "2", "3")
        await channel.basic_qos(prefetch_count=2)
        incoming = await self.tx_consume(channel, queue)
        first = await incoming.get(timeout=5)
        await incoming.get(timeout=5)
        await self.failure(incoming.get(timeout=0.05), Empty)
        channel.basic_ack(first.delivery_tag)
        self.assertEqual((await incoming.get(timeout=5)).content.body, "3")

    async def test_cancel(self) -> None:
        """What came before cancel-ok stays readable, and the same queue goes on with the next consumer of the name."""
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel)
        incoming = await self.tx_consume(channel, queue, consumer_tag="me")
        await channel.basic_publish(routing_key=queue, content=Content("before"))
        reply = await channel.basic_cancel("me")
        self.assertEqual((reply.method.name, reply.consumer_tag), ("cancel-ok", "me"))
        self.assertEqual((await incoming.get(timeout=5)).content.body, "before")
        await channel.basic_publish(routing_key=queue, content=Content("after"))
        await self.failure(incoming.get(timeout=0.05), Empty)
        waiting = incoming.get()
        await channel.basic_consume(queue=queue, consumer_tag="me")
        self.assertEqual((await waiting).content.body, "after")
        await channel.basic_cancel("nobody")
        self.assertIsNone(await channel.basic_cancel("me", nowait=True))

    async def test_cancelled_by_the_broker(self) -> None:
        """R25: the queue of a consumer whose queue is deleted ends (txamqp: its reader waits for ever)."""
        client = await self.tx_connect()
        channel, other = await self.tx_channel(client), await self.tx_channel(client, 2)
        queue = await self.tx_queue(channel, "one", "two")
        incoming = await self.tx_consume(channel, queue, consumer_tag="me")
        one = await incoming.get(timeout=5)
        await other.queue_delete(queue=queue)
        await self.until(lambda: incoming.closed)
        two = await incoming.get()
        channel.basic_ack(one.delivery_tag)
        channel.basic_ack(two.delivery_tag)
        error = await self.failure(incoming.get(), QueueClosed)
        self.assertEqual(error.args[0].method.name, "cancel")
        fresh = await self.tx_consume(channel, await self.tx_queue(channel, "three"), consumer_tag="me")
        self.assertEqual((await fresh.get(timeout=5)).content.body, "three")

    async def test_cancel_of_a_deferred(self) -> None:
        """R8: giving up a wait hurts nobody (txamqp: the next call gets its reply); the subscription is undone."""
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel, "one")
        consuming = channel.basic_consume(queue=queue, consumer_tag="me")
        declaring = channel.queue_declare(queue=queue, passive=True)
        consuming.cancel()
        await self.failure(consuming, CancelledError)
        self.assertEqual((await declaring).method.name, "declare-ok")
        for _ in range(100):
            if (await channel.queue_declare(queue=queue, passive=True)).consumer_count == 0:
                break
            await pause(0.02)
        self.assertEqual((await channel.basic_get(queue=queue, no_ack=True)).content.body, "one")

    async def test_duplicate_tag(self) -> None:
        """Fails here (txamqp: 530, and the connection is gone)."""
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel)
        await channel.basic_consume(queue=queue, consumer_tag="me")
        await self.failure(channel.basic_consume(queue=queue, consumer_tag="me"), DuplicateConsumerTag)
        await channel.tx_select()

    async def test_unfetched_deliveries_of_a_dead_channel(self) -> None:
        """What the broker delivers again is not handed out; with no_ack, where it does not, it is."""
        for no_ack, expected in ((False, []), (True, ["one"])):
            client = await self.tx_connect()
            channel = await self.tx_channel(client)
            incoming = await self.tx_consume(channel, await self.tx_queue(channel, "one"), no_ack=no_ack)
            await self.until(lambda q=incoming: q.pending)
            await self.failure(channel.queue_declare(queue="no such queue", passive=True), ChannelClosed)
            found = []
            try:
                while True:
                    found.append((await incoming.get(timeout=5)).content.body)
            except QueueClosed:
                pass
            self.assertEqual(found, expected)

    async def test_returns(self) -> None:
        """basic_return_: into the client's queue, with or without confirms."""
        client = await self.tx_connect()
        channel = await self.tx_channel(client)
        await channel.basic_publish(routing_key="no such queue", mandatory=True, content=Content("back"))
        message = await client.basic_return_queue.get(timeout=5)
        self.assertEqual((message.method.name, message.reply_code), ("return", 312))
        self.assertEqual(message.content.body, "back")

    async def test_confirms(self) -> None:
        """R1, R5: after confirm_select a publish fires when the broker has it, and fails when it came back."""
        delegate = Watching()
        client = await self.tx_connect(delegate)
        channel = await self.tx_channel(client)
        queue = await self.tx_queue(channel)
        self.assertEqual((await channel.confirm_select()).method.name, "select-ok")
        good = [channel.basic_publish(routing_key=queue, mandatory=True, content=Content("x")) for _ in range(20)]
        bad = channel.basic_publish(routing_key="no such queue", mandatory=True, content=Content("y"))
        await self.failure(bad, PublishReturned)
        self.assertEqual([await each for each in good], list(range(1, 21)))
        self.assertEqual((await client.basic_return_queue.get()).content.body, "y")
        await self.until(lambda: ("ack", 21) in delegate.notes)

    async def test_many_confirms(self) -> None:
        """R2, R5: 400 mandatory publishes at once, every 7th unroutable: each has its own answer."""
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel)
        await channel.confirm_select()
        keys = ["no such queue" if number % 7 == 0 else queue for number in range(400)]
        seen = outcomes(
            [channel.basic_publish(routing_key=key, mandatory=True, content=Content("same")) for key in keys]
        )
        await self.until(lambda: len(seen) == 400)
        wrong = [n for n, outcome in seen if isinstance(outcome, PublishReturned) != (keys[n] == "no such queue")]
        self.assertEqual(wrong, [])

    async def test_transactions(self) -> None:
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel)
        self.assertEqual((await channel.tx_select()).method.name, "select-ok")
        channel.basic_publish(routing_key=queue, content=Content("dropped"))
        self.assertEqual((await channel.tx_rollback()).method.name, "rollback-ok")
        channel.basic_publish(routing_key=queue, content=Content("kept"))
        self.assertEqual((await channel.tx_commit()).method.name, "commit-ok")
        self.assertEqual((await channel.basic_get(queue=queue, no_ack=True)).content.body, "kept")
        self.assertEqual((await channel.basic_get(queue=queue)).method.name, "get-empty")

    async def test_wrong_arguments(self) -> None:
        """A value that cannot be sent costs the call and nothing else; a name that does not exist is a TypeError."""
        channel = await self.tx_channel()
        await self.failure(channel.queue_declare(queue="x" * 300), EncodeError)
        await self.failure(
            channel.basic_publish(routing_key="x", content=Content("", children=[Content()])), EncodeError
        )
        await self.failure(channel.basic_publish(routing_key="x", immediate=True), EncodeError)
        await self.failure(channel.basic_publish(exchange=5, content=Content("")), EncodeError)
        await self.failure(channel.basic_publish(routing_key="x", content=Content(5)), EncodeError)
        await self.failure(channel.basic_ack("one"), EncodeError)
        await channel.basic_publish(exchange=b"", routing_key=b"x", reserved_1=0, content=Content(""))
        self.assertRaises(TypeError, channel.basic_publish, rooting_key="x")
        await self.failure(channel.queue_declare_ok(), EncodeError)
        self.assertRaises(TypeError, channel.queue_declare, qeue="x")
        await channel.tx_select()

    async def test_large_body(self) -> None:
        channel = await self.tx_channel()
        queue = await self.tx_queue(channel, "x" * (channel.client.MAX_LENGTH * 2))
        reply = await channel.basic_get(queue=queue, no_ack=True)
        self.assertEqual(len(reply.content.body), channel.client.MAX_LENGTH * 2)

    async def test_a_channel_class_of_the_programs(self) -> None:
        """AMQClient.channelClass and channel_failed are for subclasses."""

        class Mine(AMQChannel):
            pass

        class Client(type(await self.tx_connect())):  # type: ignore[misc]
            channelClass = Mine
            failed: list[int] = []

            def channel_failed(self, channel: AMQChannel, reason: Any) -> None:
                self.failed.append(reason.value.args[0].reply_code)

        client = await self.tx_connect(kind=Client)
        channel = await self.tx_channel(client)
        self.assertIsInstance(channel, Mine)
        await self.failure(channel.queue_declare(queue="no such queue", passive=True), ChannelClosed)
        self.assertEqual(Client.failed, [404])


class ChannelOverRabbitMQ(OverRabbitMQ, ChannelCases):
    __test__ = True


class ChannelOverBroker(OverBroker, ChannelCases):
    __test__ = True


class MethodsTests(SynchronousTestCase):
    """The methods themselves."""

    def test_signatures(self) -> None:
        """help() shows the arguments of the protocol, with txamqp's defaults, which go by type."""
        signature = inspect.signature(AMQChannel.basic_consume)  # type: ignore[attr-defined]
        self.assertEqual(
            str(signature),
            "(self, ticket=0, queue='', consumer_tag='', no_local=False, no_ack=False, exclusive=False, nowait=False, "
            "arguments={})",
        )
        self.assertEqual(list(inspect.signature(AMQChannel.basic_publish).parameters)[1:4:2], ["ticket", "routing_key"])
        self.assertIn("requeue=False", str(inspect.signature(AMQChannel.basic_nack)))  # type: ignore[attr-defined]
        self.assertIn("queue.declare-ok", AMQChannel.queue_declare.__doc__)  # type: ignore[attr-defined]

    def test_bind(self) -> None:
        method = method_named("basic.consume")
        values, content = bind(method, (0, "q"), {"filter": {"x": 1}, "reserved_1": 5})
        self.assertEqual(values, [0, "q", "", False, False, False, False, {"x": 1}])
        self.assertIsNone(content)
        for args, kwargs in (((0, "q"), {"queue": "r"}), ((0,) * 9, {}), ((), {"nope": 1})):
            self.assertRaises(TypeError, bind, method, args, kwargs)
