"""RPCServer: functions that other processes call over a queue.

A request is acknowledged when its reply has been written (`acks_late`), so that one whose server dies is run by
another; one that comes again is settled right before its reply.  Invariants: only registered functions are called; not
more than `concurrency` of them wait at a time; a request whose deadline has passed is not run; replies go to reply
addresses only, never to a queue that a caller names (C6.1); what a function raises is data in its reply.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar, overload

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import (
    ConfigurationError,
    EncodeError,
    RemoteError,
    SettlementError,
    TxmsgError,
    clip,
)
from txmsg.messaging import Channel, Connection, Consumer, Message, Queue
from txmsg.messaging.serialization import Accept, Encoded, serializers
from txmsg.rpc.body import PROGRESS, RESULT, encode_error, encode_reply, text_of
from txmsg.rpc.replies import ReplySender
from txmsg.rpc.request import IncomingCall, ServerCounts
from txmsg.rpc.stopping import StoppingService

__all__ = ["RPCServer"]

_F = TypeVar("_F", bound=Callable[..., Any])

_log = Logger(namespace="txmsg.rpc.server")

#: Seconds before it consumes again, when that has ended although nobody asked for it: at first, and at most.
_AGAIN_FIRST, _AGAIN_MOST = 1.0, 30.0


class RPCServer(StoppingService):
    """Serves one queue; a Twisted service, or `start()` and `stop()`.

    connection: Connection, or a URL for one of its own.
    queue: str or Queue -- a str is a durable queue of that name.  With `Queue(name, auto_delete=True)` it goes with
        its last server, and callers are told NoResponder then.
    concurrency: int -- functions that are waited for at a time, 100.
    prefetch_count: int | None -- requests that are fetched and not answered, at most; None: as `concurrency`.
    accept -- serializers of requests, ["json"]; a reply is in that of its request.
    reply_prefixes -- beginnings of further names that replies may go to, beside the brokers' own.
    acks_late: bool -- True: a request is settled after its reply, and may be run twice; False: before it is run, and
        is lost with the server.
    tracebacks: bool -- whether callers are sent them, False: they show how the server is made.
    drain_timeout: float -- seconds that functions at work are given at a stop, 10.
    close_timeout: float -- seconds for each thing that then remains, 5.
    wall_clock -- seconds since 1970, to which the deadlines of requests are compared.

    counts: ServerCounts.   unfinished: int -- functions that were still at work when the last stop gave up waiting.
    """

    def __init__(
        self,
        connection: Connection | str,
        queue: Queue | str,
        *,
        concurrency: int = 100,
        prefetch_count: int | None = None,
        accept: Accept = ("json",),
        reply_prefixes: Iterable[str] = (),
        acks_late: bool = True,
        tracebacks: bool = False,
        drain_timeout: float = 10.0,
        close_timeout: float = 5.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
            raise ConfigurationError(f"concurrency is an int from 1, not {concurrency!r}")
        self._owns_connection = isinstance(connection, str)
        super().__init__(Connection(connection) if isinstance(connection, str) else connection, _log)
        del connection
        self.queue = Queue(queue) if isinstance(queue, str) else queue
        self.concurrency = concurrency
        self.prefetch_count = min(concurrency, 65535) if prefetch_count is None else prefetch_count
        self.acks_late = acks_late
        self.tracebacks = tracebacks
        self.drain_timeout = drain_timeout
        self.close_timeout = close_timeout
        self.counts = ServerCounts()
        self._accept = serializers.accept(accept)
        self._wall_clock = wall_clock
        self._functions: dict[str, tuple[Callable[..., Any], bool]] = {}
        self._replies = ReplySender(self.connection, reply_prefixes)
        self._consumer: Consumer | None = None
        self._channel: Channel | None = None
        #: The start that is under way, or was successful; and who waits for it.
        self._starting: Deferred[None] | None = None
        self._start_waiters: list[Deferred[None]] = []
        #: Functions that are waited for, and requests that wait for one of them to end.
        self._running: dict[IncomingCall, Deferred[Any]] = {}
        self._waiting: deque[Message] = deque()
        #: How many of the latter make it look which of them are lost.
        self._many_waiting = concurrency
        self._is_beginning = False

    # -- what can be called --------------------------------------------------------------------------

    @overload
    def register(self, function: _F, /, name: str | None = None, *, bind: bool = False) -> _F: ...

    @overload
    def register(self, function: str | None = None, /, *, bind: bool = False) -> Callable[[_F], _F]: ...

    def register(self, function: Any = None, /, name: str | None = None, *, bind: bool = False) -> Any:
        """Let `function` be called, as `name`, or else under its own; also as a decorator, with or without a name.

        function -- returns the result, a Deferred or another awaitable of it, or is `async def`.
        bind: bool -- it is given the :class:`IncomingCall` first, by which it tells how far it has come.
        ConfigurationError: no name, or the name is taken.
        """
        if function is None or isinstance(function, str):
            return lambda decorated: self.register(decorated, function, bind=bind)
        called = getattr(function, "__name__", "") if name is None else name
        if not called or called == "<lambda>" or not isinstance(called, str):
            raise ConfigurationError("a function without a name needs one: register(function, name)")
        if not callable(function):
            raise ConfigurationError(f"{called!r} is not callable")
        if called in self._functions:
            raise ConfigurationError(f"there is a function {called!r} already")
        self._functions[called] = (function, bind)
        return function

    @property
    def methods(self) -> list[str]:
        """The names that can be called."""
        return sorted(self._functions)

    @property
    def calls_running(self) -> int:
        """Functions that are waited for."""
        return len(self._running)

    @property
    def is_consuming(self) -> bool:
        """Whether requests may come."""
        return self._consumer is not None

    # -- starting ------------------------------------------------------------------------------------

    def startService(self) -> None:
        """:meth:`start`; what stops it from starting is logged."""
        super().startService()  # type: ignore[no-untyped-call]
        self.start().addErrback(_log_failure, "the RPC server cannot start")

    def start(self) -> Deferred[None]:
        """Connect, by as many attempts as that takes, declare the queue, and consume; fires then.

        Fails with what another attempt cannot cure: AuthenticationFailed, PreconditionFailed (the queue is there and
        is another one) ...  After a loss it goes on by itself.  Cancelling it ends the wait only: `stop()` stops.
        """
        if self._is_stopping:
            return fail(ConfigurationError("the server is stopping"))
        if self._starting is not None and self._starting.called:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._start_waiters.append(waiter)
        if self._starting is None:
            self._stopped = None
            self._try(self._start())
        return waiter

    def _try(self, start: Coroutine[Deferred[Any], Any, None]) -> None:
        starting = self._starting = Deferred.fromCoroutine(start)
        starting.addBoth(self._tried, starting)

    def _tried(self, outcome: Failure | None, starting: Deferred[None]) -> None:
        if isinstance(outcome, Failure) and self._starting is starting:
            self._starting = None
        elif self._starting is not None and self._starting is not starting:
            return  # it has ended as soon as it began, and begins again
        waiters, self._start_waiters = self._start_waiters, []
        for waiter in waiters:
            waiter.callback(outcome)
        if isinstance(outcome, Failure) and not waiters:
            _log_failure(outcome, "the RPC server has ended")

    async def _start(self) -> None:
        await self.connection.ensure_connection()
        await self._replies.open()
        channel = Channel(self.connection)
        consumer = Consumer(
            channel,
            [self.queue],
            on_message=self._received,
            on_decode_error=lambda message, error: self._received(message),  # `payload` raises it again
            on_error=self._not_handled,
            accept=self._accept,
            prefetch_count=self.prefetch_count,
            no_ack=False,
        )
        try:
            await consumer.consume()
        except BaseException:
            channel.close().addErrback(lambda failure: None)
            raise
        self._channel, self._consumer = channel, consumer
        consumer.when_ended().addCallback(self._ended, consumer)

    def _ended(self, reason: BaseException, consumer: Consumer) -> None:
        """The consuming is over, for good: as long as nobody stops us, begin again."""
        if consumer is not self._consumer or self._is_stopping:
            return
        self._consumer = self._starting = None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close().addErrback(lambda failure: None)
        if self.connection.is_closed:
            _log.info("the RPC server ends with its connection: {reason}", reason=str(reason))
            return
        _log.warn("requests do not come any more, consuming again: {reason}", reason=str(reason))
        self._try(self._start_again())

    async def _start_again(self) -> None:
        wait = _AGAIN_FIRST
        while True:
            await deferLater(self.connection.reactor, wait)
            try:
                await self._start()
                return
            except TxmsgError as error:
                if self.connection.is_closed:
                    raise
                wait = min(wait * 2, _AGAIN_MOST)
                _log.warn("cannot consume, trying again in {wait:g} s: {error}", wait=wait, error=str(error))

    # -- requests ------------------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        self.counts.received += 1
        if len(self._running) < self.concurrency and not self._is_stopping:
            self._begin(message)
            return
        if len(self._waiting) >= self._many_waiting:
            # Lost with their connections, they have come again: as often as that happens while nothing ends.
            self._waiting = deque(each for each in self._waiting if not each.delivery.is_settled)
            self._many_waiting = max(self.concurrency, 2 * len(self._waiting))
        self._waiting.append(message)

    def _not_handled(self, message: Message, error: BaseException) -> None:
        """A defect here: the request must not stay, and take the place of others."""
        _log.failure("a request is dropped", failure=Failure(error, type(error), error.__traceback__))
        _settle(message.reject)

    def _begin(self, message: Message) -> None:
        """Look at a request and run it, or say why not."""
        counts = self.counts
        properties = message.properties
        call = IncomingCall(self, message, properties.get("reply_to"), properties.get("correlation_id"))
        if call.reply_to is not None and not self._replies.may_reply_to(call.reply_to):
            counts.refused += 1
            _log.warn("a request is dropped: replies do not go to {queue!r}", queue=clip(call.reply_to))
            _settle(message.reject)
            return
        try:
            call.read()
        except TxmsgError as error:
            counts.undecodable += 1
            _log.warn("a request cannot be read: {error}", error=clip(str(error)))
            if self._accept is not None and serializers.name_to_type.get(call.serializer) not in self._accept:
                call.serializer = "json"
            self._reply(call, encode_error(error, call.serializer), message.reject)
            return
        deadline = call.deadline
        if deadline is not None and self._wall_clock() >= deadline:
            counts.expired += 1
            _settle(message.ack)
            return
        if not self.acks_late:
            self._settle(call, message.ack)
        self._run(call)

    def _run(self, call: IncomingCall) -> None:
        try:
            function, is_bound = self._functions[call.method]
        except KeyError:
            self.counts.unknown += 1
            error = RemoteError("NoSuchMethod", f"there is no {clip(call.method)!r} here", "txmsg.rpc")
            self._finish(call, encode_error(error, call.serializer))
            return
        try:
            result = function(call, *call.args, **call.kwargs) if is_bound else function(*call.args, **call.kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, too: a caller must not be able to end the server
            self._failed(call, error)
            return
        if isinstance(result, Awaitable):
            waiting = _as_deferred(result)
            self._running[call] = waiting
            waiting.addCallbacks(self._succeeded, self._failed_later, callbackArgs=(call,), errbackArgs=(call,))
            waiting.addBoth(self._run_over, call)
        else:
            self._succeeded(result, call)

    def _run_over(self, outcome: object, call: IncomingCall) -> None:
        del self._running[call]
        if isinstance(outcome, Failure):
            _log.failure("what came after a function failed", failure=outcome)
        self._begin_waiting()
        if not self._running:
            self._tell_idle_waiters()

    def _begin_waiting(self) -> None:
        """Begin as many as there is room for; not again within itself, for those that end at once."""
        if self._is_beginning:
            return
        self._is_beginning = True
        try:
            while self._waiting and len(self._running) < self.concurrency and not self._is_stopping:
                message = self._waiting.popleft()
                if not message.delivery.is_settled:  # else it was lost with its connection, and comes again
                    self._begin(message)
        finally:
            self._is_beginning = False

    def _succeeded(self, result: Any, call: IncomingCall) -> None:
        try:
            encoded = encode_reply(RESULT, result, call.serializer)
        except EncodeError as error:
            self._failed(call, error)
            return
        self.counts.succeeded += 1
        self._finish(call, encoded)

    def _failed_later(self, failure: Failure, call: IncomingCall) -> None:
        if self._is_stopping and not call.comes_no_more and failure.check(CancelledError):
            call.is_over = True
            self.counts.given_back += 1
            _settle(lambda: call.message.reject(True))
            return
        self._failed(call, failure)

    def _failed(self, call: IncomingCall, error: BaseException | Failure) -> None:
        self.counts.failed += 1
        value = error.value if isinstance(error, Failure) else error
        text = f"{type(value).__name__}: {text_of(value)}"
        _log.debug("{method} failed: {error}", method=clip(call.method), error=clip(text))
        self._finish(call, encode_error(error, call.serializer, traceback=self.tracebacks))

    def _finish(self, call: IncomingCall, encoded: Encoded) -> None:
        self._reply(call, encoded, call.message.ack)
        call.is_over = True

    def _reply(self, call: IncomingCall, encoded: Encoded, settle: Callable[[], None]) -> None:
        """Send the last reply to a request and settle it: behind that, so that a server that dies has answered it.

        But ahead of it when it has come before: RabbitMQ ends the connection of whoever sends to a reply address that
        is forged (541), and such a request would do that to one server after the other, for ever.
        """
        if call.reply_to is None or call.message.redelivered:
            self._settle(call, settle)
        sent = self._send(call, encoded)
        if sent is None:
            self._settle(call, settle)
        else:
            sent.addBoth(lambda _: self._settle(call, settle))

    def _send(self, call: IncomingCall, encoded: Encoded) -> Deferred[None] | None:
        if call.reply_to is None:
            return None
        again = call.message.redelivered
        return self._replies.send(call.reply_to, call.correlation_id, encoded, self.counts, again)

    def _settle(self, call: IncomingCall, how: Callable[[], None]) -> None:
        if not call.comes_no_more:
            call.comes_no_more = True
            _settle(how)

    def send_progress(self, call: IncomingCall, value: Any) -> None:
        """For calls: a state before the result.  EncodeError."""
        if call.is_over:
            return
        encoded = encode_reply(PROGRESS, value, call.serializer)
        if call.reply_to is not None and call.message.redelivered:
            self._settle(call, call.message.ack)
        self._send(call, encoded)

    # -- stopping ------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None and not starting.called:
            starting.addErrback(lambda failure: None)
            starting.cancel()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._within(self.close_timeout, consumer.cancel(), "cancelling the consumer")
        waiting, self._waiting = list(self._waiting), deque()
        for message in waiting:
            _settle(partial(message.reject, True))
        self.counts.given_back += len(waiting)
        if self._running:
            await self._within(self.drain_timeout, self._wait_for_idle(), "draining")
        self.unfinished = len(self._running)
        for running in list(self._running.values()):
            try:
                running.cancel()
            except Exception:
                _log.failure("a function that is at work cannot be cancelled")
        await self._within(self.close_timeout, self._replies.close(), "closing the channel of the replies")
        channel, self._channel = self._channel, None
        closing = self.connection.close() if self._owns_connection else None if channel is None else channel.close()
        if closing is not None:
            await self._within(self.close_timeout, closing, "closing")
        self._waiting.clear()  # what came when the consumer could not be cancelled in order
        self._is_stopping = False

    def __repr__(self) -> str:
        state = "stopping" if self._is_stopping else "consuming" if self._consumer is not None else "idle"
        return f"<RPCServer of {clip(self.queue.name, 60)!r}, {state}, {len(self._running)} running>"


def _settle(how: Callable[[], None]) -> None:
    """A request that is settled, or was lost with its connection and comes again, needs nothing more."""
    try:
        how()
    except SettlementError as error:
        _log.debug("a request was not settled: {error}", error=str(error))


def _as_deferred(awaitable: Any) -> Deferred[Any]:
    if isinstance(awaitable, Deferred):
        return awaitable
    if hasattr(awaitable, "add_done_callback"):
        return Deferred.fromFuture(awaitable)
    return Deferred.fromCoroutine(_wait_for(awaitable))


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _log_failure(failure: Failure, what: str) -> None:
    if not failure.check(CancelledError):  # which a stop does
        _log.failure("{what}", failure=failure, what=what)
