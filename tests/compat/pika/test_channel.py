"""TwistedChannel over RabbitMQ and over the embedded broker: rows K-01 to K-54, M and O of pika's adapter."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from unittest import mock

from pika import BasicProperties, DeliveryMode, exceptions, frame, spec
from pika.exchange_type import ExchangeType
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue

from tests.compat.pika.cases import OverBroker, OverRabbitMQ, PikaCase, noting, outcomes, pause, settle
from txmsg.compat.pika import ClosableDeferredQueue, ReceivedMessage, TwistedChannel


class DeclaringCases(PikaCase):
    async def test_frames(self) -> None:
        """K-01, K-36 to K-46, X-01: every method fires with pika's frame of its reply."""
        channel = await self.pika_channel()
        exchange, other, queue = self.name("e"), self.name("f"), self.name("q")
        declared = await channel.queue_declare(queue=queue, durable=False, exclusive=True, auto_delete=True)
        self.assertIsInstance(declared, frame.Method)
        self.assertEqual(declared.channel_number, channel.channel_number)
        self.assertIsInstance(declared.method, spec.Queue.DeclareOk)
        self.assertEqual(
            (declared.method.queue, declared.method.message_count, declared.method.consumer_count), (queue, 0, 0)
        )
        replies = [
            (channel.exchange_declare(exchange, ExchangeType.topic), spec.Exchange.DeclareOk),
            (channel.exchange_declare(exchange=other, exchange_type="fanout"), spec.Exchange.DeclareOk),
            (channel.exchange_bind(other, exchange, "a.*"), spec.Exchange.BindOk),
            (channel.exchange_unbind(other, exchange, "a.*"), spec.Exchange.UnbindOk),
            (channel.queue_bind(queue, exchange), spec.Queue.BindOk),
            (channel.queue_unbind(queue=queue, exchange=exchange), spec.Queue.UnbindOk),
            (channel.queue_bind(queue, exchange, "", {"x": 1}), spec.Queue.BindOk),
            (channel.basic_qos(prefetch_count=3), spec.Basic.QosOk),
            (channel.basic_recover(True), spec.Basic.RecoverOk),
            (channel.queue_purge(queue), spec.Queue.PurgeOk),
            (channel.queue_delete(queue), spec.Queue.DeleteOk),
            (channel.exchange_delete(exchange), spec.Exchange.DeleteOk),
            (channel.exchange_delete(other, if_unused=True), spec.Exchange.DeleteOk),
        ]
        for deferred, kind in replies:
            self.assertIsInstance((await deferred).method, kind)
        self.assertIs(await channel.flow(True), True)

    async def test_routing_key_defaults_to_the_queue(self) -> None:
        """K-44, K-45, F33: None is the queue's name, "" is the empty key."""
        channel = await self.pika_channel()
        queue = await self.pika_queue(channel)
        await channel.queue_bind(queue, "amq.direct")
        await channel.basic_publish("amq.direct", queue, b"named")
        await self.pika_depth(channel, queue, 1)

    async def test_transactions(self) -> None:
        """K-51, P-01 to P-03."""
        channel = await self.pika_channel()
        queue = await self.pika_queue(channel)
        self.assertIsInstance((await channel.tx_select()).method, spec.Tx.SelectOk)
        channel.basic_publish("", queue, b"1")
        self.assertIsInstance((await channel.tx_rollback()).method, spec.Tx.RollbackOk)
        channel.basic_publish("", queue, b"2")
        self.assertIsInstance((await channel.tx_commit()).method, spec.Tx.CommitOk)
        self.assertEqual((await channel.basic_get(queue, auto_ack=True)).body, b"2")

    async def test_wrong_arguments(self) -> None:
        """K-05, K-06, M-22: a failed Deferred of pika's class, nothing is sent, the channel lives."""
        channel = await self.pika_channel()
        await self.failure(channel.queue_declare(queue=123), TypeError)  # type: ignore[arg-type]
        await self.failure(channel.queue_declare(queue="x" * 300), exceptions.ShortStringTooLong)
        await self.failure(channel.exchange_declare("x" * 300), exceptions.ShortStringTooLong)
        await self.failure(channel.queue_declare(queue="q", arguments=[1]), TypeError)  # type: ignore[arg-type]
        await self.failure(channel.basic_qos(prefetch_count=-1), ValueError)
        await self.failure(channel.exchange_delete(None), TypeError)
        await self.failure(channel.exchange_unbind(), TypeError)
        await self.failure(channel.basic_consume(queue=5), TypeError)  # type: ignore[arg-type]
        await self.failure(channel.basic_get(queue=None), TypeError)  # type: ignore[arg-type]
        await self.failure(channel.basic_publish("", "q", 5), TypeError)  # type: ignore[arg-type]
        await self.failure(channel.basic_publish("", "q", b"", BasicProperties(expiration=5)), TypeError)
        await self.failure(channel.basic_publish("", "q", b"", {"priority": 1}), TypeError)
        await self.failure(channel.basic_publish("", "k" * 300, b""), exceptions.ShortStringTooLong)
        self.assertRaises(TypeError, channel.basic_ack, "1")
        self.assertTrue(channel.is_open)
        await channel.basic_qos()

    async def test_flags_of_any_type(self) -> None:
        """As with pika, what is true is True and what is false is False."""
        flags: list[Any] = [1, "yes", 0, None, ""]
        channel = await self.pika_channel()
        queue, exchange = self.name("q"), self.name("e")
        await channel.queue_declare(queue, flags[2], flags[3], flags[0], flags[1])
        await channel.exchange_declare(exchange, "fanout", flags[4], flags[3], flags[1], flags[0])
        self.assertIs(await channel.flow(flags[0]), True)
        await channel.basic_qos(global_qos=flags[0])
        await channel.basic_publish("", queue, b"1", None, flags[3])
        await channel.basic_publish("", queue, b"2", None, flags[0])
        first = await channel.basic_get(queue, flags[2])
        channel.basic_nack(first.method.delivery_tag, flags[0], flags[1])
        channel.basic_reject((await channel.basic_get(queue)).method.delivery_tag, flags[0])
        channel.basic_ack((await channel.basic_get(queue, flags[3])).method.delivery_tag, flags[1])
        received, tag = await channel.basic_consume(queue, flags[0], flags[1])
        self.assertEqual((await received.get()).body, b"2")
        await channel.basic_cancel(tag)
        await channel.basic_recover(flags[0])
        await channel.queue_delete(queue, flags[0], flags[1])
        await channel.exchange_delete(exchange, flags[0])

    async def test_a_call_that_raises(self) -> None:
        """K-05: whatever is raised inside fails the Deferred."""
        channel = await self.pika_channel()
        with mock.patch.object(channel, "_channel", side_effect=None) as native:
            for name in ("queue_declare", "basic_consume", "basic_get"):
                getattr(native, name).side_effect = RuntimeError(name)
                failed = getattr(channel, name)("queue")
                self.assertEqual((await self.failure(failed, RuntimeError)).args, (name,))

    async def test_the_broker_closes_the_channel(self) -> None:
        """K-02, K-03, K-08, K-10, K-25, 24.6: calls behind the failing one, later ones, `on_closed`: one object."""
        channel = await self.pika_channel()
        missing = self.name("missing")
        first = channel.queue_declare("", exclusive=True)
        behind = [channel.queue_declare(missing, passive=True), channel.basic_qos(), channel.basic_consume(missing)]
        seen = outcomes([*behind, channel.on_closed])
        self.assertIsInstance((await first).method, spec.Queue.DeclareOk)
        reason = await settle(channel.basic_get(missing))
        self.assertIsInstance(reason, exceptions.ChannelClosedByBroker)
        self.assertEqual(reason.reply_code, 404)
        self.assertIn(missing, reason.reply_text)
        self.assertEqual(reason.args[0], 404)
        await pause(0)
        self.assertEqual([index for index, _ in seen], [0, 1, 2, 3])
        self.assertEqual({id(value) for _, value in seen}, {id(reason)})
        self.assertTrue(channel.is_closed and not channel.is_open)
        for call in (
            channel.queue_declare("x"),
            channel.basic_publish("", "x", b""),
            channel.basic_consume("x"),
            channel.basic_get("x"),
            channel.basic_get("x"),
            channel.basic_cancel("x"),
            channel.confirm_delivery(),
            channel.flow(True),
        ):
            self.assertIs(await settle(call), reason)
        for settling in (channel.basic_ack, channel.basic_nack, channel.basic_reject):
            self.assertRaises(exceptions.ChannelWrongStateError, settling, 1)
        self.assertRaises(exceptions.ChannelWrongStateError, channel.close)

    async def test_close(self) -> None:
        """K-52, M-14: the second close raises; what is called meanwhile fails; `on_closed` has the code and text."""
        channel = await self.pika_channel()
        closing = channel.close(0, "done here")
        self.assertTrue(channel.is_closing)
        self.assertRaises(exceptions.ChannelWrongStateError, channel.close)
        self.assertRaises(exceptions.ChannelWrongStateError, channel.basic_ack, 1)
        await self.failure(channel.basic_qos(), exceptions.ChannelWrongStateError)
        await self.failure(channel.basic_publish("", "q", b""), exceptions.ChannelWrongStateError)
        await self.failure(channel.confirm_delivery(), exceptions.ChannelWrongStateError)
        reason = await closing
        self.assertIsInstance(reason, exceptions.ChannelClosedByClient)
        self.assertEqual((reason.reply_code, reason.reply_text), (0, "done here"))
        self.assertIs(await channel.on_closed, reason)
        self.assertIs(await settle(channel.basic_qos()), reason)

    async def test_callback_deferred(self) -> None:
        """K-12: fires with the frame, once, also for the replies of close and for content."""
        channel = await self.pika_channel()
        queue = await self.pika_queue(channel)
        for_qos: Deferred[Any] = Deferred()
        for_close: Deferred[Any] = Deferred()
        for_delivery: Deferred[Any] = Deferred()
        channel.callback_deferred(for_qos, [spec.Basic.QosOk, spec.Basic.RecoverOk])
        channel.callback_deferred(for_close, [spec.Channel.CloseOk])
        channel.callback_deferred(for_delivery, [spec.Basic.Deliver])
        await channel.basic_qos()
        await channel.basic_recover(True)
        found = await for_qos
        self.assertIsInstance(found, frame.Method)
        self.assertIsInstance(found.method, spec.Basic.QosOk)
        await channel.basic_consume(queue)
        channel.basic_publish("", queue, b"x")
        self.assertEqual((await for_delivery).method.routing_key, queue)
        channel.close()
        self.assertIsInstance((await for_close).method, spec.Channel.CloseOk)

    async def test_cancelling_calls(self) -> None:
        """Cancelling any Deferred of a call hurts neither channel nor connection."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        queue = await self.pika_queue(channel)
        calls = [
            protocol.channel(),
            channel.confirm_delivery(),
            channel.queue_declare("", exclusive=True),
            channel.queue_bind(queue, "amq.direct", "k"),
            channel.basic_qos(prefetch_count=5),
            channel.basic_get(queue),
            channel.basic_publish("", queue, b"first"),
            channel.exchange_declare("amq.direct", passive=True),
            channel.flow(True),
            channel.basic_consume(queue),
        ]
        seen = outcomes(calls)
        for call in calls:
            call.cancel()
        self.assertEqual({type(value) for _, value in seen}, {CancelledError})
        self.assertEqual((await channel.basic_publish("", queue, b"second")).delivery_tag, 2)
        tag = (await channel.basic_consume(queue))[1]
        cancelling = channel.basic_cancel(tag)
        silent = settle(cancelling)
        cancelling.cancel()
        self.assertIsInstance(await silent, CancelledError)
        await channel.basic_qos()
        self.assertTrue(channel.is_open and protocol.is_open)


class ConsumingCases(PikaCase):
    async def test_consume(self) -> None:
        """K-21, K-14, K-15, X-06: (queue, tag); the message unpacks; the ack counts."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel, b"one", b"two")
        queue, tag = await channel.basic_consume(queue=name, auto_ack=False)
        self.assertIsInstance(queue, ClosableDeferredQueue)
        self.assertIsInstance(queue, DeferredQueue)
        self.assertEqual(channel.consumer_tags, [tag])
        message = await queue.get()
        self.assertIsInstance(message, ReceivedMessage)
        found_channel, method, properties, body = message
        self.assertIs(found_channel, channel)
        self.assertIsInstance(method, spec.Basic.Deliver)
        self.assertEqual(
            (method.consumer_tag, method.delivery_tag, method.redelivered, method.exchange, method.routing_key),
            (tag, 1, False, "", name),
        )
        self.assertIsInstance(properties, BasicProperties)
        self.assertEqual(body, b"one")
        self.assertIsNone(channel.basic_ack(method.delivery_tag))  # type: ignore[func-returns-value]
        await queue.get()
        channel.basic_nack(2, requeue=True)
        again = await queue.get()
        self.assertTrue(again.method.redelivered)
        channel.basic_reject(again.method.delivery_tag, requeue=False)
        await channel.basic_cancel(tag)
        await self.pika_depth(channel, name, 0)

    async def test_multiple_and_nothing_to_settle(self) -> None:
        """K-15, K-16: tag 0 with multiple is all there are, which may be none; a tag that is not open is told."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel, b"1", b"2", b"3")
        queue, tag = await channel.basic_consume(name)
        channel.basic_ack(0, multiple=True)
        for _ in range(3):
            await queue.get()
        channel.basic_ack(2, multiple=True)
        self.assertRaises(exceptions.AMQPChannelError, channel.basic_ack, 2)
        channel.basic_nack(0, multiple=True, requeue=False)
        self.assertRaises(exceptions.AMQPChannelError, channel.basic_nack)
        await channel.basic_cancel(tag)
        await self.pika_depth(channel, name, 0)
        self.assertTrue(channel.is_open)

    async def test_consume_refused(self) -> None:
        """K-24, K-25: a tag in use; a queue that is not there; exclusive."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        name = await self.pika_queue(channel)
        await channel.basic_consume(name, consumer_tag="mine", exclusive=True)
        duplicate = await self.failure(
            channel.basic_consume(name, consumer_tag="mine", arguments={"x": 1}), exceptions.DuplicateConsumerTag
        )
        self.assertEqual(duplicate.args, ("mine",))
        other = await protocol.channel()
        refused = await self.failure(other.basic_consume(name), exceptions.ChannelClosed)
        self.assertEqual(refused.reply_code, 403)
        self.assertTrue(channel.is_open)

    async def test_cancel(self) -> None:
        """K-18 to K-20, L-06, O-05, O-10: the queue is closed before the Deferred fires; the rest goes back."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel, b"1", b"2", b"3")
        queue, tag = await channel.basic_consume(name)
        await self.until(lambda: len(queue.pending) == 3)
        await queue.get()
        closed_before: list[bool] = []
        cancelling = channel.basic_cancel(tag)
        cancelling.addCallback(noting(closed_before, lambda: queue.closed is not None))
        cancelled = await cancelling
        self.assertIsInstance(cancelled.method, spec.Basic.CancelOk)
        self.assertEqual(cancelled.method.consumer_tag, tag)
        self.assertEqual(closed_before, [True])
        error = await self.failure(queue.get(), exceptions.ConsumerCancelled)
        self.assertIn("by the client", repr(error))
        self.assertEqual(channel.consumer_tags, [])
        await self.pika_depth(channel, name, 2)
        for unknown in (tag, "never"):
            self.assertIsInstance((await channel.basic_cancel(unknown)).method, spec.Basic.CancelOk)
        channel.basic_ack(1)

    async def test_cancel_with_auto_ack(self) -> None:
        """K-20, O-06, O-07: what has come stays readable, and nothing is rejected."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel, b"1", b"2")
        queue, tag = await channel.basic_consume(name, auto_ack=True)
        await self.until(lambda: len(queue.pending) == 2)
        await channel.basic_cancel(tag)
        self.assertEqual([(await queue.get()).body for _ in range(2)], [b"1", b"2"])
        await self.failure(queue.get(), exceptions.ConsumerCancelled)
        await self.pika_depth(channel, name, 0)

    async def test_auto_ack_and_the_end_of_the_connection(self) -> None:
        """L-06, O-06: the broker has forgotten what came with auto_ack, so it stays readable; the rest is dropped."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        forgotten, _ = await channel.basic_consume(await self.pika_queue(channel, b"1", b"2"), auto_ack=True)
        kept, _ = await channel.basic_consume(await self.pika_queue(channel, b"3"))
        await self.until(lambda: (len(forgotten.pending), len(kept.pending)) == (2, 1))
        protocol.close()
        reason = await channel.on_closed
        self.assertEqual([(await forgotten.get()).body for _ in range(2)], [b"1", b"2"])
        self.assertIs(await settle(forgotten.get()), reason)
        self.assertIs(await settle(kept.get()), reason)

    async def test_who_is_told_of_the_end_calls_again(self) -> None:
        """K-02, K-10, K-11: calls, publishes, consumers, `on_closed`, `closed`; what they call then changes nothing."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        queue = await self.pika_queue(channel)
        await channel.confirm_delivery()
        received, _ = await channel.basic_consume(queue)
        order: list[str] = []

        def note(name: str, waiting: Deferred[Any] | None) -> None:
            def told(result: Any) -> None:
                order.append(name)
                for call in (channel.basic_qos, received.get, lambda: channel.basic_publish("", queue, b"")):
                    again: Any = call()
                    again.addErrback(lambda failure: None)
                for raising in (channel.close, channel.basic_ack):
                    self.assertRaises(exceptions.ChannelWrongStateError, raising)
                protocol.close()

            assert waiting is not None
            waiting.addBoth(told)

        note("get 1", received.get())
        note("get 2", received.get())
        note("on_closed", channel.on_closed)
        note("closed", protocol.closed)
        note("publish 1", channel.basic_publish(self.name("missing"), "", b""))
        note("publish 2", channel.basic_publish("", queue, b""))
        note("call", channel.basic_qos())
        await self.until(lambda: len(order) == 7)
        self.assertEqual(order, ["call", "publish 1", "publish 2", "get 1", "get 2", "on_closed", "closed"])

    async def test_queue_deleted(self) -> None:
        """K-47, K-49, O-01, O-02, M-03: by us and from elsewhere; a waiting get fails; the channel stays open."""
        protocol = await self.pika_connect()
        channel, elsewhere = await protocol.channel(), await protocol.channel()
        name = await self.pika_queue(channel)
        queue, _ = await channel.basic_consume(name)
        cancels: list[Any] = []
        channel.add_on_cancel_callback(cancels.append)
        waiting = queue.get()
        await elsewhere.queue_delete(name)
        await self.failure(waiting, exceptions.ConsumerCancelled)
        self.assertEqual(channel.consumer_tags, [])
        await self.until(lambda: cancels)
        self.assertIsInstance(cancels[0].method, spec.Basic.Cancel)
        name = await self.pika_queue(channel)
        queue, _ = await channel.basic_consume(name)
        waiting = queue.get()
        seen = outcomes([waiting])
        await channel.queue_delete(name)
        self.assertIsInstance(seen[0][1], exceptions.ConsumerCancelled)
        await channel.basic_qos()

    async def test_channel_closed_under_a_consumer(self) -> None:
        """K-02, L-04, L-07: who waits fails with the channel's reason, the oldest first."""
        channel = await self.pika_channel()
        queue, _ = await channel.basic_consume(await self.pika_queue(channel))
        waiting = [queue.get() for _ in range(3)]
        seen = outcomes(waiting)
        channel.queue_declare(self.name("missing"), passive=True).addErrback(lambda failure: None)
        reason = await channel.on_closed
        self.assertEqual([index for index, _ in seen], [0, 1, 2])
        self.assertTrue(all(value is reason for _, value in seen))
        self.assertIs(await settle(queue.get()), reason)

    async def test_get(self) -> None:
        """K-27 to K-30, X-05: a message with GetOk, or None; several at once, where pika raises."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel, b"1", b"2")
        first, second, third = (
            channel.basic_get(name),
            channel.basic_get(queue=name, auto_ack=True),
            channel.basic_get(name),
        )
        message = await first
        self.assertIsInstance(message.method, spec.Basic.GetOk)
        self.assertEqual((message.method.delivery_tag, message.method.message_count, message.body), (1, 1, b"1"))
        self.assertIs(message.channel, channel)
        self.assertEqual((await second).body, b"2")
        self.assertIsNone(await third)
        channel.basic_ack(1)

    async def test_properties_of_every_kind(self) -> None:
        """24.13: there and back in pika's types; what is falsy is present; each message has its own object."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel)
        moment = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
        headers = {
            "s": "text",
            "x": b"\xff\x00",
            "i": 5,
            "l": 2**40,
            "t": True,
            "d": Decimal("1.5"),
            "T": moment,
            "F": {"inner": [1, {"deep": moment}]},
            "A": [1, "two", None],
            "V": None,
        }
        full = BasicProperties(
            content_type="text/plain",
            content_encoding="utf-8",
            headers=headers,
            delivery_mode=DeliveryMode.Persistent,
            priority=0,
            correlation_id="",
            reply_to="r",
            expiration="60000",
            message_id="m",
            timestamp=5,
            type="t",
            user_id="guest",
            app_id="a",
        )
        sent = [full, BasicProperties(priority=3), BasicProperties(priority=3), None, BasicProperties(type=b"bytes")]
        for properties in sent:
            channel.basic_publish("", name, b"", properties)
        found = [(await channel.basic_get(name, auto_ack=True)).properties for _ in sent]
        self.assertEqual(found[0].__dict__, full.__dict__)
        self.assertIs(type(found[0].headers["i"]), int)
        self.assertEqual(found[1], BasicProperties(priority=3))
        self.assertEqual(found[3], BasicProperties())
        self.assertEqual(found[4].type, "bytes")
        queue, _ = await channel.basic_consume(name, auto_ack=True)
        shared = BasicProperties(priority=3)
        for _ in range(3):
            channel.basic_publish("", name, b"", shared)
        shared.priority = 4  # pika's properties may be changed and used again
        channel.basic_publish("", name, b"", shared)
        found = [(await queue.get()).properties for _ in range(4)]
        found[0].priority = found[1].priority = 9
        self.assertEqual([found[2].priority, found[3].priority], [3, 4])

    async def test_bodies(self) -> None:
        """K-33, K-34: str is UTF-8, empty is legal, large ones are cut into frames; bytes as a routing key."""
        channel = await self.pika_channel()
        name = await self.pika_queue(channel)
        bodies: list[bytes | str] = ["gr\u00fc\u00df", "", b"x" * 400_000]
        for body in bodies:
            channel.basic_publish(exchange="", routing_key=name.encode(), body=body)
        found = [(await channel.basic_get(name, auto_ack=True)).body for _ in bodies]
        self.assertEqual(found, ["gr\u00fc\u00df".encode(), b"", b"x" * 400_000])

    async def test_repr(self) -> None:
        """It shows number and state."""
        channel = await self.pika_channel()
        self.assertIn("Channel 1 open", repr(channel))
        self.assertIsInstance(channel, TwistedChannel)
        self.assertTrue(channel.flow_active)
        self.assertIsNone(channel.open())  # type: ignore[func-returns-value]
        self.assertTrue(channel.is_open)
        self.assertRaises(AttributeError, getattr, channel, "add_callback")


class DeclaringOverRabbitMQ(OverRabbitMQ, DeclaringCases):
    pass


class DeclaringOverBroker(OverBroker, DeclaringCases):
    pass


class ConsumingOverRabbitMQ(OverRabbitMQ, ConsumingCases):
    pass


class ConsumingOverBroker(OverBroker, ConsumingCases):
    pass
