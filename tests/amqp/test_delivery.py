"""Delivery and ReturnedMessage: values, settling through the channel, and what their repr shows."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp.delivery import Delivery, ReturnedMessage
from txmsg.errors import RemoteProtocolError
from txmsg.wire.properties import BasicProperties, UndecodableProperties


class FakeChannel:
    """Notes the settlements."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.open = {7}

    def basic_ack(self, *args: Any) -> None:
        self.calls.append(("ack", *args))

    def basic_nack(self, *args: Any) -> None:
        self.calls.append(("nack", *args))

    def basic_reject(self, *args: Any) -> None:
        self.calls.append(("reject", *args))

    def is_open_delivery(self, tag: int) -> bool:
        return tag in self.open


class DeliveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.channel: Any = FakeChannel()

    def delivery(self, **overrides: Any) -> Delivery:
        fields: dict[str, Any] = {
            "consumer_tag": "c",
            "delivery_tag": 7,
            "redelivered": False,
            "exchange": "x",
            "routing_key": "k",
            "properties": BasicProperties(),
            "body": b"body",
        }
        return Delivery(self.channel, **(fields | overrides))

    def test_fields(self) -> None:
        """K-14: what the broker said, under the names of the protocol; no message_count from a consumer."""
        properties = BasicProperties(message_id="m")
        delivery = self.delivery(properties=properties, redelivered=True)
        self.assertEqual(
            (delivery.consumer_tag, delivery.delivery_tag, delivery.redelivered, delivery.exchange),
            ("c", 7, True, "x"),
        )
        self.assertEqual((delivery.routing_key, delivery.body, delivery.no_ack), ("k", b"body", False))
        self.assertIs(delivery.properties, properties)
        self.assertIsNone(delivery.message_count)
        self.assertEqual(self.delivery(message_count=3).message_count, 3)

    def test_settling(self) -> None:
        """K-15, K-16, K-17: each settles its own tag; nack requeues and reject does not unless told."""
        delivery = self.delivery()
        delivery.ack()
        delivery.ack(multiple=True)
        delivery.nack()
        delivery.nack(requeue=False, multiple=True)
        delivery.reject()
        delivery.reject(requeue=True)
        self.assertEqual(
            self.channel.calls,
            [
                ("ack", 7, False),
                ("ack", 7, True),
                ("nack", 7, False, True),
                ("nack", 7, True, False),
                ("reject", 7, False),
                ("reject", 7, True),
            ],
        )

    def test_is_settled(self) -> None:
        """R23: open until the channel says otherwise; with no_ack from the beginning."""
        delivery = self.delivery()
        self.assertFalse(delivery.is_settled)
        self.assertTrue(self.delivery(no_ack=True).is_settled)
        self.channel.open.clear()
        self.assertTrue(delivery.is_settled)

    def test_repr(self) -> None:
        """C3.3, C3.4: state and sizes; no body, and no line feed of a peer's name."""
        text = repr(self.delivery(body=b"canary", exchange="a\nb", routing_key="k" * 500, redelivered=True))
        self.assertIn("<Delivery 7 ", text)
        self.assertIn("6 bytes redelivered", text)
        self.assertNotIn("canary", text)
        self.assertNotIn("\n", text)
        self.assertLess(len(text), 250)
        self.assertIn("settled", repr(self.delivery(no_ack=True)))

    def test_a_typo_is_an_error(self) -> None:
        """B-18: slots refuse attributes that do not exist."""
        with self.assertRaises(AttributeError):
            self.delivery().acked = True  # type: ignore[attr-defined]


class ReturnedMessageTests(SynchronousTestCase):
    def test_fields_and_repr(self) -> None:
        """N-13, C3.3: code, text, place, properties and body; the repr shows no body and no control characters."""
        properties = UndecodableProperties(b"\xff\xff", RemoteProtocolError("bad flags"))
        message = ReturnedMessage(312, "NO_ROUTE\x1b[31m", "x", "k", properties, b"canary")
        self.assertEqual((message.reply_code, message.exchange, message.routing_key), (312, "x", "k"))
        self.assertIs(message.properties, properties)
        self.assertEqual(message.body, b"canary")
        self.assertIn("312", repr(message))
        self.assertNotIn("\x1b", repr(message))
        self.assertNotIn("canary", repr(message))

    def test_it_is_a_value(self) -> None:
        """Equal by its fields, and frozen."""
        one, other = (ReturnedMessage(312, "NO_ROUTE", "x", "k", BasicProperties(), b"") for _ in range(2))
        self.assertEqual(one, other)
        with self.assertRaises(AttributeError):
            one.body = b"changed"  # type: ignore[misc]
