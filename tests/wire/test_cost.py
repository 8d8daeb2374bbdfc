"""Z3 and Z5: what receiving costs, counted in calls, octets copied and memory, never in time."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from tests.wire.peers import body_frame, content, cut, deliver, feed, header_frame, method_octets, open_client
from txmsg.wire.connection import Limits
from txmsg.wire.events import ACK, DELIVER
from txmsg.wire.splitter import Splitter

MEBIBYTE = 1024 * 1024

LIMITS = Limits(max_table_items=60_000)

#: One big body; one in small frames; one big header; many methods; many small messages.
STREAMS = [
    content(deliver(1), 1, b"x" * 30_000, at_most=120_000),
    content(deliver(1), 1, b"x" * 30_000, at_most=100),
    content(deliver(1), 1, b"x", properties=b"\x20\x00" + struct.pack(">I", 30_000) + b"\x00V" * 15_000),
    method_octets(1, 60, 30, b"\x02ct\x00") * 2000,
    b"".join(content(deliver(1, tag), 1, b"x" * 50) for tag in range(300)),
]


def calls_while(work: Callable[[], Any]) -> Counter[str]:
    """How often each function of the wire package was called: work, not time."""
    calls: Counter[str] = Counter()

    def count(called: FrameType, event: str, _argument: object) -> None:
        if event == "call" and "/txmsg/wire/" in called.f_code.co_filename.replace("\\", "/"):
            calls[called.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("octets", STREAMS)
def test_the_calls_for_single_octets_are_linear(octets: bytes) -> None:
    """Z3: a few calls for each octet, however far the frame's start is behind."""
    client = open_client(limits=LIMITS, frame_max=131072)
    calls = calls_while(lambda: feed(client, cut(octets, range(len(octets)))))
    assert sum(calls.values()) < 10 * len(octets)


class CountingSplitter(Splitter):
    """Counts the octets it copies."""

    __slots__ = ("copied",)

    def __init__(self) -> None:
        super().__init__()
        self.copied = 0

    def feed(self, data: bytes) -> bytes | None:
        """As ever."""
        joined = super().feed(data)
        self.copied += len(data) if joined is None else len(joined)
        return joined

    def keep(self, rest: bytes, needed: int) -> None:
        """As ever."""
        self.copied += len(rest)
        super().keep(rest, needed)


@pytest.mark.parametrize("chunk", [1, 7, 100])
@pytest.mark.parametrize("octets", STREAMS)
def test_octets_copied_are_linear(octets: bytes, chunk: int) -> None:
    """Z3: an octet of an unfinished frame is copied a few times, not once for every chunk that follows it."""
    client = open_client(limits=LIMITS, frame_max=131072)
    client._splitter = splitter = CountingSplitter()
    feed(client, cut(octets, range(0, len(octets), chunk)))
    assert splitter.copied < 4 * len(octets)


def test_a_mebibyte_in_single_octets() -> None:
    """Z3: bodies do not go through the splitter at all; a quadratic buffer would copy 10^12 octets here."""
    octets = content(deliver(1), 1, b"x" * MEBIBYTE, at_most=131064)
    client = open_client(frame_max=131072)
    client._splitter = splitter = CountingSplitter()
    (event,) = feed(client, cut(octets, range(len(octets))))
    assert isinstance(event, tuple)
    assert len(event[-1]) == MEBIBYTE
    assert splitter.copied < 1000


def peak_of(work: Callable[[], Any]) -> int:
    """The most memory allocated at one moment during `work`, in octets."""
    tracemalloc.start()
    try:
        kept = work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del kept


def test_memory_of_a_stalled_peer() -> None:
    """R19, Z5: declared sizes that never come cost nothing, on every channel at once."""
    client = open_client(range(1, 101), Limits())
    octets = b"".join(deliver(n) + header_frame(n, 16 * MEBIBYTE) + body_frame(n, b"x" * 10) for n in range(1, 101))
    assert peak_of(lambda: client.receive(octets)) < 200_000


def test_memory_of_a_big_content_in_small_chunks() -> None:
    """R18: frame_max, max_message_size and 8 MiB, with all of Python's overhead, also in chunks of 100 octets."""
    octets = content(deliver(1), 1, b"x" * 4 * MEBIBYTE, at_most=131064)
    client = open_client(frame_max=131072)
    peak = peak_of(lambda: feed(client, (octets[i : i + 100] for i in range(0, len(octets), 100))))
    assert peak < 131072 + (4 + 8) * MEBIBYTE


def test_caches_do_not_grow_with_what_a_peer_invents() -> None:
    """Z5: new consumer tags, routing keys and properties with every message, for ever."""
    client = open_client()
    stream = [
        content(
            deliver(1, tag, b"consumer%d" % tag, b"e%d" % tag, b"k%d" % tag + b"x" * 200),
            1,
            b"x",
            properties=b"\x00\x80" + bytes((len(b"m%d" % tag),)) + b"m%d" % tag,
        )
        for tag in range(6000)
    ]

    def receive_all() -> None:
        for octets in stream:
            client.receive(octets)

    tracemalloc.start()
    try:
        receive_all()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * MEBIBYTE


def test_amplification_of_the_worst_octets() -> None:
    """Z5: Python octets for an octet on the wire, for what costs us most; the table limits cap it."""
    table = b"\x00V" * 2000
    properties = b"\x20\x00" + struct.pack(">I", len(table)) + table
    worst = {
        "empty messages": content(deliver(1), 1, b"") * 1000,
        "acks": method_octets(1, 60, 80, struct.pack(">QB", 1, 0)) * 1000,
        "small methods": method_octets(1, 60, 11) * 1000,
        "void fields": content(deliver(1), 1, b"", properties) * 20,
    }
    for name, octets in worst.items():
        receive = open_client(frame_max=131072).receive
        assert peak_of(partial(receive, octets)) < 40 * len(octets) + 50_000, name


def test_kinds_are_what_the_amplification_test_thinks() -> None:
    """The streams above are read as what they are called."""
    client = open_client()
    events = client.receive(content(deliver(1), 1, b"") + method_octets(1, 60, 80, struct.pack(">QB", 1, 0)))
    assert [event[0] for event in events if isinstance(event, tuple)] == [DELIVER, ACK]
