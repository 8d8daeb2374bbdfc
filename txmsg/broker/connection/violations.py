"""Violations: what the client is told when it breaks the protocol, in RabbitMQ's words where it has any.

AMQP 0-9-1 section 4.10 and RabbitMQ 3.10, measured.  Where RabbitMQ prints Erlang terms, or drops the socket because
it has crashed itself, the text is ours, and the code the specification's.
"""

from __future__ import annotations

from typing import Final

from txmsg.broker.faults import Fault, fault
from txmsg.errors import clip
from txmsg.wire.constants import CHANNEL_ERROR, COMMAND_INVALID, NOT_ALLOWED, UNEXPECTED_FRAME
from txmsg.wire.events import ProtocolFailure
from txmsg.wire.methods import METHODS, Method, channel

__all__ = ["answer_to"]

_OPEN: Final = (channel.Open.CLASS_ID, channel.Open.METHOD_ID)


def answer_to(failure: ProtocolFailure, channel_max: int) -> tuple[Fault, type[Method] | None]:
    """What to send in connection.close, and the method to blame; `channel_max` as negotiated."""
    code = failure.error.reply_code
    ids = (failure.class_id, failure.method_id)
    cause = METHODS.get(ids)
    explanation = clip(str(failure.error))
    if code == CHANNEL_ERROR and failure.channel > channel_max:
        code, cause = NOT_ALLOWED, None
        explanation = (
            f"number of channels opened ({channel_max}) has reached the negotiated channel_max ({channel_max})"
        )
    elif code == CHANNEL_ERROR and failure.class_id:
        explanation = "expected 'channel.open'"
    elif code == CHANNEL_ERROR:
        code, explanation = UNEXPECTED_FRAME, "expected method frame, got non method frame instead"
    elif code == COMMAND_INVALID and ids == _OPEN:
        code, explanation = CHANNEL_ERROR, "second 'channel.open' seen"
    elif code == COMMAND_INVALID and failure.channel:
        explanation = "unimplemented method"
    elif code == COMMAND_INVALID:
        code, explanation = CHANNEL_ERROR, "unexpected method in connection state running"
    return fault(code, explanation, closes_connection=True), cause
