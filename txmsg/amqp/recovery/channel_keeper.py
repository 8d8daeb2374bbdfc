"""ChannelKeeper: an open channel for a publisher, on whatever connection there is.

Invariant: at most one channel is open or being opened, it belongs to the connection that is there now, and the owner
hears of its beginning and its end in turn.  A channel that the broker closes is followed by another one: at once, and
with growing waits where that cannot be opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp.channel import Channel
from txmsg.amqp.client import AMQPProtocol
from txmsg.errors import ConnectionClosed

__all__ = ["ChannelKeeper"]


class ChannelKeeper:
    """See the module.

    connection: the ReconnectingConnection, of which `clock` and `backoff` are used.
    confirm: bool -- whether the channel is in confirm mode; the time limits of the confirms are the owner's.
    on_open: called with each channel.   on_closed: called when that is gone and the connection is not.
    """

    _log = Logger(namespace="txmsg.amqp.recovery")

    def __init__(
        self, connection: Any, confirm: bool, on_open: Callable[[Channel], object], on_closed: Callable[[], object]
    ) -> None:
        #: The connection that is there now, also while it is still recovering.
        self.protocol: AMQPProtocol | None = None
        #: That of the last connection, which is the reactor's.
        self.thread_id: int | None = None
        self._clock = connection.clock
        self._backoff = connection.backoff
        self._confirm = confirm
        self._on_open = on_open
        self._on_closed = on_closed
        self._channel: Channel | None = None
        self._timer: IDelayedCall | None = None
        self._opening: Deferred[None] | None = None
        self._failures = 0

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """Open the channel on a new connection; what prevents it is reported to the caller, and tried again here."""
        self.protocol = protocol
        self._failures = 0
        return Deferred.fromCoroutine(self._open(protocol)).addErrback(self._not_recovered, protocol)

    def open_now(self, protocol: AMQPProtocol) -> None:
        """The same on a connection that is there already; nobody waits for it."""
        self.protocol = protocol
        self._open_again(protocol)

    def lost(self) -> None:
        """The connection is gone, or the owner has ended."""
        self.protocol = self._channel = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()

    async def _open(self, protocol: AMQPProtocol) -> None:
        self.thread_id = protocol.thread_id
        channel = await protocol.channel()
        try:
            if self._confirm:
                await channel.confirm_select(watch_limits=False)
        except Exception:  # also a CancelledError; one that had no answer in time would be left open
            if channel.is_open:
                channel.close()
            raise
        if self.protocol is not protocol or not channel.is_open:
            channel.close()
            return
        self._channel = channel
        channel.when_closed().addCallback(self._closed, channel, protocol)
        self._on_open(channel)

    def _not_recovered(self, failure: Failure, protocol: AMQPProtocol) -> Failure:
        self._not_opened(failure, protocol)
        return failure

    def _closed(self, reason: BaseException, channel: Channel, protocol: AMQPProtocol) -> None:
        if self._channel is not channel:
            return
        self._channel = None
        self._on_closed()
        if self.protocol is protocol and not isinstance(reason, ConnectionClosed):
            self._log.warn("a publisher's channel was closed, opening another one: {reason}", reason=reason)
            self._open_soon(protocol)

    def _open_soon(self, protocol: AMQPProtocol) -> None:
        delay = self._backoff.delay(self._failures) if self._failures else 0.0
        self._timer = self._clock.callLater(delay, self._open_again, protocol)

    def _open_again(self, protocol: AMQPProtocol) -> None:
        self._timer = None
        self._failures += 1
        opening = Deferred.fromCoroutine(self._open(protocol))
        self._opening = opening
        opening.addCallbacks(self._opened, self._not_opened, errbackArgs=(protocol,))

    def _opened(self, result: None) -> None:
        self._opening = None
        self._failures = 0

    def _not_opened(self, failure: Failure, protocol: AMQPProtocol) -> None:
        self._opening = None
        if self.protocol is protocol and not failure.check(CancelledError, ConnectionClosed):
            self._log.warn("a publisher cannot open its channel: {reason}", reason=failure.value)
            self._open_soon(protocol)
