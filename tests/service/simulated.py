"""The consumer service in a simulation: its broker, the network and the clock are the test's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.service.logs import Logged
from txmsg.amqp import Backoff
from txmsg.service import consumer
from txmsg.service.config import ConsumerConfig
from txmsg.service.consumer import ConsumerService
from txmsg.service.exit_codes import Outcome
from txmsg.testing import EmbeddedBroker, QueueView
from txmsg.testing.disruption import Simulation

__all__ = ["CANARY", "ServiceCase"]

CANARY = "c4n4ry"


class ServiceCase(SynchronousTestCase):
    """Makes services on a simulated broker that has the durable queue `work`.

    begun: the bodies that `handler` has been given, in order.  results: by body, the Deferreds that it has returned.
    ended: the outcomes of the service.
    """

    brokers: tuple[str, ...] = ("broker",)

    def setUp(self) -> None:
        self.logged = Logged(self)
        self.simulation = Simulation(self.id(), set_up=self.set_up_broker, brokers=self.brokers)
        # A reactor that runs already.
        self.simulation.clock.callWhenRunning = lambda call, *args: call(*args)  # type: ignore[attr-defined]
        self.simulation.start()
        self.addCleanup(self.leaves_nothing)
        # The waits are the seed's choice, too.
        self.patch(consumer, "Backoff", partial(Backoff, random=self.simulation.random.random))
        #: All that was logged, by whomever.
        self.everything: list[str] = []
        observer: Any = lambda event: self.everything.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.begun: list[bytes] = []
        self.results: dict[bytes, Deferred[Any]] = {}
        self.ended: list[Outcome] = []

    def leaves_nothing(self) -> None:
        """R28: no connection, no call on the clock.  Errors in the log are for each test to look at."""
        found = [problem for problem in self.simulation.finish() if not problem.startswith("in the log")]
        self.assertEqual(found, [])
        self.assertNotIn(CANARY, "\n".join(self.everything))

    def set_up_broker(self, broker: EmbeddedBroker) -> None:
        """What each start of the broker begins with."""
        if not broker.queue("work").exists:
            broker.declare_queue("work", durable=True)

    @property
    def broker(self) -> EmbeddedBroker:
        return self.simulation.broker.embedded

    @property
    def queue(self) -> QueueView:
        return self.broker.queue("work")

    @property
    def clock(self) -> Any:
        return self.simulation.clock

    def handler(self, delivery: Any) -> Deferred[Any]:
        self.begun.append(delivery.body)
        self.results[delivery.body] = Deferred()
        return self.results[delivery.body]

    def make(self, handler: Any = None, *, consumers: Any = None, **config: Any) -> ConsumerService:
        if consumers is None:
            config = {"queue": "work", "handler": "none:none", **config}
            handler = handler or self.handler
        self.service = ConsumerService(
            ConsumerConfig(**{"concurrency": 5, **config}),
            handler,
            consumers=consumers,
            reactor=self.clock,
            endpoint=self.simulation.endpoints("service"),
        )
        self.service.when_finished().addCallback(self.ended.append)
        return self.service

    def start(self, handler: Any = None, **config: Any) -> ConsumerService:
        """Start one, and let a second pass."""
        service = self.make(handler, **config)
        service.startService()
        self.simulation.advance(1)
        return service

    def publish(self, *bodies: bytes, **properties: Any) -> None:
        """Put messages into the queue, and let them arrive."""
        for body in bodies:
            self.broker.publish("", "work", body, {"delivery_mode": 2, **properties})
        self.simulation.advance(0.1)

    def until(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        self.simulation.run_while(lambda: not condition(), limit)

    def ask(self, call: Callable[[Any], Deferred[Any]]) -> Any:
        """Make a call on a channel of another client."""

        async def asked() -> Any:
            connection = await self.simulation.connect("other")
            try:
                return await call(await connection.channel())
            finally:
                await connection.close()

        return self.simulation.run_until(Deferred.fromCoroutine(asked()))

    def ended_with(self, code: int) -> str:
        """The service has ended, once, with `code`, and has left nothing; the line."""
        (outcome,) = self.ended
        self.assertEqual(outcome.exit_code, code, outcome)
        self.assertEqual(self.simulation.open_links("service"), [])
        self.assertNotIn(CANARY, self.logged.text)
        return outcome.line

    def stopped(self, code: int = 0, limit: float = 60.0) -> str:
        """Stop it; it ends with `code` within `limit` seconds."""
        stopping = self.service.stopService()
        self.simulation.run_until(stopping, limit)
        return self.ended_with(code)
