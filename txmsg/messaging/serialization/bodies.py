"""A whole body both ways: serialized and compressed; checked, decompressed and decoded.

The order is the invariant (kombu G12 to G15, J27; C5.1): outwards encode, then compress; inwards look at
the content type and at the compression first, and only then at octets.  A bomb whose type is not accepted costs
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from txmsg.errors import EncodeError, clip
from txmsg.messaging.compression import DEFAULT_LIMITS, CompressionRegistry, DecompressionLimits, compressions
from txmsg.messaging.serialization.defaults import serializers
from txmsg.messaging.serialization.media_types import BINARY_ENCODINGS
from txmsg.messaging.serialization.registry import Accept, Encoded, SerializerRegistry

__all__ = ["EncodedBody", "decode_body", "encode_body", "open_body"]


class EncodedBody(NamedTuple):
    """A body that can be sent; `compression`: the media type for the header of that name, None: not compressed."""

    content_type: str
    content_encoding: str
    body: bytes
    compression: str | None


def encode_body(
    data: Any,
    *,
    serializer: str | None = None,
    compression: str | None = None,
    content_type: str | None = None,
    content_encoding: str | None = None,
    registry: SerializerRegistry = serializers,
    compression_registry: CompressionRegistry = compressions,
) -> EncodedBody:
    """Make a body of a value.

    content_type -- `data` is that already: bytes, or a str, which is encoded as `content_encoding` (UTF-8); the
    serializer is ignored.  Otherwise as :meth:`SerializerRegistry.dumps`.

    EncodeError, SerializerNotInstalled, CodecNotInstalled.
    """
    if content_type:
        encoded = _ready(data, content_type, content_encoding)
    else:
        encoded = registry.dumps(data, serializer)
    if not compression:
        return EncodedBody(encoded.content_type, encoded.content_encoding, encoded.body, None)
    body, kind = compression_registry.compress(encoded.body, compression)
    return EncodedBody(encoded.content_type, encoded.content_encoding, body, kind)


def _ready(data: Any, content_type: str, content_encoding: str | None) -> Encoded:
    if isinstance(data, str):
        encoding = content_encoding or "utf-8"
        try:
            body = data.encode("utf-8" if encoding.lower() in BINARY_ENCODINGS else encoding)
        except (LookupError, UnicodeError) as error:
            raise EncodeError(f"a text that cannot be encoded as {clip(encoding)!r}: {type(error).__name__}") from None
        return Encoded(content_type, encoding, body)
    if isinstance(data, bytes | bytearray | memoryview):
        return Encoded(content_type, content_encoding or "binary", bytes(data))
    raise EncodeError(f"with a content_type, a body is str or bytes already, not {type(data).__name__}")


def open_body(
    body: bytes | bytearray | memoryview,
    *,
    content_type: str | None = None,
    compression: str | None = None,
    accept: Accept = None,
    accept_compression: str | Iterable[str] | None = None,
    limits: DecompressionLimits = DEFAULT_LIMITS,
    registry: SerializerRegistry = serializers,
    compression_registry: CompressionRegistry = compressions,
) -> bytes:
    """The octets of a body that came, decompressed but not decoded.

    The arguments, and what is raised, are those of :func:`decode_body`.  The type must be accepted here, too.
    """
    registry.check(content_type, accept)
    if not compression:
        return bytes(body)
    return compression_registry.decompress(body, compression, accept_compression, limits)


def decode_body(
    body: bytes | bytearray | memoryview,
    *,
    content_type: str | None = None,
    content_encoding: str | None = None,
    compression: str | None = None,
    accept: Accept = None,
    accept_compression: str | Iterable[str] | None = None,
    limits: DecompressionLimits = DEFAULT_LIMITS,
    registry: SerializerRegistry = serializers,
    compression_registry: CompressionRegistry = compressions,
) -> Any:
    """The value of a body that came.

    content_type, content_encoding -- the properties.   compression -- the header `compression`.
    accept -- :meth:`SerializerRegistry.accept`.   accept_compression -- :meth:`CompressionRegistry.accept`.
    limits -- of what it becomes when it is decompressed; give `max_size` the `max_message_size` of the connection.

    ContentDisallowed: the type or the compression is not accepted.  DecodeError, BodyTooLarge: the body is not what
    they say, or too large.  SerializerNotInstalled, CodecNotInstalled: a library is missing.
    """
    if not compression:  # what loads() looks at first is the type, too
        return registry.loads(body, content_type, content_encoding, accept)
    accepted = registry.accept(accept)
    octets = open_body(
        body,
        content_type=content_type,
        compression=compression,
        accept=accepted,
        accept_compression=accept_compression,
        limits=limits,
        registry=registry,
        compression_registry=compression_registry,
    )
    return registry.loads(octets, content_type, content_encoding, accepted)
