"""Messages as asynchronous iterators: itermessages, drain_consumer, and eventloop.

    async for body, message in itermessages(connection, None, Queue("jobs"), limit=10, timeout=5.0):
        ...
        message.ack()

Invariant (kombu O5): no message is lost.  What was delivered and not yielded goes back to its queue when the
iteration ends, in whatever way; so `no_ack` is done by acking each message when it is yielded.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, ConsumerCancelled, OperationTimeout, SettlementError
from txmsg.messaging.connection.failures import is_recoverable
from txmsg.messaging.consuming.consumer import Consumer
from txmsg.messaging.consuming.message import NO_ACK, Message
from txmsg.messaging.consuming.stream import unwatch, watch
from txmsg.messaging.consuming.subscribing import DIRECT_REPLY, STREAM_PREFETCH

if TYPE_CHECKING:
    from txmsg.messaging.consuming.dispatch import Callback
    from txmsg.messaging.entities import Queue

__all__ = ["EventLoop", "MessageIterator", "drain_consumer", "eventloop", "itermessages"]


def itermessages(
    connection: Any,
    channel: Any,
    queue: Queue | Iterable[Queue],
    limit: int | None = 1,
    timeout: float | None = None,
    callbacks: Iterable[Callback] | None = None,
    **settings: Any,
) -> MessageIterator:
    """The messages of a queue as (body, message), from a Consumer of its own.

    connection -- used where `channel` is None: its default channel.   settings -- of the Consumer.
    limit, timeout, callbacks -- as in :func:`drain_consumer`.
    """
    consumer = Consumer(connection if channel is None else channel, queue, **settings)
    return drain_consumer(consumer, limit, timeout, callbacks)


def drain_consumer(
    consumer: Consumer,
    limit: int | None = 1,
    timeout: float | None = None,
    callbacks: Iterable[Callback] | None = None,
) -> MessageIterator:
    """The messages of a consumer as (body, message); it is consumed when the first one is asked for.

    limit: int | None -- yield that many at most; None: any number.
    timeout: float | None -- seconds to wait for each; the iteration ends when none comes.   None: for ever.
    callbacks -- called, and awaited, with each (body, message) before it is yielded; those of the consumer are not.

    A message that cannot be decoded goes to the consumer's `on_decode_error`; without one the error is raised, and the
    next step goes on with the next message.
    """
    return MessageIterator(consumer, limit, timeout, callbacks)


class MessageIterator:
    """What :func:`itermessages` and :func:`drain_consumer` return.

    It closes itself at the limit and at the timeout.  A loop that may be left before that belongs in a block, which
    waits until everything is back in the queue:

        async with itermessages(...) as messages:
            async for body, message in messages: ...
    """

    def __init__(
        self, consumer: Consumer, limit: int | None, timeout: float | None, callbacks: Iterable[Callback] | None
    ) -> None:
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ConfigurationError(f"limit is an int from 0 or None, not {limit!r}")
        self.consumer = consumer
        self._left = limit
        self._timeout = timeout
        self._callbacks = list(callbacks or ())
        self._is_started = False
        self._is_closed = False
        #: Whether each message is acked when it is yielded.
        self._acks = False

    async def _start(self) -> None:
        self._is_started = True
        consumer = self.consumer
        consumer.callbacks = []
        consumer.on_message = None
        if consumer.prefetch_count is None and self._left is not None:
            consumer.prefetch_count = min(max(self._left, 1), STREAM_PREFETCH)
        no_ack = consumer.no_ack
        if no_ack is None:
            no_ack = any(queue.no_ack for queue in consumer.queues)
        if no_ack and any(queue.name == DIRECT_REPLY for queue in consumer.queues):
            await consumer.consume(no_ack=True)
        else:
            self._acks = bool(no_ack)
            await consumer.consume(no_ack=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Any, Message]:
        while True:
            if self._is_closed or self._left == 0:
                await self.aclose()
                raise StopAsyncIteration
            if not self._is_started:
                try:
                    await self._start()
                except BaseException:
                    self._is_started = False
                    raise
            message = await self._next()
            if message is None:
                await self.aclose()
                raise StopAsyncIteration
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    try:
                        await self.aclose()  # before the caller has it, for he may not ask for another one
                    except BaseException:
                        with suppress(SettlementError):
                            message.requeue()
                        raise
            if self._acks:
                message.ack()
                message.state = NO_ACK
            try:
                body = message.payload
            except Exception as error:
                on_decode_error = self.consumer.on_decode_error
                if on_decode_error is None:
                    raise
                await _awaited(on_decode_error(message, error))
                continue
            for callback in self._callbacks:
                await _awaited(callback(body, message))
            return body, message

    async def _next(self) -> Message | None:
        try:
            return await self.consumer.get(self._timeout)
        except OperationTimeout:
            return None
        except ConsumerCancelled as reason:
            if reason.initiator == "client":
                return None
            raise

    async def aclose(self) -> None:
        """Stop consuming, and give back what was not yielded.  Twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            if self._is_started:
                await self.consumer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """A loop was left: give back what it has not seen."""
        if getattr(self, "_is_started", False) and not self._is_closed:
            self._is_closed = True
            self.consumer.close().addErrback(lambda failure: None)


