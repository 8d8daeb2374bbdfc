"""Which errors mean what, in the tuples that `except` and `Failure.check` take; the same for every transport.

Connection and channel errors are families of classes.  Whether one of them is worth another attempt is finer: each
error says so itself (`error.recoverable`), and :func:`is_recoverable` reads that.  So a lost connection is, a refused
login or certificate is not, although both are connection errors.
"""

from __future__ import annotations

from typing import Final

from txmsg.errors import (
    ChannelClosed,
    ChannelError,
    ChannelLimitReached,
    ConnectFailed,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    ConsumerCancelled,
    HandshakeTimeout,
    HeartbeatTimeout,
    InternalError,
    NotSent,
    OperationTimeout,
    ProtocolError,
    PublishNacked,
    PublishUnconfirmed,
    RemoteProtocolError,
    ResourceError,
    StaleDelivery,
)

__all__ = [
    "channel_errors",
    "connection_errors",
    "is_recoverable",
    "recoverable_channel_errors",
    "recoverable_connection_errors",
]

#: The connection could not be made, or has ended.
connection_errors: Final[tuple[type[Exception], ...]] = (ConnectionClosed, ProtocolError, NotSent, PublishUnconfirmed)

#: The channel has ended, or what was asked on it failed.
channel_errors: Final[tuple[type[Exception], ...]] = (ChannelClosed, ChannelError, StaleDelivery)

#: Those of `connection_errors` after which one connects again.  Classes below ConnectionLost that are not
#: recoverable (TLSFailed, IncompatibleProtocol) match as well: ask :func:`is_recoverable` where that matters.
recoverable_connection_errors: Final[tuple[type[Exception], ...]] = (
    ConnectionLost,
    ConnectFailed,
    HandshakeTimeout,
    HeartbeatTimeout,
    ConnectionBlockedTimeout,
    ConnectionForced,
    ResourceError,
    InternalError,
    RemoteProtocolError,
    NotSent,
    PublishUnconfirmed,
)

#: Those of `channel_errors` after which another try on the same connection may succeed.
recoverable_channel_errors: Final[tuple[type[Exception], ...]] = (
    OperationTimeout,
    ConsumerCancelled,
    ChannelLimitReached,
    PublishNacked,
    StaleDelivery,
)


def is_recoverable(error: BaseException) -> bool:
    """Whether trying again, on a new channel or connection, can succeed with nothing changed by hand."""
    return getattr(error, "recoverable", False) is True
