"""What JSON carries beside its own types."""

from __future__ import annotations

import datetime
import sys
import uuid
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messaging.strategies import JSON_VALUES
from txmsg.errors import DecodeError, EncodeError
from txmsg.messaging import JSONSerializer, default_json_types, dumps, loads


def there_and_back(value: Any) -> Any:
    return loads(dumps(value, "json").body, "application/json")


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 11, 21, 17, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.datetime(2026, 11, 21),
        datetime.date(2026, 11, 21),
        datetime.time(17, 1),
        Decimal("1.10"),
        uuid.UUID(int=2**128 - 1),
        b"text",
        b"\xff\x00",
    ],
)
def test_types(value: Any) -> None:
    """Kombu J17, J18, J20: each comes back as what it was, which Kombu has done since 5.3."""
    back = there_and_back({"key": [value]})["key"][0]
    assert back == value
    assert type(back) is type(value)


def test_buffers() -> None:
    """Kombu J20: other octets come back as bytes."""
    assert there_and_back([bytearray(b"a"), memoryview(b"\xff")]) == [b"a", b"\xff"]


def test_other_writers() -> None:
    """Kombu J17: a Z for UTC, a date written as midnight, an escaped key."""
    body = (
        b'[{"__type__":"datetime","__value__":"2026-11-21T00:00:00Z"},'
        b'{"__type__":"date","__value__":"2026-11-21T00:00:00"}]'
    )
    assert loads(body, "application/json") == [
        datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC),
        datetime.date(2026, 11, 21),
    ]
    body = b'{"\\u005f_type__":"decimal","__value__":"1"}'
    assert loads(body, "application/json") == Decimal(1)


def test_own_method_first() -> None:
    """Kombu J17, kombu AC5: `__json__` counts before the type."""

    class Stamp(datetime.datetime):
        def __json__(self) -> list[int]:
            return [self.year]

    assert there_and_back(Stamp(2026, 1, 1)) == [2026]


def test_subclasses() -> None:
    """Kombu J17: a subclass is carried as its base; a datetime is no date."""

    class Stamp(datetime.datetime):
        pass

    assert there_and_back(Stamp(2026, 1, 1)) == datetime.datetime(2026, 1, 1)


def test_lazy_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu J17: Django's lazy strings are str, and Django is not needed for anything."""

    class Promise:
        def __str__(self) -> str:
            return "translated"

    with pytest.raises(EncodeError):
        there_and_back(Promise())
    module = ModuleType("django.utils.functional")
    module.Promise = Promise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django.utils.functional", module)
    assert there_and_back([Promise()]) == ["translated"]


def test_register() -> None:
    """Kombu J17: types of one's own, with and without an envelope, and with what they are made of."""
    types = default_json_types()
    serializer = JSONSerializer(types=types)
    with pytest.raises(TypeError, match="JSON has no complex"):
        serializer.encode(1j)
    types.register(complex, "complex", lambda z: [Decimal(z.real), Decimal(z.imag)], lambda v: complex(*v))
    assert serializer.decode(serializer.encode([1j])) == [1j]
    types.register(set, None, sorted)
    assert serializer.decode(serializer.encode({2, 1})) == [1, 2]
    types.register(frozenset, "frozen", sorted)
    assert serializer.decode(serializer.encode(frozenset({2, 1}))) == [1, 2]
    with pytest.raises(EncodeError, match="JSON has no complex"):
        dumps(1j, "json")


@pytest.mark.parametrize(
    "marker", ["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "os.system", 7, None, []]
)
@given(value=JSON_VALUES | st.text("0123456789-:TZ.+E=", max_size=30))
def test_only_the_table(marker: Any, value: Any) -> None:
    """C5.4, Z4: an envelope is a type of the table, with a value that fits, or a DecodeError."""
    body = dumps({"__type__": marker, "__value__": value}, "json").body
    kinds = (datetime.date, datetime.time, Decimal, uuid.UUID, bytes)
    try:
        assert isinstance(loads(body, "application/json"), kinds)
    except DecodeError as error:
        assert error.__cause__ is None
    assert (
        loads(dumps({"__type__": marker, "more": 1, "__value__": value}, "json").body, "application/json")["more"] == 1
    )


@pytest.mark.parametrize(
    "value",
    [{"hex": "0" * 32, "is_safe": 1}, {"int": 5}, {"bytes": "0" * 16}, {"hex": 5}, "0" * 32, [0]],
)
def test_ids_have_one_form(value: Any) -> None:
    """C5.4: the constructor's other arguments are not a stranger's to give."""
    with pytest.raises(DecodeError, match=r"no uuid|wanted"):
        loads(dumps({"__type__": "uuid", "__value__": value}, "json").body, "application/json")


def test_errors() -> None:
    """Kombu J14: what is wrong is said without the value."""
    for marker, value in (
        ("base64", "a"),
        ("base64", "YW!Jj"),
        ("decimal", "secret"),
        ("decimal", [0, [1], 0]),
        ("time", "secret"),
    ):
        with pytest.raises(DecodeError) as raised:
            loads(dumps({"__type__": marker, "__value__": value}, "json").body, "application/json")
        assert "secret" not in str(raised.value)
