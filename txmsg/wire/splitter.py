"""Buffer to frames: what is kept of an unfinished frame, and the checks on a frame's first seven octets.

AMQP 0-9-1 section 4.2.3.  The invariants:

* A frame is judged on its first seven octets: one with a bad type, size or channel is refused before a byte of
  its payload is kept.
* The cost is linear in the octets received, whatever their chunks: an octet of an unfinished frame is joined
  once when the frame's start is known and once when the frame is whole, never once per chunk.
* Nothing is allocated for octets that have not come.
"""

from __future__ import annotations

from typing import Final

from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import (
    CHANNEL_ERROR,
    FRAME_BODY,
    FRAME_ERROR,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
)

__all__ = ["START_SIZE", "Splitter", "check_frame_start", "describe_start"]

#: Octets that must be there before a frame can be judged: type, channel and payload size.
START_SIZE: Final = 7

_FRAME_TYPES: Final = frozenset({FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT})

#: How the first octets of other protocols look: what is usually behind a wrong port number.
_STRANGERS: Final = (
    (b"\x15\x03", "this is a TLS alert: the server wants TLS on this port"),
    (b"\x16\x03", "this is a TLS handshake: the peer speaks TLS on this port"),
    (b"HTTP/", "this is HTTP"),
    (b"SSH-", "this is SSH"),
    (b"220 ", "this is SMTP or FTP"),
    (b"-ERR", "this is Redis or POP3"),
)


class Splitter:
    """Keeps the octets of an unfinished frame until it is worth looking at them again.

    `pending` -- the octets kept.  `needed` -- how many octets, with those kept, let the parser get on.
    """

    __slots__ = ("needed", "pending")

    def __init__(self) -> None:
        self.pending = bytearray()
        self.needed = 0

    def feed(self, data: bytes) -> bytes | None:
        """What is kept with `data` behind it, or None while that does not complete what is needed."""
        if len(self.pending) + len(data) < self.needed:
            self.pending += data
            return None
        joined = b"".join((self.pending, data))
        self.pending = bytearray()
        return joined

    def keep(self, rest: bytes, needed: int) -> None:
        """Keep `rest`, the start of something `needed` octets long."""
        self.pending += rest
        self.needed = needed

    def clear(self) -> None:
        """Forget what is kept."""
        self.pending = bytearray()


def check_frame_start(
    frame_type: int, channel: int, size: int, size_limit: int, channel_max: int, start: bytes
) -> None:
    """Refuse a frame by its first seven octets.

    size: int -- octets of payload the frame declares.
    size_limit: int -- the largest payload it may have.
    start: bytes -- the seven octets, for the error.
    """
    if frame_type not in _FRAME_TYPES:
        raise RemoteProtocolError(f"frame of unknown type {frame_type}{describe_start(start)}", FRAME_ERROR)
    if size > size_limit:
        raise RemoteProtocolError(
            f"frame of {size + FRAME_OVERHEAD} octets, larger than the {size_limit + FRAME_OVERHEAD} allowed",
            FRAME_ERROR,
        )
    if frame_type == FRAME_HEARTBEAT:
        if channel or size:
            raise RemoteProtocolError(f"heartbeat frame with {size} octets on channel {channel}", FRAME_ERROR)
    elif channel > channel_max:
        raise RemoteProtocolError(f"frame on channel {channel}, above the channel_max {channel_max}", CHANNEL_ERROR)


def describe_start(start: bytes) -> str:
    """Words for an error about octets that are no AMQP frame; they name the protocol where it shows."""
    for prefix, words in _STRANGERS:
        if start.startswith(prefix):
            return f": {words} (first octets {start!r})"
    return f" (first octets {start!r})"
