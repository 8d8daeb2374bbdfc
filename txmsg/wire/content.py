"""Contents in: a method, its header and its body frames put together into one event.

AMQP 0-9-1 sections 2.3.5 and 4.2.6.  The invariants:

* The header alone decides whether a content is taken: class, weight and size are judged before a body octet is.
* Body frames must add up to the declared size exactly.  One that goes beyond it is refused on its own header.
* Memory follows the octets received, not the size declared; most octets of a body are copied once.

An empty content ends with its header.  A body frame without octets in the middle of a content is accepted, as
RabbitMQ does, and leaves nothing behind, so that a flood of them costs the peer more than us.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from struct import Struct
from typing import Any, Final, TypeAlias

from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import CLASS_BASIC, FRAME_ERROR, UNEXPECTED_FRAME
from txmsg.wire.events import DELIVER, GET_OK, PUBLISH, RETURN, ContentEvent
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic
from txmsg.wire.properties import BasicProperties, UndecodableProperties
from txmsg.wire.tables import TableLimits

__all__ = ["Content", "Misplaced", "Oversized", "Properties", "decode_properties", "event_head"]

#: What a content event carries.
Properties: TypeAlias = BasicProperties | UndecodableProperties

#: Bodies above this are collected in one growing buffer: joining pieces would hold the body twice for a moment.
#: Below it joining is faster, and twice is little.
_STREAM_FROM: Final = 4 * 1024 * 1024
#: Pieces below this are gathered in a bytearray.
_SMALL_PIECE: Final = 1024

#: Class, weight, body size; the property flags and values follow.
_HEADER: Final = Struct(">HHQ")


def event_head(channel: int, method: Method) -> tuple[Any, ...]:
    """The elements of the event for the content of `method` that come before (properties, body)."""
    if isinstance(method, basic.Deliver):
        return (
            DELIVER,
            channel,
            method.consumer_tag,
            method.delivery_tag,
            method.redelivered,
            method.exchange,
            method.routing_key,
        )
    if isinstance(method, basic.Publish):
        return (PUBLISH, channel, method.exchange, method.routing_key, method.mandatory, method.immediate)
    if isinstance(method, basic.GetOk):
        return (
            GET_OK,
            channel,
            method.delivery_tag,
            method.redelivered,
            method.exchange,
            method.routing_key,
            method.message_count,
        )
    if isinstance(method, basic.Return):
        return (RETURN, channel, method.reply_code, method.reply_text, method.exchange, method.routing_key)
    raise TypeError(f"{method.NAME} has no content")


def decode_properties(octets: bytes, limits: TableLimits) -> Properties:
    """The property list, or what stands for one that does not decode.

    The frames are sound whatever the list holds, so a bad one costs this message and not the connection.
    """
    try:
        return BasicProperties.decode(octets, limits)
    except RemoteProtocolError as error:
        return UndecodableProperties(octets, error)


class Oversized(RemoteProtocolError):
    """A content header declares more octets than are taken; `size` of them."""

    size = 0


class Misplaced(RemoteProtocolError):
    """A frame where one of another kind is due: `expected`, a "method", a "content header" or a "content body"."""

    def __init__(self, message: str, expected: str) -> None:
        super().__init__(message, UNEXPECTED_FRAME)
        self.expected = expected


class Content:
    """A content between its method and its last body frame.

    head: tuple -- the event up to the properties, see :func:`event_head`.
    size: int -- octets declared by the header; -1 until it has come.
    left: int -- octets of the body that have not been announced by a body frame yet.
    collected: int -- octets of the body that are here.
    """

    __slots__ = ("_pieces", "_stream", "collected", "head", "left", "properties", "size")

    def __init__(self, head: tuple[Any, ...], properties: Properties | None = None, size: int = -1) -> None:
        self.head = head
        self.properties = properties
        self.size = size
        self.left = size
        self.collected = 0
        self._pieces: list[bytes | bytearray | memoryview] = []
        self._stream: BytesIO | None = None

    def take_header(
        self, payload: bytes, max_message_size: int, decode_properties: Callable[[bytes], Properties]
    ) -> None:
        """Judge and keep the content header whose frame holds `payload`."""
        if self.size >= 0:
            raise Misplaced("a second content header inside a content", "content body")
        if len(payload) < _HEADER.size:
            raise RemoteProtocolError(f"content header of {len(payload)} octets", FRAME_ERROR)
        class_id, weight, size = _HEADER.unpack_from(payload)
        if class_id != CLASS_BASIC:
            raise RemoteProtocolError(f"content header of class {class_id} after a basic method", FRAME_ERROR)
        if weight:
            raise RemoteProtocolError(f"content header of weight {weight}; it must be 0", FRAME_ERROR)
        if size > max_message_size:
            oversized = Oversized(
                f"content of {size} octets, larger than the max_message_size {max_message_size}", FRAME_ERROR
            )
            oversized.size = size
            raise oversized
        self.properties = decode_properties(payload[_HEADER.size :])
        self.size = self.left = size

    def announce(self, size: int) -> None:
        """Judge a body frame that declares `size` octets, before they come."""
        if self.size < 0:
            raise Misplaced("a body frame where the content header is due", "content header")
        if size > self.left:
            raise RemoteProtocolError(
                f"body frames of {self.size - self.left + size} octets in a content of {self.size}", FRAME_ERROR
            )
        self.left -= size

    def collect(self, data: bytes, start: int, stop: int) -> None:
        """Take `data[start:stop]`, octets of the body."""
        octets = stop - start
        self.collected += octets
        if self._stream is not None:
            self._stream.write(memoryview(data)[start:stop])
        elif self.size > _STREAM_FROM:
            self._stream = BytesIO()
            self._stream.write(memoryview(data)[start:stop])
        elif octets < _SMALL_PIECE:
            # An object for each of many small pieces would cost a multiple of their octets.
            if not self._pieces or type(self._pieces[-1]) is not bytearray:
                self._pieces.append(bytearray())
            self._pieces[-1] += data[start:stop]  # type: ignore[operator]
        elif 2 * octets >= len(data):
            # A view keeps the whole chunk alive, which is fine where most of it is wanted anyway.
            self._pieces.append(memoryview(data)[start:stop])
        else:
            self._pieces.append(data[start:stop])

    def event(self, body: bytes | None = None) -> ContentEvent:
        """The finished event; `body` is given when it came in one piece and nothing was collected."""
        if body is None:
            # getvalue() hands out BytesIO's own buffer: a body is not copied, nor held, a second time.
            body = b"".join(self._pieces) if self._stream is None else self._stream.getvalue()
        return (*self.head, self.properties, body)
