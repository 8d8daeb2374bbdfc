"""Frames out: method, header, body and heartbeat frames as bytes, and the cutting of bodies.

AMQP 0-9-1 section 4.2.3: type, channel, payload size, payload, end octet.  The invariant: no frame made here,
with its 8 octets of frame around the payload, is larger than the `frame_max` given.  Methods and content
headers cannot be cut, so one that does not fit is an :class:`~txmsg.errors.EncodeError` that says what it was.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from txmsg.errors import EncodeError
from txmsg.wire.constants import (
    CLASS_BASIC,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
)

__all__ = [
    "END",
    "FRAME_START",
    "HEARTBEAT_FRAME",
    "JOIN_LIMIT",
    "Octets",
    "as_octets",
    "content_frames",
    "method_frame",
]

#: Type, channel, payload size.
FRAME_START: Final = Struct(">BHI")
#: Type, channel, payload size, class, weight, body size: a content header frame up to the properties.
HEADER_START: Final = Struct(">BHIHHQ")
#: The end octet of one frame and the start of the next.
END_AND_START: Final = Struct(">BBHI")
#: The octet that ends every frame.
END: Final = bytes((FRAME_END,))

#: Octets of a content header before the properties: class, weight, body size.
CONTENT_HEADER_FIXED: Final = 12
#: Bodies up to this size are joined with their frames into one byte string; larger ones are not copied for that.
JOIN_LIMIT: Final = 16 * 1024

#: A heartbeat (section 4.2.7): always on channel 0 and always empty.
HEARTBEAT_FRAME: Final = FRAME_START.pack(FRAME_HEARTBEAT, 0, 0) + END

#: What a body may be given as.
Octets = bytes | bytearray | memoryview


def as_octets(body: object) -> Octets:
    """`body` as something whose length and slices are octets; :class:`EncodeError` if it holds none.

    A memoryview over wider items (an array of ints) counts items, and one with a stride cannot be joined.
    """
    if isinstance(body, (bytes, bytearray)):
        return body
    if isinstance(body, memoryview):
        return body.cast("B") if body.c_contiguous else body.tobytes()
    raise EncodeError(f"a body must be bytes, bytearray or memoryview, not {type(body).__name__}")


def method_frame(channel: int, name: str, payload: bytes, frame_max: int) -> bytes:
    """The frame of an encoded method; `name` is only for the error."""
    if len(payload) > frame_max - FRAME_OVERHEAD:
        raise EncodeError(
            f"{name}: the method's frame is {len(payload) + FRAME_OVERHEAD} bytes long and cannot be cut, "
            f"but frame_max is {frame_max}"
        )
    return FRAME_START.pack(FRAME_METHOD, channel, len(payload)) + payload + END


def content_frames(channel: int, method: bytes, properties: bytes, body: Octets, frame_max: int) -> list[bytes]:
    """The byte strings of one content, to be written in one go.

    method: bytes -- the whole frame of the method that the content belongs to.
    properties: bytes -- the encoded property list, flags first.
    body: bytes or a bytes-like of octets -- cut into frames of at most `frame_max`; none for an empty body.

    A body within `JOIN_LIMIT` that fits one frame gives one byte string.  A larger one is not joined with its
    frames, and a bytes body that fits one frame is in the list as it is.
    """
    header_size = CONTENT_HEADER_FIXED + len(properties)
    room = frame_max - FRAME_OVERHEAD
    size = len(body)
    if header_size > room:
        raise EncodeError(
            f"the properties and headers are {len(properties)} bytes long and cannot be cut: "
            f"their frame would be {header_size + FRAME_OVERHEAD} bytes, but frame_max is {frame_max}"
        )
    start = HEADER_START.pack(FRAME_HEADER, channel, header_size, CLASS_BASIC, 0, size)
    if not size:
        return [b"".join((method, start, properties, END))]
    next_frame = END_AND_START.pack(FRAME_END, FRAME_BODY, channel, min(size, room))
    if size <= room:
        if size <= JOIN_LIMIT:
            return [b"".join((method, start, properties, next_frame, body, END))]
        return [
            b"".join((method, start, properties, next_frame)),
            body if type(body) is bytes else bytes(body),
            END,
        ]
    # One bytes(slice of a view) copies once; slicing a bytearray and converting would copy twice.
    view = memoryview(body)
    items = [b"".join((method, start, properties, next_frame))]
    for offset in range(0, size, room):
        if offset:
            items.append(END_AND_START.pack(FRAME_END, FRAME_BODY, channel, min(size - offset, room)))
        items.append(bytes(view[offset : offset + room]))
    items.append(END)
    return items
