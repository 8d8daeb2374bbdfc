"""Which nodes a request is for."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError
from txmsg.messaging.pidbox.addressing import MATCHERS, destination_of, is_addressed, pattern_of
from txmsg.messaging.pidbox.times import clock_in


class AddressedTests(SynchronousTestCase):
    """On the node's side, for whatever comes."""

    def test_addressed(self) -> None:
        """kombu P8: by list, by glob, by regular expression from the beginning, or all; the list comes first."""
        cases: list[tuple[dict[str, Any], bool]] = [
            ({}, True),
            ({"destination": None, "pattern": None, "matcher": None}, True),
            ({"destination": []}, True),
            ({"destination": ["worker1", "other"]}, True),
            ({"destination": ["other"]}, False),
            ({"destination": ["other"], "pattern": "*", "matcher": "glob"}, False),
            ({"pattern": "worker?", "matcher": "glob"}, True),
            ({"pattern": "work", "matcher": "glob"}, False),
            ({"pattern": "[!w]*"}, False),
            ({"pattern": "w*"}, True),
            ({"pattern": "WORKER*", "matcher": "glob"}, False),
            ({"pattern": "work", "matcher": "pcre"}, True),
            ({"pattern": "orker", "matcher": "pcre"}, False),
            ({"pattern": r"worker\d$", "matcher": "pcre"}, True),
        ]
        for request, expected in cases:
            self.assertEqual(is_addressed("worker1", request), expected, request)

    def test_malformed(self) -> None:
        """kombu P8: what cannot be understood is for nobody, and no error."""
        cases: list[dict[str, Any]] = [
            {"destination": "worker1"},
            {"destination": {"worker1": 1}},
            {"pattern": "(", "matcher": "pcre"},
            {"pattern": 3, "matcher": "glob"},
            {"pattern": "*", "matcher": "unknown"},
            {"pattern": "*", "matcher": ["glob"]},
            {"pattern": "*" * 1001, "matcher": "glob"},
        ]
        for request in cases:
            self.assertFalse(is_addressed("worker1", request), request)

    def test_matchers_of_ones_own(self) -> None:
        """kombu P8: a mailbox may know more matchers, or fewer."""
        more = {**MATCHERS, "ends": lambda name, pattern: name.endswith(pattern)}
        self.assertTrue(is_addressed("worker1", {"pattern": "1", "matcher": "ends"}, more))
        self.assertFalse(is_addressed("worker1", {"pattern": ".", "matcher": "pcre"}, {"glob": MATCHERS["glob"]}))


class SendingTests(SynchronousTestCase):
    """On the caller's side."""

    def test_destination(self) -> None:
        """kombu P5: a list of names; an empty one would reach everybody, and is refused."""
        self.assertEqual(destination_of(("a", "b")), ["a", "b"])
        self.assertEqual(destination_of({"a"}), ["a"])
        for wrong, text in (("a", "give a list"), ([], "would reach every node"), ([1], "has 1 in it"), (3, "give a")):
            with self.assertRaisesRegex(ConfigurationError, text):
                destination_of(wrong)

    def test_pattern(self) -> None:
        """kombu P8: a pattern that could match nothing is refused where it is written."""
        self.assertEqual(pattern_of(None, "glob", MATCHERS), (None, None))
        self.assertEqual(pattern_of("a*", "glob", MATCHERS), ("a*", "glob"))
        wrong: list[tuple[Any, Any, str]] = [
            ("", "glob", "pattern is ''"),
            (3, "glob", "pattern is 3"),
            ("a", "regex", "give one of glob, pcre"),
            ("(", "pcre", "no regular expression"),
        ]
        for pattern, matcher, text in wrong:
            with self.assertRaisesRegex(ConfigurationError, text):
                pattern_of(pattern, matcher, MATCHERS)


class ClockTests(SynchronousTestCase):
    """The clock in the headers."""

    def test_clock(self) -> None:
        """kombu P11: a number that can still grow; anything else counts as none."""
        self.assertEqual(clock_in({"clock": 7}), 7)
        for clock in (None, -1, True, 1.5, "7", 2**62, 2**63 - 1, [1]):
            self.assertEqual(clock_in({"clock": clock}), 0)
        self.assertEqual(clock_in({}), 0)
