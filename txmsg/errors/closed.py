"""Why a connection or a channel ended, by reply code and by what happened.

Reply codes: AMQP 0-9-1 section 1.2 ("Constants"), and RabbitMQ's
https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants.
"""

from __future__ import annotations

from typing import Any, ClassVar

from txmsg.errors.base import TxmsgError, clip

__all__ = [
    "AccessRefused",
    "AuthenticationFailed",
    "ChannelClosed",
    "ChannelErrorClosed",
    "ChannelWrongState",
    "ClientCertificateRequired",
    "CommandInvalid",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionBlockedTimeout",
    "ConnectionClosed",
    "ConnectionForced",
    "ConnectionLost",
    "ConnectionWrongState",
    "ContentTooLarge",
    "FrameError",
    "HandshakeTimeout",
    "HeartbeatTimeout",
    "IncompatibleProtocol",
    "InternalError",
    "InvalidPath",
    "NoCommonMechanism",
    "NotAllowed",
    "NotFound",
    "NotImplementedByPeer",
    "PeerVerificationFailed",
    "PreconditionFailed",
    "ResourceError",
    "ResourceLocked",
    "SyntaxErrorClosed",
    "TLSFailed",
    "UnexpectedFrame",
    "VirtualHostRefused",
    "channel_error",
    "connection_error",
]

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
