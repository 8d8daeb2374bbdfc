"""The end of a connection on a real socket: what unread octets do to a close is up to the operating system."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from tests.broker.hostile.beside import body_frame, header_frame, method_frame
from tests.broker.hostile.transcript import start_ok
from txmsg.testing import BrokerProcess
from txmsg.wire.constants import PROTOCOL_HEADER

_TUNE_OK = method_frame(0, 10, 31, struct.pack(">HIH", 100, 131072, 0))
_OPEN = method_frame(0, 10, 40, b"\1/\0\0")
_CHANNEL = method_frame(1, 20, 10, b"\0")
_FRAME = b"\xce"
_CLOSE = method_frame(0, 10, 50, b"\0\xc8\0\0\0\0\0")
_CLOSE_OK = method_frame(0, 10, 51)
_PUBLISH = method_frame(1, 60, 40, b"\0\0\0\1q\0") + header_frame(1, 100_000) + body_frame(1, bytes(100_000))


def test_publishes_behind_the_close() -> None:
    """F30: npm's amqplib sends channel 0 first: its close-ok must come although publishes of channels come behind."""
    with BrokerProcess() as broker, socket.create_connection(("127.0.0.1", broker.port), timeout=10) as stream:
        steps = ((PROTOCOL_HEADER, _FRAME), (start_ok(), _FRAME), (_TUNE_OK + _OPEN, _FRAME), (_CHANNEL, _FRAME))
        for octets, answer in steps:
            stream.sendall(octets)
            received = b""
            while not received.endswith(answer):
                received += stream.recv(65536) or pytest.fail(f"closed after {received!r}")
        stream.sendall(_CLOSE)
        for _ in range(20):
            stream.sendall(_PUBLISH)
        received = b""
        with contextlib.suppress(ConnectionError):
            while octets := stream.recv(65536):
                received += octets
        assert received == _CLOSE_OK
