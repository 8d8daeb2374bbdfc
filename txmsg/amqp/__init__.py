"""The AMQP 0-9-1 client: methods become Deferreds on a Twisted protocol.

Start with :func:`connect`, or with :class:`ReconnectingConnection` for one that comes back after a loss; the rest is
reached from the connection they give you.
"""

from __future__ import annotations

from txmsg.amqp.channel import Channel
from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.consumers import Consumer
from txmsg.amqp.deferred_queue import ClosableDeferredQueue
from txmsg.amqp.delivery import Delivery, ReturnedMessage
from txmsg.amqp.endpoint import connect
from txmsg.amqp.handshake import Negotiated
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.recovery import (
    Backoff,
    DuplicateWindow,
    Member,
    Publisher,
    PublisherReport,
    ReconnectingConnection,
    RecoveringChannel,
    RecoveringConsumer,
    RecoveryEvent,
    RecoveryState,
    RetryPolicy,
    RetryStep,
    StateChange,
    Topology,
)
from txmsg.amqp.sasl import AMQPlainCredentials, Credentials, ExternalCredentials, PlainCredentials
from txmsg.amqp.tls import TLSOptions
from txmsg.wire.properties import BasicProperties, UndecodableProperties

__all__ = [
    "AMQPProtocol",
    "AMQPlainCredentials",
    "Backoff",
    "BasicProperties",
    "Channel",
    "ClosableDeferredQueue",
    "ConnectionParameters",
    "Consumer",
    "Credentials",
    "Delivery",
    "DuplicateWindow",
    "ExternalCredentials",
    "Member",
    "Negotiated",
    "PlainCredentials",
    "Publisher",
    "PublisherReport",
    "ReconnectingConnection",
    "RecoveringChannel",
    "RecoveringConsumer",
    "RecoveryEvent",
    "RecoveryState",
    "RetryPolicy",
    "RetryStep",
    "ReturnedMessage",
    "StateChange",
    "TLSOptions",
    "Topology",
    "UndecodableProperties",
    "connect",
]
