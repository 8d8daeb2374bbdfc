"""The tests of txmsg.messaging.clocks."""

from __future__ import annotations

import heapq
import unittest

from hypothesis import given
from hypothesis import strategies as st

from txmsg.messaging.clocks import LamportClock, timetuple


class LamportClockTests(unittest.TestCase):
    """Logical time (kombu R1, R2)."""

    def test_forward_counts(self) -> None:
        """Each own event is one more (kombu R1)."""
        clock = LamportClock()
        self.assertEqual(clock.value, 0)
        self.assertEqual([clock.forward(), clock.forward()], [1, 2])
        self.assertEqual(clock.value, 2)
        self.assertEqual(LamportClock(7).forward(), 8)
        self.assertEqual((str(clock), repr(clock)), ("2", "<LamportClock 2>"))

    def test_adjust(self) -> None:
        """One above the greater of the two, whichever it is (kombu R1)."""
        clock = LamportClock(3)
        self.assertEqual(clock.adjust(10), 11)
        self.assertEqual(clock.adjust(5), 12)
        self.assertEqual(clock.adjust(12), 13)
        self.assertEqual(clock.value, 13)

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 100))))
    def test_effects_come_after_causes(self, steps: list[tuple[bool, int]]) -> None:
        """Whatever happens, the value grows, and is above all that was heard."""
        clock = LamportClock()
        for is_ours, other in steps:
            before = clock.value
            after = clock.forward() if is_ours else clock.adjust(other)
            self.assertEqual(after, clock.value)
            self.assertGreater(after, before if is_ours else max(before, other))

    def test_sort_heap(self) -> None:
        """The first wins; of the same clock, the lowest id (kombu R2)."""
        clock = LamportClock()
        self.assertEqual(clock.sort_heap([(1, "b"), (2, "a")]), (1, "b"))
        self.assertEqual(clock.sort_heap([(1, "b"), (1, "a"), (1, "c"), (2, "0")]), (1, "a"))
        self.assertEqual(clock.sort_heap([(5, "z", "what", "more")]), (5, "z", "what", "more"))
        with self.assertRaises(ValueError):
            clock.sort_heap([])


class TimetupleTests(unittest.TestCase):
    """Events that can be sorted (kombu R3)."""

    def test_clock_first_then_id(self) -> None:
        """The timestamp says nothing where both have a clock (kombu R3)."""
        a, b = timetuple(1, 200.0, "z", object()), timetuple(2, 100.0, "a", object())
        self.assertTrue(a < b and b > a and a <= b and b >= a)
        self.assertFalse(b < a or a > b or b <= a or a >= b)
        c = timetuple(1, 300.0, "a", object())
        self.assertTrue(c < a and a > c)

    def test_without_a_clock_by_timestamp(self) -> None:
        """0 and None are no clocks (kombu R3)."""
        for none in (0, None):
            early, late = timetuple(9, 100.0, "a"), timetuple(none, 200.0, "a")
            self.assertTrue(early < late and late > early)
            self.assertFalse(late < early or early > late)

    def test_objects_are_not_compared(self) -> None:
        """Equal clocks and ids: neither is before the other, and nothing raises."""
        a, b = timetuple(1, 1.0, "a", object()), timetuple(1, 1.0, "a", object())
        self.assertFalse(a < b or a > b)
        self.assertTrue(a <= b and a >= b)
        self.assertNotEqual(a, b)

    def test_in_a_heap(self) -> None:
        """It comes out sorted, and says what it is."""
        events = [timetuple(3, 1.0, "a"), timetuple(1, 9.0, "b"), timetuple(1, 2.0, "a")]
        heap = list(events)
        heapq.heapify(heap)
        self.assertEqual([heapq.heappop(heap) for _ in events], [events[2], events[1], events[0]])
        self.assertEqual(repr(events[0]), "timetuple(clock=3, timestamp=1.0, id='a', obj=None)")
        self.assertEqual((events[0].clock, events[0].timestamp, events[0].id, events[0].obj), (3, 1.0, "a", None))
