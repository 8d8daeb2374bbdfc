"""Class 60: publishing, consuming, and acknowledgements.

AMQP 0-9-1 section 1.8; nack and the server's cancel are RabbitMQ's (https://www.rabbitmq.com/nack.html,
https://www.rabbitmq.com/consumer-cancel.html).  `ticket` is reserved: 0.  Publish, return, deliver and get-ok
are followed by a content.
"""

from __future__ import annotations

from dataclasses import field

from txmsg.wire.constants import CLASS_BASIC
from txmsg.wire.layout import Bit, Long, LongLong, Method, Short, ShortStr, Table, method
from txmsg.wire.methods.senders import BOTH, CLIENT, SERVER

__all__ = [
    "Ack",
    "Cancel",
    "CancelOk",
    "Consume",
    "ConsumeOk",
    "Deliver",
    "Get",
    "GetEmpty",
    "GetOk",
    "Nack",
    "Publish",
    "Qos",
    "QosOk",
    "Recover",
    "RecoverAsync",
    "RecoverOk",
    "Reject",
    "Return",
]


@method(CLASS_BASIC, 10, sent_by=CLIENT)
class Qos(Method):
    """How many deliveries may be unacknowledged; 0 means any number.

    `prefetch_size` (bytes) is not implemented by RabbitMQ.  `global_`: for the channel, not for each consumer.
    """

    prefetch_size: Long = 0
    prefetch_count: Short = 0
    global_: Bit = False


@method(CLASS_BASIC, 11, sent_by=SERVER, replies_to=Qos)
class QosOk(Method):
    """The limit holds."""


@method(CLASS_BASIC, 20, sent_by=CLIENT)
class Consume(Method):
    """Start a consumer; an empty `consumer_tag` lets the server choose one."""

    ticket: Short = 0
    queue: ShortStr = ""
    consumer_tag: ShortStr = ""
    no_local: Bit = False
    no_ack: Bit = False
    exclusive: Bit = False
    nowait: Bit = False
    arguments: Table = field(default_factory=dict)


@method(CLASS_BASIC, 21, sent_by=SERVER, replies_to=Consume)
class ConsumeOk(Method):
    """The consumer is there, under this tag."""

    consumer_tag: ShortStr = ""


@method(CLASS_BASIC, 30, sent_by=BOTH)
class Cancel(Method):
    """End a consumer; from the server: it has ended, because its queue is gone."""

    consumer_tag: ShortStr = ""
    nowait: Bit = False


@method(CLASS_BASIC, 31, sent_by=BOTH, replies_to=Cancel)
class CancelOk(Method):
    """The consumer has ended: no delivery for it follows."""

    consumer_tag: ShortStr = ""


@method(CLASS_BASIC, 40, sent_by=CLIENT, has_content=True)
class Publish(Method):
    """A message for an exchange.  RabbitMQ answers 540 to `immediate`."""

    ticket: Short = 0
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    mandatory: Bit = False
    immediate: Bit = False


@method(CLASS_BASIC, 50, sent_by=SERVER, has_content=True)
class Return(Method):
    """A mandatory message that could not be routed, given back."""

    reply_code: Short = 0
    reply_text: ShortStr = ""
    exchange: ShortStr = ""
    routing_key: ShortStr = ""


@method(CLASS_BASIC, 60, sent_by=SERVER, has_content=True)
class Deliver(Method):
    """A message for a consumer."""

    consumer_tag: ShortStr = ""
    delivery_tag: LongLong = 0
    redelivered: Bit = False
    exchange: ShortStr = ""
    routing_key: ShortStr = ""


@method(CLASS_BASIC, 70, sent_by=CLIENT)
class Get(Method):
    """Ask for one message."""

    ticket: Short = 0
    queue: ShortStr = ""
    no_ack: Bit = False


@method(CLASS_BASIC, 71, sent_by=SERVER, has_content=True, replies_to=Get)
class GetOk(Method):
    """A message; `message_count` are left in the queue."""

    delivery_tag: LongLong = 0
    redelivered: Bit = False
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    message_count: Long = 0


@method(CLASS_BASIC, 72, sent_by=SERVER, replies_to=Get)
class GetEmpty(Method):
    """The queue is empty.  `cluster_id` is reserved."""

    cluster_id: ShortStr = ""


@method(CLASS_BASIC, 80, sent_by=BOTH)
class Ack(Method):
    """Take responsibility for a delivery, or, from the server, for a publish; `multiple`: and all before it.

    Tag 0 with `multiple` means all.
    """

    delivery_tag: LongLong = 0
    multiple: Bit = False


@method(CLASS_BASIC, 90, sent_by=CLIENT)
class Reject(Method):
    """Give a delivery back (`requeue`), or have it dropped or dead-lettered."""

    delivery_tag: LongLong = 0
    requeue: Bit = True


@method(CLASS_BASIC, 100, sent_by=CLIENT)
class RecoverAsync(Method):
    """Recover without a reply; deprecated by the specification."""

    requeue: Bit = False


@method(CLASS_BASIC, 110, sent_by=CLIENT)
class Recover(Method):
    """Have all unacknowledged deliveries of the channel delivered again.  RabbitMQ answers 540 without `requeue`."""

    requeue: Bit = False


@method(CLASS_BASIC, 111, sent_by=SERVER, replies_to=Recover)
class RecoverOk(Method):
    """The deliveries are in their queues again."""


@method(CLASS_BASIC, 120, sent_by=BOTH)
class Nack(Method):
    """Reject, for several at once (`multiple`); from the server: a publish it could not take responsibility for."""

    delivery_tag: LongLong = 0
    multiple: Bit = False
    requeue: Bit = True
