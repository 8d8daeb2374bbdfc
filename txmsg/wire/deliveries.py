"""Deliveries to bytes: the hot path of a server, basic.deliver with its content.

AMQP 0-9-1 sections 1.8.3.13, 4.2.3 and 4.2.6.  From one delivery to the next on a channel only the delivery tag, the
size of the body and the body change, often the properties; what stands around them is kept, ready to be filled in.
The invariants are those of `txmsg.wire.outbound`, and one more:

* What is kept is forgotten when the state of any channel changes, so finding it says that the channel is open.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from txmsg.wire.constants import (
    CLASS_BASIC,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD,
    Role,
)
from txmsg.wire.frames import CONTENT_HEADER_FIXED, END, JOIN_LIMIT, Octets, as_octets, content_frames
from txmsg.wire.methods import basic
from txmsg.wire.outbound import Outbound
from txmsg.wire.session import Limits

__all__ = ["Deliveries"]

#: Addresses kept; beyond it the oldest goes.  Each takes four short strings at most.
_MAX_ADDRESSES: Final = 1024

#: Octets of a deliver's frame before the consumer tag: type, channel, size, ids, and the length of the tag.
_BEFORE_CONSUMER_TAG: Final = 12
#: Octets of the delivery tag behind it.
_DELIVERY_TAG: Final = 8
#: Octets of the header's frame that stand before its size: type and channel.
_HEADER_HEAD: Final = 3

#: Identical to nothing, and equal to no channel.
_NO_ADDRESS: Final[tuple[Any, ...]] = (None, None, None, False, -1, None)

#: What stands between the properties and the body: end octet, frame type, channel, size.
_pack_mark: Final = Struct(">BBHI").pack
_join: Final = b"".join

#: How to fill in a frame: a function that packs constant octets, the delivery tag, constant octets, the size of the
#: header's payload, class, weight, the size of the body; the two constants.
_Address = tuple[Callable[..., bytes], bytes, bytes]


@lru_cache(maxsize=1024)
def _layout(before: int, between: int) -> Callable[..., bytes]:
    return Struct(f">{before}sQ{between}sIHHQ").pack


class Deliveries(Outbound):
    """The sending half with the way for deliveries; see :class:`~txmsg.wire.connection.WireConnection`."""

    def __init__(self, role: Role, limits: Limits) -> None:
        super().__init__(role, limits)
        self._addresses: dict[tuple[int, str, bool, str, str], _Address] = {}
        #: The last one, to be recognised by identity: routing key, exchange, consumer tag, redelivered, channel,
        #: address.
        self._last_address: tuple[Any, ...] = _NO_ADDRESS
        #: Octets of properties, and of a body, that fit one frame and are joined with the others.
        self._properties_limit = 0
        self._body_limit = 0

    def encode_deliver(
        self,
        channel: int,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: Octets,
    ) -> list[bytes]:
        """The frames of a delivery, to be written in one go; one byte string for a body of up to 16 KiB.

        The same as :meth:`send_content` with a `basic.Deliver`, for those that send many; with the same errors.

        properties: bytes -- the encoded property list.
        """
        # Hot: about 0.5 us where the address is that of the last delivery.
        last = self._last_address
        if (
            routing_key is last[0]
            and exchange is last[1]
            and consumer_tag is last[2]
            and redelivered is last[3]
            and channel == last[4]
        ):
            pack, before, between = last[5]
        else:
            address = self._addresses.get((channel, consumer_tag, redelivered, exchange, routing_key))
            if address is None:
                address = self._learn_address(channel, consumer_tag, redelivered, exchange, routing_key)
            self._last_address = (routing_key, exchange, consumer_tag, redelivered, channel, address)
            pack, before, between = address
        size = len(body)
        header_size = CONTENT_HEADER_FIXED + len(properties)
        if type(body) is bytes and size <= self._body_limit and header_size <= self._properties_limit:
            start = pack(before, delivery_tag, between, header_size, CLASS_BASIC, 0, size)
            if size:
                return [_join((start, properties, _pack_mark(FRAME_END, FRAME_BODY, channel, size), body, END))]
            return [_join((start, properties, END))]
        end = len(before) + _DELIVERY_TAG + len(between) - _HEADER_HEAD
        method = pack(before, delivery_tag, between, 0, 0, 0, 0)[:end]
        return content_frames(channel, method, properties, as_octets(body), self.frame_max)

    def _learn_address(
        self, channel: int, consumer_tag: str, redelivered: bool, exchange: str, routing_key: str
    ) -> _Address:
        """Keep the frame up to the content header; the errors of :meth:`send_method` where it may not be sent."""
        deliver = basic.Deliver(consumer_tag, 0, redelivered, exchange, routing_key)
        frame = self._send(channel, deliver)
        room = self.frame_max - FRAME_OVERHEAD
        self._properties_limit = room
        self._body_limit = min(JOIN_LIMIT, room)
        cut = _BEFORE_CONSUMER_TAG + frame[_BEFORE_CONSUMER_TAG - 1]
        before = frame[:cut]
        between = frame[cut + _DELIVERY_TAG :] + FRAME_HEADER.to_bytes(1, "big") + channel.to_bytes(2, "big")
        address = (_layout(len(before), len(between)), before, between)
        if len(self._addresses) >= _MAX_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        self._addresses[channel, consumer_tag, redelivered, exchange, routing_key] = address
        return address

    def _forget_frames(self) -> None:
        super()._forget_frames()
        self._addresses.clear()
        self._last_address = _NO_ADDRESS
