"""The tables, and how a connection to them is set up.

Five tables without relations that SQLite would have to keep, each with an integer key, so that whatever of them is
damaged the rest can still be read.  WAL with `synchronous=FULL`: a commit is one append to the log and one fsync
(https://www.sqlite.org/wal.html).

A batch is written by *one statement*: an INSERT of many rows into the temporary view `change`, whose triggers do the
work.  While a statement runs, Python's lock is free; between two statements it must be taken again, and a busy reactor
gives it back only after 5 ms (`sys.getswitchinterval`).  Row by row a commit of 30 messages takes 60 ms beside a busy
reactor; as one statement 6 ms.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from txmsg.broker.store.batch import (
    DEFINITION_DELETED,
    DEFINITION_PUT,
    MESSAGE_ADDED,
    MESSAGE_RETURNED,
    MESSAGES_REMOVED,
    QUEUE_EMPTIED,
)

__all__ = ["APPLICATION_ID", "COLUMNS", "PAGE_SIZE", "TABLES", "VERSION", "connect", "create", "set_up"]

#: "txmb": what tells our files from other databases.
APPLICATION_ID: Final = 0x74786D62
#: Raised by every change of the tables that an older txmsg could not work with.
VERSION: Final = 1
PAGE_SIZE: Final = 4096
#: Table -> its columns, all of them.  `id` is the key everywhere, and `checksum` is over all the others.
TABLES: Final = {
    "definition": "id, kind, record, checksum",
    "message": "id, queue, body, record, checksum",
    "body": "id, record, checksum",
    "returned": "id, delivery_count, checksum",
}
COLUMNS: Final = 6

# The order gives each table its first page, and `repair` relies on that: add behind, and raise VERSION.  The version is
# in the text so that a changed bit in its number is seen to be one.
_SCHEMA: Final = f"""
CREATE TABLE state /* of version {VERSION} */ (id INTEGER PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE definition (id INTEGER PRIMARY KEY, kind INTEGER, record BLOB, checksum INTEGER);
CREATE TABLE message (id INTEGER PRIMARY KEY, queue INTEGER, body INTEGER, record BLOB, checksum INTEGER);
CREATE TABLE body (id INTEGER PRIMARY KEY, record BLOB, checksum INTEGER);
CREATE TABLE returned (id INTEGER PRIMARY KEY, delivery_count INTEGER, checksum INTEGER);
CREATE TABLE damaged (id INTEGER PRIMARY KEY, found TEXT, origin TEXT, origin_id INTEGER, record BLOB);
CREATE INDEX message_body ON message (body) WHERE body IS NOT NULL;
CREATE TRIGGER last_message_of_body AFTER DELETE ON message WHEN OLD.body IS NOT NULL BEGIN
  DELETE FROM body WHERE id = OLD.body AND NOT EXISTS (SELECT 1 FROM message WHERE body = OLD.body);
END;
"""  # noqa: S608 -- numbers only

_CHANGE: Final = f"""
CREATE TEMP VIEW change AS SELECT 0 AS what, 0 AS id, 0 AS number, 0 AS body, 0 AS record, 0 AS checksum;
CREATE TEMP TRIGGER change_1 INSTEAD OF INSERT ON change WHEN NEW.what = {DEFINITION_PUT} BEGIN
  INSERT OR REPLACE INTO definition VALUES (NEW.id, NEW.number, NEW.record, NEW.checksum);
END;
CREATE TEMP TRIGGER change_2 INSTEAD OF INSERT ON change WHEN NEW.what = {DEFINITION_DELETED} BEGIN
  DELETE FROM definition WHERE id = NEW.id;
END;
CREATE TEMP TRIGGER change_3 INSTEAD OF INSERT ON change WHEN NEW.what = {MESSAGE_ADDED} BEGIN
  INSERT INTO message VALUES (NEW.id, NEW.number, NEW.body, NEW.record, NEW.checksum);
END;
CREATE TEMP TRIGGER change_4 INSTEAD OF INSERT ON change WHEN NEW.what = {MESSAGES_REMOVED} BEGIN
  DELETE FROM message WHERE id BETWEEN NEW.id AND NEW.number;
  DELETE FROM returned WHERE id BETWEEN NEW.id AND NEW.number;
END;
CREATE TEMP TRIGGER change_5 INSTEAD OF INSERT ON change WHEN NEW.what = {MESSAGE_RETURNED} BEGIN
  INSERT OR REPLACE INTO returned VALUES (NEW.id, NEW.number, NEW.checksum);
END;
CREATE TEMP TRIGGER change_6 INSTEAD OF INSERT ON change WHEN NEW.what = {QUEUE_EMPTIED} BEGIN
  DELETE FROM message WHERE queue = NEW.id;
  DELETE FROM returned WHERE id NOT IN (SELECT id FROM message);
END;
"""  # noqa: S608 -- numbers only


def connect(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """A connection in autocommit mode; nothing is read or written yet.

    Few statements are kept prepared: one of a thousand rows takes a megabyte, and the next has another length.
    """
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, cached_statements=16)


def set_up(connection: sqlite3.Connection) -> None:
    """What every connection that writes needs; sqlite3.DatabaseError where the file is not sound."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA wal_autocheckpoint=8000")
    connection.executescript(_CHANGE)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database, in one transaction: killed within it, the file is empty."""
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    marks = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION};"
    connection.executescript(f"BEGIN; {_SCHEMA} {marks} COMMIT;")
