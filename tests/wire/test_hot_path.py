"""The two fast ways, in and out: they are taken, they give what the plain ways give, and they forget in time."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.peers import (
    ConnectionPair,
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
from tests.wire.strategies import mutated, properties, property_lists, short_texts
from tests.wire.test_cost import calls_while
from txmsg.errors import LocalProtocolError
from txmsg.wire.connection import Limits, Role, WireConnection
from txmsg.wire.events import ACK, DELIVER, NACK, PUBLISH, Event
from txmsg.wire.methods import basic, channel, connection
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties
from txmsg.wire.repeats import Repeats

C, S = Role.CLIENT, Role.SERVER

#: content_type and delivery_mode.
SMALL = BasicProperties(content_type="text/plain", delivery_mode=2).encode()
#: headers with a nested table.
HEADERS = BasicProperties(headers={"a": {"b": [1]}}).encode()


def acknowledgement(number: int, method_id: int, tag: int, bits: int) -> bytes:
    """A basic.ack (80) or basic.nack (120)."""
    return method_octets(number, 60, method_id, struct.pack(">QB", tag, bits))


def plainly(wire: WireConnection) -> WireConnection:
    """The same connection without the fast way in."""

    class Nothing(Repeats):
        __slots__ = ()

        def take(self, data: bytes, position: int, events: list[Event], size_limit: int) -> int:
            return position

    wire._repeats = Nothing(wire.role.peer, wire.limits, wire._contents, wire._takes_contents)
    return wire


# -- it is taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "octets"),
    [
        (open_client, [content(deliver(1, tag), 1, b"x" * tag, SMALL) for tag in range(1, 1001)]),
        (open_client, [content(deliver(1, tag), 1, b"", SMALL) for tag in range(1000)] + [frame(8, 0, b"")]),
        (open_client, [acknowledgement(1, 80, tag, tag & 1) for tag in range(1000)]),
        (open_client, [acknowledgement(1, 120, tag, tag & 3) for tag in range(1000)]),
        (open_server, [content(publish(1), 1, b"x" * size, SMALL) for size in range(1, 1001)]),
        (open_server, [acknowledgement(1, 80, tag, tag & 1) for tag in range(1000)]),
    ],
)
def test_what_repeats_costs_no_call(make: Callable[[], WireConnection], octets: list[bytes]) -> None:
    """Architecture 4: a thousand messages that look alike are read in one loop, without a call for each."""
    wire = make()
    stream = b"".join(octets)
    first = wire.receive(stream)
    assert len(first) == 1000
    calls = calls_while(lambda: wire.receive(stream))
    assert sum(calls.values()) < 30, calls
    assert normal(wire.receive(stream)) == normal(first)


def test_new_routing_keys_do_not_lose_the_fast_way() -> None:
    """A topic exchange gives every message its own key: only that part is decoded."""
    wire = open_client()
    stream = b"".join(content(deliver(1, tag, key=b"k%d" % tag), 1, b"x", SMALL) for tag in range(3000))
    calls = calls_while(lambda: wire.receive(stream))
    assert calls["_take_method"] == calls["_take_header"] == 0
    assert calls["_learn_tail"] == 3000


def test_a_body_that_is_not_whole_goes_on_at_its_first_frame() -> None:
    """64 KiB messages are never whole in a chunk: their method and header still go the fast way."""
    wire = open_client(frame_max=131072)
    one = content(deliver(1), 1, b"x" * 70_000, SMALL, at_most=131064)
    assert len(wire.receive(one)) == 1
    calls = calls_while(lambda: [wire.receive(one[:60_000]), wire.receive(one[60_000:])])
    assert calls["_take_method"] == calls["_take_header"] == 0


# -- it gives the same ------------------------------------------------------------------------------------


def messages(sender: Role) -> st.SearchStrategy[bytes]:
    """Frames of few shapes, so that they repeat, and now and then something else."""
    tags = st.sampled_from([0, 1, 2, 2**56, 2**64 - 1])
    bodies = st.sampled_from([b"", b"x", b"y" * 50, b"\xce" * 8, b"z" * 5000])
    lists = st.sampled_from([b"\x00\x00", SMALL, HEADERS, b"", b"\x80\x00\x09"]) | property_lists()
    numbers = st.sampled_from([1, 1, 2])
    consumers = st.sampled_from([b"ct", b"", b"\xff", b"other"])
    if sender is S:
        method = st.tuples(numbers, tags, consumers, st.sampled_from([b"k", b"", b"kk"])).map(
            lambda chosen: (chosen[0], deliver(chosen[0], chosen[1], chosen[2], b"e", chosen[3]))
        )
    else:
        method = st.tuples(numbers, st.sampled_from([b"k", b"", b"kk"]), st.integers(0, 3)).map(
            lambda chosen: (chosen[0], publish(chosen[0], b"e", chosen[1], chosen[2]))
        )
    return st.one_of(
        st.builds(lambda chosen, body, octets: content(chosen[1], chosen[0], body, octets), method, bodies, lists),
        st.builds(acknowledgement, numbers, st.sampled_from([80, 120]), tags, st.sampled_from([0, 1, 2, 3, 255])),
        st.builds(lambda number: method_octets(number, 60, 30, b"\x02ct\x00"), numbers),
        st.just(frame(8, 0, b"")),
    )


@pytest.mark.parametrize("sender", Role)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_both_ways_agree(sender: Role, data: st.DataObject) -> None:
    """R18: whatever comes, also with faults in it, the fast way gives the events of the plain one."""
    streams = st.lists(messages(sender), max_size=10).map(b"".join)
    octets = data.draw(streams | mutated(streams))
    places = data.draw(st.lists(st.integers(0, len(octets)), max_size=6))
    make = open_server if sender is C else open_client
    expected = normal(plainly(make((1, 2))).receive(octets))
    assert normal(make((1, 2)).receive(octets)) == expected
    assert normal(feed(make((1, 2)), cut(octets, places))) == expected
    warm = make((1, 2))
    warm.receive(b"".join(content(deliver(n, 1), n, b"x", SMALL) for n in (1, 2) if sender is S))
    assert normal(warm.receive(octets)) == expected


@pytest.mark.parametrize("body", [b"abc", b""])
@pytest.mark.parametrize("place", range(len(content(deliver(1), 1, b"abc", SMALL))))
def test_every_octet_of_a_known_message_counts(place: int, body: bytes) -> None:
    """R18: a message that differs in one octet from what is known is judged as if nothing were known."""
    known = content(deliver(1), 1, body, SMALL)
    if place >= len(known):
        return
    for value in (0, 1, 3, known[place] ^ 1, known[place] ^ 0x80, 0xCE, 0xFF):
        changed = known[:place] + bytes((value,)) + known[place + 1 :]
        warm = open_client((1, 2))
        assert len(warm.receive(known + known)) == 2
        assert normal(warm.receive(changed + known)) == normal(plainly(open_client((1, 2))).receive(changed + known))


@pytest.mark.parametrize("method_id", [80, 120])
@pytest.mark.parametrize("place", range(len(acknowledgement(1, 80, 1, 0))))
def test_every_octet_of_a_known_acknowledgement_counts(place: int, method_id: int) -> None:
    """R18: the same for acks and nacks: publisher confirms."""
    known = acknowledgement(1, method_id, 1, 0)
    for value in (0, 1, 3, known[place] ^ 1, known[place] ^ 0x80, 0xCE, 0xFF):
        changed = known[:place] + bytes((value,)) + known[place + 1 :]
        for warm_up in (b"", known + known):
            warm = open_client((1, 2))
            warm.receive(warm_up)
            assert normal(warm.receive(changed + known)) == normal(
                plainly(open_client((1, 2))).receive(changed + known)
            )


def test_the_channel_of_each_frame_counts() -> None:
    """F33: known properties must not hide that the body came on another channel."""
    known = content(deliver(1), 1, b"abc", SMALL) + content(deliver(2), 2, b"abc", SMALL)
    mixed = deliver(1) + header_frame(1, 3, SMALL) + body_frame(2, b"abc")
    wire = open_client((1, 2))
    wire.receive(known)
    failure_of(wire.receive(mixed), 505)


@pytest.mark.parametrize(
    ("size", "code"), [(1000, 0), (1001, 501), (4088, 501), (4089, 501), (2**32 - 1, 501), (2**63, 501)]
)
def test_limits_hold_for_known_messages(size: int, code: int) -> None:
    """R19: the size of a body is the one thing that is not looked up, so it is judged each time."""
    wire = open_client(limits=Limits(max_message_size=1000))
    assert len(wire.receive(content(deliver(1), 1, b"abc", SMALL) * 2)) == 2
    body = b"x" * min(size, 5000)
    octets = deliver(1) + header_frame(1, size, SMALL) + frame(3, 1, body, size=size & 0xFFFFFFFF)
    if code:
        failure_of(wire.receive(octets), code)
    else:
        assert len(wire.receive(octets)) == 1


def test_frame_max_holds_for_known_messages() -> None:
    """R19: a body that would be allowed in two frames is not allowed in one that is too large."""
    wire = open_client(frame_max=4096)
    assert len(wire.receive(content(deliver(1), 1, b"abc", SMALL) * 2)) == 2
    assert len(wire.receive(content(deliver(1), 1, b"x" * 4088, SMALL))) == 1
    failure_of(wire.receive(content(deliver(1), 1, b"x" * 4089, SMALL, at_most=5000)), 501)


def test_a_content_in_assembly_stops_the_fast_way_on_its_channel_only() -> None:
    """F33: the next message of that channel is inside the content; that of another channel is not."""
    message = content(deliver(1), 1, b"abc", SMALL)
    wire = open_client((1, 2))
    wire.receive(message + content(deliver(2), 2, b"abc", SMALL) + deliver(1))
    assert len(wire.receive(content(deliver(2), 2, b"abc", SMALL))) == 1
    failure_of(wire.receive(message), 505)


# -- nothing is shared that can change --------------------------------------------------------------------


def delivered(wire: WireConnection, octets: bytes) -> list[Any]:
    """The properties of each delivery in `octets`."""
    return [event[-2] for event in wire.receive(octets) if isinstance(event, tuple)]


def test_properties_are_shared_when_they_cannot_change() -> None:
    """Architecture 4.1: one object for what is the same."""
    one, other = delivered(open_client(), content(deliver(1), 1, b"x", SMALL) * 2)
    assert one is other


def test_properties_with_headers_are_not_shared() -> None:
    """Architecture 4.1: a handler that changes a message's headers changes those of no other message."""
    wire = open_client()
    message = content(deliver(1), 1, b"x", HEADERS)
    one, other = delivered(wire, message * 2)
    assert one is not other
    one.headers["a"]["b"].append("changed")
    one.headers["new"] = 1
    (third,) = delivered(wire, message)
    assert other.headers == third.headers == {"a": {"b": [1]}}


