"""Doing something although connections break: ensure_connection, ensure, autoretry, insured.

kombu B6, B9 to B14.  Only errors that another attempt can cure are retried (`error.recoverable`): what is lost,
refused or late; never a bad password, 403, 404, 406, or a body that cannot be encoded.  With several hosts the next one
is tried at once, and a wait comes when all had their turn; a connection that comes back by itself tries them all in one
attempt (`is_time_to_wait`).  Before something is done again: the connection is back, the
channel is open, ``obj.revive(channel)``, ``on_revive(channel)``; then the same call with the same arguments.

One attempt is one retry, whether it is the connection that cannot be made or the call that fails.  So N retries are N,
and not N for each of the two.

Invariant: closing the connection, and cancelling, end it at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ChannelClosed, ConnectionClosed, NotBoundError, OperationalError, TxmsgError
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.connection.failures import is_recoverable
from txmsg.messaging.retrying.retrying import Retrying, RetryIntervals

if TYPE_CHECKING:
    from txmsg.messaging.connection.connection import Connection

__all__ = [
    "autoretry",
    "come_back",
    "ensure",
    "ensure_connection",
    "insured",
    "is_time_to_wait",
    "is_worth_retrying",
    "start_retrying",
]

_log = Logger(namespace="txmsg.messaging.ensuring")

#: Reply code 200 of a client: it was closed because somebody wanted that.
_AS_WISHED: Final = 200

Errback = Callable[[BaseException, float], object]
OnRevive = Callable[[Channel], object]


def is_worth_retrying(error: BaseException) -> bool:
    """Whether doing it again may succeed: a recoverable error, unless the application itself closed what was used."""
    if not is_recoverable(error):
        return False
    cause: Any = error
    for _ in range(3):  # PublishUnconfirmed, or NotSent, because of a ChannelClosed because of a ConnectionClosed
        if cause is None:
            break
        is_closed = isinstance(cause, (ConnectionClosed, ChannelClosed))
        if is_closed and cause.initiator == "client" and cause.reply_code == _AS_WISHED:
            return False
        cause = getattr(cause, "cause", None)
    return True


def is_time_to_wait(connection: Connection, retries: int, was_coming_back: bool) -> bool:
    """Whether to wait after a failure: all hosts had their turn, or the connection is there.

    retries: how many failures there were before it.   was_coming_back: whether it was an attempt to have a connection
    again; on a connection that comes back by itself that was a round over all of its hosts.
    """
    if connection.connected:
        return True
    if connection.is_recovering:
        return was_coming_back or connection.host_count() == 1
    return connection.completes_cycle(retries)


def come_back(connection: Connection, is_retry: bool = True, *, reopens: bool = False) -> Deferred[Any]:
    """One attempt to have a connection; is_retry: one failed before, so it is the next host's turn.

    Fails with ConnectionClosed, and does not connect, where the application has closed it, unless `reopens`.
    """
    if connection.is_closed and not reopens:
        return fail(ConnectionClosed("the connection was closed by the application", _AS_WISHED, initiator="client"))
    if is_retry and not connection.connected and not connection.is_recovering:
        connection.maybe_switch_next()
    return connection.connect_once()


def start_retrying(connection: Connection, retrying: Retrying, reraise_as_library_errors: bool = True) -> Deferred[Any]:
    """Start it, and end it when the connection is closed.

    reraise_as_library_errors: given up is an OperationalError with the last error as its cause.
    """

    def over(outcome: Any) -> Any:
        connection.remove_close_callback(retrying.abandon)
        if isinstance(outcome, Failure) and reraise_as_library_errors:
            _raise_as_operational(outcome, retrying)
        return outcome

    started = retrying.start()
    connection.add_close_callback(retrying.abandon)
    return started.addBoth(over)


def _raise_as_operational(failure: Failure, retrying: Retrying) -> None:
    error = failure.value
    if isinstance(error, TxmsgError) and not isinstance(error, OperationalError) and is_worth_retrying(error):
        tries = retrying.attempts
        raise OperationalError(f"gave up after {tries} attempt{'s' if tries > 1 else ''}", error)


def ensure_connection(
    connection: Connection,
    errback: Errback | None = None,
    max_retries: int | None = None,
    interval_start: float = 2.0,
    interval_step: float = 2.0,
    interval_max: float = 30.0,
    callback: Callable[[], object] | None = None,
    reraise_as_library_errors: bool = True,
    timeout: float | None = None,
) -> Deferred[Connection]:
    """Connect, by as many attempts as that takes; fires with the connection, at once if it is connected.

    errback(exc, interval) -- called after each failure with the seconds until the next attempt (0: next host's turn).
    callback() -- called after each failure and about once a second while waiting; what it raises is the outcome.
    max_retries, interval_start, interval_step, interval_max, timeout -- see :class:`RetryIntervals`.
    reraise_as_library_errors: bool -- False: given up is the error of the last attempt itself.

    Fails with OperationalError when it is given up; at once, as it is, with an error that another attempt cannot cure
    (AuthenticationFailed ...); with ConnectionClosed when the connection is closed meanwhile.
    """
    try:
        intervals = RetryIntervals(max_retries, interval_start, interval_step, interval_max, timeout)
    except TxmsgError:
        return fail()
    attempts = 0

    def attempt() -> Deferred[Connection]:
        nonlocal attempts
        attempts += 1
        return come_back(connection, attempts > 1, reopens=attempts == 1)

    retrying = Retrying(
        attempt,
        intervals,
        connection.reactor,
        is_worth_retrying,
        errback=errback,
        callback=callback,
        waits=lambda error, retries: is_time_to_wait(connection, retries, True),
    )
    return start_retrying(connection, retrying, reraise_as_library_errors)


def ensure(
    connection: Connection,
    obj: Any,
    fun: Callable[..., Any],
    errback: Errback | None = None,
    max_retries: int | None = None,
    interval_start: float = 1.0,
    interval_step: float = 1.0,
    interval_max: float = 1.0,
    on_revive: OnRevive | None = None,
    timeout: float | None = None,
    reraise_as_library_errors: bool = True,
) -> Callable[..., Deferred[Any]]:
    """A callable that does what `fun` does, again if need be, and returns a Deferred of its result.

    obj -- what `fun` works with.  Before each retry its `revive(channel)` is called, if it has one, with the channel it
        is on, or the default channel of the connection.
    fun -- may return a Deferred or a coroutine.   on_revive(channel) -- called after `obj.revive`; may return either.
    The rest is as for :func:`ensure_connection`.  ConfigurationError for intervals that are none.

    What was done although its answer was lost is done twice: at least once, that is.
    """
    intervals = RetryIntervals(max_retries, interval_start, interval_step, interval_max, timeout)

    def ensured(*args: Any, **kwargs: Any) -> Deferred[Any]:
        attempts = 0

        def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                return fun(*args, **kwargs)
            return _again(connection, obj, on_revive, functools.partial(fun, *args, **kwargs))

        retrying = Retrying(
            attempt,
            intervals,
            connection.reactor,
            is_worth_retrying,
            errback=errback,
            waits=lambda error, retries: is_time_to_wait(connection, retries, attempts > 1),
        )
        return start_retrying(connection, retrying, reraise_as_library_errors)

    return functools.update_wrapper(ensured, fun)


async def _again(connection: Connection, obj: Any, on_revive: OnRevive | None, call: Callable[[], Any]) -> Any:
    await come_back(connection)
    channel = await _channel_of(connection, obj).open()
    revive = getattr(obj, "revive", None)
    if callable(revive):
        await maybeDeferred(revive, channel)
    if on_revive is not None:
        await maybeDeferred(on_revive, channel)
    return await maybeDeferred(call)


def _channel_of(connection: Connection, obj: Any) -> Channel:
    try:
        channel = getattr(obj, "channel", None)
    except NotBoundError:
        channel = None
    if isinstance(channel, Channel) and channel.connection is connection:
        return channel
    return connection.default_channel


class _OnChannel:
    """For autoretry: a function that is called with a channel, as something that can be revived."""

    def __init__(self, fun: Callable[..., Any], channel: Channel) -> None:
        self._fun = fun
        self.channel = channel

    def revive(self, channel: Channel) -> None:
        """Call it with another channel from now on."""
        self.channel = channel

    async def call(self, *args: Any, **kwargs: Any) -> tuple[Any, Channel]:
        """Open the channel and call it; its result, and the channel."""
        channel = await self.channel.open()
        return await maybeDeferred(self._fun, *args, channel=channel, **kwargs), channel


def autoretry(
    connection: Connection, fun: Callable[..., Any], channel: Channel | None = None, **ensure_options: Any
) -> Callable[..., Deferred[tuple[Any, Channel]]]:
    """A callable that calls `fun(*args, channel=channel, **kwargs)`, again if need be.

    It returns a Deferred of the pair (what `fun` returned, the channel).  Without `channel` each call makes one, which
    is the caller's to close (when the call failed, it is closed).   ensure_options -- those of :func:`ensure`.
    """
    RetryIntervals().changed({key: ensure_options[key] for key in _INTERVALS & ensure_options.keys()})

    def retried(*args: Any, **kwargs: Any) -> Deferred[tuple[Any, Channel]]:
        on_channel = _OnChannel(fun, Channel(connection) if channel is None else channel)

        def not_done(failure: Failure) -> Any:
            if channel is None:
                return on_channel.channel.close().addBoth(lambda _: failure)
            return failure

        call = ensure(connection, on_channel, on_channel.call, **ensure_options)
        return call(*args, **kwargs).addErrback(not_done)

    return functools.update_wrapper(retried, fun)


_INTERVALS: Final = frozenset({"max_retries", "interval_start", "interval_step", "interval_max", "timeout"})


def insured(
    pool: Any,
    fun: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    errback: Errback | None = None,
    on_revive: OnRevive | None = None,
    **opts: Any,
) -> Deferred[Any]:
    """Call `fun(*args, connection=, channel=, **kwargs)` with a connection of a pool, again if need be.

    pool: ConnectionPool -- waits until it has one to lend; it is given back in the end.
    errback(exc, interval) -- None: failures are logged.   opts -- those of :func:`ensure`; the intervals are those of
    connecting, too.   Fires with what `fun` returned.
    """
    return Deferred.fromCoroutine(_insured(pool, fun, args, dict(kwargs or {}), errback or _log_error, on_revive, opts))


async def _insured(
    pool: Any,
    fun: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    errback: Errback,
    on_revive: OnRevive | None,
    opts: dict[str, Any],
) -> Any:
    connection = await pool.acquire(block=True)
    try:
        intervals = {key: opts[key] for key in _INTERVALS & opts.keys()}
        await ensure_connection(connection, errback, **intervals)
        call = autoretry(connection, fun, connection.default_channel, errback=errback, on_revive=on_revive, **opts)
        result, _ = await call(*args, **{**kwargs, "connection": connection})
        return result
    finally:
        await connection.release()


def _log_error(error: BaseException, interval: float) -> None:
    _log.warn("not done: {error}; again in {interval} s", error=error, interval=interval)
