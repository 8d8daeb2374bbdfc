"""The table of old and new: it cannot drift from the code, nor the pages from it."""

from __future__ import annotations

import inspect
import re
import unittest
from typing import Any

from scripts import migration_tables
from txmsg import amqp, errors
from txmsg.compat.txamqp import client, content, endpoint, factory, message, protocol, queue, spec
from txmsg.migrate.table import LIBRARIES, PIKA, TXAMQP

MODULES = (client, content, endpoint, factory, message, protocol, queue, spec)

#: What `channel.x(` and so on in a native form is called on.
OWNERS: dict[str, Any] = {
    "channel": amqp.Channel,
    "connection": amqp.AMQPProtocol,
    "consumer": amqp.Consumer,
    "delivery": amqp.Delivery,
    "ConnectionParameters": amqp.ConnectionParameters,
}

#: Names in native forms that are in neither of txmsg.amqp and txmsg.errors.
NOT_OURS = ("DeclareOk", "RabbitMQ", "TimeoutError")


class TableTests(unittest.TestCase):
    def test_pages(self) -> None:
        """docs/moving-from-*.md hold the table as it is."""
        for library in LIBRARIES:
            text = (migration_tables.ROOT / library.page).read_text(encoding="utf-8")
            self.assertEqual(migration_tables.with_table(text, library), text, "run scripts/migration_tables.py")

    def test_a_page_without_marks(self) -> None:
        self.assertRaises(ValueError, migration_tables.with_table, "# A page", PIKA)

    def test_no_row_twice(self) -> None:
        for library in LIBRARIES:
            keys = [(row.kind, row.old) for row in library.rows]
            self.assertEqual(len(keys), len(set(keys)))
            self.assertIn(("name", library.module), keys)

    def test_native_forms_exist(self) -> None:
        """Every method, class and error that a native form names."""
        for library in LIBRARIES:
            for row in library.rows:
                for owner, name in re.findall(r"\b(channel|connection|consumer|delivery)\.(\w+)\(", row.native):
                    self.assertTrue(hasattr(OWNERS[owner], name), row)
                for name in re.findall(r"\b([A-Z][a-z]+[A-Z]\w+|AMQP\w+)\b", row.native):
                    is_ours = hasattr(amqp, name) or hasattr(errors, name)
                    self.assertTrue(is_ours or name in NOT_OURS, (name, row))

    def test_keywords_of_native_forms(self) -> None:
        """`channel.queue_delete(name, if_unused=...)` takes what it is said to."""
        for library in LIBRARIES:
            for row in library.rows:
                for owner, name, given in re.findall(r"\b(channel|delivery)\.(\w+)\(([^)]*)\)", row.native):
                    parameters = inspect.signature(getattr(OWNERS[owner], name)).parameters
                    for keyword in re.findall(r"(\w+)=", given):
                        self.assertIn(keyword, parameters, row)

    def test_names_of_txamqp(self) -> None:
        """What the table says of txamqp's modules, the drop-in has."""
        for row in TXAMQP.rows:
            if row.kind == "name" and row.old != "txamqp":
                _, module, name = row.old.split(".")
                (ours,) = [each for each in MODULES if each.__name__.endswith(f".{module}")]
                self.assertTrue(hasattr(ours, name), row)
            elif row.kind == "method" and row.old not in ("authenticate", "queue"):
                self.assertTrue(hasattr(protocol.AMQChannel, row.old), row)

    def test_names_of_pika(self) -> None:
        """What the table says of pika's modules, pika has."""
        import pika

        from txmsg.compat import pika as ours

        for row in PIKA.rows:
            if row.kind == "name" and row.old.startswith(f"{PIKA.module}."):
                self.assertTrue(hasattr(ours, row.old.rpartition(".")[2]), row)
            elif row.kind == "name" and row.old != PIKA.module:
                found: Any = pika
                for part in row.old.split(".")[1:]:
                    found = getattr(found, part)
            elif row.kind == "method":
                self.assertTrue(hasattr(ours.TwistedChannel, row.old), row)
