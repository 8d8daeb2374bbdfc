"""Field tables: every kind both ways, hostile octets, and what cannot be encoded."""

from __future__ import annotations

import copy
import enum
import math
import pickle
import struct
from collections import OrderedDict, UserDict, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import datetimes, mutated, same_value, table_octets, tables, unencodable
from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire.tables import (
    Float32,
    Int8,
    Int16,
    Int64,
    Int64L,
    Timestamp,
    UInt8,
    UInt16,
    UInt32,
    UnknownFieldKind,
    decode_table,
    encode_table,
)


def sized(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def one(value: bytes) -> bytes:
    """The table {"k": value}, the value given as kind and octets."""
    return sized(b"\x01k" + value)


def decode(octets: bytes) -> dict[str, Any]:
    table, after = decode_table(octets, 0, len(octets))
    assert after == len(octets)
    return table


#: (kind and octets, decoded value, whether it encodes to the same octets)
KINDS: list[tuple[bytes, Any, bool]] = [
    (b"t\x01", True, True),
    (b"t\x00", False, True),
    (b"t\x02", True, False),
    (b"b\x80", Int8(-128), True),
    (b"B\xff", UInt8(255), True),
    (b"s\x80\x00", Int16(-32768), True),
    (b"U\x80\x00", Int16(-32768), False),
    (b"u\xff\xff", UInt16(65535), True),
    (b"I\x80\x00\x00\x00", -(2**31), True),
    (b"i\xff\xff\xff\xff", UInt32(2**32 - 1), True),
    (b"l\x80" + b"\x00" * 7, -(2**63), True),
    (b"l" + b"\xff" * 8, Int64(-1), True),
    (b"L" + b"\xff" * 8, Int64L(-1), True),
    (b"f\x3f\x80\x00\x00", Float32(1.0), True),
    (b"d\x80" + b"\x00" * 7, -0.0, True),
    (b"D\x02\xff\xff\xff\x85", Decimal("-1.23"), True),
    (b"D\xff\x7f\xff\xff\xff", Decimal("2147483647E-255"), True),
    (b"T" + b"\xff" * 8, Timestamp(2**64 - 1), True),
    (b"S\x00\x00\x00\x03a\xffb", "a\udcffb", True),
    (b"x\x00\x00\x00\x02\x00\xff", b"\x00\xff", True),
    (b"A\x00\x00\x00\x03Vt\x01", [None, True], True),
    (b"F\x00\x00\x00\x03\x01aV", {"a": None}, True),
    (b"V", None, True),
]


@pytest.mark.parametrize(("octets", "value", "again"), KINDS, ids=lambda part: repr(part)[:30])
def test_every_kind(octets: bytes, value: Any, again: bool) -> None:
    """Q-18, Z2: each kind with RabbitMQ's signs: s is signed, l and L are signed, u, i and B are not."""
    decoded = decode(one(octets))["k"]
    assert same_value(decoded, value)
    assert type(decoded) is type(value)
    assert (encode_table({"k": decoded}) == one(octets)) is again
    assert encode_table({"k": [decoded]}) == one(b"A" + sized(octets)) or not again


@given(tables())
def test_tables_come_back(table: dict[str, Any]) -> None:
    """Z1, Q-19: decode(encode(t)) == t; all bounds, NaN bits, -0.0, octets that are not UTF-8."""
    octets = encode_table(table)
    assert same_value(decode(octets), table)


@given(table_octets())
def test_octets_come_back(octets: bytes) -> None:
    """Z2: encode(decode(b)) == b, for all kinds, in any order, all bit patterns of floats included."""
    assert encode_table(decode(octets)) == octets


@given(st.binary(max_size=80) | mutated(table_octets()))
def test_any_octets_give_a_table_or_one_error(octets: bytes) -> None:
    """Z4: never another exception; what is accepted stays what it is when it is sent on."""
    try:
        table, after = decode_table(octets, 0, len(octets))
    except RemoteProtocolError as error:
        assert error.reply_code == 502
        assert str(error).startswith("table")
    else:
        assert after == 4 + int.from_bytes(octets[:4], "big") <= len(octets)
        assert same_value(decode(encode_table(table)), table)


@given(st.dictionaries(st.text(max_size=3), unencodable(), max_size=3) | unencodable())
def test_any_value_gives_octets_or_one_error(table: Any) -> None:
    """Z4, Q-21: an application's mistake is an EncodeError that says where, and nothing else."""
    try:
        octets = encode_table(table, "headers")
    except EncodeError as error:
        assert str(error).startswith("headers")
        assert error.__context__ is None
    else:
        decode(octets)


# -- encoding ---------------------------------------------------------------------------------------------


def test_python_types_choose_the_kinds_rabbitmq_reads() -> None:
    """Q-18, Q-24: bool is not an integer; an int is I while it fits, then l; bytes are x; str is S."""
    table = {
        "t": True,
        "I": 2**31 - 1,
        "l": 2**31,
        "d": 1.5,
        "D": Decimal("1.5"),
        "S": "ä",
        "x": b"x",
        "T": datetime(2026, 1, 1, tzinfo=UTC),
        "A": (1, 2),
        "F": {"a": 1},
        "V": None,
    }
    octets = encode_table(table)
    at, kinds = 4, []
    for key in table:
        kinds.append(chr(octets[at + 2]))
        at += len(encode_table({key: table[key]})) - 4
    assert kinds == list(table)


def test_subclasses_are_sent_as_what_they_are() -> None:
    """Q-18: enums, named tuples, ordered and other mappings, bytearrays, subclasses of the number classes."""

    class Color(enum.IntEnum):
        RED = 3

    class Word(enum.StrEnum):
        HELLO = "hello"

    class Short(Int16):
        pass

    pair = namedtuple("pair", "a b")
    table = {
        "enum": Color.RED,
        "word": Word.HELLO,
        "short": Short(5),
        "pair": pair(1, 2),
        "ordered": OrderedDict(a=1),
        "user": UserDict(a=1),
        "array": bytearray(b"a"),
        "view": memoryview(b"abc")[::2],
    }
    assert decode(encode_table(table)) == {
        "enum": 3,
        "word": "hello",
        "short": 5,
        "pair": [1, 2],
        "ordered": {"a": 1},
        "user": {"a": 1},
        "array": b"a",
        "view": b"ac",
    }
    assert type(decode(encode_table(table))["short"]) is Int16
    assert decode(encode_table(UserDict(a=1))) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**63, "9223372036854775808 does not fit a signed 64-bit integer"),
        (-(2**63) - 1, "does not fit a signed 64-bit integer"),
        (10**400, "does not fit a signed 64-bit integer"),
        (Int8(128), r"Int8\(128\) is out of range: -128 to 127"),
        (UInt32(-1), "out of range"),
        (Timestamp(2**64), "out of range"),
        (Float32(1e39), "out of the range of a 32-bit float"),
        (Decimal("NaN"), "does not fit an AMQP decimal"),
        (Decimal("Infinity"), "does not fit an AMQP decimal"),
        (Decimal("1E+999999999"), "does not fit an AMQP decimal"),
        (Decimal("1E-256"), "does not fit an AMQP decimal"),
        (Decimal("2147483648"), "more than 32 bits"),
        (Decimal("3E+9"), "more than 32 bits"),
        (datetime(1969, 12, 31), "before 1970"),
        (date(2026, 1, 1), "AMQP has no kind of field for date"),
        (timedelta(1), "no kind of field for timedelta"),
        ({1, 2}, "no kind of field for set"),
        (1j, "no kind of field for complex"),
        (object, "no kind of field for type"),
        ("\ud800", "lone surrogates"),
    ],
)
def test_what_amqp_cannot_carry_is_refused_with_its_place(value: Any, text: str) -> None:
    """Q-21, R21: the error names the keys that lead to the value."""
    for table, place in (({"a": value}, r"\['a'\]"), ({"a": [0, {"b": value}]}, r"\['a'\]\[1\]\['b'\]")):
        with pytest.raises(EncodeError, match=rf"^headers{place}: .*{text}"):
            encode_table(table, "headers")


