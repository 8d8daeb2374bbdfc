"""What can go wrong between the body of a message and the value in it.

They descend from :class:`~txmsg.errors.SerializationError`, as EncodeError does.  Their texts name types, limits and
positions, and quote no body: they end in logs.  None of them is cured by trying again.
"""

from __future__ import annotations

from typing import Any

from txmsg.errors.base import SerializationError

__all__ = ["BodyTooLarge", "CodecNotInstalled", "ContentDisallowed", "DecodeError", "SerializerNotInstalled"]


class DecodeError(SerializationError, ValueError):
    """A body that is not what its content type, its charset or its compression says; `__cause__`: what was found."""


class BodyTooLarge(DecodeError):
    """A body above a limit, as it came or decompressed.  `limit`: that limit, in octets; 0: not known."""

    def __init__(self, message: str, limit: int = 0) -> None:
        super().__init__(message)
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self.limit), self.__dict__)


class ContentDisallowed(SerializationError):
    """A content type, or a compression, that is not on the accept list.  Nothing of the body was looked at."""


class SerializerNotInstalled(SerializationError, LookupError):
    """A serializer that nobody registered, or whose library is missing; the text says what to install."""


class CodecNotInstalled(SerializationError, LookupError):
    """A compression that nobody registered, or whose library is missing; the text says what to install."""
