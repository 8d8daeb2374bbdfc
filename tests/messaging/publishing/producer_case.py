"""A producer over a transport that writes down what it is given."""

from __future__ import annotations

from typing import Any

from tests.messaging.publishing.plain_transport import ScriptedCase
from txmsg.messaging.publishing.producer import Producer

__all__ = ["ProducerCase"]


class ProducerCase(ScriptedCase):
    """A producer on a lazy connection."""

    def setUp(self) -> None:
        super().setUp()
        self.on = self.connection()
        self.producer = Producer(self.on)

    def publish(self, *args: Any, **kwargs: Any) -> tuple[str, str, bytes, dict[str, Any], bool]:
        """What the transport is given."""
        self.assertIsNone(self.successResultOf(self.producer.publish(*args, **kwargs)))
        return self.transport.sent[-1]

    def properties(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The properties of a publish."""
        return self.publish(*args, **kwargs)[3]

    def refused(self, kind: type[Exception], *args: Any, **kwargs: Any) -> None:
        """Fails so, and nothing is sent."""
        sent = len(self.transport.sent)
        self.failureResultOf(self.producer.publish(*args, **kwargs), kind)
        self.assertEqual(len(self.transport.sent), sent)
