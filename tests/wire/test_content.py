"""Contents in: header and bodies put together, judged, and read the same from everybody who writes them."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pamqp.frame
import pytest
from amqp.basic_message import Message
from amqp.method_framing import frame_writer
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body as pamqp_body
from pamqp import commands as pamqp_commands
from pamqp import header as pamqp_header
from pika import frame as pika_frame
from pika import spec as pika_spec

from tests.wire.peers import (
    METHOD,
    body_frame,
    content,
    cut,
    deliver,
    feed,
    frame,
    header_frame,
    normal,
    open_client,
    publish,
)
from tests.wire.strategies import mutated, property_lists
from txmsg.errors import RemoteProtocolError
from txmsg.wire.content import Content, decode_properties, event_head
from txmsg.wire.events import DELIVER, RETURN
from txmsg.wire.methods import basic, queue
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties, UndecodableProperties
from txmsg.wire.tables import DEFAULT_TABLE_LIMITS, TableLimits

MEBIBYTE = 1024 * 1024


def decode(octets: bytes) -> BasicProperties | UndecodableProperties:
    """With the default limits."""
    return decode_properties(octets, DEFAULT_TABLE_LIMITS)


def header(size: int, class_id: int = 60, weight: int = 0, properties: bytes = b"\x00\x00") -> bytes:
    """The payload of a content header frame."""
    return struct.pack(">HHQ", class_id, weight, size) + properties


def begun(size: int) -> Content:
    """A content whose header has come."""
    made = Content((DELIVER, 1))
    made.take_header(header(size), 1 << 40, decode)
    return made


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (header(5), 0),
        (header(100), 0),
        (header(101), 501),
        (header(2**63), 501),
        (header(2**64 - 1), 501),
        (header(5, class_id=50), 501),
        (header(5, weight=1), 501),
        (header(5)[:11], 501),
        (b"", 501),
    ],
)
def test_headers_are_judged_at_once(payload: bytes, code: int) -> None:
    """F33, R19: size, class and weight of a content header; nothing of the body is needed."""
    made = Content((DELIVER, 1))
    if not code:
        made.take_header(payload, 100, decode)
        assert made.left == made.size
        return
    with pytest.raises(RemoteProtocolError) as caught:
        made.take_header(payload, 100, decode)
    assert caught.value.reply_code == code


def test_a_second_header_is_refused() -> None:
    """F33: one header, then bodies."""
    made = begun(5)
    with pytest.raises(RemoteProtocolError, match="second content header") as caught:
        made.take_header(header(5), 100, decode)
    assert caught.value.reply_code == 505


def test_a_body_before_the_header_is_refused() -> None:
    """F33, M-20, S-27: method, header, bodies."""
    with pytest.raises(RemoteProtocolError, match="content header is due") as caught:
        Content((DELIVER, 1)).announce(0)
    assert caught.value.reply_code == 505


def test_bodies_may_not_exceed_the_size() -> None:
    """F33, CVE-2026-63335, M-20, S-29: judged on the frame's declared size, before its octets."""
    made = begun(10)
    made.announce(4)
    made.announce(6)
    with pytest.raises(RemoteProtocolError, match="frames of 11 octets in a content of 10") as caught:
        made.announce(1)
    assert caught.value.reply_code == 501


@given(st.lists(st.binary(max_size=3000), max_size=8), st.binary(max_size=20), st.booleans())
def test_what_is_collected_is_the_body(pieces: list[bytes], around: bytes, as_stream: bool) -> None:
    """Pieces of any size, cut out of chunks of any size, come out joined; both ways of collecting agree."""
    made = begun(5 * MEBIBYTE if as_stream else sum(map(len, pieces)))
    for piece in pieces:
        made.collect(around + piece + around, len(around), len(around) + len(piece))
    assert made.collected == sum(map(len, pieces))
    event = made.event()
    assert event[-1] == b"".join(pieces)
    assert type(event[-1]) is bytes


