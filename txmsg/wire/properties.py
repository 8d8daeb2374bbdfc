"""The properties of a content of class basic: what a message says about itself.

AMQP 0-9-1 sections 1.8 (the 14 properties) and 4.2.6.1 (the property list: flag words, then the values of the
properties whose flag is set).  A property is present or absent (None), and present values that are falsy are
sent: priority 0, an empty string, an empty table.

Invariants: ``decode(encode(p)) == p``, with a datetime as the int it was sent as; ``encode(decode(b)) == b`` but
for what `txmsg.wire.tables` lists and for continuation flags, which are read and not written.  Decoding any
bytes gives properties or :class:`RemoteProtocolError`; it is the caller who decides that this costs a message
(:class:`UndecodableProperties`) and not the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, Final, Self

from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire.compiler import compile_properties
from txmsg.wire.constants import FRAME_ERROR
from txmsg.wire.layout import decode_argument, encode_argument
from txmsg.wire.primitives import (
    MAX_SHORT_STRING,
    seconds_since_epoch,
    show,
    type_name,
)
from txmsg.wire.tables import DEFAULT_TABLE_LIMITS, TableLimits

__all__ = ["NO_PROPERTIES", "BasicProperties", "UndecodableProperties"]

#: (name, kind of argument) in wire order: the first has the highest flag bit.
_PROPERTIES: Final = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)
_NAMES: Final = tuple(name for name, _ in _PROPERTIES)
#: (flag, name, kind) of each.
_LAYOUT: Final = tuple((0x8000 >> i, name, kind) for i, (name, kind) in enumerate(_PROPERTIES))
_MESSAGE_ID: Final = _NAMES.index("message_id")
_CONTINUATION: Final = 1
#: The flag bits that stand for no property; the lowest says that another flag word follows.
_UNKNOWN_FLAGS: Final = 0xFFFF & ~sum(flag for flag, _, _ in _LAYOUT) & ~_CONTINUATION

_all_values = attrgetter(*("_" + name for name in _NAMES))


class BasicProperties:
    """The 14 properties of a message, all None (absent) by default.  Read-only.

    An instance may be shared by many messages, and its encoding is remembered, unless it has `headers`: the
    dict is kept as it is and may be changed until it is sent.

    Values are checked when they are encoded (:class:`EncodeError`, naming the property); only `expiration` is
    checked here, because an int there is the commonest mistake.
    """

    __slots__ = (*("_" + name for name in _NAMES), "_encoded", "_template", "received")

    #: The names of the properties, in wire order.
    NAMES: ClassVar[tuple[str, ...]] = _NAMES

    def __init__(
        self,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
        delivery_mode: int | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expiration: str | None = None,
        message_id: str | None = None,
        timestamp: int | datetime | None = None,
        type: str | None = None,  # the specification's name
        user_id: str | None = None,
        app_id: str | None = None,
        cluster_id: str | None = None,
    ) -> None:
        if expiration is not None and not isinstance(expiration, str):
            raise EncodeError(_expiration_problem(expiration))
        self._content_type = content_type
        self._content_encoding = content_encoding
        self._headers = headers
        self._delivery_mode = delivery_mode
        self._priority = priority
        self._correlation_id = correlation_id
        self._reply_to = reply_to
        self._expiration = expiration
        self._message_id = message_id
        self._timestamp = timestamp
        self._type = type
        self._user_id = user_id
        self._app_id = app_id
        self._cluster_id = cluster_id
        self._encoded: bytes | None = None
        self._template: tuple[bytes, bytes] | None = None
        #: The octets this was decoded from, to be passed on as they came; None for what was made here.
        self.received: bytes | None = None

    @property
    def content_type(self) -> str | None:
        """MIME type of the body."""
        return self._content_type

    @property
    def content_encoding(self) -> str | None:
        """MIME content encoding of the body: the character set, or the compression."""
        return self._content_encoding

    @property
    def headers(self) -> Mapping[str, Any] | None:
        """A field table; see `txmsg.wire.tables` for the types of its values.  A dict when decoded."""
        return self._headers

    @property
    def delivery_mode(self) -> int | None:
        """1: may be lost with the broker.  2: persistent in a durable queue."""
        return self._delivery_mode

    @property
    def priority(self) -> int | None:
        """0 to 255; RabbitMQ's priority queues use 0 to `x-max-priority`."""
        return self._priority

    @property
    def correlation_id(self) -> str | None:
        """Which request a reply belongs to."""
        return self._correlation_id

    @property
    def reply_to(self) -> str | None:
        """The queue for a reply; a sender's claim, not checked by the broker."""
        return self._reply_to

    @property
    def expiration(self) -> str | None:
        """Milliseconds until the message expires, as a string: "60000"."""
        return self._expiration

    @property
    def message_id(self) -> str | None:
        """The sender's identifier of the message."""
        return self._message_id

    @property
    def timestamp(self) -> int | datetime | None:
        """Seconds since 1970 in UTC.

        Always an int when decoded, as the sender sent it: many send milliseconds.  To send, an int from 0 to
        2**64-1, or a datetime: aware, or naive and then taken as UTC; its fraction of a second is dropped.
        """
        return self._timestamp

    @property
    def type(self) -> str | None:
        """The sender's name for the kind of message."""
        return self._type

    @property
    def user_id(self) -> str | None:
        """RabbitMQ refuses a message whose `user_id` is not the user who is logged in (406)."""
        return self._user_id

    @property
    def app_id(self) -> str | None:
        """The sending application."""
        return self._app_id

    @property
    def cluster_id(self) -> str | None:
        """Deprecated by the specification, which wants it empty."""
        return self._cluster_id

    def as_dict(self) -> dict[str, Any]:
        """The properties that are present, by name, in wire order."""
        return {name: value for name, value in zip(_NAMES, _all_values(self), strict=True) if value is not None}

    def replace(self, **changes: Any) -> Self:
        """A copy with some properties changed; None makes one absent.  TypeError for what is not a property."""
        values = dict(zip(_NAMES, _all_values(self), strict=True))
        values.update(changes)
        return self.__class__(**values)

    def __eq__(self, other: object) -> bool:
        """True for the same properties; False, not an error, for any foreign type."""
        if not isinstance(other, BasicProperties):
            return NotImplemented
        return bool(_all_values(self) == _all_values(other))

    def __hash__(self) -> int:
        """TypeError when there are headers, which are a dict."""
        return hash(_all_values(self))

    def __repr__(self) -> str:
        """Shows what is present, long values cut; never fails."""
        return f"BasicProperties({', '.join(f'{name}={show(value)}' for name, value in self.as_dict().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.__class__, _all_values(self))

    def encode(self) -> bytes:
        """The flag word and the values, as they end a content header.

        :class:`EncodeError`, which names the property, for a value that AMQP cannot carry.
        """
        if self._encoded is not None:
            return self._encoded
        encoded = self._encode(None)
        if self._headers is None:
            self._encoded = encoded
        return encoded

    def encode_with_message_id(self, message_id: bytes) -> bytes:
        """What ``replace(message_id=...)`` would encode to, for an id that is encoded already, but faster.

        :class:`EncodeError` for an id of more than 255 bytes.
        """
        if len(message_id) > MAX_SHORT_STRING:
            raise EncodeError(
                f"message_id: {len(message_id)} bytes do not fit a short string, which holds {MAX_SHORT_STRING}"
            )
        if self._template is not None:
            before, after = self._template
            return b"%b%c%b%b" % (before, len(message_id), message_id, after)
        encoded = self._encode(message_id)
        if self._headers is None:
            # What stands before the id is as long as all the properties before it, encoded alone.
            cut = len(_plain_encode((*_all_values(self)[:_MESSAGE_ID], *[None] * (len(_NAMES) - _MESSAGE_ID))))
            self._template = (encoded[:cut], encoded[cut + 1 + len(message_id) :])
        return encoded

    def _encode(self, message_id: bytes | None) -> bytes:
        try:
            return _fast_encode(self, message_id)
        except Exception:  # noqa: S110  # asked again below, outside this block: nothing is chained to the answer
            pass
        values = _all_values(self)
        if message_id is not None:
            text = message_id.decode("utf-8", "surrogateescape")
            values = (*values[:_MESSAGE_ID], text, *values[_MESSAGE_ID + 1 :])
        return _plain_encode(values)

    @classmethod
    def decode(cls, data: bytes, limits: TableLimits = DEFAULT_TABLE_LIMITS) -> Self:
        """The properties in `data`, which must be a whole property list: flags and values, nothing after them.

        :class:`RemoteProtocolError` for anything else: cut flag words or values, flags that stand for no
        property, octets left over, faults in the headers (502; an unknown kind of field is the subclass
        :class:`~txmsg.wire.tables.UnknownFieldKind`).
        """
        try:
            made: Self = _fast_decode(cls, data, limits)
        except (IndexError, struct.error, RemoteProtocolError):
            pass
        else:
            made._encoded = data if made._headers is None else None  # passed on as it came
            made._template = None
            made.received = data
            return made
        made = cls(**_plain_decode(data, limits))
        made.received = data
        return made


