"""RPCClient: calls to other processes, over a broker, as Deferreds.

A call ends once (R27): with the result, with RemoteError (it failed there), NoResponder (it went to no queue),
RPCTimeout, or with the error of the connection.  Replies are matched by a random id of 128 bits, on a consumer of the
client's own (C6.3); any other is dropped and counted.

Requests are not confirmed: the reply is the confirm, and a request that is lost shows as an RPCTimeout.  When the
connection is lost, the replies to what is under way cannot come any more, and those calls fail at once; calls made
after that wait until it is back, and are sent then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from types import TracebackType
from typing import Any, Final, Self

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, ConnectionClosed, NoResponder, PublishReturned, TxmsgError
from txmsg.messaging import Connection
from txmsg.messaging.serialization import Accept, serializers
from txmsg.rpc.body import ERROR, PROGRESS, decode_reply, encode_request
from txmsg.rpc.pending import PendingCall, PendingCalls, ReplyCounts, time_limit
from txmsg.rpc.reply_channel import REPLY_MODES, ReplyChannel

__all__ = ["RPCClient"]

#: Milliseconds of `expiration` that RabbitMQ takes; above that it closes the channel.
_LONGEST: Final = 2**32 - 1


class RPCClient:
    """Calls functions that an :class:`~txmsg.rpc.RPCServer`, or anybody who speaks docs/rpc.md, offers at a queue.

    connection: Connection, or a URL for one of its own, which is closed with the client.
    timeout: float -- seconds that a call has, 30; each may have others.
    exchange: str -- where requests go; "" leads to the queue that the routing key names.
    serializer: str -- of requests, "json".   accept -- of replies; None: as the serializer.
    max_in_flight: int -- calls without an answer, 10,000; more are Overloaded.
    reply: "auto" -- direct reply-to where the broker has it, else one queue of this client's; "direct"; "queue".
    wall_clock -- seconds since 1970, for the deadlines that servers are told.

    Nothing is opened before the first call.  ConfigurationError, SerializerNotInstalled.
    """

    def __init__(
        self,
        connection: Connection | str,
        *,
        timeout: float = 30.0,
        exchange: str = "",
        serializer: str = "json",
        accept: Accept = None,
        max_in_flight: int = 10_000,
        reply: str = "auto",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if reply not in REPLY_MODES:
            raise ConfigurationError(f"reply is one of {', '.join(REPLY_MODES)}, not {reply!r}")
        timeout = time_limit(timeout)
        serializers.dumps(None, serializer)
        self._accept = serializers.accept([serializer] if accept is None else accept)
        self._owns_connection = isinstance(connection, str)
        self.connection = Connection(connection) if isinstance(connection, str) else connection
        del connection
        self.timeout = timeout
        self.exchange = exchange
        self.serializer = serializer
        self._mode = reply
        self._wall_clock = wall_clock
        self._max_in_flight = max_in_flight
        self._calls: PendingCalls | None = None
        self._channel: ReplyChannel | None = None
        #: A channel that is being opened.
        self._opening: Deferred[ReplyChannel] | None = None
        #: Who waits in `open`, and in `close`.
        self._waiters: list[Deferred[None]] = []
        self._close_waiters: list[Deferred[None]] = []
        #: Calls that wait for the channel.
        self._unsent: dict[str, PendingCall] = {}
        self._is_closed = self._is_over = False
        if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
            raise ConfigurationError(f"max_in_flight is an int from 1, not {max_in_flight!r}")

    # -- state ---------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Calls without an answer."""
        return 0 if self._calls is None else len(self._calls)

    @property
    def counts(self) -> ReplyCounts:
        """The replies that were dropped, by why."""
        return self._table().counts

    @property
    def reply_to(self) -> str:
        """Where replies go now: "amq.rabbitmq.reply-to", the name of a queue, or "" while there is no channel."""
        return "" if self._channel is None else self._channel.reply_to

    def _table(self) -> PendingCalls:
        if self._calls is None:  # made late: it takes the reactor
            self._calls = PendingCalls(self.connection.reactor, self._max_in_flight)
            if not self._is_closed:
                self.connection.add_recovery_callback(self._recovery)
        return self._calls

    # -- calling -------------------------------------------------------------------------------------

    def call(self, queue: str, method: str, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call `method` of the server at `queue` with these arguments; as :meth:`request` with its defaults."""
        return self.request(queue, method, args, kwargs)

    def request(
        self,
        routing_key: str,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Any], object] | None = None,
    ) -> Deferred[Any]:
        """Call a function; fires with its result.

        routing_key: str -- the queue of the server, or what leads there from `exchange`.
        timeout: float | None -- seconds in all; the server is told the deadline, and does not begin after it.
        on_progress(value) -- called with each state that is sent before the result.

        Fails with RemoteError, NoResponder, RPCTimeout, the error of the connection that was lost or cannot be made,
        EncodeError, ConfigurationError (`timeout`, `on_progress`), Overloaded (`max_in_flight`), ConnectionClosed after
        `close()`.  Cancelling it ends the wait; a request that has left may be carried out.
        """
        if timeout is None:
            timeout = self.timeout
        if on_progress is not None and not callable(on_progress):
            return fail(ConfigurationError(f"on_progress must be callable, not {type(on_progress).__name__}"))
        table = self._calls
        if table is None:
            table = self._table()
        try:
            call = table.add(timeout, on_progress)
        except TxmsgError as error:
            return fail(error)
        try:
            encoded = encode_request(method, args, kwargs, self._wall_clock() + call.timeout, self.serializer)
        except TxmsgError as error:
            table.forget(call)
            return fail(error)
        deferred = call.deferred
        channel = self._channel
        if channel is not None:
            self._send(channel, call, routing_key, encoded, call.timeout)
        else:
            self._park(call, routing_key, encoded)
            self._open_soon()
        return deferred

    def _send(self, channel: ReplyChannel, call: PendingCall, routing_key: str, encoded: Any, left: float) -> None:
        content_type, content_encoding, body = encoded
        sent = channel.publish(
            self.exchange,
            routing_key,
            body,
            {
                "content_type": content_type,
                "content_encoding": content_encoding,
                "correlation_id": call.correlation_id,
                "reply_to": channel.reply_to,
                # The broker drops it when its time is up; a server that has it already looks at the deadline.
                "expiration": str(min(ceil(left * 1000), _LONGEST)),
            },
            mandatory=True,
        )
        if not sent.called:
            call.sent = sent
        sent.addErrback(self._not_sent, call)

    def _not_sent(self, failure: Failure, call: PendingCall) -> None:
        call.sent = None
        if failure.check(CancelledError):
            return
        error = failure.value
        assert error is not None
        assert self._calls is not None
        if isinstance(error, PublishReturned):
            error = NoResponder(error.exchange, error.routing_key)
        self._calls.fail(call, error)

    def _returned(self, error: PublishReturned, properties: Mapping[str, Any]) -> None:
        assert self._calls is not None
        call = self._calls.find(properties.get("correlation_id"))
        if call is not None:
            self._calls.fail(call, NoResponder(error.exchange, error.routing_key))

    # -- replies -------------------------------------------------------------------------------------

    def _received(self, delivery: Any) -> None:
        table = self._calls
        assert table is not None
        properties = delivery.properties
        get = properties.get
        call = table.find(get("correlation_id"))
        if call is None:
            return
        try:
            kind, value = decode_reply(delivery.body, get("content_type"), get("content_encoding"), self._accept)
        except TxmsgError as error:
            table.undecodable(call, error)
            return
        if kind == PROGRESS:
            table.progress(call, value)
        elif kind == ERROR:
            table.fail(call, value, is_answer=True)
        else:
            table.succeed(call, value)

    # -- the channel ---------------------------------------------------------------------------------

    def _park(self, call: PendingCall, routing_key: str, encoded: Any) -> None:
        """Let it wait for the channel; one that ends before is not sent."""
        call.request = (routing_key, encoded)
        self._unsent[call.correlation_id] = call

        def end(_: Deferred[Any]) -> None:
            self._unsent.pop(call.correlation_id, None)

        call.sent = Deferred(end).addErrback(_is_over)

    def open(self) -> Deferred[None]:
        """Connect, and be ready for the first call; calls do it when it is needed.  Fails as they do."""
        if self._is_closed:
            return fail(_closed_here())
        self._table()
        if self._channel is not None:
            return succeed(None)
        waiter = _wait_in(self._waiters)
        self._open_soon()
        return waiter

    def _open_soon(self) -> None:
        if self._opening is None:
            opening = self._opening = Deferred.fromCoroutine(self._open())
            opening.addCallbacks(self._opened, self._not_opened)

    async def _open(self) -> ReplyChannel:
        channel = await ReplyChannel.open(
            self.connection, self._mode, self._received, self._returned, self._channel_ended
        )
        if channel.reason is not None:
            raise channel.reason.with_traceback(None)
        return channel

    def _opened(self, channel: ReplyChannel) -> None:
        self._opening = None
        if self._is_closed:
            channel.close()
            return
        self._channel = channel
        table = self._calls
        assert table is not None
        waiters, self._waiters = self._waiters, []
        _tell(waiters, None)
        for correlation_id, call in list(self._unsent.items()):
            if self._channel is not channel:
                break  # it has ended already: the others wait for the next one
            if self._unsent.pop(correlation_id, None) is None:
                continue
            routing_key, encoded = call.request
            call.request = call.sent = None
            self._send(channel, call, routing_key, encoded, max(call.deadline - table.clock.seconds(), 0.001))

    def _not_opened(self, failure: Failure) -> None:
        self._opening = None
        error = failure.value
        assert error is not None
        assert self._calls is not None
        waiters, self._waiters = self._waiters, []
        unsent, self._unsent = self._unsent, {}
        self._calls.fail_all(error, list(unsent.values()))
        _tell(waiters, error)

    def _channel_ended(self, channel: ReplyChannel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        table = self._calls
        assert table is not None
        table.fail_all(reason, [call for call in table if call.correlation_id not in self._unsent])
        if self._unsent:
            self._open_soon()

    def _recovery(self, reason: BaseException | None, delay: float | None) -> None:
        """The connection was lost: where channels come back by themselves, nobody else says so."""
        if reason is not None and self._channel is not None:
            self._channel.end(reason)

    # -- the end -------------------------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """End all calls with ConnectionClosed, and what is the client's own; fires when that is done.  Twice is fine.

        A `connection` that was given stays open.
        """
        if self._is_over:
            return succeed(None)
        waiter = _wait_in(self._close_waiters)
        if not self._is_closed:
            self._is_closed = True
            self._close().addBoth(self._closed)
        return waiter

    def _closed(self, outcome: object) -> None:
        self._is_over = True
        _tell(self._close_waiters, outcome.value if isinstance(outcome, Failure) else None)

    def _close(self) -> Deferred[None]:
        self.connection.remove_recovery_callback(self._recovery)
        channel, self._channel = self._channel, None
        _tell(self._waiters, _closed_here())
        self._table().close(_closed_here())
        if self._opening is not None:
            self._opening.cancel()
        done = None if channel is None else channel.close()
        if self._owns_connection:
            return self.connection.close()
        return succeed(None) if done is None else done

    async def __aenter__(self) -> Self:
        """:meth:`open`; where that fails, also :meth:`close`."""
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._channel is not None else "not open"
        return f"<RPCClient over {self.connection!r}, {state}, {self.pending} calls waiting>"


def _wait_in(waiters: list[Deferred[None]]) -> Deferred[None]:
    """One more who waits, until he cancels it."""

    def leave(waiter: Deferred[None]) -> None:
        if waiter in waiters:
            waiters.remove(waiter)

    waiter: Deferred[None] = Deferred(leave)
    waiters.append(waiter)
    return waiter


def _tell(waiters: list[Deferred[None]], error: BaseException | None) -> None:
    """All who wait; what one of them does may end the waiting of another."""
    while waiters:
        waiter = waiters.pop(0)
        if error is None:
            waiter.callback(None)
        else:
            waiter.errback(Failure(error))


def _is_over(failure: Failure) -> None:
    """Cancelled with its call."""


def _closed_here() -> ConnectionClosed:
    return ConnectionClosed("the RPC client was closed", 200, initiator="client")
