"""Failing handlers with delayed retries: the service's own part of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.service.simulated import ServiceCase
from txmsg.service.policy import Reject


class RetryTests(ServiceCase):
    """R26: tried so many times, the waits in between are the broker's; then a dead letter."""

    def failing(self, delivery: Any) -> None:
        self.begun.append(delivery.body)
        self.moments.append(self.clock.seconds())
        if delivery.body.startswith(b"bad"):
            raise ValueError("bad luck")

    def retrying(self, handler: Any = None, **config: Any) -> None:
        self.moments: list[float] = []
        config = {"retry_delays": (1.0, 10.0), "on_failure": "retry", **config}
        self.start(handler or self.failing, **config)

    def test_each_try_and_the_dead_letter(self) -> None:
        """Issue: delayed retry, limit and dead letter; others pass meanwhile; the log and the headers tell."""
        self.retrying(queue="mine", declare=True)
        for body in (b"bad", b"good"):
            self.broker.publish("", "mine", body)
        self.simulation.advance(30)
        self.assertEqual(self.begun, [b"bad", b"good", b"bad", b"bad"])
        self.assertEqual([int(self.moments[2] - self.moments[0]), int(self.moments[3] - self.moments[2])], [1, 10])
        (dead,) = self.broker.queue("mine.dead").messages
        self.assertEqual(dead.body, b"bad")
        self.assertIn("bad luck", repr(dead.headers))
        self.assertIn("handler failed, message goes to its next try", self.logged.text)
        self.assertIn("message has failed for the last time", self.logged.text)
        self.stopped()
        self.assertIn("1 handled, 3 failed, 0 requeued, 0 rejected, 2 to be retried, 1 dead", self.logged.text)

    def test_a_queue_that_is_somebody_elses(self) -> None:
        """Without `declare` the work queue is left as it is; the others are made."""
        self.retrying(dead_letter="failed")
        self.assertEqual(self.queue.arguments, {})
        self.publish(b"bad")
        self.simulation.advance(30)
        self.assertEqual(self.broker.queue("failed").bodies, [b"bad"])
        self.stopped()

    def test_what_is_rejected_is_a_dead_letter_too(self) -> None:
        def rejecting(delivery: Any) -> None:
            raise Reject("not wanted")

        self.retrying(rejecting, queue="mine", declare=True)
        self.broker.publish("", "mine", b"x")
        self.simulation.advance(1)
        self.assertEqual(self.broker.queue("mine.dead").bodies, [b"x"])
        self.stopped()

    def test_the_broker_cannot_take_it(self) -> None:
        """R22: what cannot be published stays the queue's, and comes back after a while."""
        self.retrying(publish_timeout=5.0)
        fault = self.broker.faults.lose()
        self.publish(b"bad")
        self.simulation.advance(4)
        self.assertEqual(self.queue.unacked, 1)
        self.simulation.advance(5)
        self.assertIn("message requeued, as its retry could not be published", self.logged.text)
        fault.stop()
        self.simulation.advance(60)
        self.assertEqual(self.broker.queue("work.dead").bodies, [b"bad"])
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.stopped()

    def test_what_cannot_be_published_again_is_rejected(self) -> None:
        """R26: with its headers as large as a frame allows, there is no room for those of a retry."""
        self.retrying(queue="mine", declare=True)
        self.broker.publish("", "mine", b"bad", {"headers": {"h": "x" * 131_000}})
        self.simulation.advance(5)
        self.assertEqual(self.begun, [b"bad"])
        self.assertEqual(self.broker.queue("mine.dead").bodies, [b"bad"])
        self.stopped()

    def test_a_restart_at_each_moment(self) -> None:
        """R22, F1: a failed message is in one of the queues whenever the broker dies."""
        self.retrying()
        for number in range(20):
            self.begun.clear()
            self.publish(b"bad %d" % number)
            self.simulation.advance(number * 0.0005)
            self.simulation.broker.restart(after=0.2)
            self.simulation.advance(20)
        self.simulation.advance(20)
        self.assertEqual(set(self.broker.queue("work.dead").bodies), {b"bad %d" % number for number in range(20)})
        self.stopped()

    def test_stop_waits_until_it_is_published(self) -> None:
        """R30."""
        results: list[Deferred[None]] = []

        def handler(delivery: Any) -> Deferred[None]:
            results.append(Deferred())
            return results[-1]

        self.retrying(handler)
        self.publish(b"x")
        stopped = self.service.stopService()
        results[0].errback(ValueError())
        self.assertNoResult(stopped)
        self.simulation.run_until(stopped, 1)
        self.ended_with(0)
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.assertEqual(self.broker.queue("work.retry.1000").bodies, [b"x"])

    def test_the_channel_goes_while_a_handler_fails(self) -> None:
        """R23: it comes again by itself, so that it is not published a second time."""
        results: list[Deferred[None]] = []

        def handler(delivery: Any) -> Deferred[None]:
            results.append(Deferred())
            return results[-1]

        self.retrying(handler)
        self.publish(b"x")
        self.simulation.broker.restart(after=0.1)
        self.simulation.advance(0.05)
        results[0].errback(ValueError())
        self.simulation.advance(5)
        self.assertEqual(len(results), 2)
        results[1].callback(None)
        self.simulation.advance(5)
        self.assertEqual(len(results), 2)
        self.assertIn("message not settled, the broker will deliver it again", self.logged.text)
        self.stopped()
