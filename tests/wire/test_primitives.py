"""Short and long strings, timestamps, and the texts of errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import short_texts
from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire import primitives
from txmsg.wire.primitives import (
    decode_long_string,
    decode_short_string,
    encode_long_string,
    encode_short_string,
    seconds_since_epoch,
    show,
)


@given(short_texts())
def test_short_strings_come_back(text: str) -> None:
    """Z1: any str of up to 255 bytes."""
    octets = encode_short_string(text, "it")
    assert decode_short_string(octets, 0, len(octets), "it") == (text, len(octets))


@given(st.binary(max_size=255))
def test_octets_that_are_not_utf8_survive(octets: bytes) -> None:
    """Q-20, R20: what RabbitMQ hands through unchanged leaves us unchanged, and never grows beyond 255."""
    wire = bytes((len(octets),)) + octets
    text, _ = decode_short_string(wire, 0, len(wire), "it")
    assert encode_short_string(text, "it") == wire


def test_a_short_string_is_255_bytes_not_characters() -> None:
    """Q-22, CVE-2026-77408: 256 bytes are refused with both numbers in the text; nothing is cut."""
    assert encode_short_string("x" * 255, "it")[0] == 255
    with pytest.raises(EncodeError, match=r"^queue.declare.queue: 256 bytes of UTF-8 do not fit .* 255"):
        encode_short_string("x" * 256, "queue.declare.queue")
    with pytest.raises(EncodeError, match="258 bytes"):
        encode_short_string("€" * 86, "it")


@pytest.mark.parametrize("value", [None, 5, b"bytes", object(), ["x"]])
def test_what_is_no_str_is_refused(value: object) -> None:
    """Q-21: the text names the place and the type."""
    with pytest.raises(EncodeError, match=f"^it: expected a str, got {type(value).__name__}$"):
        encode_short_string(value, "it")


def test_foreign_surrogates_are_refused_and_leave_no_trace_of_the_string() -> None:
    """C3.1: the error, and what it was raised from, do not hold the string, which may be a password."""
    with pytest.raises(EncodeError, match="lone surrogates") as caught:
        encode_short_string("hunter2\ud800", "it")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_short_string_stays_within_its_end() -> None:
    """R18: the end is that of the enclosing argument list, not that of the buffer."""
    assert decode_short_string(b"\x02abXX", 0, 3, "it") == ("ab", 3)
    with pytest.raises(RemoteProtocolError, match="it: the short string says 2 octets, 1 are left") as caught:
        decode_short_string(b"\x02abXX", 0, 2, "it")
    assert caught.value.reply_code == 501
    with pytest.raises(RemoteProtocolError, match="length is missing"):
        decode_short_string(b"\x02ab", 3, 3, "it")


@pytest.mark.parametrize("value", [b"", b"\x00\xff", bytearray(b"ab"), memoryview(b"abc"), "äöü"])
def test_long_strings_come_back(value: bytes | str) -> None:
    """Z1: octets as they are, text as UTF-8."""
    octets = encode_long_string(value, "it")
    expected = value.encode() if isinstance(value, str) else bytes(value)
    assert decode_long_string(octets, 0, len(octets), "it") == (expected, len(octets))


def test_a_long_string_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """R21: beyond 2**32-1 octets (3 here) it is an EncodeError, not an OverflowError."""
    monkeypatch.setattr(primitives, "MAX_LONG_STRING", 3)
    assert encode_long_string(b"abc", "it") == b"\x00\x00\x00\x03abc"
    with pytest.raises(EncodeError, match=r"^it: 4 bytes do not fit a long string"):
        encode_long_string(b"abcd", "it")


@pytest.mark.parametrize("declared", [3, 4, 2**31, 2**32 - 1])
def test_a_long_string_is_compared_with_its_end(declared: int) -> None:
    """R18, CVE-2026-77411: a length beyond what is there is refused, also 2**32-1, and nothing is cut short."""
    wire = declared.to_bytes(4, "big") + b"abcd"
    with pytest.raises(RemoteProtocolError, match=f"says {declared} octets, 2 are left"):
        decode_long_string(wire, 0, 6, "it")


@pytest.mark.parametrize("cut", range(4))
def test_a_long_string_without_its_length_is_refused(cut: int) -> None:
    """R18: fewer than four octets of length."""
    with pytest.raises(RemoteProtocolError, match="length is cut"):
        decode_long_string(b"\x00" * cut, 0, cut, "it")


def test_datetimes_are_seconds_in_utc() -> None:
    """Q-23: naive means UTC, an offset counts, a fraction is dropped."""
    moment = datetime(2026, 11, 21, 12, 0, 30, 999999)
    seconds = 1795262430
    assert seconds_since_epoch(moment, "it") == seconds
    assert seconds_since_epoch(moment.replace(tzinfo=UTC), "it") == seconds
    assert seconds_since_epoch(moment.replace(tzinfo=timezone(timedelta(hours=5))), "it") == seconds - 5 * 3600
    assert seconds_since_epoch(datetime(1970, 1, 1), "it") == 0
    assert seconds_since_epoch(datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), "it") > 2**37


def test_a_time_zone_without_an_offset_counts_as_naive() -> None:
    """Q-23: as the datetime module itself defines naive."""

    class Nowhere(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta | None:
            return None

        dst = utcoffset

        def tzname(self, moment: datetime | None) -> str | None:
            return None

    assert seconds_since_epoch(datetime(1970, 1, 1, 0, 1, tzinfo=Nowhere()), "it") == 60


def test_before_1970_is_refused() -> None:
    """Q-10: the type is unsigned; -1 must not become the year 584 billion."""
    with pytest.raises(EncodeError, match=r"^it: .* before 1970"):
        seconds_since_epoch(datetime(1969, 12, 31, 23, 59, 59), "it")


def test_show_never_fails_and_never_grows() -> None:
    """repr is for logs: a value that cannot be shown, or is huge, must not hurt."""

    class Broken(str):
        def __repr__(self) -> str:
            raise RuntimeError("no")

        __len__ = None  # type: ignore[assignment]

    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    cyclic: dict[str, object] = {}
    cyclic["self"] = cyclic
    for value in (Broken("x"), deep, cyclic, "x" * 10**6, {str(n): n for n in range(10**5)}, 10**4000, b"\xff" * 10**6):
        assert len(show(value)) < 600
    assert "\n" not in show("a\nb\x1b[0m\udcff")


def test_show_says_what_it_cannot_show() -> None:
    """Python refuses to print integers of more than 4300 digits; an error text must not fail for that."""
    assert show(10**5000) == "<int that cannot be shown>"
