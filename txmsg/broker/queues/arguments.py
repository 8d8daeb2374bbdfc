"""The x-arguments of queues and exchanges: what they mean, and what of them must agree on a second declaration.

RabbitMQ 3.10's rules and texts, measured; https://www.rabbitmq.com/docs/queues#optional-arguments lists the arguments
and https://www.rabbitmq.com/docs/queues#property-equivalence the comparison.  What RabbitMQ does not know it takes and
ignores, and so does this.

Known differences: the type `stream` is refused as an unknown type is, since a queue that forgets what was acked is
no stream.  `quorum` gives x-delivery-limit, the header x-delivery-count and the checks on properties; with one broker
there is nothing to replicate.  `x-queue-mode`, `x-queue-version` and the placing of leaders are taken without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker import faults
from txmsg.broker.faults import ABSENT, Fault, kind_of
from txmsg.broker.queues.overflow import DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX, LengthLimit
from txmsg.wire.field_values import Timestamp

if TYPE_CHECKING:
    from txmsg.broker.exchanges.exchange import Exchange
    from txmsg.broker.queues.queue import Queue

__all__ = [
    "ALTERNATE_EXCHANGE",
    "CLASSIC",
    "MAX_TTL",
    "QUORUM",
    "QueueArguments",
    "check_exchange_equivalence",
    "check_queue_equivalence",
]

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
ALTERNATE_EXCHANGE: Final = "alternate-exchange"

#: The longest time to live, in ms: ten years.
MAX_TTL: Final = 315_360_000_000
_MAX_PRIORITY: Final = 255

#: What a queue of each type understands, in the order in which RabbitMQ checks and compares it.
_KNOWN: Final = {
    CLASSIC: (
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-queue-version",
        "x-single-active-consumer",
        "x-queue-type",
        "x-queue-master-locator",
    ),
    QUORUM: (
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-overflow",
        "x-single-active-consumer",
        "x-queue-type",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-queue-leader-locator",
    ),
}
#: What only other types understand.  (x-queue-master-locator is taken by all.)
_REFUSED: Final = {
    CLASSIC: (
        "x-dead-letter-strategy",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-queue-leader-locator",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
        "x-initial-cluster-size",
    ),
    QUORUM: (
        "x-max-priority",
        "x-queue-mode",
        "x-queue-version",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
        "x-initial-cluster-size",
    ),
}
_LOCATORS: Final = ("balanced", "random", "client-local", "least-leaders")


class _Invalid(Exception):
    """Why a value cannot be used, in RabbitMQ's words."""


class _InvalidType(Exception):
    """The name of an exchange is no text, for which RabbitMQ has other words."""


def _integer(value: Any) -> int:
    # Bools and timestamps are ints in Python, not in AMQP.
    if not isinstance(value, int) or isinstance(value, bool | Timestamp):
        raise _Invalid(f'"expected integer, got {kind_of(value)}"')
    return int(value)


def _non_negative(value: Any) -> int:
    number = _integer(value)
    if number < 0:
        raise _Invalid(f"{{value_negative,{number}}}")
    return number


def _ttl(value: Any) -> int:
    number = _non_negative(value)
    if number > MAX_TTL:
        raise _Invalid(f"{{value_too_large,{number}}}")
    return number


def _positive_ttl(value: Any) -> int:
    number = _ttl(value)
    if number == 0:
        raise _Invalid("{value_zero,0}")
    return number


def _positive(value: Any) -> int:
    number = _non_negative(value)
    if number == 0:
        raise _Invalid("{value_zero,0}")
    return number


def _priority(value: Any) -> int:
    number = _non_negative(value)
    if number > _MAX_PRIORITY:
        raise _Invalid(f"{{max_value_exceeded,{number}}}")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Invalid(f"{{unacceptable_type,{kind_of(value)}}}")
    return value


def _exchange(value: Any) -> str:
    if not isinstance(value, str):
        raise _InvalidType
    return value


def _overflow(value: Any) -> str:
    text = _text(value)
    if text not in (DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX):
        raise _Invalid("invalid_overflow")
    return text


def _strategy(value: Any) -> str:
    text = _text(value)
    if text not in ("at-most-once", "at-least-once"):
        raise _Invalid("invalid_dlx_strategy")
    return text


def _locator(value: Any) -> str:
    text = _text(value)
    if text not in _LOCATORS:
        raise _Invalid("invalid_queue_locator_arg")
    return text


