"""The entries of a field table to Python values.

The half of `txmsg.wire.tables` that decodes; see there for the kinds and the invariants.  Offsets only: nothing
is sliced before its length was compared with the end of what encloses it.  `depth` is how many levels may still
be opened, `left` how many entries may still be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from txmsg.wire.field_values import (
    Float32,
    Int8,
    Int16,
    Int64,
    Int64L,
    Timestamp,
    UInt8,
    UInt16,
    UInt32,
)
from txmsg.wire.primitives import show
from txmsg.wire.table_writer import TOO_DEEP, TOO_MANY, UnusableField

__all__ = ["read_table"]


def _read_float32(data: bytes, at: int) -> Float32:
    value: float = struct.unpack_from(">f", data, at)[0]
    if value != value:
        bits = int.from_bytes(data[at : at + 4], "big")
        bits = (bits & 0x80000000) << 32 | 0x7FF0000000000000 | (bits & 0x7FFFFF) << 29
        value = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return Float32(value)


def _read_decimal(data: bytes, at: int) -> Decimal:
    scale, unscaled = struct.unpack_from(">Bi", data, at)
    return Decimal(f"{unscaled}E-{scale}")  # the constructor is exact; arithmetic would round to the context


def _read_int64(data: bytes, at: int) -> int:
    value: int = struct.unpack_from(">q", data, at)[0]
    return Int64(value) if -0x80000000 <= value <= 0x7FFFFFFF else value


def _reader_of(layout: str, wrap: type[Any] | None = None) -> Callable[[bytes, int], Any]:
    unpack = struct.Struct(layout).unpack_from
    if wrap is None:
        return lambda data, at: unpack(data, at)[0]
    return lambda data, at: wrap(unpack(data, at)[0])


#: Kind -> (octets, how to read them), for the kinds of fixed size.
_FIXED: Final[dict[int, tuple[int, Callable[[bytes, int], Any]]]] = {
    ord("I"): (4, _reader_of(">i")),
    ord("l"): (8, _read_int64),
    ord("t"): (1, lambda data, at: data[at] != 0),
    ord("V"): (0, lambda data, at: None),
    ord("d"): (8, _reader_of(">d")),
    ord("T"): (8, _reader_of(">Q", Timestamp)),
    ord("b"): (1, _reader_of(">b", Int8)),
    ord("B"): (1, _reader_of(">B", UInt8)),
    ord("s"): (2, _reader_of(">h", Int16)),
    ord("U"): (2, _reader_of(">h", Int16)),
    ord("u"): (2, _reader_of(">H", UInt16)),
    ord("i"): (4, _reader_of(">I", UInt32)),
    ord("L"): (8, _reader_of(">q", Int64L)),
    ord("f"): (4, _read_float32),
    ord("D"): (5, _read_decimal),
}
#: The kinds that begin with their own length.
_STRING, _OCTETS, _ARRAY, _TABLE = b"SxAF"
_SIZED: Final = frozenset(b"SxAF")


def _beyond(what: str, size: int, left: int) -> str:
    return f"{what} says {size} octets, {max(left, 0)} are left"


def read_table(data: bytes, at: int, end: int, depth: int, left: int) -> tuple[dict[str, Any], int]:
    """The entries from `at` to `end`, and how many entries are still allowed."""
    if depth <= 0:
        raise UnusableField(TOO_DEEP)
    table: dict[str, Any] = {}
    while at < end:
        left -= 1
        if left < 0:
            raise UnusableField(TOO_MANY)
        first = at + 1
        at = first + data[first - 1]
        if at >= end:  # not ">": the octet of the kind must follow
            raise UnusableField(_beyond("a key and its kind", at - first + 1, end - first))
        key = data[first:at].decode("utf-8", "surrogateescape")
        try:
            table[key], at, left = _read_value(data, at, end, depth, left)
        except UnusableField as error:
            error.path.append(key)
            raise
    return table, left


def _read_array(data: bytes, at: int, end: int, depth: int, left: int) -> tuple[list[Any], int]:
    if depth <= 0:
        raise UnusableField(TOO_DEEP)
    array: list[Any] = []
    while at < end:
        left -= 1
        if left < 0:
            raise UnusableField(TOO_MANY)
        try:
            value, at, left = _read_value(data, at, end, depth, left)
        except UnusableField as error:
            error.path.append(len(array))
            raise
        array.append(value)
    return array, left


def _read_value(data: bytes, at: int, end: int, depth: int, left: int) -> tuple[Any, int, int]:
    """The value whose kind octet is at `at`, the offset after it, and how many entries are still allowed."""
    kind = data[at]
    at += 1
    fixed = _FIXED.get(kind)
    if fixed is not None:
        after = at + fixed[0]
        if after > end:
            raise UnusableField(_beyond(f"a field of kind {chr(kind)}", fixed[0], end - at))
        return fixed[1](data, at), after, left
    if kind not in _SIZED:
        raise UnusableField(f"unknown kind of field {show(chr(kind))} (octet {kind})", kind)
    first = at + 4
    after = first + int.from_bytes(data[at:first], "big")
    if after > end:
        raise UnusableField(_beyond(f"a field of kind {chr(kind)}", after - first, end - first))
    if kind == _STRING:
        return data[first:after].decode("utf-8", "surrogateescape"), after, left
    if kind == _OCTETS:
        return data[first:after], after, left
    value: dict[str, Any] | list[Any]
    if kind == _TABLE:
        value, left = read_table(data, first, after, depth - 1, left)
    else:
        value, left = _read_array(data, first, after, depth - 1, left)
    return value, after, left
