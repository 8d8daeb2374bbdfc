"""How an RPCServer starts, stops and drains (R30)."""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from tests.rpc import test_server
from txmsg.errors import NoResponder, PreconditionFailed
from txmsg.messaging import Queue
from txmsg.rpc import RPCServer, ServerCounts


class LifeTests(test_server.ServerCase):
    """Starting, stopping, and R30."""

    def test_drain(self) -> None:
        """R30: no more requests; what runs ends and is answered; what was not begun goes back."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=1, prefetch_count=10)
        for n in range(3):
            self.request({"method": "wait", "args": [n]})
        stopping = self.server.stop()
        self.turn()
        self.assertNoResult(stopping)
        self.request({"method": "add", "args": [1, 2]})
        self.assertEqual(self.depth("math"), (3, 1))
        self.waiting[0].callback("first")
        self.done(stopping)
        self.assertEqual(self.answers(), [{"result": "first"}])
        self.assertEqual(self.depth("math"), (3, 0))
        self.assertEqual(self.server.counts.given_back, 2)
        self.assertEqual(self.begun, [0])

    def test_drain_is_bounded(self) -> None:
        """R30: what has not ended in time is cancelled, and given back."""
        cancelled: list[Any] = []
        self.server.register(lambda: Deferred(cancelled.append), "stuck")
        self.request({"method": "stuck"})
        stopping = self.server.stop()
        self.turn(9.9)
        self.assertNoResult(stopping)
        self.turn(0.2)
        self.done(stopping)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual((self.answers(), self.depth("math")), ([], (1, 0)))
        self.assertEqual(self.server.counts.given_back, 1)
        self.done(self.server.stop())

    def test_cancelled_and_settled(self) -> None:
        """R30, acks_late=False: it cannot come again, so its caller is told."""
        self.done(self.server.stop())
        self.server = self.serve(acks_late=False, drain_timeout=1.0)
        self.request({"method": "wait"})
        stopping = self.server.stop()
        self.turn(1.1)
        self.done(stopping)
        self.assertEqual([answer["error"]["exc_type"] for answer in self.answers()], ["CancelledError"])
        self.assertEqual(self.server.counts.given_back, 0)

    def test_what_cannot_be_cancelled(self) -> None:
        """R30: a canceller that fails keeps nothing from its end."""

        def canceller(_: Deferred[Any]) -> None:
            raise ZeroDivisionError

        self.server.register(lambda: Deferred(canceller), "stuck")
        self.request({"method": "stuck"})
        stopping = self.server.stop()
        self.turn(10.1)
        self.done(stopping)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.depth("math"), (1, 0))

    def test_nothing_begins_while_it_stops(self) -> None:
        """R30: also before the broker has agreed that no more comes."""
        self.done(self.server.stop())
        self.server = self.serve(concurrency=1, prefetch_count=5)
        for n in range(3):
            self.request({"method": "wait", "args": [n]})
        consumer: Any = self.server._consumer
        agreed: Deferred[None] = Deferred()
        cancel = consumer.cancel
        self.patch(consumer, "cancel", lambda: agreed.addCallback(lambda _: cancel()))
        stopping = self.server.stop()
        self.waiting[0].callback("first")
        self.request({"method": "wait", "args": [3]})
        agreed.callback(None)
        self.done(stopping)
        self.assertEqual((self.begun, self.depth("math")), ([0], (3, 0)))

    def test_two_who_start(self) -> None:
        """Both are told why it cannot start."""
        self.done(self.channel.queue_declare("other", durable=False))
        server = RPCServer(self.connect(), "other")
        ready: Deferred[None] = Deferred()
        original = server.connection.ensure_connection
        self.patch(server.connection, "ensure_connection", lambda: ready.addCallback(lambda _: original()))
        one, two = server.start(), server.start()
        ready.callback(None)
        self.turn()
        self.failureResultOf(one, PreconditionFailed)
        self.failureResultOf(two, PreconditionFailed)

    def test_cut_short(self) -> None:
        """R30: a second signal: nothing is waited for any more."""
        self.request({"method": "wait"})
        self.server.stop_now()
        stopping = self.server.stop()
        self.turn()
        self.assertNoResult(stopping)
        self.server.stop_now()
        self.done(stopping)
        self.assertEqual((self.server.unfinished, self.depth("math")), (1, (1, 0)))

    def test_as_a_service(self) -> None:
        """IService: with a parent; and again."""
        self.done(self.server.stop())
        parent = MultiService()
        self.server.setServiceParent(parent)
        for _ in range(2):
            parent.startService()
            self.turn()
            self.assertTrue(self.server.is_consuming)
            self.assertEqual(self.successResultOf(self.call("add", 1, 2)), 3)
            self.done(parent.stopService())
            self.assertFalse(self.server.is_consuming)

    def test_a_queue_that_is_another(self) -> None:
        """start() fails with what the broker says; a service logs it."""
        self.done(self.channel.queue_declare("other", durable=False))
        server = RPCServer(self.connect(), "other")
        starting = server.start()
        self.turn()
        self.failureResultOf(starting, PreconditionFailed)
        server.startService()
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(PreconditionFailed)), 1)
        self.done(server.stop())

    def test_the_queue_is_deleted(self) -> None:
        """By an operator: it is declared, and consumed, again."""
        self.done(self.channel.queue_delete("math"))
        self.turn()
        self.turn(120)
        self.assertEqual(self.successResultOf(self.call("add", 1, 2)), 3)

    def test_goes_with_its_last_server(self) -> None:
        """A queue that is auto_delete: callers are told that nobody answers."""
        server = self.serve(Queue("short", durable=False, auto_delete=True))
        self.done(server.stop())
        calling = self.client.call("short", "add", 1, 2)
        self.turn()
        self.failureResultOf(calling, NoResponder)

    def test_a_url(self) -> None:
        """The connection is the server's own, and closed with it."""
        server = RPCServer(self.url, "own")
        server.connection._reactor = self.clock
        self.done(server.start())
        self.assertIn("consuming", repr(server))
        self.done(server.stop())
        self.assertFalse(server.connection.connected)
        self.assertEqual(server.counts, ServerCounts())
