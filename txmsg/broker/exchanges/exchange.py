"""What all exchanges have in common.

AMQP 0-9-1 section 3.1.3 ("Exchange types"); https://www.rabbitmq.com/docs/exchanges.

An exchange knows the bindings of which it is the source, and answers where a message goes: to queues and to other
exchanges.  It does not go on from there: following exchanges, alternate exchanges and dropping repeats is the
virtual host's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Union

from txmsg.broker.vhost.footprint import BINDING, cost_of

if TYPE_CHECKING:
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.bindings import Binding
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["ALTERNATE_EXCHANGE", "Destination", "Destinations", "Exchange", "Headers"]

ALTERNATE_EXCHANGE = "alternate-exchange"

#: Where a binding leads.
Destination: TypeAlias = Union["Queue", "Exchange"]  # names that exist for type checkers only
#: The headers of a message, as far as a headers exchange is concerned.
Headers: TypeAlias = Mapping[str, Any]


class Destinations(dict[Destination, int]):
    """Where bindings lead, each destination once, with the number of the bindings that lead there."""

    __slots__ = ()

    def count_in(self, destination: Destination) -> None:
        """One more binding leads to it."""
        self[destination] = self.get(destination, 0) + 1

    def count_out(self, destination: Destination) -> None:
        """One less does."""
        left = self[destination] - 1
        if left:
            self[destination] = left
        else:
            del self[destination]


class Exchange:
    """An exchange.

    type: str -- "direct", "fanout", "topic" or "headers".
    name, durable, auto_delete, internal, arguments -- as declared.
    alternate: str | None -- the exchange for what this one cannot route.
    bindings: dict[Binding, Destination] -- those of which it is the source, oldest first.  Read-only.
    """

    type: ClassVar[str]
    #: Whether the route depends on the headers, so that it cannot be remembered by routing key.
    uses_headers: ClassVar[bool] = False
    #: Whether it depends on the routing key.
    uses_key: ClassVar[bool] = True
    #: What the last :meth:`route` looked at beside what it returned; stays 0 where that is one look-up.
    steps: int = 0

    __slots__ = (
        "alternate",
        "arguments",
        "auto_delete",
        "bindings",
        "durable",
        "internal",
        "name",
        "vhost",
    )

    def __init__(
        self,
        vhost: VirtualHost,
        name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.vhost = vhost
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments: dict[str, Any] = dict(arguments or {})
        alternate = self.arguments.get(ALTERNATE_EXCHANGE)
        self.alternate: str | None = alternate if isinstance(alternate, str) else None
        self.bindings: dict[Binding, Destination] = {}

    def check_binding(self, arguments: Mapping[str, Any]) -> None:
        """Raise a Fault if a binding with these arguments makes no sense here."""

    def cost_of(self, binding: Binding) -> int:
        """The octets that a binding of this exchange takes, about."""
        return BINDING + cost_of(binding.source, binding.destination, binding.routing_key, binding.arguments)

    def add(self, binding: Binding, destination: Destination) -> None:
        """Add a binding that is not there yet; `destination` is what it leads to."""
        self.bindings[binding] = destination

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is there."""
        del self.bindings[binding]

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """Where a message with this routing key and these headers goes from here, each destination once.

        What is returned belongs to the exchange: not to be changed, nor kept beyond the next change of a binding.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.type} exchange {self.name!r}, {len(self.bindings)} bindings>"
