"""Hypothesis strategies for everything that goes over the wire, derived from the declared methods.

Two families.  Values: :func:`methods`, :func:`properties`, :func:`tables` ... are what an application may give us
to encode.  Octets: :func:`method_payloads`, :func:`property_lists`, :func:`table_octets` ... are what a peer may
send; they are made without our encoder, so that both directions have an independent source.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from txmsg.wire.layout import Argument, Method
from txmsg.wire.methods import METHODS
from txmsg.wire.properties import BasicProperties
from txmsg.wire.tables import (
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

__all__ = [
    "ALL_METHODS",
    "field_octets",
    "field_values",
    "long_texts",
    "method_payloads",
    "methods",
    "mutated",
    "properties",
    "property_lists",
    "same_value",
    "short_texts",
    "table_octets",
    "tables",
    "unencodable",
]

ALL_METHODS: list[type[Method]] = sorted(METHODS.values(), key=lambda made: (made.CLASS_ID, made.METHOD_ID))


def _edges(low: int, high: int) -> st.SearchStrategy[int]:
    """Integers, the bounds often among them."""
    return st.sampled_from([low, high, 0]) | st.integers(low, high)


# -- values -----------------------------------------------------------------------------------------------


def _texts(max_bytes: int) -> st.SearchStrategy[str]:
    """Strings of up to `max_bytes` bytes: UTF-8, and such as came from octets that are not UTF-8."""
    readable = st.text(max_size=max_bytes // 4)
    lossless = st.binary(max_size=max_bytes).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
    return readable | lossless | st.just("x" * max_bytes)


def short_texts() -> st.SearchStrategy[str]:
    """What fits a short string; the longest one often."""
    return _texts(255)


def long_texts() -> st.SearchStrategy[str]:
    """What fits a long string, in sizes that are kind to the test."""
    return _texts(600)


def datetimes() -> st.SearchStrategy[datetime]:
    """Aware and naive moments that an AMQP timestamp can say, without a fraction of a second."""
    moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30))
    whole = moments.map(lambda moment: moment.replace(microsecond=0))
    return whole | whole.map(lambda moment: moment.replace(tzinfo=UTC))


def _decimals() -> st.SearchStrategy[Decimal]:
    unscaled = _edges(-(2**31), 2**31 - 1)
    return st.builds(lambda number, scale: Decimal(f"{number}E-{scale}"), unscaled, st.integers(0, 255))


def scalars() -> st.SearchStrategy[Any]:
    """Field values that decode to an equal value: all kinds but tables and arrays."""
    return st.one_of(
        st.none(),
        st.booleans(),
        _edges(-(2**31), 2**31 - 1),
        _edges(-(2**63), 2**63 - 1),
        st.floats(),
        long_texts(),
        st.binary(max_size=300),
        _decimals(),
        st.floats(width=32).map(Float32),
        _edges(-128, 127).map(Int8),
        _edges(0, 255).map(UInt8),
        _edges(-(2**15), 2**15 - 1).map(Int16),
        _edges(0, 2**16 - 1).map(UInt16),
        _edges(-(2**31), 2**31 - 1).map(Int32),
        _edges(0, 2**32 - 1).map(UInt32),
        _edges(-(2**63), 2**63 - 1).map(Int64),
        _edges(-(2**63), 2**63 - 1).map(Int64L),
        (st.sampled_from([0, 2**32, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)).map(Timestamp),
    )


def field_values() -> st.SearchStrategy[Any]:
    """Field values of all kinds, nested."""
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short_texts(), inner, max_size=4),
        max_leaves=12,
    )


def tables() -> st.SearchStrategy[dict[str, Any]]:
    """Field tables: headers, arguments, client properties."""
    return st.dictionaries(short_texts(), field_values(), max_size=5)


_ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "octet": _edges(0, 2**8 - 1),
    "short": _edges(0, 2**16 - 1),
    "long": _edges(0, 2**32 - 1),
    "longlong": _edges(0, 2**64 - 1),
    "bit": st.booleans(),
    "shortstr": short_texts(),
    "longstr": st.binary(max_size=600),
    "longtext": long_texts(),
    "table": tables(),
}


def arguments(argument: Argument) -> st.SearchStrategy[Any]:
    """Values for one declared argument."""
    return _ARGUMENTS[argument.kind]


def methods(*classes: type[Method]) -> st.SearchStrategy[Method]:
    """Methods of `classes`, by default of all, with any arguments that AMQP can carry."""
    return st.sampled_from(classes or ALL_METHODS).flatmap(
        lambda made: st.builds(made, **{argument.name: arguments(argument) for argument in made.ARGUMENTS})
    )


PROPERTY_KINDS: dict[str, str] = {
    "headers": "table",
    "delivery_mode": "octet",
    "priority": "octet",
    "timestamp": "longlong",
    **dict.fromkeys(set(BasicProperties.NAMES) - {"headers", "delivery_mode", "priority", "timestamp"}, "shortstr"),
}


def properties() -> st.SearchStrategy[BasicProperties]:
    """Message properties, any of them present."""
    return st.fixed_dictionaries({}, optional={name: _ARGUMENTS[kind] for name, kind in PROPERTY_KINDS.items()}).map(
        lambda values: BasicProperties(**values)
    )


def unencodable() -> st.SearchStrategy[Any]:
    """Things of many types, most of which no argument can carry."""
    nested: list[Any] = []
    nested.append(nested)
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=300),
        st.just("\ud800"),
        st.just("€" * 100),
        st.binary(max_size=300),
        st.decimals(),
        st.datetimes(),
        st.complex_numbers(),
        st.just(object()),
        st.just({"a": nested}),
        st.just({1: 2}),
        st.just({"k" * 256: 1}),
        st.just({"a": 2**63}),
        st.just({"a": {1, 2}}),
        st.lists(st.integers(), max_size=3),
    )


# -- octets -----------------------------------------------------------------------------------------------


def _sized(length: str, octets: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return octets.map(lambda value: struct.pack(length, len(value)) + value)


def _short(max_size: int = 255) -> st.SearchStrategy[bytes]:
    return _sized(">B", st.binary(max_size=max_size))


_FIXED_SIZES = {"b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4, "d": 8, "D": 5, "T": 8, "V": 0}


def _fixed(kind: str, size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).map(lambda value: kind.encode() + value)


def field_octets() -> st.SearchStrategy[bytes]:
    """Kind and value of a field, of every kind but U, booleans being 0 or 1: what encodes again to itself."""
    leaves = st.one_of(
        *(_fixed(kind, size) for kind, size in _FIXED_SIZES.items()),
        st.sampled_from([b"t\x00", b"t\x01"]),
        _sized(">I", st.binary(max_size=40)).map(lambda value: b"S" + value),
        _sized(">I", st.binary(max_size=40)).map(lambda value: b"x" + value),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            _sized(">I", st.lists(inner, max_size=4).map(b"".join)).map(lambda value: b"A" + value),
            table_octets(inner).map(lambda value: b"F" + value),
        ),
        max_leaves=10,
    )


def table_octets(values: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[bytes]:
    """A field table as octets, its length first; no key twice."""
    entries = st.tuples(_short(30), field_octets() if values is None else values)
    return _sized(
        ">I",
        st.lists(entries, max_size=4, unique_by=lambda entry: entry[0]).map(
            lambda chosen: b"".join(key + value for key, value in chosen)
        ),
    )


_ARGUMENT_OCTETS: dict[str, st.SearchStrategy[bytes]] = {
    "octet": st.binary(min_size=1, max_size=1),
    "short": st.binary(min_size=2, max_size=2),
    "long": st.binary(min_size=4, max_size=4),
    "longlong": st.binary(min_size=8, max_size=8),
    "shortstr": _short(),
    "longstr": _sized(">I", st.binary(max_size=300)),
    "longtext": _sized(">I", st.binary(max_size=300)),
    "table": table_octets(),
}


def method_payloads(*classes: type[Method]) -> st.SearchStrategy[bytes]:
    """Payloads of method frames of `classes`, by default of all; bits that are not declared are 0."""
    return st.sampled_from(classes or ALL_METHODS).flatmap(_payloads_of)


def _payloads_of(made: type[Method]) -> st.SearchStrategy[bytes]:
    parts: list[st.SearchStrategy[bytes]] = [st.just(struct.pack(">HH", made.CLASS_ID, made.METHOD_ID))]
    bits = 0
    for argument in made.ARGUMENTS:
        if argument.kind == "bit":
            bits += 1
            continue
        if bits:
            parts.append(st.integers(0, 2**bits - 1).map(lambda octet: bytes((octet,))))
            bits = 0
        parts.append(_ARGUMENT_OCTETS[argument.kind])
    if bits:
        parts.append(st.integers(0, 2**bits - 1).map(lambda octet: bytes((octet,))))
    return st.tuples(*parts).map(b"".join)


def property_lists() -> st.SearchStrategy[bytes]:
    """Property lists as octets: flags and values."""
    present = st.lists(st.integers(0, 13), unique=True).map(sorted)
    return present.flatmap(_property_list)


def _property_list(present: list[int]) -> st.SearchStrategy[bytes]:
    flags = struct.pack(">H", sum(0x8000 >> index for index in present))
    kinds = [PROPERTY_KINDS[BasicProperties.NAMES[index]] for index in present]
    return st.tuples(*(_ARGUMENT_OCTETS[kind] for kind in kinds)).map(lambda values: flags + b"".join(values))


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Octets of `source` with a few faults: cut, changed, inserted, repeated, lengths made huge."""
    octets = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(octets)))
        match draw(st.integers(0, 4)):
            case 0:
                del octets[at:]
            case 1:
                octets[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 2:
                octets[at:at] = draw(st.binary(max_size=8))
            case 3:
                octets[at : at + 4] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
                )
            case 4:
                octets[at:at] = octets[draw(st.integers(0, at)) : at]
    return bytes(octets)


def same_value(one: Any, other: Any) -> bool:
    """Equal, a NaN being the same as a NaN with the same bits, and 0.0 not the same as -0.0."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same_value(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, float):
        return type(one) is type(other) and struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int):
        return isinstance(other, int) and one == other
    return type(one) is type(other) and bool(one == other)
