"""The server's side of one connection as frames, read and written with pamqp, and what can be done to it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pamqp import commands
from pamqp import frame as frames
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from tests.conformance.minibroker import MiniBroker, ServerChannel

#: (session, channel number, what was received) -> whether the normal handling is to be left out.
Interceptor = Callable[["Session", int, Any], bool]


def ignore(session: Session, number: int, received: Any) -> bool:
    """An interceptor: no answer."""
    return True


def instead(do: Callable[[Session], object]) -> Interceptor:
    """An interceptor that does this in place of the normal handling."""

    def intercept(session: Session, number: int, received: Any) -> bool:
        do(session)
        return True

    return intercept


def finish(session: Session) -> None:
    """End the connection in good order: FIN after what was written."""
    session.transport.loseConnection()


def stay_silent(session: Session) -> None:
    """Leave the connection open and say nothing."""


class Session(Protocol):
    """The server's side of one connection: frames in and out.  Handling is in ServerSession."""

    transport: Any

    def __init__(self, broker: MiniBroker) -> None:
        self.broker = broker
        #: Every method received, with its channel number.
        self.received: list[tuple[int, Any]] = []
        self.heartbeats = 0
        self.channels: dict[int, ServerChannel] = {}
        self.frame_max = 131072
        self.tuned: tuple[int, int, int] | None = None
        self.is_closing = False
        #: Set to stop reading what the client says, as a stalled broker does.
        self.is_deaf = False
        self.is_lost = False
        self.gone: Deferred[None] = Deferred()
        #: Bytes written, and whether `MiniBroker.cut_after` has ended that.
        self.written = 0
        self.is_cut = False
        self._buffer = b""
        self._header_seen = False

    def connectionMade(self) -> None:
        self.broker.sessions.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.gone.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if self.is_deaf:
            return
        try:
            self._received(data)
        except Exception:
            self.broker.errors.append(Failure())
            self.hang_up()

    def _received(self, data: bytes) -> None:
        self._buffer += data
        if not self._header_seen:
            if len(self._buffer) < 8:
                return
            header, self._buffer = self._buffer[:8], self._buffer[8:]
            self._header_seen = True
            self.header_received(header)
        while len(self._buffer) >= 7:
            kind, number, size = struct.unpack(">BHI", self._buffer[:7])
            if len(self._buffer) < size + 8:
                break
            raw, self._buffer = self._buffer[: size + 8], self._buffer[size + 8 :]
            assert raw[-1] == 0xCE, "the client sent a frame without its end octet"
            assert size + 8 <= self.frame_max, f"the client sent a frame of {size + 8} bytes"
            if kind == 8:
                assert raw == b"\x08\x00\x00\x00\x00\x00\x00\xce"
                self.heartbeats += 1
            elif kind == 1:
                method: Any = frames.unmarshal(raw)[2]
                self.received.append((number, method))
                self.method_received(number, method)
            else:
                self.content_received(kind, number, raw[7:-1])
            if self.is_deaf:
                return
        self.turn_ended()

    def header_received(self, header: bytes) -> None:
        raise NotImplementedError

    def method_received(self, number: int, method: Any) -> None:
        raise NotImplementedError

    def content_received(self, kind: int, number: int, payload: bytes) -> None:
        raise NotImplementedError

    def turn_ended(self) -> None:
        """All bytes at hand were handled."""

    def names(self) -> list[str]:
        """The names of the methods received, in order."""
        return [method.name for _, method in self.received]

    def last(self, name: str) -> Any:
        """The last method received of that name."""
        return next(method for _, method in reversed(self.received) if method.name == name)

    def send(self, number: int, *methods: Any) -> None:
        """Write method frames, in one piece."""
        self.write(b"".join(frames.marshal(method, number) for method in methods))

    def send_content(self, number: int, method: Any, properties: bytes, body: bytes) -> None:
        """Write a method with content; `properties` are the bytes of the property list."""
        parts = [frames.marshal(method, number)]
        header = struct.pack(">HHQ", 60, 0, len(body)) + properties
        parts.append(struct.pack(">BHI", 2, number, len(header)) + header + b"\xce")
        step = self.frame_max - 8
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            parts.append(struct.pack(">BHI", 3, number, len(piece)) + piece + b"\xce")
        self.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        if self.is_lost or self.is_cut:
            return
        limit = self.broker.cut_after
        if limit is not None and self.written + len(data) >= limit:
            data = data[: limit - self.written]
            self.is_cut = True
        self.written += len(data)
        self.transport.write(data)
        if self.is_cut:
            self.broker.cut(self)

    def hang_up(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    def close_connection(self, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Send connection.close."""
        self.is_closing = True
        self.send(0, commands.Connection.Close(code, text, class_id, method_id))

    def close_channel(
        self, channel: ServerChannel, code: int, text: str, class_id: int = 0, method_id: int = 0
    ) -> None:
        """Send channel.close; what the client still sends is ignored until its close-ok."""
        raise NotImplementedError
