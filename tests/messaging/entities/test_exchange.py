"""Exchange: binding to channels, declaring, publishing as it is, and being a value."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.entities.recording import RecordingChannel, RecordingConnection
from txmsg.errors import ConfigurationError, NotBoundError, NotFound
from txmsg.messaging.entities import (
    PERSISTENT_DELIVERY_MODE,
    TRANSIENT_DELIVERY_MODE,
    Exchange,
    OutgoingMessage,
    Queue,
    binding,
    delivery_mode_of,
)


class ChannelTests(SynchronousTestCase):
    """Descriptions and their bound copies."""

    def test_binding_makes_a_copy(self) -> None:
        """kombu E1: calling it, or bind(), gives a bound copy; the original stays unbound."""
        channel = RecordingChannel()
        exchange = Exchange("video", "topic")
        for bound in (exchange(channel), exchange.bind(channel)):
            self.assertIsNot(bound, exchange)
            self.assertTrue(bound.is_bound)
            self.assertIs(bound.channel, channel)
            self.assertEqual((bound.name, bound.type), ("video", "topic"))
        self.assertFalse(exchange.is_bound)
        self.assertEqual(channel.calls, [])

    def test_unbound(self) -> None:
        """kombu E1: what needs a channel fails with NotBoundError, and says what to do; nothing is raised."""
        exchange = Exchange("video")
        with self.assertRaisesRegex(NotBoundError, "'video' is bound to no channel: call it with one"):
            exchange.channel  # noqa: B018
        calls: list[Deferred[Any]] = [
            exchange.declare(),
            exchange.delete(),
            exchange.bind_to("other"),
            exchange.unbind_from("other"),
            exchange.publish("text"),
        ]
        for call in calls:
            self.failureResultOf(call, NotBoundError)

    def test_a_connection_stands_for_its_default_channel(self) -> None:
        """kombu E2: binding to a connection takes its default channel."""
        connection = RecordingConnection()
        bound = Exchange("video")(connection)
        self.assertIs(bound.channel, connection.made[0])
        self.assertIs(Exchange("video", channel=connection).channel, connection.made[0])

    def test_what_cannot_be_bound_to(self) -> None:
        """Neither a channel nor a connection: refused, with its type."""
        with self.assertRaisesRegex(ConfigurationError, "a str cannot be bound to: give a channel"):
            Exchange("video")("amqp://")

    def test_binding_in_place(self) -> None:
        """kombu E3: maybe_bind and `channel=` bind the object itself, once; when_bound is told each time."""
        told: list[str] = []

        class Mine(Exchange):
            def when_bound(self) -> None:
                told.append(self.name)

        first, second = RecordingChannel(), RecordingChannel()
        exchange = Mine("video")
        self.assertIs(exchange.maybe_bind(None), exchange)
        self.assertEqual((exchange.is_bound, told), (False, []))
        self.assertIs(exchange.maybe_bind(first), exchange)
        exchange.maybe_bind(second)
        self.assertIs(exchange.channel, first)
        self.assertIs(Exchange("video", channel=first).channel, first)
        self.assertEqual(told, ["video"])

    def test_revive(self) -> None:
        """kombu E3: revive swaps the channel of a bound one, and binds no other."""
        first, second = RecordingChannel(), RecordingChannel()
        bound, unbound = Exchange("video")(first), Exchange("video")
        bound.revive(second)
        unbound.revive(second)
        self.assertIs(bound.channel, second)
        self.assertFalse(unbound.is_bound)

    def test_channel_for_one_call(self) -> None:
        """kombu E13, E16: `channel=` takes the place of the one it is bound to, for that call."""
        first, second = RecordingChannel(), RecordingChannel()
        bound = Exchange("video")(first)
        self.successResultOf(bound.declare(channel=second))
        self.successResultOf(bound.bind_to("other", channel=second))
        self.successResultOf(Exchange("unbound").declare(channel=second))
        self.assertEqual((first.calls, second.methods), ([], ["exchange_declare", "exchange_bind", "exchange_declare"]))


class FieldTests(SynchronousTestCase):
    """Arguments and their defaults."""

    def test_defaults(self) -> None:
        """kombu E6, E7, celery C-01: the default exchange, direct, durable, kept, with no delivery mode of its own."""
        self.assertEqual(
            Exchange().as_dict(),
            {
                "name": "",
                "type": "direct",
                "arguments": None,
                "durable": True,
                "passive": False,
                "auto_delete": False,
                "delivery_mode": None,
                "no_declare": False,
            },
        )
        self.assertEqual(Exchange(None, None, durable=None, delivery_mode=None), Exchange())

    def test_defaults_of_a_subclass(self) -> None:
        """kombu E6: a subclass may have other defaults, which arguments overrule."""

        class Mine(Exchange):
            type = "topic"
            durable = False

        self.assertEqual((Mine("x").type, Mine("x").durable), ("topic", False))
        self.assertEqual((Mine("x", "fanout", durable=True).type, Mine("x", durable=True).durable), ("fanout", True))

    def test_types(self) -> None:
        """kombu E9, celery C-02: the four types, and any other that the broker may have."""
        channel = RecordingChannel()
        kinds = ["direct", "topic", "fanout", "headers", "x-delayed-message"]
        for kind in kinds:
            self.successResultOf(Exchange("x", kind)(channel).declare())
        self.assertEqual([call[2] for call in channel.calls], kinds)

    def test_delivery_modes(self) -> None:
        """kombu E8, celery C-03: names and numbers; what is kept is the number."""
        for given, kept in ((1, 1), ("transient", 1), (2, 2), ("persistent", 2), (None, None)):
            self.assertEqual(delivery_mode_of(given), kept)
            self.assertEqual(Exchange("x", delivery_mode=given).delivery_mode, kept)
        self.assertEqual((TRANSIENT_DELIVERY_MODE, PERSISTENT_DELIVERY_MODE), (1, 2))
        self.assertEqual((Exchange.TRANSIENT_DELIVERY_MODE, Exchange.PERSISTENT_DELIVERY_MODE), (1, 2))

    def test_wrong_arguments(self) -> None:
        """Each says what it is and what to give."""
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"name": 3}, "name is 3: give a str"),
            ({"name": "x" * 256}, "name has 256 octets: AMQP carries names of up to 255"),
            ({"name": "é" * 128}, "name has 256 octets"),
            ({"name": "\ud800" * 100}, "text that UTF-8 can carry"),
            ({"type": b"topic"}, "type is b'topic': give a str"),
            ({"durable": 1}, "durable is 1: give True or False"),
            ({"auto_delete": "no"}, "auto_delete is 'no'"),
            ({"passive": 0}, "passive is 0"),
            ({"no_declare": "x"}, "no_declare is 'x'"),
            ({"delivery_mode": 3}, "delivery_mode is 3: give 1 or 'transient'"),
            ({"delivery_mode": True}, "delivery_mode is True"),
            ({"delivery_mode": "durable"}, "delivery_mode is 'durable'"),
            ({"delivery_mode": math.nan}, "delivery_mode is nan"),
            ({"arguments": ["a"]}, r"arguments is \['a'\]: give a dict"),
            ({"arguments": {1: 2}}, "a key of arguments is 1: give a str"),
        ]
        for arguments, text in wrong:
            with self.assertRaisesRegex(ConfigurationError, text):
                Exchange(**arguments)
        with self.assertRaises(TypeError):
            Exchange("x", routing="y")  # type: ignore[call-arg]

    def test_arguments_are_copied(self) -> None:
        """What the caller does with his dict later changes nothing."""
        arguments = {"alternate-exchange": "other"}
        exchange = Exchange("x", arguments=arguments)
        arguments.clear()
        self.assertEqual(exchange.arguments, {"alternate-exchange": "other"})


class DeclareTests(SynchronousTestCase):
    """What the broker is told."""

    def setUp(self) -> None:
        """A channel."""
        self.channel = RecordingChannel()

    def test_declare(self) -> None:
        """kombu E13, celery C-04: everything the broker wants to know."""
        exchange = Exchange("x", "topic", durable=False, auto_delete=True, arguments={"a": 1})
        self.successResultOf(exchange(self.channel).declare())
        self.successResultOf(Exchange("y")(self.channel).declare())
        self.assertEqual(
            self.channel.calls,
            [
                ("exchange_declare", "x", "topic", {"auto_delete": True, "arguments": {"a": 1}}),
                ("exchange_declare", "y", "direct", {"durable": True}),
            ],
        )

    def test_passive(self) -> None:
        """kombu E13, E15: its own `passive`, which the call overrules; NotFound comes through."""
        self.successResultOf(Exchange("x", passive=True)(self.channel).declare())
        self.successResultOf(Exchange("x", passive=True)(self.channel).declare(passive=False))
        self.successResultOf(Exchange("x")(self.channel).declare(passive=True))
        self.assertEqual(
            [call[-1] for call in self.channel.calls],
            [{"passive": True, "durable": True}, {"durable": True}, {"passive": True, "durable": True}],
        )
        self.channel.answer = lambda _: NotFound("no exchange 'x'")
        self.failureResultOf(Exchange("x", passive=True)(self.channel).declare(), NotFound)

    def test_what_is_never_declared(self) -> None:
        """kombu E13, E14, celery C-04.

        The default exchange, the broker's own, and with no_declare; even without a channel.
        """
        for exchange in (Exchange(""), Exchange("amq.topic", "topic"), Exchange("x", no_declare=True)):
            self.assertFalse(exchange.is_declarable)
            self.successResultOf(exchange(self.channel).declare())
            self.successResultOf(exchange.declare())
        self.assertTrue(Exchange("amqx").is_declarable)
        self.assertEqual(self.channel.calls, [])

    def test_nowait(self) -> None:
        """kombu E13: nowait fires at once, and what fails later is logged."""
        answer: Deferred[None] = Deferred()
        self.channel.answer = lambda _: answer
        self.successResultOf(Exchange("x")(self.channel).declare(nowait=True))
        answer.errback(NotFound("gone"))
        self.assertEqual(len(self.flushLoggedErrors(NotFound)), 1)

    def test_exchange_to_exchange(self) -> None:
        """kombu E16, celery C-04: messages flow into this one, from one given as an Exchange or by name."""
        bound = Exchange("to")(self.channel)
        self.successResultOf(bound.bind_to(Exchange("from"), "key", {"a": 1}))
        self.successResultOf(bound.bind_to("from"))
        self.successResultOf(bound.unbind_from(Exchange("from"), "key", arguments={"a": 1}))
        self.assertEqual(
            self.channel.calls,
            [
                ("exchange_bind", "to", "from", "key", {"arguments": {"a": 1}}),
                ("exchange_bind", "to", "from", ""),
                ("exchange_unbind", "to", "from", "key", {"arguments": {"a": 1}}),
            ],
        )

    def test_the_default_exchange_is_left_alone(self) -> None:
        """Reserved: it is neither bound to another exchange nor deleted (RabbitMQ answers 403)."""
        default, other = Exchange("")(self.channel), Exchange("x")(self.channel)
        for call in (default.bind_to("x"), other.bind_to(""), other.unbind_from(Exchange(""))):
            self.failureResultOf(call, ConfigurationError)
        self.failureResultOf(other.bind_to(3), ConfigurationError)  # type: ignore[arg-type]
        self.successResultOf(default.delete())
        self.assertEqual(self.channel.calls, [])

    def test_delete(self) -> None:
        """kombu E17, celery C-04: with and without if_unused."""
        bound = Exchange("x")(self.channel)
        self.successResultOf(bound.delete())
        self.successResultOf(bound.delete(if_unused=True, nowait=True))
        self.assertEqual(self.channel.calls, [("exchange_delete", "x"), ("exchange_delete", "x", {"if_unused": True})])

    def test_binding(self) -> None:
        """kombu E19: makes a binding object."""
        made = Exchange("x").binding("key", {"a": 1}, {"b": 2})
        self.assertEqual(made, binding(Exchange("x"), "key", {"a": 1}, {"b": 2}))


class PublishTests(SynchronousTestCase):
    """Messages as they are."""

    def setUp(self) -> None:
        """A channel."""
        self.channel = RecordingChannel()

    def test_message(self) -> None:
        """kombu E18, celery C-04.

        The delivery mode of the call, the properties, the exchange, or 2; properties are not changed.
        """
        transient, plain = Exchange("x", delivery_mode="transient"), Exchange("x")
        properties = {"delivery_mode": 2, "app_id": "mine", "priority": None}
        message = transient.Message("é", properties=properties, priority=0, headers={"a": 1}, content_type="text/x")
        self.assertEqual(message.body, "é".encode())
        self.assertEqual(
            message.properties,
            {
                "delivery_mode": 2,
                "app_id": "mine",
                "priority": 0,
                "headers": {"a": 1},
                "content_type": "text/x",
                "content_encoding": "utf-8",
            },
        )
        self.assertEqual(properties, {"delivery_mode": 2, "app_id": "mine", "priority": None})
        modes = [
            transient.Message(b"").properties,
            transient.Message(b"", "persistent", properties).properties,
            transient.Message(b"", 1, properties).properties,
            plain.Message(b"").properties,
        ]
        self.assertEqual([each["delivery_mode"] for each in modes], [1, 2, 1, 2])
        self.assertEqual(plain.Message("ü", content_encoding="latin-1").body, b"\xfc")

    def test_bodies_that_are_refused(self) -> None:
        """Only octets and text; the latter in a charset that can carry it."""
        for body, options in (({}, {}), ("ü", {"content_encoding": "ascii"}), ("ü", {"content_encoding": "x-none"})):
            with self.assertRaises(ConfigurationError):
                Exchange("x").Message(body, **options)  # type: ignore[arg-type]

    def test_publish(self) -> None:
        """kombu E18, celery C-04.

        Bytes and str are wrapped as they are; another exchange may be named; None is the key "".
        """
        bound = Exchange("x")(self.channel)
        self.successResultOf(bound.publish("text", "key"))
        self.successResultOf(bound.publish(b"raw", mandatory=True))
        self.successResultOf(bound.publish(OutgoingMessage(b"o", {"priority": 1}), "key", exchange=Exchange("other")))
        self.successResultOf(bound.publish(b"o", exchange=""))
        self.assertEqual(
            self.channel.calls,
            [
                ("publish", "x", "key", b"text", {"delivery_mode": 2, "content_encoding": "utf-8"}),
                ("publish", "x", "", b"raw", {"delivery_mode": 2}, {"mandatory": True}),
                ("publish", "other", "key", b"o", {"priority": 1}),
                ("publish", "", "", b"o", {"delivery_mode": 2}),
            ],
        )

    def test_immediate(self) -> None:
        """RabbitMQ closes the connection for it: refused before that."""
        failure = self.failureResultOf(Exchange("x")(self.channel).publish("x", immediate=True), ConfigurationError)
        self.assertIn("leave it out", failure.getErrorMessage())
        self.assertEqual(self.channel.calls, [])


class ValueTests(SynchronousTestCase):
    """Equality, hashes, repr, copies and pickles."""

    def test_equality(self) -> None:
        """kombu E20: equal declarations are equal, bound or not, with equal hashes; each field makes a difference."""
        plain = Exchange("x", "topic", arguments={"a": [1, {"b": b"c"}]})
        same = Exchange("x", "topic", arguments={"a": [1, {"b": b"c"}]})
        self.assertEqual(plain, same)
        self.assertEqual(plain(RecordingChannel()), same)
        self.assertEqual(hash(plain), hash(same(RecordingChannel())))
        others: list[object] = [
            Exchange("y", "topic", arguments=plain.arguments),
            Exchange("x", "direct", arguments=plain.arguments),
            Exchange("x", "topic"),
            Exchange("x", "topic", arguments={"a": [True, {"b": b"c"}]}),
            Exchange("x", "topic", arguments=plain.arguments, durable=False),
            Exchange("x", "topic", arguments=plain.arguments, auto_delete=True),
            Exchange("x", "topic", arguments=plain.arguments, passive=True),
            Exchange("x", "topic", arguments=plain.arguments, no_declare=True),
            Exchange("x", "topic", arguments=plain.arguments, delivery_mode=1),
            Queue("x"),
            "x",
        ]
        for other in others:
            self.assertNotEqual(plain, other)

    def test_repr(self) -> None:
        """kombu E20: it shows whether it is bound, and asks nobody; odd names do not break the line."""
        connection = RecordingConnection()
        channel = RecordingChannel(connection)
        exchange = Exchange("vi\ndeo", "topic")
        self.assertEqual(repr(exchange), r"<Exchange 'vi\\ndeo' (topic), unbound>")
        self.assertEqual(repr(exchange(channel)), r"<Exchange 'vi\\ndeo' (topic), bound to channel 7>")
        self.assertEqual(str(exchange), r"Exchange 'vi\\ndeo'(topic)")
        self.assertEqual((channel.calls, connection.made), ([], []))

    def test_pickle_and_copy(self) -> None:
        """kombu E4: bound and unbound ones pickle and copy; the channel stays behind."""
        exchange = Exchange("x", "topic", delivery_mode=1, arguments={"a": [1]})
        for each in (exchange, exchange(RecordingChannel())):
            for made in (pickle.loads(pickle.dumps(each)), copy.copy(each), copy.deepcopy(each)):
                self.assertEqual(made, exchange)
                self.assertFalse(made.is_bound)

    def test_can_cache(self) -> None:
        """kombu E5: all but those that delete themselves."""
        self.assertTrue(Exchange("x", durable=False).can_cache_declaration)
        self.assertFalse(Exchange("x", auto_delete=True).can_cache_declaration)

    def test_as_dict(self) -> None:
        """kombu F21: its fields, which JSON carries, make the same exchange again."""
        exchange = Exchange("x", "topic", durable=False, delivery_mode="transient", arguments={"a": 1})
        fields = json.loads(json.dumps(exchange.as_dict(recurse=True)))
        self.assertEqual(Exchange.from_dict(fields), exchange)
        with self.assertRaisesRegex(ConfigurationError, "an exchange has no kind: leave it out"):
            Exchange.from_dict({"kind": "topic"})
