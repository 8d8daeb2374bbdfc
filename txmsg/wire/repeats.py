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
from txmsg.wire.constants import CLASS_BASIC, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, Role
from txmsg.wire.content import Content, Properties, decode_properties
from txmsg.wire.events import ACK, DELIVER, NACK, PUBLISH, Event
from txmsg.wire.frames import FRAME_START
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic
from txmsg.wire.properties import UndecodableProperties
from txmsg.wire.session import Limits
from txmsg.wire.splitter import START_SIZE

__all__ = ["Repeats"]

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
_Tail: TypeAlias = tuple[Callable[[bytes, int], tuple[Any, ...]], int, Any, Any, Any, Any]

#: How to read a method frame whose start is known: the event's kind; channel; consumer tag; a function that
#: unpacks what varies; octets from the frame's start to that; octets from the frame's start to the body size;
#: the octets that must stand between the properties and the body frame's size; key -> tail.
_Known: TypeAlias = tuple[int, int, str, Callable[[bytes, int], tuple[Any, ...]], int, int, bytes, dict[bytes, _Tail]]


@lru_cache(maxsize=1024)
def _unpacker(layout: str) -> Callable[[bytes, int], tuple[Any, ...]]:
    return Struct(layout).unpack_from


class Repeats:
    """The caches of one connection, and the reading of what is found in them.

    sender: Role -- whose frames they are; a client publishes, a server delivers.
    limits: Limits -- what the peer may cost us.
    contents: dict -- the contents that are not whole, by channel, shared with the plain way.
    takes_contents -- a function that says whether contents and acknowledgements may come on a channel now.
        When its answer changes for a channel, :meth:`forget` is to be called.
    """

    __slots__ = (
        "_contents",
        "_frequent",
        "_known",
        "_limits",
        "_properties",
        "_size",
        "_table_limits",
        "_takes_contents",
    )

    def __init__(
        self,
        sender: Role,
        limits: Limits,
        contents: dict[int, Content],
        takes_contents: Callable[[int], bool],
    ) -> None:
        self._limits = limits
        self._contents = contents
        self._takes_contents = takes_contents
        self._table_limits = limits.table_limits
        #: Encoded ids -> kind, of the methods worth learning.
        self._frequent = _frequent(sender)
        #: The start of a method frame -> how to read the rest.  The key of a deliver is everything up to its
        #: delivery tag: frame type, channel, size, ids, consumer tag.  That of the other frequent methods is
        #: their first twelve octets.  In both, the twelfth octet tells how long the key is.
        self._known: dict[bytes, _Known] = {}
        #: Entries in that and in the tails.
        self._size = 0
        #: An encoded property list -> the decoded one.
        self._properties: dict[bytes, Properties] = {}

    def take(self, data: bytes, position: int, events: list[Event], size_limit: int) -> int:
        """Take the contents and acknowledgements from `position` on that are whole and look like earlier ones.

        Returns the offset of the first frame that is neither, which the plain way is to read; it may be the
        first body frame of a content that has been begun here.

        size_limit: int -- octets of payload that a frame may have.
        """
        # Hot: about 0.8 us for a delivery of 100 bytes.
        end = len(data)
        known_of = self._known.get
        properties_of = self._properties.get
        contents = self._contents
        max_message_size = self._limits.max_message_size
        whole_limit = min(size_limit, max_message_size)
        append = events.append

        while position + 12 <= end:
            # The twelfth octet is the length of the consumer tag in a deliver and 0 in the others.
            known = known_of(data[position : position + 12 + data[position + 11]])
            if known is None:
                known = self._learn(data, position, size_limit)
                if known is None:
                    return position
            kind, number, consumer_tag, unpack, start, skip, mark, tails = known
            at = position + skip
            if at > end or (contents and number in contents):
                return position

            if kind == DELIVER:
                delivery_tag, key = unpack(data, position + start)
            elif kind == PUBLISH:
                (key,) = unpack(data, position + start)
            else:
                delivery_tag, bits, last = unpack(data, position + start)
                if last != FRAME_END:
                    return position
                if kind == ACK:
                    append((ACK, number, delivery_tag, bits & 1 == 1))
                else:
                    append((NACK, number, delivery_tag, bits & 1 == 1, bits & 2 == 2))
                position = at
                continue

            tail = tails.get(key)
            if tail is None:
                tail = self._learn_tail(data, position, known, key, size_limit)
                if tail is None:
                    return position
            unpack_header, to_body, a, b, c, d = tail
            first = at + to_body
            if first > end:
                return position
            size, octets, between, frame_size = unpack_header(data, at)
            after = first + size
            if between == mark and size == frame_size <= whole_limit and size > 0 and after < end:
                if data[after] != FRAME_END:
                    return position
                body = data[first:after]
            elif size == 0 and between[0] == FRAME_END:
                # No body frame: what was taken for one is the start of the next frame.
                body = b""
                after = first - FRAME_OVERHEAD
            elif between == mark and 0 < size <= max_message_size:
                # The method and the header are whole, the body is not: the plain way goes on at its first frame.
                if kind == DELIVER:
                    contents[number] = Content(
                        (DELIVER, number, consumer_tag, delivery_tag, a, b, c), self.decode_properties(octets), size
                    )
                else:
                    contents[number] = Content((PUBLISH, number, a, b, c, d), self.decode_properties(octets), size)
                return first - START_SIZE
            else:
                return position
            properties = properties_of(octets)
            if properties is None:
                properties = self.decode_properties(octets)
            if kind == DELIVER:
                append((DELIVER, number, consumer_tag, delivery_tag, a, b, c, properties, body))
            else:
                append((PUBLISH, number, a, b, c, d, properties, body))
            position = after + 1
        return position

    def _learn(self, data: bytes, position: int, size_limit: int) -> _Known | None:
        """Remember the start of the frame at `position` if it is whole, frequent and allowed.

        What varies, the end octet of an ack, and the tail of a content are judged each time.
        """
        kind = self._frequent.get(data[position + 7 : position + 11])
        if kind is None:
            return None
        frame_type, number, size = FRAME_START.unpack_from(data, position)
        last = position + START_SIZE + size
        if frame_type != FRAME_METHOD or size > size_limit or last >= len(data) or not self._takes_contents(number):
            return None
        # The consumer tag's length in a deliver, the first octet of the tag or of the reserved short in others.
        twelfth = data[position + 11]
        known: _Known
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
        self._known[data[position : position + 12 + twelfth]] = known
        return known

    def _learn_tail(self, data: bytes, position: int, known: _Known, key: bytes, size_limit: int) -> _Tail | None:
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
        tail: _Tail
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
            if len(self._properties) >= _MAX_PROPERTIES:
                self._properties.clear()
            self._properties[octets] = properties
        return properties

    def forget(self) -> None:
        """Forget everything that a channel's state allowed."""
        self._known.clear()
        self._size = 0

    def clear(self) -> None:
        """Forget everything."""
        self.forget()
        self._properties.clear()

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
