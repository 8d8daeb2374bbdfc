"""What `WireConnection.receive` gives: the vocabulary between the wire and everything above it.

Two shapes, because of their rates.  What comes once per message is a plain tuple whose first element is one of
the kinds below (a tuple costs a quarter of what a dataclass does); everything rare is a slotted dataclass.
`type(event) is tuple` tells them apart.

The tuples, in the order of the specification's arguments (classes basic, methods deliver, get-ok, return,
publish, ack and nack):

    (DELIVER, channel, consumer_tag, delivery_tag, redelivered, exchange, routing_key, properties, body)
    (GET_OK, channel, delivery_tag, redelivered, exchange, routing_key, message_count, properties, body)
    (RETURN, channel, reply_code, reply_text, exchange, routing_key, properties, body)
    (PUBLISH, channel, exchange, routing_key, mandatory, immediate, properties, body)
    (ACK, channel, delivery_tag, multiple)
    (NACK, channel, delivery_tag, multiple, requeue)

`body` is always bytes.  `properties` is a :class:`~txmsg.wire.properties.BasicProperties`, which may be shared
between events (it is immutable unless it holds headers, and then it is not shared), or an
:class:`~txmsg.wire.properties.UndecodableProperties` when the frames were sound but the property list was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from txmsg.errors import RemoteProtocolError
from txmsg.wire.layout import Method

__all__ = [
    "ACK",
    "DELIVER",
    "GET_OK",
    "KIND_NAMES",
    "NACK",
    "PUBLISH",
    "RETURN",
    "ContentEvent",
    "ContentRefused",
    "Event",
    "MethodReceived",
    "ProtocolFailure",
    "ProtocolHeaderReceived",
]

#: Kinds: the first element of a tuple event.
DELIVER: Final = 0
GET_OK: Final = 1
RETURN: Final = 2
PUBLISH: Final = 3
ACK: Final = 4
NACK: Final = 5

#: Kind -> the name of the method it came from, for logs.
KIND_NAMES: Final[dict[int, str]] = {
    DELIVER: "basic.deliver",
    GET_OK: "basic.get-ok",
    RETURN: "basic.return",
    PUBLISH: "basic.publish",
    ACK: "basic.ack",
    NACK: "basic.nack",
}


@dataclass(slots=True)
class MethodReceived:
    """A method without content, other than basic.ack and basic.nack, that the protocol allows now.

    channel: int -- 0 for the methods of class connection.
    method: an instance from :mod:`txmsg.wire.methods`.
    """

    channel: int
    method: Method


@dataclass(slots=True)
class ProtocolHeaderReceived:
    """The eight octets that open a stream (section 4.2.2).

    A server gets it first from every client; a client only from a server that refuses the version it asked
    for, just before that server closes the socket.  Unless it is ``AMQP 0 0 9 1`` arriving at a server, it is
    the last event of the connection.

    raw: bytes -- the eight octets.
    version: tuple of int -- the last four of them, or () when the first four are not ``AMQP``.
    """

    raw: bytes
    version: tuple[int, ...]


@dataclass(slots=True)
class ProtocolFailure:
    """The peer broke the protocol.  Always the last event: what follows in the stream has no meaning.

    error: RemoteProtocolError -- its `reply_code` is the one to send in connection.close.
    channel, class_id, method_id: int -- what was being read: a frame on that channel, with or of that method; 0
        where there was none.
    """

    error: RemoteProtocolError
    channel: int = 0
    class_id: int = 0
    method_id: int = 0


@dataclass(slots=True)
class ContentRefused:
    """Servers only: a client announces a body of more than `max_message_size` octets.

    Nothing of it is kept, and whatever else comes on the channel is discarded, but its close; whoever gets this must
    close the channel.

    channel: int.  size: int -- octets announced.
    """

    channel: int
    size: int


#: A content or an acknowledgement; see the module's docstring for the elements.
ContentEvent: TypeAlias = tuple[Any, ...]

#: Anything that `receive` gives.
Event: TypeAlias = ContentEvent | MethodReceived | ContentRefused | ProtocolHeaderReceived | ProtocolFailure
