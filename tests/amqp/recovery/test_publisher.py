"""Publisher over the embedded broker on a clock: outcomes, losses, order, bounds, deadlines, the guilty message."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError

from tests.amqp.recovery.publishing import Outcome, PublisherCase
from txmsg.amqp import BasicProperties
from txmsg.amqp.recovery.publisher import Publisher
from txmsg.errors import (
    ConfigurationError,
    EncodeError,
    NotFound,
    NotSent,
    Overloaded,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
)


class PublisherTests(PublisherCase):
    """One publisher, one broker, one clock."""

    # -- one message -------------------------------------------------------------------------------

    def test_confirmed(self) -> None:
        """R1: a publish fires with its id once the broker has it; it is persistent and mandatory."""
        publisher = self.start()
        outcome = Outcome(publisher.publish("", "jobs", "first"))
        self.assertTrue(outcome.is_waiting)
        self.advance(0.1)
        (message,) = self.broker.queue("jobs").messages
        self.assertEqual(message.body, b"first")
        self.assertEqual(message.properties["delivery_mode"], 2)
        self.assertEqual(message.properties["message_id"], outcome.value)
        self.assertGreaterEqual(len(outcome.value), 32)

    def test_given_properties(self) -> None:
        """The application's id and delivery mode are kept, its other properties too."""
        publisher = self.start()
        mine = BasicProperties(message_id="mine", delivery_mode=1, headers={"a": 1}, content_type="text/plain")
        theirs = BasicProperties(content_type="text/plain")
        outcomes = [Outcome(publisher.publish("", "jobs", b"x", each)) for each in (mine, theirs, mine)]
        self.advance(0.1)
        found = [message.properties for message in self.broker.queue("jobs").messages]
        self.assertEqual([outcomes[0].value, outcomes[2].value], ["mine", "mine"])
        self.assertEqual([p["delivery_mode"] for p in found], [1, 2, 1])
        self.assertEqual(found[0]["headers"], {"a": 1})
        self.assertEqual(found[1]["content_type"], "text/plain")
        self.assertIsNone(theirs.delivery_mode)

    def test_transient(self) -> None:
        """persistent=False adds no delivery mode."""
        publisher = self.start(persistent=False)
        publisher.publish("", "jobs", b"x")
        self.advance(0.1)
        self.assertNotIn("delivery_mode", self.broker.queue("jobs").messages[0].properties)

    def test_returned(self) -> None:
        """R1, R5: what fits no queue comes back, and it is the right one."""
        publisher = self.start()
        outcomes = [Outcome(publisher.publish("", key, b"x")) for key in ("jobs", "nowhere", "jobs")]
        self.advance(0.1)
        self.assertIsInstance(outcomes[1].error, PublishReturned)
        self.assertEqual([outcomes[0].error, outcomes[2].error], [None, None])
        self.assertEqual(publisher.report().returned, 1)

    def test_not_mandatory(self) -> None:
        """What fits no queue is the broker's to drop when it is not mandatory."""
        publisher = self.start()
        outcome = Outcome(publisher.publish("", "nowhere", b"x", mandatory=False))
        self.advance(0.1)
        self.assertIsNotNone(outcome.value)

    def test_nacked(self) -> None:
        """R2: the broker's refusal is an outcome of its own."""
        publisher = self.start()
        self.broker.faults.nack()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        self.advance(0.1)
        self.assertIsInstance(outcome.error, PublishNacked)
        self.assertEqual(publisher.report().nacked, 1)

    def test_nacked_after_a_loss(self) -> None:
        """R2: the refusal of a copy says nothing of the first one."""
        publisher = self.start()
        self.broker.faults.lose()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        self.clock.pump([0] * 10)
        self.broker.faults.clear()
        self.broker.faults.nack()
        self.lose()
        self.advance(3)
        self.assertIsInstance(outcome.error, PublishUnconfirmed)
        assert isinstance(outcome.error, PublishUnconfirmed)
        self.assertIsInstance(outcome.error.cause, PublishNacked)
        self.assertEqual(publisher.report().unconfirmed, 1)

    def test_not_encodable(self) -> None:
        """R21: what cannot be sent fails at once, and nothing else does."""
        publisher = self.start()
        bad: list[tuple[Any, ...]] = [
            ("x" * 256, "jobs", b""),
            ("", "\N{EURO SIGN}" * 100, b""),
            ("", "jobs", 3),
            ("", "jobs", b"", b"properties"),
            ("", 7, b""),
            ("", "jobs", b"", BasicProperties(headers={"x": object()})),
        ]
        for arguments in bad:
            with self.subTest(arguments=arguments):
                outcome = Outcome(publisher.publish(*arguments))
                self.assertIsInstance(outcome.error, EncodeError)
        good = Outcome(publisher.publish("", "jobs", bytearray(b"good")))
        self.advance(0.1)
        self.assertIsNotNone(good.value)
        self.assertEqual(publisher.report().outstanding, 0)

    def test_settings(self) -> None:
        """A setting that cannot be used is refused by name."""
        bad: dict[str, Any] = {"on_loss": "drop", "when_full": "block", "timeout": -1, "max_outstanding": 0}
        for name, value in bad.items():
            with self.subTest(name), self.assertRaisesRegex(ConfigurationError, name):
                Publisher(self.connection, **{name: value})

    # -- before, during and after a connection -----------------------------------------------------

    def test_before_the_first_connection(self) -> None:
        """What is published before there is a connection waits for it, in order."""
        publisher = Publisher(self.connection).join()
        outcomes = [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in range(5)]
        self.connection.start()
        self.advance(0.5)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"%d" % n for n in range(5)])
        self.assertTrue(all(outcome.value for outcome in outcomes))

    def test_joining_later(self) -> None:
        """A publisher on a connection that is ready works at once."""
        self.start()
        publisher = Publisher(self.connection).join()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        self.advance(0.1)
        self.assertIsNotNone(outcome.value)

    def test_resend(self) -> None:
        """R3, R4, R7: what was in flight is written again first, with its id; the new comes behind it."""
        publisher = self.start()
        self.broker.faults.cut(at_message=3)
        log: list[Outcome] = []
        first = [Outcome(publisher.publish("", "jobs", b"%d" % n), log) for n in range(6)]
        self.clock.advance(0.1)
        self.broker.faults.clear()
        later = [Outcome(publisher.publish("", "jobs", b"%d" % n), log) for n in range(6, 9)]
        self.advance(3)
        self.assertEqual([outcome.error for outcome in first + later], [None] * 9)
        self.assertEqual(log, first + later)
        messages = self.broker.queue("jobs").messages
        ids = [message.properties["message_id"] for message in messages]
        self.assertEqual(list(dict.fromkeys(ids)), [outcome.value for outcome in first + later])
        self.assertGreater(publisher.report().resent, 0)

    def test_fail_on_loss(self) -> None:
        """R2, R3: with on_loss="fail" what is in flight fails, what has not been written still waits."""
        publisher = self.start(on_loss="fail")
        self.broker.faults.lose()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        self.lose()
        later = Outcome(publisher.publish("", "jobs", b"y"))
        self.assertIsInstance(outcome.error, PublishUnconfirmed)
        self.broker.faults.clear()
        self.advance(3)
        self.assertIsNotNone(later.value)
        self.assertEqual(publisher.report().unconfirmed, 1)

    def test_many_losses(self) -> None:
        """R3, R4, R9: whatever is cut, and wherever, each message arrives, in order."""
        publisher = self.start(timeout=500)
        outcomes = []
        for n in range(60):
            if not n % 7:
                self.broker.faults.cut(at_message=1 + n % 5)
            outcomes.append(Outcome(publisher.publish("", "jobs", b"%d" % n)))
            self.advance(0.3)
        self.broker.faults.clear()
        self.advance(60)
        self.assertEqual([outcome.error for outcome in outcomes], [None] * 60)
        bodies = list(dict.fromkeys(self.broker.queue("jobs").bodies))
        self.assertEqual(bodies, [b"%d" % n for n in range(60)])

    # -- bounds and deadlines ----------------------------------------------------------------------

    def test_bound(self) -> None:
        """R6: beyond the bound a publish fails at once; an outcome makes room."""
        publisher = Publisher(self.connection, max_outstanding=3).join()
        outcomes = [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in range(4)]
        self.assertIsInstance(outcomes[3].error, Overloaded)
        room = Outcome(publisher.when_room())
        self.connection.start()
        self.advance(0.5)
        self.assertIsNone(room.error)
        self.assertTrue(room.deferred.called)
        self.assertTrue(all(outcome.value for outcome in outcomes[:3]))
        self.assertEqual(publisher.report().published, 3)

    def test_bound_in_bytes(self) -> None:
        """R6: bodies count; a single one that is too large goes when there is nothing else."""
        publisher = Publisher(self.connection, max_outstanding_bytes=10_000).join()
        outcomes = [Outcome(publisher.publish("", "jobs", bytes(20_000))) for n in range(2)]
        self.assertTrue(outcomes[0].is_waiting)
        self.assertIsInstance(outcomes[1].error, Overloaded)
        self.connection.start()
        self.advance(0.5)
        self.assertIsNotNone(outcomes[0].value)

    def test_waiting_for_room(self) -> None:
        """R6: with when_full="wait" what does not fit waits in order, and only so many may."""
        publisher = Publisher(self.connection, max_outstanding=2, when_full="wait").join()
        outcomes = [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in range(103)]
        self.assertIsInstance(outcomes[102].error, Overloaded)
        outcomes[50].deferred.cancel()
        self.assertEqual(publisher.report().outstanding, 101)
        self.connection.start()
        self.advance(1)
        sent = [n for n in range(102) if n != 50]
        self.assertEqual(self.broker.queue("jobs").bodies, [b"%d" % n for n in sent])
        self.assertTrue(all(outcomes[n].value for n in sent))
        report = publisher.report()
        self.assertEqual((report.published, report.confirmed, report.cancelled, report.outstanding), (102, 101, 1, 0))

    def test_deadline_before_a_connection(self) -> None:
        """R2: what never left fails with NotSent within its deadline and a second."""
        publisher = Publisher(self.connection, timeout=5).join()
        short = Outcome(publisher.publish("", "jobs", b"x", timeout=2))
        long = Outcome(publisher.publish("", "jobs", b"y"))
        self.advance(3.1)
        self.assertIsInstance(short.error, NotSent)
        self.assertIn("no connection", str(short.error))
        self.assertTrue(long.is_waiting)
        self.advance(3)
        self.assertIsInstance(long.error, NotSent)
        self.connection.start()
        self.advance(1)
        self.assertEqual(self.broker.queue("jobs").depth, 0)
        self.assertEqual(publisher.report().not_sent, 2)

    def test_deadline_of_a_confirm(self) -> None:
        """R2: what left and was never answered fails with PublishTimeout, and the next ones are not affected."""
        publisher = self.start(timeout=5)
        self.broker.faults.lose()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        self.advance(6.1)
        self.assertIsInstance(outcome.error, PublishTimeout)
        self.broker.faults.clear()
        later = Outcome(publisher.publish("", "jobs", b"y"))
        self.advance(0.1)
        self.assertIsNotNone(later.value)
        self.lose()
        self.advance(3)
        self.assertEqual(self.broker.queue("jobs").bodies.count(b"x"), 0, "written again, after its outcome")

    def test_blocked(self) -> None:
        """R6, R16: while the broker blocks, publishes wait, and the error of a late one says so."""
        publisher = self.start(timeout=10)
        Outcome(publisher.publish("", "jobs", b"0"))
        with self.broker.faults.block():
            Outcome(publisher.publish("", "jobs", b"1"))
            self.advance(0.5)
            short = Outcome(publisher.publish("", "jobs", b"2", timeout=1))
            long = Outcome(publisher.publish("", "jobs", b"3"))
            self.advance(3)
            self.assertIsInstance(short.error, NotSent)
            self.assertIn("blocked", str(short.error))
            self.assertTrue(long.is_waiting)
        self.advance(0.5)
        self.assertIsNotNone(long.value)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"0", b"1", b"3"])

    # -- cancelling --------------------------------------------------------------------------------

    def test_cancel(self) -> None:
        """R8: what has not left does not leave; what has shifts no confirm, and is not written again."""
        publisher = Publisher(self.connection).join()
        unsent = Outcome(publisher.publish("", "jobs", b"unsent"))
        unsent.deferred.cancel()
        self.assertIsInstance(unsent.error, CancelledError)
        self.connection.start()
        self.advance(0.5)
        outcomes = [Outcome(publisher.publish("", key, key)) for key in ("jobs", "jobs", "nowhere", "jobs")]
        outcomes[1].deferred.cancel()
        self.advance(0.1)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"jobs"] * 3)
        self.assertIsInstance(outcomes[1].error, CancelledError)
        self.assertIsInstance(outcomes[2].error, PublishReturned)
        self.assertTrue(outcomes[0].value and outcomes[3].value)
        report = publisher.report()
        self.assertEqual((report.cancelled, report.confirmed, report.returned, report.outstanding), (2, 2, 1, 0))

    # -- what breaks the channel -------------------------------------------------------------------

    def test_the_guilty_one(self) -> None:
        """R2, R17: of many in flight the one that makes the broker close the channel fails, the others arrive."""
        publisher = self.start()
        outcomes = []
        for n in range(40):
            exchange = "missing" if n in (11, 30) else ""
            outcomes.append(Outcome(publisher.publish(exchange, "jobs", b"%d" % n)))
        self.advance(5)
        for n, outcome in enumerate(outcomes):
            if n in (11, 30):
                self.assertIsInstance(outcome.error, NotFound)
            else:
                self.assertIsNotNone(outcome.value, n)
        bodies = list(dict.fromkeys(self.broker.queue("jobs").bodies))
        self.assertEqual(bodies, [b"%d" % n for n in range(40) if n not in (11, 30)])
        self.assertEqual(publisher.report().refused, 2)
        again = Outcome(publisher.publish("", "jobs", b"after"))
        self.advance(0.1)
        self.assertIsNotNone(again.value)

    def test_alone_in_flight(self) -> None:
        """R17: the only one in flight is the one, at once."""
        publisher = self.start()
        outcome = Outcome(publisher.publish("missing", "jobs", b"x"))
        self.clock.pump([0.01] * 5)
        self.assertIsInstance(outcome.error, NotFound)
        self.assertEqual(publisher.report().resent, 0)

    def test_an_unconfirmed_one_before_it(self) -> None:
        """R2, R17: a message whose confirm is late is not taken for the guilty one behind it."""
        publisher = self.start()
        self.broker.faults.lose(times=1)
        innocent = Outcome(publisher.publish("", "jobs", b"y"))
        guilty = Outcome(publisher.publish("missing", "jobs", b"x"))
        self.advance(2)
        self.assertIsInstance(guilty.error, NotFound)
        self.assertIsNotNone(innocent.value)

    def test_guilty_and_cancelled(self) -> None:
        """R8, R17: where the guilty one was cancelled, no other is taken for it."""
        publisher = self.start()
        guilty = Outcome(publisher.publish("missing", "jobs", b"x"))
        innocent = Outcome(publisher.publish("", "jobs", b"y"))
        guilty.deferred.cancel()
        self.advance(2)
        self.assertIsNotNone(innocent.value)

    def test_guilty_with_fail(self) -> None:
        """R2: with on_loss="fail" all that were in flight fail with the broker's words."""
        publisher = self.start(on_loss="fail")
        outcomes = [Outcome(publisher.publish(exchange, "jobs", b"x")) for exchange in ("missing", "")]
        self.advance(2)
        self.assertIsInstance(outcomes[0].error, NotFound)
        self.assertIsInstance(outcomes[1].error, NotFound)
        later = Outcome(publisher.publish("", "jobs", b"x"))
        self.advance(1)
        self.assertIsNotNone(later.value)

    # -- the end -----------------------------------------------------------------------------------

    def test_close(self) -> None:
        """R29, R30: closing waits for what is outstanding, takes no more, and tells the sums."""
        publisher = self.start()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        first, second = Outcome(publisher.close()), Outcome(publisher.close())
        refused = Outcome(publisher.publish("", "jobs", b"y"))
        self.assertIsInstance(refused.error, NotSent)
        self.advance(0.2)
        self.assertIsNotNone(outcome.value)
        self.assertEqual(first.value.confirmed, 1)
        self.assertEqual(second.value, first.value)

    def test_close_has_a_limit(self) -> None:
        """R30: what has no outcome by then fails typed."""
        publisher = self.start()
        self.broker.faults.lose()
        written = Outcome(publisher.publish("", "jobs", b"x"))
        self.advance(0.1)
        self.broker.faults.block()
        self.advance(0.1)
        waiting = Outcome(publisher.publish("", "jobs", b"y"))
        room = Outcome(publisher.when_room())
        closing = Outcome(publisher.close(timeout=2))
        self.advance(2.1)
        self.assertIsInstance(written.error, PublishUnconfirmed)
        self.assertIsInstance(waiting.error, (NotSent, PublishUnconfirmed))
        self.assertEqual(closing.value.outstanding, 0)
        self.assertTrue(room.deferred.called)

    def test_connection_closed(self) -> None:
        """R28: with the connection everything ends."""
        publisher = Publisher(self.connection).join()
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        Outcome(self.connection.close(timeout=1))
        self.advance(1.5)
        self.assertIsInstance(outcome.error, NotSent)
        self.assertIsInstance(Outcome(publisher.publish("", "jobs", b"x")).error, NotSent)
        self.assertFalse(publisher.is_open)

    def test_drain(self) -> None:
        """drain() fires when there is nothing left, or at its limit."""
        publisher = Publisher(self.connection).join()
        self.assertEqual(Outcome(publisher.drain()).value.published, 0)
        Outcome(publisher.publish("", "jobs", b"x"))
        limited, whole = Outcome(publisher.drain(1)), Outcome(publisher.drain())
        self.advance(1.1)
        self.assertEqual(limited.value.outstanding, 1)
        self.connection.start()
        self.advance(0.5)
        self.assertEqual(whole.value.confirmed, 1)

    def test_without_confirms(self) -> None:
        """confirm=False: a publish is done when it is written."""
        publisher = self.start(confirm=False)
        outcome = Outcome(publisher.publish("", "jobs", b"x"))
        self.assertIsNotNone(outcome.value)
        self.advance(0.1)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"x"])
