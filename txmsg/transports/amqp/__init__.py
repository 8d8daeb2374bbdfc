"""``amqp://`` and ``amqps://``: the messaging transport over :mod:`txmsg.amqp`, on connections that come back.

Thin on purpose.  Channels are in confirm mode, so that a publish is done when the broker says so; typed replies become
the plain values of the contract, and :class:`~txmsg.amqp.BasicProperties` becomes a mapping.
"""

from __future__ import annotations

from txmsg.transports.amqp.channel import AMQPChannel
from txmsg.transports.amqp.connection import AMQPConnection
from txmsg.transports.amqp.delivery import AMQPDelivery
from txmsg.transports.amqp.transport import AMQPTransport

__all__ = ["AMQPChannel", "AMQPConnection", "AMQPDelivery", "AMQPTransport"]
