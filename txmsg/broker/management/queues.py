"""/api/queues: look, declare, delete, purge, take messages."""

from __future__ import annotations

import base64
import contextlib
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
    refusal_of,
    table,
    text,
)
from txmsg.broker.management.consumers import consumer_json
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.plain import plain_table, plain_text
from txmsg.broker.management.properties import properties_to_json
from txmsg.broker.management.routes import route
from txmsg.wire import constants

if TYPE_CHECKING:
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = [
    "act",
    "bindings",
    "contents",
    "delete",
    "get",
    "in_vhost",
    "list_all",
    "messages",
    "put",
    "queue_json",
    "refusal_named",
]

#: Most messages, and octets of bodies, that one call takes.
MOST_MESSAGES: Final = 1000
MOST_BYTES: Final = 32 << 20

#: ackmode -> (whether the messages go back, whether they are rejected).
_ACK_MODES: Final = {
    "ack_requeue_true": (True, False),
    "reject_requeue_true": (True, False),
    "ack_requeue_false": (False, False),
    "reject_requeue_false": (False, True),
}


def queue_json(call: Call, vhost: VirtualHost, queue: Queue) -> dict[str, Any]:
    """A queue as RabbitMQ shows it, without the rates that this broker does not measure."""
    policy = policies_of(vhost).of_queue(queue)
    consumers = queue.consumers
    active = queue.active_consumer
    exclusive = next((consumer.tag for consumer in consumers if consumer.exclusive), None)
    found = {
        "arguments": plain_table(queue.arguments),
        "auto_delete": queue.auto_delete,
        "consumers": queue.consumer_count,
        "durable": queue.durable,
        "effective_policy_definition": {} if policy is None else plain_table(policy.definition),
        "exclusive": queue.exclusive,
        "exclusive_consumer_tag": None if exclusive is None else plain_text(exclusive),
        "memory": queue.held_bytes,
        "message_bytes_ready": queue.ready_bytes,
        "messages": queue.message_count + queue.unacked_count,
        "messages_ready": queue.message_count,
        "messages_unacknowledged": queue.unacked_count,
        "name": plain_text(queue.name),
        "node": call.api.node,
        "operator_policy": None,
        "policy": None if policy is None else policy.name,
        "single_active_consumer_tag": None if active is None else plain_text(active.tag),
        "state": "running",
        "type": queue.type,
        "vhost": vhost.name,
    }
    if queue.exclusive and (owner := call.api.connection_name(queue.owner)) is not None:
        found["owner_pid_details"] = owner
    return found


def _named(vhost: VirtualHost, name: str) -> Queue:
    queue = vhost.queues.get(name)
    if queue is None:
        raise not_found()
    return queue


def _of(call: Call, vhost: VirtualHost) -> list[dict[str, Any]]:
    return [queue_json(call, vhost, vhost.queues[name]) for name in sorted(vhost.queues)]


@route("GET", "queues")
def list_all(call: Call) -> Any:
    """Those of all virtual hosts that the visitor sees."""
    return listed(call, [item for vhost in call.visible_vhosts() for item in _of(call, vhost)])


@route("GET", "queues/{vhost}")
def in_vhost(call: Call, vhost: str) -> Any:
    """Those of one virtual host."""
    return listed(call, _of(call, call.vhost(vhost)))


@route("GET", "queues/{vhost}/{name}")
def get(call: Call, vhost: str, name: str) -> Any:
    """One, with its consumers."""
    place = call.vhost(vhost)
    queue = _named(place, name)
    details = [consumer_json(call, queue, consumer) for consumer in queue.consumers]
    more = {"consumer_details": details, "deliveries": [], "incoming": []}
    return selected(call, queue_json(call, place, queue) | more)


@route("PUT", "queues/{vhost}/{name}")
def put(call: Call, vhost: str, name: str) -> Answer:
    """Declare one."""
    place = call.broker.vhosts.get(vhost)
    if place is None:
        raise refusal_of(Fault(constants.NOT_FOUND, "vhost_not_found"))
    call.vhost(vhost)
    document = call.document()
    arguments = table(document, "arguments")
    call.check_configure(place, "queue", name)
    dead_letters = arguments.get("x-dead-letter-exchange")
    if isinstance(dead_letters, str):
        call.check_read(place, "queue", name)
        call.check_write(place, "exchange", dead_letters)
    was_there = name in place.queues
    place.declare_queue(
        name, durable=flag(document, "durable"), auto_delete=flag(document, "auto_delete"), arguments=arguments
    )
    return NO_CONTENT if was_there else CREATED


