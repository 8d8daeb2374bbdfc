"""MessageDispatch: callbacks, and what becomes of what they and the messages do wrong."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.consuming.test_message import ScriptedDelivery
from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, ContentDisallowed, DecodeError, SerializationError
from txmsg.messaging import Consumer, Message, Queue

GZIP = {"content_type": "application/json", "headers": {"compression": "application/x-gzip"}}


class DispatchCase(MemoryCase):
    """A consumer of one queue, "q"."""

    def consume(self, **settings: Any) -> Consumer:
        return self.done(Consumer(self.channel, Queue("q"), **settings).consume())


class CallbackTests(DispatchCase):
    """kombu H5 to H7."""

    def test_in_order(self) -> None:
        """kombu H5, celery C-13: each is called with (body, message), in the order in which they were registered."""
        seen: list[Any] = []
        consumer = self.consume(callbacks=[lambda body, message: seen.append((1, body))])
        consumer.register_callback(lambda body, message: seen.append((2, message.payload)))
        self.send("q", b"[1]", b"[2]")
        self.assertEqual(seen, [(1, [1]), (2, [1]), (1, [2]), (2, [2])])

    def test_what_cannot_be_called(self) -> None:
        """kombu H5, H7, H8: is refused where it is written, and not at the first message."""
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"callbacks": print}, "callbacks is a list"),
            ({"callbacks": ["handle"]}, "a str cannot be called back"),
            *[({name: 7}, "an? int cannot") for name in ("on_message", "on_decode_error", "on_error", "on_cancel")],
        ]
        for settings, expected in wrong:
            with self.subTest(settings=settings), self.assertRaisesRegex(ConfigurationError, expected):
                Consumer(self.channel, Queue("q"), **settings)

    def test_receive_without_callbacks(self) -> None:
        """kombu H6, celery C-13: NotImplementedError."""
        consumer = Consumer(self.channel)
        self.assertRaises(NotImplementedError, consumer.receive, {}, Message())

    def test_receive_of_a_subclass(self) -> None:
        """kombu H6: is what messages are dispatched by."""
        seen: list[Any] = []

        class Mine(Consumer):
            def receive(self, body: Any, message: Message) -> None:
                seen.append(body)
                message.ack()

        self.done(Mine(self.channel, Queue("q")).consume())
        self.send("q", b"1")
        self.assertEqual((seen, self.depth("q")), ([1], (0, 0)))

    def test_on_message(self) -> None:
        """kombu H7, celery C-13: in place of the callbacks; decompressed, not decoded."""
        seen: list[Message] = []
        called: list[Any] = []
        self.consume(on_message=seen.append, callbacks=[lambda *given: called.append(given)])
        self.send("q", zlib.compress(b"[1]"), **GZIP)
        self.send("q", b"not JSON")
        self.assertEqual([message.body for message in seen], [b"[1]", b"not JSON"])
        self.assertEqual(called, [])
        self.assertEqual(seen[0].payload, [1])
        self.assertRaises(DecodeError, seen[1].decode)

    def test_a_callback_that_takes_time(self) -> None:
        """A Deferred or a coroutine: the next callback waits for it, the next message does not."""
        gate: Deferred[None] = Deferred()
        seen: list[Any] = []

        def slow(body: Any, message: Message) -> Any:
            seen.append(("slow", body))
            return gate if body == 1 else None

        async def after(body: Any, message: Message) -> None:
            seen.append(("after", body))
            message.ack()

        consumer = self.consume(callbacks=[slow, after])
        self.send("q", b"1", b"2")
        self.assertEqual(seen, [("slow", 1), ("slow", 2), ("after", 2)])
        self.assertEqual(consumer.handlers_running, 1)
        idle = consumer.when_idle()
        self.assertNoResult(idle)
        gate.callback(None)
        self.successResultOf(idle)
        self.successResultOf(consumer.when_idle())
        self.assertEqual(seen[3:], [("after", 1)])
        self.assertEqual(self.depth("q"), (0, 0))

    def test_other_awaitables(self) -> None:
        """A future of asyncio is an awaitable, too; what is none is ignored."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future: asyncio.Future[None] = loop.create_future()
        results: list[Any] = [future, 7]
        consumer = self.consume(callbacks=[lambda body, message: results.pop(0)])
        self.send("q", b"1", b"2")
        self.assertEqual(consumer.handlers_running, 1)
        future.set_result(None)
        loop.call_soon(loop.stop)
        loop.run_forever()
        self.assertEqual(consumer.handlers_running, 0)


