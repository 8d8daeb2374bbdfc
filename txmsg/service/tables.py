"""The [[consumer]] tables of the configuration file: declared handlers without a line of Python.

    [[consumer]]
    handler = "shop.tasks:handle"
    queue = "orders"
    exchange = "shop"
    exchange_type = "topic"
    routing_key = "order.*"
    accept = ["json"]

A table becomes a :class:`~txmsg.service.declared.DeclaredConsumer`.  Keys that are settings of the service, too, are
read as those are, and where a table does not have them the service's hold.  Invariant: what is wrong is one line that
names the key, the table and the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from txmsg.errors import ConfigurationError, clip
from txmsg.service.declared import ON_DECODE_ERROR, DeclaredConsumer
from txmsg.service.settings import SETTINGS_BY_NAME, UNLIMITED, Setting, SettingError, Text, Texts, nearest_name

if TYPE_CHECKING:
    from txmsg.messaging.entities import Queue

__all__ = ["CONSUMER_KEYS", "declared_by"]

_OWN = (
    Setting("exchange", Text(), "The exchange that the queue is bound to; declared, unless declare is false."),
    Setting("exchange_type", Text(), "Its type: direct (default), topic, fanout, headers."),
    Setting("routing_key", Texts(), "The binding key, or several; default: empty."),
    Setting("accept", Texts(), "Serializers or media types that may be decoded; default: JSON, text and octets."),
    Setting("accept_compression", Texts(), "Compressions that may be undone; default: zlib and gzip."),
    Setting("serializer", Text(), "What the handler's producer serializes with; default json."),
    Setting("compression", Text(), "What the handler's producer compresses with; default: nothing."),
    Setting(
        "on_decode_error",
        Text(choices=ON_DECODE_ERROR),
        "What becomes of a message whose body is not accepted or cannot be decoded; default reject.",
    ),
)

#: The keys of a table that are settings of the service, too.
_SHARED = (
    *("handler", "queue", "declare", "durable", "auto_delete", "queue_arguments", "bind"),
    *("prefetch", "concurrency", "threads", "consumer_tag", "exclusive", "dedupe_window"),
    *("on_failure", "retry_delays", "dead_letter", "requeue_delay"),
)

#: Every key that a table can have.
CONSUMER_KEYS: Mapping[str, Setting] = {
    **{name: SETTINGS_BY_NAME[name] for name in _SHARED},
    **{setting.name: setting for setting in _OWN},
}

#: Keys that are no argument of DeclaredConsumer under that name.
_OF_THE_QUEUE = (
    "queue",
    "durable",
    "auto_delete",
    "queue_arguments",
    "bind",
    "exchange",
    "exchange_type",
    "routing_key",
)


def declared_by(tables: object, path: str) -> tuple[DeclaredConsumer, ...]:
    """The declarations for what the key `consumer` of the file at `path` holds.  Raises SettingError."""
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise SettingError(f"key 'consumer' in {path}: must be tables, each under a line [[consumer]]")
    return tuple(_declared(table, f"[[consumer]] {number} in {path}") for number, table in enumerate(tables, 1))


def _declared(table: dict[str, Any], where: str) -> DeclaredConsumer:
    values: dict[str, Any] = {}
    for name, value in table.items():
        setting = CONSUMER_KEYS.get(name)
        if setting is None:
            raise SettingError(
                f"unknown key {clip(name)!r} of {where}; {nearest_name(name.replace('-', '_'), list(CONSUMER_KEYS))}"
            )
        try:
            values[name] = setting.kind.check(value)
        except ValueError as error:
            raise SettingError(f"key {name!r} of {where}: {error}") from None
    for name in ("handler", "queue"):
        if name not in values:
            raise SettingError(f"{where}: key {name!r} is required")
    if values.get("routing_key") == ():
        raise SettingError(f"key 'routing_key' of {where}: must not be empty; leave it out for the empty key")
    declares = values.get("declare", True)
    for name, needed in (("exchange_type", "exchange"), ("routing_key", "exchange")):
        if name in values and needed not in values:
            raise SettingError(f"key {name!r} of {where}: has no effect without {needed}")
    for name in ("durable", "auto_delete", "queue_arguments", "bind", "exchange"):
        if name in values and not declares:
            raise SettingError(f"key {name!r} of {where}: has no effect with declare = false")
    if "prefetch" in values:
        prefetch = values.pop("prefetch")
        values["prefetch_count"] = 0 if prefetch == UNLIMITED else prefetch
    details = {name: value for name, value in values.items() if name not in _OF_THE_QUEUE}
    try:
        return DeclaredConsumer(queues=(_queue(values),), **details)
    except ConfigurationError as error:
        raise SettingError(f"{where}: {error}") from None


def _queue(values: Mapping[str, Any]) -> Queue:
    # Only here: a file without such tables has no use for the messaging layer.
    from txmsg.messaging.entities import Exchange, Queue, binding

    bindings = [binding(Exchange(name, no_declare=True), key) for name, key in values.get("bind", ())]
    if "exchange" in values:
        exchange = Exchange(values["exchange"], values.get("exchange_type", "direct"))
        bindings += [binding(exchange, key) for key in values.get("routing_key") or ("",)]
    return Queue(
        values["queue"],
        bindings=bindings or None,
        durable=values.get("durable"),
        auto_delete=values.get("auto_delete"),
        queue_arguments=values.get("queue_arguments"),
    )
