"""Violations: what the client is told when it breaks the protocol, in RabbitMQ's words where it has any.

AMQP 0-9-1 section 4.10 and RabbitMQ 3.10, measured.  Where RabbitMQ prints Erlang terms, or drops the socket because
it has crashed itself, the text is ours, and the code the specification's.
"""

from __future__ import annotations

from typing import Final

from txmsg.broker.faults import Fault, fault
from txmsg.errors import clip
from txmsg.wire.constants import CHANNEL_ERROR, COMMAND_INVALID, NOT_ALLOWED, UNEXPECTED_FRAME
from txmsg.wire.content import Misplaced
from txmsg.wire.events import ProtocolFailure
from txmsg.wire.methods import METHODS, Method, basic, channel, connection, exchange, queue

__all__ = ["answer_to", "text_problem"]

_OPEN: Final = (channel.Open.CLASS_ID, channel.Open.METHOD_ID)


#: What is said where a part of a content is due.
_DUE: Final = {
    "content header": "expected content header for class 60, got non content header frame instead",
    "content body": "expected content body, got non content body frame instead",
}


def text_problem(method: Method) -> str | None:
    """What is wrong with a short string of it, which is 501; None if nothing is.

    No UTF-8, in all methods but basic.publish, whose keys are octets; the texts of closes are let pass: whoever closes
    has to be answered.  And a NUL in a name that is declared (AMQP 0-9-1 section 4.2.5.3), which RabbitMQ takes.
    """
    if isinstance(method, connection.Close | channel.Close):
        return None
    for argument in method.ARGUMENTS:
        if argument.kind == "shortstr":
            text = getattr(method, argument.name)
            if not text.isascii() and not _is_utf8(text):
                return "Malformed UTF-8 in shortstr"
    if (isinstance(method, queue.Declare) and "\0" in method.queue) or (
        isinstance(method, exchange.Declare) and "\0" in method.exchange
    ):
        return "a name may not contain NUL"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def answer_to(failure: ProtocolFailure, channel_max: int, state: str) -> tuple[Fault, type[Method] | None]:
    """What to send in connection.close, and the method to blame; `channel_max` as negotiated, `state` in a word."""
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
    elif isinstance(failure.error, Misplaced) and failure.error.expected in _DUE:
        cause, explanation = basic.Publish, _DUE[failure.error.expected]
    elif code == CHANNEL_ERROR or isinstance(failure.error, Misplaced):
        cause = None
        code, explanation = UNEXPECTED_FRAME, "expected method frame, got non method frame instead"
    elif code == COMMAND_INVALID and ids == _OPEN and failure.channel:
        code, explanation = CHANNEL_ERROR, "second 'channel.open' seen"
    elif code == COMMAND_INVALID and failure.channel:
        explanation = "unimplemented method"
    elif code == COMMAND_INVALID:
        code, explanation = CHANNEL_ERROR, f"unexpected method in connection state {state}"
    return fault(code, explanation, closes_connection=True), cause
