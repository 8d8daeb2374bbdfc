"""Frames out: what is cut, what cannot be, what is copied, and that other projects read all of it."""

from __future__ import annotations

import array
import struct
import tracemalloc
from itertools import pairwise

import pamqp.frame
import pytest
from amqp.serialization import loads
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body as pamqp_body
from pamqp import header as pamqp_header
from pamqp import heartbeat as pamqp_heartbeat
from pika import frame as pika_frame

from tests.wire.strategies import methods, properties
from txmsg.errors import EncodeError
from txmsg.wire.frames import (
    HEARTBEAT_FRAME,
    JOIN_LIMIT,
    Octets,
    as_octets,
    content_frames,
    method_frame,
)
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, exchange, queue
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

METHOD = method_frame(1, "basic.publish", basic.Publish(exchange="e", routing_key="k").encode(), 4096)


def split_frames(octets: bytes) -> list[tuple[int, int, bytes]]:
    """(type, channel, payload) of each frame in `octets`, read with nothing of ours."""
    found = []
    while octets:
        frame_type, channel, size = struct.unpack_from(">BHI", octets)
        assert octets[7 + size] == 206
        found.append((frame_type, channel, octets[7 : 7 + size]))
        octets = octets[8 + size :]
    return found


@pytest.mark.parametrize(
    ("size", "body_frames"), [(0, 0), (1, 1), (4087, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3)]
)
def test_bodies_are_cut_to_frame_max(size: int, body_frames: int) -> None:
    """G-10: frame_max minus 8 octets of body in a frame; the header has the exact size."""
    body = bytes(i % 251 for i in range(size))
    frames = split_frames(b"".join(content_frames(9, METHOD, b"\x00\x00", body, 4096)))
    assert [kind for kind, _, _ in frames] == [1, 2] + [3] * body_frames
    assert [number for _, number, _ in frames[1:]] == [9] * (1 + body_frames)
    assert frames[1][2] == struct.pack(">HHQH", 60, 0, size, 0)
    assert b"".join(payload for kind, _, payload in frames if kind == 3) == body
    assert all(len(payload) + 8 <= 4096 for _, _, payload in frames)
    assert all(len(payload) == 4088 for kind, _, payload in frames[2:-1])


@given(st.binary(max_size=300), st.integers(9 + 14, 60), st.sampled_from([bytes, bytearray, memoryview]))
def test_any_body_in_any_frame_size(body: bytes, frame_max: int, kind: type[Octets]) -> None:
    """R21: whatever the size, no frame is larger than frame_max, and the body is whole."""
    frames = split_frames(b"".join(content_frames(1, b"", b"\x00\x00", kind(body), frame_max)))
    assert b"".join(payload for _, _, payload in frames[1:]) == body
    assert all(8 + len(payload) <= frame_max for _, _, payload in frames)
    assert all(payload for _, _, payload in frames)


def test_a_small_message_is_one_byte_string() -> None:
    """One write; three small ones cost 44 ms each confirm."""
    assert len(content_frames(1, METHOD, b"\x00\x00", b"x" * 100, 131072)) == 1
    assert len(content_frames(1, METHOD, b"\x00\x00", b"x" * JOIN_LIMIT, 131072)) == 1
    assert len(content_frames(1, METHOD, b"\x00\x00", b"", 131072)) == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [100, JOIN_LIMIT + 1, 300_000])
def test_all_pieces_are_bytes(kind: type[Octets], size: int) -> None:
    """Twisted's transports take bytes and nothing else, and what they are given may not change later."""
    pieces = content_frames(1, METHOD, b"\x00\x00", kind(bytes(size)), 131072)
    assert {type(piece) for piece in pieces} == {bytes}


def test_a_big_body_is_not_copied() -> None:
    """Architecture 4.2: a bytes body that fits one frame goes into the list as it is."""
    body = bytes(100_000)
    pieces = content_frames(1, METHOD, b"\x00\x00", body, 131072)
    assert any(piece is body for piece in pieces)
    assert len(b"".join(pieces)) == len(METHOD) + 22 + 8 + len(body)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_of_many_frames_is_copied_once(kind: type[Octets]) -> None:
    """Architecture 4.2: cutting 16 MiB costs one copy of it, and no more at any moment."""
    size = 16 * 1024 * 1024
    body = kind(bytes(size))
    tracemalloc.start()
    try:
        pieces = content_frames(1, METHOD, b"\x00\x00", body, 131072)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size + 1024 * 1024
    assert sum(map(len, pieces)) > size


def test_a_snapshot_is_taken_of_what_can_change() -> None:
    """The caller may reuse a bytearray as soon as the call is over."""
    for size in (10, JOIN_LIMIT + 1, 200_000):
        body = bytearray(size)
        pieces = content_frames(1, METHOD, b"\x00\x00", body, 131072)
        before = b"".join(pieces)
        body[:] = b"\xff" * size
        assert b"".join(pieces) == before


def test_octets_of_odd_memoryviews() -> None:
    """A view counts items, not octets, and may have gaps; the frame's size must be that of the octets."""
    wide = memoryview(array.array("I", [1, 2, 3]))
    assert bytes(as_octets(wide)) == wide.tobytes()
    assert len(as_octets(wide)) == 12
    gaps = memoryview(b"abcdef")[::2]
    assert bytes(as_octets(gaps)) == b"ace"
    assert as_octets(memoryview(b"")) == b""


