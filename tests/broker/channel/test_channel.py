"""A channel's life: open, refused, closing from both sides, over; what waits for the journal; channel.flow."""

from __future__ import annotations

from typing import Any

from tests.broker.channel_client import ClientTestCase, WaitingJournal, acks, deliveries
from txmsg.broker.faults import Fault
from txmsg.wire.connection import ChannelState
from txmsg.wire.events import MethodReceived
from txmsg.wire.methods import basic, channel, confirm, connection, exchange, queue, tx

MISSING = "NOT_FOUND - no exchange 'missing' in vhost '/'"


class Closing(ClientTestCase):
    """Who closes, and what happens to what is on its way."""

    def test_by_the_client(self) -> None:
        self.assertEqual(self.client.call(channel.Close(200, "bye")), channel.CloseOk())
        self.assertEqual(self.client.connection.channels, {})
        self.client.send(1, channel.Open())
        self.assertIsInstance(self.client.methods()[0], channel.OpenOk)

    def test_a_fault_closes_the_channel_only(self) -> None:
        client = self.other(channels=2)
        client.publish("missing", "k", b"x", number=1)
        self.assert_channel_closed(404, MISSING, basic.Publish, client)
        self.assertIsInstance(client.declare("q", number=2), queue.DeclareOk)

    def test_a_fault_names_its_method(self) -> None:
        self.client.send(1, queue.Declare(queue="q", passive=True))
        self.assert_channel_closed(404, "NOT_FOUND - no queue 'q' in vhost '/'", queue.Declare)

    def test_a_fault_closes_the_connection(self) -> None:
        self.client.send(1, channel.Flow(False))
        self.assert_connection_closed(540, "NOT_IMPLEMENTED - active=false", channel.Flow)

    def test_nothing_has_an_effect_after_a_fault(self) -> None:
        self.client.declare("q")
        self.client.consume("q")
        self.client.send(
            1,
            (basic.Publish(exchange="missing"), b"\0\0", b"x"),
            (basic.Publish(routing_key="q"), b"\0\0", b"x"),
            queue.Delete(queue="q"),
        )
        self.assert_channel_closed(404, MISSING, basic.Publish)
        self.assertEqual(self.depth("q"), 0)
        self.assertEqual(self.vhost.queues["q"].consumer_count, 0)

    def test_the_number_is_free_after_close_ok(self) -> None:
        self.client.publish("missing", "k", b"x")
        self.client.events()
        self.assertIn(1, self.client.connection.channels)
        self.client.send(1, channel.CloseOk())
        self.assertNotIn(1, self.client.connection.channels)
        self.client.send(1, channel.Open())
        self.assertIsInstance(self.client.methods()[0], channel.OpenOk)

    def test_close_ok_and_open_in_one_chunk(self) -> None:
        self.client.publish("missing", "k", b"x")
        self.client.events()
        self.client.send(1, channel.CloseOk(), channel.Open())
        self.assertIsInstance(self.client.methods()[0], channel.OpenOk)
        self.assertIsInstance(self.client.declare("q"), queue.DeclareOk)

    def test_closes_that_cross(self) -> None:
        """The client's close is answered, ours is sent although it can be foreseen to cross."""
        self.client.send(1, (basic.Publish(exchange="missing"), b"\0\0", b"x"), channel.Close(200, "bye"))
        ours, answer = self.client.methods()
        self.assertEqual(ours, channel.Close(404, MISSING, 60, 40))
        self.assertEqual(answer, channel.CloseOk())
        self.assertIn(1, self.client.connection.channels)
        self.client.send(1, channel.CloseOk())
        self.assertIs(self.client.connection.wire.channel_state(1), ChannelState.CLOSED)
        self.assertEqual(self.client.connection.channels, {})

    def test_what_may_not_be_sent_any_more(self) -> None:
        """The wire knows of the close before the declare is answered."""
        self.client.send(1, queue.Declare(queue="q"), channel.Close(200, "bye"))
        self.assertEqual(self.client.methods(), [channel.CloseOk()])
        self.assertIn("q", self.vhost.queues)

    def test_deliveries_go_back(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"a", b"b")
        self.client.consume("q")
        self.assertEqual(len(self.client.events()), 2)
        self.client.call(channel.Close(200, "bye"))
        entries = self.vhost.queues["q"].ready_entries()
        self.assertEqual([(entry.message.body, entry.redelivered) for entry in entries], [(b"a", True), (b"b", True)])

    def test_deliveries_go_back_when_the_socket_does(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"a")
        self.client.consume("q")
        self.client.lose()
        self.assertEqual(self.depth("q"), 1)
        self.assertEqual(self.vhost.queues["q"].consumer_count, 0)

    def test_a_delivery_while_the_client_closes(self) -> None:
        """An ack sets another delivery free while a close stands behind it in the same chunk."""
        self.client.declare("q")
        self.client.call(basic.Qos(prefetch_count=1))
        self.client.publish("", "q", b"a", b"b")
        self.client.consume("q")
        self.assertEqual(deliveries(self.client.events()), [("c", 1, False, b"a")])
        self.client.send(1, basic.Ack(1), channel.Close(200, "bye"))
        self.assertEqual(self.client.methods(), [channel.CloseOk()])
        self.assertEqual([entry.message.body for entry in self.vhost.queues["q"].ready_entries()], [b"b"])

    def test_only_of_its_own_channel(self) -> None:
        client = self.other(channels=2)
        client.declare("q")
        client.publish("", "q", b"a", b"b")
        self.assertIsNotNone(client.get("q", number=1))
        self.assertIsNotNone(client.get("q", number=2))
        client.call(channel.Close(200, "bye"), 2)
        self.assertEqual(self.depth("q"), 1)

    def test_repr_tells_how_it_stands(self) -> None:
        opened = self.client.connection.channels[1]
        self.assertEqual(repr(opened), "<ServerChannel 1: open, 0 consumers, 0 unacked>")
        opened.closed()
        self.assertIn("over", repr(opened))

    def test_closed_twice(self) -> None:
        opened = self.client.connection.channels[1]
        opened.closed()
        opened.closed()


