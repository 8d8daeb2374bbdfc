"""Mailbox and Node over memory://, on a clock that the test turns."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import (
    ChannelClosed,
    ConfigurationError,
    InconsistencyError,
    NotBoundError,
)
from txmsg.messaging import Consumer, Exchange, Message, Producer, Queue
from txmsg.messaging.clocks import LamportClock
from txmsg.messaging.pidbox import Mailbox, Node


class PidboxCase(MemoryCase):
    """A mailbox bound to a connection; nodes have connections of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.mailbox = Mailbox("app")(self.connection)

    def node(self, hostname: str, **settings: Any) -> Node:
        """A node that listens, with some commands."""
        mailbox = Mailbox("app", **settings)(self.connect())
        node = mailbox.Node(hostname, state={"calls": []})

        @node.handler
        def ping(state: Any, **arguments: Any) -> Any:
            state["calls"].append(arguments)
            return {"pong": arguments}

        @node.handler
        def fail(state: Any) -> Any:
            raise RuntimeError("it broke")

        @node.handler
        def odd(state: Any) -> Any:
            return object()

        self.done(node.listen())
        return node

    def timers(self) -> list[Any]:
        """Those of requests; the broker has its own."""
        return [call for call in self.clock.getDelayedCalls() if "Request" in repr(call)]

    def watch(self, queue: Queue) -> list[Message]:
        """What comes to a queue."""
        seen: list[Message] = []
        consumer = Consumer(self.connect(), [queue], no_ack=True, on_message=seen.append)
        self.done(consumer.consume())
        return seen

    def to_all(self, body: Any, headers: dict[str, Any] | None = None, **options: Any) -> None:
        """Something to all nodes, as anybody could send it."""
        producer = Producer(self.connection)
        self.done(producer.publish(body, exchange=self.mailbox.exchange, headers=headers, **options))


class EntityTests(PidboxCase):
    """Names and settings."""

    def test_entities(self) -> None:
        """kombu P1, P10: exchanges and queues as Kombu 5 declares them."""
        mailbox = Mailbox("app", "fanout")
        self.assertEqual(mailbox.exchange, Exchange("app.pidbox", "fanout", durable=False, delivery_mode=1))
        reply_exchange = Exchange("reply.app.pidbox", "direct", durable=False, delivery_mode=1)
        self.assertEqual(mailbox.reply_exchange, reply_exchange)
        flags: dict[str, Any] = {"durable": False, "exclusive": True, "auto_delete": True}
        self.assertEqual(mailbox.get_queue("host"), Queue("host.app.pidbox", mailbox.exchange, **flags))
        self.assertEqual(
            mailbox.reply_queue,
            Queue(f"{mailbox.oid}.reply.app.pidbox", reply_exchange, mailbox.oid, expires=10, **flags),
        )

    def test_settings(self) -> None:
        """kombu P1: times of both queues in seconds; durable ones are neither exclusive nor deleted by themselves."""
        mailbox = Mailbox(
            "app",
            queue_ttl=1.5,
            queue_expires=2,
            reply_queue_ttl=3,
            reply_queue_expires=None,
            queue_durable=True,
            queue_exclusive=False,
        )
        flags: dict[str, Any] = {"durable": True, "exclusive": False, "auto_delete": False}
        expected = Queue("host.app.pidbox", mailbox.exchange, message_ttl=1.5, expires=2, **flags)
        self.assertEqual(mailbox.get_queue("host"), expected)
        self.assertEqual(mailbox.get_reply_queue().arguments, {"x-message-ttl": 3000})
        self.assertEqual(mailbox.accept, ["json"])
        with self.assertRaisesRegex(ConfigurationError, "give one"):
            Mailbox("app", queue_durable=True)
        with self.assertRaises(ConfigurationError):
            Mailbox(3)  # type: ignore[arg-type]

    def test_binding(self) -> None:
        """kombu P2: a bound copy, with the same clock and a reply queue of its own; the original stays unbound."""
        mailbox = Mailbox("app")
        bound = mailbox(self.connection)
        self.assertIsNone(mailbox.connection)
        self.assertIs(bound.connection, self.connection)
        self.assertIs(bound.clock, mailbox.clock)
        self.assertNotEqual(bound.oid, mailbox.oid)
        self.assertIn(bound.oid, bound.reply_queue.name)
        self.failureResultOf(mailbox.abcast("ping"), NotBoundError)
        self.failureResultOf(mailbox.multi_call("ping"), NotBoundError)
        with self.assertRaisesRegex(ConfigurationError, "bound to a connection, not to a Channel"):
            mailbox(self.channel)  # type: ignore[arg-type]
        self.assertRegex(repr(mailbox), "<Mailbox 'app' .direct., unbound>")


