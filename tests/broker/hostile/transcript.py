"""What a broker answers to octets, in words: so that two brokers can be compared.

A script is sent at a stage of the conversation, and the broker's methods are written down, each as one line, in the
order in which they came; the last line says what then became of the connection:

    open     it goes on, and opens a channel that nobody has opened before
    waiting  not open yet, and waiting for more
    closed   the broker has closed the socket, or has answered close with close-ok: who closes the socket then is no
             matter

The client answers connection.close with close-ok, and that is all it does by itself.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Final, Protocol

from tests.broker.hostile.beside import method_frame
from tests.broker.server_peer import CAPABILITIES, Peer
from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import PROTOCOL_HEADER
from txmsg.wire.layout import Method
from txmsg.wire.methods import METHODS, basic, channel, connection
from txmsg.wire.tables import encode_table

__all__ = ["CHANNEL", "OPEN", "START", "TUNE", "VHOST", "Conversation", "PeerStream", "SocketStream", "start_ok"]

#: Where a script begins: after connection.start, after tune, after tune-ok, with the connection open, with channel 1.
START, TUNE, VHOST, OPEN, CHANNEL = "start", "tune", "vhost", "open", "channel"

_PROBE: Final = 7


def start_ok(
    response: bytes = b"\0guest\0guest", mechanism: bytes = b"PLAIN", *, is_told: bool = True, properties: bytes = b""
) -> bytes:
    """connection.start-ok; `properties` is a table with its length.

    is_told -- with the capability to be told of a refusal.
    """
    properties = properties or encode_table({"capabilities": CAPABILITIES} if is_told else {})
    arguments = bytes([len(mechanism)]) + mechanism + struct.pack(">I", len(response)) + response
    return method_frame(0, 10, 11, properties + arguments + b"\5en_US")


_TUNE_OK: Final = method_frame(0, 10, 31, struct.pack(">HIH", 100, 131072, 0))
_OPEN: Final = method_frame(0, 10, 40, b"\1/\0\0")
_CLOSE_OK: Final = method_frame(0, 10, 51)


def _told(method: Method) -> str:
    """What a close or a return says."""
    if isinstance(method, connection.Close | channel.Close):
        return f" {method.reply_code} {method.reply_text} ({method.class_id}, {method.method_id})"
    assert isinstance(method, basic.Return)
    return f" {method.reply_code} {method.reply_text}"


class Stream(Protocol):
    """The octets to a broker and back."""

    def send(self, octets: bytes) -> None:
        """Send; nothing happens where the broker has closed."""

    def receive(self, is_last: bool) -> bytes | None:
        """More octets, b"" if there will be none for now, None if the broker has closed.

        is_last: whether the broker may take as long as it likes.
        """

    def close(self) -> None:
        """Go."""


class PeerStream:
    """A broker in this process, on a clock."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._waited = 0

    def send(self, octets: bytes) -> None:
        """Stream."""
        if not self._peer.is_lost:
            self._peer.server.dataReceived(octets)

    def receive(self, is_last: bool) -> bytes | None:
        """Stream."""
        peer = self._peer
        # Half a second, for what takes turns; six for what is told late.
        for _ in range(24 if is_last else 2):
            octets: bytes = peer.transport.value()
            peer.transport.clear()
            if octets:
                return octets
            # It says when the socket is closed, too.
            peer.pump()
            if peer.is_lost:
                return None
            peer.broker.reactor.advance(0.25)
        return b""

    def close(self) -> None:
        """Stream."""
        if not self._peer.is_lost:
            self._peer.lose()


