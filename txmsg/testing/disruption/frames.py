"""A stream of AMQP octets as frames, for those who disturb it on its way: whole frames, as they are, never decoded.

AMQP 0-9-1 section 4.2.3: type, channel, payload size, payload, end octet; section 4.2.2: the protocol header comes
first.  Invariant of :class:`FrameCutter`: what comes out is what went in, octet by octet, whatever the chunks; what
does not look like AMQP (TLS, or octets that were damaged before) passes as it is, and so does all that follows it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from txmsg.wire.constants import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    PROTOCOL_HEADER,
)
from txmsg.wire.frames import FRAME_START
from txmsg.wire.methods import method_name
from txmsg.wire.splitter import START_SIZE

__all__ = ["DIRECTIONS", "TO_BROKER", "TO_CLIENT", "Direction", "Directions", "Frame", "FrameCutter", "directions_of"]

#: Which way octets go.
Direction = Literal["to_broker", "to_client"]
#: Which ways a fault is for.
Directions = Literal["to_broker", "to_client", "both"]

TO_BROKER: Final = "to_broker"
TO_CLIENT: Final = "to_client"
DIRECTIONS: Final[tuple[Direction, Direction]] = (TO_BROKER, TO_CLIENT)

_WORDS: Final = {FRAME_HEADER: "header", FRAME_BODY: "body", FRAME_HEARTBEAT: "heartbeat"}
#: What the first octet of a stream may be: of a protocol header, or a frame's type.
_TYPES: Final = frozenset({FRAME_METHOD, *_WORDS})


def directions_of(directions: Directions) -> tuple[Direction, ...]:
    """The single directions meant; ValueError for what is none."""
    if directions == "both":
        return DIRECTIONS
    if directions not in DIRECTIONS:
        raise ValueError('a direction is "to_broker", "to_client" or "both"')
    return (directions,)


class Frame(NamedTuple):
    """A whole frame.

    octets: bytes -- all of it, from the type to the end octet.
    """

    octets: bytes

    @property
    def type(self) -> int:
        """1 method, 2 content header, 3 body, 8 heartbeat."""
        return self.octets[0]

    @property
    def channel(self) -> int:
        """The channel's number."""
        return int.from_bytes(self.octets[1:3], "big")

    @property
    def payload(self) -> bytes:
        """What is between the seven octets of the start and the end octet."""
        return self.octets[START_SIZE:-1]

    @property
    def name(self) -> str:
        """ "basic.publish", "header", "body", "heartbeat"; "" for a method that does not exist."""
        if self.type == FRAME_METHOD:
            payload = self.octets[START_SIZE : START_SIZE + 4]
            return method_name(int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big"))
        return _WORDS.get(self.type, "")

    @classmethod
    def of(cls, frame_type: int, channel: int, payload: bytes) -> Frame:
        """A frame around `payload`; nothing is checked, so that illegal ones can be made too."""
        return cls(FRAME_START.pack(frame_type, channel, len(payload)) + payload + bytes((FRAME_END,)))

    def __repr__(self) -> str:
        return f"<Frame {self.name or 'of type ' + str(self.type)} channel={self.channel} {len(self.octets)} octets>"


class FrameCutter:
    """Finds the frames in one direction of a connection.

    is_raw: bool -- these octets are no AMQP (any more); there are no frames.
    frames: int -- whole frames that have passed, protocol headers not among them.
    """

    def __init__(self) -> None:
        self.is_raw = False
        self.frames = 0
        #: The unfinished frame (or protocol header), from its first octet; only its start, once it is handed on early.
        self._kept = bytearray()
        #: How much of it has been handed on already.
        self._handed_on = 0
        #: Octets of a frame that was handed on in part, still to come.
        self._rest = 0
        self._is_first = True

    @property
    def is_between_frames(self) -> bool:
        """Whether the last octet was the end of a frame (or nothing has come, or is known of frames)."""
        return not self._kept and not self._rest

    def feed(self, data: bytes, *, hold: bool) -> list[Frame | bytes]:
        """What comes of `data`: frames, and octets that belong to none.

        hold: whether to wait for whole frames.  If not, nothing waits, and what is a part of a frame is just octets.
        """
        if self.is_raw:
            return [data] if data else []
        found: list[Frame | bytes] = []
        view = data
        while view:
            view = self._pass_rest(view, found) if self._rest else self._take(view, found)
        if self._kept and not hold and len(self._kept) > self._handed_on:
            self._hand_on_early(found)
        return found

    def _pass_rest(self, data: bytes, found: list[Frame | bytes]) -> bytes:
        """More of a frame whose beginning has been handed on."""
        taken = data[: self._rest]
        found.append(taken)
        self._rest -= len(taken)
        if not self._rest:
            self.frames += 1
        return data[len(taken) :]

    def _take(self, data: bytes, found: list[Frame | bytes]) -> bytes:
        """Complete what is kept, as far as `data` goes; what is left of it."""
        kept = self._kept
        used = 0
        if len(kept) < START_SIZE:
            used = START_SIZE - len(kept)
            kept += data[:used]
        if len(kept) < START_SIZE:
            return b""
        size = self._size()
        if size is None:
            self.is_raw = True
            found.append(bytes(kept[self._handed_on :]) + data[used:])
            kept.clear()
            return b""
        wanted = size - len(kept)
        kept += data[used : used + wanted]
        if len(kept) < size:
            return b""
        whole = bytes(kept)
        is_header = self._is_first and whole.startswith(PROTOCOL_HEADER[:4])
        found.append(whole[self._handed_on :] if is_header or self._handed_on else Frame(whole))
        self.frames += not is_header
        self._is_first = False
        kept.clear()
        self._handed_on = 0
        return data[used + wanted :]

    def _size(self) -> int | None:
        """Octets of what is kept, once whole; None for what cannot be AMQP."""
        if self._is_first and self._kept.startswith(PROTOCOL_HEADER[:4]):
            return len(PROTOCOL_HEADER)
        if self._kept[0] not in _TYPES:
            return None
        return int.from_bytes(self._kept[3:START_SIZE], "big") + FRAME_OVERHEAD

    def _hand_on_early(self, found: list[Frame | bytes]) -> None:
        kept = self._kept
        found.append(bytes(kept[self._handed_on :]))
        self._handed_on = len(kept)
        size = self._size() if len(kept) >= START_SIZE else None
        if size is not None and not (self._is_first and kept.startswith(PROTOCOL_HEADER[:4])):
            self._rest = size - len(kept)
            self._is_first = False
            kept.clear()
            self._handed_on = 0
