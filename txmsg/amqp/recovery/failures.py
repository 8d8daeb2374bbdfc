"""classify(): what an error says about trying again.

RabbitMQ's reply codes: https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants.  A refusal of what we are (login,
virtual host, certificate) will not have changed in a second, but may in a minute: somebody creates the user, renews the
certificate.  So it is tried again, slowly (R12).
"""

from __future__ import annotations

from enum import Enum

from txmsg.errors import (
    AccessRefused,
    AuthenticationFailed,
    ChannelErrorClosed,
    CommandInvalid,
    ConfigurationError,
    FrameError,
    IncompatibleProtocol,
    InvalidPath,
    LocalProtocolError,
    NotAllowed,
    NotImplementedByPeer,
    RemoteProtocolError,
    ResourceError,
    SyntaxErrorClosed,
    TLSFailed,
    UnexpectedFrame,
    VirtualHostRefused,
)

__all__ = ["Verdict", "classify", "is_our_defect"]

#: The broker found fault with what we sent: a defect of ours, which will come again.
_OUR_DEFECTS = (
    ChannelErrorClosed,
    CommandInvalid,
    FrameError,
    LocalProtocolError,
    NotImplementedByPeer,
    SyntaxErrorClosed,
    UnexpectedFrame,
)

_SLOW = (
    *_OUR_DEFECTS,
    AccessRefused,
    AuthenticationFailed,
    IncompatibleProtocol,
    InvalidPath,
    NotAllowed,
    RemoteProtocolError,
    ResourceError,
    TLSFailed,
    VirtualHostRefused,
)


#: What a socket that closes at a certain moment is taken for.
_SILENT = (AuthenticationFailed, IncompatibleProtocol, VirtualHostRefused)


class Verdict(Enum):
    """FATAL: give up, if no connection was ever ready; afterwards as SLOW: what did work is being replaced, perhaps.

    SLOW: leave this host alone for a while.  FAST: the ordinary back-off.

    UNSURE: a refusal, or the broker's death at that moment: FAST once, SLOW if the same host does it again.
    """

    FATAL = "fatal"
    SLOW = "slow"
    FAST = "fast"
    UNSURE = "unsure"


def classify(error: BaseException) -> Verdict:
    """Return the verdict on an error of an attempt, of recovery, or of the end of a connection.

    FATAL: ConfigurationError; no other attempt can go better.  SLOW: a refused login, mechanism, virtual host or
    certificate, a peer that speaks something else, a broker that found fault with our frames (501 to 506, 540).
    FAST: all else: nobody there, no answer, lost, closed by an operator (320), internal error (541), a full broker.
    """
    if isinstance(error, ConfigurationError):
        return Verdict.FATAL
    if not isinstance(error, _SLOW):
        return Verdict.FAST
    if not isinstance(error, _SILENT) or error.initiator != "transport" or error.cause is None:
        return Verdict.SLOW
    # The socket closed without a word.  In the beginning that is what a load balancer without a broker behind it does.
    return Verdict.FAST if isinstance(error, IncompatibleProtocol) else Verdict.UNSURE


def is_our_defect(error: BaseException) -> bool:
    """Whether the broker found fault with what we sent: worth an error in the log."""
    return isinstance(error, _OUR_DEFECTS)
