"""ack, nack, reject and recover: tags, order, redelivered (peers 18: requeue order, recover)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.broker.channel_client import ClientTestCase, deliveries
from txmsg.broker.channel.unacked import Unacked
from txmsg.broker.faults import Fault
from txmsg.wire.methods import basic, queue

UNKNOWN = "PRECONDITION_FAILED - unknown delivery tag "


class Base(ClientTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")
        self.client.publish("", "q", b"1", b"2", b"3", b"4", b"5")
        self.client.consume("q")
        self.assertEqual(len(self.client.events()), 5)
        # From here on nothing comes again by itself.
        self.client.send(1, basic.Cancel("c", True))

    def ready(self) -> list[tuple[bytes, bool]]:
        return [(entry.message.body, entry.redelivered) for entry in self.vhost.queues["q"].ready_entries()]

    @property
    def unacked(self) -> list[int]:
        return list(self.client.connection.channels[1].settling.unacked)


class Ack(Base):
    """basic.ack."""

    def test_one(self) -> None:
        self.client.send(1, basic.Ack(3))
        self.assertEqual(self.unacked, [1, 2, 4, 5])
        self.assertEqual(self.vhost.queues["q"].unacked_count, 4)

    def test_multiple(self) -> None:
        self.client.send(1, basic.Ack(3, True))
        self.assertEqual(self.unacked, [4, 5])
        self.assertEqual(self.vhost.queues["q"].unacked_count, 2)

    def test_multiple_with_gaps(self) -> None:
        self.client.send(1, basic.Ack(2), basic.Ack(4, True))
        self.assertEqual(self.unacked, [5])

    def test_all(self) -> None:
        self.client.send(1, basic.Ack(0, True), basic.Ack(0, True))
        self.assertEqual(self.unacked, [])
        self.assertEqual(self.client.events(), [])

    def test_unknown(self) -> None:
        for tag, multiple in ((6, False), (0, False), (6, True)):
            client = self.other()
            client.send(1, basic.Ack(tag, multiple))
            self.assert_channel_closed(406, f"{UNKNOWN}{tag}", basic.Ack, client)

    def test_twice(self) -> None:
        self.client.send(1, basic.Ack(2), basic.Ack(2))
        self.assert_channel_closed(406, f"{UNKNOWN}2", basic.Ack)

    def test_multiple_up_to_a_settled_one_settles_nothing(self) -> None:
        self.client.send(1, basic.Ack(3), basic.Ack(3, True))
        self.assert_channel_closed(406, f"{UNKNOWN}3", basic.Ack)
        self.assertEqual([body for body, _ in self.ready()], [b"1", b"2", b"4", b"5"])


class NackAndReject(Base):
    """basic.nack and basic.reject."""

    def test_back_to_its_place(self) -> None:
        self.client.publish("", "q", b"6")
        self.client.send(1, basic.Nack(4), basic.Nack(2), basic.Reject(3))
        self.assertEqual(self.ready(), [(b"2", True), (b"3", True), (b"4", True), (b"6", False)])

    def test_multiple(self) -> None:
        self.client.send(1, basic.Nack(3, True))
        self.assertEqual(self.ready(), [(b"1", True), (b"2", True), (b"3", True)])
        self.assertEqual(self.unacked, [4, 5])

    def test_dropped(self) -> None:
        self.client.send(1, basic.Nack(3, True, False), basic.Reject(4, False))
        self.assertEqual(self.ready(), [])
        self.assertEqual(self.unacked, [5])

    def test_dead_lettered(self) -> None:
        self.client.declare("dead")
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        self.client.declare("d", arguments=arguments)
        self.client.publish("", "d", b"1", b"2")
        self.client.consume("d")
        tags = [tag for _, tag, _, _ in deliveries(self.client.events())]
        self.client.send(1, basic.Nack(tags[0], False, False), basic.Reject(tags[1], False))
        self.assertEqual(self.depth("dead"), 2)

    def test_unknown(self) -> None:
        for method in (basic.Nack(9), basic.Nack(9, True), basic.Nack(0), basic.Reject(9), basic.Reject(0)):
            client = self.other()
            client.send(1, method)
            tag = method.delivery_tag
            self.assert_channel_closed(406, f"{UNKNOWN}{tag}", type(method), client)

    def test_from_several_queues(self) -> None:
        self.client.declare("r")
        self.client.publish("", "r", b"x", b"y")
        self.client.get("r")
        self.client.get("r")
        self.client.send(1, basic.Nack(0, True))
        self.assertEqual([body for body, _ in self.ready()], [b"1", b"2", b"3", b"4", b"5"])
        self.assertEqual(self.depth("r"), 2)


class Recover(Base):
    """basic.recover and basic.recover-async."""

    def test_all_come_again_behind_the_reply(self) -> None:
        self.client.send(1, basic.Consume(queue="q", consumer_tag="again", nowait=True), basic.Recover(True))
        events = self.client.events()
        self.assertEqual(events[0].method, basic.RecoverOk())
        self.assertEqual(
            deliveries(events),
            [("again", 6 + i, True, body) for i, body in enumerate((b"1", b"2", b"3", b"4", b"5"))],
        )

    def test_the_old_tags_are_gone(self) -> None:
        self.client.send(1, basic.Recover(True), basic.Ack(1))
        self.assert_channel_closed(406, f"{UNKNOWN}1", basic.Ack)

    def test_without_requeue(self) -> None:
        self.client.send(1, basic.Recover(False))
        self.assert_connection_closed(540, "NOT_IMPLEMENTED - requeue=false", basic.Recover)

    def test_async(self) -> None:
        self.client.send(1, basic.RecoverAsync(True))
        self.assertEqual(self.client.events(), [])
        self.assertEqual(len(self.ready()), 5)

    def test_async_without_requeue(self) -> None:
        self.client.send(1, basic.RecoverAsync(False))
        self.assert_connection_closed(540, "NOT_IMPLEMENTED - requeue=false", basic.RecoverAsync)

    def test_what_was_got_too(self) -> None:
        self.client.declare("r")
        self.client.publish("", "r", b"x")
        self.client.get("r")
        self.client.call(basic.Recover(True))
        self.assertEqual(self.depth("r"), 1)


class DeliveryLimit(ClientTestCase):
    """Quorum queues count how often a message was delivered, and have enough of it at some point."""

    def test_it_is_delivered_so_often(self) -> None:
        self.client.declare("q", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 2})
        self.client.publish("", "q", b"x")
        self.client.consume("q")
        counts = []
        for tag in (1, 2, 3):
            (event,) = self.client.events()
            counts.append((event[4], (event[7].headers or {}).get("x-delivery-count")))
            self.client.send(1, basic.Nack(tag))
        self.assertEqual(counts, [(False, None), (True, 1), (True, 2)])
        self.assertEqual(self.client.events(), [])

    def test_quorum_queues_are_deleted_without_conditions(self) -> None:
        self.client.declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        text = (
            "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with {} flag set are "
            "not supported by quorum queues"
        )
        for flag in ("if_unused", "if_empty"):
            client = self.other()
            client.send(1, queue.Delete(queue="q", **{flag: True}))
            self.assert_connection_closed(540, text.format(flag.replace("_", "-")), queue.Delete, client)
        self.assertEqual(self.client.call(queue.Delete(queue="q")), queue.DeleteOk(0))


@given(st.integers(0, 8), st.sets(st.integers(1, 8)), st.booleans(), st.integers(0, 9))
def test_taking(count: int, settled: set[int], multiple: bool, tag: int) -> None:
    """Against the rule said in sets."""
    delivered: Any = (None, None, None)
    unacked = Unacked()
    for number in range(1, count + 1):
        unacked[number] = delivered
    for number in settled & set(unacked):
        unacked.take(number, False)
    left = set(unacked)
    try:
        taken = [number for number, _ in unacked.take(tag, multiple)]
    except Fault:
        assert tag not in left
        assert not (multiple and tag == 0)
        assert set(unacked) == left
        return
    if multiple:
        assert taken == sorted(number for number in left if number <= tag or tag == 0)
    else:
        assert taken == [tag]
    assert set(unacked) == left - set(taken)
    unacked.give_back([(number, delivered) for number in taken])
    assert list(unacked) == sorted(left)
