"""Short strings, long strings, integers and timestamps, and how values are shown.

AMQP 0-9-1 section 4.2.5.  The invariants:

* Strings are lossless.  The specification says UTF-8 but RabbitMQ hands any octets through, so octets that
  are not UTF-8 become lone surrogates (:pep:`383`) and become the same octets again when sent back.
* No string is ever cut: one that does not fit is an :class:`~txmsg.errors.EncodeError`, because a cut routing
  key would route somewhere else.
* A declared length is compared with the end of what encloses it before anything is taken.
* No error text holds a string's value: it may be a password.
"""

from __future__ import annotations

import reprlib
from datetime import UTC, datetime, timedelta

from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire.constants import FRAME_ERROR

__all__ = [
    "LENGTH_OCTET",
    "MAX_SHORT_STRING",
    "decode_long_string",
    "decode_short_string",
    "encode_long_string",
    "encode_short_string",
    "seconds_since_epoch",
    "show",
    "text_to_octets",
    "type_name",
]

#: Octets (not characters) that a short string can hold.
MAX_SHORT_STRING = 255
#: Octets that a long string can hold; a frame is always smaller.
MAX_LONG_STRING = 0xFFFFFFFF

#: n -> the octet n, for n from 0 to 255.
LENGTH_OCTET = tuple(bytes((size,)) for size in range(MAX_SHORT_STRING + 1))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

_shower = reprlib.Repr()
_shower.maxstring = _shower.maxother = 80
_shower.maxlong = 40


def show(value: object) -> str:
    """A short `repr` that never raises, whatever `value` is: for reprs and error texts."""
    try:
        text = _shower.repr(value)
    except Exception:
        # A subclass of str or dict whose own methods raise, or nesting beyond the interpreter's stack.
        return f"<{type_name(value)} that cannot be shown>"
    return text


def type_name(value: object) -> str:
    """The name of the type of `value`, for error texts that must not hold the value itself."""
    return type(value).__name__


def text_to_octets(value: object, where: str) -> bytes:
    """The octets of the str `value`; :class:`EncodeError` naming `where` for anything else.

    The one kind of str that has no octets is one with lone surrogates that do not come from our decoding.
    """
    if not isinstance(value, str):
        raise EncodeError(f"{where}: expected a str, got {type_name(value)}")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass  # raised outside this block: the exception holds the whole string, which may be secret
    raise EncodeError(f"{where}: the string holds lone surrogates, which UTF-8 cannot carry")


def encode_short_string(value: object, where: str) -> bytes:
    """A str as one length octet and its UTF-8; :class:`EncodeError` naming `where` beyond 255 octets."""
    octets = text_to_octets(value, where)
    size = len(octets)
    if size > MAX_SHORT_STRING:
        raise EncodeError(f"{where}: {size} bytes of UTF-8 do not fit a short string, which holds {MAX_SHORT_STRING}")
    return LENGTH_OCTET[size] + octets


def encode_long_string(value: object, where: str) -> bytes:
    """A str, or bytes as they are, as a four-octet length and the octets."""
    octets = bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else text_to_octets(value, where)
    if len(octets) > MAX_LONG_STRING:
        raise EncodeError(f"{where}: {len(octets)} bytes do not fit a long string")
    return len(octets).to_bytes(4, "big") + octets


def decode_short_string(data: bytes, start: int, end: int, where: str) -> tuple[str, int]:
    """The short string at `start` and the offset after it; it may not reach beyond `end`."""
    if start >= end:
        raise RemoteProtocolError(f"{where}: the short string's length is missing", FRAME_ERROR)
    first = start + 1
    after = first + data[start]
    if after > end:
        raise RemoteProtocolError(
            f"{where}: the short string says {data[start]} octets, {end - first} are left", FRAME_ERROR
        )
    return data[first:after].decode("utf-8", "surrogateescape"), after


def decode_long_string(data: bytes, start: int, end: int, where: str) -> tuple[bytes, int]:
    """The octets of the long string at `start` and the offset after it; it may not reach beyond `end`."""
    first = start + 4
    if first > end:
        raise RemoteProtocolError(f"{where}: the long string's length is cut", FRAME_ERROR)
    size = int.from_bytes(data[start:first], "big")
    after = first + size
    if after > end:
        raise RemoteProtocolError(f"{where}: the long string says {size} octets, {end - first} are left", FRAME_ERROR)
    return data[first:after], after


def seconds_since_epoch(value: datetime, where: str) -> int:
    """The AMQP timestamp of a datetime: whole seconds since 1970 in UTC, the fraction dropped.

    A naive datetime is taken as UTC.  Before 1970 is an :class:`EncodeError`: the type is unsigned.
    """
    aware = value if value.tzinfo is not None and value.utcoffset() is not None else value.replace(tzinfo=UTC)
    seconds = (aware - _EPOCH) // _SECOND
    if seconds < 0:
        raise EncodeError(f"{where}: {show(value)} is before 1970, which an AMQP timestamp cannot say")
    return seconds
