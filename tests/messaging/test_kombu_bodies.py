"""The real Kombu and we read each other's bodies: the same values, types and headers."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import kombu
import kombu.compression
import kombu.connection
import kombu.exceptions
import kombu.message
import kombu.messaging
import kombu.serialization
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messaging.strategies import JSON_VALUES, TYPED_VALUES, same
from txmsg.messaging import compressions, decode_body, default_serializers, encode_body, register_pickle
from txmsg.messaging.compression import encoders

UTC = datetime.UTC
ALL = ["json", "yaml", "msgpack", "pickle"]

PLAIN: dict[str, Any] = {
    "none": None,
    "yes": True,
    "int": -(2**40),
    "float": 1.5,
    "text": "naïve \N{SNOWMAN} \U0001f600",
    "list": [1, [2, []], {}],
    "empty": "",
    "": {"a": {"b": {"c": 1}}},
}
TYPED: dict[str, Any] = {
    "aware": datetime.datetime(2026, 11, 21, 17, 0, 0, 123456, tzinfo=UTC),
    "naive": datetime.datetime(1, 1, 1),
    "offset": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    "date": datetime.date(2026, 11, 21),
    "time": datetime.time(12, 30, 1, 5),
    "uuid": uuid.UUID(int=7),
    "decimal": [Decimal("1.10"), Decimal("-Infinity"), Decimal("1E+999")],
    "bytes": [b"", b"text", b"\x00\xff"],
}
VALUES: list[tuple[str, Any]] = [
    *[(name, PLAIN) for name in ALL],
    *[(name, value) for name in ALL for value in ([], 0, False, "", 7, "text", [PLAIN, PLAIN])],
    ("json", TYPED),
    ("yaml", {"aware": TYPED["aware"], "date": TYPED["date"], "bytes": [b"\x00\xff"], "set": {1, 2}}),
    ("msgpack", {"bytes": [b"", b"\xff"], "text": "ä", "big": 2**64 - 1, b"key": "of octets"}),
    ("pickle", {**TYPED, "tuple": (1, 2), "set": {1}, "frozen": frozenset({2}), 3: "int key", "complex": 1j}),
    ("raw", b"\x00\xff"),
    ("raw", "text ä"),
]

#: Ours, in which pickle was asked for.
REGISTRY = default_serializers()
register_pickle([uuid.UUID], registry=REGISTRY)


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_kombu_reads_ours(name: str, value: Any) -> None:
    """Kombu J1, J2, J22, J23, J24: what we encode, Kombu decodes as the same value."""
    body = encode_body(value, serializer=name, registry=REGISTRY)
    assert same(kombu.serialization.loads(body.body, body.content_type, body.content_encoding, force=True), value)


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_we_read_kombus(name: str, value: Any) -> None:
    """Kombu J1, J2, J22, J23, J24: what Kombu encodes, we decode as the same value, under the same type."""
    content_type, encoding, body = kombu.serialization.dumps(value, name)
    octets = body.encode() if isinstance(body, str) else body
    assert same(REGISTRY.loads(octets, content_type, encoding, accept=ALL), value)
    ours = REGISTRY.dumps(value, name)
    assert (ours.content_type, ours.content_encoding) == (content_type, encoding)


@pytest.mark.parametrize("value", [b"\xff\x00", "text ä", "", {"a": 1}, None])
def test_without_a_serializer(value: Any) -> None:
    """Kombu J2, J3: octets, text and other values get the same types as from Kombu, both ways."""
    content_type, encoding, body = kombu.serialization.dumps(value)
    ours = REGISTRY.dumps(value)
    assert (ours.content_type, ours.content_encoding) == (content_type, encoding)
    octets = body.encode() if isinstance(body, str) else body
    assert same(REGISTRY.loads(octets, content_type, encoding), value)
    # Kombu gives empty bodies as they come, without looking at their type.
    assert same(kombu.serialization.loads(ours.body, ours.content_type, ours.content_encoding), value) or value == ""


def test_octets_without_anything() -> None:
    """Kombu reads an empty octet string as we do."""
    assert REGISTRY.loads(b"", *kombu.serialization.dumps(b"")[:2]) == b""


@given(TYPED_VALUES)
def test_json_both_ways(value: Any) -> None:
    """Kombu J17: any value, with dates, decimals, ids and octets in it."""
    ours = REGISTRY.dumps(value, "json")
    assert same(kombu.serialization.loads(ours.body, "application/json", "utf-8"), value)
    theirs = kombu.serialization.dumps(value, "json")[2]
    assert same(REGISTRY.loads(theirs, "application/json"), value)


@given(JSON_VALUES, st.sampled_from(["yaml", "msgpack", "pickle"]))
def test_others_both_ways(value: Any, name: str) -> None:
    """Kombu J1: any plain value through each of the others."""
    ours = REGISTRY.dumps(value, name)
    try:
        theirs = kombu.serialization.dumps(value, name)[2]
        judged = kombu.serialization.loads(ours.body, ours.content_type, ours.content_encoding, force=True)
    except kombu.exceptions.KombuError:
        # YAML has no way for a few characters that its dumper writes (a lone NEL in a key, say).
        return
    assert same(judged, REGISTRY.loads(ours.body, ours.content_type, ours.content_encoding, accept=name))
    octets = theirs.encode() if isinstance(theirs, str) else theirs
    assert same(REGISTRY.loads(octets, ours.content_type, accept=[name]), judged)


def test_json_with_a_method() -> None:
    """Kombu J17: `__json__` comes first, for Kombu and for us."""

    class Point:
        def __json__(self) -> dict[str, Any]:
            return {"x": 1, "at": datetime.date(2026, 1, 2)}

    for body in (REGISTRY.dumps(Point(), "json").body, kombu.serialization.dumps(Point(), "json")[2]):
        assert REGISTRY.loads(body, "application/json") == {"x": 1, "at": datetime.date(2026, 1, 2)}


def test_an_envelope_that_nobody_knows() -> None:
    """Kombu J17: both refuse it."""
    body = b'{"__type__": "os.system", "__value__": "true"}'
    with pytest.raises(kombu.exceptions.DecodeError):
        kombu.serialization.loads(body, "application/json", "utf-8")
    with pytest.raises(ValueError, match="unknown type"):
        REGISTRY.loads(body, "application/json")


@pytest.mark.parametrize("name", ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "zstd", "zstandard", "brotli"])
@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 100, bytes(10**6)])
def test_compression_both_ways(name: str, content: bytes) -> None:
    """Kombu K1, K3, K4: each compression, by each name."""
    ours, ours_type = compressions.compress(content, name)
    theirs, their_type = kombu.compression.compress(content, name)
    assert ours_type == their_type
    assert kombu.compression.decompress(ours, ours_type) == content
    assert compressions.decompress(theirs, their_type, accept=[name]) == content


def test_the_same_compressions() -> None:
    """Kombu K3: there is none that only one of us has."""
    assert set(encoders()) == set(kombu.compression.encoders())


@pytest.mark.parametrize("name", ["json", "yaml", "msgpack", "pickle"])
@pytest.mark.parametrize("compression", [None, "zlib", "bzip2", "lzma", "zstd", "brotli"])
def test_whole_bodies(name: str, compression: str | None) -> None:
    """Kombu I2, I3, K5: serialized and compressed, through Kombu's own Message, and Kombu's publish to us."""
    body = encode_body(PLAIN, serializer=name, compression=compression, registry=REGISTRY)
    headers = {"compression": body.compression} if body.compression else {}
    message = kombu.message.Message(
        body=body.body,
        content_type=body.content_type,
        content_encoding=body.content_encoding,
        headers=headers,
        accept={body.content_type},
        channel=None,
    )
    assert same(message.payload, PLAIN)

    producer = kombu.messaging.Producer(kombu.connection.Connection("memory://").channel(), auto_declare=False)
    sent, content_type, encoding = producer._prepare(
        PLAIN, name, None, None, compression, (headers := dict[str, str]())
    )
    octets = sent.encode() if isinstance(sent, str) else sent
    value = decode_body(
        octets,
        content_type=content_type,
        content_encoding=encoding,
        compression=headers.get("compression"),
        accept=[name],
        accept_compression=[compression] if compression else None,
        registry=REGISTRY,
    )
    assert same(value, PLAIN)