def test_caches_are_bounded() -> None:
    """Z5: after many different messages no cache is larger than its bound."""
    wire = open_client((1, 2))
    repeats = wire._repeats
    for tag in range(5000):
        octets = content(
            deliver(1, tag, b"c%d" % (tag % 1500), b"e", b"k%d" % tag), 1, b"x", b"\x00\x80\x04" + b"%04d" % tag
        )
        assert len(wire.receive(octets)) == 1
        entries = len(repeats._known) + sum(len(known[-1]) for known in repeats._known.values())
        assert entries <= 1024
        assert len(repeats._properties) <= 512
    big = content(deliver(1), 1, b"x", b"\x80\x00\xff" + b"t" * 255)
    before = len(repeats._properties)
    wire.receive(big)
    assert len(repeats._properties) == before


# -- it forgets in time -----------------------------------------------------------------------------------


def test_a_closed_channel_is_forgotten() -> None:
    """F31, R17: what was known of a channel is not accepted after it is closed, or while it is being closed."""
    message = content(deliver(1), 1, b"abc", SMALL) + acknowledgement(1, 80, 1, 0)
    pair = ConnectionPair()
    assert len(pair.client.receive(message)) == 2
    pair.say(C, 1, channel.Close())
    assert pair.client.receive(message) == []
    pair.say(S, 1, channel.CloseOk())
    failure_of(pair.client.receive(message), 504)