@route("DELETE", "queues/{vhost}/{name}")
def delete(call: Call, vhost: str, name: str) -> Answer:
    """Delete one; with ?if-unused=true and ?if-empty=true only then."""
    place = call.vhost(vhost)
    _named(place, name)
    call.check_configure(place, "queue", name)
    place.delete_queue(
        name, if_unused=call.query.get("if-unused") == "true", if_empty=call.query.get("if-empty") == "true"
    )
    return NO_CONTENT


@route("GET", "queues/{vhost}/{name}/bindings")
def bindings(call: Call, vhost: str, name: str) -> Any:
    """The bindings that lead to it, the one of the default exchange first."""
    place = call.vhost(vhost)
    queue = _named(place, name)
    found = [default_binding(place, name)]
    found.extend(binding_json(place, binding) for binding in place.bindings_to(queue))
    return listed(call, found)


@route("DELETE", "queues/{vhost}/{name}/contents")
def contents(call: Call, vhost: str, name: str) -> Answer:
    """Purge it: what is ready is dropped."""
    place = call.vhost(vhost)
    _named(place, name)
    call.check_read(place, "queue", name)
    place.queue(name).purge()
    return NO_CONTENT


@route("POST", "queues/{vhost}/{name}/actions")
def act(call: Call, vhost: str, name: str) -> Answer:
    """`sync` and `cancel_sync`, for the mirrors that a single broker has not: nothing happens."""
    _named(call.vhost(vhost), name)
    action = text(call.document("action"), "action")
    if action not in ("sync", "cancel_sync"):
        raise bad_request(["not_valid", "action", action])
    return NO_CONTENT


@route("POST", "queues/{vhost}/{name}/get")
def messages(call: Call, vhost: str, name: str) -> Any:
    """Take messages and show them; what becomes of them afterwards is the `ackmode`.

    As RabbitMQ says: for diagnosis; for real traffic use AMQP.  One call takes at most 1,000 messages and 32 MiB of
    bodies.
    """
    place = call.vhost(vhost)
    document = call.document("ackmode", "count", "encoding")
    mode = _ACK_MODES.get(document["ackmode"]) if isinstance(document["ackmode"], str) else None
    if mode is None:
        raise bad_request(["not_valid", "ackmode"])
    count = _number(document, "count")
    truncate = _number(document, "truncate") if "truncate" in document else None
    encoding = text(document, "encoding")
    if encoding not in ("auto", "base64"):
        raise bad_request(["unsupported_encoding", encoding])
    if name not in place.queues:
        raise refusal_named(place, name)
    call.check_read(place, "queue", name)
    try:
        queue = place.queue(name)
    except Fault as fault:
        raise bad_request(f"{fault.reply_code} {fault.reply_text}") from None
    found: list[dict[str, Any]] = []
    taken: list[Entry] = []
    octets = 0
    try:
        while len(taken) < min(count, MOST_MESSAGES) and octets < MOST_BYTES:
            entry = queue.get(no_ack=False)
            if entry is None:
                break
            taken.append(entry)
            octets += entry.message.size if truncate is None else min(truncate, entry.message.size)
            found.append(_message_json(queue, entry, encoding, truncate))
    finally:
        returned, rejected = mode
        if returned:
            queue.requeue(taken)
        else:
            for entry in taken:
                (queue.reject if rejected else queue.ack)(entry)
    return found


def refusal_named(vhost: VirtualHost, name: str) -> Exception:
    """What RabbitMQ answers for a get from a queue that is not there: with the code's name, unlike everywhere else."""
    try:
        vhost.queue(name)
    except Fault as fault:
        refusal = refusal_of(fault)
        refusal.reason = fault.reply_text
        return refusal
    raise AssertionError("unreachable: it is not there")


def _number(document: dict[str, Any], key: str) -> int:
    value = document[key]
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)  # the web interface sends it so
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad_request(["not_int", key])
    return value


def _message_json(queue: Queue, entry: Entry, encoding: str, truncate: int | None) -> dict[str, Any]:
    message = entry.message
    shown = message.body if truncate is None else message.body[:truncate]
    payload, used = base64.b64encode(shown).decode("ascii"), "base64"
    if encoding == "auto":
        with contextlib.suppress(UnicodeDecodeError):
            payload, used = shown.decode("utf-8"), "string"
    return {
        "payload_bytes": message.size,
        "redelivered": entry.redelivered,
        "exchange": plain_text(message.exchange),
        "routing_key": plain_text(message.routing_key),
        "message_count": queue.message_count,
        "properties": properties_to_json(message.decoded_properties),
        "payload": payload,
        "payload_encoding": used,
    }
