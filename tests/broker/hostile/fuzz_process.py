"""Hostile sessions over sockets, one after the other, for some seconds.

    python -m tests.broker.hostile.fuzz_process PORT SEED SECONDS

Writes the seed of each session before it begins; a session is `play(port, seed)`.  Every session is over in a second,
whatever the broker does; its last line says how many there were.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator

from tests.broker.hostile.fuzz_client import FuzzClient
from txmsg.wire.constants import PROTOCOL_HEADER
from txmsg.wire.methods import basic, channel, queue

__all__ = ["Session", "main", "play"]

#: Seconds that a session takes at most.
_LIMIT = 1.0
_CHANNELS = (1, 2, 3)


class Session:
    """One socket."""

    def __init__(self, port: int, seed: int) -> None:
        self.client = FuzzClient(seed)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_LIMIT)
        self.ends = time.monotonic() + _LIMIT
        self._received = b""

    def send(self, octets: bytes) -> None:
        """Send what the broker takes until the session's time is over."""
        self.socket.settimeout(max(0.01, self.ends - time.monotonic()))
        self.socket.sendall(octets)

    def methods(self, timeout: float) -> Iterator[tuple[int, int, int]]:
        """(channel, class id, method id) of what the broker sends until it is silent for `timeout` seconds."""
        while time.monotonic() < self.ends:
            self.socket.settimeout(timeout)
            try:
                received = self.socket.recv(65536)
            except TimeoutError:
                return
            if not received:
                raise ConnectionError
            self._received += received
            while len(self._received) >= 7:
                kind, number, size = struct.unpack_from(">BHI", self._received)
                if len(self._received) < size + 8:
                    break
                if kind == 1:
                    yield (number, *struct.unpack_from(">HH", self._received, 7))
                self._received = self._received[size + 8 :]

    def until(self, class_id: int, method_id: int) -> None:
        """Read up to such a method."""
        for _, *ids in self.methods(_LIMIT):
            if ids == [class_id, method_id]:
                return
        raise ConnectionError

    # -- what kinds there are ------------------------------------------------------------------------------

    def open(self) -> None:
        """Log in, and open the channels."""
        start_ok, tune_ok, open_ = self.client.handshake()
        self.send(PROTOCOL_HEADER)
        self.until(10, 10)
        self.send(start_ok)
        self.until(10, 30)
        self.send(tune_ok + open_)
        self.until(10, 41)
        self.send(b"".join(self.client.frame(number, channel.Open().encode()) for number in _CHANNELS))
        self.until(20, 11)

    def by_turns(self) -> None:
        """Something that nearly makes sense, with its channels opened again whenever they were closed; then madness."""
        self.open()
        for _ in range(self.client.random.randint(5, 80)):
            self.send(self.client.act())
            for number, *ids in self.methods(0.0005):
                if ids == [20, 40]:
                    self.send(self.client.reopen(number))
        parts = [self.client.act() if self.client.random.random() < 0.7 else self.client.rubbish() for _ in range(10)]
        self.client.spoil(parts)
        self.send(b"".join(parts))
        for _ in self.methods(0.01):
            pass

    def blindly(self) -> None:
        """A session that reads nothing, in its pieces."""
        for octets in self.client.session():
            self.send(octets)

    def rubbish(self) -> None:
        """Octets of chance, after the protocol header or not."""
        if self.client.random.random() < 0.7:
            self.send(PROTOCOL_HEADER)
        self.send(self.client.random.randbytes(self.client.random.randint(1, 5000)))
        for _ in self.methods(0.01):
            pass

    def without_reading(self) -> None:
        """Asks for much, and takes nothing of it."""
        self.open()
        frame = self.client.frame
        publish = basic.Publish(routing_key="fuzz.1").encode()
        header = struct.pack(">HHQH", 60, 0, 100_000, 0)
        message = frame(1, publish) + frame(1, header, 2) + frame(1, bytes(100_000), 3)
        self.send(frame(1, queue.Declare(queue="fuzz.1", nowait=True).encode()))
        self.send(frame(2, basic.Consume(queue="fuzz.1", no_ack=True, nowait=True).encode()))
        self.send(message * 20 + frame(3, basic.Get(queue="fuzz.1", no_ack=True).encode()) * 1000)
        time.sleep(0.1)

    def flood(self) -> None:
        """Thousands of frames that cost next to nothing to send."""
        self.open()
        frame, chance = self.client.frame, self.client.random
        one = chance.choice(
            (
                frame(0, b"", 8),
                frame(1, basic.Qos(prefetch_count=1).encode()),
                frame(1, queue.Declare(queue="fuzz.2").encode()),
                frame(1, basic.Publish(routing_key="fuzz.2").encode()) + frame(1, struct.pack(">HHQH", 60, 0, 0, 0), 2),
                frame(1, basic.Recover(requeue=True).encode()),
                frame(1, queue.Declare(queue="").encode()),
            )
        )
        self.send(one * 5000)
        for _ in self.methods(0.1):
            pass


def play(port: int, seed: int) -> None:
    """One session, whatever becomes of it."""
    try:
        session = Session(port, seed)
    except OSError:
        # As many as may be are there already, in the broker's eyes.
        time.sleep(0.05)
        return
    with session.socket:
        kinds = (
            *(session.by_turns,) * 8,
            *(session.blindly,) * 4,
            *(session.rubbish,) * 2,
            session.without_reading,
            session.flood,
        )
        with contextlib.suppress(OSError):
            kinds[seed % len(kinds)]()


def main(arguments: list[str]) -> None:
    """Play sessions."""
    port, seed, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        print(f"seed {seed + count}", flush=True)  # noqa: T201
        play(port, seed + count)
        count += 1
    print(f"{count} sessions")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
