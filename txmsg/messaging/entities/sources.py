"""Where the messages of a queue come from: one exchange, or bindings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.entities.binding import binding
from txmsg.messaging.entities.exchange import Exchange, exchange_name

__all__ = ["sources"]


def sources(exchange: Any, bindings: Any) -> tuple[Exchange | None, list[binding]]:
    """The one exchange, or the bindings; where neither is given, the default exchange."""
    found: list[binding] = []
    if bindings is not None:
        found.extend(_checked(bindings))
    if isinstance(exchange, Iterable) and not isinstance(exchange, str):
        found.extend(_checked(exchange))
        exchange = None
    if exchange is not None and not isinstance(exchange, Exchange | str):
        raise ConfigurationError(
            f"exchange is {clip(repr(exchange))}: give an Exchange, its name, a list of bindings, or None"
        )
    if not found:
        return (exchange if isinstance(exchange, Exchange) else Exchange(exchange or "")), []
    if exchange is not None and exchange_name(exchange):
        raise ConfigurationError("a queue has an exchange or bindings: make the exchange one of the bindings")
    return None, list(dict.fromkeys(found))


def _checked(bindings: Any) -> Iterable[binding]:
    if isinstance(bindings, str | Mapping) or not isinstance(bindings, Iterable):
        raise ConfigurationError(f"bindings is {clip(repr(bindings))}: give a list of bindings")
    found = list(bindings)
    for each in found:
        if not isinstance(each, binding):
            raise ConfigurationError(f"a binding is {clip(repr(each))}: make it with binding(exchange, routing_key)")
    return found
