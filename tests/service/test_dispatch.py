"""Dispatch: order, bounds, results, policy; on a fake channel and a fake clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.service.fakes import ClockReactor, FakeChannel
from tests.service.logs import Logged
from txmsg.amqp import UndecodableProperties
from txmsg.amqp.secret import Secret
from txmsg.errors import ConnectionLost, RemoteProtocolError
from txmsg.service.dispatch import TRACEBACK_LIMIT, TURN, HandlerDispatch
from txmsg.service.handler import ReactorRunner
from txmsg.service.policy import FailurePolicy, Halt, Reject, Requeue


class DispatchTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = Logged(self)
        self.clock = ClockReactor()
        self.channel = FakeChannel()
        self.halts: list[tuple[int, str]] = []
        self.begun: list[int] = []
        self.results: dict[int, Deferred[Any]] = {}

    def make(self, handler: Any = None, concurrency: int = 1, **policy: Any) -> HandlerDispatch:
        self.dispatch = HandlerDispatch(
            ReactorRunner(handler or self.slow),
            FailurePolicy(**policy),
            concurrency=concurrency,
            clock=self.clock,
            queue="work",
            on_halt=lambda code, reason: self.halts.append((code, reason)),
            secrets=[Secret("c4n4ry"), Secret("")],
        )
        return self.dispatch

    def slow(self, delivery: Any) -> Deferred[Any]:
        """A handler that ends when the test says so."""
        self.begun.append(delivery.delivery_tag)
        self.results[delivery.delivery_tag] = Deferred()
        return self.results[delivery.delivery_tag]

    def offer(self, *tags: int, **details: Any) -> None:
        for tag in tags:
            self.dispatch.offer(self.channel.delivery(tag, **details))


class OrderTests(DispatchTestCase):
    def test_a_message_is_acked_only_after_its_handler_succeeded(self) -> None:
        """R22."""
        self.make()
        self.offer(1)
        self.assertEqual((self.begun, self.channel.settled), ([1], []))
        self.results[1].callback("anything")
        self.assertEqual(self.channel.settled, [(1, "ack")])
        self.assertEqual(self.dispatch.counts.handled, 1)

    def test_handlers_start_in_delivery_order_and_bounded(self) -> None:
        """R24: at most `concurrency` at once, whatever the order in which they end."""
        self.make(concurrency=2)
        self.offer(1, 2, 3, 4, 5)
        self.assertEqual(self.begun, [1, 2])
        self.results[2].callback(None)
        self.assertEqual(self.begun, [1, 2, 3])
        self.results[1].callback(None)
        self.results[3].errback(ValueError())
        self.assertEqual(self.begun, [1, 2, 3, 4, 5])
        self.assertEqual(self.dispatch.running, 2)

    def test_thousands_that_end_at_once_do_not_recurse(self) -> None:
        """R32: callbacks are not run recursively."""
        held: Deferred[None] = Deferred()
        self.make(lambda delivery: held if delivery.delivery_tag == 1 else None)
        self.offer(*range(1, 5001))
        held.callback(None)
        self.assertEqual(self.channel.settled, [(tag, "ack") for tag in range(1, 5001)])

    def test_the_reactor_gets_its_turn(self) -> None:
        """R32: a backlog of handlers that take their time is worked off in slices."""

        def handler(delivery: Any) -> None:
            self.clock.rightNow += TURN / 2
            self.begun.append(delivery.delivery_tag)

        self.make(handler)
        self.offer(1, 2, 3, 4, 5)
        self.assertEqual(self.begun, [1, 2])
        (turn,) = self.clock.getDelayedCalls()
        self.assertLessEqual(turn.getTime(), self.clock.seconds())
        self.clock.advance(0)
        self.assertEqual(self.begun, [1, 2, 3, 4, 5])

    def test_what_the_handler_settled_is_left_alone(self) -> None:
        """R23: no second settlement, in success and in failure."""

        def handler(delivery: Any) -> None:
            delivery.nack() if delivery.delivery_tag == 1 else delivery.ack()
            if delivery.delivery_tag == 3:
                raise ValueError("after the ack")

        self.make(handler, requeue_delay=0)
        self.offer(1, 2, 3)
        self.assertEqual(self.channel.settled, [(1, "requeue"), (2, "ack"), (3, "ack")])

    def test_repr(self) -> None:
        self.make()
        self.offer(1, 2)
        self.assertEqual(repr(self.dispatch), "<HandlerDispatch queue='work' running=1/1 waiting=1 held=0>")
        self.dispatch.stop_intake()
        self.assertIn("stopped", repr(self.dispatch))


class FailureTests(DispatchTestCase):
    def test_a_failure_is_held_then_requeued(self) -> None:
        """R26: the first failure goes back after the delay, in which another message may be handled."""
        self.make(requeue_delay=2.0)
        self.offer(1, 2)
        self.results[1].errback(ValueError("bad luck"))
        self.assertEqual((self.begun, self.channel.settled), ([1, 2], []))
        self.clock.advance(1.9)
        self.assertEqual(self.channel.settled, [])
        self.clock.advance(0.2)
        self.assertEqual(self.channel.settled, [(1, "requeue")])
        self.assertEqual((self.dispatch.counts.failed, self.dispatch.counts.requeued), (1, 1))

    def test_the_second_failure_is_rejected_at_once(self) -> None:
        """R26: no third try."""
        self.make()
        self.offer(1, redelivered=True)
        self.results[1].errback(ValueError("bad luck"))
        self.assertEqual(self.channel.settled, [(1, "reject")])
        self.assertEqual((self.dispatch.counts.failed, self.dispatch.counts.rejected), (1, 1))

    def test_every_way_to_fail_is_a_failure(self) -> None:
        """F57: a function that raises, a Deferred that fails, a coroutine that raises."""

        def function(delivery: Any) -> None:
            raise ValueError

        async def coroutine(delivery: Any) -> None:
            raise ValueError

        def deferred(delivery: Any) -> Deferred[None]:
            failed: Deferred[None] = Deferred()
            failed.errback(ValueError())
            return failed

        for handler in (function, coroutine, deferred):
            self.make(handler, requeue_delay=0)
            self.channel.settled.clear()
            self.offer(1)
            self.assertEqual(self.channel.settled, [(1, "requeue")])

    def test_the_log_has_the_traceback_and_the_names_but_no_body_and_no_secret(self) -> None:
        """Issue, C3.3: traceback, message id, queue, tag, exchange, routing key; not the body, even if quoted."""
        local = "l0cal value"

        def handler(delivery: Any) -> None:
            secret_local = local
            raise ValueError(f"cannot parse {delivery.body!r} with c4n4ry, {len(secret_local)}")

        self.make(handler)
        self.offer(1, body=b"order \xff of bob")
        (line,) = self.logged.lines
        self.assertIn("handler failed, message requeued in 1 s (message id 'm1', queue 'work', delivery tag 1, ", line)
        self.assertIn("exchange 'exchange', routing key 'key')", line)
        self.assertIn("in handler", line)
        self.assertIn("builtins.ValueError: cannot parse b'<body>' with ***, 11", line)
        for hidden in ("of bob", "c4n4ry", local):
            self.assertNotIn(hidden, line)
        self.assertNotIn("log_failure", self.logged.events[0])

    def test_a_long_traceback_is_cut(self) -> None:
        def handler(delivery: Any) -> None:
            raise ValueError("x" * 100_000)

        self.make(handler)
        self.offer(1)
        self.assertLess(len(self.logged.text), TRACEBACK_LIMIT + 1000)

    def test_names_from_a_peer_cannot_forge_a_log_line(self) -> None:
        """C3.3."""
        self.make()
        delivery = self.channel.delivery(1)
        delivery.routing_key = "a\nERROR forged\x1b[0m" + "x" * 1000
        self.dispatch.offer(delivery)
        self.results[1].errback(Reject("no"))
        (line,) = self.logged.lines
        self.assertNotIn("\n", line)
        self.assertNotIn("\x1b", line)
        self.assertLess(len(line), 500)

    def test_undecodable_properties_are_rejected_without_the_handler(self) -> None:
        """R20: rejected, counted, logged without the body; the next message is handled."""
        self.make()
        bad = UndecodableProperties(b"\xff\xff", RemoteProtocolError("table nested deeper than 32", 502))
        self.offer(1, properties=bad, body=b"hidden body")
        self.offer(2)
        self.assertEqual((self.begun, self.channel.settled), ([2], [(1, "reject")]))
        self.assertEqual(self.dispatch.counts.undecodable, 1)
        self.assertIn("cannot be decoded: table nested deeper than 32 (message id none, queue 'work'", self.logged.text)
        self.assertNotIn("hidden", self.logged.text)

    def test_decisions(self) -> None:
        """Reject and Requeue: no traceback, the reason in the log, the delay kept."""
        self.make()
        self.offer(1, 2)
        self.results[1].errback(Reject("no such customer"))
        self.results[2].errback(Requeue(5.0))
        self.assertEqual(self.channel.settled, [(1, "reject")])
        self.clock.advance(5)
        self.assertEqual(self.channel.settled, [(1, "reject"), (2, "requeue")])
        self.assertIn("message rejected by the handler: no such customer (", self.logged.lines[0])
        self.assertIn("message requeued by the handler: no reason given (", self.logged.lines[1])
        self.assertNotIn("Traceback", self.logged.text)

    def test_halt_is_told_before_the_message_goes_back(self) -> None:
        """peers 41: so that the consumer can be cancelled first."""
        self.make()
        settled_when_told: list[Any] = []
        self.dispatch._on_halt = lambda code, reason: settled_when_told.append(
            (code, reason, list(self.channel.settled))
        )
        self.offer(1)
        self.results[1].errback(Halt(3, reason="enough"))
        self.assertEqual(settled_when_told, [(3, "enough", [])])
        self.assertEqual(self.channel.settled, [(1, "requeue")])

    def test_halt_without_requeue_acks(self) -> None:
        self.make()
        self.offer(1)
        self.results[1].errback(Halt(0, requeue=False))
        self.assertEqual((self.channel.settled, self.halts), ([(1, "ack")], [(0, "")]))
        self.assertEqual(self.dispatch.counts.handled, 1)

    def test_our_own_mistake_frees_the_slot(self) -> None:
        """Whatever goes wrong in judging or settling, the next message has its turn."""

        def broken(code: int, reason: str) -> None:
            raise ZeroDivisionError

        self.make()
        self.dispatch._on_halt = broken
        self.channel.basic_ack = None  # type: ignore[method-assign, assignment]
        self.offer(1, 2, 3)
        self.results[1].errback(Halt())
        self.results[2].callback(None)
        self.assertEqual(self.begun, [1, 2, 3])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_system_exit_ends_the_service_not_the_process(self) -> None:
        def handler(delivery: Any) -> None:
            raise SystemExit(5)

        self.make(handler)
        self.offer(1)
        self.assertEqual((self.channel.settled, self.halts), ([(1, "requeue")], [(13, "SystemExit")]))
        self.assertIn("SystemExit", self.logged.text)


class StoppingTests(DispatchTestCase):
    def test_stop_returns_what_no_handler_has_begun(self) -> None:
        """R30: intake ends; what waits or is held goes back at once, what runs is waited for."""
        self.make(concurrency=2, requeue_delay=60)
        self.offer(1, 2)
        self.results[1].errback(ValueError())
        self.offer(3, 4, 5)
        self.assertEqual(self.dispatch.stop_intake(), 2)
        self.assertEqual(self.channel.settled, [(4, "requeue"), (5, "requeue"), (1, "requeue")])
        idle = self.dispatch.when_idle()
        self.assertNoResult(idle)
        self.results[2].callback(None)
        self.results[3].errback(ValueError())
        self.assertEqual(self.channel.settled[-2:], [(2, "ack"), (3, "requeue")])
        self.assertIs(self.successResultOf(idle), True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_late_delivery_goes_back(self) -> None:
        self.make()
        self.dispatch.stop_intake()
        self.offer(1)
        self.assertEqual((self.begun, self.channel.settled), ([], [(1, "requeue")]))

    def test_stop_between_two_turns(self) -> None:
        def handler(delivery: Any) -> None:
            self.clock.rightNow += TURN

        hold: Deferred[None] = Deferred()
        self.make(lambda delivery: hold if delivery.delivery_tag == 1 else handler(delivery))
        self.offer(1, 2, 3)
        hold.callback(None)
        self.assertEqual(self.dispatch.stop_intake(), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_from_inside_a_handler(self) -> None:
        self.make(lambda delivery: self.dispatch.stop_intake())
        self.offer(1)
        self.offer(2)
        self.assertEqual(self.channel.settled, [(1, "ack"), (2, "requeue")])
        self.assertIs(self.successResultOf(self.dispatch.when_idle()), True)

    def test_abandoned_handlers_settle_nothing(self) -> None:
        """Past the deadline: results are late, whichever they are, and what is left goes back with the channel."""
        self.make(concurrency=3)
        self.offer(1, 2, 3)
        self.dispatch.stop_intake()
        idle = self.dispatch.when_idle()
        self.dispatch.abandon()
        self.assertIs(self.successResultOf(idle), False)
        self.assertEqual(self.dispatch.running, 3)
        self.results[1].callback(None)
        self.results[2].errback(ValueError())
        self.dispatch.cancel_running()
        self.assertEqual((self.channel.settled, self.dispatch.running), ([], 0))
        self.assertEqual(self.logged.text.count("handler ended after the deadline"), 3)
        self.assertEqual(set(self.logged.levels()), {"info"})

    def test_a_result_after_the_connection_was_lost_is_a_log_line(self) -> None:
        """R23, F57: StaleDelivery does not crash anything and is not an error."""
        self.make(concurrency=2)
        self.offer(1, 2)
        self.channel.lose(ConnectionLost())
        self.results[1].callback(None)
        self.results[2].errback(Reject("x"))
        self.assertEqual((self.channel.settled, self.dispatch.running), ([], 0))
        self.assertIn("message not settled, the broker will deliver it again", self.logged.text)
        self.assertNotIn("error", self.logged.levels())

    def test_a_waiter_may_be_cancelled(self) -> None:
        self.make()
        self.offer(1)
        self.dispatch.stop_intake()
        waiter, other = self.dispatch.when_idle(), self.dispatch.when_idle()
        waiter.cancel()
        self.failureResultOf(waiter)
        self.results[1].callback(None)
        self.assertIs(self.successResultOf(other), True)
