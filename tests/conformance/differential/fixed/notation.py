"""Short ways of writing the steps of a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.conformance.differential.steps import Call, Publish, Settle, Step
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, exchange, queue

__all__ = ["ask", "ask_at", "bind", "consume", "declare", "get", "make", "put", "rejected", "unbind"]


def ask_at(at: str, *methods: Method) -> tuple[Call, ...]:
    """These methods on channel `at`, one after the other."""
    return tuple(Call(at, method) for method in methods)


def ask(*methods: Method) -> tuple[Call, ...]:
    """These methods on channel a1."""
    return ask_at("a1", *methods)


def declare(name: str = "q", arguments: Mapping[str, Any] | None = None, **flags: bool) -> queue.Declare:
    """queue.declare."""
    return queue.Declare(queue=name, arguments=dict(arguments or {}), **flags)


def make(
    name: str, kind: str = "direct", arguments: Mapping[str, Any] | None = None, **flags: bool
) -> exchange.Declare:
    """exchange.declare."""
    return exchange.Declare(exchange=name, type=kind, arguments=dict(arguments or {}), **flags)


def bind(name: str, source: str, key: str = "", arguments: Mapping[str, Any] | None = None) -> queue.Bind:
    """queue.bind."""
    return queue.Bind(queue=name, exchange=source, routing_key=key, arguments=dict(arguments or {}))


def unbind(name: str, source: str, key: str = "", arguments: Mapping[str, Any] | None = None) -> queue.Unbind:
    """queue.unbind."""
    return queue.Unbind(queue=name, exchange=source, routing_key=key, arguments=dict(arguments or {}))


def consume(
    name: str = "q", tag: str = "c", arguments: Mapping[str, Any] | None = None, **flags: bool
) -> basic.Consume:
    """basic.consume."""
    return basic.Consume(queue=name, consumer_tag=tag, arguments=dict(arguments or {}), **flags)


def get(name: str = "q", *, no_ack: bool = True) -> basic.Get:
    """basic.get."""
    return basic.Get(queue=name, no_ack=no_ack)


def put(*bodies: str, to: str = "q", exchange: str = "", at: str = "a1", **properties: Any) -> tuple[Publish, ...]:
    """Publish these bodies, mandatory."""
    return tuple(Publish(at, exchange, to, body.encode(), mandatory=True, properties=properties) for body in bodies)


def rejected(name: str, times: int = 1, *, how: str = "reject", requeue: bool = False) -> tuple[Step, ...]:
    """Get a message from the queue and send it back or away, again and again."""
    steps: list[Step] = [*ask(get(name, no_ack=False)), Settle("a1", how, requeue=requeue)]
    return tuple(steps * times)
