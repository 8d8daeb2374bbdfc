"""SettlementLedger: what may be settled, and that the acks written settle just that."""

from __future__ import annotations

import re
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.broker_model import ACK, ModelChannel
from txmsg.amqp.settlement import SettlementLedger
from txmsg.errors import AlreadySettled, ConnectionLost, EncodeError, SettlementError, StaleDelivery


def written(ledger: SettlementLedger) -> list[tuple[int, bool]]:
    """The acks that leave now, as (tag, multiple)."""
    octets = ledger.take_acks(lambda tag, multiple: b"%d%c" % (tag, b"+" if multiple else b","))
    assert not ledger.has_unwritten_acks
    return [(int(tag), how == "+") for tag, how in re.findall("([0-9]+)([+,])", octets.decode())]


def with_deliveries(count: int) -> SettlementLedger:
    """A ledger that has seen the delivery tags 1 to `count`."""
    ledger = SettlementLedger()
    for tag in range(1, count + 1):
        ledger.delivered(tag)
    return ledger


class AckingTests(SynchronousTestCase):
    def test_one_ack_is_a_single_ack(self) -> None:
        """N-03, K-15: one ack settles one tag and says nothing about others."""
        ledger = with_deliveries(3)
        ledger.ack(2)
        self.assertEqual(len(ledger), 2)
        self.assertEqual(written(ledger), [(2, False)])
        self.assertEqual(list(ledger.open), [1, 3])

    def test_the_only_delivery_is_acked_singly(self) -> None:
        """One ack is not written as `multiple` even where that would be right."""
        ledger = with_deliveries(1)
        ledger.ack(1)
        self.assertEqual(written(ledger), [(1, False)])

    def test_acks_of_a_turn_without_a_gap_are_one_multiple_ack(self) -> None:
        """Everything up to the highest tag is settled, so one frame says it."""
        ledger = with_deliveries(100)
        for tag in range(1, 101):
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(100, True)])

    def test_the_order_of_the_acks_does_not_matter(self) -> None:
        """The highest tag is written, not the last one acked."""
        ledger = with_deliveries(4)
        for tag in (4, 2, 1, 3):
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(4, True)])

    def test_a_gap_makes_single_acks_above_it(self) -> None:
        """R22, R23: an open delivery is never settled by somebody else's ack."""
        ledger = with_deliveries(6)
        for tag in (1, 2, 4, 6):
            ledger.ack(tag)
        frames = written(ledger)
        self.assertEqual(frames, [(2, True), (4, False), (6, False)])
        self.assertEqual(list(ledger.open), [3, 5])

    def test_nothing_below_the_gap_is_no_multiple(self) -> None:
        """With the lowest delivery open, every ack goes alone."""
        ledger = with_deliveries(3)
        ledger.ack(3)
        ledger.ack(2)
        self.assertEqual(sorted(written(ledger)), [(2, False), (3, False)])

    def test_one_below_the_gap_stays_single(self) -> None:
        """A `multiple` that covers one tag says no more than a single ack."""
        ledger = with_deliveries(4)
        for tag in (1, 3):
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(1, False), (3, False)])

    def test_tags_of_no_ack_deliveries_are_no_gap(self) -> None:
        """Tags that never had to be settled do not keep the acks apart."""
        ledger = SettlementLedger()
        for tag in (2, 5, 9):
            ledger.delivered(tag)
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(9, True)])

    def test_settled_in_an_earlier_turn_is_no_gap(self) -> None:
        """What was acked or nacked before is settled, so the next acks are one `multiple` again."""
        ledger = with_deliveries(5)
        ledger.settle(3)
        ledger.ack(1)
        self.assertEqual(written(ledger), [(1, False)])
        for tag in (2, 4):
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(4, True)])
        self.assertEqual(list(ledger.open), [5])

    def test_the_highest_possible_tag(self) -> None:
        """W-11: delivery tags have 64 bits."""
        ledger = SettlementLedger()
        ledger.delivered(2**64 - 1)
        ledger.ack(2**64 - 1)
        self.assertEqual(written(ledger), [(2**64 - 1, False)])

    def test_an_equal_number_of_another_type_is_written_as_the_tag(self) -> None:
        """1.0 and True equal 1; what leaves is the delivery's own tag, an int that can be encoded."""
        ledger = with_deliveries(2)
        ledger.ack(True)
        self.assertEqual(written(ledger), [(1, False)])
        ledger.delivered(3)
        ledger.ack(3.0)  # type: ignore[arg-type]
        tags: list[int] = []
        ledger.take_acks(lambda tag, multiple: tags.append(tag) or b"")  # type: ignore[func-returns-value]
        self.assertEqual([type(tag) for tag in tags], [int])
        self.assertIs(type(ledger.settle(2.0)), int)  # type: ignore[arg-type]