def _mode(value: Any) -> str:
    text = _text(value)
    if text not in ("default", "lazy"):
        raise _Invalid(f"\"unsupported queue mode '{text}'\"")
    return text


def _version(value: Any) -> int:
    number = _non_negative(value)
    if number not in (1, 2):
        raise _Invalid(f"\"unsupported queue version '{number}'\"")
    return number


def _type(value: Any) -> str:
    text = _text(value)
    if text not in (CLASSIC, QUORUM):
        raise _Invalid(f"\"unsupported queue type '{text}'\"")
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Invalid(f"{{unacceptable_type,{kind_of(value)}}}")
    return value


_CHECKS: Final[dict[str, Callable[[Any], object]]] = {
    "x-dead-letter-exchange": _exchange,
    "x-dead-letter-routing-key": _text,
    "x-dead-letter-strategy": _strategy,
    "x-expires": _positive_ttl,
    "x-max-in-memory-bytes": _non_negative,
    "x-max-in-memory-length": _non_negative,
    "x-max-length": _non_negative,
    "x-max-length-bytes": _non_negative,
    "x-max-priority": _priority,
    "x-message-ttl": _ttl,
    "x-overflow": _overflow,
    "x-queue-leader-locator": _locator,
    "x-queue-mode": _mode,
    "x-queue-type": _type,
    "x-queue-version": _version,
    "x-quorum-initial-group-size": _positive,
    "x-single-active-consumer": _flag,
}


@dataclass(frozen=True, slots=True)
class QueueArguments:
    """What the arguments of a queue ask for; by default nothing.

    message_ttl: int | None -- ms until a message in the queue expires.
    expires: int | None -- ms without use until the queue itself goes.
    max_length: int | None -- ready messages.
    max_length_bytes: int | None -- octets of the bodies of the ready messages.
    overflow: str -- `drop-head`, `reject-publish` or `reject-publish-dlx`.
    dead_letter_exchange: str | None -- "" is the default exchange.
    dead_letter_routing_key: str | None -- None: the message keeps its own.
    max_priority: int | None -- None: no priorities.
    queue_type: str -- `classic` or `quorum`.
    single_active_consumer: bool
    delivery_limit: int | None -- of a quorum queue: how often a message may come back.
    queue_mode: str | None -- `default` or `lazy`; without effect.
    """

    message_ttl: int | None = None
    expires: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int | None = None
    queue_type: str = CLASSIC
    single_active_consumer: bool = False
    delivery_limit: int | None = None
    queue_mode: str | None = None

    @classmethod
    def parse(
        cls,
        arguments: Mapping[str, Any] | None,
        *,
        name: str = "",
        vhost: str = "/",
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
    ) -> QueueArguments:
        """What `arguments` ask for, checked; `name`, `vhost` and the properties are of the queue to be.

        Fault 406, with RabbitMQ's text, for a value it would refuse, an argument that the type of the queue does not
        know, and a property that a quorum queue cannot have.
        """
        if not arguments:
            return _NOTHING
        # RabbitMQ looks at these two before all others.
        _checked("x-dead-letter-exchange", arguments, name, vhost)
        queue_type: str = _checked("x-queue-type", arguments, name, vhost) or CLASSIC
        values = {argument: _checked(argument, arguments, name, vhost) for argument in _KNOWN[queue_type]}
        if values["x-dead-letter-routing-key"] is not None and values["x-dead-letter-exchange"] is None:
            raise faults.invalid_argument(
                "queue", name, vhost, "x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"
            )
        for argument in arguments:  # the client's order decides which one is named
            if argument in _REFUSED[queue_type]:
                raise faults.invalid_for_queue_type(name, vhost, argument, queue_type)
        if queue_type == QUORUM:
            _check_properties(name, vhost, durable=durable, exclusive=exclusive, auto_delete=auto_delete)
        return cls(
            message_ttl=values["x-message-ttl"],
            expires=values["x-expires"],
            max_length=values["x-max-length"],
            max_length_bytes=values["x-max-length-bytes"],
            overflow=values["x-overflow"] or DROP_HEAD,
            dead_letter_exchange=values["x-dead-letter-exchange"],
            dead_letter_routing_key=values["x-dead-letter-routing-key"],
            max_priority=values.get("x-max-priority"),
            queue_type=queue_type,
            single_active_consumer=values["x-single-active-consumer"] or False,
            delivery_limit=_delivery_limit(values.get("x-delivery-limit")),
            queue_mode=values.get("x-queue-mode"),
        )

    @property
    def length_limit(self) -> LengthLimit | None:
        """The limit on the length; None if there is none.

        Quorum queues take `reject-publish-dlx` for `drop-head` (measured; RabbitMQ's log says so).
        """
        if self.max_length is None and self.max_length_bytes is None:
            return None
        overflow = self.overflow
        if self.queue_type == QUORUM and overflow == REJECT_PUBLISH_DLX:
            overflow = DROP_HEAD
        return LengthLimit(self.max_length, self.max_length_bytes, overflow)


