"""What a publisher leaves with a broker that does not answer: nothing that grows (R6, R31)."""

from __future__ import annotations

from typing import Any

from tests.amqp.recovery.publishing import Outcome, PublisherCase
from txmsg.amqp import ReconnectingConnection
from txmsg.errors import NotSent, PublishTimeout
from txmsg.testing.disruption import Simulation


class SilentBrokerTests(PublisherCase):
    """It takes publishes and never confirms them."""

    def ledger(self, publisher: Any) -> int:
        """How many publishes the open channel remembers."""
        channel = publisher._channel
        return 0 if channel is None else len(channel.unconfirmed.pending)

    def test_timed_out(self) -> None:
        """R6, peers 60: those whose time is up are not kept for ever; a new channel goes on, also with the others."""
        publisher = self.start(max_outstanding=50, timeout=2)
        losing = self.broker.faults.lose(times=None)
        most = 0
        outcomes = []
        for _ in range(10):
            outcomes += [Outcome(publisher.publish("", "jobs", b"x")) for _ in range(50)]
            self.advance(4)
            most = max(most, self.ledger(publisher))
        self.assertLessEqual(most, 150)
        self.assertLessEqual({type(outcome.error) for outcome in outcomes}, {PublishTimeout, NotSent})
        self.assertEqual(self.connection.epoch, 1)
        lasts = [Outcome(publisher.publish("", "jobs", b"last", timeout=60)) for _ in range(10)]
        channel: Any = publisher._channel
        for _ in range(200):
            if not channel.is_open:
                break
            if publisher.outstanding < 50:
                Outcome(publisher.publish("", "jobs", b"x"))
            self.advance(0.1)
        losing.stop()
        self.advance(10)
        self.assertEqual([outcome.error for outcome in lasts], [None] * 10)
        self.assertEqual([message.body for message in self.broker.queue("jobs").messages].count(b"last"), 10)

    def test_cancelled(self) -> None:
        """R6, R8: nor those that nobody waits for."""
        publisher = self.start(max_outstanding=50)
        self.broker.faults.lose(times=None)
        most = 0
        for _ in range(1000):
            outcome = Outcome(publisher.publish("", "jobs", b"x"))
            self.advance(0.1)
            outcome.deferred.cancel()
            most = max(most, self.ledger(publisher))
        self.assertLessEqual(most, 250)


def test_channel_that_cannot_be_opened() -> None:
    """Peers 16: a publisher whose confirm.select has no answer leaves no channel behind."""
    with Simulation(seed=1) as simulation:
        connection = ReconnectingConnection(
            simulation.parameters(operation_timeout=2.0), reactor=simulation.clock, endpoint=simulation.endpoints()
        )
        simulation.run_until(connection.start())
        dropping = simulation.frames.drop(None, "to_client", method="confirm.select-ok", times=None)
        publisher = connection.publisher()
        simulation.advance(60)
        [view] = simulation.broker.embedded.connections
        assert len(view.channels) <= 1
        dropping.stop()
        simulation.advance(40)
        assert simulation.run_until(publisher.publish("", "nowhere", b"", mandatory=False))
        assert len(view.channels) == 1
        simulation.run_until(connection.close())
        simulation.check()
