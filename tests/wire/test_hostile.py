"""A hostile or broken peer: every fault has one verdict, at once, at a bounded cost.

Reliability.md 3.4, F32, F33 and F39 as tables: what each fault is answered with, whole and octet by octet.  Where
RabbitMQ tolerates something (0.9: body overrun, 8 octets beyond frame_max, sizes of 2^63) this is stricter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.peers import (
    BODY,
    HEADER,
    METHOD,
    body_frame,
    content,
    cut,
    deliver,
    failure_of,
    feed,
    frame,
    header_frame,
    method_octets,
    normal,
    open_client,
    open_server,
    publish,
)
from tests.wire.strategies import method_payloads, mutated, property_lists
from txmsg.wire.connection import ConnectionState, Limits, Role, WireConnection
from txmsg.wire.events import Event, MethodReceived, ProtocolFailure
from txmsg.wire.methods import connection
from txmsg.wire.properties import UndecodableProperties

MEBIBYTE = 1024 * 1024
HEARTBEAT = frame(8, 0, b"")

#: name -> (octets, reply code), for a client with channels 1 and 2 open, channel_max 2047, frame_max 4096 and
#: max_message_size 1 MiB.
FAULTS: dict[str, tuple[bytes, int]] = {
    # F32: frames
    "frame one octet over frame_max": (frame(METHOD, 1, b"x" * 4089), 501),
    "frame of frame_max and 8 more": (frame(BODY, 1, b"x" * 4096), 501),
    "frame of 2^31": (frame(METHOD, 1, b"", size=2**31), 501),
    "frame of 2^32-1": (frame(BODY, 1, b"", size=2**32 - 1), 501),
    "method with a wrong end octet": (frame(METHOD, 1, struct.pack(">HH", 60, 11), end=0), 501),
    "body with a wrong end octet": (deliver(1) + header_frame(1, 3) + frame(BODY, 1, b"abc", end=0xCD), 501),
    "header with a wrong end octet": (deliver(1) + frame(HEADER, 1, struct.pack(">HHQH", 60, 0, 1, 0), end=1), 501),
    "frame type 0": (frame(0, 1, b""), 501),
    "frame type 4": (frame(4, 1, b""), 501),
    "frame type 9": (frame(9, 0, b""), 501),
    "heartbeat on channel 5": (frame(8, 5, b""), 501),
    "heartbeat with a payload": (frame(8, 0, b"x"), 501),
    "method without ids": (frame(METHOD, 1, b"\x00\x3c\x00"), 501),
    "method without anything": (frame(METHOD, 1, b""), 501),
    "method on a channel that is not open": (method_octets(3, 60, 11), 504),
    "method on a channel above channel_max": (method_octets(2048, 60, 11), 504),
    "deliver on a channel that is not open": (deliver(3), 504),
    "method of an unknown class": (method_octets(1, 61, 10), 540),
    "unknown method of a known class": (method_octets(1, 60, 12), 540),
    "unknown method on channel 0": (method_octets(0, 10, 99), 540),
    "class access": (method_octets(1, 30, 11, b"\x00\x01"), 540),
    "truncated arguments": (method_octets(1, 50, 11, b"\x05q"), 501),
    "octets after the arguments": (method_octets(1, 60, 11, b"x"), 501),
    "a table longer than its frame": (method_octets(0, 10, 60, b"\xff"), 501),
    "a client's method from a server": (method_octets(1, 60, 10, b"\x00" * 7), 503),
    "publish from a server": (publish(1), 503),
    "start once more": (method_octets(0, 10, 10, b"\x00\x09" + b"\x00" * 12), 503),
    "open-ok once more": (method_octets(0, 10, 41, b"\x00"), 503),
    "channel.open-ok once more": (method_octets(1, 20, 11, b"\x00" * 4), 503),
    "close-ok for no close": (method_octets(0, 10, 51), 503),
    "channel.close-ok for no close": (method_octets(1, 20, 41), 503),
    "connection class on a channel": (method_octets(1, 10, 60, b"\x00"), 503),
    "channel class on channel 0": (method_octets(0, 20, 41), 503),
    "deliver on channel 0": (deliver(0), 503),
    "header on channel 0": (header_frame(0, 1), 504),
    "body on channel 0": (body_frame(0, b"x"), 504),
    "header on a channel that is not open": (header_frame(3, 1), 504),
    "body on a channel that is not open": (body_frame(3, b"x"), 504),
    # F33: contents
    "header first": (header_frame(1, 3), 505),
    "body first": (body_frame(1, b"abc"), 505),
    "body before the header": (deliver(1) + body_frame(1, b"abc"), 505),
    "body on the channel of no content": (deliver(1) + header_frame(1, 3) + body_frame(2, b"abc"), 505),
    "two headers": (deliver(1) + header_frame(1, 3) + header_frame(1, 3), 505),
    "method inside a content": (deliver(1) + method_octets(1, 60, 11), 505),
    "deliver inside a content": (deliver(1) + header_frame(1, 3) + deliver(1), 505),
    "ack inside a content": (deliver(1) + header_frame(1, 3) + method_octets(1, 60, 80, b"\x00" * 9), 505),
    "channel.close inside a content": (deliver(1) + method_octets(1, 20, 40, b"\x01\x94\x00\x00\x00\x00\x00"), 505),
    "body beyond the size, in one frame": (deliver(1) + header_frame(1, 1) + body_frame(1, b"ab"), 501),
    "body beyond the size, in two": (
        deliver(1) + header_frame(1, 3) + body_frame(1, b"ab") + body_frame(1, b"cd"),
        501,
    ),
    "body frame after an empty content": (deliver(1) + header_frame(1, 0) + body_frame(1, b"a"), 505),
    "empty body frame after an empty content": (deliver(1) + header_frame(1, 0) + body_frame(1, b""), 505),
    "body frame after the last": (content(deliver(1), 1, b"abc") + body_frame(1, b""), 505),
    "header of another class": (deliver(1) + header_frame(1, 3, class_id=50), 501),
    "header of class 0": (deliver(1) + header_frame(1, 3, class_id=0), 501),
    "weight": (deliver(1) + header_frame(1, 3, weight=1), 501),
    "cut header": (deliver(1) + frame(HEADER, 1, struct.pack(">HHI", 60, 0, 0)), 501),
    "size of one over max_message_size": (deliver(1) + header_frame(1, MEBIBYTE + 1), 501),
    "size of 2^63": (deliver(1) + header_frame(1, 2**63), 501),
    "size of 2^64-1": (deliver(1) + header_frame(1, 2**64 - 1), 501),
}

#: What looks odd and is allowed.
ODDITIES: dict[str, tuple[bytes, int]] = {
    "frame of exactly frame_max": (content(deliver(1), 1, b"x" * 4088), 1),
    "heartbeats anywhere": (
        frame(8, 0, b"") + deliver(1) + frame(8, 0, b"") + header_frame(1, 0) + frame(8, 0, b""),
        1,
    ),
    "size of exactly max_message_size": (content(deliver(1), 1, b"x" * MEBIBYTE), 1),
    "bits that are not declared": (method_octets(1, 60, 80, struct.pack(">QB", 1, 0xFD)), 1),
    "a zero-sized body frame": (deliver(1) + header_frame(1, 1) + body_frame(1, b"") + body_frame(1, b"x"), 1),
    "missing rest": (deliver(1) + header_frame(1, 100) + body_frame(1, b"x" * 99), 0),
    "body frames of one octet": (content(deliver(1), 1, b"abc", at_most=1), 1),
    "update-secret-ok that nobody asked for": (method_octets(0, 10, 71), 1),
    "unblocked that was not blocked": (method_octets(0, 10, 61), 1),
    "consumer tag that is not UTF-8": (content(deliver(1, consumer=b"\xff\xfe"), 1, b""), 1),
    "properties that do not decode": (content(deliver(1), 1, b"x", properties=b"\x80\x00\x09x"), 1),
    "no properties at all": (content(deliver(1), 1, b"x", properties=b""), 1),
}


def victim() -> WireConnection:
    """A fresh client as the table says."""
    return open_client((1, 2), Limits(max_message_size=MEBIBYTE))


def ways(octets: bytes) -> Iterator[list[bytes]]:
    """Whole; in two pieces, cut at the end of a frame's start and elsewhere; octet by octet."""
    yield [octets]
    for place in (1, 7, 8, len(octets) // 2, len(octets) - 1):
        yield list(cut(octets, [place]))
    if len(octets) <= 10_000:
        yield list(cut(octets, range(len(octets))))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str, warm: bool) -> None:
    """F32, F33, S-26, S-27, S-30: one failure with the right code, however it is cut, with cold and warm caches."""
    octets, code = FAULTS[name]
    before = content(deliver(1, 7), 1, b"abc") + method_octets(1, 60, 80, struct.pack(">QB", 1, 0)) if warm else b""
    texts = set()
    for chunks in ways(octets):
        client = victim()
        assert len(client.receive(before)) == (2 if warm else 0)
        texts.add(failure_of(feed(client, chunks), code))
        assert client.receive(content(deliver(1), 1, b"abc")) == []
    assert len(texts) == 1


