"""The delivery ack timeout (F42, peers 33, 51): as RabbitMQ's, on that channel only."""

from __future__ import annotations

from tests.broker.channel_client import ClientTestCase, deliveries
from txmsg.broker.limits import BrokerLimits
from txmsg.wire.methods import basic, channel

TEXT = (
    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. "
    "This timeout value can be configured, see consumers doc guide to learn more"
)
CLOSE = channel.Close(406, TEXT, 0, 0)


class Patience(ClientTestCase):
    """Half an hour by default."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")
        self.client.publish("", "q", b"a", b"b")

    def wait(self, seconds: float) -> None:
        """Let time pass as a reactor would, timer by timer."""
        for _ in range(int(seconds // 20)):
            self.clock.advance(20)

    def test_a_delivery(self) -> None:
        self.client.consume("q")
        self.assertEqual(len(self.client.events()), 2)
        self.client.send(1, basic.Ack(2))
        self.wait(1800)
        self.assertEqual(self.client.events(), [])
        self.wait(120)
        self.assertEqual(self.client.methods(), [CLOSE])
        (entry,) = self.vhost.queues["q"].ready_entries()
        self.assertEqual((entry.message.body, entry.redelivered), (b"a", True))

    def test_basic_get(self) -> None:
        self.client.get("q")
        self.wait(1920)
        self.assertEqual(self.client.methods(), [CLOSE])

    def test_only_that_channel(self) -> None:
        client = self.other(channels=2)
        client.get("q", number=2)
        self.wait(1920)
        (event,) = client.events()
        self.assertEqual((event.channel, event.method.reply_code), (2, 406))
        self.assertEqual(client.call(basic.Qos(), 1), basic.QosOk())

    def test_those_who_settle_are_left_alone(self) -> None:
        self.client.call(basic.Qos(prefetch_count=1))
        self.client.consume("q")
        for tag in range(1, 10):
            self.assertEqual(len(deliveries(self.client.events())), 1)
            self.wait(1700)
            self.client.publish("", "q", b"more")
            self.client.send(1, basic.Ack(tag))
        self.assertEqual(len(deliveries(self.client.events())), 1)

    def test_each_delivery_has_its_own_time(self) -> None:
        self.client.get("q")
        self.wait(1000)
        self.client.get("q")
        self.client.send(1, basic.Ack(1))
        self.wait(1780)
        self.assertEqual(self.client.events(), [])
        self.wait(140)
        self.assertEqual(self.client.methods(), [CLOSE])

    def test_a_consumer_that_had_nothing_to_do(self) -> None:
        self.client.declare("idle")
        self.client.consume("idle")
        self.wait(200)
        self.client.publish("", "idle", b"a")
        self.assertEqual(len(self.client.events()), 1)
        self.wait(1920)
        self.assertEqual(self.client.methods(), [CLOSE])

    def test_no_timer_without_deliveries(self) -> None:
        self.client.get("q", no_ack=True)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.client.get("q")
        self.client.send(1, basic.Ack(2))
        self.wait(120)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again_after_a_rest(self) -> None:
        self.client.get("q")
        self.client.send(1, basic.Ack(1))
        self.wait(4000)
        self.client.get("q")
        self.wait(1780)
        self.assertEqual(self.client.events(), [])
        self.wait(140)
        self.assertEqual(self.client.methods(), [CLOSE])

    def test_no_timer_after_the_end(self) -> None:
        self.client.consume("q")
        self.client.events()
        self.client.call(channel.Close(200, "bye"))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WithoutLimit(ClientTestCase):
    """The limit is a setting."""

    limits = BrokerLimits(acknowledgement_timeout=0)

    def test_none(self) -> None:
        self.client.declare("q")
        self.client.consume("q")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Short(ClientTestCase):
    """A short limit is watched more often."""

    limits = BrokerLimits(acknowledgement_timeout=2)

    def test_within_twice_its_time(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"a")
        self.client.get("q")
        for _ in range(4):
            self.clock.advance(1)
        (event,) = self.client.events()
        self.assertIn("Timeout value used: 2000 ms", event.method.reply_text)