@pytest.mark.parametrize("body", ["text", None, 5, [1, 2], object()])
def test_what_holds_no_octets_is_refused(body: object) -> None:
    """`bytes(5)` would be five zeroes: the type is checked, and named."""
    with pytest.raises(EncodeError, match=rf"must be bytes.* not {type(body).__name__}$"):
        as_octets(body)


def test_a_method_that_does_not_fit_is_refused() -> None:
    """G-11: the text names the method, its size and the limit; exactly frame_max fits."""
    payload = queue.Declare(queue="q", arguments={"x": "y" * 5000}).encode()
    with pytest.raises(EncodeError, match=rf"queue.declare: .* {len(payload) + 8} bytes .* frame_max is 4096"):
        method_frame(1, "queue.declare", payload, 4096)
    assert len(method_frame(1, "queue.declare", payload, len(payload) + 8)) == len(payload) + 8
    with pytest.raises(EncodeError):
        method_frame(1, "queue.declare", payload, len(payload) + 7)


def test_headers_that_do_not_fit_are_refused() -> None:
    """G-11, R21: a content header cannot be cut; exactly frame_max fits."""
    encoded = BasicProperties(headers={"x": "y" * 5000}).encode()
    exactly = len(encoded) + 12 + 8
    assert len(content_frames(1, b"", encoded, b"", exactly)[0]) == exactly
    with pytest.raises(EncodeError, match=rf"headers are {len(encoded)} bytes .* frame_max is {exactly - 1}"):
        content_frames(1, b"", encoded, b"x", exactly - 1)


def test_the_heartbeat() -> None:
    """H-07: type 8, channel 0, nothing in it."""
    assert HEARTBEAT_FRAME == b"\x08\x00\x00\x00\x00\x00\x00\xce"
    assert isinstance(pamqp.frame.unmarshal(HEARTBEAT_FRAME)[2], pamqp_heartbeat.Heartbeat)


# -- judges -----------------------------------------------------------------------------------------------


@given(methods(queue.Declare, exchange.Declare, basic.Publish, basic.Deliver, basic.Ack, queue.DeclareOk))
def test_pamqp_and_pika_read_our_method_frames(method: Method) -> None:
    """R21: the frame around a method is the same for everybody."""
    octets = method_frame(3, method.NAME, method.encode(), 1 << 30)
    assert tuple(pamqp.frame.frame_parts(octets)) == (1, 3, len(octets) - 8)
    ((frame_type, number, payload),) = split_frames(octets)
    assert (frame_type, number) == (1, 3)
    assert octets == pika_frame.Frame(1, 3)._marshal([payload])


JUDGED = BasicProperties(
    content_type="text/plain",
    content_encoding="utf-8",
    headers={"a": 1, "b": [True, None, "ä"], "c": {"d": 2}},
    delivery_mode=2,
    priority=0,
    correlation_id="c",
    reply_to="",
    expiration="60000",
    message_id="m",
    type="t",
    user_id="u",
    app_id="a",
)


@pytest.mark.parametrize("props", [NO_PROPERTIES, JUDGED])
@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 20_000])
def test_pamqp_and_pika_read_our_contents(props: BasicProperties, size: int) -> None:
    """R21: method, header and bodies, frame by frame."""
    body = bytes(i % 256 for i in range(size))
    stream = b"".join(content_frames(5, b"", props.encode(), body, 4096))
    expected = props.as_dict()

    rest, pieces = stream, []
    while rest:
        taken, number, decoded = pamqp.frame.unmarshal(rest)
        assert number == 5
        rest = rest[taken:]
        pieces.append(decoded)
    head, *bodies = pieces
    assert isinstance(head, pamqp_header.ContentHeader)
    assert head.body_size == size
    assert head.weight == 0
    # pamqp has other names for one property, and "" for the deprecated one that is absent.
    decoded_properties = {name.replace("message_type", "type"): value for name, value in dict(head.properties).items()}
    assert {name: decoded_properties[name] for name in expected} == expected
    assert not any(value for name, value in decoded_properties.items() if name not in expected)
    assert b"".join(piece.value for piece in bodies if isinstance(piece, pamqp_body.ContentBody)) == body

    rest, collected = stream, b""
    while rest:
        taken, decoded = pika_frame.decode_frame(rest)
        assert decoded.channel_number == 5
        rest = rest[taken:]
        if isinstance(decoded, pika_frame.Header):
            assert decoded.body_size == size
            assert {name: getattr(decoded.properties, name) for name in expected} == expected
        else:
            assert isinstance(decoded, pika_frame.Body)
            collected += decoded.fragment
    assert collected == body


@given(properties(), st.binary(max_size=50))
def test_py_amqp_reads_the_fixed_part_of_our_headers(props: BasicProperties, body: bytes) -> None:
    """R21: class, weight and size, whatever the properties; py-amqp's own reader of them."""
    (octets,) = content_frames(1, b"", props.encode(), body, 1 << 20)
    (_, _, payload), *_ = split_frames(octets)
    (class_id, weight, size), _ = loads("BBL", payload, 0)
    assert (class_id, weight, size) == (60, 0, len(body))


def test_frames_of_one_content_stand_together() -> None:
    """Pika.md section 24 item 12: the frames of two messages never mix, for they come out of two calls."""
    one = b"".join(content_frames(1, METHOD, b"\x00\x00", b"a" * 9000, 4096))
    two = b"".join(content_frames(1, METHOD, b"\x00\x00", b"b" * 9000, 4096))
    kinds = [kind for kind, _, _ in split_frames(one + two)]
    assert kinds == [1, 2, 3, 3, 3] * 2
    assert all((before, after) != (3, 2) for before, after in pairwise(kinds))
