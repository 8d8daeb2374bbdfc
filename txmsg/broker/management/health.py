"""/api/aliveness-test, /api/healthchecks and /api/health/checks: is it well."""

from __future__ import annotations

from typing import Any, Final

from txmsg.broker.management.calls import Answer, Call, not_found
from txmsg.broker.management.routes import route
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import PENDING, ROUTED
from txmsg.wire.properties import NO_PROPERTIES

__all__ = ["alarms", "aliveness", "node_is_well", "port_listener", "protocol_listener", "quorum", "vhosts", "well"]

_OK: Final = {"status": "ok"}
#: What RabbitMQ calls the protocols of its listeners.
_PROTOCOLS: Final = {
    "amqp": "amqp",
    "amqp091": "amqp",
    "amqp0.9.1": "amqp",
    "amqp/ssl": "amqp/ssl",
    "amqps": "amqp/ssl",
    "http": "http",
}


def _failed(reason: str, **more: Any) -> Answer:
    return Answer(503, {"status": "failed", "reason": reason, **more})


@route("GET", "aliveness-test/{vhost}")
def aliveness(call: Call, vhost: str) -> Any:
    """Declare a queue, put a message into it, take it out again; nothing stays."""
    place = call.vhost(vhost)
    owner = object()
    queue = place.declare_queue("", exclusive=True, owner=owner)
    try:
        message = Message.published("", queue.name, NO_PROPERTIES, b"test_message")
        outcome = place.publish("", queue.name, message, NO_PROPERTIES)
        entry = queue.get(no_ack=True) if outcome in (ROUTED, PENDING) else None
    finally:
        place.delete_queue(queue.name, owner=owner)
    if entry is None or entry.message.body != b"test_message":
        return _failed("the broker takes no messages: it holds as much as it may")
    return _OK


@route("GET", "health/checks/alarms")
@route("GET", "health/checks/local-alarms")
def alarms(call: Call) -> Any:
    """Whether publishers are blocked."""
    sources = sorted(call.broker.alarms.sources)
    if not sources:
        return _OK
    found = [{"node": call.api.node, "resource": source} for source in sources]
    return _failed("There are alarms in effect", alarms=found)


@route("GET", "healthchecks/node")
def well(call: Call) -> Any:
    """The same, in an older form."""
    sources = sorted(call.broker.alarms.sources)
    return {"status": "failed", "reason": f"resource alarm(s) in effect: {', '.join(sources)}"} if sources else _OK


@route("GET", "healthchecks/node/{name}")
def node_is_well(call: Call, name: str) -> Any:
    """The same, of the node of that name."""
    if name != call.api.node:
        raise not_found()
    return well(call)


@route("GET", "health/checks/virtual-hosts")
def vhosts(call: Call) -> Any:
    """Whether all virtual hosts run, which they do."""
    return _OK


@route("GET", "health/checks/node-is-quorum-critical")
@route("GET", "health/checks/node-is-mirror-sync-critical")
def quorum(call: Call) -> Any:
    """Whether others depend on this node: there are none."""
    return _OK | {"reason": "single node cluster"}


@route("GET", "health/checks/port-listener/{port}")
def port_listener(call: Call, port: str) -> Any:
    """Whether something listens on a port."""
    ports = sorted({listener["port"] for listener in call.api.listeners()})
    if port.isascii() and port.isdigit() and len(port) < 6 and int(port) in ports:
        return _OK | {"port": int(port)}
    missing: int | str = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else port
    return _failed("No active listener", missing=missing, ports=ports)


@route("GET", "health/checks/protocol-listener/{protocol}")
def protocol_listener(call: Call, protocol: str) -> Any:
    """Whether a protocol is spoken."""
    wanted = _PROTOCOLS.get(protocol.lower(), protocol)
    protocols = sorted({listener["protocol"] for listener in call.api.listeners()})
    if wanted in protocols:
        return _OK | {"protocol": wanted}
    return _failed("No active listener", missing=protocol, protocols=protocols)
