"""The one hierarchy of errors, and the map from AMQP reply codes to classes.

Everything txmsg raises, or fails a Deferred with, descends from :class:`TxmsgError`; errors of other
libraries are converted where they come in.  An error from a closed connection or channel says who
closed it, with which reply code and text, and because of which method: it is captured when the closing
happens and is the one that every waiting Deferred then fails with.

Reply codes: AMQP 0-9-1 section 1.2 ("Constants"), and RabbitMQ's
https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AccessRefused",
    "AlreadySettled",
    "AuthenticationFailed",
    "ChannelClosed",
    "ChannelError",
    "ChannelErrorClosed",
    "ChannelLimitReached",
    "ChannelNumberInUse",
    "ChannelWrongState",
    "ClientCertificateRequired",
    "CommandInvalid",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionBlockedTimeout",
    "ConnectionClosed",
    "ConnectionForced",
    "ConnectionLost",
    "ConnectionWrongState",
    "ConsumerCancelled",
    "ContentTooLarge",
    "DuplicateConsumerTag",
    "EncodeError",
    "FrameError",
    "HandshakeTimeout",
    "HeartbeatTimeout",
    "IncompatibleProtocol",
    "InternalError",
    "InvalidPath",
    "LocalProtocolError",
    "NoCommonMechanism",
    "NotAllowed",
    "NotFound",
    "NotImplementedByPeer",
    "NotSent",
    "OperationTimeout",
    "Overloaded",
    "PeerVerificationFailed",
    "PreconditionFailed",
    "ProtocolError",
    "PublishFailed",
    "PublishNacked",
    "PublishReturned",
    "PublishTimeout",
    "PublishUnconfirmed",
    "QueueClosed",
    "RemoteProtocolError",
    "ResourceError",
    "ResourceLocked",
    "SettlementError",
    "StaleDelivery",
    "SyntaxErrorClosed",
    "TLSFailed",
    "TxmsgError",
    "UnexpectedFrame",
    "VirtualHostRefused",
    "WrongThread",
    "channel_error",
    "connection_error",
    "clip",
]

#: Text that comes from a peer is cut here before it is put into an error or a log line.
PEER_TEXT_LIMIT = 200


def clip(text: str, limit: int = PEER_TEXT_LIMIT) -> str:
    """Cut `text` to `limit` characters and escape what is not printable.

    Reply texts, queue names and tags are a peer's words: a line feed or an escape sequence in them
    must not forge a log line.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class TxmsgError(Exception):
    """The root of everything txmsg raises.

    `recoverable` says whether trying again later, on a new channel or connection, can succeed with
    nothing changed by hand.  False means that something must be changed first: a name, a permission,
    a password, an argument, the code.
    """

    recoverable: ClassVar[bool] = False


class ConfigurationError(TxmsgError, ValueError):
    """A parameter, a URL or a setting that cannot be used; the text names it and says what to change."""


class WrongThread(TxmsgError, RuntimeError):
    """The API was called outside the reactor's thread; use `reactor.callFromThread` to cross."""


class EncodeError(TxmsgError, ValueError):
    """A value that AMQP cannot carry (too long, out of range, wrong type).  Nothing was sent."""


# -- the protocol was broken ---------------------------------------------------------------------


class ProtocolError(TxmsgError):
    """Somebody broke the protocol.  Raise one of the two below.

    `reply_code` is the AMQP code with which the connection is to be closed.
    """

    def __init__(self, message: str, reply_code: int = 501) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is abstract: raise LocalProtocolError or RemoteProtocolError")
        super().__init__(message)
        self.reply_code = reply_code

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self.reply_code), self.__dict__)


class LocalProtocolError(ProtocolError):
    """We were asked to do what the protocol does not allow now.  Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent bytes or methods that the protocol does not allow."""

    recoverable = True


# -- closed: connection ---------------------------------------------------------------------------