class RefusalTests(SynchronousTestCase):
    def test_a_second_settlement_is_refused(self) -> None:
        """R23: AlreadySettled, whichever way it was settled first; nothing more is written."""
        ledger = with_deliveries(3)
        ledger.ack(1)
        ledger.settle(2)
        ledger.settle_up_to(3)
        for tag in (1, 2, 3):
            self.assertRaises(AlreadySettled, ledger.ack, tag)
            self.assertRaises(AlreadySettled, ledger.settle, tag)
            self.assertRaises(AlreadySettled, ledger.settle_up_to, tag)
        self.assertEqual(written(ledger), [(1, False)])

    def test_tags_that_were_never_delivered(self) -> None:
        """R23: no 406 can be provoked with a number made up."""
        ledger = with_deliveries(2)
        for tag in (0, 3, -1, 2**70):
            self.assertRaises(SettlementError, ledger.ack, tag)
            self.assertRaises(SettlementError, ledger.settle, tag)
        self.assertEqual(list(ledger.open), [1, 2])
        self.assertFalse(ledger.has_unwritten_acks)

    def test_a_tag_that_is_no_number(self) -> None:
        """W-24, K-17: None or a str is an EncodeError that says so."""
        ledger = with_deliveries(1)
        for tag in (None, "1", 1.5, [1]):
            self.assertRaises(EncodeError, ledger.ack, tag)
            self.assertRaises(EncodeError, ledger.settle, tag)
            error = self.assertRaises(EncodeError, ledger.settle_up_to, tag)
            self.assertIn(type(tag).__name__, str(error))

    def test_after_the_end_everything_is_stale(self) -> None:
        """R23, K-04: StaleDelivery with the reason of the end, for open, settled and unknown tags alike."""
        ledger = with_deliveries(3)
        ledger.ack(1)
        ledger.close(ConnectionLost("the cable was cut"))
        ledger.close(ConnectionLost("another reason"))
        for tag in (1, 2, 9):
            for settle in (ledger.ack, ledger.settle, ledger.settle_up_to):
                error = self.assertRaises(StaleDelivery, settle, tag)
                self.assertIn("the cable was cut", str(error))

    def test_acks_not_yet_written_are_dropped_at_the_end(self) -> None:
        """R23: nothing of a channel reaches the wire after its end, where the number may serve another."""
        ledger = with_deliveries(2)
        ledger.ack(1)
        ledger.close(ConnectionLost())
        self.assertFalse(ledger.has_unwritten_acks)
        self.assertEqual(len(ledger), 0)


class MultipleTests(SynchronousTestCase):
    def test_up_to_a_tag(self) -> None:
        """N-04, K-15: everything up to the tag, and nothing above it."""
        ledger = with_deliveries(5)
        self.assertEqual(ledger.settle_up_to(3), [1, 2, 3])
        self.assertEqual(list(ledger.open), [4, 5])

    def test_up_to_a_settled_tag_ends_at_the_last_open_one(self) -> None:
        """R23: the broker answers 406 to a tag that is not outstanding, also with `multiple`."""
        ledger = with_deliveries(5)
        ledger.settle(3)
        self.assertEqual(ledger.settle_up_to(3), [1, 2])
        self.assertEqual(ledger.settle_up_to(99), [4, 5])

    def test_zero_is_everything(self) -> None:
        """K-15: tag 0 means all outstanding deliveries."""
        ledger = with_deliveries(3)
        self.assertEqual(ledger.settle_up_to(0), [1, 2, 3])
        self.assertRaises(AlreadySettled, ledger.settle_up_to, 0)

    def test_nothing_below_is_refused(self) -> None:
        """R23: with nothing to settle nothing may be written."""
        ledger = with_deliveries(3)
        ledger.settle_up_to(2)
        self.assertRaises(AlreadySettled, ledger.settle_up_to, 2)
        self.assertEqual(list(ledger.open), [3])

    def test_many_open_deliveries(self) -> None:
        """R24: with no prefetch limit, what one settlement costs does not grow with the number of open deliveries."""
        count = 40_000
        one_by_one, in_pairs = with_deliveries(count), with_deliveries(count)
        began = time.process_time()
        for tag in range(1, count, 2):
            one_by_one.settle_up_to(tag)
            one_by_one.settle_up_to(tag + 1)
            in_pairs.ack(tag)
            in_pairs.ack(tag + 1)
            self.assertEqual(written(in_pairs), [(tag + 1, True)])
        self.assertLess(time.process_time() - began, 2.0)
        self.assertEqual((len(one_by_one), len(in_pairs)), (0, 0))

    def test_numbers_far_apart(self) -> None:
        """R18: a broker that counts strangely does not make us count along."""
        ledger = SettlementLedger()
        for tag in (1, 2, 1 << 40, (1 << 40) + 1, 1 << 62, (1 << 62) + 1):
            ledger.delivered(tag)
        for tag in (1, 2, 1 << 40):
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(1 << 40, True)])
        self.assertEqual(ledger.settle_up_to(1 << 62), [(1 << 40) + 1, 1 << 62])
        self.assertEqual(ledger.settle_up_to(0), [(1 << 62) + 1])


