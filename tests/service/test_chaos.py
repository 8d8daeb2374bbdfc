"""The service in a world where anything may go wrong, as a seed has it; and nothing is lost."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.service.simulated import ServiceCase
from txmsg.amqp import Backoff, Publisher, ReconnectingConnection
from txmsg.testing import EmbeddedBroker

#: Messages of each run.
COUNT = 150


class ChaosTests(ServiceCase):
    """Issue, Z7, R1, R3, R22, R26: sent, handled, answered; those that fail are dead letters after their retries."""

    def set_up_broker(self, broker: EmbeddedBroker) -> None:
        super().set_up_broker(broker)
        if not broker.queue("answers").exists:
            broker.declare_queue("answers", durable=True)

    async def handle(self, delivery: Any, publisher: Publisher) -> None:
        """It takes its time, answers, and every seventh message is a bad one."""
        self.begun.append(delivery.body)
        await deferLater(self.clock, self.simulation.random.random() * 0.05)
        if int(delivery.body) % 7 == 0:
            raise ValueError("bad luck")
        await publisher.publish("", "answers", delivery.body)

    def test_whatever_happens(self) -> None:
        for _ in range(3):
            self.run_one()

    def run_one(self) -> None:
        simulation = self.simulation
        self.start(
            self.handle,
            concurrency=10,
            on_failure="retry",
            retry_delays=(0.5, 1.0),
            backoff_maximum=2.0,
            publish_timeout=300.0,
            url="amqp://localhost?heartbeat=4",
        )
        source = ReconnectingConnection(
            "amqp://localhost?heartbeat=4",
            reactor=self.clock,
            endpoint=simulation.endpoints("source"),
            backoff=Backoff(maximum=2.0, random=simulation.random.random),
        )
        publisher = source.publisher(timeout=300.0)
        source.start()
        chaos = simulation.disrupt()
        sent: list[Deferred[str]] = []
        for number in range(COUNT):
            sent.append(publisher.publish("", "work", b"%d" % number))
            simulation.advance(0.2)
        chaos.stop()
        self.assertGreater(simulation.broker.starts + len(simulation.links), 10)
        if not simulation.broker.is_up:
            simulation.run_until(simulation.broker.start())
        simulation.advance(60)
        for each in sent:
            self.successResultOf(each)
        expected = {b"%d" % number for number in range(COUNT)}
        bad = {body for body in expected if int(body) % 7 == 0}
        self.assertEqual(set(self.broker.queue("answers").bodies), expected - bad)
        self.assertEqual(set(self.broker.queue("work.dead").bodies), bad)
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.assertTrue(self.service.is_consuming)
        self.stopped()
        simulation.run_until(source.close())
        for name in ("answers", "work.dead"):
            self.broker.queue(name).raw.purge()
        self.ended.clear()
