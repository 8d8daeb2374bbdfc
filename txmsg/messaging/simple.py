"""SimpleQueue and SimpleBuffer: a queue of the broker with the interface of a queue of Python.

The invariants: what `get` has not given out is still the broker's, so that nothing is lost by closing, with `no_ack`
neither; what was sent ahead comes before what `get_nowait` fetches; and a timeout is measured from the
call on, whatever else happens meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import NotBoundError, PublishNacked, QueueEmpty, StaleDelivery
from txmsg.messaging.connection.sharing import SharedAttempt
from txmsg.messaging.consuming.consumer import Consumer
from txmsg.messaging.consuming.message import NO_ACK, Message
from txmsg.messaging.consuming.subscribing import in_any_case
from txmsg.messaging.entities import Exchange, Queue, maybe_declare
from txmsg.messaging.publishing.producer import Producer
from txmsg.messaging.serialization import Accept

if TYPE_CHECKING:
    from types import TracebackType

    from txmsg.abc import MessagingChannel
    from txmsg.messaging.connection.channel import Channel
    from txmsg.messaging.connection.connection import Connection
    from txmsg.messaging.consuming.stream import MessageStream

__all__ = ["SimpleBuffer", "SimpleQueue"]

#: How many turns of the reactor are waited for what was sent ahead; each hands over many messages.
_TURNS: Final = 100


class _Fetcher(Consumer):
    """A consumer whose messages can be looked at before they are fetched."""

    @property
    def stream(self) -> MessageStream:
        """What has come and was not fetched yet."""
        return self._stream


class SimpleQueue:
    """A queue: durable, with persistent messages, which are yours until you ack them.

    channel -- a Channel, or a Connection, whose default channel it is.
    name: str | Queue -- of the queue, its exchange and its routing key; or a Queue, which has its own.
    no_ack: bool | None -- True: a message is settled when `get` gives it out; None: as the class has it, False here.
    queue_opts, exchange_opts: mappings of arguments of Queue and Exchange.   queue_args: queue arguments (x-...).
        None of them is used where `name` is a Queue.
    serializer, compression: str | None -- of what is put; None: as a Producer has it.
    accept -- content types of what is got, as a Consumer has it.
    prefetch_count: int | None -- how many messages `get` lets the broker send ahead, and you may hold without settling
        them; 0: any number; None: 200.

    Nothing is opened or declared before the first call.  Settle what you get: `message.ack()`.  Several who `get` are
    served in the order of their calls.
    """

    #: What `get` raises when there is nothing.
    Empty: ClassVar[type[QueueEmpty]] = QueueEmpty
    #: What `put` fails with when the broker refuses a message: a queue with `max_length` and the queue argument
    #: x-overflow = reject-publish is full.
    Full: ClassVar[type[PublishNacked]] = PublishNacked

    _log: ClassVar = Logger(namespace="txmsg.messaging.simple")

    #: What is used where the arguments say nothing.
    no_ack: bool = False
    queue_opts: Mapping[str, Any] = {}
    queue_args: Mapping[str, Any] = {}
    exchange_opts: Mapping[str, Any] = {"type": "direct"}

    def __init__(
        self,
        channel: Channel | Connection,
        name: str | Queue,
        no_ack: bool | None = None,
        queue_opts: Mapping[str, Any] | None = None,
        queue_args: Mapping[str, Any] | None = None,
        exchange_opts: Mapping[str, Any] | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        accept: Accept = None,
        *,
        prefetch_count: int | None = None,
    ) -> None:
        self.queue_opts = {**type(self).queue_opts, **(queue_opts or {})}
        self.queue_args = {**type(self).queue_args, **(queue_args or {})}
        self.exchange_opts = {**type(self).exchange_opts, **(exchange_opts or {})}
        if no_ack is not None:
            self.no_ack = no_ack
        if not isinstance(name, Queue):
            arguments = {**(self.queue_opts.get("queue_arguments") or {}), **self.queue_args}
            options = {**self.queue_opts, "queue_arguments": arguments or None}
            name = Queue(name, Exchange(name, **self.exchange_opts), name, **options)
        # Messages are settled here when they are given out: until then they are the broker's.
        self.consumer: Consumer = _Fetcher(
            channel,
            [name],
            no_ack=False,
            auto_declare=False,
            accept=accept,
            prefetch_count=prefetch_count,
            on_cancel=self._deleted,
        )
        (self.queue,) = self.consumer.queues
        if self.consumer.channel is None:
            raise NotBoundError("a simple queue needs a channel or a connection")
        #: The Channel it is on.
        self.channel: Channel = self.consumer.channel
        # A queue without one exchange is reached by its name.
        self._exchange = self.queue.exchange or Exchange("")
        self.producer = Producer(
            self.channel, self._exchange, serializer=serializer, auto_declare=False, compression=compression
        )
        self._accept = accept
        self._declared_on: MessagingChannel | None = None
        self._declaring: SharedAttempt[None] = SharedAttempt(lambda: Deferred.fromCoroutine(self._declare()))
        self._starting: SharedAttempt[None] = SharedAttempt(lambda: Deferred.fromCoroutine(self._start()))

    # -- getting

    def get(self, block: bool = True, timeout: float | None = None) -> Deferred[Message]:
        """Take the next message; fires with it as soon as there is one.  May be cancelled: then none is taken.

        block: bool -- False: as :meth:`get_nowait`.
        timeout: float | None -- seconds from now; :attr:`Empty` after that.  0 or less: as :meth:`get_nowait`.
        Errors: ConsumerCancelled when it is closed meanwhile, or the queue is deleted; as `Connection.connect` and
        `Queue.declare`.
        """
        if not block or (timeout is not None and timeout <= 0):
            return self.get_nowait()
        getting = Deferred.fromCoroutine(self._get())
        if timeout is not None:
            getting.addTimeout(timeout, self.channel.connection.reactor, self._timed_out)
        return getting

    def get_nowait(self) -> Deferred[Message]:
        """Take the next message, or fail with :attr:`Empty`.  It costs a round trip, unless one was sent ahead."""
        return Deferred.fromCoroutine(self._get_nowait())

    @property
    def _stream(self) -> MessageStream:
        assert isinstance(self.consumer, _Fetcher)
        return self.consumer.stream

    async def _get(self) -> Message:
        while True:
            if not self.consumer.is_consuming:
                # Who gives up takes nothing from the others, nor from who comes next: so the start is not given up.
                await in_any_case(self._starting.join())
            message = await self._stream.get()
            if self._give_out(message):
                return message

    async def _get_nowait(self) -> Message:
        if not self._is_declared:
            await self._declaring.join()
        while True:
            message = self._stream.pop()
            if message is None:
                await self._handed_over()
                message = self._stream.pop()
            if message is None:
                await self._fetch()
                await self._handed_over()
                message = self._stream.pop()
            if message is None:
                raise self.Empty(f"there is no message in {self.queue.name!r}")
            if self._give_out(message):
                return message

    def _fetch(self) -> Deferred[None]:
        """Take a message from the queue, to the end of those that were sent ahead, which are older."""
        fetched: Deferred[None] = Deferred()

        def arrived(message: Message | None) -> None:
            # Also where nobody waits any more: the next one who asks gets it.
            if message is not None:
                self._stream.put(message)
            if not fetched.called:
                fetched.callback(None)

        def failed(failure: Failure) -> None:
            if not fetched.called:
                fetched.errback(failure)

        self.queue.get(no_ack=False, accept=self._accept).addCallbacks(arrived, failed)
        return fetched

    async def _handed_over(self) -> None:
        """Wait for what was sent ahead of the reply that is here: a transport may hand it over some turns later."""
        for _ in range(_TURNS if self.consumer.is_consuming else 0):
            before = len(self._stream)
            await deferLater(self.channel.connection.reactor, 0)
            if len(self._stream) == before:
                return

    def _give_out(self, message: Message) -> bool:
        """Settle it where that is ours to do; whether it can be given out."""
        if self.no_ack:
            try:
                message.ack()
            except StaleDelivery:
                return False  # its channel was lost, and it comes again
            message.state = NO_ACK
        return True

    def _timed_out(self, outcome: Any, timeout: float) -> Message:
        if isinstance(outcome, Failure):
            raise self.Empty(f"no message came from {self.queue.name!r} within {timeout:g} seconds")
        message: Message = outcome
        return message

    # -- putting

    def put(
        self,
        message: Any,
        serializer: str | None = None,
        headers: Mapping[str, Any] | None = None,
        compression: str | None = None,
        routing_key: str | None = None,
        **kwargs: Any,
    ) -> Deferred[None]:
        """Put a value into the queue; fires when the broker has it.

        serializer, compression -- for this one.   headers -- its own.   routing_key -- another than the queue's.
        kwargs -- other arguments of :meth:`txmsg.messaging.Producer.publish`, whose errors it has, too.
        """
        if self._is_declared:
            return self._publish(message, serializer, headers, compression, routing_key, kwargs)
        return self._declaring.join().addCallback(
            lambda _: self._publish(message, serializer, headers, compression, routing_key, kwargs)
        )

    def _publish(
        self, message: Any, serializer: Any, headers: Any, compression: Any, routing_key: Any, kwargs: dict[str, Any]
    ) -> Deferred[None]:
        if routing_key is None:
            routing_key = self.queue.routing_key if self._exchange.name else self.queue.name
        return self.producer.publish(
            message,
            routing_key=routing_key,
            serializer=serializer,
            headers=headers,
            compression=compression,
            **kwargs,
        )

    # -- the queue

    def clear(self) -> Deferred[int]:
        """Drop all messages that nobody has got yet; fires with how many."""
        return Deferred.fromCoroutine(self._clear())

    async def _clear(self) -> int:
        if not self._is_declared:
            await self._declaring.join()
        dropped = await self.channel.queue_purge(self.queue.name)
        await self._handed_over()
        while (message := self._stream.pop()) is not None:
            with suppress(StaleDelivery):  # then it is in the queue again, behind the purge
                message.ack()
                dropped += 1
        return dropped

    def qsize(self) -> Deferred[int]:
        """How many messages nobody has got yet; fires with it.  Others may get some of them the next moment."""
        return Deferred.fromCoroutine(self._qsize())

    async def _qsize(self) -> int:
        if not self._is_declared:
            await self._declaring.join()
        declared = await self.channel.queue_declare(self.queue.name, passive=True)
        await self._handed_over()
        return declared.message_count + len(self._stream)

    def close(self) -> Deferred[None]:
        """Stop consuming; fires when what was sent ahead is back in the queue.  Closing twice is fine.

        The channel stays open.  Who waits in `get` is told (ConsumerCancelled).  A later call begins again.
        """
        return self.consumer.close().addBoth(self._declare_again)

    def _declare_again(self, outcome: Any = None) -> Any:
        """With its last consumer a queue may go, and with its last queue an exchange."""
        self._declared_on = None
        return outcome

    def _deleted(self, queue: Queue, reason: BaseException) -> None:
        """By somebody else: those who wait are told, and who comes next declares it again."""
        self._log.warn("{queue!r} was deleted: {reason}", queue=self, reason=reason)
        self._declare_again()

    async def __aenter__(self) -> Self:
        """Nothing is opened; leaving the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.queue.name!r} on {self.channel!r}>"

    # -- inside

    @property
    def _is_declared(self) -> bool:
        """Whether it was, on what the channel is now; what comes back by itself has declared it again."""
        present = self.channel.transport_channel
        return present is not None and present is self._declared_on

    async def _declare(self) -> None:
        await self.channel.when_usable()
        present = self.channel.transport_channel
        await maybe_declare(self.queue, self.channel)
        self._declared_on = present

    async def _start(self) -> None:
        if not self._is_declared:
            await self._declaring.join()
        await self.consumer.consume()


class SimpleBuffer(SimpleQueue):
    """A queue for what may be lost: not durable, gone when its last user is, with transient messages and `no_ack`.

    Arguments as :class:`SimpleQueue`.  The broker deletes the queue, and all in it, when the last one who used `get`
    has closed; one that nobody has used `get` on stays until the broker restarts.
    """

    no_ack: bool = True
    queue_opts: Mapping[str, Any] = {"durable": False, "auto_delete": True}
    exchange_opts: Mapping[str, Any] = {
        "type": "direct",
        "durable": False,
        "delivery_mode": "transient",
        "auto_delete": True,
    }
