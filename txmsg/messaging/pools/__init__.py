"""Pools: connections, channels and producers that are used by many, one at a time."""

from __future__ import annotations

from txmsg.messaging.pools.acquiring import Acquiring
from txmsg.messaging.pools.resource import Resource

__all__ = ["Acquiring", "Resource"]
