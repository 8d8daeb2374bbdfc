"""consume, cancel, get and qos: texts and orders as RabbitMQ's (peers 18: cancel notify, qos, exclusive consumers)."""

from __future__ import annotations

import re

from tests.broker.channel_client import Client, ClientTestCase, deliveries
from txmsg.broker.channel.consumer import QueueConsumer
from txmsg.broker.limits import BrokerLimits
from txmsg.wire.events import DELIVER, MethodReceived
from txmsg.wire.methods import basic, channel, queue
from txmsg.wire.properties import BasicProperties

IN_USE = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"


def tags_and_bodies(client: Client) -> list[tuple[str, bytes]]:
    """The deliveries that have come: consumer tag and body."""
    return [(tag, body) for tag, _, _, body in deliveries(client.events())]


class Consume(ClientTestCase):
    """basic.consume."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")

    def test_the_reply_comes_before_the_deliveries(self) -> None:
        self.client.publish("", "q", b"a")
        self.client.send(1, basic.Consume(queue="q", consumer_tag="c"), basic.Qos())
        reply, delivery, qos_ok = self.client.events()
        self.assertEqual(reply.method, basic.ConsumeOk("c"))
        self.assertEqual(delivery[0], DELIVER)
        self.assertEqual(qos_ok.method, basic.QosOk())

    def test_a_tag_is_made(self) -> None:
        answer = self.client.call(basic.Consume(queue="q"))
        self.assertIsNotNone(re.fullmatch(r"amq\.ctag-[A-Za-z0-9_-]{22}", answer.consumer_tag))

    def test_nowait(self) -> None:
        self.client.send(1, basic.Consume(queue="q", nowait=True))
        self.client.publish("", "q", b"a")
        ((tag, _),) = tags_and_bodies(self.client)
        self.assertTrue(tag.startswith("amq.ctag-"))

    def test_what_a_delivery_carries(self) -> None:
        properties = BasicProperties(content_type="text/plain", headers={"a": 1}, message_id="7")
        self.client.call(queue.Bind(queue="q", exchange="amq.direct", routing_key="k"))
        self.client.consume("q")
        self.client.publish("amq.direct", "k", b"body", properties=properties)
        (event,) = self.client.events()
        self.assertEqual(event[2:7], ("c", 1, False, "amq.direct", "k"))
        self.assertEqual(event[7], properties)
        self.assertEqual(event[8], b"body")

    def test_no_queue_and_a_tag_in_use(self) -> None:
        client = self.other()
        client.consume("q")
        client.send(1, basic.Consume(consumer_tag="c"))
        self.assert_channel_closed(404, "NOT_FOUND - no previously declared queue", basic.Consume, client)

    def test_a_tag_in_use(self) -> None:
        self.client.declare("r")
        self.client.consume("q")
        self.client.send(1, basic.Consume(queue="r", consumer_tag="c"))
        self.assert_connection_closed(530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'", basic.Consume)

    def test_the_same_tag_on_another_channel(self) -> None:
        client = self.other(channels=2)
        client.consume("q", "c", 1)
        client.consume("q", "c", 2)
        self.assertEqual(self.vhost.queues["q"].consumer_count, 2)

    def test_a_tag_is_free_after_cancel(self) -> None:
        self.client.consume("q")
        self.client.call(basic.Cancel("c"))
        self.client.consume("q")
        self.assertEqual(self.client.events(), [])

    def test_a_missing_queue(self) -> None:
        self.client.send(1, basic.Consume(queue="missing"))
        self.assert_channel_closed(404, "NOT_FOUND - no queue 'missing' in vhost '/'", basic.Consume)

    def test_the_last_declared_queue(self) -> None:
        self.client.consume("")
        self.client.publish("", "q", b"a")
        self.assertEqual(tags_and_bodies(self.client), [("c", b"a")])

    def test_no_queue_declared(self) -> None:
        client = self.other()
        client.send(1, basic.Consume())
        self.assert_channel_closed(404, "NOT_FOUND - no previously declared queue", basic.Consume, client)

    def test_exclusive_and_another(self) -> None:
        self.client.consume("q", exclusive=True)
        other = self.other()
        other.send(1, basic.Consume(queue="q"))
        self.assert_channel_closed(403, IN_USE, basic.Consume, other)

    def test_another_and_exclusive(self) -> None:
        self.client.consume("q")
        self.client.send(1, basic.Consume(queue="q", exclusive=True))
        self.assert_channel_closed(403, IN_USE, basic.Consume)

    def test_a_refused_consumer_leaves_nothing(self) -> None:
        other = self.other()
        other.consume("q", exclusive=True)
        self.client.send(1, basic.Consume(queue="q", consumer_tag="c"))
        self.assertEqual(self.client.connection.channels[1].consuming.consumers, {})

    def test_priority(self) -> None:
        self.client.consume("q", "low", arguments={"x-priority": -1})
        self.client.consume("q", "high", arguments={"x-priority": 5})
        self.client.publish("", "q", b"a", b"b")
        self.assertEqual(tags_and_bodies(self.client), [("high", b"a"), ("high", b"b")])

    def test_priority_that_is_none(self) -> None:
        for value, kind in (("1", "longstr"), (True, "bool"), (1.0, "double"), (None, "void")):
            client = self.other()
            client.send(1, basic.Consume(queue="q", arguments={"x-priority": value}))
            text = (
                "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': "
                f'"expected integer, got {kind}"'
            )
            self.assert_channel_closed(406, text, basic.Consume, client)

    def test_failover_argument(self) -> None:
        self.client.consume("q", arguments={"x-cancel-on-ha-failover": True, "x-other": [1]})
        self.client.send(1, basic.Consume(queue="q", arguments={"x-cancel-on-ha-failover": "yes"}))
        self.assert_channel_closed(
            406,
            "PRECONDITION_FAILED - invalid arg 'x-cancel-on-ha-failover' for queue 'q' in vhost '/': "
            "{unacceptable_type,longstr}",
            basic.Consume,
        )

    def test_no_local_is_ignored(self) -> None:
        self.client.consume("q", no_local=True)
        self.client.publish("", "q", b"a")
        self.assertEqual(len(self.client.events()), 1)

    def test_no_ack(self) -> None:
        self.client.consume("q", no_ack=True)
        self.client.publish("", "q", b"a", b"b")
        self.assertEqual([tag for _, tag, _, _ in deliveries(self.client.events())], [1, 2])
        self.assertEqual(self.vhost.queues["q"].unacked_count, 0)
        self.client.send(1, basic.Ack(1))
        self.assert_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", basic.Ack)

    def test_repr(self) -> None:
        self.client.consume("q")
        consumer = self.client.connection.channels[1].consuming.consumers["c"]
        self.assertEqual(repr(consumer), "<QueueConsumer 'c' of 'q', 0 unacked>")
        self.assertIs(consumer.channel, self.client.connection.channels[1])


class ConsumerLimit(ClientTestCase):
    """reliability 4.4: consumers per channel."""

    limits = BrokerLimits(consumers_per_channel=2)

    def test_beyond_it(self) -> None:
        self.client.declare("q")
        self.client.consume("q", "a")
        self.client.consume("q", "b")
        self.client.send(1, basic.Consume(queue="q"))
        self.assert_connection_closed(530, "NOT_ALLOWED - reached maximum (2) of consumers per channel", basic.Consume)


class Cancel(ClientTestCase):
    """basic.cancel, from either side."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")

    def test_nothing_comes_after_it(self) -> None:
        self.client.consume("q")
        self.assertEqual(self.client.call(basic.Cancel("c")), basic.CancelOk("c"))
        self.client.publish("", "q", b"a")
        self.assertEqual(self.client.events(), [])
        self.assertEqual(self.depth("q"), 1)

    def test_what_was_delivered_stays(self) -> None:
        self.client.consume("q")
        self.client.publish("", "q", b"a")
        self.client.events()
        self.client.call(basic.Cancel("c"))
        self.assertEqual(self.depth("q"), 0)
        self.client.send(1, basic.Nack(1))
        self.assertEqual(self.depth("q"), 1)

    def test_unknown(self) -> None:
        self.assertEqual(self.client.call(basic.Cancel("nobody")), basic.CancelOk("nobody"))
        self.assertEqual(self.client.call(basic.Cancel("")), basic.CancelOk(""))

    def test_nowait(self) -> None:
        self.client.consume("q")
        self.client.send(1, basic.Cancel("c", True))
        self.assertEqual(self.client.events(), [])
        self.assertEqual(self.vhost.queues["q"].consumer_count, 0)

    def test_auto_delete_before_the_reply(self) -> None:
        self.client.declare("a", auto_delete=True)
        self.client.consume("a")
        self.client.send(1, basic.Cancel("c"), queue.Declare(queue="a", passive=True))
        cancel_ok, closed = self.client.methods()
        self.assertEqual(cancel_ok, basic.CancelOk("c"))
        self.assertIsInstance(closed, channel.Close)

    def test_the_queue_goes(self) -> None:
        self.client.consume("q")
        self.other().call(queue.Delete(queue="q"))
        self.assertEqual(self.client.methods(), [basic.Cancel("c", True)])
        self.client.send(1, basic.CancelOk("c"))
        self.assertEqual(self.client.events(), [])

    def test_its_own_channel_deletes_the_queue(self) -> None:
        """delete-ok first, then the cancel, and before anything later on the channel."""
        self.client.consume("q")
        self.client.send(1, queue.Delete(queue="q"), basic.Qos())
        self.assertEqual(self.client.methods(), [queue.DeleteOk(0), basic.Cancel("c", True), basic.QosOk()])

    def test_several_are_told_in_the_order_of_their_tags(self) -> None:
        for tag in ("c11", "b", "c1"):
            self.client.consume("q", tag)
        self.client.send(1, queue.Delete(queue="q"))
        _, *cancels = self.client.methods()
        self.assertEqual(cancels, [basic.Cancel(tag, True) for tag in ("b", "c1", "c11")])

    def test_the_next_active_consumer_gets_first_what_comes_back(self) -> None:
        """Its predecessor's channel ends: what that one had not settled is in its place again before it is served."""
        self.client.declare("single", arguments={"x-single-active-consumer": True})
        self.client.publish("", "single", b"1", b"2")
        for client in (first := self.other(), second := self.other()):
            client.call(basic.Qos(0, 1, False))
            client.consume("single")
        self.assertEqual(tags_and_bodies(first), [("c", b"1")])
        first.call(channel.Close())
        self.assertEqual(tags_and_bodies(second), [("c", b"1")])

    def test_a_tag_that_is_used_again_at_once(self) -> None:
        """The cancel of the first consumer never follows the consume-ok of the second."""
        client = self.other(channels=2)
        client.declare("r")
        client.consume("q", "c", 1)
        client.feed(
            client.octets(2, queue.Delete(queue="q")) + client.octets(1, basic.Consume(queue="r", consumer_tag="c"))
        )
        heard = [event.method for event in client.events() if event.channel == 1]
        self.assertEqual(heard, [basic.Cancel("c", True), basic.ConsumeOk("c")])

    def test_a_client_that_cannot_hear_it(self) -> None:
        client = self.other(capabilities={})
        client.consume("q")
        self.other().call(queue.Delete(queue="q"))
        self.assertEqual(client.events(), [])
        self.assertEqual(client.connection.channels[1].consuming.consumers, {})

    def test_deliveries_of_a_deleted_queue_are_settled_in_silence(self) -> None:
        self.client.consume("q")
        self.client.publish("", "q", b"a", b"b", b"c")
        self.client.events()
        self.client.send(1, queue.Delete(queue="q", nowait=True))
        self.client.send(1, basic.Ack(1), basic.Nack(2), basic.Reject(3, False))
        self.assertEqual(self.client.methods(), [basic.Cancel("c", True)])


