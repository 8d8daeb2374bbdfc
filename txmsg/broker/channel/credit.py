"""Credit: how much more may be delivered on a channel.

https://www.rabbitmq.com/docs/consumer-prefetch.  Three gates stand before every consumer of a channel: the prefetch
count that basic.qos set with `global`, the limit on unsettled deliveries that holds without any prefetch count, and
the socket's buffer, which a client that does not read fills.  A fourth is the consumer's own prefetch count.

Invariant: a consumer's `is_available` is true exactly while all its gates are open, and the queue is told when it
becomes so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txmsg.broker.channel.consumer import QueueConsumer
    from txmsg.broker.connection.connection import BrokerConnection

__all__ = ["Credit"]


class Credit:
    """The gates that the consumers of one channel share.

    limit: int -- unsettled deliveries to consumers beyond which there are no more, whatever prefetch counts say.
    """

    __slots__ = (
        "_closed",
        "_connection",
        "_consumers",
        "_has_prefetch_count",
        "_limit",
        "is_full",
        "is_open",
        "maximum",
        "outstanding",
    )

    def __init__(self, connection: BrokerConnection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._consumers: dict[QueueConsumer, None] = {}
        self._closed = False
        #: Unsettled deliveries that may be: the limit, or the count of basic.qos with `global` if that is less.
        self.maximum = limit
        self._has_prefetch_count = False
        #: Deliveries to consumers that are not settled.
        self.outstanding = 0
        #: Whether those are as many as may be: then consumers with `no_ack` go on.
        self.is_full = False
        #: Whether the socket takes more.
        self.is_open = True

    def add(self, consumer: QueueConsumer) -> None:
        """A new consumer; it may be given messages from now on."""
        self._consumers[consumer] = None
        if not self._connection.can_publish:
            self.is_open = False
        consumer.update()

    def remove(self, consumer: QueueConsumer) -> None:
        """It takes no more; what it has not settled still counts."""
        self._consumers.pop(consumer, None)

    def set_prefetch_count(self, count: int) -> None:
        """basic.qos with `global`: holds for all consumers of the channel at once; 0 for no such limit."""
        self._has_prefetch_count = count > 0
        self.maximum = min(count, self._limit) if count else self._limit
        self.is_full = self.outstanding >= self.maximum
        self._tell()

    @property
    def has_prefetch_count(self) -> bool:
        """Whether basic.qos with `global` has set a count."""
        return self._has_prefetch_count

    def delivered(self) -> None:
        """One more is unsettled."""
        self.outstanding += 1
        if self.outstanding >= self.maximum:
            self.is_full = True
            self._tell()

    def settled(self, count: int) -> None:
        """`count` are settled."""
        self.outstanding -= count
        if self.is_full and self.outstanding < self.maximum:
            self.is_full = False
            self._tell()

    def update(self) -> None:
        """Look again whether the socket takes more."""
        is_open = self._connection.can_publish and not self._closed
        if is_open is not self.is_open:
            self.is_open = is_open
            self._tell()

    def close(self) -> None:
        """Nothing is delivered any more."""
        self._closed = True
        self.is_open = False
        for consumer in self._consumers:
            consumer.is_available = False
        self._consumers.clear()

    def _tell(self) -> None:
        """A gate has opened or closed.

        One that is open may close again on what the first consumers are given.  Those come last the next time, so
        none is always the last.
        """
        for consumer in list(self._consumers):
            if consumer.update() and consumer in self._consumers:
                del self._consumers[consumer]
                self._consumers[consumer] = None
