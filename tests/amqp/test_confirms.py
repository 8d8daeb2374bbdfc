"""ConfirmLedger: each publish gets the answer that is its own, once, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import outcomes
from txmsg.amqp.confirms import ConfirmLedger, MandatoryPublish
from txmsg.amqp.delivery import ReturnedMessage
from txmsg.errors import (
    ConnectionLost,
    NotFound,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
    RemoteProtocolError,
)
from txmsg.wire.properties import BasicProperties, UndecodableProperties

Publish = Deferred[int | None]


def returned(message_id: str | None = None, body: bytes = b"", exchange: str = "x", key: str = "k") -> ReturnedMessage:
    return ReturnedMessage(312, "NO_ROUTE", exchange, key, BasicProperties(message_id=message_id), body)


def publish_on(ledger: ConfirmLedger, count: int) -> list[Publish]:
    made: list[Publish] = []
    for _ in range(count):
        made.append(Deferred())
        ledger.published(made[-1])
    return made


class LedgerTestCase(SynchronousTestCase):
    timeout_of_publishes: float | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.ledger = ConfirmLedger(self.clock, self.timeout_of_publishes)

    def publish(self, count: int = 1) -> list[Publish]:
        return publish_on(self.ledger, count)

    def publish_mandatory(self, message_id: str, body: bytes | None = None, key: str = "k") -> Publish:
        publish: Publish = Deferred()
        self.ledger.published_mandatory(publish, MandatoryPublish(message_id, "x", key, body))
        return publish


class AnswerTests(LedgerTestCase):
    def test_returned_and_nacked(self) -> None:
        """N-08: what came back before it was refused is in the error."""
        first, second = self.publish_mandatory("a"), self.publish_mandatory("b")
        back = returned("a")
        self.ledger.returned(back)
        self.ledger.nacked(2, True)
        self.assertIs(self.failureResultOf(first, PublishNacked).value.returned, back)
        self.assertIsNone(self.failureResultOf(second, PublishNacked).value.returned)

    def test_numbers_begin_at_one(self) -> None:
        """N-01: the first publish after confirm.select is number 1."""
        (first,) = self.publish()
        self.assertEqual(self.ledger.last_tag, 1)
        self.ledger.acked(1, False)
        self.assertEqual(self.successResultOf(first), 1)

    def test_a_single_ack_ends_one_publish(self) -> None:
        """N-03: exactly that one, in whatever order the acks come."""
        publishes = self.publish(4)
        for tag in (3, 1, 4):
            self.ledger.acked(tag, False)
        self.assertEqual(outcomes(publishes), [1, None, 3, 4])
        self.assertEqual(len(self.ledger), 1)

    def test_a_multiple_ack_ends_all_up_to_it_in_order(self) -> None:
        """N-04: ascending, and nothing above."""
        order: list[int | None] = []
        for publish in self.publish(5):
            publish.addCallback(order.append)
        self.ledger.acked(2, False)
        self.ledger.acked(4, True)
        self.assertEqual(order, [2, 1, 3, 4])
        self.assertEqual(list(self.ledger.pending), [5])

    def test_a_multiple_ack_of_an_answered_number(self) -> None:
        """N-05: the number itself was answered before; the lower ones still are answered by it."""
        publishes = self.publish(4)
        self.ledger.acked(3, False)
        self.ledger.acked(3, True)
        self.assertEqual(outcomes(publishes), [1, 2, 3, None])

    def test_multiple_with_zero_is_everything(self) -> None:
        """N-04: tag 0 with `multiple` answers all; then there is nothing left to answer."""
        publishes = self.publish(3)
        self.ledger.acked(0, True)
        self.ledger.acked(0, True)
        self.assertEqual(outcomes(publishes), [1, 2, 3])

    def test_many_in_flight(self) -> None:
        """R32: what one answer costs does not grow with the number of publishes in flight, nor with their history."""
        count = 20_000
        acked, nacked = self.ledger, ConfirmLedger(self.clock, None)
        for publish in [*self.publish(count), *publish_on(nacked, count)]:
            publish.addErrback(lambda failure: None)
        began = time.process_time()
        for tag in range(1, count + 1):
            acked.acked(tag, True)
            nacked.nacked(tag, True)
        self.assertLess(time.process_time() - began, 2.0)
        self.assertEqual((len(acked), len(nacked)), (0, 0))

        acked.last_tag = 1 << 40  # after years of single answers
        publishes = self.publish(3)
        acked.acked(acked.last_tag - 1, True)
        self.assertEqual([type(outcome) for outcome in outcomes(publishes)], [int, int, type(None)])

    def test_nack(self) -> None:
        """N-06: PublishNacked, for one or for several."""
        publishes = self.publish(4)
        self.ledger.nacked(2, False)
        self.ledger.nacked(3, True)
        found = outcomes(publishes)
        self.assertEqual([type(o) for o in found], [PublishNacked] * 3 + [type(None)])
        self.assertIn("publish 2", str(found[1]))

    def test_nack_of_everything(self) -> None:
        """N-06: tag 0 with `multiple`."""
        publishes = self.publish(2)
        self.ledger.nacked(0, True)
        self.assertEqual([type(o) for o in outcomes(publishes)], [PublishNacked] * 2)

    def test_a_second_answer_changes_nothing(self) -> None:
        """R2: one outcome each, also if the broker repeats itself."""
        first, second = self.publish(2)
        self.ledger.acked(1, False)
        self.ledger.nacked(1, False)
        self.ledger.acked(1, False)
        self.assertEqual(outcomes([first, second]), [1, None])

    def test_a_number_never_given_is_a_violation(self) -> None:
        """Both sides count differently, so no later answer could be trusted: 503."""
        self.publish(2)
        answers: list[Callable[[int, bool], None]] = [self.ledger.acked, self.ledger.nacked]
        for answer in answers:
            for multiple in (False, True):
                error = self.assertRaises(RemoteProtocolError, answer, 3, multiple)
                self.assertEqual(error.reply_code, 503)
        self.assertEqual(len(self.ledger), 2)

    def test_an_answer_before_any_publish(self) -> None:
        """As above, for an ack of number 0 or 1 when nothing was published."""
        self.assertRaises(RemoteProtocolError, self.ledger.acked, 1, False)
        self.assertRaises(RemoteProtocolError, self.ledger.acked, 0, False)

    def test_cancelling_shifts_nothing(self) -> None:
        """R8, N-22: a cancelled publish keeps its number; its answer is swallowed."""
        publishes = self.publish(3)
        publishes[1].cancel()
        self.failureResultOf(publishes[1], CancelledError)
        for tag in (1, 2, 3):
            self.ledger.acked(tag, False)
        self.assertEqual(self.successResultOf(publishes[0]), 1)
        self.assertEqual(self.successResultOf(publishes[2]), 3)

    def test_cancelled_publishes_and_every_kind_of_end(self) -> None:
        """R8: ack, multiple ack, nack, return and close all step over a cancelled Deferred."""
        publishes = [*self.publish(3), self.publish_mandatory("id"), *self.publish(1)]
        for publish in publishes:
            publish.cancel()
            self.failureResultOf(publish, CancelledError)
        self.ledger.acked(1, True)
        self.ledger.nacked(2, False)
        self.ledger.nacked(3, True)
        self.assertTrue(self.ledger.returned(returned("id")))
        self.ledger.acked(4, False)
        self.ledger.close(lambda tag: ConnectionLost())
        self.assertEqual(len(self.ledger), 0)


class ReturnTests(LedgerTestCase):
    def test_a_return_fails_its_publish_at_the_ack(self) -> None:
        """N-07, R1: unroutable is acked as well; the publish fails with PublishReturned, with what came back."""
        routable, unroutable = self.publish_mandatory("a"), self.publish_mandatory("b")
        message = returned("b", b"body")
        self.assertTrue(self.ledger.returned(message))
        self.assertNoResult(unroutable)
        self.ledger.acked(2, True)
        self.assertEqual(self.successResultOf(routable), 1)
        error = self.failureResultOf(unroutable, PublishReturned).value
        self.assertIs(error.returned, message)
        self.assertEqual((error.reply_code, error.exchange, error.routing_key), (312, "x", "k"))

    def test_returns_among_many_and_one_multiple_ack(self) -> None:
        """R5, N-09, N-10: 100 routable and 100 unroutable in turn, then one ack for all: nobody is mistaken."""
        publishes = [self.publish_mandatory(f"id{n}") for n in range(200)]
        for n in reversed(range(1, 200, 2)):
            self.assertTrue(self.ledger.returned(returned(f"id{n}", b"%d" % n)))
        self.ledger.acked(200, True)
        for n, outcome in enumerate(outcomes(publishes)):
            if n % 2:
                self.assertEqual(outcome.returned.body, b"%d" % n)
            else:
                self.assertEqual(outcome, n + 1)

    def test_equal_ids_are_told_apart_by_body(self) -> None:
        """R5: where the application repeats a message id, the body decides."""
        first, second = self.publish_mandatory("same", b"1"), self.publish_mandatory("same", b"2")
        self.assertTrue(self.ledger.returned(returned("same", b"2")))
        self.ledger.acked(2, True)
        self.assertEqual(self.successResultOf(first), 1)
        self.failureResultOf(second, PublishReturned)

    def test_equal_ids_and_bodies_go_by_order(self) -> None:
        """R5: indistinguishable messages that all come back: each publish gets one return, the oldest first."""
        publishes = [self.publish_mandatory("same", b"b") for _ in range(3)]
        for _ in range(2):
            self.assertTrue(self.ledger.returned(returned("same", b"b")))
        self.ledger.acked(3, True)
        found = outcomes(publishes)
        self.assertIsInstance(found[0], PublishReturned)
        self.assertIsInstance(found[1], PublishReturned)
        self.assertEqual(found[2], 3)

    def test_the_same_id_to_another_place_does_not_match(self) -> None:
        """R5: exchange and routing key are part of what identifies a publish."""
        publish = self.publish_mandatory("id", key="k")
        self.assertFalse(self.ledger.returned(returned("id", key="other")))
        self.assertFalse(self.ledger.returned(returned("id", exchange="other")))
        self.ledger.acked(1, False)
        self.assertEqual(self.successResultOf(publish), 1)

    def test_a_return_that_matches_nothing(self) -> None:
        """N-20: False, so that the channel can report it; no publish is charged with it."""
        self.assertFalse(self.ledger.returned(returned("id")))
        (publish,) = self.publish()
        self.assertFalse(self.ledger.returned(returned(None)))
        undecodable = UndecodableProperties(b"\xff", RemoteProtocolError("bad"))
        self.assertFalse(self.ledger.returned(ReturnedMessage(312, "NO_ROUTE", "x", "k", undecodable, b"")))
        self.ledger.acked(1, False)
        self.assertEqual(self.successResultOf(publish), 1)

    def test_returned_twice(self) -> None:
        """R2: a second return of one message finds no publish any more, before and after the ack."""
        publish = self.publish_mandatory("id")
        self.assertTrue(self.ledger.returned(returned("id")))
        self.assertFalse(self.ledger.returned(returned("id")))
        self.ledger.acked(1, False)
        self.assertFalse(self.ledger.returned(returned("id")))
        self.failureResultOf(publish, PublishReturned)

    def test_return_then_nack(self) -> None:
        """N-08: the broker refused it; its nack is the answer."""
        publish = self.publish_mandatory("id")
        self.ledger.returned(returned("id"))
        self.ledger.nacked(1, False)
        self.failureResultOf(publish, PublishNacked)

    def test_return_then_the_end(self) -> None:
        """R2: a returned message has its outcome, also if the connection ends before the ack."""
        back, unknown = self.publish_mandatory("a"), self.publish_mandatory("b")
        self.ledger.returned(returned("a"))
        self.ledger.close(lambda tag: PublishUnconfirmed(f"publish {tag}"))
        self.failureResultOf(back, PublishReturned)
        self.failureResultOf(unknown, PublishUnconfirmed)

    def test_generated_ids_are_short_and_unique(self) -> None:
        """R5: no two publishes of one channel or of two share an id; it fits a short string with room to spare."""
        other = ConfirmLedger(self.clock, None)
        ids = [ledger.next_message_id() for ledger in (self.ledger, other) for _ in range(1000)]
        self.assertEqual(len(set(ids)), 2000)
        self.assertEqual({len(each) for each in ids}, {36})

    def test_nothing_is_kept_of_answered_publishes(self) -> None:
        """R31: after the answers the tables that match returns are empty again."""
        publishes = [self.publish_mandatory(f"id{n % 3}", b"b") for n in range(30)]
        for n in range(0, 30, 4):
            self.ledger.returned(returned(f"id{n % 3}", b"b"))
        self.ledger.acked(10, True)
        self.ledger.nacked(20, True)
        self.ledger.acked(0, True)
        self.assertNotIn(None, outcomes(publishes))
        for name in ("_awaiting_return", "_by_key", "_returned", "pending"):
            self.assertFalse(getattr(self.ledger, name), name)


class TimeLimitTests(LedgerTestCase):
    timeout_of_publishes = 30.0

    def tearDown(self) -> None:
        self.ledger.close(lambda tag: ConnectionLost())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    def test_unanswered_within_the_limit(self) -> None:
        """R2: PublishTimeout, no earlier than the limit and at most one second later."""
        for offset in (0, 0.25, 0.5, 0.75, 3.25):
            self.wait(offset)
            began = self.clock.seconds()
            (publish,) = self.publish()
            self.wait(29.75)
            self.assertNoResult(publish)
            self.wait(1.25)
            error = self.failureResultOf(publish, PublishTimeout).value
            self.assertIn("30 s", str(error))
            self.assertLessEqual(self.clock.seconds() - began, 31.0)

    def test_a_short_limit(self) -> None:
        """R2: also a limit below a second is kept, within itself."""
        ledger = ConfirmLedger(self.clock, 0.5)
        publish: Publish = Deferred()
        ledger.published(publish)
        self.clock.advance(0.25)
        self.assertNoResult(publish)
        self.clock.pump([0.25] * 3)
        self.failureResultOf(publish, PublishTimeout)
        ledger.close(lambda tag: ConnectionLost())

    def test_later_publishes_have_their_own_time(self) -> None:
        """R2: one limit each, though the clock is looked at for all of them together."""
        (early,) = self.publish()
        self.wait(20)
        (late,) = self.publish()
        self.wait(11)
        self.failureResultOf(early, PublishTimeout)
        self.assertNoResult(late)
        self.ledger.acked(2, False)
        self.assertEqual(self.successResultOf(late), 2)

    def test_a_late_answer_is_swallowed_and_shifts_nothing(self) -> None:
        """R8: ack, nack and return of a publish that timed out harm nobody."""
        timed_out = [*self.publish(3), self.publish_mandatory("id")]
        self.wait(31)
        for publish in timed_out:
            self.failureResultOf(publish, PublishTimeout)
        (next_one,) = self.publish()
        self.ledger.acked(1, False)
        self.ledger.nacked(3, True)
        self.ledger.returned(returned("id"))
        self.ledger.acked(5, True)
        self.assertEqual(self.successResultOf(next_one), 5)
        self.assertEqual(len(self.ledger), 0)

    def test_cancelled_before_the_limit(self) -> None:
        """R8: the limit does not touch a publish that has been cancelled."""
        first, second = self.publish(2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.wait(31)
        self.failureResultOf(second, PublishTimeout)

    def test_the_limit_costs_one_timer_and_bounded_memory(self) -> None:
        """R31: however many publishes there are and however long the channel lives."""
        for _ in range(500):
            self.publish(10)
            self.ledger.acked(0, True)
            self.wait(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertLess(len(self.ledger._marks), 40)
        (again,) = self.publish()
        self.wait(31)
        self.failureResultOf(again, PublishTimeout)

    def test_closing_inside_a_time_out(self) -> None:
        """R28, R32: the errback of the first late publish ends the connection; no timer and no publish is left."""
        publishes = self.publish(3)
        publishes[0].addErrback(lambda failure: self.ledger.close(lambda tag: ConnectionLost(f"{tag}")))
        self.wait(31)
        self.assertEqual([type(o) for o in outcomes(publishes)[1:]], [ConnectionLost] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.ledger), 0)

    def test_publishing_inside_a_time_out(self) -> None:
        """R32: whoever publishes again in the errback gets a publish with a limit of its own."""
        (first,) = self.publish()
        again: list[Publish] = []
        first.addErrback(lambda failure: again.extend(self.publish()))
        self.wait(31)
        self.assertNoResult(again[0])
        self.wait(31)
        self.failureResultOf(again[0], PublishTimeout)

    def test_without_a_limit_there_is_no_timer(self) -> None:
        """confirm_timeout=None waits for ever."""
        before = self.clock.getDelayedCalls()
        ledger = ConfirmLedger(self.clock, None)
        publish: Publish = Deferred()
        ledger.published(publish)
        self.assertEqual(self.clock.getDelayedCalls(), before)


class ReentrancyTests(LedgerTestCase):
    def close(self, result: object = None) -> None:
        self.ledger.close(lambda tag: NotFound(f"publish {tag}"))

    def test_publishing_in_a_callback(self) -> None:
        """R32: what is published while a multiple ack is handled is behind it and waits for its own answer."""
        first, second = self.publish(2)
        later: list[Publish] = []
        first.addCallback(lambda tag: later.extend(self.publish()))
        self.ledger.acked(2, True)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertNoResult(later[0])
        self.ledger.acked(3, False)
        self.assertEqual(self.successResultOf(later[0]), 3)

    def test_closing_in_a_callback(self) -> None:
        """R2, R32: the end comes in the middle of a multiple ack, of a multiple nack, of a close."""
        acked = self.publish(3)
        acked[0].addCallback(self.close)
        self.ledger.acked(3, True)
        self.assertEqual([type(o) for o in outcomes(acked)[1:]], [NotFound] * 2)

        self.setUp()
        nacked = self.publish(3)
        nacked[0].addErrback(self.close)
        self.ledger.nacked(3, True)
        self.assertEqual([type(o) for o in outcomes(nacked)[1:]], [NotFound] * 2)

        self.setUp()
        closed = self.publish(3)
        closed[0].addErrback(self.close)
        self.close()
        self.assertEqual([type(o) for o in outcomes(closed)[1:]], [NotFound] * 2)

    def test_cancelling_a_neighbour(self) -> None:
        """R32: a callback may cancel another publish that the same frame answers."""
        publishes = self.publish(3)
        publishes[0].addCallback(lambda tag: publishes[2].cancel())
        self.ledger.acked(3, True)
        self.failureResultOf(publishes[2], CancelledError)
        self.assertEqual(self.successResultOf(publishes[1]), 2)

    def test_when_idle_is_called_once_nothing_is_pending(self) -> None:
        """R30: closing waits for this: after the last answer, whatever kind it is; once."""
        calls: list[int] = []
        for end in (
            lambda: self.ledger.acked(0, True),
            lambda: self.ledger.nacked(0, True),
            lambda: self.ledger.acked(self.ledger.last_tag, False),
            self.close,
        ):
            (publish,) = self.publish()
            publish.addErrback(lambda failure: None)
            self.ledger.when_idle = lambda: calls.append(len(self.ledger))
            end()
            end() if end is self.close else None
        self.assertEqual(calls, [0, 0, 0, 0])

    def test_oldest_first_at_the_end(self) -> None:
        """R4: those who publish again in the errback keep their order."""
        order: list[str] = []
        for publish in self.publish(4):
            publish.addErrback(lambda failure: order.append(str(failure.value)))
        self.close()
        self.assertEqual([text.split(" (")[0] for text in order], ["publish 1", "publish 2", "publish 3", "publish 4"])
