"""``memory://``: the messaging transport over a virtual host of the broker's model in this process, without bytes.

No socket, no login and no AMQP frame: calls go straight to the model, so exchanges, queues, TTL, dead letters,
priorities and errors are those of `txmsg.broker`.  Nothing outlives the process.
"""

from __future__ import annotations

from txmsg.transports.memory.channel import MemoryChannel
from txmsg.transports.memory.connection import MemoryConnection
from txmsg.transports.memory.delivery import MemoryDelivery
from txmsg.transports.memory.transport import MemoryTransport

__all__ = ["MemoryChannel", "MemoryConnection", "MemoryDelivery", "MemoryTransport"]
