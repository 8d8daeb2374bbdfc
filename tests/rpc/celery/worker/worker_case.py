"""A Celery worker over ``memory://``, on a clock that the test turns, and what a client of Celery sends and sees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.messaging.over_memory import MemoryCase
from txmsg.rpc.celery import TaskMessage, TaskResult, build_task, parse_result
from txmsg.rpc.celery.worker import CeleryWorker, Tasks

__all__ = ["START", "WorkerCase"]

#: What the wall clock says first.
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class WorkerCase(MemoryCase):
    """`self.tasks` are those of `self.worker`, when it is started; results come to `self.reply_to`."""

    worker: CeleryWorker

    def setUp(self) -> None:
        super().setUp()
        self.tasks = Tasks()
        self.reply_to = str(uuid4())
        self.got: list[TaskResult] = []
        self.raw: list[dict[str, Any]] = []
        self.run_async(self._consume())

    async def _consume(self) -> None:
        await self.channel.queue_declare(self.reply_to)
        await self.channel.consume(self.reply_to, self._received, no_ack=True)

    def _received(self, delivery: Any) -> None:
        self.raw.append(delivery.properties)
        self.got.append(parse_result(delivery.body, delivery.properties))

    def wall(self) -> float:
        """Seconds since 1970, by the clock of the test."""
        return START.timestamp() + float(self.clock.seconds())

    def at(self, seconds: float) -> datetime:
        """So long after the start."""
        return START + timedelta(seconds=seconds)

    def work(self, **options: Any) -> CeleryWorker:
        """Start a worker with the tasks; it is stopped at the end."""
        options.setdefault("hostname", "txmsg@test")
        self.worker = CeleryWorker(self.connect(), self.tasks, wall_clock=self.wall, **options)
        self.done(self.worker.start())
        self.addCleanup(self.end)
        return self.worker

    def end(self) -> None:
        """Stop the worker, and let its time pass."""
        stopping = self.worker.stop()
        for _ in range(5):
            self.turn(5)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def publish(self, message: TaskMessage, queue: str = "celery") -> None:
        """Send a task message."""
        self.send(queue, message.body, **message.properties)

    def call(self, name: str, *args: Any, queue: str = "celery", **options: Any) -> str:
        """Send a task as a client of Celery does; its id."""
        now = datetime.fromtimestamp(self.wall(), UTC)
        message = build_task(name, list(args), **{"reply_to": self.reply_to, "now": now, **options})
        self.publish(message, queue)
        return message.task_id

    def states(self, task_id: str | None = None) -> list[str]:
        """The states of a task that have come; None: of all."""
        return [each.state for each in self.got if task_id in (None, each.task_id)]

    def last(self, task_id: str | None = None) -> TaskResult:
        """The last result that has come."""
        return [each for each in self.got if task_id in (None, each.task_id)][-1]

    def error(self, task_id: str | None = None) -> tuple[str, str, tuple[Any, ...]]:
        """(type, module, args) of the exception in it."""
        error = self.last(task_id).error
        assert error is not None, self.last(task_id)
        return error.exc_type, error.exc_module, error.exc_args
