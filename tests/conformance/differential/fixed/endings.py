"""How messages leave queues on their own: limits, times, dead letters, priorities."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.differential.fixed.notation import ask, ask_at, bind, consume, declare, get, make, put, rejected
from tests.conformance.differential.steps import Call, Program, Settle, Step, Wait
from txmsg.wire.field_values import Int64
from txmsg.wire.methods import basic, confirm, exchange, queue

__all__ = ["PROGRAMS"]

#: Long enough for what takes 50 ms.
_LATER: Final = Wait(0.2)
_DEAD: Final = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def _limited(limits: dict[str, Any]) -> tuple[Step, ...]:
    """The same with all three ways of overflowing."""
    steps: list[Step] = [*ask(declare("dead"), confirm.Select())]
    for overflow in ("drop-head", "reject-publish", "reject-publish-dlx"):
        steps += [
            *ask(declare("q", limits | _DEAD | {"x-overflow": overflow})),
            *put("1", "22", "333", "4444", "1", ""),
            *ask(get(no_ack=False)),
            *put("a", "b"),
            Settle("a1", "nack", 0, requeue=True),
            *ask_at("a2", basic.Qos(0, 1, False), consume("q", "c")),
            *put("c", "d"),
            Settle("a2", "ack", 0),
            *put("eeeeeeeeee"),
            Settle("a2", "nack", 0, requeue=False),
            *ask_at("a2", queue.Delete(queue="q")),
        ]
    return tuple(steps)


_MADE_UP: Final[tuple[dict[str, Any], ...]] = (
    {"x-death": []},
    {"x-death": "x"},
    {"x-death": None},
    {"x-death": {}},
    {"x-death": [{}]},
    {"x-death": [{"queue": "q", "reason": "rejected"}]},
    {"x-death": [{"queue": "q", "reason": "rejected", "count": Int64(7), "exchange": "other"}]},
    {"x-death": [{"queue": "q", "reason": "expired", "count": Int64(7)}], "x-first-death-queue": "z"},
    {"x-first-death-queue": "z", "x-first-death-reason": 1},
    {
        "x-death": [
            {"queue": "a", "reason": "r", "count": Int64(1)},
            {"queue": "q", "reason": "rejected", "count": Int64(2)},
        ]
    },
)


def _made_up() -> tuple[Step, ...]:
    steps: list[Step] = []
    for headers in _MADE_UP:
        steps += [*put("1", headers=headers), *rejected("q")]
    return tuple(steps)


PROGRAMS: Final = (
    *(
        Program(f"limits {limits}", _limited(limits))
        for limits in (
            {"x-max-length": 0},
            {"x-max-length": 2},
            {"x-max-length-bytes": 0},
            {"x-max-length-bytes": 4},
            {"x-max-length": 2, "x-max-length-bytes": 4},
            {"x-max-length": 2, "x-max-priority": 3},
        )
    ),
    Program(
        "priorities",
        (
            *ask(declare("q", {"x-max-priority": 3, "x-max-length": 5} | _DEAD), declare("dead")),
            *put("none"),
            *put("one", priority=1),
            *put("three", priority=3),
            *put("nine", priority=9),
            *put("zero", priority=0),
            *put("two", priority=2),
            *put("late", priority=0),
            *ask(get(no_ack=False), get(no_ack=False)),
            Settle("a1", "nack", 1, requeue=True),
            Settle("a1", "nack", 0, requeue=True),
            *ask(get(), get(), get(), get(), get()),
        ),
    ),
    Program(
        "times to live",
        (
            *ask(declare("q", {"x-message-ttl": 50} | _DEAD), declare("dead"), declare("p", _DEAD)),
            *put("1"),
            _LATER,
            *put("2", expiration="3600000"),
            *put("3", expiration="10", headers={"zz": 1, "aa": 2}, delivery_mode=2, priority=4),
            _LATER,
            *put("long", to="p", expiration="3600000"),
            *put("short", to="p", expiration="10"),
            _LATER,
            *ask(get("p")),
            _LATER,
            *put("unacked", to="p", expiration="50"),
            *ask(get("p", no_ack=False)),
            _LATER,
            Settle("a1", "nack", requeue=True),
        ),
    ),
    Program(
        "a time to live of 0",
        (
            *ask(declare("q", {"x-message-ttl": 0} | _DEAD), declare("dead"), declare("p", _DEAD)),
            *put("1"),
            *put("2", to="p", expiration="0"),
            *ask(basic.Qos(0, 1, False), consume("q")),
            *put("3", "4"),
            Settle("a1", "nack", requeue=True),
            *ask(consume("p", "d")),
            *put("5", to="p", expiration="0"),
            Settle("a1", "reject", requeue=True),
        ),
    ),
    Program(
        "queues that expire",
        (
            *ask(declare("q", {"x-expires": 150})),
            Wait(0.4),
            *ask(declare("q", passive=True), declare("q", {"x-expires": 150}), consume("q")),
            *put("1"),
            Wait(0.4),
            *ask(basic.Ack(1), declare("q", passive=True), basic.Cancel("c")),
            Wait(0.4),
            *ask(declare("q", passive=True)),
        ),
        watches=False,
    ),
    Program(
        "deaths",
        (
            *ask(
                declare("q", {"x-dead-letter-exchange": "x"}),
                declare("p", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}),
                make("x", "fanout"),
                bind("p", "x"),
                basic.Qos(0, 1, False),
                consume("q", "c"),
                consume("p", "d"),
            ),
            *put("1", headers={"zz": 1, "aa": 2}, expiration="3600000"),
            *(Settle("a1", "reject") for _ in range(6)),
            Settle("a1"),
            *put("2", headers={"CC": ["other"]}),
            *(Settle("a1", "nack") for _ in range(3)),
        ),
    ),
    Program(
        "deaths that clients made up",
        (
            *ask(declare("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "p"}), declare("p")),
            *_made_up(),
        ),
    ),
    Program(
        "keys of dead letters",
        (
            *ask(
                declare("q", {"x-dead-letter-exchange": "amq.direct"}),
                declare("p", {"x-dead-letter-exchange": "amq.direct", "x-dead-letter-routing-key": "new"}),
                *(declare(name) for name in ("dq", "dcc", "dnew")),
                bind("dq", "amq.direct", "q"),
                bind("dcc", "amq.direct", "cc"),
                bind("dnew", "amq.direct", "new"),
            ),
            *put("1", headers={"CC": ["cc"], "aa": 1}),
            *ask(get("q", no_ack=False)),
            Settle("a1", "reject"),
            *put("2", to="p", headers={"CC": ["cc"]}),
            *ask(get("p", no_ack=False)),
            Settle("a1", "reject"),
        ),
    ),
    Program(
        "circles",
        (
            *ask(declare("q", {"x-dead-letter-exchange": "", "x-message-ttl": 0})),
            *put("1"),
            *ask(queue.Delete(queue="q")),
            *ask(declare("q", {"x-dead-letter-exchange": "", "x-max-length": 0})),
            *put("2"),
            *ask(queue.Delete(queue="q")),
            *ask(
                declare("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "p", "x-message-ttl": 0}),
                declare("p", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}),
            ),
            *put("3"),
            *ask(get("p", no_ack=False)),
            Settle("a1", "reject"),
            *ask(get("p", no_ack=False)),
            Settle("a1", "reject"),
            *ask(declare("r", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "r"})),
            *put("4", to="r"),
            *rejected("r", 3),
        ),
    ),
    Program(
        "dead letters that go nowhere",
        (
            *ask(declare("q", {"x-dead-letter-exchange": "missing"}), basic.Qos(0, 1, False), consume("q")),
            *put("1"),
            Settle("a1", "reject"),
            *ask(
                make("missing", "fanout", {"alternate-exchange": "amq.fanout"}), declare("p"), bind("p", "amq.fanout")
            ),
            *put("2"),
            Settle("a1", "reject"),
            *ask(exchange.Delete(exchange="missing"), make("missing", "fanout", internal=True), bind("p", "missing")),
            *put("3"),
            Settle("a1", "reject"),
            *put("4"),
            *ask(queue.Purge(queue="q"), queue.Delete(queue="q")),
        ),
    ),
    Program(
        "quorum queues that are refused",
        (
            *ask(
                *(
                    declare("q", {"x-queue-type": "quorum"} | arguments, durable=True)
                    for arguments in (
                        {"x-max-priority": 3},
                        {"x-queue-mode": "lazy"},
                        {"x-max-priority": 3, "x-queue-mode": "lazy"},
                        {"x-queue-mode": "lazy", "x-max-priority": 3},
                        {"x-max-length": -1},
                        {"x-dead-letter-strategy": "bad"},
                        {"x-quorum-initial-group-size": 0},
                    )
                ),
                declare("q", {"x-queue-type": "quorum"}),
                declare("q", {"x-queue-type": "quorum"}, exclusive=True),
                declare("q", {"x-queue-type": "quorum"}, exclusive=True, durable=True),
                declare("q", {"x-queue-type": "quorum"}, auto_delete=True, durable=True),
                declare("q", {"x-queue-type": "quorum"}, auto_delete=True, exclusive=True),
                declare("", {"x-queue-type": "quorum"}, durable=True),
                declare("q", {"x-queue-type": "quorum"}, durable=True),
                declare("q", {}, durable=True),
                declare("q", {"x-queue-type": "classic"}, durable=True),
                declare("q", {"x-queue-type": "quorum", "x-delivery-limit": 2}, durable=True),
                basic.Qos(0, 5, True),
                consume("q"),
                queue.Delete(queue="q", if_unused=True),
                queue.Delete(queue="q", if_empty=True),
                queue.Delete(queue="q", if_unused=True, if_empty=True),
            ),
        ),
    ),
    Program(
        "the delivery limit",
        (
            *ask(
                declare("dead"),
                declare("q", {"x-queue-type": "quorum", "x-delivery-limit": 2} | _DEAD, durable=True),
            ),
            *put("1", headers={"zz": 1, "Aa": 2, "x-z": 3}),
            *rejected("q", 3, how="nack", requeue=True),
            *ask(basic.Qos(0, 1, False), consume("q")),
            *put("2"),
            *(Settle("a1", "nack", requeue=True) for _ in range(4)),
        ),
        watches=False,
        pause=0.1,
    ),
    Program(
        "the same message through several queues",
        (
            *ask(
                declare("one", {"x-max-length": 1} | _DEAD),
                declare("two", {"x-dead-letter-exchange": "amq.fanout"}),
                declare("dead"),
                bind("one", "amq.fanout"),
                bind("two", "amq.fanout"),
            ),
            *put("1", exchange="amq.fanout", headers={"a": 1}),
            Call("a1", get("two", no_ack=False)),
            Settle("a1", "reject"),
        ),
    ),
)
