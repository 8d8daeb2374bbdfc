"""Declared handlers on a simulated broker: bodies, policies, several queues, outages."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.service.simulated import CANARY, ServiceCase
from txmsg.errors import ConfigurationError, ContentDisallowed
from txmsg.messaging import encode_body
from txmsg.messaging.entities import Exchange, Queue
from txmsg.service.declared import DeclaredConsumer, consumes
from txmsg.service.policy import Reject

JSON = {"content_type": "application/json"}
SHOP = Exchange("shop", "topic")
ORDERS = Queue("orders", SHOP, "order.*")


class DeclaredCase(ServiceCase):
    """`handled` is what the handlers were given: (body, message)."""

    def setUp(self) -> None:
        super().setUp()
        self.handled: list[tuple[Any, Any]] = []

    def note(self, body: Any, message: Any) -> None:
        self.handled.append((body, message))

    @property
    def bodies(self) -> list[Any]:
        return [body for body, _ in self.handled]

    def run_one(self, *queues: Any, handler: Any = None, config: Any = None, **details: Any) -> None:
        self.start(
            consumers=[DeclaredConsumer(handler=handler or self.note, queues=queues or ("work",), **details)],
            **(config or {}),
        )

    def depth(self, queue: str) -> int:
        return self.broker.queue(queue).depth


class BodyTests(DeclaredCase):
    def test_the_body_is_decoded(self) -> None:
        """Issue: a handler gets (body, message); its queue, exchange and binding are declared first."""
        self.run_one(ORDERS)
        self.broker.publish("shop", "order.new", b'{"id": 1}', JSON)
        self.simulation.advance(0.1)
        ((body, message),) = self.handled
        self.assertEqual(body, {"id": 1})
        self.assertEqual(
            (message.content_type, message.delivery_info["routing_key"]), ("application/json", "order.new")
        )
        self.assertEqual((self.depth("orders"), self.broker.queue("orders").unacked), (0, 0))
        self.assertTrue(self.service.is_consuming)
        self.assertIn("consuming from queue orders as", self.logged.text)
        self.stopped()
        self.assertIn("1 handled, 0 failed", self.logged.text)

    def test_compressed_text_and_octets(self) -> None:
        """C4.2: zlib and gzip by default."""
        packed = encode_body([1, 2], compression="gzip")
        self.run_one("work")
        self.publish(packed.body, **JSON, headers={"compression": packed.compression})
        self.publish(b"caf\xc3\xa9", content_type="text/plain", content_encoding="utf-8")
        self.publish(b"\x00\xff")
        self.assertEqual(self.bodies, [[1, 2], "café", b"\x00\xff"])
        self.stopped()

    def test_deferred_results_and_own_settlement(self) -> None:
        """R22, R23: acked when the Deferred has fired; what the handler settles through the message stays so."""
        results: list[Deferred[None]] = []

        def handler(body: Any, message: Any) -> Any:
            if body == "mine":
                message.reject()
                return None
            results.append(Deferred())
            return results[-1]

        self.run_one("work", handler=handler)
        self.publish(b'"later"', b'"mine"', **JSON)
        self.assertEqual((self.queue.depth, self.queue.unacked), (0, 1))
        results[0].callback(None)
        self.simulation.advance(0.1)
        self.assertEqual(self.queue.unacked, 0)
        self.stopped()

    def test_failures_follow_the_policy(self) -> None:
        """R26: as for every handler of the service."""

        def handler(body: Any, message: Any) -> None:
            self.note(body, message)
            raise Reject("no") if body == "reject" else ValueError("no")

        self.run_one("work", handler=handler)
        self.publish(b'"reject"', b'"fail"', **JSON)
        self.simulation.advance(2)
        self.assertEqual(self.bodies, ["reject", "fail", "fail"])
        self.assertEqual(self.queue.depth, 0)
        self.stopped()

    def test_concurrency_and_prefetch_of_its_own(self) -> None:
        """R24."""
        results: list[Deferred[None]] = []

        def handler(body: Any, message: Any) -> Deferred[None]:
            results.append(Deferred())
            return results[-1]

        self.run_one("work", handler=handler, prefetch_count=3, concurrency=2)
        self.publish(*[b"1"] * 5, **JSON)
        self.assertEqual((len(results), self.queue.unacked, self.queue.depth), (2, 3, 5 - 3))
        for _ in range(5):
            results.pop(0).callback(None)
            self.simulation.advance(0.1)
        self.stopped()

    def test_retries_and_dead_letters(self) -> None:
        def handler(body: Any, message: Any) -> None:
            self.note(body, message)
            raise ValueError(body)

        self.run_one("work", handler=handler, retry_delays=[1], on_decode_error="dead_letter")
        self.publish(b'"again"', **JSON)
        self.publish(b"{", **JSON)
        self.simulation.advance(3)
        self.assertEqual(self.bodies, ["again", "again"])
        self.assertEqual(sorted(self.broker.queue("work.dead").bodies), [b'"again"', b"{"])
        self.assertEqual(self.queue.depth, 0)
        self.stopped()


class RefusedBodyTests(DeclaredCase):
    """kombu H8, R20: what cannot be decoded never reaches the handler, and the next message flows."""

    def publish_bad_then_good(self) -> None:
        self.publish(CANARY.encode(), content_type="application/x-python-serialize")
        self.publish(b"{", **JSON)
        self.publish(b'"good"', **JSON)

    def test_rejected(self) -> None:
        self.run_one("work")
        self.publish_bad_then_good()
        self.assertEqual(self.bodies, ["good"])
        self.assertEqual((self.queue.depth, self.queue.unacked), (0, 0))
        self.assertIn("message rejected, its body is refused: refusing to decode a body of type", self.logged.text)
        self.stopped()
        self.assertIn("1 handled, 0 failed, 0 requeued, 2 rejected", self.logged.text)

    def test_an_accept_list(self) -> None:
        """kombu H10: what is not in it is refused, JSON too."""
        self.run_one("work", accept=[])
        self.publish(b"1", **JSON)
        self.publish(b"raw")
        self.assertEqual(self.bodies, [b"raw"])
        self.stopped()

    def test_requeued(self) -> None:
        """As often as it takes, but never in a hot loop (R26)."""
        self.run_one("work", on_decode_error="requeue", requeue_delay=0)
        self.publish_bad_then_good()
        self.simulation.advance(2)
        self.assertEqual(self.bodies, ["good"])
        self.assertEqual(self.queue.depth + self.queue.unacked, 2)
        self.assertIn(self.logged.text.count("message requeued"), range(20, 50))
        self.stopped()
        self.assertEqual(self.queue.depth, 2)

    def test_kept(self) -> None:
        self.run_one("work", on_decode_error="keep")
        self.publish_bad_then_good()
        self.simulation.advance(10)
        self.assertEqual((self.bodies, self.queue.unacked), (["good"], 2))
        self.assertIn("message kept unsettled, its body is refused", self.logged.text)
        self.stopped()
        self.assertEqual(self.queue.depth, 2)

    def test_a_dead_letter(self) -> None:
        """With the reason in its headers."""
        self.run_one("work", on_decode_error="dead_letter", dead_letter="graves")
        self.publish_bad_then_good()
        self.simulation.advance(1)
        self.assertEqual(self.broker.queue("graves").bodies, [CANARY.encode(), b"{"])
        self.assertEqual(self.bodies, ["good"])
        self.stopped()

    def test_a_handler_for_them(self) -> None:
        """Given (message, error); what it returns and raises means what it means for handlers."""
        seen: list[tuple[bytes, type]] = []

        def refused(message: Any, error: Exception) -> None:
            seen.append((message.body, type(error)))
            if message.body == b"{":
                raise Reject("broken")

        self.run_one("work", on_decode_error=refused)
        self.publish_bad_then_good()
        self.assertEqual([body for body, _ in seen], [CANARY.encode(), b"{"])
        self.assertIs(seen[0][1], ContentDisallowed)
        self.assertEqual((self.bodies, self.queue.unacked), (["good"], 0))
        self.stopped()
        self.assertIn("2 handled, 1 failed, 0 requeued, 1 rejected", self.logged.text)


class ProducerTests(DeclaredCase):
    def test_replies(self) -> None:
        """Issue: with the serializer and the compression of the declaration; the correlation id comes along."""
        self.broker.declare_queue("answers")

        async def handler(body: Any, message: Any, producer: Any) -> None:
            await producer.reply(message, {"twice": 2 * body})

        self.run_one("work", handler=handler, serializer="json", compression="zlib")
        self.publish(b"21", **JSON, reply_to="answers", correlation_id="c-1")
        self.simulation.advance(1)
        (answer,) = self.broker.queue("answers").messages
        self.assertEqual(answer.properties["correlation_id"], "c-1")
        self.assertEqual(answer.properties["headers"]["compression"], "application/x-gzip")
        self.assertEqual(answer.properties["content_type"], "application/json")
        self.assertEqual(self.queue.unacked, 0)
        self.stopped()

    def test_publishing(self) -> None:
        """To an exchange of the declaration; a persistent message, an expiration in seconds."""

        async def handler(body: Any, message: Any, producer: Any) -> None:
            await producer.publish({"a": 1}, "order.new", exchange=SHOP, headers={"h": "v"}, expiration=1.5, priority=3)

        self.broker.declare_queue("all")
        self.ask(lambda channel: channel.exchange_declare("shop", "topic", durable=True))
        self.ask(lambda channel: channel.queue_bind("all", "shop", "#"))
        self.run_one("work", handler=handler)
        self.publish(b"1", **JSON)
        self.simulation.advance(1)
        (sent,) = self.broker.queue("all").messages
        self.assertEqual(json.loads(sent.body), {"a": 1})
        self.assertEqual(
            {name: sent.properties.get(name) for name in ("delivery_mode", "expiration", "priority", "headers")},
            {"delivery_mode": 2, "expiration": "1500", "priority": 3, "headers": {"h": "v"}},
        )
        self.stopped()

    def test_mistakes_fail_the_handler(self) -> None:
        """No reply_to; no such property."""
        errors: list[Exception] = []

        async def handler(body: Any, message: Any, producer: Any) -> None:
            for call in (
                lambda: producer.reply(message, 1),
                lambda: producer.publish(1, "q", colour="red"),
                lambda: producer.publish(1, "q", expiration=-1),
                lambda: producer.publish(1, "q", delivery_mode=7),
                lambda: producer.publish(1, "q", exchange=None),
            ):
                try:
                    await call()
                except Exception as error:
                    errors.append(error)

        self.run_one("work", handler=handler)
        self.publish(b"1", **JSON)
        self.assertEqual(
            [str(error).partition(":")[0] for error in errors],
            [
                "the message has no reply_to",
                "a message has no property colour",
                "expiration is -1",
                "delivery_mode is 7",
                "exchange is None",
            ],
        )
        self.stopped()


class SeveralTests(DeclaredCase):
    def setUp(self) -> None:
        super().setUp()
        self.others: list[Any] = []

    def both(self, **config: Any) -> None:
        @consumes(ORDERS, Queue("more", SHOP, "more"))
        def first(body: Any, message: Any) -> None:
            self.note(body, message)

        @consumes("work")
        def second(body: Any, message: Any) -> None:
            self.others.append(body)

        self.start(consumers=[first, second], **config)

    def test_each_gets_its_own(self) -> None:
        """Two handlers, three queues, one connection."""
        self.both()
        for key in ("order.1", "more"):
            self.broker.publish("shop", key, json.dumps(key).encode(), JSON)
        self.publish(b'"work"', **JSON)
        self.assertEqual((self.bodies, self.others), (["order.1", "more"], ["work"]))
        self.assertEqual(len(self.simulation.open_links("service")), 1)
        self.stopped()
        self.assertIn("3 handled, 0 failed", self.logged.text)

    def test_all_come_back(self) -> None:
        """R9, R25: after a restart of the broker, with what was declared."""
        self.both()
        self.simulation.broker.restart(after=1)
        self.until(lambda: not self.service.is_consuming)
        self.until(lambda: self.service.is_consuming)
        self.broker.publish("shop", "order.1", b"1", JSON)
        self.publish(b"2", **JSON)
        self.assertEqual((self.bodies, self.others), ([1], [2]))
        self.stopped()

    def test_one_that_cannot_start_ends_the_service(self) -> None:
        """R33: the line names the queue that is missing."""

        @consumes(ORDERS)
        def first(body: Any, message: Any) -> None:
            pass

        @consumes("missing")
        def second(body: Any, message: Any) -> None:
            pass

        self.start(consumers=[first, second])
        self.assertIn("cannot use the queue 'missing'", self.ended_with(10))

    def test_the_end_of_one_ends_the_service(self) -> None:
        """R25: it does not go on with a part of its consumers."""
        consumers = [DeclaredConsumer(handler=self.note, queues=(queue,)) for queue in ("work", ORDERS)]
        self.start(consumers=consumers, resubscribe_limit=5)
        self.ask(lambda channel: channel.queue_delete("work"))
        self.simulation.advance(10)
        self.assertIn("consuming from queue 'work'", self.ended_with(12))

    def test_an_exchange_that_is_another(self) -> None:
        self.ask(lambda channel: channel.exchange_declare("shop", "direct", durable=True))
        self.run_one(ORDERS)
        self.assertIn("cannot declare the queue 'orders'", self.ended_with(10))

    def test_the_handlers_are_waited_for_together(self) -> None:
        """R30: one drain for all."""
        waiting: list[Deferred[None]] = []

        def slow(body: Any, message: Any) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.broker.declare_queue("other", durable=True)
        self.start(consumers=[consumes("work")(slow), consumes("other")(lambda body, message: slow(body, message))])
        self.publish(b"1", **JSON)
        self.broker.publish("", "other", b"1", JSON)
        self.simulation.advance(0.1)
        stopping = self.service.stopService()
        self.simulation.advance(1)
        waiting[0].callback(None)
        self.simulation.advance(1)
        self.assertNoResult(stopping)
        waiting[1].callback(None)
        self.simulation.run_until(stopping, 1)
        self.ended_with(0)
        self.assertIn("waiting up to 30 s for 2 running handler(s)", self.logged.text)

    def test_a_configuration_that_cannot_be_used(self) -> None:
        with self.assertRaises(ConfigurationError):
            self.make(consumers=[DeclaredConsumer(handler=self.note, queues=("q",), accept=["jsn"])])
