"""What a consumer of ``memory://`` is handed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.errors import clip

if TYPE_CHECKING:
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue
    from txmsg.transports.memory.channel import MemoryChannel
    from txmsg.transports.memory.consumer import MemoryConsumer

__all__ = ["MemoryDelivery"]


class MemoryDelivery:
    """One message, and the means to settle it; a :class:`~txmsg.abc.MessagingDelivery`.

    body: bytes.
    delivery_tag: int -- its number on the channel, counting from 1.
    redelivered: bool -- False: nobody has seen it before; True: somebody may have.
    no_ack: bool -- True: it was settled when it was handed over.
    message_count: int | None -- messages left in the queue, from `get` only.
    """

    __slots__ = (
        "_properties",
        "body",
        "channel",
        "consumer",
        "delivery_tag",
        "entry",
        "message_count",
        "no_ack",
        "queue",
        "redelivered",
    )

    #: They came as values, so they can be read.
    properties_error: BaseException | None = None

    def __init__(
        self,
        channel: MemoryChannel,
        consumer: MemoryConsumer | None,
        queue: Queue | None,
        entry: Entry,
        delivery_tag: int,
        no_ack: bool,
    ) -> None:
        self.channel = channel
        self.consumer = consumer
        # Direct replies are in no queue, and never have to be settled.
        self.queue: Queue = queue  # type: ignore[assignment]
        self.entry = entry
        self.delivery_tag = delivery_tag
        self.no_ack = no_ack
        self.body = entry.message.body
        # Read now: it is about this delivery, and the entry may come back.
        self.redelivered = entry.delivery_count > 0
        self.message_count: int | None = None
        self._properties: dict[str, Any] | None = None

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that are present, by name; a dict of this delivery's own."""
        if self._properties is None:
            self._properties = self.entry.message.decoded_properties.as_dict()
        return self._properties

    @property
    def exchange(self) -> str:
        """Where it was published to; "" is the default exchange."""
        return self.entry.message.exchange

    @property
    def routing_key(self) -> str:
        """With which key it was published."""
        return self.entry.message.routing_key

    @property
    def consumer_tag(self) -> str:
        """Of the consumer it was given to; "" from `get`."""
        return "" if self.consumer is None else self.consumer.tag

    def ack(self, multiple: bool = False) -> None:
        """It is done with; `multiple`: and so are all earlier ones of the channel.

        StaleDelivery when the channel is closed, AlreadySettled.
        """
        self.channel.ack(self.delivery_tag, multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """Give it back: to the queue, or (requeue False) to the dead-letter exchange or nowhere.  Raises as `ack`."""
        self.channel.nack(self.delivery_tag, multiple, requeue)

    def reject(self, requeue: bool = False) -> None:
        """Give this one back.  Raises as `ack`."""
        self.channel.nack(self.delivery_tag, False, requeue)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to settle: settled, handed over with no_ack, or the channel is gone."""
        return self.channel.unsettled.get(self.delivery_tag) is not self

    def __repr__(self) -> str:
        return (
            f"<MemoryDelivery {self.delivery_tag} exchange={clip(self.exchange, 60)!r} "
            f"routing_key={clip(self.routing_key, 60)!r} {len(self.body)} bytes"
            f"{' redelivered' if self.redelivered else ''}{' settled' if self.is_settled else ''}>"
        )
