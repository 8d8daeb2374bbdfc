"""MessagePack: round trip, and the limits of its library."""

from __future__ import annotations

import importlib
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.messaging.strategies import SCALARS, nested, same
from txmsg.errors import BodyTooLarge, DecodeError, EncodeError, SerializationError, SerializerNotInstalled
from txmsg.messaging import dumps, loads
from txmsg.messaging.serialization import MsgpackSerializer


def decode(body: bytes) -> Any:
    return loads(body, "application/x-msgpack", "binary", accept=["msgpack"])


@given(nested(SCALARS | st.binary(max_size=20)))
def test_round_trip(value: Any) -> None:
    """Z1, kombu J23: what was encoded comes back, with str and bytes told apart."""
    assert same(decode(dumps(value, "msgpack").body), value)


@given(st.binary(max_size=60))
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x81\x90\x01")
@example(b"\x01\x02")
def test_totality(octets: bytes) -> None:
    """Z4, C5.3: any octets are a value or one typed error."""
    try:
        decode(octets)
    except SerializationError as error:
        assert isinstance(error, DecodeError)


def test_limits() -> None:
    """C5.3: size, depth, and lengths that the body does not have."""
    with pytest.raises(BodyTooLarge):
        MsgpackSerializer(max_size=3).decode(b"\xa3abc")
    assert MsgpackSerializer(max_size=4).decode(b"\xa3abc") == "abc"
    for body in (b"\x91" * 2000 + b"\x90", b"\x91" * 10**6, b""):
        with pytest.raises(DecodeError):
            decode(body)
    tracemalloc.start()
    try:
        for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
            with pytest.raises(DecodeError):
                decode(head + b"\x7f\xff\xff\xff" + b"\x01" * 100)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_errors() -> None:
    """Kombu J14: what it cannot carry."""
    with pytest.raises(EncodeError, match="msgpack cannot carry this: TypeError"):
        dumps({"a": 1j}, "msgpack")
    with pytest.raises(EncodeError):
        dumps(2**64, "msgpack")


def test_buffers() -> None:
    """Kombu J26: octets in any wrapping."""
    for data in (bytearray(b"\xa1a"), memoryview(b"\xa1a")):
        assert loads(data, "application/x-msgpack", accept="msgpack") == "a"


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu J15, AD2: without msgpack the error names what to install, when it is used."""

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (lambda: dumps({}, "msgpack"), lambda: decode(b"\x80")):
        with pytest.raises(SerializerNotInstalled, match=r"txmsg\[msgpack\]"):
            call()
