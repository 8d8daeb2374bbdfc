"""RetryPolicy: delayed retries, their limit and the dead letter queue in one declaration, without a broker plugin.

A message whose handler fails is published to a delay queue, and acked when the broker has confirmed that.  Nobody
consumes from a delay queue: its messages expire, and the broker puts them back (dead-letters them) to the work queue
(https://www.rabbitmq.com/docs/ttl, https://www.rabbitmq.com/docs/dlx).  There is one delay queue for each delay, so
no message waits behind one with a longer delay.

Invariants: at every moment the message is in one of the queues, so a crash loses nothing, and may make a copy (R22); a
message is handled `limit` + 1 times at most, and then is in the dead letter queue (R26), unless handlers do not live
to fail; each attempt is in the message's headers, see :mod:`txmsg.amqp.recovery.retry_headers`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmsg.amqp import validation
from txmsg.amqp.delivery import Delivery
from txmsg.amqp.recovery.publisher import Publisher
from txmsg.amqp.recovery.retry_headers import next_properties, origin_of, retry_count, shown_reason
from txmsg.errors import AlreadySettled, ConfigurationError, EncodeError, SettlementError, TxmsgError
from txmsg.wire.properties import BasicProperties

__all__ = ["Declares", "RetryPolicy", "RetryStep"]

#: Seconds before a message is given back to its queue that could not be published to a delay queue.
_PAUSE = 1.0


class Declares(Protocol):
    """A channel, plain or recovering, as far as it is needed here."""

    @property
    def queue_declare(self) -> Callable[..., Awaitable[Any]]:
        """As :meth:`Channel.queue_declare`."""


@dataclass(frozen=True, slots=True)
class RetryStep:
    """What has become of a message whose handler failed.

    queue: str -- where it is now.   attempt: int -- how often it has been handled.
    delay: float | None -- seconds until it comes again; None: it does not, it is a dead letter.
    """

    queue: str
    attempt: int
    delay: float | None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which queue, how often, after how long, and where to in the end.

        policy = RetryPolicy("jobs", delays=(1, 10, 60))
        await policy.declare(channel)
        await channel.basic_consume("jobs", policy.handling(publisher, handle))

    queue: str -- the work queue.
    delays: seconds before the first retry, the second ...; the last one repeats up to `limit`.  0 is no delay.
    limit: int | None -- how many retries there are at most; None: one for each delay.
    dead_letter: str -- the queue of dead letters; default: the name of the work queue and ".dead".
    durable: bool.   queue_type: "classic", "quorum" or None, the broker's default -- of all these queues.
    arguments: of the work queue, beside those that it needs.  By default the broker dead-letters what leaves it
        otherwise (rejected, expired, too many) to the same dead letter queue; give an "x-dead-letter-exchange" here for
        another way.

    ConfigurationError for values that cannot be used.
    """

    queue: str
    delays: Sequence[float] = (1.0, 10.0, 60.0)
    limit: int | None = None
    dead_letter: str = ""
    durable: bool = True
    queue_type: Literal["classic", "quorum"] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    _log = Logger(namespace="txmsg.amqp.recovery")

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        validation.text("queue", self.queue)
        if isinstance(self.delays, str) or not isinstance(self.delays, Sequence):
            raise ConfigurationError(f"delays must be a sequence of seconds, not {validation.shown(self.delays)}")
        put("delays", tuple(validation.seconds("delays", delay, zero=True) for delay in self.delays))
        limit = len(self.delays) if self.limit is None else validation.integer("limit", self.limit, 0, 2**31 - 1)
        put("limit", limit)
        if limit and not self.delays:
            raise ConfigurationError("with a limit there must be delays")
        put("dead_letter", self.dead_letter or f"{self.queue}.dead")
        validation.flag("durable", self.durable)
        if self.queue_type not in (None, "classic", "quorum"):
            raise ConfigurationError(f"queue_type is 'classic' or 'quorum', not {validation.shown(self.queue_type)}")
        if self.queue_type == "quorum" and not self.durable:
            raise ConfigurationError("a quorum queue is durable")
        if not isinstance(self.arguments, Mapping):
            raise ConfigurationError(f"arguments must be a mapping, not {validation.shown(self.arguments)}")
        put("arguments", dict(self.arguments))
        names = [self.queue, self.dead_letter, *self.delay_queues()]
        for name in names:
            validation.text("the name of a queue", name)
        if len(set(names)) < len(names):
            raise ConfigurationError("the queues of a policy must have names of their own")

    # -- queues ------------------------------------------------------------------------------------

    def delay_queues(self) -> dict[str, int]:
        """The delay queues: name -> milliseconds.  The delay is in the name, so another delay is another queue."""
        delays = sorted({math.ceil(delay * 1000) for delay in self.delays} - {0})
        return {f"{self.queue}.retry.{delay}": delay for delay in delays}

    def declare(self, channel: Declares) -> Deferred[None]:
        """Declare the dead letter queue, the delay queues and the work queue; fails as queue_declare does."""
        return Deferred.fromCoroutine(self._declare(channel))

    async def _declare(self, channel: Declares) -> None:
        kind = {} if self.queue_type is None else {"x-queue-type": self.queue_type}
        back = {**kind, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.queue}
        if self.queue_type == "quorum":
            # Else what expires is lost where the work queue does not take it at that moment.
            back |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        work: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.dead_letter}
        if "x-dead-letter-exchange" in self.arguments:
            work = {}
        await channel.queue_declare(self.dead_letter, durable=self.durable, arguments=kind)
        for name, delay in self.delay_queues().items():
            await channel.queue_declare(name, durable=self.durable, arguments={**back, "x-message-ttl": delay})
        await channel.queue_declare(self.queue, durable=self.durable, arguments={**kind, **work, **self.arguments})

    # -- one message -------------------------------------------------------------------------------

    def next_step(self, delivery: Delivery) -> RetryStep:
        """Where a message goes if its handling has failed."""
        count = retry_count(delivery)
        assert self.limit is not None
        if count >= self.limit:
            return RetryStep(self.dead_letter, count + 1, None)
        delay = math.ceil(self.delays[min(count, len(self.delays) - 1)] * 1000)
        queue = f"{self.queue}.retry.{delay}" if delay else self.queue
        return RetryStep(queue, count + 1, delay / 1000)

    @staticmethod
    def retries_of(delivery: Delivery) -> int:
        """How many times a message was put back."""
        return retry_count(delivery)

    @staticmethod
    def origin_of(delivery: Delivery) -> tuple[str, str]:
        """The exchange and the routing key with which a message was published in the first place."""
        return origin_of(delivery)

    def retry(self, publisher: Publisher, delivery: Delivery, reason: object) -> Deferred[RetryStep]:
        """Put a message back for later, or beyond the limit among the dead letters; then ack it.

        reason: an exception, or anything with a str(); the headers show its first 300 characters.

        Fails with StaleDelivery or AlreadySettled before anything is done: it comes again by itself, or there is
        nothing to put back.  Fails as :meth:`Publisher.publish` does, and then it is not settled.  Properties that
        cannot be decoded cannot be published again: such a message is rejected.
        """
        return Deferred.fromCoroutine(self._retry(publisher, delivery, reason))

    async def _retry(self, publisher: Publisher, delivery: Delivery, reason: object) -> RetryStep:
        if not publisher.confirm:
            raise ConfigurationError("a publisher without confirms cannot put messages back: they could be lost")
        if delivery.is_settled and not delivery.no_ack:
            delivery.nack()  # says how: StaleDelivery, AlreadySettled
        step = self.next_step(delivery)
        if not isinstance(delivery.properties, BasicProperties):
            if not delivery.no_ack:
                delivery.reject()
            return RetryStep(self.dead_letter, step.attempt, None)
        queues = frozenset((*self.delay_queues(), self.queue, self.dead_letter))
        delay = None if step.delay is None else round(step.delay * 1000)
        properties = next_properties(delivery, reason, datetime.now(UTC), delay, queues)
        await publisher.publish("", step.queue, delivery.body, properties, mandatory=True)
        if not delivery.no_ack:
            # Should it be too late, it comes again, too: at least once.
            with suppress(SettlementError):
                delivery.ack()
        return step

    # -- a whole handler ---------------------------------------------------------------------------

    def handling(self, publisher: Publisher, handle: Callable[[Delivery], Any]) -> Callable[[Delivery], Deferred[None]]:
        """A callback for `basic_consume`: `handle`, then ack; if it fails, :meth:`retry`.

        handle: a callable; it may return an awaitable, and may settle the delivery itself.
        """

        def callback(delivery: Delivery) -> Deferred[None]:
            return Deferred.fromCoroutine(self._handle(publisher, handle, delivery))

        return callback

    async def _handle(self, publisher: Publisher, handle: Callable[[Delivery], Any], delivery: Delivery) -> None:
        try:
            result = handle(delivery)
            if isinstance(result, Awaitable):
                await result
        except Exception as error:
            await self._failed(publisher, delivery, error)
        else:
            if not delivery.no_ack:
                with suppress(SettlementError):
                    delivery.ack()

    async def _failed(self, publisher: Publisher, delivery: Delivery, error: Exception) -> None:
        shown = shown_reason(error)
        try:
            step = await self.retry(publisher, delivery, error)
        except AlreadySettled:
            self._log.warn("a handler failed after settling its message: {error}", error=shown)
        except SettlementError:
            self._log.warn("a handler failed, and its message comes again: {error}", error=shown)
        except EncodeError as refused:
            self._log.warn("a message cannot be put back, it is rejected: {refused}", refused=refused)
            with suppress(SettlementError):
                delivery.reject()
        except TxmsgError as refused:
            self._log.warn("a message could not be put back for later: {refused}", refused=refused)
            await deferLater(publisher.connection.clock, _PAUSE)  # no hot loop
            with suppress(SettlementError):
                delivery.nack(requeue=True)
        else:
            where = f"a dead letter in {step.queue}" if step.delay is None else f"it comes again in {step.delay:g} s"
            self._log.warn(
                "attempt {attempt} has failed, {where}: {error}", attempt=step.attempt, where=where, error=shown
            )
