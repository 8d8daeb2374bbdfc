"""Bindings: what leads from an exchange to a queue or to another exchange.

AMQP 0-9-1 section 3.1.3, and RabbitMQ's https://www.rabbitmq.com/docs/e2e.

Two bindings are the same when the two ends, the binding key and the arguments are.  Arguments are compared as
RabbitMQ does: their order does not matter, the kind of a number does (1 sent in 32 bits is not 1 sent in 64).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from txmsg.broker.faults import kind_of

__all__ = ["EXCHANGE", "NO_ARGUMENTS", "QUEUE", "Binding", "identity_of"]

#: The two kinds of destination.
QUEUE: Final = "queue"
EXCHANGE: Final = "exchange"

#: What bindings without arguments share; not to be changed.
NO_ARGUMENTS: Final[dict[str, Any]] = {}


def identity_of(value: object) -> object:
    """Something hashable that is equal for two field values exactly when kind and value are.

    Tables nested in it are compared whatever their order.  The depth is bounded by what the wire accepts.
    """
    if isinstance(value, Mapping):
        return ("table", frozenset((str(name), identity_of(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ("array", tuple(identity_of(item) for item in value))
    kind = kind_of(value)
    if isinstance(value, Decimal):
        return (kind, value.as_tuple())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return (kind, bytes(value))
    if isinstance(value, int):
        return (kind, int(value))
    return (kind, value)


class Binding:
    """One binding.  Nothing of it changes; hashable.

    source: str -- the exchange.
    destination: str, destination_type: "queue" or "exchange".
    routing_key: str -- the binding key, which is a pattern for a topic exchange.
    arguments: Mapping[str, Any] -- what a headers exchange compares.
    """

    __slots__ = ("_hash", "_identity", "arguments", "destination", "destination_type", "routing_key", "source")

    def __init__(
        self,
        source: str,
        destination: str,
        destination_type: str,
        routing_key: str,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.destination = destination
        self.destination_type = destination_type
        self.routing_key = routing_key
        self.arguments: Mapping[str, Any] = dict(arguments) if arguments else NO_ARGUMENTS
        self._identity = identity_of(self.arguments) if arguments else None
        self._hash = hash((source, destination, destination_type, routing_key, self._identity))

    @property
    def is_to_queue(self) -> bool:
        """False: it leads to another exchange."""
        return self.destination_type == QUEUE

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Binding):
            return NotImplemented
        return (
            self._hash == other._hash
            and self.source == other.source
            and self.destination == other.destination
            and self.destination_type == other.destination_type
            and self.routing_key == other.routing_key
            and self._identity == other._identity
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        more = f", {len(self.arguments)} arguments" if self.arguments else ""
        to = f"{self.destination_type} {self.destination!r}"
        return f"<Binding of {to} to exchange {self.source!r}, key {self.routing_key!r}{more}>"
