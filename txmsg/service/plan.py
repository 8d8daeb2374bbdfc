"""What each of the service's consumers is to do, worked out before anything is connected.

The service has one consumer from its own settings, or those that were declared (:mod:`txmsg.service.declared`).  Either
becomes a :class:`ConsumerPlan`: settings of its own, a handler that takes a delivery, and the queues.  Invariant: what
can be known to be wrong without a broker is a ConfigurationError here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from txmsg.amqp.recovery.retry import RetryPolicy
from txmsg.errors import ConfigurationError, TxmsgError
from txmsg.service.config import ConsumerConfig
from txmsg.service.declared import DeclaredConsumer, declaration_of, declarations_in
from txmsg.service.exit_codes import ExitCode
from txmsg.service.handler import (
    Handler,
    check_call,
    check_kind,
    check_threads,
    create_handler,
    load_app,
    load_handler,
    wants,
)
from txmsg.service.retrying import dead_letter_policy, retry_policy
from txmsg.service.settings import SettingError

if TYPE_CHECKING:
    from txmsg.messaging.entities import Queue

__all__ = ["ConsumerPlan", "plan_consumers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPlan:
    """One handler, with all that it takes to run it.

    config: the service's settings, with the queue and the limits of this one.   handler: takes a delivery.
    queues: the queues of a declared consumer; empty: `config.queue`, as `config` says.
    declares: whether anything is declared that a consumer is to consume.
    needs_publisher: whether the handler is given a publisher.
    retry, dead_letter: where a message goes that has failed, and one that cannot be decoded; None: it stays.
    """

    config: ConsumerConfig
    handler: Handler
    queues: tuple[Queue, ...] = ()
    declares: bool = False
    needs_publisher: bool = False
    retry: RetryPolicy | None = None
    dead_letter: RetryPolicy | None = None

    @property
    def publishes(self) -> bool:
        """Whether it takes a connection for publishing."""
        return self.needs_publisher or self.retry is not None or self.dead_letter is not None


def plan_consumers(
    config: ConsumerConfig,
    handler: Handler | None = None,
    consumers: Sequence[DeclaredConsumer | Handler] | None = None,
) -> list[ConsumerPlan]:
    """The plans for `config`.

    handler: the callable; None imports what `config` names.   consumers: declared handlers, in place of those that
    `config` names.   Raises ConfigurationError.
    """
    if handler is not None and consumers is not None:
        raise ConfigurationError("give one handler, or consumers, not both")
    if consumers is not None:
        return [_declared_plan(config, declared) for declared in declarations_in(list(consumers))]
    if handler is None and (config.consumers or config.app):
        found = list(config.consumers)
        if config.app:
            found += load_app(config.app)
        return [_declared_plan(config, declared) for declared in found]
    if handler is None:
        handler = load_handler(config.handler)
    declared = declaration_of(handler)
    if declared is not None:
        for name in ("queue", "declare", "bind"):
            if getattr(config, name):
                raise SettingError(f"{name}: has no effect, as handler {config.handler!r} declares its queues itself")
        return [_declared_plan(config, declared, handler)]
    if not config.queue:
        raise SettingError(
            "--queue is required (or 'queue' in a file given with --config, or a handler with @consumes)",
            ExitCode.USAGE,
        )
    policy = retry_policy(config)
    check_kind(handler)
    check_threads(handler, config.threads)
    return [
        ConsumerPlan(
            config=config,
            handler=handler,
            declares=config.declare,
            needs_publisher=wants(handler, "publisher"),
            retry=policy,
        )
    ]


def _declared_plan(config: ConsumerConfig, declared: DeclaredConsumer, handler: Handler | None = None) -> ConsumerPlan:
    try:
        return _plan(config, declared, handler)
    except TxmsgError as error:
        raise ConfigurationError(f"{repr(declared)[1:-1]}: {error}") from None


def _plan(config: ConsumerConfig, declared: DeclaredConsumer, handler: Handler | None) -> ConsumerPlan:
    # Only here: a service without declared handlers has no use for the messaging layer.
    from txmsg.service.bodies import BodyHandler, queue_entities

    if handler is None:
        handler = load_handler(declared.handler) if isinstance(declared.handler, str) else declared.handler
    if isinstance(handler, type):
        handler = create_handler(handler)
    queues = queue_entities(declared)
    names = [queue.name for queue in queues]
    shown = ", ".join(name or "(named by the broker)" for name in names)
    own: dict[str, Any] = {"queue": shown, "declare": False, "bind": (), **declared.settings}
    if "concurrency" not in own and own.get("threads"):
        own["concurrency"] = own["threads"]
    if "prefetch" not in own and config.prefetch:
        own["prefetch"] = min(max(config.prefetch, 2 * own.get("concurrency", 0)), 65535)
    if own.get("retry_delays"):
        own.setdefault("on_failure", "retry")
    elif own.get("on_failure", "retry") != "retry":
        own["retry_delays"] = ()  # its own word is against those of the service
    mine = replace(config, consumers=(), app="", **own)
    _check(mine, declared, names)
    check_kind(handler)
    check_threads(handler, mine.threads)
    needs_producer = wants(handler, "producer")
    check_call(handler, "body", "message", *(["producer"] if needs_producer else []))
    body_handler = BodyHandler(declared, handler)
    if not needs_producer and (declared.serializer or declared.compression):
        raise ConfigurationError("serializer and compression have no effect: the handler has no parameter 'producer'")
    if callable(declared.on_decode_error):
        check_kind(declared.on_decode_error)
        check_call(declared.on_decode_error, "message", "error")
        check_threads(declared.on_decode_error, mine.threads)
    return ConsumerPlan(
        config=mine,
        handler=body_handler,
        queues=queues,
        declares=not all(queue.no_declare for queue in queues),
        needs_publisher=needs_producer,
        retry=retry_policy(mine),
        dead_letter=dead_letter_policy(mine) if declared.on_decode_error == "dead_letter" else None,
    )


def _check(config: ConsumerConfig, declared: DeclaredConsumer, names: list[str]) -> None:
    """What does not go together."""
    needs_one = config.retry_delays or declared.on_decode_error == "dead_letter" or declared.dead_letter
    if needs_one and not all(names):
        raise ConfigurationError("retries and dead letters need a queue with a name")
    if needs_one and len(names) > 1:
        raise ConfigurationError("retries and dead letters are those of one queue: declare a consumer for each")
    if config.on_failure == "retry" and not config.retry_delays:
        raise ConfigurationError("on_failure 'retry' needs retry_delays, such as [1, 10, 60]")
    if config.retry_delays and config.on_failure != "retry":
        raise ConfigurationError(f"retry_delays have no effect with on_failure {config.on_failure!r}")
    if declared.dead_letter and not config.retry_delays and declared.on_decode_error != "dead_letter":
        raise ConfigurationError("dead_letter has no effect without retry_delays or on_decode_error 'dead_letter'")
    if len(names) > 1 and config.consumer_tag:
        raise ConfigurationError("one consumer tag is for one queue")
    if 0 < config.prefetch * len(names) < config.concurrency:
        raise ConfigurationError(f"concurrency {config.concurrency} cannot be reached with prefetch {config.prefetch}")
    if 0 < config.threads < config.concurrency:
        raise ConfigurationError(
            f"concurrency {config.concurrency} must not be above the number of threads ({config.threads})"
        )
