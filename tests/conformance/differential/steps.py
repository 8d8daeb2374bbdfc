"""What programs are made of: one thing that a client does, on a connection and channel named "a1".

The letter names the connection, the digits its channel; both are opened when they are first used, and again after
they were closed.  Connections "l..." are those of user `limited`, "n..." say nothing of their capabilities.
After each step, unless it is `Now`, the player waits until everything has settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from txmsg.wire.layout import Method

__all__ = [
    "LAST_GENERATED",
    "Abort",
    "Call",
    "Close",
    "Now",
    "Program",
    "Publish",
    "Raw",
    "Reply",
    "Settle",
    "Step",
    "Wait",
]

#: As the name of a queue: the last one that the broker has named.
LAST_GENERATED = "<generated>"


@dataclass(frozen=True, slots=True)
class Call:
    """Send a method without content."""

    at: str
    method: Method


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a message."""

    at: str
    exchange: str
    routing_key: str
    body: bytes = b"x"
    mandatory: bool = False
    immediate: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settle:
    """Ack, nack or reject what the channel holds: outstanding delivery number `index`, as often round as needed.

    Nothing is sent when nothing is outstanding.  With `multiple` all up to that one's tag are meant.
    """

    at: str
    how: str = "ack"
    index: int = 0
    multiple: bool = False
    requeue: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Publish to where the last delivery that wanted a reply wants it; nothing when there was none."""

    at: str
    body: bytes = b"reply"
    exchange: str = ""
    mandatory: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """Write octets as they are."""

    at: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection in good order."""

    at: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Reset the connection."""

    at: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Several steps of one connection in one write."""

    steps: tuple[Call | Publish, ...]


Step: TypeAlias = Call | Publish | Settle | Reply | Raw | Close | Abort | Wait | Now


@dataclass(frozen=True, slots=True)
class Program:
    """Steps under a name.

    pause: float -- seconds to wait after each step, for what takes its time in RabbitMQ (quorum queues).
    has_texts: bool -- whether the texts of connection.close are compared; if not, only its code.
    watches: bool -- whether the depth of every queue is looked at after each step; that counts as use for x-expires.
    """

    name: str
    steps: tuple[Step, ...]
    watches: bool = True
    pause: float = 0.0
    has_texts: bool = True
