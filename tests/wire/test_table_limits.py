"""Field tables: nesting, entries, and the memory that the worst of them take."""

from __future__ import annotations

import contextlib
import gc
import struct
import tracemalloc
from typing import Any

import pytest

from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire.tables import DEFAULT_TABLE_LIMITS, TableLimits, decode_table, encode_table


def sized(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def one(value: bytes) -> bytes:
    """The table {"k": value}, the value given as kind and octets."""
    return sized(b"\x01k" + value)


def decode(octets: bytes, limits: TableLimits = DEFAULT_TABLE_LIMITS) -> dict[str, Any]:
    return decode_table(octets, 0, len(octets), "table", limits)[0]


def nested(levels: int, kind: bytes) -> bytes:
    """A table that holds `levels` - 1 levels of tables or arrays."""
    inner = b""
    for _ in range(levels - 1):
        inner = (b"\x01kF" if kind == b"F" else b"A") + sized(inner)
    return sized(inner if kind == b"F" else b"\x01k" + inner)


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_nesting_is_limited_both_ways(kind: bytes) -> None:
    """0.3, R19, F40: 32 levels, and 18,000 fail in the same way, without the interpreter's stack."""
    table = decode(nested(32, kind))
    assert encode_table(table) == nested(32, kind)
    for levels in (33, 600, 18_000):
        with pytest.raises(RemoteProtocolError, match="nested deeper") as caught:
            decode(nested(levels, kind))
        assert caught.value.reply_code == 502
    with pytest.raises(EncodeError, match="nested deeper"):
        encode_table({"k": table})


def test_a_table_that_holds_itself_is_refused() -> None:
    """Z4: no endless loop in encoding."""
    table: dict[str, Any] = {}
    table["self"] = [table]
    with pytest.raises(EncodeError, match="nested deeper"):
        encode_table(table)


def test_entries_are_limited_over_all_levels_both_ways() -> None:
    """R19: 4096 entries and elements together, wherever they are."""
    table = {"a": [None] * 2000, "b": {str(n): None for n in range(2094)}}
    octets = encode_table(table)
    assert decode(octets) == table
    for more in ({**table, "c": 1}, {"a": [None] * 2001, "b": table["b"]}, {"b": table["b"], "a": [None] * 2001}):
        with pytest.raises(EncodeError, match="more entries"):
            encode_table(more)
        generous = encode_table(more, limits=TableLimits(max_items=4097))
        with pytest.raises(RemoteProtocolError, match="more entries"):
            decode(generous)
        assert decode(generous, TableLimits(max_items=4097)) == more


def test_limits_can_be_chosen() -> None:
    """4.4: a broker allows its clients less."""
    limits = TableLimits(max_depth=2, max_items=2)
    assert decode(encode_table({"a": [1]}, limits=limits), limits) == {"a": [1]}
    with pytest.raises(EncodeError, match="nested"):
        encode_table({"a": [[]]}, limits=limits)
    with pytest.raises(RemoteProtocolError, match="nested"):
        decode(encode_table({"a": [[]]}), limits)
    with pytest.raises(RemoteProtocolError, match="entries"):
        decode(encode_table({"a": [1, 2]}), limits)


_WORST = {
    "voids": one(b"A" + sized(b"V" * 4095)),
    "voids without end": one(b"A" + sized(b"V" * 130_000)),
    "empty tables": one(b"A" + sized(b"F\x00\x00\x00\x00" * 4095)),
    "empty arrays": one(b"A" + sized(b"A\x00\x00\x00\x00" * 4095)),
    "tables of one entry": one(b"A" + sized(b"F\x00\x00\x00\x03\x01kV" * 2047)),
    "keys": sized(b"".join(b"\x02" + struct.pack(">H", n) + b"V" for n in range(4096))),
    "the same key": sized(b"\x01kV" * 40_000),
    "keys of bad UTF-8": sized(b"".join(b"\xff" + struct.pack(">H", n) + b"\xff" * 253 + b"V" for n in range(500))),
    "8-bit numbers": one(b"A" + sized(b"b\x81" * 4095)),
    "decimals": one(b"A" + sized(b"D\xff\x7f\xff\xff\xff" * 4095)),
    "strings of one octet": one(b"A" + sized(b"S\x00\x00\x00\x01\xff" * 4095)),
    "a string of bad UTF-8": one(b"S" + sized(b"\xff" * 130_000)),
    "a string with one wide character": one(b"S" + sized(b"a" * 130_000 + "\U0001f600".encode())),
    "a length of 2**32-1": one(b"S\xff\xff\xff\xff" + b"x" * 130_000),
    "nested": nested(18_000, b"F"),
}


@pytest.mark.parametrize("name", _WORST)
def test_memory_is_bounded(name: str) -> None:
    """Z5, R19: at most 8 bytes for each octet and 160 for each of the 4096 entries: 1.7 MiB for a frame."""
    octets = _WORST[name]
    gc.collect()
    tracemalloc.start()
    try:
        kept: object = None
        with contextlib.suppress(RemoteProtocolError):
            kept = decode(octets)
        _, peak = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    assert peak <= 8 * len(octets) + 160 * 4096
