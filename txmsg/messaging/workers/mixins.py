"""ConsumerMixin and ConsumerProducerMixin: a worker as a class with hooks, and as a Twisted service.

    class Worker(ConsumerMixin):
        def __init__(self, connection):
            self.connection = connection

        def get_consumers(self, Consumer, channel):
            return [Consumer(queues=[jobs], callbacks=[self.on_message], accept=["json"])]

        def on_message(self, body, message):
            message.ack()

Each hook may return a Deferred or be a coroutine; it is waited for.  A worker has an `IService`: give it a parent, or
start and stop it; a script awaits :meth:`ConsumerMixin.run`.

Invariants: after a loss either the transport brings connection, channels and consumers back (``amqp://``), or all of
them are made anew (a transport that does not), and in both cases the hooks are called in the same order; a restart
takes a token of `restart_limit`, so that no failure makes a hot loop (R26); a stop ends within `stop_timeout` and
`close_timeout` (R30).
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, OperationalError, OperationTimeout, clip
from txmsg.messaging.connection import failures
from txmsg.messaging.consuming.consumer import Consumer as QueueConsumer
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.limits import TokenBucket
from txmsg.messaging.publishing.producer import Producer
from txmsg.messaging.workers.watching import ConsumerWatch, entered, when_all_idle

__all__ = ["ConsumerMixin", "ConsumerProducerMixin"]

_log = Logger(namespace="txmsg.messaging.mixins")


class ConsumerMixin(Service):
    """A base for workers; a subclass has a `connection` and :meth:`get_consumers`.

    connection: Connection -- where to consume; it is not used itself, but cloned.
    connect_max_retries: int | None -- how often connecting is tried again after a failure; None: for ever.
    stop_timeout: float -- seconds that handlers at work are given at a stop, 30.
    close_timeout: float -- seconds for what then remains of a stop: hooks and closing, 10.

    No `__init__` needs to be called.
    """

    connection: Any = None
    connect_max_retries: int | None = None
    stop_timeout: float = 30.0
    close_timeout: float = 10.0

    _should_stop = False
    _is_running = False
    _run_task: Deferred[None] | None = None
    #: What it waits for and need not when it is to stop.
    _waits_for: Deferred[Any] | None = None
    _watch: ConsumerWatch | None = None
    #: Consumers of a lost connection whose handlers go on.
    _retired: tuple[QueueConsumer, ...] = ()
    _finished: tuple[Deferred[BaseException | None], ...] = ()
    _outcome: BaseException | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "on_consumer_end" in vars(cls):
            warnings.warn(
                f"{cls.__name__}.on_consumer_end is never called: the hook is on_consume_end", UserWarning, stacklevel=2
            )

    # -- hooks -------------------------------------------------------------------------------------

    def get_consumers(self, Consumer: Callable[..., QueueConsumer], channel: Any) -> Any:
        """The consumers, as a list; a subclass must have this.

        Consumer: makes one on `channel`, with the worker's `on_decode_error`; give it queues, callbacks, accept ...
        channel: the default channel of the connection.  For more, ``Channel(channel.connection)``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a get_consumers(Consumer, channel)")

    def extra_context(self, connection: Any, channel: Any) -> Any:
        """A context manager, of either kind, that is entered when the consumers are started, or None."""

    def on_connection_error(self, exc: BaseException, interval: float) -> Any:
        """An attempt to connect has failed; the next comes in `interval` seconds.  By default: logged."""
        _log.warn(
            "cannot connect, trying again in {interval:g} s: {error}\n{traceback}",
            interval=interval,
            error=clip(str(exc)) or type(exc).__name__,
            traceback=Failure(exc, type(exc), exc.__traceback__).getTraceback(),
        )

    def on_connection_revived(self) -> Any:
        """It is connected, for the first time or again."""

    def on_consume_ready(self, connection: Any, channel: Any, consumers: list[QueueConsumer], **kwargs: Any) -> Any:
        """The consumers are started, or have come back.   kwargs: those of :meth:`run` or :meth:`consume`."""

    def on_consume_end(self, connection: Any, channel: Any) -> Any:
        """The consumers are cancelled; before the connection is closed."""

    def on_iteration(self) -> Any:
        """Called at each turn of the loop: after each message, and each second without one."""

    def on_decode_error(self, message: Message, exc: Exception) -> Any:
        """A message cannot be decoded, or is not accepted.  By default: logged, and acked, so that it is gone.

        Who overrides this settles the message: by calling this, too, or otherwise.
        """
        _log.error(
            "a message cannot be decoded and is dropped: {error} (type {kind}, encoding {encoding})",
            error=clip(str(exc)) or type(exc).__name__,
            kind=clip(str(message.content_type)),
            encoding=clip(str(message.content_encoding)),
        )
        message.ack_log_error(_log, (Exception,))

    # -- connecting ----------------------------------------------------------------------------------

    def create_connection(self) -> Any:
        """The Connection to use: a clone of `connection`."""
        if self.connection is None:
            raise ConfigurationError(f"{type(self).__name__}.connection is None: set it to a Connection")
        return self.connection.clone()

    def establish_connection(self) -> Deferred[Any]:
        """A connection that is connected, by as many attempts as that takes; the caller closes it.

        Each failed attempt is told to :meth:`on_connection_error`.  Fails as `Connection.ensure_connection`.
        """
        return Deferred.fromCoroutine(self._establish())

    async def _establish(self) -> Any:
        connection = self.create_connection()
        try:
            await connection.ensure_connection(self._told, self.connect_max_retries)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _told(self, exc: BaseException, interval: float) -> None:
        """`on_connection_error`, where nobody can wait for it."""
        telling = maybeDeferred(self.on_connection_error, exc, interval)
        telling.addErrback(lambda failure: _log.failure("on_connection_error failed", failure=failure))

    @property
    def connection_errors(self) -> tuple[type[Exception], ...]:
        """The errors of connections."""
        return failures.connection_errors

    @property
    def channel_errors(self) -> tuple[type[Exception], ...]:
        """The errors of channels."""
        return failures.channel_errors

    # -- consuming -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def Consumer(self) -> AsyncIterator[tuple[Any, Any, list[QueueConsumer]]]:
        """Connect and start the consumers; gives (connection, channel, consumers), and ends all of it again."""
        connection = await self._or_stop(self.establish_connection())
        watch = ConsumerWatch(connection, self._told, self.on_connection_revived)
        consumers: list[QueueConsumer] = []
        channel = connection.default_channel
        try:
            await maybeDeferred(self.on_connection_revived)
            _log.info("connected to {url}", url=connection.as_uri())
            make = partial(QueueConsumer, channel, on_decode_error=self.on_decode_error)
            consumers.extend(await maybeDeferred(self.get_consumers, make, channel))
            self._watch = watch
            watch.begin(consumers)
            for consumer in consumers:
                await self._or_stop(consumer.consume())
            yield connection, channel, consumers
        finally:
            watch.end()
            if self._watch is watch:
                self._watch = None
            await self._end(watch, connection, channel, consumers)

    async def _end(self, watch: ConsumerWatch, connection: Any, channel: Any, consumers: list[QueueConsumer]) -> None:
        try:
            for consumer in consumers:
                await consumer.close().addErrback(_not_cancelled)
            if watch.reason is None:
                await self._drain(consumers, connection.reactor)
            else:
                self._retired = tuple(each for each in (*self._retired, *consumers) if each.handlers_running)
            if consumers:
                await maybeDeferred(self.on_consume_end, connection, channel)
        finally:
            closing = connection.close()
            await closing.addTimeout(self.close_timeout, connection.reactor).addErrback(_not_closed)

    async def _drain(self, consumers: list[QueueConsumer], clock: Any) -> None:
        """Wait for handlers at work; not longer than `stop_timeout`."""
        if not await when_all_idle(consumers, self.stop_timeout, clock):
            _log.warn(
                "{count} handler(s) have not ended within {limit:g} s: their messages go back",
                count=sum(consumer.handlers_running for consumer in consumers),
                limit=self.stop_timeout,
            )

    @asynccontextmanager
    async def consumer_context(self, **kwargs: Any) -> AsyncIterator[tuple[Any, Any, list[QueueConsumer]]]:
        """As :meth:`Consumer`, with `extra_context` and `on_consume_ready(..., **kwargs)`."""
        async with self.Consumer() as (connection, channel, consumers):
            ready = partial(self.on_consume_ready, connection, channel, consumers, **kwargs)
            async with entered(await maybeDeferred(self.extra_context, connection, channel)):
                await maybeDeferred(ready)
                if self._watch is not None:
                    self._watch.on_back = ready
                yield connection, channel, consumers

    async def consume(
        self, limit: int | None = None, timeout: float | None = None, safety_interval: float = 1.0, **kwargs: Any
    ) -> AsyncIterator[None]:
        """Consume, and yield once for each message that was handed to a consumer.

        limit: int | None -- end after that many.  What was delivered beyond it is handled, too.
        timeout: float | None -- OperationTimeout after so many seconds without a message.
        safety_interval: float -- seconds from one `on_iteration` to the next while no message comes.
        kwargs -- for `on_consume_ready`.

        Raises the reason when the connection, or a consumer, has ended for good.  A loop that may be left early belongs
        in ``async with contextlib.aclosing(self.consume()) as turns``.
        """
        async with self.consumer_context(**kwargs) as (connection, _, _):
            watch = self._watch
            assert watch is not None
            idle = 0.0
            yielded = 0
            while not self.should_stop and (limit is None or yielded < limit):
                await maybeDeferred(self.on_iteration)
                seconds = safety_interval if timeout is None else min(safety_interval, timeout - idle)
                begin = connection.reactor.seconds()
                if self.should_stop:
                    return
                if await watch.next_message(seconds):
                    idle = 0.0
                    yielded += 1
                    yield
                elif not self.should_stop:
                    idle += connection.reactor.seconds() - begin
                    # A little less than the timeout is the timeout: sums of floats.
                    if timeout is not None and idle >= timeout - 1e-6:
                        raise OperationTimeout(f"no message within {timeout:g} s")

    # -- running -------------------------------------------------------------------------------------

    @cached_property
    def restart_limit(self) -> TokenBucket:
        """How often it may start again: once a second.  A subclass may have another one."""
        return TokenBucket(1, clock=None if self.connection is None else self.connection.reactor)

    @property
    def should_stop(self) -> bool:
        """Set it to True to make :meth:`run` finish what is at work, and return."""
        return self._should_stop

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        self._should_stop = bool(value)
        if value:
            if self._watch is not None:
                self._watch.wake()
            if self._waits_for is not None:
                self._waits_for.cancel()

    async def _or_stop(self, waiting: Deferred[Any]) -> Any:
        """Wait, but not when it is to stop: then CancelledError."""
        if self.should_stop:
            waiting.cancel()
        self._waits_for = waiting
        try:
            return await waiting
        finally:
            self._waits_for = None

    def run(self, _tokens: int = 1, **kwargs: Any) -> Deferred[None]:
        """Consume until `should_stop`, starting again after errors of connections and channels.

        _tokens: int -- what a start takes of `restart_limit`.   kwargs -- for :meth:`consume` and `on_consume_ready`.

        Fires when it has ended because it was to; fails with what no new start can cure (a refused login; connecting
        that was given up; an error of a hook).  Cancelling it is `should_stop`.
        """
        if self._is_running:
            return Deferred.fromCoroutine(_refuse(f"{type(self).__name__} runs already"))
        self._is_running = True
        self._outcome = None

        def stop(_: Deferred[None]) -> None:
            self.should_stop = True

        caller: Deferred[None] = Deferred(stop)
        task = self._run_task = Deferred.fromCoroutine(self._run(_tokens, kwargs))
        task.addBoth(self._ran, caller)
        return caller

    def _ran(self, outcome: Failure | None, caller: Deferred[None]) -> None:
        self._is_running = False
        self._run_task = None
        failed = isinstance(outcome, Failure) and not (outcome.check(CancelledError) and self.should_stop)
        ended = self._outcome = outcome.value if failed and isinstance(outcome, Failure) else None
        waiters, self._finished = self._finished, ()
        for waiter in waiters:
            waiter.callback(ended)
        if failed:
            caller.errback(outcome)
        else:
            caller.callback(None)

    async def _run(self, tokens: int, kwargs: dict[str, Any]) -> None:
        try:
            while not self.should_stop:
                try:
                    await self._or_stop(self.restart_limit.consume(tokens))
                    async for _ in self.consume(**kwargs):
                        pass
                except CancelledError:
                    if not self.should_stop:
                        raise
                except Exception as error:
                    if not self._starts_again_after(error):
                        raise
                    _log.warn("consuming has ended, starting again: {error}", error=clip(str(error)))
        finally:
            if self._retired:
                retired, self._retired = self._retired, ()
                await self._drain(list(retired), self.connection.reactor)
            await self._release()

    def _starts_again_after(self, error: Exception) -> bool:
        """Whether a new start may help: a loss; and, as what is missing may be made meanwhile, all of channels."""
        has_given_up = isinstance(error, OperationalError)
        return isinstance(error, self.channel_errors) or (failures.is_recoverable(error) and not has_given_up)

    async def _release(self) -> None:
        """Let go of what outlives a connection."""

    # -- twisted.application.service.IService ----------------------------------------------------------

    def startService(self) -> None:
        """Run; an end that nobody asked for is in the log."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._is_running and self.should_stop:
            # Stopped and started in one breath: what runs ends first.
            self.when_finished().addCallback(lambda _: self._start())
        else:
            self._start()

    def _start(self) -> None:
        if not self.running:
            return  # stopped again meanwhile
        self._should_stop = False
        self.run().addErrback(lambda failure: _log.failure("the worker has ended", failure=failure))

    def stopService(self) -> Deferred[None]:
        """Stop as `should_stop` does; fires when it has ended, within `stop_timeout` and `close_timeout`."""
        super().stopService()  # type: ignore[no-untyped-call]
        self.should_stop = True
        task = self._run_task
        if task is None:
            return succeed(None)
        limit = self.stop_timeout + self.close_timeout
        watchdog = self.connection.reactor.callLater(limit, task.cancel)

        def ended(_: BaseException | None) -> None:
            if watchdog.active():
                watchdog.cancel()

        return self.when_finished().addCallback(ended)

    def when_finished(self) -> Deferred[BaseException | None]:
        """A new Deferred that fires when it has ended: with None, or with what :meth:`run` fails with."""
        if not self._is_running:
            return succeed(self._outcome)
        waiter: Deferred[BaseException | None] = Deferred()
        self._finished = (*self._finished, waiter)
        return waiter


class ConsumerProducerMixin(ConsumerMixin):
    """A ConsumerMixin that publishes, too: by `producer`, on a connection of its own.

    A broker that is short of memory or disk stops reading from connections that publish; on the same connection the
    acks would wait with the publishes (https://www.rabbitmq.com/docs/connections#flow-control).
    """

    _producer_connection: Any = None
    _producer: Producer | None = None

    @property
    def producer_connection(self) -> Any:
        """The connection that `producer` publishes on: a clone of `connection`, which connects when it is needed."""
        if self._producer_connection is None:
            self._producer_connection = self.connection.clone()
        return self._producer_connection

    @property
    def producer(self) -> Producer:
        """A Producer for handlers."""
        if self._producer is None:
            self._producer = Producer(self.producer_connection)
        return self._producer

    def on_consume_end(self, connection: Any, channel: Any) -> Any:
        """Closes the connection of the producer; who overrides this calls it, or has that done at the end of `run`."""
        return Deferred.fromCoroutine(self._release())

    async def _release(self) -> None:
        producing, self._producer_connection, self._producer = self._producer_connection, None, None
        if producing is not None:
            await producing.close().addTimeout(self.close_timeout, producing.reactor).addErrback(_not_closed)


async def _refuse(why: str) -> None:
    raise ConfigurationError(why)


def _not_cancelled(failure: Failure) -> None:
    _log.debug("a consumer could not be cancelled: {error}", error=failure.value)


def _not_closed(failure: Failure) -> None:
    _log.warn("a connection was not closed in order: {error}", error=failure.value)
