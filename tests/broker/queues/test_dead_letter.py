"""Dead letters: where they go, what x-death says, cycles."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from tests.broker.model_fakes import FakeConsumer, QueueTestCase, message
from txmsg.broker.message import Message
from txmsg.broker.queues.dead_letter import died, is_cycle
from txmsg.broker.queues.queue import Queue
from txmsg.wire.field_values import Int32, Int64, Timestamp
from txmsg.wire.properties import BasicProperties


def headers_of(message: Message) -> dict[str, Any]:
    return dict(message.decoded_properties.headers or {})


class DeathTests(QueueTestCase):
    """What a dead letter looks like, in RabbitMQ's order of fields."""

    def setUp(self) -> None:
        super().setUp()
        self.origin = self.queue("origin", {"x-dead-letter-exchange": "dlx"})
        self.renamed = self.queue("renamed", {"x-dead-letter-exchange": "dlx", "x-dead-letter-routing-key": "new"})

    def die(self, message: Message, reason: str = "rejected", queue: Queue | None = None) -> Message:
        died_now = died(queue or self.origin, message, reason, 1700000000.9)
        assert died_now is not None
        letter, properties = died_now
        self.assertEqual(letter.decoded_properties, properties)
        return letter

    def test_first_death(self) -> None:
        """https://www.rabbitmq.com/docs/dlx#effects, every field, with its type."""
        letter = self.die(message(b"body", exchange="x", key="k", content_type="text/plain", delivery_mode=2))
        self.assertEqual((letter.exchange, letter.routing_key, letter.body), ("dlx", "k", b"body"))
        self.assertTrue(letter.is_persistent)
        self.assertEqual(letter.decoded_properties.content_type, "text/plain")
        headers = headers_of(letter)
        self.assertEqual(
            headers,
            {
                "x-death": [
                    {
                        "count": 1,
                        "reason": "rejected",
                        "queue": "origin",
                        "time": 1700000000,
                        "exchange": "x",
                        "routing-keys": ["k"],
                    }
                ],
                "x-first-death-exchange": "x",
                "x-first-death-queue": "origin",
                "x-first-death-reason": "rejected",
            },
        )
        death = headers["x-death"][0]
        self.assertEqual(list(headers), sorted(headers))
        self.assertEqual(list(death), ["count", "reason", "queue", "time", "exchange", "routing-keys"])
        # An Int64 is read as an int where one would be written as a smaller kind: see txmsg.wire.tables.
        self.assertIsInstance(death["time"], Timestamp)
        self.assertIsInstance(death["count"], Int64)

    def test_own_headers_stay(self) -> None:
        """Sorted among the others, as RabbitMQ does."""
        headers = headers_of(self.die(message(headers={"z": 1, "a": [1, {"b": None}]})))
        self.assertEqual(
            list(headers),
            ["a", "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "z"],
        )
        self.assertEqual((headers["a"], headers["z"]), ([1, {"b": None}], 1))

    def test_expiration(self) -> None:
        """It is taken away, and remembered: the letter must not expire again."""
        letter = self.die(message(expiration="200", priority=3), "expired")
        self.assertIsNone(letter.expiration)
        self.assertIsNone(letter.decoded_properties.expiration)
        self.assertEqual(letter.priority, 3)
        self.assertEqual(list(headers_of(letter)["x-death"][0].items())[-1], ("original-expiration", "200"))

    def test_carbon_copies(self) -> None:
        """All keys are remembered; with a new key the letter goes nowhere else."""
        sent = message(key="k", headers={"CC": ["a", "b", 3]})
        kept = headers_of(self.die(sent))
        self.assertEqual((kept["x-death"][0]["routing-keys"], kept["CC"]), (["k", "a", "b"], ["a", "b", 3]))
        letter = self.die(sent, queue=self.renamed)
        self.assertEqual(letter.routing_key, "new")
        self.assertEqual(headers_of(letter)["x-death"][0]["routing-keys"], ["k", "a", "b"])
        self.assertNotIn("CC", headers_of(letter))

    def test_again_elsewhere(self) -> None:
        """The newest death first, its fields sorted; the first one is not forgotten."""
        first = self.die(message(exchange="x", key="k"), "expired")
        second = headers_of(self.die(first, "rejected", self.renamed))
        self.assertEqual([death["queue"] for death in second["x-death"]], ["renamed", "origin"])
        self.assertEqual(list(second["x-death"][0]), ["count", "exchange", "queue", "reason", "routing-keys", "time"])
        self.assertEqual(second["x-death"][0]["exchange"], "dlx")
        self.assertEqual(second["x-first-death-queue"], "origin")
        self.assertEqual(second["x-first-death-reason"], "expired")

    def test_again_in_the_same_way(self) -> None:
        """Counted, and in front; the rest stays as it was the first time (measured)."""
        letter = self.die(message(exchange="x", key="k", expiration="7"), "expired")
        letter = self.die(letter, "rejected", self.renamed)
        letter = self.die(letter, "expired")
        deaths = headers_of(letter)["x-death"]
        self.assertEqual([(death["queue"], death["count"]) for death in deaths], [("origin", 2), ("renamed", 1)])
        self.assertEqual((deaths[0]["time"], deaths[0]["original-expiration"]), (1700000000, "7"))
        self.assertEqual(deaths[0]["routing-keys"], ["k"])
        self.assertIsInstance(deaths[0]["count"], Int64)

    def test_same_queue_other_reason(self) -> None:
        """Two deaths."""
        letter = self.die(self.die(message(), "expired"), "rejected")
        self.assertEqual([death["reason"] for death in headers_of(letter)["x-death"]], ["rejected", "expired"])

    def test_a_publishers_nonsense(self) -> None:
        """R36: x-death of another shape is replaced (and then nothing is first), or kept behind; as measured."""
        for nonsense in (5, "x", {"queue": "origin"}, None):
            with self.subTest(nonsense=nonsense):
                headers = headers_of(self.die(message(headers={"x-death": nonsense})))
                self.assertEqual([death["queue"] for death in headers["x-death"]], ["origin"])
                self.assertNotIn("x-first-death-queue", headers)
        behind: list[Any]
        for behind in ([], [1, "a"], [{"queue": "origin"}], [{"reason": 5}]):
            with self.subTest(behind=behind):
                headers = headers_of(self.die(message(headers={"x-death": behind})))
                self.assertEqual(headers["x-death"][1:], behind)
                self.assertNotIn("x-first-death-queue", headers)
        for count in ("many", None):
            forged = [{"queue": "origin", "reason": "rejected", "count": count}]
            headers = headers_of(self.die(message(headers={"x-death": forged})))
            self.assertEqual(headers["x-death"][0]["count"], 1)
        small = [{"queue": "origin", "reason": "rejected", "count": Int32(2)}]
        self.assertEqual(headers_of(self.die(message(headers={"x-death": small})))["x-death"][0]["count"], 3)

    def test_headers_at_the_limit(self) -> None:
        """R36: where x-death does not fit any more, the letter goes without the other headers."""
        letter = self.die(message(headers={f"h{number}": number for number in range(4096)}))
        self.assertEqual(list(headers_of(letter)), ["x-death"])

    def test_history_at_the_limit(self) -> None:
        """R36: a hundred deaths, however long ago, are remembered; with one more the message ends."""
        known = [{"queue": f"q{number}", "reason": "expired"} for number in range(99)]
        letter = self.die(message(headers={"x-death": known}))
        self.assertEqual(len(headers_of(letter)["x-death"]), 100)
        self.assertEqual(headers_of(self.die(letter))["x-death"][0]["count"], 2)
        self.assertIsNone(died(self.renamed, letter, "expired", 0))

    def test_history_that_does_not_fit(self) -> None:
        """R36: a forged history of any size ends the message, and raises nothing."""
        forged = [{"queue": "q", "more": list(range(4092))}]
        self.assertIsNone(died(self.origin, message(headers={"x-death": forged}), "expired", 0))

    def test_forged_count_at_the_limit(self) -> None:
        """R36: a count that cannot grow does no harm."""
        forged = [{"queue": "origin", "reason": "rejected", "count": 2**63 - 1}]
        letter = self.die(message(headers={"x-death": forged}))
        self.assertEqual(headers_of(letter)["x-death"][0]["count"], 2**63 - 1)


class CycleTests(QueueTestCase):
    def is_cycle(self, *deaths: Any) -> bool:
        return is_cycle("q", BasicProperties(headers={"x-death": list(deaths)}))

    def test_rules(self) -> None:
        """https://www.rabbitmq.com/docs/dlx#routing: automatic all the way round."""
        expired, elsewhere = {"queue": "q", "reason": "expired"}, {"queue": "other", "reason": "maxlen"}
        rejected = {"queue": "other", "reason": "rejected"}
        self.assertTrue(self.is_cycle(expired))
        self.assertTrue(self.is_cycle(elsewhere, expired))
        self.assertTrue(self.is_cycle(elsewhere, expired, rejected))
        self.assertFalse(self.is_cycle(elsewhere))
        self.assertFalse(self.is_cycle(rejected, expired))
        self.assertFalse(self.is_cycle(elsewhere, rejected, expired))
        self.assertFalse(self.is_cycle({"queue": "q", "reason": "rejected"}))

    def test_nonsense(self) -> None:
        """R36: what a publisher forges is not trusted to have a shape."""
        self.assertFalse(self.is_cycle())
        self.assertFalse(self.is_cycle(1, "a", [], {"queue": 5}))
        self.assertTrue(self.is_cycle(1, {"queue": "q"}))
        self.assertFalse(is_cycle("q", BasicProperties()))
        self.assertFalse(is_cycle("q", BasicProperties(headers={"x-death": "q"})))


class LetterTests(QueueTestCase):
    """Through queues."""

    def dead_lettering(self, name: str, to: str, **arguments: Any) -> Queue:
        return self.queue(
            name,
            {
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": to,
                **{"x-" + key.replace("_", "-"): value for key, value in arguments.items()},
            },
        )

    def test_rejected(self) -> None:
        """Rejected without requeue; the journal and the counts know that it left."""
        queue, dead = self.dead_lettering("q", "dead"), self.queue("dead")
        self.put(queue, b"1")
        queue.reject(self.get(queue))
        self.assertEqual((self.ready(dead), queue.unacked_count, queue.message_count), ([b"1"], 0, 0))

    def test_dropped_without_exchange(self) -> None:
        queue = self.queue()
        self.put(queue, b"1")
        queue.reject(self.get(queue))
        self.assertEqual((queue.unacked_count, self.usage.bytes), (0, 0))

    def test_exchange_is_missing(self) -> None:
        """Dropped without a word, and without an error."""
        queue = self.queue(arguments={"x-dead-letter-exchange": "none"})
        self.put(queue, b"1")
        queue.reject(self.get(queue))
        self.assertEqual(self.usage.bytes, 0)

    def test_nobody_bound(self) -> None:
        queue = self.queue(arguments={"x-dead-letter-exchange": "amq.direct"})
        self.put(queue, b"1")
        queue.reject(self.get(queue))
        self.assertEqual(self.usage.bytes, 0)

    def test_consumers_get_them(self) -> None:
        queue, dead = self.dead_lettering("q", "dead"), self.queue("dead")
        consumer = FakeConsumer()
        dead.add_consumer(consumer)
        self.put(queue, b"1", b"2")
        queue.reject(self.get(queue))
        self.assertEqual(consumer.bodies, [b"1"])
        self.assertEqual(consumer.entries[0].message.routing_key, "dead")
        self.assertFalse(consumer.entries[0].redelivered)

    def test_expired_in_order(self) -> None:
        queue, dead = self.dead_lettering("q", "dead", message_ttl=100), self.queue("dead")
        self.put(queue, b"1", b"2", b"3")
        self.clock.advance(0.1)
        self.assertEqual(self.ready(dead), [b"1", b"2", b"3"])
        death = headers_of(dead.ready_entries()[0].message)["x-death"][0]
        self.assertEqual((death["reason"], death["time"]), ("expired", 0))

    def test_cycle_of_expiry(self) -> None:
        """A queue that leads to itself drops what expires (measured)."""
        queue = self.dead_lettering("q", "q", message_ttl=100)
        self.put(queue, b"1")
        self.clock.pump([0.1] * 5)
        self.assertEqual((queue.message_count, self.usage.bytes), (0, 0))

    def test_cycle_of_rejects(self) -> None:
        """Goes on, because somebody rejects each time (measured)."""
        queue = self.dead_lettering("q", "q")
        self.put(queue, b"1")
        for count in (1, 2, 3):
            queue.reject(self.get(queue))
            (entry,) = queue.ready_entries()
            self.assertEqual(headers_of(entry.message)["x-death"][0]["count"], count)

    def test_retry_queue(self) -> None:
        """The usual way to wait: reject into a queue with a TTL that leads back; each round counts."""
        work, wait = self.dead_lettering("work", "wait"), self.dead_lettering("wait", "work", message_ttl=500)
        self.put(work, b"1")
        for turn in (1, 2, 3):
            work.reject(self.get(work))
            self.assertEqual(self.ready(wait), [b"1"])
            self.clock.advance(0.5)
            (entry,) = work.ready_entries()
            deaths = headers_of(entry.message)["x-death"]
            self.assertEqual(
                [(death["queue"], death["reason"], death["count"]) for death in deaths],
                [("wait", "expired", turn), ("work", "rejected", turn)],
            )

    def chain(self, length: int) -> Queue:
        """Queues of length 0, each leading to the next; the one at the end, which leads nowhere."""
        for number in range(length):
            self.dead_lettering(f"q{number}", f"q{number + 1}", max_length=0)
        return self.queue(f"q{length}")

    def test_long_chains(self) -> None:
        """Through all of them, without recursion."""
        last = self.chain(100)
        before = len(inspect.stack())
        depths: list[int] = []
        self.patch(last, "put", lambda message: depths.append(len(inspect.stack())))
        self.put(self.vhost.queues["q0"], b"1")
        self.assertEqual(len(depths), 1)
        self.assertLess(depths[0] - before, 20)

    def test_longer_chains(self) -> None:
        """R36: the message ends after a hundred."""
        last = self.chain(101)
        self.put(self.vhost.queues["q0"], b"1")
        self.assertEqual((self.ready(last), self.usage.bytes), ([], 0))

    def test_rings(self) -> None:
        """R36: a ring of queues, shorter or longer than the history, ends the message and not the broker."""
        for length in (1, 2, 99, 150):
            with self.subTest(length=length):
                for number in range(length):
                    self.dead_lettering(f"r{length}.{number}", f"r{length}.{(number + 1) % length}", max_length=0)
                self.put(self.vhost.queues[f"r{length}.0"], b"1")
                self.assertEqual(self.usage.bytes, 0)

    def test_explosions(self) -> None:
        """R36: nine queues of length 0 on one fanout would make 9! letters of each publish."""
        for number in range(9):
            name = f"q{number}"
            self.queue(name, {"x-dead-letter-exchange": "amq.fanout", "x-max-length": 0})
            self.vhost.bind_queue(name, "amq.fanout", "")
        calls: list[Message] = []
        publish = self.vhost.publish_dead_letter

        def count(queue: str, message: Message, properties: BasicProperties) -> None:
            calls.append(message)
            publish(queue, message, properties)

        self.patch(self.vhost, "publish_dead_letter", count)
        self.put(self.vhost.queues["q0"], b"1")
        self.assertEqual(len(calls), 1000)  # and then the reactor has its turn
        self.clock.advance(0)
        self.assertEqual(len(calls), 1 + 1010)
        self.assertGreater(self.vhost.dead_letters.dropped, 0)
        self.assertEqual((len(self.vhost.dead_letters), self.clock.getDelayedCalls()), (0, []))
        self.put(self.vhost.queues["q0"], b"2")
        self.assertEqual(len(calls), 1 + 1010 + 1000)
        self.clock.advance(0)

    def test_many_at_once(self) -> None:
        """All arrive, in order, a thousand in each turn; when the broker stops those that wait are not lost."""
        queue, dead = self.dead_lettering("q", "dead", message_ttl=1000), self.queue("dead")
        self.put(queue, *(b"%d" % number for number in range(2500)))
        queue.change_settings(replace(queue.settings, max_length=0))
        self.assertEqual(dead.message_count, 1000)
        self.put(queue, b"late")
        self.vhost.dead_letters.stop()
        self.assertEqual(self.ready(dead), [*(b"%d" % number for number in range(2500)), b"late"])
        queue.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.vhost.dead_letters.stop()

    def test_into_the_queue_that_drops(self) -> None:
        """Two full queues that lead to each other: each message ends, none is lost twice, nothing loops."""
        first = self.dead_lettering("a", "b", max_length=2)
        second = self.dead_lettering("b", "a", max_length=2)
        self.put(first, *(b"%d" % number for number in range(10)))
        self.assertEqual(self.ready(first), [b"8", b"9"])
        self.assertEqual(self.ready(second), [b"6", b"7"])
        self.assertEqual(self.usage.bytes, first.held_bytes + second.held_bytes)

    def test_journal(self) -> None:
        """R35: the letter is kept before the original is removed, so that a crash between loses neither."""
        queue = self.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}, durable=True)
        self.queue("dead", durable=True)
        self.put(queue, b"1", delivery_mode=2)
        queue.reject(self.get(queue))
        self.assertEqual(self.journal.told, [("added", "q", b"1"), ("added", "dead", b"1"), ("removed", "q", b"1")])

    def test_delivery_limit(self) -> None:
        """https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling: N+1 deliveries, then this reason."""
        dead = self.queue("dead")
        queue = self.queue(
            "q",
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 2,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "dead",
            },
            durable=True,
        )
        self.put(queue, b"1", headers={"mine": 1})
        for _ in range(3):
            queue.requeue([self.get(queue)])
        self.assertEqual((queue.message_count, self.ready(dead)), (0, [b"1"]))
        headers = headers_of(dead.ready_entries()[0].message)
        self.assertEqual((headers["x-death"][0]["reason"], headers["mine"]), ("delivery_limit", 1))
        self.assertNotIn("x-delivery-count", headers)
