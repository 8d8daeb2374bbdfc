"""The mixin for trial's test cases."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from txmsg.amqp import connect
from txmsg.testing import BrokerMixin


class InProcessTests(BrokerMixin, TestCase):
    """Without a socket."""

    timeout = 30

    async def test_a_broker_for_each_test(self) -> None:
        """It is started before, and stopped after: trial finds nothing left."""
        channel = await (await self.connect()).channel()
        await channel.queue_declare("q")
        self.assertEqual(list(self.broker.queues()), ["q"])

    async def test_another_broker_for_another_test(self) -> None:
        """Which meets nothing of the first."""
        self.assertEqual(self.broker.queues(), {})


class Prepared(TestCase):
    """A test case of somebody else, with a setUp that takes its time."""

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]
        self.prepared = True
        return succeed(None)


class SettingsTests(BrokerMixin, Prepared):
    """With settings, and beside other base classes."""

    timeout = 30
    broker_settings = {"listen": True, "record_published": True}

    async def test_settings(self) -> None:
        """They reach the broker; the other setUp has been called."""
        connection = await connect(self.broker.url)
        channel = await connection.channel()
        await channel.confirm_select()
        await channel.basic_publish("", "q", b"x")
        self.assertEqual([message.body for message in self.broker.published], [b"x"])
        self.assertTrue(self.prepared)
        await connection.close()