class SocketStream:
    """A broker at a port of this machine.

    patience: float -- seconds without an octet after which nothing is expected any more.
    """

    def __init__(self, port: int, patience: float = 5.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._patience = patience

    def send(self, octets: bytes) -> None:
        """Stream."""
        with contextlib.suppress(OSError):
            self._socket.sendall(octets)

    def receive(self, is_last: bool) -> bytes | None:
        """Stream."""
        self._socket.settimeout(self._patience if is_last else 0.3)
        try:
            return self._socket.recv(65536) or None
        except TimeoutError:
            return b""
        except OSError:
            return None

    def close(self) -> None:
        """Stream."""
        self._socket.close()


class Conversation:
    """One connection over a stream, up to a stage.

    lines: list of str -- the transcript since then.
    """

    def __init__(self, stream: Stream, stage: str) -> None:
        self._stream = stream
        self._octets = b""
        self._is_closed = False
        self.stage = stage
        self.lines: list[str] = []
        steps = [
            (PROTOCOL_HEADER, "connection.start"),
            (start_ok(), "connection.tune"),
            (_TUNE_OK, ""),
            (_OPEN, "connection.open-ok"),
            (method_frame(1, 20, 10, b"\0"), "channel.open-ok 1"),
        ]
        for octets, answer in steps[: [START, TUNE, VHOST, OPEN, CHANNEL].index(stage) + 1]:
            stream.send(octets)
            if answer:
                self._read_until(answer)
        self.lines.clear()

    def play(self, *scripts: bytes, chunk: int = 0) -> tuple[str, ...]:
        """Send the scripts, each after the broker has answered the one before; the transcript."""
        for script in scripts[:-1]:
            self._send(script, chunk)
            self._read(is_last=False)
        self._send(scripts[-1], chunk)
        if self.stage in (OPEN, CHANNEL):
            # Where the connection does not survive the script this is in nobody's way.
            self._read(is_last=False)
            if not self._is_closed:
                self._stream.send(method_frame(_PROBE, 20, 10, b"\0"))
                self._read_until(f"channel.open-ok {_PROBE}")
                if self.lines and self.lines[-1] == f"channel.open-ok {_PROBE}":
                    return (*self.lines[:-1], "open")
        else:
            self._read(is_last=True)
        return (*self.lines, "closed" if self._is_closed else "waiting")

    def _send(self, script: bytes, chunk: int) -> None:
        for start in range(0, len(script), chunk or len(script) or 1):
            self._stream.send(script[start : start + (chunk or len(script))])

    def _read(self, *, is_last: bool) -> None:
        ends = time.monotonic() + 20
        while not self._is_closed and time.monotonic() < ends:
            octets = self._stream.receive(is_last)
            if octets is None:
                self._is_closed = True
            elif not octets:
                return
            else:
                self._take(octets)

    def _read_until(self, line: str) -> None:
        ends = time.monotonic() + 20
        while not self._is_closed and line not in self.lines and time.monotonic() < ends:
            octets = self._stream.receive(True)
            if octets is None:
                self._is_closed = True
            elif not octets:
                return
            else:
                self._take(octets)

    def _take(self, octets: bytes) -> None:
        self._octets += octets
        while self._octets:
            if self._octets.startswith(b"AMQP"):
                self.lines.append(repr(self._octets[:8]))
                self._octets = self._octets[8:]
                continue
            if len(self._octets) < 7:
                return
            kind, number, size = struct.unpack_from(">BHI", self._octets)
            if len(self._octets) < size + 8:
                return
            payload, self._octets = self._octets[7 : size + 7], self._octets[size + 8 :]
            if kind == 1:
                self._method(number, payload)
            elif kind == 3:
                self.lines.append(f"body {number} {payload[:20]!r}")

    def _method(self, number: int, payload: bytes) -> None:
        ids = struct.unpack_from(">HH", payload)
        kind = METHODS[ids]
        line = kind.NAME if not number else f"{kind.NAME} {number}"
        if kind in (connection.Close, channel.Close, basic.Return):
            try:
                method = kind.decode(payload)
            except RemoteProtocolError:
                line += " undecodable"
            else:
                line += _told(method)
        self.lines.append(line)
        if kind is connection.Close:
            self._stream.send(_CLOSE_OK)
        elif kind is connection.CloseOk:
            self._is_closed = True
            self._octets = b""
