"""Queue: its arguments, what declaring and binding tell the broker, anonymous queues, and being a value."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.entities.recording import RecordingChannel, RecordingConnection
from txmsg.abc import DeclaredQueue
from txmsg.errors import ConfigurationError, NotBoundError, NotFound
from txmsg.messaging.entities import Exchange, Queue, binding


def _declared(name: str, messages: int, consumers: int) -> None:
    """An `on_declared`; it cannot be in a pickle where it is a lambda, and is not where it is this."""


class FieldTests(SynchronousTestCase):
    """Arguments, their defaults and their units."""

    def test_defaults(self) -> None:
        """kombu F2, F3: every attribute there is, and what it is when nobody says so."""
        fields = Queue().as_dict(recurse=True)
        self.assertEqual(fields.pop("exchange")["name"], "")
        self.assertEqual(
            fields,
            {
                "name": "",
                "routing_key": "",
                "queue_arguments": None,
                "binding_arguments": None,
                "consumer_arguments": None,
                "durable": True,
                "exclusive": False,
                "auto_delete": False,
                "no_ack": False,
                "alias": None,
                "bindings": [],
                "no_declare": False,
                "expires": None,
                "message_ttl": None,
                "max_length": None,
                "max_length_bytes": None,
                "max_priority": None,
            },
        )
        self.assertEqual(Queue(None, None, None, durable=None, exclusive=None, no_ack=None), Queue())

    def test_defaults_of_a_subclass(self) -> None:
        """A subclass may have other defaults, which arguments overrule."""

        class Mine(Queue):
            durable = False
            message_ttl = 5

        self.assertEqual((Mine("q").durable, Mine("q").message_ttl), (False, 5))
        self.assertEqual((Mine("q", durable=True).durable, Mine("q", message_ttl=0).message_ttl), (True, 0))

    def test_exchange_by_name(self) -> None:
        """kombu F1: an Exchange or its name."""
        self.assertEqual(Queue("q", "media", "key"), Queue("q", Exchange("media"), "key"))
        self.assertEqual(Queue("q", "").exchange, Exchange(""))

    def test_exclusive_implies_auto_delete(self) -> None:
        """kombu F4, celery C-20: whatever is said of auto_delete."""
        self.assertTrue(Queue("q", exclusive=True).auto_delete)
        self.assertTrue(Queue("q", exclusive=True, auto_delete=False).auto_delete)
        self.assertFalse(Queue("q").auto_delete)

    def test_units(self) -> None:
        """kombu D34, F6 to F9, celery C-20.

        Seconds become integer milliseconds, counts stay; None is left out and 0 is not.
        """
        full = Queue("q", expires=1.001, message_ttl=0.5, max_length=10, max_length_bytes=2048, max_priority=9)
        self.assertEqual(
            full.arguments,
            {
                "x-expires": 1001,
                "x-message-ttl": 500,
                "x-max-length": 10,
                "x-max-length-bytes": 2048,
                "x-max-priority": 9,
            },
        )
        for value in full.arguments.values():
            self.assertIs(type(value), int)
        zero = Queue("q", expires=0, message_ttl=0, max_length=0, max_length_bytes=0, max_priority=0)
        self.assertEqual(set(zero.arguments.values()), {0})
        self.assertEqual(len(zero.arguments), 5)
        self.assertEqual(Queue("q").arguments, {})
        self.assertEqual(Queue("q", message_ttl=0.0001).arguments, {"x-message-ttl": 1})

    def test_named_options_win(self) -> None:
        """kombu F10: over the same key of queue_arguments, which the caller keeps as they are."""
        given = {"x-expires": 1, "x-queue-mode": "lazy"}
        queue = Queue("q", queue_arguments=given, expires=2)
        self.assertEqual(queue.arguments, {"x-expires": 2000, "x-queue-mode": "lazy"})
        self.assertEqual(given, {"x-expires": 1, "x-queue-mode": "lazy"})
        self.assertEqual(queue.queue_arguments, given)

    def test_wrong_arguments(self) -> None:
        """kombu F27: each says what it is and what to give; the old `key=` is a TypeError."""
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"name": b"q"}, "name is b'q': give a str"),
            ({"name": "x" * 256}, "name has 256 octets"),
            ({"exchange": 3}, "exchange is 3: give an Exchange, its name, a list of bindings"),
            ({"exchange": [Exchange("x")]}, r"make it with binding\(exchange, routing_key\)"),
            ({"bindings": "key"}, "bindings is 'key': give a list of bindings"),
            ({"exchange": "x", "bindings": [binding("y")]}, "make the exchange one of the bindings"),
            ({"routing_key": 1}, "routing_key is 1"),
            ({"on_declared": 1}, "on_declared is 1: give something that can be called"),
            ({"durable": 1}, "durable is 1: give True or False"),
            ({"exclusive": "x"}, "exclusive is 'x'"),
            ({"no_ack": 1}, "no_ack is 1"),
            ({"expires": "10"}, "expires is '10': give seconds as a number"),
            ({"expires": True}, "expires is True"),
            ({"expires": -1}, "expires is -1"),
            ({"message_ttl": math.nan}, "message_ttl is nan"),
            ({"message_ttl": math.inf}, "message_ttl is inf"),
            ({"max_length": -1}, "max_length is -1: give a whole number, 0 or more"),
            ({"max_length": 1.5}, "max_length is 1.5"),
            ({"max_length_bytes": "1"}, "max_length_bytes is '1'"),
            ({"max_priority": 256}, "max_priority is 256: give a whole number, 0 to 255"),
            ({"queue_arguments": []}, r"queue_arguments is \[\]: give a dict"),
            ({"binding_arguments": "a"}, "binding_arguments is 'a'"),
            ({"consumer_arguments": {1: 1}}, "a key of consumer_arguments is 1"),
        ]
        for arguments, text in wrong:
            with self.assertRaisesRegex(ConfigurationError, text):
                Queue(**arguments)
        with self.assertRaises(TypeError):
            Queue("video", exchange="media", key="video")  # type: ignore[call-arg]


class DeclareTests(SynchronousTestCase):
    """What the broker is told, and in which order."""

    def setUp(self) -> None:
        """A channel with a connection."""
        self.connection = RecordingConnection()
        self.channel = self.connection.default_channel

    def test_order(self) -> None:
        """kombu F10, F16: the exchange, the queue, the binding; fires with the name."""
        queue = Queue(
            "q",
            Exchange("x", "headers"),
            "key",
            queue_arguments={"a": 1},
            binding_arguments={"x-match": "any"},
            max_length=3,
        )
        self.assertEqual(self.successResultOf(queue(self.channel).declare()), "q")
        self.assertEqual(
            self.channel.calls,
            [
                ("exchange_declare", "x", "headers", {"durable": True}),
                ("queue_declare", "q", {"durable": True, "arguments": {"a": 1, "x-max-length": 3}}),
                ("queue_bind", "q", "x", "key", {"arguments": {"x-match": "any"}}),
            ],
        )

    def test_default_exchange(self) -> None:
        """kombu F19: a queue of the default exchange is declared and not bound, nor unbound."""
        bound = Queue("q")(self.channel)
        calls: list[Deferred[Any]] = [
            bound.declare(),
            bound.queue_bind(),
            bound.queue_unbind(),
            bound.bind_to(Exchange("")),
            bound.unbind_from(""),
        ]
        for call in calls:
            self.successResultOf(call)
        self.assertEqual(self.channel.methods, ["queue_declare"])

    def test_several_bindings(self) -> None:
        """kombu F20: each binding declares its exchange and binds, in the order given, and once."""
        topic, fanout = Exchange("t", "topic"), Exchange("f", "fanout")
        wanted = [topic.binding("a.#"), binding(topic, "b.#", {"n": 1}), binding(fanout), topic.binding("a.#")]
        for queue in (Queue("q", wanted), Queue("q", bindings=wanted), Queue("q", "", bindings=iter(wanted))):
            self.assertIsNone(queue.exchange)
            self.assertEqual(len(queue.bindings), 3)
            self.channel.calls.clear()
            self.successResultOf(queue(self.channel).declare())
            self.assertEqual(
                [call[:4] for call in self.channel.calls],
                [
                    ("queue_declare", "q", {"durable": True}),
                    ("exchange_declare", "t", "topic", {"durable": True}),
                    ("queue_bind", "q", "t", "a.#"),
                    ("exchange_declare", "t", "topic", {"durable": True}),
                    ("queue_bind", "q", "t", "b.#"),
                    ("exchange_declare", "f", "fanout", {"durable": True}),
                    ("queue_bind", "q", "f", ""),
                ],
            )

    def test_no_declare(self) -> None:
        """kombu F15, celery C-20: neither the queue nor what belongs to it is declared, even without a channel."""
        queue = Queue("q", "x", "key", no_declare=True)
        self.assertEqual(self.successResultOf(queue(self.channel).declare()), "q")
        self.assertEqual(self.successResultOf(queue.declare()), "q")
        self.assertEqual(self.channel.calls, [])

    def test_no_declare_of_the_exchange(self) -> None:
        """An exchange that is not declared is bound to all the same."""
        self.successResultOf(Queue("q", Exchange("amq.topic", "topic"), "k")(self.channel).declare())
        self.assertEqual(self.channel.methods, ["queue_declare", "queue_bind"])

    def test_on_declared(self) -> None:
        """kombu F14: called with name, messages and consumers after each declare, by bound copies too."""
        seen: list[tuple[str, int, int]] = []
        queue = Queue("q", on_declared=lambda *args: seen.append(args))
        bound = queue(self.channel)
        self.successResultOf(bound.declare())
        self.successResultOf(bound.queue_declare())
        self.assertEqual(seen, [("q", 3, 2)] * 2)
        self.channel.answer = lambda _: NotFound("no")
        self.failureResultOf(bound.declare(), NotFound)
        self.assertEqual(len(seen), 2)

    def test_queue_declare(self) -> None:
        """kombu F18: name, messages and consumers; passive only asks."""
        bound = Queue("q", "x", exclusive=True, durable=False)(self.channel)
        self.assertEqual(self.successResultOf(bound.queue_declare()), DeclaredQueue("q", 3, 2))
        self.successResultOf(bound.queue_declare(passive=True))
        self.assertEqual(
            self.channel.calls,
            [
                ("queue_declare", "q", {"exclusive": True, "auto_delete": True}),
                ("queue_declare", "q", {"passive": True, "exclusive": True, "auto_delete": True}),
            ],
        )

    def test_binding_and_unbinding(self) -> None:
        """kombu F19: with its own exchange and key, or with others."""
        bound = Queue("q", "x", "key", binding_arguments={"a": 1})(self.channel)
        calls: list[Deferred[Any]] = [
            bound.queue_bind(),
            bound.queue_unbind(),
            bound.queue_unbind({"b": 2}),
            bound.bind_to("y", "other", {"c": 3}),
            bound.unbind_from(Exchange("y"), "other", {"c": 3}),
        ]
        for call in calls:
            self.successResultOf(call)
        self.assertEqual(
            self.channel.calls,
            [
                ("queue_bind", "q", "x", "key", {"arguments": {"a": 1}}),
                ("queue_unbind", "q", "x", "key", {"arguments": {"a": 1}}),
                ("queue_unbind", "q", "x", "key", {"arguments": {"b": 2}}),
                ("queue_bind", "q", "y", "other", {"arguments": {"c": 3}}),
                ("queue_unbind", "q", "y", "other", {"arguments": {"c": 3}}),
            ],
        )

    def test_unbound(self) -> None:
        """kombu E1: what needs a channel fails with NotBoundError and does not raise."""
        queue = Queue("q", "x")
        calls: list[Deferred[Any]] = [
            queue.declare(),
            queue.queue_declare(),
            queue.queue_bind(),
            queue.queue_unbind(),
            queue.purge(),
            queue.delete(),
            queue.get(),
            queue.consume("t", print),
            queue.cancel("t"),
        ]
        for call in calls:
            self.failureResultOf(call, NotBoundError)

    def test_bound_exchange(self) -> None:
        """kombu E3: the exchange of a bound queue is bound too, and is revived with it; the description's is not."""
        queue = Queue("q", "x")
        bound = queue(self.channel)
        assert bound.exchange is not None
        assert queue.exchange is not None
        self.assertIs(bound.exchange.channel, self.channel)
        self.assertFalse(queue.exchange.is_bound)
        other = RecordingChannel()
        bound.revive(other)
        self.assertIs(bound.exchange.channel, other)

    def test_nowait(self) -> None:
        """nowait fires at once; what fails later is logged; a name that the broker makes up has to be waited for."""
        answer: Deferred[Any] = Deferred()
        self.channel.answer = lambda _: answer
        self.assertEqual(self.successResultOf(Queue("q")(self.channel).declare(nowait=True)), "q")
        answer.errback(NotFound("gone"))
        self.assertEqual(len(self.flushLoggedErrors(NotFound)), 1)
        self.failureResultOf(Queue("")(self.channel).declare(nowait=True), ConfigurationError)


