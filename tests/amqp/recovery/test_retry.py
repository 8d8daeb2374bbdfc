"""Delayed retries over the embedded broker on a clock: steps, headers, a stranger's headers, failures (R22, R26)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.recovery.site import SiteTestCase
from txmsg.amqp import BasicProperties, Delivery, DuplicateWindow, Publisher, RetryPolicy, RetryStep
from txmsg.amqp.recovery.retry_headers import HISTORY, headers_of, next_properties
from txmsg.errors import (
    AlreadySettled,
    ConfigurationError,
    NotFound,
    PublishReturned,
    RemoteProtocolError,
    StaleDelivery,
)
from txmsg.wire.properties import UndecodableProperties

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def delivery(headers: dict[str, Any] | None = None, **properties: Any) -> Delivery:
    """One without a channel."""
    nothing: Any = None
    return Delivery(nothing, "tag", 1, False, "orders", "new", BasicProperties(headers=headers, **properties), b"x")


class PolicyTests(SynchronousTestCase):
    """What a policy says, without a broker."""

    def test_settings(self) -> None:
        """What cannot be used is refused by name."""
        settings: list[tuple[str, Any]] = [
            ("queue", ""),
            ("queue", "x" * 250),
            ("delays", "123"),
            ("delays", 5),
            ("delays", [-1]),
            ("limit", -1),
            ("limit", True),
            ("durable", 1),
            ("queue_type", "stream"),
            ("arguments", []),
        ]
        for name, value in settings:
            with self.subTest(name, value=value), self.assertRaisesRegex(ConfigurationError, name):
                RetryPolicy(**({"queue": "jobs"} | {name: value}))
        contradictions: list[dict[str, Any]] = [
            {"delays": (), "limit": 1},
            {"queue_type": "quorum", "durable": False},
            {"dead_letter": "jobs"},
        ]
        for options in contradictions:
            with self.assertRaises(ConfigurationError):
                RetryPolicy("jobs", **options)

    def test_steps(self) -> None:
        """R26: the last delay repeats up to the limit, then it is a dead letter."""
        policy = RetryPolicy("jobs", delays=[0, 1.5], limit=3)
        steps = [policy.next_step(delivery({"x-retry-count": count})) for count in range(5)]
        dead = "jobs.dead"
        self.assertEqual(
            steps,
            [
                RetryStep("jobs", 1, 0.0),
                RetryStep("jobs.retry.1500", 2, 1.5),
                RetryStep("jobs.retry.1500", 3, 1.5),
                RetryStep(dead, 4, None),
                RetryStep(dead, 5, None),
            ],
        )
        self.assertEqual(policy.delay_queues(), {"jobs.retry.1500": 1500})
        self.assertEqual(RetryPolicy("jobs").limit, 3)
        self.assertEqual(RetryPolicy("jobs", delays=()).next_step(delivery()), RetryStep(dead, 1, None))

    def test_counts_that_are_none(self) -> None:
        """Headers are a stranger's: what is no count of ours is the first attempt."""
        counts: list[Any] = ["7", -1, True, 1.0, None, [], 2**40]
        for count in counts:
            self.assertEqual(RetryPolicy.retries_of(delivery({"x-retry-count": count})), 0)
        self.assertEqual(RetryPolicy.origin_of(delivery({"x-retry-exchange": 1, "x-retry-routing-key": "a"}))[1], "new")
        undecodable: Any = UndecodableProperties(b"", RemoteProtocolError("bad", 502))
        bad = delivery()
        bad.properties = undecodable
        self.assertEqual((RetryPolicy.retries_of(bad), headers_of(bad)), (0, {}))

    def test_headers(self) -> None:
        """Each attempt with its time, reason and delay; where it came from; the application's own are kept."""
        first = next_properties(delivery({"mine": 1}, message_id="a"), ValueError("no\nway"), AT, 1000, frozenset())
        self.assertEqual(first.message_id, "a")
        self.assertEqual(
            first.headers,
            {
                "mine": 1,
                "x-retry-count": 1,
                "x-retry-exchange": "orders",
                "x-retry-routing-key": "new",
                "x-retry-history": [{"attempt": 1, "at": AT, "reason": "ValueError: no\\nway", "delay": 1000}],
            },
        )
        again = delivery(dict(first.headers or {}))
        again.exchange, again.routing_key = "", "jobs"
        last = next_properties(again, "x" * 500, AT, None, frozenset())
        headers = last.headers or {}
        self.assertEqual((headers["x-retry-count"], headers["x-retry-exchange"]), (1, "orders"))
        self.assertEqual(headers["x-retry-history"][0], {**(first.headers or {})["x-retry-history"][0]})
        self.assertEqual(headers["x-retry-history"][1], {"attempt": 2, "at": AT, "reason": "x" * 299 + "…"})

    def test_history_is_bounded(self) -> None:
        """Also one that somebody else has made."""
        headers = next_properties(delivery({"x-retry-history": [1] * 50}), "", AT, 0, frozenset()).headers or {}
        self.assertEqual(len(headers["x-retry-history"]), HISTORY)
        headers = next_properties(delivery({"x-retry-history": "none"}), "", AT, 0, frozenset()).headers or {}
        self.assertEqual(len(headers["x-retry-history"]), 1)

    def test_what_would_be_in_the_way(self) -> None:
        """CC and BCC, another user's id, an expiration, and the broker's notes about our own queues."""
        ours, theirs = {"queue": "jobs.retry.1", "count": 1}, {"queue": "theirs", "count": 2}
        given = delivery(
            {"CC": ["a"], "BCC": ["b"], "x-death": [ours, theirs, 3], "x-first-death-queue": "jobs.retry.1"},
            user_id="somebody",
            expiration="100",
        )
        made = next_properties(given, "", AT, 1, frozenset(["jobs.retry.1"]))
        headers = made.headers or {}
        self.assertEqual((made.user_id, made.expiration), (None, None))
        self.assertEqual((headers["x-retry-user-id"], headers["x-retry-expiration"]), ("somebody", "100"))
        self.assertEqual(headers["x-death"], [theirs, 3])
        self.assertEqual({"CC", "BCC", "x-first-death-queue"} & headers.keys(), set())
        again = next_properties(delivery(dict(headers, **{"x-death": [ours]})), "", AT, 1, frozenset(["jobs.retry.1"]))
        self.assertEqual((again.headers or {})["x-retry-user-id"], "somebody")
        self.assertNotIn("x-death", again.headers or {})


