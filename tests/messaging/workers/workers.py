"""A worker that notes what its hooks are called with, and the case that runs one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.connection.scripted_transport import ScriptedTransport
from tests.messaging.over_memory import MemoryCase
from txmsg.messaging import Connection, ConsumerMixin, Queue

__all__ = ["START", "MixinCase", "Worker"]


class Worker(ConsumerMixin):
    """Notes what is called, and handles what comes."""

    def __init__(self, connection: Any, *queues: str) -> None:
        self.connection = connection
        self.queues = queues or ("work",)
        self.calls: list[Any] = []
        self.bodies: list[Any] = []
        self.iterations = 0
        self.results: list[Deferred[None]] = []
        self.is_slow = False

    def get_consumers(self, Consumer: Any, channel: Any) -> Any:
        self.calls.append("get_consumers")
        queues = [Queue(name) for name in self.queues]
        return [Consumer(queues=queues, callbacks=[self.handle], accept=["json"])]

    def handle(self, body: Any, message: Any) -> Any:
        self.bodies.append(body)
        if not self.is_slow:
            message.ack()
            return None
        result: Deferred[None] = Deferred()
        self.results.append(result)
        return result.addCallback(lambda _: message.ack())

    def on_connection_error(self, exc: BaseException, interval: float) -> Any:
        self.calls.append((type(exc).__name__, interval))

    def on_connection_revived(self) -> Any:
        self.calls.append("revived")

    def on_consume_ready(self, connection: Any, channel: Any, consumers: Any, **kwargs: Any) -> Any:
        self.calls.append(("ready", len(consumers), kwargs))

    def on_consume_end(self, connection: Any, channel: Any) -> Any:
        self.calls.append(("end", connection.connected))

    def on_iteration(self) -> Any:
        self.iterations += 1


START: list[Any] = ["revived", "get_consumers", ("ready", 1, {})]


class MixinCase(MemoryCase):
    """`self.worker` on a broker of its own; it is stopped at the end."""

    def start(self, worker: Any = None, **kwargs: Any) -> Any:
        self.worker = worker or Worker(self.connection)
        self.running = self.worker.run(**kwargs)
        self.addCleanup(self.stop)
        self.turn()
        return self.worker

    def stop(self) -> None:
        if self.worker.should_stop:
            return
        self.worker.should_stop = True
        self.turn()
        self.assertIsNone(self.successResultOf(self.running))

    def scripted(self, *outcomes: Any) -> Connection:
        self.script = ScriptedTransport(self, *outcomes)
        return Connection(self.script.url, reactor=self.clock)