class AnonymousTests(SynchronousTestCase):
    """Queues that the broker names."""

    def setUp(self) -> None:
        """A channel with a connection."""
        self.connection = RecordingConnection()
        self.channel = self.connection.default_channel

    def test_the_name_is_kept(self) -> None:
        """kombu F17: in the bound copy and in the original, for the binding and for all that comes later."""
        queue = Queue("", "x", exclusive=True)
        bound = queue(self.channel)
        self.assertEqual(self.successResultOf(bound.declare()), "amq.gen-7-1")
        self.assertEqual((bound.name, queue.name), ("amq.gen-7-1", "amq.gen-7-1"))
        self.assertTrue(queue.is_server_named and bound.is_server_named)
        self.assertEqual(self.channel.calls[-1], ("queue_bind", "amq.gen-7-1", "x", ""))
        self.successResultOf(bound.consume("t", print))
        self.successResultOf(queue(self.channel).purge())
        self.assertEqual([call[1] for call in self.channel.calls[-2:]], ["amq.gen-7-1"] * 2)

    def test_two_copies_are_two_queues(self) -> None:
        """What was bound before the name came has a queue of its own."""
        queue = Queue()
        first, second = queue(self.channel), queue(self.channel)
        self.successResultOf(first.declare())
        self.successResultOf(second.declare())
        self.assertEqual((first.name, second.name), ("amq.gen-7-1", "amq.gen-7-2"))

    def test_declared_again(self) -> None:
        """A broker does not create names of its own making: it is asked whether the queue is there."""
        bound = Queue()(self.channel)
        self.successResultOf(bound.declare())
        self.successResultOf(bound.declare())
        self.assertEqual(self.channel.calls[-1], ("queue_declare", "amq.gen-7-1", {"passive": True, "durable": True}))
        answers = [NotFound("gone"), None]
        self.channel.answer = lambda _: answers.pop(0)
        self.assertEqual(self.successResultOf(bound.declare()), "amq.gen-7-2")
        self.assertEqual(self.channel.calls[-1], ("queue_declare", "", {"durable": True}))

    def test_revived_after_the_connection_was_lost(self) -> None:
        """An exclusive queue went with its connection, and its name with it; a channel alone takes nothing along."""
        bound = Queue(exclusive=True)(self.channel)
        kept = Queue()(self.channel)
        named = Queue("mine", exclusive=True)(self.channel)
        for each in (bound, kept, named):
            self.successResultOf(each.declare())
        other = RecordingChannel(self.connection)
        bound.revive(other)
        self.assertEqual(bound.name, "amq.gen-7-1")
        self.connection.declared_entities.clear()
        for each in (bound, kept, named):
            each.revive(other)
        self.assertEqual((bound.name, kept.name, named.name), ("", "amq.gen-7-2", "mine"))
        self.assertEqual(self.successResultOf(bound.declare()), "amq.gen-7-1")
        self.assertEqual(other.calls[0][:2], ("queue_declare", ""))

    def test_renaming(self) -> None:
        """A name that is assigned is a given one."""
        queue = Queue()
        queue.name = "mine"
        self.assertEqual((queue.name, queue.is_server_named), ("mine", False))
        with self.assertRaises(ConfigurationError):
            queue.name = None  # type: ignore[assignment]


