"""txmsg.broker.vhost.vhost: publishing, what the journal hears, restoring, dead letters."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.broker.model import fault_of, make_vhost, publish, take, taken_by
from txmsg.broker.exchanges import Exchange
from txmsg.broker.interfaces import NoJournal
from txmsg.broker.message import Entry
from txmsg.broker.queues.queue import PENDING, REJECTED, ROUTED, UNROUTED, Queue
from txmsg.broker.vhost.bindings import Binding


class Recorder(NoJournal):
    """A journal that remembers what it was told."""

    is_durable = True

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        self.told.append(("exchange", exchange.name))

    def exchange_deleted(self, vhost: str, name: str) -> None:
        self.told.append(("no exchange", name))

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        self.told.append(("queue", queue.name))

    def queue_deleted(self, vhost: str, name: str) -> None:
        self.told.append(("no queue", name))

    def bound(self, vhost: str, binding: Binding) -> None:
        self.told.append(("binding", f"{binding.source}>{binding.destination}"))

    def unbound(self, vhost: str, binding: Binding) -> None:
        self.told.append(("no binding", f"{binding.source}>{binding.destination}"))

    def message_added(self, queue: Queue, entry: Entry) -> None:
        self.told.append(("message", queue.name))


class OutcomeTests(unittest.TestCase):
    """What publish answers."""

    def setUp(self) -> None:
        self.vhost = make_vhost(journal=Recorder())
        self.vhost.declare_queue("transient")
        self.vhost.declare_queue("durable", durable=True)
        self.vhost.declare_queue("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})

    def outcome(self, *queues: str, delivery_mode: int | None = None) -> int:
        headers = {"CC": list(queues)}
        return publish(self.vhost, "", "none", headers=headers, delivery_mode=delivery_mode)

    def test_one_queue(self) -> None:
        """R35: routed, to be kept, refused, nowhere."""
        self.assertEqual(publish(self.vhost, "", "transient", delivery_mode=2), ROUTED)
        self.assertEqual(publish(self.vhost, "", "durable", delivery_mode=1), ROUTED)
        self.assertEqual(publish(self.vhost, "", "durable", delivery_mode=2), PENDING)
        self.assertEqual(publish(self.vhost, "", "full"), REJECTED)
        self.assertEqual(publish(self.vhost, "", "none"), UNROUTED)

    def test_several(self) -> None:
        """R35: a refusal outweighs everything, and to be kept outweighs to be in place, in any order."""
        for queues, expected in (
            (("transient", "durable"), PENDING),
            (("durable", "transient"), PENDING),
            (("full", "durable"), REJECTED),
            (("durable", "full"), REJECTED),
            (("transient", "full"), REJECTED),
            (("full", "transient"), REJECTED),
            (("transient", "none"), ROUTED),
        ):
            with self.subTest(queues=queues):
                self.assertEqual(self.outcome(*queues, delivery_mode=2), expected)

    def test_refused_by_one(self) -> None:
        """R34: the others have it all the same."""
        self.outcome("full", "transient")
        self.assertEqual(taken_by(self.vhost), {"transient"})

    def test_shared(self) -> None:
        """All queues share one message."""
        self.vhost.bind_queue("durable", "amq.fanout")
        self.vhost.bind_queue("transient", "amq.fanout")
        for _ in range(2):  # found, and remembered
            publish(self.vhost, "amq.fanout", body=b"x")
            (one,), (other,) = take(self.vhost.queues["durable"]), take(self.vhost.queues["transient"])
            self.assertIs(one, other)


class JournalTests(unittest.TestCase):
    """What is told, and in which order."""

    def setUp(self) -> None:
        self.journal = Recorder()
        self.vhost = make_vhost(journal=self.journal)

    def told(self) -> list[tuple[str, str]]:
        told, self.journal.told = self.journal.told, []
        return told

    def test_durable_only(self) -> None:
        """R35: durable exchanges and queues, and the bindings between two of them."""
        vhost = self.vhost
        vhost.declare_exchange("d", durable=True)
        vhost.declare_exchange("t")
        vhost.declare_queue("dq", durable=True)
        vhost.declare_queue("tq")
        vhost.declare_queue("eq", durable=True, exclusive=True, owner=self)
        for queue in ("dq", "tq"):
            for exchange in ("d", "t", "amq.direct"):
                vhost.bind_queue(queue, exchange, "k")
        vhost.bind_queue("eq", "d", owner=self)
        vhost.bind_exchange("t", "d")
        vhost.bind_exchange("amq.fanout", "d")
        expected = [("exchange", "d"), ("queue", "dq"), *(("binding", to) for to in ("d>dq", "amq.direct>dq"))]
        self.assertEqual(self.told(), [*expected, ("binding", "d>amq.fanout")])
        vhost.unbind_queue("tq", "d", "k")
        vhost.unbind_queue("dq", "d", "k")
        vhost.delete_queue("tq")
        vhost.owner_gone(self)
        vhost.delete_exchange("t")
        self.assertEqual(self.told(), [("no binding", "d>dq")])

    def test_nothing_new(self) -> None:
        """What is declared again is not told again."""
        for _ in range(2):
            self.vhost.declare_exchange("d", durable=True)
            self.vhost.declare_queue("q", durable=True)
            self.vhost.bind_queue("q", "d")
        self.assertEqual(len(self.told()), 3)

    def test_refused(self) -> None:
        """A refused declaration is not told."""
        fault_of(self.vhost.declare_queue, "q", durable=True, arguments={"x-expires": 0})
        fault_of(self.vhost.declare_exchange, "x", "none", durable=True)
        self.assertEqual(self.told(), [])

    def test_bindings_first(self) -> None:
        """R35: an exchange or queue goes after its bindings, and before the exchanges that go because of it."""
        vhost = self.vhost
        vhost.declare_queue("q", durable=True)
        for name in ("a", "b"):
            vhost.declare_exchange(name, durable=True, auto_delete=True)
        vhost.bind_exchange("b", "a")
        vhost.bind_queue("q", "b")
        publish(vhost, "", "q", delivery_mode=2)
        self.told()
        vhost.delete_queue("q")
        self.assertEqual(
            self.told(),
            [
                ("no binding", "b>q"),
                ("no queue", "q"),
                ("no binding", "a>b"),
                ("no exchange", "b"),
                ("no exchange", "a"),
            ],
        )

    @given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from("ab"), st.sampled_from("ab"))))
    def test_can_be_done_again(self, steps: list[tuple[int, str, str]]) -> None:
        """R35: whatever happens, what was told, done again in its order, gives the same durable things."""
        journal = Recorder()
        vhost = make_vhost(journal=journal)
        calls: list[Callable[[str, str], Any]] = [
            lambda one, other: vhost.declare_exchange(one, "fanout", durable=True, auto_delete=one == "a"),
            # Other names than the exchanges': the recorder's bindings do not say what their destination is.
            lambda one, other: vhost.declare_queue(f"{one}q", durable=other == "a"),
            lambda one, other: vhost.bind_queue(f"{one}q", other),
            lambda one, other: vhost.bind_exchange(one, other),
            lambda one, other: vhost.unbind_queue(f"{one}q", other),
            lambda one, other: vhost.unbind_exchange(one, other),
            lambda one, other: vhost.delete_queue(f"{one}q"),
            lambda one, other: vhost.delete_exchange(one),
        ]
        for number, one, other in steps:
            fault_of(calls[number], one, other)
        there: dict[str, set[str]] = {"exchange": set(), "queue": set(), "binding": set()}
        for what, name in journal.told:
            kind = what.removeprefix("no ")
            if what == kind:
                self.assertNotIn(name, there[kind])
                there[kind].add(name)
                if kind == "binding":
                    self.assertLessEqual(set(name.split(">")), there["exchange"] | there["queue"])
            else:
                there[kind].remove(name)
                self.assertFalse(
                    kind != "binding" and not there["exchange"] and not there["queue"] and there["binding"]
                )
        self.assertEqual(there["exchange"], {name for name in vhost.exchanges if name in ("a", "b")})
        self.assertEqual(there["queue"], {name for name, queue in vhost.queues.items() if queue.durable})


class RestoreTests(unittest.TestCase):
    """Putting back what was durable."""

    def setUp(self) -> None:
        self.journal = Recorder()
        self.vhost = make_vhost(journal=self.journal, strict_4=True)

    def test_restored(self) -> None:
        """R35: everything as it was, with names a client could not declare, and nothing is told."""
        vhost = self.vhost
        exchange = vhost.restore_exchange(
            "x", "topic", auto_delete=True, arguments={"alternate-exchange": "amq.fanout"}
        )
        queue = vhost.restore_queue("amq.gen-abc", auto_delete=True, arguments={"x-max-length": 3})
        vhost.restore_binding(Binding("x", "amq.gen-abc", "queue", "a.#"))
        vhost.restore_binding(Binding("x", "amq.gen-abc", "queue", "a.#"))
        vhost.restore_binding(Binding("x", "amq.direct", "exchange", "b"))
        self.assertEqual(self.journal.told, [])
        self.assertEqual((exchange.durable, exchange.auto_delete, exchange.alternate), (True, True, "amq.fanout"))
        self.assertEqual((queue.durable, queue.auto_delete, queue.settings.max_length), (True, True, 3))
        self.assertEqual(vhost.binding_count, 2)
        publish(vhost, "x", "a.b")
        self.assertEqual(taken_by(vhost), {"amq.gen-abc"})
        self.assertIs(
            vhost.declare_queue("amq.gen-abc", durable=True, auto_delete=True, arguments=queue.arguments), queue
        )

    def test_cannot_be(self) -> None:
        """R35: a fault for what makes no sense (any more), and nothing is changed by it."""
        vhost = self.vhost
        self.assertEqual(fault_of(vhost.restore_exchange, "x", "none")[0], 503)
        self.assertEqual(fault_of(vhost.restore_queue, "q", arguments={"x-expires": 0})[0], 406)
        for source, destination, kind in (
            ("none", "q", "queue"),
            ("amq.direct", "none", "queue"),
            ("amq.direct", "none", "exchange"),
        ):
            self.assertEqual(fault_of(vhost.restore_binding, Binding(source, destination, kind, ""))[0], 404)
        vhost.restore_queue("q")
        self.assertEqual(
            fault_of(vhost.restore_binding, Binding("amq.match", "q", "queue", "", {"x-match": "no"}))[0], 406
        )
        self.assertEqual((vhost.binding_count, list(vhost.queues), len(vhost.exchanges)), (0, ["q"], 7))


class PolicyTests(unittest.TestCase):
    """Who keeps policies hears of what is new."""

    def test_told(self) -> None:
        """Each new queue and exchange once, restored ones too; not what was refused or there already."""

        class Listening:
            def __init__(self) -> None:
                self.names: list[str] = []

            def queue_declared(self, queue: Queue) -> None:
                self.names.append(queue.name)

            def exchange_declared(self, exchange: Exchange) -> None:
                self.names.append(exchange.name)

            def forget(self) -> None:
                self.names.clear()

        vhost = make_vhost()
        vhost.policies = listening = Listening()
        for _ in range(2):
            vhost.declare_queue("q")
            vhost.declare_exchange("x")
        vhost.restore_queue("rq")
        vhost.restore_exchange("rx", "direct")
        fault_of(vhost.declare_queue, "bad", arguments={"x-expires": 0})
        self.assertEqual(listening.names, ["q", "x", "rq", "rx"])

    def test_alternate_exchange(self) -> None:
        """An alternate exchange that a policy gives works at once."""
        vhost = make_vhost()
        vhost.declare_queue("q")
        vhost.bind_queue("q", "amq.fanout")
        self.assertEqual(publish(vhost, "amq.direct", "k"), UNROUTED)
        vhost.exchanges["amq.direct"].alternate = "amq.fanout"
        vhost.topology_changed()
        self.assertEqual(publish(vhost, "amq.direct", "k"), ROUTED)


class DeadLetterTests(unittest.TestCase):
    """Where dead letters go."""

    def setUp(self) -> None:
        self.vhost = make_vhost()

    def queue(self, name: str, exchange: str, **more: Any) -> None:
        arguments = {"x-dead-letter-exchange": exchange, "x-max-length": 0, **more}
        self.vhost.declare_queue(name, arguments=arguments)

    def test_routed(self) -> None:
        """R34: through the exchange as any message, also an internal one, with the key and CC it had."""
        self.vhost.declare_exchange("dead", "topic", internal=True)
        self.queue("q", "dead")
        for name, key in (("one", "q"), ("two", "c.#"), ("three", "none")):
            self.vhost.declare_queue(name)
            self.vhost.bind_queue(name, "dead", key)
        publish(self.vhost, "", "q", headers={"CC": ["c.d"]})
        self.assertEqual(taken_by(self.vhost), {"one", "two"})

    def test_nowhere(self) -> None:
        """R34: without the exchange, or a route from it, the message is lost, and nobody is told."""
        self.queue("q", "none")
        self.assertEqual(publish(self.vhost, "", "q"), ROUTED)
        self.queue("r", "amq.direct")
        self.assertEqual(publish(self.vhost, "", "r"), ROUTED)
        self.assertEqual(taken_by(self.vhost), set())

    def test_circle(self) -> None:
        """R34: a queue that would get its own dead letters again does not; others do."""
        self.queue("q", "amq.fanout")
        self.vhost.declare_queue("other")
        for name in ("q", "other"):
            self.vhost.bind_queue(name, "amq.fanout")
        publish(self.vhost, "", "q")
        self.assertEqual(taken_by(self.vhost), {"other"})

    def test_long_chain(self) -> None:
        """R36: queues that dead-letter into each other many times are no recursion."""
        for number in range(90):
            self.queue(str(number), "", **{"x-dead-letter-routing-key": str(number + 1)})
        self.vhost.declare_queue("90")
        publish(self.vhost, "", "0")
        self.assertEqual(taken_by(self.vhost), {"90"})

    def test_to_a_channel(self) -> None:
        """R34: the default exchange brings dead letters to a channel that consumes replies, too."""
        seen = []

        class Asker:
            def reply_received(self, message: Any) -> None:
                seen.append(message.body)

        name = self.vhost.direct_reply.register(Asker())
        self.queue("q", "", **{"x-dead-letter-routing-key": name})
        publish(self.vhost, "", "q", b"x")
        self.assertEqual(seen, [b"x"])

    def test_too_many_patterns(self) -> None:
        """R36: what costs too much to route is lost; there is nobody to tell."""
        self.vhost.declare_queue("sink")
        self.queue("q", "amq.topic", **{"x-dead-letter-routing-key": ".".join("a" * 128)})
        exchange = self.vhost.exchanges["amq.topic"]
        for number in range(3000):
            pattern = ".".join("a" if number >> bit & 1 else "*" for bit in range(12)) + ".#.a"
            exchange.add(Binding("amq.topic", "sink", "queue", pattern), self.vhost.queues["sink"])
        self.assertEqual(publish(self.vhost, "", "q"), ROUTED)
        self.assertEqual(taken_by(self.vhost), set())


class ShownTests(unittest.TestCase):
    """repr."""

    def test_shown(self) -> None:
        """Names and counts."""
        vhost = make_vhost()
        vhost.declare_queue("q")
        self.assertEqual(repr(vhost), "<VirtualHost '/': 7 exchanges, 1 queues>")
