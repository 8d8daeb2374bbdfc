"""A connection of ``amqp://``: one that comes back by itself, in the words of the contract.

Invariant: whoever waits in `retry` is answered once, by the next connection, by the end of the round over the hosts
that is under way, or by the end for good.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.abc import RecoveryCallback, ReturnCallback
from txmsg.amqp import ReconnectingConnection, RecoveringChannel, RecoveryState, StateChange
from txmsg.errors import ConnectionLost
from txmsg.transports.amqp.channel import AMQPChannel
from txmsg.transports.amqp.plain import PlainAMQPChannel

__all__ = ["AMQPConnection"]


class AMQPConnection:
    """A :class:`~txmsg.abc.RecoveringMessagingConnection` around a connection of the client, which is ready.

    connection: ReconnectingConnection -- that one.
    resubscribe_limit: float | None -- for the consumers of its channels.
    """

    _log = Logger(namespace="txmsg.transports.amqp")

    def __init__(self, connection: ReconnectingConnection, resubscribe_limit: float | None = 300.0) -> None:
        self.connection = connection
        self._resubscribe_limit = resubscribe_limit
        self._callbacks: list[RecoveryCallback] = []
        #: Who waits for a connection now, and how many rounds over the hosts had ended before that.
        self._retries: dict[Deferred[None], int] = {}
        connection.add_state_callback(self._changed)

    @property
    def is_open(self) -> bool:
        """Whether it can be used now; False while it is away."""
        return self.connection.is_ready

    @property
    def url_index(self) -> int:
        """Which URL it is at, or was at last: 0 is the URL of `connect`, the alternates follow."""
        return self.connection.target_index

    @property
    def heartbeat(self) -> int:
        """Seconds between heartbeats, as agreed with the broker; 0: there are none, or it is away."""
        protocol = self.connection.protocol
        negotiated = None if protocol is None else protocol.negotiated
        return 0 if negotiated is None else negotiated.heartbeat

    def channel(self) -> Deferred[AMQPChannel]:
        """A new channel, in confirm mode; while the connection is away it waits for it (`operation_timeout`)."""
        return self.connection.channel(confirm=True).addCallback(self._made)

    def _made(self, channel: RecoveringChannel) -> AMQPChannel:
        return AMQPChannel(channel, self._resubscribe_limit)

    def plain_channel(self, on_return: ReturnCallback | None = None) -> Deferred[PlainAMQPChannel]:
        """A channel without confirms, that ends with the connection of now; while there is none it waits for one
        (`operation_timeout`, then ConnectTimeout)."""
        return Deferred.fromCoroutine(self._plain_channel(on_return))

    async def _plain_channel(self, on_return: ReturnCallback | None) -> PlainAMQPChannel:
        await self.connection.when_ready()
        protocol = self.connection.protocol
        if protocol is None:
            raise ConnectionLost("the connection was lost as soon as it was made", initiator="transport")
        return PlainAMQPChannel(await protocol.channel(), on_return)

    def close(self) -> Deferred[None]:
        """Close its channels and end it, for good."""
        return self.connection.close()

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason when it has ended for good."""
        return self.connection.when_closed()

    # -- coming back -------------------------------------------------------------------------------

    def add_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Tell `callback(reason, seconds until the next attempt)` of losses, `callback(None, None)` of its return."""
        self._callbacks.append(callback)

    def remove_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Tell it no more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def retry(self) -> Deferred[None]:
        """Fires when there is a connection; makes it try now.

        Fails with the last error when a round over all its hosts brought none, and with the reason after the end.
        """
        connection = self.connection
        if connection.is_ready:
            return succeed(None)
        if connection.close_reason is not None:
            return fail(connection.close_reason.with_traceback(None))
        waiter: Deferred[None] = Deferred(self._retries.__delitem__)
        self._retries[waiter] = connection.rounds
        connection.hurry()
        return waiter

    def _changed(self, change: StateChange) -> None:
        if change.new is RecoveryState.LOST:
            assert isinstance(change.reason, BaseException)
            self._tell(change.reason, change.delay)
            self._answer(change.reason, self.connection.rounds)
        elif change.new is RecoveryState.READY and change.old is not RecoveryState.BLOCKED:
            self._tell(None, None)
            self._answer(None)
        elif change.new is RecoveryState.CLOSED:
            assert isinstance(change.reason, BaseException)
            self._answer(change.reason)

    def _tell(self, reason: BaseException | None, delay: float | None) -> None:
        for callback in list(self._callbacks):
            try:
                callback(reason, delay)
            except Exception:
                self._log.failure("a recovery callback failed")

    def _answer(self, reason: BaseException | None, rounds: int | None = None) -> None:
        """Answer those that wait; with `rounds`: only those since whose question one has ended."""
        for waiter, before in list(self._retries.items()):
            if rounds is not None and rounds <= before:
                continue
            if self._retries.pop(waiter, None) is None:
                continue  # cancelled by one that was answered before it
            if reason is None:
                waiter.callback(None)
            else:
                waiter.errback(Failure(reason.with_traceback(None)))

    def __repr__(self) -> str:
        return f"<AMQPConnection of {self.connection!r}>"
