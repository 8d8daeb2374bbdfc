"""Python values to the entries of a field table: one function for each kind.

The half of `txmsg.wire.tables` that encodes; see there for the kinds and the invariants.  The functions append
to one bytearray, and the length of a nested table is filled in when its end is known, so nothing is copied
twice.  `depth` is how many levels may still be opened, `left` how many entries may still be written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from txmsg.errors import EncodeError, clip
from txmsg.wire.field_values import INT_KINDS, Float32, SizedInt
from txmsg.wire.primitives import MAX_SHORT_STRING, seconds_since_epoch, show, type_name

__all__ = ["TOO_DEEP", "TOO_MANY", "UnusableField", "write_table"]

TOO_DEEP: Final = "tables and arrays are nested deeper than the limit of levels"
TOO_MANY: Final = "more entries than the limit of entries"


class UnusableField(Exception):
    """Travels up to the outermost table and collects the keys on its way, innermost first."""

    def __init__(self, text: str, kind: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.kind = kind
        self.path: list[object] = []

    def say(self, where: str) -> str:
        """The text of the error, with the keys that lead to the value."""
        path = "".join(f"[{show(key)}]" for key in reversed(self.path))
        return f"{where}{clip(path)}: {self.text}"


_pack_size = struct.Struct(">I").pack_into
_pack_sized = struct.Struct(">BI").pack  # kind and length
_pack_i32 = struct.Struct(">Bi").pack
_pack_i64 = struct.Struct(">Bq").pack
_pack_f32 = struct.Struct(">Bf").pack
_pack_f64 = struct.Struct(">Bd").pack
_pack_u64 = struct.Struct(">BQ").pack
_pack_decimal = struct.Struct(">BBi").pack


def write_table(out: bytearray, table: Mapping[Any, Any], depth: int, left: int) -> int:
    """Append length and entries; `depth` levels and `left` entries are still allowed.  Returns what is left."""
    if depth <= 0:
        raise UnusableField(TOO_DEEP)
    mark = len(out)
    out += b"\x00\x00\x00\x00"
    for key, value in table.items():
        left -= 1
        if left < 0:
            raise UnusableField(TOO_MANY)
        if not isinstance(key, str):
            raise UnusableField(f"the key {show(key)} is not a str but {type_name(key)}")
        try:
            name = key.encode("utf-8", "surrogateescape")
            out.append(len(name))
        except ValueError:
            raise UnusableField(f"the key {show(key)} is not up to {MAX_SHORT_STRING} bytes of UTF-8") from None
        out += name
        try:
            left = (_WRITERS.get(type(value)) or _writer_for(value))(out, value, depth - 1, left)
        except UnusableField as error:
            error.path.append(key)
            raise
    _pack_size(out, mark, len(out) - mark - 4)
    return left


def _write_array(out: bytearray, array: list[Any] | tuple[Any, ...], depth: int, left: int) -> int:
    if depth <= 0:
        raise UnusableField(TOO_DEEP)
    mark = len(out)
    out += b"\x00\x00\x00\x00"
    for index, value in enumerate(array):
        left -= 1
        if left < 0:
            raise UnusableField(TOO_MANY)
        try:
            left = (_WRITERS.get(type(value)) or _writer_for(value))(out, value, depth - 1, left)
        except UnusableField as error:
            error.path.append(index)
            raise
    _pack_size(out, mark, len(out) - mark - 4)
    return left


# The writers of one value have one signature; only tables and arrays use up `depth` and `left`.


def _write_table_value(out: bytearray, value: Mapping[Any, Any], depth: int, left: int) -> int:
    out += b"F"
    return write_table(out, value, depth, left)


def _write_array_value(out: bytearray, value: list[Any] | tuple[Any, ...], depth: int, left: int) -> int:
    out += b"A"
    return _write_array(out, value, depth, left)


def _write_str(out: bytearray, value: str, depth: int, left: int) -> int:
    try:
        octets = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UnusableField("the string holds lone surrogates, which UTF-8 cannot carry") from None
    out += _pack_sized(_S, len(octets))
    out += octets
    return left


def _write_bytes(out: bytearray, value: bytes | bytearray | memoryview, depth: int, left: int) -> int:
    octets = bytes(value)
    out += _pack_sized(_X, len(octets))
    out += octets
    return left


def _write_bool(out: bytearray, value: bool, depth: int, left: int) -> int:
    out += b"t\x01" if value else b"t\x00"
    return left


def _write_none(out: bytearray, value: None, depth: int, left: int) -> int:
    out += b"V"
    return left


def _write_int(out: bytearray, value: int, depth: int, left: int) -> int:
    try:
        out += _pack_i32(_I, value) if -0x80000000 <= value <= 0x7FFFFFFF else _pack_i64(_L, value)
    except struct.error:
        raise UnusableField(f"{show(value)} does not fit a signed 64-bit integer") from None
    return left


def _write_sized_int(out: bytearray, value: SizedInt, depth: int, left: int) -> int:
    kind = next(base for base in type(value).__mro__ if base in INT_KINDS)
    try:
        out += struct.pack(value.FORMAT, INT_KINDS[kind], value)
    except struct.error:
        raise UnusableField(f"{show(value)} is out of range: {value.RANGE}") from None
    return left


def _write_float(out: bytearray, value: float, depth: int, left: int) -> int:
    out += _pack_f64(_D64, value)
    return left


def _write_float32(out: bytearray, value: Float32, depth: int, left: int) -> int:
    if value != value:  # NaN: keep its bits, which a conversion by the processor would change
        bits = struct.unpack(">Q", struct.pack(">d", value))[0]
        payload = bits >> 29 & 0x7FFFFF or 0x400000  # 0 would be infinity
        out += _pack_sized(_F32, bits >> 32 & 0x80000000 | 0x7F800000 | payload)
        return left
    try:
        out += _pack_f32(_F32, value)
    except OverflowError:
        raise UnusableField(f"{show(value)} is out of the range of a 32-bit float") from None
    return left


def _write_decimal(out: bytearray, value: Decimal, depth: int, left: int) -> int:
    sign, digits, exponent = value.as_tuple()
    # Ten digits are the most that 32 bits hold; beyond them nothing is computed.
    if not isinstance(exponent, int) or len(digits) > 10 or not -255 <= exponent <= 10:
        raise UnusableField(f"{show(value)} does not fit an AMQP decimal: 32 bits and 0 to 255 decimal places")
    unscaled = int("".join(map(str, digits))) * (-1 if sign else 1) * 10 ** max(exponent, 0)
    try:
        out += _pack_decimal(_DEC, max(-exponent, 0), unscaled)
    except struct.error:
        raise UnusableField(f"{show(value)} does not fit an AMQP decimal: its digits need more than 32 bits") from None
    return left


def _write_datetime(out: bytearray, value: datetime, depth: int, left: int) -> int:
    try:
        seconds = seconds_since_epoch(value, "")
    except EncodeError:
        raise UnusableField(f"{show(value)} is before 1970, which an AMQP timestamp cannot say") from None
    out += _pack_u64(_T, seconds)
    return left


_S, _X, _I, _L, _D64, _F32, _DEC, _T = b"SxIldfDT"

_Writer = Callable[[bytearray, Any, int, int], int]
_WRITERS: Final[dict[type, _Writer]] = {
    str: _write_str,
    int: _write_int,
    bool: _write_bool,
    dict: _write_table_value,
    list: _write_array_value,
    tuple: _write_array_value,
    float: _write_float,
    type(None): _write_none,
    bytes: _write_bytes,
    bytearray: _write_bytes,
    memoryview: _write_bytes,
    datetime: _write_datetime,
    Decimal: _write_decimal,
    Float32: _write_float32,
    **dict.fromkeys(INT_KINDS, _write_sized_int),
}


def _writer_for(value: object) -> _Writer:
    """For subclasses, enums among them, and Mappings: how the nearest base that AMQP knows is written."""
    for base in type(value).__mro__:
        if base in _WRITERS:
            return _WRITERS[base]
    if isinstance(value, Mapping):
        return _write_table_value
    raise UnusableField(f"AMQP has no kind of field for {type_name(value)}")
