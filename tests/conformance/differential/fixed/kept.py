"""Random programs that once went differently, made short; the number is the seed that found them."""

from __future__ import annotations

from typing import Final

from tests.conformance.differential.steps import Call, Program, Publish
from txmsg.wire.field_values import Float32
from txmsg.wire.methods import basic, exchange, queue, tx

__all__ = ["PROGRAMS"]

PROGRAMS: Final = (
    Program(
        "303: permissions of the dead letter exchange are not asked for again",
        (
            Call("l1", queue.Declare(queue="own", arguments={"x-dead-letter-exchange": ""})),
            Call("l1", queue.Declare(queue="own", durable=True, arguments={"x-dead-letter-exchange": "x1"})),
            Call("l1", queue.Declare(queue="own", arguments={"x-dead-letter-exchange": "x1"})),
            Call("a1", queue.Declare(queue="own2", arguments={"x-dead-letter-exchange": "x1"})),
            Call("l1", queue.Declare(queue="own2", arguments={"x-dead-letter-exchange": "x1"})),
        ),
    ),
    Program(
        "456: floats of 32 bits in texts",
        (
            Call("b1", queue.Declare(queue="q1")),
            Call("b1", queue.Declare(queue="q1", arguments={"x-expires": Float32(1.0)})),
            Call("b1", queue.Declare(queue="q1", arguments={"x-max-length": Float32(0.5)})),
            Call("b1", queue.Declare(queue="q2", arguments={"x-overflow": Float32(0.5)})),
        ),
    ),
    Program(
        "629: nobody goes on before commit-ok",
        (
            Call("a1", queue.Declare(queue="q0")),
            Call("a1", tx.Select()),
            Publish("a1", "", "q0", properties={"expiration": "0"}),
            Call("a1", tx.Commit()),
        ),
    ),
    Program(
        "701: no queue comes before a tag in use",
        (
            Call("b1", queue.Declare(queue="q0")),
            Call("a1", basic.Consume(queue="q0", consumer_tag="c0")),
            Call("a1", basic.Consume(consumer_tag="c0")),
            Call("a1", queue.Declare(queue="amq.rabbitmq.reply-to")),
            Call("a1", basic.Consume(consumer_tag="c0", no_ack=True)),
        ),
    ),
    Program(
        "3053: write permission comes before the default exchange, and read permission behind it",
        (
            Call("l1", exchange.Bind(destination="x1", source="")),
            Call("l1", exchange.Bind(destination="", source="x1")),
            Call("l1", exchange.Unbind(destination="", source="")),
            Call("l1", queue.Bind(queue="q0", exchange="", routing_key="k")),
            Call("l1", queue.Unbind(queue="own", exchange="", routing_key="k")),
        ),
    ),
    Program(
        "10281: consumers are told of the end of their queue in the order of their tags",
        (
            Call("a1", queue.Declare(queue="q0")),
            Call("a1", basic.Consume(queue="q0", consumer_tag="c11")),
            Call("a1", basic.Consume(queue="q0", consumer_tag="c1")),
            Call("a1", basic.Consume(queue="q0")),
            Call("a1", queue.Delete(queue="q0")),
        ),
    ),
)
