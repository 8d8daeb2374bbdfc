"""The queue checker and its report."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import (
    ChannelClosed,
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    NotSent,
    OperationTimeout,
    Overloaded,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
)
from txmsg.testing.disruption import QueueChecker, Report, Timing, ending_of, table
from txmsg.testing.disruption.report import MUST_BE_ZERO


class CheckerCase(SynchronousTestCase):
    """A checker."""

    def setUp(self) -> None:
        self.checker = QueueChecker("a fault", seed=7)

    def send(self, count: int, ending: Any = "confirmed", publisher: str = "p") -> list[str]:
        """So many publishes that ended so; their ids."""
        ids = [self.checker.attempt(publisher) for _ in range(count)]
        for message_id in ids:
            self.checker.ended(message_id, ending)
        return ids

    def handle(self, ids: list[str], **fields: Any) -> None:
        """These are handled."""
        for message_id in ids:
            self.checker.handled(message_id, **fields)


class VerdictTests(CheckerCase):
    """What must be 0, and what is only counted."""

    def test_a_good_run(self) -> None:
        """All confirmed, all handled or drained, in order."""
        ids = self.send(10)
        self.handle(ids[:7])
        self.checker.drained(ids[7:])
        report = self.checker.report()
        report.check()
        self.assertTrue(report.is_good)
        self.assertEqual((report.sent, report.confirmed, report.handled, report.deliveries), (10, 10, 10, 10))
        self.assertEqual((report.fault, report.seed, report.client, report.problems()), ("a fault", 7, "txmsg", []))

    def test_lost(self) -> None:
        """R1: confirmed, and not there; whatever else was not confirmed may be gone."""
        self.handle(self.send(3)[:1])
        for ending in ("returned", "nacked", "unconfirmed", "not_sent"):
            self.send(1, ending)
        report = self.checker.report()
        self.assertEqual(report.lost, 2)
        self.assertEqual(report.examples["lost"], ["p-2", "p-3"])
        with self.assertRaises(AssertionError) as caught:
            report.check()
        self.assertEqual(str(caught.exception), "a fault (seed 7): lost = 2: p-2, p-3")

    def test_unexpected(self) -> None:
        """What nobody sent."""
        self.handle(["stranger"])
        self.assertEqual(self.checker.report().unexpected, 1)

    def test_contradicted(self) -> None:
        """R2: handled, although the publisher was told that no octet left, or that it came back."""
        self.handle(self.send(1, "not_sent") + self.send(1, "returned") + self.send(1, "nacked"))
        report = self.checker.report()
        self.assertEqual((report.contradicted, report.recovered, report.is_good), (2, 3, False))

    def test_duplicates_and_recovered(self) -> None:
        """Are counted, and allowed."""
        self.handle(self.send(2) + self.send(1, "unconfirmed") + ["p-1", "p-1"])
        report = self.checker.report()
        self.assertEqual((report.duplicates, report.recovered, report.deliveries, report.is_good), (2, 1, 5, True))

    def test_unfired(self) -> None:
        """R28: a publish that has not ended, and whatever else has not."""
        self.checker.attempt()
        self.checker.unfired(2)
        self.assertEqual(self.checker.report().unfired, 3)

    def test_the_log(self) -> None:
        """Unhandled errors and secrets."""
        self.checker.unhandled_error("Unhandled error in Deferred")
        self.checker.secret_seen("repr of the connection")
        report = self.checker.report()
        self.assertEqual((report.unhandled_errors, report.secrets, report.is_good), (1, 1, False))


class OrderTests(CheckerCase):
    """R4: the order of first handlings."""

    def violations(self) -> int:
        """How many."""
        return self.checker.report().order_violations

    def test_one_consumer(self) -> None:
        """Behind a later one of the same publisher; each counts once."""
        ids = self.send(5)
        self.handle([ids[0], ids[3], ids[1], ids[2], ids[4]])
        self.assertEqual(self.violations(), 2)
        self.assertEqual(self.checker.report().examples["order_violations"], ["p-2", "p-3"])

    def test_duplicates_do_not_count(self) -> None:
        """Only the first handling does."""
        ids = self.send(3)
        self.handle([*ids, *ids])
        self.assertEqual(self.violations(), 0)

    def test_publishers_are_independent(self) -> None:
        """And so are queues."""
        first, second = self.send(2, publisher="a"), self.send(2, publisher="b")
        self.handle([second[0], first[0], second[1], first[1]])
        self.handle(first, queue="other")
        self.assertEqual(self.violations(), 0)

    def test_several_consumers(self) -> None:
        """Each one's own order; what was delivered again may come late."""
        ids = self.send(6)
        self.handle([ids[1], ids[3]], consumer="one")
        self.handle([ids[0], ids[4]], consumer="two")
        self.handle([ids[2]], consumer="two", redelivered=True)
        self.assertEqual(self.violations(), 0)
        self.handle([ids[5]], consumer="one")
        self.assertEqual(self.violations(), 0)
        more = self.send(2)
        self.handle([more[1], more[0]], consumer="one")
        self.assertEqual(self.violations(), 1)

    def test_redelivered_to_the_only_consumer(self) -> None:
        """It counts: the queue put it back into its place."""
        ids = self.send(2)
        self.handle([ids[1]])
        self.handle([ids[0]], redelivered=True)
        self.assertEqual(self.violations(), 1)

    def test_drained(self) -> None:
        """What is left comes behind what was handled."""
        ids = self.send(3)
        self.handle([ids[1]])
        self.checker.drained([ids[0], ids[2]])
        self.assertEqual(self.violations(), 1)


