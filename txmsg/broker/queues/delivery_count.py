"""The header x-delivery-count: how often a message of a quorum queue has come back.

https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling.  It is put in when a message comes back, or is
asked for with basic.get, so that a first delivery to a consumer costs nothing, and has no such header, as on
RabbitMQ.  Classic queues have only the flag `redelivered`.
"""

from __future__ import annotations

from typing import Final

from txmsg.broker.message import Message
from txmsg.errors import EncodeError
from txmsg.wire.field_values import Int64

__all__ = ["DELIVERY_COUNT", "with_delivery_count"]

DELIVERY_COUNT: Final = "x-delivery-count"


def with_delivery_count(message: Message, count: int) -> Message:
    """`message` with the header, or as it is when its headers cannot take one more."""
    properties = message.decoded_properties
    headers = dict(sorted({**(properties.headers or {}), DELIVERY_COUNT: Int64(count)}.items()))  # as RabbitMQ's are
    try:
        encoded = properties.replace(headers=headers).encode()
    except EncodeError:
        return message
    return Message(
        message.exchange,
        message.routing_key,
        encoded,
        message.body,
        priority=message.priority,
        expiration=message.expiration,
        is_persistent=message.is_persistent,
    )
