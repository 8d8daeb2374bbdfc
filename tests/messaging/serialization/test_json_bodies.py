"""JSON: round trip, limits, and whatever octets."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.messaging.strategies import TYPED_VALUES, same
from txmsg.errors import BodyTooLarge, ConfigurationError, DecodeError, EncodeError, SerializationError
from txmsg.messaging import JSONLimits, JSONSerializer, SerializerRegistry, dumps, loads, register_json

SERIALIZER = JSONSerializer()


def strict() -> JSONSerializer:
    return JSONSerializer(JSONLimits(allow_nan=False, allow_duplicate_keys=False))


@given(TYPED_VALUES)
def test_round_trip(value: Any) -> None:
    """Z1: what was encoded comes back, of the same types, and strictness changes nothing in it."""
    assert same(SERIALIZER.decode(SERIALIZER.encode(value)), value)
    try:
        octets = strict().encode(value)
    except ValueError:
        return
    assert same(strict().decode(octets), value)


@given(st.binary(max_size=60) | st.text('[]{}",:\\u019-."_type value', max_size=80).map(str.encode))
@example(b"\xef\xbb\xbf{}")
@example(b"1" * 5000)
@example(b"-" + b"1" * 5000)
@example(b'{"__type__": [], "__value__": 1}')
@example(b'{"__type__": "bytes", "__value__": "\\ud800"}')
def test_totality(octets: bytes) -> None:
    """Z4, C5.3: any octets are a value, as Python reads it, or one typed error."""
    for serializer in (SERIALIZER, strict()):
        try:
            value = serializer.decode(octets)
        except SerializationError as error:
            assert isinstance(error, DecodeError)
        else:
            if b"type" not in octets and b"\\u" not in octets:
                assert repr(value) == repr(json.loads(octets.decode()))


@given(
    st.integers(1, 9),
    st.recursive(st.just("x[{"), lambda v: st.lists(v, max_size=3) | st.fixed_dictionaries({"k]": v})),
)
def test_depth_is_exact(limit: int, value: Any) -> None:
    """C5.3: as many levels as the limit are read, and one more is not; brackets in strings count for nothing."""

    def depth(inner: Any) -> int:
        if not isinstance(inner, list | dict):
            return 0
        return 1 + max(map(depth, inner.values() if isinstance(inner, dict) else inner), default=0)

    serializer = JSONSerializer(JSONLimits(max_depth=limit))
    octets = json.dumps(value).encode()
    if depth(value) <= limit:
        assert serializer.decode(octets) == value
    else:
        with pytest.raises(DecodeError, match="deeper"):
            serializer.decode(octets)


def test_depth() -> None:
    """C5.3: 256 levels by default; hundreds of thousands are a DecodeError, closed or not."""
    assert SERIALIZER.decode(b"[" * 256 + b"]" * 256)
    for body in (b"[" * 257 + b"]" * 257, b'{"a":' * 257 + b"1" + b"}" * 257, b"[" * 10**6, b"[{" * 10**5, b"[]" * 300):
        with pytest.raises(DecodeError):
            SERIALIZER.decode(body)
    assert SERIALIZER.decode(b"[" + b"[]," * 10**4 + b"[]]") == [[]] * 10001
    assert SERIALIZER.decode(json.dumps(["[" * 1000, '\\"[' * 1000]).encode()) == ["[" * 1000, '\\"[' * 1000]


def test_deep_for_the_stack() -> None:
    """C5.3: a limit that Python cannot keep is no RecursionError."""
    serializer = JSONSerializer(JSONLimits(max_depth=10**6))
    with pytest.raises(DecodeError, match="too deep"):
        serializer.decode(b"[" * 10**5 + b"]" * 10**5)
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    with pytest.raises(EncodeError, match="RecursionError"):
        dumps(deep, "json")


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 50000 + b"[" * 300,
        b'"\\' * 50000 + b"[" * 300,
        b"[{" * 128 + b"[]" * 10**5 + b"}]" * 128 + b"[" * 300,
        b"1" * 4300 + b"x" + b"12345 " * 20000,
        (b"[" * 250 + b"]" * 250 + b",") * 2000,
        (b"9" * 4299 + b"x") * 40,
    ],
)
def test_cost(body: bytes) -> None:
    """C5.3: looking for the limits takes time in proportion to the body."""
    began = time.process_time()
    with pytest.raises(DecodeError):
        SERIALIZER.decode(body)
    assert time.process_time() - began < 1


def test_size() -> None:
    """C5.3: one octet more than the limit."""
    serializer = JSONSerializer(JSONLimits(max_size=4))
    assert serializer.decode(b"1234") == 1234
    with pytest.raises(BodyTooLarge) as raised:
        serializer.decode(b"12345")
    assert raised.value.limit == 4


def test_numbers() -> None:
    """C5.3: 4,300 digits, also where Python's own limit was taken away; fractions and strings are not counted."""
    assert SERIALIZER.decode(b"9" * 4300) == int("9" * 4300)
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        for body in (b"9" * 4301, b"-" + b"9" * 4301, b"[0, " + b"9" * 10**6 + b"]"):
            with pytest.raises(DecodeError, match="digits"):
                SERIALIZER.decode(body)
        assert SERIALIZER.decode(b'["%s", 0.%s, -%s]' % (b"9" * 5000, b"1" * 5000, b"1" * 4300)) == [
            "9" * 5000,
            1 / 9,
            -int("1" * 4300),
        ]
    finally:
        sys.set_int_max_str_digits(limit)
    small = JSONSerializer(JSONLimits(max_digits=3))
    assert small.decode(b"[123, -123]") == [123, -123]
    with pytest.raises(DecodeError):
        small.decode(b"1234")
    with pytest.raises(DecodeError, match="ValueError"):
        JSONSerializer(JSONLimits(max_digits=10**6)).decode(b"9" * 5000)  # Python's own limit


