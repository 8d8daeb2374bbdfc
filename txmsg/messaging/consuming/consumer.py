"""Consumer: messages of one or more queues, decoded and given to callbacks or to ``async for``.

Here is what a user asks of one beyond consuming (see `subscribing`) and being called (see `dispatch`): queues, limits,
``async with`` and ``async for``.  What a broker would end the connection for is refused here, with what to do instead
(kombu H19 to H21).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from twisted.internet.defer import Deferred, fail, succeed

from txmsg.errors import ConfigurationError, ConsumerCancelled, ContentDisallowed, NotBoundError, clip
from txmsg.messaging.compression import DEFAULT_LIMITS, DecompressionLimits, compressions
from txmsg.messaging.connection.failures import connection_errors
from txmsg.messaging.consuming.dispatch import Callback
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.consuming.subscribing import Subscribing, in_any_case
from txmsg.messaging.consuming.trust import Trust
from txmsg.messaging.serialization import Accept, AcceptList

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from txmsg.messaging.entities import Queue

__all__ = ["Consumer"]

#: What basic.qos carries.
_MAX_PREFETCH: Final = 65535


class Consumer(Subscribing):
    """Messages of queues, on one channel.

    channel -- a Channel, or a Connection, whose default channel it is; None until :meth:`revive`.
    queues -- a Queue or several; each is bound to the channel, as a copy.
    no_ack: bool | None -- True: messages are settled when they are handed over, by ``async for`` when they are fetched;
        None: as each queue has it, or False.
    auto_declare: bool -- declare queues, exchanges and bindings before they are consumed.
    callbacks, on_message, on_decode_error, on_error -- see
        :class:`~txmsg.messaging.consuming.dispatch.MessageDispatch`.  Without any of the first two (and
        no `receive` of a subclass), messages are for ``async for message in consumer``.
        on_decode_error(message, error): the body cannot be decompressed or decoded, or its type is not accepted; None:
        as on_error.   on_error(message, error): a callback failed; None: it is logged.  The message is not settled.
    accept -- content types or names of serializers; None: JSON, text and raw octets.  SerializerNotInstalled at once
        for a name that is not known.
    prefetch_count: int | None -- unsettled messages of each queue at most, 0: any number; None: what the channel has
        (by default 200 on amqp://, 10,000 on memory://), but 200 where messages are iterated over.
    tag_prefix: str | None -- tags are this and a number; None: "txmsg.".
    accept_compression -- names or media types that are decompressed; None: zlib and gzip.  CodecNotInstalled at once
        for one that is not known.   limits -- of decompressing.
    on_cancel(queue, reason) -- the broker has ended the consuming of a queue: it was deleted, and did not come back;
        may return an awaitable.  None: it is logged.

    Nothing is sent before :meth:`consume`.  After a loss the consumer goes on by itself, on every transport.
    """

    ContentDisallowed = ContentDisallowed

    def __init__(
        self,
        channel: Any = None,
        queues: Queue | Iterable[Queue] | None = None,
        no_ack: bool | None = None,
        auto_declare: bool | None = None,
        callbacks: Iterable[Callback] | None = None,
        on_decode_error: Callable[[Message, Exception], object] | None = None,
        on_message: Callable[[Message], object] | None = None,
        accept: Accept = None,
        prefetch_count: int | None = None,
        tag_prefix: str | None = None,
        *,
        on_error: Callable[[Message, BaseException], object] | None = None,
        on_cancel: Callable[[Queue, BaseException], object] | None = None,
        accept_compression: str | Iterable[str] | None = None,
        limits: DecompressionLimits = DEFAULT_LIMITS,
    ) -> None:
        if prefetch_count is not None:
            _check_prefetch(prefetch_count)
        if callable(callbacks):
            raise ConfigurationError("callbacks is a list: [callback]")
        callbacks = list(callbacks or ())
        for given in (*callbacks, on_message, on_decode_error, on_error, on_cancel):
            if given is not None and not callable(given):
                raise ConfigurationError(f"a {type(given).__name__} cannot be called back")
        unpacked = None if accept_compression is None else compressions.accept(accept_compression)
        super().__init__(
            channel,
            queues,
            no_ack,
            auto_declare,
            prefetch_count,
            tag_prefix,
            on_cancel,
            trust=Trust.of(accept, unpacked, limits),
            callbacks=callbacks,
            on_message=on_message,
            on_decode_error=on_decode_error,
            on_error=on_error,
        )

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def accept(self) -> AcceptList | None:
        """The content types that are decoded; None: the default."""
        return self._trust.accept

    # -- queues ----------------------------------------------------------------------------------------

    def add_queue(self, queue: Queue) -> Deferred[Queue]:
        """Take another queue along; fires with it, bound, when it is declared (`auto_declare`).

        It is consumed from the next :meth:`consume` on.
        """
        try:
            bound = self._add(queue)
        except ConfigurationError as error:
            return fail(error)
        if not self.auto_declare or self.channel is None:
            return succeed(bound)
        return bound.declare().addCallback(lambda _: bound)

    def purge(self) -> Deferred[int]:
        """Drop the messages that are ready in all the queues; fires with how many."""
        return Deferred.fromCoroutine(self._purge())

    async def _purge(self) -> int:
        channel = self._on()
        return sum([await channel.queue_purge(queue.name) for queue in list(self._queues)])

    def close(self) -> Deferred[None]:
        """:meth:`cancel`, and what was delivered and waits to be fetched goes back to its queue, with no_ack, too."""
        return in_any_case(self.cancel().addCallback(lambda _: self._stream.give_back()))

    # -- how much comes ----------------------------------------------------------------------------------

    def qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> Deferred[None]:
        """How many messages may be unsettled, 0: any number; of each queue that is consumed from now on.

        As RabbitMQ has it, what is consumed already keeps its own count: flow(False), flow(True) changes that.
        ConfigurationError for a prefetch_size (RabbitMQ would close the connection: 540), for apply_global (make a
        channel for those that are to share a count), and for a count that AMQP cannot carry.
        Source: https://www.rabbitmq.com/docs/consumer-prefetch
        """
        try:
            if prefetch_size:
                raise ConfigurationError("prefetch_size is 0: brokers count messages, not octets; use prefetch_count")
            if apply_global:
                raise ConfigurationError("prefetch counts are for each consumer: lower them, or use more channels")
            _check_prefetch(prefetch_count)
            channel = self._on()
        except (ConfigurationError, NotBoundError) as error:
            return fail(error)
        self.prefetch_count = prefetch_count
        return channel.qos(prefetch_count)

    def flow(self, active: bool) -> Deferred[None]:
        """Let no more messages come (False), and let them come again (True).

        The broker is not asked to pause, for RabbitMQ closes the connection then (540): the subscriptions end and
        begin again, and the messages stay in the queues.  ConfigurationError for a queue that is `auto_delete`: it
        would be deleted; a prefetch count, and settling later, holds its messages back.
        """
        return self._one_after_the_other(self._flow, active)

    async def _flow(self, active: bool) -> None:
        if active and self._is_paused:
            self._is_paused = False
            wanted, self._paused = self._paused, []
            try:
                channel = self._on()
                await channel.when_usable()
                await self._subscribe(channel, wanted)
            except Exception:
                self._is_paused, self._paused = True, wanted
                raise
        elif not active and not self._is_paused:
            for each in self._subscriptions.values():
                if each.queue.auto_delete:
                    raise ConfigurationError(
                        f"{clip(each.queue.name)!r} is auto_delete and would be deleted: use a prefetch count instead"
                    )
            self._is_paused = True
            stopped = list(self._subscriptions.values())
            try:
                await self._unsubscribe(list(self._subscriptions))
            except Exception:
                self._is_paused = False
                raise
            self._paused = stopped

    def recover(self, requeue: bool = True) -> Deferred[None]:
        """Give all unsettled messages of the channel back to their queues, to be delivered again, to anybody.

        requeue: bool -- True.  ConfigurationError for False ("to the same consumer"): RabbitMQ closes the connection
        then (540).
        """
        if not requeue:
            return fail(ConfigurationError("recover(requeue=False) is refused by brokers (540): use recover()"))
        try:
            return self._on().recover()
        except NotBoundError as error:
            return fail(error)

    # -- as a context, and as an iterator ------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Consume."""
        await self.consume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; what fails in that is logged, and not waited for where the connection was lost."""
        closing = self.close()
        closing.addErrback(lambda failure: self._log.debug("the consumer was not closed: {error}", error=failure.value))
        if not isinstance(error, connection_errors):
            await closing

    def get(self, timeout: float | None = None) -> Deferred[Message]:
        """The next message of a consumer without callbacks; may be cancelled.

        timeout: float | None -- seconds; OperationTimeout after that.  Fails with why nothing more comes.
        """
        try:
            clock = None if timeout is None else self._on().connection.reactor
        except NotBoundError as error:
            return fail(error)
        return self._stream.get(timeout, clock)

    def __aiter__(self) -> Self:
        """The messages, one by one, not decoded yet; consumes if it does not.

        Ends when the consumer is cancelled here; raises why it ended otherwise.  ConfigurationError if the messages go
        to callbacks.
        """
        if not self._is_streaming:
            raise ConfigurationError("the messages of this consumer go to its callbacks: make one without")
        return self

    async def __anext__(self) -> Message:
        if not self._subscriptions and not self._is_paused and not self._stream and self._stream.reason is None:
            await self.consume()
        try:
            return await self._stream.get()
        except ConsumerCancelled as reason:
            if reason.initiator == "client":
                raise StopAsyncIteration from None
            raise

    def __repr__(self) -> str:
        names = ", ".join(clip(queue.name, 60) for queue in self._queues)
        state = "paused" if self._is_paused else "consuming" if self._subscriptions else "idle"
        return f"<{type(self).__name__} of [{names}] on {self.channel!r}, {state}>"


def _check_prefetch(count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MAX_PREFETCH:
        raise ConfigurationError(f"prefetch_count is an int from 0 (any number) to {_MAX_PREFETCH}, not {count!r}")
