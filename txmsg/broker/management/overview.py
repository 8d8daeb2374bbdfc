"""/api/overview, /api/nodes and what else is said about the broker as a whole."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from txmsg import __version__
from txmsg.broker.management.calls import Call, not_found
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level

__all__ = ["auth", "cluster_name", "extensions", "node", "nodes", "overview", "rabbitmq_version"]

#: The RabbitMQ that this broker answers as; what clients compare versions with.
RABBITMQ_VERSION: Final = "3.10.8"

_EXCHANGE_TYPES: Final = [
    {"name": name, "description": f"AMQP {name} exchange, as per the AMQP specification", "enabled": True}
    for name in ("direct", "fanout", "headers", "topic")
]
_MECHANISMS: Final = [
    {"name": "AMQPLAIN", "description": "QPid AMQPLAIN mechanism", "enabled": True},
    {"name": "EXTERNAL", "description": "TLS peer verification using SASL EXTERNAL", "enabled": True},
    {"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": True},
]


def rabbitmq_version() -> dict[str, str]:
    """The members that name a version."""
    return {
        "rabbit_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "txmsg",
        "product_version": __version__,
    }


@route("GET", "overview")
def overview(call: Call) -> Any:
    """Versions, totals, listeners; the totals are of what the visitor sees."""
    vhosts = call.visible_vhosts()
    queues = [queue for vhost in vhosts for queue in vhost.queues.values()]
    ready = sum(queue.message_count for queue in queues)
    unacked = sum(queue.unacked_count for queue in queues)
    sees_all = call.visitor.is_at_least(Level.MONITORING)
    connections = [
        each
        for each in call.broker.connections
        if sees_all or (each.user is not None and each.user.name == call.visitor.name)
    ]
    found: dict[str, Any] = {
        "management_version": RABBITMQ_VERSION,
        "rates_mode": "none",
        "exchange_types": _EXCHANGE_TYPES,
        **rabbitmq_version(),
        "cluster_name": call.broker.name,
        "erlang_version": "",
        "erlang_full_version": f"none: Python {sys.version.split()[0]}",
        "disable_stats": False,
        "enable_queue_totals": False,
        "message_stats": {},
        "churn_rates": {},
        "queue_totals": {
            "messages": ready + unacked,
            "messages_ready": ready,
            "messages_unacknowledged": unacked,
        },
        "object_totals": {
            "channels": sum(len(each.channels) for each in connections),
            "connections": len(connections),
            "consumers": sum(queue.consumer_count for queue in queues),
            "exchanges": sum(len(vhost.exchanges) for vhost in vhosts),
            "queues": len(queues),
        },
        "statistics_db_event_queue": 0,
        "node": call.api.node,
    }
    if sees_all:
        found["listeners"] = call.api.listeners()
        found["contexts"] = _contexts(call)
    return found


def _contexts(call: Call) -> list[dict[str, Any]]:
    """Where this API itself is served."""
    return [
        {"node": call.api.node, "description": "txmsg management", "path": "/", "ip": host, "port": str(port)}
        for host, port in call.api.http_listeners
    ]


@route("GET", "cluster-name")
def cluster_name(call: Call) -> Any:
    """What the broker calls itself."""
    return {"name": call.broker.name}


@route("GET", "extensions")
def extensions(call: Call) -> Any:
    """None."""
    return []


@route("GET", "auth")
def auth(call: Call) -> Any:
    """How to log in: with a password."""
    return {"enable_uaa": False, "uaa_client_id": "", "uaa_location": ""}


def _node_json(call: Call) -> dict[str, Any]:
    broker = call.broker
    return {
        "name": call.api.node,
        "type": "disc" if broker.journal.is_durable else "ram",
        "running": True,
        "os_pid": str(os.getpid()),
        "mem_used": broker.usage.bytes,
        "mem_limit": broker.limits.broker_bytes,
        "mem_alarm": "memory" in broker.alarms.sources,
        "disk_free_alarm": "disk" in broker.alarms.sources,
        "partitions": [],
        "processors": os.cpu_count() or 1,
        "sockets_total": broker.limits.connections,
        "sockets_used": len(broker.connections),
        "uptime": call.api.uptime(),
        "rates_mode": "none",
        "exchange_types": _EXCHANGE_TYPES,
        "auth_mechanisms": _MECHANISMS,
        "applications": [{"name": "txmsg", "description": "txmsg", "version": __version__}],
        "contexts": _contexts(call),
        "enabled_plugins": ["rabbitmq_management"],
    }


@route("GET", "nodes", Level.MONITORING)
def nodes(call: Call) -> Any:
    """The broker itself: there is one."""
    return [_node_json(call)]


@route("GET", "nodes/{name}", Level.MONITORING)
def node(call: Call, name: str) -> Any:
    """The same, by name."""
    if name != call.api.node:
        raise not_found()
    return _node_json(call)
