"""Class 40: exchanges, and bindings between them.

AMQP 0-9-1 section 1.6; bind, unbind and the `internal` and `auto_delete` arguments are RabbitMQ's
(https://www.rabbitmq.com/e2e.html).  `ticket` is reserved in all of them: 0.
"""

from __future__ import annotations

from dataclasses import field

from txmsg.wire.constants import CLASS_EXCHANGE
from txmsg.wire.layout import Bit, Method, Short, ShortStr, Table, method
from txmsg.wire.methods.senders import CLIENT, SERVER

__all__ = ["Bind", "BindOk", "Declare", "DeclareOk", "Delete", "DeleteOk", "Unbind", "UnbindOk"]


@method(CLASS_EXCHANGE, 10, sent_by=CLIENT)
class Declare(Method):
    """Make an exchange, or check that it is there (`passive`)."""

    ticket: Short = 0
    exchange: ShortStr = ""
    type: ShortStr = "direct"
    passive: Bit = False
    durable: Bit = False
    auto_delete: Bit = False
    internal: Bit = False
    nowait: Bit = False
    arguments: Table = field(default_factory=dict)


@method(CLASS_EXCHANGE, 11, sent_by=SERVER, replies_to=Declare)
class DeclareOk(Method):
    """The exchange is there."""


@method(CLASS_EXCHANGE, 20, sent_by=CLIENT)
class Delete(Method):
    """Delete an exchange and its bindings."""

    ticket: Short = 0
    exchange: ShortStr = ""
    if_unused: Bit = False
    nowait: Bit = False


@method(CLASS_EXCHANGE, 21, sent_by=SERVER, replies_to=Delete)
class DeleteOk(Method):
    """The exchange is not there any more."""


@method(CLASS_EXCHANGE, 30, sent_by=CLIENT)
class Bind(Method):
    """Have `source` route to `destination` too."""

    ticket: Short = 0
    destination: ShortStr = ""
    source: ShortStr = ""
    routing_key: ShortStr = ""
    nowait: Bit = False
    arguments: Table = field(default_factory=dict)


@method(CLASS_EXCHANGE, 31, sent_by=SERVER, replies_to=Bind)
class BindOk(Method):
    """The binding is there."""


@method(CLASS_EXCHANGE, 40, sent_by=CLIENT)
class Unbind(Method):
    """Remove the binding with exactly these arguments."""

    ticket: Short = 0
    destination: ShortStr = ""
    source: ShortStr = ""
    routing_key: ShortStr = ""
    nowait: Bit = False
    arguments: Table = field(default_factory=dict)


@method(CLASS_EXCHANGE, 51, sent_by=SERVER, replies_to=Unbind)
class UnbindOk(Method):
    """The binding is not there any more.  The id is 51, not 41: so it was assigned by RabbitMQ."""
