"""send_reply and collect_replies: where replies go, and as what."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError
from txmsg.messaging import Exchange, Message, Queue, collect_replies, send_reply


class NotingProducer:
    """A producer that notes what it is given."""

    def __init__(self) -> None:
        self.published: list[Any] = []

    def publish(self, body: Any, **settings: Any) -> Deferred[None]:
        self.published.append((body, settings))
        return succeed(None)


def request(content_type: str | None = "application/json", **properties: Any) -> Message:
    return Message(b"{}", content_type=content_type, properties={"reply_to": "r", **properties})


class SendReplyTests(MemoryCase):
    """kombu O8."""

    def reply(self, exchange: Any, asked: Message, answer: Any, **properties: Any) -> dict[str, Any]:
        producer = NotingProducer()
        self.done(send_reply(exchange, asked, answer, producer, **properties))
        [(body, settings)] = producer.published
        self.assertEqual(body, "answer")
        found: dict[str, Any] = settings
        return found

    def test_as_the_request_wants_it(self) -> None:
        """To its reply_to, with its correlation_id, in its serialization."""
        exchange = Exchange("x")
        self.assertEqual(
            self.reply(exchange, request(correlation_id="c"), "answer"),
            {
                "exchange": exchange,
                "routing_key": "r",
                "correlation_id": "c",
                "serializer": "json",
                "retry": False,
                "retry_policy": None,
            },
        )
        for content_type in ("application/x-yaml", "Application/X-YAML; charset=utf-8"):
            self.assertEqual(self.reply("", request(content_type), "answer")["serializer"], "yaml")
        for content_type in (None, "text/plain", "image/png"):  # type: ignore[assignment]
            self.assertNotIn("serializer", self.reply("", request(content_type), "answer"))

    def test_what_is_given_wins(self) -> None:
        """Over what the request says."""
        given: dict[str, Any] = {"routing_key": "k", "correlation_id": "mine", "serializer": "msgpack", "priority": 3}
        policy = {"max_retries": 3}
        settings = self.reply("", request(correlation_id="c"), "answer", retry=True, retry_policy=policy, **given)
        self.assertEqual(settings, {**given, "exchange": "", "retry": True, "retry_policy": policy})
        self.assertNotIn("serializer", self.reply("", request(), "answer", content_type="text/plain"))

    def test_nobody_waits(self) -> None:
        """A request without reply_to; unless the caller knows where to."""
        producer = NotingProducer()
        self.failureResultOf(send_reply("", Message(b""), "answer", producer), ConfigurationError)
        self.assertEqual(producer.published, [])
        self.done(send_reply("", Message(b""), "answer", producer, routing_key="k"))


class CollectRepliesTests(MemoryCase):
    """kombu O9, O15."""

    def test_bodies(self) -> None:
        """With no_ack unless told otherwise; what is not collected stays in the queue."""
        self.done(self.channel.queue_declare("q", durable=True))
        self.send("q", b"1", b"2", b"3")
        told: list[str] = []
        self.channel.after_reply_message_received = told.append  # type: ignore[attr-defined]

        async def read() -> list[Any]:
            return [body async for body in collect_replies(self.connection, self.channel, Queue("q"), limit=2)]

        self.assertEqual(self.run_async(read()), [1, 2])
        self.assertEqual((told, self.depth("q")), (["q"], (1, 0)))

        async def read_in_a_block() -> Any:
            async with collect_replies(None, self.channel, Queue("q"), limit=None, no_ack=False) as replies:
                return await anext(replies)

        self.assertEqual(self.run_async(read_in_a_block()), 3)
        self.assertEqual(self.depth("q"), (0, 1))

    def test_direct_replies(self) -> None:
        """kombu O15: from the queue of direct replies, which is consumed with no_ack."""
        server = self.done(self.connect().channel())
        self.done(server.queue_declare("requests"))

        def answer(delivery: Any) -> None:
            server.publish("", delivery.properties["reply_to"], b'"pong"', {"content_type": "application/json"})

        self.done(server.consume("requests", answer, no_ack=True))
        replies = collect_replies(None, self.channel, Queue("amq.rabbitmq.reply-to", no_declare=True), timeout=5.0)

        async def ask() -> Any:
            async with replies:
                waiting = Deferred.fromCoroutine(anext(replies))
                await self.channel.publish("", "requests", b"", {"reply_to": "amq.rabbitmq.reply-to"})
                return await waiting

        self.assertEqual(self.run_async(ask()), "pong")
