"""What a consumer is handed, and what a publisher gets back.

basic.deliver, basic.get-ok and basic.return (AMQP 0-9-1 section 1.8) as values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from txmsg.errors import clip
from txmsg.wire.properties import BasicProperties, UndecodableProperties

if TYPE_CHECKING:
    from txmsg.amqp.channel import Channel

__all__ = ["Delivery", "ReturnedMessage"]


class Delivery:
    """One message from the broker, and the means to settle it.

    body: bytes -- the content, whole.
    properties: BasicProperties -- or UndecodableProperties where the sender's property list cannot be
        decoded; the body is still there, and the delivery can still be settled.
    exchange, routing_key: str -- with which it was published.
    consumer_tag: str -- of the consumer it was sent to; "" from basic_get.
    delivery_tag: int -- its number on the channel, counting from 1.
    redelivered: bool -- False: nobody has seen it before; True: somebody may have.
    message_count: int | None -- messages left in the queue, from basic_get only.
    no_ack: bool -- True: the broker regards it as settled already.
    channel: Channel -- the one it came in on, and the only one it can be settled on.

    The sender's strings are claims, not facts, but for `redelivered` and, on RabbitMQ, `user_id`.
    """

    __slots__ = (
        "body",
        "channel",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "message_count",
        "no_ack",
        "properties",
        "redelivered",
        "routing_key",
    )

    def __init__(
        self,
        channel: Channel,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        properties: BasicProperties | UndecodableProperties,
        body: bytes,
        no_ack: bool = False,
        message_count: int | None = None,
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.no_ack = no_ack
        self.message_count = message_count

    def ack(self, multiple: bool = False) -> None:
        """Tell the broker that this message is done with; `multiple` also settles all earlier ones.

        Returns None: there is no reply to wait for.

        Raises StaleDelivery if the channel is closed (the broker delivers the message again),
        AlreadySettled if it was settled before or came with no_ack, WrongThread.
        Source: https://www.rabbitmq.com/docs/confirms
        """
        self.channel.basic_ack(self.delivery_tag, multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """Give the message back: to the queue, or (requeue False) to the dead-letter exchange or nowhere.

        Errors as for :meth:`ack`.  Source: https://www.rabbitmq.com/docs/nack
        """
        self.channel.basic_nack(self.delivery_tag, multiple, requeue)

    def reject(self, requeue: bool = False) -> None:
        """Refuse this one message; without `requeue` it is dead-lettered or dropped.

        Errors as for :meth:`ack`.
        """
        self.channel.basic_reject(self.delivery_tag, requeue)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to settle: settled, delivered with no_ack, or the channel is gone."""
        return self.no_ack or not self.channel.is_open_delivery(self.delivery_tag)

    def __repr__(self) -> str:
        return (
            f"<Delivery {self.delivery_tag} exchange={clip(self.exchange, 60)!r} "
            f"routing_key={clip(self.routing_key, 60)!r} {len(self.body)} bytes"
            f"{' redelivered' if self.redelivered else ''}{' settled' if self.is_settled else ''}>"
        )


@dataclass(frozen=True, slots=True, repr=False)
class ReturnedMessage:
    """A mandatory message that the broker could not route and sent back (basic.return).

    reply_code: int -- 312 NO_ROUTE or 313 NO_CONSUMERS.
    reply_text: str -- the broker's words.
    exchange, routing_key: str -- with which it was published.
    properties: BasicProperties | UndecodableProperties, body: bytes -- as published.
    """

    reply_code: int
    reply_text: str
    exchange: str
    routing_key: str
    properties: BasicProperties | UndecodableProperties
    body: bytes

    def __repr__(self) -> str:
        return (
            f"<ReturnedMessage {self.reply_code} {clip(self.reply_text, 60)!r} exchange={clip(self.exchange, 60)!r} "
            f"routing_key={clip(self.routing_key, 60)!r} {len(self.body)} bytes>"
        )
