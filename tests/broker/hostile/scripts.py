"""Scripts of octets that are wrong, by row of the tables of faults; what is answered to them is in `verdicts`.

F30 to F33, F39 to F41 as a server meets them: AMQP 0-9-1 sections 2.2.4, 2.3.5, 4.2 and 4.10.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tests.broker.hostile.beside import (
    body_frame,
    frame,
    header_frame,
    long_string,
    method_frame,
    short_string,
    table,
)
from tests.broker.hostile.transcript import CHANNEL, OPEN, START, TUNE, VHOST, start_ok
from txmsg.wire.tables import encode_table

__all__ = ["SCRIPTS", "Script"]


class Script(NamedTuple):
    """Octets, sent at a stage; each part after the broker has answered the one before."""

    row: str
    stage: str
    parts: tuple[bytes, ...]


SCRIPTS: Final[dict[str, Script]] = {}


def _add(row: str, stage: str, name: str, *parts: bytes) -> None:
    assert name not in SCRIPTS, name
    SCRIPTS[name] = Script(row, stage, parts)


_PUBLISH: Final = method_frame(1, 60, 40, b"\0\0" + short_string(b"") + short_string(b"hostile") + b"\0")
_QOS: Final = method_frame(1, 60, 10, bytes(7))
#: A name of the broker's, exclusive, auto-delete.
_DECLARE: Final = b"\0\0" + short_string(b"") + b"\x0c"
_MISSING: Final = method_frame(1, 50, 10, b"\0\0" + short_string(b"hostile.missing") + b"\1" + bytes(4))
_CLOSE: Final = struct.pack(">H", 200) + short_string(b"bye") + bytes(4)
_CONNECTION_CLOSE: Final = method_frame(0, 10, 50, _CLOSE)
_CONNECTION_CLOSE_OK: Final = method_frame(0, 10, 51)
_CHANNEL_CLOSE: Final = method_frame(1, 20, 40, _CLOSE)
_CHANNEL_CLOSE_OK: Final = method_frame(1, 20, 41)
_CHANNEL_OPEN: Final = method_frame(1, 20, 10, b"\0")


def _nested(levels: int) -> bytes:
    octets = b""
    for _ in range(levels - 1):
        octets = b"\1aF" + struct.pack(">I", len(octets)) + octets
    return struct.pack(">I", len(octets)) + octets


# -- F32: frames ------------------------------------------------------------------------------------------

for _kind in (0, 4, 9, 255):
    _add("F32", CHANNEL, f"frame of type {_kind}", frame(_kind, 1, b"x"))
_add("F32", CHANNEL, "heartbeat with a payload", frame(8, 0, b"x"))
_add("F32", CHANNEL, "heartbeat on a channel", frame(8, 1, b""))
_add("F32", CHANNEL, "heartbeat on a channel that is not open", frame(8, 5, b""))
_add("F32", CHANNEL, "wrong last octet", _QOS[:-1] + b"\x00")
_add("F32", CHANNEL, "empty method frame", frame(1, 1, b""))
_add("F32", CHANNEL, "method frame of three octets", frame(1, 1, b"\0\x3c\0"))
_add(
    "F32",
    CHANNEL,
    "frame of frame_max",
    method_frame(1, 60, 10, bytes(7))[:-1] + b"\xce",
    _PUBLISH + header_frame(1, 131064) + body_frame(1, bytes(131064)),
)
_add("F32", CHANNEL, "frame of frame_max and 1", _PUBLISH + header_frame(1, 131065) + body_frame(1, bytes(131065)))
_add("F32", CHANNEL, "frame of frame_max and 8", _PUBLISH + header_frame(1, 131072) + body_frame(1, bytes(131072)))
_add("F32", CHANNEL, "frame of frame_max and 9", _PUBLISH + header_frame(1, 131073) + body_frame(1, bytes(131073)))
_add("F32", CHANNEL, "frame of 2 ** 31", struct.pack(">BHI", 1, 1, 1 << 31))
_add("F32", CHANNEL, "frame of 2 ** 32 - 1", struct.pack(">BHI", 3, 1, (1 << 32) - 1))
_add("F32", CHANNEL, "method on a channel that is not open", method_frame(2, 60, 10, bytes(7)))
_add("F32", CHANNEL, "method on a channel that was closed", _CHANNEL_CLOSE, _QOS)
_add("F32", CHANNEL, "close of a channel that is not open", method_frame(2, 20, 40, _CLOSE))
_add("F32", CHANNEL, "close-ok of a channel that is not open", method_frame(2, 20, 41))
_add("F32", CHANNEL, "channel above channel_max", method_frame(101, 20, 10, b"\0"))
_add("F32", CHANNEL, "second channel.open", _CHANNEL_OPEN)
_add("F32", CHANNEL, "unknown class", method_frame(1, 99, 10))
_add("F32", CHANNEL, "unknown method", method_frame(1, 60, 999))
_add("F32", CHANNEL, "unknown method on channel 0", method_frame(0, 10, 999))
_add("F32", CHANNEL, "server's method", method_frame(1, 50, 11, short_string(b"q") + bytes(8)))
_add("F32", CHANNEL, "channel's method on channel 0", method_frame(0, 60, 10, bytes(7)))
_add("F32", CHANNEL, "connection's method on a channel", method_frame(1, 10, 50, _CLOSE))
_add("F32", CHANNEL, "method without its arguments", method_frame(1, 60, 10))
_add("F32", CHANNEL, "method with its last octet missing", method_frame(1, 60, 10, bytes(6)))
_add("F32", CHANNEL, "method with an octet too many", method_frame(1, 60, 10, bytes(8)))
_add("F32", CHANNEL, "table longer than its frame", method_frame(1, 50, 10, _DECLARE + struct.pack(">I", 1000)))
_add("F32", CHANNEL, "table of 2 ** 32 - 1", method_frame(1, 50, 10, _DECLARE + b"\xff\xff\xff\xff"))
_add("F32", CHANNEL, "table with a value of an unknown type", method_frame(1, 50, 10, _DECLARE + table((b"a", b"?"))))
_add("F32", CHANNEL, "table with half a value", method_frame(1, 50, 10, _DECLARE + table((b"a", b"I\0\0"))))
_add(
    "F32",
    CHANNEL,
    "table with a string of 2 GiB",
    method_frame(1, 50, 10, _DECLARE + table((b"a", b"S\x7f\xff\xff\xff"))),
)
_add("F32", CHANNEL, "table of 32 levels", method_frame(1, 50, 10, _DECLARE + _nested(32)))
_add("F32", CHANNEL, "table of 33 levels", method_frame(1, 50, 10, _DECLARE + _nested(33)))
_add("F32", CHANNEL, "table of 10,000 levels", method_frame(1, 50, 10, _DECLARE + _nested(10_000)))
_add(
    "F32", CHANNEL, "name with NUL", method_frame(1, 50, 10, b"\0\0" + short_string(b"hostile\0q") + b"\x0c" + bytes(4))
)
_add(
    "F32",
    CHANNEL,
    "type that is no UTF-8",
    method_frame(1, 40, 10, b"\0\0" + short_string(b"hostile") + short_string(b"\xff\xfe") + b"\x04" + bytes(4)),
)
_add("F32", CHANNEL, "tag that is no UTF-8", method_frame(1, 60, 30, short_string(b"\xff\xfe") + b"\0"))
_add(
    "F32",
    CHANNEL,
    "exchange of a publish that is no UTF-8",
    method_frame(1, 60, 40, b"\0\0" + short_string(b"\xff\xfe") + b"\0\0") + header_frame(1, 0),
)
_add(
    "F32", CHANNEL, "key of a table that is no UTF-8", method_frame(1, 50, 10, _DECLARE + table((b"\xff\xfe", b"t\1")))
)
_add(
    "F32",
    CHANNEL,
    "name that is no UTF-8",
    method_frame(1, 50, 10, b"\0\0" + short_string(b"hostile\xff\xfe") + b"\x0c" + bytes(4)),
)
_add(
    "F32",
    CHANNEL,
    "missing name that is no UTF-8",
    method_frame(1, 50, 10, b"\0\0" + short_string(b"hostile\xff\xfe") + b"\x01" + bytes(4)),
)
_add(
    "F32",
    CHANNEL,
    "name with a line end",
    method_frame(1, 50, 10, b"\0\0" + short_string(b"hostile\r\nq") + b"\x0d" + bytes(4)),
)
_add("F32", CHANNEL, "another protocol's header", b"AMQP\x00\x00\x09\x01")
_add("F32", CHANNEL, "HTTP", b"GET / HTTP/1.1\r\n\r\n")

# -- F33: contents ----------------------------------------------------------------------------------------

_add("F33", CHANNEL, "header first", header_frame(1, 5))
_add("F33", CHANNEL, "body first", body_frame(1, b"x"))
_add("F33", CHANNEL, "body in place of the header", _PUBLISH + body_frame(1, b"x"))
_add("F33", CHANNEL, "header on a channel that is not open", header_frame(9, 5))
_add("F33", CHANNEL, "body on a channel that is not open", body_frame(9, b"x"))
_add("F33", CHANNEL, "header on channel 0", header_frame(0, 5))
_add("F33", CHANNEL, "body on channel 0", body_frame(0, b"x"))
_add("F33", CHANNEL, "second header", _PUBLISH + header_frame(1, 5) + header_frame(1, 5))
_add("F33", CHANNEL, "method in place of the header", _PUBLISH + _QOS)
_add("F33", CHANNEL, "method in place of the body", _PUBLISH + header_frame(1, 5) + _QOS)
_add("F33", CHANNEL, "method inside the body", _PUBLISH + header_frame(1, 5) + body_frame(1, b"123") + _QOS)
_add("F33", CHANNEL, "body beyond its size", _PUBLISH + header_frame(1, 5) + body_frame(1, b"123456"))
_add("F33", CHANNEL, "body beyond its size in two", _PUBLISH + header_frame(1, 5) + body_frame(1, b"123") * 2)
_add("F33", CHANNEL, "body after an empty content", _PUBLISH + header_frame(1, 0) + body_frame(1, b"x"))
_add("F33", CHANNEL, "empty body after an empty content", _PUBLISH + header_frame(1, 0) + body_frame(1, b""))
_add(
    "F33",
    CHANNEL,
    "empty bodies inside a content",
    _PUBLISH + header_frame(1, 2) + body_frame(1, b"") * 3 + body_frame(1, b"12"),
)
_add("F33", CHANNEL, "header of another class", _PUBLISH + header_frame(1, 0, class_id=50))
_add("F33", CHANNEL, "header of an unknown class", _PUBLISH + header_frame(1, 0, class_id=99))
_add("F33", CHANNEL, "weight", _PUBLISH + header_frame(1, 0, weight=1))
_add("F33", CHANNEL, "size of 16 MiB and 1", _PUBLISH + header_frame(1, (16 << 20) + 1))
_add("F33", CHANNEL, "size of 2 ** 63", _PUBLISH + header_frame(1, 1 << 63))
_add("F33", CHANNEL, "size of 2 ** 64 - 1", _PUBLISH + header_frame(1, (1 << 64) - 1))
_add("F33", CHANNEL, "missing rest", _PUBLISH + header_frame(1, 5) + body_frame(1, b"1"))
_add("F33", CHANNEL, "short header", _PUBLISH + frame(2, 1, struct.pack(">HHI", 60, 0, 0)))
_add("F33", CHANNEL, "header without flags", _PUBLISH + frame(2, 1, struct.pack(">HHQ", 60, 0, 0)))
_add("F33", CHANNEL, "flag that means nothing", _PUBLISH + header_frame(1, 0, b"\0\2"))
_add("F33", CHANNEL, "more flags to come", _PUBLISH + header_frame(1, 0, b"\0\1\0\0"))
_add("F33", CHANNEL, "more flags that do not come", _PUBLISH + header_frame(1, 0, b"\0\1"))
_add("F33", CHANNEL, "property that is missing", _PUBLISH + header_frame(1, 0, b"\x80\0"))
_add("F33", CHANNEL, "octets behind the properties", _PUBLISH + header_frame(1, 0, b"\0\0xyz"))
_add("F33", CHANNEL, "headers of 10,000 levels", _PUBLISH + header_frame(1, 0, b"\x20\0" + _nested(10_000)))
_add("F33", CHANNEL, "property that is no UTF-8", _PUBLISH + header_frame(1, 0, b"\x80\0" + short_string(b"\xff\xfe")))
_add(
    "F33",
    CHANNEL,
    "key that is no UTF-8",
    method_frame(1, 60, 40, b"\0\0" + short_string(b"") + short_string(b"\xff\xfe") + b"\1") + header_frame(1, 0),
)
_add("F33", CHANNEL, "content of a method that has none", _QOS + header_frame(1, 0))

# -- F39: tune-ok -----------------------------------------------------------------------------------------


def _tune(channel_max: int = 100, frame_max: int = 131072, heartbeat: int = 0) -> bytes:
    open_ = method_frame(0, 10, 40, short_string(b"/") + b"\0\0")
    return method_frame(0, 10, 31, struct.pack(">HIH", channel_max, frame_max, heartbeat)) + open_


for _value in (0, 1, 4095, 4096, 131073, 1 << 31):
    _add("F39", TUNE, f"frame_max {_value}", _tune(frame_max=_value))
for _value in (0, 1, 65535):
    _add("F39", TUNE, f"channel_max {_value}", _tune(channel_max=_value))
for _value in (1, 65535):
    _add("F39", TUNE, f"heartbeat {_value}", _tune(heartbeat=_value))
_add("F39", TUNE, "tune-ok twice", _tune()[:20] + _tune())
_add("F39", TUNE, "open before tune-ok", _tune()[20:])
_add("F39", TUNE, "start-ok twice", start_ok())
_add("F39", TUNE, "channel before open", _tune()[:20] + _CHANNEL_OPEN)
_add("F39", VHOST, "unknown virtual host", method_frame(0, 10, 40, short_string(b"nowhere") + b"\0\0"))
_add("F39", VHOST, "virtual host that is no UTF-8", method_frame(0, 10, 40, short_string(b"\xff\xfe") + b"\0\0"))
_add("F39", OPEN, "open twice", method_frame(0, 10, 40, short_string(b"/") + b"\0\0"))

# -- F40: start-ok ----------------------------------------------------------------------------------------

_add("F40", START, "properties of 33 levels", start_ok(properties=_nested(33)))
_add("F40", START, "properties of 500 levels", start_ok(properties=_nested(500)))
_add(
    "F40",
    START,
    "properties of 1,000 entries",
    start_ok(properties=table(*((b"%d" % number, b"t") for number in range(700)))),
)
_add("F40", START, "properties beyond the frame", start_ok(properties=encode_table({"a": "x" * 10_000})))
_add("F40", START, "properties with a string of 2 GiB", start_ok(properties=table((b"a", b"S\x7f\xff\xff\xff"))))
_add("F40", START, "properties with an unknown type", start_ok(properties=table((b"a", b"?"))))
_add("F40", START, "properties longer than the frame", start_ok(properties=b"\xff\xff\xff\xff"))
_add("F40", START, "properties with a key that is no UTF-8", start_ok(properties=table((b"\xff", b"t\1"))))
_add("F40", START, "the same key twice", start_ok(properties=table((b"a", b"t\1"), (b"a", b"t\0"))))
_add("F40", START, "capabilities that are no table", start_ok(properties=encode_table({"capabilities": "all"})))
_add(
    "F40",
    START,
    "capability that is no boolean",
    start_ok(properties=encode_table({"capabilities": {"authentication_failure_close": "yes"}})),
)
_add("F40", START, "no properties", start_ok(properties=bytes(4)))
_add("F40", START, "empty start-ok", method_frame(0, 10, 11))
_add("F40", START, "start-ok on channel 1", start_ok().replace(b"\1\0\0", b"\1\0\1", 1))
_add("F40", START, "tune-ok in place of start-ok", _tune())
_add("F40", START, "second protocol header", b"AMQP\x00\x00\x09\x01")

# -- F41: the login ---------------------------------------------------------------------------------------

_add("F41", START, "unknown mechanism", start_ok(mechanism=b"KERBEROS"))
_add("F41", START, "mechanism in small letters", start_ok(mechanism=b"plain"))
_add("F41", START, "mechanism without a name", start_ok(mechanism=b""))
_add("F41", START, "mechanism that is no UTF-8", start_ok(mechanism=b"\xff\xfe"))
_add("F41", START, "EXTERNAL without TLS", start_ok(b"guest", b"EXTERNAL"))
_add("F41", START, "wrong password", start_ok(b"\0guest\0wrong"))
_add("F41", START, "wrong password, not told", start_ok(b"\0guest\0wrong", is_told=False))
_add("F41", START, "unknown user", start_ok(b"\0nobody\0guest"))
_add("F41", START, "PLAIN without NUL", start_ok(b"guest"))
_add("F41", START, "PLAIN without anything", start_ok(b""))
_add("F41", START, "PLAIN with three NULs", start_ok(b"\0guest\0guest\0"))
_add("F41", START, "PLAIN with a NUL in the password", start_ok(b"\0guest\0gu\0est"))
_add("F41", START, "PLAIN for somebody else", start_ok(b"admin\0guest\0guest"))
_add("F41", START, "PLAIN that is no UTF-8", start_ok(b"\0\xff\xfe\0\xff"))
_add("F41", START, "PLAIN of 3,000 octets", start_ok(b"\0" + b"x" * 1500 + b"\0" + b"y" * 1499))
_add("F41", START, "AMQPLAIN", start_ok(encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:], b"AMQPLAIN"))
_add("F41", START, "AMQPLAIN that is no table", start_ok(b"rubbish", b"AMQPLAIN"))
_add("F41", START, "AMQPLAIN without a password", start_ok(encode_table({"LOGIN": "guest"})[4:], b"AMQPLAIN"))
_add("F41", START, "AMQPLAIN with a number", start_ok(encode_table({"LOGIN": "guest", "PASSWORD": 5})[4:], b"AMQPLAIN"))
_add("F41", START, "AMQPLAIN of 500 levels", start_ok(_nested(500)[4:], b"AMQPLAIN"))
_add("F41", START, "secure-ok that nobody asked for", method_frame(0, 10, 21, long_string(b"x")))
_add("F41", TUNE, "secure-ok after the login", method_frame(0, 10, 21, long_string(b"x")))

# -- F30: the connection's close --------------------------------------------------------------------------

_add("F30", START, "close before start-ok", _CONNECTION_CLOSE)
_add("F30", TUNE, "close before tune-ok", _CONNECTION_CLOSE)
_add("F30", VHOST, "close before open", _CONNECTION_CLOSE)
_add("F30", VHOST, "close with open", method_frame(0, 10, 40, short_string(b"/") + b"\0\0") + _CONNECTION_CLOSE)
_add("F30", OPEN, "close", _CONNECTION_CLOSE)
_add("F30", CHANNEL, "close with a channel", _CONNECTION_CLOSE)
_add("F30", CHANNEL, "close twice", _CONNECTION_CLOSE * 2)
_add("F30", CHANNEL, "close inside a content", _PUBLISH + header_frame(1, 5) + _CONNECTION_CLOSE)
_add("F30", CHANNEL, "more behind the close", _CONNECTION_CLOSE + _QOS + _PUBLISH + header_frame(1, 0))
_add("F30", CHANNEL, "close of an unknown code", method_frame(0, 10, 50, struct.pack(">H", 9999) + b"\0" + bytes(4)))
_add(
    "F30",
    CHANNEL,
    "close with a text that is no UTF-8",
    method_frame(0, 10, 50, struct.pack(">H", 200) + short_string(b"\xff\xfe") + bytes(4)),
)
_add("F30", CHANNEL, "close that crosses the broker's", method_frame(1, 50, 11, b"\1q" + bytes(8)) + _CONNECTION_CLOSE)
_add("F30", CHANNEL, "close-ok that nobody asked for", _CONNECTION_CLOSE_OK)
_add("F30", START, "close-ok before start-ok", _CONNECTION_CLOSE_OK)

# -- F31: the channel's close -----------------------------------------------------------------------------

_add("F31", CHANNEL, "channel.close", _CHANNEL_CLOSE)
_add("F31", CHANNEL, "channel.close twice", _CHANNEL_CLOSE * 2)
_add("F31", CHANNEL, "channel.close and open at once", _CHANNEL_CLOSE + _CHANNEL_OPEN)
_add("F31", CHANNEL, "channel.close-ok that nobody asked for", _CHANNEL_CLOSE_OK)
_add("F31", CHANNEL, "channel.close inside a content", _PUBLISH + header_frame(1, 5) + _CHANNEL_CLOSE)
_add("F31", CHANNEL, "channel.close that crosses the broker's", _MISSING + _CHANNEL_CLOSE, _CHANNEL_CLOSE_OK)
_add("F31", CHANNEL, "more behind what the channel is closed for", _MISSING + _QOS + _PUBLISH + header_frame(1, 0))
_add(
    "F31",
    CHANNEL,
    "a content cut by the broker's close",
    _MISSING + _PUBLISH + header_frame(1, 5) + body_frame(1, b"12"),
    _CHANNEL_CLOSE_OK + _CHANNEL_OPEN,
)
_add("F31", CHANNEL, "open before close-ok", _MISSING, _CHANNEL_OPEN)
_add("F31", CHANNEL, "open after close-ok", _MISSING, _CHANNEL_CLOSE_OK + _CHANNEL_OPEN + _QOS)
_add("F31", CHANNEL, "close-ok twice", _MISSING, _CHANNEL_CLOSE_OK * 2)
_add("F31", CHANNEL, "channel error and connection error at once", _MISSING + method_frame(2, 60, 10, bytes(7)))
