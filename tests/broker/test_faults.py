"""txmsg.broker.faults: codes, scopes and texts as measured on RabbitMQ 3.10."""

from __future__ import annotations

import unittest
from decimal import Decimal

from txmsg.broker import faults
from txmsg.broker.faults import ABSENT, Fault, kind_of
from txmsg.wire.field_values import Float32, Int8, Int16, Int32, Int64, Int64L, Timestamp, UInt8, UInt16, UInt32


class ScopeTests(unittest.TestCase):
    """What is closed."""

    def test_by_code(self) -> None:
        """peers 18, R34: the codes of the specification's channel errors close the channel, others the connection."""
        closing = {code: Fault(code, "").closes_connection for code in (311, 313, 403, 404, 405, 406)}
        self.assertEqual(set(closing.values()), {False})
        closing = {
            code: Fault(code, "").closes_connection for code in (320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541)
        }
        self.assertEqual(set(closing.values()), {True})

    def test_overridden(self) -> None:
        """The default can be overruled both ways."""
        self.assertTrue(Fault(403, "x", closes_connection=True).closes_connection)
        self.assertFalse(faults.too_many_patterns("x", "/").closes_connection)


class TextTests(unittest.TestCase):
    """Reply texts."""

    def assert_fault(self, fault: Fault, code: int, text: str) -> None:
        self.assertEqual((fault.reply_code, fault.reply_text), (code, text))

    def test_names(self) -> None:
        """R34: what has to do with names."""
        self.assert_fault(faults.not_found("queue", "q", "/"), 404, "NOT_FOUND - no queue 'q' in vhost '/'")
        self.assert_fault(faults.not_found("exchange", "x", "v"), 404, "NOT_FOUND - no exchange 'x' in vhost 'v'")
        self.assert_fault(faults.no_previous_queue(), 404, "NOT_FOUND - no previously declared queue")
        self.assert_fault(
            faults.reserved_name("queue", "amq.q"),
            403,
            "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'",
        )
        self.assert_fault(
            faults.default_exchange(), 403, "ACCESS_REFUSED - operation not permitted on the default exchange"
        )
        self.assert_fault(
            faults.system_exchange("amq.direct", "/"),
            403,
            "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        )
        self.assert_fault(
            faults.internal_exchange("x", "/"),
            403,
            "ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'",
        )
        self.assert_fault(
            faults.locked("q", "/"),
            405,
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
            "declared on another connection or the exclusive property value does not match that of the original "
            "declaration.",
        )
        self.assert_fault(
            faults.in_use("exchange", "x", "/"), 406, "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use"
        )
        self.assert_fault(faults.not_empty("q", "/"), 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty")
        self.assert_fault(
            faults.exclusive_use("q", "/"), 403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"
        )

    def test_inequivalent(self) -> None:
        """F44: the three forms, and how values are printed."""
        head = "PRECONDITION_FAILED - inequivalent arg 'a' for queue 'q' in vhost '/': "
        for received, current, text in (
            (True, False, "received 'true' but current is 'false'"),
            ("fanout", "direct", "received 'fanout' but current is 'direct'"),
            (100.0, 100, "received '100.0' but current is '100'"),
            (Int64(5), "x", "received '5' but current is 'x'"),
            (Float32(1.5), 1, "received '1.5' but current is '1'"),
            ("100", ABSENT, "received the value '100' of type 'longstr' but current is none"),
            (ABSENT, 7, "received none but current is the value '7' of type 'signedint'"),
            (None, 1, "received none but current is '1'"),
            (None, ABSENT, "received the value 'undefined' of type 'void' but current is none"),
        ):
            with self.subTest(text=text):
                self.assert_fault(faults.inequivalent("queue", "q", "/", "a", received, current), 406, head + text)

    def test_exchange_types(self) -> None:
        """F44: an unknown type closes the connection."""
        self.assert_fault(faults.unknown_exchange_type("bogus"), 503, "COMMAND_INVALID - unknown exchange type 'bogus'")
        self.assert_fault(faults.unknown_exchange_type(""), 503, "COMMAND_INVALID - invalid exchange type ''")
        self.assertTrue(faults.unknown_exchange_type("bogus").closes_connection)

    def test_arguments(self) -> None:
        """F44: arguments of queues and exchanges."""
        self.assert_fault(
            faults.invalid_argument("queue", "q", "/", "x-expires", "{value_zero,0}"),
            406,
            "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}",
        )
        self.assert_fault(
            faults.invalid_argument_type("exchange", "x", "/", "alternate-exchange", 1),
            406,
            "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'",
        )
        self.assert_fault(
            faults.invalid_for_queue_type("q", "/", "x-max-age", "classic"),
            406,
            "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type "
            "rabbit_classic_queue",
        )
        self.assert_fault(
            faults.invalid_property("q", "/", "non-durable"),
            406,
            "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'q' in vhost '/'",
        )
        self.assert_fault(
            faults.server_named_queue_type("quorum"),
            406,
            "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue",
        )

    def test_basic(self) -> None:
        """F43, MB: publishing and consuming."""
        for fault, code, text in (
            (
                faults.message_too_large(100001, 100000),
                406,
                "PRECONDITION_FAILED - message size 100001 is larger than configured max size 100000",
            ),
            (
                faults.invalid_message("{delivery_mode_unknown,0}"),
                406,
                "PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,0}",
            ),
            (
                faults.invalid_expiration("abc", "no_integer"),
                406,
                "PRECONDITION_FAILED - invalid expiration 'abc': no_integer",
            ),
            (
                faults.user_id_mismatch("bob", "guest"),
                406,
                "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'",
            ),
            (faults.unknown_delivery_tag(7), 406, "PRECONDITION_FAILED - unknown delivery tag 7"),
            (faults.duplicate_consumer_tag("t"), 530, "NOT_ALLOWED - attempt to reuse consumer tag 't'"),
            (
                faults.reply_consumer_acknowledges(),
                406,
                "PRECONDITION_FAILED - reply consumer cannot acknowledge",
            ),
            (faults.reply_consumer_set(), 406, "PRECONDITION_FAILED - reply consumer already set"),
            (faults.fast_reply_missing(), 406, "PRECONDITION_FAILED - fast reply consumer does not exist"),
            (faults.not_implemented("immediate=true"), 540, "NOT_IMPLEMENTED - immediate=true"),
            (
                faults.cannot_switch_mode("confirm", "tx"),
                406,
                "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
            ),
            (faults.not_transactional(), 406, "PRECONDITION_FAILED - channel is not transactional"),
        ):
            with self.subTest(text=text):
                self.assert_fault(fault, code, text)

    def test_permissions(self) -> None:
        """C7.5: who may not; the name of a virtual host that is missing stands without quotes."""
        self.assert_fault(
            faults.access_refused("bob", "exchange", "amq.default", "/"),
            403,
            "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'bob'",
        )
        self.assert_fault(faults.vhost_missing("v"), 530, "NOT_ALLOWED - vhost v not found")
        self.assert_fault(
            faults.vhost_refused("v", "bob"), 530, "NOT_ALLOWED - access to vhost 'v' refused for user 'bob'"
        )

    def test_quorum(self) -> None:
        """R34: what RabbitMQ does not do with quorum queues."""
        self.assert_fault(
            faults.quorum_delete_unsupported("q", "/", "if-unused"),
            540,
            "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with if-unused flag set "
            "are not supported by quorum queues",
        )
        self.assert_fault(
            faults.global_qos_unsupported("q", "/"),
            540,
            "NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos",
        )

    def test_ours(self) -> None:
        """C7.3: limits RabbitMQ does not have name the limit."""
        self.assertIn("(7)", faults.limit_reached("queue", "q", "/", 7).reply_text)
        self.assertIn("7 bytes", faults.topology_full("queue", "q", "/", 7).reply_text)
        self.assertIn("(7)", faults.consumer_limit(7).reply_text)
        self.assertIn("7 bytes", faults.queue_full("q", "/", 7).reply_text)

    def test_strict_4(self) -> None:
        """What RabbitMQ 4 answers is longer than a reply text may be."""
        fault = faults.transient_queue_refused()
        self.assertEqual(fault.reply_code, 541)
        self.assertTrue(
            fault.reply_text.startswith("INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.")
        )
        self.assertLessEqual(len(fault.reply_text), 255)


class LengthTests(unittest.TestCase):
    """A reply text is a short string."""

    def test_cut(self) -> None:
        """R18: 255 octets at most, with three dots at the end."""
        self.assertEqual(Fault(404, "a" * 255).reply_text, "a" * 255)
        self.assertEqual(Fault(404, "a" * 256).reply_text, "a" * 252 + "...")

    def test_cut_between_characters(self) -> None:
        """R18: never within a character, so that what is sent is UTF-8."""
        text = Fault(404, "a" + "é" * 200).reply_text
        self.assertEqual(text, "a" + "é" * 125 + "...")
        self.assertLessEqual(len(text.encode()), 255)

    def test_bytes_that_are_no_text(self) -> None:
        """0.4: names that were no UTF-8 pass through a short text and are dropped at a cut, without an error."""
        self.assertEqual(Fault(404, "\udcff").reply_text, "\udcff")
        self.assertTrue(Fault(404, "\udcff" * 300).reply_text.endswith("..."))

    def test_attributes(self) -> None:
        """It is an exception with what it is about."""
        self.assertEqual(Fault(404, "NOT_FOUND - x").args, (404, "NOT_FOUND - x"))

    def test_shown_escaped(self) -> None:
        """A name with a line feed forges no line of a log."""
        self.assertNotIn("\n", str(Fault(404, "no queue 'a\nb'")))


class KindTests(unittest.TestCase):
    """What RabbitMQ calls the kinds of values."""

    def test_kinds(self) -> None:
        """R34: every kind of field value."""
        expected = {
            "bool": True,
            "signedint": 5,
            "long": 2**31,
            "double": 1.5,
            "longstr": "",
            "binary": b"",
            "array": [],
            "table": {},
            "void": None,
            "decimal": Decimal(1),
            "byte": Int8(1),
            "unsignedbyte": UInt8(1),
            "short": Int16(1),
            "unsignedshort": UInt16(1),
            "unsignedint": UInt32(1),
            "timestamp": Timestamp(1),
            "float": Float32(1),
        }
        self.assertEqual({kind_of(value): value for value in expected.values()}, expected)
        self.assertEqual([kind_of(value) for value in (Int32(1), -(2**31))], ["signedint"] * 2)
        self.assertEqual([kind_of(value) for value in (Int64(1), Int64L(1), -(2**31) - 1)], ["long"] * 3)
