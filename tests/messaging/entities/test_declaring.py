"""maybe_declare and the cache: once for a connection."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.entities.recording import RecordingChannel, RecordingConnection
from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, NotBoundError, PreconditionFailed
from txmsg.messaging import Consumer, is_recoverable
from txmsg.messaging.entities import DeclarationCache, Exchange, Queue, binding, maybe_declare


class DeclaringTests(SynchronousTestCase):
    """What is declared, and what is not."""

    def setUp(self) -> None:
        """A channel with a connection."""
        self.connection = RecordingConnection()
        self.channel = self.connection.default_channel
        self.cache = self.connection.declared_entities

    def declared(self, entity: Any, channel: Any = None, **options: Any) -> bool:
        return self.successResultOf(maybe_declare(entity, channel or self.channel, **options))

    def test_once(self) -> None:
        """kombu O2, celery C-09.

        True for the one that declared it; unbound entities stay so; a connection does as well.
        """
        queue = Queue("q", "x", "key")
        self.assertTrue(self.declared(queue))
        self.assertEqual(self.channel.methods, ["exchange_declare", "queue_declare", "queue_bind"])
        again = [
            self.declared(queue),
            self.declared(Queue("q", "x", "key")),
            self.declared(queue, self.connection),
            self.successResultOf(maybe_declare(queue(self.channel))),
        ]
        self.assertEqual(again, [False] * 4)
        self.assertEqual(len(self.channel.calls), 3)
        self.assertFalse(queue.is_bound)
        self.assertIn(queue, self.cache)

    def test_the_whole_definition_counts(self) -> None:
        """kombu O2: the name alone says nothing: another key, argument or flag is declared."""
        variants = [
            Queue("q", "x", "a"),
            Queue("q", "x", "b"),
            Queue("q", "y", "a"),
            Queue("q", Exchange("x", "topic"), "a"),
            Queue("q", "x", "a", max_length=1),
            Queue("q", "x", "a", queue_arguments={"x-max-length": True}),
            Queue("q", "x", "a", durable=False),
            Queue("q", [binding("x", "a")]),
            Exchange("q"),
        ]
        self.assertEqual([self.declared(each) for each in variants], [True] * len(variants))
        self.assertEqual([self.declared(each) for each in variants], [False] * len(variants))

    def test_what_is_not_cached(self) -> None:
        """kombu O3, E5: what deletes itself is declared each time; transient entities are not."""
        each_time = [
            Exchange("e", auto_delete=True),
            Queue("a", auto_delete=True),
            Queue("b", expires=1),
            Queue("c", queue_arguments={"x-expires": 1}),
        ]
        for entity in each_time:
            self.assertEqual([self.declared(entity), self.declared(entity)], [True, True], entity)
        once = Queue("d", Exchange("e", durable=False), durable=False, message_ttl=1)
        self.assertEqual([self.declared(once), self.declared(once)], [True, False])

    def test_what_is_not_to_be_declared(self) -> None:
        """kombu O2, E14: False, and nobody is asked."""
        for entity in (Exchange(""), Exchange("amq.fanout", "fanout"), Queue("q", "x", no_declare=True)):
            self.assertFalse(self.declared(entity))
            self.assertFalse(self.successResultOf(maybe_declare(entity)))
        self.assertEqual((self.channel.calls, len(self.cache)), ([], 0))

    def test_server_named(self) -> None:
        """kombu O2, F17: the name reaches the original; another call declares nothing; another object is another."""
        queue = Queue("", "x")
        self.assertTrue(self.declared(queue))
        self.assertEqual(queue.name, "amq.gen-7-1")
        self.assertFalse(self.declared(queue))
        other = Queue("", "x")
        self.assertTrue(self.declared(other))
        self.assertEqual(other.name, "amq.gen-7-2")

    def test_errors(self) -> None:
        """kombu O2: without a channel NotBoundError; the broker's error comes through, and is not cached."""
        queue = Queue("q")
        self.failureResultOf(maybe_declare(queue), NotBoundError)
        self.failureResultOf(maybe_declare("q", self.channel), ConfigurationError)  # type: ignore[arg-type]
        self.failureResultOf(maybe_declare(queue, "amqp://"), ConfigurationError)
        self.channel.answer = lambda _: PreconditionFailed("another one is there")
        self.failureResultOf(maybe_declare(queue, self.channel), PreconditionFailed)
        self.channel.answer = None
        self.assertTrue(self.declared(queue))

    def test_without_a_cache(self) -> None:
        """On a bare channel of a transport it is declared each time."""
        bare = RecordingChannel()
        self.assertEqual([self.declared(Queue("q"), bare), self.declared(Queue("q"), bare)], [True, True])

    def test_another_channel(self) -> None:
        """A channel that is given takes the place of the one it is bound to."""
        bound = Queue("q")(self.channel)
        other = RecordingChannel(self.connection)
        self.assertTrue(self.declared(bound, other))
        self.assertEqual((self.channel.calls, other.methods), ([], ["queue_declare"]))
        self.assertIs(bound.channel, self.channel)

    def test_retry(self) -> None:
        """kombu O2: with retry, the connection's `ensure` gets the bound entity, the policy, and does it."""
        seen: list[Any] = []

        def ensure(entity: Any, call: Any, **policy: Any) -> Any:
            seen.append((entity, policy))
            return lambda: call()

        self.connection.ensure = ensure  # type: ignore[attr-defined]
        queue = Queue("q")
        self.assertTrue(self.declared(queue, retry=True, max_retries=3))
        self.assertEqual([(entity, policy) for entity, policy in seen], [(queue, {"max_retries": 3})])
        self.assertTrue(seen[0][0].is_bound)
        self.assertFalse(self.declared(queue, retry=True))


