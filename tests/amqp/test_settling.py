"""Settling on a channel: how acks, nacks and rejects leave, and what is refused."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred

from tests.amqp.peer import Peer, PeerTestCase
from txmsg.amqp.channel import Channel
from txmsg.amqp.delivery import Delivery
from txmsg.errors import (
    AlreadySettled,
    ConnectionForced,
    EncodeError,
    NotFound,
    SettlementError,
    StaleDelivery,
)

Basic, Connection = commands.Basic, commands.Connection


class SettlingTests(PeerTestCase):
    def delivered(self, count: int, **options: Any) -> tuple[Peer, Channel, list[Delivery]]:
        peer = self.opened(**options)
        channel = peer.channel()
        deliveries: list[Delivery] = []
        peer.deliver(peer.consumer(channel, deliveries.append), *[b"%d" % n for n in range(1, count + 1)])
        return peer, channel, deliveries

    def test_acks_of_a_turn_leave_together(self) -> None:
        """One multiple ack when there is no gap; single ones where there is; nothing before the end of the turn."""
        peer, _, deliveries = self.delivered(6)
        del peer.transport.writes[:]
        for n in (0, 1, 3, 5):
            deliveries[n].ack()
        self.assertEqual(peer.transport.writes, [])
        self.assertEqual(peer.settlements(), [("Ack", 2, True), ("Ack", 4, False), ("Ack", 6, False)])
        self.assertEqual(len(peer.transport.writes), 1)
        deliveries[2].ack()
        self.assertEqual(peer.settlements(), [("Ack", 3, False)])
        deliveries[4].ack()
        self.assertEqual(peer.settlements(), [("Ack", 5, False)])
        self.assertEqual(peer.channels[1].outstanding, [])
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_acks_in_a_callback_leave_at_the_end_of_the_chunk(self) -> None:
        """A hundred deliveries in one chunk, each acked at once: one ack."""
        peer = self.opened()
        consumer = peer.consumer(peer.channel(), lambda delivery: delivery.ack())
        peer.read()
        peer.deliver(consumer, *[b""] * 100)
        self.assertEqual(peer.settlements(), [("Ack", 100, True)])

    def test_two_channels(self) -> None:
        """K-09: each channel's acks are its own."""
        peer = self.opened()
        for number in (1, 2):
            channel = peer.channel()
            consumer = peer.consumer(channel, lambda delivery: None)
            peer.deliver(consumer, b"", b"", channel=number)
        first, second = peer.protocol.channels.values()
        first.basic_ack(1)
        second.basic_ack(2)
        first.basic_ack(2)
        peer.read()
        self.assertEqual((peer.channels[1].outstanding, peer.channels[2].outstanding), ([], [1]))

    def test_a_nack_goes_behind_the_acks_before_it(self) -> None:
        """K-16, K-17: nack and reject leave at once, in the order of the calls."""
        peer, _, deliveries = self.delivered(4)
        deliveries[0].ack()
        deliveries[1].nack()
        deliveries[3].ack()
        deliveries[2].reject()
        self.assertEqual(
            peer.settlements(), [("Ack", 1, False), ("Nack", 2, False), ("Ack", 4, False), ("Reject", 3, False)]
        )
        self.assertEqual(peer.channels[1].settled, {1: "ack", 2: "requeue", 3: "drop", 4: "ack"})

    def test_multiple(self) -> None:
        """K-15, 24.5: ack and nack up to a tag; 0 is everything."""
        peer, channel, deliveries = self.delivered(6)
        deliveries[1].ack(multiple=True)
        deliveries[3].nack(requeue=False, multiple=True)
        channel.basic_nack(0, multiple=True)
        self.assertEqual(peer.settlements(), [("Ack", 2, True), ("Nack", 4, True), ("Nack", 6, True)])
        self.assertEqual(
            peer.channels[1].settled, {1: "ack", 2: "ack", 3: "drop", 4: "drop", 5: "requeue", 6: "requeue"}
        )

    def test_wrong_settlements_write_nothing(self) -> None:
        """R23: settled before, never delivered, no number: SettlementError or EncodeError, and no 406."""
        peer, channel, deliveries = self.delivered(2)
        deliveries[0].ack()
        peer.read()
        for settle in (deliveries[0].ack, deliveries[0].nack, deliveries[0].reject):
            self.assertRaises(AlreadySettled, settle)
        for tag in (0, 3, -1, 2**64):
            self.assertRaises(SettlementError, channel.basic_ack, tag)
            self.assertRaises(SettlementError, channel.basic_nack, tag)
            self.assertRaises(SettlementError, channel.basic_reject, tag)
        for what in (None, "2", 2.5):
            self.assertRaises(EncodeError, channel.basic_ack, what)
        with self.assertRaises(TypeError):
            channel.basic_ack()  # type: ignore[call-arg]
        self.assertEqual(peer.read(), [])
        deliveries[1].ack()

    def test_an_equal_number_of_another_type(self) -> None:
        """R21: True and 2.0 settle the deliveries 1 and 2; what leaves can be read."""
        peer, channel, _ = self.delivered(3)
        channel.basic_ack(True)
        channel.basic_nack(2.0)  # type: ignore[arg-type]
        channel.basic_reject(3.0)  # type: ignore[arg-type]
        self.assertEqual(peer.settlements(), [("Ack", 1, False), ("Nack", 2, False), ("Reject", 3, False)])

    def test_stale(self) -> None:
        """R23, W-23, K-04: on a channel that has ended, for whatever reason: StaleDelivery that says why."""
        for end in (
            lambda peer: peer.lose(),
            lambda peer: peer.send(Connection.Close(320, "bye", 0, 0)),
            lambda peer: peer.send(commands.Channel.Close(406, "timeout on delivery acknowledgement", 0, 0)),
            lambda peer: peer.protocol.abort(),
        ):
            peer, channel, deliveries = self.delivered(2)
            deliveries[0].ack()
            end(peer)
            peer.read()
            for delivery in deliveries:
                self.assertTrue(delivery.is_settled)
                error = self.assertRaises(StaleDelivery, delivery.ack)
                self.assertIn(str(channel.close_reason), str(error))
            self.assertEqual(peer.read(), [])

    def test_recover(self) -> None:
        """K-37: what was open is stale, and comes again; what crossed it is stale, too."""
        peer, channel, deliveries = self.delivered(2)
        recovered = channel.basic_recover()
        self.assertIs(peer.only(Basic.Recover).requeue, True)
        self.assertTrue(deliveries[0].is_settled)
        self.assertRaises(StaleDelivery, deliveries[0].ack)
        peer.send(Basic.RecoverOk())
        self.result(recovered)
        consumer = next(iter(channel.consumers.values()))
        peer.deliver(consumer, b"1", first=3)
        deliveries[-1].ack()
        self.assertEqual(peer.settlements(), [("Ack", 3, False)])

    def test_a_delivery_for_nobody(self) -> None:
        """M-19: goes back to the queue, so that it is not stuck here until the channel closes."""
        peer = self.opened()
        peer.channel()
        peer.deliver("unknown", b"1")
        self.assertEqual(peer.settlements(), [("Nack", 1, False)])
        self.assertEqual(peer.channels[1].settled, {1: "requeue"})

    def test_the_broker_closes_in_the_same_chunk(self) -> None:
        """R21, R23: the wire has ended before the handler knows: settling is stale, nothing follows the close."""
        for close in (commands.Channel.Close(404, "gone", 0, 0), Connection.Close(320, "gone", 0, 0)):
            for how in ("ack", "multiple", "nack", "reject"):
                peer = self.opened()
                results: list[str] = []

                def callback(delivery: Delivery, h: str = how, r: list[str] = results) -> None:
                    try:
                        if h == "ack":
                            delivery.ack()
                        elif h == "multiple":
                            delivery.ack(multiple=True)
                        elif h == "nack":
                            delivery.nack()
                        else:
                            delivery.reject()
                    except StaleDelivery:
                        r.append("stale")

                channel = peer.channel()
                consumer = peer.consumer(channel, callback)
                peer.read()
                peer.send_raw(peer.encode(*peer.delivery(b"m", consumer.consumer_tag, 1)) + peer.encode(close))
                self.assertEqual(peer.settlements(), [])
                self.assertEqual(results, [] if how == "ack" else ["stale"])
                self.assertIsInstance(channel.close_reason, (NotFound, ConnectionForced))

    def test_ten_thousand_in_one_chunk(self) -> None:
        """R32: a handler that acks, many times in one turn, costs one ack and no stack."""
        done: list[Deferred[None]] = []

        async def callback(delivery: Delivery) -> None:
            delivery.ack()
            done.append(Deferred())

        peer = self.opened()
        consumer = peer.consumer(peer.channel(), callback)
        peer.read()
        peer.deliver(consumer, *[b"."] * 10_000)
        self.assertEqual(peer.settlements(), [("Ack", 10_000, True)])
        self.assertEqual(len(done), 10_000)
