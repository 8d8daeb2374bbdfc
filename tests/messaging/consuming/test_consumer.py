"""Consumer: limits, ``async with``, ``async for``, and what is refused because a broker would end the connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import (
    CodecNotInstalled,
    ConfigurationError,
    ConnectionLost,
    ConsumerCancelled,
    NotBoundError,
    OperationTimeout,
    SerializerNotInstalled,
)
from txmsg.messaging import Consumer, Message, Queue


class ConsumerCase(MemoryCase):
    """Consumers on the channel of the test."""

    def consumer(self, *queues: Any, **settings: Any) -> Consumer:
        return Consumer(self.channel, list(queues), **settings)


class SettingTests(ConsumerCase):
    """kombu H10, H11, H19 to H21."""

    def test_what_cannot_be(self) -> None:
        """Raised at construction: unknown names in accept, and counts that AMQP cannot carry."""
        self.assertRaises(SerializerNotInstalled, Consumer, self.channel, accept=["jsom"])
        for count in (-1, 65536, 1.5, True):
            self.assertRaises(ConfigurationError, Consumer, self.channel, prefetch_count=count)
        self.assertRaises(CodecNotInstalled, Consumer, self.channel, accept_compression=["gzip", "gzop"])
        self.assertRaises(ConfigurationError, Consumer, "no channel")
        self.assertEqual(Consumer(accept="json").accept, {"application/json"})

    def test_qos(self) -> None:
        """kombu H19, celery C-16.

        For what is consumed from now on; prefetch_size and apply_global are refused here (540 there).
        """
        seen: list[Message] = []
        consumer = self.done(self.consumer(Queue("q"), on_message=seen.append, prefetch_count=1).consume())
        self.send("q", *[b"%d" % n for n in range(5)])
        for wrong in ({"prefetch_size": 1}, {"apply_global": True}, {"prefetch_count": 65536}):
            self.failureResultOf(consumer.qos(**wrong), ConfigurationError)
        self.failureResultOf(Consumer().qos(), NotBoundError)
        self.assertTrue(self.channel.is_open)
        self.done(consumer.qos(prefetch_count=3))
        self.assertEqual(self.depth("q"), (4, 1))
        self.done(consumer.flow(False))
        self.done(consumer.flow(True))
        self.turn()
        self.assertEqual(self.depth("q"), (1, 4))

    def test_flow(self) -> None:
        """kombu H21: False lets nothing come, and keeps it in the queue; what is added meanwhile waits, too."""
        seen: list[bytes] = []
        consumer = self.consumer(Queue("q"), on_message=lambda message: seen.append(message.body))
        self.done(consumer.consume(no_ack=True))
        self.done(consumer.flow(True))
        self.done(consumer.flow(False))
        self.done(consumer.flow(False))
        self.assertTrue(consumer.is_paused)
        self.done(consumer.add_queue(Queue("r")))
        self.done(consumer.consume())
        self.send("q", b"1")
        self.send("r", b"2")
        self.assertEqual((seen, self.depth("q")), ([], (1, 0)))
        self.done(consumer.flow(True))
        self.turn()
        self.assertEqual((sorted(seen), self.depth("q"), consumer.is_paused), ([b"1", b"2"], (0, 0), False))
        self.done(consumer.flow(False))
        self.done(consumer.cancel())
        self.done(consumer.consume())
        self.assertTrue(consumer.is_consuming)

    def test_flow_of_a_queue_that_would_go(self) -> None:
        """kombu H21: an auto_delete queue would be deleted with its messages."""
        consumer = self.done(self.consumer(Queue("q", auto_delete=True), on_message=print).consume())
        deferred = consumer.flow(False)
        self.turn()
        self.failureResultOf(deferred, ConfigurationError)
        self.assertTrue(consumer.is_consuming)
        self.assertFalse(consumer.is_paused)

    def test_recover(self) -> None:
        """kombu H20, celery C-17: to anybody; "to the same consumer" is refused here, for it ends connections."""
        seen: list[Message] = []
        consumer = self.done(self.consumer(Queue("q"), on_message=seen.append).consume())
        self.send("q", b"1")
        self.failureResultOf(consumer.recover(requeue=False), ConfigurationError)
        self.failureResultOf(Consumer().recover(), NotBoundError)
        self.done(consumer.recover())
        self.turn()
        self.assertEqual([message.redelivered for message in seen], [False, True])

    def test_purge(self) -> None:
        """kombu H21, celery C-18: the sum over all queues."""
        consumer = self.consumer(Queue("q"), Queue("r"))
        self.done(consumer.declare())
        self.send("q", b"1", b"2")
        self.send("r", b"3")
        self.assertEqual(self.done(consumer.purge()), 3)
        self.failureResultOf(Consumer().purge(), NotBoundError)

    def test_repr(self) -> None:
        """Queues and state."""
        consumer = self.consumer(Queue("q"), on_message=print)
        self.assertIn("[q]", repr(consumer))
        self.assertTrue(repr(consumer).endswith("idle>"))
        self.done(consumer.consume())
        self.assertTrue(repr(consumer).endswith("consuming>"))
        self.done(consumer.flow(False))
        self.assertTrue(repr(consumer).endswith("paused>"))


class IterationTests(ConsumerCase):
    """Messages for ``async for``: bounded, in order, none lost."""

    def test_async_for(self) -> None:
        """It consumes by itself; the messages are not decoded yet; it ends at cancel, with the last that came."""
        consumer = self.consumer(Queue("q"))
        self.done(consumer.declare())
        self.send("q", b"1", b"2", b"3")
        seen: list[Any] = []

        async def read() -> None:
            async for message in consumer:
                seen.append(message.payload)
                message.ack()

        reading = Deferred.fromCoroutine(read())
        self.turn()
        self.send("q", b"4")
        self.assertEqual(seen, [1, 2, 3, 4])
        self.assertNoResult(reading)
        self.done(consumer.cancel())
        self.successResultOf(reading)
        self.assertEqual(self.depth("q"), (0, 0))

    def test_what_came_before(self) -> None:
        """Messages that came between consume and the loop, and before cancel, are there."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.send("q", b"1", b"2")
        self.done(consumer.cancel())
        seen = []

        async def read() -> None:
            async for message in consumer:
                seen.append(message.payload)

        self.run_async(read())
        self.assertEqual(seen, [1, 2])

    def test_bounded(self) -> None:
        """200 at most wait to be fetched, unless another count is given."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.send("q", *[b"1"] * 250)
        self.assertEqual(self.depth("q"), (50, 200))
        self.done(consumer.close())
        self.assertEqual(self.depth("q"), (250, 0))
        self.done(self.consumer(Queue("q"), prefetch_count=3).consume())
        self.assertEqual(self.depth("q"), (247, 3))

    def test_close_gives_back(self) -> None:
        """kombu H23: what was delivered and not fetched; in its order; what was fetched stays to be settled."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.send("q", b"1", b"2", b"3")
        first = self.done(consumer.get())
        self.done(consumer.close())
        self.assertEqual(self.depth("q"), (2, 1))
        first.ack()
        again = self.done(self.consumer(Queue("q")).consume())
        self.turn()
        self.assertEqual([self.done(again.get()).payload for _ in range(2)], [2, 3])
        self.done(consumer.close())

    def test_no_ack(self) -> None:
        """R24, kombu O5: settled when it is fetched; the prefetch count bounds what waits, and close loses none."""
        consumer = self.done(self.consumer(Queue("q"), no_ack=True, prefetch_count=2).consume())
        self.send("q", b"1", b"2", b"3", b"4", b"5")
        self.assertEqual(self.depth("q"), (3, 2))
        waiting = [consumer.get() for _ in range(3)]
        messages = [self.done(each) for each in waiting]
        self.assertEqual([(message.payload, message.state) for message in messages], [(n, "no_ack") for n in (1, 2, 3)])
        messages[0].ack()
        self.assertEqual(self.depth("q"), (0, 2))
        self.done(consumer.close())
        self.assertEqual(self.depth("q"), (2, 0))
        self.failureResultOf(consumer.get(), ConsumerCancelled)

    def test_no_ack_after_a_loss(self) -> None:
        """What was not fetched comes again, and is seen once."""
        consumer = self.done(self.consumer(Queue("q"), no_ack=True).consume())
        self.send("q", b"1", b"2")
        self.cut()
        self.turn(5.0)
        self.assertEqual([self.done(consumer.get()).payload for _ in range(2)], [1, 2])
        self.assertEqual(self.depth("q"), (0, 0))

    def test_no_ack_and_a_callback_that_came_late(self) -> None:
        """Those who are called with messages that were to be fetched get them settled, too."""
        consumer = self.done(self.consumer(Queue("q"), no_ack=True).consume())
        self.send("q", b"1")
        seen: list[Any] = []
        consumer.register_callback(lambda body, message: seen.append((body, message.state)))
        self.send("q", b"2")
        self.assertEqual(seen, [(1, "no_ack"), (2, "no_ack")])
        self.assertEqual(self.depth("q"), (0, 0))

    def test_direct_replies(self) -> None:
        """The broker wants no_ack for them; what has come can be fetched after close."""
        consumer = self.done(
            self.consumer(Queue("amq.rabbitmq.reply-to", no_declare=True), no_ack=True, auto_declare=False).consume()
        )
        self.done(self.channel.queue_declare("requests"))
        self.done(self.channel.publish("", "requests", b"", {"reply_to": "amq.rabbitmq.reply-to"}))
        request = self.done(self.channel.get("requests", no_ack=True))
        self.done(self.channel.publish("", request.properties["reply_to"], b"answer"))
        self.turn()
        self.done(consumer.close())
        self.assertEqual(self.done(consumer.get()).payload, b"answer")

    def test_stale_ones_do_not_pile_up(self) -> None:
        """R24: a reader that is stuck, while connections come and go."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.send("q", *[b"1"] * 50)
        for _ in range(5):
            self.cut()
            self.turn(5.0)
        self.assertEqual(len(consumer._stream), 50)

    def test_stale_ones_are_dropped(self) -> None:
        """After a loss the broker delivers again: each is seen once."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.send("q", b"1", b"2")
        self.cut()
        self.turn(5.0)
        waiting = [consumer.get() for _ in range(3)]
        self.assertEqual([self.done(each).payload for each in waiting[:2]], [1, 2])
        self.assertNoResult(waiting[2])
        waiting[2].cancel()
        self.failureResultOf(waiting[2], CancelledError)
        self.send("q", b"3")
        self.assertEqual(self.done(consumer.get()).payload, 3)

    def test_timeout(self) -> None:
        """get() waits that long, and takes nothing along when it gives up."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        waiting = consumer.get(timeout=2.0)
        self.clock.advance(1.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.failureResultOf(waiting, OperationTimeout)
        self.send("q", b"1")
        self.assertEqual(self.done(consumer.get(timeout=1.0)).payload, 1)
        waiting = consumer.get(timeout=1.0)
        self.send("q", b"2")
        self.assertEqual(self.done(waiting).payload, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_queue_is_deleted(self) -> None:
        """The loop fails with the reason."""
        consumer = self.done(self.consumer(Queue("q"), on_cancel=lambda queue, reason: None).consume())

        async def read() -> None:
            async for _ in consumer:
                pass

        reading = Deferred.fromCoroutine(read())
        self.done(self.channel.queue_delete("q"))
        self.turn()
        self.assertEqual(self.failureResultOf(reading, ConsumerCancelled).value.initiator, "server")

    def test_with_callbacks(self) -> None:
        """Refused: nothing would ever come."""
        with self.assertRaises(ConfigurationError):
            aiter(self.consumer(Queue("q"), on_message=print))


class BlockTests(ConsumerCase):
    """kombu H23: ``async with``."""

    def test_enter_and_exit(self) -> None:
        """Consumes, and closes, also when the block fails."""
        seen: list[bytes] = []
        consumer = self.consumer(Queue("q"), on_message=lambda message: seen.append(message.body))

        async def block(error: Exception | None) -> None:
            async with consumer as same:
                self.assertIs(same, consumer)
                self.assertTrue(consumer.is_consuming)
                await self.channel.publish("", "q", b"1")
                await self.pause()
                if error is not None:
                    raise error

        self.run_async(block(None))
        self.assertEqual((seen, consumer.is_consuming), ([b"1"], False))
        self.turn()
        failing = Deferred.fromCoroutine(block(ValueError("mine")))
        self.turn()
        self.failureResultOf(failing, ValueError)
        self.assertFalse(consumer.is_consuming)

    def pause(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.clock.callLater(0, waiting.callback, None)
        return waiting

    def test_the_connection_was_lost(self) -> None:
        """The error of the block comes out, and nobody waits for a cancel-ok; what close does wrong is no matter."""
        consumer = self.consumer(Queue("q"), on_message=print)
        never: Deferred[None] = Deferred()

        async def block() -> None:
            async with consumer:
                consumer.cancel = lambda: never  # type: ignore[method-assign]
                raise ConnectionLost("gone")

        failing = Deferred.fromCoroutine(block())
        self.turn()
        self.failureResultOf(failing, ConnectionLost)
        never.errback(ConnectionLost("gone"))
