"""Buffer to frames: what is kept of an unfinished frame, and what its first seven octets are refused for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txmsg.errors import RemoteProtocolError
from txmsg.wire.splitter import START_SIZE, Splitter, check_frame_start, describe_start


def refusal(frame_type: int, channel: int = 1, size: int = 10, size_limit: int = 4088, channel_max: int = 5) -> int:
    """The reply code with which a frame's start is refused; 0 when it is not."""
    try:
        check_frame_start(frame_type, channel, size, size_limit, channel_max, b"\x01\x00\x01\x00\x00\x00\x0a")
    except RemoteProtocolError as error:
        return error.reply_code
    return 0


@pytest.mark.parametrize(("frame_type", "code"), [(0, 501), (1, 0), (2, 0), (3, 0), (4, 501), (9, 501), (255, 501)])
def test_frame_types(frame_type: int, code: int) -> None:
    """F32: types 1, 2, 3 and 8; nothing else can be skipped, because nobody knows what it means."""
    assert refusal(frame_type) == code


@pytest.mark.parametrize(
    ("size", "code"), [(0, 0), (4088, 0), (4089, 501), (4096, 501), (2**31, 501), (2**32 - 1, 501)]
)
def test_frame_sizes(size: int, code: int) -> None:
    """F32, R19: the size is judged before an octet of the payload is there."""
    assert refusal(1, size=size) == code


def test_the_text_of_a_size_has_both_numbers() -> None:
    """Whoever set frame_max must be able to see what to change."""
    with pytest.raises(RemoteProtocolError, match="frame of 4097 octets, larger than the 4096 allowed"):
        check_frame_start(1, 1, 4089, 4088, 5, b"")


@pytest.mark.parametrize(("channel", "size", "code"), [(0, 0, 0), (5, 0, 501), (0, 1, 501), (6, 0, 501)])
def test_heartbeats(channel: int, size: int, code: int) -> None:
    """H-07, F32: on channel 0 and empty; anything else is a frame error (501), also beyond channel_max."""
    assert refusal(8, channel=channel, size=size) == code


@pytest.mark.parametrize(("channel", "code"), [(0, 0), (5, 0), (6, 504), (65535, 504)])
def test_channel_numbers(channel: int, code: int) -> None:
    """R19: a number above the negotiated channel_max cannot be open."""
    assert refusal(1, channel=channel) == code


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x28", "TLS"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"HTTP/1.", "HTTP"),
        (b"SSH-2.0", "SSH"),
        (b"\x2a\x01\x02\x03\x04\x05\x06", r"\(first octets b'\*"),
    ],
)
def test_other_protocols_are_named(start: bytes, words: str) -> None:
    """Bad input of the issue: a plain client on the TLS port, and other wrong ports, get one clear line."""
    with pytest.raises(RemoteProtocolError, match=words):
        check_frame_start(start[0], 0, 0, 4088, 0, start)
    assert "\n" not in describe_start(b"a\nb")


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 90))
def test_what_is_kept_comes_back(kept: bytes, data: bytes, needed: int) -> None:
    """Octets go in and come out in order, as soon as enough of them are there, and only once."""
    splitter = Splitter()
    splitter.keep(kept, needed)
    joined = splitter.feed(data)
    if len(kept) + len(data) < needed:
        assert joined is None
        assert splitter.pending == kept + data
    else:
        assert joined == kept + data
        assert not splitter.pending


def test_one_octet_at_a_time_costs_one_join() -> None:
    """Z3: nothing is joined before what is needed is there, so the cost does not grow with the square."""
    splitter = Splitter()
    splitter.keep(b"", 100_000)
    joins = [joined for _ in range(100_000) if (joined := splitter.feed(b"x")) is not None]
    assert joins == [b"x" * 100_000]


def test_clear() -> None:
    """After a failure nothing is kept."""
    splitter = Splitter()
    splitter.keep(b"abc", START_SIZE)
    splitter.clear()
    assert not splitter.pending