class Flow(ClientTestCase):
    """channel.flow, which only ever goes on."""

    def test_on(self) -> None:
        self.assertEqual(self.client.call(channel.Flow(True)), channel.FlowOk(True))

    def test_an_answer_to_nothing(self) -> None:
        self.client.send(1, channel.FlowOk(True))
        self.assertEqual(self.client.events(), [])


class Unknown(ClientTestCase):
    """Everything a client may send on an open channel has a handler."""

    def test_every_method_has_one(self) -> None:
        from txmsg.wire.connection import Role
        from txmsg.wire.methods import METHODS

        handlers = self.client.connection.channels[1]._handlers
        otherwise = {channel.Open, channel.CloseOk, basic.Publish, basic.Ack, basic.Nack}
        for method in METHODS.values():
            if Role.CLIENT in method.SENT_BY and method.CLASS_ID != 10 and method not in otherwise:
                self.assertIn(method, handlers, method.NAME)


class Kept(ClientTestCase):
    """Replies to what is durable leave once it is on disk (R35)."""

    journal: WaitingJournal

    def make_journal(self) -> Any:
        return WaitingJournal()

    def test_declare_waits(self) -> None:
        self.client.send(1, queue.Declare(queue="q", durable=True))
        self.assertEqual(self.client.events(), [])
        self.journal.commit()
        self.assertEqual(self.client.methods(), [queue.DeclareOk("q", 0, 0)])

    def test_what_comes_later_waits_behind_it(self) -> None:
        self.client.send(
            1, queue.Declare(queue="q", durable=True), queue.Declare(queue="r"), basic.Get(queue="q"), confirm.Select()
        )
        self.assertEqual(self.client.events(), [])
        self.assertNotIn("r", self.vhost.queues)
        self.assertEqual(self.client.transport.producerState, "paused")
        self.journal.commit()
        self.assertEqual(
            self.client.methods(),
            [queue.DeclareOk("q", 0, 0), queue.DeclareOk("r", 0, 0), basic.GetEmpty(), confirm.SelectOk()],
        )
        self.assertEqual(self.client.transport.producerState, "producing")

    def test_one_after_the_other(self) -> None:
        self.client.send(1, queue.Declare(queue="q", durable=True), queue.Declare(queue="r", durable=True))
        self.journal.commit()
        self.assertEqual(self.client.methods(), [queue.DeclareOk("q", 0, 0)])
        self.journal.commit()
        self.assertEqual(self.client.methods(), [queue.DeclareOk("r", 0, 0)])
        self.assertEqual(self.client.transport.producerState, "producing")

    def test_all_of_them(self) -> None:
        """Declare, bind, unbind, purge, delete; of exchanges and of queues."""
        self.vhost.declare_queue("q", durable=True)
        self.vhost.declare_exchange("x", "fanout", durable=True)
        for method, answer in (
            (exchange.Declare(exchange="y", durable=True), exchange.DeclareOk()),
            (exchange.Bind(destination="y", source="x"), exchange.BindOk()),
            (exchange.Unbind(destination="y", source="x"), exchange.UnbindOk()),
            (exchange.Delete(exchange="y"), exchange.DeleteOk()),
            (queue.Bind(queue="q", exchange="x"), queue.BindOk()),
            (queue.Unbind(queue="q", exchange="x"), queue.UnbindOk()),
            (queue.Purge(queue="q"), queue.PurgeOk(0)),
            (queue.Delete(queue="q"), queue.DeleteOk(0)),
        ):
            self.client.send(1, method)
            self.assertEqual(self.client.events(), [], method)
            self.journal.commit()
            self.assertEqual(self.client.methods(), [answer])

    def test_what_is_not_durable_does_not_wait(self) -> None:
        self.assertEqual(self.client.call(queue.Declare(queue="q")), queue.DeclareOk("q", 0, 0))
        self.assertEqual(self.client.call(queue.Declare(queue="x", durable=True, exclusive=True)).queue, "x")
        self.assertEqual(self.client.call(queue.Bind(queue="q", exchange="amq.direct")), queue.BindOk())
        self.assertEqual(self.client.call(queue.Purge(queue="q")), queue.PurgeOk(0))
        self.assertEqual(self.client.call(queue.Delete(queue="q")), queue.DeleteOk(0))
        self.assertEqual(self.client.call(exchange.Declare(exchange="x")), exchange.DeclareOk())

    def test_passive_and_nowait_do_not_wait(self) -> None:
        self.vhost.declare_queue("q", durable=True)
        self.assertIsInstance(self.client.call(queue.Declare(queue="q", passive=True)), queue.DeclareOk)
        self.client.send(1, queue.Declare(queue="q", durable=True, nowait=True), basic.Get(queue="q"))
        self.assertEqual(self.client.methods(), [basic.GetEmpty()])

    def test_a_prompt_journal(self) -> None:
        self.journal.is_prompt = True
        self.assertEqual(self.client.call(queue.Declare(queue="q", durable=True)), queue.DeclareOk("q", 0, 0))
        self.assertEqual(self.client.transport.producerState, "producing")

    def test_commit_waits(self) -> None:
        self.client.select_tx()
        self.client.send(1, tx.Commit())
        self.assertEqual(self.client.events(), [])
        self.journal.commit()
        self.assertEqual(self.client.methods(), [tx.CommitOk()])

    def test_what_cannot_be_kept_closes_the_connection(self) -> None:
        self.client.send(1, queue.Declare(queue="q", durable=True), queue.Declare(queue="r"))
        self.journal.fail()
        self.assert_connection_closed(541, "INTERNAL_ERROR - the change could not be written to disk", queue.Declare)
        self.assertNotIn("r", self.vhost.queues)

    def test_the_client_is_gone_before_it_is_kept(self) -> None:
        self.client.send(1, queue.Declare(queue="q", durable=True), queue.Declare(queue="r"))
        self.client.lose()
        self.journal.commit()
        self.assertNotIn("r", self.vhost.queues)

    def test_the_client_is_gone_before_it_fails(self) -> None:
        self.client.send(1, queue.Declare(queue="q", durable=True))
        self.client.lose()
        self.journal.fail()

    def test_other_channels_wait_too(self) -> None:
        """Reading is paused for the whole connection, so the order of its methods is kept."""
        client = self.other(channels=2)
        data = client.octets(1, queue.Declare(queue="q", durable=True)) + client.octets(2, queue.Declare(queue="r"))
        client.feed(data)
        self.assertEqual(client.events(), [])
        self.journal.commit()
        self.assertEqual([event.channel for event in client.events()], [1, 2])

    def test_a_delivery_meanwhile(self) -> None:
        """Waiting stops what comes in, not what goes out."""
        self.client.declare("q")
        self.client.consume("q")
        self.client.send(1, queue.Declare(queue="d", durable=True))
        self.other().publish("", "q", b"x")
        self.assertEqual(deliveries(self.client.events()), [("c", 1, False, b"x")])


