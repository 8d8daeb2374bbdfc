"""Frames and methods that nobody should send; what ends the stream without a word is not among them."""

from __future__ import annotations

from typing import Final

from tests.conformance.differential.fixed.notation import ask, declare
from tests.conformance.differential.steps import Program, Raw
from tests.conformance.differential.wire_client import content_frames, frame, method_frame
from txmsg.wire.constants import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, connection, exchange, queue
from txmsg.wire.properties import BasicProperties

__all__ = ["PROGRAMS"]

_PUBLISH: Final = method_frame(1, basic.Publish(0, "", "q"))
_HEADER: Final = b"\0\x3c\0\0\0\0\0\0\0\0\0\x02\0\0"
_CONTENT: Final = content_frames(5, basic.Publish(0, "", "q"), BasicProperties(), b"x")
_DELIVER: Final = method_frame(1, basic.Deliver("c", 1, False, "", "q"))
_GET_OK: Final = method_frame(1, basic.GetOk(1, False, "", "q", 0))
_RETURN: Final = method_frame(1, basic.Return(312, "NO_ROUTE", "", "q"))
_EMPTY: Final = frame(FRAME_HEADER, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0")
_QOS: Final = basic.Qos(0, 1, False).encode()


def _on(number: int, *methods: Method) -> tuple[Raw, ...]:
    """Each of these on a connection where channel 1 is open."""
    return tuple(Raw("a1", method_frame(number, method)) for method in methods)


PROGRAMS: Final = (
    Program(
        "methods in the wrong place",
        (
            *_on(
                5,
                basic.Qos(),
                queue.Declare(queue="q"),
                channel.Close(),
                channel.CloseOk(),
                channel.Flow(True),
                connection.Close(),
                connection.OpenOk(),
            ),
            *_on(
                0,
                basic.Qos(),
                queue.Declare(),
                channel.Open(),
                channel.Close(),
                connection.StartOk(),
                connection.TuneOk(0, 0, 0),
                connection.Open("/"),
                connection.OpenOk(),
                connection.Blocked("x"),
                connection.Unblocked(),
                connection.CloseOk(),
                connection.Start(),
                connection.Tune(0, 0, 0),
                connection.Secure(b"x"),
                connection.SecureOk(b"x"),
            ),
            *_on(
                1,
                channel.Open(),
                connection.Open("/"),
                connection.Close(),
                connection.StartOk(),
                basic.ConsumeOk("c"),
                basic.QosOk(),
                queue.DeclareOk("q", 0, 0),
                exchange.DeclareOk(),
                channel.OpenOk(),
                basic.GetEmpty(),
                basic.RecoverOk(),
                connection.Blocked("x"),
            ),
            *(Raw("a1", octets + _EMPTY) for octets in (_DELIVER, _GET_OK, _RETURN)),
            Raw("a1", method_frame(0, connection.UpdateSecret("s", "r"))),
        ),
    ),
    Program(
        "frames in the wrong place",
        (
            Raw("a1", _CONTENT),
            Raw("a1", frame(FRAME_HEADER, 1, _HEADER)),
            Raw("a1", frame(FRAME_BODY, 1, b"x")),
            Raw("a1", frame(FRAME_HEADER, 5, _HEADER)),
            Raw("a1", frame(FRAME_BODY, 5, b"x")),
            Raw("a1", _PUBLISH + _PUBLISH),
            Raw("a1", _PUBLISH + frame(FRAME_BODY, 1, b"x")),
            Raw("a1", _PUBLISH + method_frame(1, channel.Close())),
            Raw("a1", _PUBLISH + frame(FRAME_HEADER, 1, _HEADER) + _PUBLISH),
            Raw("a1", _PUBLISH + frame(FRAME_HEADER, 1, _HEADER) + frame(FRAME_HEADER, 1, _HEADER)),
            *ask(declare("q")),
            Raw(
                "a1",
                _PUBLISH
                + frame(FRAME_HEADER, 1, _HEADER)
                + frame(FRAME_BODY, 1, b"")
                + frame(FRAME_HEARTBEAT, 0, b"")
                + frame(FRAME_BODY, 1, b"a")
                + frame(FRAME_BODY, 1, b"b"),
            ),
        ),
        watches=False,
    ),
    Program(
        "frames that are none",
        (
            *(Raw("a1", frame(kind, 1, b"abc")) for kind in (0, 4, 5, 6, 7, 9, 65, 255)),
            *(Raw("a1", frame(kind, 0, b"")) for kind in (0, 4, 255)),
            Raw("a1", frame(FRAME_HEARTBEAT, 0, b"abc")),
            Raw("a1", frame(FRAME_METHOD, 1, b"")),
            Raw("a1", frame(FRAME_METHOD, 1, b"\0\x3c\0")),
            Raw("a1", frame(FRAME_METHOD, 1, _QOS)[:-1] + b"\0"),
            Raw("a1", frame(FRAME_METHOD, 1, _QOS)[:-1] + b"\xcf"),
            Raw("a1", frame(FRAME_METHOD, 1, _QOS + b"x")),
            Raw("a1", frame(FRAME_METHOD, 1, _QOS[:-1])),
            Raw("a1", frame(FRAME_METHOD, 1, b"\0\x32\0\x0a\0\0\x05abc")),
            Raw("a1", frame(FRAME_METHOD, 1, b"\0\x32\0\x0a\0\0\x03ab\xff\0\0\0\0\0")),
            Raw("a1", b"\x03\0\x01\xff\xff\xff\xff"),
            Raw("a1", b"\x03\0\x01\0\x02\0\x01"),
        ),
        has_texts=False,
    ),
)