class EndingTests(CheckerCase):
    """How publishes end."""

    def test_of_errors(self) -> None:
        """R2: each class stands for one fact; what is not known is unconfirmed."""
        expected: dict[str, list[Exception]] = {
            "returned": [PublishReturned(312, "NO_ROUTE", "", "key")],
            "nacked": [PublishNacked("no")],
            "not_sent": [NotSent("no"), Overloaded("no"), EncodeError("no"), ConfigurationError("no")],
            "unconfirmed": [
                PublishUnconfirmed("?"),
                PublishTimeout("?"),
                ConnectionLost("?"),
                ChannelClosed("?"),
                OperationTimeout("?"),
            ],
            "untyped": [KeyError("?"), OSError("?")],
        }
        for ending, errors in expected.items():
            for error in errors:
                self.assertEqual(ending_of(error), ending, repr(error))

    def test_publishing(self) -> None:
        """A Deferred tells by itself, and its failure is handled."""
        for fires, error in ((True, None), (False, PublishNacked("no")), (False, KeyError("x"))):
            deferred: Deferred[None] = Deferred()
            noted = self.checker.publishing(self.checker.attempt(), deferred)
            if error is None:
                deferred.callback(None)
            else:
                deferred.errback(error)
            self.assertEqual(self.successResultOf(noted), fires)
        report = self.checker.report()
        self.assertEqual((report.confirmed, report.nacked, report.untyped), (1, 1, 1))

    def test_ending_twice(self) -> None:
        """R2: exactly once; and only what was attempted."""
        [message_id] = self.send(1)
        self.checker.ended(message_id, "confirmed")
        with self.assertRaises(ConfigurationError):
            self.checker.ended(message_id, "nacked")
        with self.assertRaises(ConfigurationError):
            self.checker.ended("p-99", "confirmed")

    def test_ids_of_two_publishers(self) -> None:
        """That cannot be told apart are refused."""
        self.checker.attempt("a-1")
        self.checker._attempts["a-2"] = ("a", 2)
        self.checker.attempt("a")
        with self.assertRaises(ConfigurationError):
            self.checker.attempt("a")


class ReportTests(CheckerCase):
    """Report."""

    def full(self) -> Report:
        """One with all kinds of figures."""
        self.handle(self.send(3)[1:])
        for seconds in (1.0, 2.0, 9.0):
            self.checker.detected(seconds)
        self.checker.recovered(0.5)
        self.checker.measured(peak_rss=64 * 2**20, longest_stall=0.0125, rate=100)
        return self.checker.report()

    def test_json(self) -> None:
        """One line that can be read back."""
        report = self.full()
        line = report.as_json()
        self.assertNotIn("\n", line)
        found = json.loads(line)
        self.assertEqual((found["lost"], found["is_good"], found["detection"]["max"]), (1, False, 9.0))
        self.assertEqual(found["extra"], {"rate": 100})
        self.assertLessEqual(set(MUST_BE_ZERO), set(found))
        self.assertEqual(Report.from_json(line), report)
        self.assertEqual(Report.from_json('{"fault":"F1","new":1}'), Report("F1"))

    def test_timing(self) -> None:
        """Median and maximum; nothing of nothing."""
        self.assertEqual(Timing.of([3.0, 1.0, 2.0]), Timing(3, 2.0, 3.0))
        self.assertEqual((str(Timing.of([3.0, 1.0])), str(Timing.of([]))), ("2/3", "-"))

    def test_table(self) -> None:
        """As many columns in each row as in the head."""
        lines = table([self.full(), Report("F2 | nothing")]).splitlines()
        self.assertEqual(len({line.count("|") for line in lines}), 1)
        self.assertIn("| 2/9 | 0.5/0.5 | 64 | 12 | 7 |", lines[2])
        self.assertIn("| - | - | - | - | - |", lines[3])
        self.assertIn("F2 / nothing", lines[3])

    def test_each_problem_counts(self) -> None:
        """Any single one makes the run a bad one."""
        for name in MUST_BE_ZERO:
            report = Report("F", **{name: 1})  # type: ignore[arg-type]
            self.assertEqual((report.is_good, report.problems()), (False, [f"{name} = 1"]))
