"""Class tx: nothing happens before commit, everything then, nothing after rollback (peers 18)."""

from __future__ import annotations

from tests.broker.channel_client import ClientTestCase, deliveries, returns
from txmsg.broker.limits import BrokerLimits
from txmsg.wire.events import MethodReceived
from txmsg.wire.methods import basic, channel, connection, exchange, queue, tx
from txmsg.wire.properties import BasicProperties


class Base(ClientTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")
        self.client.select_tx()

    def commit(self) -> None:
        self.assertEqual(self.client.call(tx.Commit()), tx.CommitOk())

    def rollback(self) -> None:
        self.assertEqual(self.client.call(tx.Rollback()), tx.RollbackOk())


class Publishes(Base):
    """Held until commit."""

    def test_commit(self) -> None:
        self.client.publish("", "q", b"a", b"b")
        self.assertEqual(self.depth("q"), 0)
        self.commit()
        self.assertEqual(self.depth("q"), 2)
        self.commit()
        self.assertEqual(self.depth("q"), 2)

    def test_rollback(self) -> None:
        self.client.publish("", "q", b"a")
        self.rollback()
        self.commit()
        self.assertEqual(self.depth("q"), 0)

    def test_select_twice(self) -> None:
        self.client.publish("", "q", b"a")
        self.client.select_tx()
        self.commit()
        self.assertEqual(self.depth("q"), 1)

    def test_not_transactional(self) -> None:
        for method in (tx.Commit(), tx.Rollback()):
            client = self.other()
            client.send(1, method)
            text = "PRECONDITION_FAILED - channel is not transactional"
            self.assert_channel_closed(406, text, type(method), client)

    def test_errors_come_at_once(self) -> None:
        self.client.publish("", "q", b"a", b"b")
        self.client.publish("missing", "k", b"x")
        self.assert_channel_closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'", basic.Publish)
        self.assertEqual(self.depth("q"), 0)

    def test_header_errors_too(self) -> None:
        self.client.publish("", "q", b"a", properties=BasicProperties(headers={"CC": 1}))
        (event,) = self.client.events()
        self.assertEqual(event.method.reply_code, 406)

    def test_returns_come_at_commit(self) -> None:
        self.client.publish("", "nowhere", b"a", mandatory=True)
        self.assertEqual(self.client.events(), [])
        self.client.send(1, tx.Commit())
        returned, commit_ok = self.client.events()
        self.assertEqual(returns([returned])[0][7], b"a")
        self.assertEqual(commit_ok.method, tx.CommitOk())

    def test_none_after_rollback(self) -> None:
        self.client.publish("", "nowhere", b"a", mandatory=True)
        self.rollback()
        self.commit()

    def test_the_exchange_goes_before_commit(self) -> None:
        self.client.call(exchange.Declare(exchange="x"))
        self.client.publish("x", "k", b"a", mandatory=True)
        self.other().call(exchange.Delete(exchange="x"))
        self.client.publish("", "q", b"b")
        self.client.send(1, tx.Commit())
        returned, commit_ok = self.client.events()
        self.assertEqual(len(returns([returned])), 1)
        self.assertEqual(commit_ok.method, tx.CommitOk())
        self.assertEqual(self.depth("q"), 1)

    def test_bcc_and_cc(self) -> None:
        self.client.declare("r")
        self.client.publish("", "nowhere", b"a", properties=BasicProperties(headers={"BCC": ["r"]}))
        self.commit()
        self.assertEqual(self.client.get("r")[7].headers, {})

    def test_channel_closed_before_commit(self) -> None:
        before = self.broker.usage.bytes
        self.client.publish("", "q", b"a")
        self.assertGreater(self.broker.usage.bytes, before)
        self.client.call(channel.Close(200, "bye"))
        self.assertEqual(self.depth("q"), 0)
        self.assertEqual(self.broker.usage.bytes, before)


class Settlements(Base):
    """Held until commit."""

    def setUp(self) -> None:
        super().setUp()
        self.other().publish("", "q", b"1", b"2", b"3")
        self.client.call(basic.Qos(prefetch_count=2))
        self.client.consume("q")
        self.assertEqual(len(deliveries(self.client.events())), 2)

    def ready(self) -> list[bytes]:
        return [entry.message.body for entry in self.vhost.queues["q"].ready_entries()]

    def test_ack(self) -> None:
        self.client.send(1, basic.Ack(1))
        self.assertEqual(self.client.events(), [])
        self.assertEqual(self.vhost.queues["q"].unacked_count, 2)
        self.client.send(1, tx.Commit())
        commit_ok, delivery = self.client.events()
        self.assertEqual(commit_ok.method, tx.CommitOk())
        self.assertEqual(deliveries([delivery]), [("c", 3, False, b"3")])

    def test_nack_and_reject(self) -> None:
        self.client.send(1, basic.Cancel("c", True), basic.Nack(2), basic.Reject(1, False))
        self.assertEqual(self.ready(), [b"3"])
        self.commit()
        self.assertEqual(self.ready(), [b"2", b"3"])

    def test_rollback_makes_them_outstanding_again(self) -> None:
        self.client.send(1, basic.Ack(2), basic.Nack(1))
        self.rollback()
        self.assertEqual(self.vhost.queues["q"].unacked_count, 2)
        self.client.send(1, basic.Cancel("c", True), basic.Ack(2, True))
        self.commit()
        self.assertEqual(self.vhost.queues["q"].unacked_count, 0)
        self.assertEqual(self.ready(), [b"3"])

    def test_order_after_rollback(self) -> None:
        """`multiple` means what it meant before."""
        self.client.send(1, basic.Ack(1))
        self.rollback()
        self.assertEqual(list(self.client.connection.channels[1].settling.unacked), [1, 2])

    def test_twice_in_one_transaction(self) -> None:
        self.client.send(1, basic.Ack(1), basic.Ack(1))
        self.assert_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", basic.Ack)
        self.assertEqual(self.ready(), [b"1", b"2", b"3"])

    def test_channel_closed_before_commit(self) -> None:
        self.client.send(1, basic.Ack(1), basic.Nack(2, False, False))
        self.client.call(channel.Close(200, "bye"))
        entries = self.vhost.queues["q"].ready_entries()
        self.assertEqual(
            [(entry.message.body, entry.redelivered) for entry in entries],
            [(b"1", True), (b"2", True), (b"3", False)],
        )

    def test_recover_leaves_what_is_settled(self) -> None:
        self.client.send(1, basic.Cancel("c", True), basic.Ack(1))
        self.client.call(basic.Recover(True))
        self.assertEqual(self.ready(), [b"2", b"3"])
        self.commit()
        self.assertEqual(self.ready(), [b"2", b"3"])
        self.assertEqual(self.vhost.queues["q"].unacked_count, 0)

    def test_publish_and_ack_together(self) -> None:
        """A consumer that passes messages on: both or nothing."""
        self.client.declare("next")
        self.client.publish("", "next", b"1")
        self.client.send(1, basic.Ack(1))
        self.rollback()
        self.assertEqual(self.depth("next"), 0)
        self.client.publish("", "next", b"1")
        self.client.send(1, basic.Ack(1), tx.Commit())
        self.client.events()
        self.assertEqual(self.depth("next"), 1)
        self.assertEqual(self.vhost.queues["q"].unacked_count, 2)

    def test_the_queue_is_deleted_meanwhile(self) -> None:
        self.client.send(1, basic.Ack(1), basic.Nack(2), queue.Delete(queue="q", nowait=True))
        self.client.events()
        self.commit()


class Limits(Base):
    """R36: a transaction that is never committed holds no more than a queue may."""

    limits = BrokerLimits(queue_bytes=10_000)

    def test_beyond_it(self) -> None:
        before = self.broker.usage.bytes
        self.client.publish("", "q", *[b"x" * 1000] * 20)
        (event,) = self.client.events()
        self.assertIsInstance(event, MethodReceived)
        self.assertIsInstance(event.method, connection.Close)
        self.assertEqual(event.method.reply_code, 506)
        self.assertIn("a transaction holds at most 10000 bytes", event.method.reply_text)
        self.assertEqual(self.broker.usage.bytes, before)

    def test_beyond_it_with_an_ack(self) -> None:
        """What the ack was for is in its queue again, and not nowhere."""
        self.client.publish("", "q", b"1")
        self.commit()
        for settlement in (basic.Ack(1, False), basic.Ack(0, True), basic.Reject(1, False)):
            with self.subTest(settlement=settlement):
                client = self.other()
                client.select_tx()
                self.client.lose()
                self.client = client
                client.get("q")
                client.publish("", "q", bytes(9500))
                client.send(1, settlement)
                (event,) = client.events()
                self.assertEqual(event.method.reply_code, 506)
                waiting = self.vhost.queues["q"]
                self.assertEqual((waiting.message_count, waiting.unacked_count), (1, 0))

    def test_settlements_count(self) -> None:
        self.other().publish("", "q", *[b""] * 20)
        self.client.consume("q")
        self.client.send(1, *[basic.Nack(tag) for tag in range(1, 21)])
        self.assertEqual(len(deliveries(self.client.events())), 20)
        opened = self.client.connection.channels[1]
        self.assertGreater(opened.transactions._cost, 1000)
        self.rollback()
        self.assertEqual(opened.transactions._cost, 0)
