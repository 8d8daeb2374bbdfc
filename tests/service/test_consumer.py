"""The consumer service's life, on a fake connection and a fake clock."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.service.fakes import ClockReactor, FakeConnection
from tests.service.logs import Logged
from twisted import internet
from txmsg import errors
from txmsg.amqp.secret import Secret
from txmsg.service.config import ConsumerConfig
from txmsg.service.consumer import ConsumerService
from txmsg.service.exit_codes import Outcome
from txmsg.service.policy import Halt

CANARY = "c4n4ry"


class ServiceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = Logged(self)
        self.reactor = ClockReactor()
        self.connection = FakeConnection()
        self.channel = self.connection.fake_channel
        self.connecting: Deferred[Any] = succeed(self.connection)
        self.results: dict[int, Deferred[Any]] = {}
        self.ended: list[Outcome] = []

    def handler(self, delivery: Any) -> Deferred[Any]:
        self.results[delivery.delivery_tag] = Deferred()
        return self.results[delivery.delivery_tag]

    def make(self, handler: Any = None, **config: Any) -> ConsumerService:
        config = {"queue": "work", "handler": "none:none", "concurrency": 5, **config}

        def connect(parameters: Any, *, reactor: Any) -> Deferred[Any]:
            self.assertIs(reactor, self.reactor)
            return self.connecting

        self.service = ConsumerService(
            ConsumerConfig(**config), handler or self.handler, reactor=self.reactor, connect=connect
        )
        self.service.when_finished().addCallback(self.ended.append)
        return self.service

    def start(self, handler: Any = None, **config: Any) -> ConsumerService:
        service = self.make(handler, **config)
        service.startService()
        return service

    def offer(self, *tags: int) -> None:
        for tag in tags:
            self.channel.offer(self.channel.delivery(tag))

    def ended_with(self, code: int) -> str:
        """The service has ended, once, with `code`; the line."""
        (outcome,) = self.ended
        self.assertEqual(outcome.exit_code, code, outcome)
        self.assertFalse(self.connection.is_open and not self.connecting.called)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return outcome.line


class StartTests(ServiceTestCase):
    def test_the_order_of_the_start(self) -> None:
        """Declare, bind, qos, consume; and the log says so, with the address but without the password."""
        self.start(
            url="amqp://127.0.0.1/shop",
            username="bob",
            password=Secret(CANARY),
            declare=True,
            durable=False,
            queue_arguments={"x-max-length": 5},
            bind=(("events", "order.*"), ("logs", "")),
            prefetch=7,
            consumer_tag="me",
            exclusive=True,
        )
        declared = {"passive": False, "durable": False, "auto_delete": False, "arguments": {"x-max-length": 5}}
        self.assertEqual(
            self.channel.calls,
            [
                ("queue_declare", "work", declared),
                ("queue_bind", "work", "events", "order.*"),
                ("queue_bind", "work", "logs", ""),
                ("basic_qos", 7),
                ("basic_consume", "work", {"consumer_tag": "me", "exclusive": True}),
            ],
        )
        self.assertTrue(self.service.is_consuming)
        self.assertIn("connected to amqp://bob:***@127.0.0.1:5672/shop", self.logged.text)
        self.assertIn("consuming from queue work as tag-1, prefetch 7, concurrency 5", self.logged.text)
        self.assertNotIn(CANARY, self.logged.text)
        self.assertEqual(repr(self.service), "<ConsumerService queue='work' consuming>")

    def test_without_declare_the_queue_is_only_looked_at(self) -> None:
        self.start()
        name, queue, arguments = self.channel.calls[0]
        self.assertEqual((name, queue, arguments["passive"]), ("queue_declare", "work", True))

    def test_warnings_are_logged(self) -> None:
        self.start(warnings=("a file can be read by others",))
        self.assertEqual(self.logged.lines[0], "a file can be read by others")
        self.assertEqual(self.logged.levels()[0], "warn")

    def test_unlimited_prefetch_is_asked_for_as_such(self) -> None:
        self.start(prefetch=0)
        self.assertIn(("basic_qos", 0), self.channel.calls)
        self.assertIn("prefetch unlimited", self.logged.text)

    def test_it_connects_when_the_reactor_runs(self) -> None:
        """So that no failure comes before there is a reactor to stop."""
        service = self.make()
        waiting: list[Any] = []
        self.reactor.callWhenRunning = lambda call, *a: waiting.append(call)  # type: ignore[method-assign]
        service.startService()
        self.assertEqual(self.channel.calls, [])
        waiting[0]()
        self.assertTrue(service.is_consuming)

    def test_a_failed_connect(self) -> None:
        """R33: one line, the code of the table, and it is over."""
        self.connecting = Deferred()
        self.start(username="bob", password=Secret(CANARY))
        self.connecting.errback(errors.AuthenticationFailed("ACCESS_REFUSED"))
        line = self.ended_with(17)
        self.assertIn("cannot connect to amqp://bob:***@localhost", line)
        self.assertEqual(self.logged.lines, [line])
        self.assertEqual(self.logged.levels(), ["critical"])

    def test_each_step_of_the_start_may_fail(self) -> None:
        for step, error, code, expected in (
            ("queue_declare", errors.NotFound("no queue 'work'"), 10, "--declare"),
            ("queue_declare", errors.AccessRefused("refused"), 15, "set_permissions"),
            ("queue_bind", errors.NotFound("no exchange 'x'"), 10, "cannot bind the queue 'work'"),
            ("basic_qos", errors.OperationTimeout("30 s"), 14, "does not answer"),
            ("basic_consume", errors.AccessRefused("in exclusive use"), 15, "cannot consume from 'work'"),
        ):
            self.setUp()
            self.channel.replies[step] = error
            self.start(bind=(("x", "k"),))
            self.assertIn(expected, self.ended_with(code))
            self.assertFalse(self.connection.is_open, step)

    def test_a_mismatched_declare(self) -> None:
        self.channel.replies["queue_declare"] = errors.PreconditionFailed("inequivalent arg 'durable'")
        self.start(declare=True)
        self.assertIn("leave out --declare", self.ended_with(10))

    def test_the_unexpected_at_start_has_its_traceback_in_the_log(self) -> None:
        self.channel.replies["basic_qos"] = ZeroDivisionError("oops")
        self.start()
        self.assertIn("ZeroDivisionError: oops", self.ended_with(11))
        self.assertIn("Traceback", self.logged.text)

    def test_the_connection_is_lost_during_the_start(self) -> None:
        """One end, by the call that was waiting."""
        waiting: Deferred[Any] = Deferred()
        self.channel.replies["basic_qos"] = waiting
        self.start()
        reason = errors.ConnectionLost()
        self.connection.lose(reason)
        self.assertEqual(self.ended, [])
        waiting.errback(reason)
        self.ended_with(14)


class StopTests(ServiceTestCase):
    def test_stop_when_idle(self) -> None:
        """R33, A-06: cancel, close the channel (which confirms the acks), close the connection, code 0."""
        service = self.start()
        stopped = service.stopService()
        self.assertEqual(self.successResultOf(stopped), Outcome(0, "stopped"))
        self.assertEqual(self.channel.calls[-2:], ["cancel", ("close",)])
        self.assertEqual(self.connection.calls, ["close"])
        self.ended_with(0)
        self.assertIn("drained in 0.0 s: 0 handled, 0 failed", self.logged.text)

    def test_stop_waits_for_running_handlers(self) -> None:
        """R30: their messages are settled before anything is closed; what waits goes back at once."""
        service = self.start(concurrency=2)
        self.offer(1, 2, 3)
        stopped = service.stopService()
        self.assertEqual(self.channel.settled, [(3, "requeue")])
        self.reactor.advance(10)
        self.results[1].callback(None)
        self.assertNoResult(stopped)
        self.assertEqual(self.connection.calls, [])
        self.results[2].callback(None)
        self.assertEqual(self.channel.settled, [(3, "requeue"), (1, "ack"), (2, "ack")])
        self.successResultOf(stopped)
        self.ended_with(0)
        self.assertIn("waiting up to 30 s for 2 running handler(s)", self.logged.text)
        self.assertIn("drained in 10.0 s: 2 handled, 0 failed, 1 requeued, 0 rejected; 1 not begun", self.logged.text)

    def test_the_deadline(self) -> None:
        """R30: past it the connection is closed, the handlers are cancelled, the code is 75, results are harmless."""
        service = self.start(drain=5.0)
        self.offer(1, 2)
        service.stopService()
        self.reactor.advance(4.9)
        self.assertEqual(self.ended, [])
        self.reactor.advance(0.2)
        line = self.ended_with(75)
        self.assertEqual(self.ended[0].unfinished, 2)
        self.assertEqual(line, "2 handler(s) did not finish in time; their messages go back to queue 'work'")
        self.assertEqual(self.channel.settled, [])
        self.assertFalse(self.connection.is_open)

    def test_cancelled_at_the_deadline_only_after_the_close(self) -> None:
        """So that what a cancelled handler says does not settle its message."""
        open_when_cancelled: list[bool] = []
        self.start(lambda delivery: Deferred(lambda d: open_when_cancelled.append(self.channel.is_open)), drain=0.0)
        self.offer(1)
        self.service.stopService()
        self.reactor.advance(0)
        self.assertEqual(open_when_cancelled, [False])
        self.ended_with(75)

    def test_stop_now_cuts_the_drain_short(self) -> None:
        """peers.md 4, "stop": the second signal."""
        service = self.start()
        service.stop_now()
        self.offer(1)
        service.stopService()
        service.stop_now()
        self.ended_with(75)

    def test_stop_while_connecting(self) -> None:
        """R29: the attempt is cancelled; a stop that was asked for is no failure."""
        cancelled: list[bool] = []
        self.connecting = Deferred(lambda d: cancelled.append(True))
        service = self.start()
        service.stopService()
        self.assertEqual(cancelled, [True])
        self.ended_with(0)

    def test_stop_while_declaring(self) -> None:
        self.channel.replies["queue_declare"] = Deferred()
        service = self.start()
        service.stopService()
        self.ended_with(0)
        self.assertFalse(self.connection.is_open)

    def test_stop_twice_is_one_stop(self) -> None:
        """R29."""
        service = self.start()
        first, second = service.stopService(), service.stopService()
        self.assertIs(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(self.connection.calls, ["close"])
        self.successResultOf(service.when_finished())

    def test_stop_before_the_start(self) -> None:
        service = self.make()
        self.successResultOf(service.stopService())
        service.startService()
        self.ended_with(0)
        self.assertEqual(self.channel.calls, [])

    def test_a_close_that_fails_does_not_hold_the_stop(self) -> None:
        service = self.start()
        self.channel.replies["close"] = errors.ConnectionLost()
        self.successResultOf(service.stopService())
        self.ended_with(0)

    def test_a_close_that_breaks_aborts(self) -> None:
        service = self.start()

        def broken() -> Any:
            raise ZeroDivisionError

        self.connection.close = broken  # type: ignore[method-assign]
        self.successResultOf(service.stopService())
        self.assertTrue(self.connection.is_aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_limit(self) -> None:
        self.assertEqual(self.make(drain=7.0).stop_limit, 27.0)


class EndTests(ServiceTestCase):
    def test_a_lost_connection_ends_the_service(self) -> None:
        """Issue: until reconnecting lands; never silently idle (R25)."""
        self.start()
        self.connection.lose(errors.HeartbeatTimeout())
        line = self.ended_with(14)
        self.assertIn("consuming from queue 'work' at amqp://localhost", line)

    def test_handlers_may_finish_after_the_connection_was_lost(self) -> None:
        """R23: their results settle nothing and crash nothing."""
        self.start()
        self.offer(1, 2, 3)
        self.results[3].callback(None)
        self.connection.lose(errors.ConnectionLost())
        self.results[1].callback(None)
        self.results[2].errback(ValueError())
        self.ended_with(14)
        self.assertEqual(self.channel.settled, [(3, "ack")])

    def test_unfinished_handlers_do_not_change_the_code_of_a_loss(self) -> None:
        self.start(drain=5.0)
        self.offer(1)
        self.connection.lose(errors.ConnectionLost())
        self.reactor.advance(5)
        self.ended_with(14)
        self.assertEqual(self.ended[0].unfinished, 1)

    def test_the_brokers_cancel_ends_the_service(self) -> None:
        """R25: queue deleted."""
        self.start()
        self.channel.consumer.lose(errors.ConsumerCancelled("tag-1", "server", "work"))
        self.assertIn("its queue was deleted", self.ended_with(12))
        self.assertFalse(self.connection.is_open)

    def test_a_closed_channel_ends_the_service(self) -> None:
        """F42: the acknowledgement timeout closes the channel with 406."""
        self.start()
        self.channel.lose(errors.PreconditionFailed("delivery acknowledgement on channel 1 timed out"))
        self.assertIn("timed out", self.ended_with(12))

    def test_halt(self) -> None:
        """peers.md row 41: the exit code of the handler; other handlers finish; the message goes back."""
        self.start()
        self.offer(1, 2)
        self.results[1].errback(Halt(42, reason="disk full"))
        self.assertEqual(self.channel.calls[-1], "cancel")
        self.assertEqual(self.channel.settled, [(1, "requeue")])
        self.assertEqual(self.ended, [])
        self.results[2].callback(None)
        self.assertEqual(self.ended_with(42), "the handler halted the service: disk full")

    def test_halt_with_code_0_is_a_normal_end(self) -> None:
        self.start()
        self.offer(1)
        self.results[1].errback(Halt(0, requeue=False))
        self.assertEqual(self.ended_with(0), "the handler halted the service")
        self.assertNotIn("critical", self.logged.levels())

    def test_a_halt_before_consume_ok(self) -> None:
        """A delivery may overtake consume-ok; the service does not come to life again afterwards."""

        def handler(delivery: Any) -> None:
            raise Halt(42)

        self.channel.is_early = True
        service = self.start(handler)
        self.ended_with(42)
        self.assertFalse(service.is_consuming)
        self.assertFalse(self.connection.is_open)

    def test_a_halt_while_stopping_changes_nothing(self) -> None:
        service = self.start()
        self.offer(1)
        service.stopService()
        self.results[1].errback(Halt(42))
        self.ended_with(0)

    def test_threads(self) -> None:
        """The pool is made at the start and closed at the end."""
        service = self.start(lambda delivery: None, threads=2)
        self.assertTrue(service.is_consuming)
        self.successResultOf(service.stopService())
        self.ended_with(0)
        self.assertFalse([t for t in threading.enumerate() if "txmsg-handler" in t.name])

    def test_the_global_reactor_is_taken_at_the_start(self) -> None:
        """Not at import: --reactor must be able to choose."""
        service = ConsumerService(
            ConsumerConfig(queue="q", handler="a:b"), print, connect=lambda p, reactor: Deferred()
        )
        self.patch(internet, "reactor", self.reactor)
        service.startService()
        self.assertIs(service._reactor, self.reactor)
        self.successResultOf(service.stopService())

    def test_the_handler_of_the_configuration_is_imported(self) -> None:
        service = ConsumerService(ConsumerConfig(queue="q", handler="math:floor"))
        self.assertEqual(service._handler(2.5), 2)
        with self.assertRaises(errors.ConfigurationError):
            ConsumerService(ConsumerConfig(queue="q", handler="math:flor"))
