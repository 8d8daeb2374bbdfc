"""Pickle: asked for twice, and then only what is on the list."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.messaging.strategies import SCALARS, nested
from txmsg.errors import (
    BodyTooLarge,
    ConfigurationError,
    ContentDisallowed,
    DecodeError,
    EncodeError,
    SerializationError,
    SerializerNotInstalled,
)
from txmsg.messaging import SerializerRegistry, default_serializers, enable_insecure_serializers, register_pickle
from txmsg.messaging.serialization import PickleSerializer

TYPE = "application/x-python-serialize"


class Exploit:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def with_pickle(*allowed: type, **options: Any) -> SerializerRegistry:
    registry = default_serializers()
    register_pickle(allowed, registry=registry, **options)
    return registry


def test_not_asked_for() -> None:
    """C5.2: it is not there, for senders and receivers; its type is refused and not taken for raw octets."""
    registry = default_serializers()
    body = pickle.dumps(1)
    for call in (lambda: registry.dumps(1, "pickle"), lambda: registry.accept(["pickle"])):
        with pytest.raises(SerializerNotInstalled, match="register_pickle"):
            call()
    with pytest.raises(ContentDisallowed):
        registry.loads(body, TYPE, "binary")
    with pytest.raises(ContentDisallowed):
        registry.loads(body, TYPE, "binary", force=True)
    assert registry.loads(body, TYPE, "binary", accept=[TYPE]) == body


def test_asked_once() -> None:
    """C5.2, kombu J12: registered, it can be sent, and is decoded by nobody who does not name it."""
    registry = with_pickle()
    encoded = registry.dumps({"a": (1, 2)}, "pickle")
    assert encoded[:2] == (TYPE, "binary")
    for accept in (None, [], ["json"]):
        with pytest.raises(ContentDisallowed, match="pickle"):
            registry.loads(encoded.body, TYPE, "binary", accept=accept)
    with pytest.raises(ContentDisallowed):
        registry.loads(encoded.body, TYPE, "binary", force=True)
    for name in ("pickle", TYPE):
        with pytest.raises(ConfigurationError, match="accept="):
            enable_insecure_serializers([name], registry)
    with pytest.raises(ContentDisallowed):
        registry.loads(encoded.body, TYPE, "binary")
    for named in (["pickle"], TYPE):
        assert registry.loads(encoded.body, TYPE, "binary", accept=named) == {"a": (1, 2)}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_exploit(protocol: int, tmp_path: Path) -> None:
    """C5.2: what is not on the list is not called, in any protocol."""
    target = tmp_path / "made"
    body = pickle.dumps(Exploit(target), protocol)
    with pytest.raises(DecodeError, match=r"mkdir.* is not accepted|mkdir.*not on its allow-list"):
        with_pickle().loads(body, TYPE, "binary", accept=["pickle"])
    assert not target.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cbuiltins\nset\no.",
        b"\x82\x01.",
        b"cbuiltins\nbytes\n(I999999999999\ntR.",
        b"c_codecs\nencode\n(Vx\nVbz2\ntR.",
        b"Pid\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cdatetime\ndatetime.__class__\n.",
        b"\x80\x04\x8c\x08datetime\x8c\x19datetime.__init__.__globals\x93.",
        b"N" + b"r\xff\xff\xff\x7f.",
        b"Np4294967295\n.",
        b"Np-1\n.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"\x80\x05\x97.",
        b"\x8e\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    ],
)
def test_refused(body: bytes) -> None:
    """C5.2: ways around the list, and codes that claim room."""
    with pytest.raises(DecodeError):
        PickleSerializer().decode(body)


@given(nested(SCALARS | st.binary(max_size=9)) | st.tuples(SCALARS, st.frozensets(st.integers())), st.integers(0, 5))
def test_round_trip(value: Any, protocol: int) -> None:
    """Z1, kombu J21: plain values, in each protocol."""
    serializer = PickleSerializer(protocol=protocol)
    assert serializer.decode(serializer.encode(value)) == value


@given(st.binary(max_size=60))
@example(b"\x80\x04\x8c\x00\x93.")
def test_totality(octets: bytes) -> None:
    """Z4, C5.2: any octets are a value or one typed error."""
    for start in (b"", b"\x80\x04", b"("):
        try:
            PickleSerializer().decode(start + octets + b".")
        except SerializationError as error:
            assert isinstance(error, DecodeError)


def test_counts() -> None:
    """C5.2: an index beyond the body is refused before room is made for it."""
    for body in (b"Nr\xff\xff\xff\x7f.", b"Np4294967295\n.", b"Np-1\n."):
        with pytest.raises(DecodeError, match="counts more"):
            PickleSerializer().decode(body)


def test_allow_list() -> None:
    """C5.2: dates, Decimal and the like, and classes that were listed."""
    plain = [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), Decimal("1.1"), {1}, 1j, collections.OrderedDict(a=1)]
    assert PickleSerializer().decode(pickle.dumps(plain)) == plain
    with pytest.raises(DecodeError, match=r"uuid\.UUID"):
        PickleSerializer().decode(pickle.dumps(UUID(int=1)))
    assert PickleSerializer([UUID]).decode(pickle.dumps(UUID(int=1))) == UUID(int=1)
    with pytest.raises(ConfigurationError):
        PickleSerializer([os.system])  # type: ignore[list-item]


def test_knobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu J21: the protocol by argument or environment, 4 unless given; the size."""
    monkeypatch.delenv("PICKLE_PROTOCOL", raising=False)
    assert with_pickle().dumps([], "pickle").body[:2] == b"\x80\x04"
    monkeypatch.setenv("PICKLE_PROTOCOL", "2")
    assert with_pickle().dumps([], "pickle").body[:2] == b"\x80\x02"
    assert with_pickle(protocol=5).dumps([], "pickle").body[:2] == b"\x80\x05"
    monkeypatch.setenv("PICKLE_PROTOCOL", "new")
    with pytest.raises(ConfigurationError, match="PICKLE_PROTOCOL"):
        with_pickle()
    with pytest.raises(ConfigurationError):
        with_pickle(protocol=99)
    with pytest.raises(BodyTooLarge):
        PickleSerializer(protocol=4, max_size=3).decode(pickle.dumps(1))


def test_errors() -> None:
    """Kombu J14, J26: what it cannot carry; octets in any wrapping."""
    with pytest.raises(EncodeError):
        with_pickle().dumps(lambda: 1, "pickle")
    body = pickle.dumps([1])
    for data in (bytearray(body), memoryview(body)):
        assert with_pickle().loads(data, TYPE, accept="pickle") == [1]
