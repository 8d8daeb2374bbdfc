"""Decompression that stops at a limit (C4.1).

Memory: one octet more than the ceiling is made at most, twice of it while pieces are joined, and beside it what the
format itself needs (its window: at most 72 MiB for lzma, 16 MiB for zstd and brotli, 4 MiB for bzip2, 32 KiB for zlib).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from txmsg.errors import BodyTooLarge, DecodeError, SerializationError
from txmsg.messaging.compression.limits import DEFAULT_LIMITS, DecompressionLimits

__all__ = ["Decompressor", "decompress_within"]

#: A decompressor that does not get on, neither with octets nor with its end, is broken; it must not hold the reactor.
_IDLE_STEPS = 8


class Decompressor(Protocol):
    """One body's decompression, as `bz2.BZ2Decompressor` and `lzma.LZMADecompressor` do it."""

    @property
    def eof(self) -> bool:
        """Whether the compressed data has come to its end."""

    @property
    def unused_data(self) -> bytes:
        """What stood behind that end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take `data` and give at most `max_length` octets; what is left over comes with the next calls."""


def decompress_within(
    make: Callable[[], Decompressor], body: bytes, what: str, limits: DecompressionLimits = DEFAULT_LIMITS
) -> bytes:
    """The content of `body`.

    `what` names the compression in errors.  Raises DecodeError for what is broken, cut short or followed by more, and
    BodyTooLarge as soon as there is one octet too many.
    """
    ceiling = limits.ceiling(len(body))
    try:
        return _joined(make(), body, what, ceiling)
    except SerializationError:
        raise
    except Exception as error:  # of any library: zlib.error, OSError, EOFError, LZMAError, ZstdError, MemoryError ...
        raise DecodeError(f"a body that is not {what}: {type(error).__name__}") from error


def _joined(decompressor: Decompressor, body: bytes, what: str, ceiling: int) -> bytes:
    pieces: list[bytes] = []
    size, idle = 0, 0
    data = body
    while not decompressor.eof:
        piece = decompressor.decompress(data, ceiling + 1 - size)
        data = b""
        size += len(piece)
        if size > ceiling:
            raise BodyTooLarge(f"{len(body)} octets of {what} become more than {ceiling}", ceiling)
        if piece:
            pieces.append(piece)
            idle = 0
        elif not decompressor.eof:
            idle += 1
            if idle == _IDLE_STEPS:
                raise DecodeError(f"a body of {what} that ends too early")
    if decompressor.unused_data:
        raise DecodeError(f"a body of {what} with something behind its end")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
