"""Decompression: both ways, broken input, and bombs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from txmsg.errors import BodyTooLarge, DecodeError, SerializationError
from txmsg.messaging.compression import DecompressionLimits, compressions

MIB = 2**20
NAMES = ("zlib", "bzip2", "lzma", "zstd", "brotli")


def bombs() -> dict[str, bytes]:
    """64 MiB of nothing, made piece by piece; that of bzip2 has 79 octets."""
    zeros = bytes(MIB)
    deflate, burrows, xz = zlib.compressobj(), bz2.BZ2Compressor(), lzma.LZMACompressor()
    zst, bro = zstd.ZstdCompressor(), brotli.Compressor(quality=5)
    made = {name: bytearray() for name in NAMES}
    for _ in range(64):
        made["zlib"] += deflate.compress(zeros)
        made["bzip2"] += burrows.compress(zeros)
        made["lzma"] += xz.compress(zeros)
        made["zstd"] += zst.compress(zeros)
        made["brotli"] += bro.process(zeros)
    for name, end in zip(NAMES, (deflate.flush, burrows.flush, xz.flush, zst.flush, bro.finish), strict=True):
        made[name] += end()
    return {name: bytes(octets) for name, octets in made.items()}


BOMBS = bombs()


def unpack(body: bytes, name: str, limits: DecompressionLimits | None = None) -> bytes:
    return compressions.decompress(body, name, accept=NAMES, limits=limits or DecompressionLimits())


@pytest.mark.parametrize("name", NAMES)
def test_bomb(name: str) -> None:
    """C4.1, kombu K6: each bomb is refused, at the cost of the limit and not of what it holds."""
    body = BOMBS[name]
    assert len(body) < MIB / 8
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge) as raised:
            unpack(body, name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ceiling = max(MIB, 200 * len(body))
    assert raised.value.limit == ceiling
    # The output twice, and the window of the format (lzma's default has 8 MiB).
    assert peak < 3 * ceiling + 12 * MIB


def test_the_bomb_of_bzip2_is_small() -> None:
    """C4.1: 79 octets that hold 64 MiB."""
    assert len(BOMBS["bzip2"]) == 79


@pytest.mark.parametrize("name", NAMES)
def test_limits(name: str) -> None:
    """C4.1: the size is a limit to the octet; the ratio counts from `ratio_from` on."""
    content = bytes(2 * MIB)
    body = compressions.compress(content, name)[0]
    loose = DecompressionLimits(max_size=2 * MIB, max_ratio=10**9)
    assert unpack(body, name, loose) == content
    for limits in (
        DecompressionLimits(max_size=2 * MIB - 1, max_ratio=10**9),
        DecompressionLimits(max_ratio=200, ratio_from=2 * MIB - 1),
    ):
        with pytest.raises(BodyTooLarge) as raised:
            unpack(body, name, limits)
        assert raised.value.limit == 2 * MIB - 1
    assert unpack(body, name, DecompressionLimits(max_ratio=0, ratio_from=2 * MIB)) == content


@pytest.mark.parametrize("name", NAMES)
def test_nested(name: str) -> None:
    """C4.1: only one layer is taken off, whatever is in it."""
    inner = compressions.compress(b"x" * 1000, name)[0]
    assert unpack(compressions.compress(inner, name)[0], name) == inner


@pytest.mark.parametrize("name", NAMES)
def test_broken(name: str) -> None:
    """Each body that is cut short, has something behind its end, or is nothing at all is a DecodeError."""
    content = bytes(range(256)) * 8
    body = compressions.compress(content, name)[0]
    assert unpack(body, name) == content
    for broken in (b"", *(body[:n] for n in range(1, len(body))), body + b"x", body + body, b"\xff" * 100):
        with pytest.raises(DecodeError):
            unpack(broken, name)


@given(name=st.sampled_from(NAMES), content=st.binary(max_size=200))
def test_round_trip(name: str, content: bytes) -> None:
    """Z1: what was compressed comes back, and empty bodies too."""
    assert unpack(compressions.compress(content, name)[0], name) == content


@given(name=st.sampled_from(NAMES), head=st.booleans(), octets=st.binary(max_size=100))
def test_totality(name: str, head: bool, octets: bytes) -> None:
    """Z4: any octets are a body or one typed error."""
    start = compressions.compress(b"something", name)[0][:8] if head else b""
    try:
        unpack(start + octets, name, DecompressionLimits(max_size=MIB))
    except SerializationError as error:
        assert isinstance(error, DecodeError)


def test_gzip() -> None:
    """Kombu K4: 'gzip' writes the zlib format; the format of gzip files is read, too, and bounded."""
    assert zlib.decompress(compressions.compress(b"text", "gzip")[0]) == b"text"
    assert unpack(gzip.compress(b"text"), "gzip") == b"text"
    with pytest.raises(BodyTooLarge):
        unpack(gzip.compress(bytes(2 * MIB)), "gzip")


def test_the_window_of_lzma() -> None:
    """C4.1: a header that asks for a dictionary of 1 GiB is refused before there is one; preset 9 is not."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**26}]
    assert unpack(lzma.compress(b"text", filters=filters), "lzma") == b"text"
    # The older format: properties, the size of the dictionary, "unknown" length.
    body = b"\x5d" + (2**30).to_bytes(4, "little") + b"\xff" * 8 + bytes(20)
    with pytest.raises(DecodeError, match="LZMAError"):
        unpack(body, "lzma")


def test_the_window_of_zstd() -> None:
    """C4.1: neither is a window of 128 MiB."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.compression_level: 1}
    stream = zstd.ZstdCompressor(options=options)
    body = stream.compress(b"text") + stream.flush()
    with pytest.raises(DecodeError, match="ZstdError"):
        unpack(body, "zstd")


def test_a_decompressor_that_does_nothing() -> None:
    """One that neither ends nor gives anything does not hold us."""

    class Idle:
        eof = False
        unused_data = b""

        def decompress(self, data: bytes, max_length: int) -> bytes:
            return b""

    registry = type(compressions)()
    registry.register(None, Idle, "application/x-idle", ["idle"])
    with pytest.raises(DecodeError, match="ends too early"):
        registry.decompress(b"x", "idle", accept="idle")