class _Closed(TxmsgError):
    """What a closed connection and a closed channel have in common.

    reply_code: int -- the AMQP reply code; 0 where no close method was seen.
    reply_text: str -- the text that came with it (already clipped).
    initiator: "client", "server" or "transport" -- who ended it.
    class_id, method_id: int -- the method that caused it, 0 when unknown.
    method_name: str -- its name ("queue.declare"), "" when unknown.
    cause: BaseException | None -- the foreign error below, when there is one.
    """

    default_code: ClassVar[int] = 0

    def __init__(
        self,
        reply_text: str = "",
        reply_code: int | None = None,
        *,
        initiator: str = "server",
        class_id: int = 0,
        method_id: int = 0,
        method_name: str = "",
        cause: BaseException | None = None,
    ) -> None:
        self.reply_text = clip(reply_text)
        self.reply_code = self.default_code if reply_code is None else reply_code
        self.initiator = initiator
        self.class_id = class_id
        self.method_id = method_id
        self.method_name = method_name
        self.cause = cause
        super().__init__(self.reply_text, self.reply_code)

    def __str__(self) -> str:
        parts = [self.reply_text or type(self).__name__]
        if self.reply_code:
            parts.append(f"(code {self.reply_code}, closed by the {self.initiator})")
        elif self.initiator != "transport":
            parts.append(f"(closed by the {self.initiator})")
        if self.method_name:
            parts.append(f"caused by {self.method_name}")
        if self.cause is not None and str(self.cause) and str(self.cause) not in self.reply_text:
            parts.append(f"[{type(self.cause).__name__}: {clip(str(self.cause))}]")
        return " ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        state["cause"] = None if self.cause is None else TxmsgError(f"{type(self.cause).__name__}: {self.cause}")
        return (type(self), (self.reply_text, self.reply_code), state)


class ConnectionClosed(_Closed):
    """The connection is closed; the attributes say by whom and why."""

    recoverable = True


class ConnectionWrongState(ConnectionClosed):
    """The connection is not open yet, so what was asked cannot be done; wait for `ready`."""


class ConnectionLost(ConnectionClosed):
    """The socket ended without an AMQP close."""

    def __init__(self, reply_text: str = "the connection was lost", reply_code: int | None = None, **kw: Any) -> None:
        kw.setdefault("initiator", "transport")
        super().__init__(reply_text, reply_code, **kw)


class ConnectFailed(ConnectionLost):
    """No connection could be made: unknown host, refused port, unreachable network."""


class ConnectTimeout(ConnectFailed):
    """No TCP connection within `connect_timeout`."""


class HandshakeTimeout(ConnectionLost):
    """The peer accepted the TCP connection but did not finish TLS or the AMQP handshake in time."""


class HeartbeatTimeout(ConnectionLost):
    """Nothing was heard from the peer for twice the negotiated heartbeat."""


class ConnectionBlockedTimeout(ConnectionLost):
    """The broker kept the connection blocked for longer than `blocked_connection_timeout`."""


class IncompatibleProtocol(ConnectionLost):
    """The peer does not speak AMQP 0-9-1."""

    recoverable = False


class TLSFailed(ConnectionLost):
    """TLS could not be established; the text names the cause."""

    recoverable = False


class PeerVerificationFailed(TLSFailed):
    """The server's certificate is not acceptable for the host asked for."""


class ClientCertificateRequired(TLSFailed):
    """The server wants a client certificate, or did not accept the one given."""


class AuthenticationFailed(ConnectionClosed):
    """The broker refused the login."""

    recoverable = False
    default_code = 403


class NoCommonMechanism(AuthenticationFailed):
    """The broker offers no SASL mechanism that these credentials can use; nothing secret was sent."""


class ConnectionForced(ConnectionClosed):
    """320: an operator, or the broker's shutdown, closed the connection."""

    default_code = 320


class InvalidPath(ConnectionClosed):
    """402: the virtual host is not known."""

    recoverable = False
    default_code = 402


