"""Whole bodies: the order of things, outwards and inwards."""

from __future__ import annotations

import bz2
import pickle
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messaging.strategies import TYPED_VALUES, same
from txmsg.errors import (
    BodyTooLarge,
    CodecNotInstalled,
    ContentDisallowed,
    DecodeError,
    EncodeError,
    SerializationError,
    SerializerNotInstalled,
)
from txmsg.messaging import DecompressionLimits, decode_body, encode_body, open_body


def test_choice_of_the_encoding() -> None:
    """Kombu J3, J24: a content type, then a serializer, then octets, text, JSON."""
    assert encode_body(b"GIF", content_type="image/gif", serializer="json") == ("image/gif", "binary", b"GIF", None)
    assert encode_body("ä", content_type="text/html") == ("text/html", "utf-8", "ä".encode(), None)
    assert encode_body("ä", content_type="text/html", content_encoding="latin-1").body == b"\xe4"
    assert encode_body("ä", content_type="x/y", content_encoding="binary").body == "ä".encode()
    assert encode_body(memoryview(b"a"), content_type="x/y", content_encoding="x").body == b"a"
    assert encode_body(b"a", serializer="json").content_type == "application/json"
    assert encode_body(b"a")[:3] == ("application/data", "binary", b"a")
    assert encode_body("a")[:3] == ("text/plain", "utf-8", b"a")
    assert encode_body([])[:3] == ("application/json", "utf-8", b"[]")


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        ({}, {"content_type": "image/gif"}, EncodeError),
        (None, {"content_type": "image/gif"}, EncodeError),
        ("ä", {"content_type": "text/plain", "content_encoding": "ascii"}, EncodeError),
        ("ä", {"content_type": "text/plain", "content_encoding": "nothing"}, EncodeError),
        ("\ud800", {"content_type": "text/plain"}, EncodeError),
        (object(), {}, EncodeError),
        ({}, {"serializer": "nothing"}, SerializerNotInstalled),
        ({}, {"compression": "nothing"}, CodecNotInstalled),
    ],
)
def test_what_cannot_be_sent(data: Any, options: dict[str, Any], error: type[Exception]) -> None:
    """Kombu J14, J15, K7: typed, before anything is sent."""
    with pytest.raises(error):
        encode_body(data, **options)


def test_compressed() -> None:
    """Kombu K1: the header's value is the media type; what was compressed is what was encoded."""
    body = encode_body({"a": 1}, compression="zlib")
    assert body.compression == "application/x-gzip"
    assert zlib.decompress(body.body) == b'{"a":1}'
    assert encode_body({}, compression="").compression is None


@given(TYPED_VALUES, st.sampled_from([None, "gzip", "bzip2", "lzma", "zstd", "brotli"]))
def test_round_trip(value: Any, compression: str | None) -> None:
    """Z1: a value through JSON and each compression."""
    body = encode_body(value, serializer="json", compression=compression)
    assert same(
        decode_body(
            body.body,
            content_type=body.content_type,
            content_encoding=body.content_encoding,
            compression=body.compression,
            accept_compression=compression and [compression],
        ),
        value,
    )


class Untouched(bytes):
    """A body that must not be looked at."""

    def __buffer__(self, flags: int) -> memoryview:
        raise AssertionError("looked at")

    def __bytes__(self) -> bytes:
        raise AssertionError("looked at")

    def __len__(self) -> int:
        raise AssertionError("looked at")


@pytest.mark.parametrize("accept", [None, [], ["json"]])
@pytest.mark.parametrize("call", [decode_body, open_body])
def test_types_come_first(accept: list[str] | None, call: Any) -> None:
    """C5.1: a bomb of type pickle is refused for its type: nothing was decompressed, or looked at."""
    bomb = bz2.compress(bytes(2**26))
    assert len(bomb) == 79
    content_type = "application/x-python-serialize"
    tracemalloc.start()
    try:
        with pytest.raises(ContentDisallowed, match="of type"):
            call(
                Untouched(bomb),
                content_type=content_type,
                compression="application/x-bz2",
                accept=accept,
                accept_compression=["bzip2"],
            )
        assert tracemalloc.get_traced_memory()[1] < 2**19
    finally:
        tracemalloc.stop()


def test_bombs_of_accepted_types() -> None:
    """C4.1, C4.2: the compression is not accepted, and if it is, the limits hold."""
    bomb = bz2.compress(bytes(2**26))
    options: dict[str, Any] = {"content_type": "application/json", "compression": "application/x-bz2"}
    with pytest.raises(ContentDisallowed, match="compressed"):
        decode_body(bomb, **options)
    with pytest.raises(BodyTooLarge):
        decode_body(bomb, **options, accept_compression=["bzip2"])
    zipped = zlib.compress(b" " * 5000 + b"1")
    options = {"content_type": "application/json", "compression": "gzip"}
    assert decode_body(zipped, **options) == 1
    with pytest.raises(BodyTooLarge):
        decode_body(zipped, **options, limits=DecompressionLimits(max_size=5000))
    with pytest.raises(ContentDisallowed):
        decode_body(zipped, **options, accept_compression=[])


def test_opened() -> None:
    """Kombu I2, H7: decompressed, and not decoded."""
    zipped = zlib.compress(b"no json")
    assert open_body(zipped, content_type="application/json", compression="zlib") == b"no json"
    assert open_body(memoryview(b"a")) == b"a"
    with pytest.raises(DecodeError):
        decode_body(zipped, content_type="application/json", compression="zlib")


@given(
    octets=st.binary(max_size=50),
    content_type=st.none() | st.sampled_from(["application/json", "text/plain", "application/x-msgpack", "x/y"]),
    compression=st.none()
    | st.text(max_size=6)
    | st.sampled_from(["zlib", "application/x-bz2", "zstd", "xz", "brotli"]),
    squeeze=st.booleans(),
)
def test_totality(octets: bytes, content_type: str | None, compression: str | None, squeeze: bool) -> None:
    """Z4: whatever comes is a value or one typed error."""
    try:
        decode_body(
            zlib.compress(octets) if squeeze else octets,
            content_type=content_type,
            content_encoding="utf-8",
            compression=compression,
            accept_compression=["zlib", "bzip2", "zstd", "xz", "brotli"],
        )
    except SerializationError as error:
        assert isinstance(error, DecodeError | ContentDisallowed)


@given(TYPED_VALUES)
def test_errors_travel(value: Any) -> None:
    """Kombu T2: the errors can be pickled and keep what they say."""
    error = pickle.loads(pickle.dumps(BodyTooLarge(repr(value), 5)))
    assert (str(error), error.limit) == (repr(value), 5)
