"""basic.return: which publish it belongs to, and who hears of it."""

from __future__ import annotations

from typing import Any

from pamqp import body, commands
from twisted.logger import globalLogPublisher

from tests.amqp.peer import Peer, PublishTestCase, ignore, outcomes
from txmsg.amqp.channel import Channel
from txmsg.amqp.delivery import ReturnedMessage
from txmsg.errors import PublishReturned
from txmsg.wire.properties import BasicProperties, UndecodableProperties

Basic = commands.Basic


class ReturnTests(PublishTestCase):
    def publish(self, peer: Peer, channel: Channel, octets: bytes = b"", **properties: Any) -> tuple[Any, Any]:
        """A mandatory publish, and its properties on the wire."""
        given = BasicProperties(**properties) if properties else None
        published = channel.basic_publish("x", "key", octets, given, mandatory=True)
        return published, self.sent(peer)[1]

    def test_unroutable(self) -> None:
        """N-07, R1, N-13: return, then ack: PublishReturned with what came back."""
        peer, channel = self.channel(confirm=True)
        publish, properties = self.publish(peer, channel, b"body", content_type="text/plain")
        peer.return_(b"body", properties)
        self.assertNoResult(publish)
        peer.send(Basic.Ack(1))
        error = self.failed(publish, PublishReturned)
        self.assertEqual((error.reply_code, error.reply_text), (312, "NO_ROUTE"))
        self.assertEqual((error.exchange, error.routing_key), ("x", "key"))
        self.assertEqual((error.returned.body, error.returned.properties.content_type), (b"body", "text/plain"))

    def test_a_hundred_in_turn(self) -> None:
        """R5, 24.4, N-09: routable and unroutable alternate with equal bodies; the broker acks with `multiple`."""
        peer, channel = self.channel(confirm=True)
        made = [self.publish(peer, channel, b"same") for _ in range(100)]
        for _, properties in made[1::2]:
            peer.return_(b"same", properties)
        peer.send(Basic.Ack(100, True))
        for n, outcome in enumerate(outcomes([publish for publish, _ in made])):
            self.assertEqual(isinstance(outcome, PublishReturned), n % 2 == 1, n)

    def test_message_ids(self) -> None:
        """R5, R7: the application's id stays; without one a unique one is given, for mandatory messages only."""
        peer, channel = self.channel(confirm=True)
        publish, properties = self.publish(peer, channel, message_id="mine")
        self.assertEqual(properties.message_id, "mine")
        generated = [self.publish(peer, channel)[1].message_id for _ in range(3)]
        self.assertEqual(len({*generated, None}), 4)
        peer.return_(b"", commands.Basic.Properties(message_id="mine"))
        peer.send(Basic.Ack(4, True))
        self.failed(publish, PublishReturned)
        ignore(channel.basic_publish("", "q", b""))
        self.assertIsNone(self.sent(peer)[1].message_id)
        peer.send(Basic.Ack(5))

    def test_return_callbacks(self) -> None:
        """K-13, N-12, W-35: called with one ReturnedMessage, before the publish fails; errors in them go no further."""
        peer, channel = self.channel(confirm=True)
        heard: list[Any] = []

        def fail(message: ReturnedMessage) -> None:
            raise ValueError("in the callback")

        channel.add_return_callback(fail)
        channel.add_return_callback(heard.append)
        publish, properties = self.publish(peer, channel)
        publish.addErrback(heard.append)
        peer.send(*peer.content(Basic.Return(313, "NO_CONSUMERS", "x", "key"), b"", properties), Basic.Ack(1))
        message, failure = heard
        self.assertIsInstance(message, ReturnedMessage)
        self.assertEqual((message.reply_code, message.body), (313, b""), "an empty body comes back too")
        self.assertIs(failure.value.returned, message)
        self.assertEqual(len(self.unhandled(ValueError)), 1)
        channel.remove_return_callback(heard.append)
        self.assertRaises(ValueError, channel.remove_return_callback, heard.append)

    def test_without_confirm_mode(self) -> None:
        """N-11: only the callbacks hear of it; the publish has succeeded."""
        peer, channel = self.channel()
        heard: list[ReturnedMessage] = []
        channel.add_return_callback(heard.append)
        publish, properties = self.publish(peer, channel, b"body")
        self.assertIsNone(self.result(publish))
        peer.return_(b"body", properties)
        self.assertEqual([message.body for message in heard], [b"body"])

    def test_a_return_nobody_asked_for(self) -> None:
        """N-20: is logged, with the broker's text made harmless, and not with the body (C3.3)."""
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        peer, channel = self.channel()
        peer.send(*peer.content(Basic.Return(312, "NO\nROUTE", "x", "k"), b"canary"))
        (event,) = [e for e in events if e["log_namespace"].startswith("txmsg.amqp.channel")]
        self.assertEqual((event["code"], event["text"]), (312, "NO\\nROUTE"))
        self.assertNotIn("canary", str(event))
        self.assertTrue(channel.is_open)

    def test_properties_that_cannot_be_read(self) -> None:
        """R20: the return is told of, with the raw octets; the channel goes on."""
        peer, channel = self.channel()
        heard: list[ReturnedMessage] = []
        channel.add_return_callback(heard.append)
        octets = peer.encode(Basic.Return(312, "NO_ROUTE", "x", "k"))
        head = b"\x00\x3c\x00\x00" + (4).to_bytes(8, "big") + b"\x80\x00\xff"
        octets += b"\x02\x00\x01" + len(head).to_bytes(4, "big") + head + b"\xce"
        peer.send_raw(octets + peer.encode(body.ContentBody(b"body")))
        (message,) = heard
        self.assertIsInstance(message.properties, UndecodableProperties)
        self.assertEqual(message.body, b"body")
        self.assertTrue(channel.is_open)
