"""A publisher, an embedded broker and a clock, for the tests of :class:`txmsg.amqp.Publisher`."""

from __future__ import annotations

import random
import unittest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txmsg.amqp import ReconnectingConnection
from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.publisher import Publisher
from txmsg.testing import EmbeddedBroker

__all__ = ["Outcome", "PublisherCase"]


class Outcome:
    """What a Deferred fired with: `value`, or `error`; neither while it waits."""

    def __init__(self, deferred: Deferred[Any], log: list[Outcome] | None = None) -> None:
        self.deferred = deferred
        self.value: Any = None
        self.error: BaseException | None = None
        self.log = log
        deferred.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value: Any) -> None:
        self.value = value
        if self.log is not None:
            self.log.append(self)

    def _failed(self, failure: Failure) -> None:
        self.error = failure.value
        if self.log is not None:
            self.log.append(self)

    @property
    def is_waiting(self) -> bool:
        return self.value is None and self.error is None


class PublisherCase(unittest.TestCase):
    """One publisher, one broker, one clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = EmbeddedBroker(reactor=self.clock)
        self.broker.start()
        self.broker.declare_queue("jobs", durable=True)
        self.connection = ReconnectingConnection(
            reactor=self.clock,
            endpoint=lambda parameters: self.broker.endpoint,
            backoff=Backoff(initial=0.5, random=random.Random(1).random),
        )

    def tearDown(self) -> None:
        Outcome(self.connection.close())
        self.advance(11)
        self.broker.stop()
        self.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def advance(self, seconds: float) -> None:
        """Let time pass, a tenth of a second at a time."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
        self.clock.pump([0] * 10)

    def start(self, **options: Any) -> Publisher:
        publisher = Publisher(self.connection, **options).join()
        self.connection.start()
        self.advance(0.5)
        self.assertTrue(self.connection.is_ready)
        return publisher

    def lose(self) -> None:
        """End the connection as a broker that is restarted does."""
        self.broker.faults.close_connection(320, "CONNECTION_FORCED - restart")
        self.advance(0.2)