_fast_encode, _fast_decode = compile_properties(_LAYOUT, "message_id")


# -- the plain codec, which gives every error its text ---------------------------------------------------


def _plain_decode(data: bytes, limits: TableLimits) -> dict[str, Any]:
    end = len(data)
    if end < 2:
        raise RemoteProtocolError(f"properties: the flag word is cut, {end} octets are left", FRAME_ERROR)
    flags = int.from_bytes(data[:2], "big")
    at = _skip_continuations(data, flags)
    values: dict[str, Any] = {}
    for flag, name, kind in _LAYOUT:
        if flags & flag:
            values[name], at = decode_argument(kind, data, at, end, name, limits)
    if at != end:
        raise RemoteProtocolError(f"properties: {end - at} octets after the last property", FRAME_ERROR)
    return values


def _skip_continuations(data: bytes, flags: int) -> int:
    """The offset of the first value; further flag words may stand before it, but no flag without a property."""
    at = 2
    unknown = flags & _UNKNOWN_FLAGS
    while flags & _CONTINUATION and not unknown:
        if at + 2 > len(data):
            raise RemoteProtocolError("properties: a continued flag word is cut", FRAME_ERROR)
        flags = data[at] << 8 | data[at + 1]
        unknown = flags & ~_CONTINUATION
        at += 2
    if unknown:
        raise RemoteProtocolError(f"properties: flags {unknown:#06x} stand for no known property", FRAME_ERROR)
    return at


