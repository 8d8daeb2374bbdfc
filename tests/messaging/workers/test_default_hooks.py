"""What a worker does where its class says nothing: the hooks of ConsumerMixin as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from tests.messaging.workers.workers import MixinCase
from txmsg.errors import ConnectFailed
from txmsg.messaging import ConsumerMixin, Queue


class Plain(ConsumerMixin):
    """Only what a worker must have."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.bodies: list[Any] = []

    def get_consumers(self, Consumer: Any, channel: Any) -> Any:
        return [Consumer(queues=[Queue("work")], callbacks=[self.handle])]

    def handle(self, body: Any, message: Any) -> None:
        self.bodies.append(body)
        message.ack()


class DefaultHookTests(MixinCase):
    """kombu N6, N11, N12."""

    def events(self, captured: Sequence[LogEvent], level: Any) -> list[str]:
        return [formatEvent(event) for event in captured if event["log_level"] is level]

    def test_what_cannot_be_decoded(self) -> None:
        """kombu N11: an error in the log, with the reason and without the body; acked; the next one flows."""
        worker = self.start(Plain(self.connection))
        with capturedLogs() as captured:
            self.send("work", b"c4n4ry{", content_type="application/json", headers={"token": "c4n4ry"})
            self.send("work", b"c4n4ry", content_type="application/x-python-serialize")
            self.send("work", b"7", content_type="application/json")
        first, second = self.events(captured, LogLevel.error)
        self.assertIn("application/json", first)
        self.assertIn("application/x-python-serialize", second)
        self.assertNotIn("c4n4ry", repr(captured))
        self.assertEqual((worker.bodies, self.depth("work")), ([7], (0, 0)))

    def test_attempts_that_fail(self) -> None:
        """kombu N6, N12: each is logged, with its traceback and the wait; without a limit it goes on for ever."""
        with capturedLogs() as captured:
            self.start(Plain(self.scripted(*[ConnectFailed("nobody there")] * 40)))
            for _ in range(40):
                self.turn(32)
        told = self.events(captured, LogLevel.warn)
        self.assertEqual(len(told), 40)
        self.assertIn("trying again in 2 s: nobody there", told[0])
        self.assertIn("trying again in 30 s", told[-1])
        self.assertIn("ConnectFailed", told[0])
        self.assertTrue(self.script.made)
        self.assertNoResult(self.running)
