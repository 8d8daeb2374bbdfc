"""QueueArguments and the comparison of declarations; each text as RabbitMQ 3.10 gives it."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from twisted.internet.task import Clock

from tests.broker.model_fakes import QueueTestCase
from tests.cases import RabbitMQTestCase
from txmsg import amqp
from txmsg.amqp.client import AMQPProtocol
from txmsg.broker.faults import Fault
from txmsg.broker.queues.arguments import (
    CLASSIC,
    MAX_TTL,
    QUORUM,
    QueueArguments,
    check_exchange_equivalence,
)
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import ChannelClosed
from txmsg.wire.field_values import Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32

Arguments = Mapping[str, Any]

_INTEGERS = ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-queue-version")
_QUORUM = {"x-queue-type": "quorum"}

#: Refused: arguments, properties that differ from a durable queue's, what the text says after "invalid arg '...' for
#: queue '...' in vhost '/'"; or, where it begins otherwise, all of it.
REFUSED: tuple[tuple[Arguments, Arguments, str], ...] = (
    *(({name: "a"}, {}, f'{name}|: "expected integer, got longstr"') for name in _INTEGERS),
    ({"x-message-ttl": True}, {}, 'x-message-ttl|: "expected integer, got bool"'),
    ({"x-message-ttl": 1.0}, {}, 'x-message-ttl|: "expected integer, got double"'),
    ({"x-message-ttl": None}, {}, 'x-message-ttl|: "expected integer, got void"'),
    ({"x-message-ttl": {}}, {}, 'x-message-ttl|: "expected integer, got table"'),
    ({"x-message-ttl": Timestamp(5)}, {}, 'x-message-ttl|: "expected integer, got timestamp"'),
    ({"x-message-ttl": -1}, {}, "x-message-ttl|: {value_negative,-1}"),
    ({"x-message-ttl": MAX_TTL + 1}, {}, f"x-message-ttl|: {{value_too_large,{MAX_TTL + 1}}}"),
    ({"x-expires": -1}, {}, "x-expires|: {value_negative,-1}"),
    ({"x-expires": 0}, {}, "x-expires|: {value_zero,0}"),
    ({"x-expires": MAX_TTL + 1}, {}, f"x-expires|: {{value_too_large,{MAX_TTL + 1}}}"),
    ({"x-max-length": -1}, {}, "x-max-length|: {value_negative,-1}"),
    ({"x-max-length-bytes": -1}, {}, "x-max-length-bytes|: {value_negative,-1}"),
    ({"x-max-priority": -1}, {}, "x-max-priority|: {value_negative,-1}"),
    ({"x-max-priority": 256}, {}, "x-max-priority|: {max_value_exceeded,256}"),
    ({"x-overflow": "abc"}, {}, "x-overflow|: invalid_overflow"),
    ({"x-overflow": 1}, {}, "x-overflow|: {unacceptable_type,signedint}"),
    ({"x-dead-letter-exchange": 1}, {}, "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue"),
    (
        {"x-dead-letter-exchange": 1, "x-queue-type": "bad"},
        {},
        "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue",
    ),
    ({"x-dead-letter-routing-key": "k"}, {}, "x-dead-letter-routing-key|: routing_key_but_no_dlx_defined"),
    ({"x-dead-letter-routing-key": 1}, {}, "x-dead-letter-routing-key|: {unacceptable_type,signedint}"),
    ({"x-queue-mode": "bad"}, {}, "x-queue-mode|: \"unsupported queue mode 'bad'\""),
    ({"x-queue-mode": 1}, {}, "x-queue-mode|: {unacceptable_type,signedint}"),
    ({"x-queue-version": 3}, {}, "x-queue-version|: \"unsupported queue version '3'\""),
    ({"x-queue-type": "bad"}, {}, "x-queue-type|: \"unsupported queue type 'bad'\""),
    ({"x-queue-type": ""}, {}, "x-queue-type|: \"unsupported queue type ''\""),
    ({"x-queue-type": 1}, {}, "x-queue-type|: {unacceptable_type,signedint}"),
    ({"x-queue-type": "bad", "x-message-ttl": -1}, {}, "x-queue-type|: \"unsupported queue type 'bad'\""),
    ({"x-single-active-consumer": "true"}, {}, "x-single-active-consumer|: {unacceptable_type,longstr}"),
    ({"x-message-ttl": -1, "x-expires": -1}, {}, "x-expires|: {value_negative,-1}"),
    *(
        ({name: 1}, {}, f"{name}| of queue type rabbit_classic_queue")
        for name in (
            "x-delivery-limit",
            "x-quorum-initial-group-size",
            "x-max-in-memory-length",
            "x-max-in-memory-bytes",
            "x-dead-letter-strategy",
            "x-max-age",
            "x-queue-leader-locator",
            "x-initial-cluster-size",
            "x-stream-max-segment-size-bytes",
        )
    ),
    ({"x-max-age": 1, "x-delivery-limit": 1}, {}, "x-max-age| of queue type rabbit_classic_queue"),
    ({"x-delivery-limit": 1, "x-max-age": 1}, {}, "x-delivery-limit| of queue type rabbit_classic_queue"),
    ({"x-queue-version": -1}, {}, "x-queue-version|: {value_negative,-1}"),
    ({"x-delivery-limit": 1, "x-message-ttl": -1}, {}, "x-message-ttl|: {value_negative,-1}"),
    *(
        ({**_QUORUM, name: "a"}, {}, f"{name}| of queue type rabbit_quorum_queue")
        for name in ("x-max-priority", "x-queue-mode", "x-queue-version", "x-max-age")
    ),
    ({**_QUORUM, "x-max-priority": 1}, {"durable": False}, "x-max-priority| of queue type rabbit_quorum_queue"),
    (_QUORUM, {"durable": False}, "invalid property 'non-durable' for queue"),
    (_QUORUM, {"exclusive": True}, "invalid property 'exclusive-owner' for queue"),
    (_QUORUM, {"auto_delete": True, "exclusive": True}, "invalid property 'auto-delete' for queue"),
    (
        {**_QUORUM, "x-dead-letter-strategy": "bad"},
        {},
        "x-dead-letter-strategy|: invalid_dlx_strategy",
    ),
    ({**_QUORUM, "x-quorum-initial-group-size": 0}, {}, "x-quorum-initial-group-size|: {value_zero,0}"),
    ({**_QUORUM, "x-queue-leader-locator": "bad"}, {}, "x-queue-leader-locator|: invalid_queue_locator_arg"),
)

#: Taken, on a durable queue.
TAKEN: tuple[Arguments, ...] = (
    {},
    {"x-message-ttl": 0},
    {"x-message-ttl": MAX_TTL},
    {"x-expires": MAX_TTL},
    {"x-max-length": 0, "x-max-length-bytes": 0},
    {"x-max-length": 2**62},
    {"x-max-priority": 0},
    {"x-max-priority": 255},
    {"x-overflow": "reject-publish-dlx"},
    {"x-dead-letter-exchange": ""},
    {"x-dead-letter-exchange": "missing", "x-dead-letter-routing-key": ""},
    {"x-queue-mode": "lazy"},
    {"x-queue-version": 2},
    {"x-queue-type": "classic"},
    {"x-single-active-consumer": False},
    {"x-queue-master-locator": "min-masters"},
    {"x-foo": None, "foo": [1], "x-consumer-timeout": "never"},
    {**_QUORUM, "x-message-ttl": 5, "x-expires": 60000, "x-single-active-consumer": True},
    {**_QUORUM, "x-delivery-limit": -1},
    {**_QUORUM, "x-delivery-limit": "a"},
    {**_QUORUM, "x-overflow": "reject-publish-dlx", "x-max-in-memory-length": 1},
    {**_QUORUM, "x-queue-leader-locator": "balanced", "x-foo": 1},
)

#: One declaration after another: arguments, then arguments, and what the second is told ("" for nothing) after
#: "inequivalent arg '...' for queue '...' in vhost '/': ".
AGAIN: tuple[tuple[Arguments, Arguments, str], ...] = (
    ({"x-message-ttl": 100}, {"x-message-ttl": 101}, "x-message-ttl|received '101' but current is '100'"),
    (
        {},
        {"x-message-ttl": 100},
        "x-message-ttl|received the value '100' of type 'signedint' but current is none",
    ),
    (
        {"x-dead-letter-exchange": "x"},
        {},
        "x-dead-letter-exchange|received none but current is the value 'x' of type 'longstr'",
    ),
    ({"x-max-length": 100}, {"x-max-length": "100"}, "x-max-length|received '100' but current is '100'"),
    ({"x-max-length": 100}, {"x-max-length": 100.0}, "x-max-length|received '100.0' but current is '100'"),
    ({"x-max-length": 1}, {"x-max-length": True}, "x-max-length|received 'true' but current is '1'"),
    *(
        ({"x-max-length": 100}, {"x-max-length": kind(100)}, "")
        for kind in (Int8, UInt8, Int16, UInt16, Int32, UInt32, Int64, Timestamp)
    ),
    (
        {"x-message-ttl": 1, "x-expires": 90000, "x-max-length": 5},
        {"x-message-ttl": 2, "x-expires": 90001, "x-max-length": 6},
        "x-expires|received '90001' but current is '90000'",
    ),
    (
        {"x-message-ttl": 1, "x-max-length": 5},
        {"x-message-ttl": 2, "x-max-length": 6},
        "x-message-ttl|received '2' but current is '1'",
    ),
    ({}, {"x-message-ttl": "a"}, "x-message-ttl|received the value 'a' of type 'longstr' but current is none"),
    ({}, {"x-foo": 1}, ""),
    ({}, {"x-delivery-limit": 1}, ""),
    ({}, {"x-queue-type": "classic"}, ""),
    ({"x-queue-type": "classic"}, {}, ""),
    ({}, _QUORUM, "x-queue-type|received the value 'quorum' of type 'longstr' but current is none"),
    ({"x-queue-type": "classic"}, _QUORUM, "x-queue-type|received 'quorum' but current is 'classic'"),
    (_QUORUM, {}, "x-queue-type|received none but current is the value 'quorum' of type 'longstr'"),
    (
        _QUORUM,
        {**_QUORUM, "x-delivery-limit": 4},
        "x-delivery-limit|received the value '4' of type 'signedint' but current is none",
    ),
    (_QUORUM, {**_QUORUM, "x-max-priority": 1, "x-queue-mode": 1}, ""),
)


def refusal(expected: str, name: str) -> str:
    """The whole text for an entry of REFUSED."""
    argument, bar, rest = expected.partition("|")
    if not bar:
        return f"PRECONDITION_FAILED - {expected} '{name}' in vhost '/'"
    return f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '/'{rest}"


def difference(expected: str, name: str) -> str:
    """The whole text for an entry of AGAIN."""
    argument, _, rest = expected.partition("|")
    return f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{name}' in vhost '/': {rest}"


class ParseTests(unittest.TestCase):
    def test_nothing(self) -> None:
        self.assertEqual(QueueArguments.parse(None), QueueArguments())
        self.assertEqual(QueueArguments.parse({}).queue_type, CLASSIC)
        self.assertIsNone(QueueArguments().length_limit)

    def test_everything(self) -> None:
        settings = QueueArguments.parse(
            {
                "x-message-ttl": Int64(1000),
                "x-expires": 2000,
                "x-max-length": 3,
                "x-max-length-bytes": 4,
                "x-overflow": "reject-publish",
                "x-dead-letter-exchange": "dlx",
                "x-dead-letter-routing-key": "key",
                "x-max-priority": UInt8(5),
                "x-queue-type": "classic",
                "x-single-active-consumer": True,
                "x-queue-mode": "lazy",
            }
        )
        self.assertEqual(
            settings,
            QueueArguments(1000, 2000, 3, 4, "reject-publish", "dlx", "key", 5, "classic", True, None, "lazy"),
        )
        self.assertIs(type(settings.message_ttl), int)
        limit = settings.length_limit
        assert limit is not None
        self.assertEqual((limit.max_length, limit.max_bytes, limit.overflow), (3, 4, "reject-publish"))

    def test_quorum(self) -> None:
        """Any x-delivery-limit is taken, and used if it is a number."""
        for value, expected in ((Int16(3), 3), (0, 0), (-1, None), ("a", None), (True, None), (Decimal(1), None)):
            with self.subTest(value=value):
                settings = QueueArguments.parse({**_QUORUM, "x-delivery-limit": value})
                self.assertEqual((settings.queue_type, settings.delivery_limit), (QUORUM, expected))

    def test_taken(self) -> None:
        for arguments in TAKEN:
            with self.subTest(arguments=arguments):
                QueueArguments.parse(arguments)

    def test_refused(self) -> None:
        """F44, peers 18: every text."""
        for arguments, properties, expected in REFUSED:
            with self.subTest(arguments=arguments), self.assertRaises(Fault) as caught:
                QueueArguments.parse(arguments, name="q", vhost="/", **{"durable": True, **properties})
            self.assertEqual((caught.exception.reply_code, caught.exception.reply_text), (406, refusal(expected, "q")))
            self.assertIsNone(caught.exception.__context__)

    def test_stream(self) -> None:
        """Not here: a known difference."""
        with self.assertRaisesRegex(Fault, "unsupported queue type 'stream'"):
            QueueArguments.parse({"x-queue-type": "stream"})


class EquivalenceTests(QueueTestCase):
    def outcome(self, name: str = "q", **declaration: Any) -> str:
        try:
            self.vhost.declare_queue(name, **declaration)
        except Fault as fault:
            self.assertIn(fault.reply_code, (405, 406))
            return fault.reply_text
        return ""

    def test_arguments(self) -> None:
        for number, (first, second, expected) in enumerate(AGAIN):
            name = f"q{number}"
            with self.subTest(first=first, second=second):
                self.vhost.declare_queue(name, durable=True, arguments=first)
                text = self.outcome(name, durable=True, arguments=second)
                self.assertEqual(text, difference(expected, name) if expected else "")

    def test_properties(self) -> None:
        """In RabbitMQ's order: exclusive (405), durable, auto_delete, arguments."""
        self.queue(durable=True)
        prefix = "PRECONDITION_FAILED - inequivalent arg '{}' for queue 'q' in vhost '/': received '{}' but current is"
        self.assertEqual(self.outcome(), prefix.format("durable", "false") + " 'true'")
        self.assertEqual(
            self.outcome(durable=True, auto_delete=True), prefix.format("auto_delete", "true") + " 'false'"
        )
        both = self.outcome(auto_delete=True, arguments={"x-max-length": 1})
        self.assertIn("'durable'", both)
        self.assertTrue(self.outcome(durable=False, exclusive=True, owner="me").startswith("RESOURCE_LOCKED"))

    def test_exclusive_is_never_durable(self) -> None:
        """Whether it is asked for or not."""
        for durable in (True, False, True):
            queue = self.queue(exclusive=True, durable=durable, owner="me")
            self.assertFalse(queue.durable)


