"""Field tables: `headers`, `arguments`, client and server properties.

AMQP 0-9-1 section 4.2.5.5, with the kinds that RabbitMQ uses instead of the specification's
(https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3):

====  =====================  ===============================  =====================================
kind  on the wire            decoded as                       encoded from
====  =====================  ===============================  =====================================
t     boolean octet          bool                             bool
b B   8 bits, signed, not    :class:`Int8` :class:`UInt8`     the same
s u   16 bits, signed, not   :class:`Int16` :class:`UInt16`   the same
I     32 bits, signed        int                              int that fits, :class:`Int32`
i     32 bits, unsigned      :class:`UInt32`                  the same
l     64 bits, signed        int, or :class:`Int64` where     int beyond 32 bits, :class:`Int64`
                             an int would be sent as I
L     64 bits, signed        :class:`Int64L`                  the same
f d   32 and 64 bit floats   :class:`Float32`, float          the same
D     scale octet, 32 bits   Decimal                          Decimal that fits exactly
T     64 bits, unsigned      :class:`Timestamp`               the same, datetime (naive means UTC)
S     long string            str, lossless                    str
x     octets                 bytes                            bytes, bytearray, memoryview
A F   array, table           list, dict                       list, tuple; dict, other Mapping
V     nothing                None                             None
====  =====================  ===============================  =====================================

The specification's U (16 bits, signed) is read as RabbitMQ's `s`.  The number classes are ints and floats in
every respect; they only remember how they are sent, so that a table that is passed on stays what it was.

Invariants.  ``decode(encode(t)) == t``.  ``encode(decode(b)) == b`` but for: duplicate keys (the last one wins),
a boolean octet other than 0 and 1, and U.  Decoding takes at most :class:`TableLimits` from a peer, looks at no
octet beyond the table, and allocates nothing for a length that it has not compared with what encloses it.

RabbitMQ has no NaN and no infinity: it closes the connection that sends it one in a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire.constants import SYNTAX_ERROR
from txmsg.wire.field_values import (
    Float32,
    Int8,
    Int16,
    Int32,
    Int64,
    Int64L,
    Timestamp,
    UInt8,
    UInt16,
    UInt32,
)
from txmsg.wire.primitives import type_name
from txmsg.wire.table_reader import read_table
from txmsg.wire.table_writer import UnusableField, write_table

__all__ = [
    "DEFAULT_TABLE_LIMITS",
    "Float32",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Int64L",
    "TableLimits",
    "Timestamp",
    "UInt8",
    "UInt16",
    "UInt32",
    "UnknownFieldKind",
    "decode_table",
    "encode_table",
]


@dataclass(frozen=True, slots=True)
class TableLimits:
    """What one table may cost, both ways.

    max_depth: int -- levels of tables and arrays, the outermost table being the first; default 32.  RabbitMQ
        itself passes on thousands of levels, which would exhaust the stack of whoever decodes them.
    max_items: int -- entries and elements on all levels together; default 4096.
    """

    max_depth: int = 32
    max_items: int = 4096


#: The limits where none are given.
DEFAULT_TABLE_LIMITS: Final = TableLimits()


class UnknownFieldKind(RemoteProtocolError):
    """A table holds a value of a kind that AMQP and RabbitMQ do not have, so what follows cannot be read.

    `kind` is the octet.  In a method it costs the connection; in message properties only that message.
    """

    kind: int = 0


def encode_table(table: Mapping[str, Any], where: str = "table", limits: TableLimits = DEFAULT_TABLE_LIMITS) -> bytes:
    """`table` as its four-octet length and its entries.

    :class:`EncodeError` naming `where` and the keys that lead to the value: a key that is not a str or has more
    than 255 bytes, a type or number that AMQP has no kind for, too many levels or entries.
    """
    out = bytearray()
    try:
        if type(table) is not dict and not isinstance(table, Mapping):
            raise UnusableField(f"expected a dict, got {type_name(table)}")
        write_table(out, table, limits.max_depth, limits.max_items)
    except UnusableField as error:
        problem = error.say(where)
    else:
        return bytes(out)
    raise EncodeError(problem)  # outside the block: no chain of exceptions that hold values


def decode_table(
    data: bytes, start: int, end: int, where: str = "table", limits: TableLimits = DEFAULT_TABLE_LIMITS
) -> tuple[dict[str, Any], int]:
    """The table whose length octets begin at `start`, and the offset after it, at most `end`.

    :class:`RemoteProtocolError` with code 502, naming `where` and the keys that lead to the fault, for whatever
    is not a table within `limits`; :class:`UnknownFieldKind` where only the kind of a value is not known.
    """
    first = start + 4
    after = first + int.from_bytes(data[start:first], "big")
    if after == first and after <= end:
        return {}, after
    kind = None
    try:
        if after > end:
            raise UnusableField(f"the table says {after - first} octets, {max(end - first, 0)} are left")
        return read_table(data, first, after, limits.max_depth, limits.max_items)[0], after
    except UnusableField as error:
        problem = error.say(where)
        kind = error.kind
    if kind is None:
        raise RemoteProtocolError(problem, SYNTAX_ERROR)
    unknown = UnknownFieldKind(problem, SYNTAX_ERROR)
    unknown.kind = kind
    raise unknown