class Get(ClientTestCase):
    """basic.get."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")

    def test_empty(self) -> None:
        self.assertEqual(self.client.call(basic.Get(queue="q")), basic.GetEmpty())

    def test_a_message(self) -> None:
        self.client.publish("", "q", b"a", b"b", properties=BasicProperties(type="t"))
        event = self.client.get("q")
        self.assertEqual(event[2:7], (1, False, "", "q", 1))
        self.assertEqual((event[7].type, event[8]), ("t", b"a"))

    def test_redelivered(self) -> None:
        self.client.publish("", "q", b"a")
        self.client.get("q")
        self.client.send(1, basic.Nack(1))
        event = self.client.get("q")
        self.assertEqual(event[2:4], (2, True))

    def test_no_ack(self) -> None:
        self.client.publish("", "q", b"a")
        self.assertEqual(self.client.get("q", no_ack=True)[2], 1)
        self.client.send(1, basic.Ack(1))
        self.assert_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", basic.Ack)

    def test_tags_are_shared_with_deliveries(self) -> None:
        self.client.declare("r")
        self.client.publish("", "q", b"a")
        self.client.get("q")
        self.client.consume("r")
        self.client.publish("", "r", b"b")
        self.assertEqual(deliveries(self.client.events()), [("c", 2, False, b"b")])

    def test_a_missing_queue(self) -> None:
        self.client.send(1, basic.Get(queue="missing"))
        self.assert_channel_closed(404, "NOT_FOUND - no queue 'missing' in vhost '/'", basic.Get)

    def test_another_s_exclusive_queue(self) -> None:
        self.client.declare("x", exclusive=True)
        other = self.other()
        other.send(1, basic.Get(queue="x"))
        self.assertEqual(other.methods()[0].reply_code, 405)  # type: ignore[attr-defined]

    def test_a_single_active_consumer(self) -> None:
        """Nothing for basic.get in a quorum queue (measured); a classic one does not mind."""
        arguments = {"x-single-active-consumer": True}
        self.client.declare("classic", arguments=arguments)
        self.client.publish("", "classic", b"1")
        self.assertIsNotNone(self.client.get("classic"))
        self.client.declare("quorum", durable=True, arguments={**arguments, "x-queue-type": "quorum"})
        self.client.send(1, basic.Get(queue="quorum"))
        text = (
            "RESOURCE_LOCKED - cannot obtain access to locked queue 'quorum' in vhost '/'. basic.get operations are "
            "not supported by quorum queues with single active consumer"
        )
        self.assert_channel_closed(405, text, basic.Get)

    def test_a_client_that_has_closed_gets_nothing(self) -> None:
        self.client.publish("", "q", b"a")
        self.client.send(1, basic.Get(queue="q", no_ack=True), channel.Close(200, "bye"))
        self.assertEqual(self.client.methods(), [channel.CloseOk()])
        self.assertEqual(self.depth("q"), 1)

    def test_headers_that_do_not_fit_its_frames(self) -> None:
        properties = BasicProperties(headers={"a": "x" * 5000})
        self.client.publish("", "q", b"a", properties=properties)
        small = self.other(frame_max=4096)
        small.send(1, basic.Get(queue="q"))
        (closed,) = small.methods()
        assert isinstance(closed, channel.Close)
        self.assertEqual(closed.reply_code, 406)
        self.assertIn("cannot be sent: the properties and headers are", closed.reply_text)
        self.assertEqual(self.depth("q"), 1)


class GetLimit(ClientTestCase):
    """reliability 4.4: unacked per channel, by basic.get."""

    limits = BrokerLimits(unacked_per_channel=2)

    def test_beyond_it(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"a", b"b", b"c", b"d")
        self.client.get("q")
        self.client.get("q")
        self.assertIsNotNone(self.client.get("q", no_ack=True))
        self.client.send(1, basic.Get(queue="q"))
        self.assert_channel_closed(
            406, "PRECONDITION_FAILED - 2 deliveries on this channel are not acknowledged", basic.Get
        )


class Sending(ClientTestCase):
    """Deliveries as frames."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")

    def test_large_bodies_are_cut(self) -> None:
        small = self.other(frame_max=4096)
        small.consume("q")
        body = bytes(range(256)) * 200
        self.client.publish("", "q", body, b"next")
        self.assertEqual([event[8] for event in small.events()], [body, b"next"])

    def test_headers_that_do_not_fit_its_frames(self) -> None:
        """The client that cannot be given the message is told so; the message stays for others."""
        small = self.other(frame_max=4096)
        small.consume("q")
        self.client.publish("", "q", b"a", properties=BasicProperties(headers={"a": "x" * 5000}))
        (event,) = small.events()
        self.assertIsInstance(event, MethodReceived)
        self.assertEqual(event.method.reply_code, 406)
        self.assertIn("delivery 1 of queue 'q' cannot be sent", event.method.reply_text)
        self.assertEqual(self.depth("q"), 1)
        self.client.consume("q")
        self.assertEqual(len(self.client.events()), 1)

    def test_a_consumer_is_what_the_queue_expects(self) -> None:
        self.client.consume("q", exclusive=True)
        (consumer,) = self.vhost.queues["q"].consumers
        self.assertIsInstance(consumer, QueueConsumer)
        self.assertTrue(consumer.exclusive)
        self.assertTrue(consumer.is_available)