class DecodeErrorTests(DispatchCase):
    """kombu H8, H9, H10, H24, H27: what cannot be decoded."""

    def bad(self) -> None:
        """Five that are bad, each in its way, then a good one."""
        self.send("q", b"not JSON", b"")
        self.send("q", b"broken", **GZIP)
        self.send("q", b"x", content_type="text/plain", headers={"compression": "application/x-lzma"})
        self.send("q", b"a: 1", content_type="application/x-yaml")
        self.send("q", b'"good"')

    def test_on_decode_error(self) -> None:
        """It has the message and the error, the message stays unsettled, and the next one comes."""
        errors: list[Any] = []
        seen: list[Any] = []
        self.consume(
            callbacks=[lambda body, message: seen.append(body), lambda body, message: message.ack()],
            on_decode_error=lambda message, error: errors.append((message, error)),
        )
        self.bad()
        self.assertEqual(seen, ["good"])
        self.assertEqual(
            [type(error) for _, error in errors],
            [DecodeError, DecodeError, DecodeError, ContentDisallowed, ContentDisallowed],
        )
        for message, error in errors:
            self.assertEqual((message.errors, message.state), ([error], "received"))
            self.assertIsInstance(message.body, bytes)
        self.assertEqual(self.depth("q"), (0, 5))
        self.assertIs(Consumer.ContentDisallowed, ContentDisallowed)

    def test_it_may_settle(self) -> None:
        """Also later."""
        gate: Deferred[None] = Deferred()

        async def refuse(message: Message, error: Exception) -> None:
            await gate
            message.reject()

        consumer = self.consume(callbacks=[print], on_decode_error=refuse)
        self.send("q", b"bad")
        self.assertEqual((self.depth("q"), consumer.handlers_running), ((0, 1), 1))
        gate.callback(None)
        self.assertEqual((self.depth("q"), consumer.handlers_running), ((0, 0), 0))

    def test_without(self) -> None:
        """kombu H9: the error is for on_error, or else logged; nothing is acked, and the next message comes."""
        seen: list[Any] = []
        failed: list[Any] = []
        consumer = self.consume(callbacks=[lambda body, message: seen.append(body)])
        self.bad()
        self.assertEqual(len(self.flushLoggedErrors(SerializationError)), 5)
        consumer.on_error = lambda message, error: failed.append(error)
        self.bad()
        self.assertEqual((seen, len(failed), self.depth("q")), (["good", "good"], 5, (0, 12)))

    def test_on_message_and_a_bad_compression(self) -> None:
        """What cannot be decompressed does not come to on_message."""
        seen: list[Any] = []
        errors: list[Any] = []
        self.consume(on_message=seen.append, on_decode_error=lambda message, error: errors.append(error))
        self.send("q", b"broken", **GZIP)
        self.assertEqual((seen, [type(error) for error in errors]), ([], [DecodeError]))

    def test_on_message_and_undecodable_properties(self) -> None:
        """R20: nobody can tell what the body is."""
        given: list[Any] = []
        seen: list[Any] = []
        consumer = self.consume(on_message=seen.append, on_decode_error=lambda *both: given.append(both))
        delivery = ScriptedDelivery(b"octets", {})
        receive = consumer._receiver(self.channel, False)
        receive(delivery)
        delivery.properties_error = ValueError("table")
        receive(delivery)
        self.assertEqual(([one.body for one in seen], len(given)), ([b"octets"], 1))
        self.assertIsInstance(given[0][1], DecodeError)

    def test_it_fails_itself(self) -> None:
        """That is an error of a handler, and the next message comes."""
        failed: list[Any] = []

        def fail(message: Message, error: Exception) -> None:
            raise ValueError("mine")

        self.consume(
            callbacks=[lambda body, message: failed.append(body)],
            on_decode_error=fail,
            on_error=lambda message, error: failed.append(type(error)),
        )
        self.send("q", b"bad", b"1")
        self.assertEqual(failed, [ValueError, 1])


