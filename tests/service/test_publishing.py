"""The publisher that handlers get, on its connection of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.service.simulated import ServiceCase
from txmsg.amqp import BasicProperties, Publisher
from txmsg.errors import PublishReturned
from txmsg.service.handler import wants


class Instance:
    def __call__(self, delivery: Any, *, publisher: Publisher) -> None:
        """A handler that is an object."""


class WantsTests(ServiceCase):
    def test_who_wants_one(self) -> None:
        def positional(delivery: Any, publisher: Any) -> None: ...

        async def coroutine(delivery: Any, publisher: Any = None) -> None: ...

        def without(delivery: Any) -> None: ...

        def others(delivery: Any, **others: Any) -> None: ...

        self.assertTrue(wants(positional, "publisher"))
        self.assertTrue(wants(coroutine, "publisher"))
        self.assertTrue(wants(Instance(), "publisher"))
        handlers: list[Any] = [without, others, [].append, dict]
        for handler in handlers:
            self.assertFalse(wants(handler, "publisher"), handler)


class PublishingTests(ServiceCase):
    def forward(self, delivery: Any, publisher: Publisher) -> Deferred[str]:
        """A handler that is done when its answer is confirmed."""
        return publisher.publish("", "answers", delivery.body.upper(), BasicProperties(content_type="text/plain"))

    def setUp(self) -> None:
        super().setUp()
        self.broker.declare_queue("answers", durable=True)

    def test_a_handler_publishes(self) -> None:
        """R4, R22: acked when the answer is confirmed; two connections, each with a name."""
        self.start(self.forward)
        self.publish(b"a", b"b")
        self.simulation.advance(1)
        self.assertEqual(self.broker.queue("answers").bodies, [b"A", b"B"])
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.assertEqual(
            [connection.connection_name for connection in self.broker.connections],
            ["txmsg-consumer work", "txmsg-consumer work (publishing)"],
        )
        self.assertIn("connecting to localhost:5672 (publishing)", self.logged.text)
        self.stopped()

    def test_no_connection_for_a_handler_that_wants_none(self) -> None:
        self.start()
        self.assertEqual(len(self.broker.connections), 1)
        self.stopped()

    def test_what_cannot_be_published_is_a_failure(self) -> None:
        """R5, R26: the handler fails, and its message follows the policy."""

        async def handler(delivery: Any, publisher: Publisher) -> None:
            await publisher.publish("", "nobody", b"x")

        self.start(handler)
        self.publish(b"a")
        self.simulation.advance(5)
        self.assertIn(PublishReturned.__name__, self.logged.text)
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.stopped()

    def test_an_alarm_does_not_stop_the_acks(self) -> None:
        """R16, F37: only who publishes is blocked; handlers that do not go on, and what was published comes after."""

        def handler(delivery: Any, publisher: Publisher) -> Any:
            return None if delivery.body == b"quiet" else self.forward(delivery, publisher)

        self.start(handler)
        self.publish(b"first")
        with self.broker.faults.block():
            self.publish(b"second")
            self.simulation.advance(1)
            self.assertIn("the publishing connection is blocked", self.logged.text)
            self.publish(*[b"quiet"] * 50)
            self.simulation.advance(1)
            self.assertEqual((self.queue.depth, self.queue.unacked), (0, 1))
            self.assertTrue(self.service.is_consuming)
        self.simulation.advance(1)
        self.assertIn("the publishing connection is no longer blocked", self.logged.text)
        self.assertEqual(self.broker.queue("answers").bodies, [b"FIRST", b"SECOND"])
        self.stopped()

    def test_a_restart_in_between(self) -> None:
        """R1, R3, R22, F1: every message has its answer, whatever was under way when the broker went."""
        self.start(self.forward, concurrency=10)
        for number in range(10):
            for index in range(20):
                self.publish(b"m%d.%d" % (number, index))
                if index == 10:
                    self.simulation.broker.restart(after=0.3)
                    self.simulation.advance(0.5)
            self.simulation.advance(2)
        # The waits have grown, as no connection was stable.
        self.simulation.advance(60)
        answers = set(self.broker.queue("answers").bodies)
        self.assertEqual(answers, {b"M%d.%d" % (n, i) for n in range(10) for i in range(20)})
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.stopped()

    def test_stop_waits_for_confirms(self) -> None:
        """R30: of a handler that does not; and it says how many were left."""

        def careless(delivery: Any, publisher: Publisher) -> None:
            publisher.publish("", "answers", delivery.body).addErrback(lambda failure: None)

        self.start(careless)
        with self.broker.faults.lose():
            self.publish(b"1")
            self.stopped(0, limit=self.service.stop_limit)
        self.assertIn("of what was published 1 messages were not confirmed and 0 not sent", self.logged.text)

    def test_the_publishing_connection_gives_up(self) -> None:
        """R33: as the other one."""
        self.start(self.forward, recovery_limit=30.0, url="amqp://localhost:5672")
        (_, publishing) = self.simulation.open_links("service")
        self.broker.faults.refuse()
        publishing.reset()
        self.simulation.advance(40)
        self.assertIn("gave up connecting", self.ended_with(14))

    def test_the_publishing_connection_ends(self) -> None:
        """R25: for whatever reason; it does not go on without."""
        self.start(self.forward)
        assert self.service._publishing is not None
        self.service._publishing.connection.close()
        self.simulation.advance(1)
        self.ended_with(14)
