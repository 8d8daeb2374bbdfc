"""A connection of ``memory://``: an owner of exclusive queues, and of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

from txmsg.errors import ChannelLimitReached, ConnectionClosed, TxmsgError
from txmsg.transports.memory.channel import MemoryChannel
from txmsg.transports.memory.life import wait

if TYPE_CHECKING:
    from txmsg.broker.vhost.vhost import VirtualHost
    from txmsg.transports.memory.life import ChannelLife

__all__ = ["MemoryConnection"]


class MemoryConnection:
    """A way to a virtual host in this process; a :class:`~txmsg.abc.MessagingConnection`.

    vhost: VirtualHost -- the model; its queues and exchanges may be looked at.
    reactor -- its clock: callbacks run in turns of it.

    Every connection must be closed, or its exclusive queues stay as long as the transport.
    """

    def __init__(self, vhost: VirtualHost, reactor: Any) -> None:
        self.vhost = vhost
        self.reactor = reactor
        #: Open channels, the oldest first.
        self.channels: dict[ChannelLife, None] = {}
        self._reason: TxmsgError | None = None
        self._waiters: list[Deferred[BaseException]] = []

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._reason is None

    @property
    def close_reason(self) -> BaseException | None:
        """Why it has ended; None while it is open."""
        return self._reason

    def when_closed(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason at the end of the connection; works at any time."""
        return wait(self._waiters, self._reason)

    def channel(self) -> Deferred[MemoryChannel]:
        """A new channel.  ChannelLimitReached when there are as many as the limits of the virtual host allow."""
        if self._reason is not None:
            return fail(self._reason.with_traceback(None))
        limit = self.vhost.limits.channels
        if len(self.channels) >= limit:
            return fail(ChannelLimitReached(f"all {limit} channels of the connection are in use"))
        channel = MemoryChannel(self)
        self.channels[channel] = None
        return succeed(channel)

    def close(self) -> Deferred[None]:
        """Close the channels and end it; closing twice is fine."""
        self.end(ConnectionClosed("closed by the application", 200, initiator="client"))
        return succeed(None)

    def end(self, reason: TxmsgError) -> None:
        """End it because of `reason`: channels, then exclusive queues.  Once only."""
        if self._reason is not None:
            return
        self._reason = reason
        for channel in list(self.channels):
            channel.end(reason)
        self.vhost.owner_gone(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(reason)

    def channel_ended(self, channel: ChannelLife) -> None:
        """For a channel that has ended."""
        self.channels.pop(channel, None)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<MemoryConnection to vhost {self.vhost.name!r} {state}, {len(self.channels)} channels>"
