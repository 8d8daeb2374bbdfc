"""What the real Celery's client gets when our worker is killed, or the broker restarted, in the middle of a task."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.celery.client_process import ClientProcess
from tests.celery.worker_process import TxmsgWorkerProcess
from tests.conformance.messaging.base import MessagingCase, OverBroker, OverRabbitMQ, reactor
from txmsg.rpc.celery.worker import CeleryWorker, Tasks

__all__: list[str] = []


class DisruptionCases(MessagingCase):
    """One client process for each class."""

    __test__ = False
    process: ClassVar[ClientProcess]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the client."""
        super().setUpClass()
        cls.process = ClientProcess()

    @classmethod
    def tearDownClass(cls) -> None:
        """End it."""
        cls.process.close()
        super().tearDownClass()

    def client(self, queue: str, code: str) -> Deferred[Any]:
        """What the code returns in the client, whose connections are closed then."""
        code += """
            finally:
                app.close()
                app.backend.result_consumer.stop()
        """
        return self.in_thread(self.process.run, self.url(), queue, code)

    async def work(self, queue: str, tasks: Tasks | None = None) -> CeleryWorker:
        """A worker in this process."""
        worker = CeleryWorker(self.url(), tasks, queues=[queue], drain_timeout=0.5)
        self.addCleanup(worker.stop)
        await worker.start()
        return worker

    async def test_a_worker_that_is_killed(self) -> None:
        """celery K-13, J-14: with late acks another worker runs the task, and sees that it was delivered before."""
        queue = self.name("q")
        killed = await self.in_thread(TxmsgWorkerProcess, self.url(), queue)
        self.addCleanup(killed.close)
        waiting = self.client(
            queue,
            """
            try:
                return app.send_task('stuck').get(timeout=15)
            """,
        )
        self.assertEqual(await self.in_thread(killed.line), "running")
        await self.in_thread(killed.kill)
        tasks = Tasks()
        tasks.task(name="stuck", bind=True)(lambda request: ["again", request.redelivered])
        await self.work(queue, tasks)
        self.assertEqual(await waiting, ["again", True])


class DisruptionsOverBroker(OverBroker, DisruptionCases):
    """The embedded broker, with its data on disk."""

    durable = True

    @pytest.mark.long
    async def test_a_broker_that_is_restarted(self) -> None:
        """celery A-14, A-24: the task comes again, and its result reaches the client over its new connection."""
        queue = self.name("q")
        worker = await self.work(queue)
        runs: list[int] = []

        @worker.task(name="late", acks_late=True)
        def late() -> Deferred[str]:
            runs.append(1)
            # The client has to be back first: its reply queue goes with its connection.
            return deferLater(reactor, 60 if len(runs) == 1 else 3, lambda: "result")

        worker.task(name="early")(lambda: None)
        waiting = self.client(
            queue,
            """
            try:
                app.send_task('early').get(timeout=10)
                return app.send_task('late').get(timeout=25)
            """,
        )
        await self.until(lambda: runs)
        await self.pause(0.2)  # the client waits for its result, then
        await self.restart()
        self.assertEqual(await waiting, "result")
        self.assertEqual(len(runs), 2)


class DisruptionsOverRabbitMQ(OverRabbitMQ, DisruptionCases):
    """A real one."""