class CacheTests(SynchronousTestCase):
    """What the cache remembers, and how long."""

    def setUp(self) -> None:
        """A channel with a connection."""
        self.connection = RecordingConnection()
        self.channel = self.connection.default_channel
        self.cache = self.connection.declared_entities

    def test_cleared(self) -> None:
        """kombu O2, celery C-09: after a loss everything is declared again."""
        self.successResultOf(maybe_declare(Queue("q"), self.channel))
        self.cache.clear()
        self.assertTrue(self.successResultOf(maybe_declare(Queue("q"), self.channel)))

    def test_one_at_a_time(self) -> None:
        """kombu O2: those who ask meanwhile wait for the one declaration, and one of them did it."""
        answers: list[Deferred[Any]] = []

        def answer(_: str) -> Deferred[Any]:
            answers.append(Deferred())
            return answers[-1]

        self.channel.answer = answer
        first, second, third = (maybe_declare(Exchange("x"), self.channel) for _ in range(3))
        self.assertEqual(len(answers), 1)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        answers[0].callback(None)
        self.assertEqual((self.successResultOf(first), self.successResultOf(third)), (True, False))
        self.assertEqual(len(self.cache), 1)

    def test_the_first_gives_up(self) -> None:
        """It is declared, and remembered, for the others."""
        answer: Deferred[Any] = Deferred()
        self.channel.answer = lambda _: answer
        first, second = (maybe_declare(Exchange("x"), self.channel) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        answer.callback(None)
        self.successResultOf(second)
        self.assertIn(Exchange("x"), self.cache)

    def test_a_shared_failure(self) -> None:
        """All who wait for it get it, and the next one tries again."""
        answer: Deferred[Any] = Deferred()
        self.channel.answer = lambda _: answer
        waiting = [maybe_declare(Exchange("x"), self.channel) for _ in range(2)]
        answer.errback(PreconditionFailed("no"))
        for each in waiting:
            self.failureResultOf(each, PreconditionFailed)
        self.channel.answer = None
        self.assertTrue(self.successResultOf(maybe_declare(Exchange("x"), self.channel)))

    def test_anonymous_ones_meanwhile(self) -> None:
        """The same object is one queue, two objects are two."""
        answers: list[Deferred[Any]] = []

        def answer(_: str) -> Deferred[Any]:
            answers.append(Deferred())
            return answers[-1]

        self.channel.answer = answer
        queue = Queue()
        waiting = [maybe_declare(each, self.channel) for each in (queue, queue, Queue())]
        self.assertEqual(len(answers), 2)
        for each in waiting:
            each.cancel()
            self.failureResultOf(each, CancelledError)

    def test_cleared_while_under_way(self) -> None:
        """A declaration of the lost connection is not taken for one of the new."""
        answer: Deferred[Any] = Deferred()
        self.channel.answer = lambda _: answer
        before = maybe_declare(Exchange("x"), self.channel)
        self.cache.clear()
        self.channel.answer = None
        self.assertTrue(self.successResultOf(maybe_declare(Exchange("x"), self.channel)))
        self.cache.clear()
        answer.callback(None)
        self.successResultOf(before)
        self.assertEqual((len(self.cache), self.cache.epoch), (0, 2))

    def test_deleting_forgets(self) -> None:
        """What was deleted is declared again, and so is what was bound to it."""
        queue, other = Queue("q", "x", "key"), Queue("p", [binding("x", "a")])
        for entity in (queue, other, Exchange("x"), Queue("r", "y")):
            self.successResultOf(maybe_declare(entity, self.channel))
        self.cache.forget("queue", "q")
        self.assertNotIn(queue, self.cache)
        self.assertIn(Exchange("x"), self.cache)
        self.cache.forget("exchange", "x")
        self.assertNotIn(other, self.cache)
        self.assertIn(Queue("r", "y"), self.cache)

    def test_nothing_is_kept_alive(self) -> None:
        """kombu O4: neither channels nor entities, after it is declared."""
        channel = RecordingChannel(self.connection)
        queue = Queue("q", "x", on_declared=lambda *_: None)
        self.successResultOf(maybe_declare(queue, channel))
        dead: list[weakref.ref[Any]] = [weakref.ref(channel), weakref.ref(queue)]
        del channel, queue
        gc.collect()
        self.assertEqual([each() for each in dead], [None, None])
        self.assertEqual(len(self.cache), 1)

    def test_bounded(self) -> None:
        """The oldest make room: they are declared once more when they are asked for."""
        cache = self.connection.declared_entities = DeclarationCache(limit=2)
        for name in "abc":
            self.successResultOf(maybe_declare(Exchange(name), self.channel))
        self.assertEqual([Exchange(name) in cache for name in "abc"], [False, True, True])
        self.assertEqual(repr(cache), "<DeclarationCache: 2 declared, 0 under way>")
        self.assertNotIn("a", cache)

    def test_used_directly(self) -> None:
        """`declare` is what a Connection's other users call: the entity is bound already."""
        self.assertTrue(self.successResultOf(self.cache.declare(Queue("q")(self.channel))))
        self.assertFalse(self.successResultOf(self.cache.declare(Queue("q")(self.channel))))

    def test_entities_of_others(self) -> None:
        """A subclass decides for itself what can be cached."""

        class Fickle(Exchange):
            can_cache_declaration = False

            def declare(self, *_: Any, **__: Any) -> Deferred[None]:
                calls.append(self.name)
                return succeed(None)

        calls: list[str] = []
        for _ in range(2):
            self.assertTrue(self.successResultOf(maybe_declare(Fickle("x"), self.channel)))
        self.assertEqual(calls, ["x", "x"])


class ChangedTests(MemoryCase):
    """kombu O2: what is not as it was declared any more is declared again."""

    def declared(self, entity: Any) -> bool:
        return self.done(maybe_declare(entity, self.connection))

    def test_on_a_channel_that_is_gone(self) -> None:
        """kombu B21, O2: with its connection, it comes back; where nothing does, the error is one of connections."""
        queue = Queue("q")
        self.assertTrue(self.declared(queue))
        below = self.channel.transport_channel
        self.cut()
        self.assertTrue(self.done(maybe_declare(queue, self.channel)))
        assert below is not None
        error = self.failureResultOf(maybe_declare(Queue("r"), below)).value
        self.assertIsInstance(error, self.connection.connection_errors)
        self.assertTrue(is_recoverable(error))
        self.assertNotIsInstance(error, self.connection.channel_errors)

    def test_deleted(self) -> None:
        """By the entity, or on the channel by name."""
        queue, exchange = Queue("q"), Exchange("x")
        deletions: list[Any] = [
            (queue, lambda: queue(self.connection).delete()),
            (queue, lambda: self.channel.queue_delete("q")),
            (exchange, lambda: exchange(self.connection).delete()),
            (exchange, lambda: self.channel.exchange_delete("x")),
        ]
        for entity, delete in deletions:
            self.assertEqual((self.declared(entity), self.declared(entity)), (True, False))
            self.done(delete())
            self.assertTrue(self.declared(entity))
            self.done(delete())

    def test_a_deletion_that_is_refused(self) -> None:
        """Then it is as it was."""
        queue = Queue("q")
        self.declared(queue)
        self.send("q", b"1")
        self.failureResultOf(self.channel.queue_delete("q", if_empty=True), PreconditionFailed)
        self.assertFalse(self.declared(queue))

    def test_unbound(self) -> None:
        """A binding is a part of the queue's declaration."""
        queue = Queue("q", Exchange("x"), "key")
        self.declared(queue)
        self.done(queue(self.connection).unbind_from("x", "key"))
        self.assertTrue(self.declared(queue))
        self.done(self.channel.publish("x", "key", b"1", mandatory=True))

    def test_deleted_by_somebody_else(self) -> None:
        """The broker tells a consumer of the queue."""
        queue = Queue("q")
        self.done(Consumer(self.connection, queue, on_message=print, on_cancel=lambda *_: None).consume())
        self.assertEqual((self.declared(queue), self.declared(queue)), (True, False))
        self.done(self.done(self.connect().channel()).queue_delete("q"))
        self.turn()
        self.assertTrue(self.declared(queue))