@pytest.mark.parametrize("key", [1, None, b"bytes", "x" * 256, "€" * 86, "\ud800"])
def test_a_key_is_a_short_string(key: Any) -> None:
    """Q-03, Q-22: 255 bytes at most, and a str."""
    with pytest.raises(EncodeError, match=r"^headers\['a'\]: the key .* is not "):
        encode_table({"a": {key: 1}}, "headers")
    assert decode(encode_table({"x" * 255: 1})) == {"x" * 255: 1}


@pytest.mark.parametrize("table", [None, [], "", 5, [("a", 1)]])
def test_a_table_is_a_mapping(table: Any) -> None:
    """Q-21: also None and empty things of other types are refused."""
    with pytest.raises(EncodeError, match=r"^headers: expected a dict, got "):
        encode_table(table, "headers")


def test_decimals_do_not_depend_on_the_context() -> None:
    """Q-18: arithmetic rounds to the context's precision, the codec must not; -0 and trailing zeros too."""
    with localcontext() as context:
        context.prec = 2
        for text in ("123456.789", "2147483647", "-0.00", "1.10", "0E-255", "12E+3"):
            assert decode(encode_table({"k": Decimal(text)}))["k"] == Decimal(text)


@given(datetimes())
def test_datetimes_are_timestamps(moment: datetime) -> None:
    """Q-23: what is sent is the second in UTC, and it can be asked for as a datetime again."""
    value = decode(encode_table({"k": moment}))["k"]
    assert type(value) is Timestamp
    assert value.to_datetime() == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def test_a_timestamp_that_no_datetime_can_hold_is_still_a_number() -> None:
    """Peers 18 (pika#1698): milliseconds and the year 10000 come through as an int."""
    for seconds in (1_700_000_000_000, 2**63, 2**64 - 1):
        value = decode(one(b"T" + struct.pack(">Q", seconds)))["k"]
        assert value == seconds
        assert value.to_datetime() is None or seconds < 2**41
    assert Timestamp(0).to_datetime() == datetime(1970, 1, 1, tzinfo=UTC)


