"""A queue that holds as many bytes as one may (C7.3, `queue_bytes`): no publisher loses a message without a word."""

from __future__ import annotations

from tests.broker.channel_client import ClientTestCase, acks
from txmsg.broker.limits import BrokerLimits
from txmsg.wire.events import MethodReceived
from txmsg.wire.methods import basic, tx
from txmsg.wire.properties import BasicProperties

TEXT = "CONTENT_TOO_LARGE - queue 'full' in vhost '/' may hold 10000 bytes and has no room for it"


class FullQueues(ClientTestCase):
    limits = BrokerLimits(queue_bytes=10_000)

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("full")
        self.client.declare("other")
        self.vhost.bind_queue("full", "amq.fanout")
        self.vhost.bind_queue("other", "amq.fanout")
        self.client.publish("", "full", bytes(9000))

    def test_without_confirms(self) -> None:
        """The channel is closed with 311."""
        self.client.publish("", "full", bytes(1000))
        self.assert_channel_closed(311, TEXT, basic.Publish)
        self.assertEqual(self.depth("full"), 1)

    def test_one_of_several(self) -> None:
        """The others got it; headers and copies do not hide who is full."""
        for key, headers in (("", None), ("", {"a": 1}), ("other", {"CC": ["full"]}), ("other", {"BCC": ["full"]})):
            with self.subTest(headers=headers):
                client = self.other()
                before = self.depth("other")
                exchange = "" if key else "amq.fanout"
                client.publish(exchange, key, bytes(1000), properties=BasicProperties(headers=headers))
                self.assert_channel_closed(311, TEXT, basic.Publish, client)
                self.assertEqual(self.depth("other"), before + 1)

    def test_with_confirms(self) -> None:
        """A nack, and the channel stays."""
        self.client.select_confirms()
        self.client.publish("", "full", bytes(1000))
        self.clock.advance(0)
        self.assertEqual(acks(self.client.events()), [("nack", 1, False)])

    def test_in_a_transaction(self) -> None:
        """tx.commit fails."""
        self.client.select_tx()
        self.client.publish("", "full", bytes(1000))
        self.client.send(1, tx.Commit())
        self.assert_channel_closed(311, TEXT, tx.Commit)

    def test_room_again(self) -> None:
        client = self.other()
        client.get("full", no_ack=True)
        self.client.publish("", "full", bytes(1000))
        self.assertEqual(self.client.events(), [])
        self.assertEqual(self.depth("full"), 1)

    def test_length_limits_are_silent(self) -> None:
        """As on RabbitMQ: reject-publish tells publishers with confirms only."""
        self.client.declare("short", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        self.client.publish("", "short", b"1")
        self.client.select_tx(self.open_channel())
        self.client.publish("", "short", b"1", number=2)
        self.assertEqual(self.client.call(tx.Commit(), 2), tx.CommitOk())

    def open_channel(self) -> int:
        """A second channel."""
        from txmsg.wire.methods import channel

        self.client.send(2, channel.Open())
        (opened,) = self.client.events()
        assert isinstance(opened, MethodReceived)
        return 2


class FullBroker(ClientTestCase):
    """Beyond the hard limit on all bytes, which transactions that are committed at once can reach (C7.3)."""

    limits = BrokerLimits(broker_bytes=100_000)

    def test_in_a_transaction(self) -> None:
        """What was not taken is not answered with tx.commit-ok."""
        self.client.declare("q")
        self.client.select_tx()
        self.client.publish("", "q", b"x")
        self.broker.usage.add(200_000)
        self.client.send(1, tx.Commit())
        text = "CONTENT_TOO_LARGE - the broker holds more than 125000 bytes and has no room for it"
        self.assert_channel_closed(311, text, tx.Commit)
        self.assertEqual(self.depth("q"), 0)
