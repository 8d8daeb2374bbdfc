"""The root of the errors, and those that have to do with neither a closing nor a single call."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ConfigurationError",
    "EncodeError",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "SerializationError",
    "TxmsgError",
    "WrongThread",
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


class SerializationError(TxmsgError):
    """A value that cannot become octets, or octets that cannot, or may not, become a value."""


class EncodeError(SerializationError, ValueError):
    """A value that AMQP, or the serializer, cannot carry (too long, out of range, wrong type).  Nothing was sent."""


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
