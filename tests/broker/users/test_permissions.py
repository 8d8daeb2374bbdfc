"""Patterns: what they match, and what is said where they do not."""

from __future__ import annotations

import time
import unittest

from txmsg.broker.faults import Fault
from txmsg.broker.users.permissions import CONFIGURE, READ, WRITE, Permissions
from txmsg.errors import ConfigurationError


class PatternTests(unittest.TestCase):
    """RabbitMQ's rules."""

    def test_patterns(self) -> None:
        """Searched for anywhere, unless they have anchors; "" matches nothing there is."""
        for pattern, name, matches in (
            (".*", "q", True),
            (".*", "", True),
            ("", "q", False),
            ("", "", False),
            ("^$", "q", False),
            ("^$", "", False),
            ("a", "bab", True),
            ("^a", "ba", False),
            (r"^a\z", "a", True),
            ("^(a|b)$", "ab", False),
            ("amq.default", "", True),
            ("^amq\\.", "", True),
        ):
            with self.subTest(pattern=pattern, name=name):
                self.assertEqual(Permissions("u", "/", pattern, "", "").allows(CONFIGURE, name), matches)

    def test_three_patterns(self) -> None:
        """Each is for its own."""
        permissions = Permissions("u", "/", "^c", "^w", "^r")
        for operation, letter in ((CONFIGURE, "c"), (WRITE, "w"), (READ, "r")):
            self.assertEqual([x for x in "cwr" if permissions.allows(operation, x)], [letter])
        self.assertEqual((permissions.configure, permissions.write, permissions.read), ("^c", "^w", "^r"))

    def test_texts(self) -> None:
        """403 in RabbitMQ's words; the default exchange has a name of its own."""
        permissions = Permissions("bob", "v", "", "", "")
        for check, kind, name, text in (
            (permissions.check_configure, "queue", "q", "queue 'q' in vhost 'v'"),
            (permissions.check_write, "exchange", "", "exchange 'amq.default' in vhost 'v'"),
            (permissions.check_read, "exchange", "x", "exchange 'x' in vhost 'v'"),
        ):
            with self.assertRaises(Fault) as caught:
                check(kind, name)
            self.assertEqual(caught.exception.reply_code, 403)
            self.assertEqual(caught.exception.reply_text, f"ACCESS_REFUSED - access to {text} refused for user 'bob'")
            self.assertFalse(caught.exception.closes_connection)

    def test_everything(self) -> None:
        """What code in the broker's process has."""
        permissions = Permissions.everything()
        permissions.check_configure("queue", "q")
        permissions.check_write("exchange", "")
        permissions.check_read("queue", "\n")

    def test_changes(self) -> None:
        """A change is seen at once, cached verdict or not, and told by the version."""
        permissions = Permissions("u", "/")
        permissions.check_read("queue", "q")
        before = permissions.version
        permissions.set(".*", ".*", "^other$")
        self.assertGreater(permissions.version, before)
        with self.assertRaises(Fault):
            permissions.check_read("queue", "q")
        permissions.clear()
        self.assertFalse(any(permissions.allows(operation, "q") for operation in (CONFIGURE, WRITE, READ)))

    def test_no_pattern(self) -> None:
        """An operator's mistake is told, and changes nothing."""
        permissions = Permissions("u", "/")
        with self.assertRaises(ConfigurationError):
            permissions.set(".*", "(", ".*")
        permissions.check_write("queue", "q")

    def test_cache_is_bounded(self) -> None:
        """As many names as a client likes; the cost of a known one is a lookup."""
        permissions = Permissions("u", "/")
        for number in range(5000):
            permissions.allows(READ, str(number))
        self.assertLessEqual(len(permissions._verdicts), 1024)
        begin = time.process_time()
        for _ in range(10_000):
            permissions.allows(READ, "4999")
        self.assertLess(time.process_time() - begin, 2)
