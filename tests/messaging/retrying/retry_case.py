"""A producer over a scripted transport, for the tests of publishing with retries."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.publishing.plain_transport import ScriptedCase
from txmsg.messaging.publishing.producer import Producer

__all__ = ["RetryCase"]


class RetryCase(ScriptedCase):
    """A producer that is connected."""

    recovers = False

    def setUp(self) -> None:
        super().setUp()
        self.transport.recovers = self.recovers
        self.on = self.connection()
        self.producer = Producer(self.on)
        self.told: list[tuple[str, float]] = []

    def errback(self, error: BaseException, interval: float) -> None:
        """Notes it."""
        self.told.append((type(error).__name__, interval))

    def waits(self) -> list[float]:
        """The intervals so far."""
        return [interval for _, interval in self.told]

    def policy(self, **fields: Any) -> dict[str, Any]:
        """A policy with the errback."""
        return {"errback": self.errback, **fields}

    def publish(self, body: Any = 1, **kwargs: Any) -> Deferred[None]:
        """With retries."""
        kwargs.setdefault("retry", True)
        if kwargs["retry"]:
            kwargs.setdefault("retry_policy", self.policy())
        return self.producer.publish(body, **kwargs)

    def open(self) -> None:
        """Have the channel open."""
        self.successResultOf(self.on.default_channel.open())
        self.successResultOf(self.producer.publish("open"))
        self.transport.sent.clear()
        self.transport.log.clear()

    def lose(self) -> None:
        """Lose the newest connection."""
        self.transport.made[-1].lose()