def test_numbers_with_a_kind_are_numbers() -> None:
    """They compare, print in strings, hash, copy and pickle as the number; repr shows the kind."""
    value = Int16(5)
    assert value == 5
    assert f"{value} {value!r} {[value]}" == "5 Int16(5) [Int16(5)]"
    assert {5: "a"}[value] == "a"
    assert f"{Float32(1.5)} {Float32(1.5)!r}" == "1.5 Float32(1.5)"
    for number in (value, Float32(1.5), Timestamp(7)):
        for twin in (copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
            assert twin == number
            assert type(twin) is type(number)


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FC00000, 0x7FBFFFFF, 0xFFFFFFFF, 0x7F800000, 0x80000000])
def test_32_bit_floats_keep_their_bits(bits: int) -> None:
    """Z2: signalling NaNs, which a conversion by the processor would make quiet, infinities, -0.0."""
    octets = one(b"f" + struct.pack(">I", bits))
    assert encode_table(decode(octets)) == octets
    if bits & 0x7F800000 == 0x7F800000 and bits & 0x7FFFFF:
        assert math.isnan(decode(octets)["k"])


def test_a_nan_whose_bits_do_not_fit_32_is_still_a_nan() -> None:
    """The payload is in the low bits only: the 32-bit value must not become infinity."""
    nan = struct.unpack(">d", b"\x7f\xf0\x00\x00\x00\x00\x00\x01")[0]
    assert math.isnan(decode(encode_table({"k": Float32(nan)}))["k"])


# -- decoding ---------------------------------------------------------------------------------------------


