"""What can be made from a Connection in one call, and what is done again until it succeeds.

The classes are imported when they are asked for, as they stand on connections themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txmsg.messaging.connection.capabilities import Capabilities
from txmsg.messaging.retrying import ensuring

if TYPE_CHECKING:
    from typing import Self

    from txmsg.messaging.connection.channel import Channel
    from txmsg.messaging.consuming.consumer import Consumer
    from txmsg.messaging.pools import ChannelPool, ConnectionPool
    from txmsg.messaging.publishing.producer import Producer
    from txmsg.messaging.simple import SimpleBuffer, SimpleQueue

__all__ = ["Shortcuts"]


class Shortcuts(Capabilities):
    """Without a `channel` each uses the default channel of the connection."""

    def ensure_connection(
        self,
        errback: Callable[[BaseException, float], object] | None = None,
        max_retries: int | None = None,
        interval_start: float = 2.0,
        interval_step: float = 2.0,
        interval_max: float = 30.0,
        callback: Callable[[], object] | None = None,
        reraise_as_library_errors: bool = True,
        timeout: float | None = None,
    ) -> Deferred[Self]:
        """Connect, by as many attempts as that takes.

        See :func:`txmsg.messaging.retrying.ensuring.ensure_connection`.
        """
        return ensuring.ensure_connection(  # type: ignore[return-value]
            self,  # type: ignore[arg-type]
            errback,
            max_retries,
            interval_start,
            interval_step,
            interval_max,
            callback,
            reraise_as_library_errors,
            timeout,
        )

    def ensure(
        self, obj: Any, fun: Callable[..., Any], *args: Any, **ensure_options: Any
    ) -> Callable[..., Deferred[Any]]:
        """A callable that does `fun`, again if need be; see :func:`txmsg.messaging.retrying.ensuring.ensure`."""
        return ensuring.ensure(self, obj, fun, *args, **ensure_options)  # type: ignore[arg-type]

    def autoretry(
        self, fun: Callable[..., Any], channel: Channel | None = None, **ensure_options: Any
    ) -> Callable[..., Deferred[tuple[Any, Channel]]]:
        """A callable that calls `fun(channel=...)`, again if need be; see
        :func:`txmsg.messaging.retrying.ensuring.autoretry`."""
        return ensuring.autoretry(self, fun, channel, **ensure_options)  # type: ignore[arg-type]

    def _where(self, channel: Any) -> Any:
        return self if channel is None else channel

    def Producer(self, channel: Any = None, *args: Any, **kwargs: Any) -> Producer:
        """A :class:`txmsg.messaging.Producer`."""
        from txmsg.messaging.publishing.producer import Producer

        return Producer(self._where(channel), *args, **kwargs)

    def Consumer(self, queues: Any = None, channel: Any = None, *args: Any, **kwargs: Any) -> Consumer:
        """A :class:`txmsg.messaging.Consumer` of `queues`."""
        from txmsg.messaging.consuming.consumer import Consumer

        return Consumer(self._where(channel), queues, *args, **kwargs)

    def SimpleQueue(
        self,
        name: Any,
        no_ack: bool | None = None,
        queue_opts: Any = None,
        queue_args: Any = None,
        exchange_opts: Any = None,
        channel: Any = None,
        **kwargs: Any,
    ) -> SimpleQueue:
        """A :class:`txmsg.messaging.SimpleQueue`, whose messages are kept."""
        from txmsg.messaging.simple import SimpleQueue

        return SimpleQueue(self._where(channel), name, no_ack, queue_opts, queue_args, exchange_opts, **kwargs)

    def SimpleBuffer(
        self,
        name: Any,
        no_ack: bool | None = None,
        queue_opts: Any = None,
        queue_args: Any = None,
        exchange_opts: Any = None,
        channel: Any = None,
        **kwargs: Any,
    ) -> SimpleBuffer:
        """A :class:`txmsg.messaging.SimpleBuffer`, whose messages are gone with the broker."""
        from txmsg.messaging.simple import SimpleBuffer

        return SimpleBuffer(self._where(channel), name, no_ack, queue_opts, queue_args, exchange_opts, **kwargs)

    def Pool(self, limit: int | None = None, **kwargs: Any) -> ConnectionPool:
        """A :class:`txmsg.messaging.pools.ConnectionPool` of clones of this connection."""
        from txmsg.messaging.pools import ConnectionPool

        return ConnectionPool(self, limit, **kwargs)  # type: ignore[arg-type]

    def ChannelPool(self, limit: int | None = None, **kwargs: Any) -> ChannelPool:
        """A :class:`txmsg.messaging.pools.ChannelPool` of channels of this connection."""
        from txmsg.messaging.pools import ChannelPool

        return ChannelPool(self, limit, **kwargs)  # type: ignore[arg-type]
