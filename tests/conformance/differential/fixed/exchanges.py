"""Exchanges and bindings: what is refused, and what goes where."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.differential.fixed.notation import ask, ask_at, bind, consume, declare, get, make, put, unbind
from tests.conformance.differential.steps import Program, Publish, Step
from txmsg.wire.field_values import Int8, Int64
from txmsg.wire.methods import confirm, exchange, queue

__all__ = ["PROGRAMS"]

_KEYS: Final = ("", "a", "a.b", "a.", ".", "..", "a.b.c", "b", "a*", "a#", "#", "*")
_PATTERNS: Final = (
    "",
    "#",
    "*",
    "#.#",
    "*.#",
    "#.*",
    "a.*",
    "a.#",
    "#.b",
    "*.*",
    "a*",
    "a#",
    "*.b.*",
    "#.b.#",
    "a.#.c",
)
_HEADERS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"a": 1},
    {"a": Int8(1)},
    {"a": Int64(1)},
    {"a": 1.0},
    {"a": "1"},
    {"a": b"1"},
    {"a": True},
    {"a": None},
    {"a": 2},
    {"a": 1, "b": 2},
    {"b": 2, "x-y": 3},
    {"x-y": 3},
    {"a": {"k": 1}},
    {"a": [1, "x"]},
)
_MATCHES: Final[tuple[dict[str, Any], ...]] = (
    *_HEADERS,
    *(
        {"x-match": match} | rest
        for match in ("all", "any", "all-with-x", "any-with-x")
        for rest in ({}, {"a": 1}, {"a": 1, "b": 2}, {"x-y": 3}, {"a": 1, "x-y": 3}, {"a": None, "b": 2})
    ),
)


def _topics() -> tuple[Step, ...]:
    steps: list[Step] = [*ask(make("x", "topic"))]
    for number, pattern in enumerate(_PATTERNS):
        steps += ask(declare(f"q{number}"), bind(f"q{number}", "x", pattern))
    steps += [Publish("a1", "x", key, key.encode(), True) for key in _KEYS]
    for number in (0, 1, 4, 8):
        steps += ask(unbind(f"q{number}", "x", _PATTERNS[number]))
    steps += [Publish("a1", "x", key, key.encode(), True) for key in _KEYS]
    return tuple(steps)


def _headers() -> tuple[Step, ...]:
    steps: list[Step] = [*ask(make("x", "headers"))]
    for number, arguments in enumerate(_MATCHES):
        steps += ask(declare(f"q{number}"), bind(f"q{number}", "x", "", arguments))
    for number, headers in enumerate(_HEADERS):
        steps.append(Publish("a1", "x", "", b"%d" % number, properties={"headers": headers}))
    steps.append(Publish("a1", "x", "", b"without"))
    return tuple(steps)


PROGRAMS: Final = (
    Program(
        "exchange declarations",
        ask(
            make("x", passive=True),
            make("amq.foo", passive=True),
            make("x"),
            make("x", "bogus", passive=True, durable=True),
            make("x", "fanout", durable=True, auto_delete=True, internal=True),
            make("x", durable=True, auto_delete=True, internal=True),
            make("x", auto_delete=True, internal=True),
            make("x", internal=True),
            make("x", "bogus"),
            make("y", "bogus"),
            make("y", ""),
            make("y", "Direct"),
            make("y", "topic", {"alternate-exchange": 1}),
            make("y", "topic", {"alternate-exchange": ""}),
            make("y", "topic"),
            make("amq.foo"),
            make("amq.direct", durable=True),
            make("amq.direct"),
            make("amq.direct", "fanout"),
            make("amq.match", "headers", durable=True),
            make("amq.rabbitmq.trace", "topic", durable=True, internal=True),
            make("amq.rabbitmq.log", "topic", passive=True),
            make("x\r\nx"),
            make("xx"),
            make("x" * 255),
            make("z", nowait=True),
            make("z", "fanout", nowait=True),
        ),
    ),
    Program(
        "alternate exchanges that differ",
        ask(
            make("x", "direct", {"alternate-exchange": "ae", "x-other": 1}),
            make("x", "direct", {"alternate-exchange": "ae2"}),
            make("x", "direct"),
            make("x", "direct", {"alternate-exchange": "ae"}),
            make("x", "direct", {"alternate-exchange": 1}),
            make("y"),
            make("y", "direct", {"alternate-exchange": "ae"}),
            make("y", "direct", {"x-other": 1}),
        ),
    ),
    Program(
        "the default exchange",
        (
            *ask(
                declare("q"),
                make(""),
                make("", passive=True),
                exchange.Delete(exchange=""),
                exchange.Delete(exchange="", if_unused=True),
                bind("q", ""),
                bind("missing", ""),
                unbind("q", ""),
                exchange.Bind(destination="", source="amq.direct"),
                exchange.Bind(destination="amq.direct", source=""),
                exchange.Unbind(destination="", source="amq.direct"),
                exchange.Unbind(destination="amq.direct", source=""),
            ),
        ),
    ),
    Program(
        "deletion of exchanges",
        ask(
            exchange.Delete(exchange="x"),
            exchange.Delete(exchange="amq.foo"),
            exchange.Delete(exchange="amq.direct"),
            exchange.Delete(exchange="x", nowait=True),
            declare("q"),
            make("x"),
            make("y"),
            exchange.Bind(destination="y", source="x"),
            exchange.Delete(exchange="x", if_unused=True),
            exchange.Delete(exchange="y", if_unused=True),
            exchange.Delete(exchange="x", if_unused=True),
            make("x"),
            bind("q", "x"),
            exchange.Delete(exchange="x", if_unused=True),
            unbind("q", "x"),
            exchange.Delete(exchange="x", if_unused=True),
        ),
    ),
    Program(
        "publishing to exchanges",
        (
            *ask(make("x", internal=True), declare("q"), bind("q", "x", "q"), bind("q", "amq.fanout")),
            *put("1", exchange="missing"),
            *put("1", exchange="x"),
            *put("1", exchange="amq.rabbitmq.trace"),
            *ask(exchange.Bind(destination="x", source="amq.direct", routing_key="q")),
            *put("1", exchange="amq.direct"),
            *put("1", exchange="amq.fanout", to="other"),
            *put("1", exchange="amq.direct", to="Q"),
        ),
    ),
    Program(
        "bindings of what is missing",
        ask(
            declare("q"),
            make("x"),
            bind("missing", "x"),
            bind("q", "missing"),
            bind("missing", "missing"),
            unbind("missing", "x"),
            unbind("q", "missing"),
            unbind("missing", "missing"),
            unbind("q", "x", "never"),
            exchange.Bind(destination="missing", source="x"),
            exchange.Bind(destination="x", source="missing"),
            exchange.Bind(destination="missing", source="gone"),
            exchange.Unbind(destination="missing", source="x"),
            exchange.Unbind(destination="x", source="missing"),
            exchange.Unbind(destination="missing", source="gone"),
            exchange.Bind(destination="x", source="x", routing_key="self"),
        ),
    ),
    Program(
        "bindings that differ by their arguments",
        (
            *ask(
                declare("q"),
                bind("q", "amq.direct", "k"),
                bind("q", "amq.direct", "k"),
                bind("q", "amq.direct", "k", {"a": Int64(1), "b": 2}),
            ),
            *put("1", to="k", exchange="amq.direct"),
            *ask(unbind("q", "amq.direct", "k")),
            *put("2", to="k", exchange="amq.direct"),
            *ask(unbind("q", "amq.direct", "k", {"a": 1, "b": 2})),
            *put("3", to="k", exchange="amq.direct"),
            *ask(unbind("q", "amq.direct", "k", {"b": 2, "a": Int64(1)})),
            *put("4", to="k", exchange="amq.direct"),
        ),
    ),
    Program(
        "x-match",
        ask(
            declare("q"),
            *(
                bind("q", "amq.headers", "", {"x-match": value})
                for value in ("bad", "", "ALL", 1, True, None, 1.5, {"a": 1}, [1], b"all", b"\xff", "a\nb")
            ),
            exchange.Bind(destination="amq.direct", source="amq.headers", arguments={"x-match": "bad"}),
            bind("q", "amq.direct", "", {"x-match": "bad"}),
            unbind("q", "amq.headers", "", {"x-match": "bad"}),
        ),
    ),
    Program("topics", _topics(), watches=False),
    Program("headers", _headers(), watches=False),
    Program(
        "CC and BCC",
        (
            *ask(declare("q"), declare("p"), declare("r"), bind("r", "amq.topic", "a.#")),
            *put("1", headers={"CC": ["p", "p", "q", "missing"]}),
            *put("2", headers={"BCC": ["p"]}),
            *put("3", headers={"CC": ["p"], "BCC": ["q"], "zz": 1, "aa": 2}),
            *put("4", to="missing", headers={"CC": ["p"]}),
            *put("5", to="missing", headers={"BCC": ["missing"], "a": 1}),
            *put("6", headers={"cc": ["p"]}),
            *put("7", headers={"CC": ["p", 1, b"q", None, ["p"]]}),
            *put("8", headers={"CC": "p"}),
            *put("9", headers={"BCC": None}),
            *put("10", headers={"CC": 1, "BCC": 1}),
            *put("11", exchange="amq.topic", to="x", headers={"CC": ["a.b", "a.c"]}),
            *put("12", exchange="amq.fanout", to="x", headers={"CC": ["q"]}),
            *ask(confirm.Select()),
            *put("13", headers={"CC": "p"}),
            *ask(confirm.Select()),
            *put("14", delivery_mode=3, headers={"CC": "p"}),
        ),
    ),
    Program(
        "alternate exchanges",
        (
            *ask(
                make("ae", "fanout", internal=True),
                make("x", "direct", {"alternate-exchange": "ae"}),
                make("lost", "direct", {"alternate-exchange": "missing"}),
                make("none", "direct", {"alternate-exchange": ""}),
                make("one", "direct", {"alternate-exchange": "two"}),
                make("two", "direct", {"alternate-exchange": "one"}),
                make("source", "fanout", {"alternate-exchange": "ae"}),
                make("nowhere", "direct"),
                make("onward", "direct", {"alternate-exchange": "ae"}),
                declare("q"),
                declare("p"),
                bind("q", "ae"),
                bind("p", "x", "p"),
            ),
            *put("1", to="k", exchange="x"),
            *put("2", to="p", exchange="x"),
            *put("3", to="k", exchange="x", headers={"CC": ["p"]}),
            *put("4", to="k", exchange="lost"),
            *put("5", to="k", exchange="none"),
            *put("6", to="k", exchange="one"),
            *ask(exchange.Bind(destination="nowhere", source="source")),
            *put("7", to="k", exchange="source"),
            *ask(exchange.Bind(destination="onward", source="source")),
            *put("8", to="k", exchange="source"),
            *ask(exchange.Delete(exchange="ae")),
            *put("9", to="k", exchange="x"),
        ),
    ),
    Program(
        "exchanges that delete themselves",
        (
            *ask(
                declare("q"),
                make("x", auto_delete=True),
                make("y", auto_delete=True),
                make("z", "fanout", auto_delete=True),
                exchange.Bind(destination="y", source="x"),
                exchange.Bind(destination="z", source="y"),
                bind("q", "z"),
                make("z", passive=True),
                unbind("q", "z"),
                make("z", passive=True),
                make("y", passive=True),
                make("x", passive=True),
                make("x", auto_delete=True),
                bind("q", "x", "1"),
                bind("q", "x", "2"),
                unbind("q", "x", "1"),
                unbind("q", "x", "1"),
                make("x", passive=True),
                queue.Delete(queue="q"),
                make("x", passive=True),
            ),
            *ask(make("x", auto_delete=True), exchange.Bind(destination="x", source="amq.fanout")),
            *ask(exchange.Unbind(destination="x", source="amq.fanout"), make("x", passive=True)),
        ),
    ),
    Program(
        "permissions",
        (
            *ask(declare("q"), declare("own"), make("own.x"), make("x", "topic")),
            *ask_at(
                "l1",
                declare("q"),
                declare("q", passive=True),
                declare("new"),
                declare(""),
                declare("own.q"),
                declare("own.d", {"x-dead-letter-exchange": ""}),
                declare("own.d", {"x-dead-letter-exchange": "x"}),
                declare("own.d", {"x-dead-letter-exchange": "own.x"}),
                declare("amq.own"),
                declare("own", {"x-max-length": -1}),
                queue.Delete(queue="q"),
                queue.Delete(queue="missing"),
                queue.Delete(queue="own.missing"),
                queue.Purge(queue="q"),
                queue.Purge(queue="own"),
                queue.Purge(queue="own.missing"),
                get("q"),
                get("own"),
                consume("q"),
                consume("missing"),
                consume("own"),
                bind("q", "own.x"),
                bind("own", "x"),
                bind("own", "missing"),
                bind("own.missing", "own.x"),
                bind("own", "own.x"),
                unbind("q", "x"),
                unbind("own", "x"),
                make("x", "topic"),
                make("x", "topic", passive=True),
                make("own.y", "topic", {"alternate-exchange": "x"}),
                make("own.y", "topic", {"alternate-exchange": "own.x"}),
                make("own.y", "topic", {"alternate-exchange": "x"}),
                declare("own.d", {"x-dead-letter-exchange": "x"}),
                make("amq.own"),
                make("y", "bogus"),
                exchange.Delete(exchange="x"),
                exchange.Delete(exchange="amq.direct"),
                exchange.Delete(exchange="own.y"),
                exchange.Bind(destination="x", source="own.x"),
                exchange.Bind(destination="own.x", source="x"),
                exchange.Unbind(destination="x", source="own.x"),
                exchange.Unbind(destination="own.x", source="x"),
                declare("amq.rabbitmq.reply-to"),
                consume("amq.rabbitmq.reply-to", "r", no_ack=True),
            ),
            *put("1", to="own", at="l1"),
            *put("2", to="own", exchange="x", at="l1"),
            *put("3", to="own", exchange="missing", at="l1"),
            *put("4", to="own", exchange="amq.topic", at="l1"),
            *put("5", to="own", exchange="amq.direct", at="l1"),
            *put("6", to="own", at="l1", user_id="guest"),
            *put("7", to="own", at="l1", user_id="limited"),
        ),
    ),
)
