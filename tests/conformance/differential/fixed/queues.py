"""queue.declare, delete and purge: what is refused, and how that is put."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from tests.conformance.differential.fixed.notation import ask, ask_at, consume, declare, get, put
from tests.conformance.differential.steps import LAST_GENERATED, Call, Close, Program, Settle
from txmsg.wire.field_values import Float32, Int8, Int16, Int64, Timestamp, UInt8, UInt16, UInt32
from txmsg.wire.methods import basic, channel, queue

__all__ = ["PROGRAMS"]

_BOUNDED: Final = ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority")
_NO_INTEGERS: Final[tuple[Any, ...]] = (
    1.5, Float32(1.5), True, "1", b"1", None, {"k": 1}, [1], Timestamp(1), Decimal("1.5"),
)  # fmt: skip
_WORDS: Final = (
    "x-overflow", "x-queue-mode", "x-queue-type", "x-single-active-consumer", "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
)  # fmt: skip
_NO_WORDS: Final[tuple[Any, ...]] = (1, 1.5, True, None, b"a", {}, [], "bad", "")
_SAME: Final = (Int8(5), UInt8(5), Int16(5), UInt16(5), 5, UInt32(5), Int64(5))
#: One of every argument, in an order that is not the one in which they are compared.
_ALL: Final[dict[str, Any]] = {
    "x-single-active-consumer": True,
    "x-queue-version": 1,
    "x-queue-mode": "lazy",
    "x-overflow": "drop-head",
    "x-max-priority": 3,
    "x-max-length-bytes": 1000,
    "x-max-length": 10,
    "x-dead-letter-routing-key": "k",
    "x-dead-letter-exchange": "x",
    "x-message-ttl": 3_600_000,
    "x-expires": 3_600_000,
    "x-queue-type": "classic",
}
_OTHER: Final[dict[str, Any]] = {
    "x-single-active-consumer": False,
    "x-queue-version": 2,
    "x-queue-mode": "default",
    "x-overflow": "reject-publish",
    "x-max-priority": 4,
    "x-max-length-bytes": 1001,
    "x-max-length": 11,
    "x-dead-letter-routing-key": "l",
    "x-dead-letter-exchange": "y",
    "x-message-ttl": 3_600_001,
    "x-expires": 3_600_001,
    "x-queue-type": "quorum",
}


def _tried(*arguments: dict[str, Any]) -> tuple[Call, ...]:
    """Each of these on a queue of its own, and gone again."""
    return tuple(step for each in arguments for step in ask(declare("q", each), queue.Delete(queue="q")))


PROGRAMS: Final = (
    Program(
        "passive declarations",
        ask(
            declare("q", passive=True),
            declare("", passive=True),
            declare("amq.foo", passive=True),
            declare("q", {"x-max-length": 5}, durable=True),
            declare("q", {"x-max-length": "five"}, passive=True, exclusive=True, auto_delete=True),
            declare("amq.rabbitmq.reply-to"),
            declare("amq.rabbitmq.reply-to", passive=True),
            declare("amq.rabbitmq.reply-to.abc"),
            declare("amq.rabbitmq.reply-to.abc", passive=True),
        ),
    ),
    Program(
        "flags that differ",
        ask(
            declare("q"),
            declare("q", {"x-max-length": 5}, durable=True, auto_delete=True, exclusive=True),
            declare("q", {"x-max-length": 5}, durable=True, auto_delete=True),
            declare("q", {"x-max-length": 5}, auto_delete=True),
            declare("q", {"x-max-length": 5}),
            declare("d", durable=True),
            declare("d"),
            declare("e", exclusive=True, durable=True),
            declare("e", exclusive=True),
            declare("e", exclusive=True, durable=True),
            declare("e"),
        ),
    ),
    Program(
        "somebody else's exclusive queue",
        (
            *ask_at("b1", declare("e", exclusive=True), queue.Bind(queue="e", exchange="amq.direct", routing_key="k")),
            *ask(
                declare("e"),
                declare("e", exclusive=True),
                declare("e", passive=True),
                queue.Bind(queue="e", exchange="amq.direct"),
                queue.Bind(queue="e", exchange="missing"),
                queue.Unbind(queue="e", exchange="amq.direct", routing_key="k"),
                queue.Unbind(queue="e", exchange="amq.direct", routing_key="other"),
                consume("e"),
                get("e"),
                queue.Purge(queue="e"),
                queue.Delete(queue="e"),
                queue.Delete(queue="e", if_unused=True),
            ),
            *put("1", to="e"),
            *ask_at("b1", get("e")),
            Call("b1", channel.Close()),
            *put("2", to="e"),
            Close("b"),
            *put("3", to="e"),
            *ask(declare("e", passive=True), declare("e")),
        ),
    ),
    Program("values of another kind", _tried(*({name: value} for name in _BOUNDED for value in _NO_INTEGERS))),
    Program(
        "integers out of range",
        _tried(
            *({name: value} for name in _BOUNDED for value in (-1, 0, 1 << 40, 315_360_000_001, 315_360_000_000)),
            {"x-max-priority": 255},
            {"x-max-priority": 256},
            *({"x-queue-version": value} for value in (0, 1, 2, 3, -1, "1", True)),
        ),
    ),
    Program(
        "words that are none",
        _tried(
            *({name: value} for name in _WORDS for value in _NO_WORDS),
            {"x-dead-letter-routing-key": "k"},
            {"x-dead-letter-routing-key": "k", "x-dead-letter-exchange": ""},
            *({"x-overflow": value} for value in ("drop-head", "reject-publish", "reject-publish-dlx")),
            *({"x-queue-master-locator": value} for value in ("min-masters", "client-local", "random")),
        ),
    ),
    Program(
        "arguments of other types of queues",
        _tried(
            {"x-delivery-limit": 1},
            {"x-quorum-initial-group-size": 1},
            {"x-max-in-memory-length": 1},
            {"x-dead-letter-strategy": "at-least-once"},
            {"x-max-age": "1h"},
            {"x-max-age": "1h", "x-delivery-limit": 1},
            {"x-delivery-limit": 1, "x-max-age": "1h"},
            {"x-delivery-limit": 1, "x-max-length": -1},
            {"x-consumer-timeout": "x", "x-ha-policy": "all", "x-foo": 1, "foo": None},
        ),
    ),
    Program(
        "arguments that differ",
        (
            *ask(declare("q", _ALL)),
            *(ask(declare("q", _ALL | {name: _OTHER[name]}))[0] for name in _ALL),
            *(ask(declare("q", {key: value for key, value in _ALL.items() if key != name}))[0] for name in _ALL),
            *ask(declare("p")),
            *(ask(declare("p", {name: value}))[0] for name, value in _ALL.items()),
            *(
                ask(declare("q", dict(list(_OTHER.items())[:count]) | dict(list(_ALL.items())[count:])))[0]
                for count in range(len(_ALL) + 1)
            ),
        ),
    ),
    Program(
        "the same number in many kinds",
        (
            *ask(declare("q", {"x-max-length": 5})),
            *(ask(declare("q", {"x-max-length": value}))[0] for value in (*_SAME, 5.0, "5", True, None, -1, 6)),
            *ask(
                declare("q", {"x-max-length": Timestamp(5)}),
                declare("q", {"x-max-length": {"a": 1}}),
                declare("q", {"x-max-length": [1, "a"]}),
                declare("q", {"x-max-length": 1e300}),
            ),
        ),
    ),
    Program(
        "arguments that are not compared",
        ask(
            declare("q", {"x-foo": 1}),
            declare("q", {"x-foo": 2}),
            declare("q"),
            declare("q", {"x-queue-type": "classic"}),
            declare("q", {"x-queue-type": "quorum"}),
            declare("r", {"x-queue-type": "classic"}),
            declare("r"),
        ),
    ),
    Program(
        "names",
        (
            *ask(
                declare(" a\r\né "),
                declare("q" * 255),
                declare("amq"),
                declare("AMQ.x"),
                declare("amq."),
                declare("amq.x"),
                declare("amq.gen-abc", exclusive=True),
                declare(""),
                declare("", exclusive=True),
                declare(LAST_GENERATED, exclusive=True),
                declare(LAST_GENERATED, passive=True),
                declare("", auto_delete=True),
                declare(LAST_GENERATED, auto_delete=True),
            ),
            *ask(declare("é" * 127, {"x-max-length": "é"}), declare("q" * 255, durable=True)),
        ),
    ),
    Program(
        "the last declared queue",
        (
            *(
                step
                for method in (
                    queue.Bind(exchange="amq.direct"),
                    queue.Unbind(exchange="amq.direct"),
                    queue.Purge(),
                    queue.Delete(),
                    basic.Consume(),
                    basic.Get(),
                )
                for step in ask(method)
            ),
            *ask(
                declare("q"),
                queue.Bind(exchange="amq.direct"),
                queue.Bind(exchange="amq.fanout", routing_key="k"),
                basic.Get(),
                basic.Consume(consumer_tag="c"),
            ),
            *put("1", to="q", exchange="amq.direct"),
            *put("2", to=""),
            *ask(
                declare("p", passive=True),
                basic.Get(),
                declare("p", nowait=True),
                basic.Get(),
                declare("amq.rabbitmq.reply-to"),
                queue.Bind(exchange="amq.direct"),
                declare("p"),
                queue.Delete(),
                queue.Purge(),
            ),
        ),
    ),
    Program(
        "without waiting for an answer",
        ask(
            declare("q", nowait=True),
            declare("q", durable=True, nowait=True),
            queue.Bind(queue="q", exchange="amq.direct", nowait=True),
            queue.Bind(queue="p", exchange="amq.direct", nowait=True),
            queue.Purge(queue="q", nowait=True),
            queue.Purge(queue="p", nowait=True),
            consume("q", nowait=True),
            consume("p", nowait=True),
            basic.Cancel("c", True),
            queue.Delete(queue="q", nowait=True),
            queue.Delete(queue="q", nowait=True),
        ),
    ),
    Program(
        "purge and delete",
        (
            *ask(queue.Purge(queue="q"), queue.Delete(queue="q"), declare("q")),
            *put("1", "2", "3"),
            *ask(get("q", no_ack=False), queue.Purge(queue="q")),
            *ask(queue.Delete(queue="q", if_empty=True)),
            Settle("a1"),
            *ask(declare("q")),
            *put("1", "2"),
            *ask(
                queue.Delete(queue="q", if_empty=True),
                queue.Delete(queue="q", if_unused=True, if_empty=True),
                basic.Qos(0, 1, False),
                consume("q"),
                queue.Delete(queue="q", if_unused=True, if_empty=True),
                queue.Delete(queue="q", if_unused=True),
                queue.Purge(queue="q"),
                queue.Delete(queue="q", if_unused=True, if_empty=True),
            ),
            *ask(consume("q"), queue.Delete(queue="q")),
            *ask(declare("q"), consume("q")),
        ),
    ),
    Program(
        "auto-delete",
        (
            *ask(declare("q", auto_delete=True)),
            *put("1"),
            *ask(get("q"), consume("q"), consume("q", "d"), basic.Cancel("c")),
            *put("1", "2"),
            *ask(basic.Cancel("d"), declare("q", passive=True)),
            *ask(declare("q", auto_delete=True)),
            *ask_at("a2", consume("q"), channel.Close()),
            *ask(declare("q", passive=True), declare("q", auto_delete=True)),
            *ask_at("b1", consume("q")),
            Close("b"),
            *ask(declare("q", passive=True)),
        ),
    ),
)
