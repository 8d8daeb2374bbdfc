"""BrokerMixin: an embedded broker for each test of a trial test case.

class JobTests(BrokerMixin, TestCase):
    async def test_it(self):
        connection = await self.connect()
        ...
        self.assertEqual(self.broker.queue("jobs").depth, 1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred, maybeDeferred

from txmsg.testing.broker import EmbeddedBroker

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase

    from txmsg.amqp import AMQPProtocol

    _Base = TestCase
else:
    _Base = object

__all__ = ["BrokerMixin"]


class BrokerMixin(_Base):
    """Put it before `twisted.trial.unittest.TestCase`; a `setUp` of your own returns, or awaits, this one's.

    broker: EmbeddedBroker -- started before each test, and stopped after its cleanups.
    broker_settings -- keyword arguments for it, such as {"listen": True}.
    """

    broker_settings: ClassVar[dict[str, Any]] = {}
    broker: EmbeddedBroker

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]  # trial waits for it
        """Start the broker."""
        before: Deferred[Any] = maybeDeferred(super().setUp)
        return before.addCallback(lambda _: self._start_broker())

    def _start_broker(self) -> Deferred[EmbeddedBroker]:
        self.broker = EmbeddedBroker(**self.broker_settings)
        self.addCleanup(self.broker.stop)
        return self.broker.start()

    def connect(self, **fields: Any) -> Deferred[AMQPProtocol]:
        """A connection to the broker, without a socket; closed with the broker.  Fields: `EmbeddedBroker.connect`."""
        return self.broker.connect(**fields)
