"""Two ends for tests of the wire connection, and frames made by hand.

:class:`ConnectionPair` joins our client to our server and checks that each hears exactly what the other said.
:func:`frame` and its like build octets with `struct` alone, so that what a hostile or an odd peer sends does not
come from the code under test.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from txmsg.wire.connection import Limits, Role, WireConnection
from txmsg.wire.events import Event, MethodReceived, ProtocolFailure, ProtocolHeaderReceived
from txmsg.wire.layout import Method
from txmsg.wire.methods import channel, connection
from txmsg.wire.properties import UndecodableProperties

__all__ = [
    "ConnectionPair",
    "body_frame",
    "content",
    "cut",
    "failure_of",
    "feed",
    "frame",
    "header_frame",
    "method_octets",
    "normal",
    "open_client",
    "open_server",
]

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8


def frame(frame_type: int, number: int, payload: bytes, end: int = 206, size: int | None = None) -> bytes:
    """Any frame, also a wrong one: another end octet, a size that is not that of the payload."""
    return struct.pack(">BHI", frame_type, number, len(payload) if size is None else size) + payload + bytes((end,))


def short(text: bytes) -> bytes:
    """A short string."""
    return bytes((len(text),)) + text


def method_octets(number: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """A method frame."""
    return frame(METHOD, number, struct.pack(">HH", class_id, method_id) + arguments)


def deliver(number: int, tag: int = 1, consumer: bytes = b"ct", exchange: bytes = b"e", key: bytes = b"k") -> bytes:
    """A basic.deliver."""
    return method_octets(number, 60, 60, short(consumer) + struct.pack(">QB", tag, 0) + short(exchange) + short(key))


def publish(number: int, exchange: bytes = b"e", key: bytes = b"k", bits: int = 0) -> bytes:
    """A basic.publish."""
    return method_octets(number, 60, 40, b"\x00\x00" + short(exchange) + short(key) + bytes((bits,)))


def header_frame(number: int, size: int, properties: bytes = b"\x00\x00", class_id: int = 60, weight: int = 0) -> bytes:
    """A content header frame."""
    return frame(HEADER, number, struct.pack(">HHQ", class_id, weight, size) + properties)


def body_frame(number: int, octets: bytes) -> bytes:
    """A body frame."""
    return frame(BODY, number, octets)


def content(method: bytes, number: int, body: bytes, properties: bytes = b"\x00\x00", at_most: int = 4088) -> bytes:
    """A method frame and its content, the body in frames with up to `at_most` octets."""
    frames = [method, header_frame(number, len(body), properties)]
    frames += [body_frame(number, body[i : i + at_most]) for i in range(0, len(body), at_most)]
    return b"".join(frames)


def cut(octets: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """`octets` in chunks that begin at `places`."""
    edges = sorted({0, len(octets), *(place for place in places if 0 <= place <= len(octets))})
    for start, stop in itertools.pairwise(edges):
        yield octets[start:stop]


def feed(wire: WireConnection, chunks: Iterable[bytes]) -> list[Event]:
    """All events of all chunks."""
    return [event for chunk in chunks for event in wire.receive(chunk)]


def normal(events: Iterable[Event]) -> list[Any]:
    """Events in a form that compares: errors by their code and text."""
    made: list[Any] = []
    for event in events:
        if isinstance(event, ProtocolFailure):
            made.append(("failure", event.error.reply_code, str(event.error)))
        elif isinstance(event, tuple):
            made.append(tuple(map(_normal_element, event)))
        elif isinstance(event, MethodReceived):
            # Tables may hold a NaN, which is not equal to itself.
            made.append((event.channel, event.method.NAME, event.method.encode()))
        else:
            made.append(event)
    return made


def _normal_element(element: Any) -> Any:
    if isinstance(element, UndecodableProperties):
        return ("undecodable", element.raw, str(element.error))
    if hasattr(element, "encode") and not isinstance(element, str):
        return element.encode()
    return element


def failure_of(events: list[Event], reply_code: int) -> str:
    """The text of the failure that ends `events`; AssertionError unless there is one, with that code."""
    assert events, "no event at all"
    last = events[-1]
    assert isinstance(last, ProtocolFailure), f"not a failure: {last!r}"
    assert not any(isinstance(event, ProtocolFailure) for event in events[:-1])
    assert last.error.reply_code == reply_code, f"{last.error.reply_code} and not {reply_code}: {last.error}"
    return str(last.error)


class ConnectionPair:
    """Our client and our server, joined: what one sends is what the other hears.

    `wire` -- role -> connection.  The handshake is done, and the channels given are open.
    """

    def __init__(
        self,
        channels: Iterable[int] = (1,),
        frame_max: int = 131072,
        limits: Limits | None = None,
        channel_max: int = 2047,
    ) -> None:
        self.wire = {role: WireConnection(role, limits) for role in Role}
        self.client = self.wire[Role.CLIENT]
        self.server = self.wire[Role.SERVER]
        (heard,) = self.server.receive(self.client.send_protocol_header())
        assert heard == ProtocolHeaderReceived(b"AMQP\x00\x00\x09\x01", (0, 0, 9, 1))
        self.say(Role.SERVER, 0, connection.Start(server_properties={"product": "test"}))
        self.say(Role.CLIENT, 0, connection.StartOk(response=b"secret"))
        self.say(Role.SERVER, 0, connection.Tune(channel_max, frame_max, 60))
        self.say(Role.CLIENT, 0, connection.TuneOk(channel_max, frame_max, 60))
        for wire in self.wire.values():
            wire.set_tuned(channel_max, frame_max)
        self.say(Role.CLIENT, 0, connection.Open())
        self.say(Role.SERVER, 0, connection.OpenOk())
        for number in channels:
            self.say(Role.CLIENT, number, channel.Open())
            self.say(Role.SERVER, number, channel.OpenOk())

    def say(self, sender: Role, number: int, method: Method) -> None:
        """Send a method and check that it arrives, and that both ends then see the same state."""
        heard = self.wire[sender.peer].receive(self.wire[sender].send_method(number, method))
        assert heard == [MethodReceived(number, method)], heard
        self.check_states()

    def check_states(self) -> None:
        """Both ends are at the same place of the tables."""
        assert self.client.state is self.server.state
        assert self.client.channels == self.server.channels


def open_client(channels: Iterable[int] = (1,), limits: Limits | None = None, frame_max: int = 4096) -> WireConnection:
    """A client's open connection with open channels, ready to be sent anything."""
    return ConnectionPair(channels, frame_max, limits).client


def open_server(channels: Iterable[int] = (1,), limits: Limits | None = None, frame_max: int = 4096) -> WireConnection:
    """The same for a server."""
    return ConnectionPair(channels, frame_max, limits).server
