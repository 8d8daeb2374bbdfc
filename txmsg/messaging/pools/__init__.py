"""Pools: connections, channels and producers that are used by many, one at a time; and groups of pools."""

from __future__ import annotations

from txmsg.messaging.pools.acquiring import Acquiring
from txmsg.messaging.pools.connections import ChannelPool, ConnectionPool
from txmsg.messaging.pools.groups import (
    DEFAULT_LIMIT,
    Connections,
    PoolGroup,
    Producers,
    connections,
    get_limit,
    producers,
    register_group,
    reset,
    set_limit,
    use_global_limit,
)
from txmsg.messaging.pools.producers import ProducerPool
from txmsg.messaging.pools.resource import Resource

__all__ = [
    "DEFAULT_LIMIT",
    "Acquiring",
    "ChannelPool",
    "ConnectionPool",
    "Connections",
    "PoolGroup",
    "ProducerPool",
    "Producers",
    "Resource",
    "connections",
    "get_limit",
    "producers",
    "register_group",
    "reset",
    "set_limit",
    "use_global_limit",
]
