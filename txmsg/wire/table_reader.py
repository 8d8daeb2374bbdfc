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
_STRING, _ARRAY, _TABLE, _INT32 = b"SAFI"
_SIZED: Final = frozenset(b"SxAF")


_unpack_size = struct.Struct(">I").unpack_from
_unpack_i32 = struct.Struct(">i").unpack_from


def _beyond(what: str, size: int, left: int) -> UnusableField:
    return UnusableField(f"{what} says {size} octets, {max(left, 0)} are left")


def read_table(data: bytes, at: int, end: int, depth: int, left: int) -> tuple[dict[str, Any], int]:
    """The entries from `at` to `end`, and how many entries are still allowed."""
    table: dict[str, Any] = {}
    return table, _read_fields(data, at, end, depth, left, table, None)


def _read_fields(
    data: bytes, at: int, end: int, depth: int, left: int, table: dict[str, Any] | None, array: list[Any] | None
) -> int:
    """Read into `table` (each value has a key) or into `array`; returns how many entries are still allowed.

    One loop for both, with the commonest kinds in it, because a call for each value would be a third of the time.
    """
    if depth <= 0:
        raise UnusableField(TOO_DEEP)
    key = ""
    value: Any
    while at < end:
        left -= 1
        if left < 0:
            raise UnusableField(TOO_MANY)
        if table is not None:
            first = at + 1
            at = first + data[at]
            if at >= end:  # not ">": the octet of the kind must follow
                raise _beyond("a key and its kind", at - first + 1, end - first)
            key = data[first:at].decode("utf-8", "surrogateescape")
        kind = data[at]
        first = at + 1
        try:
            if kind in _SIZED:
                first += 4
                if first > end:
                    raise _beyond(f"the length of a field of kind {chr(kind)}", 4, end - first + 4)
                at = first + _unpack_size(data, first - 4)[0]
                if at > end:
                    raise _beyond(f"a field of kind {chr(kind)}", at - first, end - first)
                if kind == _STRING:
                    value = data[first:at].decode("utf-8", "surrogateescape")
                elif kind == _TABLE:
                    value = {}
                    left = _read_fields(data, first, at, depth - 1, left, value, None)
                elif kind == _ARRAY:
                    value = []
                    left = _read_fields(data, first, at, depth - 1, left, None, value)
                else:
                    value = data[first:at]
            elif kind in _FIXED:
                size, read = _FIXED[kind]
                at = first + size
                if at > end:
                    raise _beyond(f"a field of kind {chr(kind)}", size, end - first)
                value = _unpack_i32(data, first)[0] if kind == _INT32 else read(data, first)
            else:
                raise UnusableField(f"unknown kind of field {show(chr(kind))} (octet {kind})", kind)
        except UnusableField as error:
            error.path.append(key if array is None else len(array))
            raise
        if array is not None:
            array.append(value)
        elif table is not None:
            table[key] = value
    return left
