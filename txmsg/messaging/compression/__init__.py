"""Compressed bodies: zlib, bzip2, lzma, zstd and brotli, with Kombu's names and types, bounded when they are received.

Which compression a body has is in the header `compression`, as a media type.  Pure: no Twisted, no I/O.
"""

from __future__ import annotations

from typing import Final

from txmsg.messaging.compression.limits import DEFAULT_LIMITS, DecompressionLimits
from txmsg.messaging.compression.registry import (
    DEFAULT_ACCEPT,
    CompressionRegistry,
    Encoder,
    default_compressions,
)
from txmsg.messaging.compression.streaming import Decompressor, decompress_within

__all__ = [
    "DEFAULT_ACCEPT",
    "DEFAULT_LIMITS",
    "CompressionRegistry",
    "DecompressionLimits",
    "Decompressor",
    "Encoder",
    "compress",
    "compressions",
    "decompress",
    "decompress_within",
    "default_compressions",
    "encoders",
    "get_decoder",
    "get_encoder",
    "register",
]

#: The registry that is used where none is given.
compressions: Final = default_compressions()

register = compressions.register
encoders = compressions.encoders
get_encoder = compressions.get_encoder
get_decoder = compressions.get_decoder
compress = compressions.compress
decompress = compressions.decompress
