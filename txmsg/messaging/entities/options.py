"""The flat options of a settings file, and the fields of `Queue.as_dict`, as arguments of Queue."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.entities.binding import binding
from txmsg.messaging.entities.exchange import Exchange

__all__ = ["queue_options"]

_QUEUE = (
    "alias",
    "bindings",
    "binding_arguments",
    "channel",
    "consumer_arguments",
    "exclusive",
    "expires",
    "max_length",
    "max_length_bytes",
    "max_priority",
    "message_ttl",
    "no_ack",
    "no_declare",
    "on_declared",
    "queue_arguments",
)
_BOTH = ("durable", "auto_delete")
_OTHERS = (
    "name",
    "exchange",
    "exchange_type",
    "exchange_arguments",
    "delivery_mode",
    "binding_key",
    "routing_key",
    *_BOTH,
    *(f"{of}_{what}" for of in ("queue", "exchange") for what in _BOTH),
)


def queue_options(queue: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What to give to Queue for the options of :meth:`Queue.from_dict`.  ConfigurationError: one that is unknown."""
    for unknown in options.keys() - {*_QUEUE, *_OTHERS}:
        near = get_close_matches(unknown, (*_QUEUE, *_OTHERS), n=1)
        hint = f": did you mean {near[0]}?" if near else ": leave it out"
        raise ConfigurationError(f"a queue has no option {clip(unknown)!r}{hint}")
    given = {key: options[key] for key in _QUEUE if key in options}
    given["name"] = queue or options.get("name")
    given["routing_key"] = options.get("binding_key") or options.get("routing_key")
    for what in _BOTH:
        given[what] = _first(options, f"queue_{what}", what)
    if options.get("bindings"):
        given["bindings"] = [
            binding.from_dict(each) if isinstance(each, Mapping) else each for each in options["bindings"]
        ]
    given["exchange"] = _exchange(options)
    return given


def _exchange(options: Mapping[str, Any]) -> Any:
    exchange = options.get("exchange")
    if isinstance(exchange, Mapping):
        return Exchange.from_dict(exchange)
    if exchange is not None and not isinstance(exchange, str):
        return exchange
    return Exchange(
        exchange,
        type=options.get("exchange_type"),
        delivery_mode=options.get("delivery_mode"),
        durable=_first(options, "exchange_durable", "durable"),
        auto_delete=_first(options, "exchange_auto_delete", "auto_delete"),
        arguments=options.get("exchange_arguments"),
    )


def _first(options: Mapping[str, Any], *names: str) -> Any:
    return next((options[each] for each in names if options.get(each) is not None), None)
