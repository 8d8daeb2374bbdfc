"""Getting what can be read out of a database whose pages are damaged.

The first page holds the schema and never changes but for a few counters, so it can be made again.  What the other
pages hold is copied, row by row and around whatever SQLite cannot read, into a new database; a row whose checksum is
wrong is dropped there already.  The damaged file is kept beside it.

Invariant: at any moment there is a complete file under the database's name, the old one or the new one.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from time import strftime
from typing import Any

from txmsg.broker.store.directory import DataDirectory
from txmsg.broker.store.errors import StoreTooNew
from txmsg.broker.store.records import (
    body_checksum,
    definition_checksum,
    message_checksum,
    returned_checksum,
)
from txmsg.broker.store.report import Damage
from txmsg.broker.store.schema import PAGE_SIZE, TABLES, VERSION, connect, create

__all__ = ["readable_rows", "repair"]

#: Octets of the first page that change: counter, size and free list; the numbers of the version that wrote last.
_COUNTERS = ((24, 40), (92, 100))
_SIZE = slice(28, 32)
_VERSION = slice(60, 64)
#: Reading and writing version 2 mean WAL.
_FORMAT = slice(18, 20)
_WAL = b"\x02\x02"
_LARGEST = 1 << 62
#: Places that cannot be read, after which a table is given up; a page has at most some hundred rows.
_MAX_SPOTS = 100_000


def repair(directory: DataDirectory) -> list[Damage]:
    """Replace the database in `directory` by what can be read of it; blocks.

    :return: what was lost, as far as can be told.
    :raises sqlite3.DatabaseError: if nothing can be read at all.
    """
    damage = _restore_first_page(directory.database)
    new = directory.path / f"{directory.database.name}-repaired"
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    old = connect(directory.database)
    target = connect(new)
    try:
        old.execute("PRAGMA cell_size_check=ON")
        # Pages come out of the log whatever is in them; from here on one file has it all.
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        create(target)
        target.execute("BEGIN")
        for table in TABLES:
            damage += _copy(old, target, table)
        target.execute("COMMIT")
    finally:
        target.close()
        old.close()
    _sync(new)
    aside = directory.path / f"{directory.database.name}-damaged-{strftime('%Y%m%dT%H%M%S')}"
    aside.unlink(missing_ok=True)
    os.link(directory.database, aside)
    os.replace(new, directory.database)
    directory.sync()
    return damage


def _restore_first_page(path: Path) -> list[Damage]:
    """Put right what of the first page is not as every database of this version has it."""
    wanted = bytearray(_first_page(path.with_name(f"{path.name}-template")))
    with path.open("r+b") as file:
        found = file.read(PAGE_SIZE)
        size = os.fstat(file.fileno()).st_size
        wanted[_FORMAT] = _WAL
        for start, end in _COUNTERS:
            wanted[start:end] = found[start:end].ljust(end - start, b"\0")
        if _is_newer(found, wanted):
            raise StoreTooNew(f"the broker's database {str(path)!r} was written by a later version of txmsg")
        pages = size // PAGE_SIZE
        if wanted == found and pages == int.from_bytes(found[_SIZE], "big"):
            return []
        wanted[_SIZE] = pages.to_bytes(4, "big")
        wanted[32:40] = bytes(8)  # no free list: its pages are only lost until the copy
        wanted[92:96] = wanted[24:28]
        # The log may hold a newer first page, which is then the one that counts.
        file.seek(0)
        file.write(wanted)
        file.flush()
        os.fsync(file.fileno())
    return [Damage("the first page of the database was damaged and has been restored")]


def _is_newer(found: bytes, wanted: bytearray) -> bool:
    """Whether a later txmsg wrote it: a higher version, and not by a changed bit alone."""
    if int.from_bytes(found[_VERSION], "big") <= VERSION:
        return False
    same = bytearray(wanted)
    same[_VERSION] = found[_VERSION]
    return same != found


def _first_page(template: Path) -> bytes:
    template.unlink(missing_ok=True)
    connection = connect(template)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        create(connection)
    finally:
        connection.close()
    page = template.read_bytes()[:PAGE_SIZE]
    template.unlink()
    return page


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _is_sound(table: str, row: tuple[Any, ...]) -> bool:
    """Whether the checksum, the last column, is that of the others."""
    *values, checksum = row
    try:
        match table:
            case "definition":
                wanted = definition_checksum(*values)
            case "message":
                number, queue, body, record = values
                wanted = message_checksum(number, queue, body or 0, record)
            case "body":
                wanted = body_checksum(*values)
            case _:
                wanted = returned_checksum(*values)
    except (TypeError, struct.error):  # a column of another type, for SQLite keeps any
        return False
    return bool(wanted == checksum)


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> list[Damage]:
    columns = TABLES[table]
    marks = ",".join("?" * len(columns.split(",")))
    lost = 0
    seen = 0
    for row in readable_rows(old, table):
        if row is None or not _is_sound(table, row):
            lost += 1
        elif row[0] > seen:  # a damaged page may lead back to rows that were there already
            seen = row[0]
            new.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608 -- our own names
    return [Damage(f"{lost} places of the table {table} could not be read")] if lost else []


def readable_rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...] | None]:
    """The rows of `table` that SQLite can read, ascending; None for each place where it cannot."""
    select = f"SELECT {TABLES[table]} FROM {table} WHERE id > ? ORDER BY id"  # noqa: S608 -- our own names
    last = 0
    for _ in range(_MAX_SPOTS):
        try:
            for row in connection.execute(select, (last,)):
                if _is_sound(table, row) and row[0] > last:
                    last = row[0]
                yield row
        except sqlite3.DatabaseError:
            yield None
            beyond = _next_readable(connection, table, last)
            if beyond is None:
                return
            last = beyond
        else:
            return


def _next_readable(connection: sqlite3.Connection, table: str, last: int) -> int | None:
    """The number of a row to go on behind, or None at the end: the one that cannot be read lies behind `last`."""
    select = f"SELECT id FROM {table} WHERE id >= ? ORDER BY id LIMIT 1"  # noqa: S608 -- our own names

    def is_readable(number: int) -> bool:
        try:
            connection.execute(select, (number,)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return True

    if is_readable(last + 1):  # its key can be read, so it is the row's content
        found = connection.execute(select, (last + 1,)).fetchone()
        return None if found is None or found[0] <= last else int(found[0])
    step = 1
    while not is_readable(last + step):
        step *= 2
        if last + step > _LARGEST:
            return None
    low, high = last + step // 2, last + step
    while high - low > 1:
        middle = (low + high) // 2
        if is_readable(middle):
            high = middle
        else:
            low = middle
    return high - 1
