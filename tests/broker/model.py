"""A virtual host on a clock of the test's own, and short ways to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock

from txmsg.broker.faults import Fault
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import Queue
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

__all__ = ["fault_of", "make_vhost", "publish", "take", "taken_by"]


def make_vhost(*, clock: Clock | None = None, limits: BrokerLimits | None = None, **more: Any) -> VirtualHost:
    """A virtual host with nothing in it."""
    return VirtualHost(clock=clock or Clock(), limits=limits, **more)


def publish(
    vhost: VirtualHost,
    exchange: str,
    routing_key: str = "",
    body: bytes = b"",
    *,
    headers: Mapping[str, Any] | None = None,
    **properties: Any,
) -> int:
    """Publish as a channel does: what the message says of itself is passed along with it."""
    said = NO_PROPERTIES
    if headers is not None or properties:
        said = BasicProperties(headers=headers, **properties)
    return vhost.publish(exchange, routing_key, Message.published(exchange, routing_key, said, body), said)


def take(queue: Queue) -> list[Message]:
    """All messages that are ready, taken."""
    messages = []
    while (entry := queue.get(no_ack=True)) is not None:
        messages.append(entry.message)
    return messages


def taken_by(vhost: VirtualHost) -> set[str]:
    """The queues that hold messages, emptied; a queue that holds more than one appears as `name*2`."""
    counts = {name: len(take(queue)) for name, queue in vhost.queues.items()}
    return {name if count == 1 else f"{name}*{count}" for name, count in counts.items() if count}


def fault_of(call: Any, *args: Any, **kwargs: Any) -> tuple[int, str]:
    """The code and the text of the fault that a call raises; (0, "") if it raises none."""
    try:
        call(*args, **kwargs)
    except Fault as fault:
        return fault.reply_code, fault.reply_text
    return 0, ""
