"""Class 50: queues and their bindings.  AMQP 0-9-1 section 1.7.  `ticket` is reserved in all of them: 0.

An empty `queue` name means a new name in declare, and the channel's last declared queue elsewhere.
"""

from __future__ import annotations

from dataclasses import field

from txmsg.wire.constants import CLASS_QUEUE
from txmsg.wire.layout import Bit, Long, Method, Short, ShortStr, Table, method
from txmsg.wire.methods.senders import CLIENT, SERVER

__all__ = [
    "Bind",
    "BindOk",
    "Declare",
    "DeclareOk",
    "Delete",
    "DeleteOk",
    "Purge",
    "PurgeOk",
    "Unbind",
    "UnbindOk",
]


@method(CLASS_QUEUE, 10, sent_by=CLIENT)
class Declare(Method):
    """Make a queue, or check that it is there (`passive`)."""

    ticket: Short = 0
    queue: ShortStr = ""
    passive: Bit = False
    durable: Bit = False
    exclusive: Bit = False
    auto_delete: Bit = False
    nowait: Bit = False
    arguments: Table = field(default_factory=dict)


@method(CLASS_QUEUE, 11, sent_by=SERVER, replies_to=Declare)
class DeclareOk(Method):
    """The queue's name, the messages ready in it, and its consumers."""

    queue: ShortStr = ""
    message_count: Long = 0
    consumer_count: Long = 0


@method(CLASS_QUEUE, 20, sent_by=CLIENT)
class Bind(Method):
    """Have `exchange` route to the queue."""

    ticket: Short = 0
    queue: ShortStr = ""
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    nowait: Bit = False
    arguments: Table = field(default_factory=dict)


@method(CLASS_QUEUE, 21, sent_by=SERVER, replies_to=Bind)
class BindOk(Method):
    """The binding is there."""


@method(CLASS_QUEUE, 30, sent_by=CLIENT)
class Purge(Method):
    """Drop all messages that wait in the queue; those delivered and not yet acknowledged stay."""

    ticket: Short = 0
    queue: ShortStr = ""
    nowait: Bit = False


@method(CLASS_QUEUE, 31, sent_by=SERVER, replies_to=Purge)
class PurgeOk(Method):
    """How many messages were dropped."""

    message_count: Long = 0


@method(CLASS_QUEUE, 40, sent_by=CLIENT)
class Delete(Method):
    """Delete a queue, its messages and bindings, and cancel its consumers."""

    ticket: Short = 0
    queue: ShortStr = ""
    if_unused: Bit = False
    if_empty: Bit = False
    nowait: Bit = False


@method(CLASS_QUEUE, 41, sent_by=SERVER, replies_to=Delete)
class DeleteOk(Method):
    """How many messages were deleted with the queue."""

    message_count: Long = 0


@method(CLASS_QUEUE, 50, sent_by=CLIENT)
class Unbind(Method):
    """Remove the binding with exactly these arguments.  It has no `nowait`."""

    ticket: Short = 0
    queue: ShortStr = ""
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    arguments: Table = field(default_factory=dict)


@method(CLASS_QUEUE, 51, sent_by=SERVER, replies_to=Unbind)
class UnbindOk(Method):
    """The binding is not there any more."""
