"""What a topology remembers: declared, less what was deleted, unbound, or went by itself (R10, Z7)."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.recovery.site import Site
from txmsg.amqp.recovery.consumer import RecoveringConsumer
from txmsg.amqp.recovery.topology import BindingRecord, ExchangeRecord, QueueRecord, Topology


def names(topology: Topology) -> set[str]:
    """The entities, as text."""
    return set(map(str, topology))


class TopologyTest(SynchronousTestCase):
    """R10: the rules by which things go."""

    def setUp(self) -> None:
        """An exchange that leads to another one, and that to a queue."""
        self.topology = Topology()
        self.topology.exchange_declared(ExchangeRecord("first", auto_delete=True))
        self.topology.exchange_declared(ExchangeRecord("second", auto_delete=True))
        self.topology.queue_declared(QueueRecord("jobs"))
        self.topology.bound(BindingRecord("exchange", "first", "second", "k"))
        self.topology.bound(BindingRecord("queue", "second", "jobs", "k"))

    def test_plan_has_exchanges_before_what_binds_them(self) -> None:
        """Two stages: the queue's bindings come when everything is there."""
        first, second = self.topology.plan()
        self.assertEqual(
            list(map(str, first)),
            [
                "exchange 'first'",
                "exchange 'second'",
                "binding of exchange 'second' to exchange 'first' with 'k'",
                "queue 'jobs'",
            ],
        )
        self.assertEqual(list(map(str, second)), ["binding of queue 'jobs' to exchange 'second' with 'k'"])

    def test_deleted_queue_takes_auto_delete_exchanges_along(self) -> None:
        """With its last binding goes the exchange, and with that the one before."""
        self.topology.queue_deleted("jobs")
        self.assertEqual(list(self.topology), [])
        self.assertEqual(len(self.topology), 0)

    def test_unbound_exchange_goes(self) -> None:
        """An unbind does the same; the queue stays."""
        self.topology.unbound(BindingRecord("queue", "second", "jobs", "k"))
        self.assertEqual(names(self.topology), {"queue 'jobs'"})

    def test_unbind_of_an_unknown_binding_changes_nothing(self) -> None:
        """Another key, or other arguments, are another binding."""
        before = names(self.topology)
        self.topology.unbound(BindingRecord("queue", "second", "jobs", "other"))
        self.topology.unbound(BindingRecord("queue", "second", "jobs", "k", {"x": 1}))
        self.assertEqual(names(self.topology), before)

    def test_bindings_with_equal_arguments_are_one(self) -> None:
        """The order of a table's keys does not count, the type of a value does."""
        self.topology.bound(BindingRecord("queue", "second", "jobs", "h", {"a": 1, "b": [True]}))
        self.topology.bound(BindingRecord("queue", "second", "jobs", "h", {"b": [True], "a": 1}))
        self.assertEqual(len(self.topology.bindings), 3)
        self.topology.bound(BindingRecord("queue", "second", "jobs", "h", {"a": True, "b": [True]}))
        self.assertEqual(len(self.topology.bindings), 4)

    def test_exchange_without_bindings_ever_stays(self) -> None:
        """Auto-delete means the last one going, not none being there."""
        self.topology.exchange_declared(ExchangeRecord("lonely", auto_delete=True))
        self.topology.queue_deleted("jobs")
        self.assertEqual(names(self.topology), {"exchange 'lonely'"})

    def test_deleted_exchange_frees_its_source(self) -> None:
        """A binding between exchanges goes with its destination too."""
        self.topology.exchange_deleted("second")
        self.assertEqual(names(self.topology), {"queue 'jobs'"})

    def test_auto_delete_queue_goes_with_its_last_consumer(self) -> None:
        """Not with the first of two; and one that had none stays."""
        self.topology.queue_declared(QueueRecord("temp", auto_delete=True))
        first, second = self.topology.consumer_added("temp"), self.topology.consumer_added("temp")
        self.topology.consumer_removed(first)
        self.topology.consumer_removed(first)
        self.assertIn("queue 'temp'", names(self.topology))
        self.topology.consumer_removed(second)
        self.assertNotIn("queue 'temp'", names(self.topology))

    def test_wanted_filters(self) -> None:
        """What the application does not want back is not planned."""
        self.topology.wanted = lambda entity: not isinstance(entity, QueueRecord)
        self.assertNotIn("queue 'jobs'", names(self.topology))
        self.assertIn("jobs", self.topology.queues)
        self.topology.wanted = lambda entity: False
        self.assertEqual(self.topology.plan(), [])

    def test_plan_for_one_queue(self) -> None:
        """Its bindings, and what leads to it; nothing else."""
        self.topology.queue_declared(QueueRecord("other"))
        self.topology.bound(BindingRecord("queue", "second", "other", "o"))
        planned = [str(entity) for stage in self.topology.plan_for("other") for entity in stage]
        self.assertEqual(
            planned,
            [
                "exchange 'second'",
                "exchange 'first'",
                "binding of exchange 'second' to exchange 'first' with 'k'",
                "queue 'other'",
                "binding of queue 'other' to exchange 'second' with 'o'",
            ],
        )
        self.assertEqual(self.topology.plan_for("nobody's"), [])

    def test_exchanges_in_a_circle(self) -> None:
        """A loop of bindings ends the search."""
        self.topology.bound(BindingRecord("exchange", "second", "first", "back"))
        self.assertEqual(len([entity for stage in self.topology.plan_for("jobs") for entity in stage]), 6)

    def test_consumers_of_a_queue_that_the_application_deletes(self) -> None:
        """They are told, before the reply and after it; others are not."""
        consumer = self.topology.consumer_added("jobs")
        self.topology.deletion_begins("jobs")
        self.topology.deletion_begins("jobs")
        self.topology.deletion_ended("jobs")
        self.assertTrue(self.topology.is_deleted(consumer))
        self.topology.deletion_ended("jobs")
        self.assertFalse(self.topology.is_deleted(consumer))
        self.topology.queue_deleted("jobs", by_application=True)
        self.assertTrue(self.topology.is_deleted(consumer))


