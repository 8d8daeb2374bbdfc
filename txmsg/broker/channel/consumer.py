"""QueueConsumer: a queue's view of one consumer of a channel; from an entry to octets.

AMQP 0-9-1 section 1.8.3.3 (consume) and 1.8.3.13 (deliver).  Hot: what is here runs for every delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmsg.broker.faults import unsendable
from txmsg.broker.vhost.footprint import CONSUMER, cost_of
from txmsg.errors import EncodeError, LocalProtocolError
from txmsg.wire.methods import basic

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue

__all__ = ["QueueConsumer"]


class QueueConsumer:
    """A :class:`~txmsg.broker.interfaces.Consumer`.

    channel: ServerChannel.  queue: Queue.
    tag: str; no_ack, exclusive: bool; priority: int -- of basic.consume.
    prefetch_count: int -- unsettled deliveries it may have; 0 for any number.  Means nothing with `no_ack`.
    """

    __slots__ = (
        "__weakref__",
        "_channel",
        "_connection",
        "_credit",
        "_number",
        "_settling",
        "_unacked",
        "_wire",
        "arguments",
        "cost",
        "exclusive",
        "is_available",
        "no_ack",
        "prefetch_count",
        "priority",
        "queue",
        "tag",
        "unacked_count",
    )

    def __init__(
        self,
        channel: ServerChannel,
        queue: Queue,
        tag: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        prefetch_count: int = 0,
        arguments: dict[str, object] | None = None,
    ) -> None:
        self._channel = channel
        self._connection = channel.connection
        self._credit = channel.credit
        self._number = channel.number
        self._settling = channel.settling
        self._unacked = channel.settling.unacked
        self._wire = channel.wire
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.prefetch_count = 0 if no_ack else prefetch_count
        self.arguments = arguments or {}
        #: Octets that it takes, about.
        self.cost = CONSUMER + cost_of(tag, self.arguments)
        self.unacked_count = 0
        #: False until consume-ok is written, so that nothing comes before it.
        self.is_available = False

    def __repr__(self) -> str:
        return f"<QueueConsumer {self.tag!r} of {self.queue.name!r}, {self.unacked_count} unacked>"

    @property
    def channel(self) -> ServerChannel:
        """Whose it is."""
        return self._channel

    def deliver(self, queue: Queue, entry: Entry) -> None:
        """Write the delivery.  It never raises: what cannot be sent stays unsettled until the channel is over."""
        settling = self._settling
        tag = settling.last_tag = settling.last_tag + 1
        if not self.no_ack:
            self._unacked[tag] = (self, queue, entry)
            count = self.unacked_count = self.unacked_count + 1
            if count == self.prefetch_count:
                self.is_available = False
            self._credit.delivered()
        message = entry.message
        connection = self._connection
        try:
            connection.write_all(
                self._wire.encode_deliver(
                    self._number,
                    self.tag,
                    tag,
                    entry.delivery_count > 0,
                    message.exchange,
                    message.routing_key,
                    message.encoded_properties,
                    message.body,
                )
            )
        except LocalProtocolError:
            # The client has closed the channel; the event is still to come.
            self._credit.close()
        except EncodeError as error:
            # Headers that do not fit a frame of this client, for one: it is told rather than left waiting.
            self._credit.close()
            self._channel.refuse_soon(unsendable(f"delivery {tag} of queue '{queue.name}'", str(error)), basic.Deliver)
        if not connection.can_publish:
            self._credit.update()

    def cancelled(self, queue: Queue) -> None:
        """The queue is gone."""
        self.is_available = False
        self._channel.consuming.cancelled_by_queue(self)

    def update(self) -> bool:
        """A gate has moved: decide anew whether more may come; true if so now and not before, and the queue was told.

        By then what the queue had may have come, and closed a gate again.
        """
        credit = self._credit
        was_available = self.is_available
        self.is_available = credit.is_open and (
            self.no_ack or not (credit.is_full or 0 < self.prefetch_count <= self.unacked_count)
        )
        if was_available or not self.is_available:
            return False
        self.queue.consumer_available(self)
        return True

    def settled(self, count: int) -> None:
        """`count` of its deliveries are settled; the channel's credit has been told."""
        self.unacked_count -= count
        if not self.is_available:
            self.update()
