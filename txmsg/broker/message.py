"""Messages as the broker holds them.

One :class:`Message` for each publish, shared by all the queues it was routed to; one :class:`Entry` for each place it
has in a queue.  The properties stay as they came: as octets, or as an instance that code in this process gave.
Octets are decoded again only where dead lettering or a header needs it.
"""

from __future__ import annotations

from typing import Final

from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import DELIVERY_MODE_PERSISTENT
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

__all__ = ["OVERHEAD", "Entry", "Message"]

#: What a message costs beside its octets, about, for the limit on the broker's memory.
OVERHEAD: Final = 300


class Message:
    """A message that was published.  Nothing of it changes but `places`.

    exchange, routing_key: str -- as the publisher gave them; what consumers see.
    properties: BasicProperties | bytes -- bytes (the encoded list) when they came as octets, which take a fraction of
        the memory and can be counted, and when there are headers, which would otherwise have to be copied for each
        message; else the instance given by code in this process.
    body: bytes.
    size: int -- octets of the body (what x-max-length-bytes counts).
    priority: int -- 0 when absent.
    expiration: int | None -- the message's own time to live in ms.
    is_persistent: bool -- delivery_mode 2.
    places: int -- how many queues hold it, in which it costs memory once; the queues count.
    """

    __slots__ = (
        "body",
        "exchange",
        "expiration",
        "is_persistent",
        "places",
        "priority",
        "properties",
        "routing_key",
        "size",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: BasicProperties | bytes,
        body: bytes,
        *,
        priority: int = 0,
        expiration: int | None = None,
        is_persistent: bool = False,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.size = len(body)
        self.priority = priority
        self.expiration = expiration
        self.is_persistent = is_persistent
        self.places = 0

    @classmethod
    def published(cls, exchange: str, routing_key: str, properties: BasicProperties, body: bytes) -> Message:
        """The message for a publish, with what the broker needs of its properties.

        `properties.expiration` must be valid (decimal digits); whoever calls has checked it.
        """
        made = cls.__new__(cls)
        made.exchange = exchange
        made.routing_key = routing_key
        made.body = body
        made.size = len(body)
        made.places = 0
        if properties is NO_PROPERTIES:
            made.properties = properties
            made.priority, made.expiration, made.is_persistent = 0, None, False
            return made
        received = properties.received
        if received is not None:
            made.properties = received
        else:
            made.properties = properties if properties.headers is None else properties.encode()
        expiration = properties.expiration
        made.priority = properties.priority or 0
        made.expiration = None if expiration is None else int(expiration)
        made.is_persistent = properties.delivery_mode == DELIVERY_MODE_PERSISTENT
        return made

    @property
    def encoded_properties(self) -> bytes:
        """The property list as octets; what came is passed on as it came."""
        properties = self.properties
        if type(properties) is bytes:
            return properties
        received = properties.received  # type: ignore[union-attr]
        return properties.encode() if received is None else received  # type: ignore[union-attr]

    @property
    def decoded_properties(self) -> BasicProperties:
        """The properties; the headers, if any, are a dict of the caller's own."""
        properties = self.properties
        if not isinstance(properties, bytes):
            return properties
        try:
            return BasicProperties.decode(properties)
        except RemoteProtocolError:  # it was accepted under other limits
            return NO_PROPERTIES

    @property
    def cost(self) -> int:
        """Octets it takes in a queue, about."""
        properties = self.properties
        octets = self.size + len(self.routing_key)
        return octets + OVERHEAD + (len(properties) if type(properties) is bytes else 0)

    def __repr__(self) -> str:
        """Where it goes and how big it is; never what is in it."""
        return f"<Message to exchange {self.exchange!r}, key {self.routing_key!r}, {self.size} bytes>"


class Entry:
    """A message's place in one queue.

    message: Message.
    sequence: int -- its place: given when it is put into the queue and kept when it comes back.
    expires_at: float | None -- the moment, by the broker's clock, from which it may not be delivered any more.
    delivery_count: int -- how often it has come back; above 0 it is delivered as redelivered.
    row -- whatever the journal keeps about it; None while it is not kept.
    """

    __slots__ = ("delivery_count", "expires_at", "message", "row", "sequence")

    def __init__(self, message: Message, sequence: int, expires_at: float | None = None) -> None:
        self.message = message
        self.sequence = sequence
        self.expires_at = expires_at
        self.delivery_count = 0
        self.row: object = None

    @property
    def redelivered(self) -> bool:
        """Whether it was, or may have been, delivered before."""
        return self.delivery_count > 0

    def __repr__(self) -> str:
        return f"<Entry {self.sequence}: {self.message!r}, returned {self.delivery_count} times>"