class HandlerErrorTests(DispatchCase):
    """kombu H5, H9: exceptions of callbacks are no decode errors."""

    def test_logged(self) -> None:
        """Without on_error; the message stays unsettled, the next one comes."""
        seen: list[Any] = []

        def handle(body: Any, message: Message) -> Any:
            seen.append(body)
            if body == 1:
                raise ValueError("at once")
            if body == 2:
                return later()
            message.ack()
            return None

        async def later() -> None:
            raise KeyError("later")

        decode_errors: list[Any] = []
        consumer = self.consume(callbacks=[handle], on_decode_error=lambda *given: decode_errors.append(given))
        self.send("q", b"1", b"2", b"3")
        self.assertEqual((seen, decode_errors, self.depth("q")), ([1, 2, 3], [], (0, 2)))
        self.assertEqual(len(self.flushLoggedErrors(ValueError, KeyError)), 2)
        self.assertEqual(consumer.handlers_running, 0)

    def test_a_generator_has_not_run(self) -> None:
        """It is an error of the callback, not nothing."""

        def handle(body: Any, message: Message) -> Any:
            yield

        self.consume(callbacks=[handle])
        self.send("q", b"1")
        self.assertEqual((self.depth("q"), len(self.flushLoggedErrors(TypeError))), ((0, 1), 1))

    def test_a_callback_that_comes_late(self) -> None:
        """kombu H5: what came before it is handed to it, and what another one got is not."""
        consumer = self.consume()
        self.send("q", b"1", b"2")
        self.assertEqual(self.done(consumer.get()).payload, 1)
        seen: list[Any] = []
        consumer.register_callback(lambda body, message: seen.append(body))
        consumer.register_callback(lambda body, message: message.ack())
        self.send("q", b"3")
        self.assertEqual((seen, self.depth("q")), ([2, 3], (0, 2)))

    def test_a_decode_error_of_a_handler(self) -> None:
        """It is an error of the handler, whatever its type; of on_message as well."""
        decode_errors: list[Any] = []
        failed: list[Any] = []
        consumer = self.consume(
            callbacks=[lambda body, message: Message(b"x", content_type="application/json").payload],
            on_decode_error=lambda *given: decode_errors.append(given),
            on_error=lambda message, error: failed.append((message, type(error))),
        )
        self.send("q", b"1")
        consumer.on_message = lambda message: Message(b"x", content_type="application/json").payload
        self.send("q", b"1")
        self.assertEqual([kind for _, kind in failed], [DecodeError, DecodeError])
        self.assertEqual(decode_errors, [])

    def test_on_error(self) -> None:
        """It may settle the message, now or later; what it does wrong is logged."""
        calls: list[Any] = []

        async def reject(message: Message, error: BaseException) -> None:
            message.reject()
            calls.append(type(error))
            raise RuntimeError("of on_error, later")

        def handle(body: Any, message: Message) -> None:
            raise ValueError(body)

        consumer = self.consume(callbacks=[handle], on_error=reject)
        self.send("q", b"1")
        self.assertEqual((calls, self.depth("q")), ([ValueError], (0, 0)))
        consumer.on_error = lambda message, error: 1 / 0
        self.send("q", b"2")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, ZeroDivisionError)), 2)
        self.assertEqual((self.depth("q"), consumer.handlers_running), ((0, 1), 0))
