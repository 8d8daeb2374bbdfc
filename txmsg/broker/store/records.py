"""The rows of the database: what a message and a definition are as octets, and their checksums.

C7.4: no pickle.  A definition is an AMQP field table (`txmsg.wire.tables`), so a queue's arguments keep the kinds of
their integers; a message is a fixed head, its strings, its property list as it came, and its body.

Invariant: each row has a CRC-32 over all of its columns and the table's letter.  A row whose checksum is wrong is
never used; one that is right holds what was written, in the row it was written to.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from zlib import crc32

from txmsg.broker.message import Message
from txmsg.errors import RemoteProtocolError
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties
from txmsg.wire.tables import TableLimits, decode_table, encode_table

__all__ = [
    "BINDING",
    "EXCHANGE",
    "INLINE_LIMIT",
    "QUEUE",
    "SETTING",
    "Contents",
    "Definition",
    "KeptMessage",
    "MessageReader",
    "body_checksum",
    "definition_checksum",
    "message_checksum",
    "pack_definition",
    "pack_message",
    "returned_checksum",
    "unpack_definition",
]

#: The kinds of definitions, in the order in which they are restored.
SETTING: Final = 1
EXCHANGE: Final = 2
QUEUE: Final = 3
BINDING: Final = 4

#: Octets; a longer body has a row of its own, which all the queues that the message is in share.
INLINE_LIMIT: Final = 4096

#: A client's table is within its connection's limits, and here one level deeper.
_LIMITS: Final = TableLimits(max_depth=256, max_items=1 << 20)

#: flags, priority, the message's own time to live in ms, when it expires in ms since 1970, lengths of exchange,
#: routing key and properties.
_HEAD: Final = struct.Struct(">BBqqBBI")
_HAS_HEADERS: Final = 1
_NEVER: Final = -1
_MAX_MS: Final = 2**62

_message_seed = struct.Struct(">cqqq").pack
_row_seed = struct.Struct(">cqq").pack


def message_checksum(row: int, queue: int, body: int, record: bytes) -> int:
    """Of a row of `message`; `body` is 0 where it is in the record."""
    return crc32(record, crc32(_message_seed(b"m", row, queue, body)))


def body_checksum(row: int, octets: bytes) -> int:
    """Of a row of `body`."""
    return crc32(octets, crc32(_row_seed(b"b", row, 0)))


def definition_checksum(row: int, kind: int, record: bytes) -> int:
    """Of a row of `definition`."""
    return crc32(record, crc32(_row_seed(b"d", row, kind)))


def returned_checksum(row: int, delivery_count: int) -> int:
    """Of a row of `returned`."""
    return crc32(_row_seed(b"r", row, delivery_count))


# -- definitions ---------------------------------------------------------------------------------


class Definition(NamedTuple):
    """A row of `definition`, read."""

    row: int
    kind: int
    table: dict[str, Any]


def pack_definition(table: Mapping[str, Any]) -> bytes:
    """The octets; EncodeError for what no field table can hold."""
    return encode_table(table, "definition", _LIMITS)


def unpack_definition(record: bytes) -> dict[str, Any] | None:
    """The table, or None for what is not one."""
    try:
        return decode_table(record, 0, len(record), "definition", _LIMITS)[0]
    except RemoteProtocolError:
        return None


# -- messages ------------------------------------------------------------------------------------


def pack_message(message: Message, expires_at: float | None) -> bytes:
    """The octets of a message in its place; without the body where that is beyond INLINE_LIMIT.

    `expires_at`: seconds since 1970; None: never.
    """
    exchange = message.exchange.encode("utf-8", "surrogateescape")
    key = message.routing_key.encode("utf-8", "surrogateescape")
    properties = message.encoded_properties
    expires = _NEVER if expires_at is None else min(int(expires_at * 1000), _MAX_MS)
    expiration = message.expiration
    head = _HEAD.pack(
        _HAS_HEADERS if type(message.properties) is bytes else 0,
        message.priority,
        _NEVER if expiration is None else min(expiration, _MAX_MS),
        expires,
        len(exchange),
        len(key),
        len(properties),
    )
    if message.size > INLINE_LIMIT:
        return head + exchange + key + properties
    return b"".join((head, exchange, key, properties, message.body))


class KeptMessage(NamedTuple):
    """A row of `message`, read, with its body and how often it has come back."""

    row: int
    #: The row of the queue's definition.
    queue: int
    message: Message
    #: Seconds since 1970; None: never.
    expires_at: float | None
    delivery_count: int


class Contents(NamedTuple):
    """All that can be used of a database: definitions by kind and row, messages by row, the highest row of all."""

    definitions: list[Definition]
    messages: list[KeptMessage]
    last_row: int


class MessageReader:
    """Records to messages.  What repeats from message to message, names and properties, is held once."""

    _MAX_KEPT = 4096

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._properties: dict[bytes, BasicProperties] = {}

    def read(self, record: bytes, body: bytes | None) -> tuple[Message, float | None] | None:
        """The message in `record` (with `body` where that has a row of its own), and when it expires.

        None for what is not one.
        """
        try:
            flags, priority, expiration, expires, exchange, key, properties = _HEAD.unpack_from(record)
        except struct.error:
            return None
        start = _HEAD.size + exchange
        after_key = start + key
        after_properties = after_key + properties
        if after_properties > len(record):
            return None
        octets = record[after_key:after_properties]
        kept: BasicProperties | bytes = octets
        if not flags & _HAS_HEADERS:
            kept = self._properties_of(octets)
        message = Message(
            self._name(record[_HEAD.size : start]),
            self._name(record[start:after_key]),
            kept,
            record[after_properties:] if body is None else body,
            priority=priority,
            expiration=None if expiration == _NEVER else expiration,
            is_persistent=True,
        )
        return message, None if expires == _NEVER else expires / 1000

    def _name(self, octets: bytes) -> str:
        name = self._names.get(octets)
        if name is None:
            if len(self._names) >= self._MAX_KEPT:
                self._names.clear()
            name = self._names[octets] = octets.decode("utf-8", "surrogateescape")
        return name

    def _properties_of(self, octets: bytes) -> BasicProperties | bytes:
        properties = self._properties.get(octets)
        if properties is None:
            try:
                properties = BasicProperties.decode(octets)
            except RemoteProtocolError:
                return octets
            if properties == NO_PROPERTIES:
                properties = NO_PROPERTIES
            if len(self._properties) >= self._MAX_KEPT:
                self._properties.clear()
            self._properties[octets] = properties
        return properties
