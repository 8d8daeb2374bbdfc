"""MessagePack by the library msgpack, which is an extra (txmsg[msgpack]) and loaded on first use.

str and bytes stay apart (use_bin_type, raw=False), keys are str or bytes, as with Kombu.  The library's own limits hold
(C5.3): nothing in a body may claim to be longer than the body, and its depth ends before 1,024.
"""

from __future__ import annotations

import importlib
from typing import Any

from txmsg.errors import BodyTooLarge, DecodeError, SerializerNotInstalled

__all__ = ["MAX_SIZE", "MsgpackSerializer"]

#: Octets of a body that is taken, unless set: 16 MiB.
MAX_SIZE = 16 * 2**20


def _msgpack() -> Any:
    try:
        return importlib.import_module("msgpack")
    except ImportError:
        raise SerializerNotInstalled("the serializer msgpack needs msgpack: install txmsg[msgpack]") from None


class MsgpackSerializer:
    """Values to MessagePack and back; `max_size`: octets of a body that is taken."""

    def __init__(self, max_size: int = MAX_SIZE) -> None:
        self.max_size = max_size

    def encode(self, value: Any) -> bytes:
        """The octets of a value; raises what msgpack raises.  SerializerNotInstalled."""
        octets: bytes = _msgpack().packb(value, use_bin_type=True)
        return octets

    def decode(self, body: bytes) -> Any:
        """The value of some octets.  DecodeError, BodyTooLarge, SerializerNotInstalled."""
        if len(body) > self.max_size:
            raise BodyTooLarge(f"MessagePack of {len(body)} octets, above {self.max_size}", self.max_size)
        unpackb = _msgpack().unpackb
        try:
            return unpackb(body, raw=False)
        except Exception as error:
            # Not chained: ExtraData carries what it could decode.
            raise DecodeError(f"a body that is not MessagePack: {type(error).__name__}") from None