class VirtualHostRefused(ConnectionClosed):
    """530 (or 403) in answer to connection.open: no such virtual host, or no access to it."""

    recoverable = False
    default_code = 530


class FrameError(ConnectionClosed):
    """501: the peer could not read a frame."""

    recoverable = False
    default_code = 501


class SyntaxErrorClosed(ConnectionClosed):
    """502: the peer found an illegal value in a field."""

    recoverable = False
    default_code = 502


class CommandInvalid(ConnectionClosed):
    """503: a method was sent at a time when the protocol does not allow it."""

    recoverable = False
    default_code = 503


class ChannelErrorClosed(ConnectionClosed):
    """504: a channel was used that is not open."""

    recoverable = False
    default_code = 504


class UnexpectedFrame(ConnectionClosed):
    """505: a frame that does not belong there."""

    recoverable = False
    default_code = 505


class ResourceError(ConnectionClosed):
    """506: the peer has not the resources for this."""

    default_code = 506


class NotAllowed(ConnectionClosed):
    """530: the peer's settings forbid it."""

    recoverable = False
    default_code = 530


class NotImplementedByPeer(ConnectionClosed):
    """540: the peer does not implement what was asked."""

    recoverable = False
    default_code = 540


class InternalError(ConnectionClosed):
    """541: the peer failed inside."""

    default_code = 541


# -- closed: channel ------------------------------------------------------------------------------


class ChannelClosed(_Closed):
    """The channel is closed (the connection need not be); the attributes say by whom and why."""

    recoverable = True


class ChannelWrongState(ChannelClosed):
    """The channel is not open, or not in the mode that the call needs."""

    recoverable = False


class ContentTooLarge(ChannelClosed):
    """311: the message is larger than the broker takes."""

    recoverable = False
    default_code = 311


class AccessRefused(ChannelClosed):
    """403: the user has no permission for this."""

    recoverable = False
    default_code = 403


class NotFound(ChannelClosed):
    """404: no such exchange or queue."""

    recoverable = False
    default_code = 404


class ResourceLocked(ChannelClosed):
    """405: another connection holds the queue as exclusive."""

    recoverable = False
    default_code = 405


class PreconditionFailed(ChannelClosed):
    """406: arguments differ from what exists, or a rule of the broker was broken."""

    recoverable = False
    default_code = 406


class ChannelError(TxmsgError):
    """A channel operation that failed without closing the channel."""


class ChannelLimitReached(ChannelError):
    """All channel numbers up to the negotiated `channel_max` are in use."""

    recoverable = True


class ChannelNumberInUse(ChannelError, ValueError):
    """The channel number asked for is taken."""


class DuplicateConsumerTag(ChannelError, ValueError):
    """The consumer tag is in use on this channel."""


class ConsumerCancelled(ChannelError):
    """The consumer has ended; `initiator` is "client" (basic_cancel) or "server" (queue deleted ...)."""

    recoverable = True

    def __init__(self, consumer_tag: str = "", initiator: str = "server", queue: str = "") -> None:
        self.consumer_tag = consumer_tag
        self.initiator = initiator
        self.queue = queue
        super().__init__(consumer_tag, initiator, queue)

    def __str__(self) -> str:
        why = "its queue was deleted or became unavailable" if self.initiator == "server" else "basic_cancel was called"
        return f"consumer {clip(self.consumer_tag)!r} of queue {clip(self.queue)!r} was cancelled by the {self.initiator}: {why}"


class QueueClosed(ChannelError):
    """A ClosableDeferredQueue was closed without a more telling reason."""


class OperationTimeout(ChannelError):
    """No reply within `operation_timeout` seconds; `blocked` says whether the broker had blocked the connection.

    The outcome is unknown: the broker may still do it.  A late reply is swallowed and the channel
    stays usable.
    """

    recoverable = True

    def __init__(self, message: str, blocked: bool = False) -> None:
        self.blocked = blocked
        super().__init__(message, blocked)

    def __str__(self) -> str:
        return str(self.args[0]) + (" (the connection is blocked by the broker)" if self.blocked else "")


