"""A hostile client beside a healthy one: what every test here asserts in the end.

:class:`BesideCase` has a broker on a clock.  Whatever a test lets a client do, `leave_no_trace` then asserts that a
second one, which was there all the time, publishes and consumes as before, and that nothing is left of the first:
no connection, queue, consumer, unsettled delivery, timer, or byte that counts.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.server import Broker
from txmsg.wire.methods import channel, connection

__all__ = [
    "BesideCase",
    "body_frame",
    "frame",
    "header_frame",
    "long_string",
    "method_frame",
    "short_string",
    "table",
    "timed",
]

#: Rounds of the reactor that a chunk may take: each is a turn of 50 ms at most.
_ROUNDS = 2000


def frame(kind: int, number: int, payload: bytes) -> bytes:
    """A frame."""
    return struct.pack(">BHI", kind, number, len(payload)) + payload + b"\xce"


def method_frame(number: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """A method, with its arguments as octets."""
    return frame(1, number, struct.pack(">HH", class_id, method_id) + arguments)


def header_frame(number: int, size: int, properties: bytes = b"\0\0", class_id: int = 60, weight: int = 0) -> bytes:
    """A content header; `properties` with the flags."""
    return frame(2, number, struct.pack(">HHQ", class_id, weight, size) + properties)


def body_frame(number: int, body: bytes) -> bytes:
    """A part of a body."""
    return frame(3, number, body)


def short_string(text: bytes) -> bytes:
    """A short string."""
    return bytes([len(text)]) + text


def long_string(text: bytes) -> bytes:
    """A long string."""
    return struct.pack(">I", len(text)) + text


def table(*pairs: tuple[bytes, bytes]) -> bytes:
    """A field table of (name, octets of the value with its type)."""
    return long_string(b"".join(short_string(name) + value for name, value in pairs))


class BesideCase(SynchronousTestCase):
    """A broker, a healthy client and room for others."""

    #: Limits of the broker.
    limits: dict[str, Any] = {}

    def setUp(self) -> None:
        """The healthy client has a queue and consumes from it."""
        self.clock = Clock()
        self.broker: Broker = make_broker(self.clock, **self.limits)
        self.vhost = self.broker.vhosts["/"]
        self.healthy = Peer(self.broker).open()
        self.healthy.open_channel(1)
        self.healthy.declare("healthy")
        self.healthy.consume("healthy", no_ack=True)
        self._rounds = 0
        self.before = self.state()
        self.round_trip()

    def state(self) -> dict[str, Any]:
        """What a client could leave behind."""
        vhost = self.vhost
        return {
            "connections": len(self.broker.connections),
            "strangers": self.broker.admission.unauthenticated,
            "queues": sorted(vhost.queues),
            "exchanges": sorted(vhost.exchanges),
            "bindings": vhost.binding_count,
            "topology": vhost.topology_bytes,
            "bytes": self.broker.usage.bytes,
            "consumers": sum(found.consumer_count for found in vhost.queues.values()),
            "unacked": sum(found.unacked_count for found in vhost.queues.values()),
            "timers": self._timers(),
        }

    def _timers(self) -> list[str]:
        """What waits for its time; one that is set again and again is the same."""
        calls: list[Any] = [*self.clock.getDelayedCalls()]
        return sorted(call.func.__qualname__ for call in calls if call.getTime() > self.clock.seconds())

    def attacker(self, *, channels: int = 1, **options: Any) -> Peer:
        """Another client, logged in, with open channels."""
        peer = Peer(self.broker).open(**options)
        for number in range(1, channels + 1):
            peer.open_channel(number)
        return peer

    def round_trip(self) -> None:
        """The healthy client publishes, and gets it."""
        self._rounds += 1
        body = b"round %d" % self._rounds
        self.healthy.publish(body, "healthy")
        self.settle(self.healthy)
        self.assertEqual([event[-1] for event in self.healthy.contents], [body])
        self.healthy.contents.clear()
        self.assertEqual(self.healthy.methods, [])

    def settle(self, peer: Peer) -> None:
        """Let turns pass until everything that `peer` has sent is worked off, or waits for more than a turn."""
        connection_ = peer.connection
        for _ in range(_ROUNDS):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                break
            self.clock.advance(0)
            peer.pump()
        else:
            self.fail(f"{connection_!r} keeps the broker busy")
        peer.pump()

    def feed(self, peer: Peer, data: bytes, chunk: int = 65536) -> None:
        """Send octets as a socket would bring them, as long as the broker reads."""
        for start in range(0, len(data), chunk):
            peer.send_raw(data[start : start + chunk])
            self.settle(peer)

    def leave_no_trace(self, *peers: Peer, delete: Sequence[str] = ()) -> None:
        """The others go, what they declared for good is deleted, and all is as before."""
        self.round_trip()
        for peer in peers:
            if not peer.is_lost:
                peer.lose()
        for name in delete:
            self.vhost.delete_queue(name)
        self.settle(self.healthy)
        self.assertEqual(self.state(), self.before)
        self.round_trip()

    def closed(self, peer: Peer) -> tuple[str, int, str]:
        """How the broker's last word reads: ("connection" or "channel", code, text); ("silence", 0, "") for none."""
        for _, method in reversed(peer.methods):
            if isinstance(method, connection.Close):
                return ("connection", method.reply_code, method.reply_text)
            if isinstance(method, channel.Close):
                return ("channel", method.reply_code, method.reply_text)
        return ("silence", 0, "")


class timed:
    """A limit on processor time for what is in its block: seconds, generous, for what would otherwise take minutes."""

    def __init__(self, case: SynchronousTestCase, seconds: float) -> None:
        self._case = case
        self._seconds = seconds

    def __enter__(self) -> None:
        self._began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self._case.assertLess(time.process_time() - self._began, self._seconds)
