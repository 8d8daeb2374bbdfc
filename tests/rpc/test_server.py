"""RPCServer over memory://, with callers by hand and with RPCClient."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, ConnectionLost, RemoteError
from txmsg.rpc import IncomingCall, RPCClient, RPCServer, replies
from txmsg.rpc.reply_channel import open_plain_channel

NOW = 1_000_000.0


async def _at_once() -> None:
    """Ends without having waited."""


class ServerCase(MemoryCase):
    """A server of "math", a client, and a queue for replies by hand."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.client = RPCClient(self.connect(), wall_clock=self.now)
        self.addCleanup(self.client.close)
        self.replies: list[Any] = []
        self.reply_to = self.done(self.channel.queue_declare("", exclusive=True)).name
        self.done(self.channel.consume(self.reply_to, self.replies.append, no_ack=True))

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def serve(self, queue: Any = "math", **settings: Any) -> RPCServer:
        """A server that runs, with some functions."""
        server = RPCServer(self.connect(), queue, **{"wall_clock": self.now, **settings})
        self.waiting: list[Deferred[Any]] = []
        self.begun: list[Any] = []

        @server.register
        def add(a: int, b: int) -> int:
            return a + b

        @server.register
        def wait(value: Any = None) -> Deferred[Any]:
            self.begun.append(value)
            self.waiting.append(Deferred())
            return self.waiting[-1]

        self.done(server.start())
        self.addCleanup(self.turn, 30.0)
        self.addCleanup(server.stop)
        return server

    def call(self, method: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        deferred = self.client.call("math", method, *args, **kwargs)
        self.turn()
        return deferred

    def request(self, body: Any, **properties: Any) -> None:
        """A request by hand, for a reply to `reply_to`."""
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        made = {"content_type": "application/json", "reply_to": self.reply_to, "correlation_id": "1", **properties}
        self.done(
            self.channel.publish("", "math", octets, {name: value for name, value in made.items() if value is not None})
        )
        self.turn()

    def answers(self) -> list[Any]:
        return [json.loads(reply.body) for reply in self.replies]


class CallingTests(ServerCase):
    """What can be called, and what comes back."""

    def test_functions(self) -> None:
        """A plain one, one that returns a Deferred, and a coroutine."""

        @self.server.register("sleep")
        async def slowly(n: int) -> int:
            waits: Deferred[int] = Deferred()
            self.waiting.append(waits)
            return n + await waits

        self.assertEqual(self.successResultOf(self.call("add", 1, b=2)), 3)
        later, slow = self.call("wait"), self.call("sleep", 10)
        self.assertEqual(self.server.calls_running, 2)
        self.waiting[0].callback("fired")
        self.waiting[1].callback(5)
        self.turn()
        self.assertEqual(self.successResultOf(later), "fired")
        self.assertEqual(self.successResultOf(slow), 15)
        self.assertEqual(self.server.calls_running, 0)
        self.assertEqual(self.depth("math"), (0, 0))

    def test_errors(self) -> None:
        """R27: raised at once, by a Deferred, for want of an argument, and a result that JSON cannot carry."""
        self.server.register(lambda: object(), "bad")
        self.server.register(lambda: 1 / 0, "boom")
        found = [self.failureResultOf(self.call(name), RemoteError).value for name in ("add", "bad", "boom")]
        self.assertEqual([error.exc_type for error in found], ["TypeError", "EncodeError", "ZeroDivisionError"])
        self.assertEqual(found[2].exc_args, ("division by zero",))
        self.assertEqual(found[2].remote_traceback, "")
        later = self.call("wait")
        self.waiting[0].errback(KeyError("k"))
        self.turn()
        self.assertEqual(self.failureResultOf(later, RemoteError).value.exc_type, "KeyError")
        self.assertEqual((self.server.counts.failed, self.depth("math")), (4, (0, 0)))

    def test_only_what_is_registered(self) -> None:
        """R27: no attribute, no module: a name of the server's own list, or nothing."""
        for name in ("__init__", "os.system", "stop", "register", "Add"):
            error = self.failureResultOf(self.call(name), RemoteError).value
            self.assertEqual(error.exc_type, "NoSuchMethod")
        self.assertEqual(self.server.counts.unknown, 5)

    def test_progress(self) -> None:
        """States before the result, from a function that is given its call."""
        calls: list[IncomingCall] = []

        @self.server.register(bind=True)
        def steps(call: IncomingCall, count: int) -> Deferred[str]:
            calls.append(call)
            for n in range(count):
                call.progress(n)
            self.waiting.append(Deferred())
            return self.waiting[-1]

        seen: list[Any] = []
        result = self.client.request("math", "steps", [3], on_progress=seen.append)
        self.turn()
        self.assertEqual(seen, [0, 1, 2])
        calls[0].progress({"later": True})
        self.waiting[0].callback("end")
        self.turn()
        calls[0].progress("after the end")
        self.turn()
        self.assertEqual(seen, [0, 1, 2, {"later": True}])
        self.assertEqual(self.successResultOf(result), "end")
        self.assertEqual(self.client.counts.duplicate, 0)
        self.assertIn("over", repr(calls[0]))

    def test_registering(self) -> None:
        """A name once, and a name at all."""
        self.assertEqual(self.server.methods, ["add", "wait"])
        for wrong in ((lambda: None,), (len, ""), (len, "add")):
            self.assertRaises(ConfigurationError, self.server.register, *wrong)
        self.assertRaises(ConfigurationError, self.server.register("x"), 3)
        self.assertIs(self.server.register(len), len)
        self.assertRaises(ConfigurationError, RPCServer, self.connection, "q", concurrency=0)
        self.assertRaises(ConfigurationError, RPCServer, self.connection, "q", reply_prefixes=[""])

    def test_tracebacks(self) -> None:
        """Only where they are asked for."""
        self.done(self.server.stop())
        self.server = self.serve(tracebacks=True)
        self.server.register(lambda: 1 / 0, "boom")
        self.assertIn("1 / 0", self.failureResultOf(self.call("boom"), RemoteError).value.remote_traceback)


class RefusingTests(ServerCase):
    """What is not run."""

    def test_reply_addresses(self) -> None:
        """C6.1: replies go where brokers name queues for replies, and to no queue that a caller chooses."""
        self.done(self.channel.queue_declare("orders"))
        add = {"method": "add", "args": [1, 2]}
        for name in ("orders", "", "amq.rabbitmq.reply", "amq.gen", "math", "x.amq.gen-1"):
            self.request(add, reply_to=name)
        self.assertEqual(self.server.counts.refused, 6)
        self.assertEqual(self.server.counts.succeeded, 0)
        self.assertEqual((self.depth("orders"), self.depth("math")), ((0, 0), (0, 0)))
        self.request(add)
        self.assertEqual(self.answers(), [{"result": 3}])

    def test_a_prefix_of_ones_own(self) -> None:
        """C6.1: or to names that begin as was configured."""
        self.done(self.server.stop())
        self.server = self.serve(reply_prefixes=["replies."])
        self.done(self.channel.queue_declare("replies.one"))
        self.request({"method": "add", "args": [1, 2]}, reply_to="replies.one")
        self.assertEqual(self.depth("replies.one"), (1, 0))

    def test_without_a_reply_address(self) -> None:
        """It is run, and nobody is told."""
        self.request({"method": "add", "args": [1, 2]}, reply_to=None)
        self.assertEqual((self.server.counts.succeeded, self.depth("math")), (1, (0, 0)))

    def test_headers_are_not_copied(self) -> None:
        """C6.2: a reply has the correlation id of its request, and nothing else of it."""
        self.request({"method": "add", "args": [1, 2]}, headers={"CC": ["math"], "x": 1}, app_id="me", priority=3)
        self.assertEqual(
            dict(self.replies[0].properties),
            {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": "1"},
        )

    def test_deadline(self) -> None:
        """A call whose deadline has passed is not run, also when it has waited here."""
        self.request({"method": "add", "args": [1, 2], "deadline": NOW - 1})
        self.request({"method": "add", "args": [1, 2], "deadline": NOW + 100})
        self.assertEqual((self.server.counts.expired, self.answers()), (1, [{"result": 3}]))

    def test_deadline_of_what_waits(self) -> None:
        """Behind the concurrency limit."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=1, prefetch_count=10)
        self.request({"method": "wait"})
        self.request({"method": "add", "args": [1, 2], "deadline": self.now() + 1})
        self.clock.advance(2)
        self.waiting[0].callback("first")
        self.turn()
        self.assertEqual((self.server.counts.expired, self.answers()), (1, [{"result": "first"}]))
        self.assertEqual(self.depth("math"), (0, 0))

    def test_undecodable(self) -> None:
        """Said to the caller, and dropped; no class is built, no pickle opened."""
        for body, properties in [
            (b"{", {}),
            ([], {}),
            ({"method": 3}, {}),
            (b"\x80\x04N.", {"content_type": "application/x-python-serialize"}),
        ]:
            self.request(body, **properties)
        self.assertEqual(
            [answer["error"]["exc_type"] for answer in self.answers()], ["DecodeError"] * 3 + ["ContentDisallowed"]
        )
        self.assertEqual((self.server.counts.undecodable, self.depth("math")), (4, (0, 0)))

    def test_nothing_stays(self) -> None:
        """A request that nobody can read, or whose error nobody can, takes no place for ever."""

        class BrokenError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        def broken() -> None:
            raise BrokenError

        async def broken_later() -> None:
            raise BrokenError

        def leave() -> None:
            raise SystemExit(1)

        for function in (broken, broken_later, leave):
            self.server.register(function)
            self.request({"method": function.__name__})
        self.request({"method": "add", "args": [1, 2]}, headers={"compression": "bzip2"})
        self.request(b'{"method": "add", "args": [1, 2], "deadline": ' + b"9" * 400 + b"}")
        self.assertEqual(
            [answer.get("error", {}).get("exc_type") for answer in self.answers()],
            ["BrokenError", "BrokenError", "SystemExit", "ContentDisallowed", None],
        )
        self.assertEqual(self.depth("math"), (0, 0))

    def test_a_defect_of_ours(self) -> None:
        """It is logged, and costs one request."""

        def defect(*args: Any) -> None:
            raise ZeroDivisionError

        self.patch(self.server, "_run", defect)
        self.request({"method": "add"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.depth("math"), (0, 0))

    def test_a_reply_is_in_what_is_accepted(self) -> None:
        """Not in whatever a caller names."""
        self.request(b"\x80", content_type="application/x-msgpack")
        self.assertEqual(self.replies[0].properties["content_type"], "application/json")


class LimitTests(ServerCase):
    """Concurrency, and when a request is settled."""

    def test_concurrency(self) -> None:
        """So many at a time; the others wait here or in the queue, in order."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=2, prefetch_count=3)
        for n in range(5):
            self.request({"method": "wait", "args": [n]})
        self.assertEqual((self.begun, self.server.calls_running), ([0, 1], 2))
        self.assertEqual(self.depth("math"), (2, 3))
        for n in range(5):
            self.waiting[n].callback(n)
            self.turn()
            self.assertLessEqual(self.server.calls_running, 2)
        self.assertEqual(self.begun, [0, 1, 2, 3, 4])
        self.assertEqual(self.answers(), [{"result": n} for n in range(5)])

    def test_many_that_end_at_once(self) -> None:
        """Behind one that takes its time; however many, they do not begin within each other."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=1, prefetch_count=1000)
        self.server.register(_at_once, "soon")
        self.request({"method": "wait"})
        for _ in range(600):
            self.channel.publish("", "math", b'{"method": "soon"}', {"content_type": "application/json"})
        self.turn()
        self.turn()
        self.assertEqual(self.server.counts.received, 601)
        self.waiting[0].callback(None)
        self.turn()
        self.assertEqual((self.server.counts.succeeded, self.depth("math")), (601, (0, 0)))

    def test_what_waited_and_was_lost(self) -> None:
        """It comes again, and is run once."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=1, prefetch_count=10)
        for n in range(2):
            self.request({"method": "wait", "args": [n]})
        self.cut()
        self.turn(5)
        self.waiting[0].callback("of the lost connection")
        self.turn()
        for deferred in self.waiting[1:]:
            deferred.callback(None)
        self.turn()
        self.waiting[-1].callback(None) if not self.waiting[-1].called else None
        self.turn()
        self.assertEqual(self.begun, [0, 0, 1])

    def test_settled_after_the_reply(self) -> None:
        """A request whose server has lost its connection is run again, by whoever is there."""
        self.request({"method": "wait", "args": ["a"]})
        self.assertEqual(self.depth("math"), (0, 1))
        self.cut()
        self.turn(5)
        self.assertEqual(self.begun, ["a", "a"])

    def test_settled_before(self) -> None:
        """acks_late=False: never twice."""
        self.done(self.server.stop())
        self.server = self.serve(acks_late=False)
        self.request({"method": "wait"})
        self.assertEqual(self.depth("math"), (0, 0))
        self.waiting[0].callback(1)
        self.turn()
        self.assertEqual(self.answers(), [{"result": 1}])

    def test_what_waited_and_was_lost_is_not_kept(self) -> None:
        """R24: however often the connection is lost while nothing ends."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=2, prefetch_count=6)
        for n in range(6):
            self.request({"method": "wait", "args": [n]})
        for _ in range(10):
            self.cut()
            self.turn(5)
        self.assertGreater(self.server.counts.received, 50)
        self.assertLess(len(self.server._waiting), 20)

    def test_settled_behind_its_reply(self) -> None:
        """As long as the reply has not left, another server can still give it."""
        left: Deferred[None] = Deferred()
        self.patch(self.server._replies._channel, "publish", lambda *args: left)
        self.request({"method": "add", "args": [1, 2]})
        self.assertEqual(self.depth("math"), (0, 1))
        left.callback(None)
        self.turn()
        self.assertEqual(self.depth("math"), (0, 0))

    def test_what_comes_again_is_settled_ahead_of_its_reply(self) -> None:
        """C6.1: RabbitMQ ends the connection of whoever writes to a forged address; not of each server in turn."""
        depths: list[tuple[int, int]] = []
        original = open_plain_channel

        def open_channel(*args: Any) -> Deferred[Any]:
            return original(*args).addCallback(watched)

        def watched(channel: Any) -> Any:
            publish = channel.publish

            def published(*args: Any) -> Any:
                depths.append(self.depth("math"))
                return publish(*args)

            channel.publish = published
            return channel

        self.patch(replies, "open_plain_channel", open_channel)
        for method in ("add", "steps", "{"):
            self.done(self.server.stop())
            self.request({"method": method, "args": [1, 2]} if method != "{" else b"{")
            other = self.connect()
            taken: Any = self.done(other.channel()).transport_channel
            self.done(taken.get("math"))
            self.done(other.close())
            self.server = self.serve()
            self.turn()
            self.assertEqual(self.depth("math"), (0, 0))
            self.done(self.server.stop())
        self.assertEqual([list(answer) for answer in self.answers()], [["result"], ["error"], ["error"]])
        self.assertEqual(depths, [(0, 0)] * 3)

    def test_a_reply_after_a_loss(self) -> None:
        """The caller's connection lives: it gets its reply when the server is back."""
        server = self.server
        self.request({"method": "wait"})
        for connection in [each for each in self.transport._connections if server.connection.connection is each]:
            connection.end(ConnectionLost("gone"))
        self.waiting[0].callback("late")
        self.turn(5)
        self.assertEqual(self.answers(), [{"result": "late"}])
        self.assertEqual(server.counts.unsent, 0)