@pytest.mark.parametrize("name", ODDITIES)
def test_oddities(name: str) -> None:
    """F32, F33, F45: accepted, with as many events as there are, however they are cut."""
    octets, count = ODDITIES[name]
    for chunks in ways(octets):
        events = feed(victim(), chunks)
        assert len(events) == count
        assert not any(isinstance(event, ProtocolFailure) for event in events)


def test_a_size_is_refused_on_the_frames_start() -> None:
    """R19, CVE-2026-61634: seven octets are enough, and nothing was kept for the rest."""
    client = victim()
    failure_of(client.receive(frame(BODY, 1, b"", size=2**32 - 1)[:7]), 501)
    client = victim()
    client.receive(deliver(1) + header_frame(1, 10))
    failure_of(client.receive(struct.pack(">BHI", BODY, 1, 11)), 501)


def test_undecodable_properties_cost_one_message() -> None:
    """R20, S-31: the delivery can still be rejected; the next one is not touched."""
    bad = content(deliver(1, 1), 1, b"x", properties=b"\x20\x00\x00\x00\x00\x05\x01aZ\x00\x00")
    first, second = victim().receive(bad + content(deliver(1, 2), 1, b"y"))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert isinstance(first[-2], UndecodableProperties)
    assert (first[3], first[-1], second[3], second[-1]) == (1, b"x", 2, b"y")


