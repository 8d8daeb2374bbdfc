"""One handler at work: its channel, its queues, its consumers, and the dispatch that feeds it.

The service has one of these for each :class:`~txmsg.service.plan.ConsumerPlan`, all on one connection.  Each has a
channel of its own, so that what the broker closes for one of them does not stop the others (F7).

Invariants: a subscription that has begun can go on where it was interrupted (:meth:`Subscription.subscribe` again), and
a handler starts only when the broker has agreed to all of its declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp import Publisher, ReconnectingConnection, RecoveringChannel, RecoveringConsumer
from txmsg.amqp.recovery.duplicates import DuplicateWindow
from txmsg.amqp.secret import Secret
from txmsg.errors import clip
from txmsg.service.dispatch import HandlerDispatch
from txmsg.service.exit_codes import Stage
from txmsg.service.handler import HandlerRunner, ReactorRunner, ThreadRunner
from txmsg.service.plan import ConsumerPlan
from txmsg.service.policy import FailurePolicy, OnFailure
from txmsg.service.retrying import ServiceRetry

__all__ = ["Subscription"]


class Subscription:
    """Consumes the queues of one plan with its handler.

    plan: what to do.  reactor: the service's.  on_ended: called with the reason when a consumer has ended for good.
    on_halt: called with an exit code and a reason when the handler wants the service to end.  secrets: texts that must
    not be in a logged traceback.

    stage: Stage -- how far it has come, for the explanation of an error.
    """

    _log = Logger(namespace="txmsg.service.consumer.ConsumerService")

    def __init__(
        self,
        plan: ConsumerPlan,
        *,
        reactor: Any,
        on_ended: Callable[[BaseException, Subscription], object],
        on_halt: Callable[[int, str], None],
        secrets: Iterable[Secret],
    ) -> None:
        self.plan = plan
        self.stage = Stage.CONNECT
        self._reactor = reactor
        self._on_ended = on_ended
        self._on_halt = on_halt
        self._secrets = tuple(secrets)
        self._runner: HandlerRunner | None = None
        self.channel: RecoveringChannel | None = None
        self.consumers: list[RecoveringConsumer] = []
        self.dispatch: HandlerDispatch | None = None

    def __repr__(self) -> str:
        return f"<Subscription queue={self.queue!r} {self.stage.name.lower()} {self.dispatch!r}>"

    @property
    def queue(self) -> str:
        """The name of its queue, or of its queues."""
        return self.plan.config.queue

    @property
    def is_subscribed(self) -> bool:
        """Once it has started: whether the broker has it among the consumers of each of its queues now."""
        return all(consumer.is_subscribed for consumer in self.consumers)

    @property
    def running(self) -> int:
        """The number of its handlers at work."""
        return 0 if self.dispatch is None else self.dispatch.running

    # -- start ----------------------------------------------------------------------------------------

    async def subscribe(self, connection: ReconnectingConnection, publisher: Publisher | None) -> None:
        """Open the channel, declare, and consume; may be called again after an error.  Fails as these do."""
        plan, config = self.plan, self.plan.config
        self.stage = Stage.DECLARE if plan.declares else Stage.CHECK
        if self.channel is None:
            self.channel = await connection.channel(prefetch_count=config.prefetch)
        names = await self._declare(self.channel, publisher)
        self.stage = Stage.CONSUME
        dispatch = self.dispatch or self._make_dispatch(publisher)
        for name, arguments in names[len(self.consumers) :]:
            consumer = await self.channel.basic_consume(
                name,
                dispatch.offer,
                consumer_tag=config.consumer_tag,
                exclusive=config.exclusive,
                arguments=arguments,
                dedupe=DuplicateWindow(config.dedupe_window, clock=self._reactor) if config.dedupe_window else None,
                resubscribe_limit=config.resubscribe_limit,
            )
            self.consumers.append(consumer)

    async def _declare(self, channel: RecoveringChannel, publisher: Publisher | None) -> list[tuple[str, Any]]:
        """Declare what is to be declared, check that the rest is there; the queues' names with their arguments."""
        config = self.plan.config
        if self.plan.queues:
            from txmsg.service.bodies import declare_queue

            names = [await declare_queue(queue, channel) for queue in self.plan.queues]
            await self._declare_retries(channel, publisher)
            return names
        await self._declare_retries(channel, publisher)
        if self.plan.retry is None or not config.declare:
            await channel.queue_declare(
                config.queue,
                passive=not config.declare,
                durable=config.durable,
                auto_delete=config.auto_delete,
                arguments=dict(config.queue_arguments) or None,
            )
        self.stage = Stage.BIND
        for exchange, key in config.bind:
            await channel.queue_bind(config.queue, exchange, key)
        return [(config.queue, None)]

    async def _declare_retries(self, channel: RecoveringChannel, publisher: Publisher | None) -> None:
        for policy in (self.plan.retry, self.plan.dead_letter):
            if policy is not None:
                assert publisher is not None
                await ServiceRetry(self.plan.config, policy, publisher).declare(channel)

    def _make_dispatch(self, publisher: Publisher | None) -> HandlerDispatch:
        plan, config = self.plan, self.plan.config
        given = publisher if plan.needs_publisher else None
        if config.threads:
            self._runner = ThreadRunner(plan.handler, config.threads, self._reactor, given)
        else:
            self._runner = ReactorRunner(plan.handler, given)
        self._runner.start()
        ways = [
            None if policy is None or publisher is None else ServiceRetry(config, policy, publisher).retry
            for policy in (plan.retry, plan.dead_letter)
        ]
        self.dispatch = HandlerDispatch(
            self._runner,
            FailurePolicy(OnFailure(config.on_failure), config.requeue_delay),
            concurrency=config.concurrency,
            clock=self._reactor,
            queue=config.queue,
            on_halt=self._on_halt,
            secrets=self._secrets,
            retry=ways[0],
            dead_letter=ways[1],
        )
        return self.dispatch

    def started(self) -> None:
        """All of the service consumes: say so, and watch for the end."""
        self.stage = Stage.RUNNING
        config = self.plan.config
        for consumer in self.consumers:
            self._log.info(
                "consuming from queue {queue} as {tag}, prefetch {prefetch}, concurrency {concurrency}",
                queue=clip(consumer.queue_name),
                tag=clip(consumer.consumer_tag),
                prefetch=config.prefetch or "unlimited",
                concurrency=config.concurrency,
            )
            consumer.when_ended().addCallback(self._on_ended, self)

    # -- stop -----------------------------------------------------------------------------------------

    def stop_intake(self) -> int:
        """Take no more; returns how many deliveries no handler had begun."""
        if self.dispatch is None:
            return 0
        for consumer in self.consumers:
            if consumer.is_active:
                # Not waited for: the handlers' time runs already, and closing the channel ends it too.
                consumer.cancel().addErrback(_ignore)
        return self.dispatch.stop_intake()

    async def close(self) -> None:
        """Close the channel, whose close-ok says that the broker has taken the acks sent before it."""
        if self.channel is not None:
            await self.channel.close().addErrback(_ignore)

    def let_go(self) -> None:
        """It has ended: cancel handlers that are at work still, and close the threads."""
        if self.dispatch is not None and self._runner is not None:
            self.dispatch.cancel_running()
            self._runner.stop()


def _ignore(_failure: Failure) -> None:
    """Closing is best effort: what could not be closed in order is closed with the connection."""
