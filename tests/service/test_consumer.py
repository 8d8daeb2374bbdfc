"""The consumer service's life on a simulated broker: start, stop, and its other ends."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred

from tests.service.simulated import CANARY, ServiceCase
from twisted import internet
from txmsg import errors
from txmsg.amqp.secret import Secret
from txmsg.service.config import ConsumerConfig
from txmsg.service.consumer import ConsumerService
from txmsg.service.exit_codes import Outcome
from txmsg.service.policy import Halt
from txmsg.service.subscription import Subscription


class StartTests(ServiceCase):
    def test_all_that_is_asked_for(self) -> None:
        """Declare, bind, qos, consume; and the log says so, with the address but without the password."""
        self.broker.add_user("bob", CANARY)
        self.start(
            url="amqp://127.0.0.1/",
            username="bob",
            password=Secret(CANARY),
            queue="mine",
            declare=True,
            durable=False,
            queue_arguments={"x-max-length": 5},
            bind=(("amq.topic", "order.*"), ("amq.fanout", "")),
            prefetch=7,
            consumer_tag="me",
            exclusive=True,
        )
        queue = self.broker.queue("mine")
        self.assertEqual((queue.durable, queue.auto_delete, queue.arguments), (False, False, {"x-max-length": 5}))
        self.assertEqual(
            sorted((binding.source, binding.routing_key) for binding in self.broker.bindings()),
            [("amq.fanout", ""), ("amq.topic", "order.*")],
        )
        (consumer,) = queue.consumers
        self.assertEqual((consumer.tag, consumer.exclusive, consumer.no_ack), ("me", True, False))
        self.assertTrue(self.service.is_consuming)
        address = "amqp://bob:***@127.0.0.1:5672/%2F"
        self.assertEqual(
            self.logged.lines,
            [
                "connecting to 127.0.0.1:5672",
                f"connected to {address}",
                "consuming from queue mine as me, prefetch 7, concurrency 5",
            ],
        )
        self.assertEqual(repr(self.service), "<ConsumerService queue='mine' consuming, connection ready>")
        for number in range(8):
            self.broker.publish("", "mine", b"%d" % number)
        self.simulation.advance(1)
        self.assertEqual((queue.unacked, len(self.begun)), (7, 5))
        self.service.stopService()
        self.service.stop_now()
        self.simulation.advance(1)
        self.ended_with(75)

    def test_the_prefetch(self) -> None:
        """R24: bounded, or unlimited by its name."""
        for prefetch, unacked in ((7, 7), (0, 100)):
            self.start(prefetch=prefetch)
            self.publish(*[b"x"] * 100)
            self.assertEqual(self.queue.unacked, unacked)
            self.service.stopService()
            self.service.stop_now()
            self.simulation.advance(1)
            self.queue.raw.purge()
            self.ended.clear()
        self.assertIn("prefetch unlimited", self.logged.text)

    def test_warnings_are_logged(self) -> None:
        self.start(warnings=("a file can be read by others",))
        self.assertEqual(self.logged.lines[0], "a file can be read by others")
        self.assertEqual(self.logged.levels()[0], "warn")
        self.stopped()

    def test_it_connects_when_the_reactor_runs(self) -> None:
        """So that no failure comes before there is a reactor to stop."""
        service = self.make()
        waiting: list[Any] = []
        self.clock.callWhenRunning = lambda call, *a: waiting.append(call)
        service.startService()
        self.simulation.advance(1)
        self.assertEqual(self.simulation.links, [])
        waiting[0]()
        self.simulation.advance(1)
        self.assertTrue(service.is_consuming)
        self.stopped()

    def test_each_step_of_the_start_may_be_refused(self) -> None:
        """R33: one line, the code of the table, and it is over at once."""
        self.broker.add_user("nobody", CANARY, read="", write="", configure="")
        nobody = {"username": "nobody", "password": Secret(CANARY)}
        for config, code, expected in (
            ({"queue": "missing"}, 10, "--declare"),
            ({"declare": True, "durable": False}, 10, "leave out --declare"),
            ({"bind": (("missing", "k"),)}, 10, "cannot bind the queue 'work'"),
            ({**nobody}, 15, "set_permissions"),
            ({"username": "nobody", "password": Secret("wrong")}, 17, "cannot connect to amqp://nobody:***@localhost"),
            ({"url": "amqp://localhost/none"}, 15, "check the virtual host"),
        ):
            with self.subTest(config=config):
                self.ended.clear()
                self.start(**config)
                line = self.ended_with(code)
                self.assertIn(expected, line)
                self.assertIn((line, "critical"), list(zip(self.logged.lines, self.logged.levels(), strict=True)))

    def test_an_exclusive_consumer_is_in_the_way(self) -> None:
        first = self.start(exclusive=True)
        self.start()
        self.assertEqual(self.ended.pop().exit_code, 15)
        self.service = first
        self.stopped()

    def test_the_unexpected_at_start_has_its_traceback_in_the_log(self) -> None:
        service = self.make()

        def broken(*args: object) -> Any:
            raise ZeroDivisionError("oops")

        self.patch(Subscription, "_make_dispatch", broken)
        service.startService()
        self.simulation.advance(1)
        self.assertIn("ZeroDivisionError: oops", self.ended_with(11))
        self.assertIn("Traceback", self.logged.text)


class StopTests(ServiceCase):
    def test_stop_when_idle(self) -> None:
        """R33, A-06: code 0, and the queue has no consumer."""
        service = self.start()
        stopped = service.stopService()
        self.assertEqual(self.simulation.run_until(stopped, 1), Outcome(0, "stopped"))
        self.ended_with(0)
        self.assertEqual(self.queue.consumers, [])
        self.assertIn("drained in 0.0 s: 0 handled, 0 failed", self.logged.text)

    def test_stop_waits_for_running_handlers(self) -> None:
        """R30: their messages are settled before anything is closed; what waits goes back at once."""
        service = self.start(concurrency=2)
        self.publish(b"1", b"2", b"3")
        stopped = service.stopService()
        self.simulation.advance(10)
        self.assertEqual((self.queue.bodies, self.queue.unacked), ([b"3"], 2))
        self.results[b"1"].callback(None)
        self.simulation.advance(1)
        self.assertNoResult(stopped)
        self.results[b"2"].callback(None)
        self.simulation.run_until(stopped, 1)
        self.assertEqual((self.queue.bodies, self.queue.unacked), ([b"3"], 0))
        self.ended_with(0)
        self.assertIn("waiting up to 30 s for 2 running handler(s)", self.logged.text)
        self.assertIn("drained in 11.0 s: 2 handled, 0 failed, 1 requeued, 0 rejected; 1 not begun", self.logged.text)

    def test_the_deadline(self) -> None:
        """R30: past it the connection is closed, the handlers are cancelled, the code is 75, results are harmless."""
        service = self.start(drain=5.0)
        self.publish(b"1", b"2")
        service.stopService()
        self.simulation.advance(4.9)
        self.assertEqual(self.ended, [])
        self.simulation.advance(0.2)
        line = self.ended_with(75)
        self.assertEqual(self.ended[0].unfinished, 2)
        self.assertEqual(line, "2 handler(s) did not finish in time; their messages go back to queue 'work'")
        self.assertEqual(self.queue.bodies, [b"1", b"2"])

    def test_cancelled_at_the_deadline_only_after_the_close(self) -> None:
        """So that what a cancelled handler says does not settle its message."""
        links_when_cancelled: list[int] = []
        self.start(
            lambda delivery: Deferred(lambda d: links_when_cancelled.append(len(self.simulation.open_links()))),
            drain=0.0,
        )
        self.publish(b"1")
        self.stopped(75)
        self.assertEqual(links_when_cancelled, [0])

    def test_stop_now_cuts_the_drain_short(self) -> None:
        """The second signal."""
        service = self.start()
        service.stop_now()
        self.publish(b"1")
        service.stopService()
        service.stop_now()
        self.simulation.advance(1)
        self.ended_with(75)

    def test_stop_twice_is_one_stop(self) -> None:
        """R29."""
        service = self.start()
        first, second = service.stopService(), service.stopService()
        self.simulation.advance(1)
        self.assertIs(self.successResultOf(first), self.successResultOf(second))
        self.successResultOf(service.when_finished())
        self.ended_with(0)

    def test_stop_before_the_start(self) -> None:
        service = self.make()
        self.successResultOf(service.stopService())
        service.startService()
        self.simulation.advance(1)
        self.ended_with(0)
        self.assertEqual(self.simulation.links, [])

    def test_stop_at_each_moment_of_the_start(self) -> None:
        """R29, R30, Z2: whatever it was doing; a stop that was asked for is no failure."""
        for octets in range(1, 700, 20):
            with self.subTest(octets=octets):
                self.ended.clear()
                stopping: list[Deferred[Outcome]] = []

                def stop(link: Any, stopping: list[Deferred[Outcome]] = stopping) -> None:
                    stopping.append(self.service.stopService())

                cut = self.simulation.cut(stop, "to_broker", after_bytes=octets)
                self.start(declare=True)
                cut.stop()
                if not stopping:
                    stop(None)
                self.simulation.run_until(stopping[0], 5)
                self.ended_with(0)

    def test_a_broker_that_does_not_answer_holds_it_up_no_longer_than_stated(self) -> None:
        """R30: `stop_limit`, with a handler at work all the time."""
        service = self.start(drain=7.0, url="amqp://localhost?close_timeout=3")
        self.assertEqual(service.stop_limit, 13.0)
        self.publish(b"1")
        (link,) = self.simulation.open_links("service")
        link.swallow()
        self.stopped(75, service.stop_limit)

    def test_the_broker_leaves_during_the_stop(self) -> None:
        """R30, F22: after its handlers have begun to finish; nothing comes back to life."""
        service = self.start()
        self.publish(b"1")
        stopped = service.stopService()
        self.simulation.broker.restart(after=1)
        self.simulation.advance(5)
        self.assertNoResult(stopped)
        self.results[b"1"].callback(None)
        self.simulation.run_until(stopped, 2)
        self.ended_with(0)
        self.assertEqual((self.queue.bodies, self.queue.consumers), ([b"1"], []))

    def test_what_breaks_while_stopping_does_not_hold_it(self) -> None:
        service = self.start()

        def broken(*args: object) -> Any:
            raise ZeroDivisionError

        self.patch(service._subscriptions[0].channel, "close", broken)
        self.stopped()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class EndTests(ServiceCase):
    def test_halt(self) -> None:
        """peers 41: the exit code of the handler; other handlers finish; the message goes back."""
        self.start()
        self.publish(b"1", b"2")
        self.results[b"1"].errback(Halt(42, reason="disk full"))
        self.simulation.advance(1)
        self.assertEqual((self.queue.bodies, self.queue.consumers, self.ended), ([b"1"], [], []))
        self.results[b"2"].callback(None)
        self.simulation.advance(1)
        self.assertEqual(self.ended_with(42), "the handler halted the service: disk full")

    def test_halt_with_code_0_is_a_normal_end(self) -> None:
        self.start()
        self.publish(b"1")
        self.results[b"1"].errback(Halt(0, requeue=False))
        self.simulation.advance(1)
        self.assertEqual(self.ended_with(0), "the handler halted the service")
        self.assertNotIn("critical", self.logged.levels())
        self.assertEqual(self.queue.depth, 0)

    def test_a_halt_as_soon_as_it_consumes(self) -> None:
        """A delivery may come with consume-ok; the service does not come to life again afterwards."""

        def handler(delivery: Any) -> None:
            raise Halt(42)

        self.publish(b"1")
        service = self.start(handler)
        self.ended_with(42)
        self.assertFalse(service.is_consuming)

    def test_a_halt_while_stopping_changes_nothing(self) -> None:
        service = self.start()
        self.publish(b"1")
        service.stopService()
        self.results[b"1"].errback(Halt(42))
        self.simulation.advance(1)
        self.ended_with(0)

    def test_threads(self) -> None:
        """The pool is made at the start and closed at the end."""
        service = self.start(lambda delivery: None, threads=2)
        self.assertTrue(service.is_consuming)
        self.stopped()
        self.assertFalse([t for t in threading.enumerate() if "txmsg-handler" in t.name])

    def test_the_global_reactor_is_taken_at_the_start(self) -> None:
        """Not at import: --reactor must be able to choose."""
        service = ConsumerService(
            ConsumerConfig(queue="work", handler="a:b"), print, endpoint=self.simulation.endpoints()
        )
        from twisted.internet import reactor  # installs it, so that there is something to patch

        self.assertIsNot(reactor, self.clock)
        self.patch(internet, "reactor", self.clock)
        service.startService()
        self.assertIs(service._reactor, self.clock)
        self.simulation.run_until(service.stopService())

    def test_the_handler_of_the_configuration_is_imported(self) -> None:
        service = ConsumerService(ConsumerConfig(queue="q", handler="math:floor"))
        self.assertEqual(service._plans[0].handler(2.5), 2)
        with self.assertRaises(errors.ConfigurationError):
            ConsumerService(ConsumerConfig(queue="q", handler="math:flor"))