# -- F39, F40: the handshake ------------------------------------------------------------------------------


def waiting_for(state: ConnectionState) -> WireConnection:
    """A client in the handshake."""
    client = WireConnection(Role.CLIENT)
    client.send_protocol_header()
    if state is ConnectionState.WANT_TUNE:
        client.receive(method_octets(0, 10, 10, b"\x00\x09" + b"\x00" * 12))
        client.send_method(0, connection.StartOk())
    assert client.state is state
    return client


@pytest.mark.parametrize(
    ("frame_max", "code"), [(0, 0), (1, 502), (4095, 502), (4096, 0), (131072, 0), (2**31, 0), (2**32 - 1, 0)]
)
@pytest.mark.parametrize("channel_max", [0, 1])
@pytest.mark.parametrize("heartbeat", [0, 1, 65535])
def test_tune(frame_max: int, code: int, channel_max: int, heartbeat: int) -> None:
    """F39, R19, GHSA-37f9-7m79-6866: a frame_max of 1 to 4095 is refused; what is too large is ours to lower."""
    octets = method_octets(0, 10, 30, struct.pack(">HIH", channel_max, frame_max, heartbeat))
    for chunks in ways(octets):
        events = feed(waiting_for(ConnectionState.WANT_TUNE), chunks)
        if code:
            assert str(frame_max) in failure_of(events, code)
        else:
            (event,) = events
            assert isinstance(event, MethodReceived)


def test_tune_ok_too_small() -> None:
    """F39 from the other side: a client that asks for frames too small to hold a method."""
    server = WireConnection(Role.SERVER)
    server.receive(b"AMQP\x00\x00\x09\x01")
    server.send_method(0, connection.Start())
    server.receive(method_octets(0, 10, 11, b"\x00" * 4 + b"\x05PLAIN" + b"\x00" * 4 + b"\x00"))
    server.send_method(0, connection.Tune())
    failure_of(server.receive(method_octets(0, 10, 31, struct.pack(">HIH", 0, 100, 0))), 502)


def start(properties: bytes, mechanisms: bytes = b"PLAIN") -> bytes:
    """A connection.start with a table given as octets."""
    table = struct.pack(">I", len(properties)) + properties
    return method_octets(0, 10, 10, b"\x00\x09" + table + struct.pack(">I", len(mechanisms)) + mechanisms + b"\x00" * 4)


