"""Exchanges, queues and bindings as values: compared, pickled, copied; declared when they are bound to a channel."""

from __future__ import annotations

from txmsg.messaging.entities.binding import binding
from txmsg.messaging.entities.broadcast import Broadcast
from txmsg.messaging.entities.declaring import DeclarationCache, maybe_declare
from txmsg.messaging.entities.entity import EntityChannel, MaybeChannelBound
from txmsg.messaging.entities.exchange import (
    DELIVERY_MODES,
    PERSISTENT_DELIVERY_MODE,
    TRANSIENT_DELIVERY_MODE,
    Exchange,
    OutgoingMessage,
    delivery_mode_of,
)
from txmsg.messaging.entities.queue import Queue

__all__ = [
    "DELIVERY_MODES",
    "PERSISTENT_DELIVERY_MODE",
    "TRANSIENT_DELIVERY_MODE",
    "Broadcast",
    "DeclarationCache",
    "EntityChannel",
    "Exchange",
    "MaybeChannelBound",
    "OutgoingMessage",
    "Queue",
    "binding",
    "delivery_mode_of",
    "maybe_declare",
]