class ExchangeTests(unittest.TestCase):
    def setUp(self) -> None:
        self.vhost = VirtualHost("/", clock=Clock())

    def outcome(self, **changes: Any) -> str:
        made = self.vhost.exchanges.get("x") or self.vhost.declare_exchange(
            "x", "direct", arguments={"alternate-exchange": "ae", "other": 1}
        )
        declaration: dict[str, Any] = {
            "type": "direct",
            "durable": False,
            "auto_delete": False,
            "internal": False,
            "arguments": {"alternate-exchange": "ae"},
        }
        try:
            check_exchange_equivalence(made, **{**declaration, **changes})
        except Fault as fault:
            self.assertEqual(fault.reply_code, 406)
            return fault.reply_text.removeprefix("PRECONDITION_FAILED - inequivalent arg ")
        return ""

    def test_same(self) -> None:
        """Arguments other than the alternate exchange do not count."""
        self.assertEqual(self.outcome(), "")

    def test_differences(self) -> None:
        """F44: type, durable, auto_delete, internal, alternate exchange, in this order."""
        where = "for exchange 'x' in vhost '/': received"
        cases: tuple[tuple[Arguments, str], ...] = (
            ({"type": "fanout", "durable": True}, f"'type' {where} 'fanout' but current is 'direct'"),
            ({"durable": True, "auto_delete": True}, f"'durable' {where} 'true' but current is 'false'"),
            ({"auto_delete": True, "internal": True}, f"'auto_delete' {where} 'true' but current is 'false'"),
            ({"internal": True, "arguments": {}}, f"'internal' {where} 'true' but current is 'false'"),
            (
                {"arguments": {"alternate-exchange": "ae2"}},
                f"'alternate-exchange' {where} 'ae2' but current is 'ae'",
            ),
            (
                {"arguments": {}},
                f"'alternate-exchange' {where} none but current is the value 'ae' of type 'longstr'",
            ),
        )
        for changes, expected in cases:
            with self.subTest(changes=changes):
                self.assertEqual(self.outcome(**changes), expected)


