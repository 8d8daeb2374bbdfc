"""ConnectionLife: how the connection of a transport comes, goes and comes back behind a Connection.

There are two kinds of transport.  Connections of the one come back by themselves
(:class:`~txmsg.abc.RecoveringMessagingConnection`): that is only passed on to those who want to know.  Those of the
other end with a loss.  Then the next call connects again; and where consumers live on a channel, that is done for
them, in the background.

The invariants: at most one attempt is under way, however many wait for it; nothing connects after `close()` until
`connect()`; what was declared is forgotten whenever the connection is lost, closed or pointed elsewhere; after
`close()` nothing refers to it that it made (kombu AD6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txmsg.abc import MessagingConnection, MessagingTransport, RecoveringMessagingConnection, RecoveryCallback
from txmsg.errors import ConnectionClosed, ConnectTimeout, TxmsgError
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.connection.draining import Drain
from txmsg.messaging.connection.sharing import SharedAttempt
from txmsg.messaging.retrying.ensuring import ensure_connection
from txmsg.messaging.tracing import is_on, log_if_wanted

if TYPE_CHECKING:
    from types import TracebackType

    from txmsg.messaging.lending import Lender

__all__ = ["ConnectionLife"]

_Self = TypeVar("_Self", bound="ConnectionLife")

#: Not a class attribute, and given texts only: observers keep events, and what is in them would live on.
_log = Logger(namespace="txmsg.messaging.connection")


class ConnectionLife:
    """The base of :class:`~txmsg.messaging.Connection`, which says where to connect to.

    connection: MessagingConnection | None -- what the transport made; not to be relied on.
    lender: the pool it belongs to; None: it is nobody's.
    """

    def __init__(self, reactor: Any = None) -> None:
        self._reactor = reactor
        self.connection: MessagingConnection | None = None
        self.lender: Lender[Any] | None = None
        self._channels: dict[Channel, None] = {}
        self._channels_made = 0
        self._default_channel: Channel | None = None
        self._callbacks: list[RecoveryCallback] = []
        self._close_callbacks: dict[Callable[[BaseException], object], None] = {}
        self._connecting: SharedAttempt[None] = SharedAttempt()
        self._coming_back: SharedAttempt[None] = SharedAttempt()
        self._closing: SharedAttempt[None] | None = None
        self._is_closed = False
        self._was_lost = False
        #: Told by the channels of each delivery.
        self.drain = Drain()

    # -- what the Connection says ------------------------------------------------------------------

    @property
    def transport(self) -> MessagingTransport:
        """What the scheme of the present URL selects.  ConfigurationError if nothing serves it."""
        raise NotImplementedError

    def transport_urls(self) -> Sequence[str]:
        """The present URL, with everything in it, and the others it can connect to."""
        raise NotImplementedError

    def is_at(self, number: int) -> None:
        """The connection has come back at the URL with this number, of those that `transport_urls` gave for it."""
        raise NotImplementedError

    def transport_settings(self) -> Mapping[str, Any]:
        """The options for the transport."""
        raise NotImplementedError

    def retry_settings(self) -> Mapping[str, Any]:
        """The retry policy that it was given for connecting; empty: none."""
        raise NotImplementedError

    def connect_limit(self) -> float | None:
        """Seconds that one attempt may take."""
        raise NotImplementedError

    def host_count(self) -> int:
        """How many URLs it can connect to."""
        raise NotImplementedError

    def forget_declared(self) -> None:
        """What was declared may be gone."""
        raise NotImplementedError

    # -- state -------------------------------------------------------------------------------------

    @property
    def reactor(self) -> Any:
        """The reactor it was given, or the installed one; also the clock of everything on this connection."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    @property
    def connected(self) -> bool:
        """Whether there is a connection that can be used now."""
        return self.connection is not None and self.connection.is_open

    @property
    def is_closed(self) -> bool:
        """Whether the application closed it, and did not connect it again."""
        return self._is_closed

    @property
    def is_recovering(self) -> bool:
        """Whether its present connection comes back by itself when it is lost."""
        return isinstance(self.connection, RecoveringMessagingConnection)

    # -- connecting --------------------------------------------------------------------------------

    def connect(self: _Self) -> Deferred[_Self]:
        """Connect now, if it is not connected; also again after `close()`.  Fires with the connection itself.

        Each of the URLs is tried once, one after another and without waits, until one can be reached; with a retry
        policy in `transport_options` (max_retries, interval_start, interval_step, interval_max) as that says.

        Fails with the error of the last attempt: ConnectFailed, ConnectTimeout ...; at once with one that another
        attempt cannot cure: AuthenticationFailed, TLSFailed, ConfigurationError ...
        """
        policy = dict(self.retry_settings())
        if policy:
            return ensure_connection(self, **policy)  # type: ignore[arg-type, return-value]
        if self.host_count() == 1 or self.is_recovering:
            return self.connect_once()
        return ensure_connection(  # type: ignore[return-value]
            self,  # type: ignore[arg-type]
            max_retries=self.host_count() - 1,
            reraise_as_library_errors=False,
        )

    def connect_once(self: _Self) -> Deferred[_Self]:
        """Make one attempt at the present URL; fires with the connection, at once if it is there.

        A connection that comes back by itself, and is away, makes its next attempt now.  Fails with the error of the
        transport; whether another attempt is worth while is in its `recoverable`.
        """
        self._is_closed = False
        if self.connected:
            return succeed(self)
        return self._connecting.join(self._begin_to_connect).addCallback(lambda _: self)

    def _begin_to_connect(self) -> Deferred[None]:
        limit = self.connect_limit()
        attempt = Deferred.fromCoroutine(self._connect_once())
        if not limit or attempt.called:
            return attempt
        if self.is_recovering:
            limit *= self.host_count()  # it tries them all

        def too_slow(outcome: Any, seconds: float) -> Any:
            if isinstance(outcome, Failure) and outcome.check(CancelledError):
                raise ConnectTimeout(f"not connected within {seconds:g} s")
            return outcome

        return attempt.addTimeout(limit, self.reactor, onTimeoutCancel=too_slow)

    async def _connect_once(self) -> None:
        if self._closing is not None:
            await self._closing.join()
        if isinstance(self.connection, RecoveringMessagingConnection):
            await self.connection.retry()
            return
        log_if_wanted()
        self._note("connecting to {connection}")
        made = await self._ask_transport()
        self.connection = made
        made.when_closed().addCallback(self._ended, made)
        if isinstance(made, RecoveringMessagingConnection):
            made.add_recovery_callback(self._recovery)
        self._note("connected to {connection}")
        if self._was_lost:
            self._was_lost = False
            self._tell(None, None)

    def _note(self, what: str) -> None:
        level = LogLevel.info if is_on("CONNECTION") else LogLevel.debug
        _log.emit(level, what, connection=str(self))

    def _ask_transport(self) -> Deferred[MessagingConnection]:
        url, *alternates = self.transport_urls()
        return self.transport.connect(
            url, reactor=self._reactor, alternates=alternates, options=self.transport_settings() or None
        )

    def transport_connection(self) -> Deferred[MessagingConnection]:
        """For the channels: the connection of the transport, made if need be."""
        if self._is_closed:
            return fail(ConnectionClosed("the connection was closed by the application", 200, initiator="client"))
        if self.connection is not None and (self.is_recovering or self.connection.is_open):
            return succeed(self.connection)  # one that is away says so itself, or makes the caller wait
        return self.connect().addCallback(lambda _: self._present())

    def _present(self) -> MessagingConnection:
        if self.connection is None:
            raise ConnectionClosed("the connection was lost as soon as it was made", initiator="transport")
        return self.connection

    # -- closing -----------------------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """End it with all its channels, and stop trying to connect; fires when that is done.  Twice is fine.

        What the transport has to say against it is logged: it is over in any case.
        """
        self._is_closed = True
        reason = ConnectionClosed("closed by the application", 200, initiator="client")
        for callback in list(self._close_callbacks):
            callback(reason)
        return self.end(reason)

    def end(self, reason: BaseException) -> Deferred[None]:
        """Give up the present connection, with all its channels, because of `reason`; it may be connected again."""
        made, self.connection = self.connection, None
        self._was_lost = False
        self._coming_back.abandon(reason)
        self._connecting.abandon(reason)
        self.forget_declared()
        self._default_channel = None
        channels, self._channels = list(self._channels), {}
        for channel in channels:
            channel.end(reason)
        self.drain.end(reason)
        if made is not None:
            if isinstance(made, RecoveringMessagingConnection):
                made.remove_recovery_callback(self._recovery)
            self._note("closing {connection}")
            self._closing = SharedAttempt(made.close)
        if self._closing is None:
            return succeed(None)
        return self._closing.join().addBoth(self._closed, self._closing)

    def _closed(self, outcome: Any, closing: SharedAttempt[None]) -> Any:
        if self._closing is closing:
            self._closing = None
        if isinstance(outcome, Failure) and outcome.check(TxmsgError):
            _log.debug(
                "{connection} did not end in good order: {reason}", connection=str(self), reason=str(outcome.value)
            )
            return None
        return outcome

    def collect(self, socket_timeout: float | None = None) -> None:
        """Drop everything at once and wait for nothing: when the peer is known to be gone.

        What can be said to the broker is said in the background.   socket_timeout: not used.
        """
        self.end(ConnectionClosed("dropped by the application", 200, initiator="client"))

    async def __aenter__(self: _Self) -> _Self:
        """Nothing is opened; leaving the block releases it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.release()

    def release(self) -> Deferred[None]:
        """Done with it: back to the pool it belongs to; one that is nobody's is closed."""
        return self.close() if self.lender is None else self.lender.release(self)

    # -- losing it ---------------------------------------------------------------------------------

    def _ended(self, reason: BaseException, made: MessagingConnection) -> None:
        if made is not self.connection:
            return
        self.connection = None
        self._was_lost = True
        self.forget_declared()
        self._tell(reason, None)

    def _recovery(self, reason: BaseException | None, delay: float | None) -> None:
        if reason is None:
            self.is_at(getattr(self.connection, "url_index", 0))
        else:
            self.forget_declared()
        self._tell(reason, delay)

    def come_back(self) -> Deferred[None]:
        """For a channel that consumers live on: connected again, by as many attempts as that takes.

        Fails with an error that is not recoverable, with OperationalError if its retry policy has an end, or when the
        connection is closed.
        """
        if self._is_closed:
            return fail(ConnectionClosed("the connection was closed by the application", 200, initiator="client"))
        if self.connected:
            return succeed(None)
        return self._coming_back.join(self._begin_to_come_back)

    def _begin_to_come_back(self) -> Deferred[None]:
        coming: Deferred[Any] = ensure_connection(self, errback=self._tell, **self.retry_settings())  # type: ignore[arg-type]
        return coming.addCallback(lambda _: None)

    def add_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Call `callback(reason, delay)` when the connection is lost, when an attempt to come back failed, and, with
        (None, None), when it is back.

        reason: the error.   delay: seconds until the next attempt; None where there is none, or nobody knows.
        What it raises is logged.
        """
        self._callbacks.append(callback)

    def remove_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Undo `add_recovery_callback`; one that was not added is fine."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def add_close_callback(self, callback: Callable[[BaseException], object]) -> None:
        """For what waits until the connection is back: call `callback(reason)` when the application closes it."""
        self._close_callbacks[callback] = None

    def remove_close_callback(self, callback: Callable[[BaseException], object]) -> None:
        """Undo `add_close_callback`; one that was not added is fine."""
        self._close_callbacks.pop(callback, None)

    def _tell(self, reason: BaseException | None, delay: float | None) -> None:
        if reason is None:
            _log.info("{connection} is connected again", connection=str(self))
        else:
            _log.warn("{connection} is lost: {reason}", connection=str(self), reason=str(reason))
        for callback in list(self._callbacks):
            try:
                callback(reason, delay)
            except Exception:
                _log.failure("a recovery callback failed")

    # -- channels ----------------------------------------------------------------------------------

    def add_channel(self, channel: Channel) -> None:
        """For a channel: it is to end with this connection."""
        self._channels[channel] = None

    def remove_channel(self, channel: Channel) -> None:
        """For a channel: it was closed."""
        self._channels.pop(channel, None)
        if channel is self._default_channel:
            self._default_channel = None

    def forget_channel(self, channel: Channel) -> None:
        """For a channel that was lost with nothing on it: there is nothing to end."""
        self._channels.pop(channel, None)

    def next_channel_number(self) -> int:
        """For a channel: its number."""
        self._channels_made += 1
        return self._channels_made

    @property
    def default_channel(self) -> Channel:
        """The channel that is used where a connection is given in place of one; opened at its first use."""
        if self._default_channel is None:
            self._default_channel = Channel(self)
        return self._default_channel

    def channel(self) -> Deferred[Channel]:
        """A new channel; fires when it is open, and connects first where needed."""
        return Channel(self).open()

    def maybe_close_channel(self, channel: Channel) -> Deferred[None]:
        """Close `channel`; that it, or the connection, has ended before is fine."""
        return channel.close().addErrback(lambda failure: failure.trap(TxmsgError) and None)

    def revive(self, new_channel: Channel) -> Deferred[None]:
        """Another channel is to be used: close the default channel, if it is another one."""
        channel = self._default_channel
        if channel is None or channel is new_channel:
            return succeed(None)
        return self.maybe_close_channel(channel)

    def drain_events(self, timeout: float | None = None) -> Deferred[None]:
        """Fires at the next delivery on any channel; OperationTimeout after `timeout` seconds, None: never.

        Only for code that was written around such a loop: deliveries need no draining.
        """
        return self.drain.wait(timeout, self.reactor)
