"""How much is delivered: prefetch counts, the limit on unsettled deliveries, a client that does not read."""

from __future__ import annotations

from tests.broker.channel_client import ClientTestCase, deliveries
from txmsg.broker.limits import BrokerLimits
from txmsg.wire.methods import basic


class Base(ClientTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")

    def heard(self) -> list[tuple[str, bytes]]:
        return [(tag, body) for tag, _, _, body in deliveries(self.client.events())]

    def qos(self, count: int, *, whole_channel: bool = False) -> None:
        self.client.call(basic.Qos(prefetch_count=count, global_=whole_channel))


class PerConsumer(Base):
    """basic.qos without `global`."""

    def test_it_holds_for_later_consumers(self) -> None:
        self.client.consume("q", "before")
        self.qos(1)
        self.client.declare("r")
        self.client.consume("r", "after")
        self.client.publish("", "q", b"a", b"b")
        self.client.publish("", "r", b"c", b"d")
        self.assertEqual(self.heard(), [("before", b"a"), ("before", b"b"), ("after", b"c")])

    def test_an_ack_lets_the_next_come(self) -> None:
        self.qos(2)
        self.client.consume("q")
        self.client.publish("", "q", b"a", b"b", b"c", b"d")
        self.assertEqual(len(self.heard()), 2)
        self.client.send(1, basic.Ack(1))
        self.assertEqual(self.heard(), [("c", b"c")])
        self.client.send(1, basic.Ack(3, True))
        self.assertEqual(self.heard(), [("c", b"d")])

    def test_each_has_its_own(self) -> None:
        self.qos(1)
        self.client.consume("q", "a")
        self.client.consume("q", "b")
        self.client.publish("", "q", b"1", b"2", b"3")
        self.assertEqual(self.heard(), [("a", b"1"), ("b", b"2")])

    def test_zero_is_no_limit(self) -> None:
        self.qos(1)
        self.qos(0)
        self.client.consume("q")
        self.client.publish("", "q", b"1", b"2", b"3")
        self.assertEqual(len(self.heard()), 3)

    def test_no_ack_is_not_limited(self) -> None:
        self.qos(1)
        self.client.consume("q", no_ack=True)
        self.client.publish("", "q", b"1", b"2", b"3")
        self.assertEqual(len(self.heard()), 3)

    def test_get_does_not_count(self) -> None:
        self.qos(1)
        self.client.publish("", "q", b"1", b"2", b"3")
        self.client.get("q")
        self.client.consume("q")
        self.assertEqual(self.heard(), [("c", b"2")])
        self.client.send(1, basic.Ack(1))
        self.assertEqual(self.heard(), [])

    def test_bytes_are_not_counted(self) -> None:
        self.client.send(1, basic.Qos(prefetch_size=7))
        self.assert_connection_closed(540, "NOT_IMPLEMENTED - prefetch_size!=0 (7)", basic.Qos)

    def test_a_returned_one_goes_to_another_first(self) -> None:
        self.qos(1)
        self.client.consume("q", "a")
        self.client.consume("q", "b")
        self.client.publish("", "q", b"1")
        self.assertEqual(self.heard(), [("a", b"1")])
        self.client.send(1, basic.Nack(1))
        self.assertEqual(self.heard(), [("b", b"1")])

    def test_and_back_when_there_is_no_other(self) -> None:
        self.qos(1)
        self.client.consume("q")
        self.client.publish("", "q", b"1", b"2")
        self.client.send(1, basic.Nack(1))
        self.assertEqual(self.heard(), [("c", b"1"), ("c", b"1")])


class WholeChannel(Base):
    """basic.qos with `global`."""

    def test_it_holds_at_once(self) -> None:
        self.client.consume("q", "a")
        self.qos(2, whole_channel=True)
        self.client.consume("q", "b")
        self.client.publish("", "q", b"1", b"2", b"3", b"4")
        self.assertEqual(self.heard(), [("a", b"1"), ("b", b"2")])

    def test_what_is_out_already_counts(self) -> None:
        self.client.consume("q")
        self.client.publish("", "q", b"1", b"2", b"3")
        self.heard()
        self.qos(2, whole_channel=True)
        self.client.publish("", "q", b"4")
        self.client.send(1, basic.Ack(1))
        self.assertEqual(self.heard(), [])
        self.client.send(1, basic.Ack(2))
        self.assertEqual(self.heard(), [("c", b"4")])

    def test_more(self) -> None:
        self.qos(1, whole_channel=True)
        self.client.consume("q")
        self.client.publish("", "q", b"1", b"2", b"3", b"4")
        self.assertEqual(len(self.heard()), 1)
        self.client.send(1, basic.Qos(prefetch_count=3, global_=True))
        self.assertEqual(len(deliveries(self.client.events())), 2)
        self.client.send(1, basic.Qos(global_=True))
        self.assertEqual(len(deliveries(self.client.events())), 1)

    def test_it_holds_beside_the_consumers_own(self) -> None:
        self.qos(2)
        self.qos(3, whole_channel=True)
        self.client.consume("q", "a")
        self.client.consume("q", "b")
        self.client.publish("", "q", b"1", b"2", b"3", b"4")
        self.assertEqual(self.heard(), [("a", b"1"), ("b", b"2"), ("a", b"3")])

    def test_no_ack_goes_on(self) -> None:
        self.qos(1, whole_channel=True)
        self.client.consume("q", "a")
        self.client.declare("r")
        self.client.consume("r", "b", no_ack=True)
        self.client.publish("", "q", b"1", b"2")
        self.client.publish("", "r", b"3", b"4")
        self.assertEqual(self.heard(), [("a", b"1"), ("b", b"3"), ("b", b"4")])

    def test_none_is_always_last(self) -> None:
        """Consumers that wait for the channel's credit take turns."""
        self.qos(1, whole_channel=True)
        self.client.declare("r")
        self.client.publish("", "q", *[b"1"] * 9)
        self.client.publish("", "r", *[b"2"] * 9)
        self.client.consume("q", "a")
        self.client.consume("r", "b")
        heard = []
        for tag in range(1, 8):
            heard += [consumer for consumer, _ in self.heard()]
            self.client.send(1, basic.Ack(tag))
        self.assertEqual(heard, ["a", "a", "b", "a", "b", "a", "b"])

    def test_quorum_queues_know_none(self) -> None:
        self.client.declare("quorum", durable=True, arguments={"x-queue-type": "quorum"})
        self.qos(1, whole_channel=True)
        self.client.send(1, basic.Consume(queue="quorum"))
        self.assert_connection_closed(
            540, "NOT_IMPLEMENTED - queue 'quorum' in vhost '/' does not support global qos", basic.Consume
        )


class Strict4(Base):
    """RabbitMQ 4 takes `global` as if it were absent."""

    strict_4 = True

    def setUp(self) -> None:
        ClientTestCase.setUp(self)
        self.client.declare("q", exclusive=True)

    def test_for_each_consumer(self) -> None:
        self.qos(1, whole_channel=True)
        self.client.consume("q", "a")
        self.client.consume("q", "b")
        self.client.publish("", "q", b"1", b"2", b"3")
        self.assertEqual(self.heard(), [("a", b"1"), ("b", b"2")])


class UnackedLimit(Base):
    """reliability 4.4: unacked per channel stops the deliveries, whatever the prefetch count."""

    limits = BrokerLimits(unacked_per_channel=3)

    def test_it_stops_and_goes_on(self) -> None:
        self.client.consume("q", "a")
        self.client.consume("q", "b")
        self.client.publish("", "q", b"1", b"2", b"3", b"4", b"5")
        self.assertEqual(len(self.heard()), 3)
        self.client.send(1, basic.Ack(2, True))
        self.assertEqual([body for _, body in self.heard()], [b"4", b"5"])

    def test_a_larger_prefetch_count_does_not_help(self) -> None:
        self.qos(100, whole_channel=True)
        self.client.consume("q")
        self.client.publish("", "q", b"1", b"2", b"3", b"4")
        self.assertEqual(len(self.heard()), 3)

    def test_another_channel_has_its_own(self) -> None:
        self.client.consume("q")
        self.client.publish("", "q", b"1", b"2", b"3", b"4")
        other = self.other()
        other.consume("q")
        self.assertEqual(len(deliveries(other.events())), 1)


class NotReading(Base):
    """A client that does not read gets no more than the socket's buffer takes (R36)."""

    def fill(self) -> None:
        """The transport's buffer is full."""
        self.client.connection.pauseProducing()
        self.client.connection._written_ahead = 1 << 20

    def test_deliveries_stop_and_go_on(self) -> None:
        for no_ack in (False, True):
            with self.subTest(no_ack=no_ack):
                self.client.consume("q", "c", no_ack=no_ack)
                self.fill()
                for _ in range(10):
                    self.other().publish("", "q", b"x" * 10)
                taken = len(self.heard())
                self.assertLess(taken, 10)
                self.assertEqual(self.depth("q"), 10 - taken)
                self.client.connection.resumeProducing()
                self.assertEqual(len(self.heard()), 10 - taken)
                self.client.call(basic.Cancel("c"))

    def test_a_consumer_that_starts_meanwhile(self) -> None:
        self.client.publish("", "q", b"a", b"b")
        self.fill()
        self.client.declare("r")
        self.assertFalse(self.client.connection.can_publish)
        self.client.consume("q")
        self.assertEqual(self.heard(), [])
        self.client.connection.resumeProducing()
        self.assertEqual(len(self.heard()), 2)

    def test_a_cancelled_consumer_does_not_come_back(self) -> None:
        self.client.consume("q")
        self.fill()
        self.client.send(1, basic.Cancel("c", True))
        self.client.connection.resumeProducing()
        self.other().publish("", "q", b"a")
        self.assertEqual(self.heard(), [])