class CallTests(PidboxCase):
    """Requests and replies."""

    def test_call(self) -> None:
        """kombu P3, P5: the nodes that are listed reply, each with what its handler returned."""
        one, two, three = (self.node(name) for name in ("one", "two", "three"))
        seen: list[Any] = []
        replies = self.done(self.mailbox.call(["one", "two"], "ping", {"a": 1}, 5, seen.append))
        expected = [{"one": {"pong": {"a": 1}}}, {"two": {"pong": {"a": 1}}}]
        self.assertEqual(sorted(replies, key=str), expected)
        self.assertEqual(sorted(seen, key=str), expected)
        self.assertEqual([node.state["calls"] for node in (one, two, three)], [[{"a": 1}], [{"a": 1}], []])
        self.assertEqual(self.timers(), [])

    def test_not_all_reply(self) -> None:
        """kombu P5: with a timeout, what came by then; a limit may be lower."""
        self.node("one")
        self.node("two")
        calling = self.mailbox.call(["one", "none"], "ping", timeout=3)
        self.turn()
        self.assertNoResult(calling)
        self.turn(3)
        self.assertEqual(self.successResultOf(calling), [{"one": {"pong": {}}}])
        self.assertEqual(len(self.done(self.mailbox.call(["one", "two", "none"], "ping", limit=2))), 2)

    def test_multi_call(self) -> None:
        """kombu P6: all nodes; what came within the timeout, or as soon as there are enough."""
        nodes = [self.node(name) for name in ("one", "two", "three")]
        asking = self.mailbox.multi_call("ping")
        self.turn(0.5)
        self.assertNoResult(asking)
        self.turn(0.6)
        self.assertEqual({host for reply in self.successResultOf(asking) for host in reply}, {"one", "two", "three"})
        self.assertEqual(len(self.done(self.mailbox.multi_call("ping", limit=3))), 3)
        self.assertEqual([len(node.state["calls"]) for node in nodes], [2, 2, 2])

    def test_cast_and_abcast(self) -> None:
        """kombu P6: some or all are told, and nobody replies."""
        one, two = self.node("one"), self.node("two")
        self.done(self.mailbox.cast(["two"], "ping", {"n": 1}))
        self.done(self.mailbox.abcast("ping", {"n": 2}))
        self.turn()
        self.assertEqual(one.state["calls"], [{"n": 2}])
        self.assertEqual(two.state["calls"], [{"n": 1}, {"n": 2}])

    def test_patterns(self) -> None:
        """kombu P8: nodes whose names match a glob or a regular expression."""
        nodes = {name: self.node(name) for name in ("web-1", "web-2", "db-1")}
        self.done(self.mailbox.abcast("ping", {"n": 1}, pattern="web-*"))
        self.done(self.mailbox.abcast("ping", {"n": 2}, pattern=r".*-1$", matcher="pcre"))
        replies = self.done(self.mailbox.multi_call("ping", {"n": 3}, limit=1, pattern="db-[0-9]"))
        self.assertEqual(replies, [{"db-1": {"pong": {"n": 3}}}])
        self.assertEqual(
            {name: [call["n"] for call in node.state["calls"]] for name, node in nodes.items()},
            {"web-1": [1, 2], "web-2": [1], "db-1": [2, 3]},
        )

    def test_fanout(self) -> None:
        """kombu P1: with type="fanout" it works the same way."""
        node = Mailbox("other", "fanout")(self.connect()).Node("one", handlers={"hello": lambda state: "world"})
        self.done(node.listen())
        self.assertEqual(
            self.done(Mailbox("other", "fanout")(self.connection).call(["one"], "hello")), [{"one": "world"}]
        )

    def test_at_the_same_time(self) -> None:
        """Replies go to the request whose ticket they carry, in whatever order they come."""
        node = self.node("one")
        waiting: dict[int, Deferred[int]] = {}

        @node.handler
        def later(state: Any, number: int) -> Deferred[int]:
            waiting[number] = Deferred()
            return waiting[number]

        first, second = (self.mailbox.call(["one"], "later", {"number": number}) for number in (1, 2))
        self.turn()
        waiting[2].callback(22)
        self.assertEqual(self.done(second), [{"one": 22}])
        self.assertNoResult(first)
        waiting[1].callback(11)
        self.assertEqual(self.done(first), [{"one": 11}])

    def test_late_replies(self) -> None:
        """kombu P9: one that nobody waits for is dropped, also where the reply queue is gone."""
        node = self.node("one")
        waiting: list[Deferred[str]] = []

        @node.handler
        def later(state: Any) -> Deferred[str]:
            waiting.append(Deferred())
            return waiting[-1]

        for gone in (False, True):
            calling = self.mailbox.call(["one"], "later", timeout=1)
            self.turn()
            self.turn(1)
            self.assertEqual(self.successResultOf(calling), [])
            if gone:
                self.done(self.mailbox.close())
            waiting[-1].callback("too late")
            self.turn()
        self.assertEqual(self.done(self.mailbox.call(["one"], "ping")), [{"one": {"pong": {}}}])

    def test_expired_replies(self) -> None:
        """kombu P11: a reply that says when it expires is not taken after that."""
        calling = self.mailbox.multi_call("ping", timeout=5)
        self.turn(1)
        assert self.mailbox._replies is not None
        (ticket,) = self.mailbox._replies.waiting
        producer = Producer(self.connect())
        for name, expires in (("past", 0.5), ("future", 60), ("never", 0)):
            headers = {"ticket": ticket, "expires": expires}
            where = {"exchange": self.mailbox.reply_exchange, "routing_key": self.mailbox.oid}
            self.done(producer.publish({name: 1}, headers=headers, **where))  # type: ignore[arg-type]
        self.turn(5)
        self.assertEqual(self.successResultOf(calling), [{"future": 1}, {"never": 1}])

    def test_giving_up(self) -> None:
        """A call can be cancelled; closing the mailbox ends those that wait, and it can be used again."""
        calling = self.mailbox.call(["none"], "ping")
        self.turn()
        calling.cancel()
        self.failureResultOf(calling, CancelledError)
        calling = self.mailbox.call(["none"], "ping")
        self.turn()
        self.done(self.mailbox.close())
        self.failureResultOf(calling, ChannelClosed)
        self.node("one")
        self.assertEqual(len(self.done(self.mailbox.call(["one"], "ping"))), 1)
        self.assertEqual(self.timers(), [])

    def test_the_connection_is_closed(self) -> None:
        """A call that waits fails; with the connection in use again, so is the mailbox."""
        calling = self.mailbox.call(["none"], "ping")
        self.turn()
        self.done(self.connection.close())
        self.failureResultOf(calling)

    def test_a_callback_that_fails(self) -> None:
        """The call fails with it."""
        self.node("one")
        calling = self.mailbox.call(["one"], "ping", callback=lambda reply: 1 // 0)
        self.turn()
        self.failureResultOf(calling, ZeroDivisionError)

    def test_wrong_arguments(self) -> None:
        """Refused at once, before anything is sent; nothing is raised."""
        wrong: list[Deferred[Any]] = [
            self.mailbox.call([], "ping"),
            self.mailbox.call("one", "ping"),
            self.mailbox.call(None, "ping"),
            self.mailbox.cast((), "ping"),
            self.mailbox.call(["one"], ""),
            self.mailbox.call(["one"], "ping", "x"),  # type: ignore[arg-type]
            self.mailbox.call(["one"], "ping", timeout=-1),
            self.mailbox.call(["one"], "ping", limit=0),
            self.mailbox.multi_call("ping", timeout=None),
            self.mailbox.abcast("ping", pattern="*", matcher="none"),
        ]
        for call in wrong:
            self.failureResultOf(call, ConfigurationError)

    def test_clocks(self) -> None:
        """kombu P11, R1: each message has a clock above all that its sender has seen; requests say when they expire."""
        seen = self.watch(Queue("", self.mailbox.exchange, exclusive=True))
        node = self.node("one", clock=LamportClock(100))
        self.done(self.mailbox.call(["one"], "ping", timeout=2))
        self.assertEqual(seen[0].headers, {"clock": 1, "expires": 2.0})
        self.assertGreater(node.mailbox.clock.value, 100)
        self.assertGreater(self.mailbox.clock.value, 100)
        self.done(self.mailbox.abcast("ping"))
        self.turn()
        self.assertEqual(seen[1].headers["expires"], 0)
        self.assertGreater(node.mailbox.clock.value, seen[1].headers["clock"])

    def test_the_request_on_the_wire(self) -> None:
        """kombu P5, P10, P11: its fields, as Kombu 5 has them; no header is None."""
        seen = self.watch(Queue("", self.mailbox.exchange, exclusive=True))
        calling = self.mailbox.call(["one"], "ping", {"a": 1})
        self.turn()
        body = json.loads(seen[0].body)
        ticket = body.pop("ticket")
        self.assertEqual(len(ticket), 36)
        self.assertEqual(
            body,
            {
                "method": "ping",
                "arguments": {"a": 1},
                "destination": ["one"],
                "pattern": None,
                "matcher": None,
                "reply_to": {"exchange": "reply.app.pidbox", "routing_key": self.mailbox.oid},
            },
        )
        self.assertEqual(seen[0].properties["delivery_mode"], 1)
        self.assertNotIn(None, seen[0].headers.values())
        calling.cancel()
        self.failureResultOf(calling, CancelledError)

    def test_producers_of_a_pool(self) -> None:
        """kombu P1: with a producer pool, or something that returns one, requests go through its producers."""

        class Pool:
            lent = 0

            def acquire(self, block: bool = False) -> Any:
                return self

            async def __aenter__(self) -> Producer:
                self.lent += 1
                return producer

            async def __aexit__(self, *_: Any) -> None: ...

        producer, pool = Producer(self.connect()), Pool()
        node = self.node("one")
        for given in (pool, lambda: pool):
            self.done(Mailbox("app", producer_pool=given)(self.connection).abcast("ping"))
        self.turn()
        self.assertEqual((pool.lent, len(node.state["calls"])), (2, 2))


class NodeTests(PidboxCase):
    """What a node does with what comes."""

    def test_handlers(self) -> None:
        """kombu P3: by the function's name, of the node or of the mailbox; the state first; awaitables are run."""

        @self.mailbox.handler
        def everybody(state: Any) -> Any:
            return state

        node = self.mailbox.Node("one", 7, handlers={"own": lambda state, n: state + n})

        @node.handler
        async def slow(state: int, n: int) -> int:
            await later
            return state * n

        later: Deferred[None] = Deferred()
        self.done(node.listen())
        self.assertEqual(self.done(self.mailbox.call(["one"], "everybody")), [{"one": 7}])
        self.assertEqual(self.done(self.mailbox.call(["one"], "own", {"n": 1})), [{"one": 8}])
        calling = self.mailbox.call(["one"], "slow", {"n": 3})
        self.turn()
        self.assertNoResult(calling)
        later.callback(None)
        self.assertEqual(self.done(calling), [{"one": 21}])
        self.assertNotIn("own", self.mailbox.Node("two").handlers)

    def test_errors_are_replies(self) -> None:
        """kombu P7: an exception, an unknown command, wrong arguments, a result that JSON cannot carry."""
        self.node("one")
        for command, arguments, text in (
            ("fail", {}, "RuntimeError('it broke')"),
            ("none", {}, "no command 'none'"),
            ("fail", {"x": 1}, "unexpected keyword argument 'x'"),
            ("odd", {}, "EncodeError"),
        ):
            ((host, reply),) = self.done(self.mailbox.call(["one"], command, arguments))[0].items()
            self.assertEqual(host, "one")
            self.assertIn(text, reply["error"])
        self.assertEqual(len(self.flushLoggedErrors()), 3)
        self.assertEqual(self.done(self.mailbox.call(["one"], "ping")), [{"one": {"pong": {}}}])

    def test_poison(self) -> None:
        """kombu P4: what cannot be decoded, may not be, or makes no sense is dropped; the next request is done."""
        node = self.node("one")
        self.to_all(b"{", content_type="application/json")
        self.to_all({"method": "ping"}, serializer="yaml")
        self.to_all([1, 2])
        self.to_all({"method": ["ping"]})
        self.to_all({"method": "ping", "arguments": [1]})
        self.to_all({"method": "ping", "destination": "one"})
        self.to_all({"method": "ping"}, {"clock": 2**63 - 1})
        for reply_to in ("x", {"exchange": "elsewhere", "routing_key": "k"}, {"exchange": "reply.app.pidbox"}):
            self.to_all({"method": "ping", "reply_to": reply_to})
        self.assertEqual(len(self.flushLoggedErrors()), 2)
        self.assertEqual(self.done(self.mailbox.call(["one"], "ping", {"n": 1})), [{"one": {"pong": {"n": 1}}}])
        self.assertEqual(len(node.state["calls"]), 5)

    def test_the_same_name_twice(self) -> None:
        """kombu P4: InconsistencyError where queues are exclusive."""
        self.node("one")
        second = Mailbox("app")(self.connect()).Node("one")
        listening = second.listen()
        self.turn()
        failure = self.failureResultOf(listening, InconsistencyError)
        self.assertIn("give this one another name", failure.getErrorMessage())

    def test_the_same_name_twice_not_exclusive(self) -> None:
        """kombu P4: where queues are not exclusive it is a warning; and the name is free again after close."""
        with capturedLogs() as events:
            first = self.node("one", queue_exclusive=False)
            self.assertEqual([each for each in map(formatEvent, events) if "another node" in each], [])
            self.node("one", queue_exclusive=False)
        warnings = [each for each in map(formatEvent, events) if "another node" in each]
        self.assertEqual(warnings, ["another node named one takes a part of the requests"])
        self.done(first.close())

    def test_listening(self) -> None:
        """kombu P4: fires with a consumer that needs no acks; a callback may take the place of the handlers."""
        seen: list[Any] = []
        node = self.mailbox.Node("one")
        consumer = self.done(node.listen(callback=lambda body, message: seen.append(body["method"])))
        self.assertIsInstance(consumer, Consumer)
        self.assertTrue(consumer.no_ack)
        self.assertIn("'one' of 'app', listening", repr(node))
        self.done(self.mailbox.abcast("ping"))
        self.turn()
        self.assertEqual(seen, ["ping"])
        self.done(node.close())
        self.assertIn("not listening", repr(node))

    def test_closing_waits_for_handlers(self) -> None:
        """What was begun is done, and replied to."""
        node = self.node("one")
        later: Deferred[str] = Deferred()
        node.handlers["slow"] = lambda state: later
        calling = self.mailbox.call(["one"], "slow")
        self.turn()
        closing = node.close()
        self.turn()
        self.assertNoResult(closing)
        later.callback("done")
        self.done(closing)
        self.assertEqual(self.done(calling), [{"one": "done"}])

    def test_wrong_arguments(self) -> None:
        """A node has a name and a mailbox; the machine's name is the default."""
        with self.assertRaises(ConfigurationError):
            Node("one")
        with self.assertRaises(ConfigurationError):
            Node("", mailbox=self.mailbox)
        self.assertTrue(self.mailbox.Node().hostname)

    def test_dispatch(self) -> None:
        """kombu P7: without a reply wanted it fires with the result, or with the error as a reply."""
        node = self.node("one")
        self.assertEqual(self.done(node.dispatch("ping", {"a": 1}, whatever=3)), {"pong": {"a": 1}})
        self.assertIn("it broke", self.done(node.dispatch("fail"))["error"])
        self.flushLoggedErrors(RuntimeError)
