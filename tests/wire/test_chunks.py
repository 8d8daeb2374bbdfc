"""Z3: the events of a stream do not depend on the chunks it comes in, and are what was said at the other end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.peers import ConnectionPair, content, cut, deliver, feed, normal, open_client
from tests.wire.strategies import ALL_METHODS, methods, properties
from txmsg.wire.connection import Role, WireConnection
from txmsg.wire.constants import CLASS_CHANNEL, CLASS_CONNECTION
from txmsg.wire.events import ACK, DELIVER
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

Spoken = tuple[Role, int, Method, BasicProperties | None, bytes]

TALK = [
    made
    for made in ALL_METHODS
    if made.CLASS_ID not in (CLASS_CONNECTION, CLASS_CHANNEL) or made.NAME.startswith("channel.flow")
]


@st.composite
def traces(draw: st.DrawFn, sender: Role) -> list[Spoken]:
    """What `sender` says on two open channels: any methods, with contents where they have one."""
    said: list[Spoken] = []
    allowed: list[type[Method]] = [made for made in TALK if sender in made.SENT_BY]
    frequent = [made for made in allowed if made in (basic.Deliver, basic.Publish, basic.Ack)]
    for _ in range(draw(st.integers(1, 8))):
        method = draw(methods(*allowed) | methods(*frequent))
        body = draw(st.binary(max_size=40) | st.integers(0, 9000).map(lambda size: b"x" * size))
        props = draw(st.just(NO_PROPERTIES) | properties()) if method.HAS_CONTENT else None
        said.append((sender, draw(st.integers(1, 2)), method, props, body))
    return said


def say(wire: WireConnection, spoken: Spoken) -> bytes:
    """The octets of one step of a trace."""
    _, number, method, props, body = spoken
    if props is None:
        return wire.send_method(number, method)
    return b"".join(wire.send_content(number, method, props, body))


@pytest.mark.parametrize("sender", Role)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_chunks_do_not_matter(sender: Role, data: st.DataObject) -> None:
    """Z3: any trace gives the same events whole, in pieces and octet by octet; and they are what was said."""
    trace = [spoken for spoken in data.draw(traces(sender)) if fits(spoken)]
    pair = ConnectionPair((1, 2), frame_max=4096)
    pieces = [say(pair.wire[sender], spoken) for spoken in trace]
    octets = b"".join(pieces)
    whole = normal(pair.wire[sender.peer].receive(octets))
    assert len(whole) == len(trace)
    for spoken, event in zip(trace, whole, strict=True):
        check_said(spoken, event)
    places = data.draw(st.lists(st.integers(0, len(octets)), max_size=12))
    for chunks in (pieces, cut(octets, places), cut(octets, range(len(octets)))):
        receiver = ConnectionPair((1, 2), frame_max=4096).wire[sender.peer]
        assert normal(feed(receiver, chunks)) == whole


def fits(spoken: Spoken) -> bool:
    """Whether the method and the properties fit a frame of 4096 octets."""
    _, _, method, props, _ = spoken
    return len(method.encode()) <= 4088 and (props is None or len(props.encode()) <= 4076)


def check_said(spoken: Spoken, event: Any) -> None:
    """The event is that of the step."""
    _, number, method, props, body = spoken
    if isinstance(method, basic.Ack):
        assert event == (ACK, number, method.delivery_tag, method.multiple)
    elif props is not None:
        assert (event[1], event[-2], event[-1]) == (number, props.encode(), body)
        if isinstance(method, basic.Deliver):
            assert event[0] == DELIVER
            assert event[2:5] == (method.consumer_tag, method.delivery_tag, method.redelivered)
            assert event[5:7] == (method.exchange, method.routing_key)
    elif not isinstance(method, basic.Nack):
        assert event == (number, method.NAME, method.encode())


@given(st.lists(st.binary(max_size=30_000), min_size=1, max_size=4), st.data())
def test_big_bodies_in_any_chunks(bodies: list[bytes], data: st.DataObject) -> None:
    """Z3: bodies of many frames, cut in frames and in chunks at any place."""
    octets = b"".join(content(deliver(1, tag), 1, body) for tag, body in enumerate(bodies))
    places = data.draw(st.lists(st.integers(0, len(octets)), max_size=30))
    events = feed(open_client(), cut(octets, places))
    assert [(event[3], event[-1]) for event in events if isinstance(event, tuple)] == list(enumerate(bodies))
