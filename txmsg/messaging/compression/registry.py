"""Which compressions there are, by name and by the media type that the header `compression` carries.

The names and types are Kombu's (rows K1 to K3), so that both understand each other.  A publisher may use all of them.
A receiver takes only zlib and gzip, unless it names others (C4.2): who sends a message chooses the
header, and each decompressor is code that strangers could reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from txmsg.errors import CodecNotInstalled, ContentDisallowed, EncodeError, SerializationError, clip
from txmsg.messaging.compression import methods
from txmsg.messaging.compression.limits import DEFAULT_LIMITS, DecompressionLimits
from txmsg.messaging.compression.streaming import Decompressor, decompress_within

__all__ = ["DEFAULT_ACCEPT", "CompressionRegistry", "Encoder", "default_compressions"]

#: Compresses one body.
Encoder = Callable[[bytes], bytes]

#: What a receiver takes unless told otherwise.
DEFAULT_ACCEPT: Final = frozenset({"application/x-gzip"})


class _Method(NamedTuple):
    encoder: Encoder | None
    decoder: Callable[[], Decompressor] | None


class CompressionRegistry:
    """Compressions by media type, and the names that stand for the types.

    An empty one knows nothing; :func:`default_compressions` makes one with those of txmsg.
    """

    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}
        self._types: dict[str, str] = {}

    def register(
        self,
        encoder: Encoder | None,
        decoder: Callable[[], Decompressor] | None,
        content_type: str,
        aliases: Iterable[str] = (),
    ) -> None:
        """Add a compression, or replace the one of that type.

        encoder -- a callable, octets to octets; None: it is only for receiving.
        decoder -- makes one :class:`Decompressor` for each body, so that its output can be bounded; None: it is only
            for sending.  A callable that gives the whole output at once, as Kombu's are, will not do.
        content_type: str -- what the header says.   aliases -- names that mean the same.
        """
        self._methods[content_type] = _Method(encoder, decoder)
        self._types.update((alias, content_type) for alias in aliases)

    def unregister(self, name: str) -> None:
        """Forget a compression and its names; CodecNotInstalled if there is none."""
        content_type = self.content_type(name)
        if self._methods.pop(content_type, None) is None:
            raise _unknown(name)
        self._types = {alias: target for alias, target in self._types.items() if target != content_type}

    def content_type(self, name: str) -> str:
        """The media type that a name stands for; a type stands for itself, and so does what is unknown."""
        return self._types.get(name, name)

    def encoders(self) -> list[str]:
        """The media types that can be compressed to, of libraries that are missing too."""
        return [content_type for content_type, method in self._methods.items() if method.encoder is not None]

    def get_encoder(self, name: str) -> tuple[Encoder, str]:
        """The function and the media type of a name or type; CodecNotInstalled."""
        content_type = self.content_type(name)
        method = self._methods.get(content_type)
        if method is None or method.encoder is None:
            raise _unknown(name)
        return method.encoder, content_type

    def get_decoder(self, name: str, limits: DecompressionLimits = DEFAULT_LIMITS) -> Callable[[bytes], bytes]:
        """A function that decompresses one body within `limits`; CodecNotInstalled."""
        content_type = self.content_type(name)
        method = self._methods.get(content_type)
        if method is None or method.decoder is None:
            raise _unknown(name)
        make = method.decoder

        def decode(body: bytes) -> bytes:
            return decompress_within(make, body, clip(content_type), limits)

        return decode

    def accept(self, names: str | Iterable[str] | None) -> frozenset[str]:
        """The media types a receiver takes, from names and types.

        None: :data:`DEFAULT_ACCEPT`.  Nothing in it: no compressed body at all.  One str is one name.  A name that is
        not known is CodecNotInstalled here, when the receiver is made, and not at its first message.
        """
        if names is None:
            return DEFAULT_ACCEPT
        if isinstance(names, frozenset):
            return names if names <= self._methods.keys() else self.accept(sorted(names))
        types = [self.content_type(name) for name in ([names] if isinstance(names, str) else names)]
        for content_type in types:
            if content_type not in self._methods:
                raise _unknown(content_type)
        return frozenset(types)

    def check(self, name: str, accept: str | Iterable[str] | None = None) -> None:
        """Raise ContentDisallowed if a receiver does not take this compression; no octet was looked at."""
        if self.content_type(name) not in self.accept(accept):
            raise ContentDisallowed(f"refusing a body that is compressed as {clip(name)!r}: it is not accepted")

    def compress(self, body: bytes | str, name: str) -> tuple[bytes, str]:
        """The compressed body, and the media type for the header; str is UTF-8.  CodecNotInstalled, EncodeError."""
        encoder, content_type = self.get_encoder(name)
        try:
            octets = body.encode() if isinstance(body, str) else bytes(memoryview(body))
            return encoder(octets), content_type
        except SerializationError:
            raise
        except Exception as error:
            raise EncodeError(f"cannot compress as {content_type}: {type(error).__name__}: {error}") from error

    def decompress(
        self,
        body: bytes | bytearray | memoryview,
        name: str,
        accept: str | Iterable[str] | None = None,
        limits: DecompressionLimits = DEFAULT_LIMITS,
    ) -> bytes:
        """The content of a body that somebody sent, within `limits`.

        ContentDisallowed: not among `accept` (None: zlib and gzip).  CodecNotInstalled: the library is missing.
        DecodeError: broken, cut short, or followed by more.  BodyTooLarge: above the limits.
        """
        self.check(name, accept)
        return self.get_decoder(name, limits)(bytes(body))


def _unknown(name: str) -> CodecNotInstalled:
    return CodecNotInstalled(f"no compression {clip(name)!r} is registered")


def default_compressions() -> CompressionRegistry:
    """A new registry with zlib, bzip2, lzma, zstd and brotli."""
    registry = CompressionRegistry()
    registry.register(methods.zlib_compress, methods.ZlibDecompressor, "application/x-gzip", aliases=("gzip", "zlib"))
    registry.register(
        methods.bzip2_compress, methods.bzip2_decompressor, "application/x-bz2", aliases=("bzip2", "bzip")
    )
    registry.register(methods.lzma_compress, methods.lzma_decompressor, "application/x-lzma", aliases=("lzma", "xz"))
    registry.register(
        methods.zstd_compress, methods.zstd_decompressor, "application/zstd", aliases=("zstd", "zstandard")
    )
    registry.register(methods.brotli_compress, methods.brotli_decompressor, "application/x-brotli", aliases=("brotli",))
    return registry