class RetryTests(SiteTestCase):
    """A queue with a policy, a publisher, and a handler that does as it is told."""

    def setUp(self) -> None:
        """Declare."""
        super().setUp()
        self.channel = self.site.channel(prefetch_count=100)
        self.publisher: Publisher = self.site.connection.publisher(timeout=5)
        self.policy = RetryPolicy("jobs", delays=(1, 5))
        self.site.result(self.policy.declare(self.channel))
        self.seen: list[Delivery] = []

    def put(self, body: bytes = b"x", **properties: Any) -> None:
        """Publish without a client."""
        self.site.broker.publish("", "jobs", body, properties)
        self.site.settle()

    def failing(self, taken: Delivery) -> None:
        """A handler that always fails."""
        self.seen.append(taken)
        raise ValueError("not today")

    def test_until_it_is_a_dead_letter(self) -> None:
        """R26: after each delay it comes again, then it is where dead letters are; others are not held up."""
        self.site.result(self.channel.basic_consume("jobs", self.policy.handling(self.publisher, self.failing)))
        self.put(b"poison", content_type="text/plain")
        self.assertEqual(len(self.seen), 1)
        self.site.settle(0.9)
        self.assertEqual(len(self.seen), 1)
        self.site.settle(0.2)
        self.assertEqual(len(self.seen), 2)
        self.site.settle(4.8)
        self.assertEqual(len(self.seen), 2)
        self.site.settle(0.3)
        self.assertEqual(len(self.seen), 3)
        (dead,) = self.site.broker.queue("jobs.dead").messages
        self.assertEqual((dead.body, dead.properties["content_type"]), (b"poison", "text/plain"))
        headers = dead.properties["headers"]
        self.assertEqual([each["attempt"] for each in headers["x-retry-history"]], [1, 2, 3])
        self.assertEqual(headers["x-retry-count"], 2)
        self.assertEqual((headers["x-retry-exchange"], headers["x-retry-routing-key"]), ("", "jobs"))
        self.assertEqual(self.policy.origin_of(self.seen[-1]), ("", "jobs"))
        self.assertEqual([self.policy.retries_of(each) for each in self.seen], [0, 1, 2])
        self.assertEqual(self.depths(), {"jobs": 0, "jobs.dead": 1, "jobs.retry.1000": 0, "jobs.retry.5000": 0})

    def depths(self) -> dict[str, int]:
        """How many messages each queue has, unacked ones too."""
        return {name: view.depth + view.unacked for name, view in sorted(self.site.broker.queues().items())}

    def test_handlers_of_all_kinds(self) -> None:
        """A handler may return anything, settle itself, be a coroutine or return a Deferred."""

        async def coroutine(taken: Delivery) -> None:
            if taken.body == b"fail":
                raise ValueError

        def settles(taken: Delivery) -> None:
            taken.ack()
            if taken.body == b"fail":
                raise ValueError

        handlers: list[Any] = [
            lambda taken: 5,
            coroutine,
            settles,
            lambda taken: fail(ValueError()) if taken.body == b"fail" else succeed(None),
        ]
        for number, handler in enumerate(handlers):
            callback = self.policy.handling(self.publisher, handler)
            consumer = self.site.result(self.channel.basic_consume("jobs", callback))
            self.put(b"fine")
            self.put(b"fail")
            self.site.settle(0.5)
            retried = self.site.broker.queue("jobs.retry.1000").depth
            self.assertEqual(retried, 0 if number in (0, 2) else 1)
            self.site.result(consumer.cancel())
            self.site.settle(2)
            self.site.result(self.channel.queue_purge("jobs"))
        self.flushLoggedErrors()

    def test_rejected(self) -> None:
        """What is rejected is a dead letter, too; also what is rejected by hand."""
        self.site.result(self.channel.basic_consume("jobs", Delivery.reject))
        self.put(b"bad")
        self.assertEqual([each.body for each in self.site.broker.queue("jobs.dead").messages], [b"bad"])

    def test_undecodable(self) -> None:
        """What cannot be published again as it is becomes a dead letter as it is."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put(b"bad")
        taken = self.site.result(consumer.get())
        taken.properties = UndecodableProperties(b"", RemoteProtocolError("bad", 502))
        step = self.site.result(self.policy.retry(self.publisher, taken, "no"))
        self.site.settle()
        self.assertEqual(step, RetryStep("jobs.dead", 1, None))
        self.assertEqual(self.site.broker.queue("jobs.dead").depth, 1)

    def test_stale(self) -> None:
        """R22, R23: a delivery of an earlier connection comes again by itself, and is not put back as well."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put()
        taken = self.site.result(consumer.get())
        self.site.reconnect()
        self.assertIsInstance(self.site.outcome(self.policy.retry(self.publisher, taken, "no")), StaleDelivery)
        taken = self.site.result(consumer.get())
        self.site.result(self.policy.retry(self.publisher, taken, "no"))
        self.assertIsInstance(self.site.outcome(self.policy.retry(self.publisher, taken, "no")), AlreadySettled)
        self.site.settle()
        self.assertEqual(self.depths()["jobs.retry.1000"], 1)

    def test_lost_between_confirm_and_ack(self) -> None:
        """R7, R22: it is in both queues then; a window drops the first copy, and lets the retry through."""
        window = DuplicateWindow()
        consumer = self.site.result(self.channel.basic_consume("jobs", dedupe=window))
        self.put(message_id="a")
        taken = self.site.result(consumer.get())
        retrying = self.policy.retry(self.publisher, taken, "no")
        self.site.broker.faults.cut()
        step = self.site.result(retrying)
        self.site.ready(2)
        self.assertEqual(step.queue, "jobs.retry.1000")
        self.assertEqual((len(consumer.queue), consumer.duplicates_dropped), (0, 1))
        self.site.settle(1.2)
        again = self.site.result(consumer.get())
        self.assertEqual((again.properties.message_id, self.policy.retries_of(again)), ("a", 1))
        again.ack()
        self.site.settle()
        self.assertEqual(sum(self.depths().values()), 0)

    def test_cannot_be_put_back(self) -> None:
        """R22, R26: its delay queue is gone: it fails typed, stays unsettled; a handler's goes back after a pause."""
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put()
        taken = self.site.result(consumer.get())
        self.site.result(self.channel.queue_delete("jobs.retry.1000"))
        self.assertIsInstance(self.site.outcome(self.policy.retry(self.publisher, taken, "no")), PublishReturned)
        self.assertFalse(taken.is_settled)
        taken.nack()
        self.site.result(consumer.cancel())
        self.site.result(self.channel.basic_consume("jobs", self.policy.handling(self.publisher, self.failing)))
        self.site.settle(4.5)
        self.assertIn(len(self.seen), (4, 5))
        self.site.result(self.policy.declare(self.channel))
        self.site.settle(2.5)
        self.assertEqual(self.policy.retries_of(self.seen[-1]), 1)

    def test_too_large_for_its_headers(self) -> None:
        """What cannot be encoded again is rejected: a dead letter, not a hot loop."""
        self.site.result(self.channel.basic_consume("jobs", self.policy.handling(self.publisher, self.failing)))
        self.put(headers={"big": "x" * 130_900})
        self.site.settle(1)
        self.assertEqual((len(self.seen), self.depths()["jobs.dead"]), (1, 1))

    def test_without_confirms(self) -> None:
        """Nothing may be acked whose copy could be lost."""
        publisher = self.site.connection.publisher(confirm=False)
        consumer = self.site.result(self.channel.basic_consume("jobs"))
        self.put()
        taken = self.site.result(consumer.get())
        self.assertIsInstance(self.site.outcome(self.policy.retry(publisher, taken, "no")), ConfigurationError)

    def test_no_ack(self) -> None:
        """There is nothing to settle; it is put back all the same."""
        self.site.result(
            self.channel.basic_consume("jobs", self.policy.handling(self.publisher, self.failing), no_ack=True)
        )
        self.put()
        self.site.settle(10)
        self.assertEqual((len(self.seen), self.depths()["jobs.dead"]), (3, 1))

    def test_another_way_for_dead_letters(self) -> None:
        """`arguments` has the last word."""
        policy = RetryPolicy("more", delays=(), arguments={"x-dead-letter-exchange": "amq.fanout", "x-max-length": 1})
        self.site.result(policy.declare(self.channel))
        arguments = self.site.broker.queue("more").arguments
        self.assertEqual(arguments, {"x-dead-letter-exchange": "amq.fanout", "x-max-length": 1})

    def test_declared_again(self) -> None:
        """R10: all of it is topology."""
        self.site.wipe()
        self.site.ready(2)
        self.assertEqual(set(self.depths()), {"jobs", "jobs.dead", "jobs.retry.1000", "jobs.retry.5000"})

    def test_declared_otherwise(self) -> None:
        """The broker's refusal reaches the caller."""
        other = RetryPolicy("jobs", delays=(1, 5), durable=False)
        outcome = self.site.outcome(other.declare(self.channel))
        self.assertNotIsInstance(outcome, NotFound)
        self.assertIsInstance(outcome, BaseException)
