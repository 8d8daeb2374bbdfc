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
from txmsg.broker.store.errors import StoreDamaged, StoreTooNew
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
_APPLICATION = slice(68, 72)
#: Reading and writing version 2 mean WAL.
_FORMAT = slice(18, 20)
_WAL = b"\x02\x02"
_LARGEST = 1 << 62
#: Places that cannot be read, after which a table is given up; a page has at most some hundred rows.
_MAX_SPOTS = 100_000


def repair(directory: DataDirectory) -> list[Damage]:
    """Replace the database in `directory` by what can be read of it; blocks.

    :return: what was lost, as far as can be told.
    :raises StoreDamaged: if nothing can be read at all; the file is then as it was.
    """
    page, damage = _restore_first_page(directory.database)
    if not _has_rows(directory.database):
        _write_first_page(directory.database, page)
        raise StoreDamaged(f"{str(directory.database)!r} is not a database of the broker, or nothing of it is left")
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


def _restore_first_page(path: Path) -> tuple[bytes, list[Damage]]:
    """Put right what of the first page is not as every database of this version has it; returns what it was."""
    wanted = bytearray(_first_page(path.with_name(f"{path.name}-template")))
    with path.open("rb") as file:
        found = file.read(PAGE_SIZE)
        size = os.fstat(file.fileno()).st_size
    wanted[_FORMAT] = _WAL
    for start, end in _COUNTERS:
        wanted[start:end] = found[start:end].ljust(end - start, b"\0")
    if _is_newer(found, wanted):
        raise StoreTooNew(f"the broker's database {str(path)!r} was written by a later version of txmsg")
    pages = size // PAGE_SIZE
    if wanted == found and pages == int.from_bytes(found[_SIZE], "big"):
        return found, []
    wanted[_SIZE] = pages.to_bytes(4, "big")
    wanted[32:40] = bytes(8)  # no free list: its pages are only lost until the copy
    wanted[92:96] = wanted[24:28]
    # The log may hold a newer first page, which is then the one that counts.
    _write_first_page(path, wanted)
    return found, [Damage("the first page of the database was damaged and has been restored")]


def _write_first_page(path: Path, page: bytes | bytearray) -> None:
    with path.open("r+b") as file:
        file.write(page)
        file.flush()
        os.fsync(file.fileno())


def _has_rows(path: Path) -> bool:
    """Whether any row of ours can be read; nothing is written, to the log neither."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        for table in TABLES:
            for row in readable_rows(connection, table):
                if row is not None and _is_sound(table, row):
                    return True
    finally:
        connection.close()
    return False


def _is_newer(found: bytes, wanted: bytearray) -> bool:
    """Whether a later txmsg wrote it: a higher version, and not by a changed bit alone."""
    if found[_APPLICATION] != wanted[_APPLICATION] or int.from_bytes(found[_VERSION], "big") <= VERSION:
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
    select = f"SELECT {TABLES[table]} FROM {table} WHERE id >= ? ORDER BY id"  # noqa: S608 -- our own names
    start = 1
    for _ in range(_MAX_SPOTS):
        try:
            for row in connection.execute(select, (start,)):
                if row[0] >= start and _is_sound(table, row):
                    start = row[0] + 1
                yield row
        except sqlite3.DatabaseError:
            pass
        else:
            return
        # The module sqlite3 reads a row ahead, and drops the row before the error with it.
        try:
            row = connection.execute(f"{select} LIMIT 1", (start,)).fetchone()
        except sqlite3.DatabaseError:
            yield None
        else:
            if row is None or row[0] < start:
                return
            start = row[0] + 1
            yield row
            continue
        beyond = _next_readable(connection, table, start)
        if beyond is None:
            return
        start = beyond


def _next_readable(connection: sqlite3.Connection, table: str, start: int) -> int | None:
    """The number to go on with, or None at the end: a row that cannot be read is the first one from `start`."""
    select = f"SELECT id FROM {table} WHERE id >= ? ORDER BY id LIMIT 1"  # noqa: S608 -- our own names

    def first_from(number: int) -> int | None:
        """The key of the first row from `number`; 0 if there is none, None if it cannot be read."""
        try:
            row = connection.execute(select, (number,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        return 0 if row is None else int(row[0])

    found = first_from(start)
    if found is not None:  # its key can be read, so it is the row's content that cannot
        return found + 1 if found >= start else None
    step = 1
    while first_from(start + step) is None:
        step *= 2
        if start + step > _LARGEST:
            return None
    low, high = start + step // 2, start + step
    while high - low > 1:
        middle = (low + high) // 2
        if first_from(middle) is None:
            low = middle
        else:
            high = middle
    return high
