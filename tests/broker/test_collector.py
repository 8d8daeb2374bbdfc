"""The garbage collector does not look at messages that wait (R32)."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.collector import INTERVAL, STEP, THAW, CollectorWatch
from txmsg.broker.message import Entry, Message
from txmsg.broker.vhost.usage import Usage
from txmsg.wire.properties import NO_PROPERTIES


class FakeCollector:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def collect(self, generation: int = 2) -> int:
        self.calls.append(f"collect {generation}")
        return 0

    def freeze(self) -> None:
        self.calls.append("freeze")

    def unfreeze(self) -> None:
        self.calls.append("unfreeze")


class WatchTests(SynchronousTestCase):
    """When things are set aside and taken back."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.usage = Usage()
        self.collector = FakeCollector()
        self.watch = CollectorWatch(self.usage, self.clock, self.collector)
        self.watch.start()
        self.assertEqual(self.take(), ["collect 2", "freeze"])

    def take(self) -> list[str]:
        calls, self.collector.calls = self.collector.calls, []
        return calls

    def look(self) -> list[str]:
        self.clock.advance(INTERVAL)
        return self.take()

    def test_growth_is_set_aside_step_by_step(self) -> None:
        self.usage.add(STEP - 1)
        self.assertEqual(self.look(), [])
        self.usage.add(1)
        self.assertEqual(self.look(), ["collect 1", "freeze"])
        self.assertEqual(self.look(), [])
        self.usage.add(STEP)
        self.assertEqual(self.look(), ["collect 1", "freeze"])

    def test_everything_is_taken_back_when_the_queues_are_nearly_empty(self) -> None:
        self.usage.add(3 * STEP)
        self.look()
        self.usage.remove(STEP)
        self.assertEqual(self.look(), [])
        self.usage.remove(STEP + 1)
        self.assertEqual(self.look(), ["unfreeze"])
        self.assertEqual(self.look(), [])

    def test_messages_that_replace_others_are_set_aside_too(self) -> None:
        self.usage.add(3 * STEP)
        self.look()
        self.usage.remove(2 * STEP - 1)
        self.assertEqual(self.look(), [])
        self.usage.add(STEP)
        self.assertEqual(self.look(), ["collect 1", "freeze"])

    def test_everything_is_looked_at_again(self) -> None:
        """What was set aside and has ended since then is found."""
        for times in range(1, 2 * THAW + 1):
            self.usage.add(STEP)
            expected = ["collect 1", "freeze"] if times % THAW else ["unfreeze", "collect 2", "freeze"]
            self.assertEqual(self.look(), expected)

    def test_stop_leaves_nothing(self) -> None:
        self.usage.add(2 * STEP)
        self.look()
        self.watch.stop()
        self.watch.stop()
        self.watch.start()
        self.watch.stop()
        self.assertEqual(self.take(), ["unfreeze", "collect 2", "freeze", "unfreeze"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("stopped", repr(self.watch))


class EffectTests(SynchronousTestCase):
    """With the real collector."""

    def test_set_aside_messages_are_not_looked_at_and_still_freed(self) -> None:
        """A full collection does not get slower by 100,000 messages that wait."""
        clock, usage = Clock(), Usage()
        watch = CollectorWatch(usage, clock)
        watch.start()
        self.addCleanup(watch.stop)
        waiting = [Entry(Message("", "q", NO_PROPERTIES, b"x"), n) for n in range(100_000)]
        usage.add(100_000 * 400)
        tracked = len(gc.get_objects())
        clock.advance(INTERVAL)
        self.assertLess(len(gc.get_objects()), tracked - 190_000)
        self.assertGreater(gc.get_freeze_count(), 190_000)
        frozen = gc.get_freeze_count()
        waiting.clear()
        self.assertLess(gc.get_freeze_count(), frozen - 190_000)
