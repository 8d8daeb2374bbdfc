"""The compressions that come with txmsg, under the names that Kombu gives them.

What Kombu calls gzip is the zlib format (RFC 1950); we write that, and read gzip's own (RFC 1952) too.  zstd and
brotli are extras of the package and loaded on first use; bzip2 and lzma may be missing from a Python of one's own
making.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from typing import Any

from txmsg.errors import CodecNotInstalled
from txmsg.messaging.compression.streaming import Decompressor

__all__ = [
    "BrotliDecompressor",
    "ZlibDecompressor",
    "brotli_compress",
    "brotli_decompressor",
    "bzip2_compress",
    "bzip2_decompressor",
    "lzma_compress",
    "lzma_decompressor",
    "zlib_compress",
    "zstd_compress",
    "zstd_decompressor",
]

#: zlib's largest window, and 32 for "zlib or gzip, as its first octets say".
_ZLIB_OR_GZIP = 15 + 32
#: What a preset 9 (dictionary of 64 MiB) needs; a header can ask for 4 GiB.
_LZMA_MEMORY = 72 * 2**20
#: 2**24 octets: enough for all levels up to 19 on bodies of 16 MiB, and 8 times less than a frame could ask for.
_ZSTD_WINDOW_LOG = 24
#: brotli makes blocks that double in size and looks at the limit between them: this keeps the last one small.
_BROTLI_STEP = 2**18


def _library(names: tuple[str, ...], what: str, hint: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise CodecNotInstalled(f"the compression {what} needs a library that is missing: {hint}")


def zlib_compress(body: bytes) -> bytes:
    """The zlib format, whatever the name says."""
    return zlib.compress(body)


class ZlibDecompressor:
    """zlib's decompression with the interface of the others; takes the zlib and the gzip format."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_ZLIB_OR_GZIP)

    @property
    def eof(self) -> bool:
        """Whether the end has come."""
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        """What stood behind it."""
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` octets."""
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _bz2() -> Any:
    return _library(("bz2",), "bzip2", "this Python was built without bz2")


def bzip2_compress(body: bytes) -> bytes:
    """bzip2 at its highest level, which is its default."""
    compressed: bytes = _bz2().compress(body)
    return compressed


def bzip2_decompressor() -> Decompressor:
    """For one body of bzip2."""
    decompressor: Decompressor = _bz2().BZ2Decompressor()
    return decompressor


def _lzma() -> Any:
    return _library(("lzma",), "lzma", "this Python was built without lzma")


def lzma_compress(body: bytes) -> bytes:
    """The xz container with LZMA2, as `lzma.compress` makes it."""
    compressed: bytes = _lzma().compress(body)
    return compressed


def lzma_decompressor() -> Decompressor:
    """For one body of xz or of the older lzma format, whose dictionary is not larger than 64 MiB."""
    decompressor: Decompressor = _lzma().LZMADecompressor(memlimit=_LZMA_MEMORY)
    return decompressor


def _zstd() -> Any:
    names = ("compression.zstd",) if sys.version_info >= (3, 14) else ("backports.zstd",)
    return _library(names, "zstd", "install txmsg[zstd]")


def zstd_compress(body: bytes) -> bytes:
    """Zstandard (RFC 8878), level 3."""
    compressed: bytes = _zstd().compress(body)
    return compressed


def zstd_decompressor() -> Decompressor:
    """For one body of Zstandard, with a window of 16 MiB at most."""
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    decompressor: Decompressor = zstd.ZstdDecompressor(options=options)
    return decompressor


def _brotli() -> Any:
    # brotlicffi is for PyPy.
    library = _library(("brotli", "brotlicffi"), "brotli", "install txmsg[brotli]")
    if not hasattr(library.Decompressor, "can_accept_more_data"):
        raise CodecNotInstalled("the compression brotli needs a brotli of 1.2 or later, whose output can be bounded")
    return library


def brotli_compress(body: bytes) -> bytes:
    """Brotli (RFC 7932) at its default quality, 11: small and slow."""
    compressed: bytes = _brotli().compress(body)
    return compressed


class BrotliDecompressor:
    """Brotli's decompression with the interface of the others; what stands behind the end is an error already."""

    unused_data = b""

    def __init__(self, library: Any) -> None:
        self._brotli: Any = library.Decompressor()

    @property
    def eof(self) -> bool:
        """Whether the end has come."""
        return bool(self._brotli.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """About `max_length` octets: one block more than that, up to 512 KiB, is possible."""
        piece: bytes = self._brotli.process(data, output_buffer_limit=min(max_length, _BROTLI_STEP))
        return piece


def brotli_decompressor() -> Decompressor:
    """For one body of brotli."""
    return BrotliDecompressor(_brotli())
