"""Intake: the messages of one queue, and how many of them may be here unsettled.

A task that waits for its eta stays unsettled, so the broker is to send one more in its place.  A
consumer's prefetch count cannot be changed while it consumes (https://www.rabbitmq.com/docs/consumer-prefetch), so
there are more consumers of the same queue, each with a window as large as those before it together: 1, 1, 2, 4 ...

Invariant: the windows add up to `prefetch_count` and at least as many as are held, up to MAX_HELD.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import TxmsgError, clip
from txmsg.messaging import Channel, Connection, Consumer, Message, Queue

__all__ = ["Intake"]

#: Tasks of one queue that wait for their eta here, beyond the prefetch count, at most: others stay in the queue.
MAX_HELD: Final = 10_000
#: What basic.qos carries.
_WIDEST: Final = 65535

_log = Logger(namespace="txmsg.rpc.celery.worker")


class Intake:
    """Consumes one queue.

    connection: Connection.   queue: Queue -- declared, with its exchange, by the first consumer.
    prefetch_count: int -- unsettled messages that do not wait for their eta, at most; 0: any number.
    on_message(message, intake).   on_ended(reason, intake) -- the consuming is over, though nobody stopped it.
    """

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        prefetch_count: int,
        on_message: Callable[[Message, Intake], object],
        on_ended: Callable[[BaseException, Intake], object],
    ) -> None:
        self.connection = connection
        self.queue = queue
        self.prefetch_count = prefetch_count
        #: Tasks that wait for their eta.
        self.held = 0
        self._on_message = on_message
        self._on_ended = on_ended
        self._channel: Channel | None = None
        self._consumer: Consumer | None = None
        self._more: list[Consumer] = []
        self._adjusting: Deferred[None] | None = None
        self._is_stopped = False

    @property
    def is_consuming(self) -> bool:
        """Whether messages may come."""
        return self._consumer is not None

    @property
    def window(self) -> int:
        """Unsettled messages at most; 0: any number."""
        return self.prefetch_count + self._added if self.prefetch_count else 0

    @property
    def _added(self) -> int:
        return sum(consumer.prefetch_count or 0 for consumer in self._more)

    def start(self) -> Deferred[None]:
        """Declare and consume."""
        self._is_stopped = False
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        self._channel = Channel(self.connection)
        consumer = self._make(self.prefetch_count)
        await consumer.consume()
        if self._is_stopped:  # meanwhile
            await consumer.cancel()
            return
        self._consumer = consumer
        consumer.when_ended().addCallback(self._ended, consumer)
        self._adjust()

    def _make(self, prefetch_count: int) -> Consumer:
        return Consumer(
            self._channel,
            [self.queue],
            on_message=self._received,
            on_decode_error=lambda message, error: self._received(message),
            prefetch_count=prefetch_count,
            no_ack=False,
        )

    def _received(self, message: Message) -> None:
        self._on_message(message, self)

    def _ended(self, reason: BaseException, consumer: Consumer) -> None:
        if consumer is not self._consumer:
            return
        self._consumer = None
        self._more.clear()
        if not self._is_stopped:
            self._on_ended(reason, self)

    # -- the window ------------------------------------------------------------------------------------

    def hold(self) -> None:
        """One more message waits for its eta."""
        self.held += 1
        self._adjust()

    def release(self) -> None:
        """One waits no more."""
        self.held -= 1
        self._adjust()

    def _wanted(self) -> int:
        """+1: a wider window; -1: a smaller one."""
        added, held = self._added, min(self.held, MAX_HELD)
        if not self.prefetch_count or self._consumer is None or self._is_stopped:
            return 0
        if held > added:
            return 1
        if self._more and held * 2 <= added - (self._more[-1].prefetch_count or 0):
            return -1
        return 0

    def _adjust(self) -> None:
        if self._adjusting is None and self._wanted():
            adjusting = self._adjusting = Deferred.fromCoroutine(self._change())
            adjusting.addBoth(self._adjusted)

    async def _change(self) -> None:
        while wanted := self._wanted():
            if wanted < 0:
                await self._more.pop().cancel()
                continue
            consumer = self._make(min(max(1, self._added), _WIDEST))
            consumer.auto_declare = False
            await consumer.consume()
            if self._is_stopped or self._consumer is None:
                await consumer.cancel()
            else:
                self._more.append(consumer)

    def _adjusted(self, outcome: object) -> None:
        self._adjusting = None
        if isinstance(outcome, Failure):
            # The next task that is held, or none any more, tries again.
            _log.warn(
                "the window of {queue!r} stays at {window}: {error}",
                queue=clip(self.queue.name),
                window=self.window,
                error=str(outcome.value),
            )

    # -- stopping --------------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """No more messages; those that are here can be settled until :meth:`close`."""
        self._is_stopped = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        consumers, self._more = self._more, []
        if self._consumer is not None:
            consumers.append(self._consumer)
            self._consumer = None
        for consumer in consumers:
            try:
                await consumer.cancel()
            except TxmsgError as error:
                _log.debug("a consumer was not cancelled: {error}", error=str(error))

    def close(self) -> Deferred[None]:
        """End the channel: what is not settled goes back."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._stop()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