# -- publishing -----------------------------------------------------------------------------------


class PublishFailed(TxmsgError):
    """A publish that did not succeed; each subclass stands for one fact."""

    recoverable = True


class PublishReturned(PublishFailed):
    """The broker could not route a mandatory message and gave it back.

    `returned` is the :class:`txmsg.amqp.ReturnedMessage`.
    """

    recoverable = False

    def __init__(self, reply_code: int, reply_text: str, exchange: str, routing_key: str, returned: Any = None) -> None:
        self.reply_code = reply_code
        self.reply_text = clip(reply_text)
        self.exchange = exchange
        self.routing_key = routing_key
        self.returned = returned
        super().__init__(reply_code, self.reply_text, exchange, routing_key, returned)

    def __str__(self) -> str:
        return (
            f"returned by the broker: {self.reply_text} (code {self.reply_code}), "
            f"exchange {clip(self.exchange)!r}, routing key {clip(self.routing_key)!r}"
        )


class PublishNacked(PublishFailed):
    """The broker said basic.nack: it did not take responsibility for the message."""


class PublishUnconfirmed(PublishFailed):
    """Written, but the connection or channel ended before the broker answered: the outcome is unknown.

    `cause` is the error that ended it.
    """

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.cause = cause
        super().__init__(message, cause)

    def __str__(self) -> str:
        text = str(self.args[0])
        return text if self.cause is None else f"{text}: {self.cause}"


class PublishTimeout(PublishUnconfirmed):
    """Written, but the broker did not answer within `confirm_timeout`: the outcome is unknown."""


class NotSent(PublishFailed):
    """No byte of the message has left: it is safe to publish it again.  `cause` says why."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.cause = cause
        super().__init__(message, cause)

    def __str__(self) -> str:
        text = str(self.args[0])
        return text if self.cause is None else f"{text}: {self.cause}"


class Overloaded(NotSent):
    """The outbox is full, so the message was not taken; wait for earlier publishes to finish."""


# -- settling -------------------------------------------------------------------------------------


class SettlementError(TxmsgError):
    """An ack, nack or reject that cannot be done.  Nothing was sent."""


class StaleDelivery(SettlementError):
    """The delivery's channel is closed: the broker has requeued it and will deliver it again."""


class AlreadySettled(SettlementError):
    """The delivery was already acked, nacked or rejected, or was delivered with `no_ack`."""


# -- reply codes ----------------------------------------------------------------------------------

_CONNECTION_CLASSES: dict[int, type[ConnectionClosed]] = {
    cls.default_code: cls
    for cls in (
        ConnectionForced,
        InvalidPath,
        FrameError,
        SyntaxErrorClosed,
        CommandInvalid,
        ChannelErrorClosed,
        UnexpectedFrame,
        ResourceError,
        NotAllowed,
        NotImplementedByPeer,
        InternalError,
    )
}
_CHANNEL_CLASSES: dict[int, type[ChannelClosed]] = {
    cls.default_code: cls for cls in (ContentTooLarge, AccessRefused, NotFound, ResourceLocked, PreconditionFailed)
}


def connection_error(reply_code: int, reply_text: str, **details: Any) -> ConnectionClosed:
    """The error for a connection.close with `reply_code`; codes without a class give ConnectionClosed."""
    return _CONNECTION_CLASSES.get(reply_code, ConnectionClosed)(reply_text, reply_code, **details)


def channel_error(reply_code: int, reply_text: str, **details: Any) -> ChannelClosed:
    """The error for a channel.close with `reply_code`; codes without a class give ChannelClosed."""
    return _CHANNEL_CLASSES.get(reply_code, ChannelClosed)(reply_text, reply_code, **details)
