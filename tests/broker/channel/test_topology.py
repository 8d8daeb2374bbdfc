"""exchange.* and queue.* on a channel: replies, names, permissions (C7.5); the model's tests have the rules."""

from __future__ import annotations

import re
from typing import Any

from tests.broker.channel_client import Client, ClientTestCase
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, exchange, queue

NO_PREVIOUS = "NOT_FOUND - no previously declared queue"
DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"


class Replies(ClientTestCase):
    """Each method has its reply, or none with nowait."""

    def test_in_turn(self) -> None:
        for method, reply in (
            (exchange.Declare(exchange="x", type="fanout"), exchange.DeclareOk()),
            (exchange.Declare(exchange="x", passive=True), exchange.DeclareOk()),
            (exchange.Declare(exchange="y"), exchange.DeclareOk()),
            (exchange.Bind(destination="y", source="x"), exchange.BindOk()),
            (exchange.Unbind(destination="y", source="x"), exchange.UnbindOk()),
            (queue.Declare(queue="q"), queue.DeclareOk("q", 0, 0)),
            (queue.Bind(queue="q", exchange="x"), queue.BindOk()),
            (queue.Unbind(queue="q", exchange="x"), queue.UnbindOk()),
            (queue.Purge(queue="q"), queue.PurgeOk(0)),
            (queue.Delete(queue="q"), queue.DeleteOk(0)),
            (exchange.Delete(exchange="x"), exchange.DeleteOk()),
            (queue.Delete(queue="missing"), queue.DeleteOk(0)),
            (exchange.Delete(exchange="missing"), exchange.DeleteOk()),
        ):
            self.assertEqual(self.client.call(method), reply, method)

    def test_nowait(self) -> None:
        self.client.send(
            1,
            exchange.Declare(exchange="x", nowait=True),
            exchange.Bind(destination="x", source="amq.direct", nowait=True),
            exchange.Unbind(destination="x", source="amq.direct", nowait=True),
            queue.Declare(queue="q", nowait=True),
            queue.Bind(queue="q", exchange="x", nowait=True),
            queue.Purge(queue="q", nowait=True),
            queue.Delete(queue="q", nowait=True),
            exchange.Delete(exchange="x", nowait=True),
        )
        self.assertEqual(self.client.events(), [])
        self.assertNotIn("x", self.vhost.exchanges)
        self.assertNotIn("q", self.vhost.queues)

    def test_counts(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"a", b"b", b"c")
        self.client.get("q")
        self.client.consume("q", "c")
        self.assertEqual(len(self.client.events()), 2)
        other = self.other()
        self.assertEqual(other.declare("q"), queue.DeclareOk("q", 0, 1))
        self.client.send(1, basic.Cancel("c", True), basic.Nack(0, True))
        self.assertEqual(other.declare("q", passive=True), queue.DeclareOk("q", 3, 0))
        self.assertEqual(other.call(queue.Purge(queue="q")), queue.PurgeOk(3))
        other.publish("", "q", b"d")
        self.assertEqual(other.call(queue.Delete(queue="q")), queue.DeleteOk(1))

    def test_a_name_is_made(self) -> None:
        answer = self.client.declare("", exclusive=True)
        self.assertIsNotNone(re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", answer.queue))

    def test_line_breaks_go(self) -> None:
        self.assertEqual(self.client.declare(" a\r\n\n\u00e9 ").queue, " a\u00e9 ")
        self.client.call(queue.Bind(queue=" a\n\u00e9 ", exchange="amq.\ndirect"))
        self.client.call(exchange.Declare(exchange="x\n"))
        self.assertIn("x", self.vhost.exchanges)

    def test_exclusive_queues_belong_to_the_connection(self) -> None:
        client = self.other(channels=2)
        client.declare("x", exclusive=True)
        client.call(channel.Close(200, "bye"))
        self.assertIn("x", self.vhost.queues)
        self.client.send(1, queue.Delete(queue="x"))
        (event,) = self.client.events()
        self.assertEqual(event.method.reply_code, 405)
        client.lose()
        self.assertNotIn("x", self.vhost.queues)


class LastQueue(ClientTestCase):
    """An empty queue name."""

    def methods(self) -> list[Any]:
        return [
            queue.Bind(exchange="amq.direct"),
            queue.Unbind(exchange="amq.direct"),
            queue.Purge(),
            queue.Delete(),
            basic.Get(),
            basic.Consume(),
        ]

    def test_none_was_declared(self) -> None:
        for method in self.methods():
            client = self.other()
            client.send(1, method)
            self.assert_channel_closed(404, NO_PREVIOUS, type(method), client)

    def test_the_last_one(self) -> None:
        self.client.declare("other")
        self.client.declare("q")
        for method in self.methods():
            self.client.send(1, method)
            self.assertIn(type(self.client.methods()[0]), type(method).REPLIES, method)
            self.client.declare("q")

    def test_an_empty_routing_key_too(self) -> None:
        self.client.declare("q")
        self.client.call(queue.Bind(exchange="amq.direct"))
        self.client.publish("amq.direct", "q", b"a")
        self.assertEqual(self.depth("q"), 1)
        self.client.call(queue.Unbind(exchange="amq.direct"))
        self.client.publish("amq.direct", "q", b"a")
        self.assertEqual(self.depth("q"), 1)

    def test_an_empty_routing_key_of_a_named_queue(self) -> None:
        self.client.declare("q")
        self.client.call(queue.Bind(queue="q", exchange="amq.direct"))
        self.client.publish("amq.direct", "q", b"a")
        self.client.publish("amq.direct", "", b"b")
        self.assertEqual(self.client.get("q")[8], b"b")
        self.assertIsNone(self.client.get("q"))

    def test_a_routing_key_without_a_queue(self) -> None:
        self.client.declare("q")
        self.client.call(queue.Bind(exchange="amq.direct", routing_key="k"))
        self.client.publish("amq.direct", "k", b"a")
        self.assertEqual(self.depth("q"), 1)

    def test_passive_and_nowait_declares_count(self) -> None:
        self.client.declare("p")
        self.client.declare("q")
        self.client.declare("p", passive=True)
        self.assertEqual(self.client.connection.channels[1].last_queue, "p")
        self.client.send(1, queue.Declare(queue="q", nowait=True))
        self.assertEqual(self.client.connection.channels[1].last_queue, "q")

    def test_after_its_deletion(self) -> None:
        self.client.declare("q")
        self.client.call(queue.Delete())
        self.client.send(1, queue.Purge())
        self.assert_channel_closed(404, "NOT_FOUND - no queue 'q' in vhost '/'", queue.Purge)

    def test_it_is_no_routing_key_of_a_publish(self) -> None:
        self.client.declare("q")
        self.client.publish("", "", b"a")
        self.assertEqual(self.depth("q"), 0)

    def test_passive_never_means_it(self) -> None:
        self.client.declare("q")
        self.client.send(1, queue.Declare(passive=True))
        self.assert_channel_closed(404, "NOT_FOUND - no queue '' in vhost '/'", queue.Declare)


class Refusals(ClientTestCase):
    """Scope and text as RabbitMQ's; before any permission."""

    def refused(self, method: Method, code: int, text: str) -> None:
        client = self.other()
        client.send(1, method)
        self.assert_channel_closed(code, text, type(method), client)

    def test_the_default_exchange(self) -> None:
        self.client.declare("q")
        for method in (
            exchange.Declare(exchange=""),
            exchange.Delete(exchange=""),
            exchange.Bind(destination="", source="amq.direct"),
            exchange.Bind(destination="amq.direct", source=""),
            exchange.Unbind(destination="", source="amq.direct"),
            exchange.Unbind(destination="amq.direct", source=""),
            queue.Bind(queue="q", exchange=""),
            queue.Unbind(queue="q", exchange=""),
        ):
            self.refused(method, 403, DEFAULT)

    def test_system_exchanges(self) -> None:
        for name in ("amq.direct", "amq.missing"):
            text = f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"
            self.refused(exchange.Delete(exchange=name), 403, text)

    def test_reserved_names(self) -> None:
        text = "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'"
        self.refused(queue.Declare(queue="amq.q"), 403, text)
        text = "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'"
        self.refused(exchange.Declare(exchange="amq.x"), 403, text)

    def test_an_unknown_type(self) -> None:
        self.client.send(1, exchange.Declare(exchange="x", type="bogus"))
        self.assert_connection_closed(503, "COMMAND_INVALID - unknown exchange type 'bogus'", exchange.Declare)


class Permissions(ClientTestCase):
    """C7.5: the matrix of user and operation."""

    def setUp(self) -> None:
        super().setUp()
        self.vhost.declare_queue("q")
        self.vhost.declare_exchange("x", "fanout")

    def may(self, configure: str, write: str, read: str) -> Client:
        self.broker.users.add("bob", "bob")
        self.broker.users.set_permissions("bob", "/", configure, write, read)
        return self.other(user="bob")

    def refused(self, method: Method, kind: str, name: str, then: str = "", **patterns: str) -> None:
        """Bob is refused with everything else allowed, and not (or with the text `then`) with everything allowed."""
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        client = self.may(**{**everything, **patterns})
        client.send(1, method)
        text = f"ACCESS_REFUSED - access to {kind} '{name}' in vhost '/' refused for user 'bob'"
        self.assert_channel_closed(403, text, type(method), client)
        client.lose()
        client = self.may(**everything)
        client.send(1, method)
        if then:
            self.assert_channel_closed(403, then, type(method), client)
            client.lose()
            return
        for event in client.events():
            self.assertNotEqual(getattr(getattr(event, "method", None), "reply_code", 0), 403, method)
        client.lose()

    def test_configure(self) -> None:
        for name in ("q", "new"):
            self.refused(queue.Declare(queue=name), "queue", name, configure="^other$")
        self.refused(queue.Delete(queue="q"), "queue", "q", configure="^other$")
        for name in ("x", "new"):
            method = exchange.Declare(exchange=name, type="fanout")
            self.refused(method, "exchange", name, configure="")
        self.refused(exchange.Delete(exchange="x"), "exchange", "x", configure="")
        self.refused(exchange.Delete(exchange="missing"), "exchange", "missing", configure="")
        self.refused(queue.Delete(queue="missing"), "queue", "missing", configure="")

    def test_read(self) -> None:
        for name in ("q", "missing"):
            self.refused(queue.Purge(queue=name), "queue", name, read="x")
            self.refused(basic.Get(queue=name), "queue", name, read="x")
            self.refused(basic.Consume(queue=name), "queue", name, read="x")

    def test_both_sides_of_a_binding(self) -> None:
        for kind in (queue.Bind, queue.Unbind):
            self.refused(kind(queue="q", exchange="x"), "queue", "q", write="^x$")
            self.refused(kind(queue="q", exchange="x"), "exchange", "x", read="^q$")
            self.refused(kind(queue="missing", exchange="x"), "queue", "missing", write="^x$")
            # Only then it counts that there can be no bindings from the default exchange.
            self.refused(
                kind(queue="missing", exchange="", routing_key="k"), "queue", "missing", write="^x$", then=DEFAULT
            )
        for between in (exchange.Bind, exchange.Unbind):
            self.refused(between(destination="x", source="amq.fanout"), "exchange", "x", write="amq")
            self.refused(between(destination="x", source=""), "exchange", "x", write="amq", then=DEFAULT)
            self.refused(between(destination="x", source="amq.fanout"), "exchange", "amq.fanout", read="^x$")

    def test_dead_letter_exchange(self) -> None:
        method = queue.Declare(queue="dead", arguments={"x-dead-letter-exchange": "x"})
        self.refused(method, "queue", "dead", read="^x$")
        method = queue.Declare(queue="dead1", arguments={"x-dead-letter-exchange": "x"})
        self.refused(method, "exchange", "x", write="^dead1$")
        method = queue.Declare(queue="dead2", arguments={"x-dead-letter-exchange": ""})
        self.refused(method, "exchange", "amq.default", write="^dead")
        # What there is is only compared.
        client = self.may(".*", "", "")
        self.assertIsInstance(client.call(method), queue.DeclareOk)

    def test_alternate_exchange(self) -> None:
        method = exchange.Declare(exchange="new", type="fanout", arguments={"alternate-exchange": "x"})
        self.refused(method, "exchange", "new", read="^x$")
        method = exchange.Declare(exchange="new2", type="fanout", arguments={"alternate-exchange": "x"})
        self.refused(method, "exchange", "x", write="^new2$")
        # What there is is only compared.
        client = self.may(".*", "", "")
        self.assertIsInstance(client.call(method), exchange.DeclareOk)

    def test_passive_needs_nothing(self) -> None:
        client = self.may("", "", "")
        self.assertIsInstance(client.declare("q", passive=True), queue.DeclareOk)
        answer = client.call(exchange.Declare(exchange="x", passive=True))
        self.assertIsInstance(answer, exchange.DeclareOk)

    def test_a_name_that_is_made(self) -> None:
        client = self.may("^mine", ".*", ".*")
        client.send(1, queue.Declare())
        (event,) = client.events()
        self.assertIn("ACCESS_REFUSED - access to queue 'amq.gen-", event.method.reply_text)
        self.assertIsInstance(self.may(r"^amq\.gen-.*", "", "").declare(""), queue.DeclareOk)

    def test_recover_and_qos_need_nothing(self) -> None:
        client = self.may("", "", "")
        self.assertEqual(client.call(basic.Qos()), basic.QosOk())
        self.assertEqual(client.call(basic.Recover(True)), basic.RecoverOk())