@pytest.mark.parametrize(("size", "chunk"), [(2 * MEBIBYTE, 65536), (2 * MEBIBYTE, 1500), (16 * MEBIBYTE, 65536)])
def test_memory_of_a_content_in_assembly(size: int, chunk: int) -> None:
    """R18: max_message_size and 8 MiB at the most while it is put together, Python's overhead included."""
    tracemalloc.start()
    try:
        made = begun(size)
        for _ in range(size // chunk):
            made.collect(bytes(chunk), 0, chunk)
        body = made.event()[-1]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body) == size // chunk * chunk
    assert peak <= size + 8 * MEBIBYTE


def test_memory_of_a_content_in_single_octets() -> None:
    """R18, Z5: the smallest pieces cost a small multiple of their octets, not an object each."""
    tracemalloc.start()
    try:
        made = begun(200_000)
        for _ in range(200_000):
            made.collect(b"x", 0, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000
    assert made.event()[-1] == b"x" * 200_000


def test_a_declared_size_allocates_nothing() -> None:
    """R19, CVE-2023-46120: memory follows the octets that came."""
    tracemalloc.start()
    try:
        begun(1 << 39).collect(b"abc", 0, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000


@given(property_lists() | mutated(property_lists()) | st.binary(max_size=60))
def test_properties_decode_or_are_carried_as_they_are(octets: bytes) -> None:
    """R20: any octets give properties, or their octets and the error."""
    made = decode(octets)
    if isinstance(made, UndecodableProperties):
        assert made.raw == octets
        assert made.error.reply_code in (501, 502)
    else:
        assert BasicProperties.decode(made.encode()).encode() == made.encode()


def test_limits_reach_the_properties() -> None:
    """R19, R20: headers beyond the limits cost the message, not the connection."""
    octets = BasicProperties(headers={"a": {"b": {}}}).encode()
    assert isinstance(decode_properties(octets, TableLimits(max_depth=2)), UndecodableProperties)
    assert isinstance(decode_properties(octets, TableLimits(max_depth=3)), BasicProperties)
    assert isinstance(decode_properties(octets, TableLimits(max_items=1)), UndecodableProperties)


def test_methods_without_content_have_no_head() -> None:
    """A defect would be seen at once."""
    with pytest.raises(TypeError, match=r"queue\.declare has no content"):
        event_head(1, queue.Declare())
    assert event_head(3, basic.Return(312, "text", "e", "k")) == (RETURN, 3, 312, "text", "e", "k")


def test_contents_of_channels_may_interleave() -> None:
    """Section 4.2.6: frames of different channels mix freely, those of one channel do not."""
    one, two = b"a" * 100, b"b" * 100
    frames = [
        deliver(1),
        deliver(2),
        header_frame(2, 100),
        header_frame(1, 100),
        body_frame(1, one[:50]),
        body_frame(2, two[:30]),
        frame(8, 0, b""),
        body_frame(2, two[30:]),
        deliver(3) + header_frame(3, 0),
        body_frame(1, one[50:]),
    ]
    events = open_client((1, 2, 3)).receive(b"".join(frames))
    assert [(event[1], event[-1]) for event in events if isinstance(event, tuple)] == [(2, two), (3, b""), (1, one)]


def test_empty_contents_end_with_their_header() -> None:
    """F33, M-20: no body frame follows; the next method is the next message's."""
    client = open_client()
    octets = content(deliver(1, 1), 1, b"") + content(deliver(1, 2), 1, b"") + content(deliver(1, 3), 1, b"x")
    for chunks in ([octets], cut(octets, range(len(octets)))):
        assert [event[-1] for event in feed(client, chunks) if isinstance(event, tuple)] == [b"", b"", b"x"]


@pytest.mark.parametrize("at", [0, 50, 99])
def test_empty_body_frames_inside_a_content(at: int) -> None:
    """A frame without octets is accepted, as by RabbitMQ; ten thousand of them leave nothing behind."""
    body = bytes(range(100))
    empty = body_frame(1, b"") * 10_000
    octets = deliver(1) + header_frame(1, 100)
    octets += (body_frame(1, body[:at]) if at else b"") + empty + body_frame(1, body[at:])
    client = open_client()
    tracemalloc.start()
    try:
        (event,) = client.receive(octets)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(event, tuple)
    assert event[-1] == body
    assert peak < 50_000


# -- judges: what others write, we read -------------------------------------------------------------------


PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain",
    "headers": {"a": 1, "b": "x", "c": {"d": True}},
    "delivery_mode": 2,
    "priority": 0,
    "correlation_id": "c",
    "message_id": "m",
}


def expected(tag: int, body: bytes, properties: BasicProperties) -> list[Any]:
    """The event that the judges below write."""
    return normal([(DELIVER, 1, "ct", tag, True, "ex", "key", properties, body)])


@pytest.mark.parametrize("body", [b"", b"x" * 100, b"y" * 4088, b"z" * 10_000])
def test_we_read_contents_of_pamqp(body: bytes) -> None:
    """Z1 against another implementation's frames."""
    frames: list[Any] = [
        pamqp_commands.Basic.Deliver("ct", 9, True, "ex", "key"),
        pamqp_header.ContentHeader(0, len(body), pamqp_commands.Basic.Properties(**PROPERTIES)),
    ]
    frames += [pamqp_body.ContentBody(body[i : i + 4088]) for i in range(0, len(body), 4088)]
    octets = b"".join(pamqp.frame.marshal(one, 1) for one in frames)
    for chunks in ([octets], cut(octets, range(len(octets)))):
        events = normal(feed(open_client(), chunks))
        assert [event[:-2] + event[-1:] for event in events] == [(DELIVER, 1, "ct", 9, True, "ex", "key", body)]
        assert BasicProperties.decode(events[0][-2]).as_dict() == PROPERTIES


@pytest.mark.parametrize("body", [b"", b"x" * 100, b"y" * 4088, b"z" * 10_000])
def test_we_read_contents_of_pika(body: bytes) -> None:
    """Z1 against another implementation's frames."""
    octets = pika_frame.Method(1, pika_spec.Basic.Deliver("ct", 9, True, "ex", "key")).marshal()
    octets += pika_frame.Header(1, len(body), pika_spec.BasicProperties(**PROPERTIES)).marshal()
    octets += b"".join(pika_frame.Body(1, body[i : i + 4088]).marshal() for i in range(0, len(body), 4088))
    (event,) = open_client().receive(octets)
    assert isinstance(event, tuple)
    assert event[:-2] + event[-1:] == (DELIVER, 1, "ct", 9, True, "ex", "key", body)
    assert event[-2].as_dict() == PROPERTIES


@pytest.mark.parametrize("body", [b"", b"x" * 100, b"y" * 4088, b"z" * 10_000])
def test_we_read_contents_of_py_amqp(body: bytes) -> None:
    """Z1 against another implementation's frames."""

    class Connection:
        frame_max = 4096
        bytes_sent = 0

    class Transport:
        written = b""

        def write(self, octets: bytes) -> None:
            """Take what would go to the socket."""
            self.written += bytes(octets)

    transport = Transport()
    properties = {name: value for name, value in PROPERTIES.items() if name != "headers"}
    arguments = b"\x02ct" + struct.pack(">QB", 9, 1) + b"\x02ex" + b"\x03key"
    message = Message(body, application_headers=PROPERTIES["headers"], **properties)
    frame_writer(Connection(), transport)(METHOD, 1, (60, 60), arguments, message)
    (event,) = open_client().receive(transport.written)
    assert isinstance(event, tuple)
    assert event[:-2] + event[-1:] == (DELIVER, 1, "ct", 9, True, "ex", "key", body)
    assert event[-2].as_dict() == PROPERTIES


def test_the_hand_made_frames_are_those_of_pamqp() -> None:
    """The frames the other tests are made of are what they say."""
    made: Any
    taken, number, made = pamqp.frame.unmarshal(deliver(7, 9, b"ct", b"ex", b"key"))
    assert (number, made.delivery_tag, made.consumer_tag, made.routing_key) == (7, 9, "ct", "key")
    assert taken == len(deliver(7, 9, b"ct", b"ex", b"key"))
    made = pamqp.frame.unmarshal(publish(7, b"ex", b"key", 1))[2]
    assert (made.exchange, made.routing_key, made.mandatory) == ("ex", "key", True)
    made = pamqp.frame.unmarshal(header_frame(7, 99, NO_PROPERTIES.encode()))[2]
    assert (made.body_size, made.weight) == (99, 0)
    made = pamqp.frame.unmarshal(body_frame(7, b"abc"))[2]
    assert made.value == b"abc"
