"""A client's backend over ``memory://``, and what workers send to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.messaging.over_memory import MemoryCase
from txmsg.rpc.celery.result_message import TaskResult, build_result
from txmsg.rpc.celery.results import ResultTable, RPCBackend

__all__ = ["ResultCase", "message"]


def message(task_id: str, state: str = "SUCCESS", value: Any = None, correlation_id: str | None = None) -> TaskResult:
    """A state as the table gets it."""
    return TaskResult(task_id=task_id, state=state, value=value, correlation_id=correlation_id)


class ResultCase(MemoryCase):
    """`self.backend` is the client's; `self.store()` sends as a worker does, over another connection."""

    backend: RPCBackend

    def setUp(self) -> None:
        """One client, one worker."""
        super().setUp()
        self.backend = RPCBackend(self.connection, timeout=10.0)
        self.worker = RPCBackend(self.connect())
        self.addCleanup(self.turn)
        self.addCleanup(self.worker.connection.close)
        self.addCleanup(self.connection.close)

    @property
    def table(self) -> ResultTable:
        """What the client knows."""
        return self.backend.table

    def request(self, **more: Any) -> Any:
        """What a worker has of a task of this client."""
        return SimpleNamespace(**{"reply_to": self.backend.reply_to, "correlation_id": None, **more})

    def store(self, task_id: str, result: Any = None, state: str = "SUCCESS", **request: Any) -> Any:
        """Send one state, and let it arrive."""
        stored = self.done(self.worker.store_result(task_id, result, state, request=self.request(**request)))
        self.turn()
        return stored

    def publish(self, body: bytes, **properties: Any) -> None:
        """Anything at all into the client's queue."""
        self.done(self.channel.publish("", self.backend.reply_to, body, properties))
        self.turn()

    def publish_result(self, *args: Any, **kwargs: Any) -> None:
        """A result message as it is."""
        made = build_result(*args, **kwargs)
        self.done(self.channel.publish("", self.backend.reply_to, made.body, dict(made.properties)))
        self.turn()