#: What most queues ask for.
_NOTHING: Final = QueueArguments()


def _checked(argument: str, arguments: Mapping[str, Any], name: str, vhost: str) -> Any:
    """The value of `argument`, checked; None when it is not there."""
    if argument not in arguments:
        return None
    value = arguments[argument]
    check = _CHECKS.get(argument)
    try:
        return value if check is None else check(value)
    except _InvalidType:
        problem = faults.invalid_argument_type("queue", name, vhost, argument, value)
    except _Invalid as error:
        problem = faults.invalid_argument("queue", name, vhost, argument, str(error))
    raise problem


def _delivery_limit(value: Any) -> int | None:
    """RabbitMQ takes any value, and uses those that make sense."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return int(value)


def _check_properties(name: str, vhost: str, *, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    """A quorum queue is durable and shared."""
    if auto_delete:
        raise faults.invalid_property(name, vhost, "auto-delete")
    if exclusive:
        raise faults.invalid_property(name, vhost, "exclusive-owner")
    if not durable:
        raise faults.invalid_property(name, vhost, "non-durable")


# -- equivalence ------------------------------------------------------------------------------------------


def check_queue_equivalence(queue: Queue, *, durable: bool, auto_delete: bool, arguments: Mapping[str, Any]) -> None:
    """Fault 406 if a declaration with these differs from `queue`.

    The property `exclusive` comes first and has a fault of its own (405), which is for the caller to raise; an
    exclusive queue is never durable, whatever is asked for.
    """
    if not queue.exclusive and durable != queue.durable:
        raise _differs(queue, "durable", durable, queue.durable)
    if auto_delete != queue.auto_delete:
        raise _differs(queue, "auto_delete", auto_delete, queue.auto_delete)
    for argument in _KNOWN[queue.type]:
        received, current = arguments.get(argument, ABSENT), queue.arguments.get(argument, ABSENT)
        if not _is_same(received, current) and not _is_classic(argument, received, current):
            raise _differs(queue, argument, received, current)


def _is_classic(argument: str, received: object, current: object) -> bool:
    """Whether one says `classic` and the other nothing, which means the same."""
    return argument == "x-queue-type" and (received, current) in ((ABSENT, CLASSIC), (CLASSIC, ABSENT))


def check_exchange_equivalence(
    exchange: Exchange, *, type: str, durable: bool, auto_delete: bool, internal: bool, arguments: Mapping[str, Any]
) -> None:
    """Fault 406 if a declaration with these differs from `exchange`."""
    for what, received, current in (
        ("type", type, exchange.type),
        ("durable", durable, exchange.durable),
        ("auto_delete", auto_delete, exchange.auto_delete),
        ("internal", internal, exchange.internal),
    ):
        if received != current:
            raise faults.inequivalent("exchange", exchange.name, exchange.vhost.name, what, received, current)
    received, current = (table.get(ALTERNATE_EXCHANGE, ABSENT) for table in (arguments, exchange.arguments))
    if not _is_same(received, current):
        raise faults.inequivalent("exchange", exchange.name, exchange.vhost.name, ALTERNATE_EXCHANGE, received, current)


def _differs(queue: Queue, what: str, received: object, current: object) -> Fault:
    return faults.inequivalent("queue", queue.name, queue.vhost.name, what, received, current)


def _is_same(one: object, other: object) -> bool:
    """RabbitMQ compares all kinds of integers, moments too, by their number, and everything else as it is."""
    if one is ABSENT or other is ABSENT:
        return one is other
    if _is_integer(one) and _is_integer(other):
        return one == other
    return kind_of(one) == kind_of(other) and one == other


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
