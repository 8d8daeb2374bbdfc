"""The database as its thread sees it: opening, one transaction for a batch, reading it all back.

Everything here blocks and runs in one thread, the store's.  R35: :meth:`Database.write` returns only when SQLite has
synced the log; an exception means that nothing of the batch was written.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from txmsg.broker.message import Message
from txmsg.broker.store.batch import Batch, Change
from txmsg.broker.store.directory import DataDirectory
from txmsg.broker.store.errors import StoreDamaged, StoreTooNew
from txmsg.broker.store.records import (
    Contents,
    Definition,
    KeptMessage,
    MessageReader,
    body_checksum,
    definition_checksum,
    message_checksum,
    returned_checksum,
    unpack_definition,
)
from txmsg.broker.store.repair import repair
from txmsg.broker.store.report import Damage
from txmsg.broker.store.schema import APPLICATION_ID, COLUMNS, PAGE_SIZE, VERSION, connect, create, set_up
from txmsg.broker.store.write_ahead_log import LogInspection

__all__ = ["Database"]

#: Changes in one statement; SQLite takes 32,766 variables by default.
_STATEMENT_ROWS = 4000
#: Long bodies in one statement; SQLite copies one after the other.
_STATEMENT_BODIES = 200

_RUNNING, _STOPPED = "running", "stopped"


class Database:
    """The database in `directory`, opened by :meth:`open`.

    is_new: bool -- it was empty.   stopped_cleanly: bool -- whoever wrote it closed it.
    damage: list of Damage -- what was found so far.
    """

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory
        self.is_new = False
        self.stopped_cleanly = True
        self.damage: list[Damage] = []
        self._connection: sqlite3.Connection | None = None
        self._bad: list[tuple[str, int]] = []

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._connection is not None, "the database is not open"
        return self._connection

    # -- opening and closing

    def open(self) -> None:
        """Lock the directory, then open, check and where need be repair the database.

        :raises StoreError: if it cannot be used; then nothing is left open.
        """
        self.directory.open()
        try:
            self._open()
        except sqlite3.Error as error:
            self.abandon()
            raise self.unusable(error) from None
        except Exception:
            self.abandon()
            raise

    def _open(self) -> None:
        path = self.directory.database
        if self._is_unmade():
            self.is_new = True
            self._connection = connect(path)
            create(self._connection)
            set_up(self._connection)
        else:
            log = LogInspection.of(self.directory.write_ahead_log, PAGE_SIZE)
            try:
                self._connection = connect(path)
                self._check_version()
                set_up(self._connection)
                self.damage += log.damage(self._frames_in_log())
                problem = self._problem()
                self.connection.execute("BEGIN")
                self.connection.execute("UPDATE state SET value = value")  # SQLite may hold it for read-only
                self.connection.execute("ROLLBACK")
            except sqlite3.DatabaseError as error:
                problem = str(error)
            if problem:
                self._repair(problem)
        row = self.connection.execute("SELECT value FROM state WHERE id = 1").fetchone()
        self.stopped_cleanly = self.is_new or row == (_STOPPED,)
        self.directory.sync()

    def _is_unmade(self) -> bool:
        """Whether there is nothing yet: a new file, or what is left of a first start that was killed."""
        path = self.directory.database
        if self.directory.write_ahead_log.exists():
            return False
        if path.stat().st_size > PAGE_SIZE and not self.directory.rollback_journal.exists():
            return False
        connection = connect(path)
        try:
            # SQLite takes back first what was begun.
            if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
                return False
            names = ("application_id", "user_version", "auto_vacuum")
            marks = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        except sqlite3.DatabaseError:
            return False
        finally:
            connection.close()
        size = path.stat().st_size
        # What `create` sets before its transaction makes a page of its own.
        return not size or (size <= PAGE_SIZE and marks in ([0, 0, 2], [APPLICATION_ID, 0, 2]))

    def unusable(self, error: sqlite3.Error) -> StoreDamaged:
        """What a start fails with when SQLite does not go on."""
        return StoreDamaged(self._say(f"cannot be used: {error}"))

    def _say(self, what: str) -> str:
        return f"the broker's database {str(self.directory.database)!r} {what}"

    def _check_version(self) -> None:
        application = self.connection.execute("PRAGMA application_id").fetchone()[0]
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        with self.directory.database.open("rb") as file:
            in_file = file.read(64)[60:]
        if version > VERSION and in_file != version.to_bytes(4, "big"):
            # It comes out of the log, whose checksums are right; else `repair` tells a new one from a damaged one.
            raise StoreTooNew(self._say(f"has version {version}; this txmsg knows up to version {VERSION}"))
        if sum(octet != 0 for octet in (application ^ APPLICATION_ID).to_bytes(4, "big", signed=True)) > 1:
            raise StoreDamaged(self._say("belongs to another program"))
        if application != APPLICATION_ID or version != VERSION:
            raise sqlite3.DatabaseError(f"application id {application:#x}, version {version}")

    def _frames_in_log(self) -> int:
        return int(self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])

    def _problem(self) -> str:
        """What SQLite finds wrong with its pages, empty if nothing."""
        found = [row[0] for row in self.connection.execute("PRAGMA integrity_check(3)")]
        return "" if found == ["ok"] else "; ".join(str(text) for text in found)

    def _repair(self, problem: str) -> None:
        self._disconnect()
        self.damage.append(Damage(self._say(f"is damaged ({problem}); what could be read was copied to a new one")))
        self.damage += repair(self.directory)
        self._connection = connect(self.directory.database)
        set_up(self._connection)
        if problem := self._problem():
            raise sqlite3.DatabaseError(problem)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        """Close without a word in the database: the next start takes it for one that was not stopped."""
        try:
            self._disconnect()
        finally:
            self.directory.close()

    def mark_running(self, unusable: list[tuple[str, int]]) -> None:
        """From now on, a database without a clean stop.

        What could not be read is moved to the table `damaged` first, and with it the rows `unusable`: (table, row).
        """
        connection = self.connection
        self._bad += unusable
        connection.execute("BEGIN")
        for table, row in self._bad:
            record = "checksum" if table == "returned" else "record"
            connection.execute(
                f"INSERT INTO damaged (found, origin, origin_id, record) "  # noqa: S608 -- our own names
                f"SELECT datetime('now'), ?, id, {record} FROM {table} WHERE id = ?",
                (table, row),
            )
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (row,))  # noqa: S608
        connection.execute("DELETE FROM body WHERE id NOT IN (SELECT body FROM message WHERE body IS NOT NULL)")
        connection.execute("DELETE FROM returned WHERE id NOT IN (SELECT id FROM message)")
        connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (_RUNNING,))
        connection.execute("COMMIT")
        self._bad.clear()

    def close(self) -> None:
        """A clean stop: said in the database, which is one file afterwards."""
        try:
            self.connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (_STOPPED,))
            for _ in self.connection.execute("PRAGMA incremental_vacuum"):
                pass
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self.abandon()

    # -- writing

    def write(self, batch: Batch, wall_offset: float) -> None:
        """Write `batch` in one transaction, and return when it is safe; sqlite3.Error: nothing was written."""
        connection = self.connection
        changes = batch.changes(wall_offset)
        first = list(islice(changes, _STATEMENT_ROWS))
        rest = list(islice(changes, 1))
        if not batch.bodies and not rest:
            if first:
                self._write_changes(first)
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            bodies = iter(batch.bodies.items())
            while next_bodies := list(islice(bodies, _STATEMENT_BODIES)):
                self._write_bodies(next_bodies)
            self._write_changes(first)
            changes = chain(rest, changes)
            while some := list(islice(changes, _STATEMENT_ROWS)):
                self._write_changes(some)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _write_bodies(self, bodies: list[tuple[Message, list[int]]]) -> None:
        rows = ",".join(["(?,?,?)"] * len(bodies))
        columns = [
            column for message, (row, _) in bodies for column in (row, message.body, body_checksum(row, message.body))
        ]
        self.connection.execute(f"INSERT INTO body VALUES {rows}", columns)  # noqa: S608 -- question marks only

    def _write_changes(self, changes: list[Change]) -> None:
        rows = ",".join([f"({','.join('?' * COLUMNS)})"] * len(changes))
        columns = [column for change in changes for column in change]
        self.connection.execute(f"INSERT INTO change VALUES {rows}", columns)  # noqa: S608 -- question marks only

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy everything committed to a new database at `path`, mode 0600; OSError if the file is there."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            target = connect(path)
            try:
                self.connection.backup(target)
            finally:
                target.close()
        except BaseException:
            os.unlink(path)  # what is there looks like a backup, and is none
            raise

    # -- reading

    def _set_aside(self, table: str, row: int, what: str, messages: int = 0) -> None:
        self._bad.append((table, row))
        self.damage.append(Damage(self._say(f"holds {what} (row {row} of {table}) that is damaged"), messages))

    def read(self) -> Contents:
        """All that is there; what is damaged is left out, and set aside by :meth:`mark_running`."""
        definitions = list(self._definitions())
        bodies: dict[int, bytes | None] = {}
        messages = list(self._messages(self._returned(), bodies))
        last = max((definition.row for definition in definitions), default=0)
        last = max(last, max((row for row, body in bodies.items() if body is not None), default=0))
        return Contents(definitions, messages, max(last, messages[-1].row if messages else 0))

    def _definitions(self) -> Iterator[Definition]:
        rows = self.connection.execute("SELECT id, kind, record, checksum FROM definition ORDER BY kind, id")
        for row, kind, record, checksum in rows:
            table = None
            if _is_sound(kind, record, checksum) and definition_checksum(row, kind, record) == checksum:
                table = unpack_definition(record)
            if table is None:
                self._set_aside("definition", row, "a definition")
            else:
                yield Definition(row, kind, table)

    def _returned(self) -> dict[int, int]:
        returned: dict[int, int] = {}
        for row, count, checksum in self.connection.execute("SELECT id, delivery_count, checksum FROM returned"):
            if type(count) is int and returned_checksum(row, count) == checksum:
                returned[row] = count
            else:  # it has come back: how often is not known any more
                returned[row] = 1
                self._set_aside("returned", row, "a count of deliveries")
        return returned

    def _messages(self, returned: dict[int, int], bodies: dict[int, bytes | None]) -> Iterator[KeptMessage]:
        """The messages by row; `bodies` holds the long ones, each once for all that share it."""
        reader = MessageReader()
        rows = self.connection.execute("SELECT id, queue, body, record, checksum FROM message ORDER BY id")
        for row, queue, body_row, record, checksum in rows:
            number = body_row or 0
            read = body = None
            if (
                _is_sound(queue, record, checksum)
                and type(number) is int
                and message_checksum(row, queue, number, record) == checksum
            ):
                if number:
                    if number not in bodies:
                        bodies[number] = self._body(number)
                    body = bodies[number]
                if body is not None or not number:
                    read = reader.read(record, body)
            if read is None:
                self._set_aside("message", row, "a message", 1)
            else:
                yield KeptMessage(row, queue, *read, returned.get(row, 0))

    def _body(self, row: int) -> bytes | None:
        found = self.connection.execute("SELECT record, checksum FROM body WHERE id = ?", (row,)).fetchone()
        if found is None:
            return None
        record, checksum = found
        return record if type(record) is bytes and body_checksum(row, record) == checksum else None


def _is_sound(number: Any, record: Any, checksum: Any) -> bool:
    """Whether the columns have the types they are written with; SQLite would keep any."""
    return type(number) is int and type(record) is bytes and type(checksum) is int