class UseTests(SynchronousTestCase):
    """Its messages and its consumers."""

    def setUp(self) -> None:
        """A bound queue."""
        self.channel = RecordingChannel()
        self.bound = Queue("q", no_ack=True, consumer_arguments={"x-priority": 5})(self.channel)

    def test_consume(self) -> None:
        """kombu F11, F24: consumer_arguments go along, no_ack is the queue's unless it is given; fires with the tag."""
        self.assertEqual(self.successResultOf(self.bound.consume("tag", print)), "tag")
        self.assertEqual(self.successResultOf(self.bound.consume(callback=print, no_ack=False)), "made-up")
        arguments = {"x-priority": 5}
        self.assertEqual(
            self.channel.calls,
            [
                ("consume", "q", print, "tag", {"no_ack": True, "arguments": arguments}),
                ("consume", "q", print, "", {"arguments": arguments}),
            ],
        )

    def test_consume_refused(self) -> None:
        """It needs a callback, and with nowait a tag."""
        self.failureResultOf(self.bound.consume("tag"), ConfigurationError)
        self.failureResultOf(self.bound.consume(callback=print, nowait=True), ConfigurationError)
        self.failureResultOf(self.bound.consume(3, print), ConfigurationError)  # type: ignore[arg-type]

    def test_cancel_purge_delete(self) -> None:
        """kombu F25: cancel by tag; purge and delete fire with counts, or at once with nowait."""
        self.successResultOf(self.bound.cancel("tag"))
        self.assertEqual(self.successResultOf(self.bound.purge()), 5)
        self.assertEqual(self.successResultOf(self.bound.purge(nowait=True)), 0)
        self.assertEqual(self.successResultOf(self.bound.delete()), 4)
        self.assertEqual(self.successResultOf(self.bound.delete(True, True)), 4)
        self.assertEqual(
            self.channel.calls,
            [
                ("cancel", "tag"),
                ("queue_purge", "q"),
                ("queue_purge", "q"),
                ("queue_delete", "q"),
                ("queue_delete", "q", {"if_unused": True, "if_empty": True}),
            ],
        )


