"""/api/consumers: who consumes from which queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.broker.management.calls import Call
from txmsg.broker.management.listings import listed
from txmsg.broker.management.plain import plain_table, plain_text
from txmsg.broker.management.routes import route

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Consumer
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["consumer_json", "in_vhost", "list_all"]


def consumer_json(call: Call, queue: Queue, consumer: Consumer) -> dict[str, Any]:
    """A consumer as RabbitMQ shows it; one in the broker's own process has no channel."""
    active = queue.active_consumer
    is_active = active is None or active is consumer
    channel: Any = getattr(consumer, "channel", None)
    return {
        "arguments": plain_table(getattr(consumer, "arguments", None)),
        "ack_required": not consumer.no_ack,
        "active": is_active,
        "activity_status": "up" if is_active else "waiting",
        "channel_details": {} if channel is None else call.api.channel_details(channel),
        "consumer_tag": plain_text(consumer.tag),
        "exclusive": consumer.exclusive,
        "prefetch_count": getattr(consumer, "prefetch_count", 0),
        "queue": {"name": plain_text(queue.name), "vhost": queue.vhost.name},
    }


def _of(call: Call, vhost: VirtualHost) -> list[dict[str, Any]]:
    return [
        consumer_json(call, vhost.queues[name], consumer)
        for name in sorted(vhost.queues)
        for consumer in vhost.queues[name].consumers
    ]


@route("GET", "consumers")
def list_all(call: Call) -> Any:
    """Those in all virtual hosts that the visitor sees."""
    return listed(call, [item for vhost in call.visible_vhosts() for item in _of(call, vhost)])


@route("GET", "consumers/{vhost}")
def in_vhost(call: Call, vhost: str) -> Any:
    """Those in one virtual host."""
    return listed(call, _of(call, call.vhost(vhost)))
