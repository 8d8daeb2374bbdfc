"""binding: a queue's, or an exchange's, wish to get what is published to an exchange with a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from twisted.internet.defer import Deferred, succeed

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.entities.exchange import Exchange
from txmsg.messaging.entities.fields import frozen, name, table

if TYPE_CHECKING:
    from txmsg.messaging.entities.queue import Queue

__all__ = ["binding"]


class binding:  # noqa: N801 - the name it is known by
    """One binding of a queue, or of an exchange to another one.

    exchange: Exchange | str | None -- where messages come from; None or "": the default exchange, which every queue is
        bound to by its name, so that nothing is to be done.
    routing_key: str -- the binding key.
    arguments: dict | None -- for a headers exchange what has to match.
    unbind_arguments: dict | None -- to take it away with; None: `arguments`.
    """

    def __init__(
        self,
        exchange: Exchange | str | None = None,
        routing_key: str | None = "",
        arguments: Mapping[str, Any] | None = None,
        unbind_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if exchange is not None and not isinstance(exchange, Exchange | str):
            raise ConfigurationError(f"exchange is {clip(repr(exchange))}: give an Exchange, its name, or None")
        self.exchange = exchange if isinstance(exchange, Exchange) else Exchange(exchange or "")
        self.routing_key = name("routing_key", routing_key or "")
        self.arguments = table("arguments", arguments)
        self.unbind_arguments = table("unbind_arguments", unbind_arguments)

    def declare(self, channel: Any, nowait: bool = False) -> Deferred[None]:
        """Declare the exchange."""
        return self.exchange.declare(channel=channel, nowait=nowait)

    def bind(self, entity: Queue | Exchange, nowait: bool = False, channel: Any = None) -> Deferred[None]:
        """Bind a queue, or an exchange, this way."""
        return entity.bind_to(self.exchange, self.routing_key, self.arguments, nowait=nowait, channel=channel)

    def unbind(self, entity: Queue | Exchange, nowait: bool = False, channel: Any = None) -> Deferred[None]:
        """Take it away again."""
        if not self.exchange.name:
            return succeed(None)
        arguments = self.arguments if self.unbind_arguments is None else self.unbind_arguments
        return entity.unbind_from(self.exchange, self.routing_key, arguments=arguments, nowait=nowait, channel=channel)

    def definition(self) -> tuple[Any, ...]:
        """All that the broker is told of it, as something that can be hashed and holds no channel."""
        return ("binding", self.exchange.definition(), self.routing_key, frozen(self.arguments))

    def _identity(self) -> tuple[Any, ...]:
        return (*self.definition(), frozen(self.unbind_arguments))

    def as_dict(self, recurse: bool = False) -> dict[str, Any]:
        """Its fields by name; recurse: the exchange as its fields, too, so that JSON can carry it."""
        return {
            "exchange": self.exchange.as_dict(recurse=True) if recurse else self.exchange,
            "routing_key": self.routing_key,
            "arguments": None if self.arguments is None else dict(self.arguments),
            "unbind_arguments": None if self.unbind_arguments is None else dict(self.unbind_arguments),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The binding that :meth:`as_dict` gave.  ConfigurationError: a name that is none of its fields."""
        unknown = sorted(set(fields) - {"exchange", "routing_key", "arguments", "unbind_arguments"})
        if unknown:
            raise ConfigurationError(f"a binding has no {clip(', '.join(map(str, unknown)))}: leave it out")
        given = dict(fields)
        if isinstance(given.get("exchange"), Mapping):
            given["exchange"] = Exchange.from_dict(given["exchange"])
        return cls(**given)

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, binding) else NotImplemented

    def __hash__(self) -> int:
        return hash(("binding", self.exchange.name, self.routing_key))

    def __str__(self) -> str:
        return f"{clip(self.exchange.name)!r} -> {clip(self.routing_key)!r}"

    def __repr__(self) -> str:
        return f"<binding {self}>"
