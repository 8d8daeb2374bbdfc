"""The synchronous methods: what each call puts on the wire, as pamqp reads it, and what it fires with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import base, commands
from twisted.internet.defer import Deferred

from tests.amqp.peer import PeerTestCase, ignore
from txmsg.amqp.channel import Channel
from txmsg.errors import AccessRefused, NotFound, PreconditionFailed
from txmsg.wire.methods import channel, exchange, queue, tx

Exchange, Queue, Tx = commands.Exchange, commands.Queue, commands.Tx

#: The call, the method's fields as pamqp names them, the broker's reply and the class the Deferred fires with.
Case = tuple[Callable[[Channel], Deferred[Any]], base.Frame, base.Frame, type[Any]]

ALL_ON: dict[str, Any] = {"passive": True, "durable": True, "auto_delete": True}
TABLE: dict[str, Any] = {"x-max-length": 5, "x-nested": {"a": [1, "b"]}, "x-flag": False}

CASES: list[Case] = [
    # K-39, K-40: every flag defaults to False.
    (lambda c: c.exchange_declare("x"), Exchange.Declare(0, "x", "direct"), Exchange.DeclareOk(), exchange.DeclareOk),
    (
        lambda c: c.exchange_declare("x", "topic", internal=True, arguments=TABLE, **ALL_ON),
        Exchange.Declare(0, "x", "topic", internal=True, arguments=TABLE, **ALL_ON),
        Exchange.DeclareOk(),
        exchange.DeclareOk,
    ),
    (lambda c: c.exchange_delete("x"), Exchange.Delete(0, "x"), Exchange.DeleteOk(), exchange.DeleteOk),
    (
        lambda c: c.exchange_delete("x", if_unused=True),
        Exchange.Delete(0, "x", if_unused=True),
        Exchange.DeleteOk(),
        exchange.DeleteOk,
    ),
    # K-41, K-42: the destination comes first; unbind-ok is method 51 (24.14).
    (lambda c: c.exchange_bind("to", "from"), Exchange.Bind(0, "to", "from", ""), Exchange.BindOk(), exchange.BindOk),
    (
        lambda c: c.exchange_bind("to", "from", "key", arguments=TABLE),
        Exchange.Bind(0, "to", "from", "key", arguments=TABLE),
        Exchange.BindOk(),
        exchange.BindOk,
    ),
    (
        lambda c: c.exchange_unbind("to", "from", "key", arguments=TABLE),
        Exchange.Unbind(0, "to", "from", "key", arguments=TABLE),
        Exchange.UnbindOk(),
        exchange.UnbindOk,
    ),
    # K-43: without a name the broker chooses one.
    (lambda c: c.queue_declare(), Queue.Declare(0, ""), Queue.DeclareOk("amq.gen-1", 0, 0), queue.DeclareOk),
    (
        lambda c: c.queue_declare("q", exclusive=True, arguments=TABLE, **ALL_ON),
        Queue.Declare(0, "q", exclusive=True, arguments=TABLE, **ALL_ON),
        Queue.DeclareOk("q", 3, 2),
        queue.DeclareOk,
    ),
    # K-35, K-44, K-45: no key means the queue's name, an empty key is an empty key.
    (lambda c: c.queue_bind("q", "x"), Queue.Bind(0, "q", "x", "q"), Queue.BindOk(), queue.BindOk),
    (lambda c: c.queue_bind("q", "x", ""), Queue.Bind(0, "q", "x", ""), Queue.BindOk(), queue.BindOk),
    (
        lambda c: c.queue_bind("q", "x", "key", arguments=TABLE),
        Queue.Bind(0, "q", "x", "key", arguments=TABLE),
        Queue.BindOk(),
        queue.BindOk,
    ),
    (lambda c: c.queue_unbind("q", "x"), Queue.Unbind(0, "q", "x", "q"), Queue.UnbindOk(), queue.UnbindOk),
    (
        lambda c: c.queue_unbind("q", "x", "", arguments=TABLE),
        Queue.Unbind(0, "q", "x", "", arguments=TABLE),
        Queue.UnbindOk(),
        queue.UnbindOk,
    ),
    # K-46, K-47.
    (lambda c: c.queue_purge("q"), Queue.Purge(0, "q"), Queue.PurgeOk(7), queue.PurgeOk),
    (lambda c: c.queue_delete("q"), Queue.Delete(0, "q"), Queue.DeleteOk(7), queue.DeleteOk),
    (
        lambda c: c.queue_delete("q", if_unused=True, if_empty=True),
        Queue.Delete(0, "q", if_unused=True, if_empty=True),
        Queue.DeleteOk(0),
        queue.DeleteOk,
    ),
    # K-50, K-51, P-04: the reply of rollback is rollback-ok.
    (lambda c: c.flow(True), commands.Channel.Flow(True), commands.Channel.FlowOk(True), channel.FlowOk),
    (lambda c: c.tx_select(), Tx.Select(), Tx.SelectOk(), tx.SelectOk),
]

NOWAIT: list[tuple[Callable[[Channel], Deferred[Any]], type[base.Frame]]] = [
    (lambda c: c.exchange_declare("x", nowait=True), Exchange.Declare),
    (lambda c: c.exchange_delete("x", nowait=True), Exchange.Delete),
    (lambda c: c.exchange_bind("a", "b", nowait=True), Exchange.Bind),
    (lambda c: c.exchange_unbind("a", "b", nowait=True), Exchange.Unbind),
    (lambda c: c.queue_declare("q", nowait=True), Queue.Declare),
    (lambda c: c.queue_bind("q", "x", nowait=True), Queue.Bind),
    (lambda c: c.queue_purge("q", nowait=True), Queue.Purge),
    (lambda c: c.queue_delete("q", nowait=True), Queue.Delete),
]


class OperationTests(PeerTestCase):
    def test_on_the_wire_and_back(self) -> None:
        """K-39 to K-47, M-22, 24.14: each method's octets mean to pamqp what the call said; so do the replies to us."""
        for call, expected, reply, kind in CASES:
            with self.subTest(expected=repr(expected)):
                peer = self.opened()
                waiting = call(peer.channel())
                sent = peer.only(type(expected))
                self.assertEqual(dict(sent), dict(expected))
                self.assertNoResult(waiting)
                peer.send(reply)
                found = self.result(waiting)
                self.assertIs(type(found), kind)
                for name, value in dict(reply).items():
                    self.assertEqual(getattr(found, name), value)

    def test_nowait(self) -> None:
        """M-07: the bit is set, None is the result, and a later reply is not waited for."""
        peer = self.opened()
        channel = peer.channel()
        for call, kind in NOWAIT:
            with self.subTest(kind.__name__):
                self.assertIsNone(self.result(call(channel)))
                self.assertIs(dict(peer.only(kind))["nowait"], True)
        self.assertIn(" 0 calls waiting", repr(channel))

    def test_arguments_are_copied(self) -> None:
        """M-23: a table that is changed after the call changes nothing, also when the call is held back."""
        peer = self.opened()
        channel = peer.channel()
        peer.send(commands.Connection.Blocked("low on memory"))
        ignore(channel.basic_publish("", "q", b""))
        arguments: dict[str, Any] = {"x-max-length": 5}
        ignore(channel.queue_declare("q", arguments=arguments), channel.queue_declare("q2"))
        arguments["x-max-length"] = arguments["bad"] = object()
        peer.send(commands.Connection.Unblocked())
        declared = [frame for _, frame in peer.read() if isinstance(frame, Queue.Declare)]
        self.assertEqual([each.arguments for each in declared], [{"x-max-length": 5}, {}])

    def test_refusals(self) -> None:
        """K-25, K-39, K-43: the broker refuses by closing the channel; the class says what it is."""
        for code, kind in ((403, AccessRefused), (404, NotFound), (406, PreconditionFailed)):
            peer = self.opened()
            declared = peer.channel().queue_declare("q", passive=True)
            peer.read()
            peer.send(commands.Channel.Close(code, "the broker's words", 50, 10))
            error = self.failed(declared, kind)
            self.assertEqual((error.reply_text, error.method_name), ("the broker's words", "queue.declare"))

    def test_the_name_in_a_reply_may_differ(self) -> None:
        """M-26: what the broker calls it is what the caller learns; the reply is matched by order."""
        peer = self.opened()
        declared = peer.channel().queue_declare("q")
        peer.send(Queue.DeclareOk("other", 1, 2))
        reply = self.result(declared)
        self.assertEqual((reply.queue, reply.message_count, reply.consumer_count), ("other", 1, 2))

    def test_transactions(self) -> None:
        """P-01 to P-03: commit makes settlements final, rollback opens them again, in the order of the calls."""
        peer = self.opened()
        channel = peer.channel()
        deliveries: list[Any] = []
        consumer = peer.consumer(channel, deliveries.append)
        peer.deliver(consumer, b"1", b"2")
        selected = channel.tx_select()
        peer.send(Tx.SelectOk())
        self.result(selected)
        deliveries[0].ack()
        committed = channel.tx_commit()
        deliveries[1].ack()
        rolled_back = channel.tx_rollback()
        self.assertEqual(peer.names(), ["Tx.Select", "Basic.Ack", "Tx.Commit", "Basic.Ack", "Tx.Rollback"])
        peer.send(Tx.CommitOk(), Tx.RollbackOk())
        self.assertIsInstance(self.result(committed), tx.CommitOk)
        self.assertIsInstance(self.result(rolled_back), tx.RollbackOk)
        self.assertTrue(deliveries[0].is_settled)
        self.assertFalse(deliveries[1].is_settled, "the broker holds it as outstanding again")
        deliveries[1].ack()
        self.assertEqual(peer.settlements(), [("Ack", 2, False)])
