"""Compressions by name and type, and which of them a receiver takes."""

from __future__ import annotations

import importlib
import zlib
from typing import Any

import pytest

from txmsg.errors import CodecNotInstalled, ConfigurationError, ContentDisallowed, EncodeError, SerializationError
from txmsg.messaging import compression
from txmsg.messaging.compression import DecompressionLimits, compressions, default_compressions, methods

TYPES = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
    "brotli": "application/x-brotli",
}


@pytest.mark.parametrize(("name", "content_type"), TYPES.items())
def test_names(name: str, content_type: str) -> None:
    """Kombu K1, K3: a name or a type, on both sides."""
    body, kind = compressions.compress(b"body", name)
    assert kind == content_type
    assert compressions.compress(b"body", content_type) == (body, content_type)
    for given in (name, content_type):
        assert compressions.decompress(body, given, accept=[name]) == b"body"
        assert compressions.decompress(memoryview(body), given, accept=name) == b"body"


def test_text() -> None:
    """Kombu K1, K5: str is UTF-8, octets of any kind are octets."""
    assert zlib.decompress(compression.compress("ä", "zlib")[0]) == "ä".encode()
    assert zlib.decompress(compression.compress(memoryview(b"\xff"), "zlib")[0]) == b"\xff"  # type: ignore[arg-type]
    for wrong in ("\ud800", 7, None):
        with pytest.raises(EncodeError):
            compression.compress(wrong, "zlib")  # type: ignore[arg-type]


def test_register() -> None:
    """Kombu K2: a compression of one's own, one-way too; the names of all."""
    registry = default_compressions()
    assert registry.encoders() == list(dict.fromkeys(TYPES.values()))
    registry.register(lambda body: zlib.compress(body, 9), methods.ZlibDecompressor, "application/x-best", ["best"])
    encoder, content_type = registry.get_encoder("best")
    assert content_type == "application/x-best"
    assert registry.get_decoder("best")(encoder(b"body")) == b"body"
    registry.register(None, methods.ZlibDecompressor, "application/x-one-way")
    assert "application/x-one-way" not in registry.encoders()
    with pytest.raises(CodecNotInstalled):
        registry.get_encoder("application/x-one-way")
    registry.unregister("best")
    for name in ("best", "application/x-best"):
        with pytest.raises(CodecNotInstalled):
            registry.get_encoder(name)
    with pytest.raises(CodecNotInstalled):
        registry.unregister("best")


def test_unknown() -> None:
    """Kombu K7: an error that says it, for the sender, and for the receiver a decode error."""
    with pytest.raises(CodecNotInstalled, match="no compression 'rar'"):
        compressions.compress(b"", "rar")
    with pytest.raises(LookupError):
        compressions.get_decoder("rar")
    with pytest.raises(ContentDisallowed, match="'rar'"):
        compressions.decompress(b"", "rar")
    with pytest.raises(CodecNotInstalled):
        compressions.accept(["zlib", "rar"])
    assert issubclass(CodecNotInstalled, SerializationError)


def test_what_a_receiver_takes() -> None:
    """C4.2: zlib and gzip, unless it names others; with an empty list nothing."""
    zipped = compressions.compress(b"body", "zlib")[0]
    squeezed = compressions.compress(b"body", "bzip2")[0]
    assert compressions.decompress(zipped, "application/x-gzip") == b"body"
    with pytest.raises(ContentDisallowed):
        compressions.decompress(squeezed, "application/x-bz2")
    with pytest.raises(ContentDisallowed):
        compressions.decompress(zipped, "zlib", accept=["bzip2"])
    with pytest.raises(ContentDisallowed):
        compressions.decompress(zipped, "zlib", accept=[])
    assert compressions.decompress(squeezed, "bzip", accept="bzip2") == b"body"
    checked = compressions.accept(["xz", "gzip"])
    assert checked == {"application/x-lzma", "application/x-gzip"}
    assert compressions.accept(checked) is checked
    assert compressions.accept(frozenset({"xz"})) == {"application/x-lzma"}


@pytest.mark.parametrize("name", ["bzip2", "lzma", "zstd", "brotli"])
def test_missing_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu AD2, K3: without its library a method is missing when it is used, and an error says so."""

    def missing(module: str) -> Any:
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (lambda: compressions.compress(b"", name), lambda: compressions.decompress(b"", name, accept=name)):
        with pytest.raises(CodecNotInstalled, match=name):
            call()


def test_old_brotli(monkeypatch: pytest.MonkeyPatch) -> None:
    """C4.1: a brotli whose output cannot be bounded is none."""

    class Old:
        class Decompressor:
            pass

    monkeypatch.setattr(importlib, "import_module", lambda module: Old)
    with pytest.raises(CodecNotInstalled, match=r"1\.2"):
        compressions.decompress(b"", "brotli", accept="brotli")


def test_limits() -> None:
    """Limits are numbers from 0."""
    for wrong in (-1, 1.5, True, None):
        with pytest.raises(ConfigurationError):
            DecompressionLimits(max_size=wrong)  # type: ignore[arg-type]
    limits = DecompressionLimits()
    assert [limits.ceiling(size) for size in (0, 10**4, 10**9)] == [2**20, 2 * 10**6, 2**24]
