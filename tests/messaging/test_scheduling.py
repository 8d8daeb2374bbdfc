"""The tests of txmsg.messaging.scheduling."""

from __future__ import annotations

import unittest
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from txmsg.errors import ConfigurationError, QueueEmpty
from txmsg.messaging.scheduling import FairCycle, cycle_by_name, priority_cycle, round_robin_cycle, sorted_cycle


class FairCycleTests(unittest.TestCase):
    """Each in its turn (kombu AC7)."""

    def cycle(self, **contents: list[int]) -> FairCycle[str, int]:
        """A cycle over lists."""

        def take(name: str, callback: Any) -> int:
            self.asked.append(name)
            if not contents[name]:
                raise QueueEmpty(name)
            return contents[name].pop(0)

        self.asked: list[str] = []
        return FairCycle(take, contents)

    def test_in_turns(self) -> None:
        """A full one does not starve the others (kombu AC7)."""
        cycle = self.cycle(a=[1, 2, 3], b=[4], c=[5, 6])
        self.assertEqual([cycle.get() for _ in range(6)], [1, 4, 5, 2, 6, 3])

    def test_empty_when_all_are(self) -> None:
        """The predicate is raised after each was asked once, and not before (kombu AC7)."""
        cycle = self.cycle(a=[], b=[], c=[7])
        self.assertEqual(cycle.get(), 7)
        self.asked.clear()
        with self.assertRaises(QueueEmpty):
            cycle.get()
        self.assertEqual(self.asked, ["a", "b", "c"])

    def test_no_resources(self) -> None:
        """The predicate, at once; also after `close`, or when the list became shorter (kombu AC7)."""
        cycle = self.cycle(a=[1], b=[2], c=[3])
        self.assertEqual((cycle.get(), cycle.get(), repr(cycle)), (1, 2, "<FairCycle 2 of 3>"))
        del cycle.resources[1:]
        with self.assertRaises(QueueEmpty):
            cycle.get()
        cycle.close()
        self.asked.clear()
        with self.assertRaises(QueueEmpty):
            cycle.get()
        self.assertEqual(self.asked, [])
        with self.assertRaises(LookupError):
            FairCycle(lambda resource, callback: None, [], (KeyError, ValueError)).get()

    def test_closed_meanwhile(self) -> None:
        """By what it asks."""

        def get(resource: str, callback: Any) -> str:
            cycle.close()
            raise QueueEmpty(resource)

        cycle: FairCycle[str, str] = FairCycle(get, ["a", "b"])
        self.assertRaises(QueueEmpty, cycle.get)

    def test_other_errors(self) -> None:
        """They come through, and the next one has its turn (kombu AC7)."""

        def take(name: str, callback: Any) -> Any:
            if name == "bad":
                raise ValueError(name)
            return name, callback

        cycle = FairCycle(take, ["bad", "good"], KeyError)
        with self.assertRaises(ValueError):
            cycle.get()
        self.assertEqual(cycle.get("callback"), ("good", "callback"))

    @given(st.lists(st.lists(st.integers(), max_size=6), max_size=5))
    def test_nothing_is_lost(self, contents: list[list[int]]) -> None:
        """All that is there comes, once, and no two turns of one before each other had one (kombu AC7)."""
        left = [list(each) for each in contents]
        turns: list[int] = []

        def take(index: int, callback: Any) -> int:
            if not left[index]:
                raise QueueEmpty(str(index))
            turns.append(index)
            return left[index].pop(0)

        cycle = FairCycle(take, range(len(contents)))
        got = [cycle.get() for _ in range(sum(map(len, contents)))]
        self.assertCountEqual(got, [item for each in contents for item in each])
        for position, index in enumerate(turns):
            again = next((i for i in range(position + 1, len(turns)) if turns[i] == index), None)
            if again is not None:
                remaining = {i for i in turns[again:] if i != index}
                self.assertLessEqual(remaining, set(turns[position + 1 : again]))


class CycleTests(unittest.TestCase):
    """Orders of items (kombu AC7)."""

    def test_round_robin(self) -> None:
        """What was used goes to the end (kombu AC7)."""
        cycle = round_robin_cycle(["a", "b", "c"])
        self.assertEqual((cycle.consume(2), cycle.consume(9)), (["a", "b"], ["a", "b", "c"]))
        self.assertEqual(cycle.rotate("a"), "a")
        self.assertEqual((cycle.consume(3), cycle.rotate("x")), (["b", "c", "a"], "x"))
        cycle.update(["z", "y"])
        self.assertEqual((cycle.consume(3), repr(cycle)), (["z", "y"], "round_robin_cycle(['z', 'y'])"))

    def test_priority(self) -> None:
        """The order stays (kombu AC7)."""
        cycle = priority_cycle(["a", "b", "c"])
        self.assertEqual((cycle.rotate("a"), cycle.consume(3)), ("a", ["a", "b", "c"]))

    def test_sorted(self) -> None:
        """They come sorted, whatever order they were put in (kombu AC7)."""
        cycle = sorted_cycle(["c", "a", "b"])
        self.assertEqual((cycle.consume(2), cycle.rotate("a"), cycle.consume(9)), (["a", "b"], "a", ["a", "b", "c"]))

    def test_by_name(self) -> None:
        """The names that settings use (kombu AC7)."""
        self.assertIs(cycle_by_name("round_robin"), round_robin_cycle)
        self.assertIs(cycle_by_name("priority"), priority_cycle)
        self.assertIs(cycle_by_name("sorted"), sorted_cycle)
        with self.assertRaises(ConfigurationError):
            cycle_by_name("random")
