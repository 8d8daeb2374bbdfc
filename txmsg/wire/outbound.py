"""Methods and contents to bytes: the half of `WireConnection` that speaks.

AMQP 0-9-1 sections 2.2.4, 2.3.5 and 4.2.  The invariants:

* What is not allowed now is a :class:`~txmsg.errors.LocalProtocolError`, what cannot be carried an
  :class:`~txmsg.errors.EncodeError`; either way nothing has changed and nothing is to be sent.
* No frame exceeds `frame_max`.
* All frames of a content come out of one call, so nothing can get between them.

What repeats is kept here too: the method frame of a publish is a function of its channel, exchange, routing key
and `mandatory`, the start of an ack of its channel.  Both are forgotten when the state of a channel changes, so
finding one says that the channel is open.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from txmsg.errors import LocalProtocolError
from txmsg.wire.constants import (
    CHANNEL_ERROR,
    CLASS_BASIC,
    CLASS_CONNECTION,
    COMMAND_INVALID,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD,
    PROTOCOL_HEADER,
    Role,
)
from txmsg.wire.frames import (
    CONTENT_HEADER_FIXED,
    END,
    END_AND_START,
    HEADER_START,
    HEARTBEAT_FRAME,
    JOIN_LIMIT,
    Octets,
    as_octets,
    content_frames,
    method_frame,
)
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic
from txmsg.wire.properties import BasicProperties
from txmsg.wire.session import Limits, Session
from txmsg.wire.states import (
    CHANNEL_TRANSITIONS,
    CONNECTION_TRANSITIONS,
    ChannelState,
    ConnectionState,
    ProtocolHeader,
)

__all__ = ["Outbound"]

#: Method frames of publishes kept; beyond it the oldest goes.  A key is at most two short strings.
_MAX_PUBLISHES: Final = 512

#: Identical to nothing.
_NO_PUBLISH: Final[tuple[Any, ...]] = (object(), object(), object(), -1)

#: Longer property lists are encoded each time.
_MAX_REPEATED_PROPERTIES: Final = 256

#: The argument of an ack or nack after the ids, and the end octet.
_pack_settlement: Final = Struct(">QBB").pack
_join: Final = b"".join

#: Octets of an ack, nack or reject frame before the delivery tag.
_SETTLEMENT_START: Final = 11


@lru_cache(maxsize=1024)
def _repeated_layout(start: int, between: int) -> Callable[..., bytes]:
    """Pack constant octets, the body size of the content header, constant octets, the size of the body frame."""
    return struct.Struct(f">{start}sQ{between}sI").pack


class Outbound(Session):
    """The sending half; see :class:`~txmsg.wire.connection.WireConnection`."""

    def __init__(self, role: Role, limits: Limits) -> None:
        super().__init__(role, limits)
        #: Method frames of publishes.
        self._publishes: dict[tuple[int, str, str, bool], bytes] = {}
        #: By address and encoded properties: how to pack all that comes before the body, and its constant parts.
        self._repeated: dict[tuple[int, str, str, bool, bytes], tuple[Callable[..., bytes], bytes, bytes]] = {}
        #: The last of those, to be recognised by identity: properties, routing key, exchange, channel, and the three.
        #: Not where properties have headers, which may change.
        self._last_publish: tuple[Any, ...] = _NO_PUBLISH
        self._seen_once: set[tuple[int, str, str, bool, bytes]] = set()
        self._join_limit = 0
        #: By channel: a frame of each settling method up to the delivery tag.
        self._acks: dict[int, bytes] = {}
        self._nacks: dict[int, bytes] = {}
        self._rejects: dict[int, bytes] = {}

    # -- methods ------------------------------------------------------------------------------------------

    def send_protocol_header(self) -> bytes:
        """The eight octets that a client opens the stream with.

        A server sends the same eight to say which version it would have wanted, before it closes the socket.
        """
        if self.role is Role.CLIENT:
            state = CONNECTION_TRANSITIONS[self.state].get((self.role, ProtocolHeader))
            if state is None:
                raise LocalProtocolError(f"the protocol header was already sent: {self.state.value}", COMMAND_INVALID)
            self._move_connection(state)
        return PROTOCOL_HEADER

    def send_method(self, channel: int, method: Method) -> bytes:
        """The frame of a method without content.

        channel: int -- 0 for the methods of class connection, and only for them.

        :class:`LocalProtocolError` when it is not allowed now, :class:`EncodeError` when a value cannot be
        encoded or the frame would exceed `frame_max`; the state is then unchanged.
        """
        if method.HAS_CONTENT:
            raise LocalProtocolError(f"{method.NAME} has a content: use send_content", COMMAND_INVALID)
        return self._send(channel, method)

    def _send(self, channel: int, method: Method) -> bytes:
        sent = (self.role, type(method))
        if method.CLASS_ID == CLASS_CONNECTION:
            after = CONNECTION_TRANSITIONS[self.state].get(sent)
            if after is None or channel:
                raise self._not_allowed(method.NAME, channel)
            frame = method_frame(channel, method.NAME, method.encode(), self.frame_max)
            if after is not self.state:
                self._move_connection(after)
            return frame
        channel_after = CHANNEL_TRANSITIONS[self.channel_state(channel)].get(sent)
        if channel_after is None or self.state is not ConnectionState.OPEN or not 0 < channel <= self.channel_max:
            raise self._not_allowed(method.NAME, channel)
        frame = method_frame(channel, method.NAME, method.encode(), self.frame_max)
        if channel_after is not self.channel_state(channel):
            self._move_channel(channel, channel_after)
        return frame

    def _not_allowed(self, name: str, channel: int) -> LocalProtocolError:
        """The error for what may not be sent; it says what stands in the way."""
        on_connection = name.startswith("connection.")
        if on_connection != (channel == 0):
            return LocalProtocolError(f"{name} cannot be sent on channel {channel}", COMMAND_INVALID)
        if on_connection or self.state is not ConnectionState.OPEN:
            return LocalProtocolError(
                f"{name} by the {self.role.value} while the connection is {self.state.value}", COMMAND_INVALID
            )
        if not 0 < channel <= self.channel_max:
            return LocalProtocolError(f"{name}: channel {channel} is outside 1 to {self.channel_max}", CHANNEL_ERROR)
        state = self.channel_state(channel)
        code = COMMAND_INVALID if state is ChannelState.OPEN else CHANNEL_ERROR
        return LocalProtocolError(f"{name} by the {self.role.value} while channel {channel} is {state.value}", code)

    def heartbeat(self) -> bytes:
        """A heartbeat frame; always the same."""
        return HEARTBEAT_FRAME

    # -- contents -----------------------------------------------------------------------------------------

    def send_content(
        self, channel: int, method: Method, properties: BasicProperties | bytes, body: Octets
    ) -> list[bytes]:
        """The frames of a publish, deliver, return or get-ok, to be written in one go.

        properties: the properties, or their encoding.
        body: bytes, bytearray or memoryview; copied unless it is bytes that fit one frame and more than 16 KiB.

        Errors as for :meth:`send_method`; also when the properties do not fit one frame.
        """
        if not method.HAS_CONTENT:
            raise LocalProtocolError(f"{method.NAME} has no content: use send_method", COMMAND_INVALID)
        octets = as_octets(body)
        encoded = properties if isinstance(properties, bytes) else properties.encode()
        return content_frames(channel, self._send(channel, method), encoded, octets, self.frame_max)

    def encode_publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        properties: BasicProperties | bytes,
        body: Octets,
    ) -> list[bytes]:
        """The frames of a publish, to be written in one go; one byte string for a body of up to 16 KiB.

        The same as :meth:`send_content` with a `basic.Publish`, for those that send many.
        """
        # Hot: about 0.3 us where address and properties repeat; all that varies then is the body and its size.
        last = self._last_publish
        if (
            properties is last[0]
            and routing_key is last[1]
            and exchange is last[2]
            and channel == last[3]
            and not mandatory
            and type(body) is bytes
            and 0 < (size := len(body)) <= self._join_limit
        ):
            return [_join((last[4](last[5], size, last[6], size), body, END))]
        if type(body) is not bytes:
            body = as_octets(body)
        if type(properties) is bytes:
            # Encoded by who gives each message an id of its own: nothing is the same in the next one but the method.
            try:
                address = self._publishes[channel, exchange, routing_key, mandatory]
            except (KeyError, TypeError):
                address = self._learn_publish(channel, exchange, routing_key, mandatory)
            return content_frames(channel, address, properties, body, self.frame_max)
        encoded: bytes = properties.encode()  # type: ignore[union-attr]
        size = len(body)
        key = (channel, exchange, routing_key, mandatory, encoded)
        try:
            repeated = self._repeated.get(key)
        except TypeError:
            # Something that is no key of a dict is no str either: let the codec say which argument it is.
            basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory).encode()
            raise
        if repeated is not None and 0 < size <= self._join_limit:
            pack, start, between = repeated
            if not mandatory and properties.headers is None:  # type: ignore[union-attr]
                self._last_publish = (properties, routing_key, exchange, channel, pack, start, between)
            return [_join((pack(start, size, between, size), body, END))]
        method = self._publishes.get(key[:4])
        if method is None:
            method = self._learn_publish(channel, exchange, routing_key, mandatory)
        if repeated is None:
            self._learn_repeated(key, method)
        return content_frames(channel, method, encoded, body, self.frame_max)

    def _learn_repeated(self, key: tuple[int, str, str, bool, bytes], method: bytes) -> None:
        """Remember what comes before a body, from the second time on: a message id comes only once."""
        channel, encoded = key[0], key[4]
        header_size = CONTENT_HEADER_FIXED + len(encoded)
        if len(encoded) > _MAX_REPEATED_PROPERTIES or header_size > self.frame_max - FRAME_OVERHEAD:
            return
        if key not in self._seen_once:
            if len(self._seen_once) >= _MAX_PUBLISHES:
                self._seen_once.clear()
            self._seen_once.add(key)
            return
        self._join_limit = min(JOIN_LIMIT, self.frame_max - FRAME_OVERHEAD)
        start = method + HEADER_START.pack(FRAME_HEADER, channel, header_size, CLASS_BASIC, 0, 0)[:-8]
        between = encoded + END_AND_START.pack(FRAME_END, FRAME_BODY, channel, 0)[:-4]
        if len(self._repeated) >= _MAX_PUBLISHES:
            del self._repeated[next(iter(self._repeated))]
        self._repeated[key] = (_repeated_layout(len(start), len(between)), start, between)

    def _learn_publish(self, channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        frame = self._send(channel, basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory))
        if len(self._publishes) >= _MAX_PUBLISHES:
            del self._publishes[next(iter(self._publishes))]
        self._publishes[channel, exchange, routing_key, mandatory] = frame
        return frame

    # -- settling -----------------------------------------------------------------------------------------

    def encode_ack(self, channel: int, delivery_tag: int, multiple: bool = False) -> bytes:
        """The frame of a basic.ack.

        delivery_tag: int -- 0 to 2**64-1; 0 with `multiple` means all that are outstanding.
        """
        try:
            return self._acks[channel] + _pack_settlement(delivery_tag, 1 if multiple else 0, FRAME_END)
        except (KeyError, struct.error):
            return self._settle(channel, basic.Ack(delivery_tag, multiple), self._acks)

    def encode_nack(self, channel: int, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> bytes:
        """The frame of a basic.nack."""
        try:
            bits = (1 if multiple else 0) | (2 if requeue else 0)
            return self._nacks[channel] + _pack_settlement(delivery_tag, bits, FRAME_END)
        except (KeyError, struct.error):
            return self._settle(channel, basic.Nack(delivery_tag, multiple, requeue), self._nacks)

    def encode_reject(self, channel: int, delivery_tag: int, requeue: bool = True) -> bytes:
        """The frame of a basic.reject."""
        try:
            return self._rejects[channel] + _pack_settlement(delivery_tag, 1 if requeue else 0, FRAME_END)
        except (KeyError, struct.error):
            return self._settle(channel, basic.Reject(delivery_tag, requeue), self._rejects)

    def _settle(self, channel: int, method: Method, starts: dict[int, bytes]) -> bytes:
        """The first of its kind on `channel`, or one that is an error."""
        frame = self._send(channel, method)
        starts[channel] = frame[:_SETTLEMENT_START]
        return frame

    # -- state --------------------------------------------------------------------------------------------

    def _move_connection(self, state: ConnectionState) -> None:
        super()._move_connection(state)
        self._forget_frames()

    def _move_channel(self, number: int, state: ChannelState) -> None:
        super()._move_channel(number, state)
        self._forget_frames()

    def _forget_frames(self) -> None:
        self._publishes.clear()
        self._last_publish = _NO_PUBLISH
        self._repeated.clear()
        self._seen_once.clear()
        self._acks.clear()
        self._nacks.clear()
        self._rejects.clear()
