"""The default exchange: the routing key is the name of a queue.

AMQP 0-9-1 section 3.1.3.1 and 2.1.2.4; its name is empty.  Every queue counts as bound to it by its name, so it
has no bindings of its own and none can be made.
"""

from __future__ import annotations

from collections.abc import Collection

from txmsg.broker.exchanges.direct import DirectExchange
from txmsg.broker.exchanges.exchange import Destination, Headers

__all__ = ["DefaultExchange"]


class DefaultExchange(DirectExchange):
    """The exchange without a name."""

    __slots__ = ()

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """The queue of that name."""
        queue = self.vhost.queues.get(routing_key)
        return () if queue is None else (queue,)
