"""A CeleryApp over ``memory://``; the worker is the test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.rpc.celery import TaskRequest, parse_task
from txmsg.rpc.celery.app import CeleryApp
from txmsg.rpc.celery.results import AsyncResult, RPCBackend

__all__ = ["NOW", "AppCase"]

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class AppCase(MemoryCase):
    """`self.task()` is the next task in the queue; `self.answer()` sends its result."""

    def setUp(self) -> None:
        """A client, and the worker's backend."""
        super().setUp()
        self.app = self.make()
        self.worker = RPCBackend(self.connect())
        self.addCleanup(self.turn)
        self.addCleanup(self.worker.connection.close)

    def make(self, **settings: Any) -> CeleryApp:
        """Closed at the end of the test."""
        app = CeleryApp(self.url, **{"reactor": self.clock, "wall_clock": NOW.timestamp, "timeout": 10.0, **settings})
        self.addCleanup(app.close)
        return app

    def raw(self, queue: str = "celery") -> Any:
        """The next message."""
        return self.done(self.channel.get(queue, no_ack=True))

    def task(self, queue: str = "celery") -> TaskRequest:
        """The next task, as a worker reads it."""
        got = self.raw(queue)
        request = parse_task(got.body, got.properties)
        assert isinstance(request, TaskRequest)
        return request

    def answer(self, request: TaskRequest, value: Any = None, state: str = "SUCCESS") -> None:
        """Send a state of it."""
        self.done(self.worker.store_result(request.task_id, value, state, request=request))
        self.turn()

    def sent(self, *args: Any, **options: Any) -> AsyncResult:
        """send_task(), done."""
        return self.done(self.app.send_task(*args, **options))

    def queues(self) -> list[str]:
        """Which there are."""
        return list(self.transport.vhost(self.url).queues)

    def wait(self, deferred: Deferred[Any]) -> Deferred[Any]:
        """Give it time."""
        self.turn()
        return deferred
