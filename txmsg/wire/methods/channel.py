"""Class 20: opening and closing channels, and flow control.  AMQP 0-9-1 section 1.5."""

from __future__ import annotations

from txmsg.wire.constants import CLASS_CHANNEL
from txmsg.wire.layout import Bit, LongText, Method, Short, ShortStr, method
from txmsg.wire.methods.senders import BOTH, CLIENT, SERVER

__all__ = ["Close", "CloseOk", "Flow", "FlowOk", "Open", "OpenOk"]


@method(CLASS_CHANNEL, 10, sent_by=CLIENT)
class Open(Method):
    """Open the channel whose number the frame has.  `out_of_band` is reserved."""

    out_of_band: ShortStr = ""


@method(CLASS_CHANNEL, 11, sent_by=SERVER, replies_to=Open)
class OpenOk(Method):
    """The channel is open.  `channel_id` is reserved."""

    channel_id: LongText = ""


@method(CLASS_CHANNEL, 20, sent_by=BOTH)
class Flow(Method):
    """Ask the peer to stop (`active` False) or to go on (True) sending contents.

    RabbitMQ answers 540 to `active=False`; as a server it no longer sends this method.
    """

    active: Bit = False


@method(CLASS_CHANNEL, 21, sent_by=BOTH, replies_to=Flow)
class FlowOk(Method):
    """The flow is as asked."""

    active: Bit = False


@method(CLASS_CHANNEL, 40, sent_by=BOTH)
class Close(Method):
    """End the channel.  `class_id` and `method_id` name the method that is the cause, 0 when none is."""

    reply_code: Short = 0
    reply_text: ShortStr = ""
    class_id: Short = 0
    method_id: Short = 0


@method(CLASS_CHANNEL, 41, sent_by=BOTH, replies_to=Close)
class CloseOk(Method):
    """The last method on a channel; its number may be used again."""
