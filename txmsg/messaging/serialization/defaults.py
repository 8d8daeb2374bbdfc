"""The serializers that come with txmsg, and the switches for receivers that give no accept list.

Names, content types and encodings are Kombu's (rows J1, J2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from txmsg.messaging.serialization.json_bodies import JSONLimits, JSONSerializer
from txmsg.messaging.serialization.json_types import JSONTypes, default_json_types
from txmsg.messaging.serialization.msgpack_bodies import MsgpackSerializer
from txmsg.messaging.serialization.pickle_bodies import MAX_SIZE, PickleSerializer
from txmsg.messaging.serialization.registry import SerializerRegistry
from txmsg.messaging.serialization.yaml_bodies import YAMLSerializer

__all__ = [
    "default_serializers",
    "disable_insecure_serializers",
    "enable_insecure_serializers",
    "json_types",
    "register_json",
    "register_pickle",
    "serializers",
]


def register_json(
    registry: SerializerRegistry, limits: JSONLimits | None = None, types: JSONTypes | None = None
) -> None:
    """Put JSON into a registry, or replace it by one with other limits or types; receivers take it by default."""
    json = JSONSerializer(limits, types)
    registry.register("json", json.encode, json.decode, "application/json", "utf-8")
    registry.enable("json")


def register_pickle(
    allowed: Iterable[type] = (),
    *,
    protocol: int | None = None,
    max_size: int = MAX_SIZE,
    registry: SerializerRegistry | None = None,
) -> None:
    """Ask for pickle, the first time; the second is `accept=["pickle"]` at each receiver that is to decode it.

    allowed -- classes that may be built from a message, beside plain data, dates and Decimal; see
    :class:`PickleSerializer`.  A sender whom you would not let run code in your process is no reason to use this:
    the list stops code, and not a pickle made to take all your time.
    """
    pickle = PickleSerializer(allowed, protocol, max_size)
    (serializers if registry is None else registry).register(
        "pickle", pickle.encode, pickle.decode, "application/x-python-serialize", "binary", only_accepted=True
    )


def default_serializers() -> SerializerRegistry:
    """A new registry with JSON (the default), yaml and msgpack, of which receivers take JSON."""
    registry = SerializerRegistry()
    register_json(registry, types=json_types)
    yaml, msgpack = YAMLSerializer(), MsgpackSerializer()
    registry.register("yaml", yaml.encode, yaml.decode, "application/x-yaml", "utf-8")
    registry.register("msgpack", msgpack.encode, msgpack.decode, "application/x-msgpack", "binary")
    registry.set_default("json")
    return registry


def enable_insecure_serializers(
    choices: Iterable[str] = ("yaml", "msgpack"), registry: SerializerRegistry | None = None
) -> None:
    """Let receivers without an accept list decode these, by name or content type.

    Pickle cannot be enabled for all (ConfigurationError).  SerializerNotInstalled for an unknown name.
    """
    registry = serializers if registry is None else registry
    for choice in choices:
        registry.enable(choice)


def disable_insecure_serializers(
    allowed: Iterable[str] = ("json",), registry: SerializerRegistry | None = None
) -> None:
    """Let receivers without an accept list decode only these; senders may use all, accept lists stay as they are."""
    (serializers if registry is None else registry).disable_all(allowed)


#: The types JSON carries, where no table of one's own is given; `json_types.register` adds to it.
json_types: Final = default_json_types()

#: The registry that is used where none is given.
serializers: Final = default_serializers()