def test_not_finite() -> None:
    """C5.3: NaN and Infinity are read and written, as Python and Kombu do, and refused by option."""
    values = [float("inf"), float("-inf"), float("nan")]
    assert repr(SERIALIZER.decode(SERIALIZER.encode(values))) == repr(values)
    for body in (b"NaN", b"[-Infinity]", b"1e400", b"-1e999"):
        SERIALIZER.decode(body)
        with pytest.raises(DecodeError, match="not finite"):
            strict().decode(body)
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict().encode(values)
    assert strict().decode(b"1.5e3") == 1500


def test_duplicate_keys() -> None:
    """C5.3: the last one counts, or by option none; written with escapes, too."""
    for body in (b'{"a": 1, "a": 2}', b'{"a": 1, "\\u0061": 2}', b'[{"b": {"a": 1, "a": 2}}]'):
        SERIALIZER.decode(body)
        with pytest.raises(DecodeError, match="twice"):
            strict().decode(body)
    assert SERIALIZER.decode(b'{"a": 1, "a": 2}') == {"a": 2}
    body = b'{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}'
    assert strict().decode(body) == SERIALIZER.decode(body)


def test_inputs() -> None:
    """Kombu J19, J26: octets in any wrapping, or str."""
    for data in (b'"\xc3\xa4"', bytearray(b'"\xc3\xa4"'), memoryview(b'"\xc3\xa4"'), '"ä"', '"\\u00e4"'):
        assert loads(data, "application/json", "utf-8") == "ä"
    for broken in (b'"\xff"', b"", b"{", b"'a'", b"\xef\xbb\xbf1", '"\ud800"'):
        with pytest.raises(DecodeError):
            loads(broken, "application/json")


def test_errors_show_no_body() -> None:
    """C3.3: neither the text of an error nor what it is chained to quotes the body."""
    for body in (b'{"password": hunter2}', b'"hunter2 \xff', b'{"__type__": "date", "__value__": "hunter2"}'):
        with pytest.raises(DecodeError) as raised:
            loads(body, "application/json")
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None


def test_options() -> None:
    """Limits are numbers from 1; a registry takes JSON with others."""
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ConfigurationError):
            JSONLimits(max_depth=wrong)  # type: ignore[arg-type]
    registry = SerializerRegistry(None)
    register_json(registry, JSONLimits(max_depth=1))
    assert registry.loads(b"[]", "application/json") == []
    with pytest.raises(DecodeError):
        registry.loads(b"[[]]", "application/json")
    assert "max_depth=256" in repr(SERIALIZER)


def test_what_is_written() -> None:
    """Kombu J1: ASCII only and no spaces."""
    assert SERIALIZER.encode({"ä": [1, 2]}) == b'{"\\u00e4":[1,2]}'
