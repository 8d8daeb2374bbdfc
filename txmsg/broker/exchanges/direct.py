"""Direct exchanges: a message goes where the binding key equals its routing key.

AMQP 0-9-1 section 3.1.3.1.  One look-up, however many bindings there are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from txmsg.broker.exchanges.exchange import Destination, Destinations, Exchange, Headers

if TYPE_CHECKING:
    from txmsg.broker.vhost.bindings import Binding

__all__ = ["DirectExchange"]


class DirectExchange(Exchange):
    """A direct exchange."""

    type = "direct"
    __slots__ = ("_by_key",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._by_key: dict[str, Destinations] = {}

    def add(self, binding: Binding, destination: Destination) -> None:
        """Add a binding that is not there yet."""
        super().add(binding, destination)
        self._by_key.setdefault(binding.routing_key, Destinations()).count_in(destination)

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is there."""
        destination = self.bindings[binding]
        super().remove(binding)
        destinations = self._by_key[binding.routing_key]
        destinations.count_out(destination)
        if not destinations:
            del self._by_key[binding.routing_key]

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """The destinations bound with exactly this key."""
        return self._by_key.get(routing_key, ())
