"""The lab's workload: numbered messages from several publishers, through a direct exchange, to a consumer per queue.

All is durable, persistent, confirmed and mandatory.  Publishing and consuming have a connection each, as RabbitMQ
advises (https://www.rabbitmq.com/docs/connections): an alarm then stops the one and not the other.  The same code runs
in a simulation and in a process of its own, on the real reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.lab.recorder import Recorder
from txmsg.amqp import BasicProperties, ConnectionParameters, Delivery
from txmsg.amqp.recovery import Backoff, Publisher, ReconnectingConnection, RecoveringChannel, StateChange
from txmsg.errors import SettlementError, TxmsgError
from txmsg.testing.disruption.checker import Ending, ending_of

__all__ = ["EXCHANGE", "Settings", "Workload", "queue_name"]

EXCHANGE = "lab"


def queue_name(number: int) -> str:
    """The name of a queue, from 0; also its binding key."""
    return f"lab.{number}"


@dataclass(frozen=True)
class Settings:
    """What the workload is to do.

    targets: URLs or parameters.   publishers, queues: int -- publisher n publishes to queue n modulo queues.
    messages: int | None -- of each publisher; None: until it is stopped.   every: float -- seconds between two,
        or between two bursts of `burst`.
    window: int -- unconfirmed messages of one publisher; then it waits.   size: int -- octets of a body, at least.
    handling: float -- seconds that a handler takes.   prefetch: int.
    on_loss, publish_timeout -- of the publisher.   quorum: bool -- quorum queues.   order -- of the hosts.
    name -- of the publishers, with a number.   window_size: int -- messages in a DuplicateWindow; 0: none.
    others: int -- connections that do nothing.
    expected -- parts of texts that may be in the log.
    heartbeat: int.   quiet: float -- seconds after the last publish in which everything must have arrived.
    """

    targets: tuple[Any, ...] = ("amqp://localhost",)
    publishers: int = 2
    queues: int = 2
    messages: int | None = None
    every: float = 0.01
    window: int = 50
    size: int = 32
    handling: float = 0.0
    prefetch: int = 20
    on_loss: Literal["resend", "fail"] = "resend"
    publish_timeout: float = 60.0
    quorum: bool = False
    order: str = "listed"
    heartbeat: int = 4
    quiet: float = 60.0
    backoff: dict[str, Any] = field(default_factory=dict)
    name: str = "p"
    window_size: int = 0
    others: int = 0
    burst: int = 1
    expected: tuple[str, ...] = ()


class Workload:
    """One run of it.

    clock -- reactor or simulation's clock.   endpoint: name of a connection -> what chooses its endpoint, or None.
    window -- a DuplicateWindow for the consumers, or None.   random -- for the jitter of the back-off.

    publishing, consuming: ReconnectingConnection.   stale: int -- settlements that came too late.
    confirmed, handled: set of ids.   is_paused: bool -- publishes nothing, while True.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        clock: Any,
        *,
        endpoint: Callable[[str], Callable[[ConnectionParameters], Any]] | None = None,
        window: Any = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.settings = settings
        self.recorder = recorder
        self.clock = clock
        self.stale = 0
        self.is_paused = False
        self.confirmed: set[str] = set()
        self.handled: set[str] = set()
        self._window = window
        self._stopping = False
        self._is_handling: set[Any] = set()
        self._publishers: list[Publisher] = []
        self._channel: RecoveringChannel | None = None
        backoff = Backoff(**settings.backoff) if random is None else Backoff(random=random, **settings.backoff)
        self._others = [self._connection(f"other-{number}", backoff, endpoint) for number in range(settings.others)]
        self.publishing = self._connection("publishing", backoff, endpoint)
        self.consuming = self._connection("consuming", backoff, endpoint)

    def _connection(self, name: str, backoff: Backoff, endpoint: Any) -> ReconnectingConnection:
        heartbeat = self.settings.heartbeat
        targets = [
            target.replace(heartbeat=heartbeat)
            if isinstance(target, ConnectionParameters)
            else f"{target}{'&' if '?' in target else '?'}heartbeat={heartbeat}&operation_timeout=120"
            for target in self.settings.targets
        ]
        connection = ReconnectingConnection(
            targets,
            reactor=self.clock,
            backoff=backoff,
            order=self.settings.order,
            endpoint=None if endpoint is None else endpoint(name),
            name=name,
        )

        def changed(step: StateChange) -> None:
            why = type(step.reason).__name__ if isinstance(step.reason, BaseException) else step.reason or ""
            self.recorder.state(name, step.new.value, why)

        connection.add_state_callback(changed)
        return connection

    # -- life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, declare, consume."""
        starting = [each.start() for each in (self.consuming, self.publishing, *self._others)]
        for each in starting:
            await each
        self._channel = channel = await self.consuming.channel(prefetch_count=self.settings.prefetch)
        await channel.exchange_declare(EXCHANGE, "direct", durable=True)
        arguments = {"x-queue-type": "quorum"} if self.settings.quorum else None
        for number in range(self.settings.queues):
            queue = queue_name(number)
            await channel.queue_declare(queue, durable=True, arguments=arguments)
            await channel.queue_bind(queue, EXCHANGE, queue)
            await channel.basic_consume(queue, self._handler(queue), dedupe=self._window, resubscribe_limit=None)
        for number in range(self.settings.publishers):
            publisher = self.publishing.publisher(on_loss=self.settings.on_loss, timeout=self.settings.publish_timeout)
            self._publishers.append(publisher)
            Deferred.fromCoroutine(
                self._publish(f"{self.settings.name}{number}", queue_name(number % self.settings.queues), publisher)
            )

    def stop_publishing(self) -> None:
        """No new messages from now on."""
        self._stopping = True

    async def finish(self) -> None:
        """Wait for what is under way, then close everything."""
        while self._running:
            await self.pause(0.01)
        for publisher in self._publishers:
            await publisher.drain(self.settings.publish_timeout + 2)
        end = self.clock.seconds() + self.settings.quiet
        while (self.confirmed - self.handled or self._is_handling) and self.clock.seconds() < end:
            await self.pause(0.01)
        await self.pause(0.1)  # for the last acks, and for copies
        for publisher in self._publishers:
            await publisher.close()
        for connection in (self.consuming, self.publishing, *self._others):
            await connection.close()

    async def run(self) -> None:
        """All of it, for a workload with a number of messages."""
        await self.start()
        await self.finish()

    def pause(self, seconds: float) -> Deferred[None]:
        """Wait."""
        waiting: Deferred[None] = deferLater(self.clock, seconds)
        return waiting

    # -- publishing --------------------------------------------------------------------------------

    _running = 0

    async def _publish(self, name: str, queue: str, publisher: Publisher) -> None:
        self._running += 1
        sent = 0
        while not self._stopping and (self.settings.messages is None or sent < self.settings.messages):
            for _ in range(self.settings.burst):
                if publisher.outstanding < self.settings.window and not self.is_paused:
                    self._publish_one(name, queue, publisher)
                    sent += 1
            await self.pause(self.settings.every)
        self._running -= 1

    def _publish_one(self, name: str, queue: str, publisher: Publisher) -> None:
        message_id = self.recorder.attempted(name)
        body = message_id.ljust(self.settings.size).encode()
        publish = publisher.publish(EXCHANGE, queue, body, BasicProperties(message_id=message_id))
        publish.addCallbacks(
            lambda _: self._ended(message_id, "confirmed"),
            lambda failure: self._ended(message_id, ending_of(failure.value)),
        )

    def _ended(self, message_id: str, ending: Ending) -> None:
        if ending == "confirmed":
            self.confirmed.add(message_id)
        self.recorder.ended(message_id, ending)

    # -- consuming ---------------------------------------------------------------------------------

    def _handler(self, queue: str) -> Callable[[Delivery], None]:
        def take(delivery: Delivery) -> None:
            message_id = delivery.body.decode().strip()
            self.recorder.handled(message_id, queue, delivery.redelivered)
            self.handled.add(message_id)
            if not self.settings.handling:
                self._ack(delivery)
                return
            self._is_handling.add(delivery)
            self.clock.callLater(self.settings.handling, self._done, delivery)

        return take

    def _done(self, delivery: Delivery) -> None:
        self._is_handling.discard(delivery)
        self._ack(delivery)

    def _ack(self, delivery: Delivery) -> None:
        try:
            delivery.ack()
        except SettlementError:
            self.stale += 1
        except TxmsgError:
            self.stale += 1
