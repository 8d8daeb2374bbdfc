"""RabbitMQ's definitions: users, virtual hosts, permissions, policies, exchanges, queues and bindings, as JSON.

The format is the one of `rabbitmqctl export_definitions` and of the management API
(https://www.rabbitmq.com/docs/definitions).  Three steps, each of its own: :func:`read_definitions` reads a file,
:meth:`Definitions.parse` checks a document as a whole,
:func:`txmsg.broker.definitions.importing.import_definitions` gives it to a broker.

Invariants: a document whose entries are not as they should be changes nothing; an error names the entry and what is
wrong with it, and never repeats a password or a hash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from txmsg.broker.definitions.policies import Policy
from txmsg.broker.users.credentials import ALGORITHMS
from txmsg.broker.users.users_file import PATTERNS, UserEntry, check_pattern
from txmsg.errors import ConfigurationError, clip
from txmsg.wire.primitives import MAX_SHORT_STRING

__all__ = [
    "BindingDefinition",
    "Definitions",
    "ExchangeDefinition",
    "PermissionDefinition",
    "QueueDefinition",
    "parse_json",
    "parse_tags",
    "read_definitions",
]

#: A file longer than this many octets is refused.
_FILE_LIMIT: Final = 64 << 20
_MAX_DEPTH: Final = 100
#: The algorithm of a password hash that does not name one.
SHA256: Final = "rabbit_password_hashing_sha256"


@dataclass(frozen=True, slots=True)
class PermissionDefinition:
    """What a user may do in a virtual host; regular expressions."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class ExchangeDefinition:
    """An exchange that shall exist."""

    vhost: str
    name: str
    type: str
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueDefinition:
    """A queue that shall exist."""

    vhost: str
    name: str
    durable: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BindingDefinition:
    """A binding that shall exist; destination_type is `queue` or `exchange`."""

    vhost: str
    source: str
    destination: str
    destination_type: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Definitions:
    """A whole document; what it did not have is empty.

    vhosts: names.  not_used: a line for each thing in the document that means nothing to this broker.
    """

    users: tuple[UserEntry, ...] = ()
    vhosts: tuple[str, ...] = ()
    permissions: tuple[PermissionDefinition, ...] = ()
    policies: tuple[Policy, ...] = ()
    exchanges: tuple[ExchangeDefinition, ...] = ()
    queues: tuple[QueueDefinition, ...] = ()
    bindings: tuple[BindingDefinition, ...] = ()
    not_used: tuple[str, ...] = ()

    @classmethod
    def parse(cls, document: object, *, vhost: str | None = None) -> Definitions:
        """The definitions in a parsed JSON document.

        :param vhost: where everything belongs, for the document of one virtual host, in which entries name none.
        :raises ConfigurationError: with the entry and what is wrong with it.
        """
        if not isinstance(document, dict):
            raise ConfigurationError("must be a JSON object")
        of_vhost = vhost is not None
        return cls(
            users=() if of_vhost else _each(document, "users", _user),
            vhosts=() if of_vhost else _each(document, "vhosts", _vhost),
            permissions=() if of_vhost else _each(document, "permissions", _permission),
            policies=_each(document, "policies", lambda entry: _policy(entry, vhost)),
            exchanges=_each(document, "exchanges", lambda entry: _exchange(entry, vhost)),
            queues=_each(document, "queues", lambda entry: _queue(entry, vhost)),
            bindings=_each(document, "bindings", lambda entry: _binding(entry, vhost)),
            not_used=tuple(_not_used(document)),
        )