class RecoverTests(SynchronousTestCase):
    def test_what_was_open_becomes_stale(self) -> None:
        """K-37, R23: after basic.recover the old tags are StaleDelivery and the new ones can be settled."""
        ledger = with_deliveries(2)
        ledger.recover_sent()
        self.assertRaises(StaleDelivery, ledger.ack, 1)
        ledger.recover_answered()
        self.assertRaises(StaleDelivery, ledger.ack, 2)
        ledger.delivered(3)
        ledger.ack(3)
        self.assertEqual(written(ledger), [(3, False)])

    def test_deliveries_that_crossed_the_recover_are_stale(self) -> None:
        """R23: what the broker sent before it read basic.recover was requeued by it."""
        ledger = with_deliveries(1)
        ledger.recover_sent()
        ledger.delivered(2)
        self.assertRaises(StaleDelivery, ledger.ack, 2)
        ledger.recover_answered()
        self.assertRaises(StaleDelivery, ledger.ack, 2)
        self.assertRaises(StaleDelivery, ledger.settle_up_to, 2)
        self.assertEqual(len(ledger), 0)

    def test_two_recovers_on_their_way(self) -> None:
        """R23: what comes between the two recover-oks was requeued by the second basic.recover."""
        ledger = with_deliveries(1)
        ledger.recover_sent()
        ledger.recover_sent()
        ledger.recover_answered()
        ledger.delivered(2)
        self.assertRaises(StaleDelivery, ledger.ack, 2)
        ledger.recover_answered()
        self.assertRaises(StaleDelivery, ledger.ack, 2)
        ledger.delivered(3)
        ledger.ack(3)
        self.assertEqual(written(ledger), [(3, False)])

    def test_acks_given_before_are_still_written(self) -> None:
        """R22: an ack that was given counts, also when basic.recover follows in the same turn."""
        ledger = with_deliveries(2)
        ledger.ack(1)
        self.assertTrue(ledger.has_unwritten_acks)
        self.assertEqual(written(ledger), [(1, False)])
        ledger.recover_sent()
        self.assertEqual(len(ledger), 0)


class TransactionTests(SynchronousTestCase):
    def test_rollback_opens_again_what_was_settled(self) -> None:
        """P-03: after tx.rollback the broker holds those deliveries as outstanding and does not send them again."""
        ledger = with_deliveries(4)
        ledger.transaction_selected()
        ledger.ack(1)
        ledger.settle(3)
        self.assertEqual(written(ledger), [(1, False)])
        ledger.transaction_rolled_back()
        self.assertEqual(list(ledger.open), [1, 2, 3, 4], "ascending, or acks would be coalesced wrongly")
        for tag in (2, 1, 3, 4):
            ledger.ack(tag)
        self.assertEqual(written(ledger), [(4, True)])

    def test_a_multiple_is_rolled_back_whole(self) -> None:
        """P-03: everything that one `multiple` settled is open again."""
        ledger = with_deliveries(3)
        ledger.transaction_selected()
        ledger.settle_up_to(2)
        ledger.transaction_rolled_back()
        self.assertEqual(list(ledger.open), [1, 2, 3])

    def test_a_commit_is_final(self) -> None:
        """P-02: what was committed does not come back with a later rollback."""
        ledger = with_deliveries(2)
        ledger.transaction_selected()
        ledger.ack(1)
        written(ledger)
        ledger.transaction_committed()
        ledger.ack(2)
        written(ledger)
        ledger.transaction_rolled_back()
        self.assertEqual(list(ledger.open), [2])

    def test_what_was_settled_before_the_transaction_stays(self) -> None:
        """P-01: tx.select begins it; selecting twice forgets nothing."""
        ledger = with_deliveries(3)
        ledger.ack(1)
        written(ledger)
        ledger.transaction_selected()
        ledger.ack(2)
        written(ledger)
        ledger.transaction_selected()
        ledger.transaction_rolled_back()
        self.assertEqual(list(ledger.open), [2, 3])

    def test_without_a_transaction_nothing_is_remembered(self) -> None:
        """A channel that is not transactional does not keep the tags it settled."""
        ledger = with_deliveries(2)
        ledger.ack(1)
        written(ledger)
        ledger.transaction_committed()
        ledger.transaction_rolled_back()
        self.assertEqual(list(ledger.open), [2])


class AgainstTheModelTests(SynchronousTestCase):
    def test_every_subset_of_five_in_one_turn(self) -> None:
        """R22, R23: for each set of acks the frames settle exactly that set, and none is answered with 406."""
        for chosen in range(1, 32):
            acks = [tag for tag in range(1, 6) if chosen & (1 << tag - 1)]
            for order in (acks, acks[::-1]):
                ledger, broker = with_deliveries(5), ModelChannel()
                for tag in range(1, 6):
                    broker.deliver(tag)
                for tag in order:
                    ledger.ack(tag)
                for tag, multiple in written(ledger):
                    broker.settle(tag, multiple, ACK)
                self.assertEqual(sorted(broker.settled), acks)
                self.assertEqual(broker.outstanding, list(ledger.open))
