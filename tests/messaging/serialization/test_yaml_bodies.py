"""YAML: round trip, the safe loader, and its limits."""

from __future__ import annotations

import datetime
import importlib
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.messaging.strategies import JSON_VALUES
from txmsg.errors import BodyTooLarge, DecodeError, EncodeError, SerializationError, SerializerNotInstalled
from txmsg.messaging import dumps, loads
from txmsg.messaging.serialization import YAMLSerializer

SERIALIZER = YAMLSerializer()


def decode(body: bytes) -> Any:
    return loads(body, "application/x-yaml", "utf-8", accept=["yaml"])


@given(JSON_VALUES)
def test_round_trip(value: Any) -> None:
    """Z1: what was encoded comes back."""
    assert decode(dumps(value, "yaml").body) == value


def test_types() -> None:
    """Kombu J22: dates, octets and sets, and values that are there twice."""
    twice = [1]
    value = {"at": datetime.date(2026, 1, 2), "octets": b"\xff", "set": {1}, "one": twice, "two": twice}
    body = dumps(value, "yaml").body
    assert b"&id001" in body
    assert decode(body) == value


@given(st.text("[]{}:,-&*!|>\"'# \n\tab1<?%@=.~\\x_", max_size=40).map(str.encode) | st.binary(max_size=30))
@example(b"&a [*a]")
@example(b"!!timestamp 2026-13-01")
@example(b"? []\n")
@example(b"a: b\n---\nc: d\n")
@example(b"!!int ''")
def test_totality(octets: bytes) -> None:
    """Z4, C5.2: any octets are a value or one typed error."""
    try:
        decode(octets)
    except SerializationError as error:
        assert isinstance(error, DecodeError)


@pytest.mark.parametrize(
    "body",
    [
        b"!!python/object/apply:os.system ['true']",
        b"!!python/object:txmsg.errors.TxmsgError {}",
        b"!!python/name:os.system",
        b"!!python/tuple [1]",
        b"!!python/module:os",
    ],
)
def test_safe(body: bytes) -> None:
    """C5.2, kombu J22: nothing of Python's is built."""
    with pytest.raises(DecodeError, match="ConstructorError"):
        decode(body)


def test_size() -> None:
    """C5.2: 64 KiB, or what was set."""
    with pytest.raises(BodyTooLarge):
        decode(b"a" * (64 * 1024 + 1))
    assert decode(b"'" + b"a" * 60000 + b"'") == "a" * 60000
    with pytest.raises(BodyTooLarge):
        YAMLSerializer(max_size=3).decode(b"1234")


def test_depth() -> None:
    """C5.3: 64 levels, of each of its styles; 4 kB of brackets are refused at once."""
    assert decode(b"[" * 64 + b"]" * 64)
    began = time.process_time()
    for body in (b"[" * 65 + b"]" * 65, b"[" * 4000, b"{a: " * 4000, b"- " * 4000, b"? " * 4000, b"[" * 65000):
        with pytest.raises(DecodeError):
            decode(body)
    assert time.process_time() - began < 5
    with pytest.raises(DecodeError, match="deeper than 1 levels"):
        YAMLSerializer(max_depth=1).decode(b"[[1]]")
    assert YAMLSerializer(max_depth=1).decode(b"[1]") == [1]


def test_merge_keys() -> None:
    """C5.3: merge keys, of which a few lines become gigabytes, are refused; as a text the key is one like any other."""
    levels = [f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    body = "l0: &l0 {a: 1}\n" + "\n".join(levels)
    with pytest.raises(DecodeError, match="merge"):
        decode(body.encode())
    assert decode(dumps({"<<": 1}, "yaml").body) == {"<<": 1}


def test_errors() -> None:
    """C3.3: errors say where, and quote nothing; what YAML cannot say is an EncodeError that names the type."""
    with pytest.raises(DecodeError, match="line 2, column") as raised:
        decode(b"a: 1\nsecret: [")
    assert "secret" not in str(raised.value)
    with pytest.raises(EncodeError, match="YAML has no complex"):
        dumps({"a": 1j}, "yaml")


def test_buffers() -> None:
    """Kombu J26: octets in any wrapping."""
    for data in (bytearray(b"a: 1"), memoryview(b"a: 1"), "a: 1"):
        assert loads(data, "application/x-yaml", accept="yaml") == {"a": 1}


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu J15, AD2: without PyYAML the error names what to install, when it is used."""

    def missing(name: str) -> Any:
        raise ImportError(name)

    from txmsg.messaging.serialization import yaml_bodies

    yaml_bodies._loader_class.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (lambda: dumps({}, "yaml"), lambda: decode(b"a: 1")):
        with pytest.raises(SerializerNotInstalled, match=r"txmsg\[yaml\]"):
            call()