def nested(depth: int) -> bytes:
    """A table nested `depth` levels deep, the outermost not counted."""
    octets = b""
    for _ in range(depth):
        octets = b"\x01aF" + struct.pack(">I", len(octets)) + octets
    return octets


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (start(nested(31)), 0),
        (start(nested(32)), 502),
        (start(nested(500)), 502),
        (start(nested(10_000)), 501),
        (start(b"".join(b"\x02" + struct.pack(">H", i) + b"V" for i in range(1000))), 0),
        (start(b"".join(b"\x04" + struct.pack(">I", i) + b"V" for i in range(100_000))), 501),
        (method_octets(0, 10, 10, b"\x00\x09" + b"\x00" * 4 + b"\x7f\xff\xff\xff" + b"PLAIN"), 501),
        (method_octets(0, 10, 10, b"\x00\x09" + b"\xff\xff\xff\xff"), 502),
        (method_octets(1, 60, 11), 504),
        (frame(8, 0, b"x"), 501),
        (method_octets(0, 10, 30, b"\x00" * 8), 503),
    ],
)
def test_start(octets: bytes, code: int) -> None:
    """F40: nesting, numbers of keys, long strings; before tune a frame over 4096 is refused unread."""
    for chunks in ways(octets[:20_000]):
        events = feed(waiting_for(ConnectionState.WANT_START), chunks)
        if not code:
            assert isinstance(events[0], MethodReceived)
            continue
        assert isinstance(events[-1], ProtocolFailure)
        assert events[-1].error.reply_code in ({code} | ({501} if code == 502 else set()))


# -- Z4: any octets ---------------------------------------------------------------------------------------


def frames() -> st.SearchStrategy[bytes]:
    """Frames that are likely to be read deep into."""
    numbers = st.sampled_from([0, 1, 1, 1, 2, 3, 2048])
    bodies = st.binary(max_size=60)
    return st.one_of(
        st.builds(frame, st.just(METHOD), numbers, method_payloads()),
        st.builds(frame, st.sampled_from([METHOD, HEADER, BODY, 8, 4]), numbers, bodies),
        st.builds(deliver, numbers, st.integers(0, 2**64 - 1), st.binary(max_size=8)),
        st.builds(publish, numbers),
        st.builds(header_frame, numbers, st.integers(0, 60), property_lists()),
        st.builds(body_frame, numbers, bodies),
        st.builds(lambda body, properties: content(deliver(1), 1, body, properties), bodies, property_lists()),
        st.builds(lambda body, properties: content(publish(1), 1, body, properties), bodies, property_lists()),
        st.just(content(deliver(1), 1, b"again")),
    )


def streams() -> st.SearchStrategy[bytes]:
    """Frames in a row."""
    return st.lists(frames(), max_size=8).map(b"".join)


def any_octets() -> st.SearchStrategy[bytes]:
    """Frames in a row, the same with faults, and noise."""
    return streams() | mutated(streams()) | st.binary(max_size=200)


@pytest.mark.parametrize("make", [open_client, open_server])
@settings(max_examples=150, deadline=None)
@given(
    octets=streams() | mutated(streams()) | st.binary(max_size=200), places=st.lists(st.integers(0, 800), max_size=6)
)
def test_any_octets(make: Callable[[tuple[int, ...]], WireConnection], octets: bytes, places: list[int]) -> None:
    """Z4, Z3, R18: events, or events and one failure; never an exception; the same in any chunks; then silence."""
    whole = make((1, 2))
    events = whole.receive(octets)
    check_total(whole, events)
    for chunks in (cut(octets, places), cut(octets, range(len(octets)))):
        pieces = make((1, 2))
        assert normal(feed(pieces, chunks)) == normal(events)
        assert pieces.state is whole.state
        assert pieces.channels == whole.channels


@settings(max_examples=100, deadline=None)
@given(octets=any_octets(), places=st.lists(st.integers(0, 300), max_size=6))
@example(b"AMQP\x00\x00\x09\x01", [])
@example(b"AMQ", [])
def test_any_octets_in_the_handshake(octets: bytes, places: list[int]) -> None:
    """Z4, R36: the same before anybody has logged in, for both ends."""
    for role in Role:
        made = []
        for chunks in ([octets], cut(octets, places), cut(octets, range(len(octets)))):
            wire = WireConnection(role)
            if role is Role.CLIENT:
                wire.send_protocol_header()
            events = feed(wire, chunks)
            check_total(wire, events)
            made.append(normal(events))
        assert made[0] == made[1] == made[2]


def check_total(wire: WireConnection, events: list[Event]) -> None:
    """At most one failure, the last event, with an AMQP code that is not our own defect (541)."""
    failures = [event for event in events if isinstance(event, ProtocolFailure)]
    assert failures == events[-1:] or not failures
    for failure in failures:
        assert failure.error.reply_code in (501, 502, 503, 504, 505, 540), repr(failure.error.__cause__)
        assert wire.receive(content(deliver(1), 1, b"x")) == []
    assert isinstance(wire.receive_eof(), str)