def test_duplicate_keys_the_last_one_wins() -> None:
    """4.3: as in every Python library (Java's takes the first)."""
    assert decode(sized(b"\x01kt\x01\x01kt\x00")) == {"k": False}


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(b"tbBsUuIilLfdDTSxAFV")))
def test_an_unknown_kind_is_an_error_of_its_own(kind: int) -> None:
    """Q-21, peers 19 (pika#1205): the caller can treat it as this message's fault only."""
    with pytest.raises(UnknownFieldKind, match=r"table\['k'\]: unknown kind of field") as caught:
        decode(one(bytes((kind,)) + b"\x00" * 16))
    assert caught.value.kind == kind
    assert caught.value.reply_code == 502
    assert pickle.loads(pickle.dumps(caught.value)).kind == kind


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", "the table says"),
        (b"\x00\x00\x00", "the table says"),
        (b"\x00\x00\x00\x01", "the table says 1 octets, 0 are left"),
        (b"\xff\xff\xff\xff\x01kV", "the table says 4294967295 octets, 3 are left"),
        (sized(b"\x01"), "a key and its kind says 2 octets, 0 are left"),
        (sized(b"\x01k"), "a key and its kind says 2 octets, 1 are left"),
        (sized(b"\xffkV"), "a key and its kind says 256 octets, 2 are left"),
        (one(b"I\x00\x00\x00"), r"\['k'\]: a field of kind I says 4 octets, 3 are left"),
        (one(b"t"), r"\['k'\]: a field of kind t says 1 octets, 0 are left"),
        (one(b"S\x00\x00"), "a field of kind S says"),
        (one(b"S\xff\xff\xff\xff" + b"x" * 100), "a field of kind S says 4294967295 octets, 100 are left"),
        (one(b"x\x00\x00\x00\x02a"), "a field of kind x says 2 octets, 1 are left"),
        (one(b"A\x00\x00\x00\x02V"), "a field of kind A says 2 octets, 1 are left"),
        (one(b"F\x00\x00\x00\x09\x01kV"), "a field of kind F says 9 octets, 3 are left"),
        (
            one(b"F" + sized(b"\x01aS\x00\x00\x00\x01") + b"b"),
            r"\['k'\]\['a'\]: .* kind S says 1 octets, 0 are left",
        ),
        (one(b"A" + sized(b"VI\x00\x00") + b"\x00\x00"), r"\['k'\]\[1\]: a field of kind I says 4 octets, 2 are left"),
    ],
)
def test_a_length_is_compared_with_what_encloses_it(octets: bytes, text: str) -> None:
    """0.8, R18, CVE-2026-77411: not with the frame: the octets after an inner table are not its own."""
    with pytest.raises(RemoteProtocolError, match=rf"^table.*{text}") as caught:
        decode_table(octets, 0, len(octets))
    assert caught.value.reply_code == 502


def test_a_table_does_not_reach_beyond_its_end() -> None:
    """R18: the end that the caller gives counts, whatever follows in the buffer; what follows is not looked at."""
    octets = encode_table({"a": 1})
    assert decode_table(b"??" + octets + b"more", 2, 2 + len(octets)) == ({"a": 1}, 2 + len(octets))
    assert decode_table(octets + b"more", 0, len(octets) + 4) == ({"a": 1}, len(octets))
    with pytest.raises(RemoteProtocolError, match="the table says 7 octets, 6 are left"):
        decode_table(octets, 0, len(octets) - 1)
    with pytest.raises(RemoteProtocolError):
        decode_table(b"\x00\x00\x00\x00", 0, 3)


def test_a_peers_text_does_not_forge_log_lines() -> None:
    """C3.3: keys in error texts are escaped and cut."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode(sized(b"\xffx\r\n\x1b[2J" + b"y" * 249 + b"?"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_table_can_be_copied_and_pickled() -> None:
    """Delivered headers go to worker processes and into logs."""
    table = decode(sized(b"\x01au\x00\x01" + b"\x01bT" + b"\x00" * 8))
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert encode_table(twin) == encode_table(table)
