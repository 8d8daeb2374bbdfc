"""/api/exchanges: look, declare, delete; their bindings; publish to one."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.definitions.policies import policies_of
from txmsg.broker.faults import Fault
from txmsg.broker.management.bindings import binding_json, default_binding
from txmsg.broker.management.calls import (
    CREATED,
    NO_CONTENT,
    Answer,
    Call,
    bad_request,
    flag,
    not_found,
    table,
    text,
)
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.plain import plain_table, plain_text
from txmsg.broker.management.properties import properties_from_json
from txmsg.broker.management.routes import route
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import PENDING, ROUTED

if TYPE_CHECKING:
    from txmsg.broker.exchanges.exchange import Exchange
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = [
    "delete",
    "destination_bindings",
    "exchange_json",
    "get",
    "in_vhost",
    "list_all",
    "publish",
    "put",
    "source_bindings",
]

#: The name of the default exchange in paths.
DEFAULT: Final = "amq.default"


def exchange_json(vhost: VirtualHost, exchange: Exchange) -> dict[str, Any]:
    """An exchange as RabbitMQ shows it."""
    policy = policies_of(vhost).of_exchange(exchange.name)
    is_standard = not exchange.name or exchange.name.startswith("amq.")
    found = {
        "arguments": plain_table(exchange.arguments),
        "auto_delete": exchange.auto_delete,
        "durable": exchange.durable,
        "internal": exchange.internal,
        "name": plain_text(exchange.name),
        "type": exchange.type,
        "user_who_performed_action": "rmq-internal" if is_standard else "none",
        "vhost": vhost.name,
    }
    if policy is not None:
        found["policy"] = policy.name
    return found


def _named(vhost: VirtualHost, name: str) -> Exchange:
    exchange = vhost.exchanges.get("" if name == DEFAULT else name)
    if exchange is None:
        raise not_found()
    return exchange


def _of(vhost: VirtualHost) -> list[dict[str, Any]]:
    return [exchange_json(vhost, vhost.exchanges[name]) for name in sorted(vhost.exchanges)]


@route("GET", "exchanges")
def list_all(call: Call) -> Any:
    """Those of all virtual hosts that the visitor sees."""
    return listed(call, [item for vhost in call.visible_vhosts() for item in _of(vhost)])


@route("GET", "exchanges/{vhost}")
def in_vhost(call: Call, vhost: str) -> Any:
    """Those of one virtual host."""
    return listed(call, _of(call.vhost(vhost)))


@route("GET", "exchanges/{vhost}/{name}")
def get(call: Call, vhost: str, name: str) -> Any:
    """One."""
    place = call.vhost(vhost)
    return selected(call, exchange_json(place, _named(place, name)) | {"incoming": [], "outgoing": []})


@route("PUT", "exchanges/{vhost}/{name}")
def put(call: Call, vhost: str, name: str) -> Answer:
    """Declare one; the type is direct unless given."""
    place = call.vhost(vhost)
    document = call.document()
    arguments = table(document, "arguments")
    call.check_configure(place, "exchange", name)
    alternate = arguments.get("alternate-exchange")
    if isinstance(alternate, str):
        call.check_read(place, "exchange", name)
        call.check_write(place, "exchange", alternate)
    was_there = name in place.exchanges
    place.declare_exchange(
        name,
        text(document, "type", "direct"),
        durable=flag(document, "durable"),
        auto_delete=flag(document, "auto_delete"),
        internal=flag(document, "internal"),
        arguments=arguments,
    )
    return NO_CONTENT if was_there else CREATED


@route("DELETE", "exchanges/{vhost}/{name}")
def delete(call: Call, vhost: str, name: str) -> Answer:
    """Delete one; with ?if-unused=true only if no binding leads from it."""
    place = call.vhost(vhost)
    exchange = _named(place, name)
    call.check_configure(place, "exchange", exchange.name)
    place.delete_exchange(exchange.name, if_unused=call.query.get("if-unused") == "true")
    return NO_CONTENT


@route("GET", "exchanges/{vhost}/{name}/bindings/source")
def source_bindings(call: Call, vhost: str, name: str) -> Any:
    """The bindings that lead from it."""
    place = call.vhost(vhost)
    exchange = _named(place, name)
    if not exchange.name:
        return listed(call, [default_binding(place, queue) for queue in sorted(place.queues)])
    return listed(call, [binding_json(place, binding) for binding in exchange.bindings])


@route("GET", "exchanges/{vhost}/{name}/bindings/destination")
def destination_bindings(call: Call, vhost: str, name: str) -> Any:
    """The bindings that lead to it."""
    place = call.vhost(vhost)
    exchange = _named(place, name)
    return listed(call, [binding_json(place, binding) for binding in place.bindings_to(exchange)])


@route("POST", "exchanges/{vhost}/{name}/publish")
def publish(call: Call, vhost: str, name: str) -> Any:
    """Publish a message, and say whether a queue took it.

    As RabbitMQ says: for diagnosis; for real traffic use AMQP.
    """
    place = call.vhost(vhost)
    document = call.document("properties", "routing_key", "payload", "payload_encoding")
    properties = properties_from_json(document["properties"])
    body = _payload(document)
    if len(body) > call.broker.limits.max_message_size:
        raise bad_request(f"the payload is longer than {call.broker.limits.max_message_size} bytes")
    exchange = "" if name == DEFAULT else name
    routing_key = text(document, "routing_key")
    if properties.user_id not in (None, call.visitor.name):
        raise bad_request("user_id is not the user's name")
    try:
        call.check_write(place, "exchange", exchange)
        message = Message.published(exchange, routing_key, properties, body)
        outcome = place.publish(exchange, routing_key, message, properties)
    except Fault as fault:
        raise bad_request(f"{fault.reply_code} {fault.reply_text}") from None
    return {"routed": outcome in (ROUTED, PENDING)}


def _payload(document: dict[str, Any]) -> bytes:
    encoding, payload = text(document, "payload_encoding"), text(document, "payload")
    if encoding == "string":
        return payload.encode("utf-8", "surrogatepass")
    if encoding != "base64":
        raise bad_request(["unsupported_encoding", encoding])
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(["not_base64", "payload"]) from None
