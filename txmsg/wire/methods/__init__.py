"""The 64 methods of AMQP 0-9-1 with RabbitMQ's extensions, one module for each AMQP class.

Declared by hand after the specification's section 1 and https://www.rabbitmq.com/amqp-0-9-1-reference.html; the
tests compare every id, argument and octet with another library.  Class 30 (access) is left out: it was dropped
from 0-9-1, RabbitMQ does nothing with it, and `ticket`, which it gave out, is a reserved 0.

Arguments that have no default in the specification default to 0, "" or an empty table here.
"""

from __future__ import annotations

from typing import Final

from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import FRAME_ERROR, NOT_IMPLEMENTED
from txmsg.wire.layout import METHODS, Method
from txmsg.wire.methods import basic, channel, confirm, connection, exchange, queue, tx
from txmsg.wire.tables import DEFAULT_TABLE_LIMITS, TableLimits

__all__ = [
    "METHODS",
    "Method",
    "basic",
    "channel",
    "confirm",
    "connection",
    "decode_method",
    "exchange",
    "method_name",
    "queue",
    "tx",
]

# The four octets that begin a payload -> the decoder: one look-up and no unpacking.
_DECODERS: Final = {ids[0].to_bytes(2, "big") + ids[1].to_bytes(2, "big"): made.decode for ids, made in METHODS.items()}


def decode_method(payload: bytes, limits: TableLimits = DEFAULT_TABLE_LIMITS) -> Method:
    """The method in the payload of a method frame.

    :class:`RemoteProtocolError`: 540 for a method that does not exist, 501 for octets that are missing or left
    over, 502 for a fault in a table.
    """
    decode = _DECODERS.get(payload[:4])
    if decode is not None:
        return decode(payload, 4, len(payload), limits)
    if len(payload) < 4:
        raise RemoteProtocolError(
            f"a method frame of {len(payload)} octets: its class and method ids are cut", FRAME_ERROR
        )
    class_id, method_id = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    raise RemoteProtocolError(f"there is no method {method_id} in class {class_id}", NOT_IMPLEMENTED)


def method_name(class_id: int, method_id: int) -> str:
    """`"queue.declare"` for 50, 10; "" for ids that no method has."""
    made = METHODS.get((class_id, method_id))
    return "" if made is None else made.NAME
