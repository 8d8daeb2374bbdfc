"""The numbers of AMQP 0-9-1: ports, frame types, class ids, reply codes, and the two roles.

Source: AMQP 0-9-1 section 1.2 ("Constants") and 4.2.3 ("General frame format"), and RabbitMQ's
https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants, which adds nothing but spells them the same.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = [
    "ACCESS_REFUSED",
    "CHANNEL_ERROR",
    "CLASS_BASIC",
    "CLASS_CHANNEL",
    "CLASS_CONFIRM",
    "CLASS_CONNECTION",
    "CLASS_EXCHANGE",
    "CLASS_QUEUE",
    "CLASS_TX",
    "COMMAND_INVALID",
    "CONNECTION_FORCED",
    "CONTENT_TOO_LARGE",
    "DELIVERY_MODE_PERSISTENT",
    "DELIVERY_MODE_TRANSIENT",
    "FRAME_BODY",
    "FRAME_END",
    "FRAME_ERROR",
    "FRAME_HEADER",
    "FRAME_HEARTBEAT",
    "FRAME_METHOD",
    "FRAME_MIN_SIZE",
    "FRAME_OVERHEAD",
    "INTERNAL_ERROR",
    "INVALID_PATH",
    "NOT_ALLOWED",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "NO_CONSUMERS",
    "NO_ROUTE",
    "PORT",
    "PORT_TLS",
    "PRECONDITION_FAILED",
    "PROTOCOL_HEADER",
    "PROTOCOL_VERSION",
    "REPLY_NAMES",
    "REPLY_SUCCESS",
    "RESOURCE_ERROR",
    "RESOURCE_LOCKED",
    "SYNTAX_ERROR",
    "UNEXPECTED_FRAME",
    "Role",
]


class Role(Enum):
    """Which end of the connection: who sends a method, and whose state a table describes."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Role:
        """The other end."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


#: The registered TCP ports of ``amqp`` and ``amqps``.
PORT: Final = 5672
PORT_TLS: Final = 5671

#: Major, minor and revision, as the protocol header says them.
PROTOCOL_VERSION: Final = (0, 9, 1)
#: The eight octets a client sends first (section 4.2.2).
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"

# Frame types, and the octet that ends every frame (section 4.2.3).
FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8
FRAME_END: Final = 206

#: Type (1), channel (2), payload size (4) and the end octet (1): what a frame adds to its payload.
FRAME_OVERHEAD: Final = 8
#: The largest frame a peer may send before tune, and the smallest `frame_max` that may be negotiated.
FRAME_MIN_SIZE: Final = 4096

# Class ids.  Class 30 (access) is left out of 0-9-1 and of this library.
CLASS_CONNECTION: Final = 10
CLASS_CHANNEL: Final = 20
CLASS_EXCHANGE: Final = 40
CLASS_QUEUE: Final = 50
CLASS_BASIC: Final = 60
CLASS_CONFIRM: Final = 85
CLASS_TX: Final = 90

#: `delivery_mode` of a message that may be lost with the broker, and of one written to disk in a durable queue.
DELIVERY_MODE_TRANSIENT: Final = 1
DELIVERY_MODE_PERSISTENT: Final = 2

# Reply codes.  311, 313, 403 to 406 close a channel, the others from 320 on close the connection.
REPLY_SUCCESS: Final = 200
CONTENT_TOO_LARGE: Final = 311
NO_ROUTE: Final = 312
NO_CONSUMERS: Final = 313
CONNECTION_FORCED: Final = 320
INVALID_PATH: Final = 402
ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406
FRAME_ERROR: Final = 501
SYNTAX_ERROR: Final = 502
COMMAND_INVALID: Final = 503
CHANNEL_ERROR: Final = 504
UNEXPECTED_FRAME: Final = 505
RESOURCE_ERROR: Final = 506
NOT_ALLOWED: Final = 530
NOT_IMPLEMENTED: Final = 540
INTERNAL_ERROR: Final = 541

#: Reply code -> its name in the specification, as brokers write it at the head of a reply text.
REPLY_NAMES: Final[dict[int, str]] = {
    REPLY_SUCCESS: "REPLY_SUCCESS",
    CONTENT_TOO_LARGE: "CONTENT_TOO_LARGE",
    NO_ROUTE: "NO_ROUTE",
    NO_CONSUMERS: "NO_CONSUMERS",
    CONNECTION_FORCED: "CONNECTION_FORCED",
    INVALID_PATH: "INVALID_PATH",
    ACCESS_REFUSED: "ACCESS_REFUSED",
    NOT_FOUND: "NOT_FOUND",
    RESOURCE_LOCKED: "RESOURCE_LOCKED",
    PRECONDITION_FAILED: "PRECONDITION_FAILED",
    FRAME_ERROR: "FRAME_ERROR",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    COMMAND_INVALID: "COMMAND_INVALID",
    CHANNEL_ERROR: "CHANNEL_ERROR",
    UNEXPECTED_FRAME: "UNEXPECTED_FRAME",
    RESOURCE_ERROR: "RESOURCE_ERROR",
    NOT_ALLOWED: "NOT_ALLOWED",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    INTERNAL_ERROR: "INTERNAL_ERROR",
}