class RabbitMQTests(RabbitMQTestCase):
    """R34: the tables above, declared on a real RabbitMQ."""

    async def connect(self) -> AMQPProtocol:
        connection: AMQPProtocol = await amqp.connect(self.parameters())
        self.addCleanup(connection.close)
        return connection

    async def told(self, connection: AMQPProtocol, name: str, arguments: Arguments, properties: Arguments) -> str:
        """What a declaration is told; "" when it is taken."""
        channel = await connection.channel()
        try:
            await channel.queue_declare(name, arguments=arguments, **{"durable": True, **properties})
        except ChannelClosed as error:
            return f"{error.reply_text}"
        await channel.close()
        return ""

    async def test_taken(self) -> None:
        connection = await self.connect()
        for number, arguments in enumerate(TAKEN):
            self.assertEqual(await self.told(connection, self.name(f"q{number}"), arguments, {}), "", arguments)

    async def test_refused(self) -> None:
        connection = await self.connect()
        for number, (arguments, properties, expected) in enumerate(REFUSED):
            name = f"q{number}.{self.name('')[-8:]}"
            text = await self.told(connection, name, arguments, properties)
            self.assertEqual(text, refusal(expected, name), arguments)

    async def test_again(self) -> None:
        connection = await self.connect()
        for number, (first, second, expected) in enumerate(AGAIN):
            name = f"q{number}.{self.name('')[-8:]}"
            self.assertEqual(await self.told(connection, name, first, {}), "")
            text = await self.told(connection, name, second, {})
            self.assertEqual(text, difference(expected, name) if expected else "", (first, second))
