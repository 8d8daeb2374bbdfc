"""Backlog and PriorityBacklog: the order in which messages wait."""

from __future__ import annotations

import random
import unittest

from tests.broker.model_fakes import message
from txmsg.broker.message import Entry
from txmsg.broker.queues.backlog import Backlog, PriorityBacklog


def entry(sequence: int, priority: int = 0) -> Entry:
    return Entry(message(priority=priority), sequence)


def sequences(backlog: Backlog | PriorityBacklog) -> list[int]:
    return [one.sequence for one in backlog]


class BacklogTests(unittest.TestCase):
    def setUp(self) -> None:
        self.backlog = Backlog()

    def test_first_in_first_out(self) -> None:
        for number in (1, 2, 3):
            self.backlog.append(entry(number))
        self.assertEqual((len(self.backlog), sequences(self.backlog)), (3, [1, 2, 3]))
        assert self.backlog.head is not None
        self.assertEqual(self.backlog.head.sequence, 1)
        self.assertEqual([self.backlog.pop().sequence for _ in range(3)], [1, 2, 3])

    def test_empty(self) -> None:
        self.assertIsNone(self.backlog.head)
        self.assertEqual(len(self.backlog), 0)
        with self.assertRaises(IndexError):
            self.backlog.pop()

    def test_what_comes_back_goes_to_its_place(self) -> None:
        """In whatever order it comes back, and between what came back before."""
        for number in range(6):
            self.backlog.append(entry(number))
        taken = [self.backlog.pop() for _ in range(4)]
        for index in (2, 0, 3):
            self.backlog.give_back(taken[index])
        self.assertEqual(sequences(self.backlog), [0, 2, 3, 4, 5])
        self.assertEqual(self.backlog.pop().sequence, 0)
        self.backlog.give_back(taken[1])
        assert self.backlog.head is not None
        self.assertEqual(self.backlog.head.sequence, 1)
        self.assertEqual([self.backlog.pop().sequence for _ in range(5)], [1, 2, 3, 4, 5])

    def test_clear(self) -> None:
        """Takes everything in order."""
        for number in range(4):
            self.backlog.append(entry(number))
        first, second = self.backlog.pop(), self.backlog.pop()
        self.backlog.give_back(second)
        self.backlog.give_back(first)
        self.assertEqual([one.sequence for one in self.backlog.clear()], [0, 1, 2, 3])
        self.assertEqual((len(self.backlog), self.backlog.head), (0, None))


class PriorityTests(unittest.TestCase):
    def setUp(self) -> None:
        self.backlog = PriorityBacklog(5)

    def test_highest_first_then_oldest(self) -> None:
        for number, priority in enumerate((0, 5, 2, 5, 0, 2)):
            self.backlog.append(entry(number, priority))
        self.assertEqual(sequences(self.backlog), [1, 3, 2, 5, 0, 4])
        self.assertEqual([self.backlog.pop().sequence for _ in range(6)], [1, 3, 2, 5, 0, 4])
        self.assertEqual((len(self.backlog), self.backlog.head), (0, None))

    def test_above_the_maximum_counts_as_the_maximum(self) -> None:
        for number, priority in enumerate((5, 255, 4)):
            self.backlog.append(entry(number, priority))
        self.assertEqual(sequences(self.backlog), [0, 1, 2])

    def test_return_within_a_priority(self) -> None:
        for number in range(3):
            self.backlog.append(entry(number, 3))
        first = self.backlog.pop()
        self.backlog.append(entry(9, 4))
        self.backlog.give_back(first)
        self.assertEqual([self.backlog.pop().sequence for _ in range(4)], [9, 0, 1, 2])

    def test_empty(self) -> None:
        self.assertIsNone(self.backlog.head)
        with self.assertRaises(IndexError):
            self.backlog.pop()

    def test_clear(self) -> None:
        for number, priority in enumerate((1, 2)):
            self.backlog.append(entry(number, priority))
        self.assertEqual([one.sequence for one in self.backlog.clear()], [1, 0])
        self.assertEqual((len(self.backlog), self.backlog.head), (0, None))
        self.backlog.append(entry(7, 1))
        self.assertEqual(self.backlog.pop().sequence, 7)

    def test_against_sorting(self) -> None:
        """A thousand random steps against a sorted list."""
        chance = random.Random(7)
        reference: list[Entry] = []
        taken: list[Entry] = []
        for number in range(1000):
            step = chance.random()
            if step < 0.5:
                reference.append(entry(number, chance.randrange(8)))
                self.backlog.append(reference[-1])
            elif step < 0.8 and reference:
                reference.sort(key=lambda one: (-min(one.message.priority, 5), one.sequence))
                taken.append(self.backlog.pop())
                self.assertIs(taken[-1], reference.pop(0))
            elif taken:
                reference.append(taken.pop(chance.randrange(len(taken))))
                self.backlog.give_back(reference[-1])
            self.assertEqual(len(self.backlog), len(reference))
