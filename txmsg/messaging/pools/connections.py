"""ConnectionPool and ChannelPool: the resources that reach a broker.

As in kombu L6 and L12: acquiring a connection opens nothing, and the connection is opened by its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred

from txmsg.errors import ChannelLimitExceeded, ConfigurationError, ConnectionLimitExceeded
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.pools.resource import Resource

if TYPE_CHECKING:
    from txmsg.messaging.connection.connection import Connection

__all__ = ["ChannelPool", "ConnectionPool"]


class ConnectionPool(Resource["Connection"]):
    """Connections that are like the one it is given.

    connection: Connection -- the pattern; it is not lent itself, and is never opened for the pool.
    limit: int | None -- as :class:`~txmsg.messaging.pools.Resource` has it.

    A connection is lent whether it is open or not.  One that was lost meanwhile is not thrown away: it comes back by
    itself, or by its next use.  One that somebody closed is replaced.
    `release()` of a lent connection brings it back here; `close()` really closes it.
    """

    LimitExceeded: ClassVar = ConnectionLimitExceeded
    kind: ClassVar[str] = "connections"

    def __init__(self, connection: Connection, limit: int | None = None) -> None:
        if not hasattr(connection, "clone"):
            raise ConfigurationError(
                f"a pool is of connections like a Connection, not like a {type(connection).__name__}"
            )
        self.connection = connection
        super().__init__(limit, reactor=connection.reactor)

    def create(self) -> Connection:
        """Another connection to the same place."""
        return self.connection.clone()

    def is_usable(self, resource: Connection) -> bool:
        """Whether nobody has closed it."""
        return not resource.is_closed


class ChannelPool(Resource[Channel]):
    """Channels of one connection.

    connection: Connection -- opened by the first `acquire`.   limit: int | None -- as
    :class:`~txmsg.messaging.pools.Resource` has it; brokers have one too (channel_max).

    A channel is lent open.  One that has ended, with its connection or by an error that closes it, is replaced.
    """

    LimitExceeded: ClassVar = ChannelLimitExceeded
    kind: ClassVar[str] = "channels"

    def __init__(self, connection: Connection, limit: int | None = None) -> None:
        self.connection = connection
        super().__init__(limit, reactor=connection.reactor)

    def create(self) -> Deferred[Channel]:
        """Another channel, when it is open."""
        return self.connection.channel()

    def is_usable(self, resource: Channel) -> bool:
        """Whether it is open."""
        return resource.is_open

    def close_resource(self, resource: Any) -> Deferred[None] | None:
        """Close it; that it has ended already is fine."""
        return self.connection.maybe_close_channel(resource)
