"""Transports keep the contract as types, too."""

from __future__ import annotations

from txmsg.abc import (
    MessagingChannel,
    MessagingConnection,
    MessagingDelivery,
    MessagingTransport,
    RecoveringMessagingConnection,
)
from txmsg.transports.amqp import AMQPChannel, AMQPConnection, AMQPDelivery, AMQPTransport
from txmsg.transports.memory import MemoryChannel, MemoryConnection, MemoryDelivery, MemoryTransport


def transports(amqp: AMQPTransport, memory: MemoryTransport) -> list[MessagingTransport]:
    return [amqp, memory]


def connections(amqp: AMQPConnection, memory: MemoryConnection) -> list[MessagingConnection]:
    return [amqp, memory]


def recovering(amqp: AMQPConnection) -> RecoveringMessagingConnection:
    return amqp


def channels(amqp: AMQPChannel, memory: MemoryChannel) -> list[MessagingChannel]:
    return [amqp, memory]


def deliveries(amqp: AMQPDelivery, memory: MemoryDelivery) -> list[MessagingDelivery]:
    return [amqp, memory]
