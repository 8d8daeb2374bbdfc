"""Mailbox: its settings, requests and their replies."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.pidbox.over_memory import PidboxCase
from txmsg.errors import (
    ChannelClosed,
    ConfigurationError,
    ConnectionForced,
    NotBoundError,
    PublishNacked,
)
from txmsg.messaging import Exchange, Producer, Queue
from txmsg.messaging.clocks import LamportClock
from txmsg.messaging.pidbox import Mailbox
from txmsg.messaging.pidbox.replies import Replies


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

    def test_the_connection_is_lost(self) -> None:
        """kombu P9: a call made while the connection is away is sent when it is back, and hears the replies."""
        self.node("one")
        self.done(self.mailbox.call(["one"], "ping"))
        for _ in range(3):
            self.connection.connection.end(ConnectionForced("cut", 320, initiator="server"))  # type: ignore[union-attr]
            calling = self.mailbox.call(["one"], "ping", timeout=10)
            self.turn(5)
            self.assertEqual(self.successResultOf(calling), [{"one": {"pong": {}}}])

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

    def test_closed_while_it_begins_to_listen(self) -> None:
        """The request is not sent, and no channel is opened for it."""
        listening: Deferred[None] = Deferred()
        with mock.patch.object(Replies, "listen", lambda replies: listening):
            calling = self.mailbox.call(["host"], "ping")
            self.turn()
            self.done(self.mailbox.close())
            listening.callback(None)
        self.turn()
        self.failureResultOf(calling, ChannelClosed)
        self.assertIsNone(self.mailbox._channel)

    def test_nothing_is_left_behind(self) -> None:
        """Neither calls that were answered, given up or never sent are remembered, nor their timers."""

        class Broken:
            def acquire(self, block: bool = False) -> Any:
                raise PublishNacked("not today")

        self.node("one")
        self.done(self.mailbox.call(["one"], "ping", timeout=5))
        timed_out = self.mailbox.call(["none"], "ping", timeout=5)
        given_up = self.mailbox.call(["none"], "ping", timeout=5)
        self.turn()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.turn(5)
        self.assertEqual(self.successResultOf(timed_out), [])
        self.mailbox.producer_pool = Broken()
        never_sent = self.mailbox.call(["one"], "ping", timeout=5)
        self.turn()
        self.failureResultOf(never_sent, PublishNacked)
        assert self.mailbox._replies is not None
        self.assertEqual((self.mailbox._replies.waiting, self.timers()), ({}, []))

    def test_an_answered_call_takes_no_more(self) -> None:
        """With enough replies it is over: those that come later change nothing."""
        nodes = [self.node(name) for name in ("one", "two", "three")]
        seen: list[Any] = []
        replies = self.done(self.mailbox.multi_call("ping", limit=1, callback=seen.append))
        self.turn()
        self.assertEqual((len(replies), len(seen)), (1, 1))
        self.assertEqual([len(node.state["calls"]) for node in nodes], [1, 1, 1])

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

    def test_a_reply_without_a_ticket(self) -> None:
        """kombu P11: a request that has none gets a reply without that header; None is never sent."""
        seen = self.watch(Queue("", self.mailbox.reply_exchange, "k", exclusive=True))
        self.node("one")
        self.to_all({"method": "ping", "reply_to": {"exchange": "reply.app.pidbox", "routing_key": "k"}})
        self.turn()
        self.assertEqual([set(message.headers) for message in seen], [{"clock"}])

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
