"""Message: decoding, trust, settling; over a delivery that the test makes."""

from __future__ import annotations

import logging
import unittest
import zlib
from typing import Any

from twisted.logger import LogLevel, capturedLogs

from txmsg import abc
from txmsg.errors import (
    AlreadySettled,
    ConfigurationError,
    ContentDisallowed,
    DecodeError,
    MessageStateError,
    SerializerNotInstalled,
    StaleDelivery,
)
from txmsg.messaging import DecompressionLimits, Message, Trust
from txmsg.messaging.consuming.message import received

JSON = {"content_type": "application/json", "content_encoding": "utf-8"}


class ScriptedDelivery:
    """A delivery that notes what is done to it, and raises what the test wants."""

    def __init__(self, body: bytes = b"{}", properties: dict[str, Any] | None = None) -> None:
        self.body = body
        self.properties = dict(JSON) if properties is None else properties
        self.exchange, self.routing_key = "x", "k"
        self.redelivered = False
        self.consumer_tag, self.delivery_tag = "c1", 7
        self.done: list[Any] = []
        self.error: Exception | None = None
        self.is_settled = False
        self.properties_error: BaseException | None = None

    def _do(self, *what: Any) -> None:
        if self.error is not None:
            raise self.error
        self.done.append(what)
        self.is_settled = True

    def ack(self, multiple: bool = False) -> None:
        self._do("ack", multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        self._do("nack", requeue, multiple)

    def reject(self, requeue: bool = False) -> None:
        self._do("reject", requeue)


def message(body: bytes = b"{}", properties: dict[str, Any] | None = None, **settings: Any) -> Message:
    return received(ScriptedDelivery(body, properties), None, **settings)


def sent(one: Message) -> Any:
    """Its delivery."""
    return one.delivery


def compressed(body: bytes, **properties: Any) -> dict[str, Any]:
    return {**JSON, **properties, "headers": {"compression": "application/x-gzip"}}


class PayloadTests(unittest.TestCase):
    """kombu I2, I3, I9, I11."""

    def test_decoded_once(self) -> None:
        """kombu I3: also a value that is false."""
        for text in (b"[]", b"{}", b"0", b'""', b"null", b"false", b'{"a": 1}'):
            with self.subTest(text=text):
                one = message(text)
                value = one.payload
                sent(one).body = b"not JSON"
                self.assertIs(one.payload, value)
                self.assertIs(one.decode(), value)

    def test_without_a_type(self) -> None:
        """kombu I11, H27: octets as they are, an empty body too."""
        self.assertEqual(message(b"\x00\xff", {}).payload, b"\x00\xff")
        self.assertEqual(message(b"", {}).payload, b"")
        self.assertEqual(message("ä".encode(), {"content_type": "text/plain"}).payload, "ä")

    def test_an_error_stays(self) -> None:
        """kombu I9: the same one each time, and in `errors`."""
        one = message(b"not JSON")
        with self.assertRaises(DecodeError) as first:
            _ = one.payload
        with self.assertRaises(DecodeError) as second:
            one.decode()
        self.assertIs(first.exception, second.exception)
        self.assertEqual(one.errors, [first.exception])
        self.assertEqual(one.body, b"not JSON")

    def test_an_empty_body_that_claims_a_type(self) -> None:
        """kombu H27: it is an error of decoding like any other."""
        with self.assertRaises(DecodeError):
            _ = message(b"").payload

    def test_compressed(self) -> None:
        """kombu I2: `body` is decompressed, `raw_body` is what came."""
        raw = zlib.compress(b'{"a": 1}')
        one = message(raw, compressed(raw))
        self.assertTrue(one.is_compressed)
        self.assertEqual((one.body, one.raw_body), (b'{"a": 1}', raw))
        self.assertEqual(one.payload, {"a": 1})
        self.assertEqual(one.errors, [])

    def test_cannot_be_decompressed(self) -> None:
        """kombu I9: the payload raises, the body is as it came."""
        one = message(b"broken", compressed(b""))
        self.assertRaises(DecodeError, one.open)
        self.assertRaises(DecodeError, one.decode)
        self.assertEqual(one.body, b"broken")
        self.assertEqual(len(one.errors), 1)
        bad = message(b"x", {**JSON, "headers": {"compression": 7}})
        self.assertRaises(DecodeError, bad.open)

    def test_bomb(self) -> None:
        """C4.1: no more is made than the limits allow."""
        raw = zlib.compress(bytes(50_000))
        trust = Trust.of(limits=DecompressionLimits(max_size=10_000))
        self.assertRaises(DecodeError, message(raw, compressed(raw), trust=trust).open)

    def test_undecodable_properties(self) -> None:
        """A property list that nobody could read does not turn the body into raw octets."""
        one = message(b"x", {})
        sent(one).properties_error = ValueError("bad table")
        self.assertRaises(DecodeError, one.decode)
        self.assertRaises(DecodeError, one.open)
        self.assertEqual(len(one.errors), 1)


class TrustTests(unittest.TestCase):
    """kombu H10, I10: the decision is on the content type, before the body is looked at."""

    def test_accept(self) -> None:
        """What is not listed is refused; raw octets and text always pass."""
        nothing = Trust.of([])
        self.assertRaises(ContentDisallowed, message(b"{}", trust=nothing).decode)
        self.assertEqual(message(b"x", {}, trust=nothing).payload, b"x")
        self.assertEqual(message(b"x", {"content_type": "text/plain"}, trust=Trust.of("json")).payload, "x")
        self.assertEqual(message(b"{}", trust=Trust.of("application/json")).payload, {})
        yaml = {"content_type": "application/x-yaml"}
        self.assertRaises(ContentDisallowed, message(b"a: 1", yaml).decode)
        pickle = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
        self.assertRaises(ContentDisallowed, message(b"\x80\x04.", pickle).decode)

    def test_a_bomb_of_a_type_that_is_not_accepted(self) -> None:
        """C5.1: costs nothing, for it is not opened."""
        one = message(b"broken", compressed(b""), trust=Trust.of([]))
        self.assertRaises(ContentDisallowed, one.open)
        self.assertRaises(ContentDisallowed, one.decode)

    def test_an_unknown_name(self) -> None:
        """kombu H10: raises when it is given."""
        self.assertRaises(SerializerNotInstalled, Trust.of, ["jsom"])

    def test_changed_for_one_message(self) -> None:
        """kombu I10: `accept` can be set, and others keep theirs."""
        trust = Trust.of([])
        one, two = message(trust=trust), message(trust=trust)
        self.assertRaises(ContentDisallowed, one.decode)
        one.accept = "json"
        self.assertEqual(one.payload, {})
        self.assertRaises(ContentDisallowed, two.decode)
        self.assertEqual(two.accept, frozenset())


class SettlingTests(unittest.TestCase):
    """kombu I4 to I8, I12, I13."""

    def test_once(self) -> None:
        """kombu I4 to I7: ack, reject, requeue; then MessageStateError, and nothing is sent."""
        for how, expected, state in (
            ("ack", ("ack", False), "acked"),
            ("reject", ("reject", False), "rejected"),
            ("requeue", ("reject", True), "requeued"),
        ):
            one = message()
            self.assertFalse(one.acknowledged)
            self.assertEqual(one.state, "received")
            getattr(one, how)()
            self.assertEqual(sent(one).done, [expected])
            self.assertEqual((one.state, one.acknowledged), (state, True))
            for again in ("ack", "reject", "requeue"):
                with self.subTest(how=how, again=again):
                    self.assertRaises(MessageStateError, getattr(one, again))
            self.assertEqual(len(sent(one).done), 1)
        self.assertTrue(issubclass(Message.MessageStateError, AlreadySettled))

    def test_multiple_and_requeue(self) -> None:
        """The flags are handed on."""
        one, two = message(), message()
        one.ack(multiple=True)
        two.reject(requeue=True)
        self.assertEqual(sent(one).done, [("ack", True)])
        self.assertEqual((sent(two).done, two.state), ([("reject", True)], "requeued"))

    def test_the_state_changes_only_if_it_was_sent(self) -> None:
        """A lost channel is StaleDelivery, and the message is not acknowledged; another's `multiple` did settle it."""
        one = message()
        sent(one).error = StaleDelivery("gone")
        sent(one).is_settled = True
        for how in ("ack", "reject", "requeue"):
            self.assertRaises(StaleDelivery, getattr(one, how))
        self.assertEqual((one.state, one.acknowledged), ("received", False))
        two = message()
        sent(two).error = AlreadySettled("a later one was acked with multiple")
        sent(two).is_settled = True
        self.assertRaises(MessageStateError, two.ack)
        self.assertRaises(MessageStateError, two.reject)
        self.assertTrue(two.acknowledged)

    def test_no_ack(self) -> None:
        """kombu D35, I12: ack is a silent no-op; what cannot be done any more says so."""
        one = message(no_ack=True)
        one.ack()
        one.ack()
        self.assertTrue(one.acknowledged)
        self.assertRaises(MessageStateError, one.reject)
        self.assertRaises(MessageStateError, one.requeue)
        self.assertEqual(sent(one).done, [])

    def test_log_error(self) -> None:
        """kombu I8: the listed errors are logged as critical, the others come out."""
        one = message()
        sent(one).error = StaleDelivery("gone")
        with capturedLogs() as events:
            one.ack_log_error()
            one.reject_log_error(None, (StaleDelivery,))
        self.assertEqual([event["log_level"] for event in events], [LogLevel.critical] * 2)
        with self.assertLogs("mine", logging.CRITICAL) as logged:
            one.ack_log_error(logging.getLogger("mine"), StaleDelivery, multiple=True)
        self.assertIn("could not ack delivery 7", logged.output[0])
        sent(one).error = RuntimeError("another")
        self.assertRaises(RuntimeError, one.ack_log_error, None, (StaleDelivery,))
        sent(one).error = None
        one.reject_log_error(None, (), requeue=True)
        self.assertEqual(one.state, "requeued")


class ShapeTests(unittest.TestCase):
    """kombu I1, I10, I14, I17."""

    def test_what_came(self) -> None:
        """kombu D33, I10: properties, headers, and where it came from."""
        one = message(b"{}", {**JSON, "headers": {"h": 1}, "correlation_id": "c"})
        self.assertEqual((one.content_type, one.content_encoding), ("application/json", "utf-8"))
        self.assertEqual((one.headers, one.properties["correlation_id"]), ({"h": 1}, "c"))
        self.assertEqual(
            one.delivery_info,
            {"exchange": "x", "routing_key": "k", "redelivered": False, "consumer_tag": "c1", "delivery_tag": 7},
        )
        self.assertEqual((one.delivery_tag, one.redelivered, one.channel), (7, False, None))
        one.delivery_info["mine"] = 1
        self.assertEqual(one.delivery_info["mine"], 1)
        self.assertNotIn("mine", message().delivery_info)

    def test_headers_that_are_not_there(self) -> None:
        """{}, of the message's own."""
        one, two = message(), message()
        one.headers["a"] = 1
        self.assertEqual((one.headers, one.properties["headers"]), ({"a": 1}, {"a": 1}))
        self.assertEqual((two.headers, one.payload), ({}, {}))
        self.assertNotIn("headers", one.delivery.properties)

    def test_by_hand(self) -> None:
        """kombu I1, I13: for tests and transports; settling without a channel is refused; no default is shared."""
        one = Message(
            '{"a": 1}',
            3,
            "application/json",
            "utf-8",
            {"exchange": "x", "routing_key": "k"},
            {"correlation_id": "c"},
            {"h": 1},
        )
        self.assertEqual((one.payload, one.headers, one.delivery_tag), ({"a": 1}, {"h": 1}, 3))
        self.assertEqual((one.delivery_info["routing_key"], one.redelivered), ("k", False))
        self.assertIsInstance(one.delivery, abc.MessagingDelivery)
        for how in (one.ack, one.reject, one.requeue, one.delivery.nack):
            self.assertRaises(MessageStateError, how)
        self.assertEqual((one.state, one.acknowledged), ("received", False))
        empty = Message()
        self.assertEqual((empty.payload, empty.body, empty.delivery_tag), (b"", b"", 0))
        empty.delivery_info["exchange"] = "changed"
        self.assertEqual(Message().delivery_info["exchange"], "")
        self.assertRaises(ConfigurationError, Message, b"", properties={"colour": "red"})
        self.assertRaises(ContentDisallowed, Message("{}", content_type="application/json", accept=[]).decode)

    def test_by_hand_on_a_channel(self) -> None:
        """kombu I13: it is settled by its tag."""

        class FakeChannel:
            transport_channel: Any = None

        channel: Any = FakeChannel()
        one = Message(b"", 5, channel=channel)
        self.assertRaises(StaleDelivery, one.ack)
        channel.transport_channel = sent = ScriptedChannel()
        one.ack()
        Message(b"", 6, channel=channel).requeue()
        self.assertEqual(sent.done, [("ack", 5, False), ("reject", 6, True)])
        self.assertRaises(MessageStateError, one.ack)
        channel.transport_channel = object()
        self.assertRaises(MessageStateError, Message(b"", 7, channel=channel).ack)

    def test_repr(self) -> None:
        """kombu I14: state, tag, size and where it came from; not the body."""
        one = message(b'"secret"', {**JSON, "correlation_id": "c\n"})
        one.ack()
        self.assertEqual(repr(one), "<Message acked 7, 8 bytes correlation_id='c\\\\n' exchange='x' routing_key='k'>")
        self.assertNotIn("secret", repr(one))


class ScriptedChannel:
    """A channel of a transport that notes what is settled."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self.done.append(("ack", delivery_tag, multiple))

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:
        self.done.append(("reject", delivery_tag, requeue))
