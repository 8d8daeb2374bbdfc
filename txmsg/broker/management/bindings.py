"""/api/bindings: look, bind, unbind.

A binding is named by its source, its destination and a `properties_key`: its routing key, percent-encoded, `~` for an
empty one, and with arguments a `~` and a digest of them behind it.  The digest is ours; the keys of bindings without
arguments are RabbitMQ's.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, unquote_plus

from txmsg.broker.management.calls import NO_CONTENT, Answer, Call, not_found, table, text
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.plain import plain_table, plain_text
from txmsg.broker.management.routes import route
from txmsg.broker.vhost.bindings import QUEUE, Binding, identity_of

if TYPE_CHECKING:
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = [
    "between",
    "bind",
    "binding_json",
    "default_binding",
    "get",
    "in_vhost",
    "list_all",
    "properties_key",
    "unbind",
]

_EMPTY: Final = "~"
#: What a destination type is in a path.
_KINDS: Final = {"q": "queue", "e": "exchange"}


def properties_key(routing_key: str, arguments: Any) -> str:
    """The name of a binding among those between the same two."""
    if not arguments:
        return quote_plus(plain_text(routing_key)) if routing_key else _EMPTY
    digest = hashlib.sha256(repr(_canonical(identity_of(arguments))).encode()).digest()[:9]
    return f"{quote_plus(plain_text(routing_key))}~{base64.urlsafe_b64encode(digest).decode()}"


def _canonical(identity: object) -> object:
    """An identity with its sets in an order, so that it is the same in every process."""
    if isinstance(identity, frozenset):
        return sorted((_canonical(item) for item in identity), key=repr)
    if isinstance(identity, tuple):
        return tuple(_canonical(item) for item in identity)
    return identity


def binding_json(vhost: VirtualHost, binding: Binding) -> dict[str, Any]:
    """A binding as RabbitMQ shows it."""
    return {
        "source": plain_text(binding.source),
        "vhost": vhost.name,
        "destination": plain_text(binding.destination),
        "destination_type": binding.destination_type,
        "routing_key": plain_text(binding.routing_key),
        "arguments": plain_table(binding.arguments),
        "properties_key": properties_key(binding.routing_key, binding.arguments),
    }


def default_binding(vhost: VirtualHost, queue: str) -> dict[str, Any]:
    """The binding of a queue to the default exchange, which nobody made."""
    return binding_json(vhost, Binding("", queue, QUEUE, queue))


def _of(vhost: VirtualHost) -> list[dict[str, Any]]:
    found = [default_binding(vhost, name) for name in sorted(vhost.queues)]
    for name in sorted(vhost.exchanges):
        found.extend(binding_json(vhost, binding) for binding in vhost.exchanges[name].bindings)
    return found


@route("GET", "bindings")
def list_all(call: Call) -> Any:
    """Those of all virtual hosts that the visitor sees."""
    return listed(call, [item for vhost in call.visible_vhosts() for item in _of(vhost)])


@route("GET", "bindings/{vhost}")
def in_vhost(call: Call, vhost: str) -> Any:
    """Those of one virtual host."""
    return listed(call, _of(call.vhost(vhost)))


def _between(vhost: VirtualHost, source: str, kind: str, destination: str) -> list[Binding]:
    if kind not in _KINDS:
        raise not_found()
    if source in ("", "amq.default"):
        is_one = _KINDS[kind] == QUEUE and destination in vhost.queues
        return [Binding("", destination, QUEUE, destination)] if is_one else []
    exchange = vhost.exchanges.get(source)
    if exchange is None:
        return []
    return [b for b in exchange.bindings if b.destination == destination and b.destination_type == _KINDS[kind]]


def _one(vhost: VirtualHost, source: str, kind: str, destination: str, key: str) -> Binding:
    for binding in _between(vhost, source, kind, destination):
        name = properties_key(binding.routing_key, binding.arguments)
        # Clients give the key as it is listed, percent-encoded once more or not.
        if key in (name, unquote_plus(name)):
            return binding
    raise not_found()


@route("GET", "bindings/{vhost}/e/{source}/{kind}/{destination}")
def between(call: Call, vhost: str, source: str, kind: str, destination: str) -> Any:
    """Those from an exchange to a queue (kind q) or an exchange (kind e)."""
    place = call.vhost(vhost)
    return listed(call, [binding_json(place, binding) for binding in _between(place, source, kind, destination)])


@route("POST", "bindings/{vhost}/e/{source}/{kind}/{destination}")
def bind(call: Call, vhost: str, source: str, kind: str, destination: str) -> Answer:
    """Make one."""
    place = call.vhost(vhost)
    document = call.document()
    routing_key, arguments = text(document, "routing_key"), table(document, "arguments")
    if kind not in _KINDS:
        raise not_found()
    call.check_write(place, _KINDS[kind], destination)
    call.check_read(place, "exchange", source)
    if kind == "q":
        place.bind_queue(destination, source, routing_key, arguments)
    else:
        place.bind_exchange(destination, source, routing_key, arguments)
    key = quote_plus(properties_key(routing_key, arguments), safe="~")
    return Answer(201, headers={"Location": f"{quote_plus(destination)}/{key}"})


@route("GET", "bindings/{vhost}/e/{source}/{kind}/{destination}/{key}")
def get(call: Call, vhost: str, source: str, kind: str, destination: str, key: str) -> Any:
    """One."""
    place = call.vhost(vhost)
    return selected(call, binding_json(place, _one(place, source, kind, destination, key)))


@route("DELETE", "bindings/{vhost}/e/{source}/{kind}/{destination}/{key}")
def unbind(call: Call, vhost: str, source: str, kind: str, destination: str, key: str) -> Answer:
    """Remove one."""
    place = call.vhost(vhost)
    binding = _one(place, source, kind, destination, key)
    call.check_write(place, binding.destination_type, destination)
    call.check_read(place, "exchange", binding.source)
    if binding.is_to_queue:
        place.unbind_queue(destination, binding.source, binding.routing_key, binding.arguments)
    else:
        place.unbind_exchange(destination, binding.source, binding.routing_key, binding.arguments)
    return NO_CONTENT