class Turns(ClientTestCase):
    """What is written at the end of a turn."""

    def test_confirms_before_the_close(self) -> None:
        self.client.select_confirms()
        self.client.declare("q")
        self.client.send(
            1, (basic.Publish(routing_key="q"), b"\0\0", b"x"), (basic.Publish(exchange="missing"), b"\0\0", b"x")
        )
        events = self.client.events()
        self.assertEqual(acks(events), [("ack", 1, False)])
        self.assertIsInstance(events[1], MethodReceived)
        self.assertEqual(events[1].method.reply_code, 404)

    def test_a_fault_of_the_script(self) -> None:
        """What refuses a method from outside, `refuse`, is what the channel itself does."""
        opened = self.client.connection.channels[1]
        opened.refuse(Fault(406, "because"), basic.Get)
        self.assert_channel_closed(406, "because", basic.Get)
        opened.refuse(Fault(406, "again"), basic.Get)
        opened.refuse_soon(Fault(406, "again"), basic.Get)
        self.assertEqual(self.client.events(), [])

    def test_a_refusal_while_the_connection_closes(self) -> None:
        opened = self.client.connection.channels[1]
        self.client.connection.wire.send_method(0, connection.Close(320, "over"))
        opened.refuse(Fault(406, "because"), basic.Get)
        self.assertEqual(self.client.transport.value(), b"")
