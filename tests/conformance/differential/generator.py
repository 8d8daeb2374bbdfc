"""Random programs: what clients do, in orders that nobody would think of.

Each program has a theme, which says what there is much of.  Names are few, so that things meet.  Nothing depends on how
fast a broker is: times to live are 0 or far away, and quorum queues are left to the programs written by hand.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from tests.conformance.differential.steps import (
    Abort,
    Call,
    Close,
    Now,
    Program,
    Publish,
    Reply,
    Settle,
    Step,
)
from txmsg.wire.field_values import Float32, Int8, Int16, Int64, Timestamp, UInt8, UInt16, UInt32
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, confirm, exchange, queue, tx

__all__ = ["THEMES", "random_program"]

QUEUES: Final = ("q0", "q1", "q2")
EXCHANGES: Final = ("x0", "x1", "x2")
STANDARD: Final = ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match")
TYPES: Final = ("direct", "fanout", "topic", "headers")
KEYS: Final = ("", "a", "b", "a.b", "a.b.c", "q0", "q1", "..", "a.")
PATTERNS: Final = (*KEYS, "#", "*", "a.*", "*.b", "#.b", "a.#", "*.*", "#.#", "*.#.c", "a*")
TAGS: Final = ("c0", "c1", "")
REPLY_TO: Final = "amq.rabbitmq.reply-to"
FAR: Final = 3_600_000

#: The same number, or nothing like it, in many kinds.
VALUES: Final[tuple[Any, ...]] = (
    0,
    1,
    2,
    -1,
    Int8(1),
    UInt8(1),
    Int16(1),
    UInt16(1),
    UInt32(1),
    Int64(1),
    2**40,
    1.0,
    1.5,
    Float32(1.0),
    True,
    False,
    "1",
    "",
    "a",
    b"a",
    None,
    {},
    {"k": 1},
    [],
    [1, "a"],
    Timestamp(1),
    Decimal("1.5"),
)

#: Those that are no short time, and no decimal: comparing these crashes RabbitMQ's queue.
_NO_TIMES: Final = tuple(
    value for value in VALUES if not (isinstance(value, int | Decimal) and 0 < value < 1000) or value is True
)

#: Queue argument -> values that RabbitMQ takes.
QUEUE_ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = {
    "x-message-ttl": (0, FAR, FAR, Int64(FAR)),
    "x-expires": (FAR, UInt32(FAR)),
    "x-max-length": (0, 1, 2, Int8(2), 3),
    "x-max-length-bytes": (0, 2, 5, Int64(5)),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
    "x-dead-letter-exchange": ("", "x0", "x1", "amq.direct", "amq.fanout", "missing"),
    "x-dead-letter-routing-key": ("", "a", "q0", "q1", "q2"),
    "x-max-priority": (1, 3, UInt8(3)),
    "x-single-active-consumer": (True, False),
    "x-queue-mode": ("default", "lazy"),
    "x-queue-type": ("classic",),
    "x-queue-version": (1, 2),
    "x-unknown": VALUES,
}


class _Generator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.many: dict[str, int] = {}
        self.has_dead_letters = False
        #: RabbitMQ's dead letters remember whom they were sent to in secret.
        self.is_secretive = self.chance(40)
        #: Messages from basic.get that are out count to a shared limit that comes later, and never leave it.
        self.has_shared_limit = self.chance(30)
        #: With priorities RabbitMQ looks for expired messages later.
        self.has_priorities = self.chance(40)
        #: RabbitMQ 3.10 gives nothing to the successor of a cancelled one until something else happens.
        self.has_single_active = False

    def one_of(self, *values: Any) -> Any:
        return self.random.choice(values)

    def chance(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    # -- names --------------------------------------------------------------------------------------------

    def at(self) -> str:
        return str(self.random.choices(("a1", "a2", "b1", "l1", "n1"), (60, 15, 15, self.many.get("limited", 1), 2))[0])

    def queue(self, *, last: float = 4) -> str:
        if self.many.get("limited") and self.chance(50):
            return "own"
        if self.chance(last):
            return ""
        return (
            str(self.one_of(*QUEUES)) if self.chance(97) else str(self.one_of("missing", "amq.gen", "amq.x", REPLY_TO))
        )

    def exchange(self) -> str:
        if self.chance(60):
            return str(self.one_of(*EXCHANGES))
        if self.many.get("limited") and self.chance(30):
            return "own"
        return str(self.one_of(*STANDARD)) if self.chance(93) else str(self.one_of("", "missing", "amq.x"))

    # -- topology -----------------------------------------------------------------------------------------

    def declare_queue(self) -> Step:
        arguments = {}
        if self.chance(60):
            count = self.one_of(1, 1, 2, 3)
            for name in self.random.sample(sorted(QUEUE_ARGUMENTS), count):
                arguments[name] = self.one_of(*QUEUE_ARGUMENTS[name])
            if not self.has_priorities:
                arguments.pop("x-max-priority", None)
            if "x-dead-letter-routing-key" in arguments:
                arguments.setdefault("x-dead-letter-exchange", "")
            if self.is_secretive:
                arguments.pop("x-dead-letter-exchange", None)
                arguments.pop("x-dead-letter-routing-key", None)
            self.has_dead_letters |= "x-dead-letter-exchange" in arguments
            self.has_single_active |= "x-single-active-consumer" in arguments
            if self.many.get("errors") and self.chance(40):
                # A type of another kind crashes RabbitMQ where the queue has no name.
                name = self.one_of(*(each for each in QUEUE_ARGUMENTS if each != "x-queue-type"))
                # A short time would be a race.
                arguments[name] = self.one_of(*(_NO_TIMES if name in ("x-expires", "x-message-ttl") else VALUES[:-1]))
        return Call(
            self.at(),
            queue.Declare(
                queue=self.queue(),
                passive=self.chance(7),
                durable=self.chance(30),
                exclusive=self.chance(self.many.get("owners", 3)),
                auto_delete=self.chance(self.many.get("owners", 5)),
                nowait=self.chance(4),
                arguments=arguments,
            ),
        )

    def dead_letter_queue(self) -> Step:
        if self.is_secretive:
            return Call(self.at(), queue.Declare(queue=self.one_of(*QUEUES)))
        self.has_dead_letters = True
        arguments: dict[str, Any] = {"x-dead-letter-exchange": self.one_of("", "amq.fanout", "x0")}
        if self.chance(60):
            arguments["x-dead-letter-routing-key"] = self.one_of(*QUEUES)
        arguments |= self.one_of(
            {}, {}, {"x-message-ttl": 0}, {"x-max-length": 1}, {"x-max-length": 0}, {"x-max-length-bytes": 2},
            {"x-max-length": 1, "x-overflow": "reject-publish-dlx"},
            {"x-max-priority": 3, "x-max-length": 2} if self.has_priorities else {},
        )  # fmt: skip
        return Call(self.at(), queue.Declare(queue=self.one_of(*QUEUES), durable=self.chance(20), arguments=arguments))

    def declare_exchange(self) -> Step:
        arguments = {}
        if self.chance(25):
            arguments["alternate-exchange"] = self.one_of(*EXCHANGES, "amq.fanout", "missing", "")
        if self.chance(3):
            arguments[self.one_of("alternate-exchange", "x-other")] = self.one_of(*VALUES)
        return Call(
            self.at(),
            exchange.Declare(
                exchange=self.exchange(),
                type=self.one_of(*TYPES) if self.chance(98) else self.one_of("bogus", "", "Direct"),
                passive=self.chance(7),
                durable=self.chance(30),
                auto_delete=self.chance(self.many.get("owners", 8)),
                internal=self.chance(8),
                nowait=self.chance(4),
                arguments=arguments,
            ),
        )

    def binding_arguments(self) -> dict[str, Any]:
        if not self.chance(35):
            return {}
        arguments: dict[str, Any] = {}
        if self.chance(70):
            arguments["x-match"] = self.one_of("all", "any", "all-with-x", "any-with-x")
            if self.chance(4):
                arguments["x-match"] = self.one_of(*VALUES)
        for name in self.random.sample(("h", "i", "x-h"), self.one_of(0, 1, 2)):
            arguments[name] = self.one_of(*VALUES)
        return arguments

    def bind_queue(self) -> Step:
        arguments = self.binding_arguments()
        values = (0, self.queue(), self.exchange(), self.one_of(*PATTERNS))
        if self.chance(80):
            return Call(self.at(), queue.Bind(*values, self.chance(4), arguments))
        return Call(self.at(), queue.Unbind(*values, arguments))

    def bind_exchange(self) -> Step:
        arguments = self.binding_arguments()
        values = (0, self.exchange(), self.exchange(), self.one_of(*PATTERNS), self.chance(4), arguments)
        kind: Any = exchange.Bind if self.chance(75) else exchange.Unbind
        return Call(self.at(), kind(*values))

    def delete(self) -> Step:
        method: Method
        if self.chance(60):
            method = queue.Delete(0, self.queue(), self.chance(25), self.chance(25), self.chance(4))
        else:
            method = exchange.Delete(0, self.exchange(), self.chance(30), self.chance(4))
        return Call(self.at(), method)

    def purge(self) -> Step:
        return Call(self.at(), queue.Purge(0, self.queue(), self.chance(4)))

    # -- messages -----------------------------------------------------------------------------------------

    def headers(self) -> dict[str, Any]:
        names = ["h", "i", "x-h", "CC", "x-death", "zz", "cc"]
        if self.is_secretive:
            names.append("BCC")
        headers: dict[str, Any] = {}
        for name in self.random.sample(names, self.one_of(1, 1, 2, 3)):
            if name in ("CC", "BCC") and self.chance(93):
                headers[name] = [self.one_of(*KEYS) for _ in range(self.one_of(0, 1, 2))]
            elif name == "x-death" and self.chance(80):
                headers[name] = [self.death() for _ in range(self.one_of(0, 1, 2))]
            else:
                headers[name] = self.one_of(*VALUES)
        return headers

    def death(self) -> dict[str, Any]:
        return {
            "queue": self.one_of(*QUEUES),
            "reason": self.one_of("rejected", "expired", "maxlen"),
            "count": self.one_of(1, Int64(7)),
            "zz": "kept",
        }

    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.chance(25):
            found["headers"] = self.headers()
        if self.chance(20):
            found["delivery_mode"] = self.one_of(1, 2, 2) if self.chance(97) else self.one_of(0, 3)
        if self.chance(20):
            found["priority"] = self.one_of(0, 1, 2, 3, 9)
        if self.chance(10):
            found["expiration"] = (
                self.one_of(str(FAR) if self.has_priorities else "0", str(FAR))
                if self.chance(90)
                else self.one_of("", "x", "-1", "5 ")
            )
        if self.chance(self.many.get("replies", 1)):
            found["reply_to"] = self.one_of(REPLY_TO, REPLY_TO, "q0", REPLY_TO + ".x")
        if self.chance(8):
            found |= {"content_type": "text/plain", "timestamp": 5, "message_id": "m", "type": "t", "app_id": "é"}
        if self.chance(3):
            found["user_id"] = self.one_of("guest", "guest", "bob")
        return found

    def publish(self) -> Publish:
        to_queue = self.chance(55)
        return Publish(
            self.at(),
            "" if to_queue else self.exchange(),
            self.one_of(*QUEUES, "own") if to_queue else self.one_of(*KEYS),
            self.one_of(b"x", b"yy", b"", b"zzzzzz", bytes([self.random.randrange(97, 123)])),
            self.chance(30),
            self.chance(0.3),
            self.properties(),
        )

    def burst(self) -> Step:
        """No declarations among them: RabbitMQ answers these before it has counted what was published before.

        And no queue by its empty name, which RabbitMQ judges even on a channel that it has just closed.
        """
        first = self.publish()
        if self.has_dead_letters:  # when these arrive is up to the queues
            return first
        others: list[Call | Publish] = []
        for _ in range(self.one_of(1, 2, 4)):
            get = Call(first.at, basic.Get(queue=self.queue(last=0), no_ack=self.has_shared_limit or self.chance(30)))
            purge = Call(first.at, queue.Purge(queue=self.queue(last=0)))
            another = replace(self.publish(), at=first.at)
            others.append(self.one_of(another, get, purge))
        return Now((first, *others))

    # -- consuming ----------------------------------------------------------------------------------------

    def consume(self) -> Step:
        arguments: dict[str, Any] = {}
        if self.chance(25):
            arguments["x-priority"] = self.one_of(-1, 0, 1, 5)
        if self.chance(3):
            arguments[self.one_of("x-priority", "x-cancel-on-ha-failover", "x-other")] = self.one_of(*VALUES)
        return Call(
            self.at(),
            basic.Consume(
                queue=self.queue(),
                consumer_tag=self.one_of(*TAGS) if self.chance(80) else f"c{self.random.randrange(100)}",
                no_local=self.chance(5),
                no_ack=self.chance(25),
                exclusive=self.chance(8),
                nowait=self.chance(4),
                arguments=arguments,
            ),
        )

    def get(self) -> Step:
        return Call(self.at(), basic.Get(queue=self.queue(), no_ack=self.has_shared_limit or self.chance(30)))

    def cancel(self) -> Step:
        if self.has_single_active:
            return self.get()
        return Call(self.at(), basic.Cancel(self.one_of(*TAGS), self.chance(5)))

    def settle(self) -> Step:
        how = self.one_of("ack", "ack", "nack", "nack", "reject")
        multiple = how != "reject" and self.chance(25)
        return Settle(self.at(), how, self.random.randrange(6), multiple, how != "ack" and self.chance(60))

    def settle_by_tag(self) -> Step:
        tag = self.one_of(0, 1, 2, 3, 99)
        return Call(
            self.at(),
            self.one_of(
                basic.Ack(tag, self.chance(60)),
                basic.Nack(tag, self.chance(60), self.chance(50)),
                basic.Reject(tag, self.chance(50)),
            ),
        )

    def qos(self) -> Step:
        size = 1 if self.chance(1) else 0
        return Call(self.at(), basic.Qos(size, self.one_of(0, 1, 1, 2, 3), self.has_shared_limit and self.chance(50)))

    def recover(self) -> Step:
        requeue = self.chance(95)
        return Call(self.at(), basic.Recover(requeue) if self.chance(80) else basic.RecoverAsync(requeue))

    def reply(self) -> Step:
        return Reply(self.at(), exchange="" if self.chance(95) else "amq.direct", mandatory=self.chance(30))

    def consume_replies(self) -> Step:
        tag, no_ack = self.one_of(*TAGS, "r"), self.chance(95)
        return Call(self.at(), basic.Consume(queue=REPLY_TO, consumer_tag=tag, no_ack=no_ack))

    # -- modes and ends -----------------------------------------------------------------------------------

    def confirms(self) -> Step:
        return Call(self.at(), confirm.Select(self.chance(5)))

    def transaction(self) -> Step:
        return Call(self.at(), self.one_of(tx.Select(), tx.Commit(), tx.Commit(), tx.Rollback()))

    def close_channel(self) -> Step:
        return Call(self.at(), channel.Close(200, "", 0, 0))

    def close(self) -> Step:
        return Close(self.at()) if self.chance(80) else Abort(self.at())


#: What there is of everything, per mille or so.
_USUAL: Final[dict[str, int]] = {
    "declare_queue": 8,
    "dead_letter_queue": 1,
    "declare_exchange": 4,
    "bind_queue": 6,
    "bind_exchange": 2,
    "delete": 3,
    "purge": 1,
    "publish": 22,
    "burst": 4,
    "consume": 7,
    "get": 7,
    "cancel": 3,
    "settle": 14,
    "settle_by_tag": 1,
    "qos": 3,
    "recover": 1,
    "reply": 0,
    "consume_replies": 0,
    "confirms": 1,
    "transaction": 0,
    "close_channel": 1,
    "close": 1,
}

#: Theme -> what there is more of.
THEMES: Final[dict[str, dict[str, int]]] = {
    "mixed": {},
    "queues": {"declare_queue": 60, "delete": 12, "purge": 5, "errors": 1},
    "routing": {
        "declare_exchange": 25,
        "bind_queue": 40,
        "bind_exchange": 20,
        "publish": 50,
        "consume": 1,
        "settle": 1,
    },
    "consumers": {"consume": 30, "qos": 12, "settle": 40, "publish": 40, "cancel": 8, "recover": 4},
    "dead letters": {"dead_letter_queue": 30, "publish": 40, "settle": 25, "consume": 15, "get": 15, "bind_queue": 15},
    "transactions": {"transaction": 30, "publish": 30, "settle": 30, "get": 15, "consume": 10, "recover": 4},
    "confirms": {"confirms": 20, "publish": 40, "burst": 30, "declare_queue": 15},
    "owners": {
        "owners": 35,
        "declare_queue": 20,
        "consume": 20,
        "cancel": 15,
        "close": 8,
        "close_channel": 6,
        "delete": 10,
    },
    "replies": {"replies": 40, "reply": 25, "consume_replies": 20, "publish": 40, "cancel": 8},
    "limited": {"limited": 150, "declare_queue": 20, "declare_exchange": 15, "bind_queue": 15, "delete": 10},
}


def random_program(seed: int) -> Program:
    """The program of that number: always the same one."""
    made = _Generator(seed)
    theme = sorted(THEMES)[seed % len(THEMES)]
    made.many = THEMES[theme]
    weights = {name: made.many.get(name, weight) for name, weight in _USUAL.items()}
    for name in ("owners", "errors", "replies", "limited"):
        made.many = {key: value for key, value in made.many.items() if key not in _USUAL or key == name}
    steps: list[Step] = []
    # A start from which something can happen.
    for _ in range(made.one_of(1, 2, 3)):
        steps.append(made.dead_letter_queue() if theme == "dead letters" else made.declare_queue())
    steps += [
        Call("a1", exchange.Declare(exchange=name, type=made.one_of(*TYPES)))
        for name in EXCHANGES[: made.one_of(0, 1, 3)]
    ]
    steps += [Call("a1", queue.Declare(queue=name)) for name in QUEUES[: made.one_of(0, 1, 3)]]
    makers: list[Callable[[], Step]] = [getattr(made, name) for name in weights]
    chosen = made.random.choices(makers, list(weights.values()), k=made.random.randrange(8, 30))
    steps += [maker() for maker in chosen]
    return Program(f"{theme} {seed}", tuple(steps))
