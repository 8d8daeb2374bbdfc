"""What repeats in a stream of messages: octets that were decoded once, kept with what they mean.

Almost all octets of a delivery are those of the one before it: the frame's start, the consumer tag, the
exchange, the routing key, the header frame's start and often all of the properties.  Looking them up costs a
fifth of decoding them.  The invariants:

* Only octets that the plain decoders accepted are kept, and for a channel only while its state does not change.
  So a hit means what plain decoding would have given.
* What is kept is immutable: properties with headers (a dict) are decoded for each message.
* The caches are bounded in entries and in the size of an entry, because the peer decides what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, Final, TypeAlias

from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import CLASS_BASIC, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, Role
from txmsg.wire.content import Properties, decode_properties
from txmsg.wire.events import ACK, DELIVER, NACK, PUBLISH
from txmsg.wire.frames import FRAME_START
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic
from txmsg.wire.properties import UndecodableProperties
from txmsg.wire.splitter import START_SIZE
from txmsg.wire.tables import TableLimits

__all__ = ["Known", "Repeats", "Tail"]

#: Beyond these the caches are emptied.
_MAX_KNOWN: Final = 1024
_MAX_PROPERTIES: Final = 512
#: Longer property lists are not kept.
_MAX_CACHED_PROPERTIES: Final = 256

#: Delivery tag, bits, end octet: an ack or nack after its ids.
_ACK: Final = Struct(">QBB")
_ACK_SIZE: Final = 13
#: A content header frame up to the body size: type, channel, payload size, class, weight.
_HEADER_FRAME: Final = Struct(">BHIHH")
#: The part of a content header's payload before the properties.
_HEADER_FIXED: Final = 12

#: How to read the rest of a content: a function that unpacks the header from the body size on; octets from
#: there to the body; and the up to four elements of the event that the method's tail gives.
Tail: TypeAlias = tuple[Callable[[bytes, int], tuple[Any, ...]], int, Any, Any, Any, Any]

#: How to read a method frame whose start is known: the event's kind; channel; consumer tag; a function that
#: unpacks what varies; octets from the frame's start to that; octets from the frame's start to the body size;
#: the octets that must stand between the properties and the body frame's size; key -> tail.
Known: TypeAlias = tuple[int, int, str, Callable[[bytes, int], tuple[Any, ...]], int, int, bytes, dict[bytes, Tail]]


@lru_cache(maxsize=1024)
def _unpacker(layout: str) -> Callable[[bytes, int], tuple[Any, ...]]:
    return Struct(layout).unpack_from


class Repeats:
    """The caches of one connection.

    sender: Role -- whose frames they are; a client publishes, a server delivers.

    `known` -- the start of a method frame -> how to read the rest.  The key of a deliver is everything up to
    its delivery tag: frame type, channel, size, ids, consumer tag.  That of the other frequent methods is their
    first twelve octets.  In both, the twelfth octet tells how long the key is.
    `properties` -- an encoded property list -> the decoded one.
    `frequent` -- the encoded ids of the methods worth learning.
    """

    __slots__ = ("_size", "_table_limits", "frequent", "known", "properties")

    def __init__(self, sender: Role, table_limits: TableLimits) -> None:
        self.known: dict[bytes, Known] = {}
        self.properties: dict[bytes, Properties] = {}
        self.frequent: dict[bytes, int] = _frequent(sender)
        self._size = 0
        self._table_limits = table_limits

    def learn(self, data: bytes, position: int, size_limit: int) -> Known | None:
        """Remember the start of the frame at `position` if it is whole, sound, and of a frequent method.

        The channel must be one that such a method is allowed on now.
        """
        frame_type, number, size = FRAME_START.unpack_from(data, position)
        last = position + START_SIZE + size
        if frame_type != FRAME_METHOD or size > size_limit or last >= len(data) or data[last] != FRAME_END:
            return None
        kind = self.frequent[data[position + 7 : position + 11]]
        # The consumer tag's length in a deliver, the first octet of the tag or of the reserved short in others.
        twelfth = data[position + 11]
        known: Known
        if kind == DELIVER:
            start = 12 + twelfth
            skip = START_SIZE + size + 1 + _HEADER_FRAME.size
            # Delivery tag; the rest of the method, its end octet and the start of the header frame.
            varying = skip - start - 8
            if varying <= 1 + _HEADER_FRAME.size:
                return None
            consumer_tag = data[position + 12 : position + start].decode("utf-8", "surrogateescape")
            known = (kind, number, consumer_tag, _unpacker(f">Q{varying}s"), start, skip, _mark(number), {})
        elif twelfth:
            return None
        elif kind == PUBLISH:
            skip = START_SIZE + size + 1 + _HEADER_FRAME.size
            known = (kind, number, "", _unpacker(f">{skip - 12}s"), 12, skip, _mark(number), {})
        elif size == _ACK_SIZE:
            known = (kind, number, "", _ACK.unpack_from, 11, START_SIZE + size + 1, b"", {})
        else:
            return None
        self._make_room()
        self.known[data[position : position + 12 + twelfth]] = known
        return known

    def learn_tail(self, data: bytes, position: int, known: Known, key: bytes, size_limit: int) -> Tail | None:
        """Remember the rest of the deliver or publish at `position`, up to the body size in its header frame.

        None if anything is wrong with it: then the plain way is to report what.
        """
        kind, number, _tag, _unpack, _start, skip, _between, tails = known
        header = position + skip - _HEADER_FRAME.size
        frame_type, header_number, size, class_id, weight = _HEADER_FRAME.unpack_from(data, header)
        length = size - _HEADER_FIXED
        if (
            data[header - 1] != FRAME_END
            or frame_type != FRAME_HEADER
            or header_number != number
            or class_id != CLASS_BASIC
            or weight
            or not 0 <= length <= size_limit - _HEADER_FIXED
        ):
            return None
        # Body size; properties; end octet, type and channel of the body frame; that frame's size.
        unpack = _unpacker(f">Q{length}s4sI")
        to_body = length + 16
        tail: Tail
        try:
            if kind == DELIVER:
                deliver = basic.Deliver.decode(data, position + 11, header - 1, self._table_limits)
                tail = (unpack, to_body, deliver.redelivered, deliver.exchange, deliver.routing_key, None)
            else:
                publish = basic.Publish.decode(data, position + 11, header - 1, self._table_limits)
                tail = (
                    unpack,
                    to_body,
                    publish.exchange,
                    publish.routing_key,
                    publish.mandatory,
                    publish.immediate,
                )
        except RemoteProtocolError:
            return None
        self._make_room()
        tails[key] = tail
        return tail

    def decode_properties(self, octets: bytes) -> Properties:
        """Decode a property list, and remember it if it is small and cannot be changed by who gets it."""
        properties = decode_properties(octets, self._table_limits)
        if (
            len(octets) <= _MAX_CACHED_PROPERTIES
            and not isinstance(properties, UndecodableProperties)
            and properties.headers is None
        ):
            if len(self.properties) >= _MAX_PROPERTIES:
                self.properties.clear()
            self.properties[octets] = properties
        return properties

    def forget(self) -> None:
        """Forget everything that a channel's state allowed."""
        self.known.clear()
        self._size = 0

    def clear(self) -> None:
        """Forget everything."""
        self.forget()
        self.properties.clear()

    def _make_room(self) -> None:
        if self._size >= _MAX_KNOWN:
            self.forget()
        self._size += 1


def _frequent(sender: Role) -> dict[bytes, int]:
    """Encoded ids -> kind, for the frequent methods that `sender` may send."""
    kinds: tuple[tuple[int, type[Method]], ...] = (
        (DELIVER, basic.Deliver),
        (PUBLISH, basic.Publish),
        (ACK, basic.Ack),
        (NACK, basic.Nack),
    )
    return {
        method.CLASS_ID.to_bytes(2, "big") + method.METHOD_ID.to_bytes(2, "big"): kind
        for kind, method in kinds
        if sender in method.SENT_BY
    }


def _mark(channel: int) -> bytes:
    """What stands between the properties and the size of the body frame on `channel`."""
    return bytes((FRAME_END, FRAME_BODY)) + channel.to_bytes(2, "big")
