"""A connection that blocks: methods out, methods and contents in, and nothing of txmsg's own client.

Frames are taken apart here; only the codec of single methods and property lists is txmsg's.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from txmsg.wire.constants import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, PROTOCOL_HEADER
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, connection, decode_method
from txmsg.wire.properties import BasicProperties

__all__ = ["Account", "Incoming", "Lost", "WireClient", "content_frames", "frame", "method_frame"]

#: Seconds for an answer that must come.
LIMIT = 10.0

_FRAME = struct.Struct(">BHI")
_HEADER = struct.Struct(">HHQ")

CAPABILITIES: dict[str, bool] = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class Lost(Exception):
    """The broker has ended the stream."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where to connect, and as whom."""

    port: int
    virtual_host: str
    user: str = "guest"
    password: str = "guest"
    host: str = "127.0.0.1"


@dataclass(slots=True)
class Incoming:
    """A method, and its content if it has one."""

    channel: int
    method: Method
    properties: BasicProperties | None = None
    body: bytes = b""


class WireClient:
    """One open connection.

    A method may be sent by its frame only (:meth:`send`), and whatever comes is fetched with :meth:`receive`.
    """

    def __init__(self, account: Account, *, capabilities: dict[str, bool] | None = None) -> None:
        capabilities = CAPABILITIES if capabilities is None else capabilities
        self._buffer = b""
        self._partial: dict[int, Incoming] = {}
        self._missing: dict[int, int] = {}
        self._socket = socket.create_connection((account.host, account.port), LIMIT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write(PROTOCOL_HEADER)
        self._expect(connection.Start)
        response = f"\0{account.user}\0{account.password}".encode()
        self.send(0, connection.StartOk({"capabilities": capabilities}, "PLAIN", response, "en_US"))
        tune = self._expect(connection.Tune)
        self.send(0, connection.TuneOk(tune.channel_max, tune.frame_max, 0))
        self.send(0, connection.Open(account.virtual_host))
        self._expect(connection.OpenOk)

    def _expect(self, kind: type[Method]) -> Any:
        got = self.receive()
        if not isinstance(got.method, kind):
            self.abort()
            raise Lost(f"{got.method!r} instead of {kind.NAME}")
        return got.method

    # -- out ----------------------------------------------------------------------------------------------

    def write(self, octets: bytes) -> None:
        """As they are; it is no error when nobody reads them any more."""
        with contextlib.suppress(OSError):
            self._socket.sendall(octets)

    def send(self, channel: int, method: Method) -> None:
        """Write one method."""
        self.write(method_frame(channel, method))

    # -- in -----------------------------------------------------------------------------------------------

    def receive(self, seconds: float = LIMIT) -> Incoming:
        """The next method, with its content; :class:`Lost`, or TimeoutError."""
        until = time.monotonic() + seconds
        while True:
            kind, channel, payload = self._frame(until)
            if kind == FRAME_METHOD:
                got = Incoming(channel, decode_method(payload))
                if not got.method.HAS_CONTENT:
                    return got
                self._partial[channel] = got
            elif kind == FRAME_HEADER:
                self._missing[channel] = _HEADER.unpack_from(payload)[2]
                self._partial[channel].properties = BasicProperties.decode(payload[_HEADER.size :])
            elif kind == FRAME_BODY:
                self._partial[channel].body += payload
                self._missing[channel] -= len(payload)
            elif kind != FRAME_HEARTBEAT:
                raise AssertionError(f"a frame of kind {kind}")
            if self._missing.get(channel) == 0:
                del self._missing[channel]
                return self._partial.pop(channel)

    def _frame(self, until: float) -> tuple[int, int, bytes]:
        while True:
            if len(self._buffer) >= _FRAME.size:
                kind, channel, size = _FRAME.unpack_from(self._buffer)
                end = _FRAME.size + size + 1
                if len(self._buffer) >= end:
                    payload = self._buffer[_FRAME.size : end - 1]
                    assert self._buffer[end - 1] == 0xCE, "no frame end"
                    self._buffer = self._buffer[end:]
                    return kind, channel, payload
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            try:
                octets = self._socket.recv(1 << 18)
            except TimeoutError:
                raise
            except OSError as error:
                raise Lost(str(error)) from error
            if not octets:
                raise Lost("end of stream")
            self._buffer += octets

    # -- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """In good order."""
        self.send(0, connection.Close(200, "done", 0, 0))
        with contextlib.suppress(Lost, TimeoutError):
            while not isinstance(self.receive().method, connection.CloseOk):
                pass
        self._socket.close()

    def abort(self) -> None:
        """With a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def method_frame(channel: int, method: Method) -> bytes:
    """The frame of a method."""
    return frame(FRAME_METHOD, channel, method.encode())


def content_frames(channel: int, method: basic.Publish, properties: BasicProperties, body: bytes) -> bytes:
    """The frames of a publish."""
    header = _HEADER.pack(60, 0, len(body)) + properties.encode()
    frames = [method_frame(channel, method), frame(FRAME_HEADER, channel, header)]
    frames += [frame(FRAME_BODY, channel, body[at : at + 131064]) for at in range(0, len(body), 131064)]
    return b"".join(frames)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A frame of any kind."""
    return _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"
