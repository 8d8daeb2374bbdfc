"""A client that sends anything: sessions that make sense, sessions that nearly do, and rubbish.

All from one seed, so that a session that does harm can be played again.  What it may touch begins with "fuzz"; the
name of the healthy client's queue is among those it tries.
"""

from __future__ import annotations

import random
import struct
from typing import Any

from txmsg.wire.constants import PROTOCOL_HEADER, Role
from txmsg.wire.layout import Argument, Method
from txmsg.wire.methods import METHODS, basic, channel, connection, queue

__all__ = ["NAMES", "PASSWORD", "PERMISSIONS", "USER", "FuzzClient"]

#: Who it is, and what it may: configure, write, read.
USER, PASSWORD = "mallory", "x"
PERMISSIONS = ("^(fuzz|amq\\.gen)", "^(fuzz|amq\\.gen|amq\\.fanout|amq\\.default)", "^(fuzz|amq\\.gen|amq\\.fanout)")

#: What it calls its queues, exchanges, keys and consumers; all that it may touch begins with "fuzz".
NAMES = (
    *("", "fuzz.1", "fuzz.2", "fuzz.3") * 4,
    "#",
    "*.1",
    "amq.fanout",
    "amq.rabbitmq.reply-to",
    "healthy",
    "\r\n",
    "ü" * 120,
)

_KEYS = (
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-priority",
    "x-overflow",
    "x-expires",
    "x-queue-type",
    "x-single-active-consumer",
    "x-priority",
    "x-match",
    "alternate-exchange",
    "CC",
    "BCC",
)
_VALUES: tuple[Any, ...] = (
    0,
    1,
    5,
    -1,
    2**40,
    1.5,
    True,
    None,
    "",
    "fuzz.1",
    "amq.fanout",
    "reject-publish",
    "quorum",
    "any",
    b"octets",
    [],
    ["fuzz.1", 5],
    {"a": {"b": []}},
)

_NUMBERS = (1, 2, 3)
_ALL_METHODS = [made for made in METHODS.values() if made.CLASS_ID != connection.Open.CLASS_ID]
_CLIENTS_METHODS = [
    made
    for made in _ALL_METHODS
    if Role.CLIENT in made.SENT_BY and made.CLASS_ID != channel.Open.CLASS_ID and not made.HAS_CONTENT
]


class FuzzClient:
    """Makes the octets of one session after another."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def session(self) -> list[bytes]:
        """The octets a client sends, in the pieces in which they come."""
        chance = self.random
        parts = [PROTOCOL_HEADER, *self.handshake()]
        parts += [self.frame(number, channel.Open().encode()) for number in _NUMBERS]
        parts += [self.act() for _ in range(chance.randint(1, 25))]
        if chance.random() < 0.3:
            parts.append(self.frame(0, connection.Close(reply_code=200).encode()))
        if chance.random() < 0.5:
            self.spoil(parts)
        if chance.random() < 0.1:
            return [octets[i : i + 1] for octets in parts[:8] for i in range(len(octets))]
        if chance.random() < 0.5:
            # The handshake is answered step by step, whatever is read: the wire wants it so.
            return [*parts[:4], b"".join(parts[4:])]
        return parts

    def handshake(self) -> list[bytes]:
        """start-ok, tune-ok, open."""
        start_ok = connection.StartOk(
            client_properties={"capabilities": {"connection.blocked": True, "consumer_cancel_notify": True}},
            response=f"\0{USER}\0{PASSWORD}".encode(),
        )
        tune_ok = connection.TuneOk(channel_max=self.random.choice((3, 256, 256)), frame_max=131072, heartbeat=0)
        return [self.frame(0, method.encode()) for method in (start_ok, tune_ok, connection.Open())]

    @staticmethod
    def frame(number: int, payload: bytes, kind: int = 1) -> bytes:
        """A frame."""
        return struct.pack(">BHI", kind, number, len(payload)) + payload + b"\xce"

    # -- what it does --------------------------------------------------------------------------------------

    def reopen(self, number: int) -> bytes:
        """The answer to a channel.close."""
        return self.frame(number, channel.CloseOk().encode()) + self.frame(number, channel.Open().encode())

    def act(self) -> bytes:
        """The octets of something that a client with open channels might do."""
        chance = self.random
        number = chance.choice(_NUMBERS)
        what = chance.random()
        if what < 0.35:
            return self._publish(number)
        if what < 0.5:
            declare = queue.Declare(queue=chance.choice(NAMES), arguments=self._table())
            return self.frame(number, declare.encode())
        if what < 0.6:
            consume = basic.Consume(queue=chance.choice(NAMES), no_ack=chance.random() < 0.5)
            return self.frame(number, consume.encode())
        if what < 0.95:
            return self.frame(number, self._method(chance.choice(_CLIENTS_METHODS)).encode())
        return self.frame(number, self._method(chance.choice(_ALL_METHODS)).encode())

    def rubbish(self) -> bytes:
        """A frame of anything."""
        chance = self.random
        kind, number = chance.choice((1, 2, 3, 8, 9)), chance.choice((0, *_NUMBERS, 300))
        return self.frame(number, chance.randbytes(chance.randint(0, 50)), kind)

    def _publish(self, number: int) -> bytes:
        chance = self.random
        method = basic.Publish(
            exchange=chance.choice(NAMES), routing_key=chance.choice(NAMES), mandatory=chance.random() < 0.3
        )
        size = chance.choice((0, 1, 10, 1000, 50_000))
        properties = chance.choice((b"\0\0", b"\x10\0\2", b"\x01\0\0055abcd", b"\x01\0\0025", chance.randbytes(6)))
        announced = size if chance.random() < 0.9 else chance.choice((size + 1, 2**63, 2**25, 0))
        header = struct.pack(">HHQ", 60, 0, announced) + properties
        body = self.frame(number, b"x" * size, 3) if size else b""
        return self.frame(number, method.encode()) + self.frame(number, header, 2) + body

    def _method(self, made: type[Method]) -> Method:
        return made(**{argument.name: self._argument(argument) for argument in made.ARGUMENTS})

    def _argument(self, argument: Argument) -> Any:
        chance = self.random
        match argument.kind:
            case "bit":
                return chance.random() < 0.3
            case "octet" | "short" | "long" | "longlong":
                return chance.choice((0, 1, 2, 5, 255))
            case "shortstr":
                if argument.name == "type":
                    return chance.choice(("direct", "topic", "fanout", "headers", "bad"))
                return chance.choice(NAMES)
            case "table":
                return self._table()
            case "longstr":
                return b"x"
            case _:
                return "x"

    def _table(self) -> dict[str, Any]:
        chance = self.random
        if chance.random() < 0.5:
            return {}
        return {chance.choice(_KEYS): chance.choice(_VALUES) for _ in range(chance.randint(1, 3))}

    # -- what is wrong with it -----------------------------------------------------------------------------

    def spoil(self, parts: list[bytes]) -> None:
        """Change some octets, somewhere."""
        chance = self.random
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(parts))
            octets = bytearray(parts[place])
            at = chance.randrange(len(octets)) if octets else 0
            match chance.randint(0, 5):
                case 0 if octets:
                    octets[at] ^= 1 << chance.randint(0, 7)
                case 1 if octets:
                    octets[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 2:
                    del octets[at : at + chance.randint(1, 8)]
                case 3:
                    octets[at:at] = chance.randbytes(chance.randint(1, 8))
                case 4:
                    parts.insert(place, parts[chance.randrange(len(parts))])
                case _:
                    octets[at : at + 4] = b"\xff\xff\xff\xff"
            parts[place] = bytes(octets)
