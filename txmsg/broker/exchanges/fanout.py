"""Fanout exchanges: a message goes to everything that is bound, whatever its routing key.

AMQP 0-9-1 section 3.1.3.2.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from txmsg.broker.exchanges.exchange import Destination, Destinations, Exchange, Headers

if TYPE_CHECKING:
    from txmsg.broker.vhost.bindings import Binding

__all__ = ["FanoutExchange"]


class FanoutExchange(Exchange):
    """A fanout exchange."""

    type = "fanout"
    uses_key = False
    __slots__ = ("_destinations",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._destinations = Destinations()

    def add(self, binding: Binding, destination: Destination) -> None:
        """Add a binding that is not there yet."""
        super().add(binding, destination)
        self._destinations.count_in(destination)

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is there."""
        destination = self.bindings[binding]
        super().remove(binding)
        self._destinations.count_out(destination)

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """Everything that is bound."""
        return self._destinations