def _plain_encode(values: tuple[Any, ...]) -> bytes:
    flags = 0
    parts = [b""]
    for (flag, name, kind), value in zip(_LAYOUT, values, strict=True):
        if value is not None:
            flags |= flag
            parts.append(_encode_timestamp(value) if name == "timestamp" else encode_argument(kind, value, name))
    parts[0] = flags.to_bytes(2, "big")
    return b"".join(parts)


def _encode_timestamp(value: object) -> bytes:
    if isinstance(value, datetime):
        value = seconds_since_epoch(value, "timestamp")
    if not isinstance(value, int):
        raise EncodeError(f"timestamp: expected an int of seconds or a datetime, got {type_name(value)}")
    return encode_argument("longlong", value, "timestamp")


def _expiration_problem(value: object) -> str:
    return (
        f"expiration: expected a str of milliseconds, such as '60000', got {type_name(value)} {show(value)}; "
        "AMQP sends it as a string"
    )


#: No property at all; shared, because it cannot change.
NO_PROPERTIES: Final = BasicProperties()


@dataclass(frozen=True, slots=True)
class UndecodableProperties:
    """What a content carries in place of its properties when they cannot be decoded.

    The frames were sound, so the message can still be acknowledged or rejected, and others are not touched.

    raw: bytes -- the property list as it came.  error: RemoteProtocolError -- what is wrong with it.
    """

    raw: bytes
    error: RemoteProtocolError

    def __repr__(self) -> str:
        """The error and the size; not the octets."""
        return f"UndecodableProperties({len(self.raw)} bytes: {self.error})"