class ValueTests(SynchronousTestCase):
    """Equality, hashes, repr, copies and pickles."""

    def test_equality(self) -> None:
        """kombu E20: equal declarations are equal, bound or not; each field that the broker sees makes a difference."""
        plain = Queue("q", Exchange("x"), "key")
        self.assertEqual(plain, Queue("q", "x", "key", alias="a", on_declared=print))
        self.assertEqual(plain(RecordingChannel()), plain)
        self.assertEqual(hash(plain(RecordingChannel())), hash(plain))
        changes: dict[str, Any] = {
            "durable": False,
            "exclusive": True,
            "auto_delete": True,
            "no_ack": True,
            "no_declare": True,
            "expires": 1,
            "message_ttl": 1,
            "max_length": 1,
            "max_length_bytes": 1,
            "max_priority": 1,
            "queue_arguments": {"a": 1},
            "binding_arguments": {"a": 1},
            "consumer_arguments": {"a": 1},
        }
        for field, value in changes.items():
            self.assertNotEqual(plain, Queue("q", "x", "key", **{field: value}), field)
        for other in (Queue("p", "x", "key"), Queue("q", "y", "key"), Queue("q", "x", "k"), Exchange("q"), 3):
            self.assertNotEqual(plain, other)
        self.assertNotEqual(Queue("q", [binding("x", "a")]), Queue("q", [binding("x", "b")]))
        self.assertEqual(Queue("q", [binding("x", "a")]), Queue("q", bindings=(binding("x", "a"),)))

    def test_hash_stays(self) -> None:
        """A queue in a dict is found there after the broker named it."""
        queue = Queue()
        held = {queue: 1}
        self.successResultOf(queue(RecordingChannel()).declare())
        self.assertEqual(held[queue], 1)
        self.assertNotEqual(queue, Queue(queue.name))

    def test_repr(self) -> None:
        """kombu E20: bound or unbound, its sources; nobody is asked."""
        channel = RecordingChannel()
        self.assertEqual(repr(Queue("q", "x", "key")), "<Queue 'q' <- 'x' -> 'key', unbound>")
        self.assertEqual(repr(Queue("q", "x", "key")(channel)), "<Queue 'q' <- 'x' -> 'key', bound to channel 7>")
        self.assertEqual(repr(Queue("q", [binding("x", "a")])), "<Queue 'q' <- 'x' -> 'a', unbound>")
        self.assertEqual(channel.calls, [])

    def test_pickle_and_copy(self) -> None:
        """kombu E4: pickles and copies are unbound; a callback of this process is in copies only."""
        queue = Queue("q", [binding("x", "a")], on_declared=_declared, alias="a", max_length=3)
        for each in (queue, queue(RecordingChannel())):
            thawed = pickle.loads(pickle.dumps(each))
            copied = copy.copy(each)
            for made in (thawed, copied, copy.deepcopy(each)):
                self.assertEqual(made, queue)
                self.assertEqual(made.alias, "a")
                self.assertFalse(made.is_bound)
            self.assertEqual((thawed.on_declared, copied.on_declared), (None, _declared))
        lambdas = Queue("q", "x", on_declared=lambda *_: None)
        self.assertEqual(pickle.loads(pickle.dumps(lambdas(RecordingChannel()))), lambdas)

    def test_alias(self) -> None:
        """kombu F13: the application's own; it goes along and is told to nobody."""
        channel = RecordingChannel()
        bound = Queue("q", alias="default")(channel)
        self.successResultOf(bound.declare())
        self.assertEqual((bound.alias, bound.as_dict()["alias"]), ("default", "default"))
        self.assertNotIn("default", repr(channel.calls))

    def test_can_cache(self) -> None:
        """kombu E5, O3: transient queues too, but none that deletes itself, however that is said."""
        self.assertTrue(Queue("q", durable=False, message_ttl=1).can_cache_declaration)
        for options in (
            {"auto_delete": True},
            {"exclusive": True},
            {"expires": 1},
            {"queue_arguments": {"x-expires": 1000}},
        ):
            self.assertFalse(Queue("q", **options).can_cache_declaration, options)