def test_a_closing_connection_is_forgotten() -> None:
    """Section 1.4.2.9: the same for the connection as a whole."""
    message = content(deliver(1), 1, b"abc", SMALL)
    client = open_client()
    assert len(client.receive(message)) == 1
    client.send_method(0, connection.Close(200))
    assert client.receive(message) == []


# -- out --------------------------------------------------------------------------------------------------

BODIES = st.binary(max_size=100) | st.sampled_from([0, 4087, 4088, 4089, 16384, 16385, 40_000]).map(bytes)


@given(
    data=st.lists(
        st.tuples(
            st.sampled_from([1, 2]),
            st.sampled_from(["", "e"]) | short_texts(),
            st.sampled_from(["", "k"]) | short_texts(),
            st.booleans(),
            st.sampled_from([NO_PROPERTIES, BasicProperties(delivery_mode=2)]) | properties(),
            BODIES,
            st.sampled_from([bytes, bytearray, memoryview]),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_publishes_are_the_same_either_way(data: list[Any]) -> None:
    """R21: encode_publish gives the octets of send_content, the first time and when it repeats."""
    pair = ConnectionPair((1, 2), frame_max=4096)
    for number, exchange, key, mandatory, props, body, kind, encoded in data:
        given_properties = props.encode() if encoded else props
        if len(props.encode()) > 4000:
            continue
        method = basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
        expected = b"".join(pair.client.send_content(number, method, props, body))
        for _ in range(4):
            pieces = pair.client.encode_publish(number, exchange, key, mandatory, given_properties, kind(body))
            assert b"".join(pieces) == expected
            assert {type(piece) for piece in pieces} == {bytes}
            (event,) = pair.server.receive(b"".join(pieces))
            assert isinstance(event, tuple)
            assert event[:6] == (PUBLISH, number, exchange, key, mandatory, False)
            assert (event[-2].encode(), event[-1]) == (props.encode(), body)


def test_headers_that_change_between_publishes() -> None:
    """R21: what is remembered of a publish is never a header that has changed since."""
    pair = ConnectionPair((1,), frame_max=4096)
    headers = {"n": 0}
    properties = BasicProperties(headers=headers)
    for n in range(4):
        headers["n"] = n
        (event,) = pair.server.receive(b"".join(pair.client.encode_publish(1, "e", "k", False, properties, b"x")))
        assert event[-2].headers == {"n": n}  # type: ignore[index]


def test_a_small_publish_is_one_byte_string_every_time() -> None:
    """Architecture 4.2: one write."""
    client = open_client(frame_max=131072)
    for size in (0, 1, 100, 16 * 1024):
        for _ in range(4):
            assert len(client.encode_publish(1, "e", "k", False, NO_PROPERTIES, bytes(size))) == 1


def test_a_big_publish_is_not_copied() -> None:
    """Architecture 4.2: a bytes body of more than 16 KiB that fits one frame is handed on as it is."""
    client = open_client(frame_max=131072)
    body = bytes(100_000)
    for _ in range(4):
        assert any(piece is body for piece in client.encode_publish(1, "e", "k", False, NO_PROPERTIES, body))


def test_repeated_publishes_cost_few_calls() -> None:
    """Architecture 4.1: no method is built and none encoded when address and properties repeat."""
    client = open_client(frame_max=131072)
    props = BasicProperties(delivery_mode=2)
    for _ in range(3):
        client.encode_publish(1, "e", "k", False, props, b"x")
    calls = calls_while(lambda: [client.encode_publish(1, "e", "k", False, props, b"x%d" % n) for n in range(100)])
    assert sum(calls.values()) <= 210, calls


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("requeue", [False, True])
@pytest.mark.parametrize("tag", [0, 1, 255, 2**32, 2**64 - 1])
def test_settling_is_the_same_either_way(tag: int, multiple: bool, requeue: bool) -> None:
    """R21: the short forms give the octets of send_method, the first time and after it."""
    pair = ConnectionPair()
    for _ in range(3):
        ack = pair.client.encode_ack(1, tag, multiple)
        nack = pair.client.encode_nack(1, tag, multiple, requeue)
        reject = pair.client.encode_reject(1, tag, requeue)
        assert ack == pair.client.send_method(1, basic.Ack(tag, multiple))
        assert nack == pair.client.send_method(1, basic.Nack(tag, multiple, requeue))
        assert reject == pair.client.send_method(1, basic.Reject(tag, requeue))
        assert pair.server.receive(ack + nack)[:2] == [(ACK, 1, tag, multiple), (NACK, 1, tag, multiple, requeue)]


def test_a_server_acks_the_same_way() -> None:
    """Both ends send acks: a broker's are publisher confirms."""
    pair = ConnectionPair()
    assert pair.client.receive(pair.server.encode_ack(1, 7, True)) == [(ACK, 1, 7, True)]
    with pytest.raises(LocalProtocolError, match=r"basic\.reject by the server"):
        pair.server.encode_reject(1, 7)


def test_caches_of_publishes_are_bounded() -> None:
    """A publisher that invents routing keys does not grow."""
    client = open_client()
    for number in range(3000):
        for _ in range(3):
            client.encode_publish(1, "e", f"k{number}", False, NO_PROPERTIES, b"x")
    assert len(client._publishes) <= 512
    assert len(client._repeated) <= 512
    assert len(client._seen_once) <= 512


def test_a_deliver_is_a_deliver() -> None:
    """The order of the elements is that of the plain way: see test_events."""
    (first, second) = open_client().receive(content(deliver(1, 5, b"ct", b"e", b"k"), 1, b"x", SMALL) * 2)
    assert first == second == (DELIVER, 1, "ct", 5, False, "e", "k", BasicProperties.decode(SMALL), b"x")
