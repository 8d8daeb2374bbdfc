"""Node: what it does with what comes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.messaging.pidbox.over_memory import PidboxCase
from txmsg.errors import (
    ConfigurationError,
    InconsistencyError,
)
from txmsg.messaging import Consumer
from txmsg.messaging.pidbox import Mailbox, Node


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
        bound = self.mailbox(self.connection)
        bound.handler(slow)
        self.assertEqual(set(bound.handlers), {"everybody", "slow"})
        self.assertEqual(set(self.mailbox.handlers), {"everybody"})

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
        self.assertEqual(len(self.flushLoggedErrors()), 2, "there is no traceback for what anybody may ask for")
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
        self.assertEqual(len(self.flushLoggedErrors()), 1)
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