def eventloop(
    connection: Any, limit: int | None = None, timeout: float | None = None, ignore_timeouts: bool = False
) -> EventLoop:
    """Step on whenever a consumer of `connection` has handed a message over; yields None each time.

    Nothing has to be driven by it, for the reactor runs: it is for code that wants to do something after each message.

    limit: int | None -- steps (and, with `ignore_timeouts`, timeouts) at most.
    timeout: float | None -- seconds to wait for each; OperationTimeout after that, or with `ignore_timeouts` it waits
    on.  When the connection is closed, or lost in a way that is not recoverable, that is raised.
    """
    return EventLoop(connection, limit, timeout, ignore_timeouts)


class EventLoop:
    """What :func:`eventloop` returns."""

    def __init__(self, connection: Any, limit: int | None, timeout: float | None, ignore_timeouts: bool) -> None:
        self._connection = connection
        self._left = limit
        self._timeout = timeout
        self._ignore_timeouts = ignore_timeouts
        self._seen = 0
        self._reason: BaseException | None = None
        self._waiter: Deferred[None] | None = None
        self._is_started = False
        # The connection must not keep a loop alive that was left by a `break`.
        self._on_message = _weakly(self._happened)
        self._on_loss = _weakly(self._lost)
        self._on_close = _weakly(self._over)

    def __del__(self) -> None:
        """It was left: watch no longer."""
        if getattr(self, "_is_started", False):
            self._stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        while True:
            if self._left == 0:
                await self.aclose()
                raise StopAsyncIteration
            if not self._is_started:
                self._start()
                if not self._connection.connected:
                    await self._connection.connect()
            if self._left is not None:
                self._left -= 1
            try:
                await self._step()
            except OperationTimeout:
                if self._ignore_timeouts:
                    continue
                raise
            return

    def _start(self) -> None:
        self._is_started = True
        watch(self._connection, self._on_message)
        self._connection.add_recovery_callback(self._on_loss)
        self._connection.add_close_callback(self._on_close)

    def _step(self) -> Deferred[None]:
        if self._seen:
            self._seen -= 1
            return succeed(None)
        waiter = self._waiter = Deferred(self._forget)
        if self._reason is not None:
            self._waiter = None
            waiter.errback(Failure(self._reason.with_traceback(None)))
        elif self._timeout is not None:
            call = self._connection.reactor.callLater(self._timeout, self._timed_out)
            waiter.addBoth(_stopped, call)
        return waiter

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiter = None

    def _timed_out(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.errback(Failure(OperationTimeout(f"nothing came within {self._timeout:g} seconds")))

    def _happened(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._seen += 1
        else:
            waiter.callback(None)

    def _lost(self, reason: BaseException | None, delay: float | None) -> None:
        if reason is not None and delay is None and not is_recoverable(reason):
            self._over(reason)

    def _over(self, reason: BaseException) -> None:
        self._reason = reason
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.errback(Failure(reason.with_traceback(None)))

    async def aclose(self) -> None:
        """Watch no longer."""
        self._stop()

    def _stop(self) -> None:
        if self._is_started:
            self._is_started = False
            unwatch(self._connection, self._on_message)
            self._connection.remove_recovery_callback(self._on_loss)
            self._connection.remove_close_callback(self._on_close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()


def _weakly(method: Callable[..., object]) -> Callable[..., None]:
    """Call a bound method as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        found = reference()
        if found is not None:
            found(*arguments)

    return call


async def _awaited(result: object) -> None:
    if isinstance(result, Awaitable):
        await result


def _stopped(result: Any, call: Any) -> Any:
    if call.active():
        call.cancel()
    return result