class ServerNamedTest(SynchronousTestCase):
    """R10: a queue that the broker has named."""

    def setUp(self) -> None:
        """One, with a binding."""
        self.topology = Topology()
        self.queue = QueueRecord("amq.gen-1", exclusive=True, is_server_named=True)
        self.topology.queue_declared(self.queue)
        self.topology.bound(BindingRecord("queue", "amq.topic", "amq.gen-1", "k"))
        self.told: list[tuple[str, str]] = []
        self.topology.add_renamed_callback(lambda old, new: self.told.append((old, new)))

    def test_found_by_every_name(self) -> None:
        """The name given first and the later ones lead to the same queue; whoever asked is told."""
        self.assertFalse(self.topology.has_renamed)
        self.topology.renamed(self.queue, "amq.gen-2")
        self.topology.renamed(self.queue, "amq.gen-3")
        self.topology.renamed(self.queue, "amq.gen-3")
        self.assertTrue(self.topology.has_renamed)
        for name in ("amq.gen-1", "amq.gen-2", "amq.gen-3"):
            self.assertEqual(self.topology.current_name(name), "amq.gen-3")
            self.assertEqual(self.topology.name_of(name), "amq.gen-1")
        self.assertEqual(self.topology.current_name("else"), "else")
        self.assertEqual(self.told, [("amq.gen-1", "amq.gen-2"), ("amq.gen-2", "amq.gen-3")])
        self.topology.bound(BindingRecord("queue", "amq.topic", "amq.gen-3", "k"))
        self.assertEqual(len(self.topology.bindings), 1)

    def test_names_are_bounded(self) -> None:
        """R31: a thousand reconnects do not leave a thousand names; the first one is never forgotten."""
        for number in range(1000):
            self.topology.renamed(self.queue, f"amq.gen-n{number}")
        self.assertEqual(self.topology.current_name("amq.gen-1"), "amq.gen-n999")
        self.assertEqual(self.topology.current_name("amq.gen-n998"), "amq.gen-n999")
        self.assertEqual(self.topology.current_name("amq.gen-n100"), "amq.gen-n100")
        self.assertLess(len(self.topology._names), 12)

    def test_deleted_by_a_later_name(self) -> None:
        """All its names and bindings are gone."""
        self.topology.renamed(self.queue, "amq.gen-2")
        self.topology.queue_deleted("amq.gen-2")
        self.assertEqual(list(self.topology), [])
        self.assertEqual(self.topology.current_name("amq.gen-1"), "amq.gen-1")
        self.assertFalse(self.topology.has_renamed)

    def test_callback_that_raises(self) -> None:
        """It is logged, and the others are told."""

        def bad(old: str, new: str) -> None:
            raise ValueError(old)

        self.topology.add_renamed_callback(bad)
        self.topology.add_renamed_callback(lambda old, new: self.told.append(("last", new)))
        self.topology.renamed(self.queue, "amq.gen-2")
        self.assertEqual(self.told[-1], ("last", "amq.gen-2"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.topology.remove_renamed_callback(bad)
        self.assertRaises(ValueError, self.topology.remove_renamed_callback, bad)


KINDS = ["exchange"] * 4 + ["queue"] * 4 + ["bind"] * 5 + ["lead"] * 4 + ["consume"] * 3
KINDS += ["unbind", "unlead", "cancel", "cancel", "delete exchange", "delete queue", "refused"]


def random_steps(chance: Random, length: int) -> list[tuple[Any, ...]]:
    """What an application may do, right and wrong: names are few, so that steps have to do with each other."""
    steps: list[tuple[Any, ...]] = []
    for _ in range(length):
        exchange, queue = chance.choice(["ex1", "ex2", "ex3"]), chance.choice(["q1", "q2", "q3"])
        kind = chance.choice(KINDS)
        match kind:
            case "exchange":
                # Each name has one form, most of the time: declaring another one is refused.
                steps.append((kind, exchange, (exchange != "ex3") is (chance.random() < 0.95)))
            case "queue":
                form = {"q1": "auto", "q2": "exclusive", "q3": "plain"}[queue]
                steps.append((kind, queue, form if chance.random() < 0.95 else "plain"))
            case "bind" | "unbind":
                steps.append((kind, queue, exchange, chance.choice("ab")))
            case "lead" | "unlead":
                steps.append((kind, exchange, chance.choice(["ex1", "ex2", "ex3"]), chance.choice("ab")))
            case "consume" | "delete queue":
                steps.append((kind, queue))
            case "delete exchange":
                steps.append((kind, exchange))
            case "cancel":
                steps.append((kind, chance.randrange(3)))
            case _:
                steps.append((kind,))
    return steps


class RandomTopologyTest(SynchronousTestCase):
    """Z7: whatever is declared, bound, consumed and undone, what comes back is what the broker had."""

    def test_recovered_is_what_was_there(self) -> None:
        """The broker is the model: it has its own rules for what goes with what."""
        for seed in range(100):
            chance = Random(seed)
            steps = random_steps(chance, chance.randrange(5, 60))
            site = Site()
            try:
                site.start()
                self._live(site, steps)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {steps}") from error
            finally:
                site.close()
            self.assertEqual(site.clock.getDelayedCalls(), [])

    def _live(self, site: Site, steps: list[tuple[Any, ...]]) -> None:
        channel = site.channel()
        consumers: list[RecoveringConsumer] = []
        for step in steps:
            match step:
                case ("exchange", name, auto_delete):
                    done: Any = channel.exchange_declare(name, "topic", auto_delete=auto_delete)
                case ("delete exchange", name):
                    done = channel.exchange_delete(name)
                case ("queue", name, kind):
                    done = channel.queue_declare(name, auto_delete=kind == "auto", exclusive=kind == "exclusive")
                case ("delete queue", name):
                    done = channel.queue_delete(name)
                case ("bind", queue, exchange, key):
                    done = channel.queue_bind(queue, exchange, key)
                case ("unbind", queue, exchange, key):
                    done = channel.queue_unbind(queue, exchange, key)
                case ("lead", destination, source, key):
                    done = channel.exchange_bind(destination, source, key)
                case ("unlead", destination, source, key):
                    done = channel.exchange_unbind(destination, source, key)
                case ("consume", queue):
                    done = channel.basic_consume(queue, lambda delivery: None).addCallback(consumers.append)
                case ("refused",):
                    done = channel.queue_declare("none", passive=True)
                case ("cancel", number):
                    if number >= len(consumers):
                        continue
                    done = consumers.pop(number).cancel()
            site.outcome(done)  # what the broker refuses closes the channel, which comes back
            site.settle()
        site.outcome(channel.basic_qos(0))
        site.settle(1)
        expected = site.entities()
        self.assertEqual(names(site.connection.topology), expected)
        subscribed = sorted(consumer.queue_key for consumer in channel.consumers.values() if consumer.is_active)
        site.wipe()
        site.ready(site.connection.epoch + 1)
        self.assertEqual(site.entities(), expected)
        self.assertEqual(site.subscribed(), subscribed)
