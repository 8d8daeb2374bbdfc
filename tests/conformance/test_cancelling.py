"""Every Deferred may be cancelled or time out; the late reply is swallowed and the channel stays usable (peers 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, pause, settle
from tests.conformance.minibroker import Session, ignore
from txmsg.amqp import Channel
from txmsg.errors import ConnectionClosed, OperationTimeout

Call = Callable[[Channel, str], Deferred[Any]]

#: Each method that waits for a reply, as a call that the broker accepts; the str is a queue with three messages.
CALLS: dict[str, Call] = {
    "Exchange.Declare": lambda channel, queue: channel.exchange_declare("amq.direct", durable=True),
    "Exchange.Delete": lambda channel, queue: channel.exchange_delete("x.of." + queue),
    "Queue.Declare": lambda channel, queue: channel.queue_declare(queue, passive=True),
    "Queue.Bind": lambda channel, queue: channel.queue_bind(queue, "amq.direct", "k.of." + queue),
    "Queue.Unbind": lambda channel, queue: channel.queue_unbind(queue, "amq.direct", "k.of." + queue),
    "Basic.Qos": lambda channel, queue: channel.basic_qos(10),
    "Basic.Get": lambda channel, queue: channel.basic_get(queue),
    "Basic.Consume": lambda channel, queue: channel.basic_consume(queue),
    "Basic.Recover": lambda channel, queue: channel.basic_recover(),
    "Queue.Purge": lambda channel, queue: channel.queue_purge(queue + ".empty"),
    "Confirm.Select": lambda channel, queue: channel.confirm_select(),
}


class CancellingCases(BrokerCase):
    async def test_cancel_every_call_before_its_reply(self) -> None:
        """peers 3, 48, R8: it fails with CancelledError at once; the calls behind it get their own replies."""
        connection = await self.connect()
        keeper = await connection.channel()
        for name, call in CALLS.items():
            queue = await self.queue(keeper, b"0", b"1", b"2")
            await keeper.queue_declare(queue + ".empty", exclusive=True)
            channel = await connection.channel()
            cancelled = call(channel, queue)
            behind = [call(channel, queue) for _ in range(2)]
            cancelled.cancel()
            self.assertTrue(cancelled.called, name)
            await self.failure(cancelled, CancelledError)
            results = await gatherResults(behind)
            if name == "Basic.Get":
                self.assertEqual(len({d.body for d in results}), 2)
            if name == "Basic.Consume":
                await self.until(lambda: len(channel.consumers) == 2)  # noqa: B023 -- awaited here
                self.assertEqual({c.consumer_tag for c in results}, set(channel.consumers))
            self.assertTrue(channel.is_open, name)
            await channel.close()
            # What the cancelled call got hold of (a message, a subscription) was given back.
            await self.until_depth(keeper, queue, 3)
            await keeper.queue_delete(queue)
        self.assertTrue(connection.is_open)

    async def test_a_cancelled_get_gives_its_message_back(self) -> None:
        """peers 3: while the channel stays open."""
        channel = await self.channel()
        queue = await self.queue(channel, b"only")
        get = channel.basic_get(queue)
        get.cancel()
        await self.failure(get, CancelledError)
        await self.until_depth(channel, queue, 1)
        delivery = await channel.basic_get(queue)
        assert delivery is not None
        delivery.ack()

    async def test_a_cancelled_consume_is_undone(self) -> None:
        """peers 3, R25: no subscription is left, and what it was sent goes back."""
        channel = await self.channel()
        queue = await self.queue(channel, b"0", b"1", b"2")
        delivered: list[Any] = []
        consume = channel.basic_consume(queue, delivered.append, consumer_tag="given up")
        consume.cancel()
        await self.failure(consume, CancelledError)
        await self.until_depth(channel, queue, 3)
        await self.until(lambda: not channel.consumers)
        declared = await channel.queue_declare(queue, passive=True)
        self.assertEqual(declared.consumer_count, 0)
        self.assertEqual(delivered, [])
        again = await channel.basic_consume(queue, consumer_tag="given up")
        self.assertEqual((await again.get()).body, b"0")

    async def test_a_cancelled_cancel(self) -> None:
        """peers 3: basic_cancel that is cancelled still ends the consumer."""
        channel = await self.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        cancel = consumer.cancel()
        cancel.cancel()
        await self.failure(cancel, CancelledError)
        await consumer.when_ended()
        self.assertEqual(channel.consumers, {})

    async def test_cancelling_what_waits_for_the_end(self) -> None:
        """R28: when_closed() and close() may be cancelled; the closing goes on, others still learn of it."""
        connection = await self.connect()
        channel = await connection.channel()
        waiter, other = channel.when_closed(), channel.when_closed()
        waiter.cancel()
        await self.failure(waiter, CancelledError)
        close = channel.close()
        close.cancel()
        await self.failure(close, CancelledError)
        await other
        self.assertTrue(channel.is_closed)
        closing = connection.close()
        closing.cancel()
        await self.failure(closing, CancelledError)
        await connection.when_closed()

    async def test_cancel_many(self) -> None:
        """peers 3, 6: two hundred calls of several kinds, every other one cancelled."""
        channel = await self.channel()
        queue = await self.queue(channel)
        calls: list[Deferred[Any]] = []
        for number in range(200):
            kind = number % 4
            if kind == 0:
                calls.append(channel.basic_get(queue))
            elif kind == 1:
                calls.append(channel.queue_declare(queue, passive=True))
            elif kind == 2:
                calls.append(channel.basic_qos(number))
            else:
                calls.append(channel.queue_purge(queue))
        for call in calls[::3]:
            call.cancel()
        for number, call in enumerate(calls):
            result = await settle(call)
            if number % 3 == 0:
                self.assertIsInstance(result, CancelledError)
            else:
                expected = ["NoneType", "DeclareOk", "QosOk", "PurgeOk"][number % 4]
                self.assertEqual(type(result).__name__, expected)


class CancellingOverRabbitMQ(OverRabbitMQ, CancellingCases):
    pass


class CancellingOverBroker(OverBroker, CancellingCases):
    pass


class CancellingOverPeer(OverPeer, CancellingCases):
    async def test_every_call_times_out_and_the_late_reply_is_swallowed(self) -> None:
        """R2, S-02: OperationTimeout after operation_timeout; then the late reply comes; then the channel is used."""
        for name, call in CALLS.items():
            connection = await self.connect(operation_timeout=0.2)
            channel = await connection.channel()
            queue = await self.queue(channel)
            await channel.queue_declare(queue + ".empty", exclusive=True)
            late: list[Any] = []

            def hold(session: Session, number: int, method: Any, late: list[Any] = late) -> bool:
                late.append((session, number, method))
                return True

            self.broker.on[name] = hold
            timed_out = call(channel, queue)
            error = await self.failure(timed_out, OperationTimeout)
            self.assertIn(name.lower(), str(error))
            self.assertFalse(error.blocked)
            self.assertTrue(channel.is_open, name)
            self.broker.on.clear()
            [(session, number, method)] = late
            session.method_received(number, method)
            await pause(0.02)
            await channel.basic_qos(5)
            await settle(call(channel, queue))
            self.assertTrue(channel.is_open, name)
            await connection.close()

    async def test_a_channel_that_is_not_opened_in_time(self) -> None:
        """R2: OperationTimeout; when open-ok comes after all, the channel is closed and its number free."""
        connection = await self.connect(operation_timeout=0.2, channel_max=1)
        late: list[Any] = []

        def hold(session: Session, number: int, method: Any) -> bool:
            late.append((number, method))
            return True

        self.broker.on["Channel.Open"] = hold
        await self.failure(connection.channel(), OperationTimeout)
        self.broker.on.clear()
        [(number, method)] = late
        self.session.method_received(number, method)
        await self.until(lambda: "Channel.Close" in self.session.names())
        await pause(0.02)
        self.assertEqual((await connection.channel()).channel_number, 1)

    async def test_cancel_then_the_connection_ends(self) -> None:
        """R28: a cancelled call is not fired again by the end of the connection."""
        connection = await self.connect()
        channel = await connection.channel()
        self.broker.on["Basic.Qos"] = ignore
        calls = [channel.basic_qos(n) for n in range(4)]
        calls[1].cancel()
        await self.failure(calls[1], CancelledError)
        self.session.close_connection(320, "CONNECTION_FORCED")
        for call in (calls[0], calls[2], calls[3]):
            await self.failure(call, ConnectionClosed)

    async def test_update_secret(self) -> None:
        """R-68: the new secret is sent; the reply fires the Deferred; no answer is OperationTimeout."""
        connection = await self.connect(operation_timeout=0.2)
        await connection.update_secret("new token", "it was about to expire")
        sent = self.session.last("Connection.UpdateSecret")
        self.assertEqual((sent.new_secret, sent.reason), ("new token", "it was about to expire"))
        self.assertNotIn("new token", repr(connection))
        self.broker.on["Connection.UpdateSecret"] = ignore
        await self.failure(connection.update_secret("other", ""), OperationTimeout)
        self.broker.on.clear()
        third = connection.update_secret("third", "")
        await self.until(lambda: self.session.last("Connection.UpdateSecret").new_secret == "third")
        await pause(0.02)
        self.assertFalse(third.called)  # the reply was the late one
        self.session.send(0, commands.Connection.UpdateSecretOk())
        await third
