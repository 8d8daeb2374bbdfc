"""Our errors as pika's.

What ends an open connection is, with pika's adapter, almost always Twisted's `ConnectionDone` or `ConnectionLost`
(the reason is lost on the way), and programs catch those.  Here the reason is pika's class *and* Twisted's: an
`except` clause or `Failure.check` for either finds it.

Invariant: one reason of ours becomes one exception object; whoever waits on a connection or channel fails with that.
"""

from __future__ import annotations

from typing import Any

from pika import exceptions
from twisted.internet import error as twisted_error

from txmsg.errors import (
    AuthenticationFailed,
    ChannelClosed,
    ChannelLimitReached,
    ChannelNumberInUse,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    ConnectionLost,
    DuplicateConsumerTag,
    EncodeError,
    HeartbeatTimeout,
    IncompatibleProtocol,
    NoCommonMechanism,
    RemoteProtocolError,
    VirtualHostRefused,
)

__all__ = [
    "AMQPHeartbeatTimeout",
    "ConnectionBlockedTimeoutDone",
    "ConnectionClosedByBroker",
    "ConnectionClosedByClient",
    "ConsumerCancelled",
    "StreamEndedError",
    "StreamLostError",
    "bad_argument",
    "call_error",
    "channel_reason",
    "connection_reason",
    "opening_error",
]


class _Both:
    """pika's exception and Twisted's in one; the text is pika's."""

    __str__ = Exception.__str__


class ConnectionClosedByBroker(_Both, exceptions.ConnectionClosedByBroker, twisted_error.ConnectionDone):  # type: ignore[misc]
    """The broker closed the connection: `reply_code`, `reply_text`."""


class ConnectionClosedByClient(_Both, exceptions.ConnectionClosedByClient, twisted_error.ConnectionDone):  # type: ignore[misc]
    """We closed the connection: `reply_code`, `reply_text`."""


class StreamLostError(_Both, exceptions.StreamLostError, twisted_error.ConnectionLost):  # type: ignore[misc]
    """The socket broke."""


class StreamEndedError(_Both, exceptions.StreamLostError, twisted_error.ConnectionDone):  # type: ignore[misc]
    """The peer closed the socket without an AMQP close."""


class AMQPHeartbeatTimeout(_Both, exceptions.AMQPHeartbeatTimeout, twisted_error.ConnectionDone):  # type: ignore[misc]
    """Nothing was heard from the broker for two heartbeats."""


class ConnectionBlockedTimeoutDone(_Both, exceptions.ConnectionBlockedTimeout, twisted_error.ConnectionDone):  # type: ignore[misc]
    """The broker blocked the connection for longer than `blocked_connection_timeout`."""


class ConsumerCancelled(exceptions.ConsumerCancelled):  # type: ignore[misc]
    """A subscription has ended; says by whom, where pika's always says that it was the server."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self}"


def connection_reason(reason: BaseException) -> BaseException:
    """Why an open connection ended, as pika's exception."""
    if isinstance(reason, HeartbeatTimeout):
        return AMQPHeartbeatTimeout(str(reason))
    if isinstance(reason, ConnectionBlockedTimeout):
        return ConnectionBlockedTimeoutDone(str(reason))
    if isinstance(reason, ConnectionLost):
        ended = isinstance(reason.cause, twisted_error.ConnectionDone)
        return (StreamEndedError if ended else StreamLostError)(str(reason))
    if isinstance(reason, ConnectionClosed):
        by_client = reason.initiator == "client"
        made: Any = ConnectionClosedByClient if by_client else ConnectionClosedByBroker
        return made(reason.reply_code, reason.reply_text)  # type: ignore[no-any-return]
    if isinstance(reason, RemoteProtocolError):
        return exceptions.ProtocolSyntaxError(str(reason))  # type: ignore[no-any-return]
    return exceptions.AMQPConnectionError(str(reason))  # type: ignore[no-any-return]


def opening_error(error: BaseException) -> BaseException:
    """Why a connection could not be opened; always an AMQPConnectionError, with the broker's words."""
    made: Any = exceptions.AMQPConnectionError
    if isinstance(error, NoCommonMechanism):
        made = exceptions.AuthenticationError
    elif isinstance(error, AuthenticationFailed):
        made = exceptions.ProbableAuthenticationError
    elif isinstance(error, VirtualHostRefused):
        made = exceptions.ProbableAccessDeniedError
    elif isinstance(error, IncompatibleProtocol):
        made = exceptions.IncompatibleProtocolError
    elif type(error) is ConnectionLost or (isinstance(error, ConnectionClosed) and error.reply_code):
        return connection_reason(error)
    elif isinstance(error, ConnectionClosed) and error.initiator == "client" and not isinstance(error, ConnectionLost):
        made = exceptions.ConnectionOpenAborted
    return made(str(error))  # type: ignore[no-any-return]


def channel_reason(reason: BaseException, of_connection: BaseException | None) -> BaseException:
    """Why a channel ended.  `of_connection`: the connection's reason in pika's class, if that is what it was.

    A connection that we close takes its channels along in good order: they were closed by the client.
    """
    if isinstance(reason, ChannelClosed):
        by_client = reason.initiator == "client"
        made: Any = exceptions.ChannelClosedByClient if by_client else exceptions.ChannelClosedByBroker
        return made(reason.reply_code, reason.reply_text)  # type: ignore[no-any-return]
    if isinstance(of_connection, ConnectionClosedByClient):
        return exceptions.ChannelClosedByClient(of_connection.reply_code, of_connection.reply_text)  # type: ignore[no-any-return]
    return connection_reason(reason) if of_connection is None else of_connection


def call_error(error: BaseException, given: tuple[object, ...] = ()) -> BaseException:
    """How one call failed while its channel or connection goes on; `given` are the call's arguments.

    The last of them is what pika names in DuplicateConsumerTag and InvalidChannelNumber.
    """
    if isinstance(error, EncodeError):
        return bad_argument(error, given)
    if isinstance(error, DuplicateConsumerTag):
        return exceptions.DuplicateConsumerTag(given[-1] if given else str(error))  # type: ignore[no-any-return]
    if isinstance(error, ChannelLimitReached):
        return exceptions.NoFreeChannels(str(error))  # type: ignore[no-any-return]
    if isinstance(error, ChannelNumberInUse):
        return exceptions.InvalidChannelNumber(given[-1] if given else str(error))  # type: ignore[no-any-return]
    if isinstance(error, ConnectionClosed):
        return exceptions.ConnectionWrongStateError(str(error))  # type: ignore[no-any-return]
    return exceptions.AMQPChannelError(str(error))  # type: ignore[no-any-return]


def bad_argument(error: BaseException, given: tuple[object, ...] = ()) -> BaseException:
    """An argument that AMQP cannot carry: pika's ShortStringTooLong, ValueError or TypeError."""
    for value in given:
        if isinstance(value, str) and len(value.encode("utf-8", "replace")) > 255:
            return exceptions.ShortStringTooLong(value)  # type: ignore[no-any-return]
        if isinstance(value, int) and value < 0:
            return ValueError(str(error))
    return TypeError(str(error))