def read_definitions(path: str) -> Definitions:
    """The definitions in a file.

    :raises ConfigurationError: if it cannot be used; the text names the file.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the definitions {path!r}: {error.strerror}") from None
    if len(content) > _FILE_LIMIT:
        raise ConfigurationError(f"the definitions {path!r} are longer than {_FILE_LIMIT} bytes")
    try:
        return Definitions.parse(parse_json(content))
    except ConfigurationError as error:
        problem = str(error)
    raise ConfigurationError(f"the definitions {path!r} cannot be used: {problem}")


def parse_json(content: bytes) -> Any:
    """The JSON document in `content`.

    :raises ConfigurationError: if it is none, nested deeper than 100, or has a number that JSON does not know.
    """
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except (RecursionError, ValueError):
        problem = "not JSON: nested too deeply, or a number that is none"
    else:
        if not _is_deeper(document, _MAX_DEPTH):
            return document
        problem = f"nested deeper than {_MAX_DEPTH}"
    raise ConfigurationError(problem)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _is_deeper(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        following: list[object] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(item.values())
            elif isinstance(item, list):
                following.extend(item)
        if not following:
            return False
        level = following
    return True


# -- the entries ------------------------------------------------------------------------------------------------------

_Entry = TypeVar("_Entry")


class _Fields:
    """One entry of a list, and how errors name it."""

    def __init__(self, where: str, entry: object) -> None:
        if not isinstance(entry, dict):
            raise ConfigurationError(f"{where}: must be an object")
        self.entry: Mapping[str, Any] = entry
        name = entry.get("name")
        self.where = f"{where} {clip(name, 60)!r}" if isinstance(name, str) else where

    def refuse(self, problem: str) -> ConfigurationError:
        """The error to raise."""
        return ConfigurationError(f"{self.where}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required without a default."""
        value = self.entry.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(f"{key} must be a string" if key in self.entry else f"{key} is missing")
        return value

    def name(self, key: str = "name") -> str:
        """A string of 1 to 255 octets, as names are."""
        value = self.text(key)
        if not 1 <= len(value.encode("utf-8", "surrogatepass")) <= MAX_SHORT_STRING:
            raise self.refuse(f"{key} must have 1 to {MAX_SHORT_STRING} bytes")
        return value

    def flag(self, key: str) -> bool:
        """A boolean; false where it is absent."""
        value = self.entry.get(key, False)
        if not isinstance(value, bool):
            raise self.refuse(f"{key} must be true or false")
        return value

    def arguments(self) -> Mapping[str, Any]:
        """The arguments: an object; RabbitMQ also writes an empty array."""
        value = self.entry.get("arguments", {})
        if value == []:
            return {}
        if not isinstance(value, dict):
            raise self.refuse("arguments must be an object")
        for key in value:
            if len(key.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING:
                raise self.refuse("an argument's name is too long")
        if problem := _unfit_number(value):
            raise self.refuse(problem)
        return value

    def vhost(self, given: str | None) -> str:
        """The virtual host it belongs to."""
        return self.name("vhost") if given is None else given


def _unfit_number(value: object) -> str:
    """Why a value cannot stand in a field table; empty if it can."""
    if isinstance(value, dict):
        return next(filter(None, map(_unfit_number, value.values())), "")
    if isinstance(value, list):
        return next(filter(None, map(_unfit_number, value)), "")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return "a number in the arguments has more than 64 bits"
    return ""


def _each(document: Mapping[str, Any], key: str, parse: Callable[[_Fields], _Entry]) -> tuple[_Entry, ...]:
    entries = document.get(key, [])
    if not isinstance(entries, list):
        raise ConfigurationError(f"{key} must be an array")
    singular = {"policies": "policy"}.get(key, key.removesuffix("s"))
    return tuple(parse(_Fields(f"{singular} {number}", entry)) for number, entry in enumerate(entries, 1))


def _user(fields: _Fields) -> UserEntry:
    entry = fields.entry
    name = fields.name()
    if "tags" not in entry:
        raise fields.refuse("tags are missing")
    tags = parse_tags(entry["tags"])
    if tags is None:
        raise fields.refuse("tags must be an array of strings, or a string with commas")
    if "password" in entry:
        return UserEntry(name, password=fields.text("password"), tags=tags)
    stored = fields.text("password_hash", "")
    algorithm = fields.text("hashing_algorithm", SHA256)
    if not stored:
        return UserEntry(name, tags=tags)
    if algorithm not in ALGORITHMS:
        raise fields.refuse(f"the hashing algorithm {clip(algorithm, 60)!r} is not known")
    return UserEntry(name, password_hash=stored, hashing_algorithm=algorithm, tags=tags)


def parse_tags(value: object) -> tuple[str, ...] | None:
    """A user's tags: an array, or, as older versions of RabbitMQ write it, a string with commas; None if neither."""
    if isinstance(value, str):
        return tuple(tag for tag in (part.strip() for part in value.split(",")) if tag)
    if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
        return tuple(value)
    return None


def _vhost(fields: _Fields) -> str:
    return fields.name()


def _permission(fields: _Fields) -> PermissionDefinition:
    user, vhost = fields.name("user"), fields.name("vhost")
    fields.where = f"permission of {clip(user, 60)!r} for {clip(vhost, 60)!r}"
    patterns = [check_pattern(fields.text(key), f"{fields.where}: {key}") for key in PATTERNS]
    return PermissionDefinition(user, vhost, *patterns)


def _policy(fields: _Fields, vhost: str | None) -> Policy:
    entry = fields.entry
    name, where = fields.name(), fields.vhost(vhost)
    try:
        return Policy.checked(
            where,
            name,
            entry.get("pattern"),
            entry.get("definition"),
            entry.get("priority", 0),
            entry.get("apply-to", "all"),
        )
    except ConfigurationError as error:
        raise fields.refuse(str(error)) from None


def _exchange(fields: _Fields, vhost: str | None) -> ExchangeDefinition:
    return ExchangeDefinition(
        vhost=fields.vhost(vhost),
        name=fields.name(),
        type=fields.text("type"),
        durable=fields.flag("durable"),
        auto_delete=fields.flag("auto_delete"),
        internal=fields.flag("internal"),
        arguments=fields.arguments(),
    )


def _queue(fields: _Fields, vhost: str | None) -> QueueDefinition:
    arguments = dict(fields.arguments())
    # RabbitMQ 3.13 and later write the type beside the arguments, too.
    if isinstance(fields.entry.get("type"), str) and fields.entry["type"] != "classic":
        arguments.setdefault("x-queue-type", fields.entry["type"])
    return QueueDefinition(
        vhost=fields.vhost(vhost),
        name=fields.name(),
        durable=fields.flag("durable"),
        auto_delete=fields.flag("auto_delete"),
        arguments=arguments,
    )


def _binding(fields: _Fields, vhost: str | None) -> BindingDefinition:
    kind = fields.text("destination_type", "queue")
    if kind not in ("queue", "exchange"):
        raise fields.refuse("destination_type must be queue or exchange")
    key = fields.text("routing_key", "")
    if len(key.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING:
        raise fields.refuse("routing_key is too long")
    return BindingDefinition(
        fields.vhost(vhost), fields.text("source"), fields.name("destination"), kind, key, fields.arguments()
    )


def _not_used(document: Mapping[str, Any]) -> Iterator[str]:
    """What the document has and this broker has not."""
    for key, what in (
        ("topic_permissions", "topic permissions"),
        ("parameters", "run-time parameters"),
        ("global_parameters", "global parameters"),
    ):
        entries = document.get(key)
        if not isinstance(entries, list):
            continue
        names = [
            clip(str(entry.get("name", entry.get("user", "?"))), 60) for entry in entries if isinstance(entry, dict)
        ]
        # Every export has these two: a name for the cluster.
        names = [name for name in names if name not in ("internal_cluster_id", "cluster_name")]
        if names:
            yield f"{what} are not used: {', '.join(names)}"
