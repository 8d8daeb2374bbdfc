"""What a restart finds of exchanges, queues, bindings and settings (R35)."""

from __future__ import annotations

from tests.broker.store_cases import StoreTestCase
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import PENDING, ROUTED
from txmsg.broker.store.records import EXCHANGE, QUEUE
from txmsg.broker.vhost.bindings import Binding
from txmsg.errors import EncodeError
from txmsg.wire.properties import BasicProperties
from txmsg.wire.tables import Int8


class EntityTests(StoreTestCase):
    """Exchanges, queues, bindings and settings come back as they were."""

    def test_entities(self) -> None:
        """Everything durable is there after a clean stop, with its arguments and their kinds."""
        host = self.start()
        self.assertTrue(self.report.is_new)
        host.add_vhost("other")
        host.store.put_setting("vhost", "other", {})
        other = host.vhosts["other"]
        other.declare_queue("q", durable=True, arguments={"x-message-ttl": Int8(7), "x-foo": [1, {"a": None}]})
        other.declare_queue("auto", durable=True, auto_delete=True)
        other.declare_exchange("x", "topic", durable=True, auto_delete=True, arguments={"alternate-exchange": "y"})
        other.declare_exchange("y", "headers", durable=True, internal=True)
        other.bind_exchange("y", "x", "a.#")
        other.bind_queue("q", "y", "", {"x-match": "any", "n": 5})
        other.bind_queue("q", "amq.fanout", "k")
        host = self.restart(host)
        self.assertTrue(self.report.stopped_cleanly)
        self.assertEqual((self.report.vhosts, self.report.exchanges), (1, 2))
        self.assertEqual((self.report.queues, self.report.bindings, self.report.damage), (2, 3, []))
        self.assertEqual(host.vhost.queues, {})
        other = host.vhosts["other"]
        queue = other.queue("q")
        self.assertEqual(queue.arguments, {"x-message-ttl": 7, "x-foo": [1, {"a": None}]})
        self.assertIs(type(queue.arguments["x-message-ttl"]), Int8)
        self.assertEqual((queue.durable, queue.exclusive, queue.auto_delete), (True, False, False))
        self.assertTrue(other.queue("auto").auto_delete)
        exchange = other.exchange("x")
        self.assertEqual((exchange.type, exchange.durable, exchange.auto_delete), ("topic", True, True))
        self.assertEqual((exchange.alternate, exchange.internal), ("y", False))
        self.assertTrue(other.exchange("y").internal)
        self.assertEqual(
            set(other.bindings()),
            {
                Binding("x", "y", "exchange", "a.#"),
                Binding("y", "q", "queue", "", {"x-match": "any", "n": 5}),
                Binding("amq.fanout", "q", "queue", "k"),
            },
        )

    def test_deleted_entities_stay_away(self) -> None:
        """What was deleted, in the same commit or a later one, does not come back, nor what hung on it."""
        host = self.start()
        for name in ("a", "b"):
            host.queue(name)
            host.vhost.declare_exchange(f"x{name}", "direct", durable=True)
            host.vhost.bind_queue(name, f"x{name}", "k")
            host.publish(b"1", name)
            if name == "a":
                self.assertEqual(self.commit(host), ["kept"])
        host.vhost.delete_queue("a")
        host.vhost.delete_queue("b")
        host.vhost.delete_exchange("xa")
        host.vhost.delete_exchange("xb")
        host.queue("a")
        host = self.restart(host)
        self.assertEqual(list(host.vhost.queues), ["a"])
        self.assertEqual(list(host.vhost.bindings()), [])
        self.assertNotIn("xa", host.vhost.exchanges)
        self.assertEqual(host.kept_bodies("a"), [])

    def test_unbound(self) -> None:
        """A binding that was undone stays undone; the others stay."""
        host = self.start()
        host.queue()
        for key in ("a", "b"):
            host.vhost.bind_queue("q", "amq.direct", key)
        host = self.restart(host)
        host.vhost.unbind_queue("q", "amq.direct", "a")
        host = self.restart(host)
        self.assertEqual([binding.routing_key for binding in host.vhost.bindings()], ["b"])

    def test_what_is_not_durable_is_not_kept(self) -> None:
        """Transient and exclusive queues, transient exchanges and messages end with the broker."""
        host = self.start()
        host.vhost.declare_queue("transient")
        host.vhost.declare_queue("exclusive", durable=True, exclusive=True, owner=object())
        host.vhost.declare_exchange("x", "fanout")
        host.queue()
        host.vhost.bind_queue("q", "x", "")
        properties = BasicProperties(delivery_mode=1)
        answer = host.vhost.publish("", "q", Message.published("", "q", properties, b"transient"), properties)
        self.assertEqual(answer, ROUTED)
        self.assertEqual(host.publish(b"kept"), PENDING)
        self.assertEqual(host.publish(b"transient queue", "transient"), ROUTED)
        host = self.restart(host)
        self.assertEqual(list(host.vhost.queues), ["q"])
        self.assertNotIn("x", host.vhost.exchanges)
        self.assertEqual(host.kept_bodies(), [b"kept"])

    def test_server_named(self) -> None:
        """A queue that the broker named is restored under its reserved name."""
        host = self.start()
        name = host.vhost.declare_queue("", durable=True).name
        self.assertTrue(name.startswith("amq.gen-"))
        host = self.restart(host)
        self.assertEqual(list(host.vhost.queues), [name])

    def test_odd_names(self) -> None:
        """Names that are not UTF-8 come back octet by octet."""
        name = b"\xff\xfe\x00'\"".decode("utf-8", "surrogateescape")
        host = self.start()
        host.queue(name)
        host.publish(b"1", name)
        host = self.restart(host)
        [entry] = host.vhost.queue(name).ready_entries()
        self.assertEqual(entry.message.routing_key, name)

    def test_settings(self) -> None:
        """Settings are kept in their last form."""
        host = self.start()
        for value in (1, 2):
            host.store.put_setting("user", "a", {"n": value})
        host.store.put_setting("user", "b", {})
        host = self.restart(host)
        self.assertEqual(host.store.settings("user"), {"a": {"n": 2}, "b": {}})
        host.store.delete_setting("user", "b")
        host.store.delete_setting("user", "unknown")
        host.store.put_setting("user", "a", {"n": 3})
        host = self.restart(host)
        self.assertEqual(host.store.settings("user"), {"a": {"n": 3}})
        self.assertEqual(host.store.settings("permission"), {})

    def test_setting_that_no_table_can_hold(self) -> None:
        """EncodeError at once, in the caller."""
        host = self.start()
        self.assertRaises(EncodeError, host.store.put_setting, "user", "a", {"n": 2**70})
        self.assertEqual(host.store.settings("user"), {})


class UnusableTests(StoreTestCase):
    """Definitions that this broker cannot restore."""

    def test_unknown_type(self) -> None:
        """An exchange of a type that is gone is reported; its bindings too; the rest is there."""
        host = self.start()
        host.queue()
        table = {"vhost": "/", "name": "x", "type": "x-other", "auto_delete": False, "internal": False, "arguments": {}}
        host.store._put_definition(host.store._new_row(), EXCHANGE, table)
        host.store.bound("/", Binding("x", "q", "queue", ""))
        host.store._put_definition(host.store._new_row(), QUEUE, {"vhost": "gone", "name": "other"})
        host.vhost.bind_queue("q", "amq.fanout")
        host.publish(b"1")
        host = self.restart(host)
        self.assertEqual(len(self.report.damage), 3)
        for damage, name in zip(self.report.damage, ("exchange 'x'", "queue 'other'", "binding to 'q'"), strict=True):
            self.assertIn(name, damage.what)
        self.assertEqual((host.vhost.binding_count, host.kept_bodies()), (1, [b"1"]))
