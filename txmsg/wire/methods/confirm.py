"""Class 85: publisher confirms, RabbitMQ's extension (https://www.rabbitmq.com/confirms.html)."""

from __future__ import annotations

from txmsg.wire.constants import CLASS_CONFIRM
from txmsg.wire.layout import Bit, Method, method
from txmsg.wire.methods.senders import CLIENT, SERVER

__all__ = ["Select", "SelectOk"]


@method(CLASS_CONFIRM, 10, sent_by=CLIENT)
class Select(Method):
    """Have every publish on the channel answered with basic.ack or basic.nack, counted from 1."""

    nowait: Bit = False


@method(CLASS_CONFIRM, 11, sent_by=SERVER, replies_to=Select)
class SelectOk(Method):
    """The channel is in confirm mode."""
