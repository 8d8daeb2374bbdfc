"""The tests of txmsg.messaging.symbols and ids."""

from __future__ import annotations

import collections
import unittest
from typing import Any

from txmsg.errors import ConfigurationError
from txmsg.messaging import symbols
from txmsg.messaging.ids import uuid
from txmsg.messaging.symbols import symbol_by_name


class SymbolTests(unittest.TestCase):
    """Objects by name (kombu AC4)."""

    def test_both_forms(self) -> None:
        """With a colon, or a dot (kombu AC4)."""
        self.assertIs(symbol_by_name("collections:OrderedDict"), collections.OrderedDict)
        self.assertIs(symbol_by_name("collections.OrderedDict"), collections.OrderedDict)
        self.assertIs(symbol_by_name("collections/OrderedDict", sep="/"), collections.OrderedDict)
        self.assertIs(symbol_by_name("collections"), collections)

    def test_no_text(self) -> None:
        """Comes back as it is (kombu AC4)."""
        self.assertIs(symbol_by_name(dict), dict)
        self.assertIsNone(symbol_by_name(None))

    def test_aliases(self) -> None:
        """Short names for names, and for objects (kombu AC4)."""
        aliases = {"ordered": "collections:OrderedDict", "dict": dict}
        self.assertIs(symbol_by_name("ordered", aliases), collections.OrderedDict)
        self.assertIs(symbol_by_name("dict", aliases), dict)

    def test_package(self) -> None:
        """What it is relative to (kombu AC4)."""
        for name in (".symbols:symbol_by_name", ".symbols.symbol_by_name"):
            self.assertIs(symbol_by_name(name, package="txmsg.messaging"), symbol_by_name)
        for name in ("symbols", ":symbols", ".symbols"):
            self.assertIs(symbol_by_name(name, package="txmsg.messaging"), symbols)

    def test_imp(self) -> None:
        """Another way to import (kombu AC4)."""
        asked: list[Any] = []

        def load(module: str, package: str | None) -> Any:
            asked.append((module, package))
            return collections

        self.assertIs(symbol_by_name("anything:deque", imp=load, package="p"), collections.deque)
        self.assertEqual(asked, [("anything", "p")])

    def test_missing(self) -> None:
        """The error of Python, or the default, which may be None (kombu AC4)."""
        self.assertRaises(ImportError, symbol_by_name, "no_such_module_here:x")
        self.assertRaises(AttributeError, symbol_by_name, "collections:NoSuchThing")
        self.assertIsNone(symbol_by_name("no_such_module_here:x", default=None))
        self.assertEqual(symbol_by_name("collections:NoSuchThing", default=1), 1)
        for nothing in ("", ":"):
            self.assertRaises(ConfigurationError, symbol_by_name, nothing)


class IdTests(unittest.TestCase):
    """Ids (kombu AC9, O12)."""

    def test_uuid(self) -> None:
        """Text, of version 4, and never the same (kombu AC9, O12)."""
        found = {uuid() for _ in range(100)}
        self.assertEqual(len(found), 100)
        self.assertTrue(all(len(each) == 36 and each[14] == "4" for each in found))
