"""itermessages, drain_consumer and eventloop: no message is lost, whatever ends the loop."""

from __future__ import annotations

import gc
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import (
    AccessRefused,
    ConfigurationError,
    ConnectionClosed,
    ConsumerCancelled,
    DecodeError,
    NotFound,
    OperationTimeout,
)
from txmsg.messaging import Consumer, Queue, drain_consumer, eventloop, itermessages
from txmsg.messaging.consuming.stream import watchers


class IteratingCase(MemoryCase):
    """A queue, "q"."""

    def setUp(self) -> None:
        super().setUp()
        self.done(self.channel.queue_declare("q", durable=True))
        self.queue = Queue("q")

    def start(self, coroutine: Any) -> Deferred[Any]:
        started = Deferred.fromCoroutine(coroutine)
        self.turn()
        return started


class ItermessagesTests(IteratingCase):
    """kombu O5, O6."""

    def collect(self, messages: Any, ack: bool = True) -> Deferred[list[Any]]:
        async def read() -> list[Any]:
            found = []
            async for body, message in messages:
                found.append(body)
                if ack:
                    message.ack()
            return found

        return self.start(read())

    def test_limit(self) -> None:
        """One, unless more are wanted; the rest is in the queue again when the loop ends."""
        self.send("q", *[b"%d" % n for n in range(10)])
        one = self.collect(itermessages(self.connection, None, self.queue))
        self.assertEqual((self.successResultOf(one), self.depth("q")), ([0], (9, 0)))
        three = self.collect(itermessages(None, self.channel, self.queue, limit=3, prefetch_count=5))
        self.assertEqual((self.successResultOf(three), self.depth("q")), ([1, 2, 3], (6, 0)))
        none = self.collect(itermessages(None, self.channel, self.queue, limit=0))
        self.assertEqual(self.successResultOf(none), [])
        self.assertRaises(ConfigurationError, itermessages, None, self.channel, self.queue, limit=-1)

    def test_settled_later(self) -> None:
        """The last one is closed before it is yielded, and can be settled still."""

        async def read() -> Any:
            async for _, message in itermessages(None, self.channel, self.queue):
                return message
            return None

        reading = self.start(read())
        self.send("q", b"1", b"2")
        message = self.successResultOf(reading)
        self.assertEqual(self.depth("q"), (1, 1))
        message.ack()
        self.assertEqual(self.depth("q"), (1, 0))

    def test_closed_at_the_limit(self) -> None:
        """Nobody has to ask for another one."""
        self.send("q", b"1", b"2", b"3")
        messages = itermessages(None, self.channel, self.queue, limit=2, prefetch_count=3)
        for _ in range(2):
            self.successResultOf(self.start(anext(messages)))
        self.assertFalse(messages.consumer.is_consuming)
        self.assertEqual(self.depth("q"), (1, 2))

    def test_timeout(self) -> None:
        """The loop ends when nothing comes for that long; None waits for ever."""
        self.send("q", b"1")
        reading = self.collect(itermessages(None, self.channel, self.queue, limit=None, timeout=2.0))
        self.turn(1.9)
        self.send("q", b"2")
        self.turn(1.9)
        self.assertNoResult(reading)
        self.turn(0.2)
        self.assertEqual(self.successResultOf(reading), [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_ack(self) -> None:
        """Each is settled as it is yielded; what was not yielded is not lost."""
        self.send("q", *[b"%d" % n for n in range(5)])
        reading = self.collect(itermessages(None, self.channel, self.queue, limit=2, no_ack=True), ack=False)
        self.assertEqual((self.successResultOf(reading), self.depth("q")), ([0, 1], (3, 0)))
        again = self.collect(itermessages(None, self.channel, Queue("q", no_ack=True)))
        self.assertEqual((self.successResultOf(again), self.depth("q")), ([2], (2, 0)))

    def test_left_early(self) -> None:
        """By break: what was not yielded is in the queue again."""
        self.send("q", b"1", b"2", b"3")

        async def read() -> None:
            async for _, message in itermessages(None, self.channel, self.queue, limit=None):
                message.ack()
                break

        self.successResultOf(self.start(read()))
        gc.collect()
        self.turn()
        self.assertEqual(self.depth("q"), (2, 0))

    def test_left_early_in_a_block(self) -> None:
        """By an error: it is in the queue when the block is left."""
        self.send("q", b"1", b"2", b"3")
        left: list[Any] = []

        async def read() -> None:
            messages = itermessages(None, self.channel, self.queue, limit=None)
            try:
                async with messages:
                    async for _ in messages:
                        raise ValueError("mine")
            finally:
                left.append(self.depth("q"))

        self.failureResultOf(self.start(read()), ValueError)
        self.assertEqual(left, [(2, 1)])

    def test_callbacks(self) -> None:
        """Are called, and awaited, before the message is yielded."""
        seen: list[Any] = []

        async def note(body: Any, message: Any) -> None:
            seen.append(("callback", body))

        async def read() -> None:
            async for body, _ in itermessages(None, self.channel, self.queue, callbacks=[note]):
                seen.append(("loop", body))

        reading = self.start(read())
        self.send("q", b"1")
        self.successResultOf(reading)
        self.assertEqual(seen, [("callback", 1), ("loop", 1)])

    def test_bad_messages(self) -> None:
        """They are for on_decode_error; without one the step raises, and the next goes on with the next message."""
        errors: list[Any] = []

        def note(message: Any, error: Exception) -> None:
            errors.append(error)
            message.reject()

        self.send("q", b"bad", b"1", b"bad", b"2")
        messages = itermessages(None, self.channel, self.queue, limit=2, on_decode_error=note)
        self.assertEqual(self.successResultOf(self.collect(messages)), [1])
        self.assertEqual([type(error) for error in errors], [DecodeError])
        other = itermessages(None, self.channel, self.queue, limit=None)
        self.failureResultOf(self.start(anext(other)), DecodeError)
        body, message = self.successResultOf(self.start(anext(other)))
        self.assertEqual(body, 2)
        message.ack()
        self.successResultOf(self.start(other.aclose()))
        self.successResultOf(self.start(other.aclose()))
        self.failureResultOf(self.start(anext(other)), StopAsyncIteration)

    def test_errors(self) -> None:
        """What consuming fails with comes out of the loop; so does the end of the queue."""
        self.done(self.connect().channel())
        other = self.done(self.connect().channel())
        self.done(other.consume("q", print, exclusive=True, consumer_tag="c"))
        self.failureResultOf(self.start(anext(itermessages(None, self.channel, self.queue))), AccessRefused)
        self.done(other.cancel("c"))
        self.turn(2.0)
        waiting = self.start(anext(itermessages(None, self.channel, self.queue)))
        self.done(other.queue_delete("q"))
        self.turn()
        self.failureResultOf(waiting, ConsumerCancelled)

    def test_a_start_that_failed(self) -> None:
        """The next step starts again."""
        messages = itermessages(None, self.channel, Queue("later"), auto_declare=False)
        self.failureResultOf(self.start(anext(messages)), NotFound)
        self.turn(2.0)
        self.done(self.channel.queue_declare("later"))
        self.send("later", b"1")
        self.assertEqual(self.successResultOf(self.start(anext(messages)))[0], 1)

    def test_given_up_while_it_closes(self) -> None:
        """kombu O5: the message that nobody has seen goes back."""
        never: Deferred[None] = Deferred()
        messages = itermessages(None, self.channel, self.queue)
        with mock.patch.object(messages.consumer, "close", lambda: never):
            self.send("q", b"1")
            waiting = self.start(anext(messages))
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.done(self.channel.cancel(messages.consumer.consumer_tags[0]))
        self.assertEqual(sum(self.depth("q")), 1)
        self.done(messages.consumer.close())
        self.assertEqual(self.depth("q"), (1, 0))

    def test_drain_consumer(self) -> None:
        """kombu O6: of a consumer that is there; its callbacks are not called."""
        called: list[Any] = []
        consumer = Consumer(self.channel, self.queue, callbacks=[lambda *given: called.append(given)])
        reading = self.collect(drain_consumer(consumer, limit=2))
        self.send("q", b"1", b"2", b"3")
        self.assertEqual((self.successResultOf(reading), called, self.depth("q")), ([1, 2], [], (1, 0)))
        stopped = self.start(anext(drain_consumer(Consumer(self.channel, Queue("empty")), limit=None)))
        self.assertNoResult(stopped)
        self.done(self.channel.close())
        self.failureResultOf(stopped)


class EventLoopTests(IteratingCase):
    """kombu O7."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[Any] = []
        consumer = Consumer(self.channel, self.queue, callbacks=[lambda body, message: self.seen.append(body)])
        self.done(consumer.consume())

    def steps(self, loop: Any) -> Deferred[int]:
        async def count() -> int:
            number = 0
            async for _ in loop:
                number += 1
            return number

        return self.start(count())

    def test_a_step_for_each_message(self) -> None:
        """Of any consumer of the connection, up to the limit; those of another connection do not count."""
        other = self.done(self.connect().channel())
        self.done(Consumer(other, Queue("r"), on_message=print, auto_declare=True, no_ack=True).consume())
        steps = self.steps(eventloop(self.connection, limit=3))
        self.send("q", b"1", b"bad")
        self.flushLoggedErrors(DecodeError)
        self.send("r", b"1")
        self.assertNoResult(steps)
        self.send("q", b"2")
        self.assertEqual((self.successResultOf(steps), self.seen), (3, [1, 2]))

    def test_several_at_once(self) -> None:
        """What came while the loop did something else is not forgotten."""
        loop = eventloop(self.connection, limit=4)
        first = self.start(anext(loop))
        self.send("q", b"1", b"2", b"3", b"4")
        self.successResultOf(first)
        self.assertEqual(self.successResultOf(self.steps(loop)), 3)

    def test_timeouts(self) -> None:
        """They come out by default; ignored, they count as steps that yield nothing."""
        steps = self.steps(eventloop(self.connection, timeout=1.0))
        self.turn(1.1)
        self.failureResultOf(steps, OperationTimeout)
        steps = self.steps(eventloop(self.connection, limit=3, timeout=1.0, ignore_timeouts=True))
        self.turn(1.1)
        self.send("q", b"1")
        self.turn(1.1)
        self.assertEqual(self.successResultOf(steps), 1)

    def test_the_end_of_the_connection(self) -> None:
        """Comes out; a loss that is recovered from does not."""
        steps = self.steps(eventloop(self.connection))
        self.cut()
        self.turn(5.0)
        self.assertNoResult(steps)
        self.done(self.connection.close())
        self.failureResultOf(steps, ConnectionClosed)

    def test_a_block(self) -> None:
        """Leaving it watches no longer."""

        async def one() -> None:
            loop = eventloop(self.connection)
            async with loop:
                async for _ in loop:
                    break

        running = self.start(one())
        self.assertIn(self.connection, watchers)
        self.send("q", b"1")
        self.successResultOf(running)
        self.assertNotIn(self.connection, watchers)

    def test_left_early(self) -> None:
        """By break, without a block: nothing watches when the loop is forgotten."""

        async def one() -> None:
            async for _ in eventloop(self.connection):
                break

        running = self.start(one())
        self.send("q", b"1")
        self.successResultOf(running)
        gc.collect()
        self.assertNotIn(self.connection, watchers)
