"""Workers at a broker: losses, and stops."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.messaging import ConsumerProducerMixin, Queue


class Worker(ConsumerProducerMixin):
    """Answers with twice the number; waits with each number above 100 until it is told."""

    def __init__(self, connection: Any, queue: Queue, answers: str) -> None:
        self.connection = connection
        self.queue = queue
        self.answers = answers
        self.calls: list[str] = []
        self.bodies: list[int] = []
        self.slow: Deferred[None] = Deferred()

    def get_consumers(self, Consumer: Any, channel: Any) -> Any:
        return [Consumer(queues=[self.queue], callbacks=[self.handle], prefetch_count=5)]

    async def handle(self, body: int, message: Any) -> None:
        self.bodies.append(body)
        if body > 100:
            await self.slow
        await self.producer.publish(2 * body, routing_key=self.answers, retry=True)
        message.ack()

    def on_connection_revived(self) -> None:
        self.calls.append("revived")

    def on_consume_ready(self, connection: Any, channel: Any, consumers: Any, **kwargs: Any) -> None:
        self.calls.append("ready")

    def on_consume_end(self, connection: Any, channel: Any) -> Any:
        self.calls.append("end")
        return super().on_consume_end(connection, channel)


class MixinCase(MessagingCase):
    """Helpers."""

    async def start(self) -> Worker:
        """A worker that consumes."""
        self.queue, self.answers = Queue(self.name("work")), Queue(self.name("answers"))
        self.sender = self.connection()
        await self.answers(self.sender).declare()
        worker = Worker(self.connection(), self.queue, self.answers.name)
        worker.startService()
        self.addCleanup(worker.stopService)
        await self.until(lambda: "ready" in worker.calls)
        return worker

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            await self.sender.Producer().publish(number, routing_key=self.queue.name, retry=True)


class MixinCases(MixinCase):
    """The cases."""

    async def test_a_loss(self) -> None:
        """kombu N2, N7, N8, AD9, R9: it goes on, wherever it runs, and its hooks say so."""
        worker = await self.start()
        await self.send(1)
        await self.until_depth(self.answers.name, 1)
        await self.cut()
        await self.until(lambda: worker.calls.count("ready") == 2)
        await self.send(2)
        await self.until_depth(self.answers.name, 2)
        await worker.stopService()
        again = ["revived", "ready"] if self.recovers else ["end", "revived", "ready"]
        self.assertEqual(worker.calls, ["revived", "ready", *again, "end"])
        self.assertEqual(sorted(set(worker.bodies)), [1, 2])
        await self.until_depth(self.queue.name, 0)
        self.flushLoggedErrors()

    async def test_a_stop(self) -> None:
        """kombu N4, N17, R30: what is at work is finished, its answer confirmed and its message acked."""
        worker = await self.start()
        await self.send(101)
        await self.until(lambda: worker.bodies == [101])
        stopping = worker.stopService()
        await self.send(1)
        await self.pause(0.05)
        self.assertFalse(stopping.called)
        worker.slow.callback(None)
        await stopping
        await self.until_depth(self.answers.name, 1)
        await self.until_depth(self.queue.name, 1)
        self.assertEqual((worker.bodies, worker.calls[-1]), ([101], "end"))

    async def test_a_queue_that_is_deleted(self) -> None:
        """kombu N2: is declared and consumed again: by the transport where that recovers, else by a new start."""
        worker = await self.start()
        await self.queue(self.sender).delete()
        if not self.recovers:
            await self.until(lambda: worker.calls.count("ready") == 2)
        for _ in range(200):
            # Declares it, should it not be back yet, as the worker does.
            found = await self.queue(self.sender).queue_declare()
            if found.consumer_count == 1:
                break
            await self.pause(0.02)
        await self.send(1)
        await self.until_depth(self.answers.name, 1)
        await worker.stopService()


class MixinsOverMemory(OverMemory, MixinCases):
    __test__ = True


class MixinsOverBroker(OverBroker, MixinCases):
    __test__ = True


class MixinsOverRabbitMQ(OverRabbitMQ, MixinCases):
    __test__ = True


class MixinWithoutBroker(OverBroker, MixinCase):
    """What only a broker that can be stopped shows."""

    __test__ = True

    async def test_a_stop_during_an_outage(self) -> None:
        """R30: with a handler at work; a stop does not wait for the broker."""
        worker = await self.start()
        await self.send(101)
        await self.until(lambda: worker.bodies == [101])
        await self.embedded.stop()
        await self.pause(0.1)
        worker.slow.callback(None)
        worker.stop_timeout = 0.5  # its answer cannot be published
        await worker.stopService().addTimeout(5, installed_reactor)
        self.assertEqual(worker.calls[-1], "end")
        self.flushLoggedErrors()
